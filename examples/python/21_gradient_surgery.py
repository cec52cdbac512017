# %% [markdown]
# # Gradient surgery
# What does the gradient come through? One layer's gradient set to 0, another's doubled, on the way back.
# %%
import pellucid as pl

model = pl.Model("bundled")
prompt = "When Mary and John went to the store, John gave a drink to"
mary, john = model.token(" Mary"), model.token(" John")


def lengths(edit):
    with model.trace(prompt):
        early = model.layers[1].input
        attention, mlp = model.layers[2].attention.output, model.layers[1].mlp.output
        logits = model.logits[0, -1]
        with (logits[mary] - logits[john]).backward():
            edit(attention, mlp)
            out = early.grad[0].norm(dim=-1).save()
    return out


def no_attention(attention, mlp):
    attention.grad[:] = 0


def twice_the_mlp(attention, mlp):
    mlp.grad *= 2


# %%
found = {"as it is": lengths(lambda *_: None), "nothing through layer 2's attention": lengths(no_attention), "twice through layer 1's MLP": lengths(twice_the_mlp)}
pl.show.heat_map(
    pl.stack(list(found.values())).T, model.tokenizer.tokens(prompt), list(found), "The length of the gradient at layer 1's input"
)
# %%
assert float(found["nothing through layer 2's attention"][9]) < float(found["as it is"][9])
