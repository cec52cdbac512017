"""numpy's reductions, running sums and sorting on values of a trace."""

from __future__ import annotations

from typing import Any, Callable

from . import _refusals
from . import _operations as ops
from ._numpy_functions import converted, function
from ._numpy_ufuncs import reduced
from ._writer import as_tensor


def _floats(x: Any, dtype: Any) -> Any:
    x = converted(x, dtype)
    return x if x.dtype.is_floating_point else ops.to(x, "float64")


def _where(x: Any, where: Any, otherwise: Any) -> Any:
    if where is True or type(where).__name__ == "_NoValueType":
        return x
    return ops.where(ops.ne(where, 0) if str(as_tensor(where).dtype) != "bool" else where, x, otherwise)


def _initial(result: Any, initial: Any, operation: Any) -> Any:
    return result if initial is None or type(initial).__name__ == "_NoValueType" else operation(result, initial)


@function("sum")
def _sum(a: Any, axis: Any = None, dtype: Any = None, *, keepdims: Any = False, initial: Any = None, where: Any = True) -> Any:
    return _initial(reduced(ops.sum, _where(converted(a, dtype), where, 0), axis, keepdims), initial, ops.add)


@function("prod")
def _prod(a: Any, axis: Any = None, dtype: Any = None, *, keepdims: Any = False, initial: Any = None, where: Any = True) -> Any:
    return _initial(reduced(ops.prod, _where(converted(a, dtype), where, 1), axis, keepdims), initial, ops.mul)


@function("max", "amax")
def _max(a: Any, axis: Any = None, *, keepdims: Any = False, initial: Any = None) -> Any:
    return _initial(reduced(ops.amax, as_tensor(a), axis, keepdims), initial, ops.maximum)


@function("min", "amin")
def _min(a: Any, axis: Any = None, *, keepdims: Any = False, initial: Any = None) -> Any:
    return _initial(reduced(ops.amin, as_tensor(a), axis, keepdims), initial, ops.minimum)


@function("any")
def _any(a: Any, axis: Any = None, *, keepdims: Any = False) -> Any:
    return reduced(ops.any, ops.ne(a, 0), axis, keepdims)


@function("all")
def _all(a: Any, axis: Any = None, *, keepdims: Any = False) -> Any:
    return reduced(ops.all, ops.ne(a, 0), axis, keepdims)


@function("count_nonzero")
def _count_nonzero(a: Any, axis: Any = None, *, keepdims: Any = False) -> Any:
    return reduced(ops.sum, ops.ne(a, 0), axis, keepdims)


@function("mean")
def _mean(a: Any, axis: Any = None, dtype: Any = None, *, keepdims: Any = False, where: Any = True) -> Any:
    a = _floats(a, dtype)
    if where is True or type(where).__name__ == "_NoValueType":
        return reduced(ops.mean, a, axis, keepdims)
    mask = ops.ne(ops.mul(ops.ones(a.shape, a.dtype), where), 0)
    return ops.div(reduced(ops.sum, ops.where(mask, a, 0), axis, keepdims), reduced(ops.sum, mask, axis, keepdims))


@function("average")
def _average(a: Any, axis: Any = None, weights: Any = None, *, keepdims: Any = False) -> Any:
    if weights is None:
        return _mean(a, axis, keepdims=keepdims)
    weights, a = as_tensor(weights), _floats(a, None)
    if weights.ndim != a.ndim:
        if not isinstance(axis, int) or weights.ndim != 1:
            raise _refusals.option("numpy.average", "weights", weights, "weights of the shape of what is averaged, or of one axis")
        weights = ops.reshape(weights, [-1] + [1] * (a.ndim - 1 - axis % a.ndim))
    weights = ops.expand(weights, a.shape)
    return ops.div(reduced(ops.sum, ops.mul(a, weights), axis, keepdims), reduced(ops.sum, weights, axis, keepdims))


def _spread(operation: Any) -> Callable[..., Any]:
    def made(a: Any, axis: Any = None, dtype: Any = None, *, ddof: Any = 0, keepdims: Any = False, correction: Any = None) -> Any:
        correction = None if type(correction).__name__ == "_NoValueType" else correction
        by = ddof if correction is None else correction
        return reduced(lambda x, dim, keepdim: operation(x, dim, by, keepdim), _floats(a, dtype), axis if axis != () else None, keepdims)

    return made


function("std")(_spread(ops.std))
function("var")(_spread(ops.var))


def _place(operation: Any) -> Callable[..., Any]:
    def made(a: Any, axis: Any = None, *, keepdims: Any = False) -> Any:
        a = as_tensor(a)
        keepdims = False if type(keepdims).__name__ == "_NoValueType" else bool(keepdims)
        if axis is None:
            place = operation(ops.reshape(a, (-1,)), 0)
            return ops.reshape(place, [1] * a.ndim) if keepdims else place
        return operation(a, axis, keepdims)

    return made


function("argmax")(_place(ops.argmax))
function("argmin")(_place(ops.argmin))


def _running(operation: Any) -> Callable[..., Any]:
    def made(a: Any, axis: Any = None, dtype: Any = None) -> Any:
        a = converted(a, dtype)
        return operation(ops.reshape(a, (-1,)), 0) if axis is None else operation(a, axis)

    return made


function("cumsum")(_running(ops.cumsum))
function("cumprod")(_running(ops.cumprod))


@function("ptp")
def _ptp(a: Any, axis: Any = None, *, keepdims: Any = False) -> Any:
    return ops.sub(_max(a, axis, keepdims=keepdims), _min(a, axis, keepdims=keepdims))


@function("nansum")
def _nansum(a: Any, axis: Any = None, dtype: Any = None, *, keepdims: Any = False) -> Any:
    a = converted(a, dtype)
    return reduced(ops.sum, ops.where(ops.isnan(a), 0, a), axis, keepdims)


@function("nanmean")
def _nanmean(a: Any, axis: Any = None, dtype: Any = None, *, keepdims: Any = False) -> Any:
    return _mean(a, axis, dtype, keepdims=keepdims, where=ops.logical_not(ops.isnan(a)))


# Order


def _ordered(take: Any) -> Callable[..., Any]:
    def made(a: Any, axis: Any = -1, kind: Any = None, *, stable: Any = None) -> Any:
        return take(ops.reshape(a, (-1,)), 0) if axis is None else take(as_tensor(a), axis)

    return made


function("sort")(_ordered(lambda a, axis: ops.sort(a, axis).values))
function("argsort")(_ordered(lambda a, axis: ops.argsort(a, axis)))
