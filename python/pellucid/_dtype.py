"""Number types."""

from __future__ import annotations

from typing import Any


class DType:
    """A number type. Equal to the same type of numpy or torch, and to its name."""

    __slots__ = ("name", "short", "size")

    def __init__(self, name: str, short: str, size: int):
        #: Its name as numpy and torch have it: `float32`.
        self.name: str = name
        #: Its name in programs: `f32`.
        self.short: str = short
        #: Bytes of an element.
        self.size: int = size

    @property
    def is_floating_point(self) -> bool:
        return self.name in ("float64", "float32", "float16", "bfloat16")

    @property
    def itemsize(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f"pellucid.{self.name}"

    def __str__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DType):
            return self.name == other.name
        try:
            return dtype(other) is self
        except (TypeError, ValueError):
            return False

    def __hash__(self) -> int:
        return hash(self.name)

    def __reduce__(self) -> Any:
        return dtype, (self.name,)


float64: DType = DType("float64", "f64", 8)
float32: DType = DType("float32", "f32", 4)
bfloat16: DType = DType("bfloat16", "bf16", 2)
float16: DType = DType("float16", "f16", 2)
int64: DType = DType("int64", "i64", 8)
int32: DType = DType("int32", "i32", 4)
uint8: DType = DType("uint8", "u8", 1)
bool_: DType = DType("bool", "bool", 1)

ALL = (float64, float32, bfloat16, float16, int64, int32, uint8, bool_)
_NAMES: dict[str, DType] = {name: kind for kind in ALL for name in (kind.name, kind.short)}
_NAMES.update(double=float64, float=float32, half=float16, long=int64, int=int32, bool_=bool_)


def dtype(of: Any) -> DType:
    """The number type that something means: a name, Python's `float`, `int` or `bool`, numpy's or torch's."""
    if isinstance(of, DType):
        return of
    if of is float:
        return float32
    if of is int:
        return int64
    if of is bool:
        return bool_
    text = of if isinstance(of, str) else getattr(of, "name", None) or getattr(of, "__name__", None) or str(of)
    found = _NAMES.get(text.removeprefix("torch."))
    if found is None:
        raise TypeError(f"`{text}` is no number type here; there are {', '.join(kind.name for kind in ALL)}")
    return found
