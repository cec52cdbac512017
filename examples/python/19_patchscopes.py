# %% [markdown]
# # Patchscopes
# What does another prompt make of this state? A session of two traces: a state of the first goes into a generation of the second (Ghandeharioun et al. 2024).
# %%
import pellucid as pl

model = pl.Model("bundled")
source, target = "The Eiffel Tower is in the city of", "The capital of Japan is"
paris = model.token(" Paris")
# %%
with model.session():
    with model.trace(source) as tracer:
        states = tracer.get("layers.*.input")[:, 0, -1]  # [layers, hidden]
    with model.generate(max_new_tokens=2) as tracer:
        with tracer.sweep(state=states, layer=range(4)) as cell:
            with cell.invoke(target):
                model.layers[cell.layer].input[:, -1] = cell.state
                grid = model.logits[0, -1].softmax(-1)[paris].save()  # [from, into]
                made = tracer.generated[0].save()
# %%
print([model.tokenizer.decode(tokens) for tokens in made[3]])
pl.show.heat_map(grid, [f"from layer {k}" for k in range(4)], [f"into {k}" for k in range(4)], "The probability of Paris", full=1.0)
# %%
assert float(grid[3, 3]) > 0.5
