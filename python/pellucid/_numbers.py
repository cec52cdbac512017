"""What tensors are to Python: shapes, numbers, arrays, what `print` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterator

from . import _arrays, _dtype, _operations, _types
from ._core import Tensor as Core
from ._errors import NotComputedError, ProgramError
from ._views import Views
from ._writer import Size

if TYPE_CHECKING:
    import numpy

    from ._recorder import Recorder
    from ._tensor import Tensor


#: What to write for a loop over a tensor of a trace.
_PARTS = (
    "`for row in x.unbind(0):` and `a, b = x.unbind(0)` take it apart along a dimension whose size is known, `x.chunk(2, 0)` into that many parts, "
    "`x[k]` is one; for results loop after the `with` block"
)


class Numbers(Views):
    """The methods of tensors by which Python sees shapes and numbers."""

    __slots__ = ()

    if TYPE_CHECKING:
        _core: Core | None
        _base: Any
        _recorder: Recorder | None
        _ref: str
        _steps: list[Tensor] | None
        _note: str | None
        _of_hook: Any
        _buffer: Any

        def _refuse(self, why: str, control: bool = False, instead: str | None = None) -> None: ...
        def _reference(self, recorder: Recorder) -> str: ...
        def any(self: Any, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: Any = None) -> Tensor: ...

    @property
    def shape(self) -> Shape:
        """Its sizes. Inside a trace those that are known before the run are numbers."""
        if self._core is not None:
            return Shape(self._core.shape)
        return Shape(
            Size(self._alias(), dim) if size is None else size for dim, size in enumerate(self._type()[1])
        )

    @property
    def dtype(self) -> _dtype.DType:
        """Its number type."""
        return _dtype.dtype(self._core.dtype if self._core is not None else _types.dtype(*self._waiting()))

    def _type(self) -> tuple[str, list[int | None]]:
        return _types.of(*self._waiting())

    def _waiting(self) -> tuple[Recorder, str]:
        """The program that it waits in, and its name there."""
        recorder = self._recorder
        if recorder is None or recorder.state not in ("open", "scanned"):
            self._refuse("its shape is asked for")
            raise AssertionError
        return recorder, self._reference(recorder) if recorder.state == "open" or not self._ref else self._ref

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def dim(self) -> int:
        return len(self.shape)

    def numel(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count

    def __len__(self) -> int:
        if self._steps is not None:
            return len(self._steps)
        shape = self.shape
        if not shape:
            raise TypeError("a tensor without dimensions has no length")
        return int(shape[0])

    @property
    def is_floating_point(self) -> Any:
        value = self.dtype.is_floating_point
        return lambda: value

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def requires_grad(self) -> bool:
        return False

    @requires_grad.setter
    def requires_grad(self, requires_grad: bool) -> None:
        """Not needed: see `requires_grad_`."""

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Not needed: gradients are of what they are asked for."""
        return self  # type: ignore[return-value]

    def retain_grad(self) -> None:
        """Not needed: see `requires_grad_`."""

    # Results

    @property
    def value(self) -> Tensor:
        """Itself, as a result: nnsight's name for it."""
        self._here("its value is asked for")
        return self  # type: ignore[return-value]

    def _known(self) -> Core | None:
        """Its numbers, where they are there: a result's, and inside of a trace those that it was made of."""
        if self._core is not None or self._base is not None or self._recorder is None:
            return self._core
        return self._recorder.constants.get(self._ref)

    def _here(self, why: str, control: bool = False) -> Core:
        core = self._known()
        if core is None:
            self._refuse(why, control)
            raise AssertionError
        return core

    def _number(self, why: str) -> Any:
        return _arrays.to_numpy(self._here(why, control=True)).item()

    def numpy(self) -> numpy.ndarray[Any, Any]:
        """A numpy array with elements of its own. numpy has no bf16: those come as float32, which holds them exactly."""
        return _arrays.to_numpy(self._here("its numbers are asked for"))

    def __array__(self, dtype: Any = None, copy: Any = None) -> numpy.ndarray[Any, Any]:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def __dlpack__(self, **options: Any) -> Any:
        """Its numbers as another library takes them over, bf16 as bf16: without a copy of that library's own. They are copied out of the
        engine once, the first time; whoever takes them over later shares that memory. What is written into it does not change the result."""
        core = self._here("it is given to another library")
        if self._buffer is None or self._buffer[0] is not core:
            self._buffer = (core, _arrays.bits(core))
        return _arrays.dlpack(self._buffer[1], core.dtype, **options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def torch(self) -> Any:
        """A torch tensor with elements of its own."""
        import torch  # type: ignore[import-not-found]

        core = self._here("it is given to torch")
        return torch.from_dlpack(_arrays.Capsule(_arrays.bits(core), core.dtype))

    def tolist(self) -> Any:
        return self.numpy().tolist()

    def item(self) -> Any:
        """The number that a tensor of one element is. Inside a trace: the tensor without dimensions."""
        if self._core is None and self._steps is None and self._recorder is not None and self._recorder.state == "open":
            return _operations.reshape(self, ())
        return _arrays.to_numpy(self._here("its number is asked for")).item()

    def __iter__(self) -> Iterator[Tensor]:
        if self._steps is not None:
            return iter(self._steps)
        if self._core is None:
            # `hidden, *rest = module.output`, where that was a tuple.
            taken = self._of_hook.of_tuple(self, slice(None)) if self._of_hook is not None and self._base is None else None
            if taken is not None:
                return iter(self[:])
            open_ = self._note is None and self._recorder is not None and self._recorder.state == "open"
            self._refuse("Python's `for`, or `a, b = …`, goes over it", control=True, instead=_PARTS if open_ and self._has_parts() else None)
        # As a tuple: of what was one in older versions of transformers, too, a loop goes over the prompts.
        return (self[(k,)] for k in range(len(self)))

    def _has_parts(self) -> bool:
        """Whether it has dimensions, as far as that is known."""
        try:
            return self.ndim > 0
        except ProgramError:
            return False

    def __bool__(self) -> bool:
        return bool(self._number("an `if` or `while` asks whether it holds"))

    def __int__(self) -> int:
        return int(self._number("it is made a whole number of Python"))

    def __float__(self) -> float:
        return float(self._number("it is made a number of Python"))

    def __index__(self) -> int:
        number = self._number("it is used as a number of Python")
        if self.dtype.is_floating_point:
            raise TypeError("only a whole number can be an index")
        return int(number)

    def __format__(self, specification: str) -> str:
        if specification == "":
            return repr(self)
        if self._core is None:
            self._refuse("it is written out as a number", control=True)
        if self.numel() != 1:
            raise TypeError(f"`{specification}` is a format for one number, and this has shape {list(self.shape)}")
        return format(self.item(), specification)

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).any())

    def __hash__(self) -> int:
        return id(self)

    def __reduce__(self) -> Any:
        core = self._here("it is pickled")
        return restored, (bytes(core.data()), list(core.shape), core.dtype)

    def __copy__(self) -> Tensor:
        return self.clone()

    def __deepcopy__(self, memo: Any) -> Tensor:
        return self.clone()

    def __repr__(self) -> str:
        if self._steps is not None:
            return f"<a tensor for each of {len(self._steps)} steps>"
        if self._core is not None:
            import numpy

            with numpy.printoptions(precision=4, suppress=True, threshold=200, edgeitems=3):
                text = numpy.array2string(self.numpy(), prefix="tensor(", separator=", ")
            kind = "" if self.dtype in (_dtype.float32, _dtype.int64, _dtype.bool_) else f", dtype={self.dtype!r}"
            shape = f", shape={list(self.shape)}" if self.numel() > 200 else ""
            return f"tensor({text}{shape}{kind})"
        recorder = self._recorder
        state = recorder.state if recorder is not None else "open"
        name = f"{self._ref}: " if self._ref else ""
        if self._note is not None and state in ("open", "done"):
            return f"<{self._note.partition(chr(10))[0]}>"
        if state != "open":
            return f"<{name}{'was not saved' if state == 'done' else state}>"
        return f"<{name or getattr(self._of_hook, 'path', '') + ': '}computed when its trace runs>"

    def _repr_html_(self) -> str:
        from . import _html

        return _html.tensor(self)



class Shape(tuple):  # type: ignore[type-arg]
    """Sizes: numbers, and `Size` where one is not known before the run."""

    __slots__ = ()

    def numel(self) -> int:
        count = 1
        for size in self:
            count *= int(size)
        return count

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        return Shape(part) if isinstance(index, slice) else part

    def __repr__(self) -> str:
        return f"Shape({list(self)})"


def restored(data: bytes, shape: list[int], dtype: str) -> Tensor:
    """A tensor that was pickled."""
    from ._tensor import Tensor

    return Tensor._computed(Core.from_data(data, shape, dtype))
