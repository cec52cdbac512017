"""einops on tensors: what it needs of a library."""

from __future__ import annotations

import sys
from typing import Any

from . import _operations as ops
from ._tensor import Tensor

_REDUCTIONS = {"sum": ops.sum, "mean": ops.mean, "max": ops.amax, "min": ops.amin, "any": ops.any, "all": ops.all, "prod": ops.prod}


def known_to_einops() -> None:
    """Makes this package known to einops, once that is imported."""
    module = sys.modules.get("einops._backends")
    if module is None or hasattr(module.AbstractBackend, "_pellucid"):
        return

    class Backend(module.AbstractBackend):  # type: ignore[misc, name-defined]
        framework_name = "pellucid"

        def is_appropriate_type(self, tensor: Any) -> bool:
            return isinstance(tensor, Tensor)

        def from_numpy(self, x: Any) -> Tensor:
            return Tensor(x)

        def to_numpy(self, x: Tensor) -> Any:
            return x.numpy()

        def arange(self, start: int, stop: int) -> Tensor:
            return ops.arange(start, stop)

        def transpose(self, x: Tensor, axes: Any) -> Tensor:
            return x.permute(*axes)

        def reduce(self, x: Tensor, operation: str, axes: Any) -> Tensor:
            from ._numpy_ufuncs import reduced

            return reduced(_REDUCTIONS[operation], x, tuple(axes))

        def stack_on_zeroth_dimension(self, tensors: Any) -> Tensor:
            return ops.stack(tensors, 0)

        def add_axis(self, x: Tensor, new_position: int) -> Tensor:
            return x.unsqueeze(new_position)

        def add_axes(self, x: Tensor, n_axes: int, pos2len: dict[int, int]) -> Tensor:
            repeats = [-1] * n_axes
            for position, length in pos2len.items():
                x, repeats[position] = x.unsqueeze(position), length
            return x.expand(*repeats)

        def tile(self, x: Tensor, repeats: Any) -> Tensor:
            return ops.repeat(x, list(repeats))

        def concat(self, tensors: Any, axis: int) -> Tensor:
            return ops.cat(tensors, axis)

        def is_float_type(self, x: Tensor) -> bool:
            return x.dtype.is_floating_point

        def einsum(self, pattern: str, *x: Any) -> Tensor:
            return ops.einsum(pattern, x)

    module.AbstractBackend._pellucid = Backend
