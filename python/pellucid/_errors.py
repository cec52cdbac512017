"""What can go wrong. Messages say what, where (the author's own line) and what to do."""

from __future__ import annotations

import linecache
import os
import sys
from dataclasses import dataclass
from typing import Any


class PellucidError(Exception):
    """The base of all errors of this package."""

    def __reduce__(self) -> Any:
        # Made without its `__init__`, so that a process of a pool can send it back.
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[PellucidError], arguments: tuple[Any, ...], fields: dict[str, Any]) -> PellucidError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(fields)
    return error


class ModelError(PellucidError):
    """A model cannot be opened: what is missing, damaged, or of an unknown family."""


class OperationError(PellucidError):
    """An operation that was evaluated at once cannot take its values."""


class RemoteError(PellucidError):
    """A service cannot be reached, or refuses: what it said, and what to do."""

    #: What kind of problem the service told, as `unknown-model`; none: it told nothing.
    kind: str | None

    def __init__(self, told: tuple[str, str | None]):
        message, self.kind = told
        super().__init__(message)


class NotComputedError(PellucidError):
    """A value is used as a number before its program has run, or was never saved."""


class ControlFlowError(NotComputedError, TypeError):
    """Python's `if`, `for` or `float()` looked at a value that is not there yet."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a program."""

    message: str
    hint: str | None = None
    #: The node's name in the program.
    node: str | None = None
    file: str | None = None
    line: int | None = None
    #: The source line, where it can be read.
    text: str | None = None
    #: A place in the program's JSON, of programs that were read from a file.
    place: str | None = None

    @staticmethod
    def of(fields: dict[str, Any]) -> Fault:
        file, line, text = fields.get("file"), fields.get("line"), fields.get("text")
        if file and line and not text:
            text = linecache.getline(file, line).strip() or None
        place = fields.get("place") if file is None else None
        return Fault(fields["message"], fields.get("hint"), fields.get("node"), file, line, text, place)

    def __str__(self) -> str:
        message = self.message.replace(self.file, _shown(self.file)) if self.file else self.message
        lines = [message if self.file or not self.node else f"`{self.node}`: {message}"]
        if self.file:
            lines.append(f"  --> {_shown(self.file)}:{self.line}")
            if self.text:
                lines.append(f"    | {self.text}")
        if self.place:
            lines.append(f"  at {self.place}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


def _shown(file: str) -> str:
    """A file's name as short as it can be found by; of a notebook's cell what it is called there."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    named = getattr(getattr(shell, "compile", None), "format_code_name", lambda _: None)(file)
    if named is not None:
        return " ".join(named)
    try:
        near = os.path.relpath(file)
    except ValueError:
        return file
    return file if near.startswith("..") or file.startswith("<") else near


class ProgramError(PellucidError):
    """A program is wrong, and was not run: everything that is wrong with it, each with the line it was written in."""

    faults: list[Fault]

    def __init__(self, faults: list[Any]):
        self.faults = [fault if isinstance(fault, Fault) else Fault.of(fault) for fault in faults]
        count = len(self.faults)
        head = "" if count == 1 else f"{count} things are wrong:\n\n"
        super().__init__(head + "\n\n".join(str(fault) for fault in self.faults))


class RunError(PellucidError):
    """A run failed on its values, or a bound was reached. What the traces before had saved is kept."""

    #: The name of the trace that was running.
    trace: str | None
    #: What is wrong, where it is one node's doing.
    fault: Fault | None
    #: `node`, `memory`, `deadline`, `cancelled` or `internal`.
    kind: str
    #: What the traces before had saved, by name.
    kept: dict[str, Any]

    def __init__(self, fields: dict[str, Any]):
        self.trace, self.kind = fields.get("trace"), fields.get("kind", "node")
        self.kept = {name: _tensor(core) for name, core in fields.get("kept", {}).items()}
        self.fault = Fault.of(fields["fault"]) if fields.get("fault") else None
        message = str(self.fault) if self.fault else fields["message"].split("\n")[0]
        if self.trace:
            message += f"\n  in {self.trace}"
            if self.kept:
                names = ", ".join(f"`{name}`" for name in list(self.kept)[:8])
                message += f"; what the traces before it saved is kept: {names}"
        super().__init__(message)


def _tensor(core: Any) -> Any:
    from ._tensor import Tensor

    return Tensor._computed(core)
