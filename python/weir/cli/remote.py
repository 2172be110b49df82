"""Remote stores: the statistics and rules of the hosts that use one.

Each host keeps a statistics table beside such a store. Hosts share their statistics and rules
through Redis and Valkey (:mod:`weir.stores.shared_stats`). With other stores, and while Redis does
not answer, the commands see the tables of this host only.
"""

from __future__ import annotations

import contextlib
import time
import zlib
from collections.abc import Iterator
from typing import Any

from .._core import TEST, Limit, LimitCounts, Rule, Table, TopClient, parse
from ..errors import ConfigurationError, ParseError, StorageError
from ..observe.hosts import Host, merge_clients, merge_counts, read_host, read_table
from ..observe.stats import StoreMeters
from ..stores.instrumented import name_of
from ..stores.registry import storage_from_string
from ..stores.shared_stats import SharedStats, snapshot
from ..stores.sync import FORGET
from .discover import tables
from .errors import Unable, Unreadable
from .local import set_rule
from .store import By, Counter, Store


class RemoteStore(Store):
    """A remote store, the hosts' shared statistics, and this host's tables."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        try:
            self.storage = storage_from_string(uri)
        except (ParseError, ConfigurationError) as error:
            raise Unreadable(str(error)) from None
        self.name = name_of(self.storage)
        if hasattr(self.storage, "evicts_by"):
            with contextlib.suppress(StorageError):  # connects: the log says how it evicts
                self.storage.decide([Limit(1)], "check", [0], TEST)
        mark = f"-stats{zlib.crc32(self.name.encode())}"
        self.local = [
            Table(found.uri, _observes=True)
            for found in tables()
            if found.runs and found.name.endswith(mark)
        ]
        try:
            self.shared: SharedStats | None = SharedStats(self.storage)
        except ConfigurationError:
            self.shared = None

    def _need_stats_tables(self) -> list[Table]:
        if not self.local:
            scheme = self.uri.partition("://")[0]
            raise Unable(
                f"{scheme}:// keeps nothing but counters; the rest is in a table of each host that "
                "uses it, and no running server of this host does"
            )
        return self.local

    def _hosts(self) -> list[Host]:
        """What each host shows."""
        if self.shared is not None:
            try:
                return [read_host(stats) for stats in self.shared.read()]
            except StorageError:
                if not self.local:
                    raise
        return [read_table(table, snapshot(table)) for table in self._need_stats_tables()]

    # -- what the hosts show

    def counts(self) -> list[LimitCounts]:
        return merge_counts(self._hosts())

    def top_clients(self, by: By, count: int) -> list[TopClient]:
        return merge_clients(self._hosts(), by)[:count]

    def name_of(self, client: str) -> str:
        # Each host gives a client that is no address a name of its own.
        return self.local[0].name_of(client) if self.local else client

    def counters(self) -> Iterator[Counter]:
        for row in dict.fromkeys(row for host in self._hosts() for row in host.limits):
            try:
                limit = parse(row.text)
                if limit.strategy is None:
                    limit = limit.replace(strategy=row.strategy or "fixed-window")
                if row.tz is not None:
                    limit = limit.replace(tz=row.tz)
                if row.namespace is not None:
                    limit = limit.replace(namespace=row.namespace)
            except ValueError:
                continue  # of another version, or a zone that this machine does not know
            yield Counter(self.storage, limit, row.before, row.after)

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

    def forget_denials(self) -> None:
        for table in self.local:
            table.meter(FORGET, 1)
        if self.shared is not None:
            self.shared.forget_denials()

    # -- rules

    def ipv6_prefix(self) -> int | None:
        noted = (table.ipv6_prefix for table in self.local)
        return next((prefix for prefix in noted if prefix is not None), None)

    def set_rule(self, client: str, kind: str, until: float | None) -> None:
        if self.shared is not None:
            self.shared.set_rule(client, kind, until)
        for table in self.local if self.shared is not None else self._need_stats_tables():
            set_rule(table, client, kind, until)

    def load_rules(self, rules: list[tuple[str, str, float | None]]) -> int:
        if self.shared is not None:
            return self.shared.set_rules(rules)
        for table in self._need_stats_tables():
            table.load_rules(rules)
        return len(rules)

    def unlist(self, client: str) -> bool:
        removed = [
            table.unlist(client)
            for table in (self.local if self.shared is not None else self._need_stats_tables())
        ]
        if self.shared is not None:
            removed.append(self.shared.remove_rule(client))
        return any(removed)

    def rules(self) -> list[Rule]:
        if self.shared is not None:
            return [Rule(*rule) for rule in self.shared.rules()]  # type: ignore[arg-type]
        return self._need_stats_tables()[0].rules()

    def rule_of(self, client: str) -> Rule | None:
        if self.shared is None:
            return self._need_stats_tables()[0].rule_of(client)
        rules = self.shared.rules()
        if not rules:
            return None
        with Table(f"memory://?keys=8&rules={len(rules)}") as scratch:
            scratch.load_rules([(rule.client, rule.kind, rule.until) for rule in rules])
            holds = scratch.rule_of(client)
        since = {rule.client: rule.since for rule in rules}
        if holds is None:
            return None
        return Rule(holds.client, holds.kind, since.get(holds.client, holds.since), holds.until)


def _host(host: Host) -> dict[str, Any]:
    """One host, as `weir top` shows it."""
    return {"name": host.name, "seen": host.time, "table": host.info}
