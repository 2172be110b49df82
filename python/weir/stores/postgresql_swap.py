"""Writes counters on a PostgreSQL server if they are as expected: one round trip."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from ._pq import BYTES, FLOAT, TEXT, Statement, array
from .postgresql_schema import FEW, SWAP_ARRAY, SWAP_ONE, swap_few

__all__ = ["Swap"]

_FLOAT, _LENGTH = struct.Struct("!d"), struct.Struct("!i")

#: A time that no server has: the function returns the stored states.
_INVALID = 0.0


class Swap:
    """The functions of the schema, by prepared statements."""

    def __init__(self, table: str) -> None:
        self._one = Statement("weir_swap_one", SWAP_ONE.format(table=table), 5)
        self._few = [
            Statement(f"weir_swap_{n}", swap_few(table, n), 1 + 4 * n) for n in range(2, FEW + 1)
        ]
        self._array = Statement("weir_swap_array", SWAP_ARRAY.format(table=table), 5)

    def _statement(
        self, was: Sequence[bytes | None], following: Sequence[bytes | None]
    ) -> Statement:
        counters = len(was)
        if counters == 1:
            return self._one
        if counters <= FEW and None not in was and None not in following:
            return self._few[counters - 2]
        return self._array

    def prepare(
        self, connection: Any, was: Sequence[bytes | None], following: Sequence[bytes | None]
    ) -> None:
        """Prepare the statement for these counters, unless that was done on this connection."""
        self._statement(was, following).prepare(connection)

    def run(
        self,
        connection: Any,
        names: Sequence[bytes],
        was: Sequence[bytes | None],
        following: Sequence[bytes | None],
        expires: Sequence[float],
        expected: float | None,
    ) -> tuple[float, list[bytes | None] | None]:
        """Return the server's time, and the stored states if nothing was written.

        was: ``None``: there is no row. following: ``None``: the counter is not changed.
        expected: the time; ``None``: any. Raises as ``Statement.run()``.
        """
        statement = self._statement(was, following)
        time = None if expected is None else _FLOAT.pack(expected)
        parameters: list[bytes | None]
        if statement is self._array:
            parameters = [
                array(TEXT, names),
                array(BYTES, was),
                array(BYTES, following),
                array(FLOAT, [_FLOAT.pack(moment) for moment in expires]),
                time,
            ]
        else:
            parameters = [time]
            for name, old, new, moment in zip(names, was, following, expires, strict=True):
                parameters += name, old, new, _FLOAT.pack(moment)
        return _read(statement.run(connection, parameters).get_value(0, 0))


def _read(reply: bytes) -> tuple[float, list[bytes | None] | None]:
    """A time; if nothing was written, the length and the value of each counter follow.

    >>> _read(_FLOAT.pack(7.5)), _read(_FLOAT.pack(7.5) + _LENGTH.pack(-1) + _LENGTH.pack(1) + b"x")
    ((7.5, None), (7.5, [None, b'x']))
    """
    (theirs,) = _FLOAT.unpack_from(reply)
    at = _FLOAT.size
    if len(reply) == at:
        return theirs, None
    states: list[bytes | None] = []
    while at < len(reply):
        (length,) = _LENGTH.unpack_from(reply, at)
        at += _LENGTH.size
        states.append(None if length < 0 else reply[at : at + length])
        at += max(0, length)
    return theirs, states
