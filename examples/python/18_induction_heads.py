# %% [markdown]
# # Induction heads
# Which heads look for what came after the last time? Attention patterns on random tokens, repeated (Olsson et al. 2022).
# %%
import numpy as np
import pellucid as pl

model = pl.Model("bundled")
half = 20
first = np.random.default_rng(7).integers(1, 2048, (6, half))
prompts = np.concatenate([first, first], axis=1)
# %%
with model.trace(prompts) as tracer:
    patterns = tracer.get("layers.*.attention.pattern")  # [layers, prompts, heads, length, context]
    induction = patterns.diagonal(1 - half, -2, -1).mean((1, -1)).save()
    previous = patterns.diagonal(-1, -2, -1).mean((1, -1)).save()
    one = patterns[1, 0].save()
    right = (model.logits[:, half:-1].argmax(-1) == tracer.tokens[:, half + 1 :]).float().mean().save()
# %%
print(f"right on the second half: {float(right):.3f}")
pl.show.heat_map(induction, [f"layer {k}" for k in range(4)], [f"head {k}" for k in range(4)], "Induction: attention to what came after the last time", full=1.0)
# %%
pl.show.attention(one[int(induction[1].argmax())], [model.tokenizer.decode(int(token)) for token in prompts[0]])
# %%
assert float(induction.max()) > 0.2
