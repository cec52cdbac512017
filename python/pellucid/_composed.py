"""Methods of tensors that are made of the table's operations, as torch has them."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _operations as ops
from . import _writer
from ._dtype import bool_
from ._errors import NotComputedError
from ._operations import Methods
from ._writer import as_tensor

if TYPE_CHECKING:
    from ._tensor import Tensor


class MaxMin(NamedTuple):
    values: Tensor
    indices: Tensor


def _flat(sizes: Any) -> Any:
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (list, tuple)) else tuple(sizes)


def maximum_along(input: Tensor, dim: int, keepdim: builtins.bool = False) -> MaxMin:
    return MaxMin(ops.amax(input, dim, keepdim), ops.argmax(input, dim, keepdim))


def minimum_along(input: Tensor, dim: int, keepdim: builtins.bool = False) -> MaxMin:
    return MaxMin(ops.amin(input, dim, keepdim), ops.argmin(input, dim, keepdim))


def square(input: Tensor) -> Tensor:
    """`input * input`."""
    return ops.mul(input, input)


def lerp(input: Tensor, end: Any, weight: Any) -> Tensor:
    """`input + weight * (end - input)`."""
    return ops.add(input, ops.mul(ops.sub(end, input), weight))


def std_or_var(function: Any, input: Tensor, dim: Any, correction: Any, keepdim: Any, unbiased: Any) -> Tensor:
    if isinstance(dim, builtins.bool):
        dim, unbiased = None, dim
    if isinstance(correction, builtins.bool):
        correction = 1 if correction else 0
    if unbiased is not None:
        correction = 1 if unbiased else 0
    return function(input, dim, correction, keepdim)


class Composed(Methods):
    """Methods that tensors have beside those of the table."""

    __slots__ = ()


    def max(self: Any, dim: Any = None, keepdim: builtins.bool = False) -> Any:
        """The largest; along a dimension: values and places."""
        if type(dim) is _writer._tensor:
            return ops.maximum(self, dim)
        return ops.amax(self) if dim is None else maximum_along(self, dim, keepdim)

    def min(self: Any, dim: Any = None, keepdim: builtins.bool = False) -> Any:
        """The smallest; along a dimension: values and places."""
        if type(dim) is _writer._tensor:
            return ops.minimum(self, dim)
        return ops.amin(self) if dim is None else minimum_along(self, dim, keepdim)

    def std(self: Any, dim: Any = None, correction: float = 1, keepdim: builtins.bool = False, unbiased: Any = None) -> Tensor:
        """The standard deviation."""
        return std_or_var(ops.std, self, dim, correction, keepdim, unbiased)

    def var(self: Any, dim: Any = None, correction: float = 1, keepdim: builtins.bool = False, unbiased: Any = None) -> Tensor:
        """The variance."""
        return std_or_var(ops.var, self, dim, correction, keepdim, unbiased)

    def where(self: Any, condition: Any, other: Any) -> Tensor:
        """It where the condition holds, else `other`."""
        return ops.where(condition, self, other)

    def norm(self: Any, p: Any = 2, dim: Any = None, keepdim: builtins.bool = False) -> Tensor:
        """The p-norm of the elements."""
        return ops.norm(self, 2 if p in (None, "fro") else p, dim, keepdim)

    def scatter(self: Any, dim: int, index: Any, src: Any = None, value: Any = None) -> Tensor:
        """Writes along a dimension, place by place; later wins."""
        return ops.scatter(self, dim, index, value if src is None else src)

    def flip(self: Any, *dims: Any) -> Tensor:
        """Reversed along dimensions."""
        return ops.flip(self, list(_flat(dims)))

    def index_add(self: Any, dim: int, index: Any, source: Any, alpha: float = 1) -> Tensor:
        """Adds slices along a dimension."""
        items = (*[slice(None)] * dim, index) if dim >= 0 else (..., index, *[slice(None)] * (-dim - 1))
        return ops.index_put(self, items, ops.mul(source, alpha) if alpha != 1 else source, True)

    def masked_select(self: Any, mask: Any) -> Any:
        """Refused: its shape would depend on values."""
        raise NotComputedError(
            "the shape of `masked_select` would depend on values\n  hint: `pl.where(mask, x, 0)`, or `topk` and `gather`"
        )

    nonzero = masked_select

    def copy_(self: Any, other: Any) -> Tensor:
        """Takes another's values, in place."""
        return self._write(ops.index_put(self, ..., as_tensor_here(self, other)))

    def fill_(self: Any, value: Any) -> Tensor:
        """One number everywhere, in place."""
        return self._write(ops.index_put(self, ..., value))

    def zero_(self: Any) -> Tensor:
        """Zeros, in place."""
        return self._write(ops.index_put(self, ..., 0))

    def index_put_(self: Any, indices: Any, values: Any, accumulate: builtins.bool = False) -> Tensor:
        """Writes at an index, in place."""
        return self._write(ops.index_put(self, tuple(indices), values, accumulate))

    def index_fill(self: Any, dim: int, index: Any, value: Any) -> Tensor:
        """One number at places along a dimension."""
        items = (*[slice(None)] * dim, index) if dim >= 0 else (..., index, *[slice(None)] * (-dim - 1))
        return ops.index_put(self, items, value)

    def addmm(self: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1) -> Tensor:
        """`beta * input + alpha * (a @ b)`."""
        product = ops.matmul(a, b)
        return ops.add(ops.mul(self, beta) if beta != 1 else self, ops.mul(product, alpha) if alpha != 1 else product)

    def new_zeros(self: Any, *size: Any, dtype: Any = None) -> Tensor:
        return ops.zeros(_flat(size), dtype or self.dtype)

    def new_ones(self: Any, *size: Any, dtype: Any = None) -> Tensor:
        return ops.ones(_flat(size), dtype or self.dtype)

    def new_full(self: Any, size: Any, fill_value: float, dtype: Any = None) -> Tensor:
        return ops.full(size, fill_value, dtype or self.dtype)

    def __eq__(self: Any, other: Any) -> Any:
        return False if other is None else ops.eq(self, other)

    def __ne__(self: Any, other: Any) -> Any:
        return True if other is None else ops.ne(self, other)

    def __hash__(self) -> builtins.int:
        return id(self)

    def __and__(self: Any, other: Any) -> Tensor:
        return _logical(ops.logical_and, self, other)

    def __or__(self: Any, other: Any) -> Tensor:
        return _logical(ops.logical_or, self, other)

    def __xor__(self: Any, other: Any) -> Tensor:
        return _logical(ops.logical_xor, self, other)

    def __invert__(self: Any) -> Tensor:
        if self.dtype != bool_:
            raise TypeError("`~` is for bools here; there are no operations on bits")
        return ops.logical_not(self)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    mm = ops.matmul
    bmm = ops.matmul
    mv = ops.matmul
    dot = ops.matmul
    clip = ops.clamp
    multiply = ops.mul
    subtract = ops.sub
    divide = ops.div
    true_divide = ops.div
    negative = ops.neg
    absolute = ops.abs
    greater = ops.gt
    less = ops.lt
    greater_equal = ops.ge
    less_equal = ops.le
    not_equal = ops.ne
    ger = ops.outer
    inverse = ops.inv
    square = square
    lerp = lerp


def as_tensor_here(beside: Tensor, value: Any) -> Tensor:
    """A tensor of a value, of the number type of the one beside which it is used."""
    return value if type(value) is _writer._tensor else as_tensor(value, beside.dtype)


def _logical(operation: Any, input: Tensor, other: Any) -> Tensor:
    if input.dtype != bool_:
        raise TypeError("`&`, `|` and `^` are for bools here; there are no operations on bits")
    return operation(input, other)
