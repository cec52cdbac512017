"""Weights that stay in the blocks of their GGUF file."""

import pathlib

import numpy
import pytest

import pellucid as pl

FILE = pathlib.Path(__file__).resolve().parents[2] / "golden/gguf/quantised-llama.gguf"


def logits(model):
    with model.trace([[3, 1, 4, 1, 5]]):
        saved = model.logits.save()
    return saved.numpy()


def test_they_give_the_results_of_float32_to_the_bit():
    whole, half, quantised = (logits(pl.Model(FILE, dtype=dtype)) for dtype in ("float32", "bfloat16", "quantised"))
    assert numpy.array_equal(quantised.view("int32"), whole.view("int32"))
    assert not numpy.array_equal(half, whole)


def test_a_model_that_has_none_is_refused_and_told_what_to_choose():
    with pytest.raises(Exception, match="(?s)no quantised weights.*choose `f32`"):
        pl.Model("bundled", dtype="quantised")
    with pytest.raises(TypeError, match="no number type"):
        pl.Model("bundled", dtype="quantized")
