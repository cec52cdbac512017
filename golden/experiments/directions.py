import torch

from .common import ids_of, one_length, randn, short

LAYER, SCALE, SEED = 2, 4.0, 0
THINGS = ["movie", "book", "food", "song", "party", "hotel"]
PAIRS = [("wonderful", "awful"), ("great", "terrible"), ("excellent", "horrible")]
EVALUATED = ["The trip was lovely. I", "The game was amazing. I", "The meal was boring. I", "The trip was disgusting. I"]


def directions(gpt2):
    """A direction that a concept has in the residual stream: the leading singular vector of the differences of paired prompts.
    Projected out of every position of a layer's input, it takes the concept away; added, it puts it in."""
    good, bad = ([short(gpt2, f"The {thing} was {pair[side]}. I") for thing in THINGS for pair in PAIRS] for side in (0, 1))
    evaluated = one_length([short(gpt2, text) for text in EVALUATED])
    loved, hated = gpt2.word("loved"), gpt2.word("hated")
    states = [gpt2.read(ids_of(one_length(side)), "residual")[LAYER, :, -1] for side in (good, bad)]
    differences = states[0] - states[1]
    _, singular, right = torch.linalg.svd(differences, full_matrices=False)
    mean = differences.mean(0)
    direction = right[0] * (right[0] @ mean).sign()
    noise = randn("noise", gpt2.model.config.n_embd, seed=SEED)
    control = noise / noise.norm()

    def metric(change):
        with gpt2.set("residual", LAYER, change):
            logits = gpt2.logits(ids_of(evaluated))[:, -1]
        return logits[:, loved] - logits[:, hated]

    def without(axis):
        return lambda value: value - (value @ axis).unsqueeze(-1) * axis

    projections = torch.stack([side @ direction for side in states])
    middle = projections.mean()
    return {
        "good": good, "bad": bad, "evaluated": evaluated, "loved": loved, "hated": hated, "layer": LAYER, "scale": SCALE,
        "seed": SEED, "hook_point": f"transformer.h.{LAYER}.input",
        "direction": "the right singular vector of the largest singular value of good - bad at the last position, [pairs, hidden], "
                     "with the sign that its dot product with the mean difference is positive",
        "control": "`randn` of a node named `noise`, [hidden], divided by its length",
        "removed": "value - (value · direction) direction, at every position of the layer's input",
        "added": "scale times the direction, or minus that, at the last position of the layer's input",
        "metric": "logits[loved] - logits[hated] at the last position of each evaluated prompt",
        "accuracy": "how many of the paired prompts lie on the right side of the mean projection",
        "axes": {"singular_values": ["rank"], "direction": ["hidden"], "projections": ["good, bad", "pair"],
                 "baseline": ["prompt"], "removed": ["prompt"], "control": ["prompt"], "added": ["prompt"], "subtracted": ["prompt"]},
    }, {
        "singular_values": singular, "direction": direction, "projections": projections,
        "cosine_with_mean": direction @ mean / mean.norm(),
        "accuracy": torch.cat([projections[0] > middle, projections[1] < middle]).float().mean(),
        "baseline": metric(lambda value: value), "removed": metric(without(direction)), "control": metric(without(control)),
        "added": metric(lambda value: last(value, SCALE * direction)),
        "subtracted": metric(lambda value: last(value, -SCALE * direction)),
    }


def last(value, vector):
    value[:, -1] += vector
    return value
