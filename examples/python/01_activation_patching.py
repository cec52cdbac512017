# %% [markdown]
# # Activation patching
# Which places carry what tells two prompts apart? At every layer and position the clean run's residual stream is put into the corrupted
# run (Wang et al. 2022): one sweep, a body that is written once and planned and run as a whole.
# %%
import pellucid as pl

model = pl.Model("bundled")
clean = "When Mary and John went to the store, John gave a drink to"
corrupted = "When Mary and John went to the store, Mary gave a drink to"
mary, john = model.token(" Mary"), model.token(" John")
tokens = model.tokenizer.tokens(clean)


def difference():
    logits = model.logits[0, -1]
    return logits[mary] - logits[john]


# %%
with model.trace() as tracer:
    with tracer.invoke(clean) as clean_run:
        best = difference()
    with tracer.invoke(corrupted):
        worst = difference()
    with tracer.sweep(layer=range(4), position=range(len(tokens))) as cell:
        with clean_run:
            source = model.layers[cell.layer].input[:, cell.position]
        with cell.invoke(corrupted):
            model.layers[cell.layer].input[:, cell.position] = source
            grid = ((difference() - worst) / (best - worst)).save()  # [layers, positions]
# %%
pl.show.patching(grid, tokens)
# %% [markdown]
# Early layers hold it at the second name, the last layer at the last position.
# %%
assert float(grid[0, 9]) > 0.9 and float(grid[3, -1]) > 0.5
