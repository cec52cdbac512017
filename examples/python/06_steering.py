# %% [markdown]
# # Steering vectors
# Can a direction turn what it writes? The difference of means over paired prompts, added at the last token and at every new one
# (Turner et al. 2023).
# %%
import pellucid as pl

model = pl.Model("bundled")
things = ["movie", "book", "food", "song", "party", "hotel"]


def reviews(words):
    return [f"The {thing} was {word}. I" for thing in things for word in words]


with model.trace() as tracer:
    with tracer.invoke(reviews(["wonderful", "great", "excellent"])):
        good = model.layers[2].input[:, -1].mean(0)
    with tracer.invoke(reviews(["awful", "terrible", "horrible"])):
        bad = model.layers[2].input[:, -1].mean(0)
    vector = (good - bad).save()
# %% [markdown]
# It is a file like any other, and the Rust library reads it too.
# %%
import tempfile, pathlib

path = pathlib.Path(tempfile.mkdtemp()) / "good.safetensors"
pl.Steering("layers.2.input", vector, positions=slice(-1, None)).save(path)
# %%
prompt = "The show was boring. I"
scales, texts, probabilities = [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5], [], []
for scale in scales:
    steering = pl.Steering.load(path)
    steering.scale = scale
    with model.generate(prompt, max_new_tokens=3, stop_tokens=[]) as tracer:
        steering.apply(tracer)
        loved = model.logits[0, -1].softmax(-1)[model.token(" loved")].save()
        made = tracer.generated.save()
    texts.append(prompt + model.tokenizer.decode(made))
    probabilities.append(float(loved))
# %%
pl.show.steering(scales, {"the probability of “ loved”": probabilities}, "good − bad", texts)
# %%
assert probabilities[-1] > probabilities[0]
