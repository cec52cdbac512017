"""numpy's functions on values of a trace by which elements stand elsewhere, are chosen, or are kept in bounds."""

from __future__ import annotations

from typing import Any, Callable

from . import _functions, _refusals
from . import _operations as ops
from ._numpy_functions import FUNCTIONS, converted, function
from ._writer import as_tensor

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
    arrays = [converted(each, dtype) for each in arrays]
    return ops.cat([ops.reshape(each, (-1,)) for each in arrays], 0) if axis is None else ops.cat(arrays, axis)


@function("stack")
def _stack(arrays: Any, axis: int = 0, *, dtype: Any = None) -> Any:
    return ops.stack([converted(each, dtype) for each in arrays], axis)


@function("vstack")
def _vstack(tup: Any, *, dtype: Any = None) -> Any:
    rows = [converted(each, dtype) for each in tup]
    return ops.cat([each if each.ndim > 1 else ops.reshape(each, (1, -1)) for each in rows], 0)


@function("hstack")
def _hstack(tup: Any, *, dtype: Any = None) -> Any:
    parts = [converted(each, dtype) for each in tup]
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
    return ops.sum(ops.diagonal(converted(a, dtype), offset, axis1, axis2), -1)


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
