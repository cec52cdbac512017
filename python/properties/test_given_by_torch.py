"""Tensors of torch's own that a trace is given, and their gradients."""

import warnings

import numpy as np
import pellucid as pl
import pytest
import torch
from holding import MODEL

PROMPT = "The Eiffel Tower is in the city of"
NUMBERS = torch.linspace(-1, 1, 128)


def logit():
    return MODEL.logits[0, -1, 3]


def of_a_value(function=lambda v: v):
    with MODEL.trace(PROMPT):
        vector = pl.tensor(NUMBERS)
        MODEL.layers[1].output[:] += function(vector)
        with logit().backward():
            found = vector.grad.save()
    return found.numpy()


def test_functions_of_torch_are_recorded():
    assert np.array_equal(of_a_value(lambda v: torch.tanh(v)), of_a_value(lambda v: v.tanh()))
    with MODEL.trace(PROMPT):
        made = torch.softmax(pl.tensor(NUMBERS), -1).save()
        MODEL.logits[0, 0, 0].save("any")
    assert torch.allclose(made.torch(), torch.softmax(NUMBERS, -1))


def test_the_way_back_gives_the_gradient_of_torch_s_own_tensor():
    for given in (NUMBERS.clone().requires_grad_(), torch.nn.Parameter(NUMBERS.clone()), NUMBERS.clone()):
        with MODEL.trace(PROMPT):
            MODEL.layers[1].output[:] += given
            with logit().backward() as back:
                found = back.grad(given).save()
        assert np.array_equal(found, of_a_value())
    factor = torch.tensor(0.5, requires_grad=True)
    with MODEL.trace(PROMPT):
        MODEL.layers[1].output[:] *= factor
        with logit().backward() as back:
            found = back.grad(factor).save()
    assert found.shape == () and float(found) != 0


def test_gradients_go_to_torch_s_own_tensors():
    given = NUMBERS.clone().requires_grad_()
    with pytest.raises(pl.NotComputedError, match="is filled when the trace has run"):
        with MODEL.trace(PROMPT):
            MODEL.layers[1].output[:] += given
            with logit().backward():
                given.grad.save()

    def of_the_stream(vector):
        with MODEL.trace(PROMPT):
            MODEL.layers[1].output[:] += vector
            with logit().backward():
                MODEL.layers[0].output.grad.save("stream")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        of_the_stream(given)
        assert np.array_equal(given.grad, of_a_value())
        of_the_stream(given)  # as torch's own, they add up
        assert np.array_equal(given.grad, 2 * of_a_value())
        of_the_stream(given.detach())
        with MODEL.trace(PROMPT):  # nothing goes back here
            MODEL.layers[1].output[:] += given
            logit().save("logit")
        assert np.array_equal(given.grad, 2 * of_a_value())


def test_they_go_back_through_what_torch_computed():
    given = NUMBERS.clone().requires_grad_()
    with MODEL.trace(PROMPT):
        MODEL.layers[1].output[:] += torch.tanh(given) * 2 + given
        logit().backward()
    assert torch.allclose(given.grad, torch.from_numpy(of_a_value(lambda v: v.tanh() * 2 + v)), atol=1e-6)


def test_they_add_up_over_ways_back_cells_and_edits():
    once = of_a_value()
    given, other = NUMBERS.clone().requires_grad_(), torch.ones(128, requires_grad=True)
    with MODEL.trace(PROMPT):
        stream = MODEL.layers[1].output
        stream[:] += given
        logit().backward()
        (stream * other).sum().backward()
        read = stream.save()
    assert np.allclose(given.grad, once + 10.0, atol=1e-4) and np.allclose(other.grad, read.sum((0, 1)), atol=1e-4)
    given.grad = None
    with MODEL.session() as session, session.sweep(cell=range(3)):
        with MODEL.trace(PROMPT):
            MODEL.layers[1].output[:] += given
            logit().backward()
    assert np.allclose(given.grad, 3 * once, atol=1e-6)
    given.grad = None
    with MODEL.edit() as edited:
        edited.layers[1].output[:] += given
    with edited.trace(PROMPT):
        edited.logits[0, -1, 3].backward()
    assert np.allclose(given.grad, once, atol=1e-6)


def test_what_a_loss_does_not_depend_on_has_none():
    given = NUMBERS.clone().requires_grad_()
    with MODEL.trace(PROMPT):
        early = MODEL.layers[0].output
        early.sum().backward()
        MODEL.layers[1].output[:] += given
        logit().save("logit")
        gradient = early.grad.save()
    assert given.grad is None and np.allclose(gradient, 1.0)
    with pytest.raises(pl.ProgramError, match="through the model of an earlier trace"), MODEL.session():
        with MODEL.trace(PROMPT):
            MODEL.layers[1].output[:] += given
            before = MODEL.layers[2].output
        with MODEL.trace(PROMPT):
            MODEL.layers[1].output[:] += given
            (MODEL.layers[2].output - before).sum().backward()
            MODEL.logits.save("logits")


@pytest.mark.parametrize("function", [
    lambda w, h: torch.nn.functional.linear(h, w), lambda w, h: h @ w.T, lambda w, h: torch.cat([w, h[:, 0]]).cumsum(0), lambda w, h: w[None] * h[:, :4],
    lambda w, h: pl.tanh(w) + h[:, :4], lambda w, h: torch.where(h[:, :4] > 0, w, h[:, :4]), lambda w, h: torch.einsum("bph,oh->bpo", h, w),
    lambda w, h: torch.stack([w, w]) @ h.mT, lambda w, h: w.tanh().repeat(2, 1) @ h.mT, lambda w, h: w.transpose(0, 1)[:10] * h.sum(),
], ids=range(10))
def test_gradients_through_functions_are_torch_s_own(function):
    with MODEL.trace(PROMPT):
        kept = MODEL.layers[1].output.save()
    with MODEL.trace(PROMPT):
        given = (NUMBERS.repeat(4, 1) * torch.arange(1.0, 5.0)[:, None]).requires_grad_()
        loss = (function(given, MODEL.layers[1].output) ** 2).sum().save()
        loss.backward()
    wanted = given.detach().clone().requires_grad_()
    if function.__code__.co_names[:2] == ("pl", "tanh"):
        theirs = torch.tanh(wanted) + kept.torch()[:, :4]
    else:
        theirs = function(wanted, kept.torch())
    (theirs**2).sum().backward()
    assert torch.allclose(given.grad, wanted.grad, rtol=1e-4, atol=1e-3)


def test_a_module_of_torch_is_trained_by_torch():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(128, 8), torch.nn.Tanh(), torch.nn.Linear(8, 128))
    optimiser, losses = torch.optim.Adam(module.parameters(), lr=0.02), []
    for _ in range(12):
        optimiser.zero_grad()
        with MODEL.trace(PROMPT):
            MODEL.layers[1].output[:] += module(MODEL.layers[1].output)
            loss = torch.nn.functional.cross_entropy(MODEL.logits[:, -1], torch.tensor([MODEL.token(" Rome")])).save()
            loss.backward()
        optimiser.step()
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]


def test_what_torch_computed_at_once_is_not_left_out():
    tensor = pl.tensor(NUMBERS)
    with pytest.raises(pl.NotComputedError, match=r"v = pl.tensor\(w\)"):
        with MODEL.trace(PROMPT):
            MODEL.layers[1].output[:] += torch.tanh(tensor)
            MODEL.layers[2].output[:] += tensor
            with logit().backward():
                tensor.grad.save()
    assert not torch.allclose(torch.tanh(tensor), tensor.torch())


def test_an_optimiser_of_torch_does_not_take_its_step_in_the_trace():
    given = NUMBERS.clone().requires_grad_()
    optimiser = torch.optim.SGD([given], lr=1.0)
    other = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=1.0)
    with pytest.raises(pl.NotComputedError, match="after the `with` block"):
        with MODEL.trace(PROMPT):
            MODEL.layers[1].output[:] += given
            logit().backward()
            other.step()  # somebody else's
            optimiser.step()
    with MODEL.trace(PROMPT):
        MODEL.layers[1].output[:] += given
        logit().backward()
    optimiser.step()
    assert torch.equal(given, NUMBERS - torch.from_numpy(of_a_value()))
