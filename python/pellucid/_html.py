"""Displays in notebooks: self-contained HTML, light or dark as the reader has it."""

from __future__ import annotations

from html import escape
from typing import Any

_STYLE = """<style>
.pellucid{--ink:#1d2330;--soft:#5d6678;--line:#d9dde5;--ground:#fbfbfd;color:var(--ink);font:13px/1.5 ui-monospace,monospace}
@media (prefers-color-scheme:dark){.pellucid{--ink:#e6e9f0;--soft:#98a1b3;--line:#363c4a;--ground:#1a1d25}}
.pellucid{background:var(--ground);border:1px solid var(--line);border-radius:6px;padding:8px 12px;overflow:auto;max-height:32em}
.pellucid summary{cursor:pointer}.pellucid ul{margin:0;padding-left:1.4em;list-style:none}
.pellucid .soft{color:var(--soft)}.pellucid pre{margin:0;white-space:pre;background:none;color:inherit}
.pellucid table{border-collapse:collapse;font:inherit}.pellucid td,.pellucid th{padding:1px 8px;text-align:right;border:0;background:none;color:inherit}
</style>"""


def _box(body: str, name: str = "Pellucid") -> str:
    # It scrolls, so it can be reached by keyboard.
    return f'{_STYLE}<div class="pellucid" tabindex="0" role="group" aria-label="{escape(name, quote=True)}">{body}</div>'


def _sizes(model: Any, point: dict[str, Any]) -> str:
    names = {"prompts": "prompts", "length": "length", "context": "context"}
    shown = [str(axis["size"]) if isinstance(axis, dict) else names.get(axis, str(axis)) for axis in point["shape"]]
    return "[" + ", ".join(shown) + "]"


def tree(module: Any) -> str:
    """A module's tree: classes, hook points with shapes, parameters."""
    model = module._model
    known = model._tree

    def node(path: str, name: str, deep: int) -> str:
        children = [child for child in known.children.get(path, {}) if (f"{path}.{child}" if path else child) in known.modules
                    or (f"{path}.{child}" if path else child) in known.children and not _is_alias(known, path, child)]
        kind = known.modules.get(path, "")
        points = known.hooks.get(path, {})
        rows = "".join(
            f'<li>.{escape(hook)} <span class="soft">{escape(_sizes(model, point))}</span></li>' for hook, point in points.items()
        )
        rows += "".join(
            f'<li>.{escape(weight)} <span class="soft">parameter {known.parameters[_joined(path, weight)]}</span></li>'
            for weight in known.weights.get(path, {})
            if _joined(path, weight) in known.parameters
        )
        inner = "".join(f"<li>{node(_joined(path, child), child, deep + 1)}</li>" for child in children)
        label = f'{escape(name)} <span class="soft">{escape(kind)}</span>'
        opened = " open" if deep < 1 else ""
        return f"<details{opened}><summary>{label}</summary><ul>{rows}{inner}</ul></details>"

    name = module._path or model.name
    return _box(node(module._target, name, 0), name)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _is_alias(known: Any, path: str, name: str) -> bool:
    joined = _joined(path, name)
    return not any(other == joined or other.startswith(joined + ".") for other in known.modules)


def tree_text(module: Any) -> str:
    """A module's tree as text; modules in a row that are alike once."""
    known = module._model._tree
    lines: list[str] = []

    def node(path: str, name: str, depth: int) -> None:
        kind = known.modules.get(path, "")
        lines.append("  " * depth + (f"({name}): " if name else "") + (kind or "modules"))
        children = [child for child in known.children.get(path, {}) if not _is_alias(known, path, child)]
        numbers = [child for child in children if child.isdigit()]
        for child in children:
            if child.isdigit() and len(numbers) > 1:
                if child == numbers[0]:
                    node(_joined(path, child), f"{numbers[0]}-{numbers[-1]}", depth + 1)
                continue
            node(_joined(path, child), child, depth + 1)

    node(module._target, "", 0)
    return "\n".join(lines)


def tensor(value: Any) -> str:
    """A tensor: shape, number type, where its numbers lie, and the numbers of a small one as a table."""
    if value._steps is not None:
        return _box(f"a tensor for each of {len(value._steps)} steps" + "".join(tensor(step) for step in value._steps[:4]))
    if value._core is None:
        return _box(escape(repr(value)))
    import numpy

    array = value.numpy()
    head = f"<b>{list(value.shape)}</b> <span class='soft'>{value.dtype}</span>"
    if array.size and array.dtype != bool:
        finite = array[numpy.isfinite(array)] if array.dtype.kind == "f" else array
        if finite.size:
            head += (
                f" <span class='soft'>from {finite.min():.4g} to {finite.max():.4g}, mean {finite.mean():.4g}"
                + (f", {array.size - finite.size} not finite" if finite.size != array.size else "") + "</span>"
            )
    if array.ndim == 0 or array.size > 400 or array.ndim > 2:
        return _box(f"{head}<pre>{escape(repr(value))}</pre>")
    rows = array.reshape(1, -1) if array.ndim == 1 else array
    cells = "".join("<tr>" + "".join(f"<td>{_number(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return _box(f"{head}<table>{cells}</table>")


def results(found: Any) -> str:
    """Results: name, number type and shape of each, and the number of one that is one."""
    rows = ""
    for name, core in found._cores.items():
        number = f"{found[name].item():.6g}" if not core.shape and core.dtype != "bool" else str(found[name].item()) if not core.shape else ""
        rows += f"<tr><th>{escape(name)}</th><td>{core.dtype}</td><td>{list(core.shape)}</td><td>{escape(number)}</td></tr>"
    absent = "".join(f"<tr><th>{escape(name)}</th><td class='soft' colspan='3'>absent</td></tr>" for name in found.absent)
    head = "<tr class='soft'><th>name</th><th>type</th><th>shape</th><th>value</th></tr>"
    return _box(f"<table>{head}{rows}{absent}</table>" if rows or absent else "nothing is saved", "Results")


def _number(value: Any) -> str:
    return f"{value:.4g}" if value.dtype.kind == "f" else escape(str(value))


def plan(writing: Any) -> str:
    """A trace: its plan."""
    return _box(f"<pre>{escape(writing.explain())}</pre>")


def program(program: Any) -> str:
    """A program: its plan where the model is known, and its JSON."""
    json = f"<details><summary>the program</summary><pre>{escape(program.json())}</pre></details>"
    if program._model is None or program._model._core is None:
        return _box(json)
    return _box(f"<pre>{escape(program.explain())}</pre>{json}")
