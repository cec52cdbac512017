"""Masks that are known while a trace is written: what they choose has a shape, so they can be read by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._arrays import has_mask, is_array

if TYPE_CHECKING:
    from ._tensor import Tensor

_PLAIN = (int, slice, type(None), type(...))


def as_places(tensor: Tensor, index: Any) -> Any:
    """An index whose known masks are the places where they hold."""
    items = index if type(index) is tuple else (index,)
    if all(isinstance(item, _PLAIN) or _waits(item) for item in items):
        return index
    masks = {place: _mask(item) for place, item in enumerate(items) if not _waits(item) and is_array(item) and has_mask((item,))}
    if not masks:
        return index
    shape, taken = tensor.shape, 0
    for place, item in enumerate(items):
        taken += masks[place].ndim if place in masks else 0 if item is None or item is ... else 1
    dim, found = 0, []
    for place, item in enumerate(items):
        if place not in masks:
            found.append(item)
            dim += len(shape) - taken if item is ... else 0 if item is None else 1
            continue
        mask = masks[place]
        sizes = [size.__index__() for size in shape[dim : dim + mask.ndim]]
        if list(mask.shape) != sizes:
            raise IndexError(f"a mask of shape {list(mask.shape)} stands where the tensor has sizes {sizes}")
        found += mask.nonzero()
        dim += mask.ndim
    return tuple(found)


def _waits(item: Any) -> bool:
    """Whether it is a value of the trace."""
    return getattr(item, "_core", True) is None


def _mask(item: Any) -> Any:
    import numpy

    array = item.cpu().numpy() if hasattr(item, "cpu") else numpy.asarray(item)
    if array.ndim == 0:
        raise IndexError("an index is a number, a slice, `...`, `None`, a tensor or a mask, not one bool\n  hint: `x[None]` adds a dimension")
    return array
