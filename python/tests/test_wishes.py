"""What tensors have not, and what is written instead."""

import math

import numpy as np
import pellucid as pl
import pytest
from pellucid._refusals import INSTEAD

#: Of each, what it gives of x and y, by numpy.
EXPECTED = {
    "median": lambda x, y: np.sort(x, -1)[..., (x.shape[-1] - 1) // 2],
    "kthvalue": lambda x, y: np.sort(x, -1)[..., 1],
    "tan": lambda x, y: np.tan(x),
    "sinh": lambda x, y: np.sinh(x),
    "cosh": lambda x, y: np.cosh(x),
    "log10": lambda x, y: np.log10(x),
    "exp2": lambda x, y: np.exp2(x),
    "erfc": lambda x, y: np.vectorize(math.erfc)(x),
    "frac": lambda x, y: np.modf(x)[0],
    "fmod": lambda x, y: np.fmod(x, y),
    "hypot": lambda x, y: np.hypot(x, y),
    "dist": lambda x, y: np.linalg.norm(x - y),
    "equal": lambda x, y: np.array_equal(x, y),
    "isclose": lambda x, y: np.isclose(x, y),
    "allclose": lambda x, y: np.allclose(x, y),
    "vdot": lambda x, y: np.vdot(x, y),
    "inner": lambda x, y: np.stack([np.inner(a, b) for a, b in zip(x, y)]),
    "diag": lambda x, y: np.diag(x),
    "fliplr": lambda x, y: np.fliplr(x),
    "flipud": lambda x, y: np.flipud(x),
    "deg2rad": lambda x, y: np.deg2rad(x),
    "rad2deg": lambda x, y: np.rad2deg(x),
    "sgn": lambda x, y: np.sign(x),
    "nan_to_num": lambda x, y: np.nan_to_num(x),
    "split_with_sizes": lambda x, y: np.split(x, [1], 1),
    "broadcast_to": lambda x, y: np.broadcast_to(x, (2, 3, 4)),
    "nelement": lambda x, y: 12,
    "ndimension": lambda x, y: 2,
    "itemsize": lambda x, y: 4,
    "element_size": lambda x, y: 4,
    "nbytes": lambda x, y: x.nbytes,
    "new_tensor": lambda x, y: np.ones(2),
    "byte": lambda x, y: x.astype(np.uint8),
    "detach_": lambda x, y: x,
    "astype": lambda x, y: x.astype(np.float64),
    "copy": lambda x, y: x,
}
X, Y = np.random.default_rng(0).uniform(0.5, 3, (2, 3, 4)).astype(np.float32)


@pytest.mark.parametrize("name", INSTEAD)
def test_what_is_written_instead_is_the_same(model, name):
    if name not in EXPECTED:
        assert name in ("cov", "register_hook", "is_nested")
        return
    code = INSTEAD[name].strip("`")
    names = {"math": math, "pl": pl, "k": 2, "dim": 1, "sizes": [2, 3, 4] if name == "broadcast_to" else [1, 3], "dtype": pl.float64, "data": [1.0, 1.0]}
    expected = EXPECTED[name](X, Y)
    parts = expected if isinstance(expected, list) else [expected]
    at_once = eval(code, {**names, "x": pl.tensor(X), "y": pl.tensor(Y)})
    with model.trace("a"):
        written = eval(code, {**names, "x": pl.tensor(X), "y": pl.tensor(Y)})
        saved = pl.save(list(written) if isinstance(expected, list) else [pl.tensor(written)])
        model.logits.save("logits")
    for found in (at_once, saved):
        for one, right in zip(found if isinstance(found, (list, tuple)) else [found], parts, strict=True):
            assert np.allclose(one, right, atol=1e-6)


def test_a_covariance_is_written_instead():
    assert INSTEAD["cov"] == "`c @ c.mT / (x.shape[1] - 1)` of `c = x - x.mean(1, keepdim=True)`"
    x = pl.tensor(X)
    c = x - x.mean(1, keepdim=True)
    assert np.allclose(c @ c.mT / (x.shape[1] - 1), np.cov(X), atol=1e-6)


def told(value, name):
    with pytest.raises(AttributeError, match=f"a tensor has no `{name}`") as caught:
        getattr(value, name)
    return str(caught.value).partition("\n  hint: ")[2]


def test_of_results_torch_and_numpy_are_named_before_what_is_spelt_alike(model):
    x = pl.tensor(X)
    assert told(x, "median") == f"here it is written {INSTEAD['median']}; a result has it as a tensor of torch, `x.torch().median`"
    assert told(x, "histc") == "a result has it as a tensor of torch, `x.torch().histc`"
    assert told(x, "astype") == "here it is written `x.to(dtype)`; a result has it as an array of numpy, `x.numpy().astype`"
    assert told(x, "logcumsumexp").startswith("a result has it as a tensor of torch, `x.torch().logcumsumexp`; did you mean `")
    assert told(x, "transposee") == "did you mean `transpose`?"
    assert told(x, "nothing_of_the_kind").startswith("as `x.torch()` a result is a tensor of torch")


def test_in_a_trace_what_to_write_is_named(model):
    with model.trace("a"):
        h = model.layers[0].output.save()
        assert told(h, "tan") == "here it is written `x.sin() / x.cos()`"
        assert "scaled_dot_product_attention" in told(h, "is_nested") and "MultiheadAttention" in told(h, "is_nested")
        assert "it cannot be recorded" in told(h, "histc") and "`x.torch().histc`" in told(h, "histc")
        assert told(h, "meen") == "did you mean `mean`?"
        with pytest.raises(pl.NotComputedError, match=r"`numpy.tan` cannot be recorded[^\n]*\n  hint: write `x.sin\(\) / x.cos\(\)`"):
            np.tan(h)
