"""Views of tensors, which can be written through; and other number types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, ClassVar

from . import _dtype, _operations, _strides, _writer
from ._aliases import Aliases
from ._errors import NotComputedError, ProgramError
from ._writer import Size

if TYPE_CHECKING:
    from ._tensor import Tensor


#: Torch's older names of number types.
_OLD_NAMES = {
    "f64": "DoubleTensor", "f32": "FloatTensor", "f16": "HalfTensor", "bf16": "BFloat16Tensor", "i64": "LongTensor", "i32": "IntTensor",
    "u8": "ByteTensor", "bool": "BoolTensor",
}


class Views(Aliases):
    """The methods of tensors that give the same elements in another form."""

    __slots__ = ()

    if TYPE_CHECKING:
        _core: Any

        @property
        def shape(self) -> Any: ...
        @property
        def ndim(self) -> int: ...
        @property
        def dtype(self) -> _dtype.DType: ...
        def _viewed(self, new: Tensor, op: str, fields: dict[str, Any] | None) -> Tensor: ...
        def _open(self) -> Any: ...
        def _alias(self) -> Tensor: ...
        def __getitem__(self, index: Any) -> Any: ...
        def __setitem__(self, index: Any, value: Any) -> None: ...

    # Views

    def reshape(self, *shape: Any) -> Tensor:
        new = _operations.reshape(self, _sizes(shape))
        if not _strides.shares(self, _sizes(shape)):  # type: ignore[arg-type]
            return new  # torch copies here
        return self._viewed(new, "reshape", self._shape_fields(shape))

    def _shape_fields(self, shape: Any) -> dict[str, Any]:
        if self._core is not None:
            return {"shape": list(_sizes(shape))}
        return {"shape": self._open().sizes(_sizes(shape))}

    def view(self, *shape: Any) -> Tensor:
        if len(shape) == 1 and not isinstance(shape[0], (int, list, tuple)):
            raise NotComputedError("`view` with a number type is not there; use `to`")
        return self._viewed(_operations.reshape(self, _sizes(shape)), "reshape", self._shape_fields(shape))

    def view_as(self, other: Tensor) -> Tensor:
        return self.view(other.shape)

    def reshape_as(self, other: Tensor) -> Tensor:
        return self.reshape(other.shape)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        new = _operations.flatten(self, start_dim, end_dim)
        if not _strides.flattens(self, start_dim, end_dim):  # type: ignore[arg-type]
            return new  # torch copies here
        return self._viewed(new, "flatten", {"start_dim": start_dim, "end_dim": end_dim})

    def ravel(self) -> Tensor:
        return self.contiguous().view(-1)

    def unflatten(self, dim: int, sizes: Any) -> Tensor:
        new = _operations.unflatten(self, dim, sizes)
        return self._viewed(new, "unflatten", {"dim": dim, "sizes": self._shape_fields((sizes,))["shape"]})

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        return self._viewed(_operations.transpose(self, dim0, dim1), "transpose", {"dim0": dim0, "dim1": dim1})

    swapaxes = transpose
    swapdims: ClassVar[Callable[..., Tensor]] = transpose

    def t(self) -> Tensor:
        return self if self.ndim < 2 else self.transpose(0, 1)  # type: ignore[return-value]

    @property
    def T(self) -> Tensor:
        return self.permute(*reversed(range(self.ndim)))

    @property
    def mT(self) -> Tensor:
        return self.transpose(-2, -1)

    def permute(self, *dims: Any) -> Tensor:
        order = list(_sizes(dims))
        return self._viewed(_operations.permute(self, order), "permute", {"dims": order})

    def movedim(self, source: Any, destination: Any) -> Tensor:
        new = _operations.movedim(self, source, destination)
        return self._viewed(new, "movedim", {"source_": source, "destination": destination})

    moveaxis = movedim

    def squeeze(self, dim: Any = None) -> Tensor:
        fields = {} if dim is None else {"dim": _writer.integers(dim)}
        return self._viewed(_operations.squeeze(self, dim), "squeeze", fields)

    def unsqueeze(self, dim: int) -> Tensor:
        return self._viewed(_operations.unsqueeze(self, dim), "unsqueeze", {"dim": dim})

    def expand(self, *size: Any) -> Tensor:
        return self._viewed(_operations.expand(self, _sizes(size)), "expand", {"size": self._shape_fields(size)["shape"]})

    def expand_as(self, other: Tensor) -> Tensor:
        return self.expand(*other.shape)

    def select(self, dim: int, index: int) -> Tensor:
        return self[_along(dim, index)]

    def narrow(self, dim: int, start: int, length: int) -> Tensor:
        return self[_along(dim, slice(start, start + length))]

    def split(self, split_size: Any, dim: int = 0) -> tuple[Tensor, ...]:
        total = self.shape[dim]
        if isinstance(total, Size):
            return tuple(self._viewed(each, "split", None) for each in _operations.split(self, split_size, dim))
        if isinstance(split_size, int):
            sizes = [min(split_size, total - k) for k in range(0, total, split_size)]
        else:
            sizes = list(split_size)
        ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
        return tuple(self[_along(dim, slice(end - size, end))] for end, size in zip(ends, sizes))

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        total = self.shape[dim]
        if isinstance(total, Size):
            return tuple(self._viewed(each, "chunk", None) for each in _operations.chunk(self, chunks, dim))
        return self.split(max(1, -(-total // chunks)), dim)

    def unbind(self, dim: int = 0) -> tuple[Tensor, ...]:
        return tuple(self.select(dim, k) for k in range(int(self.shape[dim])))

    def repeat(self, *repeats: Any) -> Tensor:
        return _operations.repeat(self, list(_sizes(repeats)))

    def diagonal(self, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
        fields = {"offset": offset, "dim1": dim1, "dim2": dim2}
        return self._viewed(_operations.diagonal(self, offset, dim1, dim2), "diagonal", fields)

    # The same numbers

    def clone(self, *, memory_format: Any = None) -> Tensor:
        """The value as it is now, as another one: later changes in place do not reach it, and its gradient is its own."""
        if self._core is not None:
            return self._alias()
        writer = self._open()
        return writer.one("getitem", {"input": writer.tensor(self), "index": ["..."]})

    def detach(self) -> Tensor:
        """The same elements, through which no gradient goes back. It is a view."""
        return self._viewed(_operations.detach(self), "detach", {})

    @property
    def data(self) -> Tensor:
        """`detach()`: torch's older name for it."""
        return self.detach()

    @data.setter
    def data(self, value: Any) -> None:
        self.detach()[...] = value

    def contiguous(self) -> Tensor:
        """Itself; of a view whose elements do not stand one after the other a copy, as in torch."""
        return self if _strides.is_contiguous(self) else self._alias()  # type: ignore[arg-type, return-value]

    def cpu(self) -> Tensor:
        return self  # type: ignore[return-value]

    def cuda(self, device: Any = None) -> Tensor:
        return self  # type: ignore[return-value]

    def to(self, *arguments: Any, dtype: Any = None, **others: Any) -> Tensor:
        """Another number type. Devices are the engine's affair, and are passed over."""
        for name in others:
            if name not in ("copy", "device", "non_blocking", "memory_format", "other"):
                raise TypeError(f"`to` has no option `{name}`\n  hint: `x.to(dtype)`, `copy=True`; devices are passed over")
        if others.get("other") is not None:
            dtype = others["other"].dtype
        for argument in arguments:
            if type(argument) is _writer._tensor:
                dtype = argument.dtype
            elif not (isinstance(argument, str) and argument.partition(":")[0] in ("cpu", "cuda", "mps")):
                try:
                    dtype = _dtype.dtype(argument)
                except TypeError:
                    if type(argument).__name__ != "device":
                        raise
        if others.get("copy"):
            return self._alias() if dtype is None else self._alias()._as(dtype)
        return self if dtype is None else self._as(dtype)  # type: ignore[return-value]

    def _as(self, dtype: Any) -> Tensor:
        """Itself where it has the number type, as in torch; else a new value."""
        wanted = _dtype.dtype(dtype)
        try:
            if self.dtype == wanted:
                return self  # type: ignore[return-value]
        except ProgramError:
            pass  # what is wrong before is told with all else
        return _operations.to(self, wanted)

    def type(self, dtype: Any = None) -> Any:
        """Another number type, by itself or by torch's older name (`torch.LongTensor`); without one, that name of its own."""
        if dtype is None:
            return f"torch.{_OLD_NAMES[self.dtype.short]}"
        name = str(dtype).rpartition(".")[2].removesuffix("'>")
        return self.to(next((short for short, old in _OLD_NAMES.items() if old == name), dtype))

    def type_as(self, other: Tensor) -> Tensor:
        return self.to(other.dtype)

    def float(self) -> Tensor:
        return self._as(_dtype.float32)

    def double(self) -> Tensor:
        return self._as(_dtype.float64)

    def half(self) -> Tensor:
        return self._as(_dtype.float16)

    def bfloat16(self) -> Tensor:
        return self._as(_dtype.bfloat16)

    def long(self) -> Tensor:
        return self._as(_dtype.int64)

    def int(self) -> Tensor:
        return self._as(_dtype.int32)

    def bool(self) -> Tensor:
        return self._as(_dtype.bool_)


def _sizes(sizes: Any) -> Any:
    return sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (list, tuple)) else sizes


def _along(dim: int, item: Any) -> Any:
    """An index of one dimension."""
    if dim >= 0:
        return (*[slice(None)] * dim, item)
    return (..., item, *[slice(None)] * (-dim - 1))
