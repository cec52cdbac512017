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
    with model.trace(source):
        states = [model.layers[layer].input[:, -1] for layer in range(4)]
    with model.generate(max_new_tokens=2) as tracer:
        found, made = [], []
        for state in states:
            for layer in range(4):
                with tracer.invoke(target):
                    model.layers[layer].input[:, -1] = state
                    found.append(model.logits[0, -1].softmax(-1)[paris])
                    made.append(tracer.generated.save())
        grid = pl.stack(found).reshape(4, 4).save()
# %%
print([model.tokenizer.decode(tokens) for tokens in made[-4:]])
pl.show.heat_map(grid, [f"from layer {k}" for k in range(4)], [f"into {k}" for k in range(4)], "The probability of Paris", full=1.0)
# %%
assert float(grid[3, 3]) > 0.5
