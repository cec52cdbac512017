# %% [markdown]
# # Causal tracing
# Where is a fact looked up? Seeded noise drowns the subject; one state at a time is restored (Meng et al. 2022).
# %%
import pellucid as pl

model = pl.Model("bundled")
prompt = "The Eiffel Tower is in the city of"
paris = model.token(" Paris")
tokens = model.tokenizer.tokens(prompt)
samples, subject = 10, slice(1, 5)
# %%
with model.trace(seed=0) as tracer:
    with tracer.invoke(prompt) as clean_run:
        clean = model.logits[0, -1].softmax(-1)[paris].save()
    noise = pl.randn(samples, 4, 128) * 0.25

    def drowned():
        model.embed.output[:, subject] += noise

    with tracer.invoke([prompt] * samples):
        drowned()
        noised = model.logits[:, -1].softmax(-1)[:, paris].mean().save()
    with tracer.sweep(layer=range(4), position=range(len(tokens))) as cell:
        with clean_run:
            state = model.layers[cell.layer].output[:, cell.position]
        with cell.invoke([prompt] * samples):
            drowned()
            model.layers[cell.layer].output[:, cell.position] = state
            grid = model.logits[:, -1].softmax(-1)[:, paris].mean().save()  # [layers, positions]
# %%
print(f"The probability of Paris is {float(clean):.3f}; with noise on the subject {float(noised):.3f}.")
pl.show.heat_map(grid.T, tokens, [f"layer {k}" for k in range(4)], "The probability of Paris, one state restored", full=1.0)
# %%
assert float(noised) < 0.5 * float(clean) and float(grid.max()) > float(noised)
