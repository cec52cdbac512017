# %% [markdown]
# # Tuned lens
# A translator for each layer, trained in the engine so that what it reads out is what the model says in the end (Belrose et al. 2023). Each
# iteration of the loop is a pass, a way back and a step of Adam.
# %%
import pellucid as pl

model = pl.Model("bundled")
texts = [
    "The Eiffel Tower is in the city of Paris.", "When Mary and John went to the store, John gave", "The capital of France is Paris.",
    "The movie was wonderful. I loved it.", "Anna went to the park because she was happy.", "Monday, Tuesday, Wednesday, Thursday",
]
train = [model.tokenizer.encode(text)[:6] for text in texts]
test = [model.tokenizer.encode(text)[:6] for text in ("The capital of Japan is Tokyo.", "When Emma and James went to the park, Emma")]


def streams(tracer):
    return tracer.get("layers.*.input")  # [layers, prompts, length, hidden]


def read(states):
    return model.unembed(model.final_norm(states)).log_softmax(-1)


def divergence(says, lens):
    says = says.log_softmax(-1)
    return (says.exp() * (says - lens)).sum(-1).mean((1, 2))  # [layers]


# %%
start = {"w": pl.zeros(4, 128, 128), "b": pl.zeros(4, 1, 1, 128)}
with model.session() as session:
    with session.train(pl.Optimiser.adam(0.003), start, steps=20) as training:
        with model.trace(train) as tracer:
            h = streams(tracer)
            w, b = training.parameters["w"], training.parameters["b"]
            loss = divergence(model.logits, read(h + h @ w.unsqueeze(1) + b))
            training.backward(loss.sum())
        losses = loss.save()
    w, b = training.parameters["w"], training.parameters["b"]
    with model.trace(test) as tracer:
        h = streams(tracer)
        logit_lens = divergence(model.logits, read(h)).save()
        tuned_lens = divergence(model.logits, read(h + h @ w.unsqueeze(1) + b)).save()
# %%
pl.show.curves({f"into layer {k}": losses[:, k] for k in range(4)}, "The divergence from what the model says, in training")
# %%
print("held out, logit lens:", logit_lens)
print("held out, tuned lens:", tuned_lens)
assert float(losses[-1].sum()) < 0.7 * float(losses[0].sum()) and float(tuned_lens.sum()) < float(logit_lens.sum())
