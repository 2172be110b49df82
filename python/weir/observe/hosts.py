"""The statistics that the hosts of a shared store publish, validated and merged.

The snapshot of another host is not trusted: every client of the store can write anything. Rows of
another shape are left out, texts are escaped and cut, numbers and lengths are bounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from .._core import LimitCounts, Table, TopClient
from .._text import printable

__all__ = ["By", "Host", "merge_clients", "merge_counts", "read_host", "read_table"]

By = Literal["denied", "allowed"]

#: Rows of one kind that are read from one host.
ROWS_MAX = 1000

#: Characters of a part of a key.
_PART_MAX = 1024

_NUMBER_MAX = 2**63 - 1


class LimitInUse(NamedTuple):
    """A limit as a host describes it. Its texts are not escaped: keys are made of them."""

    text: str
    strategy: str | None
    #: What precedes and follows the client in a key.
    before: str
    after: str
    #: The zone of its calendar windows; ``None``: UTC.
    tz: str | None = None
    namespace: str | None = None


class Host(NamedTuple):
    """The statistics of one host."""

    name: str
    #: When it was written, in seconds since the epoch; ``None``: this host.
    time: float | None
    counts: list[LimitCounts]
    denied: list[TopClient]
    allowed: list[TopClient]
    limits: list[LimitInUse]
    #: The state of its table.
    info: dict[str, int] | None


def read_host(stats: Any) -> Host:
    """A host's snapshot, as :meth:`weir.stores.shared_stats.SharedStats.read` returns it."""
    stats = stats if isinstance(stats, dict) else {}
    listed = stats.get("top_clients")
    listed = listed if isinstance(listed, dict) else {}
    time, info = stats.get("time"), stats.get("info")
    return Host(
        printable(stats.get("name", "?"), 60),
        float(time) if _is_time(time) else None,
        [LimitCounts(*row) for row in _rows(stats.get("counts"), str, int, int, int, int)],
        [TopClient(*row) for row in _clients(listed.get("denied"))],
        [TopClient(*row) for row in _clients(listed.get("allowed"))],
        list(_limits(stats.get("registry"))),
        {printable(name, 60): value for name, value in info.items() if _is_number(value)}
        if isinstance(info, dict)
        else None,
    )


def read_table(table: Table, snapshot: dict[str, Any]) -> Host:
    """This host, from the snapshot of its table."""
    return read_host({**snapshot, "name": "this host"})._replace(info=dict(table.info()))


def _clients(rows: Any) -> Iterator[list[Any]]:
    return _rows(rows, str, str, int, int, int, float)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _NUMBER_MAX


def _is_time(value: Any) -> bool:
    """Seconds since the epoch that can be shown: up to the year 9999."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and 0 <= value < 253402300000
    )


def _cell(value: Any, kind: type) -> Any:
    """The value, escaped and bounded. Raises ValueError."""
    if kind is str and isinstance(value, str):
        return printable(value)
    if kind is int and _is_number(value):
        return value
    if kind is float and _is_time(value):
        return float(value)
    raise ValueError(kind)


def _rows(value: Any, *kinds: type) -> Iterator[list[Any]]:
    """The rows of a list that have these columns."""
    for row in value[:ROWS_MAX] if isinstance(value, list) else ():
        if isinstance(row, list | tuple) and len(row) == len(kinds):
            try:
                yield [_cell(c, kind) for c, kind in zip(row, kinds, strict=True)]
            except ValueError:
                continue


def _limits(value: Any) -> Iterator[LimitInUse]:
    for row in value[:ROWS_MAX] if isinstance(value, list) else ():
        # Four columns: of an earlier version.
        if isinstance(row, list | tuple) and len(row) in (4, 6):
            text, strategy, *parts = row
            optional = [part if _is_part(part) else None for part in (strategy, *parts[2:])]
            if all(_is_part(part) for part in (text, *parts[:2])):
                yield LimitInUse(text, optional[0], *parts[:2], *optional[1:])


def _is_part(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _PART_MAX


def merge_counts(hosts: Iterable[Host]) -> list[LimitCounts]:
    """The counts of each limit, all hosts together."""
    sums: dict[str, LimitCounts] = {}
    for host in hosts:
        for row in host.counts:
            known = sums.get(row.limit)
            if known is not None:
                row = LimitCounts(row.limit, *map(sum, zip(known[1:], row[1:], strict=True)))
            sums[row.limit] = row
    return list(sums.values())


def merge_clients(hosts: Iterable[Host], by: By) -> list[TopClient]:
    """The clients of all hosts, those with most denied or allowed requests first."""
    sums: dict[tuple[str, str], TopClient] = {}
    for host in hosts:
        for row in host.denied if by == "denied" else host.allowed:
            known = sums.get(row[:2])
            if known is not None:
                row = row._replace(
                    allowed=known.allowed + row.allowed,
                    denied=known.denied + row.denied,
                    error=known.error + row.error,
                    last=max(known.last, row.last),
                )
            sums[row[:2]] = row
    return sorted(sums.values(), key=lambda row: -getattr(row, by))
