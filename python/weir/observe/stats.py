"""Statistics of a store beside its decisions, in the meters of a table, for all processes.

Names of meters begin with the store's, as it may be shown. None is made of what a client chooses.
"""

from __future__ import annotations

import contextlib
import time
from bisect import bisect_left
from typing import NamedTuple

from .._core import Table, TableError, WeirError
from ..errors import is_outage

#: Upper bounds of the classes that answers of a store are counted in, in seconds.
BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

#: What can go wrong with a store: no answer in time, no connection, an answer that is an error; or
#: a local table that cannot be used.
KINDS = ("timeout", "connection", "answer", "table")

#: Seconds after which an outage is forgotten if the store was not asked again.
_FORGET = 300.0


class StoreSeen(NamedTuple):
    """The statistics of a store, all processes together."""

    store: str
    #: Answers by their time, one number for each of :data:`BOUNDS` and one for those above.
    answers: tuple[int, ...]
    #: The time of all answers, in seconds.
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
        """The store has answered after so many seconds."""
        self._meter(self._classes[bisect_left(BOUNDS, seconds)], 1)
        self._meter(self._seconds, int(seconds * 1e9) if seconds > 0 else 0)

    def failed(self, error: BaseException) -> None:
        """The store has raised an error; counted if it is the store's, not that of one key."""
        if not is_outage(error):
            return
        with contextlib.suppress(WeirError):  # a table that is closed
            self._meter(self._errors[kind_of(error)], 1)

    def away(self) -> None:
        """Something was decided without the store."""
        with contextlib.suppress(WeirError):
            self.stats_table.raise_meter(self._away, int(time.time() * 1000))

    def back(self) -> None:
        """The store is there again."""
        with contextlib.suppress(WeirError):
            self.stats_table.raise_meter(self._back, int(time.time() * 1000))

    def read(self) -> StoreSeen:
        """What is known of the store."""
        meter = self._meter
        away = meter(self._away)
        return StoreSeen(
            self.store,
            tuple(meter(name) for name in self._classes),
            meter(self._seconds) / 1e9,
            {kind: meter(name) for kind, name in self._errors.items()},
            away > meter(self._back) and time.time() * 1000 - away < _FORGET * 1000,
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
    # The text of the other side, which closed the connection or replied with an error.
    return "connection" if "closed the connection" in str(error) else "answer"
