# %% [markdown]
# # Distributed alignment search
# Which subspace holds a variable? An orthonormal basis is trained, through the model, so that exchanging what lies in it between two prompts
# exchanges the answer (Geiger et al. 2023).
# %%
import pellucid as pl

model = pl.Model("bundled")
pairs = [("Mary", "John"), ("Emma", "James"), ("Mary", "James"), ("Emma", "John")]


def sentence(a, b, giver, place, thing):
    return f"When {a} and {b} went to the {place}, {giver} gave a {thing} to"


def data(settings):
    bases, sources, answers, wrongs = [], [], [], []
    for one, other in pairs:
        for place, thing in settings:
            for gives, gets in ((one, other), (other, one)):
                bases.append(sentence(one, other, gives, place, thing))
                sources.append(sentence(one, other, gets, place, thing))
                answers.append(model.token(" " + gives))
                wrongs.append(model.token(" " + gets))
    return bases, sources, pl.tensor(answers), pl.tensor(wrongs)


train, test = data([("store", "drink"), ("park", "book")]), data([("school", "ball")])
layer, position, width = 1, 9, 8
# %%
def exchange(free, source):
    basis = free.qr().Q
    here = model.layers[layer].input[:, position].clone()
    model.layers[layer].input[:, position] = here + (source - here) @ basis @ basis.T
    return model.logits[:, -1]


with model.session(seed=1) as session:
    with model.trace() as tracer:
        with tracer.invoke(train[1]):
            train_sources = model.layers[layer].input[:, position].clone()
        with tracer.invoke(test[1]):
            test_sources = model.layers[layer].input[:, position].clone()
    start = pl.randn(128, width)
    with session.train(pl.Optimiser.adam(0.05), start, steps=25) as training:
        with model.trace(train[0]):
            loss = pl.cross_entropy(exchange(training.parameters, train_sources), train[2])
            training.backward(loss)
        losses = loss.save()
    with model.trace(test[0]):
        logits = exchange(training.parameters, test_sources)
        every = pl.arange(len(test[0]))
        margin = (logits[every, test[2]] - logits[every, test[3]]).save()
# %%
print("held-out pairs whose answer is exchanged:", float((margin > 0).float().mean()))
pl.show.curves({"loss": losses}, "Training")
# %%
assert float(losses[-1]) < float(losses[0]) and float((margin > 0).float().mean()) > 0.7
