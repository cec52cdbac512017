# %% [markdown]
# # Linear probes
# Can a property be read off a hidden state? Logistic probes of all layers, trained in one session in the engine (Alain & Bengio 2016).
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
def states(tracer):
    return tracer.get("layers.*.input")[:, :, -1]  # [layers, prompts, hidden]


with model.session() as session:
    with model.trace(train) as tracer:
        seen = states(tracer)
    mean, deviation = seen.mean(1, keepdim=True), seen.std(1, unbiased=False, keepdim=True) + 1e-3
    goals = labels.expand(4, -1)
    with session.loop(60, carry={"w": pl.zeros(4, 128), "b": pl.zeros(4)}) as loop:
        with model.trace(train) as tracer:
            x = (states(tracer) - mean) / deviation
            w, b = loop.w, loop.b
            logits = (x @ w.unsqueeze(-1)).squeeze(-1) + b.unsqueeze(-1)
            loss = pl.binary_cross_entropy_with_logits(logits, goals, reduction="none").mean(-1)
            with (loss + w.pow(2).sum(-1) * 0.005).sum().backward():
                gw, gb = w.grad, b.grad
        loop.next(w=pl.sgd_step(w, gw, 0.5)[0], b=pl.sgd_step(b, gb, 0.5)[0])
        losses = loss.save()
    with model.trace(test) as tracer:
        x = (states(tracer) - mean) / deviation
        says = (x @ loop.w.unsqueeze(-1)).squeeze(-1) + loop.b.unsqueeze(-1)
        right = ((says > 0) == (truth > 0.5)).float().mean(-1).save()
# %%
pl.show.curves({f"layer {k}": losses[:, k] for k in range(4)}, "Loss")
# %%
print("right on new prompts, by layer:", right)
assert float(right.max()) > 0.8 and float(losses[-1].min()) < 0.2
