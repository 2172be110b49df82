"""The storage of a limiter on one application, with statistics and fallback."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from weir._core import (
    HIT,
    REFUND,
    TEST,
    Decision,
    Evaluation,
    Limit,
    RateLimiter,
    Table,
    Verdict,
    WeirError,
)
from weir._deciding import Keys
from weir.errors import is_outage
from weir.limits import split_key
from weir.observe.stats import StoreMeters
from weir.storage import Storage, StorageTypes, checks, deciding, storage_from_string
from weir.stores.failover import POLICIES, FailoverStorage, StoreSwitchedError
from weir.stores.hosts import shown
from weir.stores.instrumented import InstrumentedStorage, name_of, stats_table_for
from weir.strategies import is_replaced

from .errors import ConfigurationError

__all__ = ["Store", "StoreSwitchedError", "refuses_one_key"]


def refuses_one_key(error: Exception) -> bool:
    """Whether a store's error is about the key of one request, not about the store."""
    return isinstance(error, WeirError) and not is_outage(error)


class ByLimiter(Storage):
    """Decides by the methods of a limiter, one limit after the other, as Flask-Limiter does."""

    def __init__(self, limiter: RateLimiter) -> None:
        super().__init__()
        self._limiter = limiter

    def decide(
        self,
        limits: Sequence[Limit],
        keys: Keys,
        costs: Sequence[int] | None = None,
        mode: int = HIT,
        /,
    ) -> Decision:
        now = time.time()
        verdicts = []
        for limit, key, cost in checks(limits, keys, costs):
            names = split_key(key)
            ask = self._limiter.test if mode == TEST else self._limiter.hit
            allowed = mode == REFUND or bool(ask(limit, *names, cost=cost))
            reset_at, remaining = self._limiter.get_window_stats(limit, *names)
            retry_after = 0.0 if allowed else max(reset_at - now, 1e-6)
            amount = limit.burst or limit.amount
            verdicts.append(Verdict(allowed, amount, remaining, reset_at, retry_after, 0.0))
        return Decision(verdicts, deciding(limits, verdicts), now)

    def clear(self, limits: Sequence[Limit], keys: Keys, /) -> None:
        self._limiter.storage.clear(limits, keys)


class Store:
    """The storage that decides for a limiter, and the table with its statistics.

    :param policy: the policy for an outage, see :mod:`weir.stores.failover`
    :param key_prefix: distinguishes the application from others that use the same store
    :param fallback: count in this process during an outage
    :param replaced: other limits replace the usual ones during an outage
    """

    #: The limiter that users see; its methods are called if a test has replaced them.
    limiter: Callable[[], RateLimiter] | None = None

    def __init__(
        self,
        uri: str,
        options: dict[str, Any],
        policy: str | None,
        *,
        key_prefix: str = "",
        fallback: bool = False,
        replaced: bool = False,
        logger: logging.Logger,
    ) -> None:
        if policy is not None and policy not in POLICIES:
            raise ConfigurationError(
                "EOPTION", f"on_store_error={policy!r}; there are {', '.join(POLICIES)}"
            )
        self.uri, self.policy = uri, policy
        self.on_store_error = policy or ("local" if fallback else "raise")  #: the one in effect
        self.opened = storage_from_string(uri, **options)
        #: The number of this automatic storage; None for another kind of storage.
        self.auto_number: int | None = None
        if uri.startswith("auto:") and isinstance(self.opened, Table):
            self.auto_number = self.opened.namespace
        storage: StorageTypes = self.opened
        #: The store with its statistics table; None if the store itself is a table.
        self.instrumented: InstrumentedStorage | None = None
        if isinstance(storage, Table):
            #: The table with statistics and rules about clients.
            self.stats_table = storage
            #: Latency and errors of the store, for all processes together.
            self.meters = StoreMeters(storage, shown(uri), timed=False)
        else:
            self.stats_table = stats_table_for(storage, own=key_prefix, counts=policy == "local")
            storage = self.instrumented = InstrumentedStorage(storage, self.stats_table, key_prefix)
            self.meters = self.instrumented.meters
        self.failover: FailoverStorage | None = None
        if policy not in (None, "raise"):
            table = self.stats_table
            beside: StorageTypes | str = "auto://" if self.instrumented is None else table
            storage = self.failover = FailoverStorage(storage, policy, beside)
        elif policy is None and fallback:
            storage = self.failover = FailoverStorage(
                storage,
                "local",
                "memory://",
                replaced=replaced,
                probed=True,
                clock=lambda: time.time(),  # through the module, because tests replace it
                logger=logger,
            )
        self.storage: StorageTypes = storage

    def use(self, table: Table) -> None:
        """Use another table from now on."""
        self.storage = self.stats_table = table
        self.instrumented = self.failover = None

    @property
    def decider(self) -> StorageTypes | None:
        """The storage that decides prepared checks; None: the table itself."""
        limiter = None if self.limiter is None else self.limiter()
        if limiter is not None and is_replaced(limiter):
            return ByLimiter(limiter)
        return None if type(self.storage).decide is Table.decide else self.storage

    @property
    def public(self) -> StorageTypes:
        """The storage that users have configured."""
        storage: StorageTypes = self.storage
        if self.failover is not None and self.policy is None:
            storage = self.failover.storage
        return storage.storage if isinstance(storage, InstrumentedStorage) else storage

    @property
    def current(self) -> StorageTypes:
        """The storage that counts at this moment."""
        failover = self.failover
        if failover is not None and failover.away and failover.fallback is not None:
            return failover.fallback
        storage: StorageTypes = self.storage if failover is None else failover.storage
        return storage.storage if isinstance(storage, InstrumentedStorage) else storage

    def is_replaced(self) -> bool:
        """Whether there is an outage in which other limits replace the usual ones."""
        failover = self.failover
        return failover is not None and failover.away and not failover.probe()

    def failed(self, error: BaseException) -> bool:
        """Record an error of the store. Returns whether it is an outage."""
        outage = is_outage(error)
        if outage and self.instrumented is None:
            self.meters.failed(error)  # an instrumented store counts its errors itself
        return outage

    def note(self, evaluation: Evaluation, parts: int) -> None:
        """Count in the statistics that these limits would have denied."""
        with contextlib.suppress(WeirError):  # statistics must not fail a request
            evaluation.record(parts, True)

    def name(self) -> str:
        """The store that decides at this moment, without its password."""
        failover = self.failover
        if failover is not None and failover.away:
            return name_of(failover.fallback) if failover.fallback else failover.policy
        return shown(self.uri) if self.instrumented is None else name_of(self.opened)
