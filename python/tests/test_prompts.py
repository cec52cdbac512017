"""Prompts: what a tokenizer gives, and what is no prompt."""

from collections import UserDict
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import PROMPT
from pellucid._tokenizer import Encoding


def last(model, prompt):
    with model.trace(prompt):
        logits = model.logits[:, -1].save()
    return logits.numpy()


@pytest.fixture(scope="module")
def ids(model):
    return model.tokenizer.encode(PROMPT)


@pytest.mark.parametrize("kind", [dict, UserDict, lambda given: SimpleNamespace(**given), Encoding])
@pytest.mark.parametrize("several", [False, True])
def test_a_mask_leaves_padding_out_in_whatever_form_it_comes(model, ids, kind, several):
    padded, mask = [0, 0, *ids], [0, 0, *[1] * len(ids)]
    given = {"input_ids": [padded], "attention_mask": [mask]} if several else {"input_ids": padded, "attention_mask": mask}
    assert np.array_equal(last(model, kind(given)), last(model, PROMPT))
    arrays = {name: np.array(value) for name, value in given.items()}
    assert np.array_equal(last(model, kind({**arrays, "token_type_ids": np.zeros_like(arrays["input_ids"])})), last(model, PROMPT))
    assert np.array_equal(last(model, kind({"input_ids": given["input_ids"], "attention_mask": None})), last(model, padded))


def test_a_mask_is_of_the_token_ids_beside_it(model, ids):
    whole = [1] * len(ids)
    for given, mask, told in (
        ([ids, ids], [whole], r"of 1 prompt with 10 tokens, and `input_ids` of 2 prompts with 10, 10 tokens"),
        ([ids], [whole[1:]], "of 1 prompt with 9 tokens"),
        (ids, whole[1:], "of 9 tokens, and `input_ids` of 10 tokens"),
        (ids, [whole], "of 1 prompt with 10 tokens, and `input_ids` of 10 tokens"),
        ([ids], whole, "of 10 tokens, and `input_ids` of 1 prompt"),
        (ids, [0.5] * len(ids), r"made of 0 and 1, and has 0\.5"),
        (ids, [0] * len(ids), "keeps no token"),
        (ids, [1, 0, *whole[2:]], "leaves out token 1, which stands between others"),
    ):
        with pytest.raises(ValueError, match=told):
            with model.trace({"input_ids": given, "attention_mask": mask}):
                model.logits.save()


def test_padding_on_the_right_is_refused(model, ids):
    with pytest.raises(ValueError, match=r"`input_ids` of prompt 1 are padded on the right[^$]*padding_side = \"left\""):
        with model.trace({"input_ids": np.array([ids, [*ids[:-1], 0]]), "attention_mask": np.array([[1] * 10, [1] * 9 + [0]])}):
            model.logits.save()


def test_what_stands_beside_token_ids_is_not_passed_over(model, ids):
    for name, value, told in (
        ("position_ids", [list(range(5, 15))], "positions count the tokens"), ("head_mask", np.zeros((4, 4)), "attention.mixed"),
        ("token_type_ids", [1] * 10, "no types of tokens"), ("inputs_embeds", np.zeros((1, 10, 128)), "model.embed.output"),
        ("bogus", 3, "leave it out"),
    ):
        with pytest.raises(TypeError, match=rf"`{name}` beside them would be passed over[^$]*{told}"):
            with model.trace({"input_ids": ids, name: value}):
                model.logits.save()
    with pytest.raises(TypeError, match="`position_ids` beside them"):
        with model.trace() as tracer:
            with tracer.invoke(SimpleNamespace(input_ids=ids, position_ids=[0] * 10)):
                model.logits.save()
    with pytest.raises(TypeError, match="as `input_ids`, and this has `inputs_embeds`\n  hint: give token ids"):
        with model.trace({"inputs_embeds": np.zeros((1, 10, 128))}):
            model.logits.save()
    with pytest.raises(TypeError, match="as `input_ids`, and this has nothing"):
        with model.trace({}):
            model.logits.save()
