"""Programs as data: written to files and read from them, checked, explained, run."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from . import _core
from ._options import check_remote
from ._run import Results, show_log

if TYPE_CHECKING:
    from ._model import Model
    from ._remote import Job


class Program:
    """An experiment as data: JSON, or a safetensors file where it has constants."""

    def __init__(self, core: _core.Program, model: Any = None):
        self._program, self._model = core, model

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Program:
        """Reads a program from a file."""
        with open(path, "rb") as file:
            return Program(_core.Program.from_bytes(file.read()))

    @staticmethod
    def parse(text: str | dict[str, Any]) -> Program:
        """A program from its JSON."""
        return Program(_core.Program(text if isinstance(text, str) else json.dumps(text), {}))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to a file: JSON, or safetensors where it has constants."""
        data = self._program.to_bytes()
        if data[:1] == b"{":
            data = self.json().encode()
        with open(path, "wb") as file:
            file.write(data)

    def json(self) -> str:
        """Its JSON, laid out to be read."""
        return self._program.to_json()

    def _on(self, model: Any) -> Any:
        model = model if model is not None else self._model
        if model is None:
            raise TypeError("for which model? A program that was read from a file knows none: `program.run(model)`")
        return model

    def check(self, model: Model | None = None) -> _core.CheckedProgram:
        """Checks it against a model: everything that is wrong with it is one error."""
        return self._on(model)._core_with({}).check(self._program)

    def explain(self, model: Model | None = None, analyze: bool = False) -> str:
        """What would be computed where, and at what price. With `analyze` it runs, and the plan says what each pass took."""
        core = self._on(model)._core_with({})
        return core.analyze(self._program, show_log)[0] if analyze else core.explain(self._program)

    def price(self, model: Model | None = None) -> dict[str, Any]:
        """What it costs at most."""
        return json.loads(self.check(model).price)

    def run(self, model: Model | None = None, **options: Any) -> Results:
        """Runs it: `remote`, `seconds` and whatever else `model.trace` has are options. See `submit` for a job."""
        on = self._on(model)
        check_remote(options.get("remote"))
        options = {"on_log": show_log, **options}
        remote = options.pop("remote", None) or on._remote
        if not options.pop("blocking", True):
            raise TypeError("`program.submit(model)` gives a job that goes on by itself")
        core = on._core_at(remote, {}) if remote else on._core_with({})
        return Results(core.run(self._program, **options))

    def submit(self, model: Model | None = None, remote: Any = None, seconds: float | None = None) -> Job:
        """Submits it to a service, as a job that goes on by itself."""
        from ._remote import submit

        on = self._on(model)
        check_remote(remote)
        return submit(self._program, on, remote or on._remote or True, {"seconds": seconds})

    def __reduce__(self) -> Any:
        # Without its model, which stays in its process: as one that was read from a file.
        return _again, (self._program.to_bytes(),)

    def __copy__(self) -> Program:
        return self

    def __deepcopy__(self, memo: Any) -> Program:
        return self

    def __repr__(self) -> str:
        return f"Program({self.json().count(chr(10)) + 1} lines of JSON)"

    def _repr_html_(self) -> str:
        from . import _html

        return _html.program(self)


def _again(data: bytes) -> Program:
    return Program(_core.Program.from_bytes(data))


def explain(what: Any, model: Model | None = None, analyze: bool = False) -> str:
    """What a trace, session or program would compute where, and at what price. Nothing runs: write the trace with `run=False` to
    look at it before it does. With `analyze` it runs, and the plan says what each pass took. `pl.show.plan` draws it."""
    program = what if isinstance(what, Program) else what.program
    return program.explain(model, analyze)


def scan(what: Any, model: Model | None = None) -> list[dict[str, Any]]:
    """Shapes and number types of every value of a trace, session or program, before anything runs."""
    program = what if isinstance(what, Program) else what.program
    rows = []
    for name, outputs, line in program.check(model).types():
        for place, (dtype, shape) in enumerate(outputs):
            rows.append({
                "name": name if place == 0 else f"{name}.{place}", "dtype": dtype, "shape": shape,
                "file": line[0] if line else None, "line": line[1] if line else None,
            })
    return rows
