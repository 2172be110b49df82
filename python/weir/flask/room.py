"""Checks that limits fit into the table that counts them."""

from __future__ import annotations

from collections.abc import Iterable

from weir._core import ParseError, Table
from weir.storage import StorageTypes
from weir.strategies import keeps_hits

from .errors import ConfigurationError
from .limits import Limit

#: The most hits that a line of the pool can hold.
_LINE_HITS = 14


def refuse_unfit(storage: StorageTypes, strategy: str, groups: Iterable[Limit]) -> None:
    """Refuse moving-window limits with which one client could fill the pool of the table.

    :param strategy: the limiter's strategy, for limits without their own
    :raises ConfigurationError: ``EVALUE``
    """
    if not isinstance(storage, Table) or storage.closed:
        return
    room: int | None = None
    for group in groups:
        text = group.limit_provider
        if callable(text):
            continue
        try:
            items = group.items(text, strategy)
        except ParseError:
            continue  # reported elsewhere, or at the first request
        for item in items:
            if not keeps_hits(item.strategy or strategy):
                continue
            if room is None:
                # One client gets no more than ten elevenths of it.
                room = storage.info()["lines_max"] * _LINE_HITS * 10 // 11
            if item.amount > room:
                raise ConfigurationError(
                    "EVALUE",
                    f"{item}: a moving window stores the time of each hit, and the table has room "
                    f"for {room:,} hits of all clients together. Set more, as in "
                    f"storage_uri={storage.uri.partition('?')[0] + f'?hits={item.amount * 4}'!r}, "
                    'or use strategy="sliding-window-counter", which stores two numbers',
                )
