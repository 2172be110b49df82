"""PostgreSQL: ``create=True`` creates what is missing at any time, and a crash does not undo it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
import pytest

import weir
from servers.ports import quickest, wait_for
from weir.stores.failover import FailoverStorage
from weir.stores.postgresql import PostgreSQLStorage
from weir.stores.postgresql_creation import ALONE
from weir.stores.postgresql_waits import LONG

LIMIT = weir.parse("3/day")

#: Seconds that no call with a deadline of at most one second takes, on a machine that is busy. If a
#: call waits for another session's lock as a reset does, it takes longer.
PATIENCE = LONG / 3

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


@pytest.mark.parametrize(
    ("change", "proof"),
    [
        (
            "ALTER FUNCTION {0}_swap_few RESET ALL",
            "proconfig FROM pg_proc WHERE proname = '{0}_swap_few'",
        ),
        (
            "CREATE OR REPLACE FUNCTION {0}_write(names text[], next_values bytea[], "
            "expires float8[]) RETURNS void LANGUAGE sql AS 'SELECT'",
            "prosrc FROM pg_proc WHERE proname = '{0}_write'",
        ),
        ("DROP INDEX {0}_expires_at", "count(*) FROM pg_indexes WHERE tablename = '{0}'"),
    ],
    ids=["settings", "text", "index"],
)
def test_what_another_version_has_left_is_replaced_by_the_first_call(
    servers: Any, make: Callable[..., PostgreSQLStorage], change: str, proof: str
) -> None:
    table = make(create=True)._table
    with psycopg.connect(servers.postgresql.uri, autocommit=True) as admin:

        def found() -> Any:
            return admin.execute(f"SELECT {proof}".format(table)).fetchall()

        assert make(create=True).check()
        ours = found()
        admin.execute(change.format(table))
        assert found() != ours
        assert make(create=True).check()
        assert found() == ours


def test_a_server_that_had_no_table_is_used_after_an_outage(postgresql_server: Any) -> None:
    """An application starts during an outage of a server that it has never used."""
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
    store = PostgreSQLStorage(
        postgresql_server.uri.replace("weir@", "app@"), create=True, socket_timeout=20.0
    )
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


@contextmanager
def creating(servers: Any) -> Iterator[None]:
    """Another session creates: it holds the lock of the creation in an open transaction."""
    with psycopg.connect(servers.postgresql.uri) as session:
        session.execute(ALONE)
        yield
        session.rollback()


def seconds_of(call: Callable[[], Any], expected: Any) -> float:
    start = time.monotonic()
    assert call() == expected
    return time.monotonic() - start


def error_of(store: PostgreSQLStorage) -> str:
    with pytest.raises(weir.StoreAwayError) as raised:
        store.decide([LIMIT], "a")
    return str(raised.value)


def test_no_call_waits_longer_than_its_deadline_for_another_session_to_create(
    servers: Any, make: Callable[..., PostgreSQLStorage]
) -> None:
    store = make(create=True, socket_timeout=1.0)
    clock = iter(range(0, 10**6, 1000))
    failover = FailoverStorage(store, "open", clock=lambda: float(next(clock)))
    with creating(servers):
        calls: dict[str, tuple[Callable[[], Any], Any]] = {
            "check": (store.check, False),
            "a decision": (lambda: "no answer within 1 s" in error_of(store), True),
            "a decision under a policy": (lambda: failover.decide([LIMIT], "a").allowed, True),
            "a probe": (failover.probe, False),
        }
        for name, (call, expected) in calls.items():
            measure = partial(seconds_of, call, expected)
            assert quickest(measure, PATIENCE, 3) < PATIENCE, name
        assert failover.away
        wait_for(lambda: f"another session creates the table {store._table}" in error_of(store))
    wait_for(failover.probe)
    assert make().check()
    store.close()
    store.deadline = 20.0
    assert [failover.decide([LIMIT], "a").allowed for _ in range(4)] == [True, True, True, False]


def test_a_creation_that_fails_is_tried_again_by_the_next_call(
    servers: Any, make: Callable[..., PostgreSQLStorage]
) -> None:
    store = make(create=True)
    store.deadline = 0.2
    with creating(servers):
        assert not store.check()
    store.close()
    store.deadline = 20.0
    assert store.check()


@pytest.mark.parametrize("locked", ["creation", "table"])
def test_a_store_that_lacks_nothing_takes_no_lock_to_create(
    servers: Any, make: Callable[..., PostgreSQLStorage], locked: str
) -> None:
    """The lock of a table that creates an index waits for everyone who writes, as this one does."""
    first = make(create=True)
    assert first.decide([LIMIT], "a").allowed
    with creating(servers), psycopg.connect(servers.postgresql.uri) as session:
        if locked == "table":
            session.execute(f"LOCK TABLE {first._table} IN ROW EXCLUSIVE MODE")
        assert FIRST["decide"](make(create=True))
        assert FIRST["check"](make(create=True))


def test_a_user_without_the_right_to_create_uses_what_is_there(postgresql_server: Any) -> None:
    with psycopg.connect(postgresql_server.uri, autocommit=True) as admin:
        admin.execute("CREATE USER app")
        admin.execute(PostgreSQLStorage().init_text())
        admin.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON weir_states TO app")
    store = PostgreSQLStorage(
        postgresql_server.uri.replace("weir@", "app@"), create=True, socket_timeout=20.0
    )
    assert store.decide([LIMIT], "a").allowed
    store.close()


def test_eight_that_create_at_once_all_decide(make: Callable[..., PostgreSQLStorage]) -> None:
    stores = [make(create=True) for _ in range(8)]
    start = threading.Barrier(8)
    seen = []

    def decide(store: PostgreSQLStorage) -> None:
        start.wait()
        try:
            seen.append(store.decide([LIMIT], "a").allowed)
        except weir.StorageError as error:
            seen.append(str(error))

    threads = [threading.Thread(target=decide, args=[store]) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [False] * 5 + [True] * 3


def test_the_server_completes_a_creation_that_takes_longer_than_a_call(
    postgresql_server: Any,
) -> None:
    """And the next call does not begin it again."""
    with psycopg.connect(postgresql_server.uri, autocommit=True) as admin:
        admin.execute(
            "CREATE FUNCTION slowly() RETURNS event_trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_sleep(1); END'"
        )
        admin.execute("CREATE EVENT TRIGGER slow ON ddl_command_end EXECUTE FUNCTION slowly()")
    store = PostgreSQLStorage(postgresql_server.uri, create=True, socket_timeout=1.0)
    start = time.monotonic()
    assert "no answer within 1 s" in error_of(store)
    wait_for(store.check)
    assert time.monotonic() - start > 7, "seven statements took a second each"
    store.close()


@pytest.mark.parametrize("how", ["create", "init"])
def test_what_is_missing_is_created_in_the_schema_of_the_table(
    postgresql_server: Any, how: str
) -> None:
    """Not in the first schema of the search path, where it would be a second, empty table."""
    with psycopg.connect(postgresql_server.uri, autocommit=True) as admin:
        first = PostgreSQLStorage(postgresql_server.uri, create=True, socket_timeout=20.0)
        assert first.decide([LIMIT], "a")[0].remaining == 2
        first.close()
        admin.execute("CREATE SCHEMA sch")
        admin.execute("ALTER ROLE weir SET search_path = sch, public")
        admin.execute("ALTER FUNCTION weir_states_swap_few RESET ALL")
        store = PostgreSQLStorage(
            postgresql_server.uri, create=how == "create", socket_timeout=20.0
        )
        if how == "init":
            store.init()
        assert store.decide([LIMIT], "a")[0].remaining == 1
        with store._connection() as used:
            assert used.execute("SHOW search_path").fetchone() == ("sch, public",)
        store.close()
        where = "SELECT DISTINCT {0}::regnamespace::text FROM {1} WHERE {2} LIKE 'weir_states%'"
        for words in (
            ("relnamespace", "pg_class", "relname"),
            ("pronamespace", "pg_proc", "proname"),
        ):
            assert admin.execute(where.format(*words)).fetchall() == [("public",)]
        settings = "SELECT proconfig FROM pg_proc WHERE proname = 'weir_states_swap_few'"
        assert admin.execute(settings).fetchone() != (None,)


def test_a_first_table_is_created_in_the_first_schema(postgresql_server: Any) -> None:
    with psycopg.connect(postgresql_server.uri, autocommit=True) as admin:
        admin.execute("CREATE SCHEMA sch")
        admin.execute("ALTER ROLE weir SET search_path = sch, public")
        store = PostgreSQLStorage(postgresql_server.uri, create=True, socket_timeout=20.0)
        assert store.decide([LIMIT], "a").allowed
        store.close()
        assert admin.execute("SELECT to_regclass('sch.weir_states') IS NOT NULL").fetchone() == (
            True,
        )


@pytest.mark.parametrize("table", ["user", "order", "Select", "a" * 40])
def test_a_table_may_have_a_reserved_word_as_its_name(postgresql_server: Any, table: str) -> None:
    options: dict[str, Any] = {"table": table, "create": True, "remember_denials": 0}
    options["socket_timeout"] = 20.0
    store = PostgreSQLStorage(postgresql_server.uri, **options)
    limits = [LIMIT, weir.parse("5/day"), weir.parse("9/day")]
    assert [store.decide(limits, "a").allowed for _ in range(4)] == [True, True, True, False]
    store._guesses.overtaken(store.make_request(limits, "a", None, weir.HIT).names)
    assert not store.decide(limits, "a").allowed  # locks, then steps
    store.clear(limits, "a")
    assert store.decide(limits, "a")[0].remaining == 2
    for name in FIRST:
        first = PostgreSQLStorage(postgresql_server.uri, **options)
        assert FIRST[name](first), name
        first.close()
    store.note_prefix("shop")
    assert store.decide([LIMIT], "b").allowed
    store.reset_of("shop", ())
    store.reset_of("", ())
    with psycopg.connect(postgresql_server.uri) as session:
        session.execute(f'LOCK TABLE "{table.lower()}" IN ACCESS EXCLUSIVE MODE')
        other = PostgreSQLStorage(postgresql_server.uri, table=table, socket_timeout=1.0)
        with pytest.raises(weir.StoreAwayError, match="is locked by another session"):
            other.decide([LIMIT], "a")
        other.close()
    store.close()


def test_psql_runs_the_text_for_a_reserved_word(postgresql_server: Any) -> None:
    store = PostgreSQLStorage(postgresql_server.uri, table="user", socket_timeout=20.0)
    for _ in range(2):
        psql = ["psql", "-v", "ON_ERROR_STOP=1", "-q", postgresql_server.uri]
        subprocess.run(psql, input=store.init_text(), text=True, check=True)
    assert store.decide([LIMIT], "a").allowed
    store.close()
