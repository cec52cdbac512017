# %% [markdown]
# # Attention knock-out
# Does the answer need this edge? Scores set to −∞ before the softmax (Geva et al. 2023).
# %%
import pellucid as pl

model = pl.Model("bundled")
prompt = "The Eiffel Tower is in the city of"
paris, tokens = model.token(" Paris"), model.tokenizer.tokens(prompt)
windows = [[0], [1], [2], [3], [0, 1, 2, 3]]
# %%
with model.trace() as tracer:
    with tracer.invoke(prompt):
        base = model.logits[0, -1].softmax(-1)[paris].save()
    found = []
    for window in windows:
        with tracer.sweep(key=range(len(tokens) - 1)) as cell:
            with cell.invoke(prompt):
                for layer in window:
                    model.layers[layer].attention.scores[:, :, -1, cell.key] = float("-inf")
                found.append(cell.collect(model.logits[0, -1].softmax(-1)[paris]))
    grid = pl.stack(found).save()  # [windows, keys]
# %%
print(f"as it is: {float(base):.3f}")
pl.show.heat_map(
    grid.T, tokens[:-1], [f"in {window}" for window in windows], "The probability of Paris when the last position cannot look at a token", full=1.0
)
# %%
assert float(grid.min()) < 0.5 * float(base)
