"""Shapes and number types that torch gives, or null where it refuses, for thousands of random arguments of each kind of
operation, valid and not: `operations/shapes.json`. Tensors are written as their types, `f32[2, 3]`.
"""

import json
import pathlib
import random
import warnings

import torch

from torch_operations import DTYPES, NAMES, compute

ROOT = pathlib.Path(__file__).parent / "operations"
rng = random.Random(20)


def size():
    return rng.choice([0, 1, 1, 2, 2, 3, 3, 4, 6])


def shape(low=0, high=4):
    return [size() for _ in range(rng.randint(low, high))]


def like(sizes):
    """A shape near another: some sizes 1, some dropped in front, now and then one changed."""
    sizes = [1 if rng.random() < 0.2 else s for s in sizes]
    if sizes and rng.random() < 0.15:
        sizes[rng.randrange(len(sizes))] = size()
    cut = rng.choice([0, 0, 0, 1])
    return ([size()] if rng.random() < 0.1 else []) + sizes[cut:]


def text(dtype, sizes):
    return f"{dtype}{list(sizes)}"


def dtype(*common):
    return rng.choice(list(common) if common and rng.random() < 0.8 else list(DTYPES))


def floating(low=0, high=4):
    return text(dtype("f32"), shape(low, high))


def dim(sizes):
    n = len(sizes)
    return rng.randint(-n - 1, n) if rng.random() < 0.2 else rng.randint(-max(n, 1), max(n, 1) - 1)


def dims(sizes):
    return [dim(sizes) for _ in range(rng.choice([0, 1, 1, 2, 2, 3]))]


def flag():
    return rng.random() < 0.5


def binary(name):
    a = shape()
    second = "exponent" if name == "pow" else "other"
    return {"input": text(dtype(), a), second: text(dtype(), like(a))}


def reduction(name):
    a = shape()
    arguments = {"input": text(dtype("f32"), a), "keepdim": flag()}
    if name in ("argmax", "argmin"):
        if flag():
            arguments["dim"] = dim(a)
    elif name == "prod":
        if flag():
            arguments["dim"] = dim(a)
        else:
            del arguments["keepdim"]
    elif name == "logsumexp":
        arguments["dim"] = dims(a) or [0]
    elif flag():
        arguments["dim"] = dims(a)
    if name == "norm":
        arguments["p"] = rng.choice([0, 1, 2, 3, "inf", "-inf", -1])
    return arguments


def along(name):
    a = shape()
    return {"input": text(dtype("f32"), a), "dim": dim(a)}


def matmul(_):
    k, m, n, batch = size(), size(), size(), shape(0, 2)
    a = rng.choice([[k], [m, k], batch + [m, k]])
    b = rng.choice([[k], [k, n], like(batch) + [k, n]])
    if rng.random() < 0.15:
        b = shape()
    return {"input": text(dtype("f32"), a), "other": text("f32" if flag() else dtype("f32"), b)}


def einsum(_):
    letters = "abcA"
    sizes = {letter: rng.choice([1, 2, 3]) for letter in letters}
    operands, words = [], []
    for _ in range(rng.choice([1, 1, 2, 2, 3])):
        word = [rng.choice(letters) for _ in range(rng.randint(0, 3))]
        own = [sizes[letter] if rng.random() < 0.9 else size() for letter in word]
        if rng.random() < 0.3:
            place, extra = rng.randint(0, len(word)), [rng.choice([1, 2]) for _ in range(rng.randint(0, 2))]
            own[place:place] = extra
            word.insert(place, "...")
        words.append(" ".join(word) if rng.random() < 0.2 else "".join(word))
        operands.append(text("f32", own))
    equation = ",".join(words)
    if rng.random() < 0.6:
        output = [letter for letter in letters if letter in equation and flag()]
        rng.shuffle(output)
        if rng.random() < 0.1:
            output.append(rng.choice(letters))
        equation += "->" + "".join((["..."] if "..." in equation and rng.random() < 0.8 else []) + output)
    return {"equation": equation, "operands": operands}


def normalise(name):
    a = shape(1, 3)
    count = rng.randint(1, len(a))
    tail = a[-count:] if rng.random() < 0.85 else shape(1, 2)
    arguments = {"input": text(dtype("f32"), a), "normalized_shape": tail}
    for parameter in ("weight", "bias") if name == "layer_norm" else ("weight",):
        if flag():
            arguments[parameter] = text(rng.choice(["f32", "f32", "bf16", "f64"]), tail if rng.random() < 0.9 else shape(0, 2))
    return arguments


def topk(_):
    a = shape(1, 4)
    return {"input": text(rng.choice(["f32", "i64", "u8"]), a), "k": rng.randint(0, 3), "dim": dim(a), "largest": flag()}


def sort(_):
    a = shape()
    return {"input": text(dtype(), a), "dim": dim(a), "descending": flag()}


def where(_):
    a = shape()
    return {"condition": text(rng.choice(["bool", "bool", "bool", "i64"]), like(a)), "input": text(dtype(), a),
            "other": rng.choice([1, 1.5, True, text(dtype(), like(a))])}


def masked_fill(_):
    a = shape()
    return {"input": text(dtype(), a), "mask": text(dtype("bool"), like(a)),
            "value": rng.choice([0, 1.5, -1, True, 1e30, "inf", text(dtype(), []), text("f32", like(a))])}


def clamp(_):
    arguments = {"input": text(dtype(), shape())}
    for bound in ("min", "max"):
        if rng.random() < 0.7:
            arguments[bound] = rng.choice([0, 1, 0.5, True])
    return arguments


def gather(name):
    a = shape(0, 3)
    index = [s if rng.random() < 0.7 else size() for s in a]
    if rng.random() < 0.1:
        index = shape(0, 3)
    arguments = {"input": text("f32", a), "dim": dim(a), "index": text(rng.choice(["i64", "i64", "i32"]), index)}
    if name == "gather":
        return arguments
    if name == "scatter" and rng.random() < 0.3:
        return {**arguments, "src": rng.choice([0, 1.5, 1e300])}
    return {**arguments, "src": text(dtype("f32"), [s + rng.choice([0, 0, 1, -1]) if s else s for s in index])}


def index_select(_):
    a = shape(0, 3)
    return {"input": text("f32", a), "dim": dim(a), "index": text(rng.choice(["i64", "i64", "i32", "f32"]), shape(0, 1) if rng.random() < 0.9 else shape(2, 2))}


def take_along_dim(_):
    a = shape(1, 3)
    return {"input": text("f32", a), "indices": text(rng.choice(["i64", "i64", "i64", "f32"]), [rng.choice([s, s, 1, size()]) for s in a]), "dim": dim(a)}


def index(sizes, writing):
    items, place, pointed, ellipsis = [], 0, shape(0, 2), False
    while place < len(sizes) and rng.random() < 0.8 or rng.random() < 0.1:
        kind = rng.choice(["integer", "slice", "slice", "tensor", "tensor", "new", "ellipsis", "mask"])
        n = sizes[place] if place < len(sizes) else 2
        if kind == "integer":
            items.append(rng.randint(-n, n - 1) if n and rng.random() < 0.9 else rng.randint(-n - 1, n))
            place += 1
        elif kind == "slice":
            part = lambda: rng.choice(["", str(rng.randint(-5, 6))])
            items.append(f"{part()}:{part()}" + rng.choice(["", "", f":{rng.randint(1, 3)}"]))
            place += 1
        elif kind == "tensor":
            items.append(text(rng.choice(["i64", "i64", "i32"]), like(pointed)))
            place += 1
        elif kind == "new":
            items.append(None)
        elif kind == "ellipsis" and not ellipsis:
            ellipsis = True
            items.append("...")
            place += rng.randint(0, 2)
        elif kind == "mask" and writing and place < len(sizes):
            count = rng.randint(1, min(2, len(sizes) - place))
            items.append(text("bool", sizes[place:place + count] if rng.random() < 0.9 else [size()]))
            place += count
    return items


def getitem(_):
    a = shape()
    return {"input": text(dtype("f32"), a), "index": index(a, False)}


def sized(sizes):
    """A shape of as many elements, or nearly."""
    total = 1
    for s in sizes:
        total *= s
    result = []
    while total > 1 and rng.random() < 0.8:
        factor = rng.choice([f for f in range(1, total + 1) if total % f == 0])
        result.append(factor)
        total //= factor
    result.append(total)
    if rng.random() < 0.5:
        result[rng.randrange(len(result))] = -1
    if rng.random() < 0.15:
        result.insert(rng.randint(0, len(result)), rng.choice([-1, 0, 1, 2, -2]))
    return result


def reshape(_):
    a = shape()
    return {"input": text("f32", a), "shape": sized(a)}


def flatten(_):
    a = shape()
    return {"input": text("f32", a), "start_dim": dim(a), "end_dim": dim(a)}


def unflatten(_):
    a = shape(1, 3)
    d = dim(a)
    n = a[d] if -len(a) <= d < len(a) else 2
    return {"input": text("f32", a), "dim": d, "sizes": sized([n])}


def transpose(_):
    a = shape()
    return {"input": text("f32", a), "dim0": dim(a), "dim1": dim(a)}


def permute(_):
    a = shape()
    order = [place - (len(a) if flag() else 0) for place in rng.sample(range(len(a)), len(a))]
    return {"input": text("f32", a), "dims": order if rng.random() < 0.8 else dims(a)}


def movedim(_):
    a = shape()
    count = rng.randint(0, 2)
    draw = lambda: [dim(a) for _ in range(count if rng.random() < 0.9 else 1)]
    return {"input": text("f32", a), "source": draw(), "destination": draw()}


def squeeze(_):
    a = shape()
    return {"input": text("f32", a), **({"dim": dims(a)} if flag() else {})}


def unsqueeze(_):
    a = shape(0, 3)
    return {"input": text("f32", a), "dim": rng.randint(-len(a) - 2, len(a) + 1)}


def expand(_):
    a = shape(0, 3)
    to = [rng.choice([s, s, -1, size() if s == 1 else s, size()]) for s in a]
    return {"input": text("f32", a), "size": [rng.choice([size(), size(), -1]) for _ in range(rng.choice([0, 0, 1]))] + to}


def repeat(_):
    a = shape(0, 3)
    # Of no elements torch makes even -1 times as many.
    times = [1, 2, 3, 0] if 0 in a or flag() else [1, 2, -1]
    return {"input": text("f32", a), "repeats": [rng.choice(times) for _ in range(len(a) + rng.choice([0, 0, 1, -1 if a else 0]))]}


def joined(name):
    a = shape(0 if name == "stack" else 1, 3)
    d = dim(a)
    tensors = []
    for _ in range(rng.randint(1, 3)):
        own = list(a)
        if name == "cat" and own and -len(own) <= d < len(own):
            own[d] = size()
        if rng.random() < 0.1:
            own = rng.choice([[0], shape(0, 3)])
        tensors.append(text(dtype("f32"), own))
    return {"tensors": tensors, "dim": d}


def split(_):
    a = shape(0, 3)
    d = dim(a)
    n = a[d] if a and -len(a) <= d < len(a) else 2
    first = rng.randint(0, n)
    sizes = rng.choice([rng.randint(-1, 4), rng.randint(1, 3), [first, n - first], [n], [size(), size()]])
    return {"input": text("f32", a), "split_size": sizes, "dim": d}


def chunk(_):
    a = shape(0, 3)
    return {"input": text("f32", a), "chunks": rng.randint(0, 5), "dim": dim(a)}


def pad(_):
    a = shape(0, 3)
    amounts = [rng.choice([0, 1, 2, -1, -2]) for _ in range(2 * rng.randint(0, len(a) + (rng.random() < 0.1)) + (rng.random() < 0.1))]
    return {"input": text("f32", a), "pad": amounts}


def flip(_):
    a = shape()
    return {"input": text("f32", a), "dims": dims(a)}


def roll(_):
    a = shape(1, 3)
    d = dims(a)
    return {"input": text("f32", a), "shifts": [rng.randint(-9, 9) for _ in d] if rng.random() < 0.8 else [1], "dims": d}


def triangle(_):
    return {"input": text(dtype(), shape()), "diagonal": rng.randint(-3, 3)}


def diagonal(_):
    a = shape()
    return {"input": text("f32", a), "offset": rng.randint(-4, 4), "dim1": dim(a), "dim2": dim(a)}


def arange(_):
    number = lambda: rng.choice([rng.randint(-9, 9), rng.randint(-9, 9), rng.randint(-90, 90) / 8])
    return {"start": number(), "end": number(), "step": number(), **({"dtype": rng.choice(["f64", "f32", "i64", "bool"])} if flag() else {})}


def cumulative(name):
    return along(name)


def outer(_):
    return {"input": text(dtype(), shape(1, 1) if rng.random() < 0.9 else shape()), "other": text(dtype(), shape(1, 1))}


def sides(square):
    n = rng.randint(1, 4)
    return [rng.randint(1, 2) for _ in range(rng.choice([0, 0, 1, 2]))] + [n, n if square and rng.random() < 0.85 else rng.randint(1, 4)]


def matrices(name):
    square = name in ("eigh", "det", "slogdet", "matrix_exp")
    arguments = {"input": text(rng.choice(["f32", "f32", "f64", "f64", "f16", "i64"] if name != "matrix_exp" else ["f32", "f64"]),
                               sides(square) if rng.random() < 0.9 else shape(0, 1))}
    if name == "qr":
        arguments["mode"] = rng.choice(["reduced", "complete", "full"])
    if name == "svd":
        arguments["full_matrices"] = flag()
    return arguments


def class_loss(name):
    a = [rng.randint(1, 3) for _ in range(rng.randint(0, 4))]
    others = a[:1] + a[2:] if len(a) > 1 else []
    if rng.random() < 0.1:
        others = [rng.randint(1, 3) for _ in range(rng.randint(0, 3))]
    arguments = {"input": text(rng.choice(["f32", "f32", "f64", "bf16", "i64"]), a), "target": text("i64", others),
                 "reduction": rng.choice(["mean", "sum", "none", "all"])}
    if rng.random() < 0.3:
        arguments["weight"] = text(rng.choice(["f32", "f64"]), [a[min(1, len(a) - 1)]] if a and rng.random() < 0.9 else [4])
    if name == "cross_entropy" and flag():
        arguments["label_smoothing"] = rng.choice([0.0, 0.5, 1.0, 1.5])
    return arguments


def cosine_similarity(_):
    # torch takes whole numbers beside floats; the language wants them cast.
    a, floats = shape(), ["f32", "f32", "f64", "bf16"]
    return {"x1": text(rng.choice(floats), a), "x2": text(rng.choice(floats), like(a)), "dim": dim(a)}


GENERATORS = {
    **dict.fromkeys("add sub mul div floor_divide remainder pow maximum minimum eq logical_and".split(), binary),
    **dict.fromkeys("sum mean prod var std amax argmax norm any all logsumexp".split(), reduction),
    **dict.fromkeys("cumsum cumprod softmax".split(), along),
    "matmul": matmul, "einsum": einsum, "outer": outer, "layer_norm": normalise, "rms_norm": normalise, "topk": topk,
    "sort": sort, "argsort": sort, "where": where, "masked_fill": masked_fill, "clamp": clamp, "gather": gather,
    "scatter": gather, "scatter_add": gather, "index_select": index_select, "take_along_dim": take_along_dim,
    "getitem": getitem, "reshape": reshape, "flatten": flatten, "unflatten": unflatten, "transpose": transpose,
    "permute": permute, "movedim": movedim, "squeeze": squeeze, "unsqueeze": unsqueeze, "expand": expand,
    "repeat": repeat, "cat": joined, "stack": joined, "split": split, "chunk": chunk, "pad": pad, "flip": flip,
    "roll": roll, "tril": triangle, "diagonal": diagonal, "arange": arange,
    **dict.fromkeys("qr svd eigh det slogdet pinv matrix_exp".split(), matrices), "cross_entropy": class_loss,
    "nll_loss": class_loss, "cosine_similarity": cosine_similarity,
}


def tensor(written, fill):
    name, sizes = written[:-1].split("[")
    sizes = [int(s) for s in sizes.split(",") if s.strip()]
    return torch.full(sizes, fill, dtype=DTYPES[name])


def is_tensor(value):
    return isinstance(value, str) and value.endswith("]")


def given(value, name):
    if is_tensor(value):
        # Places are 0, which is valid wherever there are any; divisors are not.
        return tensor(value, int(name not in ("index", "indices", "target")))
    if isinstance(value, list) and name in ("operands", "tensors", "index"):
        return [given(item, name) for item in value]
    return float(value) if value in ("inf", "-inf") else value


def answer(operation, arguments):
    try:
        outputs = compute(operation, {name: given(value, name) for name, value in arguments.items()})
    except (RuntimeError, IndexError, TypeError, ValueError, AssertionError):
        return None
    return [text(NAMES[output.dtype], output.shape) for output in outputs]


def lenient(operation, arguments):
    """Where torch does not look: what it would refuse, it takes of no elements. The language refuses it all the same."""
    empty = any(", 0" in word or "[0" in word for word in arguments.values() if is_tensor(word))
    return empty and operation in ("softmax", "matmul", "scatter", "roll")


def main():
    warnings.simplefilter("ignore")
    cases = []
    for operation, generator in GENERATORS.items():
        count = 120 if operation in ("getitem", "einsum", "reshape") else 40
        seen = set()
        for _ in range(count):
            arguments = generator(operation)
            found = answer(operation, arguments)
            line = json.dumps([operation, arguments, found])
            # Eight dimensions are the language's limit.
            if line not in seen and not lenient(operation, arguments) and all(t.count(",") < 8 for t in found or []):
                seen.add(line)
                cases.append(line)
    (ROOT / "shapes.json").write_text("[\n" + ",\n".join(cases) + "\n]\n")
    refused = sum(line.endswith("null]") for line in cases)
    print(f"{len(cases)} cases, {refused} refused")


if __name__ == "__main__":
    main()
