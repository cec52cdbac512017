"""What is kept of a body when it ends: what is in lists that are saved; and why a saved value may be absent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterator

from . import _writer
from ._scope import Scope

if TYPE_CHECKING:
    from ._recorder import Recorder


def hold(recorder: Recorder, scope: Scope) -> None:
    """Saves what is in lists that are saved: at the end of the body that it was made in."""
    around = list(recorder.scopes())
    met = {id(tensor) for tensor, _ in recorder.saved} | {id(tensor) for each in around for tensor, _, _ in each.saves}
    for holder, place, line in recorder.holders:
        for tensor in _tensors_in(holder):
            elsewhere = tensor._scope is not scope and any(tensor._scope is each for each in around)
            gone = tensor._note is not None or tensor._ref.partition(".")[0] in recorder.dropped
            if tensor._recorder is recorder and tensor._core is None and not (elsewhere or gone or id(tensor) in met):
                met.add(id(tensor))
                scope.saves.append((tensor, recorder.into(place), line))


def _tensors_in(value: Any) -> Iterator[Any]:
    """All tensors in lists, tuples and dictionaries."""
    if type(value) is _writer._tensor:
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors_in(each)
    elif isinstance(value, dict):
        yield from _tensors_in(list(value.values()))


def why_absent(scope: Scope) -> str:
    """Why what is saved in a body may be absent."""
    around: Scope | None = scope
    kinds = set()
    while around is not None:
        kinds.add(around.kind)
        around = around.parent
    reasons = []
    if "branch" in kinds:
        cells = " in every cell of the sweep" if "sweep" in kinds else ""
        reasons.append(f"the branch that it stands in did not run{cells}")
    if scope.trace is not None and "generate" in scope.trace:
        reasons.append("the generation had stopped before its step")
    return ", or ".join(reasons)
