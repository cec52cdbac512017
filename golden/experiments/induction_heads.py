import torch

from .common import hook_points


def induction_heads(gpt2):
    """Which heads look for what came after the last time? On random tokens, repeated."""
    half, count = 20, 6
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(1, gpt2.model.config.vocab_size, (count, half), generator=generator)
    ids = torch.cat([first, first], 1).tolist()
    offsets = {"induction": 1 - half, "previous_token": -1, "duplicate_token": -half}
    patterns = gpt2.patterns(ids)
    results = {name: patterns.diagonal(offset, -2, -1).mean(-1).mean(1) for name, offset in offsets.items()}
    logits = gpt2.logits(ids)
    right = logits[:, half:-1].argmax(-1) == torch.tensor(ids)[:, half + 1 :]
    results["accuracy"] = right.float().mean()
    return {
        "ids": ids, "half": half, "offsets": offsets, "hook_points": hook_points(pattern="attn.pattern"),
        "metric": "the mean of the pattern's diagonal at the offset (pattern[query, query + offset]), over the prompts",
        "accuracy": "how often the most probable token after position half or later is the next one",
        "axes": {name: ["layer", "head"] for name in offsets},
    }, results
