import torch

from .common import IOI, OUTPUTS, RESIDUAL, hook_points


def activation_patching(gpt2):
    """Which places carry what tells the clean prompt from the corrupted one? Each is set, in the corrupted run, to its
    clean value."""
    names = {"a": "Mary", "b": "John", "place": "store", "thing": "drink"}
    clean, corrupted = (gpt2.prompt(IOI.format(**names, giver=giver)) for giver in ("John", "Mary"))
    answer, wrong = gpt2.word("Mary"), gpt2.word("John")
    length, last = len(clean["ids"]), len(clean["ids"]) - 1

    def difference():
        logits = gpt2.logits([corrupted["ids"]])[0, -1]
        return logits[answer] - logits[wrong]

    clean_logits, corrupted_logits = gpt2.logits([clean["ids"]])[0], gpt2.logits([corrupted["ids"]])[0]
    best = clean_logits[-1, answer] - clean_logits[-1, wrong]
    worst = difference()
    results = {"clean_difference": best, "corrupted_difference": worst}
    for name in ("residual", "attention", "mlp"):
        source = gpt2.read([clean["ids"]], name)
        grid = torch.zeros(gpt2.layers, length)
        for layer in range(gpt2.layers):
            for position in range(length):
                def patch(value):
                    value[:, position] = source[layer][:, position]
                    return value

                with gpt2.set(name, layer, patch):
                    grid[layer, position] = (difference() - worst) / (best - worst)
        results[name] = grid
    source = gpt2.read([clean["ids"]], "mixed")
    results["heads"] = torch.zeros(gpt2.layers, gpt2.heads)
    for layer in range(gpt2.layers):
        for head in range(gpt2.heads):
            def patch(value):
                value[:, last, head] = source[layer][:, last, head]
                return value

            with gpt2.set("mixed", layer, patch):
                results["heads"][layer, head] = (difference() - worst) / (best - worst)
    results["clean_logits"], results["corrupted_logits"] = clean_logits[-1], corrupted_logits[-1]
    return {
        "clean": clean, "corrupted": corrupted, "answer": answer, "wrong": wrong,
        "hook_points": RESIDUAL | OUTPUTS | hook_points(heads="attn.mixed"),
        "heads_position": last,
        "metric": "(difference - corrupted_difference) / (clean_difference - corrupted_difference), where difference is "
                  "logits[answer] - logits[wrong] at the last position",
        "axes": {"residual": ["layer", "position"], "attention": ["layer", "position"], "mlp": ["layer", "position"],
                 "heads": ["layer", "head"]},
    }, results
