import random

import torch

from .common import corpus, ids_of, one_length, randn, short

TOKENS, TRAIN, TEST, STEPS, RATE, SPREAD, SEED = 4, 16, 20, 25, 0.03, 0.1, 0


def soft_prompts(gpt2):
    """A few embeddings that are no words, learned so that they ask for the capital of the country that follows; tested on
    countries that were not trained."""
    countries = random.Random(6).sample(list(corpus.COUNTRIES), TRAIN + TEST)
    rows = [short(gpt2, f"{country}:") | {"answer": gpt2.word(corpus.COUNTRIES[country].split()[0])} for country in countries]
    one_length(rows)
    train, test = rows[:TRAIN], rows[TRAIN:]
    prompt = SPREAD * randn("soft_prompt", TOKENS, gpt2.model.config.n_embd, seed=SEED)

    def logits(rows):
        def place(value):
            value[:, :TOKENS] = prompt
            return value

        with gpt2.edit(gpt2.model.transformer.wte, "output", place):
            return gpt2.logits([[0] * TOKENS + ids for ids in ids_of(rows)])[:, -1]

    def answers(rows):
        return torch.tensor([row["answer"] for row in rows])

    def accuracy(logits):
        best = logits.topk(2).values
        if (best[:, 0] - best[:, 1]).min() < 1e-3:
            raise ValueError("an answer is too close")
        return (logits.argmax(-1) == answers(test)).float().mean()

    results = {"accuracy.without": accuracy(gpt2.logits(ids_of(test))[:, -1]), "accuracy.untrained": accuracy(logits(test))}
    prompt.requires_grad_()
    optimiser, losses = torch.optim.Adam([prompt], lr=RATE), []
    for _ in range(STEPS):
        with torch.enable_grad():
            loss = torch.nn.functional.cross_entropy(logits(train), answers(train))
            optimiser.zero_grad()
            loss.backward()
        losses.append(loss.detach())
        optimiser.step()
    trained = logits(test)
    results |= {"losses": torch.stack(losses), "prompt": prompt, "accuracy.trained": accuracy(trained),
                "test_probabilities": trained.softmax(-1)[torch.arange(TEST), answers(test)]}
    return {
        "train": train, "test": test, "tokens": TOKENS, "steps": STEPS, "rate": RATE, "spread": SPREAD, "seed": SEED,
        "hook_point": "transformer.wte.output",
        "prompt": "before each prompt stand `tokens` tokens 0 whose embeddings are replaced by a parameter [tokens, hidden]; it starts as "
                  "spread times `randn` of a node named `soft_prompt`",
        "loss": "mean cross-entropy of the answer at the last position; Adam as in torch; `losses` are before each step",
        "accuracy": "how often the answer is the most probable token on the test prompts",
        "axes": {"losses": ["step"], "prompt": ["token", "hidden"], "test_probabilities": ["prompt"]},
    }, results
