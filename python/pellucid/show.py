"""Pictures of the field: self-contained HTML with values under the pointer, light and dark; matplotlib on request; PNG.

Each function gives a `Picture`: shown by itself at the end of a notebook's cell, `.save("x.html")` or `.save("x.png")` writes it,
`.matplotlib()` gives a figure.
"""

from __future__ import annotations

import os
from typing import Any, Sequence

from . import _core
from ._arrays import from_array
from ._tensor import Tensor


#: How many rows and columns a page shows of a matrix: of a larger one, what stands out most in each block.
_MOST = 100
#: From which part of the full colour on a number is written in the ink that is seen on strong colours.
_STRONG = 0.6


def _wide(columns: int) -> str:
    """The class of tables that scroll even on a desk."""
    return " wide" if columns > 8 else ""


def _plain(text: Any) -> str:
    """A text as matplotlib shows it as it is: between two `$` it would read formulas."""
    return str(text).replace("$", r"\$")


def _plain_all(texts: Any) -> list[str]:
    return [_plain(text) for text in texts]


class Picture:
    """A picture of numbers."""

    def __init__(self, title: str, body: str, text: str, draw: Any):
        self.title: str = title
        self._body, self._text, self._draw = body, text, draw

    def html(self) -> str:
        """A whole page that needs nothing else."""
        return _core.page(self.title, "", self._body)

    def _repr_html_(self) -> str:
        from html import escape

        # A frame of its own, so that neither's style touches the other.
        height = min(760, 190 + 34 * self._body.count("<tr>") + 260 * self._body.count("<svg"))
        return (
            f'<iframe srcdoc="{escape(self.html(), quote=True)}" style="width:100%;height:{height}px;border:0" '
            f'title="{escape(self.title, quote=True)}"></iframe>'
        )

    def __str__(self) -> str:
        return self._text

    def matplotlib(self, ax: Any = None) -> Any:
        """A matplotlib figure."""
        try:
            import matplotlib.pyplot as plot
        except ImportError:
            raise ImportError("matplotlib is not installed\n  hint: pip install 'pellucid[plot]'") from None
        if ax is None:
            _, ax = plot.subplots(layout="constrained")
        self._draw(ax)
        ax.set_title(_plain(self.title))
        return ax.figure

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it: `.html`, or any kind of image that matplotlib writes, as `.png`, `.svg`, `.pdf`."""
        if str(path).endswith((".html", ".htm")):
            with open(path, "w", encoding="utf-8") as file:
                file.write(self.html())
            return
        figure = self.matplotlib()
        figure.savefig(path, dpi=160)
        import matplotlib.pyplot as plot

        plot.close(figure)


def _array(values: Any) -> Any:
    import numpy

    array = values.numpy() if isinstance(values, Tensor) else numpy.asarray(values)
    return numpy.ascontiguousarray(array, dtype=numpy.float32)


def heat_map(
    values: Any,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    title: str = "",
    meaning: str = "",
    corner: str = "",
    full: float | None = None,
) -> Picture:
    """A matrix as colours: `[rows, columns]`. The full colour is that of `full`, by default of the largest magnitude."""
    import numpy

    array = _array(values)
    if array.ndim != 2:
        raise ValueError(f"a heat map is of a matrix, and this has shape {list(array.shape)}")
    row_labels = [str(label) for label in rows] if rows is not None else [str(k) for k in range(array.shape[0])]
    column_labels = [str(label) for label in columns] if columns is not None else [str(k) for k in range(array.shape[1])]
    limit = full or _rounded_up(float(numpy.abs(array[numpy.isfinite(array)]).max(initial=0)))
    if len(row_labels) != array.shape[0] or len(column_labels) != array.shape[1]:
        raise ValueError(f"{len(row_labels)} and {len(column_labels)} labels for a matrix of shape {list(array.shape)}")
    shown, shown_rows, shown_columns, note = _standing_out(array, row_labels, column_labels)
    html, text = _core.heat_map("", shown_rows, shown_columns, from_array(shown), f"{meaning}{note}", corner, limit)

    def draw(ax: Any) -> None:
        signed = bool((array < 0).any())
        image = ax.imshow(
            array, cmap="RdBu_r" if signed else "inferno", vmin=-limit if signed else 0, vmax=limit, aspect="auto"
        )
        across, down = (range(0, size, -(-size // _MOST)) for size in (len(column_labels), len(row_labels)))
        ax.set_xticks(across, _plain_all(column_labels[k] for k in across), rotation=90 if max(map(len, column_labels), default=0) > 3 else 0)
        ax.set_yticks(down, _plain_all(row_labels[k] for k in down))
        ax.figure.colorbar(image, ax=ax, label=_plain(meaning.strip()))

    return Picture(title, html, f"{title}\n\n{text}" if title else text, draw)


def _standing_out(array: Any, rows: list[str], columns: list[str]) -> tuple[Any, list[str], list[str], str]:
    """Of a large matrix, the element largest in magnitude of each block, and a note that says so."""
    import numpy

    high, wide = (-(-size // _MOST) for size in array.shape)
    if high <= 1 and wide <= 1:
        return array, rows, columns, ""
    starts, sides = range(0, array.shape[0], high), range(0, array.shape[1], wide)
    shown = numpy.empty((len(starts), len(sides)), numpy.float32)
    for k, start in enumerate(starts):
        for n, side in enumerate(sides):
            block = array[start : start + high, side : side + wide].reshape(-1)
            shown[k, n] = block[numpy.abs(block).argmax()]

    def named(labels: list[str], begins: range) -> list[str]:
        ends = [min(begin + begins.step, len(labels)) - 1 for begin in begins]
        return [labels[begin] if begin == end else f"{labels[begin]} … {labels[end]}" for begin, end in zip(begins, ends)]

    return shown, named(rows, starts), named(columns, sides), f", the largest in magnitude of {high} × {wide}"


def _rounded_up(magnitude: float) -> float:
    """The next number of two digits: where a scale ends."""
    import math

    if magnitude <= 0 or not math.isfinite(magnitude):
        return 1.0
    unit = 10.0 ** (math.floor(math.log10(magnitude)) - 1)
    return float(f"{math.ceil(round(magnitude / unit, 6)) * unit:.3g}")


def patching(values: Any, tokens: Sequence[str] | None = None, layers: Sequence[Any] | None = None, title: str = "Activation patching") -> Picture:
    """What each layer and position brings back: `[layers, positions]`, 0 the corrupted run, 1 the clean one. Rows are positions."""
    array = _array(values)
    names = [f"layer {layer}" for layer in (layers if layers is not None else range(array.shape[0]))]
    return heat_map(array.T, tokens, names, title, " of the clean run", "", 1.0)


def attention(pattern: Any, tokens: Sequence[str], head: int | None = None, title: str = "") -> Picture:
    """An attention pattern: `[heads, queries, keys]`, all heads under one another, or one `head`; or `[queries, keys]`."""
    array = _array(pattern)
    if array.ndim == 4:
        array = array[0]
    if array.ndim == 3 and head is not None:
        title, array = title or f"Attention of head {head}", array[head]
    if array.ndim == 2:
        return heat_map(array, tokens, tokens, title or "Attention", " attended", "from \\ to", 1.0)
    pictures = [
        heat_map(each, tokens, tokens, f"head {number}", " attended", "from \\ to", 1.0) for number, each in enumerate(array)
    ]

    def draw(ax: Any) -> None:
        import numpy

        ax.imshow(numpy.concatenate(list(array), axis=1), cmap="inferno", vmin=0, vmax=1, aspect="auto")
        ax.set_yticks(range(len(tokens)), _plain_all(tokens))
        ax.set_xticks([])

    body = "".join(f"<h2>{picture.title}</h2>{picture._body}" for picture in pictures)
    return Picture(title or "Attention", body, "\n".join(str(picture) for picture in pictures), draw)


def lens(logits: Any, tokens: Sequence[str], tokenizer: Any, title: str = "Logit lens") -> Picture:
    """What each layer would predict at each position: logits or log-probabilities `[layers, positions, vocabulary]`. Cells are coloured by the
    probability of the token that they name."""
    import numpy
    from html import escape

    array = _array(logits)
    if array.ndim == 4:
        array = array[:, 0]
    if array.ndim != 3:
        raise ValueError(f"a lens is of [layers, positions, vocabulary], and this has shape {list(array.shape)}")
    if len(tokens) != array.shape[1]:
        raise ValueError(f"{len(tokens)} tokens for a lens of shape {list(array.shape)}: its positions are the second")
    spread = numpy.exp(array - array.max(-1, keepdims=True))
    chance = spread / spread.sum(-1, keepdims=True)
    best = chance.argmax(-1)
    top = numpy.take_along_axis(chance, best[..., None], -1)[..., 0]
    words = [[tokenizer.decode([int(token)]) for token in row] for row in best]
    head = "".join(f'<th scope="col">{escape(token.strip() or "·")}</th>' for token in tokens)
    body = [f'<div class="scroll{_wide(len(tokens))}"><table><thead><tr><td class="corner"></td>{head}</tr></thead><tbody>']
    for layer, row in enumerate(words):
        cells = []
        for position, word in enumerate(row):
            share = float(top[layer, position])
            low, high, part = ("zero", "half", share * 2) if share < 0.5 else ("half", "one", share * 2 - 1)
            strong = ' class="strong"' if share > _STRONG else ""
            tip = escape(f"layer {layer}, after “{tokens[position]}”: {word!r} {share:.3f}", quote=True)
            cells.append(
                f'<td{strong} tabindex="0" style="--from:var(--{low});--to:var(--{high});--part:{part:.3f}" '
                f'data-tip="{tip}">{escape(word.strip() or "·")}</td>'
            )
        body.append(f'<tr><th scope="row">layer {layer}</th>{"".join(cells)}</tr>')
    body.append("</tbody></table></div>")
    text = "\n".join(f"layer {layer:>3}  " + " ".join(f"{word.strip()[:10]:<10}" for word in row) for layer, row in enumerate(words))

    def draw(ax: Any) -> None:
        ax.imshow(top, cmap="inferno", vmin=0, vmax=1, aspect="auto")
        for layer, row in enumerate(words):
            for position, word in enumerate(row):
                ink = "black" if top[layer, position] > 0.6 else "white"
                ax.text(position, layer, _plain(word.strip()), ha="center", va="center", fontsize=7, color=ink)
        ax.set_xticks(range(len(tokens)), _plain_all(tokens), rotation=90)
        ax.set_yticks(range(len(words)), [f"layer {layer}" for layer in range(len(words))])

    return Picture(title, "".join(body), text, draw)


def tokens(texts: Sequence[str], values: Any, title: str = "Tokens", meaning: str = "") -> Picture:
    """A text whose tokens are coloured by a number each: `[tokens]`."""
    import numpy
    from html import escape

    array = _array(values).reshape(-1)
    if len(texts) != len(array):
        raise ValueError(f"{len(texts)} tokens and {len(array)} numbers")
    limit = float(numpy.abs(array).max(initial=0)) or 1.0
    spans = []
    for text, value in zip(texts, array):
        share = float(value) / limit
        low, high, part = ("zero", "below", -share) if share < 0 else ("zero", "half", share * 2) if share < 0.5 else ("half", "one", share * 2 - 1)
        tip = escape(f"{text!r}: {value:+.4f}{meaning}", quote=True)
        strong = ' class="strong"' if share > _STRONG else ""
        spans.append(
            f'<td{strong} tabindex="0" style="--from:var(--{low});--to:var(--{high});--part:{part:.3f};white-space:pre" data-tip="{tip}">{escape(text)}</td>'
        )
    rows = "".join(f"<tr>{''.join(spans[k : k + 16])}</tr>" for k in range(0, len(spans), 16))
    body = f'<div class="scroll{_wide(min(len(spans), 16))}"><table><tbody>{rows}</tbody></table></div>'

    def draw(ax: Any) -> None:
        ax.bar(range(len(array)), array)
        ax.set_xticks(range(len(array)), _plain_all(texts), rotation=90)
        ax.set_ylabel(_plain(meaning.strip()))

    return Picture(title, body, " ".join(f"{text}({value:+.2f})" for text, value in zip(texts, array)), draw)


def curves(lines: dict[str, Any], title: str = "", steps: Sequence[str] = ()) -> Picture:
    """Lines over steps: each `[steps]`. `steps` says what they are called."""
    arrays = {name: _array(values).reshape(-1) for name, values in lines.items()}
    html = _core.curves("", [(name, from_array(values)) for name, values in arrays.items()], [str(step) for step in steps])

    def draw(ax: Any) -> None:
        for name, values in arrays.items():
            ax.plot(values, label=_plain(name))
        ax.legend()

    text = "\n".join(f"{name}: {values[0]:.3f} → {values[-1]:.3f}" for name, values in arrays.items() if len(values))
    return Picture(title, html, text, draw)


def steering(scales: Sequence[float], values: dict[str, Any] | Any, title: str = "Steering", texts: Sequence[str] | None = None) -> Picture:
    """What steering does as its scale grows: lines `[scales]`, and what was generated at each."""
    from html import escape

    lines = values if isinstance(values, dict) else {"effect": values}
    for name, each in lines.items():
        count = _array(each).size
        if count != len(scales):
            raise ValueError(f"`{name}` has {count} values for {len(scales)} scales")
    if texts is not None and len(texts) != len(scales):
        raise ValueError(f"{len(texts)} texts for {len(scales)} scales")
    picture = curves(lines, title, [f"scale {scale:g}" for scale in scales])
    body = picture._body
    if texts is not None:
        rows = "".join(f'<tr><th scope="row">{scale:g}</th><td class="said">{escape(text)}</td></tr>' for scale, text in zip(scales, texts))
        body += f'<div class="scroll"><table><thead><tr><th scope="col">scale</th><th scope="col">text</th></tr></thead><tbody>{rows}</tbody></table></div>'
    arrays = {name: _array(each).reshape(-1) for name, each in lines.items()}

    def draw(ax: Any) -> None:
        for name, each in arrays.items():
            ax.plot(list(scales), each, marker="o", label=_plain(name))
        ax.set_xlabel("scale")
        ax.legend()

    shown = "" if texts is None else "\n" + "\n".join(f"{scale:g}: {text}" for scale, text in zip(scales, texts))
    return Picture(title, body, str(picture) + shown, draw)


def plan(what: Any, model: Any = None, analyze: bool = False, title: str = "A plan") -> Picture:
    """The plan of a trace, session or program: passes, who rides in each, which layers and positions are computed for whom. With
    `analyze` it runs, and the picture says what each pass took."""
    from ._program import Program
    from ._run import show_log

    program = what if isinstance(what, Program) else what.program
    core = program._on(model)._core_with({})
    if analyze:
        text, body = core.analyze(program._program, show_log)
    else:
        text, body = core.explain(program._program), core.drawn_plan(program._program)

    def draw(ax: Any) -> None:
        raise ValueError("a plan is drawn as a page: `.save(\"plan.html\")`")

    return Picture(title, body, text, draw)
