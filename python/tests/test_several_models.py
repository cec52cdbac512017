"""Several models: each with traces of its own."""

import pathlib

import numpy as np
import pellucid as pl
import pytest
from conftest import PROMPT

LLAMA = pathlib.Path(__file__).resolve().parents[2] / "golden/models/llama3"


@pytest.fixture(scope="module")
def other():
    return pl.Model("bundled")


@pytest.fixture(scope="module")
def edited(model):
    with model.edit() as edited:
        edited.layers[2].output *= 0.5
    return edited


def writes(model):
    model.layers[2].output *= 0


def sets(model):
    model.layers[2].output = 0.0


def sets_a_weight(model):
    model.layers[1].mlp.c_proj.weight = 0.0


USES = {
    "a hook point": lambda model: model.logits, "one by its path": lambda model: model["layers.1.output"], "writing": writes, "setting": sets,
    "a parameter": lambda model: model.layers[1].mlp.c_proj.weight, "setting one": sets_a_weight, "skipping": lambda model: model.layers[1].mlp.skip(0.0),
    "applying": lambda model: model.unembed(pl.zeros(128)), "the next step": lambda model: model.layers[1].next(),
    "what is generated": lambda model: model.generator.output, "what is attached": lambda model: pl.Lora.new(model, 2, 4.0, ["c_fc"]).attach(model),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_modules_of_another_model_are_refused(model, other, use):
    for opened in (model.trace(PROMPT), model.generate(PROMPT, max_new_tokens=2)):
        with pytest.raises(pl.NotComputedError, match="is of another model that is called `tiny-gpt2`, and this trace is of `tiny-gpt2`[^$]*other.trace"):
            with opened:
                model.logits.save()
                use(other)


def test_the_names_of_both_models_are_told(model):
    llama = pl.Model(LLAMA)
    with pytest.raises(pl.NotComputedError, match=f"`layers.0.output` is of `{llama.name}`, and this trace is of `tiny-gpt2`"):
        with model.trace(PROMPT):
            llama.layers[0].output.save()


def test_caches_are_of_modules_of_the_model_that_runs(model, other):
    with pytest.raises(pl.NotComputedError, match="`layers.1` is of another model"):
        with model.trace(PROMPT) as tracer:
            tracer.cache(modules=[other.layers[1]])


def test_between_traces_modules_are_the_sessions(model, other):
    for use in (lambda: other.unembed(hidden), lambda: other.layers[1].mlp.c_proj.weight):
        with pytest.raises(pl.NotComputedError, match="another model that is called `tiny-gpt2`, and this session is of `tiny-gpt2`"):
            with model.session():
                with other.trace(PROMPT):
                    hidden = other.layers[1].output
                use().save()
    with model.session():
        with other.trace(PROMPT):
            hidden, there = other.layers[3].output, other.unembed(other.final_norm(other.layers[3].output)).save()
            weight = other.layers[1].mlp.c_proj.weight.save()
        here = model.unembed(model.final_norm(hidden)).save()
        own = model.layers[1].mlp.c_proj.weight.save()
    assert np.array_equal(here, there) and np.array_equal(weight, own)


def test_an_edited_models_modules_are_not_the_plain_ones(model, edited):
    for use in (lambda: edited.layers[3].output, lambda: writes(edited), lambda: sets_a_weight(edited)):
        with pytest.raises(pl.NotComputedError, match="is of `tiny-gpt2` with edits, and this trace is of `tiny-gpt2`\n  hint: open the trace on it"):
            with model.trace(PROMPT):
                model.logits.save()
                use()
    with model.edit() as elsewhere:
        elsewhere.layers[1].output *= 0.5
    with pytest.raises(pl.NotComputedError, match="a model edited otherwise"):
        with elsewhere.trace(PROMPT):
            edited.layers[3].output.save()


def test_in_an_edited_model_are_those_that_it_was_made_of(model, edited):
    with edited.edit() as twice:
        edited.layers[1].output *= 0.5
        model.layers[0].output *= 1.0
    with twice.trace(PROMPT):
        of_twice, of_edited, of_plain = twice.logits.save(), edited.layers[3].output.save(), model.layers[3].output.save()
    with model.trace(PROMPT):
        writes_half = model.layers[1].output
        writes_half *= 0.5
        model.layers[2].output *= 0.5
        expected = model.logits.save()
        applied = edited.unembed(model.layers[3].input).save()  # modules are applied as the model has them, edited or not
    assert np.array_equal(of_twice, expected) and np.array_equal(of_edited, of_plain) and applied.shape == expected.shape
