"""How far something is that takes long: a line on a terminal or in a notebook, nothing elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, Callable

#: Seconds after which a run is no longer a short one, so that one is shown where it stands.
_PATIENCE = 0.5


def _is_seen() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules


class Loading:
    """Downloads and loading that take longer than a moment, on a terminal or in a notebook; quiet elsewhere."""

    def __init__(self) -> None:
        self._shown = _is_seen()
        self._next = time.monotonic() + 1.0
        self._width = 0

    def __call__(self, what: str, done: int, total: int | None) -> None:
        ended = total is not None and done >= total
        if not self._shown or not (time.monotonic() >= self._next or ended and self._width):
            return
        line = "" if ended else f"{what} {f'{done / total:.0%}' if total else f'{done >> 20} MiB'}"
        sys.stderr.write(f"\r{line:<{self._width}}\r{line}")
        sys.stderr.flush()
        self._width, self._next = len(line), time.monotonic() + 0.2


class Waiting:
    """Where a job stands in the queue and how far it is: a line on a terminal or in a notebook, nothing elsewhere."""

    def __init__(self) -> None:
        self.shown = _is_seen()
        self._lock = threading.Lock()
        self._text = ""
        self._width = 0
        self._begun = False
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Waiting:
        if self.shown:
            self._timer = threading.Timer(_PATIENCE, self._begin)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self.shown = False
            self._write("")

    def __call__(self, update: str) -> None:
        """Told what happened."""
        with self._lock:
            self._text = update
            if self._begun and self.shown:
                self._write(update)

    def aside(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that prints, while the line is out of the way."""

        def printing(*arguments: Any) -> Any:
            with self._lock:
                self._write("")
            return function(*arguments)

        return printing if self.shown else function

    def _begin(self) -> None:
        with self._lock:
            self._begun = True
            if self.shown:
                self._write(self._text)

    def _write(self, text: str) -> None:
        if text or self._width:
            line = f"\r{text:<{self._width}}" if text else f"\r{'':<{self._width}}\r"
            sys.stderr.write(line)
            sys.stderr.flush()
            self._width = len(text)
