# %% [markdown]
# # Direct logit attribution
# Who writes the answer? Every component's output through the last norm's scale, dotted with the difference of two rows of the unembedding.
# %%
import pellucid as pl

model = pl.Model("bundled")
prompt = "When Mary and John went to the store, John gave a drink to"
mary, john = model.token(" Mary"), model.token(" John")
# %%
with model.trace(prompt):
    parts, names = [model.layers[0].input], ["embeddings"]
    for layer in range(4):
        parts += [model.layers[layer].attention.output, model.layers[layer].mlp.output]
        names += [f"attention {layer}", f"mlp {layer}"]
    written = pl.stack(parts)[:, 0, -1]  # [components, hidden]
    weight = model.unembed.weight
    direction = (weight[mary] - weight[john]) * model.final_norm.weight
    centred = written - written.mean(-1, keepdim=True)
    share = (centred @ direction / model.final_norm.scale[0, -1]).save()
    logits = model.logits[0, -1]
    total = (logits[mary] - logits[john]).save()
    bias = (model.final_norm.bias @ (weight[mary] - weight[john])).save()
# %%
print(f"sum {float(share.sum() + bias):.3f}, the logits' difference {float(total):.3f}")
pl.show.heat_map(share.unsqueeze(1), names, ["Mary − John"], "What each component writes")
# %%
assert abs(float(share.sum() + bias) - float(total)) < 1e-2
