# %% [markdown]
# # Function vectors
# Which heads carry a relation? Heads' outputs at the last position, averaged over prompts that show the relation, are put one by one into prompts
# in which the examples are confused (Todd et al. 2023).
# %%
import pellucid as pl

model = pl.Model("bundled")
capitals = [("France", "Paris"), ("Italy", "Rome"), ("Egypt", "Cairo"), ("Japan", "Tokyo"), ("Cuba", "Havana"), ("Norway", "Oslo")]


def prompt(at, confused):
    examples = [capitals[(at + 1) % 6], capitals[(at + 2) % 6]]
    answers = [b for _, b in examples]
    if confused:
        answers = [capitals[(at + 4) % 6][0], capitals[(at + 5) % 6][0]]
    return "".join(f"{a}: {b}. " for (a, _), b in zip(examples, answers)) + f"{capitals[at][0]}:"


clear, confused = [prompt(k, False) for k in range(6)], [prompt(k, True) for k in range(6)]
answers = pl.tensor([model.token(" " + capital) for _, capital in capitals])
every = pl.arange(6)
# %%
def probability():
    return model.logits[:, -1].softmax(-1)[every, answers].mean()


with model.trace() as tracer:
    with tracer.invoke(clear):
        means = tracer.get("layers.*.attention.mixed")[:, :, -1].mean(1)  # [layers, heads, head size]
        clear_probability = probability().save()
    with tracer.invoke(confused):
        base = probability().save()
    with tracer.sweep(layer=range(4), head=range(4)) as cell:
        with cell.invoke(confused):
            model.layers[cell.layer].attention.mixed[:, -1, cell.head] = means[cell.layer, cell.head]
            effect = cell.collect(probability() - base)
    grid = effect.save()
    best = effect.flatten().topk(4).indices.save()
    rows = pl.stack([model.transformer.h[layer].attn.c_proj.weight for layer in range(4)]).unflatten(1, (4, -1))
    written = pl.einsum("lhd,lhdo->lho", means, rows).flatten(0, 1)
    vector = written.index_select(0, best).sum(0).save()
# %%
print(f"with clear examples {float(clear_probability):.3f}, with confused ones {float(base):.3f}; the vector's norm is {float(vector.norm()):.2f}")
pl.show.heat_map(grid, [f"layer {k}" for k in range(4)], [f"head {k}" for k in range(4)], "What each head's mean brings")
# %%
assert vector.shape == (128,) and float(grid.max()) > 0
