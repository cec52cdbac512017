"""Gradients through functions of torch and methods with torch's names, held to torch's own."""

from __future__ import annotations

import hypothesis.strategies as st
import pellucid as pl
import pytest
import torch
from holding import MODEL, arrays, close, lift, mine, outputs, tried
from hypothesis import given
from torch_cases import MATRICES, ONE, SQUARE, TWO, Choices, numbered

#: Families of which nothing, or nothing but signs, flows back.
WITHOUT = {"kinds", "comparisons", "to whole numbers"}
few = tried(4)


def floats(results):
    return [each for each in results if str(each.dtype).removeprefix("torch.").startswith(("float", "bfloat"))]


def agree(function, tensors, rest=()):
    """The gradients of all outputs' sum, each weighted otherwise, at each of the tensors."""
    leaves = [each.clone().requires_grad_(True) for each in tensors]
    try:
        results = floats(outputs(function(*leaves, *rest)))
        if not results or not any(each.requires_grad for each in results):
            return
        torch.autograd.backward([each for each in results if each.requires_grad], [weights(each.shape, each.dtype) for each in results if each.requires_grad])
    except (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError):
        return
    flowing = [place for place, each in enumerate(results) if each.requires_grad]
    try:
        with MODEL.trace("The"):
            zero = pl.zeros(())
            made = [lift(zero, mine(each)) for each in tensors]
            found = floats(outputs(function(*made, *rest)))
            loss = sum((found[place] * pl.tensor(weights(results[place].shape, results[place].dtype))).sum() for place in flowing)
            with loss.backward():
                saved = [(each.grad.save(), leaf) for each, leaf in zip(made, leaves) if leaf.grad is not None]
    except pl.ProgramError as error:
        if "gradient" in str(error):
            assert all(leaf.grad is None or not leaf.grad.any() for leaf in leaves), str(error)  # it says that none flows
            return
        raise
    for gradient, leaf in saved:
        close(gradient, leaf.grad, [tuple(each.shape) for each in tensors])


def weights(shape, dtype):
    count = max(1, torch.Size(shape).numel())
    return (torch.arange(1, count + 1, dtype=torch.float64) * 0.37 % 1 + 0.25).reshape(shape).to(dtype)


def without(table):
    return [each for each in numbered(table) if each.id.rpartition("-")[0] not in WITHOUT]


@pytest.mark.parametrize("function", without(ONE))
@few
@given(arrays(least=1, kinds=["float32"], low=0.15), st.integers(0, 1 << 20))
def test_of_one(function, x, seed):
    agree(function, [x], [Choices(seed, x)])


@pytest.mark.parametrize("function", without(TWO))
@few
@given(arrays(shape=[2, 3], kinds=["float32"], low=0.15), arrays(shape=[3], kinds=["float32"], low=0.15))
def test_of_two(function, x, y):
    agree(function, [x, y])


@pytest.mark.parametrize("function", numbered({"matrices": MATRICES}))
@few
@given(st.integers(0, 1 << 20))
def test_of_matrices(function, seed):
    generator = torch.Generator().manual_seed(seed)
    agree(function, [torch.randn(2, 3, 4, generator=generator), torch.randn(2, 4, 3, generator=generator)])


@pytest.mark.parametrize("function", numbered({"square": SQUARE}))
@few
@given(arrays(shape=[3, 3], kinds=["float64"]))
def test_of_square_matrices(function, x):
    agree(function, [x @ x.T + torch.eye(3, dtype=x.dtype)])


TIES = torch.tensor([[1.0, 2.0, 2.0, -1.0], [2.0, 0.0, 2.0, 0.0]])
CHOSEN = {family: ONE[family] for family in ("signs", "activations", "bounds", "reductions", "order", "norms")}


@pytest.mark.parametrize("function", without(CHOSEN))
def test_of_ties_and_zeros(function):
    """Where derivatives are a choice, torch's."""
    agree(function, [TIES], [Choices(3, TIES)])
