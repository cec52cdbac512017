from contextlib import ExitStack

import torch

from .common import OUTPUTS, hook_points, randn

SEED, SAMPLES = 0, 10


def causal_tracing(gpt2):
    """Where is a fact looked up? The subject's embeddings drown in noise; then single states are restored to what they are
    without noise, and the answer comes back or does not."""
    prompt, answer = gpt2.prompt("The Eiffel Tower is in the city of"), gpt2.word("Paris")
    subject = list(range(1, prompt["tokens"].index(" is")))
    length = len(prompt["ids"])
    # Three times the spread of the embeddings of words like the subject, as in the paper.
    scale = 3 * gpt2.model.transformer.wte.weight.std().item()
    noise = scale * randn("noise", SAMPLES, len(subject), gpt2.model.config.n_embd, seed=SEED)
    rows = [prompt["ids"]] * SAMPLES

    def drown(value):
        value[:, subject] += noise
        return value

    def outputs():
        found = []
        with ExitStack() as stack:
            for layer in range(gpt2.layers):
                stack.enter_context(gpt2.edit(gpt2.block(layer), "output", lambda v: found.append(v) or v))
            logits = gpt2.logits([prompt["ids"]])
        return found, logits

    clean = {"attention": gpt2.read([prompt["ids"]], "attention"), "mlp": gpt2.read([prompt["ids"]], "mlp")}
    clean["residual"], logits = outputs()
    noised = gpt2.edit(gpt2.model.transformer.wte, "output", drown)
    with noised:
        worst = gpt2.logits(rows)[:, -1].softmax(-1)[:, answer]
    results = {"clean_probability": logits[0, -1].softmax(-1)[answer], "noised_probability": worst.mean(),
               "noised_probabilities": worst}
    places = {
        "residual": lambda layer: [layer],
        # A window around the layer: one alone is too little to bring a fact back.
        "attention": lambda layer: [at for at in (layer - 1, layer, layer + 1) if 0 <= at < gpt2.layers],
        "mlp": lambda layer: [at for at in (layer - 1, layer, layer + 1) if 0 <= at < gpt2.layers],
    }
    for name, window in places.items():
        grid = torch.zeros(gpt2.layers, length)
        for layer in range(gpt2.layers):
            for position in range(length):
                with ExitStack() as stack:
                    stack.enter_context(gpt2.edit(gpt2.model.transformer.wte, "output", drown))
                    for at in window(layer):
                        def restore(value, at=at):
                            value[:, position] = clean[name][at][:, position]
                            return value

                        where = (gpt2.block(at), "output") if name == "residual" else gpt2.place(name, at)
                        stack.enter_context(gpt2.edit(*where, restore))
                    grid[layer, position] = gpt2.logits(rows)[:, -1].softmax(-1)[:, answer].mean()
        results[name] = grid
    return {
        "prompt": prompt, "answer": answer, "subject": subject, "seed": SEED, "samples": SAMPLES, "scale": scale,
        "noise": "`randn` of a node named `noise`, [samples, subject, hidden], times scale, added to the embeddings",
        "hook_points": {"noised": "transformer.wte.output"} | hook_points(residual="output") | OUTPUTS,
        "windows": {name: [window(layer) for layer in range(gpt2.layers)] for name, window in places.items()},
        "metric": "the probability of the answer after the last position, the mean over the samples",
        "axes": {"residual": ["layer", "position"], "attention": ["layer", "position"], "mlp": ["layer", "position"],
                 "noised_probabilities": ["sample"]},
    }, results
