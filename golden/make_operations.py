"""Makes golden/operations/: what torch computes for the operations of the language, and how number types promote.

    python make_operations.py

See README.md for the format.
"""

import json
import math
from pathlib import Path

import torch
from operation_cases import cases
from safetensors.torch import save_file
from torch_operations import DTYPES, ILL_CONDITIONED, NAMES, compute, tolerance

ROOT = Path(__file__).parent / "operations"
BINARY = ["add", "sub", "mul", "div", "floor_divide", "remainder", "pow", "maximum", "minimum", "eq", "lt", "logical_and",
          "matmul"]
UNARY = ["neg", "abs", "sign", "floor", "round", "exp", "log", "sqrt", "reciprocal", "sin", "tanh", "sigmoid", "erf",
         "relu", "gelu", "silu", "softplus", "logical_not", "isnan", "isfinite", "sum", "mean", "prod", "var", "std", "amax",
         "argmax", "norm", "any", "all"]
WITH_DIM = ["logsumexp", "cumsum", "cumprod", "softmax", "log_softmax", "sort", "argsort"]


class Store:
    """Tensors under short keys; equal ones once."""

    def __init__(self):
        self.tensors, self.keys = {}, {}

    def key(self, tensor):
        tensor = tensor.detach().contiguous()
        raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        identity = (tensor.dtype, tuple(tensor.shape), raw)
        if identity not in self.keys:
            self.keys[identity] = f"t{len(self.keys)}"
            self.tensors[self.keys[identity]] = tensor.clone()
        return self.keys[identity]

    def encode(self, value):
        if isinstance(value, torch.Tensor):
            return {"tensor": self.key(value)}
        if isinstance(value, list):
            return [self.encode(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        return value


SEVERAL = {"topk", "sort", "split", "chunk", "sgd_step", "adam_step", "clip_grad_norm", "qr", "svd", "eigh",
           "slogdet"}
# Through these torch lets no gradient flow.
WITHOUT_GRADIENT = {"floor_divide", "detach", "sgd_step", "adam_step", "clip_grad_norm"}
CONSTANT = {("cross_entropy", "weight"), ("nll_loss", "weight"), ("binary_cross_entropy_with_logits", "weight"),
            ("binary_cross_entropy_with_logits", "pos_weight")}


# Of these torch's gradients in f32 show how it rounds a mean: they are made in f64, and rounded.
PRECISE = {"var", "std", "layer_norm"}


def widened(value):
    return value.double() if isinstance(value, torch.Tensor) and value.dtype == torch.float32 else value


def with_gradients(operation, arguments):
    """The arguments with the f32 and f64 tensors asking for gradients, and those tensors by name."""
    leaves = {}

    def leaf(name, value):
        floats = isinstance(value, torch.Tensor) and value.dtype in (torch.float32, torch.float64)
        if floats and (operation, name) not in CONSTANT:
            value = leaves[name] = value.clone().requires_grad_()
        return value

    changed = {}
    for name, value in arguments.items():
        if name in ("tensors", "operands"):
            changed[name] = [leaf(f"{name}.{i}", item) for i, item in enumerate(value)]
        else:
            changed[name] = leaf(name, value)
    return changed, leaves


def gradient(operation, arguments, store, seed):
    """Cotangents of the outputs and the gradients of the arguments that they give; none where torch has none, or where
    it is not finite."""
    if operation in WITHOUT_GRADIENT:
        return None
    dtypes = [o.dtype for o in compute(operation, arguments)]
    if operation in PRECISE:
        arguments = {name: widened(value) for name, value in arguments.items()}
    arguments, leaves = with_gradients(operation, arguments)
    with torch.enable_grad():
        outputs = compute(operation, arguments)
    generator = torch.Generator().manual_seed(seed)
    usable = [o.requires_grad and o.dtype in (torch.float32, torch.float64) for o in outputs]
    # Of a singular matrix torch gives a determinant the gradient 0; it is that of the cofactors.
    singular = operation == "det" and bool((outputs[0] == 0).any())
    if singular or not leaves or not any(usable) or not all(o.isfinite().all() for o in outputs):
        return None
    cotangents = [torch.randn(o.shape, generator=generator, dtype=dtype) if use else None
                  for o, use, dtype in zip(outputs, usable, dtypes)]
    pairs = [(o, c.to(o.dtype)) for o, c in zip(outputs, cotangents) if c is not None]
    grads = torch.autograd.grad([o for o, _ in pairs], list(leaves.values()), [c for _, c in pairs], allow_unused=True)
    found = {name: grad for name, grad in zip(leaves, grads) if grad is not None}
    if operation in PRECISE:
        found = {name: grad.to(dtypes[0]) for name, grad in found.items()}
    if not found or not all(grad.isfinite().all() for grad in found.values()):
        return None
    return {
        "cotangents": [None if c is None else store.key(c) for c in cotangents],
        "expected": {name: store.key(grad) for name, grad in found.items()},
        "tolerance": (1e-10 if operation in ILL_CONDITIONED else 1e-11)
        if all(g.dtype == torch.float64 for g in found.values()) else 1e-4 if operation in ILL_CONDITIONED else 1e-5,
    }


def operation_cases():
    store, listing, count = Store(), [], {}
    for operation, arguments in cases():
        outputs = compute(operation, arguments)
        number = count[operation] = count.get(operation, 0) + 1
        keys = [store.key(output) for output in outputs]
        several = operation in SEVERAL
        case = {
            "name": f"{operation}.{number}", "operation": operation,
            "arguments": {name: store.encode(value) for name, value in arguments.items()},
            "expected": keys if several else keys[0], "tolerance": tolerance(operation, outputs),
        }
        backward = gradient(operation, arguments, store, number)
        if backward:
            case["gradient"] = backward
        listing.append(case)
    return store, listing


def result_type(function):
    """The name of the number type of what it returns; none where torch refuses."""
    try:
        result = function()
    except (RuntimeError, TypeError, NotImplementedError):
        return None
    result = result[0] if isinstance(result, list) else result
    return NAMES[result if isinstance(result, torch.dtype) else result.dtype]


def promotion():
    numbers = {"bool": True, "int": 1, "float": 1.0}

    def table(function, columns=DTYPES):
        return {row: {column: result_type(lambda: function(row, column)) for column in columns} for row in DTYPES}

    def ones(name, *shape):
        return torch.ones(shape, dtype=DTYPES[name])

    tables = {
        "tensor_tensor": table(lambda a, b: torch.result_type(ones(a, 2), ones(b, 2))),
        "tensor_zero_dim": table(lambda a, b: torch.result_type(ones(a, 2), ones(b))),
        "zero_dim_zero_dim": table(lambda a, b: torch.result_type(ones(a), ones(b))),
        "tensor_number": table(lambda a, b: torch.result_type(ones(a, 2), numbers[b]), numbers),
        "zero_dim_number": table(lambda a, b: torch.result_type(ones(a), numbers[b]), numbers),
    }
    square = {name: ones(name, 2, 2) for name in DTYPES}
    operations = {name: {dtype: result_type(lambda: compute(name, {"input": x})) for dtype, x in square.items()}
                  for name in UNARY}
    operations |= {name: {dtype: result_type(lambda: compute(name, {"input": x, "dim": 0})) for dtype, x in square.items()}
                   for name in WITH_DIM}
    second = {"pow": "exponent"}
    pairs = {name: table(lambda a, b: compute(name, {"input": square[a], second.get(name, "other"): square[b]}))
             for name in BINARY}
    pairs["where"] = table(lambda a, b: compute(
        "where", {"condition": square["bool"], "input": square[a], "other": square[b]}))
    pairs["cat"] = table(lambda a, b: compute("cat", {"tensors": [square[a], square[b]]}))
    with_numbers = {name: table(lambda a, b: compute(name, {"input": square[a], second.get(name, "other"): numbers[b]}),
                                numbers) for name in BINARY if name != "matmul"}
    with_numbers["clamp"] = table(lambda a, b: compute("clamp", {"input": square[a], "min": numbers[b]}), numbers)
    with_numbers["where"] = table(lambda a, b: compute(
        "where", {"condition": square["bool"], "input": square[a], "other": numbers[b]}), numbers)
    with_numbers["masked_fill"] = table(lambda a, b: compute(
        "masked_fill", {"input": square[a], "mask": square["bool"], "value": numbers[b]}), numbers)
    return {"result_type": tables, "one_tensor": operations, "two_tensors": pairs, "tensor_and_number": with_numbers}


def main():
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    ROOT.mkdir(exist_ok=True)
    store, listing = operation_cases()
    lines = ",\n".join(json.dumps(case) for case in listing)
    (ROOT / "operations.json").write_text(f"[\n{lines}\n]\n")
    save_file(store.tensors, ROOT / "operations.safetensors")
    groups = []
    for group, tables in promotion().items():
        rows = ",\n".join(f'  "{name}": {json.dumps(table)}' for name, table in tables.items())
        groups.append(f' "{group}": {{\n{rows}\n }}')
    (ROOT / "promotion.json").write_text("{\n" + ",\n".join(groups) + "\n}\n")
    gradients = sum("gradient" in case for case in listing)
    print(f"{len(listing)} cases, {gradients} with gradients, {len(store.tensors)} tensors")


if __name__ == "__main__":
    main()
