"""Pellucid beside its peers, interleaved in one run.

    python benchmarks/run.py SERVER [--quick] [--only NAME ...] [--write docs/benchmarks.md]

SERVER is the built example `bench_server`. The models are GPT-2 small's shape and SmolLM2-135M's with random weights, made once
into .cache/benchmarks. Both sides get the same tokens and two threads, f32, and take turns, so a machine whose speed drifts
slows both. `peers.py`, `cases.py` and `patching.py` hold what the peers run, `report.py` how turns are taken and what is found is compared.
"""

import argparse
import os
import pathlib
import platform
import subprocess

import cases
import experiments
import forwards
import growth
import memory
import peers
from peers import FOLDER, ROOT, SMOLLM2
from report import Report, Server, compared

PARTS = ["forward", "backward", "experiments", "pairs", "smollm2", "bf16", "quantised", "overhead", "memory", "growth"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server")
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--gguf", type=pathlib.Path, help="the GGUF file of SmolLM2-135M-Instruct, for the part `quantised`")
    parser.add_argument("--write", type=pathlib.Path, help="the document to write")
    arguments = parser.parse_args()
    load, only, report = os.getloadavg()[0], arguments.only, Report()
    sides = cases.Sides(FOLDER)
    with Server(arguments.server, FOLDER) as server:
        instructions, difference = server.hello["instruction_set"], held(sides, server)
        if "forward" in only:
            forwards.forwards(report, arguments, sides.model, server)
        if "backward" in only:
            forwards.backwards(report, arguments, sides.model, server)
        if "experiments" in only:
            experiments.experiments(report, arguments, sides, server)
        if "pairs" in only:
            experiments.pairs(report, arguments, sides, server)
    if "smollm2" in only:
        other = cases.Sides(SMOLLM2)
        with Server(arguments.server, SMOLLM2) as server:
            held(other, server)
            title = "SmolLM2-135M's shape (30 layers of 9 heads, 3 of keys and values), random weights"
            compared(report, title)
            forwards.smollm2(report, arguments, other.model, server)
            experiments.smollm2(report, arguments, other, server)
    if "bf16" in only:
        forwards.half(report, arguments, sides.model)
    if "quantised" in only and arguments.gguf:
        forwards.quantised(report, arguments)
    if "overhead" in only:
        forwards.overheads(report, arguments)
    if "memory" in only:
        memory.memory(report, arguments)
    if "growth" in only:
        growth.growth(report, arguments)
    if arguments.write:
        write(arguments.write, report, instructions, load, difference)


def held(sides, server):
    """How far both sides' logits are apart: they compute the same."""
    difference = peers.difference(sides.model, server.ask("logits", 32))
    assert difference < 1e-4, f"the two sides compute different things: {difference}"
    return difference


def write(document, report, instructions, load, difference):
    with open("/proc/cpuinfo") as lines:
        named = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    processor = named[0] if named else platform.processor()
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT).stdout.strip()
    head = f"""# Benchmarks

Made by `cargo xtask bench`, which builds the peers' environment and runs both sides in turn, two threads each.
A figure is the median, with the quartiles, where its table says nothing else; of fewer than four rounds it has beside it of how
many, and `once` where a peer that takes more than ten seconds ran a single time. Times as fast is that of the ratios within a
round, the peer's time to ours. What both sides find in an experiment is compared in every run. That a plan gives bit for bit what
the naive run gives is held by [random programs](records.md#random-programs).

GPT-2 small's shape (124 M parameters), random weights, f32. {processor}; kernels' path {instructions};
commit {revision}. Load of the machine before the run: {load:.1f}. Both sides' logits agree to {difference:.1e}.
The peers: {peers.versions()}.
TransformerLens is used through its `TransformerBridge`, nnsight through its `NNsight` around transformers' model.

"""
    # What other commands wrote below stays.
    before = document.read_text() if document.exists() else ""
    below = before.partition("\n## ")
    document.write_text(head + report.text().rstrip() + "\n" + "".join(below[1:]))


if __name__ == "__main__":
    main()
