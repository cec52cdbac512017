"""Displays: self-contained, escaped, readable."""

import re

import numpy as np
import pellucid as pl
import pytest
from conftest import PROMPT
from pellucid import show


@pytest.fixture(scope="module")
def values(model):
    with model.trace(PROMPT) as tracer:
        pattern = model.layers[1].attention.pattern.save()
        streams = tracer.get("layers.*.output")
        lens = model.unembed(model.final_norm(streams))[:, 0].save()
        logits = model.logits[0].save()
    return pattern, lens, logits


def standing_alone(html):
    for elsewhere in ("http:", "https:", "<script", "url(", "@import"):
        assert elsewhere not in html, elsewhere
    return html


def test_pictures(model, values, tmp_path):
    pattern, lens, logits = values
    tokens = model.tokenizer.tokens(PROMPT)
    pictures = [
        show.attention(pattern, tokens), show.attention(pattern[0, 1], tokens), show.lens(lens, tokens, model.tokenizer),
        show.patching(np.random.default_rng(0).random((4, 10)), tokens), show.tokens(tokens, logits.amax(-1)),
        show.steering([0, 1, 2], {"Paris": [0.1, 0.5, 0.9]}, texts=["a", "b", "<c>"]), show.curves({"loss": [3, 2, 1]}, "Loss"),
    ]
    for number, picture in enumerate(pictures):
        html = standing_alone(picture.html())
        assert "prefers-color-scheme" in html and ("data-tip" in html or "<svg" in html)
        assert "srcdoc" in picture._repr_html_() and str(picture)
        picture.save(tmp_path / f"{number}.html")
    assert "&lt;c&gt;" in pictures[5].html() and "<c>" not in pictures[5].html()
    assert " Paris" in str(pictures[2]) or "Paris" in str(pictures[2])


def test_figures(values, model, tmp_path):
    pytest.importorskip("matplotlib").use("agg")
    pattern, lens, logits = values
    tokens = model.tokenizer.tokens(PROMPT)
    for number, picture in enumerate([
        show.attention(pattern, tokens, head=0), show.lens(lens, tokens, model.tokenizer),
        show.tokens(tokens, logits.amax(-1)), show.steering([0, 1], [0.1, 0.2]),
    ]):
        path = tmp_path / f"{number}.png"
        picture.save(path)
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 2000


def test_displays_of_models_tensors_and_programs(model):
    html = standing_alone(model._repr_html_())
    assert "transformer" in html and "[prompts, length, 128]" in html and "parameter" in html
    assert standing_alone(pl.tensor([[1.0, 2.0]])._repr_html_()).count("<td>") == 2
    with model.trace(PROMPT) as tracer:
        h = model.layers[0].output.save()
        assert "computed when" in h._repr_html_()
    assert "mean" in h._repr_html_()
    assert "pass" in re.sub("<[^>]*>", "", tracer._repr_html_())
    assert "the program" in tracer.program._repr_html_()
