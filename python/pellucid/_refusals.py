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


def no_method(tensor: Any, name: str) -> AttributeError:
    """What a tensor of torch or an array of numpy may have, and tensors here have not."""
    from difflib import get_close_matches

    near = get_close_matches(name, [each for each in dir(type(tensor)) if not each.startswith("_")], 3, 0.7)
    if near:
        hint = "did you mean " + " or ".join(f"`{each}`" for each in near) + "?"
    elif tensor._core is not None:
        hint = f"a result has it as a tensor of torch or an array, `x.torch().{name}`, `x.numpy().{name}`, if these have it"
    else:
        hint = "docs/operations.md lists what can be recorded; after the trace results are tensors of torch and arrays as well"
    return AttributeError(f"a tensor has no `{name}`\n  hint: {hint}", name=name, obj=tensor)


def into(name: str, kind: str) -> NotComputedError:
    """A value of a trace written into what is not of the trace."""
    return NotComputedError(
        f"`{name}` would write a value that is not computed yet into {kind}\n  hint: make a new value, `y = x + value`, or begin with "
        "`pl.tensor(x)`"
    )
