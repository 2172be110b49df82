"""Failover: a policy decides what happens during an outage of the store.

==========  =======================================================================
``raise``   the error is raised to the caller
``open``    all requests pass
``closed``  no request passes
``local``   another store decides, by default a table that the workers of this host share
==========  =======================================================================

After a failure, one caller tries the store again after 1, 2, 4, ... 32 seconds. Other callers do
not wait for it.

Only an outage starts this (:func:`weir.errors.is_outage`). A request that cannot be decided because
of its own key or cost is denied, or raises under ``raise``; other requests still use the store.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from .._clock import monotonic
from .._core import HIT, REFUND, Decision, Evaluation, Limit, Table, Verdict
from .._locks import new_lock
from ..errors import ConfigurationError, StorageError, StoreAwayError, WeirError, is_outage
from .auto import as_fallback_of
from .instrumented import name_of
from .registry import (
    Storage,
    StorageTypes,
    deciding,
    prepared_decider,
    storage_from_string,
    supports_peek,
)
from .tenants import tenant_of

__all__ = ["POLICIES", "FailoverStorage", "Guarded", "StoreSwitchedError"]

logger = logging.getLogger("weir")

POLICIES = ("raise", "open", "closed", "local")

#: The longest pause before a failed store is tried again, in seconds.
LONGEST_PAUSE = 32.0

_MEANWHILE = {
    "open": "every request passes",
    "closed": "no request passes",
    "local": "each host counts separately",
}


class StoreSwitchedError(StorageError):
    """An outage has just begun, and other limits apply during it."""


class FailoverStorage(Storage):
    """A store that always answers: during an outage of ``storage``, ``policy`` decides.

    :param storage: the store, or its URI
    :param policy: ``"raise"``, ``"open"``, ``"closed"`` or ``"local"``
    :param fallback: the store that decides under ``"local"``, or its URI

    >>> from weir import Table, parse
    >>> class Away(Storage):
    ...     def decide(self, limits, keys, costs=None, mode=0, /):
    ...         raise StorageError("no route to host")
    ...
    ...     def clear(self, limits, keys, /):
    ...         raise StorageError("no route to host")
    ...
    >>> failover = FailoverStorage(Away(), "local", Table())
    >>> failover.decide([parse("1/minute")], "alice").allowed
    True
    >>> failover.decide([parse("1/minute")], "alice").allowed
    False
    >>> failover.away, failover.counters["failures"]
    (True, 1)
    """

    def __init__(
        self,
        storage: StorageTypes | str,
        policy: str = "local",
        fallback: StorageTypes | str = "auto://",
        *,
        replaced: bool = False,
        probed: bool = False,
        clock: Callable[[], float] | None = None,
        logger: logging.Logger = logger,
    ) -> None:
        super().__init__(getattr(storage, "uri", None))
        if policy not in POLICIES:
            raise ConfigurationError(f"unknown policy {policy!r}: one of {', '.join(POLICIES)}")
        self.storage: StorageTypes = _opened(storage)
        self._decide_prepared = prepared_decider(self.storage)
        self.policy = policy
        #: The store that decides during an outage; ``None`` unless the policy is ``"local"``.
        self.fallback: StorageTypes | None = None
        if policy == "local":
            # Each store and prefix has its own table, in whatever order stores are made.
            with as_fallback_of(name_of(self.storage), tenant_of(self.storage).digits):
                self.fallback = _opened(fallback)
        self.PEEKS = all(
            isinstance(store, Table) or supports_peek(store)
            for store in (self.storage, self.fallback)
            if store is not None
        )
        #: Whether other limits replace the usual ones during an outage.
        self.replaced = replaced
        #: Whether ``check()`` of the store has to succeed before it decides again.
        self.probed = probed
        # Flask-Limiter falls back whatever a storage raises.
        self._failures: tuple[type[Exception], ...] = (
            (Exception,) if probed else (StorageError, OSError)
        )
        self._clock = clock or (lambda: monotonic())
        self.logger = logger
        #: Whether there is an outage of the store.
        self.away = False
        #: Counts of ``failures`` of the store, ``switches`` away from it, ``returns`` to it, and
        #: requests that were ``answered`` without it.
        self.counters: Counter[str] = Counter()
        self._lock = new_lock()
        self._pause = 0.0
        self._next_probe_at = 0.0
        self._since = 0.0
        #: The store with its statistics table, if it has one.
        self._instrumented: Any = storage if hasattr(storage, "meters") else None

    # -- the switch

    def _is_outage(self, error: Exception) -> bool:
        """Whether an error means an outage, and not that one request cannot be decided.

        With ``probed``, any error does that is not about the arguments.
        """
        if self.probed and not isinstance(error, WeirError | ValueError | TypeError):
            return True
        return is_outage(error)

    def _may_ask(self) -> bool:
        """Whether this caller may try the store during an outage: one caller per pause."""
        if self._is_pausing():
            return False
        with self._lock:
            if self._is_pausing():
                return False
            self._next_probe_at = self._clock() + LONGEST_PAUSE
            return True

    def _is_pausing(self) -> bool:
        # A clock that was set back must not extend the pause beyond the longest one.
        return self._clock() < self._next_probe_at <= self._clock() + LONGEST_PAUSE

    def _failed(self, error: Exception, was_away: bool) -> None:
        with self._lock:
            self.counters["failures"] += 1
            if self.policy == "raise" or (self.away and not was_away):
                return  # the latter: began at the same time as another that failed
            is_first = not self.away
            if is_first:
                self.away = True
                self._since = self._clock()
                self._pause = 0.0
                self.counters["switches"] += 1
            self._pause = min(self._pause * 2, LONGEST_PAUSE) or 1.0
            self._next_probe_at = self._clock() + self._pause
        if not is_first:
            return
        if self.probed:  # Flask-Limiter's words
            self.logger.warning(
                "Rate limit storage unreachable - falling back to in-memory storage: %s", error
            )
        else:
            self.logger.warning("%s; until it is back, %s", error, _MEANWHILE[self.policy])

    def _returned(self) -> None:
        with self._lock:
            if not self.away:
                return
            self.away = False
            self._next_probe_at = 0.0
            self.counters["returns"] += 1
            seconds = self._clock() - self._since
        if self._instrumented is not None:
            self._instrumented.meters.back()
        if self.probed:
            self.logger.info("Rate limit storage recovered after %.1f s", seconds)
        else:
            text = "the store answers again after %.1f s"
            self.logger.warning(text, seconds)

    # -- the store

    def decide(
        self,
        limits: Sequence[Limit],
        keys: str | bytes | Sequence[str | bytes],
        costs: Sequence[int] | None = None,
        mode: int = HIT,
        /,
    ) -> Decision:
        was_away = self.away
        if not was_away or self._may_ask():
            try:
                decision = self.storage.decide(limits, keys, costs, mode)
                if was_away and not self.storage.check():
                    # A replica answers commands that write nothing, and refuses others.
                    raise StoreAwayError("the store answers, but does not count")
            except self._failures as error:
                if not self._is_outage(error):
                    return self._refuse(error, limits, mode, was_away)
                self._failed(error, was_away)
                if self.policy == "raise":
                    raise
            except BaseException:
                if was_away:
                    self._next_probe_at = 0.0  # unrelated to the store
                raise
            else:
                if was_away:
                    self._returned()
                return decision
        self.counters["answered"] += 1
        if self._instrumented is not None:
            self._instrumented.meters.away()
        if self.fallback is not None:
            return self.fallback.decide(limits, keys, costs, mode)
        decision = self._answer(limits, mode)
        if self._instrumented is not None:
            decision = self._instrumented.without(limits, keys, mode, decision)
        return decision

    def _refuse(
        self, error: Exception, limits: Sequence[Limit], mode: int, was_away: bool
    ) -> Decision:
        """Deny a request that cannot be decided because of its own key or cost."""
        self.counters["refused"] += 1
        if was_away:
            self._next_probe_at = 0.0  # unrelated to the store
        if self.policy == "raise":
            raise error
        now = time.time()
        allowed = mode == REFUND
        wait = 0.0 if allowed else 1.0
        verdicts = [
            Verdict(allowed, limit.burst or limit.amount, 0, now + wait, wait, 0.0)
            for limit in limits
        ]
        return Decision(verdicts, deciding(limits, verdicts), now)

    def decide_prepared(
        self, evaluation: Evaluation, mode: int, parts: int, settling: bool, /
    ) -> None:
        was_away, may_ask = self._state_for_prepared()
        if may_ask:
            try:
                self._decide_prepared(evaluation, mode, parts, settling)
                if was_away and not self.storage.check():
                    # A replica answers commands that write nothing, and refuses others.
                    raise StoreAwayError("the store answers, but does not count")
            except self._failures as error:
                if not self._is_outage(error):
                    if not isinstance(error, StorageError):
                        raise
                    self.counters["refused"] += 1
                    if was_away:
                        self._next_probe_at = 0.0  # unrelated to the store
                    raise
                self._failed(error, was_away)
                if self.policy == "raise":
                    raise
                if (
                    self.replaced
                    and not was_away
                    and not settling  # a request that was already decided keeps its limits
                    and getattr(evaluation.check, "replaceable", False)
                ):
                    raise StoreSwitchedError(str(error)) from error
            except BaseException:
                if was_away:
                    self._next_probe_at = 0.0
                raise
            else:
                if was_away:
                    self._returned()
                return
        self.counters["answered"] += 1
        if self._instrumented is None:
            self._decide_without(evaluation, mode, parts, settling)
            return
        self._instrumented.meters.away()
        if self.fallback is self._instrumented.stats_table:  # it applies rules and counts by itself
            self._decide_without(evaluation, mode, parts, settling)
        else:
            self._instrumented.without_prepared(
                evaluation, mode, parts, settling, self._decide_without
            )

    def _state_for_prepared(self) -> tuple[bool, bool]:
        """Whether the store is away, and whether this caller may probe it."""
        if self.away and self.probed:
            alive = self.probe()
            return not alive, alive
        return self.away, not self.away or self._may_ask()

    def _decide_without(
        self, evaluation: Evaluation, mode: int, parts: int, settling: bool
    ) -> None:
        if self.fallback is not None:
            prepared_decider(self.fallback)(evaluation, mode, parts, settling)
            return
        indices, limits, _, _ = evaluation.checks(parts)
        evaluation.keep(indices, self._answer(limits, mode), settling)

    def probe(self) -> bool:
        """Whether the store answers again. One caller per pause tries it."""
        if not self.away:
            return True
        if not self._may_ask():
            return False
        try:
            alive = self.storage.check()
        except Exception:
            alive = False
        if alive:
            self._returned()
        else:
            with self._lock:
                self._pause = min(self._pause * 2, LONGEST_PAUSE) or 1.0
                self._next_probe_at = self._clock() + self._pause
        return alive

    def _answer(self, limits: Sequence[Limit], mode: int) -> Decision:
        """The decision of the policies ``open`` and ``closed``."""
        now = time.time()
        allowed = self.policy == "open" or mode == REFUND
        wait = 0.0 if allowed else max(1.0, min(self._next_probe_at - self._clock(), LONGEST_PAUSE))
        verdicts = [
            Verdict(
                allowed,
                limit.burst or limit.amount,
                (limit.burst or limit.amount) if allowed else 0,
                now + wait,
                wait,
                0.0,
            )
            for limit in limits
        ]
        return Decision(verdicts, deciding(limits, verdicts), now)

    def clear(self, limits: Sequence[Limit], keys: str | bytes | Sequence[str | bytes], /) -> None:
        """Delete these counters in the store, unless there is an outage, and in the fallback."""
        if self.fallback is not None:
            self.fallback.clear(limits, keys)
        if not self.away or self.policy == "raise":
            try:
                self.storage.clear(limits, keys)
            except (StorageError, OSError) as error:
                if is_outage(error):
                    self._failed(error, was_away=False)
                if self.policy == "raise" or not is_outage(error):
                    raise

    def reset(self) -> None:
        """Delete all counters of both stores."""
        if self.fallback is not None:
            self.fallback.reset()
        self.storage.reset()

    def check(self) -> bool:
        """Whether the store itself answers."""
        return self.storage.check()


def _opened(storage: StorageTypes | str) -> StorageTypes:
    return storage_from_string(storage) if isinstance(storage, str) else storage


#: The earlier name of :class:`FailoverStorage`.
Guarded = FailoverStorage
