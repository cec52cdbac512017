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
to""".split())
TOLERANCES = {torch.float64: 1e-12, torch.float32: 4e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def tolerance(operation, outputs):
    """How far each element may be off, in units of max(1, |expected|)."""
    if operation in EXACT or math.prod(o.is_floating_point() for o in outputs) == 0:
        return 0
    return max(TOLERANCES[output.dtype] for output in outputs)
