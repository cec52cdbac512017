from contextlib import ExitStack

import torch

from .common import IOI, hook_points


def direct_logit_attribution(gpt2):
    """Who writes the answer? The last norm's scale held fixed, the logits are a sum over everything that was ever added to the
    residual stream; each part's dot product with what the unembedding reads is its share."""
    names = {"a": "Mary", "b": "John", "place": "store", "thing": "drink"}
    prompt = gpt2.prompt(IOI.format(**names, giver="John"))
    answer, wrong = gpt2.word("Mary"), gpt2.word("John")
    transformer, ids = gpt2.model.transformer, [prompt["ids"]]
    final, last = [], len(prompt["ids"]) - 1
    with gpt2.edit(transformer.ln_f, "input", lambda v: final.append(v) or v):
        logits = gpt2.logits(ids)[0, -1]
    norm, residual = transformer.ln_f, final[0][0, -1]
    scale = (residual.var(correction=0) + norm.eps).sqrt()
    direction = gpt2.model.lm_head.weight[answer] - gpt2.model.lm_head.weight[wrong]

    def share(part):
        return ((part - part.mean(-1, keepdim=True)) / scale * norm.weight) @ direction

    mixed = gpt2.read(ids, "mixed")[:, 0, last]
    weights = torch.stack([gpt2.block(layer).attn.c_proj.weight for layer in range(gpt2.layers)])
    heads = torch.einsum("lhd,lhdo->lho", mixed, weights.unflatten(1, (gpt2.heads, gpt2.head_size)))
    biases = torch.stack([gpt2.block(layer).attn.c_proj.bias for layer in range(gpt2.layers)])
    results = {
        "difference": logits[answer] - logits[wrong], "scale": scale,
        "token": share(transformer.wte.weight[prompt["ids"][-1]]), "position": share(transformer.wpe.weight[last]),
        "heads": share(heads), "attention_biases": share(biases),
        "mlps": share(gpt2.read(ids, "mlp")[:, 0, last]), "norm_bias": norm.bias @ direction,
    }
    parts = ("token", "position", "heads", "attention_biases", "mlps", "norm_bias")
    total = sum(results[name].sum() for name in parts)
    torch.testing.assert_close(total, results["difference"], atol=1e-4, rtol=0)
    return {
        "prompt": prompt, "answer": answer, "wrong": wrong,
        "hook_points": hook_points(heads="attn.mixed", mlps="mlp.output") | {
            "token": "transformer.wte.output", "position": "transformer.wpe.output", "scale": "transformer.ln_f.scale"},
        "metric": "((part - mean(part)) / scale * ln_f.weight) · (unembedding row of the answer - that of the wrong one), at the "
                  "last position; a head's part is its mixed value times its rows of attn.c_proj.weight",
        "parts": list(parts), "axes": {"heads": ["layer", "head"], "attention_biases": ["layer"], "mlps": ["layer"]},
    }, results
