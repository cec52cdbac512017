"""TransformerLens' names for hook points, and patterns, as standard names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Callable, Iterable

if TYPE_CHECKING:
    from ._tree import Tree

_BLOCK = {
    "hook_resid_pre": "input", "hook_resid_post": "output", "hook_resid_mid": "norm_2.input", "hook_attn_out": "attention.output",
    "hook_mlp_out": "mlp.output", "attn.hook_q": "attention.query", "attn.hook_k": "attention.key", "attn.hook_v": "attention.value",
    "attn.hook_attn_scores": "attention.scores", "attn.hook_pattern": "attention.pattern", "attn.hook_z": "attention.mixed",
    "attn.hook_rot_q": "attention.query", "attn.hook_rot_k": "attention.key", "mlp.hook_pre": "mlp.pre", "mlp.hook_post": "mlp.post",
    "mlp.hook_pre_linear": "mlp.up", "ln1.hook_scale": "norm_1.scale", "ln2.hook_scale": "norm_2.scale", "ln1.hook_normalized": "norm_1.output",
    "ln2.hook_normalized": "norm_2.output", "hook_mlp_in": "norm_2.input",
}
#: Where positions are rotated, TransformerLens' queries and keys are those before that.
_BEFORE_ROTATION = {"attn.hook_q": "attention.query_pre", "attn.hook_k": "attention.key_pre"}
#: Where norms stand behind the branches, too, TransformerLens' results of the branches are those after them.
_BEHIND = {"hook_attn_out": "post_attention_layernorm", "hook_mlp_out": "post_feedforward_layernorm"}
_WHOLE = {
    "hook_embed": "embed.output", "ln_final.hook_scale": "final_norm.scale", "ln_final.hook_normalized": "final_norm.output",
    "unembed.hook_out": "logits",
}
_POSITIONS = ("wpe", "embed_positions")
_IN_BLOCK = re.compile(r"blocks(?:\.(\d+|\*)|\.?(\[[^\]]*\]))\.(.+)")
#: Where short names stand, as `utils.get_act_name` has them.
_OF_ATTENTION = ("q", "k", "v", "z", "rot_q", "rot_k", "result", "pattern", "attn_scores")
_OF_MLP = ("pre", "post", "pre_linear")
_KINDS = {"a": "attn", "attn": "attn", "m": "mlp", "mlp": "mlp", "ln1": "ln1", "ln2": "ln2", "ln_final": "ln_final"}


def standard(name: str, tree: Tree) -> str:
    """A hook point's standard name, or a pattern of them, given that or TransformerLens'."""
    if name in _WHOLE:
        return _WHOLE[name]
    if name == "hook_pos_embed":
        for path in tree.modules:
            if path.rpartition(".")[2] in _POSITIONS:
                return f"{path}.output"
        raise KeyError("`hook_pos_embed`: this model has no embedding of positions\n  hint: where they are rotated, `attention.query` and `attention.query_pre` show it")
    found = _IN_BLOCK.fullmatch(name)
    if found is None:
        return name
    layer, some, rest = found.groups()
    if rest not in _BLOCK:
        known = ", ".join(_BLOCK)
        raise KeyError(f"`{name}` has no standard name here; there are blocks.N.{{{known}}}")
    target = _BLOCK[rest]
    before = _BEFORE_ROTATION.get(rest)
    if before is not None and before.rpartition(".")[2] in tree.hooks.get(tree.target("layers.0.attention"), {}):
        target = before
    if rest in _BEHIND and f"{tree.target('layers.0')}.post_feedforward_layernorm" in tree.modules:
        target = f"{_BEHIND[rest]}.output"
    return f"layers{some}.{target}" if some else f"layers.{layer}.{target}"


def short(name: str, layer: Any = None, kind: str | None = None, layers: int = 0) -> str:
    """The whole name that a short one stands for: `("pattern", 1)`, `("scale", 0, "ln1")`, `("embed",)`."""
    if "." in name or name.startswith("hook_"):
        return name
    if layer is None:
        return f"ln_final.hook_{name}" if name in ("scale", "normalized") else f"hook_{name}"
    number = int(layer) % layers if layers and int(layer) < 0 else int(layer)
    part = _KINDS.get(kind or "", kind or "")
    if not part:
        part = "attn" if name in _OF_ATTENTION else "mlp" if name in _OF_MLP else ""
    return f"blocks.{number}.{part + '.' if part else ''}hook_{name}"


def lens_names(tree: Tree) -> dict[str, str]:
    """TransformerLens' name of each of the model's hook points that has one, by its path under transformers' names."""
    layers = sum(alias.startswith("layers.") and alias.count(".") == 1 for alias in tree.aliases)
    names: dict[str, str] = {}
    for known in [*_WHOLE, "hook_pos_embed", *(f"blocks.{layer}.{rest}" for layer in range(layers) for rest in _BLOCK)]:
        try:
            path = tree.hook(standard(known, tree))
        except KeyError:
            continue
        module, _, name = path.rpartition(".")
        if name in tree.hooks.get(module, {}):
            names.setdefault(path, known)
    return names


def all_names(tree: Tree) -> list[tuple[str, list[str]]]:
    """Every hook point in the order of the schedule: its path, and all names it goes by; TransformerLens' first."""
    backwards = {target: alias for alias, target in tree.aliases.items()}
    of_lens = lens_names(tree)
    found = []
    for path in (f"{module}.{name}" if module else name for module, names in tree.hooks.items() for name in names):
        names = [path]
        head, _, rest = path.rpartition(".")
        while head:
            if head in backwards:
                names.insert(0, f"{backwards[head]}.{rest}")
                break
            head, _, part = head.rpartition(".")
            rest = f"{part}.{rest}"
        names += [alias for alias, target in tree.hook_aliases.items() if target == path]
        if path in of_lens:
            names.insert(0, of_lens[path])
        found.append((path, names))
    return found


def chosen(wanted: Any, tree: Tree) -> list[str]:
    """The hook points that a name, a pattern, several, or a function of names choose, by standard names."""
    if callable(wanted):
        found = [names for _, names in all_names(tree) if any(wanted(name) for name in names)]
        if not found:
            raise KeyError("the filter accepts none of the model's hook points\n  hint: it is asked for TransformerLens' names and for those of `model.spec`")
        return [_plain(names) for names in found]
    listed: Iterable[Any] = [wanted] if isinstance(wanted, str) else wanted
    paths: list[str] = []
    for each in listed:
        name = standard(each if isinstance(each, str) else each._path, tree)
        paths += matching(name, tree) if "*" in name or "[" in name else [name]
    return list(dict.fromkeys(paths))


def _plain(names: list[str]) -> str:
    return next((name for name in names if name.startswith("layers.")), names[-1])


def matching(pattern: str, tree: Tree) -> list[str]:
    """The hook points that match a pattern, as the language has it."""
    matches = _matcher(pattern)
    found = [next((name for name in names if matches(name)), None) for _, names in all_names(tree)]
    paths = [name for name in found if name is not None]
    if not paths:
        raise KeyError(f"no hook point matches `{pattern}`\n  hint: `layers.*.attention.output` is one of every layer; `model.spec` lists all")
    return paths


def _matcher(pattern: str) -> Callable[[str], bool]:
    text, chosen_numbers = "", []
    for part in pattern.split("."):
        numbered = re.fullmatch(r"(\w+)\[([^\]]*)\]", part)
        if part == "**":
            text += r"(?:[^.]+\.)*"
        elif part == "*":
            text += r"[^.]+\."
        elif numbered:
            text += re.escape(numbered[1]) + r"\.(\d+)\."
            chosen_numbers.append(numbered[2])
        else:
            text += re.escape(part) + r"\."
    whole = re.compile(text)

    def matches(name: str) -> bool:
        found = whole.fullmatch(name + ".")
        return found is not None and all(_holds(numbers, int(each)) for numbers, each in zip(chosen_numbers, found.groups()))

    return matches


def _holds(numbers: str, number: int) -> bool:
    if ":" not in numbers:
        return number in [int(each) for each in numbers.split(",") if each.strip()]
    ends = [int(each) if each.strip() else None for each in numbers.split(":")]
    return number in range(1 << 16)[slice(*ends)]
