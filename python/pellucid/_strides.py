"""Where a view's elements stand: which views torch can take without a copy, so that what is written into one reaches its base or does not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ._errors import ProgramError
from ._writer import Size

if TYPE_CHECKING:
    from ._tensor import Tensor

#: Views that keep the order of elements, and leave none out.
_IN_ORDER = frozenset(("reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "detach"))

#: Sizes, and how far apart in memory neighbours of each dimension are.
Layout = tuple["list[int]", "list[int]"]


def is_contiguous(tensor: Tensor) -> bool:
    """Whether its elements stand in memory one after the other: `contiguous` copies what is not so."""
    layout = _layout(tensor)
    if layout is None:
        return True
    expected = 1
    for size, stride in zip(reversed(layout[0]), reversed(layout[1])):
        if size != 1 and math.prod(layout[0]):
            if stride != expected:
                return False
            expected *= size
    return True


def shares(tensor: Tensor, shape: Any) -> bool:
    """Whether a reshape to these sizes, one of which may be -1, is a view and no copy."""
    layout = _layout(tensor)
    if layout is None:
        return True
    target = _target(layout[0], "reshape", {"shape": shape})
    return target is None or reshaped(layout, target) is not None


def flattens(tensor: Tensor, start_dim: int, end_dim: int) -> bool:
    """Whether such a `flatten` is a view and no copy."""
    layout = _layout(tensor)
    if layout is None:
        return True
    target = _target(layout[0], "flatten", {"start_dim": start_dim, "end_dim": end_dim})
    return target is None or reshaped(layout, target) is not None


def _layout(tensor: Tensor) -> Layout | None:
    """Sizes and strides of a view; none: its elements are in order, or it is not known."""
    chain = []
    root: Any = tensor
    while root._base is not None:
        chain.append(root._view)
        root = root._base
    if all(op in _IN_ORDER for op, _ in chain):
        return None
    try:
        shape = list(root.shape) if root._ref or root._core is not None else list(root._alias().shape)
    except ProgramError:
        return None
    layout: Layout | None = None
    if all(type(size) is int for size in shape):
        layout = (shape, _in_order(shape))
        for op, fields in reversed(chain):
            layout = None if layout is None or fields is None else _through(layout, op, fields)
    return layout


def _in_order(shape: list[int]) -> list[int]:
    strides, apart = [], 1
    for size in reversed(shape):
        strides.append(apart)
        apart *= max(size, 1)
    return strides[::-1]


def _whole(shape: list[Any], count: int) -> list[int]:
    known = math.prod(size for size in shape if size != -1)
    return [count // known if size == -1 and known else size for size in shape]


def _through(layout: Layout, op: str, fields: dict[str, Any]) -> Layout | None:
    """The layout after a view."""
    shape, strides = list(layout[0]), list(layout[1])
    dims = len(shape)
    if op == "detach" or dims == 0 and op in ("transpose", "permute", "movedim", "squeeze"):
        return layout
    if op == "getitem":
        return _indexed(layout, fields["index"])
    if op == "transpose":
        order = list(range(dims))
        a, b = fields["dim0"] % dims, fields["dim1"] % dims
        order[a], order[b] = order[b], order[a]
    elif op == "permute":
        order = [dim % dims for dim in fields["dims"]]
    elif op == "movedim":
        source, target = ([dim % dims for dim in _listed(fields[key])] for key in ("source_", "destination"))
        order = [dim for dim in range(dims) if dim not in source]
        for place, dim in sorted(zip(target, source)):
            order.insert(place, dim)
    elif op == "squeeze":
        gone = [dim % dims for dim in _listed(fields["dim"])] if "dim" in fields else list(range(dims))
        order = [dim for dim in range(dims) if dim not in gone or shape[dim] != 1]
    elif op == "unsqueeze":
        place = fields["dim"] % (dims + 1)
        apart = shape[place] * strides[place] if place < dims else 1
        return [*shape[:place], 1, *shape[place:]], [*strides[:place], apart, *strides[place:]]
    elif op == "expand":
        size = fields["size"]
        if not _known(size):
            return None
        new = len(size) - dims
        sizes = [shape[k - new] if each == -1 else each for k, each in enumerate(size)]
        return sizes, [0] * new + [0 if shape[k] == 1 != sizes[new + k] else strides[k] for k in range(dims)]
    elif op == "diagonal":
        offset, a, b = fields["offset"], fields["dim1"] % dims, fields["dim2"] % dims
        count = max(0, min(shape[a] + min(offset, 0), shape[b] - max(offset, 0)))
        rest = [dim for dim in range(dims) if dim not in (a, b)]
        return [*(shape[dim] for dim in rest), count], [*(strides[dim] for dim in rest), strides[a] + strides[b]]
    elif op in ("reshape", "flatten", "unflatten"):
        target = _target(shape, op, fields)
        return None if target is None else reshaped(layout, target)
    else:
        return None
    return [shape[dim] for dim in order], [strides[dim] for dim in order]


def _known(sizes: Any) -> bool:
    return not any(isinstance(size, (dict, Size)) for size in sizes)


def _listed(dims: Any) -> list[int]:
    return [dims] if isinstance(dims, int) else list(dims)


def _target(shape: list[int], op: str, fields: dict[str, Any]) -> list[int] | None:
    """The sizes that a reshape, flatten or unflatten gives; none: they are not known before the run."""
    if not _known(fields.get("shape", fields.get("sizes", ()))):
        return None
    dims = max(len(shape), 1)
    if op == "reshape":
        return _whole(list(fields["shape"]), math.prod(shape))
    if op == "flatten":
        start, end = fields["start_dim"] % dims, fields["end_dim"] % dims
        return [*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]]
    dim = fields["dim"] % dims
    return [*shape[:dim], *_whole(list(fields["sizes"]), shape[dim]), *shape[dim + 1 :]]


def _indexed(layout: Layout, items: list[Any]) -> Layout:
    shape, strides = layout
    named = sum(item is not None and item != "..." for item in items)
    new_shape: list[int] = []
    new_strides: list[int] = []
    dim = 0
    for item in [*items, *(["..."] if "..." not in items else [])]:
        if item is None:
            new_shape.append(1)
            new_strides.append(0)
        elif item == "...":
            for _ in range(len(shape) - named):
                new_shape.append(shape[dim])
                new_strides.append(strides[dim])
                dim += 1
        elif isinstance(item, str):
            parts = [int(part) if part else None for part in item.split(":")]
            start, stop, step = slice(*parts).indices(shape[dim])
            new_shape.append(len(range(start, stop, step)))
            new_strides.append(strides[dim] * step)
            dim += 1
        else:
            dim += 1
    return new_shape, new_strides


def reshaped(layout: Layout, sizes: list[int]) -> Layout | None:
    """The layout of a reshape that is a view; none: torch would copy."""
    shape, strides = layout
    if math.prod(shape) == 0 or not shape:
        return sizes, _in_order(sizes)
    new = [0] * len(sizes)
    place, apart = len(sizes) - 1, strides[-1]
    old_count = new_count = 1
    for dim in range(len(shape) - 1, -1, -1):
        old_count *= shape[dim]
        # A run of dimensions ends where the next one is not just as far apart as this run is long.
        if dim == 0 or shape[dim - 1] != 1 and strides[dim - 1] != old_count * apart:
            while place >= 0 and (new_count < old_count or sizes[place] == 1):
                new[place] = new_count * apart
                new_count *= sizes[place]
                place -= 1
            if new_count != old_count:
                return None
            if dim > 0:
                apart = strides[dim - 1]
                old_count = new_count = 1
    return (sizes, new) if place == -1 else None
