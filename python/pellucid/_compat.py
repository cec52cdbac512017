"""Meanings of older scripts."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

_tuples: ContextVar[bool] = ContextVar("pellucid_tuples", default=False)


def tuples() -> bool:
    """Whether `.output[0]` of a block or an attention means the tensor itself."""
    return _tuples.get()


class compat:
    """`pl.compat("nnsight<0.6")`: from here on, or inside `with`, `.output[0]` of what was a tuple in older versions of transformers
    is taken as the tensor, as scripts for nnsight below 0.6 mean it. `pl.compat(None)` ends it."""

    def __init__(self, version: str | None):
        if version not in ("nnsight<0.6", None):
            raise ValueError(f'there is `pl.compat("nnsight<0.6")`, and `pl.compat(None)`; not {version!r}')
        self._before = _tuples.get()
        _tuples.set(version is not None)

    def __enter__(self) -> compat:
        return self

    def __exit__(self, *_: Any) -> None:
        _tuples.set(self._before)
