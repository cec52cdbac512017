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


def test_torch_s_own_gradients_are_not_filled_and_that_is_said():
    given = NUMBERS.clone().requires_grad_()
    with pytest.raises(pl.NotComputedError, match="back.grad"):
        with MODEL.trace(PROMPT):
            MODEL.layers[1].output[:] += given
            with logit().backward():
                given.grad.save()

    def of_the_stream(vector):
        with MODEL.trace(PROMPT):
            MODEL.layers[1].output[:] += vector
            with logit().backward():
                MODEL.layers[0].output.grad.save("stream")

    with pytest.warns(UserWarning, match="back.grad") as caught:
        of_the_stream(given)
    assert caught[0].filename == __file__ and given.grad is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        of_the_stream(given.detach())
        with MODEL.trace(PROMPT):  # nothing goes back here
            MODEL.layers[1].output[:] += given
            logit().save("logit")


def test_what_torch_computed_at_once_is_not_left_out():
    tensor = pl.tensor(NUMBERS)
    with pytest.raises(pl.NotComputedError, match=r"v = pl.tensor\(w\)"):
        with MODEL.trace(PROMPT):
            MODEL.layers[1].output[:] += torch.tanh(tensor)
            MODEL.layers[2].output[:] += tensor
            with logit().backward():
                tensor.grad.save()
    assert not torch.allclose(torch.tanh(tensor), tensor.torch())
