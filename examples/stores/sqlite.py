"""Rate limits in an SQLite file that all processes of a host share: ``sqlite:///var/lib/app/limits.db``.

Import this module before the first limiter opens such a URI, or name it in WEIR_STORES.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from weir.stores.state import Change, StateStorage

TABLE = """CREATE TABLE IF NOT EXISTS weir
    (name TEXT PRIMARY KEY, value BLOB NOT NULL, expires REAL NOT NULL) WITHOUT ROWID"""
DROP = "DELETE FROM weir WHERE name IN (SELECT name FROM weir WHERE expires < ? LIMIT 10)"


class SQLiteStorage(StateStorage):
    STORAGE_SCHEME = ("sqlite",)
    # "database is locked" is an outage, too: the file has one lock for all counters.
    outage = (sqlite3.Error,)

    def __init__(self, uri: str, socket_timeout: float = 0.25, **options: Any) -> None:
        super().__init__(uri, **options)
        self.timeout = socket_timeout  # seconds to wait for other processes
        self.path = uri.partition("://")[2].partition("?")[0]
        self.after_fork()
        with self.translating_errors(), self.transaction() as db:
            db.execute(TABLE)
            db.execute("CREATE INDEX IF NOT EXISTS weir_expires ON weir (expires)")

    def after_fork(self) -> None:
        self.threads = threading.local()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        db = getattr(self.threads, "db", None)
        if db is None:
            db = self.threads.db = sqlite3.connect(self.path, self.timeout, isolation_level=None)
        db.execute("BEGIN IMMEDIATE")  # no other process writes until the end
        with db:  # commits, or rolls back
            yield db

    def read(self, db: sqlite3.Connection, names: Sequence[str]) -> dict[str, bytes]:
        marks = ",".join("?" * len(names))
        return dict(db.execute(f"SELECT name, value FROM weir WHERE name IN ({marks})", names))

    def write(self, db: sqlite3.Connection, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.value is None:
                db.execute("DELETE FROM weir WHERE name = ?", (change.name,))
            else:
                db.execute("INSERT OR REPLACE INTO weir VALUES (?, ?, ?)", change)
        db.execute(DROP, (time.time(),))
