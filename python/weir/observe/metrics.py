"""Metrics for Prometheus: a collector for prometheus_client (``pip install prometheus_client``).

::

    from prometheus_client import CollectorRegistry
    from weir.metrics import Collector

    registry = CollectorRegistry()
    registry.register(Collector(table))

Everything is read from the table that all workers share, or from the one beside a remote store. So
the values are the same whichever worker answers, and ``PROMETHEUS_MULTIPROC_DIR`` is not needed.
Flask applications mount it by :func:`weir.flask.metrics.mount`.

====================================== ======================================================
``weir_decisions_total``               by ``limit`` and ``verdict``: ``allowed`` or ``denied``.
                                       Each limit of a request counts its decision; of a denied
                                       request only the limits that denied it count
``weir_near_limit_total``              by ``limit``: admitted requests after which 80 % of the
                                       limit or more was used
``weir_shadow_denied_total``           by ``limit``: requests that a limit in shadow mode would
                                       have denied
``weir_top_client_denied_total``       by ``limit``: grows by what the client that was denied most
                                       was denied since the last scrape: its rate is that of
                                       the most denied client
``weir_store_seconds``                 by ``store``: histogram of the trips to a remote store
``weir_store_errors_total``            by ``store`` and ``kind``: ``timeout``, ``connection``,
                                       ``answer`` (an error reply of the server) or ``table``
``weir_fallback_active``               1 while some process decides without its store
``weir_table_keys``                    keys in the tables
``weir_table_keys_max``                capacity in keys
``weir_table_evictions_total``         live keys that were evicted
``weir_table_recoveries_total``        locks recovered from killed processes
``weir_rules``                         rules about clients, by ``kind``: ``block`` or ``allow``
====================================== ======================================================

No label takes a value that a client can choose: ``limit`` is the limit as text,
``10 per 1 minute``, and beyond 63 limits of a table the rest is ``other``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from .._clock import monotonic
from .._core import HIT, REFUND, TEST, Limit, Table, TopClient
from .._locks import new_lock
from .._text import hide_password, printable
from ..errors import ConfigurationError, StorageError
from .stats import BOUNDS, StoreMeters, StoreSeen

try:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector as BaseCollector
except ImportError as error:
    raise ConfigurationError(
        "weir.metrics needs the package prometheus_client: pip install prometheus_client"
    ) from error

__all__ = ["Collector"]

#: Seconds for which an answer is reused: counting the keys of a large table takes a while.
_FRESH = 1.0

#: Clients of a table that are read to find the one with most denials.
_CLIENTS = 64

#: Stores each client's denials at the last scrape.
_SEEN = Limit(1 << 62, 1, "year", strategy="fixed-window", namespace="!top client")


class _Found(NamedTuple):
    """The sums over all tables and stores."""

    allowed: Counter[str]
    denied: Counter[str]
    near: Counter[str]
    shadow: Counter[str]
    top_client: Counter[str]
    info: Counter[str]
    rules: Counter[str]
    stores: dict[str, StoreSeen]


class Collector(BaseCollector):
    """Reports stores: tables, remote stores with their tables, or a function that returns some.

    :param stores: :class:`weir.Table`, or what has ``stats_table``, a table, and ``meters``

    >>> from prometheus_client import CollectorRegistry
    >>> from weir import parse
    >>> registry = CollectorRegistry()
    >>> table = Table()
    >>> registry.register(Collector(table))
    >>> [table.decide([parse("2/minute")], "alice").allowed for _ in range(3)]
    [True, True, False]
    >>> labels = {"limit": "2 per 1 minute", "verdict": "denied"}
    >>> registry.get_sample_value("weir_decisions_total", labels)
    1.0
    """

    def __init__(self, *stores: Any) -> None:
        self._stores = stores
        self._lock = new_lock()
        self._read_at = float("-inf")
        self._metrics: list[Metric] = []

    def describe(self) -> Iterable[Metric]:
        """The metrics without their values, so that registering reads nothing."""
        return _families(None)

    def collect(self) -> Iterator[Metric]:
        """The metrics, at most a second old."""
        with self._lock:
            is_fresh = self._read_at <= monotonic() < self._read_at + _FRESH
            metrics = self._metrics
        if not is_fresh:
            metrics = _families(self._read())
            with self._lock:
                self._metrics, self._read_at = metrics, monotonic()
        yield from metrics

    def _sources(self) -> Iterator[Any]:
        for store in self._stores:
            if callable(store):
                yield from store()
            else:
                yield store

    def _read(self) -> _Found:
        found = _Found(
            Counter(), Counter(), Counter(), Counter(), Counter(), Counter(), Counter(), {}
        )
        read: set[object] = set()
        for source in self._sources():
            table = source if isinstance(source, Table) else source.stats_table
            if not isinstance(source, Table) and not table.closed:
                seen = (source if isinstance(source, StoreMeters) else source.meters).read()
                name = printable(hide_password(seen.store))
                found.stores.setdefault(name, seen._replace(store=name))
            # A table that was opened several times is counted once.
            identity = id(table) if table.uri.startswith("memory:") else _place(table.uri)
            if identity not in read and not table.closed:
                read.add(identity)
                _add_table(found, table)
        return found


def _place(uri: str) -> str:
    return uri.partition("?")[0]


def _add_table(found: _Found, table: Table) -> None:
    for row in table.counts():
        counts = row._replace(limit=printable(row.limit))
        found.allowed[counts.limit] += counts.allowed
        found.denied[counts.limit] += counts.denied
        found.near[counts.limit] += counts.near
        found.shadow[counts.limit] += counts.shadow
    for limit, number in _most_denied(table).items():
        found.top_client[printable(limit)] += number
    found.info.update(table.info())
    for rule in table.rules():
        found.rules[rule.kind] += 1


# ------------------------------------------------------------------------------- most denied client


def _most_denied(table: Table) -> dict[str, int]:
    """By limit: the sum over all scrapes of the most denials of one client between two scrapes.

    The denials of each client at the last scrape are kept in separate counters of the table. A
    client that is new in the list adds nothing at its first scrape.
    """
    most: dict[str, int] = {}
    try:
        for client in table.top_clients("denied", _CLIENTS):
            grown = _since_last_scrape(table, client)
            most[client.limit] = max(most.get(client.limit, 0), grown)
        return {limit: table.meter(f"top client {limit}", number) for limit, number in most.items()}
    except (StorageError, ValueError):  # the table has no room for all limits
        return {}


def _since_last_scrape(table: Table, client: TopClient) -> int:
    key = f"{client.limit}\n{client.client}"
    before = _SEEN.amount - table.decide([_SEEN], key, [0], TEST)[0].remaining
    grown = client.denied - before
    if grown <= 0:
        if grown < 0:  # the client had left the list
            table.decide([_SEEN], key, [-grown], REFUND)
        return 0
    after = _SEEN.amount - table.decide([_SEEN], key, [grown], HIT)[0].remaining
    if after != client.denied:  # another process scraped at the same time
        table.decide([_SEEN], key, [grown], REFUND)
        return 0
    return grown if before else 0


# ---------------------------------------------------------------------------------- as metrics


def _families(found: _Found | None) -> list[Metric]:
    """All metrics; without values for None."""
    decisions = CounterMetricFamily(
        "weir_decisions", "Decisions of limits.", labels=["limit", "verdict"]
    )
    near = CounterMetricFamily(
        "weir_near_limit", "Admitted requests after which 80 % was used.", labels=["limit"]
    )
    shadow = CounterMetricFamily(
        "weir_shadow_denied", "Requests that would have been denied.", labels=["limit"]
    )
    top_client = CounterMetricFamily(
        "weir_top_client_denied", "Denials of the most denied client.", labels=["limit"]
    )
    seconds = HistogramMetricFamily(
        "weir_store_seconds", "How long a remote store took to answer.", labels=["store"]
    )
    errors = CounterMetricFamily(
        "weir_store_errors", "Failures of a remote store.", labels=["store", "kind"]
    )
    away = GaugeMetricFamily("weir_fallback_active", "Whether a process decides without its store.")
    keys = GaugeMetricFamily("weir_table_keys", "Keys in the tables.")
    room = GaugeMetricFamily("weir_table_keys_max", "Capacity in keys.")
    evictions = CounterMetricFamily("weir_table_evictions", "Keys in use that were evicted.")
    recoveries = CounterMetricFamily(
        "weir_table_recoveries", "Locks recovered from killed processes."
    )
    rules = GaugeMetricFamily("weir_rules", "Rules about clients.", labels=["kind"])
    if found is not None:
        for limit in sorted({*found.allowed, *found.denied}):
            decisions.add_metric([limit, "allowed"], found.allowed[limit])
            decisions.add_metric([limit, "denied"], found.denied[limit])
            near.add_metric([limit], found.near[limit])
            shadow.add_metric([limit], found.shadow[limit])
            top_client.add_metric([limit], found.top_client[limit])
        for store in found.stores.values():
            _add_store(store, seconds, errors)
        away.add_metric([], any(store.away for store in found.stores.values()))
        keys.add_metric([], found.info["keys"])
        room.add_metric([], found.info["keys_max"])
        evictions.add_metric([], found.info["evictions"])
        recoveries.add_metric([], found.info["recoveries"])
        for kind in ("allow", "block"):
            rules.add_metric([kind], found.rules[kind])
    return [
        decisions, near, shadow, top_client, seconds, errors, away, keys, room, evictions,
        recoveries, rules,
    ]  # fmt: skip


def _add_store(
    store: StoreSeen, seconds: HistogramMetricFamily, errors: CounterMetricFamily
) -> None:
    so_far, buckets = 0, []
    for bound, number in zip([*map(str, BOUNDS), "+Inf"], store.answers, strict=True):
        so_far += number
        buckets.append((bound, so_far))
    if store.timed:
        seconds.add_metric([store.store], buckets, store.seconds)
    for kind, number in store.errors.items():
        errors.add_metric([store.store, kind], number)
