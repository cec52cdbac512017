"""Pellucid beside its peers, interleaved in one run.

    python benchmarks/run.py SERVER [--quick] [--only NAME ...] [--write docs/benchmarks.md]

SERVER is the built example `bench_server`. The model is GPT-2 small's shape with random weights, made once into
.cache/benchmarks. Both sides get the same tokens and two threads, f32, and take turns, so a machine whose speed drifts
slows both. `peers.py` and `cases.py` hold what the peers run; every figure is a median with its quartiles.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import time

import cases
import peers
from peers import CONTEXT, FOLDER, ROOT, THREADS, tokens

FORWARDS = [(1, 16, 15, 2.8), (1, 32, 15, 2.8), (1, 128, 9, 1.8), (1, 512, 5, 1.5), (8, 64, 5, 1.5)]
NEW_TOKENS = 24
GRADIENTS = (2, 32)
LORA = (2, 64)
PATCHING = 15
PAIRS = 32


class Server:
    """Our side: one process, one request a line."""

    def __init__(self, path, folder, *arguments):
        environment = dict(os.environ, PELLUCID_THREADS=str(THREADS))
        self.process = subprocess.Popen(
            [path, str(folder), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.hello = json.loads(self.process.stdout.readline())

    def ask(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def seconds(self, *words):
        return self.ask(*words)["seconds"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def interleaved(ours, theirs, rounds):
    """Seconds of both sides in turn, after a warm-up. Before each turn the other side's threads come to rest: they go on spinning
    for a while (of OpenMP up to 0.2 s), which would take a core from whoever is measured."""
    ours, theirs = rested(ours), rested(theirs)
    ours(), theirs()
    pairs = []
    for number in range(rounds):
        # Whoever goes first has the colder machine: they take turns in that too.
        pairs.append((ours(), theirs()) if number % 2 == 0 else tuple(reversed((theirs(), ours()))))
    return pairs


def rested(work):
    def after_a_rest():
        time.sleep(0.3)
        return work()

    return after_a_rest


def spread(values, scale=1.0, digits=1):
    """A median, with its quartiles where there are enough values to have some."""
    values = sorted(value * scale for value in values)
    text = f"{statistics.median(values):.{digits}f}"
    if len(values) >= 4:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        text += f" ({low:.{digits}f}–{high:.{digits}f})"
    return text


def reached(value, aim, more_is_better=True):
    """An aim, and whether it was missed."""
    missed = aim != "" and (value < aim if more_is_better else value > aim)
    return f"{aim} (missed)" if missed else aim


class Report:
    def __init__(self):
        self.lines = []

    def table(self, title, *columns):
        self.lines += ["", f"| {title} | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]

    def row(self, *cells):
        self.lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
        print(self.lines[-1], flush=True)

    def compared(self, name, pairs, aim=""):
        ratios = [theirs / mine for mine, theirs in pairs]
        mine, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
        self.row(name, spread(mine, 1e3), spread(theirs, 1e3), spread(ratios, 1, 2), reached(statistics.median(ratios), aim))

    def text(self):
        return "\n".join(self.lines).strip() + "\n"


def forwards(report, arguments, model, server):
    vocabulary = model.config.vocab_size
    report.table("forward pass, all logits", "Pellucid, ms", "PyTorch eager, ms", "times as fast", "aim")
    for prompts, length, rounds, aim in FORWARDS:
        theirs = peers.forward(model, tokens(prompts, length, vocabulary))
        ours = lambda p=prompts, n=length: server.seconds("forward", p, n)  # noqa: E731
        report.compared(f"{prompts} × {length}", interleaved(ours, theirs, 2 if arguments.quick else rounds), aim)
    ours = lambda: server.seconds("decode", CONTEXT, NEW_TOKENS)  # noqa: E731
    pairs = interleaved(ours, lambda: peers.decode(model, NEW_TOKENS), 1 if arguments.quick else 7)
    report.compared(f"decoding a token, context {CONTEXT}", pairs, 2.8)


def half(report, arguments, model, path):
    with Server(path, FOLDER, "bf16") as server:
        report.table("`--dtype bf16` (weights bf16, sums f32)", "Pellucid bf16, ms", "PyTorch f32, ms", "times as fast", "aim")
        for prompts, length, _, _ in FORWARDS[1:3]:
            theirs = peers.forward(model, tokens(prompts, length, model.config.vocab_size))
            ours = lambda p=prompts, n=length: server.seconds("forward", p, n)  # noqa: E731
            report.compared(f"forward {prompts} × {length}", interleaved(ours, theirs, 2 if arguments.quick else 7))


def quantised(report, arguments, path):
    """SmolLM2-135M-Instruct as its GGUF file has it, beside the same file unpacked: what is found is the same to the bit."""
    file, rounds = arguments.gguf, 2 if arguments.quick else 7
    with Server(path, file, "quantised") as ours, Server(path, file) as whole, Server(path, file, "bf16") as half:
        assert ours.ask("logits", 32) == whole.ask("logits", 32), "quantised weights give other logits than unpacked ones"
        megabytes = [round(server.hello["weight_bytes"] / 1e6) for server in (ours, whole, half)]
        title = f"`--dtype quantised` (SmolLM2-135M-Instruct in Q4_1; weights of {megabytes[0]} MB, f32 {megabytes[1]}, bf16 {megabytes[2]})"
        report.table(title, "quantised, ms", "the other, ms", "times as fast", "aim")
        for name, theirs in (("f32", whole), ("bf16", half)):
            words = ("decode", CONTEXT, NEW_TOKENS)
            pairs = interleaved(lambda: ours.seconds(*words), lambda s=theirs: s.seconds(*words), rounds)  # noqa: B023
            report.compared(f"decoding a token, context {CONTEXT}; {name}", pairs)
            for length in (32, 128):
                words = ("forward", 1, length)
                pairs = interleaved(lambda: ours.seconds(*words), lambda s=theirs: s.seconds(*words), rounds)  # noqa: B023
                report.compared(f"forward 1 × {length}; {name}", pairs)


def backwards(report, arguments, model, server):
    report.table("gradients and training", "Pellucid, ms", "PyTorch eager, ms", "times as fast", "aim")
    for name, shape, theirs, aim in [
        ("gradients", GRADIENTS, lambda: peers.gradients(model, tokens(*GRADIENTS, model.config.vocab_size)), 2),
        ("lora", LORA, lambda: peers.lora(tokens(*LORA, model.config.vocab_size)), 1),
    ]:
        title = {
            "gradients": f"forward with gradients at 24 hook points, {shape[0]} × {shape[1]}",
            "lora": f"a LoRA step (rank 8, AdamW), {shape[0]} × {shape[1]}; the peer is peft",
        }[name]
        first = server.ask(name, *shape)
        if "error" in first:
            report.row(title, f"does not run: {first['error']}", "", "", aim)
            continue
        ours = lambda name=name, shape=shape: server.seconds(name, *shape)  # noqa: E731
        report.compared(title, interleaved(ours, theirs(), 2 if arguments.quick else 11), aim)


def experiments(report, arguments, model, server):
    """Whole experiments, written as one first writes them. What both sides find is compared; peers that take long run once."""
    lens = cases.lens_model()
    rounds = 2 if arguments.quick else 7
    vocabulary = model.config.vocab_size
    seconds = lambda *words: lambda: server.seconds(*words)  # noqa: E731

    def table(title):
        report.table(title, "Pellucid, ms", "the peer, ms", "times as fast", "aim")

    def against(name, words, theirs, expected, aim=""):
        if expected is not None:
            same(expected, theirs(), name)
        report.compared(name, interleaved(seconds(*words), lambda: peers.timed(theirs), rounds), aim)

    def once(name, words, theirs, expected, aim=""):
        found = []
        took = peers.timed(lambda: found.extend(theirs()))
        same(expected, found, name)
        report.compared(name, [(server.seconds(*words), took) for _ in range(3)], aim)

    length = PATCHING
    prompts = tokens(2, length, vocabulary)
    case, words = cases.Heads(model, lens, prompts), ("patching", length)
    planned = server.ask(*words)
    expected, cells = planned["values"], len(planned["values"])
    table(f"patching a head at the last position, {cells} cells, {length} tokens; results {planned['bytes']} bytes")
    against("PyTorch hooks, batched by hand", words, case.batched, expected, 15)
    once("TransformerLens, `generic_activation_patch`", words, case.transformer_lens, expected)
    once("nnsight, the clean run cached", words, lambda: case.nnsight(True), expected)
    once("nnsight as first written", words, case.nnsight, expected, 200)
    others = [
        ("Pellucid, every logit of the read positions computed", "every-logit"),
        ("Pellucid without any rewrite", "alone"),
        ("Pellucid's naive interpreter", "naive"),
    ]
    for name, how in others:
        other = server.ask(*words, how)
        assert other["values"] == expected, "a rewrite changes what is found"
        report.compared(name, [(server.seconds(*words), other["seconds"]) for _ in range(3)])

    case, words = cases.Residual(model, lens, prompts), ("residual", length)
    expected = server.ask(*words)["values"]
    table(f"patching the residual stream, every layer and position, {len(expected)} cells, {length} tokens")
    against("PyTorch hooks, batched by hand", words, case.batched, expected, 5)
    once("TransformerLens, `get_act_patch_resid_pre`", words, case.transformer_lens, expected)

    case, words = cases.Everything(model, lens, tokens(1, 32, vocabulary)), ("everything", 32)
    table(f"everything kept, 1 × 32 ({server.ask(*words)['saved']} hook points here)")
    against("PyTorch hooks on every module", words, case.hooks, None, 1.5)
    against("TransformerLens, `run_with_cache`", words, case.transformer_lens, None)

    case, words = cases.Lens(model, lens, tokens(100, length, vocabulary)), ("lens", 100, length)
    expected = server.ask(*words)["values"]
    table(f"logit lens at the last position, 100 prompts of {length}")
    against("PyTorch hooks", words, case.hooks, expected, 1.5)
    against("TransformerLens", words, case.transformer_lens, expected)

    prompts, count = tokens(8, length, vocabulary), 50
    case, words = cases.Steering(model, lens, prompts, count), ("steering", 8, length, count)
    ours, theirs = server.ask(*words)["values"], case.hooks()
    equal = sum(mine == other for mine, other in zip(ours, theirs, strict=True)) / len(theirs)
    assert equal > 0.9, f"only {equal:.0%} of the generated tokens are the same"
    table(f"steering, {count} tokens of 8 prompts of {length}")
    against("transformers' `generate` with a hook", words, case.hooks, None, 1.5)

    table("attribution patching at 24 hook points, 1 × 32")
    pair = tokens(2, 32, vocabulary)
    theirs = lambda: peers.attribution(model, pair)  # noqa: E731
    against("PyTorch hooks and autograd", ("attribution", 1, 32), theirs, None, 1.5)


def same(ours, theirs, what, tolerance=1e-3):
    worst = max(abs(mine - other) for mine, other in zip(ours, theirs, strict=True))
    assert worst < tolerance, f"{what}: the two sides find different things, by {worst}"


def pairs(report, arguments, model, server):
    """The case study on many pairs of prompts. The peer runs once: it takes minutes."""
    count = 2 if arguments.quick else PAIRS
    prompts = tokens(2 * count, PATCHING, model.config.vocab_size)
    case, words = cases.Heads(model, None, prompts), ("pairs", count, PATCHING)
    planned = server.ask(*words)
    title = f"patching a head, {count} pairs of {PATCHING} tokens, {len(planned['values'])} results"
    report.table(title, "Pellucid, ms", "the peer, ms", "times as fast", "aim")
    found = []
    took = peers.timed(lambda: found.extend(case.batched()))
    same(planned["values"], found, title)
    times = [server.seconds(*words) for _ in range(3)]
    report.compared("PyTorch hooks, a pair's cells in a batch", [(mine, took) for mine in times], 15)
    other = server.ask(*words, "every-logit")
    assert other["values"] == planned["values"], "a rewrite changes what is found"
    report.compared("Pellucid, every logit of the read positions computed", [(mine, other["seconds"]) for mine in times])


def smollm2(report, arguments, path):
    """The same on another family, whose layers are more and narrower."""
    model = peers.smollm2()
    vocabulary = model.config.vocab_size
    with Server(path, peers.SMOLLM2) as server:
        difference = peers.difference(model, server.ask("logits", 32))
        assert difference < 1e-3, f"the two sides compute different things: {difference}"
        title = "SmolLM2-135M's shape (30 layers of 9 heads, 3 of keys and values), random weights"
        report.table(title, "Pellucid, ms", "PyTorch eager, ms", "times as fast", "aim")
        for length, rounds in [(32, 11), (128, 7)]:
            theirs = peers.forward(model, tokens(1, length, vocabulary))
            ours = lambda n=length: server.seconds("forward", 1, n)  # noqa: E731
            report.compared(f"forward 1 × {length}", interleaved(ours, theirs, 2 if arguments.quick else rounds))
        ours = lambda: server.seconds("decode", CONTEXT, NEW_TOKENS)  # noqa: E731
        compared = interleaved(ours, lambda: peers.decode(model, NEW_TOKENS), 1 if arguments.quick else 5)
        report.compared(f"decoding a token, context {CONTEXT}", compared)
        prompts = tokens(2, PATCHING, vocabulary)
        for name, words, case, aim in [
            ("a head at the last position", "patching", cases.Heads, 15),
            ("the residual stream, every layer and position", "residual", cases.Residual, 5),
        ]:
            theirs, words = case(model, None, prompts).batched, (words, PATCHING)
            found = server.ask(*words)["values"]
            same(found, theirs(), name)
            # What was found is the warm-up.
            times = [(server.seconds(*words), peers.timed(theirs)) for _ in range(1 if arguments.quick else 3)]
            title = f"patching {name}, {len(found)} cells, {PATCHING} tokens; PyTorch hooks, batched by hand"
            report.compared(title, times, aim)


def overheads(report, arguments, path):
    with Server(path, peers.tiny_model()) as server:
        own = server.ask("overhead")
    peer = json.loads(peers.fresh("overheads"))
    report.table("cost beside the model", "Pellucid, µs", "nnsight 0.8.1, µs", "aim, µs")
    of = lambda key: f"{peer[key] * 1e6:.0f}" if key in peer else "did not run: " + peer.get("error", "")  # noqa: E731
    title = f"an empty trace (reading and checking the program: {own['parse_and_check'] * 1e6:.0f})"
    report.row(title, f"{own['empty'] * 1e6:.1f}", of("empty"), reached(own["empty"] * 1e6, 50, False))
    report.row("a getter, saved", f"{own['getter'] * 1e6:.2f}", of("getter"), reached(own["getter"] * 1e6, 2, False))
    report.row("a setter", f"{own['setter'] * 1e6:.2f}", "", reached(own["setter"] * 1e6, 2, False))


def memory(report, arguments, model, path):
    """Peaks of fresh processes, with the pages of the mapped file and without."""
    weights = sum(parameter.numel() * 4 for parameter in model.parameters())
    report.table("memory, MB", "peak", "times the weights", "held at the end, without mapped pages", "PyTorch's peak")

    def measured(name, *requests, activations=0):
        peak = 0
        with Server(path, FOLDER) as server:
            for words in requests:
                answer = server.ask(*words)
                if "error" in answer:
                    return report.row(name, f"does not run: {answer['error']}", "", "", "")
            found = server.ask("memory")
        peak = found["peak"]
        times = f"{peak / weights:.2f}"
        if activations:
            times += f" ({(peak - activations) / weights:.2f} without the {activations / 1e6:.0f} MB of logits)"
        theirs = peers.peak_memory(requests[0] if requests else ("load",))
        report.row(name, f"{peak / 1e6:.0f}", times, f"{found['anonymous'] / 1e6:.0f}", f"{theirs / 1e6:.0f}")

    report.row(f"the weights, f32: {weights / 1e6:.0f}", "", "", "", "")
    vocabulary = model.config.vocab_size
    measured("loading")
    measured("forward 1 × 32", ("forward", 1, 32), activations=32 * vocabulary * 4)
    measured("forward 1 × 512", ("forward", 1, 512), activations=512 * vocabulary * 4)
    measured("attribution patching at 24 hook points, 1 × 32", ("attribution", 1, 32))
    measured(f"patching a head, 144 cells, {PATCHING} tokens", ("patching", PATCHING))
    measured(f"patching the residual stream, 180 cells, {PATCHING} tokens", ("residual", PATCHING))
    measured("everything kept, 1 × 32", ("everything", 32))
    measured(f"logit lens, 100 prompts of {PATCHING}", ("lens", 100, PATCHING))
    measured(f"steering, 50 tokens of 8 prompts of {PATCHING}", ("steering", 8, PATCHING, 50))


ROWS = [1, 4, 16, 64, 256, 1024, 4096]
LENGTHS = [8, 16, 32, 64, 128, 256, 512, 1024]
LAYERS = [4, 8, 12, 24, 48]


def growth(report, arguments, path):
    """The same experiment ever larger, against what the machine can do."""
    theirs, bandwidth = peers.speeds()
    time.sleep(0.3)
    with Server(path, FOLDER) as server:
        ours = server.ask("product")["flops_per_second"]
    # The machine can do at least what the faster of two products of large matrices does.
    peak = max(theirs, ours)
    curves = {}

    def measured(title, server, what, words, sizes):
        """A row for each size: seconds, what was computed, how near that is to the machine's peak, and what sharing spared."""
        points = curves.setdefault(title, [])
        for size, request in zip(sizes, words, strict=True):
            repeats = 1 if arguments.quick or size >= 1024 else 3
            found = min((server.ask(what, *request) for _ in range(repeats)), key=lambda found: found["seconds"])
            seconds, flops = found["seconds"], found["flops"]
            # What must be done at least: the arithmetic at the peak, or the bytes at the bandwidth, whichever is longer.
            floor = max(flops / peak, found["bytes"] / bandwidth)
            points.append((size, seconds, floor, found["naive_flops"] / peak))
            report.row(
                size, f"{seconds * 1e3:.1f}", found["passes"], f"{flops / 1e9:.1f}", f"{flops / seconds / peak:.0%}",
                f"{found['bytes'] / seconds / bandwidth:.0%}", f"{floor / seconds:.0%}", f"{found['naive_flops'] / flops:.1f}",
            )  # fmt: skip

    columns = ["ms", "passes", "GFLOP", "of the peak", "of the bandwidth", "of what is possible", "a naive run's GFLOP, times"]

    def table(title):
        report.table(title, *columns)

    quick = slice(0, 3) if arguments.quick else slice(None)
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
            measured(title, server, "prompts", [(1, 64)], [layers])
    if arguments.write:
        drawn(curves, arguments.write.parent / "growth.svg")
        report.lines += ["", "![How cost grows](growth.svg)"]


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


PARTS = ["forward", "bf16", "quantised", "backward", "experiments", "pairs", "smollm2", "overhead", "memory", "growth"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server")
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--gguf", type=pathlib.Path, help="the GGUF file of SmolLM2-135M-Instruct, for the part `quantised`")
    parser.add_argument("--write", type=pathlib.Path, help="the document to write")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    model = peers.model()
    report = Report()
    with Server(arguments.server, FOLDER) as server:
        hello = server.hello
        difference = peers.difference(model, server.ask("logits", 32))
        assert difference < 1e-3, f"the two sides compute different things: {difference}"
        if "forward" in arguments.only:
            forwards(report, arguments, model, server)
        if "backward" in arguments.only:
            backwards(report, arguments, model, server)
        if "experiments" in arguments.only:
            experiments(report, arguments, model, server)
        if "pairs" in arguments.only:
            pairs(report, arguments, model, server)
    if "smollm2" in arguments.only:
        smollm2(report, arguments, arguments.server)
    if "bf16" in arguments.only:
        half(report, arguments, model, arguments.server)
    if "quantised" in arguments.only and arguments.gguf:
        quantised(report, arguments, arguments.server)
    if "overhead" in arguments.only:
        overheads(report, arguments, arguments.server)
    if "memory" in arguments.only:
        memory(report, arguments, model, arguments.server)
    if "growth" in arguments.only:
        growth(report, arguments, arguments.server)
    text = report.text()
    if arguments.write:
        processor = next(
            (line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
            platform.processor(),
        )
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT
        ).stdout.strip()
        head = (
            "# Benchmarks\n\nMade by `cargo xtask bench`, which builds the peers' environment and runs both sides in turn, "
            "two threads each.\nEvery figure is the median, with the quartiles; times as fast is that of the ratios within a "
            "round, the peer's time\nto ours.\n\n"
            f"GPT-2 small's shape (124 M parameters), random weights, f32. {processor}; {peers.versions()}; kernels' path "
            f"{hello['instruction_set']};\ncommit {commit}. Load of the machine before the run: {load:.1f}. Both sides' "
            f"logits agree to {difference:.1e}.\n\n"
        )
        # What other commands wrote below stays.
        before = arguments.write.read_text() if arguments.write.exists() else ""
        below = before.partition("\n## ")
        arguments.write.write_text(head + text.rstrip() + "\n" + "".join(below[1:]))


if __name__ == "__main__":
    main()
