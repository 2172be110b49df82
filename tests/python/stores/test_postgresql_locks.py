"""PostgreSQL: a lock that another session has on one client's row concerns that client alone."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from flask import Flask, request

import weir
from policies import POLICIES
from weir import KeyRefusedError, StoreAwayError, Table
from weir.errors import is_outage
from weir.flask import Limiter
from weir.storage import FailoverStorage
from weir.stores.postgresql import PostgreSQLStorage
from weir.stores.postgresql_waits import is_of_a_key

pytestmark = pytest.mark.slow

DEADLINE = 3.0
TWO = weir.parse("2/day")
MANY = weir.parse("1000000/day")


@contextmanager
def locked(servers: Any, key: str) -> Iterator[None]:
    """Another session holds the locks of a client's rows."""
    with psycopg.connect(servers.postgresql.uri) as session:
        found = session.execute(
            "SELECT name FROM weir_states WHERE name LIKE %s FOR UPDATE", [f"%{key}%"]
        ).fetchall()
        assert found
        yield
        session.rollback()


@pytest.fixture
def store(servers: Any) -> Iterator[PostgreSQLStorage]:
    store = PostgreSQLStorage(
        servers.postgresql.uri, create=True, remember_denials=0, socket_timeout=DEADLINE
    )
    store.init()
    yield store
    store.close()


@pytest.mark.parametrize("policy", POLICIES)
def test_flask_refuses_the_client_and_counts_on(
    servers: Any, store: PostgreSQLStorage, policy: str, key: str
) -> None:
    app = Flask(__name__)
    limiter = Limiter(
        lambda: request.headers["X-Client"],
        app=app,
        default_limits=["2 per day"],
        storage_uri=servers.postgresql.uri,
        storage_options={"remember_denials": 0, "socket_timeout": DEADLINE},
        **POLICIES[policy],
    )

    @app.get("/")
    def index() -> str:
        return "ok"

    client = app.test_client()

    def send(who: str) -> int:
        code: int = client.get("/", headers={"X-Client": f"{who}-{key}"}).status_code
        return code

    assert [send("good") for _ in range(3)] == [200, 200, 429]
    assert send("bad") == 200
    with locked(servers, f"bad-{key}"):
        for who in ("second", "third"):
            assert send("bad") in (429, 500, 503)
            assert send("good") == 429
            assert [send(who) for _ in range(3)] == [200, 200, 429]
    assert [send("bad"), send("bad")] == [200, 429], "what was refused was not charged"
    errors = limiter._state.store.instrumented.meters.read().errors  # type: ignore[union-attr]
    assert sum(errors.values()) == 0, "an error of one key is not an error of the store"
    opened: Any = limiter._state.opened
    opened.close()


@pytest.mark.parametrize("policy", ["raise", "open", "closed", "local"])
def test_a_storage_refuses_the_key(
    servers: Any, store: PostgreSQLStorage, policy: str, key: str
) -> None:
    """Also as its first call, from several threads, and if the counters are locked first."""
    failover = FailoverStorage(store, policy, Table())
    assert failover.decide([TWO], f"bad-{key}").allowed
    store.close()
    seen: list[Any] = []

    def send() -> None:
        try:
            seen.append(failover.decide([TWO], f"bad-{key}").allowed)
        except Exception as error:
            seen.append(is_outage(error))

    with locked(servers, f"bad-{key}"):
        for contended in (False, True):
            if contended:
                store._guesses.overtaken(
                    store.make_request([TWO], f"bad-{key}", None, weir.HIT).names
                )
            threads = [threading.Thread(target=send) for _ in range(3)]
            for thread in threads:
                thread.start()
            name = f"other-{contended}-{key}"
            assert [failover.decide([TWO], name).allowed for _ in range(3)] == [True] * 2 + [False]
            for thread in threads:
                thread.join()
        with pytest.raises(KeyRefusedError):
            store.clear([TWO], f"bad-{key}")
    assert seen == [False] * 6
    assert not failover.away
    assert [failover.decide([TWO], f"bad-{key}").allowed for _ in range(2)] == [True, False]


def test_a_row_of_several_is_locked(servers: Any, store: PostgreSQLStorage, key: str) -> None:
    """The first is free: it is locked while the call waits for the second, and then free again."""
    keys = [f"a-{key}", f"b-{key}", f"c-{key}"]
    assert store.decide([TWO] * 3, keys).allowed
    with locked(servers, keys[1]):
        with pytest.raises(KeyRefusedError, match="no answer within 3 s"):
            store.decide([TWO] * 3, keys)
        assert store.decide([TWO], keys[0]).allowed
    assert store.decide([TWO] * 3, keys, [0, 1, 1]).allowed


def test_a_refused_key_costs_no_connection(
    servers: Any, store: PostgreSQLStorage, key: str
) -> None:
    def process() -> int:
        with store._connection() as connection:
            pid: int = connection.info.backend_pid
            return pid

    store.decide([TWO], key)
    before = process()
    with locked(servers, key), pytest.raises(KeyRefusedError):
        store.decide([TWO], key)
    assert process() == before


def test_a_table_that_is_locked_is_an_outage(
    servers: Any, store: PostgreSQLStorage, key: str
) -> None:
    """No request can be counted, so the policy applies."""
    failover = FailoverStorage(store, "open")
    assert failover.decide([TWO], key).allowed
    with psycopg.connect(servers.postgresql.uri) as session:
        session.execute("LOCK TABLE weir_states IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreAwayError, match="weir_states is locked by another session"):
            store.decide([TWO], key)
        assert all(failover.decide([TWO], key).allowed for _ in range(3))
        assert failover.away


@pytest.fixture
def trigger(servers: Any, store: PostgreSQLStorage, key: str) -> Iterator[Callable[[str], None]]:
    """Makes the server raise an error with a SQLSTATE for rows of the key ``bad-…``."""
    with psycopg.connect(servers.postgresql.uri, autocommit=True) as session:

        def raising(state: str) -> None:
            session.execute(
                f"CREATE OR REPLACE FUNCTION weir_test() RETURNS trigger LANGUAGE plpgsql AS $$"
                f" BEGIN IF NEW.name LIKE '%bad-{key}%' THEN RAISE EXCEPTION USING ERRCODE ="
                f" '{state}', MESSAGE = 'made by a test'; END IF; RETURN NEW; END $$;"
                " CREATE OR REPLACE TRIGGER weir_test BEFORE INSERT OR UPDATE ON weir_states"
                " FOR EACH ROW EXECUTE FUNCTION weir_test()"
            )

        yield raising
        session.execute("DROP TRIGGER IF EXISTS weir_test ON weir_states")


@pytest.mark.parametrize(
    ("state", "outage"),
    [
        *((state, False) for state in ("55P03", "57014", "40001", "40P01", "22001", "23514")),
        *((state, False) for state in ("P0001", "54000")),
        *((state, True) for state in ("53100", "53200", "53300", "57P01", "57P03", "25006")),
        *((state, True) for state in ("08006", "42501", "58030", "XX000")),
    ],
)
def test_which_errors_are_about_the_server(
    store: PostgreSQLStorage, trigger: Callable[[str], None], key: str, state: str, outage: bool
) -> None:
    failover = FailoverStorage(store, "open")
    trigger(state)
    assert is_of_a_key(state) is not outage
    with pytest.raises(StoreAwayError if outage else KeyRefusedError) as raised:
        store.decide([TWO], f"bad-{key}")
    assert is_outage(raised.value) is outage
    assert failover.decide([TWO], f"bad-{key}").allowed is outage
    assert failover.away is outage
    assert store.decide([TWO], f"good-{key}").allowed


def test_a_conflict_that_passes_is_decided_again(
    store: PostgreSQLStorage, trigger: Callable[[str], None], key: str, servers: Any
) -> None:
    store.decide([TWO], f"good-{key}")
    # Triggers are changed outside of the calls that estimate the server's time: it takes a while.
    patched: Any = store
    decide_once, attempts = patched._decide_once, []

    def conflict_twice(request: Any) -> Any:
        attempts.append(1)
        if len(attempts) < 3:
            trigger("40001")
        else:
            drop()
        return decide_once(request)

    def drop() -> None:
        with psycopg.connect(servers.postgresql.uri, autocommit=True) as session:
            session.execute("DROP TRIGGER IF EXISTS weir_test ON weir_states")

    patched._decide_once = conflict_twice
    assert store.decide([TWO], f"bad-{key}")[0].remaining == 1
    assert len(attempts) == 3


def test_a_client_that_is_refused_writes_few_lines(
    servers: Any, store: PostgreSQLStorage, trigger: Callable[[str], None], key: str, caplog: Any
) -> None:
    app = Flask(__name__)
    limiter = Limiter(
        lambda: request.headers["X-Client"],
        app=app,
        default_limits=["1000 per day"],
        storage_uri=servers.postgresql.uri,
        storage_options={"remember_denials": 0},
    )
    app.add_url_rule("/", view_func=lambda: "ok")
    state = limiter._state
    assert state is not None
    now = [time.monotonic()]
    state.refused_line.clock = lambda: now[0]
    trigger("23514")
    client = app.test_client()
    with caplog.at_level(logging.ERROR, "flask-limiter"):
        for later in (0, 20):
            now[0] += later
            for number in range(30):
                headers = {"X-Client": f"bad-{key}-{number}"}
                assert client.get("/", headers=headers).status_code == 429
    lines = [r.getMessage() for r in caplog.records if "cannot be decided" in r.getMessage()]
    assert len(lines) == 2
    assert "29 more" not in lines[0]
    assert "29 more" in lines[1]
    assert state.counters["refused_keys"] == 60, "each is counted"
    opened: Any = state.opened
    opened.close()
