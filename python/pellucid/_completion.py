"""Tab completion of modules in IPython and notebooks.

IPython evaluates nothing that stands before the last dot where a class has its own `__getattr__`, and so completes the model's own attributes but not
those of its modules. This completes them without evaluating: names are followed in the tree of modules.
"""

from __future__ import annotations

import re
from typing import Any

from ._module import Module

_PARTS = r"""(?:\.[A-Za-z_]\w*|\[-?\d+\]|\["[^"\[\]]*"\]|\['[^'\[\]]*'\])"""
_BEGUN = re.compile(rf"(?<![\w.\])])([A-Za-z_]\w*)({_PARTS}*)\.(\w*)$")
_PART = re.compile(_PARTS)


def completions(text: str, names: dict[str, Any]) -> tuple[str, list[str]]:
    """Of a line up to the cursor: what of its end is completed, and to what."""
    found = _BEGUN.search(text)
    module = names.get(found.group(1)) if found else None
    if found is None or not isinstance(module, Module):
        return "", []
    for part in _PART.findall(found.group(2)):
        try:
            child = module._child(part[1:]) if part[0] == "." else module[part[2:-2] if part[1] in "\"'" else int(part[1:-1])]
        except (AttributeError, IndexError, TypeError):
            return "", []
        if not isinstance(child, Module):
            return "", []
        module = child
    begun = found.group(3)
    return begun, sorted({name for name in dir(module) if name.startswith(begun) and (begun or not name.startswith("_"))})


def install(shell: Any) -> None:
    """Adds it to an IPython shell's completions."""

    def modules(context: Any) -> dict[str, Any]:
        begun, found = completions(context.line_with_cursor[: context.cursor_position], shell.user_ns)
        return {"completions": [_simple(name) for name in found], "matched_fragment": begun, "suppress": bool(found)}

    modules.matcher_api_version = 2  # type: ignore[attr-defined]
    modules.matcher_identifier = "pellucid"  # type: ignore[attr-defined]
    matchers = getattr(getattr(shell, "Completer", None), "custom_matchers", None)
    if matchers is not None and all(getattr(each, "matcher_identifier", None) != "pellucid" for each in matchers):
        matchers.append(modules)


def _simple(name: str) -> Any:
    from IPython.core.completer import SimpleCompletion  # type: ignore[import-not-found]

    return SimpleCompletion(name)
