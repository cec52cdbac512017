"""Cases of torch's functions and of methods with torch's names: each one text for tensors of torch and for values of a trace."""

from __future__ import annotations

import random

import pellucid as pl
import pytest
import torch
import torch.nn.functional as F

inf = float("inf")


class Choices:
    """What a case may take: a dimension, dimensions, a flag, a number."""

    def __init__(self, seed, x):
        n = max(x.ndim, 1)
        of = random.Random(seed)
        self.dim = of.randint(-n, n - 1)
        self.dims = of.sample(range(n), of.randint(1, n))
        self.keep, self.flag = of.random() < 0.5, of.random() < 0.5
        self.number = of.choice([0.5, 2, -1.5, 3])
        self.whole = of.randint(1, 3)
        self.order = of.sample(range(n), n)
        generator = torch.Generator().manual_seed(seed)
        size = x.shape[self.dim] if x.ndim else 1
        self.index = torch.randint(0, size, tuple(x.shape), generator=generator)
        self.places = torch.randperm(size, generator=generator)[: max(1, size - 1)]
        self.source = torch.rand(tuple(x.shape), generator=generator).to(x.dtype)
        self.mask = torch.rand(tuple(x.shape), generator=generator) > 0.5

    def places_of(self, x):
        return torch.argsort(self.index, stable=True, dim=self.dim)  # each place once

    def slices(self, x):
        return self.source.index_select(self.dim, torch.arange(len(self.places)))


#: Of any tensor.
ONE = {
    "signs": [
        lambda x, c: torch.abs(x), lambda x, c: torch.absolute(x), lambda x, c: x.absolute(), lambda x, c: x.abs(), lambda x, c: torch.neg(x),
        lambda x, c: torch.negative(x), lambda x, c: x.negative(), lambda x, c: x.neg(), lambda x, c: torch.sign(x), lambda x, c: x.sign(),
    ],
    "rounding": [
        lambda x, c: torch.floor(x), lambda x, c: torch.ceil(x), lambda x, c: torch.trunc(x), lambda x, c: torch.fix(x), lambda x, c: torch.round(x),
        lambda x, c: torch.round(x, decimals=c.whole), lambda x, c: x.round(decimals=-1), lambda x, c: x.round(), lambda x, c: x.floor(),
        lambda x, c: x.ceil(), lambda x, c: x.trunc(), lambda x, c: x.fix(),
    ],
    "transcendental": [
        lambda x, c: torch.exp(x), lambda x, c: torch.expm1(x), lambda x, c: torch.log(x), lambda x, c: torch.log2(x), lambda x, c: torch.log1p(x),
        lambda x, c: torch.sqrt(x), lambda x, c: torch.rsqrt(x), lambda x, c: torch.reciprocal(x), lambda x, c: torch.sin(x), lambda x, c: torch.cos(x),
        lambda x, c: torch.tanh(x), lambda x, c: torch.sigmoid(x), lambda x, c: torch.erf(x), lambda x, c: torch.special.expit(x),
        lambda x, c: torch.special.erf(x), lambda x, c: torch.special.expm1(x), lambda x, c: torch.special.log1p(x), lambda x, c: x.exp(),
        lambda x, c: x.expm1(), lambda x, c: x.log(), lambda x, c: x.log2(), lambda x, c: x.log1p(), lambda x, c: x.sqrt(), lambda x, c: x.rsqrt(),
        lambda x, c: x.reciprocal(), lambda x, c: x.sin(), lambda x, c: x.cos(), lambda x, c: x.tanh(), lambda x, c: x.sigmoid(), lambda x, c: x.erf(),
        lambda x, c: torch.square(x), lambda x, c: x.square(), lambda x, c: torch.logit(x.sigmoid()), lambda x, c: torch.logit(x.sigmoid(), eps=0.3),
        lambda x, c: torch.special.logit(x.sigmoid(), 0.2), lambda x, c: x.sigmoid().logit(),
    ],
    "activations": [
        lambda x, c: torch.relu(x), lambda x, c: F.relu(x), lambda x, c: x.relu(), lambda x, c: F.gelu(x), lambda x, c: F.gelu(x, approximate="tanh"),
        lambda x, c: F.silu(x), lambda x, c: F.softplus(x), lambda x, c: F.logsigmoid(x), lambda x, c: F.leaky_relu(x), lambda x, c: F.leaky_relu(x, 0.3),
        lambda x, c: F.elu(x), lambda x, c: F.elu(x, alpha=c.number), lambda x, c: F.relu6(x * 4), lambda x, c: F.hardtanh(x),
        lambda x, c: F.hardtanh(x, -0.5, max_val=0.25), lambda x, c: F.tanh(x), lambda x, c: F.sigmoid(x), lambda x, c: torch.nn.ReLU()(x),
        lambda x, c: torch.nn.GELU("tanh")(x), lambda x, c: torch.nn.Identity()(x) + 0, lambda x, c: F.dropout(x, 0.5, training=False) + 0,
        lambda x, c: torch.nn.Dropout(0.5).eval()(x) + 0, lambda x, c: torch.dropout(x, 0.5, False) + 0, lambda x, c: F.dropout(x, 0.0) + 0,
        lambda x, c: F.alpha_dropout(x, 0.5, False) + 0, lambda x, c: torch.feature_dropout(x, 0.5, False) + 0,
        lambda x, c: torch.feature_alpha_dropout(x, 0.5, False) + 0, lambda x, c: F.dropout1d(x.reshape(1, -1), 0.5, False) + 0,
        lambda x, c: F.dropout2d(x.reshape(1, 1, -1), 0.5, False) + 0, lambda x, c: F.dropout3d(x.reshape(1, 1, 1, -1), 0.5, False) + 0,
    ],
    "kinds": [
        lambda x, c: torch.isnan(x), lambda x, c: torch.isinf(x), lambda x, c: torch.isfinite(x), lambda x, c: torch.logical_not(x),
        lambda x, c: x.isnan(),
        lambda x, c: x.isinf(), lambda x, c: x.isfinite(), lambda x, c: x.logical_not(), lambda x, c: ~(x > 0), lambda x, c: torch.bitwise_not(x > 0),
        lambda x, c: (x > 0).bitwise_not(),
    ],
    "bounds": [
        lambda x, c: torch.clamp(x, -1, 0.5), lambda x, c: torch.clamp(x, min=0), lambda x, c: x.clamp(max=1), lambda x, c: torch.clip(x, -1, 1),
        lambda x, c: x.clip(0), lambda x, c: torch.clamp(x, min=c.source, max=c.source + 1), lambda x, c: x.clamp(c.source),
        lambda x, c: torch.clamp_min(x, 0.5),
        lambda x, c: torch.clamp_max(x, c.number), lambda x, c: x.clamp_min(c.source), lambda x, c: x.clamp_max(0),
    ],
    "reductions": [
        lambda x, c: torch.sum(x), lambda x, c: torch.sum(x, c.dim), lambda x, c: torch.sum(x, c.dims, c.keep), lambda x, c: torch.sum(x, axis=c.dim),
        lambda x, c: torch.sum(input=x, dim=c.dim, keepdim=c.keep, dtype=torch.float64), 
        lambda x, c: x.sum(axis=c.dim, keepdims=c.keep), lambda x, c: x.sum(()), lambda x, c: torch.mean(x), lambda x, c: torch.mean(x, c.dim, c.keep),
        lambda x, c: torch.mean(x, c.dims, dtype=torch.float64), lambda x, c: x.mean(tuple(c.dims), keepdim=c.keep), lambda x, c: x.mean(axis=c.dim),
        lambda x, c: torch.prod(x), lambda x, c: torch.prod(x, c.dim, c.keep), lambda x, c: torch.prod(x, c.dim, dtype=torch.float64),
        lambda x, c: x.prod(c.dim),
        lambda x, c: torch.any(x), lambda x, c: torch.any(x, c.dim, c.keep), lambda x, c: x.any(axis=c.dim), lambda x, c: torch.any(x, c.dims),
        lambda x, c: torch.all(x), lambda x, c: torch.all(x, c.dim, keepdim=c.keep), lambda x, c: x.all(c.dim), lambda x, c: torch.amax(x, c.dims, c.keep),
        lambda x, c: torch.amin(x, c.dim), lambda x, c: x.amax(), lambda x, c: x.amin(c.dims), lambda x, c: x.amax(()), lambda x, c: torch.argmax(x),
        lambda x, c: torch.argmax(x, c.dim, c.keep), lambda x, c: torch.argmin(x, dim=c.dim), lambda x, c: x.argmin(axis=c.dim, keepdims=c.keep),
        lambda x, c: x.argmax(keepdim=c.keep), lambda x, c: torch.max(x), lambda x, c: torch.max(x, c.dim),
        lambda x, c: torch.max(x, dim=c.dim, keepdim=c.keep),
        lambda x, c: x.max(axis=c.dim), lambda x, c: torch.max(input=x, dim=c.dim), lambda x, c: torch.min(x, c.dim, c.keep).values,
        lambda x, c: x.min(c.dim)[1], lambda x, c: torch.min(x), lambda x, c: torch.max(x, c.source), lambda x, c: torch.min(x, other=c.source),
        lambda x, c: torch.aminmax(x, dim=c.dim, keepdim=c.keep),
        lambda x, c: x.aminmax(), lambda x, c: torch.logsumexp(x, c.dim, c.keep), lambda x, c: x.logsumexp(c.dims),
        lambda x, c: torch.special.logsumexp(x, c.dim),
        lambda x, c: torch.count_nonzero(x), lambda x, c: x.count_nonzero(c.dim), lambda x, c: torch.nansum(x, c.dim, c.keep), lambda x, c: x.nansum(),
        lambda x, c: torch.nanmean(x, c.dim), lambda x, c: x.nanmean(c.dims, keepdim=c.keep),
    ],
    "deviations": [
        lambda x, c: torch.std(x), lambda x, c: torch.std(x, c.dim), lambda x, c: torch.std(x, c.dim, False), lambda x, c: torch.std(x, False),
        lambda x, c: torch.std(x, c.dims, correction=0, keepdim=c.keep), lambda x, c: x.std(c.dim, unbiased=c.flag), lambda x, c: x.std(unbiased=False),
        lambda x, c: torch.var(x, c.dim, c.flag, c.keep), lambda x, c: x.var(), lambda x, c: x.var(correction=0), lambda x, c: torch.var(x, axis=c.dim),
        lambda x, c: torch.var(x, dim=None, correction=None), lambda x, c: torch.std_mean(x, c.dim),
        lambda x, c: torch.std_mean(x, c.dims, correction=0, keepdim=c.keep),
        lambda x, c: torch.var_mean(x), lambda x, c: torch.var_mean(x, c.dim, False),
    ],
    "running": [
        lambda x, c: torch.cumsum(x, c.dim), lambda x, c: x.cumsum(axis=c.dim), lambda x, c: torch.cumsum(x, c.dim, dtype=torch.float64),
        lambda x, c: torch.cumprod(x, c.dim),
        lambda x, c: x.cumprod(c.dim), lambda x, c: torch.softmax(x, c.dim), lambda x, c: torch.softmax(x, dim=c.dim, dtype=torch.float64),
        lambda x, c: F.softmax(x, c.dim),
        lambda x, c: x.softmax(c.dim), lambda x, c: torch.log_softmax(x, c.dim, torch.float32), lambda x, c: F.log_softmax(x, dim=c.dim),
        lambda x, c: x.log_softmax(c.dim),
        lambda x, c: torch.special.softmax(x, c.dim), lambda x, c: torch.special.log_softmax(x, c.dim), lambda x, c: F.softmin(x, c.dim),
        lambda x, c: torch.nn.Softmax(c.dim)(x),
        lambda x, c: torch.diff(x, dim=c.dim), lambda x, c: x.diff(n=c.whole, dim=c.dim), lambda x, c: F.normalize(x, dim=c.dim),
        lambda x, c: F.normalize(x, 1, c.dim, 0.1),
    ],
    "order": [
        lambda x, c: torch.sort(x, stable=True, dim=c.dim), lambda x, c: torch.sort(x, dim=c.dim, descending=c.flag)[0],
        lambda x, c: torch.sort(x, stable=True, dim=c.dim, descending=c.flag),
        lambda x, c: x.sort(c.dim).values, lambda x, c: torch.argsort(x, stable=True, dim=c.dim, descending=c.flag),
        lambda x, c: torch.argsort(x * 0 + c.source, c.dim, c.flag), lambda x, c: x.argsort(stable=True, dim=c.dim), lambda x, c: torch.msort(x),
        lambda x, c: x.msort(), lambda x, c: torch.topk(x, 1, c.dim).values, lambda x, c: x.topk(1, dim=c.dim, largest=c.flag, sorted=True)[0],
    ],
    "norms": [
        lambda x, c: torch.norm(x), lambda x, c: torch.norm(x, dim=c.dim), lambda x, c: torch.norm(x, 1, c.dim, c.keep),
        lambda x, c: torch.norm(x, p=inf), lambda x, c: x.norm(),
        lambda x, c: x.norm(p=3, dim=c.dims), lambda x, c: x.norm(2, c.dim, dtype=torch.float64), lambda x, c: torch.norm(x, "fro", c.dim),
        lambda x, c: torch.norm(x, 0, c.dim),
        lambda x, c: torch.norm(x, -inf, c.dim), lambda x, c: torch.linalg.norm(x), lambda x, c: torch.linalg.norm(x, dim=c.dim, keepdim=c.keep),
        lambda x, c: torch.linalg.norm(x, 1, c.dim), lambda x, c: torch.linalg.norm(x, dtype=torch.float64), lambda x, c: torch.linalg.vector_norm(x),
        lambda x, c: torch.linalg.vector_norm(x, 3, c.dims, c.keep), lambda x, c: torch.linalg.vector_norm(x, ord=inf, dim=c.dim, dtype=torch.float64),
    ],
    "forms": [
        lambda x, c: torch.reshape(x, (-1,)), lambda x, c: x.reshape(-1), lambda x, c: torch.flatten(x), lambda x, c: x.flatten(c.dim),
        lambda x, c: torch.ravel(x), lambda x, c: x.ravel(),
        lambda x, c: torch.transpose(x, 0, c.dim), lambda x, c: x.transpose(c.dim, -1), lambda x, c: torch.swapaxes(x, 0, c.dim),
        lambda x, c: torch.swapdims(x, c.dim, 0),
        lambda x, c: x.swapaxes(0, c.dim), lambda x, c: x.swapdims(0, -1), lambda x, c: torch.permute(x, c.order),
        lambda x, c: torch.permute(x, dims=c.order), lambda x, c: x.permute(*c.order),
        lambda x, c: torch.movedim(x, c.dim, 0), lambda x, c: x.movedim(0, c.dim), lambda x, c: torch.moveaxis(x, 0, -1),
        lambda x, c: x.moveaxis(c.dim, -1), lambda x, c: torch.squeeze(x),
        lambda x, c: torch.squeeze(x, c.dim), lambda x, c: x.squeeze(), lambda x, c: torch.unsqueeze(x, c.dim), lambda x, c: x.unsqueeze(-1),
        lambda x, c: torch.unflatten(x, c.dim, (1, -1)),
        lambda x, c: x.unflatten(c.dim, (-1, 1)), lambda x, c: torch.flip(x, c.dims), lambda x, c: x.flip(*c.dims),
        lambda x, c: torch.roll(x, c.whole), lambda x, c: torch.roll(x, c.whole, c.dim),
        lambda x, c: torch.roll(x, [1] * len(c.dims), c.dims), lambda x, c: x.roll(-1), lambda x, c: torch.tile(x, (2, 1)), lambda x, c: x.tile(2),
        lambda x, c: x.repeat(*[2] * max(x.ndim, 1)),
        lambda x, c: torch.repeat_interleave(x, c.whole), lambda x, c: x.repeat_interleave(2, c.dim), lambda x, c: torch.split(x, c.whole, c.dim),
        lambda x, c: x.split(1, dim=c.dim),
        lambda x, c: torch.chunk(x, 2, c.dim), lambda x, c: x.chunk(3, c.dim), lambda x, c: torch.unbind(x, c.dim), lambda x, c: x.unbind(),
        lambda x, c: torch.narrow(x, c.dim, 0, 1),
        lambda x, c: x.narrow(c.dim, 0, 1), lambda x, c: torch.select(x, c.dim, 0), lambda x, c: x.select(c.dim, -1),
        lambda x, c: torch.cat([x, x], c.dim), lambda x, c: torch.cat((x, c.source), dim=c.dim),
        lambda x, c: torch.concat([x, x], axis=c.dim), lambda x, c: torch.concatenate([x, x]), lambda x, c: torch.stack([x, x], c.dim),
        lambda x, c: torch.clone(x), lambda x, c: x.clone(), lambda x, c: x.contiguous() + 0,
        lambda x, c: torch.detach(x) + 0, lambda x, c: x.detach() + 0, lambda x, c: F.pad(x, (1, 2)), lambda x, c: F.pad(x, (0, 1), value=2),
        lambda x, c: F.pad(x, [1, 0], "constant", c.number),
        lambda x, c: torch.constant_pad_nd(x, (1, 1), 1), lambda x, c: torch.broadcast_to(x, (2, *x.shape)), lambda x, c: x.expand(3, *x.shape),
        lambda x, c: x.expand_as(c.source), lambda x, c: x.view(-1), lambda x, c: x.view_as(c.source), lambda x, c: x.reshape_as(c.source),
        lambda x, c: torch.tensor(torch.numel(x)) if isinstance(x, torch.Tensor) else pl.tensor(torch.numel(x)),
    ],
    "to whole numbers": [lambda x, c: torch.sum(x, dtype=torch.int64), lambda x, c: x.cumsum(c.dim, dtype=torch.int64)],
    "types": [
        lambda x, c: x.to(torch.float64), lambda x, c: x.to(dtype=torch.float32) + 0, lambda x, c: x.float() + 0, lambda x, c: x.double(),
        lambda x, c: x.half(), lambda x, c: x.bfloat16(),
        lambda x, c: (x * 0 + 1).long(), lambda x, c: (x * 0).int(), lambda x, c: x.bool(), lambda x, c: x.type_as(torch.zeros(1)),
        lambda x, c: (x * 0).type(torch.LongTensor), lambda x, c: x.type(torch.float64), lambda x, c: x.type("torch.DoubleTensor"),
        lambda x, c: torch.zeros_like(x), lambda x, c: torch.ones_like(x, dtype=torch.int64),
        lambda x, c: torch.full_like(x, 2), lambda x, c: torch.full_like(x, 1.5, dtype=torch.float64), lambda x, c: x.new_zeros(2, 3),
        lambda x, c: x.new_ones((2,)), lambda x, c: x.new_full((2,), 3),
        lambda x, c: x * torch.is_floating_point(x), lambda x, c: torch.randn_like(x) * 0, lambda x, c: torch.rand_like(x, dtype=torch.float64) * 0,
    ],
    "places": [
        lambda x, c: torch.gather(x, c.dim, c.index), lambda x, c: x.gather(dim=c.dim, index=c.index, sparse_grad=False),
        lambda x, c: torch.scatter(x, c.dim, c.places_of(x), c.source),
        lambda x, c: x.scatter(c.dim, c.index[:1], 2), lambda x, c: torch.scatter(x, c.dim, c.index[:1], value=3),
        lambda x, c: torch.scatter(x, c.dim, c.index, c.source, reduce="add"),
        lambda x, c: x.scatter(c.dim, c.index, 1, reduce="add"), lambda x, c: torch.scatter_add(x, c.dim, c.index, c.source),
        lambda x, c: x.scatter_add(c.dim, c.index, c.source),
        lambda x, c: torch.index_select(x, c.dim, c.places), lambda x, c: x.index_select(c.dim, c.places),
        lambda x, c: torch.index_add(x, c.dim, c.places, c.slices(x)),
        lambda x, c: torch.index_add(x, c.dim, c.places, c.slices(x), alpha=2), lambda x, c: x.index_add(c.dim, c.places, c.slices(x), alpha=3),
        lambda x, c: torch.index_fill(x, c.dim, c.places, 2),
        lambda x, c: x.index_fill(c.dim, c.places, 1), lambda x, c: torch.index_copy(x, c.dim, c.places, c.slices(x)),
        lambda x, c: x.index_copy(c.dim, c.places, c.slices(x)),
        lambda x, c: torch.take_along_dim(x, c.index, c.dim), lambda x, c: x.take_along_dim(c.index),
        lambda x, c: torch.take(x, c.index % x.numel()), lambda x, c: x.take(torch.zeros(2, dtype=torch.int64)),
        lambda x, c: torch.index_put(x, (c.places % len(x),), c.source.reshape(-1)[0]),
        lambda x, c: x.index_put([torch.tensor([0, 0])], c.source[0], True),
        lambda x, c: torch.masked_fill(x, c.mask, 1), lambda x, c: x.masked_fill(mask=c.mask, value=2),
        lambda x, c: torch.where(c.mask, x, c.source), lambda x, c: torch.where(x > 0, x, 0),
        lambda x, c: torch.where(condition=c.mask, input=x, other=c.source), lambda x, c: x.where(c.mask, c.source),
        lambda x, c: c.source.where(x > 0, c.source * 2), lambda x, c: x[(c.index * 0).reshape(-1)],
    ],
}


#: Of two tensors that broadcast, or a tensor and a number.
TWO = {
    "arithmetic": [
        lambda x, y: torch.add(x, y), lambda x, y: torch.add(x, y, alpha=2), lambda x, y: x.add(y, alpha=3), lambda x, y: x + y, lambda x, y: y + x,
        lambda x, y: torch.sub(x, y), lambda x, y: torch.sub(x, y, alpha=2),
        lambda x, y: x.sub(y), lambda x, y: x.sub(y, alpha=2), lambda x, y: torch.subtract(x, y), lambda x, y: x.subtract(y), lambda x, y: y - x,
        lambda x, y: torch.rsub(x, y), lambda x, y: torch.rsub(x, y, alpha=2),
        lambda x, y: torch.mul(x, y), lambda x, y: x.mul(y), lambda x, y: torch.multiply(x, y), lambda x, y: x.multiply(y), lambda x, y: y * x,
        lambda x, y: torch.div(x, y), lambda x, y: x.div(y), lambda x, y: x / y,
        lambda x, y: y / x, lambda x, y: torch.divide(x, y), lambda x, y: x.divide(y), lambda x, y: torch.true_divide(x, y),
        lambda x, y: x.true_divide(y), lambda x, y: torch.div(x, y, rounding_mode="floor"),
        lambda x, y: torch.div(x, y, rounding_mode="trunc"), lambda x, y: x.div(y, rounding_mode="trunc"), lambda x, y: torch.floor_divide(x, y),
        lambda x, y: x.floor_divide(y), lambda x, y: x // y, lambda x, y: y // x,
        lambda x, y: torch.remainder(x, y), lambda x, y: x.remainder(y), lambda x, y: x % y, lambda x, y: y % x, lambda x, y: torch.pow(x, 2),
        lambda x, y: x.pow(3), lambda x, y: x ** 2, lambda x, y: torch.pow(abs(x) + 1, y),
        lambda x, y: torch.maximum(x, y), lambda x, y: torch.minimum(x, y), lambda x, y: x.maximum(y), lambda x, y: x.minimum(y),
        lambda x, y: torch.fmax(x, y), lambda x, y: torch.fmin(x, y), lambda x, y: x.fmax(y),
        lambda x, y: x.fmin(y), lambda x, y: torch.logaddexp(x, y), lambda x, y: x.logaddexp(y), lambda x, y: torch.lerp(x, y, 0.25),
        lambda x, y: x.lerp(y, 0.75), lambda x, y: torch.addcmul(x, x, y, value=2),
        lambda x, y: x.addcmul(y, x), lambda x, y: torch.addcdiv(x, x, y, value=2), lambda x, y: x.addcdiv(x, y),
    ],
    "comparisons": [
        lambda x, y: torch.eq(x, y), lambda x, y: torch.ne(x, y), lambda x, y: torch.lt(x, y), lambda x, y: torch.le(x, y),
        lambda x, y: torch.gt(x, y), lambda x, y: torch.ge(x, y), lambda x, y: x.eq(y), lambda x, y: x.ne(y),
        lambda x, y: x.lt(y), lambda x, y: x.le(y), lambda x, y: x.gt(y), lambda x, y: x.ge(y), lambda x, y: torch.greater(x, y),
        lambda x, y: torch.less(x, y), lambda x, y: torch.greater_equal(x, y),
        lambda x, y: torch.less_equal(x, y), lambda x, y: torch.not_equal(x, y), lambda x, y: x.greater(y), lambda x, y: x.less(y),
        lambda x, y: x.greater_equal(y), lambda x, y: x.less_equal(y), lambda x, y: x.not_equal(y),
        lambda x, y: y == x, lambda x, y: y != x, lambda x, y: y < x, lambda x, y: y <= x, lambda x, y: y > x, lambda x, y: y >= x,
        lambda x, y: torch.logical_and(x, y), lambda x, y: torch.logical_or(x, y),
        lambda x, y: torch.logical_xor(x, y), lambda x, y: x.logical_and(y), lambda x, y: x.logical_or(y), lambda x, y: x.logical_xor(y),
        lambda x, y: (x > 0) & (y > 0), lambda x, y: (y > 0) & (x > 0),
        lambda x, y: (y > 0) | (x > 0), lambda x, y: (y > 0) ^ (x > 0), lambda x, y: torch.bitwise_and(x > 0, y > 0),
        lambda x, y: torch.bitwise_or(x > 0, y > 0), lambda x, y: torch.bitwise_xor(x > 0, y > 0),
        lambda x, y: (x > 0).bitwise_and(y > 0), lambda x, y: (x > 0).bitwise_or(y > 0), lambda x, y: (x > 0).bitwise_xor(y > 0),
    ],
    "losses": [
        lambda x, y: F.mse_loss(x, y * torch.ones_like(x)), lambda x, y: F.mse_loss(x, x * 2, reduction="sum"), lambda x, y: F.l1_loss(x, x * 2),
        lambda x, y: F.l1_loss(x, x * 2, reduction="none"), lambda x, y: F.l1_loss(x, x + 1, reduction="sum"),
        lambda x, y: torch.nn.MSELoss()(x, x * 3), lambda x, y: F.binary_cross_entropy_with_logits(x, x.sigmoid(), reduction="none"),
        lambda x, y: F.cosine_similarity(x.reshape(1, -1), x.reshape(1, -1) + 1),
        lambda x, y: torch.cosine_similarity(x.reshape(1, -1), x.reshape(1, -1) + 1, dim=-1, eps=1e-3),
        lambda x, y: torch.tensordot(x.reshape(1, -1), x.reshape(-1, 1), 1),
    ],
}


MATRICES = [
    lambda a, b: torch.matmul(a, b), lambda a, b: a @ b, lambda a, b: a.matmul(b), lambda a, b: torch.bmm(a, b), lambda a, b: a.bmm(b),
    lambda a, b: torch.mm(a[0], b[0]), lambda a, b: a[0].mm(b[0]),
    lambda a, b: torch.mv(a[0], b[0, :, 0]), lambda a, b: a[0].mv(b[0, :, 0]), lambda a, b: torch.dot(a[0, 0], a[0, 0]),
    lambda a, b: a[0, 0].dot(a[0, 0]), lambda a, b: torch.outer(a[0, 0], b[0, 0]),
    lambda a, b: a[0, 0].outer(b[0, 0]), lambda a, b: torch.ger(a[0, 0], b[0, 0]), lambda a, b: a[0, 0].ger(b[0, 0]),
    lambda a, b: torch.einsum("bij,bjk->bik", a, b), lambda a, b: torch.einsum("bij->bji", a),
    lambda a, b: torch.einsum("bij,bjk", [a, b]), lambda a, b: torch.tensordot(a, b, dims=([2], [1])),
    lambda a, b: torch.addmm(a[0] @ b[0], a[0], b[0]), lambda a, b: torch.addmm(a[0] @ b[0], a[0], b[0], beta=0.5, alpha=2),
    lambda a, b: (a[0] @ b[0]).addmm(a[0], b[0], alpha=3), lambda a, b: torch.addmm(a[0] @ b[0], a[0], b[0], beta=0),
    lambda a, b: torch.baddbmm(a @ b, a, b, alpha=2), lambda a, b: (a @ b).baddbmm(a, b),
    lambda a, b: torch.addmv(a[0, :, 0], a[0], b[0, :, 0]), lambda a, b: a[0, :, 0].addmv(a[0], b[0, :, 0], beta=2),
    lambda a, b: F.linear(a, torch.ones(5, a.shape[-1])), lambda a, b: F.linear(a, b[0].t() * 1, torch.ones(b.shape[-1])),
    lambda a, b: F.linear(torch.ones(2, b.shape[1]), b[0].transpose(0, 1)), lambda a, b: F.embedding(torch.tensor([[0, 0]]), a[0]),
    lambda a, b: F.embedding((a[0] * 0).long(), torch.arange(4.0).reshape(2, 2)),
    lambda a, b: F.layer_norm(a, a.shape[-1:]), lambda a, b: F.layer_norm(a, a.shape[1:], eps=0.1),
    lambda a, b: torch.layer_norm(a, list(a.shape[-1:]), torch.ones(a.shape[-1]) * 2, torch.ones(a.shape[-1])),
    lambda a, b: F.rms_norm(a, list(a.shape[-1:]), eps=1e-5), lambda a, b: F.cross_entropy(a[0], torch.zeros(a.shape[1], dtype=torch.int64)),
    lambda a, b: F.cross_entropy(a[0], torch.zeros(a.shape[1], dtype=torch.int64), reduction="none", label_smoothing=0.1),
    lambda a, b: F.cross_entropy(a[0], torch.zeros(a.shape[1], dtype=torch.int64), torch.ones(a.shape[2]) * 2, ignore_index=-1, reduction="sum"),
    lambda a, b: torch.nn.CrossEntropyLoss()(a[0], torch.zeros(a.shape[1], dtype=torch.int64)),
    lambda a, b: F.nll_loss(a[0].log_softmax(-1), torch.zeros(a.shape[1], dtype=torch.int64), reduction="sum"),
    lambda a, b: F.kl_div(a.log_softmax(-1), a.softmax(-1), reduction="batchmean"),
    lambda a, b: F.kl_div(a.log_softmax(-1), (a * 2).log_softmax(-1), reduction="sum", log_target=True),
    lambda a, b: F.scaled_dot_product_attention(a, a, a), lambda a, b: F.scaled_dot_product_attention(a, a, a, is_causal=True),
    lambda a, b: F.scaled_dot_product_attention(a, a * 2, a, torch.ones(a.shape[1], a.shape[1]).tril() > 0, scale=0.3),
    lambda a, b: F.scaled_dot_product_attention(a, a, a, attn_mask=torch.ones(a.shape[1], a.shape[1])),
    lambda a, b: F.scaled_dot_product_attention(a, a, a, torch.arange(a.shape[1])[:, None] > 0),
    lambda a, b: torch.tril(a), lambda a, b: a.tril(1), lambda a, b: torch.triu(a, diagonal=-1), lambda a, b: a.triu(),
    lambda a, b: torch.diagonal(a, 0, 1, 2), lambda a, b: a.diagonal(dim1=-2, dim2=-1), lambda a, b: torch.trace(a[0]),
    lambda a, b: a[0].trace(), lambda a, b: torch.t(a[0]), lambda a, b: a[0].t(), lambda a, b: a.mT + 0,
    lambda a, b: torch.linalg.multi_dot([a[0], b[0]]), lambda a, b: torch.linalg.vecdot(a, a), lambda a, b: torch.linalg.vecdot(a, a, dim=1),
    lambda a, b: torch.linalg.diagonal(a), lambda a, b: torch.linalg.matmul(a, b), lambda a, b: torch.linalg.norm(a[0], "fro"),
    lambda a, b: torch.linalg.norm(a[0], "nuc"), lambda a, b: torch.linalg.norm(a[0], 1), lambda a, b: torch.linalg.norm(a[0], -1),
    lambda a, b: torch.linalg.norm(a[0], inf, keepdim=True), lambda a, b: torch.linalg.norm(a, -inf, (0, 2)),
    lambda a, b: torch.linalg.norm(a[0], 2), lambda a, b: torch.linalg.norm(a, -2, dim=(1, 2)), lambda a, b: torch.linalg.norm(a, 2, (2, 0), True),
    lambda a, b: torch.linalg.matrix_norm(a), lambda a, b: torch.linalg.matrix_norm(a, "nuc", (0, 1), True),
    lambda a, b: torch.linalg.matrix_norm(a, 1, dtype=torch.float64), lambda a, b: torch.norm(a[0], "nuc"), lambda a, b: a[0].norm("nuc"),
    lambda a, b: torch.norm(a, 1, (1, 2)), lambda a, b: torch.linalg.svdvals(a), lambda a, b: torch.linalg.svd(a).S,
    lambda a, b: torch.linalg.svd(a, full_matrices=False)[1], lambda a, b: torch.svd(a)[1], lambda a, b: torch.linalg.pinv(a, rtol=1e-5),
    lambda a, b: torch.linalg.lstsq(a, a, rcond=None).solution @ torch.ones(a.shape[-1], 1) if a.shape[-2] >= a.shape[-1] else a + 0,
    lambda a, b: torch.pinverse(a, 1e-5), lambda a, b: a[0].pinverse(1e-5),
    lambda a, b: torch.nn.functional.one_hot((a * 0).long(), 3), lambda a, b: torch.nn.functional.one_hot((a * 0).long(), num_classes=2),
]


SQUARE = [
    lambda s: torch.linalg.inv(s), lambda s: torch.inverse(s), lambda s: s.inverse(), lambda s: torch.linalg.det(s), lambda s: torch.det(s),
    lambda s: s.det(), lambda s: torch.linalg.slogdet(s), lambda s: torch.slogdet(s), lambda s: s.slogdet(),
    lambda s: torch.logdet(s), lambda s: s.logdet(), lambda s: torch.linalg.cholesky(s), lambda s: torch.linalg.cholesky(s, upper=True),
    lambda s: torch.linalg.matrix_exp(s * 0.1),
    lambda s: torch.matrix_exp(s * 0.1), lambda s: (s * 0.1).matrix_exp(), lambda s: torch.linalg.eigvalsh(s),
    lambda s: torch.linalg.eigvalsh(s, UPLO="U"), lambda s: torch.linalg.eigh(s).eigenvalues, lambda s: torch.linalg.solve(s, s + 1),
    lambda s: torch.linalg.solve(s, s[:2] + 1, left=False), lambda s: torch.linalg.pinv(s), lambda s: torch.linalg.qr(s).R.abs(), lambda s: s.svd()[1],
    lambda s: torch.linalg.pinv(s, hermitian=True),
]


def anded(x, c):
    """Of bools: through a view, as torch."""
    mask = x > 0.5
    part = mask[0]
    mask &= c.mask
    part ^= c.mask[0]
    return x.copy_(mask.float())


def ored(x, c):
    mask = x > 0.5
    whole = mask
    mask |= c.mask
    return whole.float()


#: What changes its tensor: what that becomes is compared, and what is given back is the same tensor.
IN_PLACE = [
    lambda x, c: torch.relu_(x), lambda x, c: torch.clamp_(x, 0, 1), lambda x, c: torch.clamp_(x, max=0.5), lambda x, c: torch.exp_(x),
    lambda x, c: torch.neg_(x), lambda x, c: torch.sigmoid_(x), lambda x, c: torch.tanh_(x), lambda x, c: torch.abs_(x),
    lambda x, c: torch.sqrt_(x), lambda x, c: torch.square_(x), lambda x, c: torch.round_(x), lambda x, c: torch.clamp_min_(x, 0.1),
    lambda x, c: torch.clamp_max_(x, 0.1), lambda x, c: torch.zero_(x), lambda x, c: torch.fill_(x, 3),
    lambda x, c: F.relu(x, inplace=True), lambda x, c: F.relu_(x), lambda x, c: torch.nn.ReLU(inplace=True)(x), lambda x, c: F.silu(x, inplace=True),
    lambda x, c: F.leaky_relu(x, 0.2, inplace=True), lambda x, c: F.elu(x, inplace=True),
    lambda x, c: F.hardtanh(x, inplace=True), lambda x, c: F.relu6(x, True), lambda x, c: torch.add(x, 1, out=x),
    lambda x, c: torch.mul(x, c.source, out=x), lambda x, c: torch.clamp(x, 0, 1, out=x), lambda x, c: torch.exp(x, out=x),
    lambda x, c: torch.cumsum(x, c.dim, out=x), lambda x, c: x.add_(c.source), lambda x, c: x.add_(c.source, alpha=3),
    lambda x, c: x.sub_(1, alpha=2), lambda x, c: x.subtract_(c.source), lambda x, c: x.mul_(2), lambda x, c: x.multiply_(c.source),
    lambda x, c: x.div_(2), lambda x, c: x.div_(0.3, rounding_mode="floor"), lambda x, c: x.divide_(2), lambda x, c: x.true_divide_(2),
    lambda x, c: x.floor_divide_(0.7), lambda x, c: x.remainder_(0.7), lambda x, c: x.pow_(2), lambda x, c: x.neg_(),
    lambda x, c: x.negative_(), lambda x, c: x.abs_(), lambda x, c: x.absolute_(), lambda x, c: x.floor_(), lambda x, c: x.ceil_(),
    lambda x, c: x.round_(), lambda x, c: x.round_(decimals=1), lambda x, c: x.trunc_(), lambda x, c: x.fix_(),
    lambda x, c: x.sign_(), lambda x, c: x.clamp_(-1, 1), lambda x, c: x.clamp_(min=c.source), lambda x, c: x.clip_(0), lambda x, c: x.clamp_min_(0),
    lambda x, c: x.clamp_max_(0), lambda x, c: x.exp_(), lambda x, c: x.expm1_(), lambda x, c: x.log_(),
    lambda x, c: x.log2_(), lambda x, c: x.log1p_(), lambda x, c: x.sqrt_(), lambda x, c: x.rsqrt_(), lambda x, c: x.reciprocal_(),
    lambda x, c: x.sin_(), lambda x, c: x.cos_(), lambda x, c: x.tanh_(), lambda x, c: x.sigmoid_(), lambda x, c: x.erf_(),
    lambda x, c: x.relu_(), lambda x, c: x.square_(), lambda x, c: x.lerp_(c.source, 0.3), lambda x, c: x.sigmoid_().logit_(),
    lambda x, c: x.addcmul_(c.source, c.source, value=2), lambda x, c: x.addcdiv_(c.source, c.source + 1), lambda x, c: x.masked_fill_(c.mask, 2),
    lambda x, c: x.scatter_(c.dim, c.index[:1], 2.0), lambda x, c: x.scatter_(c.dim, c.index[:1], value=3),
    lambda x, c: x.scatter_(c.dim, c.index, c.source, reduce="add"), lambda x, c: x.scatter_add_(c.dim, c.index, c.source),
    lambda x, c: x.index_add_(c.dim, c.places, c.slices(x)),
    lambda x, c: x.index_add_(c.dim, c.places, c.slices(x), alpha=2), lambda x, c: x.index_fill_(c.dim, c.places, 3),
    lambda x, c: x.index_copy_(c.dim, c.places, c.slices(x)), lambda x, c: x.index_put_((torch.tensor([0]),), c.source[:1]),
    lambda x, c: x.index_put_([torch.tensor([0, 0])], c.source[:1], accumulate=True), lambda x, c: x.copy_(c.source),
    lambda x, c: x.copy_(c.source[:1]), lambda x, c: x.fill_(2), lambda x, c: x.zero_(), lambda x, c: x.cumsum_(c.dim),
    lambda x, c: x.cumprod_(c.dim),
    lambda x, c: x.reshape(1, -1).tril_().reshape(x.shape), lambda x, c: x.reshape(1, -1).triu_(1).reshape(x.shape), lambda x, c: x.__iadd__(1),
    lambda x, c: x.__imul__(c.source), lambda x, c: x.requires_grad_(False).add_(1),
    lambda x, c: x.view(-1).add_(1).view(x.shape), lambda x, c: torch.relu_(x[0]), lambda x, c: torch.add(x[0], 1, out=x[0]),
    lambda x, c: anded(x, c), lambda x, c: x.copy_(ored(x, c)), lambda x, c: x.select(c.dim, 0).mul_(3), lambda x, c: x.transpose(0, -1).exp_(),
    lambda x, c: x.data.mul_(2),
]
for _name in ("addmm_", "addmv_", "baddbmm_"):
    IN_PLACE.append({
        "addmm_": lambda x, c: x.reshape(1, -1).addmm_(torch.ones(1, 1), c.source.reshape(1, -1), alpha=2),
        "addmv_": lambda x, c: x.reshape(-1).addmv_(torch.ones(x.numel(), 2), torch.ones(2)),
        "baddbmm_": lambda x, c: x.reshape(1, 1, -1).baddbmm_(torch.ones(1, 1, 1), c.source.reshape(1, 1, -1)),
    }[_name])


#: Of infinities and of what is no number these are the library's own affair: conversions to whole numbers, running means, products with 0.
FINITE = {"activations", "types", "deviations", "to whole numbers"}


def numbered(table, named=False):
    return [
        pytest.param(*([family] if named else []), function, id=f"{family}-{place}")
        for family, functions in table.items() for place, function in enumerate(functions)
    ]
