"""Blocks inside of blocks: names that are the same, exceptions that are caught, values that come out."""

import numpy as np
import pellucid as pl
import pytest
from conftest import PROMPT


def test_a_variable_may_be_called_as_a_parameter_is(model):
    with model.trace() as tracer:
        with tracer.sweep(layer=range(2)) as cell:
            with cell.invoke(PROMPT):
                model.layers[cell.layer].output[:] = 0
                layer = model.logits[0, -1].amax().save()
    assert layer.shape == (2,)
    with model.session() as session:
        with session.loop(3, carry={"x": 2.0}) as loop:
            loop.next(x=loop.x * 2)
        x = loop.x.save()
        with session.sweep(x=[1.0, 2.0]) as cell:
            twice = (cell.x * 2).save()
        i = (x + 1).save()
    assert float(x) == 16 and twice.tolist() == [2, 4] and float(i) == 17


def test_blocks_in_blocks_may_have_parameters_of_one_name(model):
    with model.session() as session:
        with session.loop(3, carry={"x": 2.0}) as outer:
            with session.loop(2, carry={"x": outer.x}) as inner:
                inner.next(x=inner.x * 2 + inner.i)
            outer.next(x=inner.x + outer.i)
        x = outer.x.save()
        with session.sweep(k=range(2)) as a:
            with session.sweep(k=range(3)) as b:
                both = (a.k * 10 + b.k).save()
    expected = 2.0
    for i in range(3):
        inner_x = expected
        for k in range(2):
            inner_x = inner_x * 2 + k
        expected = inner_x + i
    assert float(x) == expected and both.tolist() == [[0, 1, 2], [10, 11, 12]]
    with model.trace() as tracer:
        with tracer.sweep(layer=[0]) as outer:
            with tracer.sweep(layer=range(2)) as cell:
                with cell.invoke(PROMPT):
                    model.layers[cell.layer].output[:] = 0
                    best = model.logits[0, -1].amax().save()
    assert best.shape == (1, 2)
    with pytest.raises(ValueError, match="`layer` is the name of a parameter"):
        with model.trace() as tracer:
            with tracer.sweep(layer=range(2)) as cell:
                with cell.invoke(PROMPT):
                    model.logits[0, -1].amax().save("layer")


def test_what_an_exception_leaves_is_no_part_of_the_program(model):
    def fails(block, tracer):
        with block(tracer):
            model.layers[2].output[:] = 0
            lost.append((model.layers[0].output * 1).save())
            raise ZeroDivisionError

    blocks = (
        lambda tracer: tracer.cond(model.layers[0].output.norm() > 0),
        lambda tracer: tracer.sweep(scale=[1.0, 2.0]),
        lambda tracer: tracer.loop(2),
    )
    with model.trace(PROMPT):
        plain = model.logits.save()
    for block in blocks:
        lost = []
        with model.trace(PROMPT) as tracer:
            with pytest.raises(ZeroDivisionError):
                fails(block, tracer)
            with pytest.raises(pl.NotComputedError, match="an exception left"):
                lost[0] + 1
            after = model.logits.save()
        assert np.array_equal(after, plain)
        with pytest.raises(pl.NotComputedError, match="an exception left"):
            lost[0].numpy()
    lost = []
    with model.generate(PROMPT, max_new_tokens=2, stop_tokens=[]) as tracer:
        with pytest.raises(ZeroDivisionError):
            fails(lambda tracer: tracer.all(), tracer)
        tokens = tracer.generated.save()
    with model.generate(PROMPT, max_new_tokens=2, stop_tokens=[]) as tracer:
        assert tracer.generated.save() is not None
        expected = tracer.generated.save()
    assert np.array_equal(tokens, expected)


def test_a_second_branch_that_an_exception_leaves(model):
    with model.trace(PROMPT) as tracer:
        with tracer.cond(model.layers[0].output.norm() < 0) as branch:
            model.layers[1].output[:] = 0
        with pytest.raises(ZeroDivisionError):
            with branch.otherwise():
                model.layers[2].output[:] = 0
                1 / 0
        logits = model.logits.save()
    with model.trace(PROMPT):
        plain = model.logits.save()
    assert np.array_equal(logits, plain)
    with pytest.raises(pl.NotComputedError, match="beside it"):
        with model.trace(PROMPT) as tracer:
            with pytest.raises(ZeroDivisionError):
                with tracer.cond(model.layers[0].output.norm() < 0) as branch:
                    1 / 0
            with branch.otherwise():
                model.logits.save()


def test_a_session_goes_on_without_a_trace_that_an_exception_left(model):
    with model.session() as session:
        with pytest.raises(ZeroDivisionError):
            with model.trace(PROMPT) as tracer:
                lost = model.layers[0].output.save("one")
                cache = tracer.cache(modules=[model.layers[0]])
                1 / 0
        with pytest.raises(TypeError):
            with model.trace(3.5):
                pass
        with model.trace(PROMPT):
            one = model.logits[0, -1].save("one")
    assert one.shape == (2048,) and list(session.results) == ["one"]
    for use in (lambda: lost.numpy(), lambda: cache["layers.0"].output):
        with pytest.raises(pl.NotComputedError, match="an exception left"):
            use()


def test_a_choice_of_what_is_made_after_the_condition(model):
    with model.trace(PROMPT) as tracer:
        x = model.logits[0, -1].amax()
        with tracer.cond(x > 1e9) as branch:
            a = x * 2
        chosen = branch.choose(a, x * 3 + 1).save()
        x.save()
    assert float(chosen) == pytest.approx(3 * float(x) + 1)
    with pytest.raises(pl.NotComputedError, match="read it before the condition"):
        with model.trace(PROMPT) as tracer:
            x = model.logits[0, -1].amax()
            with tracer.cond(x > 1e9) as branch:
                a = x * 2
            branch.choose(a, model.layers[0].output[0, 0, 0] + 1)


def test_values_of_steps(model):
    with model.generate(PROMPT, max_new_tokens=3, stop_tokens=[]) as tracer:
        with tracer.all():
            last = model.layers[0].output[:, -1:].save()
    assert len(last) == 3 and pl.stack(last).shape == (3, 1, 1, 128) and pl.cat(last, 1).shape == (1, 3, 128)
    for use in (lambda: last.shape, lambda: last + 1, lambda: last.numpy(), lambda: last.dtype, lambda: last.softmax(-1)):
        with pytest.raises(pl.NotComputedError, match="each of 3 steps"):
            use()
