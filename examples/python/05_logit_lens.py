# %% [markdown]
# # Logit lens
# What would the model say if it stopped here? The last norm and the unembedding, applied to the residual stream at every layer
# (nostalgebraist 2020).
# %%
import pellucid as pl

model = pl.Model("bundled")
prompt = "The Eiffel Tower is in the city of"
# %%
with model.trace(prompt) as tracer:
    streams = tracer.get("layers.*.output")[:, 0]  # [layers, positions, hidden]
    lens = model.unembed(model.final_norm(streams)).save()
    last = lens.log_softmax(-1)
    surprise = (last[-1].exp() * (last[-1] - last)).sum(-1).save()
# %%
pl.show.lens(lens, model.tokenizer.tokens(prompt), model.tokenizer)
# %%
pl.show.heat_map(surprise, [f"layer {k}" for k in range(4)], model.tokenizer.tokens(prompt), "How far each layer is from the last (nats)")
# %%
assert model.tokenizer.decode(lens[-1, -1].argmax()) == " Paris"
