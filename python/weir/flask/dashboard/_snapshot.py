"""The state of a limiter's store and statistics at one moment, as plain data."""

from __future__ import annotations

import time
from typing import Any

from weir._text import hide_password, printable
from weir.errors import StorageError
from weir.observe.hosts import merge_clients, merge_counts, read_host
from weir.stores.instrumented import name_of
from weir.stores.shared_stats import top_clients

from ..state import AppState

__all__ = ["snapshot"]


def snapshot(state: AppState, count: int = 20) -> dict[str, Any]:
    """Everything that the page shows. Times are seconds since the epoch.

    count: the number of top clients of this host, by denied and by allowed requests each, and of
        the most recent among the others.

    Numbers only grow, so two snapshots give a rate. With a store that several hosts share, they
    cover all hosts, as each published them about a second ago. An outage of the store is shown and
    raises no error. This reads every cell of the table, which takes some milliseconds per million.
    """
    table = state.stats_table
    store = _health(state)
    mine: dict[str, Any] = {"counts": [], "top_clients": {"denied": [], "allowed": []}}
    rules: list[Any] = []
    try:
        mine["counts"] = table.counts()
        mine["top_clients"] = {by: top_clients(table, by, count) for by in ("denied", "allowed")}
        rules = table.rules()
    except StorageError as error:  # for example damaged statistics: the rest is shown
        store["trouble"] = store["trouble"] or printable(error)
    others = [read_host(other) for other in (_others(state) if store["reachable"] else [])]
    hosts = [read_host(mine), *others]
    now = time.time()
    store["hosts"] = [
        {"host": other.name, "age": 0.0 if other.time is None else now - other.time}
        for other in others
    ]
    return {
        "time": now,
        "store": store,
        "limits": [row._asdict() for row in merge_counts(hosts)],
        "denied": [row._asdict() for row in merge_clients(hosts, "denied") if row.denied],
        "allowed": [row._asdict() for row in merge_clients(hosts, "allowed") if row.allowed],
        "rules": [{**row._asdict(), "client": printable(row.client)} for row in rules],
    }


def _others(state: AppState) -> list[dict[str, Any]]:
    """The statistics that the other hosts of the store have published."""
    sync = state.instrumented.sync if state.instrumented is not None else None
    if sync is None:
        return []
    try:
        return [host for host in sync.shared.read() if host.get("host") != sync.host]
    except StorageError:
        return []


def _health(state: AppState) -> dict[str, Any]:
    store, table = state.opened, state.stats_table
    started = time.perf_counter()
    try:
        reachable, trouble = bool(store.check()), ""
    except Exception as error:
        reachable, trouble = False, printable(error)
    health: dict[str, Any] = {
        "uri": printable(hide_password(name_of(store))),
        "reachable": reachable,
        "seconds": time.perf_counter() - started,
        "trouble": trouble,
        "away": bool(getattr(state.storage, "away", False)),
        "policy": state.store.on_store_error,
        "table": printable(table.uri),
    }
    info = table.info()
    for name in ("keys", "keys_max", "evictions", "recoveries", "bytes"):
        health[name] = info[name]
    return health
