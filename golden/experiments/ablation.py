import torch

from .common import IOI, MIXED, OUTPUTS


def ablation(gpt2):
    """What does the model lose without this part? Each part set to 0, to its mean over a data set, or to another row's."""
    people = [("Mary", "John"), ("Alice", "James"), ("Emma", "Robert"), ("Laura", "Michael"), ("Anna", "David"),
              ("Julia", "Daniel"), ("Helen", "Thomas"), ("Susan", "Paul")]
    places = ["store", "school", "park", "garden", "station", "market", "library", "museum"]
    things = ["drink", "book", "ball", "ring", "flower", "letter", "bottle", "hat"]
    rows = []
    for row, ((a, b), place, thing) in enumerate(zip(people, places, things)):
        giver, receiver = (a, b) if row % 2 else (b, a)
        rows.append({"prompt": gpt2.prompt(IOI.format(a=a, b=b, place=place, giver=giver, thing=thing)),
                     "answer": gpt2.word(receiver), "wrong": gpt2.word(giver)})
    ids = [row["prompt"]["ids"] for row in rows]
    if len({len(prompt) for prompt in ids}) != 1:
        raise ValueError("the prompts have to be of one length")
    permutation = [3, 0, 5, 7, 6, 1, 2, 4]
    answer, wrong = (torch.tensor([row[key] for row in rows]) for key in ("answer", "wrong"))
    every = torch.arange(len(rows))

    def difference():
        logits = gpt2.logits(ids)[:, -1]
        return (logits[every, answer] - logits[every, wrong]).mean()

    results = {"baseline": difference()}
    kinds = ["zero", "mean", "resample"]
    for name in ("mixed", "attention", "mlp"):
        clean = gpt2.read(ids, name)
        means = clean.mean(1)
        results[f"{name}.means"] = means
        targets = [slice(None)] if name != "mixed" else list(range(gpt2.heads))
        grid = torch.zeros(len(kinds), gpt2.layers, len(targets))
        for layer in range(gpt2.layers):
            replacements = {"zero": torch.zeros_like(clean[layer]), "mean": means[layer].expand_as(clean[layer]),
                            "resample": clean[layer][permutation]}
            for row, kind in enumerate(kinds):
                for column, target in enumerate(targets):
                    def replace(value):
                        value[:, :, target] = replacements[kind][:, :, target]
                        return value

                    with gpt2.set(name, layer, replace):
                        grid[row, layer, column] = difference()
        results[f"{name}.difference"] = grid if name == "mixed" else grid[..., 0]
    return {
        "data_set": rows, "permutation": permutation, "kinds": kinds, "hook_points": OUTPUTS | MIXED,
        "mean": "over the data set, position by position",
        "resample": "row i gets the value of row permutation[i]",
        "metric": "the mean over the data set of logits[answer] - logits[wrong] at the last position",
        "axes": {"mixed.difference": ["kind", "layer", "head"], "attention.difference": ["kind", "layer"],
                 "mlp.difference": ["kind", "layer"], "mixed.means": ["layer", "position", "head", "head size"],
                 "attention.means": ["layer", "position", "hidden"], "mlp.means": ["layer", "position", "hidden"]},
    }, results
