"""Writes the Python package's displays as pages, for `displays.test.mjs`: each picture as a page of its own, and all of them as a notebook
shows them. Beside them `displays.json`: what each page has to show under the pointer.

    python browser/displays.py FOLDER
"""

import json
import pathlib
import sys

import numpy as np
import pellucid as pl

PROMPT = "When Mary and John went to the store, John gave a drink to"
OTHER = "When Mary and John went to the store, Mary gave a drink to"

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
model = pl.Model("bundled")
words = model.tokenizer.tokens(PROMPT)

with model.trace(PROMPT) as tracer:
    logits = pl.stack([model.unembed(model.final_norm(model.layers[k].output))[0] for k in range(4)]).save()
    pattern = model.layers[1].attention.pattern.save()
    norms = model.layers[2].output.norm(dim=-1)[0].save()
    final = model.logits[0, -1].save()
mary, john = model.token(" Mary"), model.token(" John")
with model.trace() as sweep:
    with sweep.invoke(PROMPT) as clean:
        pass
    with sweep.sweep(layer=range(4), position=range(len(words))) as cell:
        with clean:
            source = model.layers[cell.layer].output[:, cell.position]
        with cell.invoke(OTHER):
            model.layers[cell.layer].output[:, cell.position] = source
            last = model.logits[0, -1]
            difference = (last[mary] - last[john]).save()
scales = [0.0, 1.0, 2.0, 4.0]
texts = ["Mary", "Mary <b>and</b> John & a rather long text that has to wrap on a phone", "the store", "\"quoted\""]
patched = difference.numpy()
effects = {"Mary − John": patched[:, 9], "a<b & c": np.array([-1.0, 0.0, 0.5, 2.0], np.float32)}


def signed(value):
    return f"{float(value):+.4f}"


pictures = {
    "lens": (pl.show.lens(logits, words, model.tokenizer), f"layer 3, after “{words[-1]}”: {model.tokenizer.decode(final.argmax())!r}"),
    "attention": (pl.show.attention(pattern, words, head=2), signed(pattern[0, 2, 9, 3])),
    "heads": (pl.show.attention(pattern, words, title="All heads"), signed(pattern[0, 3, 9, 3])),
    "patching": (pl.show.patching(patched / np.abs(patched).max(), words), signed(patched[2, 9] / np.abs(patched).max())),
    "tokens": (pl.show.tokens(words, norms - norms.mean(), meaning=" of the norm"), signed(norms[4] - norms.mean()) + " of the norm"),
    "heat_map": (pl.show.heat_map(np.linspace(-1, 1, 41, dtype=np.float32).reshape(1, -1), title="Every colour"), "-1.0000"),
    "curves": (pl.show.curves(effects, "Curves"), f"Mary − John, step 2: {patched[2, 9]:.4f}"),
    "steering": (pl.show.steering(scales, effects, texts=texts), f"Mary − John, scale 4: {patched[3, 9]:.4f}"),
}
expected = {}
for name, (picture, under_the_pointer) in pictures.items():
    picture.save(folder / f"{name}.html")
    expected[name] = {"title": picture.title, "tip": under_the_pointer}

with model.trace(PROMPT, run=False) as planned:
    model.layers[1].output *= 2
    model.logits.save()
plan = pl.show.plan(sweep)
plan.save(folder / "plan.html")
expected["plan"] = {"title": plan.title, "tip": "1 rows of its own from column 13 on"}
displays = {
    "the model": model, "a module": model.transformer.h[1].attn, "a tensor": final[:12].reshape(3, 4), "a large tensor": logits,
    "a trace": planned, "a program": planned.program, **{name: picture for name, (picture, _) in pictures.items()},
    "plan": plan,
}
cells = "".join(f"<section><h2>{name}</h2>{shown._repr_html_()}</section>" for name, shown in displays.items())
(folder / "notebook.html").write_text(
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    "<title>A notebook</title><style>:root{color-scheme:light dark}body{margin:1rem;font:14px system-ui;background:#fff;color:#111}@media(prefers-color-scheme:dark){body{background:#111;color:#eee}}</style></head>"
    f"<body><main><h1>A notebook</h1>{cells}</main></body></html>",
    encoding="utf-8",
)
(folder / "displays.json").write_text(json.dumps(expected, ensure_ascii=False), encoding="utf-8")
