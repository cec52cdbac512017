# %% [markdown]
# # Ablation
# What is lost without this part? Its output replaced by 0, by its mean over a data set, or by another prompt's.
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


with model.trace(seed=5) as tracer:
    order = pl.randperm(4)
    with tracer.invoke(prompts):
        values = [model.layers[k].attention.mixed for k in range(4)]
        base = difference().save()
    found = []
    for kind in kinds:
        for layer in range(4):
            for head in range(4):
                with tracer.invoke(prompts):
                    value = values[layer][:, :, head]
                    new = {"zero": value * 0, "mean": value.mean(0, keepdim=True), "resample": value.index_select(0, order)}[kind]
                    model.layers[layer].attention.mixed[:, :, head] = new
                    found.append(difference())
    grid = pl.stack(found).reshape(3, 4, 4).save()
# %%
print(f"as it is: {float(base):.2f}")
for kind, each in zip(kinds, grid):
    print(kind)
    print(each)
pl.show.heat_map(
    (base - grid[1]).numpy(), [f"layer {k}" for k in range(4)], [f"head {k}" for k in range(4)], "What is lost when a head gives its mean"
)
# %%
assert float((base - grid).max()) > 0.5
