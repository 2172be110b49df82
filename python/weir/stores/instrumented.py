"""A remote store with a local statistics table beside it.

A local table also counts how often each limit denied, lists the clients with the most requests, and
keeps rules about clients. A remote store does none of this, so it is used together with a small
local table, which the workers of this server share as with ``auto://``. Each decision checks the
rules in the table, calls the remote store, and counts the result and the time it took in the table.

On Redis and Valkey, hosts also share their statistics and rules (:mod:`weir.stores.sync`). On other
stores, each host has its own.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Any, cast

from .._clock import monotonic
from .._core import EACH, HIT, REFUND, Decision, Evaluation, Limit, Peek, Table, client_form
from ..errors import ConfigurationError, StorageError
from ..observe.stats import StoreMeters
from .auto import open_stats_table
from .hosts import shown
from .registry import Keys, Storage, StorageTypes, prepared_decider, supports_peek
from .shared_stats import RULES_MAX, SharedStats
from .sync import DROP_DENIALS, SYNC_INTERVAL, HostSync
from .tenants import tenant_of

__all__ = ["InstrumentedStorage", "name_of", "stats_table_for", "stats_table_of"]

logger = logging.getLogger("weir")

#: A table for statistics and rules only.
_STATS_ONLY = f"auto://?keys=16384&rules={RULES_MAX}"


def stats_table_for(storage: StorageTypes, *, own: str = "", counts: bool = False) -> Table:
    """Open the statistics table for ``storage``, a store that is not a table.

    own: the ``key_prefix`` of :mod:`weir.flask`. Each application has a separate table.
    counts: whether limits are counted in it during an outage. Otherwise the table is small, and
    private to this process if shared memory has no room.
    """
    name, tenant = name_of(storage), tenant_of(storage, own)
    if counts:
        return open_stats_table(f"auto://?rules={RULES_MAX}", name, tenant.digits, counts=True)
    try:
        return open_stats_table(_STATS_ONLY, name, tenant.digits, counts=False)
    except StorageError as error:
        logger.warning("each process keeps its own statistics and rules: %s", error)
        return Table(_STATS_ONLY.replace("auto:", "memory:"))


def name_of(storage: object) -> str:
    """A store's name, without user and password."""
    name = getattr(storage, "name", None) or getattr(storage, "uri", None)
    return shown(name) if isinstance(name, str) else type(storage).__name__


def note(
    table: Table,
    limits: Sequence[Limit],
    keys: Keys,
    costs: Sequence[int] | None,
    decision: Decision,
    mode: int = HIT,
) -> None:
    """Count a decision in the table. A limit that was only peeked at counts if it denied."""
    if costs is not None and Peek in map(type, costs):
        counted = [
            i for i, cost in enumerate(costs) if type(cost) is not Peek or not decision[i].allowed
        ]
        if not counted:
            return
        if not isinstance(keys, str | bytes):
            keys = [keys[i] for i in counted]
        limits = [limits[i] for i in counted]
        decision = Decision([decision[i] for i in counted], 0, decision.now)
    if mode != EACH or decision.allowed:
        table.record(limits, keys, decision)
        return
    # In this mode, limits that allow were charged although another denied. Count them one by one.
    for i, limit in enumerate(limits):
        key = keys if isinstance(keys, str | bytes) else keys[i]
        table.record([limit], key, Decision([decision[i]], 0, decision.now))


def note_prepared(evaluation: Evaluation, mode: int, parts: int, settling: bool) -> None:
    """Count the verdicts of parts of a prepared check."""
    if mode != HIT and mode != EACH:
        return
    shadows = 0 if settling else parts & evaluation.check.shadows
    evaluation.record(parts & ~shadows, False, settling)
    if not shadows:
        return
    for i in range(shadows.bit_length()):
        if shadows >> i & 1 and not evaluation.verdict(i).allowed:
            evaluation.record(1 << i, True)


def counted_form(table: Table, client: str) -> str:
    """The form of ``client`` that limits count: for an IPv6 address, its network.

    The length of its prefix is the one that an application noted in the table, if any did.
    """
    prefix = table.ipv6_prefix
    return client if prefix is None or not isinstance(client, str) else client_form(client, prefix)


class InstrumentedStorage(Storage):
    """``storage`` with statistics and rules in ``table``.

    :param storage: a store that is not a table
    :param table: a table that all processes of this server share
    :param own: the ``key_prefix`` of :mod:`weir.flask`
    """

    def __init__(self, storage: StorageTypes, table: Table, own: str = "") -> None:
        super().__init__(getattr(storage, "uri", None))
        self.storage = storage
        self.PEEKS = supports_peek(storage)
        self.stats_table = table
        self.name = name_of(storage)
        self.meters = StoreMeters(table, self.name)
        self._decide = storage.decide
        self._decide_prepared = prepared_decider(storage)
        self._ruled = table.ruled
        self._next_sync = 0.0
        self._seen_drops = 0
        self._timed = False
        if isinstance(storage, Storage) and storage.times_itself:
            storage.observe = self.meters.answered
            self._timed = True
        self._tenant = tenant_of(storage, own)
        note_prefix = getattr(storage, "note_prefix", None)
        if note_prefix is not None:
            note_prefix(own)
        self.sync: HostSync | None = None
        with contextlib.suppress(ConfigurationError):
            self.sync = HostSync(table, SharedStats(storage, own), self.name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["storage"], name)

    def decide(
        self,
        limits: Sequence[Limit],
        keys: Keys,
        costs: Sequence[int] | None = None,
        mode: int = HIT,
        /,
    ) -> Decision:
        self._drop_denials()
        decision = None
        if mode != REFUND:
            decision = self._ruled(limits, keys)
        if decision is None:
            began = 0.0 if self._timed else monotonic()
            try:
                decision = self._decide(limits, keys, costs, mode)
            except (StorageError, OSError) as error:
                self.meters.failed(error)
                raise
            if began:
                self.meters.answered(monotonic() - began)
        if mode in (HIT, EACH):
            note(self.stats_table, limits, keys, costs, decision, mode)
        self._tick(decision.now)
        return decision

    def decide_prepared(
        self, evaluation: Evaluation, mode: int, parts: int, settling: bool, /
    ) -> None:
        self._drop_denials()
        if mode == REFUND or not evaluation.rule_match(parts):
            began = 0.0 if self._timed else monotonic()
            try:
                self._decide_prepared(evaluation, mode, parts, settling)
            except (StorageError, OSError) as error:
                self.meters.failed(error)
                raise
            if began:
                self.meters.answered(monotonic() - began)
        note_prepared(evaluation, mode, parts, settling)
        self._tick(evaluation.now)

    def _tick(self, now: float) -> None:
        """Once a second: wake the synchronization."""
        if now >= self._next_sync or now < self._next_sync - 2:
            self._next_sync = now + SYNC_INTERVAL
            if self.sync is not None:
                self.sync.wake()

    def _drop_denials(self) -> None:
        """Drop the cached denials of the store if a counter was reset since the last call.

        This precedes each decision, so that no denial from before the reset is repeated once the
        table says that there was one. It reads the table only.
        """
        count = self.stats_table.meter(DROP_DENIALS)
        if count != self._seen_drops:
            self._seen_drops = count
            drop = getattr(self.storage, "drop_denials", None)
            if drop is not None:
                drop()

    def without_prepared(
        self, evaluation: Evaluation, mode: int, parts: int, settling: bool, decide: Any
    ) -> None:
        """Decide by ``decide`` during an outage, unless a rule decides."""
        if mode == REFUND or not evaluation.rule_match(parts):
            decide(evaluation, mode, parts, settling)
        note_prepared(evaluation, mode, parts, settling)

    def without(
        self, limits: Sequence[Limit], keys: Keys, mode: int, decision: Decision
    ) -> Decision:
        """Apply the rules to a decision that was made during an outage, and count the result."""
        if mode == REFUND:
            return decision
        ruled = self._ruled(limits, keys)
        if mode in (HIT, EACH):
            note(self.stats_table, limits, keys, None, ruled or decision, mode)
        return ruled or decision

    def _announce_reset(self) -> None:
        """Make all processes that share the table or the server drop their cached denials."""
        self.stats_table.meter(DROP_DENIALS, 1)
        if self.sync is not None:
            with contextlib.suppress(StorageError):  # a user without these rights, or an outage
                self.sync.shared.drop_denials()

    def clear(self, limits: Sequence[Limit], keys: Keys, /) -> None:
        self.storage.clear(limits, keys)
        self._announce_reset()

    def reset(self) -> Any:
        """Clear the counters of this application; those of others stay."""
        count = self._reset()
        self._announce_reset()
        return count

    def _reset(self) -> Any:
        reset_of = getattr(self.storage, "reset_of", None)
        if reset_of is None:
            return self.storage.reset()
        known = []
        if self.sync is not None:
            with contextlib.suppress(StorageError):  # a user without these rights, or an outage
                known = self.sync.shared.known()
        others = {one.own for one in known if one.store == self._tenant.store}
        return reset_of(self._tenant.own, others - {self._tenant.own})

    def check(self) -> bool:
        return self.storage.check()

    # -- rules

    def block(self, client: str, until: float | None = None) -> None:
        """Deny every request of ``client``, on all hosts that share a Redis, else on this host."""
        self._set_rule(client, "block", until)

    def allow(self, client: str, until: float | None = None) -> None:
        """Admit every request of ``client``, regardless of limits."""
        self._set_rule(client, "allow", until)

    def _set_rule(self, client: str, kind: str, until: float | None) -> None:
        client = counted_form(self.stats_table, client)
        if self.sync is not None:
            self.sync.shared.set_rule(client, kind, until)
        (self.stats_table.block if kind == "block" else self.stats_table.allow)(client, until)

    def unlist(self, client: str) -> bool:
        """Remove the rule about ``client``. Return whether there was one."""
        # The shared rule first, as when setting one: an outage then leaves both unchanged.
        client = counted_form(self.stats_table, client)
        removed = self.sync is not None and self.sync.shared.remove_rule(client)
        return self.stats_table.unlist(client) or removed


def stats_table_of(storage: object) -> Table | None:
    """The table with a store's statistics: the store itself, or the table beside it."""
    if isinstance(storage, Table):
        return storage
    return cast("Table | None", getattr(storage, "stats_table", None))
