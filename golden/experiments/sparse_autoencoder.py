from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors.torch import load_file

from .common import difference, kl

FOLDER = Path(__file__).parent.parent.parent / "models" / "tiny-gpt2" / "sae"
LAYER, TOP = 2, 8


def sparse_autoencoder(gpt2):
    """What does a layer's input say, in features? Those of the last position are ablated one by one, each with the
    autoencoder's error left in place, so that nothing but the feature changes."""
    prompt = gpt2.prompt("The movie was awful. I")
    answer, wrong = gpt2.word("hated"), gpt2.word("loved")
    weights = {name: value.to(torch.get_default_dtype()) for name, value in load_file(FOLDER / "sae_weights.safetensors").items()}
    ids, last = [prompt["ids"]], len(prompt["ids"]) - 1

    def encode(value):
        return ((value - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]).relu()

    def decode(features):
        return features @ weights["W_dec"] + weights["b_dec"]

    states = gpt2.read(ids, "residual")[LAYER]
    features, logits = encode(states), gpt2.logits(ids)
    error = states - decode(features)
    base = difference(logits, answer, wrong)

    def spliced(change, error):
        with gpt2.set("residual", LAYER, lambda value: decode(change(encode(value))) + error):
            return gpt2.logits(ids)

    strongest = features[0, last].topk(TOP)
    ablated = []
    for feature in strongest.indices.tolist():
        def without(value):
            value = value.clone()
            value[:, last, feature] = 0
            return value

        ablated.append(difference(spliced(without, error), answer, wrong) - base)
    # To first order, all of them by one backward pass: minus activation times gradient.
    with torch.enable_grad(), ExitStack() as stack:
        stack.enter_context(gpt2.tracked())
        kept = []

        def splice(value):
            found = encode(value)
            found.retain_grad()
            kept.append(found)
            return decode(found) + error

        stack.enter_context(gpt2.set("residual", LAYER, splice))
        metric = difference(gpt2.logits(ids), answer, wrong)
    metric.backward()
    attribution = -(kept[0] * kept[0].grad)[0, last]
    without_error = spliced(lambda value: value, torch.zeros_like(error))
    return {
        "prompt": prompt, "answer": answer, "wrong": wrong, "autoencoder": "models/tiny-gpt2/sae", "top": TOP,
        "hook_point": f"transformer.h.{LAYER}.input",
        "features": "relu((x - b_dec) W_enc + b_enc), at the last position", "error": "x - (features W_dec + b_dec), at every position",
        "ablated": "the change of logits[answer] - logits[wrong] when one of the strongest features is 0 at the last position, the error kept",
        "attribution": "the same to first order for every feature: minus the feature times its gradient",
        "spliced": "the run with the autoencoder's output in place of its input, with and without the error",
        "axes": {"features": ["feature"], "top_features": ["rank"], "top_activations": ["rank"], "ablated": ["rank"],
                 "attribution": ["feature"], "with_error_logits": ["vocabulary"], "unexplained": ["position"]},
    }, {
        "difference": base, "features": features[0, last], "top_features": strongest.indices, "top_activations": strongest.values,
        "active": (features[0, last] > 0).sum(), "ablated": torch.stack(ablated), "attribution": attribution,
        "with_error_logits": spliced(lambda value: value, error)[0, -1], "kl_without_error": kl(logits, without_error)[0, -1],
        "unexplained": error[0].pow(2).sum(-1) / states[0].pow(2).sum(-1),
    }
