"""What the Python package costs beside the engine: `cargo xtask python costs` builds it optimised, runs this, and writes the figures down.

    python benchmarks/python.py SUMMARY [SERVICE]

SUMMARY is the file to write; SERVICE is the built `pellucid`, which is then started on loopback. Every figure is a median with its
quartiles. The model is the bundled one; runs are of the README's ten lines.
"""

import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import pellucid as pl

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROMPT = "The Eiffel Tower is in the city of"
#: What is aimed at: seconds.
AIMS = {"`import pellucid`": 0.1, "an empty trace": 200e-6, "recording an operation": 5e-6}
OPERATIONS = 1000


def importing():
    """Seconds of an import in a new process."""
    code = "import time; t = time.perf_counter(); import pellucid; print(time.perf_counter() - t)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment).stdout)


def timed(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def recording(model, write):
    """Seconds of one of many writings in a trace."""

    def trace():
        with model.trace(PROMPT, run=False):
            x = model.layers[0].output
            started = time.perf_counter()
            for _ in range(OPERATIONS):
                x = write(x)
            trace.seconds = (time.perf_counter() - started) / OPERATIONS

    trace()
    return trace.seconds


def empty(model):
    def trace():
        with model.trace(PROMPT):
            pass

    return timed(trace)


def experiment(model):
    def trace():
        with model.trace(PROMPT):
            hidden = model.transformer.h[1].output.save()
            model.transformer.h[2].output[:, -1] *= 2
            logits = model.logits.save()
        assert hidden.shape == (1, 10, 128) and logits is not None

    return timed(trace)


def shown(seconds):
    for unit, factor in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1:
            break
    return f"{seconds * factor:.3g} {unit}"


def quartiles(measure, times):
    measure()
    low, middle, high = statistics.quantiles([measure() for _ in range(times)], n=4)
    return low, middle, high


def main():
    model = pl.Model("bundled")
    rows = [
        ("`import pellucid`", quartiles(importing, 15)),
        ("an empty trace", quartiles(lambda: empty(model), 500)),
        ("recording an operation", quartiles(lambda: recording(model, lambda x: x + 1.0), 30)),
        ("reading a hook point", quartiles(lambda: recording(model, lambda x: model.layers[1].output), 30)),
        ("opening the bundled model", quartiles(lambda: timed(lambda: pl.Model("bundled")), 15)),
        ("ten lines, here", quartiles(lambda: experiment(model), 100)),
    ]
    if len(sys.argv) > 2:
        with tempfile.TemporaryDirectory() as folder:
            arguments = [sys.argv[2], "serve", "--open", "--listen", "127.0.0.1:0", "--data", folder]
            service = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            remote = pl.Model("bundled", remote=service.stdout.readline().split("listening on ")[1].split()[0])
            rows.append(("ten lines, at a service on this machine", quartiles(lambda: experiment(remote), 100)))
            service.terminate()
            service.wait()
    lines = ["| what | takes | quartiles | aim |", "| --- | --- | --- | --- |"]
    for name, (low, middle, high) in rows:
        aim = AIMS.get(name)
        lines.append(f"| {name} | {shown(middle)} | {shown(low)} to {shown(high)} | {f'below {shown(aim)}' if aim else ''} |")
    text = "\n".join(lines) + f"\n\nPython {platform.python_version()}, {platform.machine()}; the machine's load before: {LOAD:.1f}.\n"
    pathlib.Path(sys.argv[1]).write_text(text, encoding="utf-8")
    print(text)
    missed = [name for name, (_, middle, _) in rows if name in AIMS and middle >= AIMS[name]]
    if missed:
        sys.exit(f"not reached: {', '.join(missed)}")


LOAD = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0

if __name__ == "__main__":
    main()
