"""What a limiter's store and board say at one moment, as plain data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from weir._watched import name_of
from weir.boards import hottest
from weir.errors import StorageError

from .._state import AppState

__all__ = ["snapshot"]

#: Of a row, the numbers that are added up over hosts.
_SUMS = ("allowed", "denied", "near", "shadow", "error")

Row = dict[str, Any]


def snapshot(state: AppState, count: int = 20) -> dict[str, Any]:
    """All there is to see now. Times are seconds since the epoch.

    count: how many of the heaviest clients of this host, of those denied and of those allowed;
        and as many of the others, those that came last.

    Numbers only grow, so that two snapshots give a rate. With a store that several hosts share,
    they are of all hosts, as each has told about a second ago. A store that cannot be asked is
    shown as unreachable; that is no error. Reads every cell of the table: some milliseconds per
    million.
    """
    board = state.board
    limits = [row._asdict() for row in board.counts()]
    denied = [row._asdict() for row in hottest(board, "denied", count)]
    allowed = [row._asdict() for row in hottest(board, "allowed", count)]
    store = _health(state)
    others = _others(state) if store["reachable"] else []
    for other in others:
        limits += _rows(("limit", "allowed", "denied", "near", "shadow"), other.get("counts"))
        heaviest = other.get("heaviest") or {}
        fields = ("client", "limit", "allowed", "denied", "error", "last")
        denied += _rows(fields, heaviest.get("denied"))
        allowed += _rows(fields, heaviest.get("allowed"))
    now = time.time()
    store["hosts"] = [
        {"host": other.get("name", "?"), "age": now - float(other.get("time", now))}
        for other in others
    ]
    return {
        "time": now,
        "store": store,
        "limits": _merged(limits, lambda row: row["limit"]),
        "denied": _heaviest(denied, "denied"),
        "allowed": _heaviest(allowed, "allowed"),
        "rules": [row._asdict() for row in board.rules()],
    }


def _others(state: AppState) -> list[dict[str, Any]]:
    """What the other hosts of the store have told of themselves."""
    beat = state.watched.beat if state.watched is not None else None
    if beat is None:
        return []
    try:
        return [board for board in beat.boards.read() if board.get("host") != beat.host]
    except StorageError:
        return []


def _rows(fields: tuple[str, ...], rows: Any) -> list[Row]:
    return [dict(zip(fields, row, strict=False)) for row in rows or ()]


def _merged(rows: Iterable[Row], identify: Callable[[Row], Any]) -> list[Row]:
    """One row for all that are of the same."""
    merged: dict[Any, Row] = {}
    for row in rows:
        known = merged.setdefault(identify(row), row)
        if known is not row:
            for name in _SUMS:
                if name in row:
                    known[name] += row[name]
            if "last" in row:
                known["last"] = max(known["last"], row["last"])
    return list(merged.values())


def _heaviest(rows: list[Row], by: str) -> list[Row]:
    merged = _merged(rows, lambda row: (row["client"], row["limit"]))
    return sorted((row for row in merged if row[by]), key=lambda row: -row[by])


def _health(state: AppState) -> dict[str, Any]:
    store, board = state.opened, state.board
    started = time.perf_counter()
    try:
        reachable, trouble = bool(store.check()), ""
    except Exception as error:
        reachable, trouble = False, str(error)
    health: dict[str, Any] = {
        "uri": name_of(store),
        "reachable": reachable,
        "seconds": time.perf_counter() - started,
        "trouble": trouble,
        "away": state.dead or bool(getattr(state.storage, "away", False)),
        "policy": state.on_store_error,
        "board": board.uri,
    }
    info = board.info()
    for name in ("keys", "keys_max", "evictions", "recoveries", "bytes"):
        health[name] = info[name]
    return health
