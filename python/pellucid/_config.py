"""A model's sizes under the names that transformers has for them."""

from __future__ import annotations

from typing import Any

#: Names of transformers' configurations, and of the specification's sizes.
_NAMES = {
    "num_hidden_layers": "layers", "n_layer": "layers", "hidden_size": "hidden", "n_embd": "hidden", "num_attention_heads": "heads",
    "n_head": "heads", "num_key_value_heads": "key_value_heads", "head_dim": "head_size", "intermediate_size": "inner", "n_inner": "inner",
    "vocab_size": "vocabulary", "max_position_embeddings": "positions", "n_positions": "positions", "n_ctx": "positions",
}


class Config:
    """A model's sizes under transformers' names. What else a configuration says is the engine's affair."""

    def __init__(self, spec: dict[str, Any]):
        self._sizes: dict[str, Any] = spec["sizes"]
        self.model_type: str = spec["family"]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or _NAMES.get(name) not in self._sizes:
            raise AttributeError(
                f"there is no `{name}` in this configuration\n  hint: there are {', '.join(f'`{each}`' for each in self.to_dict())}"
            )
        return self._sizes[_NAMES[name]]

    def __dir__(self) -> list[str]:
        return [*object.__dir__(self), *self.to_dict()]

    def to_dict(self) -> dict[str, Any]:
        """All of it."""
        known = {name: self._sizes[size] for name, size in _NAMES.items() if size in self._sizes}
        return {"model_type": self.model_type, **known}

    def __repr__(self) -> str:
        return f"Config({', '.join(f'{name}={value!r}' for name, value in self.to_dict().items())})"
