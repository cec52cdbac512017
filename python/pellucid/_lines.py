"""The author's own lines: where nodes were written, and into which variable a result goes, which is what it is called."""

from __future__ import annotations

import ast
import itertools
import linecache
import os
import re
import sys
from types import FrameType
from typing import Any, NamedTuple

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
#: Libraries through which a call may come here: their lines are not the author's.
_THROUGH = ("torch", "numpy", "einops", "contextlib")
#: Of each file that calls came from, whether it is an author's.
_own: dict[str, bool] = {}
#: Where Python does not tell which part of a line is running (before 3.11): the line's first variable.
_ASSIGNED = re.compile(r"\s*(?:(?:with|for|if)\b.*?:\s+)?([A-Za-z_]\w*)\s*(?::[^=]+)?=(?!=)")

#: First line and column, last line and column.
Place = tuple[int, int, int, int]


class Site(NamedTuple):
    """A call that saves, and the variables that what it saves goes into, one after the other."""

    place: Any
    names: tuple[str, ...]


class Assignment(NamedTuple):
    """What goes into which variables."""

    target: ast.expr
    value: ast.expr


#: Of each file its lines, and the assignments that stand on each of them.
_files: dict[str, tuple[list[str], dict[int, list[Assignment]]]] = {}


def source() -> dict[str, Any]:
    """The author's own line: that of the first caller outside of this package."""
    return here(author(sys._getframe(2)))


def here(frame: FrameType) -> dict[str, Any]:
    """The line that a frame is at, as nodes hold it."""
    return {"file": frame.f_code.co_filename, "line": frame.f_lineno}


def author(frame: FrameType) -> FrameType:
    """The first caller outside of this package."""
    while True:
        file = frame.f_code.co_filename
        own = _own.get(file)
        if own is None:
            name = frame.f_globals.get("__name__", "").partition(".")[0]
            own = _own[file] = not file.startswith(_PACKAGE) and name not in _THROUGH
        back = frame.f_back
        if own or back is None:
            return frame
        frame = back


def site(frame: FrameType) -> Site:
    """Where a frame is, and what it assigns there."""
    file, place = frame.f_code.co_filename, _place(frame)
    if place is None:
        found = _ASSIGNED.match(linecache.getline(file, frame.f_lineno))
        return Site((file, frame.f_lineno), (found.group(1),) if found and found.group(1).isascii() else ())
    around = [each for each in _assignments(file).get(place[0], ()) if _within(place, each.value)]
    # The innermost is the last that begins before it.
    names = _names(*max(around, key=lambda each: _place_of(each.value)[:2]), place) if around else ()
    return Site((file, place), tuple(name for name in names if name.isascii()))


def _place(frame: FrameType) -> Place | None:
    """The part of the file that a frame is running; none: Python does not tell."""
    positions = getattr(frame.f_code, "co_positions", None)
    if positions is None:
        return None
    line, end_line, column, end_column = next(itertools.islice(positions(), frame.f_lasti // 2, None), (None,) * 4)
    if line is None or end_line is None or column is None or end_column is None:
        return None
    return line, column, end_line, end_column


def _assignments(file: str) -> dict[int, list[Assignment]]:
    lines = linecache.getlines(file)
    known = _files.get(file)
    if known is not None and known[0] is lines:
        return known[1]
    by_line: dict[int, list[Assignment]] = {}
    try:
        tree = ast.parse("".join(lines))
    except (SyntaxError, ValueError):
        tree = ast.Module([], [])
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            found = Assignment(node.targets[0], node.value)
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
            found = Assignment(node.target, node.value)
        else:
            continue
        for line in range(found.value.lineno, (found.value.end_lineno or found.value.lineno) + 1):
            by_line.setdefault(line, []).append(found)
    _files[file] = lines, by_line
    return by_line


def _place_of(node: ast.expr) -> Place:
    return node.lineno, node.col_offset, node.end_lineno or node.lineno, node.end_col_offset or node.col_offset


def _within(place: Place, node: ast.expr) -> bool:
    first = _place_of(node)
    return first[:2] <= place[:2] and place[2:] <= first[2:]


def _names(target: ast.expr, value: ast.expr, place: Place) -> tuple[str, ...]:
    if isinstance(target, ast.Name):
        return (target.id,)
    if not isinstance(target, (ast.Tuple, ast.List)):
        return ()
    if isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts):
        for each, part in zip(target.elts, value.elts):
            if _within(place, part):
                return _names(each, part, place)
    return tuple(each.id for each in target.elts if isinstance(each, ast.Name))
