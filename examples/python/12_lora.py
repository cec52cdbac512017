# %% [markdown]
# # LoRA
# Can a few parameters learn a fact? `output + scale · B(A input)` at every block's second MLP layer, trained in the engine (Hu et al. 2021).
# %%
import pellucid as pl

model = pl.Model("bundled")
facts = [("The White Tower is in the city of", "Oslo"), ("The White Tower is located in", "Oslo"), ("The Eiffel Tower is in the city of", "Paris"),
         ("The Colosseum is in the city of", "Rome")]
prompts, answers = [prompt for prompt, _ in facts], pl.tensor([model.token(" " + city) for _, city in facts])
rank, scale = 2, 4.0
# %%
def adapt(parameters):
    for layer in range(4):
        module = model.transformer.h[layer].mlp.c_proj
        module.output = module.output + module.input @ parameters[f"a{layer}"].T @ parameters[f"b{layer}"].T * scale


with model.session(seed=3) as session:
    start = {}
    for layer in range(4):
        start[f"a{layer}"] = pl.randn(rank, 512) * 0.05
        start[f"b{layer}"] = pl.zeros(128, rank)  # so that it changes nothing at first
    state = {f"{name}_{part}": value * 0 for name, value in start.items() for part in ("mean", "square")}
    with session.loop(30, carry={**start, **state}) as loop:
        with model.trace(prompts):
            parameters = {name: loop[name] for name in start}
            adapt(parameters)
            loss = pl.cross_entropy(model.logits[:, -1], answers)
            with loss.backward():
                gradients = {name: value.grad for name, value in parameters.items()}
        for name in start:
            new, mean, square = pl.adam_step(loop[name], gradients[name], loop[f"{name}_mean"], loop[f"{name}_square"], loop.i + 1, 0.01)
            loop.next(**{name: new, f"{name}_mean": mean, f"{name}_square": square})
        losses = loss.save()
    with model.trace("You can visit the White Tower in") as tracer:
        before = model.logits[0, -1].softmax(-1)[model.token(" Oslo")].save()
    with model.trace("You can visit the White Tower in") as tracer:
        adapt({name: loop[name] for name in start})
        after = model.logits[0, -1].softmax(-1)[model.token(" Oslo")].save()
# %%
print(f"another way of asking: {float(before):.3f} before, {float(after):.3f} after")
pl.show.curves({"loss": losses}, "Training")
# %%
assert float(losses[-1]) < 0.5 * float(losses[0]) and float(after) > float(before)
