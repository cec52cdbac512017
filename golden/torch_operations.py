"""Each operation of the language, computed by torch. Parameters are the language's, in its order.

Most are torch's own function under the same name. What is written out here is what the language takes and torch's
function does not: a number on either side, several dimensions, `x[...]` as a function, a stable order.
"""

import math

import torch
import torch.nn.functional as functional

DTYPES = {
    "f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16,
    "i64": torch.int64, "i32": torch.int32, "u8": torch.uint8, "bool": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def as_tensor(operand):
    """A number as the zero-dimensional tensor that promotes as the number does."""
    return operand if isinstance(operand, torch.Tensor) else torch.tensor(operand)


def all_dims(input, dim):
    return tuple(range(input.dim())) if dim is None else dim


def index_of(items):
    """The language's form of an index as Python's: a text is a slice or `...`."""
    result = []
    for item in items:
        if item == "...":
            item = Ellipsis
        elif isinstance(item, str):
            item = slice(*(int(part) if part else None for part in item.split(":")))
        result.append(item)
    return tuple(result)


def index_put(input, index, values, accumulate=False):
    index, values = index_of(index), as_tensor(values).to(input.dtype)
    places = torch.arange(input.numel()).reshape(input.shape)[index]
    values = values.expand(places.shape).reshape(-1)
    flat = input.reshape(-1).index_put((places.reshape(-1),), values, accumulate=accumulate)
    return flat.reshape(input.shape)


def topk(input, k, dim=-1, largest=True):
    values, places = torch.sort(input, dim=dim, descending=largest, stable=True)
    return values.narrow(dim, 0, k), places.narrow(dim, 0, k)


def optimised(optimiser, parameter, gradient, state):
    """The parameter and its state after one step of an optimiser that starts from that state."""
    parameter.grad = gradient.clone()
    optimiser.state[parameter].update(state)
    optimiser.step()
    return parameter.data, optimiser.state[parameter]


def sgd_step(parameter, gradient, lr, momentum_buffer=None, **options):
    parameter = torch.nn.Parameter(parameter.clone())
    state = {} if momentum_buffer is None else {"momentum_buffer": momentum_buffer.clone()}
    optimiser = torch.optim.SGD([parameter], lr=float(lr), **options)
    new, state = optimised(optimiser, parameter, gradient, state)
    buffer = state.get("momentum_buffer")
    return new, torch.zeros_like(new) if buffer is None else buffer


def adam_step(parameter, gradient, exp_avg, exp_avg_sq, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0,
              decoupled=False):
    parameter = torch.nn.Parameter(parameter.clone())
    family = torch.optim.AdamW if decoupled else torch.optim.Adam
    optimiser = family([parameter], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay)
    state = {"step": torch.tensor(float(step) - 1), "exp_avg": exp_avg.clone(), "exp_avg_sq": exp_avg_sq.clone()}
    new, state = optimised(optimiser, parameter, gradient, state)
    return new, state["exp_avg"], state["exp_avg_sq"]


def clip_grad_norm(gradients, max_norm, norm_type=2):
    parameters = [torch.nn.Parameter(gradient.clone()) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = gradient.clone()
    total = torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)
    return [*(parameter.grad for parameter in parameters), total]


def leading_signs(vectors):
    """The sign of the largest element of each column; the language's convention, as torch leaves signs free."""
    places = vectors.detach().abs().argmax(-2, keepdim=True)
    return vectors.detach().gather(-2, places).sign()


def turned(vectors, signs):
    """The first columns times signs; the others as they are."""
    count = signs.shape[-1]
    return torch.cat([vectors[..., :count] * signs, vectors[..., count:]], -1)


def qr(input, mode="reduced"):
    q, r = torch.linalg.qr(input, mode)
    signs = torch.diagonal(r.detach(), dim1=-2, dim2=-1).sign().unsqueeze(-2)
    return turned(q, signs), turned(r.mT, signs).mT


def svd(input, full_matrices=True):
    u, s, v = torch.linalg.svd(input, full_matrices)
    vectors = u[..., :s.shape[-1]]
    signs = leading_signs(vectors) if u.numel() else vectors.sum(-2, keepdim=True)
    return turned(u, signs), s, turned(v.mT, signs).mT


def eigh(input):
    values, vectors = torch.linalg.eigh(input)
    return values, vectors * leading_signs(vectors)


def orthogonal(input, orthogonal_map="matrix_exp"):
    from torch.nn.utils.parametrizations import _Orthogonal, _OrthMaps

    return _Orthogonal(input, _OrthMaps[orthogonal_map], use_trivialization=False)(input)


OPERATIONS = {
    "sub": lambda input, other: as_tensor(input) - other,
    "mul": lambda input, other: as_tensor(input) * other,
    "add": lambda input, other: as_tensor(input) + other,
    "div": lambda input, other: as_tensor(input) / other,
    "floor_divide": lambda input, other: torch.floor_divide(as_tensor(input), other),
    "remainder": lambda input, other: torch.remainder(input, other),
    "pow": lambda input, exponent: torch.pow(input, exponent),
    "maximum": lambda input, other: torch.maximum(as_tensor(input), as_tensor(other)),
    "minimum": lambda input, other: torch.minimum(as_tensor(input), as_tensor(other)),
    **{name: lambda input, other, function=getattr(torch, name): function(as_tensor(input), as_tensor(other))
       for name in ("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor")},
    "gelu": functional.gelu, "silu": functional.silu, "softplus": functional.softplus,
    "where": lambda condition, input, other: torch.where(condition, input, other),
    "masked_fill": lambda input, mask, value: torch.masked_fill(*torch.broadcast_tensors(input, mask), value),
    "sum": lambda input, dim=None, keepdim=False, dtype=None: torch.sum(
        input, all_dims(input, dim), keepdim, dtype=DTYPES.get(dtype)),
    "mean": lambda input, dim=None, keepdim=False: torch.mean(input, all_dims(input, dim), keepdim),
    "prod": lambda input, dim=None, keepdim=False: (
        torch.prod(input) if dim is None else torch.prod(input, dim, keepdim)),
    "var": lambda input, dim=None, correction=1, keepdim=False: torch.var(
        input, all_dims(input, dim), correction=correction, keepdim=keepdim),
    "std": lambda input, dim=None, correction=1, keepdim=False: torch.std(
        input, all_dims(input, dim), correction=correction, keepdim=keepdim),
    "amax": lambda input, dim=None, keepdim=False: torch.amax(input, all_dims(input, dim), keepdim),
    "amin": lambda input, dim=None, keepdim=False: torch.amin(input, all_dims(input, dim), keepdim),
    "norm": lambda input, p=2, dim=None, keepdim=False: torch.linalg.vector_norm(
        input, p, all_dims(input, dim), keepdim),
    "any": lambda input, dim=None, keepdim=False: torch.any(input, all_dims(input, dim), keepdim),
    "all": lambda input, dim=None, keepdim=False: torch.all(input, all_dims(input, dim), keepdim),
    "layer_norm": functional.layer_norm, "rms_norm": functional.rms_norm,
    "einsum": lambda equation, operands: torch.einsum(equation, *operands),
    "outer": lambda input, other: torch.outer(input, other),
    "topk": topk,
    "sort": lambda input, dim=-1, descending=False: tuple(
        torch.sort(input, dim=dim, descending=descending, stable=True)),
    "argsort": lambda input, dim=-1, descending=False: torch.argsort(
        input, dim=dim, descending=descending, stable=True),
    "scatter": lambda input, dim, index, src: torch.scatter(input, dim, index, src),
    "getitem": lambda input, index: input[index_of(index)],
    "index_put": index_put,
    "squeeze": lambda input, dim=None: torch.squeeze(input) if dim is None else torch.squeeze(input, dim),
    "unflatten": lambda input, dim, sizes: torch.unflatten(input, dim, sizes),
    "expand": lambda input, size: input.expand(size),
    "repeat": lambda input, repeats: input.repeat(repeats),
    "split": lambda input, split_size, dim=0: torch.split(input, split_size, dim),
    "pad": lambda input, pad, value=0: functional.pad(input, pad, value=value),
    **{name: lambda size, dtype="f32", function=getattr(torch, name): function(size, dtype=DTYPES[dtype])
       for name in ("zeros", "ones")},
    "full": lambda size, fill_value, dtype=None: torch.full(size, fill_value, dtype=DTYPES.get(dtype)),
    "arange": lambda start, end, step=1, dtype=None: torch.arange(start, end, step, dtype=DTYPES.get(dtype)),
    "linspace": lambda start, end, steps, dtype="f32": torch.linspace(start, end, steps, dtype=DTYPES[dtype]),
    "eye": lambda n, m=None, dtype="f32": torch.eye(n, n if m is None else m, dtype=DTYPES[dtype]),
    "one_hot": functional.one_hot,
    "to": lambda input, dtype: input.to(DTYPES[dtype]),
    "cross_entropy": functional.cross_entropy, "nll_loss": functional.nll_loss, "kl_div": functional.kl_div,
    "mse_loss": functional.mse_loss, "cosine_similarity": functional.cosine_similarity,
    "binary_cross_entropy_with_logits": functional.binary_cross_entropy_with_logits,
    "detach": lambda input: input.detach(),
    "qr": qr, "svd": svd, "eigh": eigh, "solve": torch.linalg.solve,
    "lstsq": lambda A, B, rcond=None: torch.linalg.lstsq(A, B, rcond=rcond).solution,
    "pinv": lambda input, rtol=None: torch.linalg.pinv(input, rtol=rtol), "orthogonal": orthogonal,
    **{name: lambda input, function=getattr(torch.linalg, name): function(input)
       for name in ("cholesky", "inv", "det", "slogdet", "matrix_exp")},
    "sgd_step": sgd_step, "adam_step": adam_step, "clip_grad_norm": clip_grad_norm,
}


def compute(operation, arguments):
    """The outputs, as a list."""
    function = OPERATIONS.get(operation) or getattr(torch, operation)
    result = function(**arguments)
    return [result] if isinstance(result, torch.Tensor) else list(result)


# What changes no digit, or rounds just once: held to the bit.
EXACT = set("""add sub mul div floor_divide maximum minimum eq ne lt le gt ge logical_and logical_or logical_xor logical_not
isnan isinf isfinite neg abs sign floor ceil round trunc clamp relu where masked_fill amax amin argmax argmin any all
topk sort argsort gather scatter index_select take_along_dim getitem reshape flatten unflatten transpose permute movedim
squeeze unsqueeze expand repeat cat stack split chunk pad flip roll tril triu diagonal zeros ones full arange eye one_hot
to detach""".split())
TOLERANCES = {torch.float64: 1e-12, torch.float32: 4e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}


# Of these torch's f32 is further from the truth than its f32 itself.
ILL_CONDITIONED = set("qr svd eigh cholesky solve lstsq inv pinv det slogdet matrix_exp orthogonal".split())


def tolerance(operation, outputs):
    """How far each element may be off, in units of max(1, |expected|)."""
    if operation in ILL_CONDITIONED:
        return 1e-11 if outputs[0].dtype == torch.float64 else 2e-5
    if operation in EXACT or math.prod(o.is_floating_point() for o in outputs) == 0:
        return 0
    return max(TOLERANCES[output.dtype] for output in outputs)
