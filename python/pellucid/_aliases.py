"""Other names of methods, and the forms of methods that change the tensor in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, ClassVar

from . import _operations as ops
from ._composed import Composed

if TYPE_CHECKING:
    from ._tensor import Tensor


def _in_place(name: str) -> Callable[..., Tensor]:
    """The form of a method that changes the tensor."""

    def method(self: Any, *arguments: Any, **options: Any) -> Tensor:
        return self._write(getattr(self, name)(*arguments, **options))

    method.__name__ = method.__qualname__ = f"{name}_"
    method.__doc__ = f"`{name}`, in place."
    return method


class Aliases(Composed):
    """Methods under their other names, and in place."""

    __slots__ = ()

    # Other names

    divide: ClassVar[Callable[..., Tensor]] = Composed.div
    true_divide: ClassVar[Callable[..., Tensor]] = Composed.div
    addmv: ClassVar[Callable[..., Tensor]] = Composed.addmm
    baddbmm: ClassVar[Callable[..., Tensor]] = Composed.addmm
    __rand__: ClassVar[Callable[..., Tensor]] = Composed.__and__
    __ror__: ClassVar[Callable[..., Tensor]] = Composed.__or__
    __rxor__: ClassVar[Callable[..., Tensor]] = Composed.__xor__
    bitwise_and: ClassVar[Callable[..., Tensor]] = Composed.__and__
    bitwise_or: ClassVar[Callable[..., Tensor]] = Composed.__or__
    bitwise_xor: ClassVar[Callable[..., Tensor]] = Composed.__xor__
    bitwise_not: ClassVar[Callable[..., Tensor]] = Composed.__invert__
    mm: ClassVar[Callable[..., Tensor]] = ops.matmul
    bmm: ClassVar[Callable[..., Tensor]] = ops.matmul
    mv: ClassVar[Callable[..., Tensor]] = ops.matmul
    dot: ClassVar[Callable[..., Tensor]] = ops.matmul
    multiply: ClassVar[Callable[..., Tensor]] = ops.mul
    subtract: ClassVar[Callable[..., Tensor]] = Composed.sub
    negative: ClassVar[Callable[..., Tensor]] = ops.neg
    absolute: ClassVar[Callable[..., Tensor]] = ops.abs
    greater: ClassVar[Callable[..., Tensor]] = ops.gt
    less: ClassVar[Callable[..., Tensor]] = ops.lt
    greater_equal: ClassVar[Callable[..., Tensor]] = ops.ge
    less_equal: ClassVar[Callable[..., Tensor]] = ops.le
    not_equal: ClassVar[Callable[..., Tensor]] = ops.ne
    ger: ClassVar[Callable[..., Tensor]] = ops.outer
    inverse: ClassVar[Callable[..., Tensor]] = ops.inv
    fix: ClassVar[Callable[..., Tensor]] = ops.trunc

    # In place

    add_: ClassVar[Callable[..., Tensor]] = _in_place("add")
    sub_: ClassVar[Callable[..., Tensor]] = _in_place("sub")
    subtract_: ClassVar[Callable[..., Tensor]] = _in_place("sub")
    div_: ClassVar[Callable[..., Tensor]] = _in_place("div")
    divide_: ClassVar[Callable[..., Tensor]] = _in_place("div")
    true_divide_: ClassVar[Callable[..., Tensor]] = _in_place("div")
    multiply_: ClassVar[Callable[..., Tensor]] = _in_place("mul")
    round_: ClassVar[Callable[..., Tensor]] = _in_place("round")
    clamp_: ClassVar[Callable[..., Tensor]] = _in_place("clamp")
    clip_: ClassVar[Callable[..., Tensor]] = _in_place("clamp")
    fix_: ClassVar[Callable[..., Tensor]] = _in_place("trunc")
    clamp_min_: ClassVar[Callable[..., Tensor]] = _in_place("clamp_min")
    clamp_max_: ClassVar[Callable[..., Tensor]] = _in_place("clamp_max")
    lerp_: ClassVar[Callable[..., Tensor]] = _in_place("lerp")
    square_: ClassVar[Callable[..., Tensor]] = _in_place("square")
    negative_: ClassVar[Callable[..., Tensor]] = _in_place("neg")
    absolute_: ClassVar[Callable[..., Tensor]] = _in_place("abs")
    sign_: ClassVar[Callable[..., Tensor]] = _in_place("sign")
    logit_: ClassVar[Callable[..., Tensor]] = _in_place("logit")
    addcmul_: ClassVar[Callable[..., Tensor]] = _in_place("addcmul")
    addcdiv_: ClassVar[Callable[..., Tensor]] = _in_place("addcdiv")
    addmm_: ClassVar[Callable[..., Tensor]] = _in_place("addmm")
    addmv_: ClassVar[Callable[..., Tensor]] = _in_place("addmm")
    baddbmm_: ClassVar[Callable[..., Tensor]] = _in_place("addmm")
    scatter_: ClassVar[Callable[..., Tensor]] = _in_place("scatter")
    index_add_: ClassVar[Callable[..., Tensor]] = _in_place("index_add")
    index_fill_: ClassVar[Callable[..., Tensor]] = _in_place("index_fill")
    index_copy_: ClassVar[Callable[..., Tensor]] = _in_place("index_copy")
    index_put_: ClassVar[Callable[..., Tensor]] = _in_place("index_put")
    cumsum_: ClassVar[Callable[..., Tensor]] = _in_place("cumsum")
    cumprod_: ClassVar[Callable[..., Tensor]] = _in_place("cumprod")
