"""Functions of numpy and torch that are called on tensors: they record the operation of that meaning."""

from __future__ import annotations

import builtins
from typing import Any

from . import _functions as functions
from . import _operations as ops
from ._errors import NotComputedError
from ._tensor import Tensor

#: numpy's names, where they are not PyTorch's.
_NUMPY = {
    "multiply": ops.mul, "subtract": ops.sub, "divide": ops.div, "true_divide": ops.div, "power": ops.pow, "negative": ops.neg,
    "absolute": ops.abs, "fabs": ops.abs, "equal": ops.eq, "not_equal": ops.ne, "less": ops.lt, "less_equal": ops.le, "greater": ops.gt,
    "greater_equal": ops.ge, "mod": ops.remainder, "rint": ops.round, "logaddexp": None, "fmax": ops.maximum, "fmin": ops.minimum,
    "square": functions.square, "concatenate": ops.cat, "transpose": None, "max": ops.amax, "min": ops.amin, "clip": None,
    "swapaxes": ops.transpose, "moveaxis": ops.movedim, "expand_dims": ops.unsqueeze, "bitwise_and": ops.logical_and,
    "bitwise_or": ops.logical_or, "bitwise_xor": ops.logical_xor, "invert": ops.logical_not, "logical_not": ops.logical_not,
}
#: numpy's keywords.
_KEYWORDS = {"axis": "dim", "keepdims": "keepdim", "ddof": "correction"}


def numpy_ufunc(ufunc: Any, method: str, inputs: Any, options: dict[str, Any]) -> Any:
    name = ufunc.__name__
    if _all_computed(inputs):
        import numpy

        # Numbers that are there: numpy's own affair.
        plain = [each.numpy() if isinstance(each, Tensor) else each for each in inputs]
        return getattr(ufunc, method)(*plain, **options)
    if method == "reduce" and name in ("add", "multiply", "maximum", "minimum", "logical_and", "logical_or"):
        reduction = {"add": ops.sum, "multiply": ops.prod, "maximum": ops.amax, "minimum": ops.amin,
                     "logical_and": ops.all, "logical_or": ops.any}[name]
        return reduction(*inputs, **_renamed(options))
    out = options.pop("out", None)
    function = _NUMPY.get(name) or getattr(ops, name, None)
    if method != "__call__" or function is None or options:
        raise _unknown(f"numpy.{name}")
    result = function(*inputs)
    if out is not None:
        (target,) = out
        return target._write(result) if isinstance(target, Tensor) else NotImplemented
    return result


def numpy_function(function: Any, arguments: Any, options: dict[str, Any]) -> Any:
    name = function.__name__
    if _all_computed([*arguments, *options.values()]):
        plain = [_plain(each) for each in arguments]
        return function(*plain, **{key: _plain(value) for key, value in options.items()})
    options = _renamed(options)
    if name == "transpose":
        axes = options.get("axes", arguments[1] if len(arguments) > 1 else None)
        return arguments[0].T if axes is None else ops.permute(arguments[0], axes)
    if name == "clip":
        return ops.clamp(*arguments, **{key.removeprefix("a_"): value for key, value in options.items()})
    if name == "einsum":
        return functions.einsum(*arguments)
    if name in ("std", "var"):
        options.setdefault("correction", 0)
    if name == "zeros_like":
        return functions.zeros_like(arguments[0])
    if name == "ones_like":
        return functions.ones_like(arguments[0])
    if name in ("stack", "concatenate", "take_along_axis", "cumsum", "argmax", "argmin"):
        target = ops.take_along_dim if name == "take_along_axis" else _NUMPY.get(name) or getattr(ops, name)
        return target(*arguments, **options)
    target = _NUMPY.get(name) or getattr(ops, name, None)
    if target is None:
        raise _unknown(f"numpy.{name}")
    return target(*arguments, **{key: value for key, value in options.items() if value is not None})


#: What is done otherwise than by the operation of the same name.
def _torch_special(name: str, arguments: list[Any], options: dict[str, Any]) -> Any:
    if name in ("einsum", "lerp", "square", "zeros_like", "ones_like", "full_like", "randn_like", "rand_like"):
        options.pop("device", None)
        return getattr(functions, name)(*arguments, **options)
    if name in ("max", "min", "std", "var", "norm", "where", "scatter", "split", "chunk", "unbind", "reshape", "permute",
                "transpose", "squeeze", "unsqueeze", "flatten", "unflatten", "movedim", "select", "narrow", "flip", "repeat",
                "expand", "view", "t", "clone", "diagonal", "addmm", "index_add"):
        if name == "where":
            return ops.where(*arguments, **options)
        if name == "permute" and options:
            return arguments[0].permute(options["dims"])
        subject, rest = arguments[0], arguments[1:]
        if not isinstance(subject, Tensor):
            subject = functions.tensor(subject)
        return getattr(subject, name)(*rest, **options)
    return NotImplemented


def torch_function(function: Any, arguments: Any, options: dict[str, Any]) -> Any:
    name = getattr(function, "__name__", str(function))
    if name in ("__get__", "__set__"):
        raise _unknown(f"torch: {function}")
    options = {key: value for key, value in options.items() if key not in ("out", "layout", "_stacklevel", "inplace")}
    listed = list(arguments)
    if name in ("softmax", "log_softmax", "gumbel_softmax"):
        kind = options.pop("dtype", None)
        if name == "gumbel_softmax":
            raise _unknown("torch.nn.functional.gumbel_softmax")
        listed = listed[:2]
        result = getattr(ops, name)(*listed, **options)
        return result if kind is None else result.to(kind)
    if name == "dropout":
        return listed[0]
    if name in ("layer_norm", "rms_norm", "cross_entropy", "nll_loss", "mse_loss", "kl_div"):
        options = {key: value for key, value in options.items() if key not in ("size_average", "reduce")}
    if name == "linear":
        product = ops.matmul(listed[0], functions.tensor(listed[1]).transpose(-1, -2))
        bias = listed[2] if len(listed) > 2 else options.get("bias")
        return product if bias is None else product + bias
    special = _torch_special(name, listed, options)
    if special is not NotImplemented:
        return special
    if name.startswith("__") and isinstance(listed[0], Tensor):
        return getattr(listed[0], name)(*listed[1:])
    if name.startswith("__") or name in ("add", "sub", "mul", "div", "matmul", "pow") and not isinstance(listed[0], Tensor):
        bare = {"__add__": "add", "__sub__": "sub", "__mul__": "mul", "__truediv__": "div", "__matmul__": "matmul",
                "__pow__": "pow", "__rsub__": "sub", "__eq__": "eq", "__ne__": "ne", "__lt__": "lt", "__gt__": "gt",
                "__le__": "le", "__ge__": "ge"}.get(name, name)
        target: Any = getattr(ops, bare, None)
    else:
        target = functions._ALIASES.get(name) or getattr(ops, name.removesuffix("_"), None)
        if target is None and isinstance(listed[0], Tensor):
            target = getattr(Tensor, name, None)
    if name == "__rsub__":
        listed = listed[::-1]
    if target is None:
        raise _unknown(f"torch.{name}")
    if "linalg_" in name or name.startswith("linalg"):
        target = getattr(ops, name.removeprefix("linalg_"), target)
    alpha = options.pop("alpha", 1)
    if alpha != 1:
        listed[1] = ops.mul(listed[1], alpha)
    return target(*listed, **{key: value for key, value in options.items() if value is not None})


def _renamed(options: dict[str, Any]) -> dict[str, Any]:
    skipped = ("out", "where", "initial", "dtype", "casting", "order", "subok", "shape")
    return {_KEYWORDS.get(key, key): value for key, value in options.items() if key not in skipped}


def _all_computed(values: Any) -> builtins.bool:
    for value in values:
        if isinstance(value, Tensor) and value._core is None:
            return False
        if isinstance(value, (list, tuple)) and not _all_computed(value):
            return False
    return True


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.numpy()
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value


def _unknown(name: str) -> NotComputedError:
    return NotComputedError(
        f"`{name}` cannot be recorded: a program is made of a closed set of operations\n  hint: docs/operations.md lists them; "
        "after the trace results work with every function of numpy and torch"
    )
