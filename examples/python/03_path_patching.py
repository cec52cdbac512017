# %% [markdown]
# # Path patching
# Which heads speak to the logits directly? Everything else is frozen as in the clean run; one head at a time is as in the corrupted one;
# what then arrives at the last norm is put into a clean run (Goldowsky-Dill et al. 2023).
# %%
import pellucid as pl

model = pl.Model("bundled")
clean = "When Mary and John went to the store, John gave a drink to"
corrupted = "When Mary and John went to the store, Mary gave a drink to"
mary, john = model.token(" Mary"), model.token(" John")


def difference():
    logits = model.logits[0, -1]
    return logits[mary] - logits[john]


# %%
with model.trace() as tracer:
    with tracer.invoke(clean):
        mixed = [model.layers[layer].attention.mixed for layer in range(4)]
        mlps = [model.layers[layer].mlp.output for layer in range(4)]
        best = difference()
    with tracer.invoke(corrupted):
        other = [model.layers[layer].attention.mixed for layer in range(4)]
        worst = difference()
    lost = []
    for sender in range(4):
        for head in range(4):
            with tracer.invoke(clean):
                for layer in range(4):
                    model.layers[layer].attention.mixed = mixed[layer]
                    if layer == sender:
                        model.layers[layer].attention.mixed[:, :, head] = other[layer][:, :, head]
                    model.layers[layer].mlp.output = mlps[layer]
                arrives = model.final_norm.input
            with tracer.invoke(clean):
                model.final_norm.input = arrives
                lost.append((best - difference()) / (best - worst))
    grid = pl.stack(lost).reshape(4, 4).save()
# %%
pl.show.heat_map(
    grid, [f"layer {k}" for k in range(4)], [f"head {k}" for k in range(4)],
    "The share of the answer that is lost when a head speaks falsely to the last norm",
)
# %%
assert float(grid.max()) > 0.1
