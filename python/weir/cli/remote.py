"""Remote stores: the statistics and rules of the hosts that use one.

Each host keeps a statistics table beside such a store. Hosts share their statistics and rules
through Redis and Valkey (:mod:`weir.stores.shared_stats`). With other stores, and while Redis does
not answer, the commands see the tables of this host only.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from .._core import TEST, Limit, LimitCounts, Rule, Table, TopClient, parse
from ..errors import ConfigurationError, ParseError, StorageError
from ..observe.hosts import Host, merge_clients, merge_counts, read_host, read_table
from ..observe.stats import StoreMeters
from ..stores.auto import stats_suffix
from ..stores.instrumented import name_of
from ..stores.registry import storage_from_string
from ..stores.shared_stats import SharedStats, snapshot
from ..stores.sync import DROP_DENIALS
from ..stores.tenants import DEFAULT, Tenant, chosen
from .discover import tables
from .errors import Unable, Unreadable
from .local import set_rule
from .store import By, Counter, Store


class RemoteStore(Store):
    """A remote store, the hosts' shared statistics, and this host's tables."""

    def __init__(self, uri: str, prefix: str | None = None) -> None:
        """prefix: of the application to use, "" for those without one; None: all."""
        self.uri = uri
        self.storage = self._open(DEFAULT.store)
        self.name = name_of(self.storage)
        if hasattr(self.storage, "evicts_by"):
            with contextlib.suppress(StorageError):  # connects, and logs how the server evicts
                self.storage.decide([Limit(1)], "check", [0], TEST)
        self._storages: dict[str, Any] = {DEFAULT.store: self.storage}
        known = self._known()
        #: The applications that the command covers.
        self.tenants = chosen(known or [], prefix)
        #: What the hosts of each of them share; empty for stores that share nothing.
        self.shared: list[SharedStats] = []
        if known is not None:
            stores = [(self._storage_of(one), one.own) for one in self.tenants]
            self.shared = [SharedStats(storage, own) for storage, own in stores if storage]
        marks = [stats_suffix(self.name)]
        if prefix is not None:
            marks = [stats_suffix(self.name, one.digits) for one in self.tenants]
        self.local = [
            Table(found.uri, _observes=True)
            for found in tables()
            if found.runs and found.name.endswith(tuple(marks))
        ]

    def _open(self, key_prefix: str) -> Any:
        try:
            options = {} if key_prefix == DEFAULT.store else {"key_prefix": key_prefix}
            return storage_from_string(self.uri, **options)
        except (ParseError, ConfigurationError) as error:
            raise Unreadable(str(error)) from None

    def _storage_of(self, tenant: Tenant) -> Any:
        """The store with an application's prefix; ``None``: the store refuses that prefix."""
        if tenant.store not in self._storages:
            try:
                self._storages[tenant.store] = self._open(tenant.store)
            except Unreadable:
                self._storages[tenant.store] = None
        return self._storages[tenant.store]

    def _known(self) -> list[Tenant] | None:
        """The applications that use the server; ``None``: hosts share nothing on this kind."""
        try:
            return SharedStats(self.storage).known()
        except ConfigurationError:
            return None
        except StorageError:  # the next command raises it
            return []

    def _need_stats_tables(self) -> list[Table]:
        if not self.local:
            scheme = self.uri.partition("://")[0]
            raise Unable(
                f"{scheme}:// stores only counters. Statistics and rules are in a table of each "
                "host that uses it, and no running server of this host uses it"
            )
        return self.local

    def _hosts(self) -> list[Host]:
        """The statistics of each host."""
        if self.shared:
            try:
                return [read_host(stats) for shared in self.shared for stats in shared.read()]
            except StorageError:
                if not self.local:
                    raise
        return [read_table(table, snapshot(table)) for table in self._need_stats_tables()]

    # -- statistics of the hosts

    def counts(self) -> list[LimitCounts]:
        return merge_counts(self._hosts())

    def top_clients(self, by: By, count: int) -> list[TopClient]:
        return merge_clients(self._hosts(), by)[:count]

    def name_of(self, client: str) -> str:
        # Each host has its own names for clients that are not addresses.
        return self.local[0].name_of(client) if self.local else client

    def counters(self) -> Iterator[Counter]:
        for storage, row in self._limits():
            try:
                limit = parse(row.text)
                if limit.strategy is None:
                    limit = limit.replace(strategy=row.strategy or "fixed-window")
                if row.tz is not None:
                    limit = limit.replace(tz=row.tz)
                if row.namespace is not None:
                    limit = limit.replace(namespace=row.namespace)
            except ValueError:
                continue  # of another version, or in a zone that this machine does not have
            yield Counter(storage, limit, row.before, row.after)

    def _limits(self) -> list[tuple[Any, Any]]:
        """The limits of each application, with the store that counts them."""
        found: list[Any] = []
        try:
            for shared in self.shared:
                hosts = [read_host(stats) for stats in shared.read()]
                found += [(shared.storage, row) for host in hosts for row in host.limits]
        except StorageError:
            if not self.local:
                raise
            found.clear()
        if not found and (self.local or not self.shared):
            for table in self._need_stats_tables():
                rows = read_table(table, snapshot(table)).limits
                stores = [self._storage_of(one) for one in self.tenants]
                found += [(storage, row) for storage in stores if storage for row in rows]
        return list(dict.fromkeys(found))

    def health(self) -> dict[str, Any]:
        began = time.monotonic()
        there = self.storage.check()
        latency = time.monotonic() - began if there else None
        seen = [StoreMeters(table, self.name).read() for table in self.local]
        return {
            "remote": {
                "store": self.name,
                "latency": latency,
                "hosts": [_host(host) for host in self._hosts()],
                "fallback": any(one.away for one in seen) if seen else None,
                "errors": {
                    kind: sum(one.errors[kind] for one in seen)
                    for kind in (seen[0].errors if seen else ())
                },
            }
        }

    def drop_denials(self) -> None:
        for table in self.local:
            table.meter(DROP_DENIALS, 1)
        for shared in self.shared:
            shared.drop_denials()

    # -- rules

    def ipv6_prefix(self) -> int | None:
        noted = (table.ipv6_prefix for table in self.local)
        return next((prefix for prefix in noted if prefix is not None), None)

    def set_rule(self, client: str, kind: str, until: float | None) -> None:
        for shared in self.shared:
            shared.set_rule(client, kind, until)
        for table in self.local if self.shared else self._need_stats_tables():
            set_rule(table, client, kind, until)

    def load_rules(self, rules: list[tuple[str, str, float | None]]) -> int:
        for shared in self.shared:
            shared.set_rules(rules)
        if self.shared:
            return len(rules)
        for table in self._need_stats_tables():
            table.load_rules(rules)
        return len(rules)

    def unlist(self, client: str) -> bool:
        removed = [
            table.unlist(client)
            for table in (self.local if self.shared else self._need_stats_tables())
        ]
        removed += [shared.remove_rule(client) for shared in self.shared]
        return any(removed)

    def rules(self) -> list[Rule]:
        if not self.shared:
            return self._need_stats_tables()[0].rules()
        found: dict[Any, Rule] = {}
        for shared in self.shared:
            for rule in shared.rules():  # the same rule of several applications is shown once
                known = (rule.client, rule.kind, rule.until)
                found.setdefault(known, rule)
        return sorted(found.values(), key=lambda rule: rule.client)

    def rule_of(self, client: str) -> Rule | None:
        if not self.shared:
            return self._need_stats_tables()[0].rule_of(client)
        found = [_rule_of(client, rules) for shared in self.shared if (rules := shared.rules())]
        # A block of one application is shown, although the others may have none.
        return next(iter(sorted(filter(None, found), key=lambda rule: rule.kind != "block")), None)


def _rule_of(client: str, rules: list[Rule]) -> Rule | None:
    """The one of these rules that applies to a client."""
    with Table(f"memory://?keys=8&rules={len(rules)}") as scratch:
        scratch.load_rules([(rule.client, rule.kind, rule.until) for rule in rules])
        holds = scratch.rule_of(client)
    if holds is None:
        return None
    since = {rule.client: rule.since for rule in rules}
    return Rule(holds.client, holds.kind, since.get(holds.client, holds.since), holds.until)


def _host(host: Host) -> dict[str, Any]:
    """One host, as `weir top` shows it."""
    return {"name": host.name, "seen": host.time, "table": host.info}
