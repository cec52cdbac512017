"""Norms, with the meaning that `torch.linalg` and `numpy.linalg` have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _operations as ops
from ._errors import NotComputedError

if TYPE_CHECKING:
    from ._tensor import Tensor


def vector_norm(input: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The norm of the elements along dimensions, or of all."""
    return ops.norm(input, ord, dim, keepdim)


def matrix_norm(input: Any, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False) -> Tensor:
    """The norm of matrices: `fro`, `nuc`, ±2 of singular values, ±1 of columns, ±inf of rows."""
    count = input.ndim
    rows, columns = (each % count for each in dim)
    if ord == "fro":
        return ops.norm(input, 2, (rows, columns), keepdim)
    if ord in (1, -1, float("inf"), float("-inf")):
        first, second = (rows, columns) if ord in (1, -1) else (columns, rows)
        sums = ops.sum(ops.abs(input), first, True)
        result = (ops.amax if ord > 0 else ops.amin)(sums, second, True)
    elif ord in ("nuc", 2, -2):
        others = [each for each in range(count) if each not in (rows, columns)]
        values = ops.svd(ops.permute(input, [*others, rows, columns]), False).S
        one = ops.sum(values, -1) if ord == "nuc" else ops.amax(values, -1) if ord == 2 else ops.amin(values, -1)
        if not keepdim:
            return one
        for each in sorted((rows, columns)):
            one = ops.unsqueeze(one, each)
        return one
    else:
        raise NotComputedError(f"there is no matrix norm of order {ord!r}\n  hint: fro, nuc, 1, -1, 2, -2, inf and -inf")
    return result if keepdim else ops.squeeze(result, (rows, columns))


def linalg_norm(input: Any, ord: Any = None, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Of all elements where nothing is said; with an order, of a vector or a matrix, as `dim` or the shape says."""
    if isinstance(dim, (list, tuple)) and len(dim) == 1:
        dim = dim[0]
    if isinstance(dim, (list, tuple)):
        return matrix_norm(input, "fro" if ord is None else ord, dim, keepdim)
    if ord is None or dim is not None:
        return vector_norm(input, 2 if ord is None else _of_vectors(ord), dim, keepdim)
    count = input.ndim
    if count == 2:
        return matrix_norm(input, ord, (0, 1), keepdim)
    if count != 1:
        raise NotComputedError(f"a norm of order {ord!r} is of a vector or a matrix, and this has {count} dimensions\n  hint: say along which, `dim=`")
    return vector_norm(input, _of_vectors(ord), None, keepdim)


def _of_vectors(ord: Any) -> Any:
    if isinstance(ord, str):
        raise NotComputedError(f"a norm of order {ord!r} is of matrices\n  hint: give two dimensions")
    return ord
