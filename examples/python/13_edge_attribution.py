# %% [markdown]
# # Edge attribution patching
# Which edges make the circuit? What every component writes, times the gradient at every reader (Syed et al. 2023): one way back, and an `einsum`.
# %%
import pellucid as pl

model = pl.Model("bundled")
clean = "When Mary and John went to the store, John gave a drink to"
corrupted = "When Mary and John went to the store, Mary gave a drink to"
mary, john = model.token(" Mary"), model.token(" John")
senders = ["embeddings"] + [f"{part} {layer}" for layer in range(4) for part in ("attention", "mlp")]
readers = [f"{part} {layer}" for layer in range(4) for part in ("attention", "mlp")] + ["logits"]


def written():
    parts = [model.layers[0].input]
    for layer in range(4):
        parts += [model.layers[layer].attention.output, model.layers[layer].mlp.output]
    return pl.stack(parts)[:, 0]  # [senders, length, hidden]


# %%
with model.trace() as tracer:
    with tracer.invoke(clean):
        there = written()
    with tracer.invoke(corrupted):
        here = written()
        inputs = []
        for layer in range(4):
            inputs += [model.layers[layer].norm_1.input, model.layers[layer].norm_2.input]
        inputs.append(model.final_norm.input)
        logits = model.logits[0, -1]
        with (logits[mary] - logits[john]).backward():
            gradients = pl.stack([value.grad for value in inputs])[:, 0]  # [readers, length, hidden]
    scores = pl.einsum("sld,rld->sr", there - here, gradients).save()
# %% [markdown]
# Only what is written before it is read counts.
# %%
import numpy as np

grid = scores.numpy()
for s in range(len(senders)):
    for r in range(len(readers)):
        if s > r:
            grid[s, r] = 0
pl.show.heat_map(grid, senders, readers, "Edges: who speaks to whom")
# %%
assert np.abs(grid).max() > 0.1
