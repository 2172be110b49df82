"""PostgreSQL: ``create=True`` creates what is missing at any time, and a crash does not undo it."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import weir
from weir.stores.failover import FailoverStorage
from weir.stores.postgresql import PostgreSQLStorage

LIMIT = weir.parse("3/day")

#: First calls of a store; each is true.
FIRST: dict[str, Callable[[PostgreSQLStorage], Any]] = {
    "decide": lambda store: store.decide([LIMIT], "a").allowed,
    "check": lambda store: store.check(),
    "reset": lambda store: store.reset() is None,
    "clear": lambda store: store.clear([LIMIT], "a") is None,
    "init": lambda store: store.init() is None,
}


@pytest.fixture
def make(servers: Any) -> Iterator[Callable[..., PostgreSQLStorage]]:
    """Makes stores of one table, which does not exist."""
    table = f"t{uuid.uuid4().hex[:12]}"
    made = []

    def make(**options: Any) -> PostgreSQLStorage:
        made.append(PostgreSQLStorage(servers.postgresql.uri, table=table, **options))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.mark.parametrize("call", FIRST)
def test_any_first_call_creates_what_is_missing(
    make: Callable[..., PostgreSQLStorage], call: str
) -> None:
    assert not make().check()
    store = make(create=True)
    assert FIRST[call](store)
    assert make().check()
    assert make().decide([LIMIT], "b").allowed


@pytest.mark.parametrize(
    ("lost", "admitted"),
    [
        ("DROP TABLE {0}", 3),
        ("DROP FUNCTION {0}_swap_one", 2),
        ("DROP TABLE {0}; DROP FUNCTION {0}_swap_one, {0}_lock", 3),
    ],
)
def test_what_was_dropped_is_created_again_by_the_next_call(
    servers: Any, make: Callable[..., PostgreSQLStorage], lost: str, admitted: int
) -> None:
    store = make(create=True)
    assert store.decide([LIMIT], "a").allowed
    with psycopg.connect(servers.postgresql.uri) as admin:
        admin.execute(lost.format(store._table))
    with pytest.raises(weir.StoreAwayError, match="are missing; the next call creates them"):
        store.decide([LIMIT], "a")
    assert [store.decide([LIMIT], "a").allowed for _ in range(4)].count(True) == admitted


def test_a_server_that_had_no_table_is_used_after_an_outage(postgresql_server: Any) -> None:
    """An application starts while its server is away, and has never used it."""
    postgresql_server.stop()
    clock = iter(range(0, 10**6, 1000))
    server = PostgreSQLStorage(postgresql_server.uri, create=True, socket_timeout=0.2)
    store = FailoverStorage(server, "open", clock=lambda: float(next(clock)))
    assert store.decide([LIMIT], "a").allowed
    assert store.away
    assert not store.probe()
    postgresql_server.start()
    server.close()  # its next connections have the limits of the new deadline
    server.deadline = 20.0
    assert store.probe()
    assert [store.decide([LIMIT], "a").allowed for _ in range(4)] == [True, True, True, False]
    server.close()


def test_a_table_is_on_the_disk_once_it_is_created(postgresql_server: Any) -> None:
    for durable in (False, True):
        table = f"durable_{durable}".lower()
        options: dict[str, Any] = {"table": table, "durable": durable, "socket_timeout": 20.0}
        store = PostgreSQLStorage(postgresql_server.uri, **options)
        store.init()
        postgresql_server.kill_all()
        postgresql_server.start()
        assert store.decide([LIMIT], "a").allowed
        store.close()


@pytest.mark.parametrize("call", FIRST)
def test_a_child_that_was_forked_during_the_creation_does_not_wait(
    make: Callable[..., PostgreSQLStorage], call: str
) -> None:
    store = make(create=True)
    with store._creating:  # as another thread of the parent does
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            code = 1
            try:
                code = 0 if FIRST[call](store) else 2
            finally:
                os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_an_error_of_the_creation_is_an_outage_and_is_said_once(postgresql_server: Any) -> None:
    with psycopg.connect(postgresql_server.uri, autocommit=True) as admin:
        admin.execute("CREATE USER app")
    store = PostgreSQLStorage(postgresql_server.uri.replace("weir@", "app@"), create=True)
    for call in ("decide", "reset", "clear"):
        with pytest.raises(weir.StoreAwayError) as raised:
            FIRST[call](store)
        assert str(raised.value).count("postgresql://") == 1
        assert str(raised.value).count("GRANT CREATE") == 1
    store.close()


def test_no_call_waits_longer_than_its_deadline_for_another_to_create(
    make: Callable[..., PostgreSQLStorage],
) -> None:
    store = make(create=True, socket_timeout=0.25)
    with store._creating:  # as another thread does
        assert not store.check()
        with pytest.raises(weir.StoreAwayError, match="no answer"):
            store.decide([LIMIT], "a")
