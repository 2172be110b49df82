"""The arguments of a decision, and the limit that it reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from ._core import Limit, Verdict

__all__ = ["Keys", "checks", "deciding"]

#: One key for each limit, or one for all of them.
Keys: TypeAlias = str | bytes | Sequence[str | bytes]


def checks(
    limits: Sequence[Limit], keys: Keys, costs: Sequence[int] | None = None
) -> list[tuple[Limit, str | bytes, int]]:
    """The arguments of :meth:`Storage.decide`, limit by limit.

    >>> checks([Limit(1), Limit(2)], "alice")
    [(1 per 1 minute, 'alice', 1), (2 per 1 minute, 'alice', 1)]
    """
    if isinstance(keys, str | bytes):
        keys = [keys] * len(limits)
    if costs is None:
        costs = [1] * len(limits)
    return list(zip(limits, keys, costs, strict=True))


def deciding(limits: Sequence[Limit], verdicts: Sequence[Verdict]) -> int:
    """The index of the limit to report to the client.

    Of those that denied, the one whose ``retry_after`` is furthest away; else the shortest period.
    """
    denied = [i for i, verdict in enumerate(verdicts) if not verdict.allowed]
    if denied:
        return max(denied, key=lambda i: verdicts[i].retry_after)
    return min(range(len(limits)), key=lambda i: limits[i].get_expiry())
