"""TransformerLens' names for hook points, as standard names."""

from __future__ import annotations

import re

_BLOCK = {
    "hook_resid_pre": "input", "hook_resid_post": "output", "hook_resid_mid": "norm_2.input", "hook_attn_out": "attention.output",
    "hook_mlp_out": "mlp.output", "attn.hook_q": "attention.query", "attn.hook_k": "attention.key", "attn.hook_v": "attention.value",
    "attn.hook_attn_scores": "attention.scores", "attn.hook_pattern": "attention.pattern", "attn.hook_z": "attention.mixed",
    "attn.hook_rot_q": "attention.query", "attn.hook_rot_k": "attention.key", "mlp.hook_pre": "mlp.pre", "mlp.hook_post": "mlp.post",
    "ln1.hook_scale": "norm_1.scale", "ln2.hook_scale": "norm_2.scale", "hook_mlp_in": "mlp.input", "hook_attn_in": "attention.input",
}
_WHOLE = {"hook_embed": "embed.output", "ln_final.hook_scale": "final_norm.scale", "unembed.hook_out": "logits"}
_IN_BLOCK = re.compile(r"blocks\.(\d+|\*|\[[^\]]*\])\.(.+)")


def standard(name: str) -> str:
    """A hook point's standard name, given that or TransformerLens'."""
    if name in _WHOLE:
        return _WHOLE[name]
    found = _IN_BLOCK.fullmatch(name)
    if found is None:
        return name
    layer, rest = found.groups()
    if rest not in _BLOCK:
        known = ", ".join(_BLOCK)
        raise KeyError(f"`{name}` has no standard name here; there are blocks.N.{{{known}}}")
    return f"layers.{layer}.{_BLOCK[rest]}"
