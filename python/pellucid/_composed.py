"""Methods of tensors that are made of the table's operations, as torch has them."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from . import _operations as ops
from . import _writer
from ._dtype import bool_
from ._errors import NotComputedError
from ._reductions import Reductions
from ._writer import as_tensor, is_array

if TYPE_CHECKING:
    from ._tensor import Tensor


class USV(NamedTuple):
    U: Tensor
    S: Tensor
    V: Tensor

    def save(self) -> USV:
        """Saves all of them."""
        for value in self:
            value.save()
        return self


def _flat(sizes: Any) -> Any:
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (list, tuple)) else tuple(sizes)


def square(input: Tensor) -> Tensor:
    """`input ** 2`."""
    return ops.pow(input, 2)


def lerp(input: Tensor, end: Any, weight: Any) -> Tensor:
    """`input + weight * (end - input)`, from the nearer end, as torch has it."""
    apart = ops.sub(end, input)
    if isinstance(weight, (int, float)):
        if abs(weight) < 0.5:
            return ops.add(input, ops.mul(apart, weight))
        return ops.sub(end, ops.mul(apart, 1 - weight))
    near = ops.lt(ops.abs(as_tensor(weight)), 0.5)
    return ops.where(near, ops.add(input, ops.mul(apart, weight)), ops.sub(end, ops.mul(apart, ops.sub(1, weight))))


def scaled(value: Any, factor: Any) -> Any:
    """`value * factor`, and nothing to do for 1."""
    if isinstance(factor, (int, float)) and factor == 1:
        return value
    if isinstance(value, (int, float)) and isinstance(factor, (int, float)):
        return value * factor
    return ops.mul(value, factor)


def along(dim: int, item: Any) -> Any:
    """An index of one dimension."""
    if dim >= 0:
        return (*[slice(None)] * dim, item)
    return (..., item, *[slice(None)] * (-dim - 1))


class Composed(Reductions):
    """Methods that tensors have beside those of the table."""

    __slots__ = ()

    # Arithmetic

    def add(self: Any, other: Any, *, alpha: float = 1) -> Tensor:
        """`input + alpha * other`."""
        return ops.add(self, scaled(other, alpha))

    def sub(self: Any, other: Any, *, alpha: float = 1) -> Tensor:
        """`input - alpha * other`."""
        return ops.sub(self, scaled(other, alpha))

    def rsub(self: Any, other: Any, *, alpha: float = 1) -> Tensor:
        """`other - alpha * input`."""
        return ops.sub(other, scaled(self, alpha))

    def div(self: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
        """`input / other`; with a `rounding_mode`, `floor` or `trunc`, rounded down or toward 0."""
        if rounding_mode is None:
            return ops.div(self, other)
        if rounding_mode == "floor":
            return ops.floor_divide(self, other)
        if rounding_mode != "trunc":
            raise ValueError(f"`rounding_mode` is `floor`, `trunc` or None, not {rounding_mode!r}")
        exact = ops.div(self, other)
        if self.dtype.is_floating_point or getattr(other, "dtype", None) is None and isinstance(other, float):
            return ops.trunc(exact)
        # Of whole numbers: from the one that is rounded down, so that no float rounds.
        down = ops.floor_divide(self, other)
        left = ops.sub(self, ops.mul(down, other))
        negative = ops.logical_and(ops.lt(down, 0), ops.ne(left, 0))
        return ops.where(negative, ops.add(down, 1), down)

    def round(self: Any, *, decimals: int = 0) -> Tensor:
        """Rounded to the nearest, halves to even; to so many decimals."""
        if decimals == 0:
            return ops.round(self)
        factor = 10.0 ** builtins.abs(decimals)
        if decimals < 0:
            return ops.mul(ops.round(ops.div(self, factor)), factor)
        return ops.div(ops.round(ops.mul(self, factor)), factor)

    def clamp(self: Any, min: Any = None, max: Any = None) -> Tensor:
        """Kept between two bounds, numbers or tensors."""
        if min is None and max is None:
            raise ValueError("`clamp` needs a bound\n  hint: `x.clamp(0, 1)`, or one of `min=` and `max=`")
        if not _is_tensor(min) and not _is_tensor(max):
            return ops.clamp(self, min, max)
        low = self if min is None else ops.maximum(self, min) if _is_tensor(min) else ops.clamp(self, min, None)
        return low if max is None else ops.minimum(low, max) if _is_tensor(max) else ops.clamp(low, None, max)

    clip = clamp

    def clamp_min(self: Any, min: Any) -> Tensor:
        """Not below a bound."""
        return self.clamp(min=min)

    def clamp_max(self: Any, max: Any) -> Tensor:
        """Not above a bound."""
        return self.clamp(max=max)

    def lerp(self: Any, end: Any, weight: Any) -> Tensor:
        """`input + weight * (end - input)`."""
        return lerp(self, end, weight)

    def square(self: Any) -> Tensor:
        """`input ** 2`."""
        return square(self)

    def logit(self: Any, eps: float | None = None) -> Tensor:
        """`log(input / (1 - input))`; with `eps` of what is kept between that and 1 - eps."""
        # Unlike `clamp` it has a slope at the bounds.
        kept = self if eps is None else ops.where(ops.lt(self, eps), eps, ops.where(ops.gt(self, 1 - eps), 1 - eps, self))
        return ops.log(ops.div(kept, ops.sub(1, kept)))

    def addcmul(self: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Tensor:
        """`input + value * tensor1 * tensor2`."""
        return ops.add(self, scaled(ops.mul(tensor1, tensor2), value))

    def addcdiv(self: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Tensor:
        """`input + value * tensor1 / tensor2`."""
        return ops.add(self, scaled(ops.div(tensor1, tensor2), value))

    def addmm(self: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Tensor:
        """`beta * input + alpha * (mat1 @ mat2)`."""
        product = scaled(ops.matmul(mat1, mat2), alpha)
        return product if beta == 0 else ops.add(scaled(self, beta), product)

    def logaddexp(self: Any, other: Any) -> Tensor:
        """`log(exp(input) + exp(other))`."""
        top = ops.maximum(self, other)
        apart = ops.sub(top, ops.minimum(self, other))
        # Equal infinities are no way apart, and have no difference.
        return ops.where(ops.isinf(top), top, ops.add(top, ops.log1p(ops.exp(ops.mul(apart, -1.0)))))

    def fmax(self: Any, other: Any) -> Tensor:
        """The larger of two; what is a number wins."""
        return ops.where(ops.isnan(self), other, ops.where(ops.ne(other, other), self, ops.maximum(self, other)))

    def fmin(self: Any, other: Any) -> Tensor:
        """The smaller of two; what is a number wins."""
        return ops.where(ops.isnan(self), other, ops.where(ops.ne(other, other), self, ops.minimum(self, other)))

    # Choosing and places

    def where(self: Any, condition: Any, other: Any) -> Tensor:
        """It where the condition holds, else `other`."""
        return ops.where(condition, self, other)

    def scatter(self: Any, dim: int, index: Any, src: Any = None, value: Any = None, *, reduce: str | None = None) -> Tensor:
        """Writes along a dimension, place by place; later wins. `reduce="add"` adds."""
        taken = value if src is None else src
        if reduce is None:
            return ops.scatter(self, dim, index, taken)
        if reduce != "add":
            raise NotComputedError(f"`scatter` with `reduce={reduce!r}` is not there\n  hint: `add` is")
        if not _is_tensor(taken):
            taken = ops.full(index.shape, taken, self.dtype)
        return ops.scatter_add(self, dim, index, taken)

    def gather(self: Any, dim: int, index: Any, *, sparse_grad: builtins.bool = False) -> Tensor:
        """Picks along a dimension, place by place."""
        return ops.gather(self, dim, index)

    def take_along_dim(self: Any, indices: Any, dim: int | None = None) -> Tensor:
        """Picks along a dimension, with broadcasting; without one, of all elements in a row."""
        if dim is None:
            return ops.take_along_dim(ops.reshape(self, (-1,)), ops.reshape(indices, (-1,)), 0)
        return ops.take_along_dim(self, indices, dim)

    def take(self: Any, index: Any) -> Tensor:
        """Picks of all elements in a row."""
        return ops.getitem(ops.reshape(self, (-1,)), index)

    def index_add(self: Any, dim: int, index: Any, source: Any, *, alpha: float = 1) -> Tensor:
        """Adds slices along a dimension."""
        return ops.index_put(self, along(dim, index), scaled(source, alpha), True)

    def index_fill(self: Any, dim: int, index: Any, value: Any) -> Tensor:
        """One number at places along a dimension."""
        return ops.index_put(self, along(dim, index), value)

    def index_copy(self: Any, dim: int, index: Any, source: Any) -> Tensor:
        """Slices written at places along a dimension."""
        return ops.index_put(self, along(dim, index), source)

    def index_put(self: Any, indices: Any, values: Any, accumulate: builtins.bool = False) -> Tensor:
        """It with values written, or added, at an index: a tuple of tensors, or as between the brackets of `x[...]`."""
        return ops.index_put(self, tuple(indices) if isinstance(indices, list) else indices, values, accumulate)

    def masked_select(self: Any, mask: Any) -> Any:
        """Refused: its shape would depend on values."""
        raise NotComputedError(
            "the shape of `masked_select` would depend on values\n  hint: `pl.where(mask, x, 0)`, or `topk` and `gather`"
        )

    def nonzero(self: Any, *, as_tuple: builtins.bool = False) -> Any:
        """Refused: its shape would depend on values."""
        raise NotComputedError(
            "the shape of `nonzero` would depend on values\n  hint: `pl.where(mask, x, 0)`, or `topk` and `gather`"
        )

    def copy_(self: Any, src: Any, non_blocking: builtins.bool = False) -> Tensor:
        """Takes another's values, in place."""
        return self._write(ops.index_put(self, ..., src))

    def fill_(self: Any, value: Any) -> Tensor:
        """One number everywhere, in place."""
        return self._write(ops.index_put(self, ..., value))

    def zero_(self: Any) -> Tensor:
        """Zeros, in place."""
        return self._write(ops.index_put(self, ..., 0))

    # Forms

    def flip(self: Any, *dims: Any) -> Tensor:
        """Reversed along dimensions."""
        return ops.flip(self, list(_flat(dims)))

    def roll(self: Any, shifts: Any, dims: Any = None) -> Tensor:
        """Shifted round along dimensions; without them, all elements in a row."""
        if dims is None or isinstance(dims, (list, tuple)) and not dims:
            return ops.reshape(ops.roll(ops.reshape(self, (-1,)), shifts, 0), self.shape)
        return ops.roll(self, shifts, dims)

    def tile(self: Any, *dims: Any) -> Tensor:
        """Repeated, from the last dimension on."""
        counts = list(_flat(dims))
        return ops.repeat(self, [1] * (self.ndim - len(counts)) + counts)

    def repeat_interleave(self: Any, repeats: int, dim: int | None = None) -> Tensor:
        """Each element so many times in a row."""
        if _is_tensor(repeats):
            raise NotComputedError("`repeat_interleave` by a tensor would have a shape that depends on values\n  hint: a number, or `x[:, places]`")
        flat = ops.reshape(self, (-1,)) if dim is None else self
        place = 0 if dim is None else dim % self.ndim
        wide = ops.repeat(ops.unsqueeze(flat, place + 1), [1] * (place + 1) + [repeats] + [1] * (flat.ndim - place - 1))
        return ops.flatten(wide, place, place + 1)

    def trace(self: Any) -> Tensor:
        """The sum of the diagonal."""
        return ops.sum(ops.diagonal(self))

    def new_zeros(self: Any, *size: Any, dtype: Any = None, device: Any = None) -> Tensor:
        """Zeros, of its number type."""
        return ops.zeros(_flat(size), dtype or self.dtype)

    def new_ones(self: Any, *size: Any, dtype: Any = None, device: Any = None) -> Tensor:
        """Ones, of its number type."""
        return ops.ones(_flat(size), dtype or self.dtype)

    def new_full(self: Any, size: Any, fill_value: float, dtype: Any = None, device: Any = None) -> Tensor:
        """One number everywhere, of its number type."""
        return ops.full(size, fill_value, dtype or self.dtype)

    def __eq__(self: Any, other: Any) -> Any:
        return False if other is None else ops.eq(self, other)

    def __ne__(self: Any, other: Any) -> Any:
        return True if other is None else ops.ne(self, other)

    def __hash__(self) -> builtins.int:
        return id(self)

    # Linear algebra, where `torch.Tensor`'s methods differ from `torch.linalg`'s functions

    def svd(self: Any, some: builtins.bool = True, compute_uv: builtins.bool = True) -> USV:
        """`U`, `S` and `V` of `U @ diag(S) @ V.mT`, reduced unless `some` is false, as `torch.svd`; `pl.svd` is `torch.linalg.svd`."""
        if not compute_uv:
            raise NotComputedError("`svd` without its vectors is not there\n  hint: take `.S` of the whole")
        u, s, vh = ops.svd(self, not some)
        return USV(u, s, ops.transpose(vh, -2, -1))

    def pinverse(self: Any, rcond: float = 1e-15) -> Tensor:
        """The pseudo-inverse; singular values up to `rcond` times the largest count as 0."""
        return ops.pinv(self, rcond)

    def logdet(self: Any) -> Tensor:
        """The logarithm of the determinant."""
        sign, magnitude = ops.slogdet(self)
        return ops.where(ops.lt(sign, 0), float("nan"), magnitude)

    # Bits of bools

    def __and__(self: Any, other: Any) -> Tensor:
        return _logical(ops.logical_and, self, other)

    def __or__(self: Any, other: Any) -> Tensor:
        return _logical(ops.logical_or, self, other)

    def __xor__(self: Any, other: Any) -> Tensor:
        return _logical(ops.logical_xor, self, other)

    def __invert__(self: Any) -> Tensor:
        if self.dtype != bool_:
            raise TypeError("`~` is for bools here; there are no operations on bits\n  hint: `x == 0`, or `pl.logical_not(x)`")
        return ops.logical_not(self)

    def __iand__(self: Any, other: Any) -> Tensor:
        return self._write(self & other)

    def __ior__(self: Any, other: Any) -> Tensor:
        return self._write(self | other)

    def __ixor__(self: Any, other: Any) -> Tensor:
        return self._write(self ^ other)


def _is_tensor(value: Any) -> builtins.bool:
    return type(value) is _writer._tensor or is_array(value)


def _logical(operation: Any, input: Tensor, other: Any) -> Tensor:
    other = other if isinstance(other, (builtins.bool, int)) else as_tensor(other)
    if input.dtype != bool_ or not isinstance(other, builtins.bool) and getattr(other, "dtype", None) != bool_:
        raise TypeError(
            "`&`, `|` and `^` are for bools here; there are no operations on bits\n  hint: compare first, `(a > 0) & (b > 0)`"
        )
    return operation(input, other)
