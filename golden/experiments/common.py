"""What the experiments share: prompts, names of hook points, the language's random numbers as torch tensors."""

import sys
from pathlib import Path

import torch

from philox import Noise

sys.path.append(str(Path(__file__).parent.parent.parent / "models" / "tiny-gpt2"))
import corpus  # noqa: E402, F401  (the word lists that the bundled model was trained on)

IOI = "When {a} and {b} went to the {place}, {giver} gave a {thing} to"
# Below this a greedy choice would hang on rounding.
LEAST_LOGIT_GAP = 1e-3


def hook_points(**names):
    return {name: f"transformer.h.{{layer}}.{hook}" for name, hook in names.items()}


RESIDUAL = hook_points(residual="input")
OUTPUTS = hook_points(attention="attn.output", mlp="mlp.output")
MIXED = hook_points(mixed="attn.mixed")


def checked(generated):
    ids, logits = generated
    best = logits.topk(2).values
    if (best[:, 0] - best[:, 1]).min() < LEAST_LOGIT_GAP:
        raise ValueError("a greedy choice is too close")
    return ids, logits


def randn(label, *shape, seed=0):
    """What `randn` gives in a program of that seed, in the node of that name."""
    count = torch.Size(shape).numel()
    return torch.tensor(Noise(seed, label).randn(count), dtype=torch.float32).to(torch.get_default_dtype()).reshape(shape)


def randperm(label, count, seed=0):
    return Noise(seed, label).randperm(count).tolist()


def difference(logits, answer, wrong):
    """The answer's logit less the wrong one's, at the last position of the only prompt."""
    return logits[0, -1, answer] - logits[0, -1, wrong]


def kl(logits, other):
    """KL(softmax(logits) || softmax(other)) along the last dimension."""
    return (logits.softmax(-1) * (logits.log_softmax(-1) - other.log_softmax(-1))).sum(-1)


def short(gpt2, text):
    """A prompt without its tokens' texts, for data sets."""
    return {"text": text, "ids": gpt2.ids(text)}


def ids_of(prompts):
    return [prompt["ids"] for prompt in prompts]


def one_length(prompts):
    if len({len(prompt["ids"]) for prompt in prompts}) != 1:
        raise ValueError("the prompts have to be of one length")
    return prompts
