"""Tensors: what will have been computed while a trace is written, and what has been computed after it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from . import _arrays, _masks, _refusals, _writer
from ._core import Tensor as Core
from ._errors import ControlFlowError, NotComputedError
from ._recorder import _LEFT, Recorder
from ._inplace import InPlace
from ._numbers import Shape
from ._writer import as_tensor


#: How the member of what was a tuple is a view of it: as it is.
_WHOLE: dict[str, Any] = {"index": ["..."]}


class Tensor(InPlace):
    """A tensor. Inside a trace it stands for what will have been computed; after the trace it is the result.

    Methods and operators have `torch.Tensor`'s names and meaning. A result gives itself to numpy (`numpy.asarray`, arithmetic) and to torch
    (`torch.from_dlpack`: its numbers are copied out of the engine once, whoever takes them).
    """

    __slots__ = (
        "_core", "_recorder", "_ref", "_base", "_view", "_version", "_seen", "_views", "_write_to", "_scope", "_written",
        "_note", "_steps", "_of_hook", "_buffer", "__weakref__",
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
        #: Of a result: its views, by identity.
        self._views: Any = None
        #: Called with the name of a new value where changing it writes to the model.
        self._write_to: Any = None
        #: The body that it was made in; and of a hook point's the one that it was changed in, while that is being written.
        self._scope: Any = None
        self._written: Any = None
        self._note: str | None = None
        self._steps: list[Tensor] | None = None
        self._of_hook: Any = None
        #: What it was given to other libraries as.
        self._buffer: Any = None

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
        self._base = self._view = self._write_to = self._note = self._steps = self._of_hook = None
        self._version = self._seen = 0
        self._views = self._buffer = self._written = None
        self._scope = recorder.scope
        return self

    # What it stands for

    def _open(self) -> Recorder:
        """The program that it waits in; an error where that is over."""
        recorder = self._recorder
        if recorder is not None and recorder.state == "open" and self._steps is None:
            return recorder
        self._refuse("it is used here")
        raise AssertionError

    def _refuse(self, why: str, control: bool = False, instead: str | None = None) -> None:
        """Says why its numbers are not there; `instead` what can be written instead, where that is known."""
        recorder = self._recorder
        kind: type[NotComputedError] = NotComputedError
        if self._note is not None:
            message = self._note
        elif self._steps is not None:
            message = f"{why}, and it is a tensor for each of {len(self._steps)} steps"
            message += "\n  hint: take one, `x[0]`, go over them, `for each in x`, or put them together, `pl.stack(x)`, `pl.cat(x, 1)`"
        elif recorder is None or recorder.state == "open":
            message = f"{why}, but its trace has not run yet"
            hint = "results are there after the `with` block"
            if control:
                kind = ControlFlowError
                hint = instead or (
                    "a trace is written once and runs later, so Python's `if` and `for` cannot look at its values: use "
                    "`pl.where(condition, a, b)` or `with tracer.cond(condition):` to choose, and `tracer.sweep` or "
                    "`tracer.loop` to repeat; a plain `range` is fine"
                )
            message += f"\n  hint: {hint}"
        elif recorder.state == "failed":
            message = (
                "it is not there: the run that it was part of failed, or its program was refused\n  hint: the error of that run says why; what the "
                "traces before the one that failed had saved is there, also in that error's `.kept`"
            )
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
                if fields is None:
                    raise NotComputedError(
                        f"what it is a part of, by `{op}`, was changed in place since\n  hint: take `{op}` after the change"
                    )
                self._ref = base if fields is _WHOLE else recorder.node(op, {"input": base, **fields})
                self._seen = root._version
                if self._scope is not recorder.scope:
                    recorder.scope.touched.append(self)
        elif self._ref == "":
            # It was written: what is read from now on is read from where it was written.
            self._ref = recorder.at(self._written or self._scope, self._of_hook.again)
        if self._scope is not recorder.scope:
            recorder.scope.read.add(id(self._root()))
        if recorder.dropped and self._ref.partition(".")[0] in recorder.dropped:
            raise NotComputedError(_LEFT)
        return self._ref

    def _become(self, core: Core | None, note: str | None = None) -> None:
        """After the run: what it stands for."""
        self._core = core
        self._note = note
        self._recorder = None if core is not None else self._recorder
        self._base = self._view = self._write_to = self._scope = self._written = None

    # Results

    def save(self, name: str | None = None) -> Tensor:
        """Keeps it: after the trace this name is the result. `name` is what it is called in files of results; by default as
        the variable that it is assigned to."""
        if self._core is not None:
            return self
        recorder = self._open()
        if all(tensor is not self for scope in recorder.scopes() for tensor, _, _ in scope.saves):
            recorder.save(self, name)
        return self

    # Indexing

    def __getitem__(self, index: Any) -> Any:
        if self._steps is not None:
            return self._steps[index]
        if self._of_hook is not None and self._base is None and (type(index) is int and index == 0 or type(index) is slice):
            taken = self._of_hook.of_tuple(self, index)
            if taken is not None:
                return self._whole() if taken is self else tuple(each._whole() for each in taken)
        writer = _writer.writer(self, index)
        if type(writer) is _writer.Eager and _arrays.has_mask(index):
            return Tensor._computed(_arrays.chosen(self._here("it is indexed"), index))
        items = writer.index(index if type(writer) is _writer.Eager else _masks.as_places(self, index))
        new = writer.one("getitem", {"input": writer.tensor(self), "index": items})
        if any(type(item) is dict for item in items):
            return new
        return self._viewed(new, "getitem", {"index": items})

    def _whole(self) -> Tensor:
        """Itself as the member of what was a tuple: the same elements, which an index chooses of."""
        if self._core is not None:
            whole = Tensor._computed(self._core)
        else:
            recorder = self._open()
            whole = Tensor._recorded(recorder, self._reference(recorder))
        return self._viewed(whole, "getitem", _WHOLE)

    def __setitem__(self, index: Any, value: Any) -> None:
        if self._of_hook is not None and type(index) is int and index == 0 and self._base is None:
            if self._of_hook.of_tuple(self, index) is self:
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

        if create_graph:
            raise NotComputedError("there are no gradients of gradients\n  hint: leave `create_graph` out")
        return _gradients.Backward(self, gradient)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):
                raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
            there = getattr(type(self), name, None)
            if isinstance(there, property):
                return there.__get__(self)  # it has it, and that is what failed
            raise _refusals.no_method(self, name)

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


_writer._tensor = Tensor

__all__ = ["Shape", "Tensor"]
