"""A prepared statement on a connection of psycopg's, by its low-level interface, with a deadline.

A decision is a few arrays in and three values out. ``Connection.execute()`` takes longer to find
out how to write them than the server takes to decide.
"""

from __future__ import annotations

import select
import struct
from collections.abc import Sequence
from typing import Any

from .._clock import monotonic

#: Types of elements (their OIDs), and how one is written.
TEXT, BYTES, FLOAT = 25, 17, 701

_LENGTH = struct.Struct("!i")
_HEAD = struct.Struct("!iiiii")  # dimensions, whether any is NULL, type, length, lower bound
_NULL = _LENGTH.pack(-1)
_BINARY = 1


def array(kind: int, items: Sequence[bytes | None]) -> bytes:
    """An array in PostgreSQL's binary format. items: at least one, in that format, too."""
    parts = [_HEAD.pack(1, None in items, kind, len(items), 1)]
    for item in items:
        parts.append(_NULL if item is None else _LENGTH.pack(len(item)) + item)
    return b"".join(parts)


class Statement:
    """A statement that each connection prepares when it is first run there."""

    def __init__(self, name: str, text: str, parameters: int) -> None:
        self._name, self._text = name.encode(), text.encode()
        self._formats = [_BINARY] * parameters

    def prepare(self, connection: Any) -> None:
        """Prepare it, unless that was done on this connection. Raises as :meth:`run`."""
        if self._name not in connection.prepared:
            connection.pgconn.send_prepare(self._name, self._text)
            _result(connection)
            connection.prepared.add(self._name)

    def run(self, connection: Any, parameters: Sequence[bytes | None]) -> Any:
        """Its result, of one row in binary format. Raises ``TimeoutError`` after connection.until.

        The caller closes a connection that has raised it. After an error of the server, the
        connection is idle.
        """
        self.prepare(connection)
        pgconn = connection.pgconn
        pgconn.send_query_prepared(self._name, parameters, self._formats, result_format=_BINARY)
        return _result(connection)


def _result(connection: Any) -> Any:
    pgconn = connection.pgconn
    while pgconn.flush():
        _wait(connection, select.POLLIN | select.POLLOUT)
        pgconn.consume_input()
    result = failed = None
    while True:
        while pgconn.is_busy():
            _wait(connection, select.POLLIN)
            pgconn.consume_input()
        following = pgconn.get_result()
        if following is None:
            break
        result = following
        if result.error_message:
            failed = failed or result
    if failed is not None:
        connection.fail(failed)
    return result


def _wait(connection: Any, events: int) -> None:
    poll, until = connection.poll, connection.until
    if events != select.POLLIN:
        poll = select.poll()
        poll.register(connection.pgconn.socket, events)
    left = None if until is None else max(0.0, until - monotonic()) * 1000 + 1
    if not poll.poll(left):
        raise TimeoutError


_classes: dict[type, type] = {}


def connection_class(psycopg: Any) -> Any:
    """Connections whose waits end at the deadline of the whole call."""
    base: Any = psycopg.Connection
    if base not in _classes:

        class Connection(base):  # type: ignore[misc, unused-ignore]
            until: float | None = None
            given: float | None = None
            return_at = theirs = 0.0

            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options)
                self.prepared: set[bytes] = set()
                self.poll = select.poll()
                self.poll.register(self.pgconn.socket, select.POLLIN)

            def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
                if self.until is not None:
                    options["timeout"] = max(0.001, self.until - monotonic())
                return super().wait(gen, *arguments, **options)

            def fail(self, result: Any) -> None:
                raise psycopg.errors.error_from_result(result)

        _classes[base] = Connection
    return _classes[base]
