"""einops on values of a trace and on results, held to einops on torch's tensors."""

import einops
import pellucid as pl
import pytest
import torch
from holding import MODEL, close, lift, outputs

X = torch.rand(2, 3, 8, generator=torch.Generator().manual_seed(0))
CASES = [
    lambda x: einops.rearrange(x, "b t (h d) -> b t h d", h=4), lambda x: einops.rearrange(x, "b t d -> d (b t)"),
    lambda x: einops.rearrange([x, x], "n b t d -> b t (n d)"),
    lambda x: einops.rearrange(x, "b ... -> ... b"), lambda x: einops.rearrange(x, "b t d -> b 1 t d"),
    lambda x: einops.reduce(x, "b t d -> b d", "mean"), lambda x: einops.reduce(x, "b t (h d) -> b h", "max", h=2),
    lambda x: einops.reduce(x, "b t d -> ", "sum"), lambda x: einops.reduce(x, "b t d -> t 1", "prod"),
    lambda x: einops.reduce(x, "b t d -> b", "min"), lambda x: einops.repeat(x, "b t d -> b n t d", n=2),
    lambda x: einops.repeat(x, "b t d -> b (t n) d", n=3), lambda x: einops.einsum(x, x, "b t d, b s d -> b t s"),
    lambda x: einops.pack([x, x[:, 0]], "b * d")[0], lambda x: einops.unpack(x, [[1], [2]], "b * d"),
    lambda x: einops.reduce(x > 0.5, "b t d -> b", "any"), lambda x: einops.reduce(x > 0.1, "b t d -> d", "all"),
]


@pytest.mark.parametrize("function", CASES)
def test_einops(function):
    expected = outputs(function(X))
    with MODEL.session():
        saved = [each.save() for each in outputs(function(lift(pl.zeros(()), pl.tensor(X))))]
    for found, right in zip(saved, expected, strict=True):
        close(found, right, "recorded")
    for found, right in zip(outputs(function(pl.tensor(X))), expected, strict=True):
        close(found, right, "at once")


def test_written_through_a_form_of_it_the_hook_point_is_written():
    with MODEL.trace("The Eiffel Tower is in the city of"):
        heads = einops.rearrange(MODEL.layers[1].output, "b t (h d) -> b t h d", h=4)
        heads[:, :, 2] = 0
        logits = MODEL.logits.save()
    with MODEL.trace("The Eiffel Tower is in the city of"):
        MODEL.layers[1].output[..., 64:96] = 0
        expected = MODEL.logits.save()
    assert torch.equal(logits.torch(), expected.torch())
