"""Reductions, and what goes along a dimension, as methods with torch's signatures; numpy's `axis` and `keepdims` are understood, as torch does."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _operations as ops
from . import _writer
from ._norms import matrix_norm
from ._operations import Methods

if TYPE_CHECKING:
    from ._tensor import Tensor


class MaxMin(NamedTuple):
    values: Tensor
    indices: Tensor

    def save(self) -> MaxMin:
        """Saves all of them."""
        for value in self:
            value.save()
        return self


class MinMax(NamedTuple):
    min: Tensor
    max: Tensor

    def save(self) -> MinMax:
        """Saves all of them."""
        for value in self:
            value.save()
        return self


def std_or_var(function: Any, input: Tensor, dim: Any, correction: Any, keepdim: Any, unbiased: Any) -> Tensor:
    if isinstance(dim, builtins.bool):
        dim, unbiased = None, dim
    if isinstance(correction, builtins.bool):
        correction = 1 if correction else 0
    if unbiased is not None:
        correction = 1 if unbiased else 0
    return function(input, dim, 1 if correction is None else correction, keepdim)


def _extreme(largest: builtins.bool, input: Any, dim: Any, keepdim: Any) -> Any:
    """The largest or smallest of all; along a dimension with its place, from which alone a gradient flows; or of two tensors."""
    if dim is None:
        return ops.amax(input) if largest else ops.amin(input)
    if type(dim) is _writer._tensor or _writer.is_array(dim):
        return (ops.maximum if largest else ops.minimum)(input, dim)
    places = (ops.argmax if largest else ops.argmin)(input, dim, True)
    values = ops.gather(input, dim, places)
    return MaxMin(values, places) if keepdim else MaxMin(ops.squeeze(values, dim), ops.squeeze(places, dim))


def _as(input: Any, dtype: Any) -> Any:
    return input if dtype is None else ops.to(input, dtype)


def _either(given: Any, numpys: Any) -> Any:
    """A dimension or flag under torch's name, or under numpy's."""
    return given if numpys is None else numpys


class Reductions(Methods):
    """Methods that go along dimensions."""

    __slots__ = ()

    def sum(self: Any, dim: Any = None, keepdim: builtins.bool = False, dtype: Any = None, *, axis: Any = None, keepdims: Any = None) -> Tensor:
        """The sum."""
        return ops.sum(self, _all_if_empty(_either(dim, axis)), _either(keepdim, keepdims), dtype)

    def mean(self: Any, dim: Any = None, keepdim: builtins.bool = False, dtype: Any = None, *, axis: Any = None, keepdims: Any = None) -> Tensor:
        """The mean."""
        return ops.mean(_as(self, dtype), _all_if_empty(_either(dim, axis)), _either(keepdim, keepdims))

    def prod(self: Any, dim: Any = None, keepdim: builtins.bool = False, dtype: Any = None, *, axis: Any = None, keepdims: Any = None) -> Tensor:
        """The product."""
        return ops.prod(_as(self, dtype), _either(dim, axis), _either(keepdim, keepdims))

    def any(self: Any, dim: Any = None, keepdim: builtins.bool = False, *, axis: Any = None, keepdims: Any = None) -> Tensor:
        """Whether one is not 0."""
        return ops.any(self, _either(dim, axis), _either(keepdim, keepdims))

    def all(self: Any, dim: Any = None, keepdim: builtins.bool = False, *, axis: Any = None, keepdims: Any = None) -> Tensor:
        """Whether none is 0."""
        return ops.all(self, _either(dim, axis), _either(keepdim, keepdims))

    def amax(self: Any, dim: Any = None, keepdim: builtins.bool = False, *, axis: Any = None, keepdims: Any = None) -> Tensor:
        """The largest; equal ones share its gradient."""
        return ops.amax(self, _all_if_empty(_either(dim, axis)), _either(keepdim, keepdims))

    def amin(self: Any, dim: Any = None, keepdim: builtins.bool = False, *, axis: Any = None, keepdims: Any = None) -> Tensor:
        """The smallest; equal ones share its gradient."""
        return ops.amin(self, _all_if_empty(_either(dim, axis)), _either(keepdim, keepdims))

    def argmax(self: Any, dim: Any = None, keepdim: builtins.bool = False, *, axis: Any = None, keepdims: Any = None) -> Tensor:
        """The place of the largest, the lowest of equals."""
        return ops.argmax(self, _either(dim, axis), _either(keepdim, keepdims))

    def argmin(self: Any, dim: Any = None, keepdim: builtins.bool = False, *, axis: Any = None, keepdims: Any = None) -> Tensor:
        """The place of the smallest, the lowest of equals."""
        return ops.argmin(self, _either(dim, axis), _either(keepdim, keepdims))

    def max(self: Any, dim: Any = None, keepdim: builtins.bool = False, *, axis: Any = None, keepdims: Any = None, other: Any = None) -> Any:
        """The largest; along a dimension: values and places; with a tensor: the larger of two."""
        return _extreme(True, self, other if other is not None else _either(dim, axis), _either(keepdim, keepdims))

    def min(self: Any, dim: Any = None, keepdim: builtins.bool = False, *, axis: Any = None, keepdims: Any = None, other: Any = None) -> Any:
        """The smallest; along a dimension: values and places; with a tensor: the smaller of two."""
        return _extreme(False, self, other if other is not None else _either(dim, axis), _either(keepdim, keepdims))

    def aminmax(self: Any, *, dim: Any = None, keepdim: builtins.bool = False) -> MinMax:
        """The smallest and the largest."""
        return MinMax(ops.amin(self, dim, keepdim), ops.amax(self, dim, keepdim))

    def std(
        self: Any, dim: Any = None, correction: Any = 1, keepdim: builtins.bool = False, unbiased: Any = None, *, axis: Any = None, keepdims: Any = None
    ) -> Tensor:
        """The standard deviation."""
        return std_or_var(ops.std, self, _all_if_empty(_either(dim, axis)), correction, _either(keepdim, keepdims), unbiased)

    def var(
        self: Any, dim: Any = None, correction: Any = 1, keepdim: builtins.bool = False, unbiased: Any = None, *, axis: Any = None, keepdims: Any = None
    ) -> Tensor:
        """The variance."""
        return std_or_var(ops.var, self, _all_if_empty(_either(dim, axis)), correction, _either(keepdim, keepdims), unbiased)

    def norm(self: Any, p: Any = "fro", dim: Any = None, keepdim: builtins.bool = False, dtype: Any = None) -> Tensor:
        """The p-norm of the elements; `nuc`: of a matrix, the sum of its singular values."""
        if p == "nuc":
            return matrix_norm(_as(self, dtype), "nuc", (-2, -1) if dim is None else dim, keepdim)
        return ops.norm(_as(self, dtype), 2 if p in (None, "fro") else p, _all_if_empty(dim), keepdim)

    def logsumexp(self: Any, dim: Any, keepdim: builtins.bool = False) -> Tensor:
        """`log(sum(exp(input)))`."""
        return ops.logsumexp(self, dim, keepdim)

    def cumsum(self: Any, dim: Any = None, dtype: Any = None, *, axis: Any = None) -> Tensor:
        """The running sum."""
        return ops.cumsum(_as(self, dtype), _one(_either(dim, axis), "cumsum"))

    def cumprod(self: Any, dim: Any = None, dtype: Any = None, *, axis: Any = None) -> Tensor:
        """The running product."""
        return ops.cumprod(_as(self, dtype), _one(_either(dim, axis), "cumprod"))

    def softmax(self: Any, dim: Any = None, dtype: Any = None, *, axis: Any = None) -> Tensor:
        """Exponentials that sum to 1 along a dimension; `dtype`: of that number type before anything is computed."""
        return ops.softmax(_as(self, dtype), _one(_either(dim, axis), "softmax"))

    def log_softmax(self: Any, dim: Any = None, dtype: Any = None, *, axis: Any = None) -> Tensor:
        """The logarithm of softmax."""
        return ops.log_softmax(_as(self, dtype), _one(_either(dim, axis), "log_softmax"))

    def count_nonzero(self: Any, dim: Any = None) -> Tensor:
        """How many are not 0."""
        return ops.sum(ops.ne(self, 0), _all_if_empty(dim))

    def nansum(self: Any, dim: Any = None, keepdim: builtins.bool = False, dtype: Any = None) -> Tensor:
        """The sum of what is a number."""
        return ops.sum(ops.where(ops.isnan(self), 0, self), _all_if_empty(dim), keepdim, dtype)

    def nanmean(self: Any, dim: Any = None, keepdim: builtins.bool = False, dtype: Any = None) -> Tensor:
        """The mean of what is a number."""
        there = ops.sum(ops.logical_not(ops.isnan(self)), _all_if_empty(dim), keepdim)
        return ops.div(ops.sum(ops.where(ops.isnan(self), 0, _as(self, dtype)), _all_if_empty(dim), keepdim), there)

    def sort(self: Any, dim: Any = -1, descending: builtins.bool = False, stable: Any = None) -> ops.Sort:
        """Sorted, and the places; equals stay in order."""
        return ops.sort(self, dim, descending)

    def argsort(self: Any, dim: Any = -1, descending: builtins.bool = False, stable: Any = None) -> Tensor:
        """The places that would sort it; equals stay in order."""
        return ops.argsort(self, dim, descending)

    def msort(self: Any) -> Tensor:
        """Sorted along the first dimension."""
        return ops.sort(self, 0).values

    def topk(self: Any, k: Any, dim: Any = -1, largest: builtins.bool = True, sorted: builtins.bool = True) -> ops.TopK:
        """The k largest (or smallest), sorted, and their places; the lowest of equals first."""
        return ops.topk(self, k, -1 if dim is None else dim, largest)

    def diff(self: Any, n: int = 1, dim: int = -1) -> Tensor:
        """Each less the one before it along a dimension, `n` times."""
        result = self
        for _ in range(n):
            count = result.shape[dim]
            result = result.narrow(dim, 1, count - 1) - result.narrow(dim, 0, count - 1)
        return result


def _all_if_empty(dim: Any) -> Any:
    """No dimensions at all mean all of them to torch."""
    return None if isinstance(dim, (list, tuple)) and not dim else dim


def _one(dim: Any, name: str) -> Any:
    if dim is None:
        raise TypeError(f"`{name}` needs a dimension\n  hint: `x.{name}(-1)` goes along the last one")
    return dim
