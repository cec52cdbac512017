"""Pellucid beside its peers, interleaved in one run.

    python benchmarks/run.py SERVER [--quick] [--only NAME ...] [--write docs/benchmarks.md]

SERVER is the built example `bench_server`. The model is GPT-2 small's shape with random weights, made once into
.cache/benchmarks. Both sides get the same tokens and two threads, f32, and take turns, so a machine whose speed drifts
slows both. `peers.py` holds what the peers run; every figure is a median with its quartiles.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import time

import peers
from peers import CONTEXT, FOLDER, ROOT, THREADS, tokens

FORWARDS = [(1, 16, 15, 2.8), (1, 32, 15, 2.8), (1, 128, 9, 1.8), (1, 512, 5, 1.5), (8, 64, 5, 1.5)]
NEW_TOKENS = 24
GRADIENTS = (2, 32)
LORA = (2, 64)
PATCHING = 15


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
        self.row(name, spread(mine, 1e3), spread(theirs, 1e3), spread(ratios, 1, 2), aim)

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


def patching(report, arguments, model, server):
    """The case study's shape. Peers that take long run once; what all of them find is compared."""
    length = PATCHING
    case = peers.Patching(model, tokens(2, length, model.config.vocab_size))
    ours = lambda how="planned": server.ask("patching", length, how)  # noqa: E731
    first, expected = ours(), case.batched()
    worst = max(abs(mine - theirs) for mine, theirs in zip(first["values"], expected, strict=True))
    assert worst < 1e-3, f"the two sides patch different things: {worst}"
    report.table(
        f"patching a head at the last position, {len(expected)} cells, {length} tokens", "Pellucid, ms", "the peer, ms",
        "times as fast", "aim",
    )
    seconds = lambda: ours()["seconds"]  # noqa: E731
    batched = lambda: peers.timed(case.batched)  # noqa: E731
    report.compared("PyTorch hooks, batched by hand", interleaved(seconds, batched, 2 if arguments.quick else 7), 15)
    for name, cached, aim in [("nnsight, the clean run cached", True, ""), ("nnsight as first written", False, 200)]:
        found = []
        theirs = peers.timed(lambda c=cached, f=found: f.extend(case.nnsight(c)))
        assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 1e-3, f"{name} patches something else"
        report.compared(name, [(seconds(), theirs) for _ in range(3)], aim)
    alone, naive = ours("alone"), ours("naive")
    assert alone["values"] == naive["values"] == first["values"], "a rewrite changes what is found"
    report.compared("Pellucid without shared rows", [(seconds(), alone["seconds"])])
    report.compared("Pellucid's naive interpreter", [(seconds(), naive["seconds"])])


def overheads(report, arguments, path):
    with Server(path, peers.tiny_model()) as server:
        own = server.ask("overhead")
    peer = peers.overheads()
    report.table("cost beside the model", "Pellucid, µs", "nnsight 0.8.1, µs", "aim, µs")
    of = lambda key: f"{peer[key] * 1e6:.0f}" if key in peer else "did not run: " + peer.get("error", "")  # noqa: E731
    title = f"an empty trace (reading and checking the program: {own['parse_and_check'] * 1e6:.0f})"
    report.row(title, f"{own['empty'] * 1e6:.1f}", of("empty"), 50)
    report.row("a getter, saved", f"{own['getter'] * 1e6:.2f}", of("getter"), 2)
    report.row("a setter", f"{own['setter'] * 1e6:.2f}", "", 2)


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


PARTS = ["forward", "bf16", "backward", "patching", "overhead", "memory"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server")
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
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
        if "patching" in arguments.only:
            patching(report, arguments, model, server)
    if "bf16" in arguments.only:
        half(report, arguments, model, arguments.server)
    if "overhead" in arguments.only:
        overheads(report, arguments, arguments.server)
    if "memory" in arguments.only:
        memory(report, arguments, model, arguments.server)
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
