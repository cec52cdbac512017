"""Tokenizers."""

from __future__ import annotations

from typing import Any, Iterable

from . import _core


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

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text, with the special tokens that the tokenizer adds by default."""
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


def _ids(tokens: Any) -> list[int]:
    if hasattr(tokens, "tolist"):
        tokens = tokens.tolist()
    if isinstance(tokens, int):
        return [tokens]
    flat: list[int] = []
    for token in tokens:
        flat += _ids(token) if hasattr(token, "__iter__") else [int(token)]
    return [token for token in flat if token >= 0]


def _array(rows: list[list[int]], kind: str) -> Any:
    if kind == "pt":
        import torch  # type: ignore[import-not-found]

        return torch.tensor(rows)
    if kind == "np":
        import numpy

        return numpy.array(rows, numpy.int64)
    from ._writer import as_tensor

    return as_tensor(rows)
