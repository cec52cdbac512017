"""What the documents show runs."""

import pathlib
import re

import pytest

DOCS = pathlib.Path(__file__).resolve().parents[2]


def blocks(path, language):
    text = (DOCS / path).read_text(encoding="utf-8")
    for found in re.finditer(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield text[: found.start()].count("\n") + 1, found.group(1)


@pytest.mark.parametrize("path, language", [
    ("docs/python.md", "python"), ("python/README.md", "python"), ("README.md", "python"), ("docs/coming-from-nnsight.md", "py"),
    ("docs/coming-from-transformerlens.md", "py"),
])
def test_every_block_runs(path, language, capsys):
    names = {"__name__": "document"}
    found = list(blocks(path, language))
    assert found
    for line, code in found:
        exec(compile("\n" * line + code, str(DOCS / path), "exec"), names)


@pytest.mark.parametrize("source", sorted((DOCS / "examples/python").glob("*.py")), ids=lambda path: path.stem)
def test_every_experiment_runs(source, monkeypatch):
    monkeypatch.chdir(source.parent)
    exec(compile(source.read_text(encoding="utf-8"), str(source), "exec"), {"__name__": "experiment"})
