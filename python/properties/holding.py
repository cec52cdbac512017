"""What the property tests have in common: tensors that are drawn, values of a trace with their numbers, and what is close."""

from __future__ import annotations

import os

import hypothesis.strategies as st
import numpy as np
import pellucid as pl
import torch
from hypothesis import HealthCheck, settings

FLOATS = ["float32", "float64", "bfloat16", "float16"]
WHOLE = ["int64", "int32", "uint8"]
TYPES = FLOATS + WHOLE + ["bool"]

MODEL = pl.Model("bundled")


def torch_type(name):
    return getattr(torch, name)


@st.composite
def arrays(draw, shape=None, kinds=FLOATS, low=-3.0, high=3.0, least=0, most=3, positive=False):
    """A torch tensor: of a drawn shape, number type and seed."""
    if shape is None:
        shape = draw(st.lists(st.integers(1, 4), min_size=least, max_size=most))
    kind = draw(st.sampled_from(kinds))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1 << 20)))
    x = torch.rand(tuple(shape), generator=generator, dtype=torch.float64)
    if kind == "bool":
        return x > 0.5
    if positive:
        x = x * high + 0.1
    elif kind == "uint8":
        x = x * high
    else:
        x = low + x * (high - low)
    return x.to(torch_type(kind))


@st.composite
def pairs(draw, kinds=TYPES, same=False):
    """Two tensors that broadcast; sometimes one of them is a number."""
    shape = draw(st.lists(st.integers(1, 4), max_size=3))
    other = [size if draw(st.booleans()) else 1 for size in shape][draw(st.integers(0, len(shape))) :]
    a = draw(arrays(shape, kinds))
    if not same and draw(st.booleans()):
        number = draw(st.one_of(st.integers(1, 3), st.floats(-2, 2).map(lambda x: round(x, 2) or 1.5)))
        return a, number
    return a, draw(arrays(other, [str(a.dtype).removeprefix("torch.")] if same else kinds))


def mine(x):
    if isinstance(x, torch.Tensor):
        return pl.tensor(x)
    if isinstance(x, (list, tuple)) and any(isinstance(each, torch.Tensor) for each in x):
        return type(x)(mine(each) for each in x)
    return x


def outputs(result):
    return list(result) if isinstance(result, (tuple, list)) and not isinstance(result, torch.Size) else [result]


def in_trace(function, arguments):
    with MODEL.session():
        zero = pl.zeros(())
        made = [lift(zero, x) for x in arguments]
        saved = [each.save() for each in outputs(function(*made))]
    return saved


def lift(zero, x):
    """A value of the program that is being written, with the numbers of a result."""
    if isinstance(x, pl.Tensor):
        return zero._open().one("reshape", {"input": zero._open().tensor(x), "shape": list(x.shape)})
    if isinstance(x, (list, tuple)) and any(isinstance(each, pl.Tensor) for each in x):
        return type(x)(lift(zero, each) for each in x)
    return x


def close(found, expected, what, of=()):
    """The same shape and number type, and numbers as near as that, or the types that it was computed of, can be."""
    assert tuple(found.shape) == tuple(expected.shape), (what, found.shape, expected.shape)
    assert found.dtype == str(expected.dtype).removeprefix("torch."), (what, found.dtype, expected.dtype)
    a = found.numpy().astype(np.float64)
    b = expected.to(torch.float64).numpy()
    tolerances = {"float64": 1e-9, "float32": 2e-5, "bfloat16": 3e-2, "float16": 4e-3}
    kinds = [str(found.dtype), *(str(each).removeprefix("torch.") for each in of)] if found.dtype.is_floating_point else [str(found.dtype)]
    tolerance = max(tolerances.get(kind, 0) for kind in kinds)
    scale = np.abs(b[np.isfinite(b)]).max(initial=1.0)
    assert np.allclose(a, b, atol=tolerance * max(scale, 1), rtol=tolerance, equal_nan=True), (what, a, b)


def hold(function, reference, *arguments):
    expected = [each for each in outputs(reference(*arguments))]
    given_ = [mine(each) for each in arguments]
    at_once = outputs(function(*given_))
    assert len(at_once) == len(expected)
    for found, right in zip(at_once, expected):
        close(found, right, function)
    if any(isinstance(x, pl.Tensor) or isinstance(x, (list, tuple)) and any(isinstance(e, pl.Tensor) for e in x) for x in given_):
        for found, again in zip(at_once, in_trace(function, given_)):
            assert found._core.is_same(again._core), (function, found, again)


def tried(examples):
    """How often a case is tried: always with the same examples; or with others, PELLUCID_EXAMPLES of them."""
    asked = os.environ.get("PELLUCID_EXAMPLES")
    return settings(
        max_examples=int(asked or examples), derandomize=asked is None, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
