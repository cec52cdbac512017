"""Peak memory: of fresh processes, with the pages of the mapped file and without, and the peers' beside."""

import cases
import fresh
from peers import FOLDER, SMOLLM2
from report import Server


def memory(report, arguments):
    columns = [f"{peer}'s peak" for peer in ("PyTorch hooks", "TransformerLens", "nnsight")]
    first = "memory, MB, Python and its libraries included"
    report.table(first, "peak", "times the weights", "held at the end, without mapped pages", *columns)
    some = arguments.quick
    for name, folder, requests in (("GPT-2 small", FOLDER, GPT2), ("SmolLM2-135M", SMOLLM2, LLAMA)):
        sides = cases.Sides(folder)
        weights = sum(parameter.numel() * 4 for parameter in sides.model.parameters())
        report.row(f"{name}: weights, f32, of {weights / 1e6:.0f}", *[""] * 6)
        for what, words in requests[: 3 if some else None]:
            measured(report, arguments.server, folder, weights, what, words, sides.config.vocab_size)


def measured(report, path, folder, weights, name, words, vocabulary):
    with Server(path, folder) as server:
        if words != ("load",):
            server.ask(*words)
        found = server.ask("memory")
    peak = found["peak"]
    times = f"{peak / weights:.2f}"
    if words[0] == "forward":
        logits = words[1] * words[2] * vocabulary * 4
        times += f" ({(peak - logits) / weights:.2f} without the {logits / 1e6:.0f} MB of logits)"
    theirs = [fresh.ask("memory", folder, way, *words) for way in fresh.WAYS]
    shown = ["" if peak is None else f"{peak / 1e6:.0f}" for peak in theirs]
    report.row(name, f"{peak / 1e6:.0f}", times, f"{found['anonymous'] / 1e6:.0f}", *shown)


BASELINE = ("loading: the baseline, a process that has only loaded the model", ("load",))
GPT2 = [
    BASELINE,
    ("patching a head, 144 cells, 15 tokens", ("patching", 15)),
    ("patching the residual stream, 180 cells, 15 tokens", ("residual", 15)),
    ("everything kept, 1 × 32", ("everything", 32)),
    ("logit lens, 100 prompts of 15", ("lens", 100, 15)),
    ("steering, 50 tokens of 8 prompts of 15", ("steering", 8, 15, 50)),
    ("attribution patching at 24 hook points, 1 × 32", ("attribution", 32)),
    ("forward 1 × 32", ("forward", 1, 32)),
    ("forward 1 × 512", ("forward", 1, 512)),
]
LLAMA = [
    BASELINE,
    ("patching a head, 270 cells, 15 tokens", ("patching", 15)),
    ("logit lens, 100 prompts of 15", ("lens", 100, 15)),
    ("attribution patching at 60 hook points, 1 × 32", ("attribution", 32)),
]
