# %% [markdown]
# # Ablation
# What is lost without this part? A head's output replaced by 0, by its mean over a data set, or by another prompt's; a whole MLP skipped.
# %%
import pellucid as pl

model = pl.Model("bundled")
people = [("Mary", "John"), ("Alice", "James"), ("Emma", "Robert"), ("Anna", "David")]
prompts = [f"When {a} and {b} went to the store, {b} gave a drink to" for a, b in people]
answers, wrongs = (pl.tensor([model.token(" " + pair[k]) for pair in people]) for k in (0, 1))
every = pl.arange(4)
kinds = ["zero", "mean", "resample"]
# %%
def difference():
    logits = model.logits[:, -1]
    return (logits[every, answers] - logits[every, wrongs]).mean()


with model.session(seed=5) as session:
    with session.sweep(prompt=prompts) as cell:
        with model.trace(cell.prompt) as tracer:
            mixed = tracer.get("layers.*.attention.mixed")[:, 0]
        means = cell.mean(mixed)  # [layers, length, heads, head size]
    with model.trace() as tracer:
        with tracer.invoke(prompts):
            values = tracer.get("layers.*.attention.mixed")  # [layers, prompts, length, heads, head size]
            base = difference().save()
        zero = values * 0
        replacements = pl.stack([zero, zero + means.unsqueeze(1), values.index_select(1, pl.randperm(4))])
        with tracer.sweep(kind=replacements, layer=range(4), head=range(4)) as cell:
            with cell.invoke(prompts):
                new = cell.kind[cell.layer]
                model.layers[cell.layer].attention.mixed[:, :, cell.head] = new[:, :, cell.head]
                grid = difference().save()  # [kinds, layers, heads]
        with tracer.sweep(layer=range(4)) as cell:
            with cell.invoke(prompts):
                model.layers[cell.layer].mlp.skip(0.0)
                without_mlp = difference().save()  # [layers]
# %%
print(f"as it is: {float(base):.2f}")
for kind, each in zip(kinds, grid):
    print(kind)
    print(each)
print("without a layer's MLP:", without_mlp)
pl.show.heat_map(
    (base - grid[1]).numpy(), [f"layer {k}" for k in range(4)], [f"head {k}" for k in range(4)], "What is lost when a head gives its mean"
)
# %%
assert float((base - grid).max()) > 0.5
