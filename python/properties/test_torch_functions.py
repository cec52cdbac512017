"""Functions of torch, and methods with torch's names, on values of a trace: held to torch over shapes, number types and options.

A case is one text for both: it is called with tensors of torch, and with values of a trace. Where torch gives numbers, so must the
trace, the same and of the same number type; or refuse. What torch refuses is free. Of float32 nothing may be refused.
"""

from __future__ import annotations

import functools
import sys

import hypothesis.strategies as st
import pellucid as pl
import pytest
import torch
import torch.nn.functional as F
import torch_cases
from holding import MODEL, arrays, close, lift, mine, outputs, tried
from hypothesis import given
from pellucid import _interop, _torch_functions
from pellucid._tensor import Tensor
from torch_cases import FINITE, IN_PLACE, MATRICES, ONE, SQUARE, TWO, Choices, numbered

inf, nan = float("inf"), float("nan")
#: Which functions and methods were tried, and which cases torch had an answer to.
TRIED: set[str] = set()
ANSWERED: set[object] = set()


@pytest.fixture(scope="module", autouse=True)
def watched():
    """Notes which functions of torch are recorded, and which methods are called from here."""
    kept, called = {}, _interop.called

    def noted(name, function, arguments, options):
        TRIED.add(name.removeprefix("torch.").replace("linalg.", "linalg_").replace("special.", "special_"))
        return called(name, function, arguments, options)

    _interop.called = noted
    for name in public_methods():
        kept[name] = method = getattr(Tensor, name)

        def wrapped(*arguments, _name=name, _method=method, **options):
            if sys._getframe(1).f_code.co_filename in (__file__, torch_cases.__file__):
                TRIED.add(f"Tensor.{_name}")
            return _method(*arguments, **options)

        setattr(Tensor, name, functools.wraps(method)(wrapped))
    yield
    _interop.called = called
    for name in kept:
        delattr(Tensor, name)
        if getattr(Tensor, name, None) is not kept[name]:
            setattr(Tensor, name, kept[name])


#: Methods that are no operations: of results, of the trace, of gradients.
OTHERS = {
    "backward", "dim", "item", "numel", "numpy", "register_hook", "requires_grad_", "retain_grad", "size", "tolist", "torch", "save", "cuda", "cpu",
    "masked_select", "nonzero", "orthogonal", "eigh", "cholesky", "qr",
}


def public_methods():
    of_torch = set(dir(torch.Tensor))
    return [
        name for name in dir(Tensor)
        if not name.startswith("_") and callable(getattr(Tensor, name)) and name in of_torch and name not in OTHERS
    ]


def agree(function, tensors, rest, strict, case=None):
    """The same numbers of the same type as torch's; `strict`: a refusal is a fault."""
    try:
        with torch.no_grad():
            expected = outputs(function(*[each.clone() if isinstance(each, torch.Tensor) else each for each in tensors], *rest))
    except (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError, ZeroDivisionError, AttributeError):
        return
    ANSWERED.add(case or function)
    try:
        with MODEL.session():
            zero = pl.zeros(())
            made = [lift(zero, mine(each)) if isinstance(each, torch.Tensor) else each for each in tensors]
            results = outputs(function(*made, *rest))
            if not any(isinstance(each, Tensor) for each in results):
                return  # of what was not of the trace
            saved = [each.save() for each in results]
    except (pl.PellucidError, TypeError) as error:
        if strict:
            raise AssertionError(f"refused, {[getattr(each, 'shape', each) for each in tensors]}: {error}") from error
        return
    assert len(saved) == len(expected)
    for found, right in zip(saved, expected):
        close(found, right, [getattr(each, "shape", each) for each in tensors], [each.dtype for each in tensors if isinstance(each, torch.Tensor)])


SEEDS = st.integers(0, 1 << 20)
few = tried(10)
SPECIAL = torch.tensor([nan, inf, -inf, 0.0, -0.0, 1.0, 1.0, 2.0, -3.0, 0.5, 2.5, -1.5])


@st.composite
def special(draw):
    """A vector or matrix with what is no number, infinities, ties and halves."""
    order = draw(st.lists(st.integers(0, len(SPECIAL) - 1), min_size=6, max_size=6))
    return SPECIAL[torch.tensor(order)].reshape(draw(st.sampled_from([(6,), (2, 3), (3, 2)])))


@pytest.mark.parametrize("family,function", numbered(ONE, True))
@few
@given(arrays(least=1, kinds=["float32"]), arrays(least=0, kinds=["float64", "bfloat16", "float16", "int64", "int32", "uint8", "bool"]), special(), SEEDS)
def test_of_one(family, function, x, other, odd, seed):
    agree(function, [x], [Choices(seed, x)], True)
    agree(function, [other], [Choices(seed, other)], False)
    agree(function, [odd if family not in FINITE else torch.nan_to_num(odd, 1.0, 3.0, -3.0)], [Choices(seed, odd)], True)


@st.composite
def broadcasting(draw, kinds):
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    other = [size if draw(st.booleans()) else 1 for size in shape][draw(st.integers(0, len(shape))) :]
    return draw(arrays(shape, kinds)), draw(arrays(other, kinds)) if draw(st.integers(0, 4)) else draw(st.sampled_from([2, 0.5, -3, 1]))


@pytest.mark.parametrize("function", numbered(TWO))
@few
@given(broadcasting(["float32"]), broadcasting(["float32", "float64", "bfloat16", "int64", "int32", "uint8", "bool"]), special(), special())
def test_of_two(function, both, mixed, odd, other):
    agree(function, both, [], False)
    agree(function, [both[0], both[0] + 1], [], True)
    agree(function, mixed, [], False)
    agree(function, [odd.reshape(-1), other.reshape(-1)], [], True)
    if isinstance(both[1], torch.Tensor):
        # A tensor of torch on the left, a value of the trace on the right.
        agree(lambda y, x: function(x, y), [both[1]], [both[0]], False)


@pytest.mark.parametrize("function", numbered({"matrices": MATRICES}))
@few
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), SEEDS)
def test_of_matrices(function, m, k, n, seed):
    generator = torch.Generator().manual_seed(seed)
    agree(function, [torch.randn(2, m, k, generator=generator), torch.randn(2, k, n, generator=generator)], [], True)


@pytest.mark.parametrize("function", numbered({"square": SQUARE}))
@few
@given(arrays(shape=[3, 3], kinds=["float64"]))
def test_of_square_matrices(function, x):
    agree(function, [x @ x.T + torch.eye(3, dtype=x.dtype)], [], True)


@few
@given(arrays(shape=[3, 2], kinds=["float64"]), st.booleans())
def test_of_decompositions_the_product(x, tall):
    """Signs are free, so it is what they multiply to: `torch.svd` and `x.svd()` give V, `torch.linalg.svd` its transpose."""
    x = x if tall else x.T.contiguous()
    for function in (
        lambda x: (lambda u, s, v: u @ torch.diag_embed(s) @ v.mT if isinstance(x, torch.Tensor) else u @ (s.unsqueeze(-1) * v.mT))(*torch.svd(x)),
        lambda x: (lambda found: found.U @ (found.S.unsqueeze(-1) * found.V.mT))(x.svd()),
        lambda x: (lambda u, s, vh: u @ (s.unsqueeze(-1) * vh))(*torch.linalg.svd(x, full_matrices=False)),
        lambda x: (lambda q, r: q @ r)(*torch.linalg.qr(x)), lambda x: (lambda q, r: q @ r)(*torch.linalg.qr(x, mode="complete")),
        lambda x: (lambda values, vectors: vectors @ (values.unsqueeze(-1) * vectors.mT))(*torch.linalg.eigh(x @ x.mT)),
        lambda x: torch.svd(x, some=False)[2] @ torch.svd(x, some=False)[2].mT, lambda x: x.svd(some=False).U.mT @ x.svd(False)[0],
    ):
        agree(function, [x], [], True)


@pytest.mark.parametrize("function", numbered({"in place": IN_PLACE}))
@few
@given(arrays(least=1, kinds=["float32"], low=0.1), SEEDS)
def test_in_place(function, x, seed):
    choices = Choices(seed, x)

    def changed(x):
        function(x, choices)
        return x

    agree(changed, [x], [], True, function)
    agree(lambda x: function(x, choices), [x], [], True)

    # On results, too.
    result = mine(x.clone())
    right = changed(x.clone())
    function(result, choices)
    close(result, right, "a result")


def test_what_changes_in_place_changes_the_model():
    prompt = "The Eiffel Tower is in the city of"

    def logits(change):
        with MODEL.trace(prompt):
            change(MODEL.layers[1].output)
            found = MODEL.logits.save()
        return found.numpy()

    plain = logits(lambda h: None)
    for change, same in (
        (lambda h: torch.relu_(h), lambda h: h.clamp_(min=0)), (lambda h: torch.clamp_(h, 0, 1), lambda h: h.clamp_(0, 1)),
        (lambda h: torch.add(h, 1, out=h), lambda h: h.add_(1)),
        (lambda h: F.relu(h, inplace=True), lambda h: h.relu_()), (lambda h: torch.nn.ReLU(inplace=True)(h), lambda h: h.relu_()),
        (lambda h: torch.relu_(h[:, -1]), lambda h: h[:, -1].relu_()),
    ):
        found = logits(change)
        assert (found != plain).any() and (found == logits(same)).all()


def test_modules_of_torch():
    x, nn = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(1)), torch.nn
    torch.manual_seed(0)
    for module in (
        nn.Linear(4, 5), nn.Linear(4, 2, bias=False), nn.LayerNorm(4), nn.LayerNorm((3, 4), elementwise_affine=False), nn.RMSNorm(4), nn.Softmax(-1),
        nn.LogSoftmax(1), nn.GELU(), nn.SiLU(), nn.Tanh(), nn.Sigmoid(), nn.LeakyReLU(0.1), nn.ELU(), nn.Softplus(), nn.LogSigmoid(), nn.Hardtanh(),
        nn.ReLU6(), nn.Flatten(), nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Dropout(0.5), nn.Linear(8, 2)).eval(),
    ):
        agree(lambda x: module(x), [x], [], True)
    embedding = nn.Embedding(10, 3)
    agree(lambda x: embedding((x * 9).long()), [x], [], True)


REFUSED = [
    (lambda x: F.dropout(x, 0.5, training=True), "training"), (lambda x: torch.nn.Dropout(0.5)(x), "training"),
    (lambda x: F.pad(x, (1, 1), mode="reflect"), "mode"), (lambda x: F.softplus(x, beta=2), "beta"),
    (lambda x: torch.median(x), "torch.median"), (lambda x: torch.zeros(2, 3).add_(x), "pl.tensor"),
    (lambda x: torch.add(x, 1, out=torch.zeros(2, 3)), "pl.tensor"),
    (lambda x: torch.scatter(x, 0, torch.zeros(1, 3).long(), x, reduce="multiply"), "reduce"),
    (lambda x: F.one_hot(x.long()), "num_classes"), (lambda x: torch.linalg.pinv(x, atol=0.1), "atol"),
    (lambda x: torch.where(x > 0), "torch.where"), (lambda x: torch.linalg.lstsq(x.mT, x.mT).residuals, "residuals"),
    (lambda x: F.gumbel_softmax(x), "gumbel"),
    (lambda x: torch.svd(x, compute_uv=False), "vectors"), (lambda x: F.embedding(torch.tensor([0]), x, max_norm=1.0), "max_norm"),
    (lambda x: x.masked_select(x > 0), "masked_select"), (lambda x: torch.nonzero(x), "nonzero"), (lambda x: torch.linalg.qr(x, mode="r"), "mode"),
]


@pytest.mark.parametrize("function,word", REFUSED)
def test_what_is_refused_is_refused_by_name(function, word):
    with MODEL.session():
        value = lift(pl.zeros(()), pl.tensor(torch.rand(2, 3)))
        with pytest.raises(pl.NotComputedError, match=word) as told:
            function(value)
        value.save()
    assert "hint:" in str(told.value)


def test_results_are_torch_s_own_affair():
    x = torch.rand(3, 4)
    result = pl.tensor(x)
    assert torch.allclose(result, x) and torch.equal(torch.median(result), x.median()) and torch.equal(torch.quantile(result, 0.3), x.quantile(0.3))
    assert torch.equal(torch.histc(result, 5, 0, 1), x.histc(5, 0, 1)) and torch.equal(torch.stack([result, x]), torch.stack([x, x]))
    assert torch.relu_(torch.sub(result, 0.5, out=result)) is result and torch.equal(result.torch(), (x - 0.5).relu())


def test_the_list_is_held():
    """Every function that is listed, and every method that torch has too, was tried above; and torch had an answer to every case."""
    tables = {**ONE, **{f"two, {family}": cases for family, cases in TWO.items()}, "matrices": MATRICES, "square": SQUARE, "in place": IN_PLACE}
    cases = [(family, place, case) for family, some in tables.items() for place, case in enumerate(some)]
    unanswered = [f"{family}-{place}" for family, place, case in cases if case not in ANSWERED]
    assert not unanswered, unanswered
    assert {name for name in _torch_functions.FUNCTIONS if not name.startswith("__")} - TRIED == set()
    assert {f"Tensor.{name}" for name in public_methods()} - TRIED == set()


MASKS = [
    lambda x, m, row: x[m], lambda x, m, row: x[:, row], lambda x, m, row: x[[True, False, True]], lambda x, m, row: x[..., torch.tensor([True, False])],
    lambda x, m, row: x[m, 1], lambda x, m, row: x[m, None], lambda x, m, row: x[torch.ones(3, 4, 2) > 0], lambda x, m, row: x[0, row, 1:],
    lambda x, m, row: x[:, row, torch.zeros(int(row.sum()), dtype=torch.int64)], lambda x, m, row: x[torch.zeros(3) > 1],
]


@pytest.mark.parametrize("function", MASKS)
@few
@given(SEEDS)
def test_known_masks_choose_what_is_read(function, seed):
    generator = torch.Generator().manual_seed(seed)
    mask, row = torch.rand(3, 4, generator=generator) > 0.5, torch.rand(4, generator=generator) > 0.5
    agree(lambda x: function(x, mask, row), [torch.rand(3, 4, 2, generator=generator)], [], True)
