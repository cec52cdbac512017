"""What a process of its own does, so that nothing that ran before it is in its way."""

import json
import pathlib
import subprocess
import sys

import cases
import patching
import peers

# The ways in which a peer has an experiment, by what they are called in `cases.py`; of nnsight's the cheapest.
WAYS = {"hooks": "hooks", "transformer_lens": "transformer_lens", "nnsight": "nnsight_batched"}
CASES = {
    "patching": patching.Heads,
    "residual": patching.Residual,
    "attribution": cases.Attribution,
    "everything": cases.Everything,
    "lens": cases.Lens,
    "steering": cases.Steering,
}


def ask(*request):
    """What a fresh process prints last."""
    # As a module, so that what it imports finds this very one.
    command = [sys.executable, "-c", "import sys, fresh; fresh.main(*sys.argv[1:])", *map(str, request)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=peers.ROOT / "benchmarks")
    return json.loads(output.stdout.split("\n")[-2])


def peak_memory(folder, way, what, *sizes):
    """The peak of a fresh process in bytes, Python and its libraries included; none where the peer does not have it."""
    has = what == "load" or way == "hooks" or hasattr(CASES.get(what), WAYS[way])
    return ask("memory", folder, way, what, *sizes) if has else None


def work(sides, way, what, sizes):
    """Does what our server is asked for by the same words."""
    if what == "load":
        return getattr(sides, "model" if way == "hooks" else way)
    if what == "forward":
        return peers.forward(sides.model, peers.tokens(*sizes, sides.config.vocab_size))()
    if what not in ("lens", "steering"):
        sizes = [1 if what == "everything" else 2, *sizes]
    prompts, length, *rest = sizes
    case = CASES[what](sides, peers.tokens(prompts, length, sides.config.vocab_size), *rest)
    return getattr(case, WAYS[way])()


def main(what, *request):
    if what == "overheads":
        return print(json.dumps(peers.overheads()))
    folder, way, what, *sizes = request
    work(cases.Sides(pathlib.Path(folder)), way, what, [int(size) for size in sizes])
    # Not `getrusage`: its maximum counts what the parent held before it became this process.
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")))
