"""What Python gives a trace: numbers, lists that fill while it is written; and their gradients."""

import numpy as np
import pellucid as pl
import pytest
from conftest import PROMPT

NUMBERS = np.linspace(-1.0, 1.0, 128, dtype=np.float32)


def gradient(model, write, of):
    """The gradient of a logit, with what `write` adds to the residual stream, at what `of` reads of it."""
    with model.trace(PROMPT):
        given = write()
        with model.logits[0, -1, 3].backward() as back:
            found = of(given, back).save()
    return found.numpy()


def in_the_trace(model, function=lambda v: v):
    def write():
        vector = pl.tensor(NUMBERS)
        model.layers[1].output[:] += function(vector)
        return vector

    return gradient(model, write, lambda vector, _: vector.grad)


def added(model, given, *layers):
    def write():
        for layer in layers or (1,):
            model.layers[layer].output[:] += given
        return given

    return write


def test_a_given_tensor_has_the_gradient_that_finite_differences_give(model):
    found = in_the_trace(model, lambda v: v * v + v)

    def logit(numbers):
        with model.trace(PROMPT):
            vector = pl.tensor(numbers)
            model.layers[1].output[:] += vector * vector + vector
            value = model.logits[0, -1, 3].save()
        return float(value)

    for place in (0, 70, 127):
        step = np.zeros(128, np.float32)
        step[place] = 0.05
        difference = (logit(NUMBERS + step) - logit(NUMBERS - step)) / 0.1
        np.testing.assert_allclose(found[place], difference, atol=2e-3)


def test_what_was_made_before_the_trace_has_the_same_gradient(model):
    right = in_the_trace(model)
    assert right.shape == (128,) and np.abs(right).max() > 1e-3
    tensor, array = pl.tensor(NUMBERS), NUMBERS.copy()
    for given, of in [
        (tensor, lambda v, _: v.grad), (tensor, lambda v, back: back.grad(v)), (tensor.clone(), lambda v, _: v.grad),
        (tensor, lambda v, _: v.clone().grad), (array, lambda v, back: back.grad(v)),
    ]:
        assert np.array_equal(gradient(model, added(model, given), of), right)


def test_an_array_that_is_used_twice_is_one_constant(model):
    array = NUMBERS.copy()
    with model.trace(PROMPT, run=False) as tracer:
        added(model, array, 1, 2)()
        array += 1.0
        added(model, array, 3)()
        model.logits[0, -1].save("logits")
    assert tracer.program.json().count('"constant"') == 2
    both = gradient(model, added(model, NUMBERS, 1, 2), lambda v, back: back.grad(v))
    assert np.array_equal(both, gradient(model, added(model, pl.tensor(NUMBERS), 1, 2), lambda v, _: v.grad))
    assert not np.array_equal(both, in_the_trace(model))


def test_functions_on_a_tensor_made_in_the_trace_are_recorded(model):
    right = in_the_trace(model, lambda v: v.tanh()[:])
    assert np.array_equal(in_the_trace(model, np.tanh), right) and np.array_equal(in_the_trace(model, pl.tanh), right)
    with model.trace(PROMPT):
        vector = pl.tensor(NUMBERS)
        made = np.tanh(vector).save()
        vector[:5] = 0.0
        changed, kept = vector.save(), pl.from_numpy(NUMBERS)
        whole = kept.sum() + model.logits[0, 0, 0]
        whole.save("whole")
    assert isinstance(made, pl.Tensor) and np.allclose(made, np.tanh(NUMBERS), atol=1e-6)
    assert not changed[:5].numpy().any() and np.array_equal(changed[5:], NUMBERS[5:])
    assert np.array_equal(kept, NUMBERS)  # numbers that were given are still there


def test_two_tensors_of_the_same_numbers_have_gradients_of_their_own(model):
    tensor = pl.tensor(NUMBERS)
    with model.trace(PROMPT):
        one, three = pl.tensor(tensor), pl.tensor(tensor)
        model.layers[1].output[:] += one + three * 3
        with model.logits[0, -1, 3].backward():
            first, second, together = one.grad.save(), three.grad.save(), tensor.grad.save()
    np.testing.assert_allclose(second, first * 3, atol=1e-6)
    np.testing.assert_allclose(together, first * 4, atol=1e-6)


@pytest.mark.parametrize("function", [lambda w: w * 2, lambda w: w[:], np.tanh, lambda w: w.softmax(-1) + w])
def test_a_gradient_that_would_leave_out_a_part_is_refused(model, function):
    tensor = pl.tensor(NUMBERS)

    def both():
        added(model, tensor)()
        added(model, function(tensor))()
        return tensor

    for write in (both, lambda: (added(model, function(tensor))(), tensor)[1]):
        with pytest.raises(pl.NotComputedError, match=r"v = pl.tensor\(w\)"):
            gradient(model, write, lambda w, _: w.grad)
    with pytest.raises(pl.NotComputedError, match="leave out"):  # in the other order
        with model.trace(PROMPT):
            added(model, tensor)()
            with model.logits[0, -1, 3].backward():
                tensor.grad.save()
            model.layers[0].output[:] += function(tensor)


def test_numbers_may_be_looked_at_and_detached(model):
    tensor = pl.tensor(NUMBERS)

    def write():
        assert float(tensor.norm()) > 0 and np.abs(tensor.numpy()).max() == 1
        added(model, tensor)()
        added(model, (tensor > 0).float() + tensor.detach())()
        return tensor

    def apart():
        vector = pl.tensor(NUMBERS)
        added(model, vector)()
        added(model, (vector > 0).float() + vector.detach())()
        return vector

    assert np.array_equal(gradient(model, write, lambda w, _: w.grad), gradient(model, apart, lambda v, _: v.grad))


def test_python_may_look_at_what_was_given_inside_of_the_trace_too(model):
    with model.session():
        prompt, layer = pl.tensor([[272, 314, 496]]), pl.tensor(2)
        with model.trace(prompt):
            assert prompt.tolist() == [[272, 314, 496]] and int(layer) == 2 and float(layer) == 2.0 and layer
            last = model.layers[range(4)[layer]].output[0, -1].save()
            with pytest.raises(pl.ControlFlowError):
                float(layer + 1)
            layer += 1
            with pytest.raises(pl.ControlFlowError):
                int(layer)
    with model.trace([[272, 314, 496]]):
        same = model.layers[2].output[0, -1].save()
    assert np.array_equal(last, same)


def test_what_has_no_gradient_says_so(model):
    tensor, array = pl.tensor(NUMBERS), NUMBERS.copy()
    with pytest.raises(pl.NotComputedError, match="nothing in this trace is computed with it"):
        gradient(model, lambda: tensor, lambda w, _: w.grad)
    with pytest.raises(pl.NotComputedError, match="back.grad"):
        gradient(model, added(model, array), lambda w, _: w.grad)
    with pytest.raises(pl.NotComputedError, match="results have no gradients"):
        tensor.grad
    with pytest.raises(pl.NotComputedError, match="no way back yet"):
        with model.trace(PROMPT):
            tensor.grad
    with pytest.raises(AttributeError, match="with loss.backward"):
        with model.trace(PROMPT):
            model.layers[0].output.register_hook(print)
    with pytest.raises(AttributeError, match="did you mean `softmax`"):
        tensor.softmx
    assert not hasattr(tensor, "__cuda_array_interface__")


def test_a_training_written_in_python(model):
    vector = pl.zeros(128)
    losses = []
    for _ in range(4):
        with model.trace(PROMPT):
            model.layers[1].output[:] += vector
            loss = -model.logits[0, -1].log_softmax(-1)[3]
            with loss.backward():
                slope = vector.grad.save()
            loss.save()
        vector = vector - 2.0 * slope
        losses.append(float(loss))
    assert losses == sorted(losses, reverse=True) and losses[0] - losses[-1] > 1


def test_gradients_of_given_numbers_are_written_and_cross_sessions(model):
    tensor = pl.tensor(NUMBERS)
    with model.session():
        with model.trace(PROMPT):
            added(model, tensor)()
            model.logits[0, -1].save("first")
        with model.trace(PROMPT):
            added(model, tensor)()
            with model.logits[0, -1, 3].backward():
                tensor.grad[:64] = 0.0
                found = tensor.grad.save()
    assert not found[:64].numpy().any() and np.array_equal(found[64:], in_the_trace(model)[64:])


def test_a_clone_has_a_gradient_of_its_own(model):
    with model.trace(PROMPT):
        h = model.layers[1].output
        copy = h.clone()
        loss = (copy * copy).sum() + h.sum()
        with loss.backward():
            of_copy, of_both = copy.grad.save(), h.grad.save()
        value = h.save()
    np.testing.assert_allclose(of_copy, 2 * value.numpy(), atol=1e-5)
    np.testing.assert_allclose(of_both, 2 * value.numpy() + 1, atol=1e-5)


def test_a_list_that_is_saved_may_fill_later(model):
    with model.generate(PROMPT, max_new_tokens=3, stop_tokens=[]) as tracer:
        found, by_name = pl.save(list()), pl.save({})
        before = found
        for step in tracer.iter[:]:
            found.append(model.logits[:, -1].argmax(-1))
            by_name[step] = [model.layers[1].output, step]
        with tracer.all():
            found.append(model.logits[:, -1].amax(-1))
        stream = model.layers[2].output
        found.append(stream)
        tokens = tracer.generated.save()
    assert found is before and [int(each) for each in found[:3]] == tokens[0].tolist()
    assert [each.shape for each in found[3]] == [(1,)] * 3 and found[4].shape == (1, 10, 128)
    assert {step: (each[0].shape, each[1]) for step, each in by_name.items()} == {0: ((1, 10, 128), 0), 1: ((1, 1, 128), 1), 2: ((1, 1, 128), 2)}
    assert len(tracer.results) == 11


def test_a_list_over_traces_and_cells(model):
    with model.session() as session:
        found = pl.save([])
        for prompt in (PROMPT, "The capital of Japan is"):
            with model.trace(prompt):
                found.append(model.logits[0, -1].argmax())
        with session.sweep(layer=range(3)) as cell:
            with model.trace(PROMPT):
                found.append(model.layers[cell.layer].output.norm())
    assert [model.tokenizer.decode(each) for each in found[:2]] == [" Paris", " Tokyo"] and found[2].shape == (3,)
    with pytest.raises(pl.ProgramError, match="save it inside the body"):
        with model.generate(PROMPT, max_new_tokens=2) as tracer:
            late = pl.save([])
            with tracer.all():
                best = model.logits[:, -1].argmax(-1)
            late.append(best)


def test_values_and_their_places_are_saved_together(model):
    with model.trace(PROMPT):
        top = model.logits[0, -1].topk(3).save()
        best = model.logits[0].max(dim=-1).save()
    assert top.values.shape == top.indices.shape == (3,) and best.indices.tolist()[-1] == int(top.indices[0])
