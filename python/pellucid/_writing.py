"""What can be written in traces and sessions alike."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Callable, Mapping

from . import _operations
from ._errors import NotComputedError
from ._recorder import Recorder
from ._regions import Cond, Loop, Sweep
from ._run import Results
from ._tensor import Tensor

if TYPE_CHECKING:
    from ._remote import Job


class Writing:
    """What can be written in traces and sessions alike."""

    _recorder: Recorder

    def sweep(self, **axes: Any) -> Sweep:
        """One body for every cell of a grid: `with tracer.sweep(layer=range(12), position=[3, 5]) as cell:`. Each keyword is
        an axis, the last one fastest: whole numbers, floats, texts (prompts), or a tensor, whose rows it goes along. Parameters that go
        along one axis together are a dictionary: `pair={"clean": [...], "corrupted": [...]}`, of two keywords a grid. Inside,
        `cell.layer`, `cell.clean` are the cell's own; a `save` returns a stack over the grid."""
        return Sweep(self._recorder, axes)

    def loop(
        self, count: int | None = None, carry: Mapping[str, Any] | None = None, start: int = 0, **axes: Any
    ) -> Loop:
        """One body again and again: `with tracer.loop(6, carry={"x": start}) as loop:`. Inside, `loop.x` is the carried value
        now, and `loop.next(x=better)` says what it is in the next iteration; after the block `loop.x` is the last. `start`
        leaves out the iterations before it, which were run elsewhere: the others keep their numbers and their noise."""
        return Loop(self._recorder, count, dict(carry or {}), start, axes)

    def cond(self, condition: Any) -> Cond:
        """A branch that runs only where a bool without dimensions holds: `with tracer.cond(x.max() > 3) as branch:`, and
        `with branch.otherwise():` for where it does not; `branch.choose(a, b)` gives the value of the one that ran."""
        return Cond(self._recorder, condition)

    def log(self, *values: Any) -> None:
        """Prints values when they are computed. Texts label what follows them."""
        label = ""
        recorder = self._recorder
        for value in values:
            if isinstance(value, Tensor):
                name = recorder.name(re.sub(r"\W+", "_", label, flags=re.ASCII).strip("_") or "log")
                recorder.plain("print", {"name": name, "value": recorder.tensor(value)})
                label = ""
            else:
                label = f"{label} {value}".strip()
        if label:
            print(label)

    def apply(self, operation: str | Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """An operation by its name, `tracer.apply("softmax", x, dim=-1)`; or a function that calls operations, which is
        called now, with what will have been computed."""
        if isinstance(operation, str):
            found = getattr(_operations, operation, None)
            if found is None or operation.startswith("_"):
                raise AttributeError(f"there is no operation `{operation}`; docs/operations.md lists them")
            return found(*arguments, **options)
        return operation(*arguments, **options)

    def barrier(self, count: int = 0) -> Callable[[], None]:
        """Not needed: values flow between invokes whatever their order. Accepted, so that scripts run."""
        return lambda: None

    @property
    def program(self) -> Any:
        """The program as it is now: see `pellucid.Program`."""
        from ._program import Program

        return Program(self._recorder.program(), self._recorder.model)

    @property
    def results(self) -> Results:
        """What the run gave back: saved values by name, what made them, and what the run did."""
        if self._recorder.results is None:
            raise NotComputedError("the run has not been\n  hint: results are there after the `with` block")
        return self._recorder.results

    @property
    def job(self) -> Job:
        """The job at a service, of a run with `blocking=False`: `.state`, `.result()`, `.cancel()`."""
        if self._recorder.job is None:
            raise NotComputedError("there is no job\n  hint: with `remote` and `blocking=False` one is submitted when the block ends")
        return self._recorder.job

    def explain(self) -> str:
        """What would be computed where, and at what price."""
        return self.program.explain()

    def _repr_html_(self) -> str:
        from . import _html

        return _html.plan(self)
