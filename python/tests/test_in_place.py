"""Changes in place: what they reach, and what they do not. Held to torch by random scripts in `python/properties/test_in_place.py`."""

import numpy as np
import pellucid as pl
import pytest
from conftest import PROMPT


def logits(model, edit=lambda: None):
    with model.trace(PROMPT):
        edit()
        out = model.logits[:, -1].save()
    return out.numpy()


def test_what_is_written_into_a_parameter_is_set_for_the_input(model):
    def through_module():
        model.transformer.h[1].mlp.c_proj.weight *= 0

    def by_index():
        model.transformer.h[1].mlp.c_proj.weight[:] = 0

    def by_name():
        weight = model.transformer.h[1].mlp.c_proj.weight
        weight *= 0

    def in_parts():
        model.transformer.h[1].mlp.c_proj.weight[:200] = 0
        model.layers[1].mlp.c_proj.weight[200:] = 0  # sees what was set under the other name

    def set_and_written():
        model.transformer.h[1].mlp.c_proj.weight = model.transformer.h[1].mlp.c_proj.weight * 2
        model.transformer.h[1].mlp.c_proj.weight.mul_(0)

    def through_a_view():
        model.transformer.h[1].mlp.c_proj.weight.T.zero_()

    plain, expected = logits(model), logits(model, through_module)
    assert not np.array_equal(plain, expected)
    for edit in (by_index, by_name, in_parts, set_and_written, through_a_view):
        assert np.array_equal(logits(model, edit), expected), edit.__name__
    assert np.array_equal(logits(model), plain)
    with model.trace() as tracer:
        with tracer.invoke(PROMPT):
            model.transformer.h[1].mlp.c_proj.weight[:] = 0
            edited = model.logits[:, -1].save()
        with tracer.invoke(PROMPT):
            own = model.transformer.h[1].mlp.c_proj.weight.abs().amax().save()
            other = model.logits[:, -1].save()
    assert np.array_equal(edited, expected) and np.array_equal(other, plain) and float(own) > 0
    with model.edit() as calm:
        calm.layers[1].mlp.c_proj.weight[:] = 0
    with calm.trace(PROMPT):
        also = calm.logits[:, -1].save()
    assert np.array_equal(also, expected)


def test_the_model_s_own_parameters_are_not_written_outside_of_traces(model):
    weight = model.transformer.h[1].mlp.c_proj.weight
    for change in (lambda: weight.zero_(), lambda: weight[0].zero_(), lambda: weight.__setitem__(0, 1.0)):
        with pytest.raises(pl.NotComputedError, match="stays as it is"):
            change()
    own = weight.clone()
    own *= 0
    assert float(own.abs().amax()) == 0 and float(weight.abs().amax()) > 0
    with pytest.raises(pl.NotComputedError, match="c_proj.weight` is set between traces"):
        with model.session():
            model.transformer.h[1].mlp.c_proj.weight *= 0


def test_the_same_elements_under_another_name_are_written_through(model):
    def plainly():
        model.layers[1].output[:, -1] = 0

    expected = logits(model, plainly)
    for view in (
        lambda h: h.detach(), lambda h: h.data, lambda h: h.float(), lambda h: h.to(pl.float32), lambda h: h.to("cpu", pl.float32),
        lambda h: h.type_as(h), lambda h: h.contiguous(), lambda h: h.detach().view(10, 128)[None], lambda h: h.expand(1, 1, 10, 128)[0],
    ):
        def edit():
            view(model.layers[1].output)[:, -1] = 0

        assert np.array_equal(logits(model, edit), expected)
    plain = logits(model)
    for copy in (
        lambda h: h.clone(), lambda h: h.double(), lambda h: h.to(pl.float32, copy=True), lambda h: h.transpose(1, 2).contiguous().transpose(1, 2),
        lambda h: h.transpose(1, 2).reshape(1, -1)[None], lambda h: h.transpose(1, 2).flatten(1)[None], lambda h: h * 1,
    ):
        def edit():
            copy(model.layers[1].output)[:, -1] = 0

        assert np.array_equal(logits(model, edit), plain)


def test_a_write_through_detach_has_no_gradient(model):
    for first in ("write", "backward"):
        with pytest.raises(pl.NotComputedError, match="detach"):
            with model.trace(PROMPT):
                h = model.layers[1].output
                if first == "write":
                    h.detach()[:, -1] = 0
                model.logits[0, -1, 0].backward()
                h.detach()[:, -1] = 0
                model.layers[0].output.grad.save()
    with model.trace(PROMPT):  # reading goes on as ever
        h = model.layers[1].output
        loss = (model.logits[0, -1, 0] * h.detach().sum())
        loss.backward()
        h.grad.save()


def test_views_of_results_are_seen_through_one_another():
    x = pl.tensor(np.arange(6, dtype=np.float32).reshape(2, 3))
    row, turned = x[0], x.T
    corner = turned[1:, :1]
    x *= 10
    assert row.tolist() == [0, 10, 20] and turned.tolist() == [[0, 30], [10, 40], [20, 50]] and corner.tolist() == [[10], [20]]
    corner[0] = 7
    assert x.tolist() == [[0, 7, 20], [30, 40, 50]] and row.tolist() == [0, 7, 20] and turned[1].tolist() == [7, 40]
    row += 1
    assert x[0].tolist() == [1, 8, 21] and corner.tolist() == [[8], [21]]
    x.diagonal().fill_(0)
    assert x.tolist() == [[0, 8, 21], [30, 0, 50]] and row.tolist() == [0, 8, 21]
    alone = x.clone()
    x.zero_()
    assert float(alone.sum()) == 109


def test_a_number_type_stays(model):
    with model.trace(PROMPT):
        whole = model.logits[0].argmax(-1)
        half = model.layers[0].output[0, 0].bfloat16()
        half += pl.tensor(np.ones(128, np.float32))
        half.save()
        whole[0] = 2.7
        whole.save()
        part = model.layers[2].output[:, -1]
        part *= pl.tensor(np.ones(128))
        part.save()
        model.logits.save()
    assert half.dtype == pl.bfloat16 and whole.dtype == pl.int64 and int(whole[0]) == 2 and part.dtype == pl.float32
    for tensor in (lambda: pl.tensor([1, 2]), lambda: model.logits[0].argmax(-1)):
        with pytest.raises(TypeError, match="int64 stays one"):
            with model.trace(PROMPT):
                tensor().add_(0.5)


def test_a_tensor_whose_hook_point_was_replaced_is_its_own(model):
    with model.trace(PROMPT):
        a = model.layers[0].output
        a[:, 0] = 1
        model.layers[0].output = pl.zeros(1, 10, 128)
        a[:] *= 3
        now = model.layers[0].output.save()
        a.save()
        model.logits[0, 0, 0].save()
    assert np.all(now.numpy() == 0) and np.all(a.numpy()[:, 0] == 3) and np.any(a.numpy()[:, 1] != 0)


def test_in_branches_and_steps(model):
    with model.trace(PROMPT) as tracer:
        h = model.layers[1].output
        last = h[:, -1]
        other = h[:, 0]
        with tracer.cond(h.norm() > 0):
            last *= 0
            model.layers[1].output[:, 0] = 5  # the same hook point, read anew
        seen, whole, also = last.save(), h.save(), other.save()
        model.logits[0, 0, 0].save()
    assert np.all(seen.numpy() == 0) and np.all(whole.numpy()[:, -1] == 0) and np.all(also.numpy() == 5) and np.all(whole.numpy()[:, 0] == 5)
    with model.trace(PROMPT) as tracer:
        x = model.layers[1].output.clone()
        view = x[:, -1]
        x *= 2
        with tracer.cond(x.norm() > 0):
            (view + 1).save()  # taken anew in there
        after, x = view.save(), x.save()
    assert np.array_equal(after, x.numpy()[:, -1])
    with model.generate(PROMPT, max_new_tokens=3, stop_tokens=[]) as tracer:
        first = model.layers[1].output
        first[:] = 7.0
        with tracer.all():
            value = first[:, -1].save()  # that of step 0, at every step
    assert all(np.all(each.numpy() == 7) for each in value)
    with pytest.raises(pl.NotComputedError, match="read it inside"):
        with model.generate(PROMPT, max_new_tokens=3) as tracer:
            h = model.layers[1].output
            with tracer.all():
                h *= 2


def test_a_size_that_is_not_the_same_at_every_step_is_no_number(model):
    with model.generate(PROMPT, max_new_tokens=3, stop_tokens=[]) as tracer:
        with tracer.all():
            h = model.layers[1].output
            assert h.shape[0] == 1 and h.shape[2] == 128 and (h + 1).mean(1).shape == (1, 128)
            with pytest.raises(pl.NotComputedError, match="not known before the run"):
                range(h.shape[1])
            heads = h.reshape(*h.shape[:2], 4, 32).save()
            zeros = pl.zeros_like(h).save()
        with tracer.iter[1:]:
            assert model.layers[1].output.shape == (1, 1, 128)
    assert [each.shape for each in heads] == [(1, 10, 4, 32), (1, 1, 4, 32), (1, 1, 4, 32)]
    assert [each.shape for each in zeros] == [(1, 10, 128), (1, 1, 128), (1, 1, 128)]


def test_a_size_that_is_not_the_same_in_every_cell_is_no_number(model):
    with model.session(run=False) as session:
        with session.sweep(text=["The capital of France is", "Hello"]) as cell:
            with model.trace(cell.text):
                h = model.layers[1].output
                assert h.shape[2] == 128
                with pytest.raises(pl.NotComputedError, match="not known before the run"):
                    range(h.shape[1])
        with session.sweep(scale=[1.0, 2.0]) as cell:
            with model.trace(PROMPT):
                assert (model.layers[1].output * cell.scale).shape == (1, 10, 128)


def test_parts_of_sizes_that_are_not_known_are_not_silently_alone(model):
    with pytest.raises(pl.NotComputedError, match="split"):
        with model.generate(PROMPT, max_new_tokens=2, stop_tokens=[]) as tracer:
            with tracer.all():
                left, *_ = model.layers[1].output.split(1, dim=1)
                left *= 2


def test_one_hook_point_under_names_from_inside_and_outside_of_a_body(model):
    def hook():
        return model.layers[1].output

    with model.trace(PROMPT):
        plain = hook().save()
        model.logits[0, 0, 0].save()
    for holds in (True, False):
        with model.trace(PROMPT) as tracer:
            h = hook()
            part = h[:, 0]
            with tracer.cond(h.norm() > (0 if holds else 1e9)) as branch:
                hook()[:, 0] = 1
            with branch.otherwise():
                before = part.mean().save()  # what the other branch does is not seen here
                hook()[:, 0] = 2
            h, part = h.save(), part.save()
            model.logits[0, 0, 0].save()
        expected = 1 if holds else 2
        assert np.all(part.numpy() == expected) and np.all(h.numpy()[:, 0] == expected)
        if not holds:
            assert float(before) == pytest.approx(float(plain[:, 0].mean()))
    with model.trace(PROMPT) as tracer:
        h = hook()
        with tracer.loop(3):
            inner = hook()
            inner *= 2
            again = (h * 1).amax()
        h = h.save()
        model.logits[0, 0, 0].save()
    assert np.allclose(h, plain.numpy() * 8)


def test_what_depends_on_a_branch_is_refused(model):
    def replaced(change):
        with model.trace(PROMPT) as tracer:
            h = model.layers[1].output
            with tracer.cond(h.norm() > 0) as branch:
                if change:
                    h *= 2
                model.layers[1].output = pl.zeros(1, 10, 128)
            if change:
                h.save()  # twice what it was, or not
            else:
                old = h.clone().save()
                h *= 3  # the model's, or not
            model.logits[0, 0, 0].save()
        return old

    for change in (True, False):
        with pytest.raises(pl.NotComputedError, match="inside of a block"):
            replaced(change)
    with model.trace(PROMPT) as tracer:
        h = model.layers[1].output
        with tracer.cond(h.norm() > 0):
            model.layers[1].output = pl.zeros(1, 10, 128)
        old, now = h.save(), model.layers[1].output.save()
        model.logits[0, 0, 0].save()
    assert np.any(old.numpy() != 0) and np.all(now.numpy() == 0)


def test_a_hook_point_by_its_path_is_that_hook_point(model):
    def logits(edit):
        with model.trace(PROMPT) as tracer:
            edit(tracer)
            out = model.logits.save()
        return out.numpy()

    def by_attribute(tracer):
        model.layers[1].output[:, -1] *= 0.5

    def by_path(tracer):
        tracer.get("layers.1.output")[:, -1] *= 0.5

    def under_the_other_name(tracer):
        value = tracer.get("transformer.h.1.output")
        assert tracer.get("layers.1.output") is value and model.layers[1].output is value
        value[:, -1] *= 0.5

    def replaced(tracer):
        value = model.layers[1].output
        tracer.set("layers.1.output", value.clone())
        value *= 3  # no longer what flows on
        model.layers[1].output[:, -1] *= 0.5

    expected = logits(by_attribute)
    assert not np.array_equal(expected, logits(lambda tracer: None))
    assert all(np.array_equal(logits(edit), expected) for edit in (by_path, under_the_other_name, replaced))


def test_in_a_sweep_and_at_a_step_too(model):
    with model.trace() as tracer:
        with tracer.sweep(layer=range(3)) as cell, cell.invoke(PROMPT):
            tracer.get("layers.{layer}.output")[:, -1] = 0
            found = model.logits[0, -1].save()
    with model.trace() as tracer:
        with tracer.sweep(layer=range(3)) as cell, cell.invoke(PROMPT):
            model.layers[cell.layer].output[:, -1] = 0
            expected = model.logits[0, -1].save()
    assert np.array_equal(found, expected) and found.shape == (3, 2048)
    steps = []
    for by_path in (True, False):
        with model.generate(PROMPT, max_new_tokens=3, stop_tokens=[]) as tracer:
            for _ in tracer.iter[1]:
                value = tracer.get("layers.2.output") if by_path else model.layers[2].output
                value *= -2.0
            with tracer.all():
                logits = model.logits[:, -1].save()
        steps.append([each.tolist() for each in logits])
    assert steps[0] == steps[1] and len(steps[0]) == 3


def test_a_stack_of_hook_points_is_not_changed_in_place(model):
    def by_index(stack):
        stack[:] = 0

    def a_part(stack):
        stack[0] *= 0.5

    def by_method(stack):
        stack.zero_()

    for pattern, change in (("layers.*.output", by_index), ("layers[0:2].mlp.output", a_part), ("**.pattern", by_method)):
        with pytest.raises(pl.NotComputedError, match=r"changing it in place would change none of them\n  hint: `tracer.set\("):
            with model.trace(PROMPT) as tracer:
                model.logits.save()
                change(tracer.get(pattern))
    with model.trace(PROMPT) as tracer:
        stack = tracer.get("layers.*.output").clone()
        stack[1:] = 0
        stack.save()
    assert stack[0].numpy().any() and not stack[1:].numpy().any()
