"""Functions of torch that are made of the table's operations, and constructors as torch writes them."""

from __future__ import annotations

from typing import Any

from . import _operations as ops
from ._arrays import from_array
from ._composed import _flat, lerp, square
from ._dtype import float32
from ._given import as_value
from ._recorder import recording
from ._tensor import Tensor
from ._writer import as_tensor


# Constructors


def tensor(data: Any, dtype: Any = None) -> Tensor:
    """A tensor of numbers in lists, of a numpy array, of a torch tensor, or of another tensor, whose copy it is. Inside a trace it is a value
    of that trace: what is computed of it is recorded, and its `.grad` can be read."""
    if isinstance(data, Tensor):
        copy = (data if dtype is None else data.to(dtype)).detach().clone() if data._core is None else data.clone().to(dtype=dtype)
        return _in_the_trace(copy, again=True)
    return _in_the_trace(as_tensor(data, dtype))


def from_numpy(array: Any) -> Tensor:
    """A tensor of a numpy array's numbers; inside a trace a value of it, as `tensor` makes one."""
    return _in_the_trace(Tensor._computed(from_array(array)))


def _in_the_trace(made: Tensor, again: bool = False) -> Tensor:
    """Inside of a trace, numbers as a value of it."""
    recorder = recording.get()
    return made if recorder is None or made._core is None else as_value(recorder, made, again)


def zeros(*size: Any, dtype: Any = float32) -> Tensor:
    """Zeros: `pl.zeros(2, 3)`."""
    return ops.zeros(_flat(size), dtype)


def ones(*size: Any, dtype: Any = float32) -> Tensor:
    """Ones: `pl.ones(2, 3)`."""
    return ops.ones(_flat(size), dtype)


def randn(*size: Any, dtype: Any = float32) -> Tensor:
    """Standard normal numbers. In a trace they are keyed by its seed; outside, and where it has none, by `pl.manual_seed`."""
    return ops.randn(_flat(size), dtype)


def rand(*size: Any, dtype: Any = float32) -> Tensor:
    """Numbers from 0 to 1."""
    return ops.rand(_flat(size), dtype)


def arange(start: float, end: float | None = None, step: float = 1, dtype: Any = None) -> Tensor:
    """Numbers from `start` (0 if there is one argument) up to and without `end`."""
    return ops.arange(0, start, step, dtype) if end is None else ops.arange(start, end, step, dtype)


def zeros_like(input: Tensor, dtype: Any = None) -> Tensor:
    """Zeros of a tensor's shape and number type."""
    return ops.zeros(input.shape, dtype or input.dtype)


def ones_like(input: Tensor, dtype: Any = None) -> Tensor:
    """Ones of a tensor's shape and number type."""
    return ops.ones(input.shape, dtype or input.dtype)


def full_like(input: Tensor, fill_value: float, dtype: Any = None) -> Tensor:
    """One number everywhere, in a tensor's shape and number type."""
    return ops.full(input.shape, fill_value, dtype or input.dtype)


def randn_like(input: Tensor, dtype: Any = None) -> Tensor:
    """Standard normal numbers in a tensor's shape."""
    return ops.randn(input.shape, dtype or input.dtype)


def rand_like(input: Tensor, dtype: Any = None) -> Tensor:
    """Numbers from 0 to 1 in a tensor's shape."""
    return ops.rand(input.shape, dtype or input.dtype)


# Functions


def einsum(equation: str, *operands: Any) -> Tensor:
    """Sums of products by the Einstein convention: `pl.einsum("bij,bjk->bik", a, b)`."""
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    return ops.einsum(equation, operands)


def dot(input: Tensor, other: Any) -> Tensor:
    """The inner product of two vectors."""
    return ops.matmul(input, other)


def save(what: Any) -> Any:
    """Saves a tensor; or all tensors in a list, dictionary or tuple, also those that come into it while the trace is written: `out =
    pl.save([])`, and `out.append(x)` in a loop over steps. It gives back what it is given."""
    if isinstance(what, Tensor):
        return what.save()
    recorder = recording.get()
    if recorder is not None and isinstance(what, (list, dict, tuple)):
        recorder.hold(what)
    return what


_ALIASES = {
    "mm": ops.matmul, "bmm": ops.matmul, "mv": ops.matmul, "dot": ops.matmul, "clip": ops.clamp, "multiply": ops.mul,
    "subtract": ops.sub, "divide": ops.div, "true_divide": ops.div, "negative": ops.neg, "absolute": ops.abs,
    "greater": ops.gt, "less": ops.lt, "greater_equal": ops.ge, "less_equal": ops.le, "not_equal": ops.ne, "ger": ops.outer,
    "concat": ops.cat, "concatenate": ops.cat, "square": square, "lerp": lerp, "fmax": ops.maximum, "fmin": ops.minimum,
    "inverse": ops.inv,
}
