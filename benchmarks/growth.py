"""How cost grows: the same experiment ever larger, against what the machine can do."""

import time

import cases
import peers
from peers import FOLDER
from report import Server

ROWS = [1, 4, 16, 64, 256, 1024, 4096]
LENGTHS = [8, 16, 32, 64, 128, 256, 512, 1024]
LAYERS = [4, 8, 12, 24, 48]


class Least:
    """The products without which GPT-2's shape does not give what is read, whatever is shared, and the weights that they need.
    Element by element what is done besides is not counted."""

    def __init__(self, config, layers):
        self.width, self.layers, self.heads, self.vocabulary = config.n_embd, layers, config.n_head, config.vocab_size

    def rows(self, first, last):
        """A layer's operations for the positions from `first` to before `last`: keys and values; and all else, in which each
        position attends to those up to it."""
        count, seen = last - first, (last * (last + 1) - first * (first + 1)) // 2
        return 4 * self.width**2 * count, 20 * self.width**2 * count + 4 * self.width * seen

    def weights(self, columns):
        return 4 * (12 * self.layers * self.width**2 + columns * self.width)

    def prompts(self, count, length):
        """All logits of the last position: the last layer is needed there alone, but for its keys and values."""
        keys, rest = self.rows(0, length)
        last = self.rows(length - 1, length)[1] + 2 * self.width * self.vocabulary
        return count * ((self.layers - 1) * (keys + rest) + keys + last), self.weights(self.vocabulary)

    def cells(self, count, length):
        """Two logits of the last position, where a head's mixed values at a position of a layer are another's: from there on a
        cell's positions have rows of their own, those before are common to all."""
        every, end = self.layers * self.heads * length, self.layers - 1
        cells = [divmod(number * every // count // self.heads, length) for number in range(count)]
        # In the last layer what is read depends on the last position alone: the other cells are one run that nothing changes.
        changed = [(layer, position) for layer, position in cells if layer < end or position == length - 1]
        corrupted = changed + [(end, length - 1)] * (len(changed) < len(cells))
        flops = self.common(changed, length, False) + self.common(corrupted, length, True)
        for layer, position in corrupted:
            # In its own layer the mixed values are there: the output projection and the MLP are left; and two logits.
            flops += 18 * self.width**2 + 4 * self.width
            for later in range(layer + 1, self.layers):
                keys, rest = self.rows(position, length)
                flops += keys + (rest if later < end else self.rows(length - 1, length)[1])
        return flops, self.weights(2)

    def common(self, cells, length, entered):
        """What all cells have of a prompt: the mixed values where they patch. Of the prompt that they enter also what their layers
        go on from, which are the positions after the first that is patched, and what later layers attend to, which are those before."""
        flops = beyond = 0
        for layer in reversed(range(self.layers)):
            here = {position for at, position in cells if at == layer}
            before = max((position for at, position in cells if at < layer), default=0) if entered else 0
            after = min(here) + 1 if entered and here and layer < self.layers - 1 else length
            after = max(after, beyond)
            read = length if after < length else max(before, beyond, *(position + 1 for position in here), 0)
            flops += sum(self.rows(0, beyond)) + self.rows(beyond, min(after, read))[0] + sum(self.rows(after, length))
            # Queries and attention where nothing else of the layer is needed.
            for position in here:
                if beyond <= position < after:
                    flops += 2 * self.width**2 + 4 * self.width * (position + 1)
            beyond = read
        return flops


def growth(report, arguments):
    quick = slice(0, 3) if arguments.quick else slice(None)
    path, config = arguments.server, cases.Sides(FOLDER).config
    theirs, bandwidth = peers.speeds()
    time.sleep(0.3)
    with Server(path, FOLDER) as server:
        ours = server.ask("product")["flops_per_second"]
    # The machine can do at least what the faster of two products of large matrices does.
    peak = max(theirs, ours)
    curves = {}

    def measured(title, server, what, words, sizes, layers=config.n_layer):
        """A row for each size: seconds, what was computed, how near that is to the machine's peak, and what sharing spared."""
        points = curves.setdefault(title, [])
        for size, request in zip(sizes, words, strict=True):
            repeats = 1 if arguments.quick or size >= 1024 else 3
            found = min((server.ask(what, *request) for _ in range(repeats)), key=lambda found: found["seconds"])
            seconds, flops = found["seconds"], found["flops"]
            least, moved = getattr(Least(config, layers), what)(*request)
            # What must be done at least: the arithmetic at the peak, or the bytes at the bandwidth, whichever is longer.
            floor = max(least / peak, moved / bandwidth)
            points.append((size, seconds, floor, found["naive_flops"] / peak))
            report.row(
                size, f"{seconds * 1e3:.1f} ({'once' if repeats == 1 else f'least of {repeats}'})", found["passes"],
                f"{flops / 1e9:.1f}", f"{least / 1e9:.1f}", f"{flops / seconds / peak:.0%}",
                f"{found['bytes'] / seconds / bandwidth:.0%}", f"{floor / seconds:.0%}", f"{found['naive_flops'] / flops:.1f}",
            )  # fmt: skip

    def table(title):
        report.table(
            title, "ms", "passes", "GFLOP", "GFLOP at least", "of the peak", "of the bandwidth", "of what is possible",
            "a naive run's GFLOP, times",
        )  # fmt: skip

    with Server(path, FOLDER) as server:
        rows = ROWS[quick]
        title = "prompts of 16 tokens"
        table(
            f"{title}, the last logits; against {peak / 1e9:.0f} GFLOP/s in a product of two 2048² matrices, "
            f"the faster of PyTorch's ({theirs / 1e9:.0f}) and ours ({ours / 1e9:.0f}), and {bandwidth / 1e9:.0f} GB/s that PyTorch reads"
        )
        measured(title, server, "prompts", [(size, 16) for size in rows], rows)
        title = "cells of head patching, 32 tokens"
        table(title)
        measured(title, server, "cells", [(size, 32) for size in rows], rows)
        title = "tokens of one prompt"
        table(title)
        measured(title, server, "prompts", [(1, size) for size in LENGTHS[quick]], LENGTHS[quick])
    title = "layers, 1 × 64"
    table(title)
    for layers in LAYERS[quick]:
        with Server(path, f"layers:{layers}") as server:
            measured(title, server, "prompts", [(1, 64)], [layers], layers)
    report.note(
        "GFLOP is what the plan computes, of which the peak and the bandwidth are reached; GFLOP at least is what no plan can leave out: the "
        "matrix products that what is read depends on, each once. What is possible is that at the peak, or its weights' "
        "bytes at the bandwidth, whichever takes longer."
    )
    if arguments.write:
        drawn(curves, arguments.write.parent / "growth.svg")
        report.note("![How cost grows](growth.svg)")


def drawn(curves, path):
    """A picture of each curve: measured, what is possible, and what a naive run's arithmetic would take at the peak."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "pellucid", "font.size": 8})
    from matplotlib import pyplot

    figure, plots = pyplot.subplots(1, len(curves), figsize=(3.1 * len(curves), 2.8), layout="constrained")
    for plot, (title, points) in zip(plots, curves.items(), strict=True):
        sizes, *lines = zip(*points, strict=True)
        styles = [("measured", "o-"), ("possible", "--"), ("naive, at the peak", ":")]
        for line, (label, style) in zip(lines, styles, strict=True):
            plot.loglog(sizes, [seconds * 1e3 for seconds in line], style, label=label, markersize=3)
        plot.set(xlabel=title, ylabel="ms")
        plot.grid(alpha=0.3)
    plots[0].legend()
    figure.savefig(path, metadata={"Date": None})
