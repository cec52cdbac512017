from contextlib import ExitStack

import torch

from .activation_patching import activation_patching
from .common import IOI, OUTPUTS, RESIDUAL, difference, hook_points

PLACES = ["residual", "attention", "mlp", "mixed"]


def attribution_patching(gpt2):
    """Activation patching at every place at once, to first order: the change that patching would make, times the gradient
    of the metric in the corrupted run. Two forward passes and one backward."""
    names = {"a": "Mary", "b": "John", "place": "store", "thing": "drink"}
    clean, corrupted = (gpt2.prompt(IOI.format(**names, giver=giver)) for giver in ("John", "Mary"))
    answer, wrong = gpt2.word("Mary"), gpt2.word("John")
    best = difference(gpt2.logits([clean["ids"]]), answer, wrong)
    values = {}
    with torch.enable_grad(), ExitStack() as stack:
        stack.enter_context(gpt2.tracked())
        for name in PLACES:
            values[name] = [stack.enter_context(gpt2.kept(*gpt2.place(name, layer))) for layer in range(gpt2.layers)]
        worst = difference(gpt2.logits([corrupted["ids"]]), answer, wrong)
    worst.backward()
    results = {}
    for name in PLACES:
        here = torch.stack([kept.value for kept in values[name]])[:, 0]
        gradient = torch.stack([kept.value.grad for kept in values[name]])[:, 0]
        change = gpt2.read([clean["ids"]], name)[:, 0]
        if name == "mixed":
            here, gradient = (value.unflatten(-1, (gpt2.heads, gpt2.head_size)) for value in (here, gradient))
        effect = ((change - here) * gradient).sum(-1) / (best - worst)
        results["heads" if name == "mixed" else name] = effect
        if name == "residual":
            results["residual.gradient"] = gradient
    # How good the approximation is: beside the patching itself, place by place.
    _, truth = activation_patching(gpt2)
    for name in ("residual", "attention", "mlp"):
        both = torch.stack([results[name].flatten(), truth[name].flatten()])
        results[f"{name}.correlation"] = torch.corrcoef(both)[0, 1]
    return {
        "clean": clean, "corrupted": corrupted, "answer": answer, "wrong": wrong,
        "hook_points": RESIDUAL | OUTPUTS | hook_points(heads="attn.mixed"),
        "metric": "sum over the last dimension of (clean - corrupted) * gradient of the corrupted run's difference, divided "
                  "by clean_difference - corrupted_difference; a difference is logits[answer] - logits[wrong] at the last position",
        "correlation": "with activation_patching's results, over all layers and positions",
        "axes": {"residual": ["layer", "position"], "attention": ["layer", "position"], "mlp": ["layer", "position"],
                 "heads": ["layer", "position", "head"], "residual.gradient": ["layer", "position", "hidden"]},
    }, results
