# %% [markdown]
# # Path patching
# Which heads speak to the logits directly? Everything else is frozen as in the clean run; one head at a time is as in the corrupted one;
# what then arrives at the last norm is put into a clean run (Goldowsky-Dill et al. 2023).
# %%
import pellucid as pl

model = pl.Model("bundled")
clean = "When Mary and John went to the store, John gave a drink to"
corrupted = "When Mary and John went to the store, Mary gave a drink to"
mary, john = model.token(" Mary"), model.token(" John")


def difference():
    logits = model.logits[0, -1]
    return logits[mary] - logits[john]


# %%
with model.trace() as tracer:
    with tracer.invoke(clean) as clean_run:
        best = difference()
    with tracer.invoke(corrupted) as corrupted_run:
        worst = difference()
    with tracer.sweep(layer=range(4), head=range(4)) as cell:
        sender = "layers.{layer}.attention.mixed"
        with corrupted_run:
            wrong = tracer.get(sender)[:, :, cell.head]
        with cell.invoke(clean):
            for written in ("layers.*.attention.mixed", "layers.*.mlp.output"):
                with clean_run:
                    others = tracer.get(written, except_=sender)
                tracer.set(written, others, each=True, except_=sender)
            model.layers[cell.layer].attention.mixed[:, :, cell.head] = wrong
            arrives = model.final_norm.input
        with cell.invoke(clean):
            model.final_norm.input = arrives
            grid = ((best - difference()) / (best - worst)).save()  # [layers, heads]
# %%
pl.show.heat_map(
    grid, [f"layer {k}" for k in range(4)], [f"head {k}" for k in range(4)],
    "The share of the answer that is lost when a head speaks falsely to the last norm",
)
# %%
assert float(grid.max()) > 0.1
