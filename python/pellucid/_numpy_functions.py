"""numpy's functions on values of a trace: the closed list of them, with numpy's own signatures and meaning. Number types promote as everywhere
here, by PyTorch's rules; means and deviations of whole numbers are float64, as numpy's."""

from __future__ import annotations

from typing import Any, Callable

from . import _functions, _refusals
from . import _operations as ops
from ._numpy_ufuncs import reduced
from ._writer import as_tensor

FUNCTIONS: dict[str, Callable[..., Any]] = {}


def function(*names: str) -> Callable[[Any], Any]:
    """Lists a function under numpy's names."""

    def wrap(made: Any) -> Any:
        FUNCTIONS.update({f"numpy.{name}": made for name in names})
        return made

    return wrap


def _as(x: Any, dtype: Any) -> Any:
    return as_tensor(x) if dtype is None else ops.to(as_tensor(x), dtype)


def _floats(x: Any, dtype: Any) -> Any:
    x = _as(x, dtype)
    return x if x.dtype.is_floating_point else ops.to(x, "float64")


# Reductions


def _where(x: Any, where: Any, otherwise: Any) -> Any:
    if where is True or type(where).__name__ == "_NoValueType":
        return x
    return ops.where(ops.ne(where, 0) if str(as_tensor(where).dtype) != "bool" else where, x, otherwise)


def _initial(result: Any, initial: Any, operation: Any) -> Any:
    return result if initial is None or type(initial).__name__ == "_NoValueType" else operation(result, initial)


@function("sum")
def _sum(a: Any, axis: Any = None, dtype: Any = None, *, keepdims: Any = False, initial: Any = None, where: Any = True) -> Any:
    return _initial(reduced(ops.sum, _where(_as(a, dtype), where, 0), axis, keepdims), initial, ops.add)


@function("prod")
def _prod(a: Any, axis: Any = None, dtype: Any = None, *, keepdims: Any = False, initial: Any = None, where: Any = True) -> Any:
    return _initial(reduced(ops.prod, _where(_as(a, dtype), where, 1), axis, keepdims), initial, ops.mul)


@function("max", "amax")
def _max(a: Any, axis: Any = None, *, keepdims: Any = False, initial: Any = None) -> Any:
    return _initial(reduced(ops.amax, as_tensor(a), axis, keepdims), initial, _larger)


@function("min", "amin")
def _min(a: Any, axis: Any = None, *, keepdims: Any = False, initial: Any = None) -> Any:
    return _initial(reduced(ops.amin, as_tensor(a), axis, keepdims), initial, _smaller)


def _larger(x: Any, number: Any) -> Any:
    return ops.maximum(x, number)


def _smaller(x: Any, number: Any) -> Any:
    return ops.minimum(x, number)


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
        a = _as(a, dtype)
        return operation(ops.reshape(a, (-1,)), 0) if axis is None else operation(a, axis)

    return made


function("cumsum")(_running(ops.cumsum))
function("cumprod")(_running(ops.cumprod))


@function("ptp")
def _ptp(a: Any, axis: Any = None, *, keepdims: Any = False) -> Any:
    return ops.sub(_max(a, axis, keepdims=keepdims), _min(a, axis, keepdims=keepdims))


@function("nansum")
def _nansum(a: Any, axis: Any = None, dtype: Any = None, *, keepdims: Any = False) -> Any:
    a = _as(a, dtype)
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


# Forms


@function("reshape")
def _reshape(a: Any, shape: Any = None, order: Any = "C", *, newshape: Any = None) -> Any:
    size = shape if newshape is None else newshape
    size = (size,) if isinstance(size, int) else tuple(size)
    if order != "C":
        raise _refusals.option("numpy.reshape", "order", order, "`x.permute(…)` first says the order")
    return as_tensor(a).reshape(size)


@function("ravel")
def _ravel(a: Any, order: Any = "C") -> Any:
    if order != "C":
        raise _refusals.option("numpy.ravel", "order", order, "`x.permute(…)` first says the order")
    return as_tensor(a).reshape(-1)


@function("transpose")
def _transpose(a: Any, axes: Any = None) -> Any:
    a = as_tensor(a)
    return a.permute(list(range(a.ndim))[::-1] if axes is None else list(axes))


@function("swapaxes")
def _swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    return as_tensor(a).transpose(axis1, axis2)


@function("moveaxis")
def _moveaxis(a: Any, source: Any, destination: Any) -> Any:
    return as_tensor(a).movedim(source, destination)


@function("expand_dims")
def _expand_dims(a: Any, axis: Any) -> Any:
    a = as_tensor(a)
    places = axis if isinstance(axis, (tuple, list)) else (axis,)
    count = a.ndim + len(places)
    for place in sorted(each % count for each in places):
        a = a.unsqueeze(place)
    return a


@function("squeeze")
def _squeeze(a: Any, axis: Any = None) -> Any:
    return as_tensor(a).squeeze(axis)


@function("broadcast_to")
def _broadcast_to(array: Any, shape: Any) -> Any:
    return as_tensor(array).expand((shape,) if isinstance(shape, int) else tuple(shape))


@function("flip")
def _flip(m: Any, axis: Any = None) -> Any:
    m = as_tensor(m)
    return ops.flip(m, list(range(m.ndim)) if axis is None else list(axis) if isinstance(axis, tuple) else axis)


@function("fliplr")
def _fliplr(m: Any) -> Any:
    return ops.flip(m, 1)


@function("flipud")
def _flipud(m: Any) -> Any:
    return ops.flip(m, 0)


@function("roll")
def _roll(a: Any, shift: Any, axis: Any = None) -> Any:
    shift = list(shift) if isinstance(shift, tuple) else shift
    if axis is None:
        return as_tensor(a).roll(sum(shift) if isinstance(shift, list) else shift)
    places = list(axis) if isinstance(axis, tuple) else [axis]
    return ops.roll(a, shift if isinstance(shift, list) else [shift] * len(places), places)


@function("repeat")
def _repeat(a: Any, repeats: Any, axis: Any = None) -> Any:
    return as_tensor(a).repeat_interleave(repeats, axis)


@function("tile")
def _tile(A: Any, reps: Any) -> Any:
    A, counts = as_tensor(A), [reps] if isinstance(reps, int) else list(reps)
    return ops.repeat(A, [1] * (A.ndim - len(counts)) + counts)


@function("concatenate")
def _concatenate(arrays: Any, axis: Any = 0, *, dtype: Any = None) -> Any:
    arrays = [_as(each, dtype) for each in arrays]
    return ops.cat([ops.reshape(each, (-1,)) for each in arrays], 0) if axis is None else ops.cat(arrays, axis)


@function("stack")
def _stack(arrays: Any, axis: int = 0, *, dtype: Any = None) -> Any:
    return ops.stack([_as(each, dtype) for each in arrays], axis)


@function("vstack")
def _vstack(tup: Any, *, dtype: Any = None) -> Any:
    rows = [_as(each, dtype) for each in tup]
    return ops.cat([each if each.ndim > 1 else ops.reshape(each, (1, -1)) for each in rows], 0)


@function("hstack")
def _hstack(tup: Any, *, dtype: Any = None) -> Any:
    parts = [_as(each, dtype) for each in tup]
    parts = [each if each.ndim else ops.reshape(each, (1,)) for each in parts]
    return ops.cat(parts, 0 if parts[0].ndim == 1 else 1)


def _split_at(exact: bool) -> Callable[..., Any]:
    def made(ary: Any, indices_or_sections: Any, axis: int = 0) -> Any:
        ary = as_tensor(ary)
        size = int(ary.shape[axis])
        if isinstance(indices_or_sections, int):
            parts = indices_or_sections
            if exact and size % parts:
                raise ValueError(f"{size} cannot be split into {parts} equal parts\n  hint: `numpy.array_split` makes unequal ones")
            sizes = [size // parts + (place < size % parts) for place in range(parts)]
            ends = [sum(sizes[: place + 1]) for place in range(parts)]
        else:
            ends = [*indices_or_sections, size]
        starts = [0, *ends[:-1]]
        before = (slice(None),) * (axis % ary.ndim)
        return [ary[(*before, slice(start, end))] for start, end in zip(starts, ends)]

    return made


function("split")(_split_at(True))
function("array_split")(_split_at(False))


@function("pad")
def _pad(array: Any, pad_width: Any, mode: Any = "constant", *, constant_values: Any = 0) -> Any:
    array = as_tensor(array)
    if mode != "constant":
        raise _refusals.option("numpy.pad", "mode", mode, "`constant` is there; others are `pl.cat` of slices and of their `flip`")
    if not isinstance(constant_values, (int, float)):
        raise _refusals.option("numpy.pad", "constant_values", constant_values, "one number")
    widths = [pad_width, pad_width] if isinstance(pad_width, int) else list(pad_width)
    if len(widths) == 1 and isinstance(widths[0], int):
        widths = widths * 2
    pairs: list[Any] = [widths] * array.ndim if isinstance(widths[0], int) else widths
    pairs = pairs * array.ndim if len(pairs) == 1 else pairs
    return ops.pad(array, [number for pair in reversed(pairs) for number in pair], constant_values)


@function("tril")
def _tril(m: Any, k: int = 0) -> Any:
    return ops.tril(m, k)


@function("triu")
def _triu(m: Any, k: int = 0) -> Any:
    return ops.triu(m, k)


@function("diagonal")
def _diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return ops.diagonal(a, offset, axis1, axis2)


@function("trace")
def _trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None) -> Any:
    return ops.sum(ops.diagonal(_as(a, dtype), offset, axis1, axis2), -1)


@function("diff")
def _diff(a: Any, n: int = 1, axis: int = -1) -> Any:
    return as_tensor(a).diff(n, axis)


@function("copy")
def _copy(a: Any) -> Any:
    return as_tensor(a).clone()


# Choosing, places, numbers


@function("where")
def _choose(condition: Any, x: Any = None, y: Any = None) -> Any:
    if x is None or y is None:
        raise _refusals.unknown("numpy.where of a condition alone")
    condition = as_tensor(condition)
    return ops.where(condition if str(condition.dtype) == "bool" else ops.ne(condition, 0), x, y)


@function("clip")
def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    none = {"_NoValueType"}
    low, high = (None if type(each).__name__ in none else each for each in (a_min, a_max))
    low, high = min if low is None else low, max if high is None else high
    low, high = (None if type(each).__name__ in none else each for each in (low, high))
    return as_tensor(a) if low is None and high is None else as_tensor(a).clamp(low, high)


@function("round", "around")
def _round(a: Any, decimals: int = 0) -> Any:
    a = as_tensor(a)
    if decimals == 0 or a.dtype.is_floating_point:
        return a.round(decimals=decimals)
    return a if decimals > 0 else ops.to(a.round(decimals=decimals), a.dtype)


@function("take_along_axis")
def _take_along_axis(arr: Any, indices: Any, axis: Any = -1) -> Any:
    return as_tensor(arr).take_along_dim(as_tensor(indices), axis)


@function("take")
def _take(a: Any, indices: Any, axis: Any = None, mode: Any = "raise") -> Any:
    if mode != "raise":
        raise _refusals.option("numpy.take", "mode", mode)
    a = ops.reshape(a, (-1,)) if axis is None else as_tensor(a)
    place = 0 if axis is None else axis % a.ndim
    indices = indices if isinstance(indices, int) else as_tensor(indices)
    return a[(*[slice(None)] * place, indices)]


for _name in ("zeros_like", "ones_like"):
    FUNCTIONS[f"numpy.{_name}"] = (lambda made: lambda a, dtype=None: made(a, dtype))(getattr(_functions, _name))
FUNCTIONS["numpy.full_like"] = lambda a, fill_value, dtype=None: _functions.full_like(a, fill_value, dtype)
FUNCTIONS["numpy.shape"] = lambda a: tuple(a.shape)
FUNCTIONS["numpy.ndim"] = lambda a: a.ndim
FUNCTIONS["numpy.size"] = lambda a, axis=None: a.numel() if axis is None else a.shape[axis]
