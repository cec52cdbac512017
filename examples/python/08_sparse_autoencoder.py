# %% [markdown]
# # A sparse autoencoder
# What does a state say, in features? The autoencoder that comes with the bundled model, spliced in with its error; its strongest features
# ablated one by one.
# %%
import pathlib

import numpy as np
import pellucid as pl

model = pl.Model("bundled")
folder = next(path / "models/tiny-gpt2/sae" for path in [pathlib.Path.cwd(), *pathlib.Path.cwd().parents] if (path / "models/tiny-gpt2/sae").is_dir())
autoencoder = pl.SparseAutoencoder(folder)
hook = autoencoder.hook_point(model)
print(autoencoder, hook)
# %%
prompt, top = "The movie was awful. I", 6
loved, hated = model.token(" loved"), model.token(" hated")
with model.trace() as tracer:
    with tracer.invoke(prompt):
        read = autoencoder.read(model)
        strongest = read.features[0, -1].topk(top)
        error = (read.error.pow(2).sum(-1) / model[hook].pow(2).sum(-1)).save()
        logits = model.logits[0, -1]
        base = (logits[hated] - logits[loved]).save()
    with tracer.sweep(feature=strongest.indices) as cell:
        with cell.invoke(prompt):
            with autoencoder.splice(model) as splice:
                splice.features[:, -1, cell.feature] = 0.0  # the error stays
            logits = model.logits[0, -1]
            effect = (logits[hated] - logits[loved] - base).save()
    places, strengths = strongest.indices.save(), strongest.values.save()
# %%
pl.show.heat_map(
    np.stack([strengths, effect], 1), [f"feature {int(k)}" for k in places], ["strength", "change of hated − loved without it"], "The strongest features of the last token",
)
# %%
print("the part of each position's square that it leaves out:", error)
assert float(strengths[0]) > 0
