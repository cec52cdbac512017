"""Views and changes in place, as they are written on tensors in Python, held to torch: random scripts over tensors that are views of one another.

Only `expand` is read alone: writing to what it gives is refused here. Each is run by torch, on results, and on values of a trace; what every name is in the end must be the same. A script that torch refuses
to go on with is not gone on with there.
"""

from __future__ import annotations

import os
import random

import numpy as np
import pellucid as pl
import pytest
import torch

MODEL = pl.Model("bundled")
PROMPT = "The Eiffel Tower is in the city of"


def index(rng, shape):
    """Something between brackets that torch takes as a view."""
    items, shown = [], rng.randint(0, len(shape))
    for size in shape[:shown]:
        kind = rng.random()
        if kind < 0.3 and size:
            items.append(rng.randrange(-size, size))
        elif kind < 0.8:
            start, stop = sorted((rng.randint(0, size), rng.randint(0, size)))
            items.append(slice(rng.choice((None, start)), rng.choice((None, stop)), rng.choice((None, None, 2))))
        else:
            items.append(slice(None))
        if rng.random() < 0.1:
            items.append(None)
    if rng.random() < 0.3:
        items.append(Ellipsis)
        if shown < len(shape):
            items.append(rng.choice((slice(None), slice(0, 1), slice(1, None))))
    return tuple(items) if len(items) != 1 else items[0]


def factors(rng, count):
    sizes = []
    while count > 1 and len(sizes) < 3:
        divisors = [d for d in range(1, count + 1) if count % d == 0]
        sizes.append(rng.choice(divisors))
        count //= sizes[-1]
    sizes.append(count)
    if rng.random() < 0.3 and 0 not in sizes:
        sizes[rng.randrange(len(sizes))] = -1
    return sizes


def view(rng, shape):
    """A view of a tensor of that shape: a function that makes it of a tensor."""
    dims = len(shape)
    dim = rng.randrange(-dims, dims) if dims else 0
    other = rng.randrange(-dims, dims) if dims else 0
    count = int(np.prod(shape, dtype=int))
    kind = rng.choice((
        "index", "index", "transpose", "permute", "movedim", "unsqueeze", "squeeze", "reshape", "reshape", "view", "flatten", "unflatten",
        "diagonal", "T", "mT", "narrow", "select", "split", "chunk", "unbind", "detach", "contiguous", "float", "to", "double", "clone",
        "data", "ravel", "expand",
    ))
    place = index(rng, shape)
    order = rng.sample(range(dims), dims)
    sizes = factors(rng, count)
    cut = rng.randint(1, 3)
    first = rng.randint(0, max(0, (shape[dim] if dims else 1) - 1))
    makers = {
        "index": lambda x: x[place],
        "transpose": lambda x: x.transpose(dim, other),
        "permute": lambda x: x.permute(*order),
        "movedim": lambda x: x.movedim(dim, other),
        "unsqueeze": lambda x: x.unsqueeze(rng_dim),
        "squeeze": (lambda x: x.squeeze()) if rng.random() < 0.5 else (lambda x: x.squeeze(dim)),
        "reshape": lambda x: x.reshape(*sizes),
        "view": lambda x: x.view(*sizes),
        "flatten": lambda x: x.flatten(min(dim % max(dims, 1), other % max(dims, 1)), max(dim % max(dims, 1), other % max(dims, 1))),
        "unflatten": lambda x: x.unflatten(dim, factors(random.Random(count), shape[dim])),
        "diagonal": lambda x: x.diagonal(offset, dim, other),
        "T": lambda x: x.T,
        "mT": lambda x: x.mT if dims > 1 else x.detach(),
        "narrow": lambda x: x.narrow(dim, first, 1),
        "select": lambda x: x.select(dim, first),
        "split": lambda x: x.split(cut, dim)[-1],
        "chunk": lambda x: x.chunk(cut, dim)[0],
        "unbind": lambda x: x.unbind(dim)[first],
        "detach": lambda x: x.detach(),
        "contiguous": lambda x: x.contiguous(),
        "float": lambda x: x.float(),
        "to": lambda x: x.to(x.dtype),
        # New tensors in order: torch's have the strides of what they are made of, ours are in order, which shows where they are reshaped.
        "double": lambda x: x.double().contiguous(),
        "clone": lambda x: x.clone().contiguous(),
        "data": lambda x: x.data,
        "ravel": lambda x: x.ravel(),
        "expand": lambda x: x.expand(2, *x.shape),
    }
    offset = rng.randint(-1, 1)
    rng_dim = rng.randint(-dims - 1, dims)
    return kind, makers[kind]


def change(rng, shape):
    """A change in place of a tensor of that shape."""
    number = rng.choice((0, 1, 2.5, -3))
    place = index(rng, shape)
    mask = np.random.default_rng(rng.randrange(1 << 30)).random(shape) < 0.5
    row = np.random.default_rng(rng.randrange(1 << 30)).integers(-3, 4, shape[-1:]).astype(np.float32)
    rows = [rng.randrange(shape[0]) for _ in range(2)] if shape and shape[0] else [0]
    kind = rng.choice((
        "add_", "mul_", "iadd", "isub", "imul", "set", "set", "set_row", "increase", "fill_", "zero_", "copy_", "clamp_", "neg_", "masked_fill_",
        "mask", "rows", "rows_increase", "whole", "idiv",
    ))

    def masked(x, of):
        x[of(mask)] = number

    def iadd(x, of):
        x += of(row)

    def isub(x, of):
        x -= number

    def imul(x, of):
        x *= number

    def idiv(x, of):
        x /= 2

    def put(x, of):
        x[place] = number

    def put_row(x, of):
        x[...] = of(row)

    def increase(x, of):
        x[place] += 1

    def put_rows(x, of):
        x[of(np.array(rows))] = number

    def increase_rows(x, of):
        x[of(np.array(rows))] += 1

    def whole(x, of):
        x[:] = x * 2

    makers = {
        "add_": lambda x, of: x.add_(number), "mul_": lambda x, of: x.mul_(number), "iadd": iadd, "isub": isub, "imul": imul, "set": put,
        "set_row": put_row, "increase": increase, "fill_": lambda x, of: x.fill_(number), "zero_": lambda x, of: x.zero_(),
        "copy_": lambda x, of: x.copy_(of(row)), "clamp_": lambda x, of: x.clamp_(-1, 2), "neg_": lambda x, of: x.neg_(),
        "masked_fill_": lambda x, of: x.masked_fill_(of(mask), number), "mask": masked, "rows": put_rows, "rows_increase": increase_rows,
        "whole": whole, "idiv": idiv,
    }
    return kind, makers[kind]


def script(seed, start, steps=10):
    """Lines of a script that torch can run: which tensor, what is done to it; and what torch makes of it."""
    rng = random.Random(seed)
    pool, lines, expanded = [start.clone()], [], set()
    for _ in range(steps):
        which = rng.randrange(len(pool))
        x = pool[which]
        shape = tuple(x.shape)
        kind = rng.random()
        before = [each.clone() for each in pool]
        if kind < 0.5:
            name, maker = view(rng, shape)
            line = ("view", name, which, maker)
        elif kind < 0.9:
            name, maker = change(rng, shape)
            line = ("change", name, which, maker)
        else:
            line = ("new", "new", which, lambda x: (x * 2 + 1).contiguous())
        if line[0] == "change" and which in expanded or x.dim() > 6:
            continue
        try:
            if line[0] == "change":
                line[3](x, torch.from_numpy)
            else:
                pool.append(line[3](x))
        except (RuntimeError, IndexError, TypeError, ValueError):
            assert all(torch.equal(a, b) for a, b in zip(before, pool))
            continue
        if line[1] == "expand" or which in expanded and line[1] not in ("clone", "new", "double"):
            expanded.add(len(pool) - 1)
        lines.append(line)
    return lines, pool


def run(lines, start, of):
    pool = [start]
    for kind, _, which, function in lines:
        if kind == "change":
            function(pool[which], of)
        else:
            pool.append(function(pool[which]))
    return pool


def compare(lines, theirs, mine):
    said = "\n".join(f"{kind} {name} of {which}" for kind, name, which, _ in lines)
    for number, (a, b) in enumerate(zip(theirs, mine)):
        assert tuple(a.shape) == tuple(b.shape), (number, a.shape, b.shape, said)
        assert str(a.dtype).removeprefix("torch.") == str(b.dtype), (number, a.dtype, b.dtype, said)
        assert np.allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-5), (number, said)


SHAPES = [(2, 3, 4), (4, 4), (6,), (1, 3, 1, 2), (2, 2, 3, 2), (3, 3, 3)]


@pytest.mark.parametrize("seed", range(int(os.environ.get("PELLUCID_SCRIPTS", 300))))
def test_on_results_and_in_traces(seed):
    shape = SHAPES[seed % len(SHAPES)]
    numbers = np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)
    lines, theirs = script(seed, torch.from_numpy(numbers))
    compare(lines, theirs, run(lines, pl.tensor(numbers), pl.tensor))
    with MODEL.trace(PROMPT):
        start = MODEL.layers[0].output[0, 0, 0] * 0 + pl.tensor(numbers)
        mine = run(lines, start, pl.tensor)
        saved = [each.save() for each in mine]
    compare(lines, theirs, saved)


@pytest.mark.parametrize("seed", range(int(os.environ.get("PELLUCID_SCRIPTS", 300)) // 3))
def test_on_hook_points(seed):
    with MODEL.trace(PROMPT):
        value = MODEL.layers[1].output.save()
    start = torch.from_numpy(value.numpy())
    lines, theirs = script(seed, start)
    with MODEL.trace(PROMPT):
        mine = run(lines, MODEL.layers[1].output, pl.tensor)
        flows_on = MODEL.layers[1].output.clone().save()
        saved = [each.save() for each in mine]
        logits = MODEL.logits.save()
    compare(lines, theirs, saved)
    assert np.allclose(theirs[0].numpy(), flows_on.numpy(), rtol=1e-5, atol=1e-5)
    with MODEL.trace(PROMPT):
        MODEL.layers[1].output = pl.tensor(flows_on.numpy())
        again = MODEL.logits.save()
    assert np.allclose(logits.numpy(), again.numpy(), atol=1e-4)
