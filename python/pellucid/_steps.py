"""Steps of a generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterator, Sequence

from ._recorder import Recorder, Scope, source

if TYPE_CHECKING:
    from ._module import Module
    from ._trace import Trace


class Steps:
    """`tracer.iter`: steps by an index."""

    def __init__(self, trace: Trace):
        self._trace = trace

    def __getitem__(self, index: Any) -> StepsOf:
        return StepsOf(self._trace._recorder, self._trace._node, index)


class StepsOf:
    """Some steps of a generation: in a `for` loop one by one, in a `with` block all in one body."""

    def __init__(self, recorder: Recorder, trace: dict[str, Any], index: Any):
        self._recorder, self._trace, self._index = recorder, trace, index
        self._scope: Scope | None = None
        self._before: int | None = None

    def _chosen(self) -> Sequence[int]:
        total = self._trace.get("generate", {}).get("max_new_tokens", 1)
        if isinstance(self._index, slice):
            chosen = range(*self._index.indices(total))
            if not chosen:
                ends = ":".join("" if end is None else str(end) for end in (self._index.start, self._index.stop, self._index.step or None))
                steps = f"steps 0 to {total - 1}" if total > 1 else "step 0 alone"
                raise IndexError(
                    f"`iter[{ends.removesuffix(':') if self._index.step is None else ends}]` has no step: the trace has {steps}\n  hint: step 0 is the "
                    "prompt's; N new tokens take steps 0 to N−1, and `max_new_tokens` is N"
                )
            return chosen
        if isinstance(self._index, (list, tuple)):
            return [step + total if step < 0 else step for step in self._index]
        step = self._index + total if self._index < 0 else self._index
        return range(step, step + 1)

    def __iter__(self) -> Iterator[int]:
        recorder = self._recorder
        before = recorder.step
        try:
            for step in self._chosen():
                recorder.step = step
                yield step
        finally:
            recorder.step = before

    def __enter__(self) -> Any:
        recorder = self._recorder
        self._before = recorder.step
        chosen = self._chosen()
        if not isinstance(chosen, range):
            raise TypeError(
                f"a body of all of its steps is for those from one to another, not for {self._index!r}\n  hint: `for step in tracer.iter[{self._index!r}]:` "
                "writes it for each of them"
            )
        if not isinstance(self._index, slice):
            recorder.step = chosen[0]
            return chosen[0]
        recorder.step = None
        node: dict[str, Any] = {"op": "steps", "name": recorder.name("steps")}
        if chosen.start:
            node["from"] = chosen.start
        if self._index.stop is not None:
            node["to"] = max(chosen.stop, chosen.start)
        if chosen.step != 1:
            node["every"] = chosen.step
        node.update(body=[], source=source())
        self._scope = recorder.open("steps", node)
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        recorder = self._recorder
        if self._scope is not None:
            recorder.leave(self._scope, kind)
        recorder.step = self._before


def module_steps(recorder: Recorder, module: Module) -> int:
    """The next step of a module: `module.next()`."""
    step = recorder.steps_of.get(module._target, 0) + 1
    recorder.steps_of[module._target] = step
    return step


def moved_to(recorder: Recorder | None, path: str) -> int | None:
    """The step that a module is at since `.next()` of it, or of a module that it is in; none: that of the body."""
    if recorder is None or not recorder.steps_of or recorder.step is not None or recorder.inside("steps"):
        return None
    while path and path not in recorder.steps_of:
        path = path.rpartition(".")[0]
    return recorder.steps_of.get(path)
