"""Every operation, as it is written on tensors in Python, held to torch over shapes, number types and broadcasting.

Each is tried twice: on results, where it is evaluated at once, and on values of a trace, where it is recorded. Both must give the same
bits, and torch's numbers.
"""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pellucid as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from holding import FLOATS, MODEL, TYPES, arrays, close, hold, lift, mine, pairs, torch_type
from pellucid import _operations as operations

HELD: set[str] = set()


def case(*names):
    """Marks which operations a test holds, and how often it is tried."""
    HELD.update(names)

    def wrap(test):
        quick = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
        return quick(test)

    return wrap


BINARY = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "maximum": torch.maximum, "minimum": torch.minimum, "eq": torch.eq,
    "ne": torch.ne, "lt": torch.lt, "le": torch.le, "gt": torch.gt, "ge": torch.ge,
    "logical_and": torch.logical_and, "logical_or": torch.logical_or, "logical_xor": torch.logical_xor,
}
TENSORS_ONLY = {"maximum", "minimum", "logical_and", "logical_or", "logical_xor"}


@pytest.mark.parametrize("name", BINARY)
@case(*BINARY)
@given(pairs(), pairs(same=True))
def test_binary(name, both, alike):
    a, b = alike if name in TENSORS_ONLY else both
    if name == "sub" and (a.dtype == torch.bool or getattr(b, "dtype", None) == torch.bool):
        a, b = a.to(torch.int64), b.to(torch.int64) if isinstance(b, torch.Tensor) else b
    hold(getattr(operations, name), BINARY[name], a, b)


@case("div", "pow", "floor_divide", "remainder")
@given(pairs(kinds=FLOATS), st.sampled_from(["div", "floor_divide", "remainder"]))
def test_division(both, name):
    a, b = both
    if isinstance(b, torch.Tensor):
        b = torch.where(b.abs() < 0.2, torch.ones_like(b), b)
    reference = {"div": torch.div, "floor_divide": torch.floor_divide, "remainder": torch.remainder}[name]
    if name != "div" and (a.dtype in (torch.bfloat16, torch.float16) or getattr(b, "dtype", None) in (torch.bfloat16, torch.float16)):
        a, b = a.float(), b.float() if isinstance(b, torch.Tensor) else b  # a step at every whole number: no tolerance holds
    hold(getattr(operations, name), reference, a, b)


@case("pow")
@given(arrays(positive=True), st.sampled_from([2, 0.5, -1, 3]))
def test_powers(x, exponent):
    hold(operations.pow, torch.pow, x, exponent)


UNARY = {
    "neg": torch.neg, "abs": torch.abs, "sign": torch.sign, "floor": torch.floor, "ceil": torch.ceil, "round": torch.round,
    "trunc": torch.trunc, "exp": torch.exp, "expm1": torch.expm1, "sin": torch.sin, "cos": torch.cos, "tanh": torch.tanh,
    "sigmoid": torch.sigmoid, "erf": torch.erf, "relu": torch.relu, "isnan": torch.isnan, "isinf": torch.isinf,
    "isfinite": torch.isfinite, "logical_not": torch.logical_not, "detach": lambda x: x.detach(),
    "silu": torch.nn.functional.silu, "softplus": torch.nn.functional.softplus,
}
POSITIVE = {"log": torch.log, "log2": torch.log2, "log1p": torch.log1p, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "reciprocal": torch.reciprocal}


@pytest.mark.parametrize("name", [*UNARY, *POSITIVE])
@case(*UNARY, *POSITIVE)
@given(arrays(), arrays(positive=True))
def test_unary(name, x, positive):
    if name in POSITIVE:
        hold(getattr(operations, name), POSITIVE[name], positive)
    else:
        hold(getattr(operations, name), UNARY[name], x)


@case("gelu", "clamp", "to")
@given(arrays(), st.sampled_from(["none", "tanh"]), st.sampled_from(TYPES))
def test_with_options(x, approximate, kind):
    hold(lambda x: operations.gelu(x, approximate), lambda x: torch.nn.functional.gelu(x, approximate=approximate), x)
    hold(lambda x: operations.clamp(x, -1, 0.5), lambda x: x.clamp(-1, 0.5), x)
    if kind != "uint8":
        hold(lambda x: x.to(kind), lambda x: x.to(torch_type(kind)), x)


@case("where", "masked_fill")
@given(pairs(kinds=FLOATS, same=True), st.integers(0, 1000))
def test_choosing(both, seed):
    a, b = both
    mask = torch.rand(a.shape, generator=torch.Generator().manual_seed(seed)) > 0.5
    hold(operations.where, torch.where, mask, a, b)
    hold(lambda a, m: operations.masked_fill(a, m, -2.0), lambda a, m: a.masked_fill(m, -2.0), a, mask)


REDUCTIONS = ["sum", "mean", "amax", "amin", "any", "all", "prod", "argmax", "argmin", "var", "std", "norm", "logsumexp", "cumsum", "cumprod"]


@pytest.mark.parametrize("name", REDUCTIONS)
@case(*REDUCTIONS)
@given(arrays(least=1, kinds=["float32", "float64"]), st.data(), st.booleans())
def test_reductions(name, x, data, keepdim):
    dim = data.draw(st.integers(-x.ndim, x.ndim - 1))
    if name in ("cumsum", "cumprod"):
        hold(lambda x: getattr(operations, name)(x, dim), lambda x: getattr(torch, name)(x, dim), x)
        return
    if name in ("var", "std") and x.shape[dim] < 2:
        return
    reference = torch.linalg.vector_norm if name == "norm" else getattr(torch, name)
    if name == "norm":
        hold(lambda x: x.norm(2, dim, keepdim), lambda x: reference(x, 2, dim, keepdim), x)
    else:
        hold(lambda x: getattr(x, name)(dim, keepdim=keepdim), lambda x: reference(x, dim, keepdim=keepdim), x)
    if name in ("sum", "mean", "amax", "amin", "any", "all", "argmax", "argmin"):
        hold(lambda x: getattr(operations, name)(x), lambda x: getattr(x, name)(), x)


@case("softmax", "log_softmax", "layer_norm", "rms_norm", "cosine_similarity")
@given(arrays(least=2, kinds=FLOATS), st.data())
def test_normalisations(x, data):
    dim = data.draw(st.integers(-x.ndim, x.ndim - 1))
    hold(lambda x: x.softmax(dim), lambda x: x.softmax(dim), x)
    hold(lambda x: x.log_softmax(dim), lambda x: x.log_softmax(dim), x)
    if x.dtype in (torch.float32, torch.float64) and x.shape[-1] > 1:
        size = list(x.shape[-1:])
        hold(lambda x: operations.layer_norm(x, size), lambda x: torch.nn.functional.layer_norm(x, size), x)
        hold(lambda x: operations.rms_norm(x, size, eps=1e-6), lambda x: torch.nn.functional.rms_norm(x, size, eps=1e-6), x)
        hold(lambda x: operations.cosine_similarity(x, x * 2 + 1, -1), lambda x: torch.cosine_similarity(x, x * 2 + 1, -1), x)


@case("cross_entropy", "nll_loss", "kl_div", "mse_loss", "binary_cross_entropy_with_logits")
@given(arrays(shape=[3, 4], kinds=["float32", "float64"]), st.sampled_from(["mean", "sum", "none"]))
def test_losses(x, reduction):
    functional, target = torch.nn.functional, torch.tensor([0, 3, 1])
    other = (x * 0.5).softmax(-1)
    hold(lambda x, t: operations.cross_entropy(x, t, reduction=reduction), lambda x, t: functional.cross_entropy(x, t, reduction=reduction), x, target)
    hold(lambda x, t: operations.nll_loss(x, t, reduction=reduction), lambda x, t: functional.nll_loss(x, t, reduction=reduction), x.log_softmax(-1), target)
    hold(lambda x, t: operations.kl_div(x, t, reduction=reduction), lambda x, t: functional.kl_div(x, t, reduction=reduction), x.log_softmax(-1), other)
    hold(lambda x, t: operations.mse_loss(x, t, reduction=reduction), lambda x, t: functional.mse_loss(x, t, reduction=reduction), x, other)
    hold(lambda x, t: operations.binary_cross_entropy_with_logits(x, t, reduction=reduction),
         lambda x, t: functional.binary_cross_entropy_with_logits(x, t, reduction=reduction), x, other)


@case("matmul", "einsum", "outer")
@given(st.data(), st.sampled_from(FLOATS))
def test_products(data, kind):
    m, k, n, b = (data.draw(st.integers(1, 4)) for _ in range(4))
    left, right = data.draw(arrays([b, m, k], [kind])), data.draw(arrays([k, n], [kind]))
    hold(operations.matmul, torch.matmul, left, right)
    hold(operations.matmul, torch.matmul, left[0, 0], right)
    if kind in ("float32", "float64"):
        hold(lambda a, c: pl.einsum("bmk,kn->bnm", a, c), lambda a, c: torch.einsum("bmk,kn->bnm", a, c), left, right)
        hold(operations.outer, torch.outer, left[0, 0], right[0])


@case("cholesky", "solve", "lstsq", "inv", "pinv", "det", "slogdet", "matrix_exp", "eigh", "svd", "qr", "orthogonal")
@given(arrays(shape=[3, 3], kinds=["float64"]), arrays(shape=[3, 2], kinds=["float64"]))
def test_linear_algebra(x, b):
    spd = x @ x.T + torch.eye(3, dtype=x.dtype)
    hold(operations.cholesky, torch.linalg.cholesky, spd)
    hold(operations.solve, torch.linalg.solve, spd, b)
    hold(operations.inv, torch.linalg.inv, spd)
    hold(operations.pinv, torch.linalg.pinv, b + 3 * torch.eye(3, 2, dtype=b.dtype))
    hold(operations.det, torch.linalg.det, spd)
    hold(operations.slogdet, lambda x: tuple(torch.linalg.slogdet(x)), spd)
    hold(operations.matrix_exp, torch.linalg.matrix_exp, x * 0.3)
    hold(lambda a, b: operations.lstsq(a, b), lambda a, b: torch.linalg.lstsq(a, b).solution, spd, b)
    # Up to signs, which decompositions leave free.
    hold(lambda x: operations.eigh(x).eigenvalues, lambda x: torch.linalg.eigh(x).eigenvalues, spd)
    hold(lambda x: operations.svd(x, False).S, lambda x: torch.linalg.svd(x, False).S, x)
    u, s, vh = operations.svd(mine(x), False)
    close(u @ (s.unsqueeze(-1) * vh), x, "svd")
    q, r = operations.qr(mine(x))
    close(q @ r, x, "qr")
    close(q.T @ q, torch.eye(3, dtype=x.dtype), "qr")
    o = operations.orthogonal(mine(x))
    close(o.T @ o, torch.eye(3, dtype=x.dtype), "orthogonal")


@case("topk", "sort", "argsort", "gather", "take_along_dim", "scatter", "scatter_add", "index_select")
@given(st.permutations(range(12)), st.booleans(), st.integers(0, 1), st.integers(1, 3))
def test_order_and_gathering(order, flag, dim, k):
    x = torch.tensor(order, dtype=torch.float32).reshape(3, 4) / 3
    hold(lambda x: x.topk(k, dim, flag), lambda x: tuple(x.topk(k, dim, largest=flag)), x)
    hold(lambda x: x.sort(dim, flag), lambda x: tuple(x.sort(dim, descending=flag)), x)
    hold(lambda x: x.argsort(dim, flag), lambda x: x.argsort(dim, descending=flag), x)
    index = torch.tensor(order).reshape(3, 4) % x.shape[dim]
    hold(lambda x, i: x.gather(dim, i), lambda x, i: x.gather(dim, i), x, index)
    hold(lambda x, i: operations.take_along_dim(x, i, dim), lambda x, i: torch.take_along_dim(x, i, dim), x, index)
    hold(lambda x, i, s: x.scatter_add(dim, i, s), lambda x, i, s: x.scatter_add(dim, i, s), x, index, x * 2)
    hold(lambda x, i: x.scatter(dim, i, 7.0), lambda x, i: x.scatter(dim, i, 7.0), x, index)
    hold(lambda x, i: x.index_select(dim, i), lambda x, i: x.index_select(dim, i), x, index[0] % x.shape[dim])


ITEMS = st.one_of(
    st.integers(-2, 1), st.just(None), st.just(...), st.builds(slice, st.none() | st.integers(-3, 2), st.none() | st.integers(-2, 4), st.none() | st.integers(1, 2)),
)


@case("getitem", "index_put")
@given(arrays(shape=[2, 3, 4], kinds=TYPES), st.lists(ITEMS, min_size=1, max_size=4), st.integers(0, 100))
def test_indexing(x, items, seed):
    index = tuple(items)
    if sum(each is ... for each in items) > 1 or sum(each is not None and each is not ... for each in items) > 3:
        return
    hold(lambda x: x[index], lambda x: x[index], x)
    expected = x.clone()
    if expected[index].numel() == 0:
        return
    value = torch.ones_like(expected[index])
    expected[index] = value
    found = mine(x)
    found[index] = mine(value)
    close(found, expected, index)
    rows = torch.tensor([1, 0, 1])
    hold(lambda x, i: x[i], lambda x, i: x[i], x, rows)
    hold(lambda x, i: x[:, i, 1:], lambda x, i: x[:, i, 1:], x, rows)
    if x.dtype.is_floating_point:
        hold(lambda x, m: operations.index_put(x, m, 0.5), lambda x, m: x.index_put((m,), torch.tensor(0.5, dtype=x.dtype)), x, x > 0)
        hold(lambda x, i: operations.index_put(x, i, 1.0, True), lambda x, i: x.index_put((i,), torch.tensor(1.0, dtype=x.dtype), True), x, torch.tensor([1, 0]))


SHAPES = {
    "reshape": (lambda x: x.reshape(-1, 4), None), "flatten": (lambda x: x.flatten(1), None), "unflatten": (lambda x: x.unflatten(-1, (2, 2)), None),
    "transpose": (lambda x: x.transpose(0, -1), None), "permute": (lambda x: x.permute(2, 0, 1), None), "movedim": (lambda x: x.movedim(0, -1), None),
    "squeeze": (lambda x: x[:, :1].squeeze(1), None), "unsqueeze": (lambda x: x.unsqueeze(-2), None), "expand": (lambda x: x[:, :1].expand(2, 3, 4), None),
    "repeat": (lambda x: x.repeat(2, 1, 1), None), "split": (lambda x: x.split(2, -1), None), "chunk": (lambda x: x.chunk(2, 1), None),
    "flip": (lambda x: x.flip(0, 2), None), "roll": (lambda x: x.roll(1, 2), lambda x: x.roll(1, 2)), "tril": (lambda x: x.tril(), None),
    "triu": (lambda x: x.triu(1), None), "diagonal": (lambda x: x.diagonal(0, 1, 2), None),
    "pad": (lambda x: operations.pad(x, [1, 2, 0, 1], 3), lambda x: torch.nn.functional.pad(x, [1, 2, 0, 1], value=3)),
    "cat": (lambda x: operations.cat([x, x], 1), lambda x: torch.cat([x, x], 1)),
    "stack": (lambda x: operations.stack([x, x], -1), lambda x: torch.stack([x, x], -1)),
}


@pytest.mark.parametrize("name", SHAPES)
@case(*SHAPES)
@given(arrays(shape=[2, 3, 4], kinds=["float32", "bfloat16", "int64", "bool"]))
def test_shapes(name, x):
    function, reference = SHAPES[name]
    if x.dtype == torch.bool and name in ("pad",):
        x = x.long()
    hold(function, reference or function, x)


@case("zeros", "ones", "full", "arange", "linspace", "eye", "one_hot")
@given(st.integers(1, 5), st.integers(1, 5))
def test_constructors(n, m):
    close(pl.zeros(n, m), torch.zeros(n, m), "zeros")
    close(pl.ones(n, m, dtype=pl.int64), torch.ones(n, m, dtype=torch.int64), "ones")
    close(pl.full((n,), 2.5), torch.full((n,), 2.5), "full")
    close(pl.full((n,), 2), torch.full((n,), 2), "full")
    close(pl.arange(n), torch.arange(n), "arange")
    close(pl.arange(0, n, 0.5), torch.arange(0, n, 0.5), "arange")
    close(pl.linspace(0, n, m), torch.linspace(0, n, m), "linspace")
    close(pl.eye(n, m), torch.eye(n, m), "eye")
    hold(lambda x: operations.one_hot(x, 6), lambda x: torch.nn.functional.one_hot(x, 6), torch.arange(n))


@case("sgd_step", "adam_step", "clip_grad_norm")
@given(arrays(shape=[4], kinds=["float32", "float64"]), arrays(shape=[4], kinds=["float32"]))
def test_training(x, gradient):
    gradient = gradient.to(x.dtype)
    for name, make in (("sgd", lambda p: torch.optim.SGD([p], lr=0.1)), ("adam", lambda p: torch.optim.Adam([p], lr=0.1))):
        parameter = torch.nn.Parameter(x.clone())
        parameter.grad = gradient.clone()
        make(parameter).step()
        if name == "sgd":
            found = operations.sgd_step(mine(x), mine(gradient), 0.1)[0]
        else:
            zero = pl.zeros_like(mine(x))
            found = operations.adam_step(mine(x), mine(gradient), zero, zero, 1, 0.1)[0]
        close(found, parameter.detach(), name)
    scaled, norm = operations.clip_grad_norm([mine(gradient)], 1.0)
    size = float(gradient.norm())
    assert math.isclose(float(norm), size, rel_tol=1e-4)
    assert float(scaled.norm()) <= 1.0 + 1e-4


IN_PLACE = ["add_", "sub_", "mul_", "div_", "clamp_", "neg_", "exp_", "relu_", "tril_", "masked_fill_"]


@pytest.mark.parametrize("name", IN_PLACE)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(arrays(shape=[3, 4], kinds=FLOATS), st.integers(0, 2))
def test_in_place(name, x, row):
    def change(x):
        rest = {"add_": (2.0,), "sub_": (0.5,), "mul_": (3.0,), "div_": (2.0,), "clamp_": (-1.0, 1.0)}.get(name, ())
        if name == "masked_fill_":
            rest = (x > 0, 1.0)
        target = x if name in ("tril_", "masked_fill_") else x[row]
        getattr(target, name)(*rest)
        return x

    hold(lambda x: change(x.clone()), lambda x: change(x.clone()), x)


def test_functions_of_torch_record():
    x = torch.rand(3, 4)
    functions = {
        "exp": torch.exp, "softmax": lambda x: torch.softmax(x, -1), "nn.softmax": lambda x: torch.nn.functional.softmax(x, dim=-1),
        "gelu": torch.nn.functional.gelu, "einsum": lambda x: torch.einsum("ij,kj->ik", x, x), "cat": lambda x: torch.cat([x, x], dim=1),
        "stack": lambda x: torch.stack([x, x]), "where": lambda x: torch.where(x > 0.5, x, torch.zeros(())), "topk": lambda x: torch.topk(x, 2).values,
        "norm": lambda x: torch.linalg.vector_norm(x, dim=-1) if not isinstance(x, pl.Tensor) else x.norm(dim=-1), "max": lambda x: torch.max(x, dim=1).values,
        "mean": lambda x: torch.mean(x, dim=0), "matmul": lambda x: torch.matmul(x, torch.ones(4, 2)), "left": lambda x: torch.ones(4) + x,
        "left matmul": lambda x: torch.ones(2, 3) @ x, "layer_norm": lambda x: torch.nn.functional.layer_norm(x, (4,)),
        "transpose": lambda x: torch.transpose(x, 0, 1), "clamp": lambda x: torch.clamp(x, 0.2, 0.8), "cross_entropy": lambda x: torch.nn.functional.cross_entropy(x, torch.tensor([0, 1, 2])),
        "linear": lambda x: torch.nn.functional.linear(x, torch.ones(5, 4), torch.ones(5)), "sub": lambda x: 1 - x, "std": lambda x: torch.std(x, dim=-1),
    }
    with MODEL.session():
        value = lift(pl.zeros(()), pl.tensor(x))
        saved = {name: function(value).save() for name, function in functions.items()}
    for name, function in functions.items():
        close(saved[name], function(x), name)


def test_dlpack_to_torch_is_without_a_copy_and_keeps_bf16():
    for kind in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool"):
        x = pl.tensor([[0, 1, 2], [3, 4, 5]]).to(kind)
        y = torch.from_dlpack(x)
        assert y.dtype == torch_type(kind) and y.shape == (2, 3)
        assert torch.equal(y, torch.tensor([[0, 1, 2], [3, 4, 5]]).to(torch_type(kind)))
    y = torch.from_dlpack(pl.tensor([1.0, 2.0], dtype="bfloat16"))
    y += 1  # its memory is its own, and lives as long as it does
    assert y.tolist() == [2.0, 3.0]
    assert pl.tensor(torch.tensor([1.5], dtype=torch.bfloat16)).dtype == pl.bfloat16


#: Random numbers have no counterpart in torch: they are held elsewhere, by `golden/philox.py`.
RANDOM = {"randn", "rand", "randint", "randperm"}


def test_every_operation_is_held():
    import ast
    import inspect

    tree = ast.parse(inspect.getsource(operations))
    every = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert every - RANDOM - HELD == set()
