"""What a store and its board say at one moment, as plain data: for pages, terminals and programs.

>>> from weir import Table, parse
>>> from weir.strategies import FixedWindowRateLimiter
>>> table = Table()
>>> FixedWindowRateLimiter(table).hit(parse("10/minute"), "10.1.2.3")
True
>>> snapshot(table)["limits"]
[{'limit': '10 per 1 minute', 'allowed': 1, 'denied': 0, 'near': 0, 'shadow': 0}]
"""

from __future__ import annotations

import time
from typing import Any

from weir._core import Table
from weir.storage import StorageTypes
from weir.stores._common import shown

__all__ = ["board_of", "snapshot"]


def board_of(storage: StorageTypes) -> Table | None:
    """The table that counts what ``storage`` decides and holds the rules: itself, if it is one.

    ``None`` for a store without such a table.
    """
    seen = 0
    while not isinstance(storage, Table) and seen < 8:
        board = getattr(storage, "board", None)
        if isinstance(board, Table):
            return board
        inner = getattr(storage, "storage", None)
        if inner is None:
            return None
        storage, seen = inner, seen + 1
    return storage if isinstance(storage, Table) else None


def snapshot(storage: StorageTypes, count: int = 20) -> dict[str, Any]:
    """All there is to see of ``storage`` now. Times are seconds since the epoch.

    count: how many of the heaviest clients, of those denied and of those allowed, 1 to 1000.

    Numbers only grow, so that two snapshots give a rate. A store that cannot be asked is shown as
    unreachable; that is no error. Reads every cell of the table: some milliseconds per million.
    """
    count = max(1, min(count, 1000))
    board = board_of(storage)
    seen: dict[str, Any] = {"time": time.time(), "store": _health(storage, board)}
    if board is None:
        return {**seen, "limits": [], "denied": [], "allowed": [], "rules": []}
    return {
        **seen,
        "limits": [row._asdict() for row in board.counts()],
        "denied": [row._asdict() for row in board.heaviest("denied", count)],
        "allowed": [row._asdict() for row in board.heaviest("allowed", count)],
        "rules": [row._asdict() for row in board.rules()],
    }


def _health(storage: StorageTypes, board: Table | None) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        reachable, trouble = bool(storage.check()), ""
    except Exception as error:
        reachable, trouble = False, str(error)
    health: dict[str, Any] = {
        "uri": shown(getattr(storage, "uri", None) or type(storage).__name__),
        "reachable": reachable,
        "seconds": time.perf_counter() - started,
        "trouble": trouble,
        "away": bool(getattr(storage, "away", False)),
        "policy": getattr(storage, "policy", None),
    }
    if board is not None:
        info = board.info()
        health["board"] = shown(board.uri)
        for name in ("keys", "keys_max", "evictions", "recoveries", "bytes"):
            health[name] = info[name]
    return health
