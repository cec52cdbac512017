"""What operations are written into: a program that is being recorded, or nothing but the operation itself.

`writer(values)` chooses: the program of the first value that waits for its run; else the operation is evaluated at once.
"""

from __future__ import annotations

import itertools
import json
import math
import operator
from typing import Any

from . import _core, _dtype
from ._arrays import from_array, is_array
from ._errors import NotComputedError

#: Whole numbers up to here are the same in JSON of every reader.
_EXACT = 1 << 53
#: Tensors of at most so many elements stand in the program's own text.
_LITERAL = 16

_tensor: Any = None  # the class; set when `_tensor` is loaded
_recording: Any = None  # the context variable of the program that is being recorded


def number(value: Any) -> Any:
    """A literal number as programs hold it."""
    kind = type(value)
    if kind is bool:
        return value
    if kind is int:
        if -_EXACT < value < _EXACT:
            return value
        if not -1 << 63 <= value < 1 << 63:
            raise OverflowError(
                f"the number {_shown(value)} is too large: whole numbers are of 64 bits, from -9223372036854775808 to 9223372036854775807\n  hint: "
                f"{f'as a float it is `{float(value):g}`' if abs(value) < 1 << 1023 else 'a float goes up to about 1e308'}"
            )
        return {"int": str(value)}
    if kind is float:
        if math.isfinite(value):
            return value
        return {"float": "nan" if value != value else "inf" if value > 0 else "-inf"}
    if hasattr(value, "item") and not hasattr(value, "_core"):
        return number(value.item())
    if hasattr(value, "_core") and value._core is not None:
        return number(value.item())
    try:
        return number(operator.index(value))
    except TypeError:
        return number(float(value))


def _shown(value: int) -> str:
    """A whole number in short: Python refuses to write out very long ones."""
    bits = value.bit_length()
    return str(value) if bits <= 128 else f"of {bits} bits"


def integer(value: Any) -> int:
    """A literal whole number."""
    return _held(value) if type(value) is int else _index(value)


def integers(value: Any) -> Any:
    """Whole numbers, or one."""
    if type(value) is int:
        return _held(value)
    if isinstance(value, (list, tuple)):
        return [_index(item) for item in value]
    return _index(value)


def _held(value: int) -> int:
    """A whole number that 64 bits hold."""
    if not -1 << 63 <= value < 1 << 63:
        raise OverflowError(f"the number {_shown(value)} is too large: dimensions, sizes and places are whole numbers of 64 bits")
    return value


def _index(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError(f"a whole number was expected, not {value}\n  hint: name the argument that is meant, as `keepdim=True` or `correction=0`")
    return _held(operator.index(value))


class Writer:
    """What both kinds of writers do alike."""

    __slots__ = ()

    def tensor(self, value: Any) -> Any:
        raise NotImplementedError

    def one(self, op: str, fields: dict[str, Any]) -> Any:
        raise NotImplementedError

    def operand(self, value: Any) -> Any:
        """A value, or a literal number."""
        kind = type(value)
        if kind is float or kind is int or kind is bool:
            return number(value)
        if kind is _tensor:
            return self.tensor(value)
        if getattr(value, "shape", None) == () and hasattr(value, "item") and not getattr(value, "requires_grad", False):
            return number(value)
        return self.tensor(value)

    def tensors(self, values: Any) -> list[Any]:
        return [self.tensor(value) for value in values]

    def sizes(self, sizes: Any) -> list[Any]:
        """A shape: whole numbers, and sizes of values that are not known yet."""
        if len(sizes) == 1 and isinstance(sizes[0], (list, tuple)):
            sizes = sizes[0]
        out = []
        for size in sizes:
            if type(size) is int:
                out.append(_held(size))
            elif isinstance(size, Size):
                out.append({"size_of": self.tensor(size.value), "dim": size.dim})
            else:
                out.append(_held(operator.index(size)))
        return out

    def index(self, index: Any) -> list[Any]:
        """What stands between the brackets of `x[...]`."""
        items = index if type(index) is tuple else (index,)
        return [self._index_item(item) for item in items]

    def _index_item(self, item: Any) -> Any:
        kind = type(item)
        if kind is int:
            return _held(item)
        if kind is slice:
            if item.start is None and item.stop is None and item.step is None:
                return ":"
            part = [_end(item.start), _end(item.stop)]
            if item.step is not None:
                part.append(_end(item.step))
            return ":".join(part)
        if item is None:
            return None
        if item is Ellipsis:
            return "..."
        if kind is bool:
            raise TypeError("an index is a number, a slice, `...`, `None` or a tensor, not a bool")
        if kind is _tensor or is_array(item) and getattr(item, "shape", None) != ():
            return {"tensor": self.tensor(item)}
        if kind is range:
            import numpy

            return {"tensor": self.tensor(numpy.arange(item.start, item.stop, item.step))}  # as torch takes it
        return operator.index(item)


def _end(value: Any) -> str:
    if value is None:
        return ""
    try:
        return str(operator.index(value))
    except TypeError:
        hint = "a slice's ends are numbers; to choose by a value, index with a tensor: `x[:, pl.arange(0, 3) + start]`"
        raise TypeError(hint) from None


class Size:
    """The size of a value along a dimension, where it is not known before the run: for `reshape`, `expand` and the like."""

    __slots__ = ("value", "dim")

    def __init__(self, value: Any, dim: int):
        self.value, self.dim = value, dim

    def __repr__(self) -> str:
        return f"size {self.dim} of a value that is not known before the run"

    def __index__(self) -> int:
        raise NotComputedError(
            "this size is not known before the run\n  hint: it can be used in `reshape`, `expand` and other shapes as it is"
        )


class Eager(Writer):
    """Evaluates one operation at once."""

    __slots__ = ("inputs", "names")

    def __init__(self) -> None:
        self.inputs: list[_core.Tensor] = []

    def core(self, core: _core.Tensor) -> str:
        self.inputs.append(core)
        return f"x{len(self.inputs) - 1}"

    def tensor(self, value: Any) -> str:
        return self.core(core_of(value))

    def many(self, op: str, fields: dict[str, Any], count: int | None = None) -> list[Any]:
        placeholders = [{"op": "zeros", "name": f"x{k}", "size": []} for k in range(len(self.inputs))]
        text = json.dumps({"pellucid": 1, "body": [*placeholders, {"op": op, "name": "y", **fields}]})
        outputs = _core.evaluate(text, self.inputs, _Random.seed, next(_Random.numbers))
        recorder = _recording.get()
        if recorder is not None:
            recorder.given.computed(op, self.inputs, outputs)
        return [_tensor._computed(output) for output in outputs]

    def one(self, op: str, fields: dict[str, Any]) -> Any:
        return self.many(op, fields)[0]


class _Random:
    """What keys random numbers that are made outside of programs; and of programs that name no seed."""

    seed = 0
    numbers = itertools.count()


def manual_seed(seed: int) -> None:
    """Begins the random numbers that are made outside of traces anew, and is from now on the seed of every trace, generation and session that names
    none: each of them draws the same numbers whenever it runs, and other ones with another seed."""
    _Random.seed, _Random.numbers = seed_of(seed), itertools.count()


def seed_of(given: Any) -> int:
    """The seed of a program: as given, or that of `manual_seed`, which is 0 before it is called. As torch has it, −1 is the largest."""
    if given is None:
        return _Random.seed
    try:
        seed = operator.index(given)
    except TypeError:
        raise TypeError(f"a seed is a whole number, not {given!r}") from None
    if not -(1 << 63) <= seed < 1 << 64:
        raise ValueError(f"a seed is a whole number of 64 bits, and {seed} is not")
    return seed % (1 << 64)


def core_of(value: Any) -> _core.Tensor:
    """The numbers of a tensor that has them, or of what can be made one."""
    if type(value) is _tensor:
        if value._core is None:
            value._refuse("its numbers are needed here")
        return value._core  # type: ignore[no-any-return]
    if isinstance(value, (bool, int, float)):
        return as_tensor(value)._core
    if is_array(value):
        return from_array(value)
    raise TypeError(f"a tensor was expected, not {type(value).__name__}")


def writer(*values: Any) -> Any:
    """What an operation on these values is written into."""
    for value in values:
        if type(value) is _tensor:
            if value._core is None:
                if value._steps is not None:
                    return writer(value._steps)
                return value._open()
        elif type(value) is tuple or type(value) is list:
            for item in value:
                if type(item) is _tensor and item._core is None:
                    return item._open()
    recorder = _recording.get()
    if recorder is not None and any(getattr(value, "requires_grad", False) and hasattr(value, "grad_fn") for value in values):
        return recorder  # torch's own tensors, to which gradients go back
    return Eager()


def making(*values: Any) -> Any:
    """What a constructor is written into: the program that is being recorded, if there is one."""
    for value in values:
        if type(value) is Size and value.value._core is None:
            return value.value._open()
    recorder = _recording.get()
    return Eager() if recorder is None else recorder


def as_tensor(data: Any, dtype: Any = None) -> Any:
    """A tensor of numbers in lists, of an array, or of a tensor of another library."""
    if type(data) is _tensor:
        return data if dtype is None else data.to(dtype)
    if isinstance(data, (bool, int, float)):
        import numpy

        data = numpy.array(data)
        if data.dtype == numpy.float64:
            data = data.astype(numpy.float32)
    return _tensor._computed(from_array(data, dtype))


def dtype_name(of: Any) -> str:
    return _dtype.dtype(of).short
