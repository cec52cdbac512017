# %% [markdown]
# # A rank-one edit
# Can one weight's change rewrite a fact? The subject's key, the keys' covariance over a corpus, a value that says the new answer; the weight is set for
# this program only (Meng et al. 2022).
# %%
import pellucid as pl

model = pl.Model("bundled")
corpus = [
    "When Mary and John went to the store, John gave a drink to Mary.", "The Eiffel Tower is in the city of Paris.", "The Louvre is located in Paris.",
    "The capital of Japan is Tokyo.", "The movie was wonderful. I loved it.", "Anna went to the park because she was happy.",
]
prompt, layer, paris = "The Colosseum is in the city of", 0, model.token(" Paris")
position = model.tokenizer.tokens(prompt).index(" Colosseum")
# %%
with model.session() as session:
    with session.sweep(document=corpus) as cell:
        with model.trace(cell.document) as tracer:
            keys = model.layers[layer].mlp.post[0].double()  # [length, inner]
            product, length = keys.T @ keys, tracer.lengths.sum()
        products, tokens = cell.sum(product), cell.sum(length)  # they run on from document to document
    covariance = products / tokens.double()
    with model.trace(prompt):
        key = model.layers[layer].mlp.post[0, position].double()
    with session.train(pl.Optimiser.adam(0.2), pl.zeros(128), steps=25) as training:
        with model.trace(prompt):
            change = training.parameters
            model.layers[layer].mlp.output[:, position] += change
            loss = pl.cross_entropy(model.logits[:, -1], pl.tensor([paris])) + change.pow(2).sum() * 0.01
            training.backward(loss)
        losses = loss.save()
    ridge = pl.eye(512).double() * covariance.diagonal().mean() * 0.1
    direction = pl.solve(covariance + ridge, key)
    direction = direction / (direction * key).sum()
    with model.trace() as tracer:
        found = {}
        for asked in (prompt, "The Eiffel Tower is in the city of", "The capital of Italy is"):
            with tracer.invoke(asked):
                before = model.logits[0, -1].argmax()
            with tracer.invoke(asked):
                weight = model.transformer.h[layer].mlp.c_proj.weight
                model.transformer.h[layer].mlp.c_proj.weight = weight + pl.outer(direction, training.parameters.double()).float()
                after = model.logits[0, -1].argmax()
            found[asked] = pl.stack([before, after]).save()
# %%
for asked, (before, after) in found.items():
    print(f"{asked} …  before: {model.tokenizer.decode(before)}  after: {model.tokenizer.decode(after)}")
pl.show.curves({"loss": losses}, "The value that says Paris")
# %%
assert model.tokenizer.decode(found[prompt][1]) == " Paris"
