# %% [markdown]
# # A sparse autoencoder
# What does a state say, in features? The autoencoder that comes with the bundled model, spliced in with its error; its strongest features
# ablated one by one.
# %%
import json, pathlib, struct

import numpy as np
import pellucid as pl

model = pl.Model("bundled")
folder = next(path / "models/tiny-gpt2/sae" for path in [pathlib.Path.cwd(), *pathlib.Path.cwd().parents] if (path / "models/tiny-gpt2/sae").is_dir())
data = (folder / "sae_weights.safetensors").read_bytes()
length = struct.unpack("<Q", data[:8])[0]
weights = {
    name: pl.tensor(np.frombuffer(data[8 + length :][slice(*about["data_offsets"])], np.float32).reshape(about["shape"]))
    for name, about in json.loads(data[8 : 8 + length]).items() if name != "__metadata__"
}
hook = json.loads((folder / "cfg.json").read_text()).get("hook_name", "blocks.2.hook_resid_pre")
layer = int(hook.split(".")[1])
print(hook, {name: list(value.shape) for name, value in weights.items()})


def encode(x):
    return ((x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]).relu()


def decode(f):
    return f @ weights["W_dec"] + weights["b_dec"]


# %%
prompt, top = "The movie was awful. I", 6
loved, hated = model.token(" loved"), model.token(" hated")
with model.trace() as tracer:
    with tracer.invoke(prompt):
        x = model.layers[layer].input
        features = encode(x)
        strongest = features[0, -1].topk(top)
        error = ((x - decode(features)).pow(2).sum(-1) / x.pow(2).sum(-1)).save()
        logits = model.logits[0, -1]
        base = (logits[hated] - logits[loved]).save()
    changes = []
    for rank in range(top):
        with tracer.invoke(prompt):
            x = model.layers[layer].input
            f = encode(x)
            without = pl._operations.index_put(f, (slice(None), -1, strongest.indices[rank]), 0.0)
            model.layers[layer].input = x + decode(without) - decode(f)  # the error stays
            logits = model.logits[0, -1]
            changes.append(logits[hated] - logits[loved] - base)
    effect = pl.stack(changes).save()
    places, strengths = strongest.indices.save(), strongest.values.save()
# %%
pl.show.heat_map(
    np.stack([strengths, effect], 1), [f"feature {int(k)}" for k in places], ["strength", "change of hated − loved without it"], "The strongest features of the last token",
)
# %%
print("the part of each position's square that it leaves out:", error)
assert float(strengths[0]) > 0
