"""A cache of denials, so that a client that keeps sending costs no round trips."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from hashlib import blake2b
from itertools import islice

from .._core import Decision, later
from .._locks import new_lock

#: Seconds after which one cached denial is verified with the store.
VERIFY = 1.0

#: Longer names are kept as a hash.
_SHORT = 64


class Denials:
    """A bounded number of denied requests, each kept until it could pass.

    A request is identified by a hash of the command for it: limits, keys, costs and mode. If
    another process clears or refunds a counter, this is noticed after ``seconds`` at the latest.
    Clients choose the length of their keys, so long names are hashed with a random key; an entry
    takes at most a few hundred bytes per limit.
    """

    def __init__(self, seconds: float = 60.0, capacity: int = 10_000) -> None:
        self.seconds = seconds
        self.capacity = capacity
        #: End, start and decision of each denial; oldest first.
        self.entries: dict[bytes, tuple[float, float, Decision]] = {}
        self._names: dict[bytes, tuple[bytes, ...]] = {}
        self._requests: dict[bytes, set[bytes]] = {}
        self._lock = new_lock()
        self._verified_at = 0.0
        self._secret = secrets.token_bytes(16)

    def _short(self, name: bytes) -> bytes:
        if len(name) <= _SHORT:
            return name
        return blake2b(name, digest_size=24, key=self._secret).digest()

    def get(self, request: bytes, now: float) -> Decision | None:
        """The decision for a request now, if its denial is cached. now: monotonic seconds."""
        request = self._short(request)
        entry = self.entries.get(request)
        if entry is None:
            return None
        until, since, decision = entry
        if now < until:
            return later(decision, now - since)
        with self._lock:
            self._drop(request)
        return None

    def must_verify(self, now: float) -> bool:
        """Whether to verify a cached denial with the store: once a second.

        If the store allows the request, its counters were deleted, and the whole cache is invalid.
        """
        if now < self._verified_at + VERIFY:
            return False
        self._verified_at = now
        return True

    def add(
        self, request: bytes, names: Iterable[bytes], started_at: float, decision: Decision
    ) -> None:
        """Cache a denial. started_at: when the request was sent, in monotonic seconds."""
        wait = min(verdict.retry_after for verdict in decision if not verdict.allowed)
        wait = min(wait, self.seconds)
        if wait <= 0:
            return
        request = self._short(request)
        self._verified_at = started_at
        with self._lock:
            for oldest in list(islice(self.entries, max(0, len(self.entries) - self.capacity + 1))):
                self._drop(oldest)
            self._drop(request)
            self._names[request] = tuple(map(self._short, names))
            for name in self._names[request]:
                self._requests.setdefault(name, set()).add(request)
            self.entries[request] = (started_at + wait, started_at, decision)

    def remove(self, names: Iterable[bytes]) -> None:
        """Drop the cached denials of these counters."""
        with self._lock:
            for name in map(self._short, names):
                for request in list(self._requests.get(name, ())):
                    self._drop(request)

    def clear(self) -> None:
        with self._lock:
            for request in list(self.entries):
                self._drop(request)

    def _drop(self, request: bytes) -> None:
        self.entries.pop(request, None)
        for name in self._names.pop(request, ()):
            requests = self._requests.get(name)
            if requests is not None:
                requests.discard(request)
                if not requests:
                    self._requests.pop(name, None)
