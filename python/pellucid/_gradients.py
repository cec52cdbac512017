"""Gradients: ways back, read and written."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from ._errors import NotComputedError, ProgramError
from ._inplace import refuse_detached
from ._points import WeightOrigin
from ._recorder import Recorder, recording
from ._tensor import Tensor

if TYPE_CHECKING:
    from ._run import Results
    from ._scope import Scope


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
        recorder.ways[self._name] = recorder.scope
        self._before = recorder.backward
        recorder.backward = self._name

    def __enter__(self) -> Backward:
        self._recorder.backward = self._name
        return self

    def __exit__(self, *_: Any) -> None:
        if self._before is not None:
            self._recorder.backward = self._before

    def grad(self, of: Any) -> Tensor:
        """The gradient of a value on this way back; of an array of numpy or a tensor of torch, too, with which the trace computes. Of a tensor of
        torch that is asked for here the trace does not fill torch's own `.grad`."""
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
    origin = of._of_hook if waits else None
    if isinstance(origin, WeightOrigin) and of._scope is recorder.scope and recorder.nodes[ref.partition(".")[0]]["op"] == "weight":
        origin.follow(recorder, ref)
    fields = {"backward": backward, "of": ref}
    tensor = recorder.one("grad", dict(fields))
    origin = GradientOrigin(fields)
    tensor._write_to = origin.write
    tensor._of_hook = origin
    recorder.scope.hooks[key] = tensor
    recorder.asked.add(backward)
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


# Gradients of torch's own tensors, and ways back of which nobody asks for anything


def for_torch(recorder: Recorder, scope: Scope) -> None:
    """At the end of a body: the gradients, on its ways back, of torch's own tensors that ask for them."""
    for name, of in recorder.ways.items():
        if of is scope:
            for tensor, line, cores in recorder.given.waiting():
                for core in cores:
                    ref = recorder.core_names.get(id(core))
                    if ref is not None and ("grad", name, ref) not in scope.hooks:
                        grad, save = recorder.name("grad"), recorder.name("gradient_for_torch")
                        scope.body += [
                            {"op": "grad", "name": grad, "backward": name, "of": ref, "source": line},
                            {"op": "save", "name": save, "value": grad, "source": line},
                        ]
                        recorder.nodes[grad] = scope.body[-2]
                        recorder.given.filled.append((tensor, scope, name, grad, save))


#: What a checker says where there is nothing to fill in: torch leaves `.grad` as it is there.
_NOTHING = ("does not depend on", "where no gradient flows", "only by way of a gradient")


def settle(recorder: Recorder, run: bool) -> None:
    """The program is written. Takes back gradients for torch of what has none, as torch has none there; and ways back of which nothing is asked."""
    given, before = recorder.given, list(recorder.given.filled)
    if given.filled:
        known = {grad for _, _, _, grad, _ in given.filled}
        missing: set[str | None] = set() if run else set(known)
        if run:
            try:
                recorder.model._core_with(recorder.models).check(recorder.program())
            except ProgramError as error:
                missing = {each.node for each in error.faults if each.node in known and any(part in each.message for part in _NOTHING)}
        for _, scope, _, grad, save in given.filled:
            if grad in missing:
                scope.body[:] = [node for node in scope.body if node.get("name") not in (grad, save)]
        given.filled = [each for each in given.filled if each[3] not in missing]
    quiet = set() if run else {name for _, _, name, _, _ in before}
    recorder.asked |= {name for _, _, name, _, _ in given.filled}
    for name, scope in recorder.ways.items():
        node = recorder.nodes[name]
        if name in recorder.asked or not any(each is node for each in scope.body):
            continue
        scope.body[:] = [each for each in scope.body if each is not node]
        if name in quiet:
            continue
        warnings.warn_explicit(
            "nobody asks for a gradient of this `backward`, so nothing goes back\n  hint: read one, `h.grad.save()`, inside the trace",
            UserWarning, node["source"]["file"], node["source"]["line"],
        )


def fill(recorder: Recorder, results: Results) -> None:
    """After the run: gradients of torch's own tensors go to torch, which adds them to `.grad`, and goes on back to what they were computed of."""
    filled, recorder.given.filled = recorder.given.filled, []
    sums: dict[int, tuple[Any, Any]] = {}
    for tensor, _, _, _, save in filled:
        if save not in results:
            continue  # of a branch that did not run
        gradient = results[save].torch()
        # In bodies that run more than once there is one of each time.
        gradient = gradient.sum(tuple(range(gradient.dim() - tensor.dim()))) if gradient.dim() > tensor.dim() else gradient
        gradient = gradient.to(dtype=tensor.dtype, device=tensor.device)
        before = sums.get(id(tensor))
        sums[id(tensor)] = tensor, gradient if before is None else before[1] + gradient
    if sums:
        import torch  # type: ignore[import-not-found]

        torch.autograd.backward([tensor for tensor, _ in sums.values()], [gradient for _, gradient in sums.values()])
