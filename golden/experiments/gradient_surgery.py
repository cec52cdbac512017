from contextlib import ExitStack

import torch

from .common import IOI, difference

SURGERY = {
    "baseline": {},
    "attention_2_zeroed": {("attention", 2): 0.0},
    "mlp_1_doubled": {("mlp", 1): 2.0},
    "both": {("attention", 2): 0.0, ("mlp", 1): 2.0},
}


def gradient_surgery(gpt2):
    """What does the gradient at the embeddings come through? On its way back it is zeroed at one layer, doubled at another."""
    names = {"a": "Mary", "b": "John", "place": "store", "thing": "drink"}
    prompt = gpt2.prompt(IOI.format(**names, giver="John"))
    answer, wrong = gpt2.word("Mary"), gpt2.word("John")
    results = {}
    for name, surgery in SURGERY.items():
        with torch.enable_grad(), ExitStack() as stack:
            embeddings = stack.enter_context(gpt2.tracked())
            layers = [stack.enter_context(gpt2.kept(*gpt2.place("residual", layer))) for layer in range(gpt2.layers)]
            for (place, layer), factor in surgery.items():
                def change(value, factor=factor):
                    value.register_hook(lambda gradient: gradient * factor)
                    return value

                stack.enter_context(gpt2.edit(*gpt2.place(place, layer), change))
            metric = difference(gpt2.logits([prompt["ids"]]), answer, wrong)
        metric.backward()
        results[f"{name}.embeddings"] = embeddings.value.grad[0]
        results[f"{name}.norms"] = torch.stack([kept.value.grad[0].norm(dim=-1) for kept in layers])
        results["difference"] = metric
    return {
        "prompt": prompt, "answer": answer, "wrong": wrong,
        "surgery": {name: [{"hook_point": f"transformer.h.{layer}.{'attn' if place == 'attention' else place}.output", "factor": factor}
                           for (place, layer), factor in surgery.items()] for name, surgery in SURGERY.items()},
        "embeddings": "the gradient at transformer.wte.output of logits[answer] - logits[wrong] at the last position",
        "norms": "the length of the gradient at transformer.h.{layer}.input",
        "axes": {"<surgery>.embeddings": ["position", "hidden"], "<surgery>.norms": ["layer", "position"]},
    }, results
