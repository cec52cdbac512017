"""Functions of `torch.linalg` on values of a trace."""

from __future__ import annotations

from typing import Any, Callable

from . import _norms, _refusals
from . import _operations as ops
from ._tensor import Tensor
from ._writer import as_tensor


def _as(input: Any, dtype: Any) -> Any:
    return as_tensor(input) if dtype is None else ops.to(input, dtype)


class Solution:
    """What `lstsq` gives: `.solution`, or `[0]`."""

    def __init__(self, solution: Tensor, name: str):
        self.solution, self._name = solution, name

    def __getitem__(self, place: int) -> Tensor:
        if place == 0:
            return self.solution
        raise _refusals.unknown(f"{self._name}, what it gives beside the solution")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _refusals.unknown(f"{self._name}, its `{name}`")


def norm(A: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    return _norms.linalg_norm(_as(A, dtype), ord, dim, keepdim)


def vector_norm(x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    return _norms.vector_norm(_as(x, dtype), ord, dim, keepdim)


def matrix_norm(A: Any, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None) -> Any:
    return _norms.matrix_norm(_as(A, dtype), ord, dim, keepdim)


def svd(A: Any, full_matrices: bool = True, *, driver: Any = None) -> Any:
    return ops.svd(A, full_matrices)


def svdvals(A: Any, *, driver: Any = None) -> Any:
    return ops.svd(A, False).S


def eigh(A: Any, UPLO: str = "L") -> Any:
    return ops.eigh(_lower(A, UPLO))


def eigvalsh(A: Any, UPLO: str = "L") -> Any:
    return ops.eigh(_lower(A, UPLO)).eigenvalues


def _lower(A: Any, UPLO: str) -> Any:
    return A if UPLO.upper() == "L" else ops.transpose(A, -2, -1)


def qr(A: Any, mode: str = "reduced") -> Any:
    if mode == "r":
        raise _refusals.option("torch.linalg.qr", "mode", mode, "take `.R` of the whole")
    return ops.qr(A, mode)


def cholesky(A: Any, *, upper: bool = False) -> Any:
    lower = ops.cholesky(_lower(A, "U") if upper else A)
    return ops.transpose(lower, -2, -1) if upper else lower


def solve(A: Any, B: Any, *, left: bool = True) -> Any:
    if left:
        return ops.solve(A, B)
    turned = ops.solve(ops.transpose(A, -2, -1), ops.transpose(B, -2, -1))
    return ops.transpose(turned, -2, -1)


def lstsq(A: Any, B: Any, rcond: Any = None, *, driver: Any = None) -> Any:
    return Solution(ops.lstsq(A, B, rcond), "torch.linalg.lstsq")


def pinv(A: Any, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Any:
    if atol is not None:
        raise _refusals.option("torch.linalg.pinv", "atol", atol, "`rtol=`, a part of the largest singular value")
    return ops.pinv(A, rtol if rcond is None else rcond)


def multi_dot(tensors: Any) -> Any:
    result = tensors[0]
    for each in tensors[1:]:
        result = ops.matmul(result, each)
    return result


def vecdot(x: Any, y: Any, *, dim: int = -1) -> Any:
    return ops.sum(ops.mul(x, y), dim)


def diagonal(A: Any, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    return as_tensor(A).diagonal(offset, dim1, dim2)


def inv(A: Any) -> Any:
    return ops.inv(A)


def det(A: Any) -> Any:
    return ops.det(A)


def slogdet(A: Any) -> Any:
    return ops.slogdet(A)


def matrix_exp(A: Any) -> Any:
    return ops.matrix_exp(A)


def matmul(input: Any, other: Any) -> Any:
    return ops.matmul(input, other)


def listed(functions: dict[str, Callable[..., Any]]) -> None:
    """Lists them under torch's names."""
    for each in (
        norm, vector_norm, matrix_norm, svd, svdvals, eigh, eigvalsh, qr, cholesky, solve, lstsq, pinv, multi_dot, vecdot, diagonal, inv, det,
        slogdet, matrix_exp, matmul,
    ):
        functions[f"linalg_{each.__name__}"] = each
