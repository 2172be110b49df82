"""Replays past requests against limits, with the code that decides and the time of the log.

Memory is bounded: by the number of clients, by the requests that wait to be sorted, and by
the columns of the timeline.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence

from ..._core import HIT, Limit, Table
from ...errors import TableError
from ..errors import Unreadable
from .formats import Record

#: Requests that may wait until an earlier one has come.
REORDER = 10_000

#: The timeline's columns, at most.
COLUMNS = 1000

#: Lengths of an interval in microseconds; each is a multiple of the one before.
INTERVALS = [
    100_000, 500_000,
    *(n * 1_000_000 for n in (1, 5, 15, 30, 60, 300, 900, 1800, 3600, 10800, 21600, 43200, 86400)),
    *(n * 86_400_000_000 for n in (7, 28, 364, 3640, 36400)),
]  # fmt: skip


def in_order(records: Iterable[Record]) -> Iterator[tuple[Record, bool]]:
    """The requests in the order of their time, each with whether it came too late to be sorted.

    A server writes a request when it ends, several servers' logs are put into one file: small
    disorder is usual. One that is still too late counts as of the latest moment before it.
    """
    waiting: list[tuple[float, int, str]] = []
    latest = 0.0

    def next_one() -> tuple[Record, bool]:
        nonlocal latest
        moment, _, key = heapq.heappop(waiting)
        late = moment < latest
        latest = max(latest, moment)
        return Record(latest, key), late

    for number, record in enumerate(records):
        heapq.heappush(waiting, (record.time, number, record.key))
        if len(waiting) > REORDER:
            yield next_one()
    while waiting:
        yield next_one()


class Client:
    """The counts of one client's requests."""

    __slots__ = ("denied", "first_denied", "longest_wait", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.denied = 0
        self.longest_wait = 0.0
        self.first_denied: float | None = None

    @property
    def admitted(self) -> int:
        return self.requests - self.denied


class Timeline:
    """Admitted and denied requests by intervals, which grow with the time from first to last."""

    def __init__(self) -> None:
        self.level = 0
        self.bins: dict[int, list[int]] = {}

    @property
    def interval(self) -> int:
        """Of one column, in microseconds."""
        return INTERVALS[self.level]

    def add(self, seconds: float, denied: bool) -> None:
        column = round(seconds * 1e6) // INTERVALS[self.level]
        found = self.bins.get(column)
        if found is None:
            found = self.bins[column] = [0, 0]
            self.widen(COLUMNS)
            found = self.bins.setdefault(round(seconds * 1e6) // INTERVALS[self.level], found)
        found[denied] += 1

    def columns(self) -> int:
        """The number of columns from the first to the last."""
        return max(self.bins) - min(self.bins) + 1 if self.bins else 0

    def widen(self, most: int) -> None:
        """Make the intervals so long that there are at most this many columns."""
        while self.columns() > most and self.level + 1 < len(INTERVALS):
            factor = INTERVALS[self.level + 1] // INTERVALS[self.level]
            self.level += 1
            bins: dict[int, list[int]] = {}
            for column, (admitted, denied) in self.bins.items():
                sums = bins.setdefault(column // factor, [0, 0])
                sums[0] += admitted
                sums[1] += denied
            self.bins = bins

    def narrowed(self, most: int) -> Timeline:
        """A copy with at most this many columns."""
        copy = Timeline()
        copy.level, copy.bins = self.level, {column: [*sums] for column, sums in self.bins.items()}
        copy.widen(most)
        return copy

    def filled(self) -> list[tuple[float, int, int]]:
        """Start in seconds, admitted and denied of each column, the empty ones included."""
        if not self.bins:
            return []
        none = [0, 0]
        return [
            (column * self.interval / 1e6, *self.bins.get(column, none)[:2])  # type: ignore[misc]
            for column in range(min(self.bins), max(self.bins) + 1)
        ]


class Replay:
    """The decisions under one strategy.

    limits: each with its strategy. clients: the most that are kept. hits: room for hits of moving
    windows.
    """

    def __init__(
        self, name: str, limits: Sequence[Limit], clients: int, hits: int | None = None
    ) -> None:
        self.name = name
        self.limits = list(limits)
        self.most_clients = clients
        self.requests = 0
        self.denied = 0
        self.longest_wait = 0.0
        self.longest_delay = 0.0
        self.clients: dict[str, Client] = {}
        #: The number of clients that were removed for lack of room; only the sums include them.
        self.dropped = 0
        self.timeline = Timeline()
        # Twice as many cells as counters: a bucket of the table is full before the table is.
        keys = max(4096, 2 * clients * len(self.limits))
        room = f"&hits={hits}" if hits is not None else ""
        try:
            self.table = Table(f"memory://?keys={keys}{room}")
        except TableError as error:
            raise Unreadable(f"{error}; set a smaller --clients or --hits") from None

    @property
    def admitted(self) -> int:
        return self.requests - self.denied

    @property
    def evictions(self) -> int:
        """Evicted counters; their clients start with a full limit again."""
        return self.table.info()["evictions"]

    def decide(self, record: Record) -> None:
        try:
            decision = self.table.decide(self.limits, record.key, None, HIT, record.time)
        except TableError as error:
            if error.code != "EFULL":
                raise
            raise Unreadable(
                f"{error}; set a larger --hits; the default is 4 per counter"
            ) from None
        client = self.clients.get(record.key)
        if client is None:
            if len(self.clients) >= self.most_clients:
                self._make_room()
            client = self.clients[record.key] = Client()
        client.requests += 1
        self.requests += 1
        denied = not decision.allowed
        if denied:
            wait = decision.verdict.retry_after
            self.denied += 1
            client.denied += 1
            client.longest_wait = max(client.longest_wait, wait)
            self.longest_wait = max(self.longest_wait, wait)
            if client.first_denied is None:
                client.first_denied = record.time
        else:
            delay = max(verdict.delay for verdict in decision)
            self.longest_delay = max(self.longest_delay, delay)
        self.timeline.add(record.time, denied)

    def _make_room(self) -> None:
        """Drop half of the clients: those with the fewest denied, then the fewest requests."""
        ranked = sorted(self.clients.items(), key=_weight, reverse=True)
        keep = ranked[: len(ranked) // 2]
        self.dropped += len(ranked) - len(keep)
        self.clients = dict(keep)

    def top_clients(self, most: int) -> list[tuple[str, Client]]:
        """The clients with most denied, then with most requests."""
        return heapq.nsmallest(
            most,
            self.clients.items(),
            key=lambda item: (-item[1].denied, -item[1].requests, item[0]),
        )

    @property
    def clients_denied(self) -> int:
        """Clients with a denied request; more, if some were forgotten."""
        return sum(client.denied > 0 for client in self.clients.values())


def _weight(item: tuple[str, Client]) -> tuple[int, int]:
    return item[1].denied, item[1].requests
