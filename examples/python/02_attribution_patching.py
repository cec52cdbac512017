# %% [markdown]
# # Attribution patching
# The same for all places at once, to first order: the gradient of the difference of logits, times the change (Nanda 2023).
# %%
import pellucid as pl

model = pl.Model("bundled")
clean = "When Mary and John went to the store, John gave a drink to"
corrupted = "When Mary and John went to the store, Mary gave a drink to"
mary, john = model.token(" Mary"), model.token(" John")
# %%
with model.trace() as tracer:
    with tracer.invoke(clean):
        there = [model.layers[layer].input for layer in range(4)]
        logits = model.logits[0, -1]
        best = logits[mary] - logits[john]
    with tracer.invoke(corrupted):
        here = [model.layers[layer].input for layer in range(4)]
        logits = model.logits[0, -1]
        worst = logits[mary] - logits[john]
        with worst.backward():
            effects = [((a - b) * b.grad).sum(-1)[0] / (best - worst) for a, b in zip(there, here)]
            grid = pl.stack(effects).save()
# %%
pl.show.patching(grid, model.tokenizer.tokens(clean), title="What each place would bring back, to first order")
# %%
assert grid[0].argmax().item() == 9
