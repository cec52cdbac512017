"""Tensors: what will have been computed while a trace is written, and what has been computed after it.

**In place.** A program has no variables: every value is computed once. What Python changes in place is a name for one value
after another. A tensor that was read from a hook point is that hook point's: changing it writes a setter. A view knows what
it is a view of: changing it changes that, and what was changed is seen through all its views.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Iterator

from . import _arrays, _dtype, _operations, _types, _writer
from ._core import Tensor as Core
from ._errors import ControlFlowError, NotComputedError
from ._recorder import Recorder
from ._views import Views
from ._writer import Size, as_tensor

if TYPE_CHECKING:
    import numpy


class Tensor(Views):
    """A tensor. Inside a trace it stands for what will have been computed; after the trace it is the result.

    Methods and operators have `torch.Tensor`'s names and meaning. A result gives itself to numpy (`numpy.asarray`, arithmetic) and, without a
    copy, to torch (`torch.from_dlpack`).
    """

    __slots__ = (
        "_core", "_recorder", "_ref", "_base", "_view", "_version", "_seen", "_write_to", "_scope", "_note", "_steps",
        "_saved", "_of_hook", "__weakref__",
    )
    __array_priority__ = 1000

    _core: Core | None

    def __init__(self, data: Any, dtype: Any = None):
        """A tensor of numbers: lists, a numpy array, a torch tensor."""
        self._begin(as_tensor(data, dtype)._core)

    def _begin(self, core: Core | None) -> None:
        self._core = core
        self._recorder: Recorder | None = None
        self._ref = ""
        #: What it is a view of, and how: the operation and its fields.
        self._base: Tensor | None = None
        self._view: Any = None
        #: How often it was changed, of one that is no view; which of these a view has seen.
        self._version = self._seen = 0
        #: Called with the name of a new value where changing it writes to the model.
        self._write_to: Any = None
        self._scope: Any = None
        self._note: str | None = None
        self._steps: list[Tensor] | None = None
        self._saved: str | None = None
        self._of_hook: Any = None

    @classmethod
    def _computed(cls, core: Core) -> Tensor:
        self = cls.__new__(cls)
        self._begin(core)
        return self

    @classmethod
    def _of_steps(cls, steps: list[Tensor]) -> Tensor:
        """A tensor for each step of a generation."""
        self = cls.__new__(cls)
        self._begin(None)
        self._steps = steps
        return self

    @classmethod
    def _recorded(cls, recorder: Recorder, ref: str) -> Tensor:
        self = cls.__new__(cls)
        self._core = None
        self._recorder = recorder
        self._ref = ref
        self._base = self._view = self._write_to = self._note = self._steps = self._saved = self._of_hook = None
        self._version = self._seen = 0
        self._scope = recorder.scope
        return self

    # What it stands for

    def _open(self) -> Recorder:
        """The program that it waits in; an error where that is over."""
        recorder = self._recorder
        if recorder is not None and recorder.state == "open":
            return recorder
        self._refuse("it is used here")
        raise AssertionError

    def _refuse(self, why: str, control: bool = False) -> None:
        """Says why its numbers are not there."""
        recorder = self._recorder
        kind: type[NotComputedError] = NotComputedError
        if self._note is not None:
            message = self._note
        elif recorder is None or recorder.state == "open":
            message = f"{why}, but its trace has not run yet"
            hint = "results are there after the `with` block"
            if control:
                kind = ControlFlowError
                hint = (
                    "a trace is written once and runs later, so Python's `if` and `for` cannot look at its values: use "
                    "`pl.where(condition, a, b)` or `with tracer.cond(condition):` to choose, and `tracer.sweep` or "
                    "`tracer.loop` to repeat; a plain `range` is fine"
                )
            message += f"\n  hint: {hint}"
        elif recorder.state == "failed":
            message = "the trace that would have computed it failed"
        elif recorder.state == "abandoned":
            message = "the trace that would have computed it was left by an exception, and did not run"
        elif recorder.state == "submitted":
            message = "its job goes on by itself\n  hint: `tracer.job.result()` waits for it, and then it is there"
        elif recorder.state == "scanned":
            message = "its trace was only checked, not run\n  hint: `.shape` and `.dtype` are known; for values use `model.trace`"
        else:
            message = "it was computed inside a trace and not saved, so it is gone\n  hint: add `.save()` to it inside the trace"
        raise kind(message)

    def _reference(self, recorder: Recorder) -> str:
        """Its value's name in a program that is being written; a view is taken anew if what it is a view of has changed."""
        if self._recorder is not recorder:
            if self._core is not None:
                return recorder.constant(self._core)
            if self._recorder is not None and self._recorder.state == "open":
                raise NotComputedError(
                    "it belongs to another trace that is still being written\n  hint: to let values flow from trace to trace, "
                    "write both in one `with model.session():`"
                )
            self._refuse("it is used in another trace")
        if self._base is not None:
            root = self._root()
            if self._seen != root._version:
                base = self._base._reference(recorder)
                op, fields = self._view
                self._ref = recorder.node(op, {"input": base, **fields})
                self._seen = root._version
        elif self._ref == "":
            # It was written: what is read from now on is read from where it was written.
            self._ref = self._of_hook.again(recorder)
            if self._scope is not recorder.scope:
                recorder.scope.touched.append(self)
        return self._ref

    def _root(self) -> Tensor:
        tensor = self
        while tensor._base is not None:
            tensor = tensor._base
        return tensor

    def _become(self, core: Core | None, note: str | None = None) -> None:
        """After the run: what it stands for."""
        self._core = core
        self._note = note
        self._recorder = None if core is not None else self._recorder
        self._base = self._view = self._write_to = self._scope = None

    # Changing it in place

    def _write(self, new: Any) -> Tensor:
        """Makes it another value, and with it what it is a view of."""
        if self._core is not None:
            # A result that is changed: it is Python's alone.
            fresh = new if isinstance(new, Tensor) else as_tensor(new, self.dtype)
            if fresh._core is None:
                raise NotComputedError(
                    "a result of an earlier run cannot be changed to a value of a trace\n  hint: make a new one, `y = x + value`"
                )
            if fresh.dtype != self.dtype:
                fresh = fresh.to(self.dtype)
            self._core = fresh._core
            if self._base is not None and self._view is not None:
                self._base._write(self._put_back(self._base, self))
            return self
        recorder = self._open()
        ref = new._reference(recorder) if isinstance(new, Tensor) else recorder.literal(new)
        self._changed(recorder, ref)
        return self

    def _changed(self, recorder: Recorder, ref: str) -> None:
        if self._base is None:
            if self._scope is not recorder.scope and self._write_to is None:
                kind = recorder.scope.kind
                if kind in ("branch", "steps", "sweep", "loop"):
                    raise NotComputedError(
                        f"a value from outside is changed in place inside of a {kind}, and would be something else after it"
                        "\n  hint: make a new value (`y = x + 1`); to get one out of a branch use `tracer.cond(...).choose(a, b)`, "
                        "out of a loop its carried values"
                    )
            self._ref = ref
            self._version += 1
            if self._write_to is not None:
                self._write_to(recorder, ref)
                self._ref = ""
            return
        base, root = self._base, self._root()
        whole = self._put_back(base, Tensor._recorded(recorder, ref))
        base._changed(recorder, whole._reference(recorder))
        self._ref = ref
        self._seen = root._version

    def _put_back(self, base: Tensor, part: Tensor) -> Tensor:
        """What a base becomes when its view becomes `part`."""
        op, fields = self._view
        plain = base._alias()
        if op == "getitem":
            writer = _writer.writer(plain, part)
            return writer.one(
                "index_put",
                {"input": writer.tensor(plain), "index": fields["index"], "values": writer.tensor(part)},
            )
        if op == "transpose":
            return _operations.transpose(part, fields["dim0"], fields["dim1"])
        if op == "permute":
            dims = [dim % len(fields["dims"]) for dim in fields["dims"]]
            return _operations.permute(part, sorted(range(len(dims)), key=dims.__getitem__))
        if op == "movedim":
            return _operations.movedim(part, fields["destination"], fields["source_"])
        if op == "unsqueeze":
            return _operations.squeeze(part, fields["dim"])
        if op in ("reshape", "flatten", "unflatten", "squeeze"):
            return _operations.reshape(part, tuple(plain.shape))
        raise NotComputedError(
            f"a view by `{op}` cannot be written through\n  hint: write to the tensor itself, by an index"
        )

    def _alias(self) -> Tensor:
        """The same value now, under a name of its own that later changes do not touch."""
        if self._core is not None:
            return Tensor._computed(self._core)
        recorder = self._open()
        return Tensor._recorded(recorder, self._reference(recorder))

    def _viewed(self, new: Tensor, op: str, fields: dict[str, Any]) -> Tensor:
        """Makes a value that was just computed a view of this one."""
        new._base, new._view = self, (op, fields)
        if self._core is None:
            new._seen = self._root()._version
        return new

    # Numbers, shapes, types

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
        return _dtype.dtype(self._core.dtype if self._core is not None else self._type()[0])

    def _type(self) -> tuple[str, list[int | None]]:
        recorder = self._recorder
        if recorder is None or recorder.state not in ("open", "scanned"):
            self._refuse("its shape is asked for")
            raise AssertionError
        if recorder.state == "scanned":
            ref = self._ref
        else:
            ref = self._reference(recorder)
        return _types.of(recorder, ref)

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

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Not needed: gradients are of what they are asked for."""
        return self

    def retain_grad(self) -> None:
        """Not needed: see `requires_grad_`."""

    # Results

    def save(self, name: str | None = None) -> Tensor:
        """Keeps it: after the trace this name is the result. `name` is what it is called in files of results; by default as
        the variable that it is assigned to."""
        if self._core is not None:
            return self
        recorder = self._open()
        from ._recorder import source

        if all(tensor is not self for scope in _scopes(recorder) for tensor, _, _ in scope.saves):
            recorder.scope.saves.append((self, name, source()))
        return self

    @property
    def value(self) -> Tensor:
        """Itself, as a result: nnsight's name for it."""
        self._here("its value is asked for")
        return self

    def _here(self, why: str) -> Core:
        if self._core is None:
            if self._steps is not None:
                raise NotComputedError(
                    f"it was saved at {len(self._steps)} steps\n  hint: take one, `x[0]`, or all, `pl.stack(list(x))`"
                )
            self._refuse(why)
            raise AssertionError
        return self._core

    def numpy(self) -> numpy.ndarray[Any, Any]:
        """A numpy array with elements of its own. numpy has no bf16: those come as float32, which holds them exactly."""
        return _arrays.to_numpy(self._here("its numbers are asked for"))

    def __array__(self, dtype: Any = None, copy: Any = None) -> numpy.ndarray[Any, Any]:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def __dlpack__(self, **options: Any) -> Any:
        return _arrays.dlpack(self._here("it is given to another library"), **options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def torch(self) -> Any:
        """A torch tensor with elements of its own."""
        import torch  # type: ignore[import-not-found]

        return torch.from_dlpack(self)

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
            self._refuse("a `for` loop goes over it", control=True)
        return (self[k] for k in range(len(self)))

    def __bool__(self) -> bool:
        if self._core is None:
            self._refuse("an `if` or `while` asks whether it holds", control=True)
        return bool(self.item())

    def __int__(self) -> int:
        if self._core is None:
            self._refuse("it is made a whole number of Python", control=True)
        return int(self.item())

    def __float__(self) -> float:
        if self._core is None:
            self._refuse("it is made a number of Python", control=True)
        return float(self.item())

    def __index__(self) -> int:
        if self._core is None:
            self._refuse("it is used as a number of Python", control=True)
        if self.dtype.is_floating_point:
            raise TypeError("only a whole number can be an index")
        return int(self.item())

    def __format__(self, specification: str) -> str:
        if self._core is not None and specification and self.numel() == 1:
            return format(self.item(), specification)
        return format(repr(self) if specification == "" else str(self), specification)

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).any())

    def __hash__(self) -> int:
        return id(self)

    def __reduce__(self) -> Any:
        core = self._here("it is pickled")
        return _restored, (bytes(core.data()), list(core.shape), core.dtype)

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
        if state != "open":
            return f"<{self._ref}: {'was not saved' if state == 'done' else state}>"
        return f"<{self._ref}: computed when its trace runs>"

    def _repr_html_(self) -> str:
        from . import _html

        return _html.tensor(self)

    # Indexing

    def __getitem__(self, index: Any) -> Tensor:
        if self._steps is not None:
            return self._steps[index]
        if self._of_hook is not None and type(index) is int and index == 0 and self._base is None:
            taken = self._of_hook.first_of_tuple(self)
            if taken is not None:
                return taken
        writer = _writer.writer(self, index)
        items = writer.index(index)
        new = writer.one("getitem", {"input": writer.tensor(self), "index": items})
        if any(type(item) is dict for item in items):
            return new
        return self._viewed(new, "getitem", {"index": items})

    def __setitem__(self, index: Any, value: Any) -> None:
        if self._of_hook is not None and type(index) is int and index == 0 and self._base is None:
            taken = self._of_hook.first_of_tuple(self)
            if taken is self:
                index = ...
        if type(value) is Tensor and value._base is self and value._view[0] == "getitem":
            writer = _writer.writer(self)
            if value._view[1]["index"] == writer.index(index) and (
                self._core is not None or value._seen == self._root()._version
            ):
                return  # `x[i] *= 2`: the view has been written through already.
        writer = _writer.writer(self, value, index)
        fields = {"input": writer.tensor(self), "index": writer.index(index), "values": writer.operand(value)}
        self._write(writer.one("index_put", fields))

    @property
    def logits(self) -> Tensor:
        """Of `model.output`, as transformers has it: itself."""
        if self._of_hook is not None and getattr(self._of_hook, "path", "") in ("output", "logits"):
            return self
        raise AttributeError("a tensor has no `logits`; `model.logits` has them")

    # Gradients

    @property
    def grad(self) -> Tensor:
        """Its gradient, of the way back that is open or was written last: see `backward`."""
        from . import _gradients

        return _gradients.read(self)

    @grad.setter
    def grad(self, value: Any) -> None:
        from . import _gradients

        _gradients.read(self)._write(value)

    def backward(self, gradient: Any = None, retain_graph: Any = None, create_graph: Any = False) -> Any:
        """Goes back from it: from a loss or a logit, or with a `gradient` of its shape from anything. Inside
        `with loss.backward():`, and after it, `.grad` of values that it was computed from can be read and set."""
        from . import _gradients

        return _gradients.Backward(self, gradient)

    # Other libraries' functions

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        from . import _interop

        return _interop.numpy_ufunc(ufunc, method, inputs, options)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        from . import _interop

        return _interop.numpy_function(function, arguments, options)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        from . import _interop

        return _interop.torch_function(function, arguments, options or {})

    def _warn_of_tuple(self) -> None:
        warnings.warn(
            "`.output` is one tensor here, so `.output[0]` is prompt 0. For all prompts leave `[0]` out; to have old scripts "
            'mean the tensor, `pl.compat("nnsight<0.6")`',
            stacklevel=4,
        )


class Shape(tuple):  # type: ignore[type-arg]
    """Sizes: numbers, and `Size` where one is not known before the run."""

    __slots__ = ()

    def numel(self) -> int:
        count = 1
        for size in self:
            count *= int(size)
        return count

    def __repr__(self) -> str:
        return f"Shape({list(self)})"


def _scopes(recorder: Recorder) -> Iterator[Any]:
    scope = recorder.scope
    while scope is not None:
        yield scope
        scope = scope.parent


def _restored(data: bytes, shape: list[int], dtype: str) -> Tensor:
    return Tensor._computed(Core.from_data(data, shape, dtype))


_writer._tensor = Tensor
