# %% [markdown]
# # Soft prompts
# Can a few virtual tokens say which task is meant? They take the embeddings' place at the prompt's beginning, and are trained (Lester et al. 2021).
# %%
import pellucid as pl

model = pl.Model("bundled")


def data(facts):
    return [[0, 0, 0, 0, *model.tokenizer.encode(f"{country}:")] for country, _ in facts], pl.tensor([model.token(" " + capital) for _, capital in facts])


train = data([("France", "Paris"), ("Italy", "Rome"), ("Egypt", "Cairo"), ("Japan", "Tokyo"), ("Cuba", "Havana"), ("Norway", "Oslo")])
test = data([("Poland", "Warsaw"), ("Peru", "Lima"), ("Korea", "Seoul"), ("Spain", "Madrid")])


def answers_of(soft, data):
    # Prompts of unequal length end together: the virtual tokens stand where each begins.
    value = model.embed.output
    for row, tokens in enumerate(data[0]):
        start = max(map(len, data[0])) - len(tokens)
        value[row, start : start + 4] = soft
    return model.logits[:, -1]


# %%
with model.session(seed=2) as session:
    start = pl.randn(4, 128) * 0.1
    with session.train(pl.Optimiser.adam(0.03), start, steps=25) as training:
        with model.trace(train[0]):
            loss = pl.cross_entropy(answers_of(training.parameters, train), train[1])
            training.backward(loss)
        losses = loss.save()
    with model.trace(test[0]):
        says = answers_of(training.parameters, test).argmax(-1).save()
# %%
print([model.tokenizer.decode(token) for token in says])
pl.show.curves({"loss": losses}, "Training")
# %%
assert float(losses[-1]) < 0.7 * float(losses[0])
