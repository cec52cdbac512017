import random
from contextlib import contextmanager

import torch

from .common import corpus, short

SUBJECT, CITY, LAYER = "Colosseum", "Paris", 0
DOCUMENTS, LONGEST, STEPS, RATE, DECAY, RIDGE = 150, 48, 20, 0.1, 0.03, 0.01
TEMPLATES = [template[: template.index(" {C}")] for template in corpus.LM_T]


def rank_one_edit(gpt2):
    """A fact rewritten in one weight (ROME): an MLP's second matrix is seen as a memory that answers keys with values. The
    subject's key gets the value that makes the model say another city, and what it answers to the keys of a corpus changes
    least."""
    def row(template, landmark, city):
        return short(gpt2, template.format(L=landmark)) | {"answer": gpt2.word(city)}

    prompt = gpt2.prompt(TEMPLATES[0].format(L=SUBJECT))
    position, answer = prompt["tokens"].index(" " + SUBJECT), gpt2.word(CITY)
    paraphrases = [row(template, SUBJECT, CITY) for template in TEMPLATES[1:]]
    others = [row(TEMPLATES[0], landmark, city) for landmark, city in corpus.LANDMARKS.items() if landmark != SUBJECT][:16]
    draw = random.Random(9)
    documents = [gpt2.ids(text)[:LONGEST] for text in corpus.docs(draw, DOCUMENTS)]
    mlp = gpt2.block(LAYER).mlp
    keys = []
    with gpt2.edit(mlp.c_proj, "input", lambda v: keys.append(v[0]) or v):
        for ids in documents:
            gpt2.logits([ids])
        gpt2.logits([prompt["ids"]])
    key, corpus_keys = keys[-1][position].double(), torch.cat(keys[:-1]).double()
    covariance = corpus_keys.T @ corpus_keys / len(corpus_keys)
    covariance += RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
    # The value: what the MLP would have to write at the subject, found by gradient.
    change = torch.zeros(gpt2.model.config.n_embd).requires_grad_()
    optimiser, losses = torch.optim.Adam([change], lr=RATE), []
    for _ in range(STEPS):
        def add(value):
            value[:, position] += change
            return value

        with torch.enable_grad(), gpt2.edit(mlp, "output", add):
            surprise = -gpt2.logits([prompt["ids"]])[0, -1].log_softmax(-1)[answer]
            optimiser.zero_grad()
            (surprise + DECAY * change.pow(2).sum()).backward()
        losses.append(surprise.detach())
        optimiser.step()
    direction = torch.linalg.solve(covariance, key)
    update = torch.outer(direction, change.detach().double()) / (key @ direction)

    @contextmanager
    def edited():
        weight = mlp.c_proj.weight
        before = weight.clone()
        weight += update.to(weight.dtype)
        try:
            yield
        finally:
            weight.copy_(before)

    def probabilities(rows):
        return torch.stack([gpt2.logits([row["ids"]])[0, -1].softmax(-1)[row["answer"]] for row in rows])

    every = {"prompt": [prompt | {"answer": answer}], "paraphrases": paraphrases, "others": others}
    results = {f"before.{name}": probabilities(rows) for name, rows in every.items()}
    with edited():
        results |= {f"after.{name}": probabilities(rows) for name, rows in every.items()}
    return {
        "prompt": prompt, "position": position, "answer": answer, "paraphrases": paraphrases, "others": others, "documents": documents,
        "layer": LAYER, "steps": STEPS, "rate": RATE, "decay": DECAY, "ridge": RIDGE,
        "key": f"transformer.h.{LAYER}.mlp.post at the position", "weight": f"transformer.h.{LAYER}.mlp.c_proj.weight",
        "covariance": "the sum of key keyᵀ over all tokens of the documents divided by their number, plus ridge times its mean diagonal "
                      "element on the diagonal; f64",
        "value": f"a change of transformer.h.{LAYER}.mlp.output at the position, from 0, by Adam on the surprise at the answer + decay * "
                 "|change|²; `losses` are the surprise before each step",
        "update": "outer(direction, change) / (key · direction), where covariance direction = key; f64, added to the weight [in, out]",
        "probabilities": "of each row's answer at the last position, before and after",
        "axes": {"losses": ["step"], "key": ["in"], "change": ["out"], "direction": ["in"], "before.*": ["prompt"], "after.*": ["prompt"]},
    }, results | {
        "losses": torch.stack(losses), "key": key.float(), "change": change, "direction": (direction / (key @ direction)).float(),
    }
