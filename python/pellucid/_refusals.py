"""How functions of other libraries are refused: by name, with what to do instead."""

from __future__ import annotations

from typing import Any

from ._errors import NotComputedError


def unknown(name: str) -> NotComputedError:
    """A function that has no counterpart in the language."""
    return NotComputedError(
        f"`{name}` cannot be recorded: a program is made of a closed set of operations\n  hint: docs/operations.md lists them; "
        "after the trace results work with every function of numpy and torch"
    )


def option(name: str, key: str, value: Any, instead: str = "") -> NotComputedError:
    """An option that has no counterpart."""
    shown = repr(value)
    shown = shown if len(shown) <= 40 else f"<{type(value).__name__}>"
    return NotComputedError(
        f"`{name}` with `{key}={shown}` cannot be recorded\n  hint: "
        f"{instead or 'leave it out, or write what it does with operations (docs/operations.md); after the trace results take it'}"
    )


def not_so(name: str, error: TypeError) -> NotComputedError:
    """Arguments that do not fit."""
    told = str(error).removeprefix("bind() ")
    return NotComputedError(f"`{name}` cannot be recorded with these arguments: {told}\n  hint: docs/operations.md has each operation's parameters")


def into(name: str, kind: str) -> NotComputedError:
    """A value of a trace written into what is not of the trace."""
    return NotComputedError(
        f"`{name}` would write a value that is not computed yet into {kind}\n  hint: make a new value, `y = x + value`, or begin with "
        "`pl.tensor(x)`"
    )
