"""Functions of torch and of `torch.nn.functional` on values of a trace: the closed list of them, with torch's signatures."""

from __future__ import annotations

import math
from typing import Any, Callable

from . import _functions, _refusals
from . import _operations as ops
from ._composed import scaled
from ._tensor import Tensor
from ._writer import as_tensor

#: Functions that are the method of the same name.
_METHODS = """
    abs absolute add addcdiv addcmul addmm addmv all amax amin aminmax any argmax argmin argsort baddbmm bitwise_and bitwise_not bitwise_or
    bitwise_xor bmm ceil chunk clamp clamp_max clamp_min clip clone cos count_nonzero cumprod cumsum det detach diagonal diff div divide
    dot eq erf exp expm1 fix flatten floor floor_divide fmax fmin gather ge ger greater greater_equal gt index_add index_copy index_fill index_put
    index_select inverse isfinite isinf isnan le less less_equal lerp log log1p log2 log_softmax logaddexp logdet logical_and logical_not
    logical_or logical_xor logit logsumexp lt masked_fill matmul matrix_exp max maximum mean min minimum mm moveaxis movedim msort mul multiply mv
    nanmean nansum narrow ne neg negative norm not_equal outer pinverse pow prod ravel reciprocal relu remainder repeat_interleave roll round
    rsqrt rsub scatter scatter_add select sigmoid sign sin slogdet softmax sort sqrt square squeeze std sub subtract sum svd swapaxes swapdims t
    take take_along_dim tanh topk trace transpose tril triu true_divide trunc unflatten unsqueeze var where
""".split()
#: Operators of torch's own tensors, with a value of a trace on the right.
_OPERATORS: dict[str, Callable[..., Any]] = {
    "__add__": ops.add, "__sub__": ops.sub, "__mul__": ops.mul, "__truediv__": ops.div, "__div__": ops.div, "__floordiv__": ops.floor_divide,
    "__mod__": ops.remainder, "__pow__": ops.pow, "__matmul__": ops.matmul, "__eq__": ops.eq, "__ne__": ops.ne, "__lt__": ops.lt,
    "__le__": ops.le, "__gt__": ops.gt, "__ge__": ops.ge,
}
INTO = {"__iadd__", "__isub__", "__imul__", "__itruediv__", "__idiv__", "__ifloordiv__", "__imod__", "__ipow__", "__iand__", "__ior__", "__ixor__"}

FUNCTIONS: dict[str, Callable[..., Any]] = {name: getattr(Tensor, name) for name in _METHODS}
_OF_METHODS = set(FUNCTIONS.values())


def here(function: Any, listed: list[Any]) -> list[Any]:
    """The arguments, with a tensor of this package where a method is called."""
    if listed and (function in _OF_METHODS or function is WHERE_OF_A_TENSOR) and not isinstance(listed[0], Tensor):
        return [as_tensor(listed[0]), *listed[1:]]
    return listed


def function(*names: str) -> Callable[[Any], Any]:
    """Lists a function under torch's names."""

    def wrap(made: Any) -> Any:
        for name in names:
            FUNCTIONS[name] = made
        return made

    return wrap


def _reversed(operation: Any) -> Any:
    return lambda self, other: operation(other, self)


for _name, _operation in _OPERATORS.items():
    FUNCTIONS[_name] = (lambda operation: lambda self, other: operation(self, other))(_operation)
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"):
    FUNCTIONS[f"__r{_name}__"] = _reversed(_OPERATORS[f"__{_name}__"])
for _name, _method in (("and", "__and__"), ("or", "__or__"), ("xor", "__xor__")):
    FUNCTIONS[f"__{_name}__"] = (lambda method: lambda self, other: getattr(as_tensor(self), method)(other))(_method)
    FUNCTIONS[f"__r{_name}__"] = (lambda method: lambda self, other: getattr(as_tensor(other), method)(self))(_method)
#: `tensor.where(condition, other)` has the name of `torch.where(condition, input, other)`, and another order.
WHERE_OF_A_TENSOR = Tensor.where
del FUNCTIONS["where"]
FUNCTIONS["__getitem__"] = lambda self, index: as_tensor(self)[index]
FUNCTIONS["special_expit"], FUNCTIONS["special_erf"] = FUNCTIONS["sigmoid"], FUNCTIONS["erf"]
FUNCTIONS["special_expm1"], FUNCTIONS["special_log1p"] = FUNCTIONS["expm1"], FUNCTIONS["log1p"]
FUNCTIONS["special_logit"], FUNCTIONS["special_logsumexp"] = FUNCTIONS["logit"], FUNCTIONS["logsumexp"]
FUNCTIONS["special_softmax"], FUNCTIONS["special_log_softmax"] = FUNCTIONS["softmax"], FUNCTIONS["log_softmax"]
for _name in ("square", "einsum"):
    FUNCTIONS[_name] = getattr(_functions, _name)


# Joining, and constructors beside a tensor


@function("cat", "concat", "concatenate")
def _cat(tensors: Any, dim: int = 0) -> Any:
    return ops.cat(tensors, dim)


@function("stack")
def _stack(tensors: Any, dim: int = 0) -> Any:
    return ops.stack(tensors, dim)


@function("where")
def _where(condition: Any, input: Any = None, other: Any = None) -> Any:
    if input is None or other is None:
        raise _refusals.unknown("torch.where of a condition alone")
    return ops.where(condition, input, other)


@function("split")
def _split(tensor: Any, split_size_or_sections: Any, dim: int = 0) -> Any:
    return as_tensor(tensor).split(split_size_or_sections, dim)


@function("unbind")
def _unbind(input: Any, dim: int = 0) -> Any:
    return as_tensor(input).unbind(dim)


@function("tensordot")
def _tensordot(a: Any, b: Any, dims: Any = 2) -> Any:
    return tensordot(as_tensor(a), as_tensor(b), dims)


def tensordot(a: Tensor, b: Tensor, dims: Any) -> Tensor:
    """The product over pairs of dimensions, or over the last so many of one and the first of the other."""
    if isinstance(dims, int):
        left, right = list(range(a.ndim - dims, a.ndim)), list(range(dims))
    else:
        left, right = ([each] if isinstance(each, int) else list(each) for each in dims)
    left, right = [each % a.ndim for each in left], [each % b.ndim for each in right]
    letters = "abcdefghijklmnopqrstuvwxyz"
    first, second = list(letters[: a.ndim]), list(letters[a.ndim : a.ndim + b.ndim])
    for one, other in zip(left, right):
        second[other] = first[one]
    kept = [each for place, each in enumerate(first) if place not in left] + [each for place, each in enumerate(second) if place not in right]
    return ops.einsum(f"{''.join(first)},{''.join(second)}->{''.join(kept)}", [a, b])


@function("permute")
def _permute(input: Any, dims: Any) -> Any:
    return as_tensor(input).permute(list(dims))


@function("reshape")
def _reshape(input: Any, shape: Any) -> Any:
    return as_tensor(input).reshape((shape,) if isinstance(shape, int) else tuple(shape))


@function("broadcast_to")
def _broadcast_to(input: Any, size: Any) -> Any:
    return as_tensor(input).expand(tuple(size))


@function("flip")
def _flip(input: Any, dims: Any) -> Any:
    return as_tensor(input).flip(dims)


@function("tile")
def _tile(input: Any, dims: Any) -> Any:
    return as_tensor(input).tile(tuple(dims))


@function("numel")
def _numel(input: Any) -> Any:
    return input.numel()


@function("is_floating_point")
def _is_floating_point(input: Any) -> Any:
    return input.dtype.is_floating_point


@function("std_mean")
def _std_mean(input: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = 1) -> Any:
    return input.std(dim, correction, keepdim, unbiased), ops.mean(input, None if isinstance(dim, bool) else dim, keepdim)


@function("var_mean")
def _var_mean(input: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = 1) -> Any:
    return input.var(dim, correction, keepdim, unbiased), ops.mean(input, None if isinstance(dim, bool) else dim, keepdim)


for _name in ("zeros_like", "ones_like", "randn_like", "rand_like"):
    FUNCTIONS[_name] = (lambda made: lambda input, dtype=None: made(input, dtype))(getattr(_functions, _name))
FUNCTIONS["full_like"] = lambda input, fill_value, dtype=None: _functions.full_like(input, fill_value, dtype)


# torch.nn.functional


@function("gelu")
def _gelu(input: Any, approximate: str = "none") -> Any:
    return ops.gelu(input, approximate)


FUNCTIONS["silu"] = lambda input: ops.silu(input)


@function("softplus")
def _softplus(input: Any, beta: float = 1, threshold: float = 20) -> Any:
    if beta == 1 and threshold == 20:
        return ops.softplus(input)
    raise _refusals.option("torch.nn.functional.softplus", "beta" if beta != 1 else "threshold", beta if beta != 1 else threshold)


@function("log_sigmoid")
def _logsigmoid(input: Any) -> Any:
    return ops.neg(ops.softplus(ops.neg(input)))


@function("leaky_relu")
def _leaky_relu(input: Any, negative_slope: float = 0.01) -> Any:
    return ops.where(ops.gt(input, 0), input, ops.mul(input, negative_slope))


@function("elu")
def _elu(input: Any, alpha: float = 1.0) -> Any:
    positive = ops.gt(input, 0)
    return ops.where(positive, input, scaled(ops.expm1(ops.where(positive, 0, input)), alpha))


@function("relu6")
def _relu6(input: Any) -> Any:
    return ops.clamp(input, 0, 6)


@function("hardtanh")
def _hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    if not as_tensor(input).dtype.is_floating_point:
        raise _refusals.option("torch.nn.functional.hardtanh", "input", "whole numbers", "`x.clamp(min, max)`")
    return ops.clamp(input, min_val, max_val)


@function("softmin")
def _softmin(input: Any, dim: Any = None, dtype: Any = None) -> Any:
    return ops.neg(input).softmax(dim, dtype)


@function("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")
def _dropout(input: Any, p: float = 0.5, training: bool = True, train: Any = None) -> Any:
    if p > 0 and (training if train is None else train):
        raise _refusals.option(
            "torch.nn.functional.dropout", "training", True,
            "a program is the same whenever it runs: `module.eval()` or `training=False`; random masks are `pl.rand(*x.shape) > p`",
        )
    return input


@function("linear")
def _linear(input: Any, weight: Any, bias: Any = None) -> Any:
    weight = as_tensor(weight)
    product = ops.matmul(input, ops.transpose(weight, -1, -2) if weight.ndim > 1 else weight)
    return product if bias is None else ops.add(product, bias)


@function("embedding")
def _embedding(
    input: Any, weight: Any, padding_idx: Any = None, max_norm: Any = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False
) -> Any:
    if max_norm is not None:
        raise _refusals.option("torch.nn.functional.embedding", "max_norm", max_norm)
    if scale_grad_by_freq:
        raise _refusals.option("torch.nn.functional.embedding", "scale_grad_by_freq", scale_grad_by_freq)
    return ops.getitem(as_tensor(weight), as_tensor(input))


@function("one_hot")
def _one_hot(tensor: Any, num_classes: int = -1) -> Any:
    if num_classes < 0:
        raise _refusals.option("torch.nn.functional.one_hot", "num_classes", num_classes, "say how many classes there are: of values one cannot tell before they are there")
    return ops.one_hot(tensor, num_classes)


@function("normalize")
def _normalize(input: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12) -> Any:
    return ops.div(input, ops.clamp(ops.norm(input, p, dim, True), eps, None))


@function("layer_norm")
def _layer_norm(input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn_enable: bool = True) -> Any:
    return ops.layer_norm(input, list(normalized_shape), weight, bias, eps)


@function("rms_norm")
def _rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: Any = None) -> Any:
    return ops.rms_norm(input, list(normalized_shape), weight, eps)


@function("cosine_similarity")
def _cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    return ops.cosine_similarity(x1, x2, dim, eps)


@function("constant_pad_nd")
def _constant_pad(input: Any, pad: Any, value: Any = 0) -> Any:
    return ops.pad(input, list(pad), value)


@function("pad")
def _pad(input: Any, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    if mode != "constant":
        raise _refusals.option("torch.nn.functional.pad", "mode", mode, "`constant` is there; others are `pl.cat` of slices and of their `flip`")
    return ops.pad(input, list(pad), 0 if value is None else value)


@function("cross_entropy")
def _cross_entropy(
    input: Any, target: Any, weight: Any = None, size_average: Any = None, ignore_index: int = -100, reduce: Any = None, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    _modern("cross_entropy", size_average, reduce)
    target = as_tensor(target)
    if target.dtype.is_floating_point:
        raise _refusals.option(
            "torch.nn.functional.cross_entropy", "target", "probabilities",
            "class numbers; of probabilities it is `-(target * input.log_softmax(1)).sum(1).mean()`",
        )
    return ops.cross_entropy(input, target, weight, ignore_index, reduction, label_smoothing)


@function("nll_loss")
def _nll_loss(
    input: Any, target: Any, weight: Any = None, size_average: Any = None, ignore_index: int = -100, reduce: Any = None, reduction: str = "mean"
) -> Any:
    _modern("nll_loss", size_average, reduce)
    return ops.nll_loss(input, target, weight, ignore_index, reduction)


@function("kl_div")
def _kl_div(input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean", log_target: bool = False) -> Any:
    _modern("kl_div", size_average, reduce)
    return ops.kl_div(input, target, reduction, log_target)


@function("mse_loss")
def _mse_loss(input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean", weight: Any = None) -> Any:
    _modern("mse_loss", size_average, reduce)
    if weight is not None:
        raise _refusals.option("torch.nn.functional.mse_loss", "weight", weight)
    return ops.mse_loss(input, target, reduction)


@function("l1_loss")
def _l1_loss(input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean", weight: Any = None) -> Any:
    _modern("l1_loss", size_average, reduce)
    if weight is not None:
        raise _refusals.option("torch.nn.functional.l1_loss", "weight", weight)
    apart = ops.abs(ops.sub(input, target))
    return apart if reduction == "none" else ops.sum(apart) if reduction == "sum" else ops.mean(apart)


@function("binary_cross_entropy_with_logits")
def _binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, size_average: Any = None, reduce: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Any:
    _modern("binary_cross_entropy_with_logits", size_average, reduce)
    return ops.binary_cross_entropy_with_logits(input, target, weight, reduction, pos_weight)


def _modern(name: str, size_average: Any, reduce: Any) -> None:
    for key, value in (("size_average", size_average), ("reduce", reduce)):
        if value is not None:
            raise _refusals.option(f"torch.nn.functional.{name}", key, value, "`reduction=` says it")


@function("scaled_dot_product_attention")
def _attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False, scale: Any = None, enable_gqa: bool = False
) -> Any:
    name = "torch.nn.functional.scaled_dot_product_attention"
    if dropout_p:
        raise _refusals.option(name, "dropout_p", dropout_p)
    if enable_gqa:
        raise _refusals.option(name, "enable_gqa", enable_gqa, "repeat the keys' and values' heads: `repeat_interleave`")
    query, key = as_tensor(query), as_tensor(key)
    scores = ops.mul(ops.matmul(query, ops.transpose(key, -2, -1)), 1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = ops.eq(ops.tril(ops.ones((query.shape[-2], key.shape[-2]))), 1)
    if attn_mask is not None:
        attn_mask = as_tensor(attn_mask)
        scores = ops.where(attn_mask, scores, -math.inf) if str(attn_mask.dtype) == "bool" else ops.add(scores, attn_mask)
    if attn_mask is None:
        return ops.matmul(ops.softmax(scores, -1), value)
    # A query that sees nothing takes nothing, as in torch.
    sees = ops.any(ops.ne(scores, -math.inf), -1, True)
    chances = ops.softmax(ops.where(sees, scores, 0.0), -1)
    return ops.matmul(ops.where(sees, chances, 0.0), value)


from . import _torch_linalg  # noqa: E402

_torch_linalg.listed(FUNCTIONS)
