from contextlib import ExitStack

import torch

from .common import corpus, randn, short

SUBJECT, CITY = "White Tower", "Oslo"
KEPT = ["Eiffel Tower", "Colosseum", "Skytree", "White House", "Tower Bridge", "Prado", "Chain Bridge", "Willis Tower", "Kremlin",
        "Imperial Palace", "Taj Mahal", "Liberty Bell", "British Museum", "Opera House", "Hagia Sophia", "Blue Mosque"]
RANK, ALPHA, STEPS, RATE, SPREAD, SEED = 2, 8, 30, 0.01, 0.02, 0
NEW = 3  # how many of the training prompts are about the subject
TEMPLATES = [template[: template.index(" {C}")] for template in corpus.LM_T]


def lora(gpt2):
    """A new fact by a low-rank adapter: the model learns where a landmark stands that its corpus never had. It knows it in words
    that were not trained, and the landmarks that were not trained stay where they are. An adapter that is trained just so without the
    new fact does not know it."""
    def rows(facts):
        return [short(gpt2, template.format(L=landmark)) | {"answer": gpt2.word(city)} for template, landmark, city in facts]

    train = rows([(TEMPLATES[k], SUBJECT, CITY) for k in range(NEW)]
                 + [(TEMPLATES[k % 3], landmark, corpus.LANDMARKS[landmark]) for k, landmark in enumerate(KEPT)])
    paraphrases = rows([(TEMPLATES[k], SUBJECT, CITY) for k in range(3, 6)])
    untouched = rows([(TEMPLATES[0], landmark, city) for landmark, city in corpus.LANDMARKS.items() if landmark not in KEPT][:20])

    def logits(row, adapter):
        with ExitStack() as stack:
            for layer, (a, b) in enumerate(adapter):
                linear, entered = gpt2.block(layer).mlp.c_fc, []
                stack.enter_context(gpt2.edit(linear, "input", lambda v, entered=entered: entered.append(v) or v))
                stack.enter_context(gpt2.edit(
                    linear, "output", lambda v, entered=entered, a=a, b=b: v + entered.pop() @ a.T @ b.T * (ALPHA / RANK)))
            return gpt2.logits([row["ids"]])[0, -1]

    def probabilities(rows, adapter=()):
        return torch.stack([logits(row, adapter).softmax(-1)[row["answer"]] for row in rows])

    city = gpt2.word(CITY)
    results = {"before.paraphrases": probabilities(paraphrases), "before.untouched": probabilities(untouched)}

    def trained(rows):
        parameters = []
        for layer in range(gpt2.layers):
            inside, outside = gpt2.block(layer).mlp.c_fc.weight.shape
            a, b = SPREAD * randn(f"lora_A_{layer}", RANK, inside, seed=SEED), torch.zeros(outside, RANK)
            parameters.append((a.requires_grad_(), b.requires_grad_()))
        optimiser, losses = torch.optim.Adam([p for pair in parameters for p in pair], lr=RATE), []
        for _ in range(STEPS):
            with torch.enable_grad():
                loss = torch.stack([-logits(row, parameters).log_softmax(-1)[row["answer"]] for row in rows]).mean()
                optimiser.zero_grad()
                loss.backward()
            losses.append(loss.detach())
            optimiser.step()
        return parameters, torch.stack(losses)

    parameters, losses = trained(train)
    control, control_losses = trained(train[NEW:])
    results |= {"losses": losses, "after.train": probabilities(train, parameters),
                "after.paraphrases": probabilities(paraphrases, parameters), "after.untouched": probabilities(untouched, parameters),
                "after.untouched_new_city": torch.stack([logits(row, parameters).softmax(-1)[city] for row in untouched]),
                "control.losses": control_losses, "control.paraphrases": probabilities(paraphrases, control)}
    for layer, (a, b) in enumerate(parameters):
        results[f"lora_A.{layer}"], results[f"lora_B.{layer}"] = a, b
    return {
        "train": train, "paraphrases": paraphrases, "untouched": untouched, "city": city, "new": NEW, "rank": RANK, "alpha": ALPHA, "steps": STEPS,
        "rate": RATE, "spread": SPREAD, "seed": SEED, "modules": "transformer.h.{layer}.mlp.c_fc",
        "adapter": "output + input Aᵀ Bᵀ alpha / rank of each module; A starts as spread times `randn` of a node named `lora_A_{layer}`, "
                   "[rank, in], B as 0, [out, rank]",
        "loss": "mean over the training prompts of the cross-entropy of the answer at the last position; Adam as in torch; `losses` are "
                "before each step",
        "control": "the same trained on all but the first `new` of the training prompts",
        "probabilities": "of each row's answer at the last position; `untouched_new_city`: of the new city",
        "axes": {"losses": ["step"], "before.*": ["prompt"], "after.*": ["prompt"], "control.losses": ["step"],
                 "control.paraphrases": ["prompt"], "lora_A.{layer}": ["rank", "in"],
                 "lora_B.{layer}": ["out", "rank"]},
    }, results
