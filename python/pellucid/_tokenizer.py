"""Tokenizers."""

from __future__ import annotations

from typing import Any, Iterable

from . import _core


class Tokenizer:
    """A model's tokenizer."""

    def __init__(self, model: _core.Model, about: tuple[int | None, int | None, int]):
        self._model = model
        self.bos_token_id, self.eos_token_id, self.vocab_size = about
        self.pad_token_id = self.eos_token_id

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

    def __call__(self, text: Any, add_special_tokens: bool = True, **_: Any) -> dict[str, Any]:
        """As of transformers: `input_ids`, lists."""
        if isinstance(text, str):
            return {"input_ids": self.encode(text, add_special_tokens)}
        return {"input_ids": [self.encode(each, add_special_tokens) for each in text]}

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
