"""Invokes: the inputs of a trace, and whose hook points are meant."""

from __future__ import annotations

from typing import Any

from . import _operations
from ._options import whole_texts
from ._errors import NotComputedError
from ._recorder import EarlyStop, Recorder, Scope, recording
from ._tensor import Tensor


def current(why: str) -> Recorder:
    """The program that is being recorded."""
    recorder = recording.get()
    if recorder is None:
        raise NotComputedError(
            f"{why} outside of a trace\n  hint: write it inside `with model.trace(prompt):`"
        )
    return recorder


def add_invoke(recorder: Recorder, prompts: dict[str, Any]) -> str:
    """Adds an invoke to the trace, or inside a sweep or loop of it to each of its cells."""
    scope: Scope | None = recorder.scope
    while scope is not None and scope.kind not in ("trace", "sweep", "loop"):
        scope = scope.parent
    if scope is None or scope.node is None or scope.trace is None:
        raise NotComputedError("an invoke stands inside of a trace")
    whole_texts("the prompt", [prompts.get("prompt"), *prompts.get("prompts", [])])
    for token in (token for row in prompts.get("tokens", []) for token in row):
        if not -1 << 63 <= token < 1 << 63:
            raise ValueError(f"a token id of {token.bit_length()} bits is none: the model's vocabulary has {recorder.model.sizes['vocabulary']}")
    invokes = scope.node.setdefault("invokes", [])
    name = recorder.name("invoke")
    invokes.append({"name": name, **prompts})
    return name


def generated_ids(recorder: Recorder) -> Tensor:
    made = _of_invoke(recorder, "generated")
    return _operations.cat([_of_invoke(recorder, "tokens"), made], 1)


def _invoke_field(recorder: Recorder, why: str = "a hook point is used") -> dict[str, Any]:
    if recorder.invoke is None:
        if recorder.scope.trace is None:
            current_trace_missing(why)
        raise NotComputedError(
            "no invoke is open\n  hint: write it inside `with tracer.invoke(prompt):`, or give the prompt to the trace"
        )
    return {"invoke": recorder.invoke} if recorder.invoke else {}


def current_trace_missing(why: str) -> None:
    raise NotComputedError(
        f"{why} between traces\n  hint: write it inside `with model.trace(prompt):`"
    )


def _address(recorder: Recorder, hook: str) -> dict[str, Any]:
    fields: dict[str, Any] = {**_invoke_field(recorder), "hook": hook}
    if recorder.step is not None and not recorder.inside("steps"):
        fields["step"] = recorder.step
    return fields


def _except(except_: Any) -> dict[str, Any]:
    listed = [except_] if isinstance(except_, str) else list(except_)
    return {"except": listed} if listed else {}


def _of_invoke(recorder: Recorder, op: str) -> Tensor:
    return recorder.one(op, _invoke_field(recorder))


class Invoke:
    """One input of a trace. `with tracer.invoke(prompt) as clean:` opens it; a later `with clean:` goes back to it, as inside
    of a sweep, whose cells have invokes of their own."""

    def __init__(self, recorder: Recorder, prompts: dict[str, Any]):
        self._recorder, self._prompts = recorder, prompts
        self._before: list[tuple[Any, ...]] = []
        #: Its name in the program.
        self.name: str = ""

    def __enter__(self) -> Invoke:
        recorder = self._recorder
        if not self.name:
            if recorder.invoke is not None and not (recorder.inside("sweep") or recorder.inside("loop")):
                raise NotComputedError(
                    "an invoke cannot be opened inside of another\n  hint: leave the prompt out of `model.trace()` where there "
                    "are several invokes"
                )
            self.name = add_invoke(recorder, self._prompts)
        self._before.append((recorder.invoke, recorder.step, recorder.steps_of))
        recorder.invoke, recorder.step, recorder.steps_of = self.name, None, {}
        return self

    def __exit__(self, kind: Any, error: Any, _: Any) -> bool | None:
        recorder = self._recorder
        recorder.invoke, recorder.step, recorder.steps_of = self._before.pop()
        return kind is not None and issubclass(kind, EarlyStop)

    @property
    def tokens(self) -> Tensor:
        """Its token ids, `[prompts, length]`."""
        return self._recorder.one("tokens", {"invoke": self.name})

    @property
    def lengths(self) -> Tensor:
        return self._recorder.one("lengths", {"invoke": self.name})

    @property
    def mask(self) -> Tensor:
        return self._recorder.one("mask", {"invoke": self.name})
