"""numpy's products and linear algebra on values of a trace."""

from __future__ import annotations

from typing import Any

from . import _norms, _refusals
from . import _operations as ops
from ._numpy_functions import function
from ._torch_functions import tensordot
from ._torch_linalg import Solution
from ._writer import as_tensor


@function("dot")
def _dot(a: Any, b: Any) -> Any:
    a, b = as_tensor(a), as_tensor(b)
    if not a.ndim or not b.ndim:
        return ops.mul(a, b)
    if b.ndim <= 2:
        return ops.matmul(a, b)
    return tensordot(a, b, ([-1], [-2]))


@function("inner")
def _inner(a: Any, b: Any) -> Any:
    a, b = as_tensor(a), as_tensor(b)
    return ops.mul(a, b) if not a.ndim or not b.ndim else tensordot(a, b, ([-1], [-1]))


@function("vdot")
def _vdot(a: Any, b: Any) -> Any:
    return ops.sum(ops.mul(ops.reshape(a, (-1,)), ops.reshape(b, (-1,))))


@function("outer")
def _outer(a: Any, b: Any) -> Any:
    return ops.outer(ops.reshape(a, (-1,)), ops.reshape(b, (-1,)))


@function("tensordot")
def _tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    return tensordot(as_tensor(a), as_tensor(b), axes)


@function("einsum")
def _einsum(*operands: Any, optimize: Any = False) -> Any:
    if not operands or not isinstance(operands[0], str):
        raise _refusals.unknown("numpy.einsum without an equation")
    return ops.einsum(operands[0], list(operands[1:]))


@function("linalg.norm")
def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    x = as_tensor(x)
    if ord is None and axis is None and keepdims:
        axis = tuple(range(x.ndim))
        return ops.norm(x, 2, list(axis), True)
    return _norms.linalg_norm(x, ord, list(axis) if isinstance(axis, tuple) else axis, keepdims)


@function("linalg.svd")
def _svd(a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False) -> Any:
    return ops.svd(a, full_matrices) if compute_uv else ops.svd(a, False).S


@function("linalg.svdvals")
def _svdvals(x: Any) -> Any:
    return ops.svd(x, False).S


@function("linalg.qr")
def _qr(a: Any, mode: str = "reduced") -> Any:
    if mode not in ("reduced", "complete"):
        raise _refusals.option("numpy.linalg.qr", "mode", mode, "`reduced` and `complete` are there; `.R` of them is what `r` gives")
    return ops.qr(a, mode)


@function("linalg.eigh")
def _eigh(a: Any, UPLO: str = "L") -> Any:
    return ops.eigh(a if UPLO.upper() == "L" else ops.transpose(a, -2, -1))


@function("linalg.eigvalsh")
def _eigvalsh(a: Any, UPLO: str = "L") -> Any:
    return _eigh(a, UPLO).eigenvalues


@function("linalg.cholesky")
def _cholesky(a: Any, *, upper: bool = False) -> Any:
    lower = ops.cholesky(ops.transpose(a, -2, -1) if upper else a)
    return ops.transpose(lower, -2, -1) if upper else lower


@function("linalg.inv")
def _inv(a: Any) -> Any:
    return ops.inv(a)


@function("linalg.det")
def _det(a: Any) -> Any:
    return ops.det(a)


@function("linalg.slogdet")
def _slogdet(a: Any) -> Any:
    return ops.slogdet(a)


@function("linalg.pinv")
def _pinv(a: Any, rcond: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Any:
    given = rcond if rtol is None or type(rtol).__name__ == "_NoValueType" else rtol
    return ops.pinv(a, given)


@function("linalg.solve")
def _solve(a: Any, b: Any) -> Any:
    return ops.solve(a, b)


@function("linalg.lstsq")
def _lstsq(a: Any, b: Any, rcond: Any = None) -> Any:
    return Solution(ops.lstsq(a, b, rcond), "numpy.linalg.lstsq")


@function("linalg.multi_dot")
def _multi_dot(arrays: Any) -> Any:
    result = arrays[0]
    for each in arrays[1:]:
        result = ops.matmul(result, each)
    return result


@function("linalg.matrix_norm")
def _matrix_norm(x: Any, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    return _norms.matrix_norm(as_tensor(x), ord, (-2, -1), keepdims)
