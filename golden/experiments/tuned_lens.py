import random

import torch

from .common import corpus, ids_of, kl

LENGTH, TRAIN, TEST, STEPS, RATE, MOMENTUM = 10, 24, 16, 20, 0.1, 0.9


def tuned_lens(gpt2):
    """The logit lens with a translator for each depth: an affine map of the residual stream, trained so that what is read out
    there is what the model says in the end."""
    draw, rows = random.Random(21), []
    while len(rows) < TRAIN + TEST:
        ids = gpt2.ids(corpus.docs(draw, 1)[0])
        if len(ids) >= LENGTH:
            rows.append({"text": gpt2.tokenizer.decode(ids[:LENGTH]), "ids": ids[:LENGTH]})
    train, test = rows[:TRAIN], rows[TRAIN:]
    transformer, hidden = gpt2.model.transformer, gpt2.model.config.n_embd

    def read(states):
        return gpt2.model.lm_head(transformer.ln_f(states))

    def translated(states, matrix, bias):
        return states + torch.einsum("dnph,dho->dnpo", states, matrix) + bias[:, None, None]

    states, test_states = (gpt2.read(ids_of(side), "residual") for side in (train, test))
    final, test_final = (gpt2.logits(ids_of(side)) for side in (train, test))
    matrix, bias = torch.zeros(gpt2.layers, hidden, hidden), torch.zeros(gpt2.layers, hidden)
    optimiser = torch.optim.SGD([matrix.requires_grad_(), bias.requires_grad_()], lr=RATE, momentum=MOMENTUM)
    losses = []
    for _ in range(STEPS):
        with torch.enable_grad():
            loss = kl(final, read(translated(states, matrix, bias))).mean((1, 2))
            optimiser.zero_grad()
            loss.sum().backward()
        losses.append(loss.detach())
        optimiser.step()
    tuned = read(translated(test_states, matrix, bias))
    return {
        "train": train, "test": test, "steps": STEPS, "rate": RATE, "momentum": MOMENTUM, "hook_point": "transformer.h.{layer}.input",
        "translator": "x + x matrix + bias, then final norm and unembedding; both start at 0; SGD with momentum as in torch",
        "loss": "KL(final || lens), the mean over prompts and positions, for each depth by itself; `losses` are before each step",
        "held_out": "the same loss on the test prompts, of the logit lens and of the tuned lens",
        "agreement": "how often the lens's most probable token is the model's, on the test prompts",
        "axes": {"losses": ["step", "depth"], "bias": ["depth", "hidden"], "held_out.logit_lens": ["depth"],
                 "held_out.tuned_lens": ["depth"], "agreement.logit_lens": ["depth"], "agreement.tuned_lens": ["depth"]},
    }, {
        "losses": torch.stack(losses), "bias": bias, "matrix_norms": matrix.flatten(1).norm(dim=1),
        "held_out.logit_lens": kl(test_final, read(test_states)).mean((1, 2)), "held_out.tuned_lens": kl(test_final, tuned).mean((1, 2)),
        "agreement.logit_lens": agreement(test_final, read(test_states)), "agreement.tuned_lens": agreement(test_final, tuned),
    }


def agreement(final, lens):
    return (final.argmax(-1) == lens.argmax(-1)).float().mean((1, 2))
