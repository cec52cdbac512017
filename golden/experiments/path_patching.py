from contextlib import ExitStack

import torch

from .common import IOI, MIXED, OUTPUTS, difference, hook_points

RECEIVING_LAYER = 2


def path_patching(gpt2):
    """Which heads and MLPs speak to the last norm, and which to the queries, keys and values of a layer, directly? One sender
    is set to its value in the corrupted run while every other head and MLP is frozen to its clean value; what then arrives
    at a receiver is put there in a clean run."""
    names = {"a": "Mary", "b": "John", "place": "store", "thing": "drink"}
    clean, corrupted = (gpt2.prompt(IOI.format(**names, giver=giver)) for giver in ("John", "Mary"))
    answer, wrong = gpt2.word("Mary"), gpt2.word("John")
    best, worst = (difference(gpt2.logits([prompt["ids"]]), answer, wrong) for prompt in (clean, corrupted))
    values = {name: [gpt2.read([prompt["ids"]], name) for prompt in (clean, corrupted)] for name in ("mixed", "mlp")}
    width = gpt2.model.config.n_embd
    attention = gpt2.block(RECEIVING_LAYER).attn
    receivers = {
        "logits": (gpt2.model.transformer.ln_f, "input", slice(None)),
        **{name: (attention.c_attn, "output", slice(width * k, width * (k + 1)))
           for k, name in enumerate(("query", "key", "value"))},
    }
    senders = [("heads", layer, head) for layer in range(gpt2.layers) for head in range(gpt2.heads)]
    senders += [("mlps", layer, None) for layer in range(gpt2.layers)]

    def frozen(kind, layer, head):
        """The edits of a run in which only that sender has its corrupted value."""
        stack = ExitStack()
        for at in range(gpt2.layers):
            mixed = values["mixed"][0][at].clone()
            mlp = values["mlp"][0][at]
            if at == layer and kind == "heads":
                mixed[:, :, head] = values["mixed"][1][at][:, :, head]
            if at == layer and kind == "mlps":
                mlp = values["mlp"][1][at]
            stack.enter_context(gpt2.set("mixed", at, lambda _, mixed=mixed: mixed))
            stack.enter_context(gpt2.set("mlp", at, lambda _, mlp=mlp: mlp))
        return stack

    results = {"clean_difference": best, "corrupted_difference": worst}
    for name, (module, side, part) in receivers.items():
        layers = gpt2.layers if name == "logits" else RECEIVING_LAYER
        heads, mlps = torch.zeros(layers, gpt2.heads), torch.zeros(layers)
        for kind, layer, head in senders:
            if layer >= layers:
                continue
            arrived = []
            with frozen(kind, layer, head), gpt2.edit(module, side, lambda v: arrived.append(v[..., part].clone()) or v):
                gpt2.logits([clean["ids"]])

            def receive(value):
                value[..., part] = arrived[0]
                return value

            with gpt2.edit(module, side, receive):
                patched = difference(gpt2.logits([clean["ids"]]), answer, wrong)
            lost = (best - patched) / (best - worst)
            if kind == "heads":
                heads[layer, head] = lost
            else:
                mlps[layer] = lost
        results[f"{name}.heads"], results[f"{name}.mlps"] = heads, mlps
    return {
        "clean": clean, "corrupted": corrupted, "answer": answer, "wrong": wrong,
        "hook_points": MIXED | {"mlp": OUTPUTS["mlp"]} | hook_points(query="attn.query", key="attn.key", value="attn.value")
        | {"logits": "transformer.ln_f.input"},
        "receiving_layer": RECEIVING_LAYER,
        "metric": "(clean_difference - patched difference) / (clean_difference - corrupted_difference): the share of the answer "
                  "that is lost; a difference is logits[answer] - logits[wrong] at the last position",
        "axes": {"<receiver>.heads": ["layer", "head"], "<receiver>.mlps": ["layer"]},
    }, results
