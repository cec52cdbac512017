"""What goes into an invoke: texts, token ids, what a tokenizer gives."""

from __future__ import annotations

from typing import Any, Iterable, Mapping

from ._regions import Parameter

#: What tokenizers give beside token ids that changes nothing.
_ASIDE = frozenset(("input_ids", "attention_mask", "special_tokens_mask", "offset_mapping", "length", "num_truncated_tokens"))
#: What to write instead of what transformers' models take beside token ids.
_INSTEAD = {
    "position_ids": "positions count the tokens of each prompt from 0, padding left out: leave it out",
    "inputs_embeds": "give token ids, and set what they become: `model.embed.output = …`",
    "head_mask": "write to the heads that are meant: `model.layers[k].attention.mixed[:, :, head] = 0`",
    "token_type_ids": "there are no types of tokens here: leave it out",
    "past_key_values": "give the whole prompt; `pl.Model(…, prefix_cache=64 << 20)` keeps what prompts have in common",
    "labels": "`pl.cross_entropy` of `model.logits` is the loss",
}


def prompts_of(given: tuple[Any, ...], special_tokens: bool | None = None) -> dict[str, Any]:
    """What goes in, as programs hold it."""
    value: Any = given[0] if len(given) == 1 else list(given)
    fields: dict[str, Any]
    if isinstance(value, Parameter):
        return {"prompt": {"axis": value.name}}
    if isinstance(value, str):
        fields = {"prompt": value}
    else:
        value = _encoded(value) if isinstance(value, Mapping) or hasattr(value, "input_ids") else _listed(value)
        if not isinstance(value, list) or not value:
            raise TypeError(f"a prompt is a text, texts, or token ids, not {value!r}")
        if all(isinstance(item, str) for item in value):
            fields = {"prompts": value}
        elif all(isinstance(item, int) for item in value):
            fields = {"tokens": [value]}
        elif all(isinstance(item, list) and all(isinstance(token, int) for token in item) for item in value):
            fields = {"tokens": value}
        else:
            raise TypeError("a prompt is a text, texts, token ids, or lists of token ids")
    if special_tokens is not None and "tokens" not in fields:
        fields["special_tokens"] = special_tokens
    return fields


def _listed(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_listed(item) for item in value]
    return int(value) if isinstance(value, int) else value


def _encoded(given: Any) -> Any:
    """Token ids of what a tokenizer gives, without its padding."""
    if isinstance(given, Mapping):
        fields: dict[str, Any] = dict(given)
    else:
        fields = {name: getattr(given, name, None) for name in ("input_ids", "attention_mask", *_INSTEAD)}
    fields = {name: value for name, value in fields.items() if value is not None}
    if "input_ids" not in fields:
        there = ", ".join(f"`{name}`" for name in fields) or "nothing"
        hint = f"\n  hint: {_INSTEAD['inputs_embeds']}" if "inputs_embeds" in fields else ""
        raise TypeError(f"a prompt that is a dictionary has its token ids as `input_ids`, and this has {there}{hint}")
    for name, value in fields.items():
        if name not in _ASIDE and not (name == "token_type_ids" and not any(_numbers(_listed(value)))):
            hint = f"\n  hint: {_INSTEAD[name]}" if name in _INSTEAD else ": leave it out, or write in the trace what it does"
            raise TypeError(f"a prompt is `input_ids` and `attention_mask`, and `{name}` beside them would be passed over{hint}")
    ids = _listed(fields["input_ids"])
    if "attention_mask" not in fields:
        return ids
    mask = _listed(fields["attention_mask"])
    _alike(ids, mask)
    if ids and isinstance(ids[0], list):
        return [_kept(row, keep, f" of prompt {place}") for place, (row, keep) in enumerate(zip(ids, mask))]
    return _kept(ids, mask, "")


def _numbers(value: Any) -> Iterable[Any]:
    """All numbers in lists of lists."""
    if not isinstance(value, list):
        return [value]
    return [number for each in value for number in _numbers(each)]


def _alike(ids: Any, mask: Any) -> None:
    """Holds a mask to the token ids that it is of."""
    if _sizes(ids) != _sizes(mask):
        raise ValueError(
            f"`attention_mask` is of {_told(mask)}, and `input_ids` of {_told(ids)}\n  hint: it has a 1 for each token id, and a 0 for each that is padding"
        )


def _sizes(value: Any) -> Any:
    if isinstance(value, list) and any(isinstance(each, list) for each in value):
        return [_sizes(each) for each in value]
    return len(value) if isinstance(value, list) else None


def _told(value: Any) -> str:
    sizes = _sizes(value)
    if isinstance(sizes, list) and all(isinstance(size, int) for size in sizes):
        return f"{len(sizes)} prompt{'' if len(sizes) == 1 else 's'} with {', '.join(map(str, sizes[:4]))}{', …' if len(sizes) > 4 else ''} tokens"
    return f"{sizes} tokens" if isinstance(sizes, int) else "another shape"


def _kept(row: list[Any], mask: list[Any], of: str) -> list[Any]:
    """The token ids that a mask keeps: all behind the padding."""
    if any(keep not in (0, 1) for keep in mask):
        raise ValueError(f"`attention_mask`{of} is made of 0 and 1, and has {next(keep for keep in mask if keep not in (0, 1))!r}")
    first = next((place for place, keep in enumerate(mask) if keep), len(mask))
    if first == len(mask) and row:
        raise ValueError(f"`attention_mask`{of} keeps no token")
    gap = next((place for place in range(first, len(mask)) if not mask[place]), None)
    if gap is None:
        return row[first:]
    if any(mask[gap:]):
        raise ValueError(
            f"`attention_mask`{of} leaves out token {gap}, which stands between others: only padding is left out\n  hint: to hide a token from others "
            "write to `model.layers[k].attention.scores`"
        )
    raise ValueError(
        f"`input_ids`{of} are padded on the right, and here padding stands on the left: `h[i, k]` would be another token's\n  hint: "
        '`tokenizer.padding_side = "left"`, or give the texts, or lists of token ids without padding'
    )
