"""numpy's ufuncs on values of a trace: the closed list of them, with numpy's meaning of their methods and options."""

from __future__ import annotations

from typing import Any, Callable

from . import _refusals
from . import _operations as ops
from ._composed import Composed
from ._tensor import Tensor
from ._writer import as_tensor


def _sign(x: Any) -> Any:
    return ops.where(ops.isnan(x), x, ops.sign(x))


def _on_bools(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
    def wrap(*values: Any) -> Any:
        if any(str(getattr(as_tensor(value), "dtype", "")) != "bool" for value in values):
            raise _refusals.option(f"numpy.{name}", "x", "whole numbers", "there are no operations on bits; of bools it is the logical one")
        return operation(*values)

    return wrap


def _copysign_free(x: Any) -> Any:
    return ops.abs(_floating(x))


def _floating(x: Any) -> Any:
    return x if not isinstance(x, Tensor) or x.dtype.is_floating_point else ops.to(x, "float64")


def _heaviside(x: Any, middle: Any) -> Any:
    return ops.where(ops.isnan(x), x, ops.where(ops.eq(x, 0), middle, ops.to(ops.gt(x, 0), "float32")))


def _of_truths(operation: Any) -> Any:
    return lambda x, dim=None, keepdim=False: operation(ops.ne(x, 0), dim, keepdim)


#: numpy's functions by their names.
UFUNCS: dict[str, Callable[..., Any]] = {
    "add": ops.add, "subtract": ops.sub, "multiply": ops.mul, "divide": ops.div, "true_divide": ops.div, "floor_divide": ops.floor_divide,
    "remainder": ops.remainder, "mod": ops.remainder, "power": ops.pow, "float_power": ops.pow, "negative": ops.neg, "positive": lambda x: x,
    "absolute": ops.abs, "fabs": _copysign_free, "sign": _sign, "rint": lambda x: ops.round(_floating(x)), "floor": ops.floor, "ceil": ops.ceil,
    "trunc": ops.trunc, "exp": ops.exp, "expm1": ops.expm1, "log": ops.log, "log2": ops.log2, "log1p": ops.log1p, "sqrt": ops.sqrt,
    "square": lambda x: ops.pow(x, 2), "reciprocal": ops.reciprocal, "sin": ops.sin, "cos": ops.cos, "tanh": ops.tanh,
    "maximum": ops.maximum, "minimum": ops.minimum, "fmax": Composed.fmax, "fmin": Composed.fmin, "logaddexp": Composed.logaddexp,
    "heaviside": _heaviside, "equal": ops.eq, "not_equal": ops.ne, "less": ops.lt, "less_equal": ops.le, "greater": ops.gt,
    "greater_equal": ops.ge, "logical_and": ops.logical_and, "logical_or": ops.logical_or, "logical_xor": ops.logical_xor,
    "logical_not": ops.logical_not, "isnan": ops.isnan, "isinf": ops.isinf, "isfinite": ops.isfinite, "matmul": ops.matmul,
    "bitwise_and": _on_bools("bitwise_and", ops.logical_and), "bitwise_or": _on_bools("bitwise_or", ops.logical_or),
    "bitwise_xor": _on_bools("bitwise_xor", ops.logical_xor), "invert": _on_bools("invert", ops.logical_not),
    "clip": lambda x, low, high: as_tensor(x).clamp(low, high), "vecdot": lambda x, y: ops.sum(ops.mul(x, y), -1),
}
_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "add": ops.sum, "multiply": ops.prod, "maximum": ops.amax, "minimum": ops.amin, "logical_and": _of_truths(ops.all), "logical_or": _of_truths(ops.any),
}
_RUNNING: dict[str, Callable[..., Any]] = {"add": ops.cumsum, "multiply": ops.cumprod}


def recorded(ufunc: Any, method: str, inputs: list[Any], options: dict[str, Any]) -> Any:
    """What a ufunc, or a method of it, records."""
    name = ufunc.__name__
    shown = f"numpy.{name}" if method == "__call__" else f"numpy.{name}.{method}"
    out = options.pop("out", None)
    for target in out or ():
        if target is not None and not isinstance(target, Tensor):
            raise _refusals.into(shown, "an array of numpy")
    dtype = options.pop("dtype", None)
    allowed = {"reduce": ("axis", "keepdims", "initial"), "accumulate": ("axis",)}.get(method, ())
    for key in list(options):
        if key not in allowed:
            value = options.pop(key)
            neutral = value is None or key == "where" and value is True or key == "casting" and value == "same_kind"
            if not (neutral or key == "subok" or key == "order" and value in ("C", "K", "A")):
                raise _refusals.option(shown, key, value)
    result = _computed(shown, name, method, inputs, options)
    if result is None:
        raise _refusals.unknown(shown)
    if dtype is not None:
        raise _refusals.option(shown, "dtype", dtype, "convert what goes in, `x.to(…)`, or what comes out")
    if out is None or out[0] is None:
        return result
    return out[0]._write(result)


def _computed(shown: str, name: str, method: str, inputs: list[Any], options: dict[str, Any]) -> Any:
    if method == "__call__" and name in UFUNCS:
        first = as_tensor(inputs[0]) if name in ("fmax", "fmin", "logaddexp") else inputs[0]
        return UFUNCS[name](first, *inputs[1:])
    if method == "reduce" and name in _REDUCTIONS:
        initial = options.pop("initial", None)
        if initial is not None and type(initial).__name__ != "_NoValueType":
            raise _refusals.option(shown, "initial", initial)
        return reduced(_REDUCTIONS[name], *inputs, **{"axis": 0, **options})
    if method == "accumulate" and name in _RUNNING:
        return _RUNNING[name](*inputs, options.get("axis", 0))
    if method == "outer" and name in UFUNCS:
        left, right = as_tensor(inputs[0]), as_tensor(inputs[1])
        return UFUNCS[name](ops.reshape(left, (*left.shape, *([1] * right.ndim))), right)
    if method == "at" and name in ("add", "subtract"):
        target, index, *values = inputs
        if not isinstance(target, Tensor):
            raise _refusals.into(shown, "an array of numpy")
        value = values[0] if name == "add" else ops.neg(as_tensor(values[0]))
        target._write(ops.index_put(target, index, value, True))
        return ()
    return None


def reduced(operation: Any, x: Any, axis: Any = None, keepdims: Any = False) -> Any:
    """A reduction over an axis, several, or all."""
    keepdims = False if type(keepdims).__name__ == "_NoValueType" else bool(keepdims)
    if isinstance(axis, tuple):
        if not axis:
            return operation(ops.unsqueeze(x, 0), 0, False)
        if operation is ops.prod:
            places = sorted((each % x.ndim for each in axis), reverse=True)
            for place in places:
                x = ops.prod(x, place, keepdims)
            return x
        axis = list(axis)
    if axis is None and keepdims:
        axis = list(range(x.ndim))
        if operation is ops.prod:
            return reduced(operation, x, tuple(axis), True)
        if not axis:
            return operation(x)
    return operation(x, axis, keepdims)
