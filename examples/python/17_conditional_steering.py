# %% [markdown]
# # Conditional steering, early stop
# Steer only where it is needed, stop when done: a comparison, `where`, and `stop` at each step of a generation.
# %%
import pellucid as pl

model = pl.Model("bundled")
things = ["movie", "book", "food", "song", "party", "hotel"]
good, bad = ([f"The {thing} was {word}. I" for thing in things] for word in ("wonderful", "awful"))
with model.trace() as tracer:
    with tracer.invoke(good):
        a = model.layers[2].input[:, -1].mean(0)
    with tracer.invoke(bad):
        b = model.layers[2].input[:, -1].mean(0)
    vector = (a - b).save()
    threshold = (((a + b) * 0.5 * (a - b)).sum() / (a - b).norm()).save()
# %%
prompts = ["The movie was awful. I", "The game was boring and bad. I", "The song was amazing and lovely. I"]
stop = model.tokenizer.encode(".")[0]
axis = vector / vector.norm()
for scale in (0.0, 1.0):
    with model.generate(prompts, max_new_tokens=6, stop_tokens=[]) as tracer:
        with tracer.all():
            here = model.layers[2].input[:, -1].clone()
            projection = (here * axis).sum(-1)
            needed = projection < threshold
            model.layers[2].input[:, -1] = pl.where(needed.unsqueeze(-1), here + vector * scale, here)
            tracer.stop(when=model.logits[:, -1].argmax(-1) == stop)
            steered, projections = needed.save(), projection.save()
        made = tracer.generated.save()
    print(f"{scale} × good − bad, where a step is on the bad side:")
    lines = {}
    for row, (prompt, tokens) in enumerate(zip(prompts, made)):
        print("  ", prompt + model.tokenizer.decode(tokens))
        steps = int((tokens >= 0).sum())  # −1 after a prompt has stopped
        lines[prompt] = [float(each[row]) for each in projections[:steps]]
# %%
pl.show.curves(lines, "From bad to good: where each step lies, before it is steered")
# %%
assert steered[0].tolist() == [True, True, False]
