import torch

from .common import LEAST_LOGIT_GAP, ids_of, one_length, short
from .directions import PAIRS, THINGS

LAYER, SCALE, NEW_TOKENS = 2, 1.0, 6
PROMPTS = ["The movie was awful. I", "The movie was lovely. I", "The game was boring and bad. I",
           "The song was amazing and lovely. I"]


def conditional_steering(gpt2):
    """Steering only where it is needed: at each step the last position is projected on a direction, and only where the
    projection is on the bad side is the vector added. The program ends each generation itself, when a sentence ends."""
    good, bad = ([short(gpt2, f"The {thing} was {pair[side]}. I") for thing in THINGS for pair in PAIRS] for side in (0, 1))
    means = [gpt2.read(ids_of(one_length(side)), "residual")[LAYER, :, -1].mean(0) for side in (good, bad)]
    vector = means[0] - means[1]
    direction = vector / vector.norm()
    threshold = ((means[0] + means[1]) / 2 @ direction).item()
    prompts, stop = [short(gpt2, text) for text in PROMPTS], gpt2.ids(".")[0]
    kinds = {"baseline": 0.0, "conditional": SCALE}
    results, generated = {"vector": vector, "threshold": threshold}, {}
    for kind, scale in kinds.items():
        generated[kind] = []
        for row, prompt in enumerate(prompts):
            tokens, steered, projections, probabilities = list(prompt["ids"]), [], [], []
            for _ in range(NEW_TOKENS):
                place = len(tokens) - 1

                def steer(value):
                    if place >= len(prompt["ids"]) - 1 + len(projections):
                        projections.append((value[0, place] @ direction).item())
                        if abs(projections[-1] - threshold) < 1e-3:
                            raise ValueError("a projection is too close to the threshold")
                    for at, projection in enumerate(projections):
                        if projection < threshold:
                            value[:, len(prompt["ids"]) - 1 + at] += scale * vector
                    return value

                with gpt2.set("residual", LAYER, steer):
                    logits = gpt2.logits([tokens])[0, -1]
                best = logits.topk(2).values
                if best[0] - best[1] < LEAST_LOGIT_GAP:
                    raise ValueError("a greedy choice is too close")
                tokens.append(logits.argmax().item())
                ending = logits.softmax(-1)[stop].item()
                probabilities.append(ending)
                if abs(ending - 0.5) < 1e-2:
                    raise ValueError("an ending is too close")
                if ending > 0.5:
                    break
            generated[kind].append({"ids": tokens[len(prompt["ids"]):], "text": gpt2.tokenizer.decode(tokens)})
            results[f"{kind}.projections.{row}"] = torch.tensor(projections)
            results[f"{kind}.ending.{row}"] = torch.tensor(probabilities)
    return {
        "good": good, "bad": bad, "prompts": prompts, "layer": LAYER, "scale": SCALE, "new_tokens": NEW_TOKENS, "stop_token": stop,
        "hook_point": f"transformer.h.{LAYER}.input", "generated": generated,
        "vector": "the mean of good less that of bad at the last position of the hook point",
        "threshold": "the projection on vector / |vector| of the point in the middle of the two means",
        "condition": "at each step, at its last position, where the projection (before steering) is below the threshold: scale times the "
                     "vector is added",
        "stop": "after the step at which the stop token's probability is above one half; that step's token is kept",
        "axes": {"<kind>.projections.<prompt>": ["step"], "<kind>.ending.<prompt>": ["step"], "vector": ["hidden"]},
    }, results
