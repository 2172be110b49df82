"""Cached states of counters on a PostgreSQL server, for decisions that the server confirms.

A guess is the last known state of a counter. A decision is made with guesses; the server writes it
only if its states are the same.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

__all__ = ["Guesses"]

#: Bounds of the cached states: counters, bytes in total, and bytes of one state.
_GUESSED, _GUESSED_BYTES, _LONGEST = 20_000, 2**24, 2**16

#: After a conflict, this many decisions lock the counter at once, without a guess.
_CONTENDED = 50


class Guesses:
    """The last known state of each counter, by its name."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._contended: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, names: Sequence[str]) -> list[bytes | None]:
        return [self._values.get(name) for name in names]

    def update(
        self, names: Sequence[str], states: Sequence[bytes | None], drop: bool = False
    ) -> None:
        """Store these states. ``None``: keep the old guess; with ``drop``, remove it."""
        values = self._values
        with self._lock:
            for name, value in zip(names, states, strict=True):
                if value is None and not drop:
                    continue
                self._bytes -= len(values.pop(name, b""))
                if value is None or len(value) > _LONGEST:
                    continue
                values[name] = value
                self._bytes += len(value)
            while len(values) > _GUESSED or self._bytes > _GUESSED_BYTES:
                self._bytes -= len(values.popitem(last=False)[1])

    def overtaken(self, names: Sequence[str]) -> None:
        with self._lock:
            for name in names:
                self._contended[name] = _CONTENDED
                if len(self._contended) > _GUESSED:
                    self._contended.popitem(last=False)

    def contended(self, names: Sequence[str]) -> bool:
        if not self._contended:
            return False
        with self._lock:
            found = [name for name in names if name in self._contended]
            for name in found:
                self._contended[name] -= 1
                if self._contended[name] <= 0:
                    del self._contended[name]
        return bool(found)
