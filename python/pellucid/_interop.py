"""Functions of numpy and torch that are called on tensors.

On results they are what they always are: numpy's own, torch's own, on the numbers. On values of a trace they record the operation of that
meaning. `_numpy_functions`, `_numpy_ufuncs`, `_torch_functions` and `_torch_linalg` are closed lists, with each library's own signatures: what is
not there, function or option, is refused by name. Nothing is passed over.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any, Callable

from . import _refusals
from ._given import wants_gradients
from ._recorder import recording
from ._tensor import Tensor

#: Parameters under numpy's names, which torch understands too.
_TORCH_NAMES = {"axis": "dim", "keepdims": "keepdim", "x1": "input", "x2": "other", "x": "input", "a": "input"}
#: Options that change nothing about the value, and those of their values that may be given.
_NEUTRAL: dict[str, Callable[[Any], bool]] = {
    "device": lambda _: True, "_stacklevel": lambda _: True, "memory_format": lambda _: True, "non_blocking": lambda _: True,
    "layout": lambda value: str(value) in ("None", "torch.strided"), "requires_grad": lambda value: not value,
    "pin_memory": lambda value: not value, "size_average": lambda value: value is None, "reduce": lambda value: value is None,
    "inplace": lambda value: not value,
}


@lru_cache(maxsize=None)
def _signature(function: Any) -> inspect.Signature:
    return inspect.signature(function)


@lru_cache(maxsize=None)
def _places(function: Any) -> range:
    """How many arguments can be given by their places alone."""
    least, most = 0, 0
    for each in _signature(function).parameters.values():
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD):
            least, most = least + (each.default is each.empty), most + 1
        elif each.kind == each.VAR_POSITIONAL:
            most = 1 << 16
    return range(least, most + 1)


def called(name: str, function: Callable[..., Any], arguments: list[Any], options: dict[str, Any]) -> Any:
    """Calls what stands for a function of torch, with that one's arguments."""
    if not options and len(arguments) in _places(function):
        return function(*arguments)
    signature = _signature(function)
    parameters = signature.parameters
    first = next(iter(parameters), "input")
    given: dict[str, Any] = {}
    for key, value in options.items():
        if key not in parameters:
            key = "input" if key == "self" else _TORCH_NAMES.get(key, key)
            key = first if key == "input" and key not in parameters else key
        if key in parameters:
            given[key] = value
        elif not (value is None or key in _NEUTRAL and _NEUTRAL[key](value)):
            raise _refusals.option(name, key, value)
    try:
        bound = signature.bind(*arguments, **given)
    except TypeError as error:
        raise _refusals.not_so(name, error) from None
    return function(*bound.args, **bound.kwargs)


# torch


def torch_function(function: Any, arguments: Any, options: dict[str, Any]) -> Any:
    name = getattr(function, "__name__", str(function))
    if _all_computed([*arguments, *options.values()]):
        return _torch_at_once(function, arguments, options)
    from ._torch_functions import FUNCTIONS, INTO, WHERE_OF_A_TENSOR, here

    shown = "torch." + name.replace("linalg_", "linalg.").replace("special_", "special.")
    if name in ("__get__", "__set__"):
        raise _refusals.unknown(f"torch.{getattr(function, '__self__', function)}")
    listed, options = list(arguments), dict(options)
    out = options.pop("out", None)
    bare = name if name.startswith("__") else name.removesuffix("_")
    changed: Any = None
    if name in INTO or name == "__setitem__" or bare != name or options.pop("inplace", False):
        changed = listed[0] if listed else options.get("input")
        if not isinstance(changed, Tensor):
            raise _refusals.into(shown, "a tensor of torch")
    listed, options = _followed(listed), {key: _followed(value) for key, value in options.items()}
    target = FUNCTIONS.get(bare)
    if name == "where" and hasattr(function, "__objclass__"):
        target = WHERE_OF_A_TENSOR
    if target is None and bare != name and isinstance(changed, Tensor) and callable(getattr(Tensor, name, None)):
        return called(shown, getattr(Tensor, name), listed, options)
    if target is None:
        raise _refusals.unknown(shown)
    result = called(shown, target, here(target, listed), options)
    if changed is not None:
        return changed._write(result)
    return result if out is None else _into(shown, out, result)


def _followed(value: Any) -> Any:
    """Tensors of torch that ask for gradients as values of the program: so that nothing is computed of them at once on the way into it."""
    if isinstance(value, (list, tuple)):
        return type(value)(_followed(each) for each in value) if type(value) in (list, tuple) else value
    recorder = recording.get()
    if recorder is None or not wants_gradients(value):
        return value
    return Tensor._recorded(recorder, recorder.tensor(value))


def _into(name: str, out: Any, result: Any) -> Any:
    """`out=`: the result is written into a tensor that is there."""
    if isinstance(out, (tuple, list)):
        if not isinstance(result, (tuple, list)):
            (out,) = out
            return _into(name, out, result)
        return type(result)(*(_into(name, each, part) for each, part in zip(out, result)))
    if not isinstance(out, Tensor):
        raise _refusals.into(f"{name}(out=…)", f"a {type(out).__module__.partition('.')[0]} {type(out).__name__}")
    return out._write(result)


def _torch_at_once(function: Any, arguments: Any, options: dict[str, Any]) -> Any:
    """Numbers that are there: torch's own affair. What it changes in place is changed here too."""
    import torch  # type: ignore[import-not-found]

    made: dict[int, tuple[Tensor, Any, int]] = {}

    def theirs(value: Any) -> Any:
        if isinstance(value, Tensor):
            if id(value) not in made:
                copy = value.torch()
                made[id(value)] = value, copy, copy._version
            return made[id(value)][1]
        if isinstance(value, (list, tuple)):
            items = [theirs(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        return value

    result = function(*theirs(tuple(arguments)), **{key: theirs(value) for key, value in options.items()})
    _left(result, (ours for ours, _, _ in made.values()))
    for ours, copy, version in made.values():
        if copy._version != version:
            ours._write(Tensor(copy))
            result = ours if result is copy else result
    return result


# numpy


def numpy_ufunc(ufunc: Any, method: str, inputs: Any, options: dict[str, Any]) -> Any:
    if _all_computed([*inputs, *options.values()]):
        return _numpy_at_once(getattr(ufunc, method), inputs, options, {0} if method == "at" else set())
    from ._numpy_ufuncs import recorded

    return recorded(ufunc, method, list(inputs), dict(options))


#: Functions of numpy that write into their first argument.
_WRITING = {"copyto", "put", "place", "putmask", "put_along_axis", "fill_diagonal"}


def numpy_function(function: Any, arguments: Any, options: dict[str, Any]) -> Any:
    name = function.__name__
    if _all_computed([*arguments, *options.values()]):
        return _numpy_at_once(function, arguments, options, {0} if name in _WRITING else set())
    from ._numpy_functions import FUNCTIONS

    home = (getattr(function, "__module__", "") or "").removeprefix("numpy").strip(".")
    shown = "numpy." + (f"{home}." if home == "linalg" else "") + name
    target = FUNCTIONS.get(shown)
    if target is None:
        raise _refusals.unknown(shown)
    options = dict(options)
    out = options.pop("out", None)
    parameters = _signature(target).parameters
    for key in list(options):
        if key not in parameters:
            value = options.pop(key)
            if not (value is None or type(value).__name__ == "_NoValueType" or _plain_numpy(key, value)):
                raise _refusals.option(shown, key, value)
    try:
        bound = _signature(target).bind(*arguments, **options)
    except TypeError as error:
        raise _refusals.not_so(shown, error) from None
    result = target(*bound.args, **bound.kwargs)
    return result if out is None else _into(shown, out, result)


def _plain_numpy(key: str, value: Any) -> bool:
    """Whether an option of numpy's has the value that changes nothing."""
    return (
        key == "order" and value in ("C", "K", "A") or key == "casting" and value == "same_kind" or key == "where" and value is True
        or key == "subok" or key in ("copy", "device", "like") and value in (None, True, "cpu")
    )


def _numpy_at_once(function: Any, arguments: Any, options: dict[str, Any], written: set[int]) -> Any:
    """Numbers that are there: numpy's own affair. What it writes into is written here too."""
    import numpy

    back: list[tuple[Tensor, Any]] = []
    met: list[Tensor] = []

    def plain(value: Any, into: bool = False) -> Any:
        if isinstance(value, Tensor):
            met.append(value)
            array = value.numpy()
            array.flags.writeable = into
            if into:
                back.append((value, array))
            return array
        if isinstance(value, (list, tuple)):
            return type(value)(plain(item, into) for item in value)
        return value

    given = [plain(value, place in written) for place, value in enumerate(arguments)]
    result = function(*given, **{key: plain(value, key == "out") for key, value in options.items()})
    _left(result, met)
    for tensor, array in back:
        tensor._write(Tensor(array))
        result = tensor if result is array else result
    if isinstance(result, numpy.ndarray) and not result.flags.writeable:
        return result.copy()
    return result


def _left(result: Any, tensors: Any) -> None:
    """While a trace is written: what another library computed at once may come into it as a constant, through which no gradient goes back."""
    recorder = recording.get()
    if recorder is not None and any("float" in str(getattr(each, "dtype", "")) for each in _flat(result)):
        recorder.given.left(tensors)


def _flat(result: Any) -> Any:
    return (each for item in result for each in _flat(item)) if isinstance(result, (list, tuple)) else (result,)


def _all_computed(values: Any) -> bool:
    for value in values:
        if isinstance(value, Tensor):
            if value._core is None:
                return False
        elif isinstance(value, (list, tuple)) and not _all_computed(value):
            return False
    return True
