"""The chain of causes of an error ends, and the error of the client library is in it."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import weir
from weir.aio.storage import storage_from_string as aio_storage_from_string
from weir.aio.strategies import FixedWindowRateLimiter
from weir.storage import storage_from_string
from weir.stores.postgresql import PostgreSQLStorage
from weir.stores.state import StateStorage

LIMITS = [weir.parse("3/day"), weir.parse("5/day")]

#: Stores whose server is away, and a part of the client library's error.
AWAY = {
    "redis": "Connection refused",
    "valkey": "Connection refused",
    "redis+cluster": "Connection refused",
    "memcached": "ConnectionRefusedError: ",
    "mongodb": "pymongo.errors.ServerSelectionTimeoutError: ",
}

CALLS: dict[str, Callable[[Any], Any]] = {
    "decide": lambda store: store.decide(LIMITS, "a"),
    "clear": lambda store: store.clear(LIMITS, "a"),
    "reset": lambda store: store.reset(),
    "reset_of": lambda store: store.reset_of("shop", ()),
    "init": lambda store: store.init(),
}


def chain(error: BaseException | None, above: tuple[BaseException, ...] = ()) -> set[BaseException]:
    """The error, its causes and its contexts. Fails if one of them is its own cause or context."""
    if error is None:
        return set()
    assert not any(error is one for one in above), f"{error!r} is in its own chain"
    above = (*above, error)
    return {error} | chain(error.__cause__, above) | chain(error.__context__, above)


def text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_postgresql(free_port: Callable[[], int], call: str, create: bool) -> None:
    uri = f"postgresql://127.0.0.1:{free_port()}/x"
    store = PostgreSQLStorage(uri, create=create, socket_timeout=0.1)
    with pytest.raises(weir.StorageError) as raised:
        CALLS[call](store)
    chain(raised.value)
    # psycopg's error, or that of the pool, which has none for a cause
    lines = [line for line in text(raised.value).splitlines() if line.startswith("psycopg")]
    assert lines, text(raised.value)
    assert not store.check()
    store.close()


@pytest.mark.parametrize("call", ["decide", "clear", "reset"])
@pytest.mark.parametrize("scheme", AWAY)
def test_other_servers(free_port: Callable[[], int], scheme: str, call: str) -> None:
    options = {"socket_timeout": 0.5} if scheme == "mongodb" else {}
    try:
        store = storage_from_string(f"{scheme}://127.0.0.1:{free_port()}", **options)
    except weir.ConfigurationError:
        pytest.skip(f"no client library for {scheme}")
    with pytest.raises((weir.StorageError, NotImplementedError)) as raised:
        CALLS[call](store)
    chain(raised.value)
    if not isinstance(raised.value, NotImplementedError):  # Memcached has no reset()
        assert AWAY[scheme] in text(raised.value), text(raised.value)


@pytest.mark.parametrize("scheme", ["async+redis", "async+memcached"])
def test_coroutines(free_port: Callable[[], int], scheme: str) -> None:
    limiter = FixedWindowRateLimiter(aio_storage_from_string(f"{scheme}://127.0.0.1:{free_port()}"))
    with pytest.raises(weir.StorageError) as raised:
        asyncio.run(limiter.hit(weir.parse("3/day"), "a"))
    chain(raised.value)
    assert "ConnectionRefusedError: " in text(raised.value)


class Broken(StateStorage):
    """A store with an error that is no outage, and that has a cause."""

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        try:
            raise LookupError("the cause")
        except LookupError as error:
            raise ArithmeticError("the error") from error
        yield

    def read(self, transaction: Any, names: Any) -> Any: ...

    def write(self, transaction: Any, changes: Any) -> None: ...


@pytest.mark.parametrize("call", ["decide", "clear"])
def test_an_error_that_is_not_translated_keeps_its_cause(call: str) -> None:
    with pytest.raises(ArithmeticError) as raised:
        CALLS[call](Broken())
    assert len(chain(raised.value)) == 2
    assert isinstance(raised.value.__cause__, LookupError)
    assert "LookupError: the cause" in text(raised.value)
