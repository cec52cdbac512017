"""Gradients: ways back, read and written."""

from __future__ import annotations

from typing import Any

from ._errors import NotComputedError
from ._inplace import refuse_detached
from ._recorder import Recorder, recording
from ._tensor import Tensor


class Backward:
    """A way back from a value. Inside `with`, `.grad` is a gradient of this one; after it, of the last one written."""

    def __init__(self, of: Tensor, cotangent: Any = None):
        if of._core is not None:
            raise NotComputedError(
                "a result has no way back\n  hint: write `with loss.backward():` inside the trace; for torch's own gradients begin with `x.torch()`"
            )
        recorder = of._open()
        if any(trace is recorder.scope.trace for trace in recorder.detached):
            refuse_detached()
        fields = {"of": of._reference(recorder)}
        if cotangent is not None:
            fields["cotangent"] = recorder.tensor(cotangent)
        self._recorder = recorder
        self._name = recorder.node("backward", fields)
        self._before = recorder.backward
        recorder.backward = self._name

    def __enter__(self) -> Backward:
        self._recorder.backward = self._name
        return self

    def __exit__(self, *_: Any) -> None:
        if self._before is not None:
            self._recorder.backward = self._before

    def grad(self, of: Any) -> Tensor:
        """The gradient of a value on this way back; of an array of numpy or a tensor of torch, too, with which the trace computes."""
        return _read(self._recorder, of, self._name)


def read(of: Tensor) -> Tensor:
    """`x.grad`."""
    if of._core is None:
        recorder: Recorder | None = of._open()
    else:
        recorder = recording.get()  # numbers with which it may compute
    if recorder is None:
        raise NotComputedError(
            "results have no gradients\n  hint: read `.grad` inside the trace, after `loss.backward()`, and save it"
        )
    if recorder.backward is None:
        raise NotComputedError(
            "there is no way back yet\n  hint: write `with loss.backward():` first, and read `.grad` inside it or after it"
        )
    return _read(recorder, of, recorder.backward)


def _read(recorder: Recorder, of: Any, backward: str) -> Tensor:
    waits = isinstance(of, Tensor) and of._core is None
    if waits:
        of._open()
    ref = of._reference(recorder) if waits else recorder.given.name_of(of, recorder.core_names)
    key = ("grad", backward, ref)
    known = recorder.scope.hooks.get(key)
    if known is not None:
        return known
    fields = {"backward": backward, "of": ref}
    tensor = recorder.one("grad", dict(fields))
    origin = GradientOrigin(fields)
    tensor._write_to = origin.write
    tensor._of_hook = origin
    recorder.scope.hooks[key] = tensor
    return tensor


class GradientOrigin:
    """Where a gradient was read: writing it in place writes there."""

    __slots__ = ("fields",)

    def __init__(self, fields: dict[str, Any]):
        self.fields = fields

    def write(self, recorder: Recorder, ref: str) -> None:
        recorder.plain("set_grad", {**self.fields, "value": ref})

    def again(self, recorder: Recorder) -> str:
        return recorder.node("grad", self.fields)

    def leave(self, tensor: Tensor) -> None:
        pass

    def of_tuple(self, tensor: Tensor, index: Any) -> None:
        return None
