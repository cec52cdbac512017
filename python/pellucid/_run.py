"""Running a program, and giving its results to the tensors that stand for them."""

from __future__ import annotations

import io
import json
import os
import re
from typing import Any, Iterator, Mapping

from ._core import Results as CoreResults
from ._core import Tensor as Core
from ._errors import NotComputedError, PellucidError, RunError
from ._recorder import Recorder
from ._tensor import Tensor


#: What the names of logged values begin with in a file.
_LOGGED = "pellucid.log/"


class Results(Mapping[str, Tensor]):
    """What a run gave back: saved values by name."""

    def __init__(self, core: Any):
        self._results: CoreResults | Kept = core
        self._cores = core.tensors()
        self._tensors: dict[str, Tensor] = {}

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Results:
        """Reads what `save` wrote, here or with the command or a library."""
        from ._safetensors import read

        return Results(Kept(*read(path)))

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._tensors:
            if name not in self._cores:
                known = ", ".join(f"`{known}`" for known in self._cores) or "nothing"
                raise KeyError(f"nothing is saved as `{name}`; there is {known}")
            self._tensors[name] = Tensor._computed(self._cores[name])
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cores)

    def __len__(self) -> int:
        return len(self._cores)

    @property
    def absent(self) -> list[str]:
        """Names of saved values that are absent: a generation had stopped before their step, or their branch did not run."""
        return self._results.absent()

    @property
    def logs(self) -> list[dict[str, Any]]:
        """Logged values, in the order in which they arose."""
        return [{**entry, "value": Tensor._computed(entry["value"])} for entry in self._results.logs()]

    @property
    def provenance(self) -> dict[str, Any]:
        """What made the results: model, revision, engine, instruction set, number type, seed. The same of all these gives the same
        results, bit for bit."""
        return json.loads(self._results.provenance())

    @property
    def report(self) -> dict[str, Any]:
        """What the run did: passes, tokens, bytes, seconds."""
        return json.loads(self._results.report())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the saved values as a safetensors file, with their provenance."""
        with open(path, "wb") as file:
            file.write(self._results.to_safetensors())

    def __reduce__(self) -> Any:
        return _again, (self._results.to_safetensors(),)

    def __repr__(self) -> str:
        lines = [f"  {name}: {core.dtype} {list(core.shape)}" for name, core in self._cores.items()]
        return "Results(\n" + "\n".join(lines) + "\n)" if lines else "Results()"

    def _repr_html_(self) -> str:
        from . import _html

        return _html.results(self)


class Kept:
    """Results that were read from a file, or come from another process."""

    def __init__(self, path: str, tensors: dict[str, Core], metadata: dict[str, str]):
        self._all, self._metadata = tensors, metadata
        try:
            about = json.loads(metadata["pellucid.result"])
            self._absent, self._provenance, self._report = about["absent"], about["provenance"], about["report"]
            # Logged values stand beside the saved ones, by their numbers.
            self._logs = [
                {"name": each["name"], "coordinates": each.get("coordinates", []), "step": each.get("step"), "value": tensors[f"{_LOGGED}{place}"]}
                for place, each in enumerate(about.get("logs", []))
            ]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise PellucidError(f"{path} has no results of a program\n  hint: `Results.save` writes such files") from None
        self._tensors = {name: core for name, core in tensors.items() if not name.startswith(_LOGGED)}

    def tensors(self) -> dict[str, Core]:
        return self._tensors

    def absent(self) -> list[str]:
        return self._absent

    def logs(self) -> list[dict[str, Any]]:
        return self._logs

    def to_safetensors(self) -> bytes:
        from ._safetensors import written

        return written(self._all, self._metadata)

    def provenance(self) -> str:
        return json.dumps(self._provenance)

    def report(self) -> str:
        return json.dumps(self._report)


def _again(data: bytes) -> Results:
    """Results that were pickled."""
    from ._safetensors import read_from

    return Results(Kept(*read_from("what was pickled", io.BytesIO(data))))


def show_log(entry: dict[str, Any]) -> None:
    """How a logged value is printed."""
    value = Tensor._computed(entry["value"])
    place = "".join(f"[{number}]" for number in entry["coordinates"])
    step = "" if entry["step"] is None else f" at step {entry['step']}"
    label = entry["name"].rstrip("0123456789").rstrip("_")
    print(f"{label}{place}{step}: {value!r}")


def execute(recorder: Recorder, options: dict[str, Any]) -> None:
    """Runs a program that has been written."""
    __tracebackhide__ = True
    recorder.state = "failed"
    options = {"on_log": show_log, **options}
    remote, blocking = options.pop("remote", None) or recorder.model._remote, options.pop("blocking", True)
    try:
        program = recorder.program()
        if remote:
            from ._remote import run_at

            run_at(recorder, program, remote, blocking, options)
            return
        here(blocking)
        core = recorder.model._core_with(recorder.models)
        results = Results(core.run(program, **options))
    except RunError as error:
        failed(recorder, error)
        raise
    deliver(recorder, results)


def failed(recorder: Recorder, error: RunError) -> None:
    """Of a run that failed: what the traces before had saved is there all the same."""
    recorder.state = "failed"
    name = re.split(r"[@^]", error.trace)[0] if error.trace else None
    error.at(next((node["source"] for node in traces(recorder.root.body) if node.get("name") == name), None))
    for tensor, name in recorder.saved:
        if name in error.kept:
            tensor._become(error.kept[name]._core)
            continue
        steps = sorted((int(each.rpartition("/")[2]), each) for each in error.kept if re.fullmatch(rf"{re.escape(name)}/\d+", each))
        if steps:
            tensor._steps = [error.kept[each] for _, each in steps]
            tensor._become(None)
    for cache, name in recorder.caches:
        if any(each.startswith(f"{name}/") for each in error.kept):
            cache._deliver(name, error.kept)


def traces(body: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The traces of a session, those in sweeps and loops too."""
    for node in body:
        if node["op"] == "trace":
            yield node
        elif "body" in node:
            yield from traces(node["body"])


def here(blocking: bool) -> None:
    """Refuses to leave a run to itself that is not at a service."""
    if not blocking:
        raise ValueError("`blocking=False` is for runs at a service\n  hint: give `remote`; here, `async with` lets other tasks go on")


def deliver(recorder: Recorder, results: Results) -> None:
    """Gives results to the tensors that stand for them."""
    recorder.results = results
    recorder.state = "done"
    absent = set(results.absent)
    numbered: dict[str, dict[int, str]] = {}
    for name in [*results._cores, *absent]:
        base, _, step = name.rpartition("/")
        if base and step.isdigit():
            numbered.setdefault(base, {})[int(step)] = name
    for tensor, name in recorder.saved:
        if name in results._cores:
            tensor._become(results._cores[name])
        elif name in numbered:
            why = recorder.perhaps.get(name, "")
            tensor._steps = [_one(results, numbered[name][step], absent, why) for step in sorted(numbered[name])]
            tensor._become(None)
        else:
            tensor._become(None, _absent(name, recorder.perhaps.get(name, "")))
    for cache, name in recorder.caches:
        cache._deliver(name, results)
    for tensor, core, name in recorder.given.values:
        if tensor._core is None and tensor._base is None and tensor._ref == name:
            tensor._become(core)  # numbers that were given are still there
    recorder.saved = []
    recorder.caches = []
    if recorder.given.filled:
        from ._gradients import fill

        fill(recorder, results)


def _one(results: Results, name: str, absent: set[str], why: str) -> Tensor:
    if name not in absent:
        return results[name]
    tensor = Tensor.__new__(Tensor)
    tensor._begin(None)
    tensor._become(None, _absent(name, why))
    return tensor


def _absent(name: str, why: str) -> str:
    why = why or "what it is computed from is absent"
    return f"`{name}` is absent: {why}\n  hint: `tracer.results.absent` lists such values"


__all__ = ["NotComputedError", "Results", "execute"]
