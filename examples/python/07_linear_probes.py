# %% [markdown]
# # Linear probes
# Can a property be read off a hidden state? A sweep reads all layers over a data set, batch by batch; logistic probes are trained on that, in the
# same session in the engine (Alain & Bengio 2016).
# %%
import pellucid as pl

model = pl.Model("bundled")
women = ["Mary", "Alice", "Emma", "Laura", "Anna", "Julia", "Helen", "Susan", "Karen", "Nancy"]
men = ["John", "James", "Robert", "Michael", "David", "William", "Thomas", "Daniel", "Paul", "Steven"]


def data(place, thing):
    prompts, labels = [], []
    for at, (woman, man) in enumerate(zip(women, men)):
        for receiver, giver, label in ((woman, men[(at + 4) % 10], 1.0), (man, women[(at + 3) % 10], 0.0)):
            prompts.append(f"When {receiver} and {giver} went to the {place}, {giver} gave a {thing} to")
            labels.append(label)
    return prompts, pl.tensor(labels)


(train, labels), (test, truth) = data("store", "drink"), data("park", "book")
# %%
def read(prompts):
    """What every layer is given at the last position, `[prompts, layers, hidden]`; its mean and its variance."""
    with session.sweep(batch=[prompts[at : at + 5] for at in range(0, len(prompts), 5)]) as cell:
        with model.trace(cell.batch) as tracer:
            states = tracer.get("layers.*.input")[:, :, -1].transpose(0, 1)
        mean, variance = cell.mean(states, dim=0), cell.reduce("var", states, dim=0, correction=0)
        states = cell.collect(states)
    return states.flatten(0, 1), mean, variance


with model.session() as session:
    (seen, mean, variance), (unseen, _, _) = read(train), read(test)
    x, y = ((states - mean) / (variance.sqrt() + 1e-3) for states in (seen, unseen))
    goals = labels.unsqueeze(-1).expand(-1, 4)
    with session.train(pl.Optimiser.sgd(0.5), {"w": pl.zeros(4, 128), "b": pl.zeros(4)}, steps=60) as training:
        w, b = training.parameters["w"], training.parameters["b"]
        logits = (x * w).sum(-1) + b  # [prompts, layers]
        losses = pl.binary_cross_entropy_with_logits(logits, goals, reduction="none").mean(0).save()
        training.backward(losses.sum() + (w**2).sum() * 0.005)  # no model is needed for it
    says = (y * training.parameters["w"]).sum(-1) + training.parameters["b"]
    right = ((says > 0) == (truth > 0.5).unsqueeze(-1)).float().mean(0).save()
# %%
pl.show.curves({f"layer {k}": losses[:, k] for k in range(4)}, "Loss")
# %%
print("right on new prompts, by layer:", right)
assert float(right.max()) > 0.8 and float(losses[-1].min()) < 0.2
