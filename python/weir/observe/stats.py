"""Latency and errors of a store, in the meters of a table, for all processes.

The name of a meter begins with the name of the store, without password. No part of it comes from a
client.
"""

from __future__ import annotations

import contextlib
import time
from bisect import bisect_left
from typing import NamedTuple

from .._core import Table, TableError, WeirError
from ..errors import is_outage

#: Upper bounds of the histogram of response times, in seconds.
BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

#: Kinds of errors: no answer in time, no connection, an error reply, or a local table that cannot
#: be used.
KINDS = ("timeout", "connection", "answer", "table")

#: Seconds after which an outage is not shown any more if the store was not used since.
_STALE = 300.0


class StoreSeen(NamedTuple):
    """The statistics of a store, for all processes together."""

    store: str
    #: The histogram: a number for each of :data:`BOUNDS`, and one for longer times.
    answers: tuple[int, ...]
    #: The sum of all response times, in seconds.
    seconds: float
    #: Failures by :data:`KINDS`.
    errors: dict[str, int]
    #: Whether some process decides without it.
    away: bool
    #: Whether its answers are timed: those of tables are not.
    timed: bool


class StoreMeters:
    """The meters of one store in ``table``, which may be that store itself."""

    __slots__ = (
        "_away", "_back", "_classes", "_errors", "_meter", "_seconds", "stats_table",
        "store", "timed",
    )  # fmt: skip

    def __init__(self, table: Table, store: str, *, timed: bool = True) -> None:
        self.stats_table = table
        self.store = store
        self.timed = timed
        self._meter = table.meter
        self._classes = tuple(f"{store} answers {i}" for i in range(len(BOUNDS) + 1))
        self._seconds = f"{store} nanoseconds"
        self._errors = {kind: f"{store} errors {kind}" for kind in KINDS}
        self._away = f"{store} away"
        self._back = f"{store} back"

    def answered(self, seconds: float) -> None:
        """Record a response time in seconds."""
        self._meter(self._classes[bisect_left(BOUNDS, seconds)], 1)
        self._meter(self._seconds, int(seconds * 1e9) if seconds > 0 else 0)

    def failed(self, error: BaseException) -> None:
        """The store has raised an error; counted if it is the store's, not that of one key."""
        if not is_outage(error):
            return
        with contextlib.suppress(WeirError):  # a table that is closed
            self._meter(self._errors[kind_of(error)], 1)

    def away(self) -> None:
        """Record a decision during an outage."""
        with contextlib.suppress(WeirError):
            self.stats_table.raise_meter(self._away, int(time.time() * 1000))

    def back(self) -> None:
        """Record the end of an outage."""
        with contextlib.suppress(WeirError):
            self.stats_table.raise_meter(self._back, int(time.time() * 1000))

    def read(self) -> StoreSeen:
        """The statistics at this moment."""
        meter = self._meter
        away = meter(self._away)
        return StoreSeen(
            self.store,
            tuple(meter(name) for name in self._classes),
            meter(self._seconds) / 1e9,
            {kind: meter(name) for kind, name in self._errors.items()},
            away > meter(self._back) and time.time() * 1000 - away < _STALE * 1000,
            self.timed,
        )


def kind_of(error: BaseException) -> str:
    """One of :data:`KINDS`."""
    if isinstance(error, TableError):
        return "table"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TimeoutError | BlockingIOError) or "Timeout" in type(cause).__name__:
            return "timeout"
        if isinstance(cause, OSError) or "Connection" in type(cause).__name__:
            return "connection"
        cause = cause.__cause__
    # The text of an error reply, or of a closed connection.
    return "connection" if "closed the connection" in str(error) else "answer"
