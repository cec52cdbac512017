"""Peak memory: of fresh processes, with the pages of the mapped file and without, and the peers' beside."""

import cases
import fresh
from peers import FOLDER, SMOLLM2
from report import Server

BASELINE = ("loading: the baseline, a process that has only loaded the model", "load")
GPT2 = [
    BASELINE,
    ("forward 1 × 32", "forward", 1, 32),
    ("forward 1 × 512", "forward", 1, 512),
    ("attribution patching at 24 hook points, 1 × 32", "attribution", 32),
    ("patching a head, 144 cells, 15 tokens", "patching", 15),
    ("patching the residual stream, 180 cells, 15 tokens", "residual", 15),
    ("everything kept, 1 × 32", "everything", 32),
    ("logit lens, 100 prompts of 15", "lens", 100, 15),
    ("steering, 50 tokens of 8 prompts of 15", "steering", 8, 15, 50),
]
LLAMA = [
    BASELINE,
    ("attribution patching at 60 hook points, 1 × 32", "attribution", 32),
    ("patching a head, 270 cells, 15 tokens", "patching", 15),
    ("logit lens, 100 prompts of 15", "lens", 100, 15),
]


def memory(report, arguments):
    columns = [f"{peer}'s peak" for peer in ("PyTorch", "TransformerLens", "nnsight")]
    report.table("memory of a fresh process each, MB", "peak", "times the weights", "held at the end, without mapped pages", *columns)
    # The other family's beside the hooks alone.
    for name, folder, rows, ways in (("GPT-2 small", FOLDER, GPT2, list(fresh.WAYS)), ("SmolLM2-135M", SMOLLM2, LLAMA, ["hooks"])):
        sides = cases.Sides(folder)
        weights = sum(parameter.numel() * 4 for parameter in sides.model.parameters())
        report.row(f"{name}; its weights, f32: {weights / 1e6:.0f}", *[""] * 6)
        for title, *words in rows[:: 4 if arguments.quick else 1]:
            with Server(arguments.server, folder) as server:
                if words != ["load"]:
                    server.ask(*words)
                found = server.ask("memory")
            times = f"{found['peak'] / weights:.2f}"
            if words[0] == "forward":
                logits = words[1] * words[2] * sides.config.vocab_size * 4
                times += f" ({(found['peak'] - logits) / weights:.2f} without the {logits / 1e6:.0f} MB of logits)"
            peaks = [found["peak"], *(fresh.peak_memory(folder, way, *words) if way in ways else None for way in fresh.WAYS)]
            mine, *theirs = ("" if peak is None else f"{peak / 1e6:.0f}" for peak in peaks)
            report.row(title, mine, times, f"{found['anonymous'] / 1e6:.0f}", *theirs)
