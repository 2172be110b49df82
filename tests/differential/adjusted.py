"""Flask-Limiter with the differences that change what later requests meet."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import flask
import flask_limiter
import limits.limits
import limits.storage.memory
import limits.strategies
import pytest

from differential.differences import META_SCOPES, used


def adjust(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make Flask-Limiter decide as Weir does, until the test ends."""
    smallest_window(monkeypatch)
    escaped_keys(monkeypatch)
    denied_charges_nothing(monkeypatch)
    sliding_window_exact(monkeypatch)
    moving_window_end(monkeypatch)
    # The storage's own thread for expired keys is not needed: each access reads the clock.
    memory = limits.storage.memory
    monkeypatch.setattr(memory.MemoryStorage, "_MemoryStorage__schedule_expiry", lambda self: None)
    monkeypatch.setattr(memory.threading, "Timer", lambda *_: type("Timer", (), {"start": int}))


def smallest_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits are ordered by the length of the window, not by the unit alone."""
    item = limits.limits.RateLimitItem
    by_unit = item.__lt__

    def by_window(a: Any, b: Any) -> bool:
        smaller: bool = a.get_expiry() < b.get_expiry()
        used["smallest-window"] += smaller != by_unit(a, b)
        return smaller

    monkeypatch.setattr(item, "__lt__", by_window)


def escaped_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """What joins the parts of a key is escaped in the parts."""
    plain = limits.limits.safe_string

    def safe_string(value: Any) -> str:
        text: str = plain(value)
        used["escaped-keys"] += "/" in text
        return text.replace("%", "%25").replace("/", "%2F")

    monkeypatch.setattr(limits.limits, "safe_string", safe_string)


def denied_charges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was counted before a limit denied is given back."""
    limiter = flask_limiter.Limiter
    evaluate = limiter._Limiter__evaluate_limits

    def evaluate_limits(self: Any, endpoint: str, limits: list[Any]) -> None:
        storage = self._storage
        kept = (
            Counter(storage.storage),
            dict(storage.expirations),
            {key: list(events) for key, events in storage.events.items()},
        )
        fair = self.limiter
        fair.metas.clear()
        try:
            evaluate(self, endpoint, limits)
        except flask_limiter.RateLimitExceeded as refusal:
            if self._fail_on_first_breach:
                storage.storage, storage.expirations, storage.events = kept
                if refusal.limit.scope not in META_SCOPES:
                    count_refusal(self, endpoint, limits)
            raise

    monkeypatch.setattr(limiter, "_Limiter__evaluate_limits", evaluate_limits)
    monkeypatch.setattr(limiter, "limiter", property(fair_limiter))


def sliding_window_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of the previous window is not rounded down."""

    def acquire(self: Any, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        now = time.time()
        before, current = self.sliding_window_keys(key, expiry, now)
        previous, ttl, count, _ = self._get_sliding_window_info(before, current, expiry, now)
        if count + exact(previous, ttl, expiry) + amount > limit:
            return False
        self.incr(current, 2 * expiry, amount=amount)
        return True

    def weighted(self: Any, item: Any, previous: int, ttl: float, count: int) -> float:
        return exact(previous, ttl, item.get_expiry()) + count

    memory = limits.storage.memory.MemoryStorage
    monkeypatch.setattr(memory, "acquire_sliding_window_entry", acquire)
    monkeypatch.setattr(
        limits.strategies.SlidingWindowCounterRateLimiter, "_weighted_count", weighted
    )


def moving_window_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hit leaves the window one period later, not a moment after that."""

    def acquire_entry(self: Any, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        events = self.events.setdefault(key, [])
        now = time.time()
        full = amount > limit or (
            len(events) > limit - amount and events[limit - amount].atime > now - expiry
        )
        if not full:
            if len(events) > limit - amount:
                used["moving-window-end"] += events[limit - amount].atime == now - expiry
            events[:0] = [limits.storage.memory.Entry(expiry)] * amount
        return not full

    monkeypatch.setattr(limits.storage.memory.MemoryStorage, "acquire_entry", acquire_entry)


def exact(previous: int, ttl: float, expiry: int) -> int:
    """The previous window's share, rounded up."""
    used["sliding-window-exact"] += 1
    return -int(-(previous * round(ttl * 64)) // (expiry * 64))


class FairLimiter:
    """A strategy of limits that charges nothing when it denies."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.metas: list[tuple[Any, ...]] = []

    def hit(self, item: Any, *identifiers: str, cost: int | None = None) -> bool:
        if not self.inner.test(item, *identifiers, cost=cost or 1):
            used["denied-charges-nothing"] += 1
            return False
        if cost is None:  # only meta limits are hit without a cost
            if (item, *identifiers) in self.metas:
                used["meta-limits"] += 1
                return True
            self.metas.append((item, *identifiers))
        return self.inner.hit(item, *identifiers, cost=cost or 1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def count_refusal(self: Any, endpoint: str, limits: list[Any]) -> None:
    """meta-limits: those of all limits that denied count, each once."""
    method = flask.request.method
    metas = [meta for group in self._meta_limits for meta in group]
    fair = self.limiter
    for limit in limits:
        if limit.meta_limits and not (limit.is_exempt or limit.method_exempt):
            key = limit.key_func()
            prefix = [self._key_prefix] if self._key_prefix else []
            arguments = [*prefix, key, limit.scope_for(endpoint, method)]
            if key and not fair.test(limit.limit, *arguments, cost=limit.deduction_amount):
                metas += limit.meta_limits
    theirs = list(fair.metas)
    fair.metas.clear()
    for meta in metas:
        if meta.is_exempt:
            continue
        fair.hit(meta.limit, meta.key_func(), meta.scope_for(endpoint, method))
    used["meta-limits"] += theirs != fair.metas


def fair_limiter(self: Any) -> FairLimiter:
    if not hasattr(self, "fair"):
        self.fair = FairLimiter(self._limiter)
    return self.fair
