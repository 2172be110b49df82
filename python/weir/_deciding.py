"""The arguments of a decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from ._core import Limit

__all__ = ["Keys", "checks"]

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
