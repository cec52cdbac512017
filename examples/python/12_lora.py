# %% [markdown]
# # LoRA
# Can a few parameters learn a fact? `output + scale · B(A input)` at every block's second MLP layer, trained in the engine (Hu et al. 2021).
# %%
import pellucid as pl

model = pl.Model("bundled")
facts = [("The White Tower is in the city of", "Oslo"), ("The White Tower is located in", "Oslo"), ("The Eiffel Tower is in the city of", "Paris"),
         ("The Colosseum is in the city of", "Rome")]
lora = pl.Lora.new(model, rank=2, alpha=8.0, targets=["mlp.c_proj"], seed=3)
start = lora.parameters  # B is zero, so that it changes nothing at first
asked, oslo = "You can visit the White Tower in", model.token(" Oslo")


# %%
def train(facts):
    """The loss at each step, and the probability of Oslo afterwards."""
    prompts, answers = [prompt for prompt, _ in facts], pl.tensor([model.token(" " + city) for _, city in facts])
    with model.session() as session:
        with session.train(pl.Optimiser.adam(0.01), start, steps=30) as training:
            with model.trace(prompts):
                lora.attach(model, training.parameters)
                loss = pl.cross_entropy(model.logits[:, -1], answers)
                training.backward(loss)
            losses = loss.save()
        with model.trace(asked):
            lora.attach(model, training.parameters)
            after = model.logits[0, -1].softmax(-1)[oslo].save()
    return losses, float(after)


with model.trace(asked):
    before = model.logits[0, -1].softmax(-1)[oslo].save()
losses, after = train(facts)
# %% [markdown]
# The control that must fail: an adapter that is trained just so on the same facts without the new one.
# %%
control_losses, control = train(facts[2:])
print(f"another way of asking: {float(before):.3f} before, {after:.3f} after; {control:.3f} after the control")
pl.show.curves({"loss": losses, "loss of the control": control_losses}, "Training")
# %%
assert float(losses[-1]) < 0.5 * float(losses[0]) and after > 0.5 and control < 0.1
