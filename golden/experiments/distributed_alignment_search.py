import random

import torch

from .common import IOI, corpus, ids_of, one_length, randn, short

LAYER, POSITION, CONTROL_POSITION, WIDTH = 2, 9, 5, 4
NAMES = ["Mary", "John", "Emma", "James"]
TRAIN, TEST, STEPS, RATE, SEED = 32, 48, 25, 0.05, 0


def distributed_alignment_search(gpt2):
    """Which subspace holds the variable "who gives"? A rotation is learned such that exchanging only its first few coordinates
    with those of another sentence makes the model answer as if the other sentence's giver gave. A random subspace of the
    same width at the same place, and one learned at another position, do not."""
    draw = random.Random(4)

    def data(count, always_other):
        """Pairs about the same two people. Sentences differ in order, place and thing; the answer is whoever does not give in
        the source."""
        rows = []
        for _ in range(count):
            pair = draw.sample(NAMES, 2)

            def sentence(giver):
                a, b = draw.sample(pair, 2)
                return short(gpt2, IOI.format(a=a, b=b, giver=giver, place=draw.choice(corpus.PLACES), thing=draw.choice(corpus.OBJECTS)))

            gives = draw.choice(pair)
            other = pair[pair[0] == gives]
            source_gives = other if always_other else draw.choice(pair)
            rows.append({"base": sentence(gives), "source": sentence(source_gives), "wrong": gpt2.word(source_gives),
                         "answer": gpt2.word(pair[pair[0] == source_gives])})
        one_length([row[side] for row in rows for side in ("base", "source")])
        return rows

    train, test = data(TRAIN, False), data(TEST, True)
    sources, test_sources = (gpt2.read(ids_of([row["source"] for row in rows]), "residual")[LAYER] for rows in (train, test))
    start = randn("rotation", gpt2.model.config.n_embd, WIDTH, seed=SEED)

    def exchanged(rows, states, weight, position):
        basis, _ = torch.linalg.qr(weight)

        def exchange(value):
            here = value[:, position]
            value[:, position] = here + (states[:, position] - here) @ basis @ basis.T
            return value

        with gpt2.set("residual", LAYER, exchange):
            return gpt2.logits(ids_of([row["base"] for row in rows]))[:, -1]

    def column(rows, key):
        return torch.tensor([row[key] for row in rows])

    def test_scores(weight, position):
        logits = exchanged(test, test_sources, weight, position)
        every = torch.arange(TEST)
        margin = logits[every, column(test, "answer")] - logits[every, column(test, "wrong")]
        if margin.abs().min() < 1e-2:
            raise ValueError("an answer is too close")
        return margin, (margin > 0).float().mean()

    results = {}
    results["random.margin"], results["random.accuracy"] = test_scores(start, POSITION)
    results["whole.margin"], results["whole.accuracy"] = test_scores(torch.eye(gpt2.model.config.n_embd), POSITION)
    for name, position in {"learned": POSITION, "elsewhere": CONTROL_POSITION}.items():
        weight = start.clone().requires_grad_()
        optimiser, losses = torch.optim.Adam([weight], lr=RATE), []
        for _ in range(STEPS):
            with torch.enable_grad():
                loss = torch.nn.functional.cross_entropy(exchanged(train, sources, weight, position), column(train, "answer"))
                optimiser.zero_grad()
                loss.backward()
            losses.append(loss.detach())
            optimiser.step()
        results[f"{name}.losses"] = torch.stack(losses)
        results[f"{name}.margin"], results[f"{name}.accuracy"] = test_scores(weight, position)
        basis, _ = torch.linalg.qr(weight)
        results[f"{name}.projection_diagonal"] = basis.pow(2).sum(1)
    return {
        "train": train, "test": test, "layer": LAYER, "position": POSITION, "control_position": CONTROL_POSITION, "width": WIDTH,
        "steps": STEPS, "rate": RATE, "seed": SEED, "hook_point": f"transformer.h.{LAYER}.input",
        "exchange": "here + (source - here) Q Qᵀ at the position, Q an orthonormal basis of the columns of a weight [hidden, width] (of its "
                    "QR decomposition); the weight starts as `randn` of a node named `rotation`",
        "loss": "mean cross-entropy of the answer at the last position; Adam as in torch; `losses` are before each step",
        "margin": "logits[answer] - logits[wrong] on the test pairs, whose sources always have the other giver: without an exchange every "
                  "answer is wrong",
        "kinds": {"learned": "at `position`", "random": "the weight as it starts", "whole": "all coordinates exchanged",
                  "elsewhere": "learned at `control_position`"},
        "axes": {"<kind>.losses": ["step"], "<kind>.margin": ["pair"], "<kind>.projection_diagonal": ["hidden"]},
    }, results
