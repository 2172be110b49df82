"""fakeredis, which has no sockets and cannot run Weir's script.

Programs use it in tests. libweir steps packed states in this process, in transactions of the
client of fakeredis.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

from ..errors import StorageError
from .state import Change, Conflict, StateStorage

__all__ = ["FakeStates", "call_mock", "is_fake"]


def is_fake(pool: Any) -> bool:
    """Whether a pool belongs to fakeredis."""
    return str(getattr(pool.connection_class, "__module__", "")).startswith("fakeredis")


def call_mock(client: Any) -> bool:
    """Whether ``execute_command`` of a client is a mock. It is then called, and may raise.

    Programs simulate an outage by such a mock, which Weir's own calls would bypass.
    """
    kind = type(client.execute_command)
    if kind is MethodType or kind.__module__ != "unittest.mock":
        return False
    client.execute_command("PING")
    return True


class FakeStates(StateStorage):
    """A store of states in fakeredis."""

    def __init__(self, client: Any, library: Any, name: str, **options: Any) -> None:
        self._client = client
        self._conflict = library.exceptions.WatchError
        self._error = library.exceptions.RedisError
        super().__init__(**options)
        self.name = name

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        try:
            with self._client.pipeline() as pipe:
                yield pipe
                pipe.execute()
        except self._conflict as error:
            raise Conflict from error
        except self._error as error:
            raise StorageError(str(error)) from error

    def read(self, transaction: Any, names: Sequence[str]) -> Mapping[str, bytes]:
        transaction.watch(*names)
        found = zip(names, transaction.mget(names), strict=True)
        values = {name: value for name, value in found if value is not None}
        transaction.multi()
        # As text, because a client may decode replies.
        return {
            name: bytes.fromhex(value if isinstance(value, str) else value.decode())
            for name, value in values.items()
        }

    def write(self, transaction: Any, changes: Sequence[Change]) -> None:
        now = time.time()
        for name, value, expires_at in changes:
            if value is None:
                transaction.delete(name)
            else:
                life = max(1, int((expires_at - now) * 1000) + 1)
                transaction.set(name, value.hex(), px=life)

    def delete_all(self) -> int:
        """Delete all counters. Return their number."""
        self._denials.clear()
        names = list(self._client.scan_iter(match=f"{self._prefix.decode()}:[a-z][a-z]:*"))
        return int(self._client.delete(*names)) if names else 0
