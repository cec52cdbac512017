"""Tokenizers."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Iterable

from . import _core
from ._options import whole_texts

#: What to write instead of what tokenizers of transformers have.
_INSTEAD = {
    "convert_ids_to_tokens": "`[tokenizer.decode(token) for token in ids]`: texts; of a text `tokenizer.tokens(text)`",
    "convert_tokens_to_ids": "`tokenizer.token(\" Paris\")` of one text that is one token",
    "tokenize": "`tokenizer.tokens(text)`",
    "batch_encode_plus": "`tokenizer(texts)`",
    "encode_plus": "`tokenizer(text)`",
    "apply_chat_template": "`model.encode_chat(text)` gives the token ids of a user's turn",
    "padding_side": "padding is on the left, here and in traces",
    "get_vocab": "`tokenizer.vocab_size` says how many tokens there are, `tokenizer.decode(k)` what the k-th is",
    "vocab": "`tokenizer.vocab_size` says how many tokens there are, `tokenizer.decode(k)` what the k-th is",
}


class Encoding(dict[str, Any]):
    """What a tokenizer gives: `input_ids` and `attention_mask`, by key and by attribute."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self:
            raise AttributeError(f"an encoding has {', '.join(f'`{each}`' for each in self)}, and no `{name}`")
        return self[name]

    def to(self, device: Any) -> Encoding:
        """Itself: devices are the engine's affair."""
        return self


class Tokenizer:
    """A model's tokenizer."""

    def __init__(self, model: _core.Model, about: tuple[Any, int | None, int]):
        self._model = model
        #: An ellipsis where it is at a service, which does not tell.
        self._begins: Any = about[0]
        self.eos_token_id: int | None = about[1]
        self.vocab_size: int = about[2]
        self.pad_token_id: int | None = self.eos_token_id

    @property
    def bos_token_id(self) -> int | None:
        """The token that texts begin with."""
        if self._begins is Ellipsis:
            # What is put before an empty text.
            begins = self._model.encode("", True)
            if len(begins) != 1:
                raise AttributeError("the service does not tell this model's first token\n  hint: `add_special_tokens` puts it where it belongs")
            self._begins = begins[0]
        return self._begins

    @property
    def eos_token(self) -> str | None:
        """The text of the token that ends texts."""
        return None if self.eos_token_id is None else self.decode(self.eos_token_id)

    @property
    def pad_token(self) -> str | None:
        """The text of the token that padding is made of."""
        return None if self.pad_token_id is None else self.decode(self.pad_token_id)

    @property
    def bos_token(self) -> str | None:
        """The text of the token that texts begin with."""
        return None if self.bos_token_id is None else self.decode(self.bos_token_id)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            from difflib import get_close_matches

            known = [each for each in (*dir(type(self)), "eos_token_id", "vocab_size", "pad_token_id") if not each.startswith("_")]
            near = get_close_matches(name, known, 1, 0.75)
            hint = _INSTEAD.get(name) or (f"did you mean `{near[0]}`?" if near else f"it has {', '.join(f'`{each}`' for each in sorted(known))}")
            raise AttributeError(f"a tokenizer has no `{name}`\n  hint: {hint}", name=name, obj=self)

    def encode(self, text: Any, add_special_tokens: bool = True) -> Any:
        """Token ids of a text, with the special tokens that the tokenizer adds by default; of several texts a list of these."""
        if isinstance(text, (list, tuple)):
            return [self.encode(each, add_special_tokens) for each in text]
        if not isinstance(text, str):
            raise TypeError(f"a text or texts are encoded, not {type(text).__name__}\n  hint: `tokenizer.decode` gives the text of token ids")
        whole_texts("what is encoded", [text])
        return self._model.encode(text, add_special_tokens)

    def decode(self, tokens: Any, skip_special_tokens: bool = False) -> str:
        """The text of token ids: numbers, a tensor, or one number."""
        return self._model.decode(_ids(tokens), skip_special_tokens)

    def batch_decode(self, prompts: Iterable[Any], skip_special_tokens: bool = False) -> list[str]:
        """The texts of several."""
        return [self.decode(tokens, skip_special_tokens) for tokens in prompts]

    def tokens(self, text: str, add_special_tokens: bool = True) -> list[str]:
        """The text of each token of a text."""
        return [self.decode([token]) for token in self.encode(text, add_special_tokens)]

    def token(self, text: str) -> int:
        """The one token that a text is: `tokenizer.token(" Paris")`, with its leading space."""
        whole_texts("it", [text])
        return self._model.token(text)

    def __call__(
        self,
        text: Any,
        add_special_tokens: bool = True,
        padding: Any = False,
        truncation: bool = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_attention_mask: bool = True,
    ) -> Encoding:
        """As of transformers: `input_ids` and `attention_mask`, of one text flat lists, of several a list each. With `return_tensors` (`"pl"`,
        `"np"`, `"pt"` for torch) `[texts, length]`; `padding=True` puts padding on the left, as generation needs it."""
        kinds = (None, "pl", "np", "pt")
        if return_tensors not in kinds:
            raise ValueError(f'`return_tensors` is "pl", "np" or "pt" (torch), not {return_tensors!r}')
        if padding not in (False, True, "longest", "do_not_pad"):
            raise ValueError(f"`padding` is True or False here, not {padding!r}")
        several = not isinstance(text, str)
        rows = [self.encode(each, add_special_tokens) for each in (text if several else [text])]
        if truncation:
            if max_length is None:
                raise ValueError("`truncation` needs `max_length`")
            rows = [row[:max_length] for row in rows]
        elif max_length is not None and any(len(row) > max_length for row in rows):
            raise ValueError(f"a text has more than {max_length} tokens\n  hint: `truncation=True` cuts it off")
        masks = [[1] * len(row) for row in rows]
        longest = max((len(row) for row in rows), default=0)
        if padding not in (False, "do_not_pad"):
            masks = [[0] * (longest - len(row)) + mask for row, mask in zip(rows, masks)]
            rows = [[self.pad_token_id or 0] * (longest - len(row)) + row for row in rows]
        elif return_tensors is not None and any(len(row) != longest for row in rows):
            raise ValueError("the texts have different numbers of tokens, and make no tensor\n  hint: `padding=True`; or give the texts to `trace`")
        given = {"input_ids": rows, "attention_mask": masks} if return_attention_mask else {"input_ids": rows}
        if return_tensors is not None:
            return Encoding({name: _array(values, return_tensors) for name, values in given.items()})
        return Encoding(given if several else {name: values[0] for name, values in given.items()})

    def __len__(self) -> int:
        return self.vocab_size

    def __repr__(self) -> str:
        ends = "" if self.eos_token_id is None else f", eos_token_id={self.eos_token_id}"
        return f"Tokenizer(vocab_size={self.vocab_size}{ends})"


def _ids(tokens: Any) -> list[int]:
    """Token ids one after the other, without those below 0: the cells of a generation that had stopped."""
    if hasattr(tokens, "tolist"):
        tokens = tokens.tolist()
    if isinstance(tokens, str):
        raise TypeError(f"token ids are whole numbers, and {tokens[:40]!r} is a text\n  hint: `tokenizer.encode(text)` gives them")
    if not isinstance(tokens, (list, tuple)) and not hasattr(tokens, "__iter__"):
        whole: Any = int(tokens) if isinstance(tokens, float) and tokens.is_integer() else tokens
        token = operator.index(whole)
        if token >= 1 << 32:
            raise ValueError(f"{token if token < 1 << 64 else 'a number of more than 64 bits'} is no token id: it is too large")
        return [token] if token >= 0 else []
    return [token for part in tokens for token in _ids(part)]


def _array(rows: list[list[int]], kind: str) -> Any:
    if kind == "pt":
        import torch  # type: ignore[import-not-found]

        return torch.tensor(rows)
    if kind == "np":
        import numpy

        return numpy.array(rows, numpy.int64)
    from ._writer import as_tensor

    return as_tensor(rows)
