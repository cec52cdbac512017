"""What a process of its own does, so that nothing that ran before it is in its way."""

import json
import pathlib
import subprocess
import sys

import cases
import peers

# The ways in which `cases.py` has an experiment; of nnsight's the cheapest.
WAYS = {"hooks": "hooks", "transformer_lens": "transformer_lens", "nnsight": "nnsight_batched"}


def ask(*request):
    """What a fresh process prints last."""
    # As a module, so that what it imports finds this very one.
    command = [sys.executable, "-c", "import sys, fresh; fresh.main(*sys.argv[1:])", *map(str, request)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=peers.ROOT / "benchmarks")
    return json.loads(output.stdout.split("\n")[-2])


def case_of(sides, what, sizes):
    """What our server is asked for by the same words."""
    made = lambda prompts, length: peers.tokens(prompts, length, sides.config.vocab_size)  # noqa: E731
    match what, sizes:
        case "patching", (length,):
            return cases.Heads(sides, made(2, length))
        case "residual", (length,):
            return cases.Residual(sides, made(2, length))
        case "attribution", (length,):
            return cases.Attribution(sides, made(2, length))
        case "everything", (length,):
            return cases.Everything(sides, made(1, length))
        case "lens", (prompts, length):
            return cases.Lens(sides, made(prompts, length))
        case "steering", (prompts, length, count):
            return cases.Steering(sides, made(prompts, length), count)


def main(what, *rest):
    """What is asked: `overheads`, or `memory FOLDER WAY CASE SIZES...`: the peak in bytes, Python and its libraries included, or none
    where the peer does not have the case."""
    if what == "overheads":
        return print(json.dumps(peers.overheads()))
    folder, way, what, *sizes = rest
    sides, sizes = cases.Sides(pathlib.Path(folder)), [int(size) for size in sizes]
    if what == "load":
        getattr(sides, "model" if way == "hooks" else way)
    elif what == "forward":
        if way != "hooks":
            return print(json.dumps(None))
        peers.forward(sides.model, peers.tokens(*sizes, sides.config.vocab_size))()
    else:
        run = getattr(case_of(sides, what, sizes), WAYS[way], None)
        if run is None:
            return print(json.dumps(None))
        run()
    # Not `getrusage`: its maximum counts what the parent held before it became this process.
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")))
