# %% [markdown]
# # Activation patching
# Which places carry what tells two prompts apart? At every layer and position the clean run's residual stream is put into the corrupted
# run (Wang et al. 2022). All of it is one trace, planned and run as a whole.
# %%
import pellucid as pl

model = pl.Model("bundled")
clean = "When Mary and John went to the store, John gave a drink to"
corrupted = "When Mary and John went to the store, Mary gave a drink to"
mary, john = model.token(" Mary"), model.token(" John")
tokens = model.tokenizer.tokens(clean)
# %%
with model.trace() as tracer:
    with tracer.invoke(clean) as clean_run:
        streams = [model.layers[layer].input for layer in range(4)]
        logits = model.logits[0, -1]
        best = logits[mary] - logits[john]
    with tracer.invoke(corrupted):
        logits = model.logits[0, -1]
        worst = logits[mary] - logits[john]
    shares = []
    for layer in range(4):
        for position in range(len(tokens)):
            with tracer.invoke(corrupted):
                model.layers[layer].input[:, position] = streams[layer][:, position]
                logits = model.logits[0, -1]
                shares.append((logits[mary] - logits[john] - worst) / (best - worst))
    grid = pl.stack(shares).reshape(4, len(tokens)).save()
# %%
pl.show.patching(grid, tokens)
# %% [markdown]
# Early layers hold it at the second name, the last layer at the last position.
# %%
assert float(grid[0, 9]) > 0.9 and float(grid[3, -1]) > 0.5
