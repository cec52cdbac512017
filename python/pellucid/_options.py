"""Options of traces and models."""

from __future__ import annotations

from typing import Any


def known(where: str, given: dict[str, Any], accepted: tuple[str, ...]) -> None:
    """Options of nnsight and transformers that need nothing here are passed over; any other is a slip."""
    for name in given:
        if name not in accepted:
            raise TypeError(f"`{where}` has no option `{name}`")


def run_options(remote: Any, memory_bytes: Any, seconds: Any, naive: bool, blocking: bool) -> dict[str, Any]:
    """Where and in which bounds a program runs: what `execute` takes."""
    options: dict[str, Any] = {"memory_bytes": memory_bytes, "seconds": seconds}
    if naive:
        options["naive"] = True
    if remote:
        options["remote"] = remote
    if not blocking:
        options["blocking"] = False
    return options
