"""The cases: for each operation the arguments that are worth holding it to."""

import torch

INF, NAN = float("inf"), float("nan")
generator = torch.Generator()


def seeded(seed):
    generator.manual_seed(seed)


def normal(*shape, dtype=torch.float32, scale=1.0):
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype)


def positive(*shape, dtype=torch.float32):
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 3 + 0.05).to(dtype)


def whole(low, high, *shape, dtype=torch.int64):
    return torch.randint(low, high, shape, generator=generator).to(dtype)


def bools(*shape):
    return whole(0, 2, *shape).bool()


def values(*numbers, dtype=torch.float32):
    return torch.tensor(numbers, dtype=dtype)


F64, F32, BF16, F16 = torch.float64, torch.float32, torch.bfloat16, torch.float16
I64, I32, U8, BOOL = torch.int64, torch.int32, torch.uint8, torch.bool
FLOATS = (F64, F32, BF16, F16)


def cases():
    """Pairs of an operation's name and its arguments."""
    for family in (arithmetic, comparison, rounding, transcendental, activations, choosing, reductions, normalisations,
                   products, order, gathering, indexing, shapes, joining, constructors, casts, losses, training,
                   linear_algebra, at_bounds):
        seeded(sum(map(ord, family.__name__)))
        yield from family()


def arithmetic():
    for name in ("add", "sub", "mul", "div"):
        for dtype in FLOATS:
            yield name, dict(input=normal(2, 3, dtype=dtype), other=normal(3, dtype=dtype))
        yield name, dict(input=normal(2, 1, 3), other=normal(4, 1))
        yield name, dict(input=normal(2, 3), other=1.5)
        yield name, dict(input=2, other=positive(3))
        yield name, dict(input=whole(-9, 9, 4), other=3)
        yield name, dict(input=whole(-9, 9, 4), other=0.5)
        yield name, dict(input=whole(0, 9, 4, dtype=U8), other=whole(1, 90, 4, dtype=I32))
        yield name, dict(input=normal(3, dtype=BF16), other=normal(3, dtype=F16))
        yield name, dict(input=normal(3, dtype=F16), other=normal(dtype=F64))
        yield name, dict(input=normal(0, 3), other=normal(3))
        yield name, dict(input=values(INF, -INF, NAN, 1.0), other=values(INF, 1.0, 1.0, -0.0))
    yield "add", dict(input=values(200, 255, 3, dtype=U8), other=values(100, 1, 4, dtype=U8))
    yield "mul", dict(input=bools(4), other=bools(4))
    yield "add", dict(input=bools(4), other=1)
    yield "add", dict(input=normal(3, dtype=BF16), other=0.1)
    yield "add", dict(input=normal(2, 2, dtype=BF16), other=1000000.123)
    for name in ("floor_divide", "remainder"):
        yield name, dict(input=values(7, -7, 7, -7, 0), other=values(3, 3, -3, -3, 5))
        yield name, dict(input=values(7, -7, 7, -7, 6.5), other=values(3, 3, -3, -3, 0.5))
        yield name, dict(input=values(7, -7, 8, dtype=I64), other=values(2, 2, -3, dtype=I64))
        yield name, dict(input=whole(-20, 20, 2, 3, dtype=I32), other=4)
        yield name, dict(input=normal(2, 3, dtype=F64, scale=5), other=1.25)
        yield name, dict(input=whole(0, 200, 4, dtype=U8), other=whole(1, 9, 4, dtype=U8))
    for dtype in (F64, F32, BF16):
        yield "pow", dict(input=positive(2, 3, dtype=dtype), exponent=normal(3, dtype=dtype))
    yield "pow", dict(input=normal(5), exponent=2)
    yield "pow", dict(input=normal(5), exponent=3)
    yield "pow", dict(input=positive(5), exponent=-0.5)
    yield "pow", dict(input=2, exponent=normal(4))
    yield "pow", dict(input=2.0, exponent=whole(-3, 4, 5))
    yield "pow", dict(input=whole(-4, 5, 6), exponent=3)
    yield "pow", dict(input=whole(0, 5, 4), exponent=0.5)
    yield "pow", dict(input=values(0.0, -8.0, -2.0, INF, 0.0), exponent=values(0.0, 1 / 3, -1.0, -1.0, -1.0))
    for name in ("maximum", "minimum"):
        yield name, dict(input=normal(2, 3), other=normal(3))
        yield name, dict(input=normal(4, dtype=BF16), other=0.25)
        yield name, dict(input=values(1.0, NAN, -INF, 2.0), other=values(NAN, 1.0, 0.0, 2.0))
        yield name, dict(input=whole(-5, 5, 4, dtype=I32), other=whole(-5, 5, 4))
        yield name, dict(input=whole(-5, 5, 2, 1), other=normal(3))
        # Of equals each has half the gradient.
        yield name, dict(input=values(1.0, -2.0, 3.0, 0.5), other=values(1.0, 2.0, 3.0, -0.5))


def comparison():
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        yield name, dict(input=whole(0, 3, 2, 3), other=whole(0, 3, 3))
        yield name, dict(input=values(1.0, NAN, INF, -0.0), other=values(1.0, NAN, INF, 0.0))
        yield name, dict(input=normal(4, dtype=BF16), other=0)
        yield name, dict(input=whole(0, 4, 5, dtype=U8), other=1.5)
        yield name, dict(input=bools(4), other=bools(4))
        yield name, dict(input=1, other=whole(0, 3, 4, dtype=I32))
        # As one number type: 2^24 + 1 is no f32.
        yield name, dict(input=values(16777217, 16777216, dtype=I64), other=values(16777216.0, 16777216.0))
    for name in ("logical_and", "logical_or", "logical_xor"):
        yield name, dict(input=bools(2, 3), other=bools(3))
        yield name, dict(input=values(0.0, 2.0, NAN, -0.0), other=values(1.0, 0.5, 0.0, 0.0))
        yield name, dict(input=whole(0, 2, 4), other=normal(4))
    yield "logical_not", dict(input=bools(4))
    yield "logical_not", dict(input=values(0.0, -0.0, NAN, 3.0))
    yield "logical_not", dict(input=whole(0, 3, 2, 2, dtype=U8))
    for name in ("isnan", "isinf", "isfinite"):
        for dtype in FLOATS:
            yield name, dict(input=values(0.0, INF, -INF, NAN, 3.0, dtype=dtype))
        yield name, dict(input=whole(0, 3, 3))


def rounding():
    for name in ("neg", "abs", "sign", "floor", "ceil", "round", "trunc"):
        for dtype in FLOATS:
            yield name, dict(input=values(-2.5, -1.5, -0.5, -0.2, 0.0, 0.5, 1.5, 2.5, 2.7, -3.7, dtype=dtype))
        yield name, dict(input=whole(-5, 5, 2, 3))
        yield name, dict(input=values(-3, 0, 7, dtype=I32))
        yield name, dict(input=values(0, 1, 255, dtype=U8))
        yield name, dict(input=values(INF, -INF))
    yield "sign", dict(input=bools(3))
    yield "abs", dict(input=values(NAN))
    yield "clamp", dict(input=normal(2, 3), min=-0.5, max=0.5)
    yield "clamp", dict(input=normal(5, dtype=BF16), min=0)
    yield "clamp", dict(input=normal(5, dtype=F64), max=0.1)
    yield "clamp", dict(input=whole(-9, 9, 5), min=-3, max=3)
    yield "clamp", dict(input=whole(-9, 9, 5, dtype=I32), min=-2.5)
    yield "clamp", dict(input=values(NAN, INF, -INF), min=-1.0, max=1.0)
    yield "clamp", dict(input=values(0.0, 5.0), min=3.0, max=1.0)


def transcendental():
    for name in ("exp", "expm1", "sin", "cos", "tanh", "sigmoid", "erf", "reciprocal"):
        for dtype in FLOATS:
            yield name, dict(input=normal(2, 3, dtype=dtype))
        yield name, dict(input=values(-20.0, -1e-3, 1e-6, 1e-3, 3.0, 20.0))
        yield name, dict(input=values(0, 1, 3, dtype=I64))
        yield name, dict(input=values(True, True, dtype=BOOL))
    for name in ("log", "log2", "log1p", "sqrt", "rsqrt"):
        for dtype in FLOATS:
            yield name, dict(input=positive(2, 3, dtype=dtype))
        yield name, dict(input=values(1e-6, 1e-3, 20.0, 1e6))
        yield name, dict(input=values(1, 3, 9, dtype=I64))
        yield name, dict(input=values(0.0, -0.5, INF, NAN))
    for name in ("exp", "tanh", "sigmoid", "erf", "expm1"):
        yield name, dict(input=values(INF, -INF, NAN, 1000.0, -1000.0))


def activations():
    edges = values(-30.0, -5.0, -1e-3, 0.0, 1e-3, 5.0, 30.0)
    for name in ("relu", "silu", "softplus"):
        for dtype in FLOATS:
            yield name, dict(input=normal(2, 3, dtype=dtype, scale=2))
        yield name, dict(input=edges)
    yield "relu", dict(input=whole(-5, 5, 4))
    yield "relu", dict(input=values(NAN, -INF, INF))
    for approximate in ("none", "tanh"):
        for dtype in FLOATS:
            yield "gelu", dict(input=normal(2, 3, dtype=dtype, scale=2), approximate=approximate)
        yield "gelu", dict(input=edges, approximate=approximate)
    yield "gelu", dict(input=normal(4))


def choosing():
    yield "where", dict(condition=bools(2, 3), input=normal(2, 3), other=normal(2, 3))
    yield "where", dict(condition=bools(2, 1), input=normal(3), other=normal(1))
    yield "where", dict(condition=bools(4), input=normal(4, dtype=BF16), other=0.0)
    yield "where", dict(condition=bools(4), input=1, other=whole(0, 9, 4, dtype=I32))
    yield "where", dict(condition=bools(4), input=whole(0, 9, 4), other=normal(4))
    yield "where", dict(condition=bools(4), input=1.0, other=0.0)
    yield "where", dict(condition=bools(3), input=values(NAN, 1.0, INF), other=-INF)
    yield "masked_fill", dict(input=normal(2, 3), mask=bools(2, 3), value=-INF)
    yield "masked_fill", dict(input=normal(2, 2, 3), mask=bools(2, 3), value=0)
    yield "masked_fill", dict(input=normal(2, 3, dtype=BF16), mask=bools(2, 1), value=0.1)
    yield "masked_fill", dict(input=normal(3, dtype=F64), mask=bools(3), value=normal())
    yield "masked_fill", dict(input=whole(0, 9, 4, dtype=I32), mask=bools(4), value=-1)


def reductions():
    for name in ("sum", "mean", "var", "std"):
        for dtype in FLOATS:
            yield name, dict(input=normal(3, 4, dtype=dtype), dim=-1)
        yield name, dict(input=normal(2, 3, 4))
        yield name, dict(input=normal(2, 3, 4), dim=[0, -1], keepdim=True)
        yield name, dict(input=normal(2, 3, 4), dim=1)
        yield name, dict(input=normal(3, 0), dim=1)
        yield name, dict(input=normal(5, scale=1e4) + 1e6, dim=0)
    for name in ("var", "std"):
        yield name, dict(input=normal(2, 5), dim=1, correction=0)
        yield name, dict(input=normal(2, 5), dim=[0, 1], correction=2, keepdim=True)
        yield name, dict(input=normal(2, 1), dim=1)
    yield "sum", dict(input=whole(-9, 9, 2, 3), dim=0)
    yield "sum", dict(input=values(200, 100, dtype=U8))
    yield "sum", dict(input=bools(2, 5), dim=1)
    yield "sum", dict(input=normal(4, dtype=BF16), dtype="f64")
    yield "sum", dict(input=whole(0, 9, 4), dim=0, dtype="f32")
    # 512 ones and a long tail: a bf16 sum that does not accumulate in f32 stops at 256.
    yield "sum", dict(input=torch.ones(600, dtype=BF16))
    yield "mean", dict(input=torch.ones(600, dtype=BF16))
    yield "sum", dict(input=normal())
    for dtype in (F64, F32, BF16):
        yield "prod", dict(input=normal(3, 4, dtype=dtype), dim=-1)
    yield "prod", dict(input=normal(2, 3))
    yield "prod", dict(input=whole(1, 5, 2, 3, dtype=I32), dim=0, keepdim=True)
    yield "prod", dict(input=normal(2, 0), dim=1)
    yield "prod", dict(input=values(2.0, 0.0, 3.0), dim=0)
    for name in ("amax", "amin"):
        for dtype in (F64, F32, BF16, F16, I64, I32, U8):
            yield name, dict(input=whole(0, 9, 2, 3).to(dtype), dim=1)
        yield name, dict(input=normal(2, 3, 4))
        yield name, dict(input=normal(2, 3, 4), dim=[0, 2], keepdim=True)
        yield name, dict(input=values(1.0, NAN, 3.0), dim=0)
        yield name, dict(input=bools(2, 3), dim=-1)
        yield name, dict(input=values(2.0, 5.0, 5.0, 2.0))
    for name in ("argmax", "argmin"):
        yield name, dict(input=normal(2, 3), dim=1)
        yield name, dict(input=normal(2, 3, 4), dim=-2, keepdim=True)
        yield name, dict(input=normal(2, 3))
        yield name, dict(input=values(1.0, 3.0, 3.0, 1.0), dim=0)
        yield name, dict(input=values(1.0, NAN, 3.0, NAN), dim=0)
        yield name, dict(input=whole(0, 3, 3, 4), dim=0)
        yield name, dict(input=values(5, 5, 5, dtype=U8))
        yield name, dict(input=normal(4, dtype=BF16), dim=0)
    for p in (0, 1, 2, 3, INF, -INF, 0.5):
        yield "norm", dict(input=normal(3, 4), p=p, dim=1)
    yield "norm", dict(input=normal(2, 3, 4))
    yield "norm", dict(input=normal(2, 3, dtype=BF16), dim=-1, keepdim=True)
    yield "norm", dict(input=normal(2, 3, 2, dtype=F64), p=2, dim=[0, 2])
    yield "norm", dict(input=torch.zeros(2, 3), dim=1)
    for name in ("any", "all"):
        yield name, dict(input=bools(3, 2), dim=1)
        yield name, dict(input=bools(2, 3, 2), dim=[0, 2], keepdim=True)
        yield name, dict(input=bools(2, 2))
        yield name, dict(input=values(0.0, NAN, 1.0))
        yield name, dict(input=whole(0, 2, 3, 2), dim=0)
        yield name, dict(input=whole(0, 2, 3, 2, dtype=U8), dim=0)
        yield name, dict(input=torch.zeros(2, 0, dtype=BOOL), dim=1)
    for dtype in FLOATS:
        yield "logsumexp", dict(input=normal(2, 3, dtype=dtype), dim=-1)
    yield "logsumexp", dict(input=normal(2, 3, 4), dim=[0, 2], keepdim=True)
    yield "logsumexp", dict(input=values(1000.0, 1000.0, -1000.0), dim=0)
    yield "logsumexp", dict(input=values(-INF, -INF), dim=0)
    yield "logsumexp", dict(input=values(INF, 1.0), dim=0)
    yield "logsumexp", dict(input=normal(2, 0), dim=1)
    for name in ("cumsum", "cumprod"):
        for dtype in (F64, F32, BF16):
            yield name, dict(input=normal(2, 4, dtype=dtype), dim=1)
        yield name, dict(input=normal(2, 3, 2), dim=-2)
        yield name, dict(input=whole(1, 4, 4, dtype=I32), dim=0)
        yield name, dict(input=bools(5), dim=0)
        yield name, dict(input=normal(0), dim=0)


def normalisations():
    for name in ("softmax", "log_softmax"):
        for dtype in FLOATS:
            yield name, dict(input=normal(2, 5, dtype=dtype), dim=-1)
        yield name, dict(input=normal(2, 3, 4), dim=1)
        yield name, dict(input=normal(3, 2), dim=0)
        yield name, dict(input=values(1000.0, 999.0, -1000.0), dim=0)
        yield name, dict(input=values(0.5, -INF, 1.0), dim=0)
        yield name, dict(input=values(-INF, -INF), dim=0)
        yield name, dict(input=normal(2, 0), dim=1)
        yield name, dict(input=normal(2, 1), dim=1)
    for dtype in FLOATS:
        yield "layer_norm", dict(input=normal(2, 6, dtype=dtype), normalized_shape=[6],
                                 weight=normal(6, dtype=dtype), bias=normal(6, dtype=dtype))
        yield "rms_norm", dict(input=normal(2, 6, dtype=dtype), normalized_shape=[6], weight=normal(6, dtype=dtype),
                               eps=1e-6)
    yield "layer_norm", dict(input=normal(2, 3, 4), normalized_shape=[4])
    yield "layer_norm", dict(input=normal(2, 3, 4), normalized_shape=[3, 4], weight=normal(3, 4), eps=1e-2)
    yield "layer_norm", dict(input=normal(3, 4) + 10, normalized_shape=[4], eps=1e-5)
    yield "layer_norm", dict(input=torch.ones(2, 4), normalized_shape=[4], bias=normal(4))
    yield "rms_norm", dict(input=normal(2, 3, 4), normalized_shape=[4])
    yield "rms_norm", dict(input=normal(2, 3, 4), normalized_shape=[3, 4], eps=0.1)
    yield "rms_norm", dict(input=torch.zeros(1, 4), normalized_shape=[4])


def products():
    for dtype in FLOATS:
        yield "matmul", dict(input=normal(3, 5, dtype=dtype), other=normal(5, 2, dtype=dtype))
    yield "matmul", dict(input=normal(5), other=normal(5))
    yield "matmul", dict(input=normal(5), other=normal(5, 2))
    yield "matmul", dict(input=normal(3, 5), other=normal(5))
    yield "matmul", dict(input=normal(2, 3, 5), other=normal(5))
    yield "matmul", dict(input=normal(5), other=normal(2, 5, 3))
    yield "matmul", dict(input=normal(2, 3, 5), other=normal(5, 4))
    yield "matmul", dict(input=normal(2, 1, 3, 5), other=normal(4, 5, 2))
    yield "matmul", dict(input=normal(3, 0), other=normal(0, 2))
    yield "matmul", dict(input=whole(-4, 5, 2, 3), other=whole(-4, 5, 3, 2))
    yield "matmul", dict(input=normal(17, 33), other=normal(33, 9))
    for equation, shapes in {
        "ij,jk->ik": [(2, 3), (3, 4)], "bhqd,bhkd->bhqk": [(2, 2, 3, 4), (2, 2, 5, 4)],
        "bhqk,bkhd->bqhd": [(1, 2, 3, 4), (1, 4, 2, 5)], "i,j->ij": [(3,), (4,)], "ij->ji": [(2, 3)], "ij->": [(2, 3)],
        "ii->i": [(3, 3)], "ii": [(3, 3)], "ij,j": [(2, 3), (3,)], "...d,dk->...k": [(2, 3, 4), (4, 2)],
        "bld,nhd->blnh": [(1, 2, 3), (2, 2, 3)], "ij,ij->i": [(2, 3), (2, 3)], "a,b,c->abc": [(2,), (3,), (2,)],
        "ba": [(2, 3)], "...ij,...jk": [(2, 1, 2, 3), (4, 3, 2)], "i,i->": [(3,), (3,)],
        "ij,jk,kl->il": [(2, 3), (3, 4), (4, 2)], " i j , j -> i ": [(2, 3), (3,)],
    }.items():
        yield "einsum", dict(equation=equation, operands=[normal(*shape) for shape in shapes])
    yield "einsum", dict(equation="ij,jk->ik", operands=[normal(2, 3, dtype=BF16), normal(3, 2, dtype=BF16)])
    yield "outer", dict(input=normal(3), other=normal(4))
    yield "outer", dict(input=normal(2, dtype=F64), other=normal(3, dtype=F64))
    yield "outer", dict(input=whole(0, 5, 2), other=normal(3))


def order():
    ties = values(3.0, 1.0, 3.0, 2.0, 1.0, 3.0)
    for largest in (True, False):
        yield "topk", dict(input=normal(3, 5), k=2, largest=largest)
        yield "topk", dict(input=ties, k=4, largest=largest)
        yield "topk", dict(input=values(1.0, NAN, 3.0, INF), k=2, largest=largest)
    yield "topk", dict(input=normal(4, 2), k=3, dim=0)
    yield "topk", dict(input=whole(0, 3, 2, 6, dtype=I32), k=6, dim=1)
    yield "topk", dict(input=normal(2, 3, dtype=BF16), k=1)
    yield "topk", dict(input=normal(2, 3), k=0)
    for name in ("sort", "argsort"):
        for descending in (False, True):
            yield name, dict(input=normal(2, 5), descending=descending)
            yield name, dict(input=ties, descending=descending)
            yield name, dict(input=values(1.0, NAN, -INF, INF, NAN), descending=descending)
        yield name, dict(input=whole(0, 4, 4, 3), dim=0)
        yield name, dict(input=normal(3, dtype=F16), dim=-1)
        yield name, dict(input=bools(6))
        yield name, dict(input=normal(2, 0))


def gathering():
    yield "gather", dict(input=normal(3, 4), dim=1, index=whole(0, 4, 3, 2))
    yield "gather", dict(input=normal(3, 4), dim=0, index=whole(0, 3, 2, 3))
    yield "gather", dict(input=normal(2, 3, 4, dtype=BF16), dim=-2, index=whole(0, 3, 2, 2, 4))
    yield "gather", dict(input=whole(0, 99, 5), dim=0, index=values(4, 0, 0, dtype=I64))
    places = values((0, 2, 1), (3, 0, 2), dtype=I64)
    yield "scatter", dict(input=normal(2, 4), dim=1, index=places, src=normal(2, 3))
    yield "scatter", dict(input=normal(2, 4), dim=1, index=places, src=1.5)
    yield "scatter", dict(input=torch.zeros(4, 3), dim=0, index=places, src=normal(2, 3))
    yield "scatter", dict(input=torch.zeros(2, 4, dtype=I64), dim=-1, index=places, src=whole(1, 9, 3, 4))
    yield "scatter_add", dict(input=normal(2, 4), dim=1, index=whole(0, 4, 2, 6), src=normal(2, 6))
    yield "scatter_add", dict(input=normal(4, 3, dtype=F64), dim=0, index=whole(0, 4, 5, 3), src=normal(5, 3, dtype=F64))
    yield "scatter_add", dict(input=torch.zeros(3, dtype=I64), dim=0, index=values(1, 1, 1, dtype=I64),
                              src=torch.ones(3, dtype=I64))
    yield "index_select", dict(input=normal(3, 4), dim=0, index=values(2, 0, 2, dtype=I64))
    yield "index_select", dict(input=normal(2, 3, 4), dim=-1, index=values(3, 1, dtype=I64))
    yield "index_select", dict(input=normal(3, dtype=BF16), dim=0, index=torch.zeros(0, dtype=I64))
    yield "index_select", dict(input=normal(3, 2), dim=0, index=values(1, dtype=I32))
    yield "take_along_dim", dict(input=normal(3, 4), indices=whole(0, 4, 3, 2), dim=1)
    yield "take_along_dim", dict(input=normal(3, 4), indices=whole(0, 4, 1, 2), dim=1)
    yield "take_along_dim", dict(input=normal(1, 4), indices=whole(0, 4, 3, 1), dim=-1)


def indices():
    """Indices for a [3, 4, 5] tensor."""
    yield [0]
    yield [-1, 2]
    yield ["1:"]
    yield ["::2", "1:-1", "-3:"]
    yield ["...", -1]
    yield [None, "...", "0:2"]
    yield [1, None, "::3"]
    yield ["0:0"]
    yield ["-100:100", "3:1"]
    yield ["..."]
    yield [2, "...", 0]
    yield [0, 1, 2]
    one, two = values(2, 0, dtype=I64), values(-1, 3, dtype=I64)
    yield [one]
    yield [":", two]
    yield [one, two]
    # Index tensors apart from each other go to the front.
    yield [one, ":", two]
    yield [one, "...", 3]
    yield [0, ":", two]
    yield [0, two]
    yield [":", one, two]
    yield ["...", values((0, 1), (4, 4), dtype=I64)]
    yield [values((0,), (2,), dtype=I64), values(1, 2, 3, dtype=I64), "::2"]
    yield [one, None, two]
    yield ["1:", None, two, "::2"]
    yield [values(1, dtype=I64)[0], "2:"]
    yield [torch.zeros(0, dtype=I64)]


def indexing():
    for index in indices():
        yield "getitem", dict(input=normal(3, 4, 5), index=index)
    yield "getitem", dict(input=whole(0, 99, 6, dtype=I32), index=["1:6:2"])
    yield "getitem", dict(input=normal(2, 3, dtype=BF16), index=[":", values(2, 2, dtype=I32)])
    yield "getitem", dict(input=normal(2, 3), index=[values(0, 1, dtype=I64), values(2, dtype=I64)])
    for index in indices():
        places = torch.arange(60).reshape(3, 4, 5)[_python(index)]
        # Of two values written to one place PyTorch gives the gradient to both; ours is that of the one that stays.
        repeated = places.unique().numel() < places.numel()
        yield "index_put", dict(input=normal(3, 4, 5), index=index, values=normal(*places.shape), accumulate=repeated)
    yield "index_put", dict(input=normal(2, 3), index=[":", -1], values=0.5)
    yield "index_put", dict(input=normal(2, 3), index=[0], values=normal(1))
    yield "index_put", dict(input=normal(2, 3), index=["...", "1:"], values=normal(2, 1))
    yield "index_put", dict(input=normal(2, 3), index=[values(1, 1, 1, dtype=I64)], values=normal(3, 3), accumulate=True)
    yield "index_put", dict(input=normal(5), index=[values(1, 3, 1, dtype=I64)], values=1.0, accumulate=True)
    yield "index_put", dict(input=normal(2, 3), index=["0:1"], values=normal(3), accumulate=True)
    yield "index_put", dict(input=normal(2, 3), index=[bools(2, 3)], values=-1.0)
    yield "index_put", dict(input=normal(2, 3, 4), index=[values((True, False, True), (False, False, True), dtype=BOOL)],
                            values=normal(4))
    yield "index_put", dict(input=normal(2, 3), index=[":", values(True, False, True, dtype=BOOL)], values=normal(2, 1))
    yield "index_put", dict(input=whole(0, 9, 4), index=["::2"], values=7)
    yield "index_put", dict(input=normal(4, dtype=BF16), index=["1:3"], values=normal(2))


def _python(index):
    from torch_operations import index_of

    return index_of(index)


def shapes():
    x = normal(2, 3, 4)
    yield "reshape", dict(input=x, shape=[6, 4])
    yield "reshape", dict(input=x, shape=[-1])
    yield "reshape", dict(input=x.transpose(0, 2).contiguous(), shape=[4, -1, 2, 1])
    yield "reshape", dict(input=normal(1), shape=[])
    yield "reshape", dict(input=normal(0, 3), shape=[3, 0])
    yield "flatten", dict(input=x)
    yield "flatten", dict(input=x, start_dim=1)
    yield "flatten", dict(input=x, start_dim=-3, end_dim=-2)
    yield "flatten", dict(input=normal())
    yield "unflatten", dict(input=normal(2, 6), dim=1, sizes=[2, 3])
    yield "unflatten", dict(input=normal(2, 6), dim=-1, sizes=[3, -1])
    yield "transpose", dict(input=x, dim0=0, dim1=-1)
    yield "transpose", dict(input=x, dim0=1, dim1=1)
    yield "transpose", dict(input=bools(2, 3), dim0=-2, dim1=-1)
    yield "permute", dict(input=x, dims=[2, 0, 1])
    yield "permute", dict(input=x, dims=[-1, 0, -2])
    yield "movedim", dict(input=x, source=[0], destination=[-1])
    yield "movedim", dict(input=x, source=[0, 1], destination=[1, 2])
    yield "squeeze", dict(input=normal(1, 3, 1))
    yield "squeeze", dict(input=normal(1, 3, 1), dim=-1)
    yield "squeeze", dict(input=normal(1, 3, 1), dim=1)
    yield "squeeze", dict(input=normal(1, 3, 1), dim=[0, 2])
    yield "unsqueeze", dict(input=x, dim=0)
    yield "unsqueeze", dict(input=x, dim=-1)
    yield "unsqueeze", dict(input=x, dim=-4)
    yield "expand", dict(input=normal(3, 1), size=[3, 4])
    yield "expand", dict(input=normal(3, 1), size=[2, -1, 2])
    yield "expand", dict(input=normal(), size=[2, 2])
    yield "expand", dict(input=normal(1, 2), size=[0, 2])
    yield "repeat", dict(input=normal(2, 3), repeats=[2, 1])
    yield "repeat", dict(input=normal(2), repeats=[3, 2])
    yield "repeat", dict(input=normal(2), repeats=[0])
    yield "flip", dict(input=x, dims=[0, -1])
    yield "flip", dict(input=whole(0, 9, 4), dims=[0])
    yield "roll", dict(input=x, shifts=[1], dims=[-1])
    yield "roll", dict(input=x, shifts=[-1, 5], dims=[0, 1])
    yield "roll", dict(input=whole(0, 9, 4), shifts=[1], dims=[0])
    for name in ("tril", "triu"):
        yield name, dict(input=normal(3, 3))
        yield name, dict(input=normal(2, 3, 4), diagonal=1)
        yield name, dict(input=normal(4, 3), diagonal=-2)
        yield name, dict(input=torch.ones(3, 3, dtype=BOOL))
    yield "diagonal", dict(input=normal(3, 3))
    yield "diagonal", dict(input=normal(3, 4), offset=1)
    yield "diagonal", dict(input=normal(2, 3, 4), offset=-1, dim1=1, dim2=2)
    yield "diagonal", dict(input=normal(2, 3, 4), offset=0, dim1=-1, dim2=0)
    yield "diagonal", dict(input=normal(2, 2), offset=5)


def joining():
    yield "cat", dict(tensors=[normal(2, 3), normal(1, 3)])
    yield "cat", dict(tensors=[normal(2, 1), normal(2, 0), normal(2, 3)], dim=-1)
    yield "cat", dict(tensors=[normal(2), whole(0, 9, 2)])
    yield "cat", dict(tensors=[normal(2, dtype=BF16), normal(1, dtype=F16)])
    yield "cat", dict(tensors=[bools(2)])
    yield "stack", dict(tensors=[normal(2, 3), normal(2, 3)])
    yield "stack", dict(tensors=[normal(2, 3), normal(2, 3)], dim=-1)
    yield "stack", dict(tensors=[normal(), normal(), normal()], dim=0)
    yield "split", dict(input=normal(5, 2), split_size=2)
    yield "split", dict(input=normal(2, 6), split_size=[1, 3, 2], dim=-1)
    yield "split", dict(input=normal(2, 6), split_size=3, dim=1)
    yield "chunk", dict(input=normal(6), chunks=3)
    yield "chunk", dict(input=normal(2, 7), chunks=3, dim=1)
    yield "chunk", dict(input=normal(2, 3), chunks=5, dim=-1)
    yield "pad", dict(input=normal(2, 3), pad=[1, 2])
    yield "pad", dict(input=normal(2, 3), pad=[0, 1, 2, 0], value=-1.5)
    yield "pad", dict(input=normal(4), pad=[-1, 2])
    yield "pad", dict(input=whole(0, 9, 3), pad=[1, 1], value=9)
    yield "pad", dict(input=normal(2, dtype=BF16), pad=[0, 1], value=-INF)


def constructors():
    for name in ("zeros", "ones"):
        yield name, dict(size=[2, 3])
        yield name, dict(size=[], dtype="i64")
        yield name, dict(size=[0, 2], dtype="bool")
        yield name, dict(size=[2], dtype="bf16")
    yield "full", dict(size=[2, 2], fill_value=1.5)
    yield "full", dict(size=[2], fill_value=3)
    yield "full", dict(size=[2], fill_value=True)
    yield "full", dict(size=[], fill_value=0.1, dtype="f16")
    yield "full", dict(size=[2], fill_value=-INF)
    yield "arange", dict(start=0, end=5)
    yield "arange", dict(start=5, end=0, step=-2)
    yield "arange", dict(start=0.5, end=3)
    yield "arange", dict(start=0, end=1, step=0.25, dtype="f64")
    yield "arange", dict(start=1, end=4, dtype="f32")
    yield "arange", dict(start=3, end=3)
    yield "linspace", dict(start=0, end=1, steps=5)
    yield "linspace", dict(start=-1.5, end=2, steps=4, dtype="f64")
    yield "linspace", dict(start=3, end=9, steps=1)
    yield "eye", dict(n=3)
    yield "eye", dict(n=2, m=4, dtype="i64")
    yield "eye", dict(n=3, m=1, dtype="bool")
    yield "one_hot", dict(input=values(0, 2, 1, dtype=I64), num_classes=4)
    yield "one_hot", dict(input=whole(0, 3, 2, 2), num_classes=3)


def casts():
    from torch_operations import DTYPES

    for name, dtype in DTYPES.items():
        signed = values(-2.7, -1.0, 0.0, 0.4, 1.0, 2.5, 3.99, 100.0, dtype=F64)
        for target in DTYPES:
            source = signed.abs() if "u8" in (name, target) else signed
            yield "to", dict(input=source.to(dtype), dtype=target)
    # Ties and the ends of the narrow types' ranges.
    yield "to", dict(input=values(1.00390625, 1.01171875, 3.3e38, 1e-40, 3.4e38), dtype="bf16")
    yield "to", dict(input=values(1.00048828125, 1.00146484375, 65504.0, 65519.0, 65520.0, 1e-8, 6e-8), dtype="f16")
    yield "to", dict(input=values(16777217, 9007199254740993, -16777219, dtype=I64), dtype="f32")
    yield "to", dict(input=values(9007199254740993, -9007199254740993, dtype=I64), dtype="f64")
    yield "to", dict(input=values(NAN, INF, -INF, 0.0, -0.0), dtype="bool")
    yield "to", dict(input=values(NAN, INF, -INF, 1e300, dtype=F64), dtype="f32")


def losses():
    for reduction in ("mean", "sum", "none"):
        for dtype in FLOATS:
            yield "cross_entropy", dict(input=normal(4, 5, dtype=dtype), target=whole(0, 5, 4), reduction=reduction)
        weight, target = positive(5), values(1, -100, 4, 0, dtype=I64)
        yield "cross_entropy", dict(input=normal(4, 5), target=target, weight=weight, reduction=reduction)
        yield "cross_entropy", dict(input=normal(4, 5), target=target, weight=weight, reduction=reduction, label_smoothing=0.2)
        yield "cross_entropy", dict(input=normal(4, 5, dtype=F64), target=whole(0, 5, 4), ignore_index=2, reduction=reduction)
        yield "cross_entropy", dict(input=normal(2, 5, 3), target=whole(0, 5, 2, 3), reduction=reduction, label_smoothing=0.1)
        yield "nll_loss", dict(input=-positive(4, 5), target=target, weight=weight, reduction=reduction)
        yield "nll_loss", dict(input=-positive(4, 5, dtype=F64), target=whole(0, 5, 4), reduction=reduction)
        yield "nll_loss", dict(input=-positive(2, 4, 3, 2), target=whole(0, 4, 2, 3, 2), reduction=reduction, ignore_index=1)
        for dtype in (F64, F32, BF16):
            yield "mse_loss", dict(input=normal(2, 3, dtype=dtype), target=normal(2, 3, dtype=dtype), reduction=reduction)
        yield "binary_cross_entropy_with_logits", dict(input=normal(2, 3, scale=4), target=bools(2, 3).float(), reduction=reduction)
        yield "binary_cross_entropy_with_logits", dict(
            input=normal(2, 3, dtype=F64), target=positive(2, 3, dtype=F64) / 4, weight=positive(2, 1, dtype=F64),
            reduction=reduction, pos_weight=positive(3, dtype=F64))
    yield "cross_entropy", dict(input=normal(5), target=values(3, dtype=I64)[0])
    yield "cross_entropy", dict(input=normal(2, 3), target=values(-100, -100, dtype=I64), reduction="sum")
    yield "cross_entropy", dict(input=values((0.5, -INF, 2.0), (1.0, 1.0, -INF)), target=values(2, 0, dtype=I64))
    yield "cross_entropy", dict(input=normal(3, 4, scale=200), target=whole(0, 4, 3))
    for reduction in ("mean", "sum", "none", "batchmean"):
        logs = torch.log_softmax(normal(3, 4, dtype=F64), -1)
        yield "kl_div", dict(input=logs, target=torch.softmax(normal(3, 4, dtype=F64), -1), reduction=reduction)
        yield "kl_div", dict(input=logs.float(), target=torch.log_softmax(normal(3, 4), -1), reduction=reduction,
                             log_target=True)
    yield "kl_div", dict(input=-positive(2, 3), target=values((0.0, 0.5, 0.5), (1.0, 0.0, 0.0)), reduction="none")
    yield "mse_loss", dict(input=normal(2, 1), target=normal(2, 3), reduction="none")
    yield "binary_cross_entropy_with_logits", dict(input=values(100.0, -100.0, 0.0), target=values(0.0, 1.0, 0.5))
    for dtype in (F64, F32, BF16):
        yield "cosine_similarity", dict(x1=normal(2, 5, dtype=dtype), x2=normal(2, 5, dtype=dtype))
    yield "cosine_similarity", dict(x1=normal(2, 3, 4), x2=normal(3, 1), dim=0)
    yield "cosine_similarity", dict(x1=normal(2, 3, 4), x2=normal(2, 3, 4), dim=1)
    yield "cosine_similarity", dict(x1=normal(2, 3, 4, 2), x2=normal(2, 3, 4, 2), dim=1, eps=0.5)
    yield "cosine_similarity", dict(x1=normal(4), x2=normal(4), dim=-1)
    yield "detach", dict(input=normal(2, 3))


def training():
    for dtype in (F64, F32):
        x, g, b = normal(2, 3, dtype=dtype), normal(2, 3, dtype=dtype), normal(2, 3, dtype=dtype)
        yield "sgd_step", dict(parameter=x, gradient=g, lr=0.1)
        yield "sgd_step", dict(parameter=x, gradient=g, lr=torch.tensor(0.05, dtype=dtype), weight_decay=0.3)
        yield "sgd_step", dict(parameter=x, gradient=g, lr=0.1, momentum=0.9)
        yield "sgd_step", dict(parameter=x, gradient=g, lr=0.1, momentum_buffer=b, momentum=0.9, dampening=0.5)
        yield "sgd_step", dict(parameter=x, gradient=g, lr=0.1, momentum_buffer=b, momentum=0.9, nesterov=True,
                               weight_decay=0.01)
        for decoupled in (False, True):
            for step, decay in ((1, 0.0), (7, 0.0), (3, 0.1)):
                yield "adam_step", dict(parameter=x, gradient=g, exp_avg=b * 0.1, exp_avg_sq=b * b * 0.2, step=step, lr=0.01,
                                        weight_decay=decay, decoupled=decoupled)
        yield "adam_step", dict(parameter=x, gradient=g, exp_avg=b, exp_avg_sq=b * b, step=torch.tensor(2), lr=1e-3,
                                beta1=0.5, beta2=0.75, eps=1e-3)
        for p in (2, 1, INF):
            yield "clip_grad_norm", dict(gradients=[x, g[0], b[0, 0]], max_norm=1.5, norm_type=p)
        yield "clip_grad_norm", dict(gradients=[x, g], max_norm=100.0)


def linear_algebra():
    def spread(*shape, dtype=F64):
        """Matrices whose singular values are far from each other and from 0."""
        u, _, v = torch.linalg.svd(normal(*shape, dtype=F64), full_matrices=False)
        return ((u * torch.arange(1, u.shape[-1] + 1, dtype=F64).flip(0)) @ v).to(dtype)

    def symmetric(*shape, dtype=F64):
        x = spread(*shape)
        values = torch.arange(shape[-1], dtype=F64) * 1.5 - 2.25
        q = torch.linalg.qr(x)[0]
        return (q * values @ q.mT).to(dtype)

    def definite(*shape, dtype=F64):
        x = spread(*shape)
        return (x @ x.mT + 0.1 * torch.eye(shape[-1], dtype=F64)).to(dtype)

    for dtype in (F64, F32):
        for shape in ((3, 3), (2, 4, 3), (3, 5), (1, 1)):
            yield "qr", dict(input=spread(*shape, dtype=dtype))
            yield "svd", dict(input=spread(*shape, dtype=dtype), full_matrices=False)
            yield "pinv", dict(input=spread(*shape, dtype=dtype))
        yield "qr", dict(input=spread(3, 3, dtype=dtype), mode="complete")
        yield "svd", dict(input=spread(2, 3, 3, dtype=dtype))
        yield "eigh", dict(input=symmetric(4, 4, dtype=dtype))
        yield "eigh", dict(input=symmetric(2, 3, 3, dtype=dtype))
        yield "cholesky", dict(input=definite(4, 4, dtype=dtype))
        yield "cholesky", dict(input=definite(2, 1, 3, 3, dtype=dtype))
        for name in ("inv", "det", "slogdet", "matrix_exp"):
            yield name, dict(input=spread(3, 3, dtype=dtype))
            yield name, dict(input=spread(2, 4, 4, dtype=dtype))
        yield "solve", dict(A=spread(3, 3, dtype=dtype), B=normal(3, dtype=dtype))
        yield "solve", dict(A=spread(3, 3, dtype=dtype), B=normal(3, 2, dtype=dtype))
        yield "solve", dict(A=spread(2, 3, 3, dtype=dtype), B=normal(2, 3, dtype=dtype))
        yield "solve", dict(A=spread(2, 1, 3, 3, dtype=dtype), B=normal(4, 3, 2, dtype=dtype))
        yield "solve", dict(A=spread(2, 3, 3, dtype=dtype), B=normal(3, dtype=dtype))
        for shape in ((5, 3), (2, 4, 2), (3, 3)):
            yield "lstsq", dict(A=spread(*shape, dtype=dtype), B=normal(*shape[:-1], 2, dtype=dtype))
        for map in ("matrix_exp", "cayley", "householder"):
            for shape in ((3, 3), (4, 2), (2, 2, 4)):
                x = normal(*shape, dtype=dtype)
                torch.diagonal(x, dim1=-2, dim2=-1).copy_(torch.diagonal(x, dim1=-2, dim2=-1).sign())
                yield "orthogonal", dict(input=x, orthogonal_map=map)
    yield "matrix_exp", dict(input=spread(3, 3) * 20)
    yield "matrix_exp", dict(input=torch.zeros(2, 2))
    # Of rank 2 and 1: the determinant's gradient is not 0, and 0.
    rank = spread(3, 3)
    rank[2] = rank[0] + rank[1]
    yield "pinv", dict(input=rank[:, :2] @ normal(2, 4, dtype=F64), rtol=1e-6)
    for name in ("det", "slogdet"):
        yield name, dict(input=values((1.0, 2.0), (2.0, 4.0)))
        yield name, dict(input=values((0.0, 1.0), (1.0, 0.0)))
    yield "svd", dict(input=torch.zeros(2, 0), full_matrices=False)
    yield "inv", dict(input=torch.zeros(0, 3, 3))


def at_bounds():
    """Where a value is the bound, and where a bound is beyond what the number type holds."""
    x = values(-2.0, -1.0, 0.0, 0.5, 2.0)
    for dtype in (F32, F64):
        yield "clamp", dict(input=x.to(dtype), min=-1.0, max=0.5)
        yield "clamp", dict(input=x.to(dtype), min=-1)
        yield "clamp", dict(input=x.to(dtype), max=0.5)
    yield "clamp", dict(input=x, min=0.5, max=0.5)
    yield "clamp", dict(input=x, min=1.0, max=0.5)
    yield "clamp", dict(input=values(0, 5, 200, dtype=U8), min=-3)
    yield "clamp", dict(input=values(0, 5, 200, dtype=U8), min=-3, max=4)
    yield "clamp", dict(input=values(0, 5, 200, dtype=U8), min=5, max=1000)
    yield "clamp", dict(input=values(-7, 5, 200, dtype=I32), min=-3_000_000_000, max=4)
