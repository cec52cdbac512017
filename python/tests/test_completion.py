"""Tab completion of modules, as IPython and notebooks ask for it."""

import pellucid as pl
import pytest
from pellucid._completion import completions


@pytest.mark.parametrize(
    ("line", "begun", "found"),
    [
        ("model.transformer.h[0].a", "a", {"attn"}),
        ("with model.tr", "tr", {"trace", "transformer"}),
        ("x = f(model.layers[-1].attention.pa", "pa", {"pattern"}),
        ('model.transformer.h["0"].mlp.c_fc.w', "w", {"weight"}),
        ("model.transformer.", "", {"h", "ln_f", "output"}),
        ("model['layers.1'].mlp.po", "po", {"post"}),
    ],
)
def test_modules_are_completed(model, line, begun, found):
    end, names = completions(line, {"model": model})
    assert end == begun and found <= set(names) and all(name.startswith(begun) for name in names)
    assert not any(name.startswith("_") for name in names)


@pytest.mark.parametrize(
    "line", ["other.transformer.h", "model.layers[99].a", "model.nothing.a", "x.model.layers", "model.layers[0].output.", "model", "model.layers[i].a", ""]
)
def test_what_is_no_module_is_left_to_others(model, line):
    assert completions(line, {"model": model, "other": pl.ones(2)}) == ("", [])


def test_an_ipython_shell_completes_them(model):
    pytest.importorskip("IPython")
    from IPython.core.completer import provisionalcompleter
    from IPython.core.interactiveshell import InteractiveShell
    from pellucid._completion import install

    shell = InteractiveShell.instance()
    install(shell)
    install(shell)
    shell.user_ns["model"] = model
    line = "model.transformer.h[0].mlp.c_f"
    with provisionalcompleter():
        assert [each.text for each in shell.Completer.completions(line, len(line))] == ["c_fc"]


def test_the_package_lists_all_that_it_has():
    assert set(pl.__all__) <= set(dir(pl)) and all(hasattr(pl, name) for name in pl.__all__)
