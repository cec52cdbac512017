# %% [markdown]
# # Directions
# What direction does a concept have? The first singular vector of paired differences; then projected out (Zou et al. 2023, Arditi et al. 2024).
# %%
import pellucid as pl

model = pl.Model("bundled")
things = ["movie", "book", "food", "song", "party", "hotel"]
good, bad = ([f"The {thing} was {word}. I" for thing in things] for word in ("wonderful", "awful"))
with model.trace() as tracer:
    with tracer.sweep(pair={"good": good, "bad": bad}) as cell:  # the two go along together
        with cell.invoke(cell.good):
            a = model.layers[2].input[0, -1]
        with cell.invoke(cell.bad):
            b = model.layers[2].input[0, -1]
        differences, mean = cell.collect(a - b), cell.mean(a - b)  # [pairs, hidden], [hidden]
    found = pl.svd(differences, False)
    direction, values = found.Vh[0].save(), found.S.save()
    cosine = ((direction * mean).sum() / mean.norm()).abs().save()
# %%
print("singular values:", values)
print(f"cosine with the mean difference: {float(cosine):.4f}")
loved, hated = model.token(" loved"), model.token(" hated")
with model.trace() as tracer:
    with tracer.invoke("The game was awful. I"):
        plain = model.logits[0, -1]
        before = (plain[hated] - plain[loved]).save()
    with tracer.invoke("The game was awful. I"):
        h = model.layers[2].input
        model.layers[2].input = h - (h @ direction).unsqueeze(-1) * direction
        without = model.logits[0, -1]
        after = (without[hated] - without[loved]).save()
print(f"hated − loved: {float(before):.2f}; without the direction {float(after):.2f}")
# %%
assert abs(float(after)) < abs(float(before))
