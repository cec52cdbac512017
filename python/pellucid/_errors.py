"""What can go wrong. Messages say what, where (the author's own line) and what to do."""

from __future__ import annotations

import linecache
import os
import re
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


#: Words of programs' JSON in what the checker says, and what stands for them in Python.
IN_PYTHON = {
    "give a `cotangent` of its shape": "give `backward` a `gradient` of its shape",
    ", but its cotangent is": ", but the `gradient` that `backward` is given is",
    "the cotangent is a float of the value's own shape": "`gradient` is a float of the value's own shape",
    "yield it: the sweep's own values are its yields, stacked":
        "`x.save()` inside the sweep keeps it, stacked over the cells; `cell.collect(x)` is that for use after the sweep, `cell.mean(x)` one value of all cells",
    "yield it in both branches: the condition's own values are those of the branch that ran":
        "`branch.choose(a, b)`, beside the branches, is the value of the one that ran; `x.save()` inside a branch keeps it where that one runs",
    "carry it: the loop's own values are the carried ones in the end":
        "carry it, `carry={\"x\": start}` and `loop.next(x=…)`: after the loop `loop.x` is the last one; `x.save()` inside keeps that of each iteration",
    "to write a part, use `index_put` on the value read": "to write a part, `….output[:, -1] = value`",
    "to change a part, use `index_put` on the `weight` read": "to change a part, `….weight[:10] = value`",
    "give the sweep `invokes` of its own: each cell then has one for itself":
        "open one inside the sweep, `with cell.invoke(prompt):`: each cell then has one for itself",
    "read `generated` outside `steps`": "read `tracer.generated` outside of the steps",
    "mark what you want back with `save`": "mark what you want back with `.save()`",
    'an invoke is {"prompt": "…"}, {"prompts": ["…", "…"]} or {"tokens": [[1, 2, 3]]}, with a `name` of its own where there are several':
        "a prompt is a text, several texts, or token ids, which count from 0",
}
#: What begins the checker's words about indices, which stand in brackets in Python.
_WRITES, _SIGNATURE = "`index_put` writes ", re.compile(r"`(getitem|index_put)\(input: .*")
#: The invoke of a trace in which an edit was: its own nodes are in no cell for that.
_OF_AN_EDIT, _IN_A_CELL = re.compile(r"edit_\d+_"), re.compile(r" \(in cell \d+(?:, ([\d, ]+))?\)$")


def in_python(words: str, node: str | None = None) -> str:
    """What the checker says, in the words of Python."""
    for theirs, ours in IN_PYTHON.items():
        words = words.replace(theirs, ours)
    if words.startswith(_WRITES):
        words = "`x[…] = value` writes " + words[len(_WRITES) :]
    words = _SIGNATURE.sub("places count from 0, or with negative numbers from the end; `x.shape` is known while a trace is written", words)
    if node is not None and _OF_AN_EDIT.match(node):
        words = _IN_A_CELL.sub(lambda found: f" (in cell {found[1]})" if found[1] else "", words)
    return words


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
        message, hint, node = fields["message"], fields.get("hint"), fields.get("node")
        if file and not file.endswith(".rs"):
            message, hint = in_python(message, node), in_python(hint, node) if hint else None
        return Fault(message, hint, node, file, line, text, place)

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
        self._what: str = str(self.fault) if self.fault else fields["message"].split("\n")[0]
        super().__init__(self._told(None))

    def _told(self, line: dict[str, Any] | None) -> str:
        """All that it says; `line` is where the trace begins that was running."""
        message = self._what
        if line is not None and self.fault is None:
            message += f"\n  --> {_shown(line['file'])}:{line['line']}"
            text = linecache.getline(line["file"], line["line"]).strip()
            message += f"\n    | {text}" if text else ""
        if self.kind == "memory":
            message += "\n  hint: run fewer prompts or cells at once, save less of each value, or allow more: `memory_bytes`"
        if self.trace:
            message += f"\n  in {self.trace}"
            if self.kept:
                names = ", ".join(f"`{name}`" for name in list(self.kept)[:8])
                message += f"; what the traces before it saved is kept: {names}"
        return message

    def at(self, line: dict[str, Any] | None) -> None:
        """Says where its trace was written, too."""
        BaseException.__init__(self, self._told(line))


def _tensor(core: Any) -> Any:
    from ._tensor import Tensor

    return Tensor._computed(core)
