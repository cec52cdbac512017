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


def test_figures_show_dollars_as_they_are(tmp_path):
    plot = pytest.importorskip("matplotlib")
    plot.use("agg")
    tokens, square = ["$", "$$", "a$b$", "\\$x$"], np.eye(4)
    vocabulary = type("Dollars", (), {"decode": lambda self, ids: "$^{$" if ids[0] else "$$"})()
    pictures = [
        show.tokens(tokens, [1.0, 2, 3, 4], title="$$", meaning=" $"), show.heat_map(square, tokens, tokens, "$^{$", "$_$"), show.attention(square, tokens),
        show.attention(np.stack([square, square]), tokens, title="$\\$"), show.patching(np.ones((2, 4)), tokens), show.lens(np.eye(4)[None] * 9, tokens, vocabulary),
        show.curves({"$$": [1, 2]}, "$a$$"), show.steering([0, 1], {"$^$": [1, 2]}, title="$$"),
    ]
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").stat().st_size > 2000
    figure = pictures[0].matplotlib()
    figure.savefig(tmp_path / "again.svg")
    labels = [label._preprocess_math(label.get_text()) for label in figure.axes[0].get_xticklabels()]
    assert labels == [(token, False) for token in tokens]


def test_a_large_matrix_makes_a_small_page():
    array = np.zeros((400, 250), np.float32)
    array[123, 77] = -5
    picture = show.heat_map(array)
    html = standing_alone(picture.html())
    assert len(html) < 3_000_000 and "the largest in magnitude of 4 × 3" in html and "120 … 123" in html and "-5" in html.replace("−", "-")
    pytest.importorskip("matplotlib").use("agg")
    assert picture.matplotlib().axes[0].get_images()[0].get_array().shape == (400, 250)


def test_what_does_not_fit_together_is_said(model):
    with pytest.raises(ValueError, match="2 tokens for a lens"):
        show.lens(np.zeros((1, 3, 5)), ["a", "b"], model.tokenizer)
    with pytest.raises(ValueError, match="3 values for 2 scales"):
        show.steering([0, 1], [1.0, 2, 3])
    with pytest.raises(ValueError, match="1 texts for 2 scales"):
        show.steering([0, 1], [1.0, 2], texts=["a"])
    with pytest.raises(ValueError, match="labels"):
        show.heat_map(np.zeros((2, 3)), ["a"], ["b", "c", "d"])


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
