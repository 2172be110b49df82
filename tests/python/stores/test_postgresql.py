"""Tests of the PostgreSQL store alone. test_conformance.py has the tests that all stores pass."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import weir
from servers.crew import Crew
from servers.ports import wait_for
from servers.relay import Relay
from weir.errors import ConfigurationError, StorageError
from weir.storage import storage_from_string
from weir.stores.postgresql import PostgreSQLStorage
from weir.stores.postgresql_schema import NOTES, OF_NONE, OF_ONE, RESET

MANY = weir.parse("1000000/day")


@pytest.fixture
def store(servers: Any) -> Iterator[PostgreSQLStorage]:
    store = PostgreSQLStorage(servers.postgresql.uri, create=True, remember_denials=0)
    yield store
    store.close()


def trips(monkeypatch: pytest.MonkeyPatch, store: PostgreSQLStorage) -> list[int]:
    """One entry for each statement that is sent."""
    sent: list[int] = []
    run, read = store._swap.run, store.read
    monkeypatch.setattr(store._swap, "run", lambda *a: (sent.append(1), run(*a))[1])
    monkeypatch.setattr(store, "read", lambda *a: (sent.append(2), read(*a))[1])
    return sent


def test_a_decision_over_several_limits_is_one_trip(
    store: PostgreSQLStorage, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.set_clock(time.time(), True)  # else a delay of 50 ms costs a trip
    limits = [weir.parse(text) for text in ("10/minute", "100/hour", "1000/day burst 5")]
    store.decide(limits, key)
    sent = trips(monkeypatch, store)
    for _ in range(20):
        store.decide(limits, key)
    assert sent == [1] * 20


def test_who_was_overtaken_decides_again(servers: Any, store: PostgreSQLStorage, key: str) -> None:
    limit = weir.parse("6/minute")
    other = PostgreSQLStorage(servers.postgresql.uri)
    seen = [one.decide([limit], key)[0].remaining for one in (store, other) * 3]
    assert seen == [5, 4, 3, 2, 1, 0]
    other.close()


def test_time_is_the_servers(store: PostgreSQLStorage, key: str) -> None:
    store.decide([MANY], key)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: 1.0)
        decision = store.decide([MANY], key)
    assert abs(decision.now - time.time()) < 60


def test_an_idea_of_the_time_that_is_off_is_corrected(store: PostgreSQLStorage, key: str) -> None:
    store.decide([MANY], key)
    assert store._ahead is not None
    store._ahead += 3600
    assert abs(store.decide([MANY], key).now - time.time()) < 60


def test_a_peeked_limit_is_locked_while_others_are_charged(
    store: PostgreSQLStorage, sql: Any, key: str
) -> None:
    peeked, charged = weir.parse("1/day"), weir.parse("20/day")
    store.decide([peeked, charged], key)
    decision = store.decide([peeked, charged], key, [weir.Peek(1), 1])
    assert [verdict.allowed for verdict in decision] == [False, True]
    store.clear([peeked], key)
    for left in (18, 17):
        decision = store.decide([peeked, charged], key, [weir.Peek(1), 1])
        assert [verdict.remaining for verdict in decision] == [1, left]


def test_counters_that_others_keep_changing_are_locked_first(
    store: PostgreSQLStorage, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that exists, one that does not, and a test, which leaves nothing that counts."""
    store.set_clock(time.time(), True)
    limits = [weir.parse(text) for text in ("3/day", "20/day")]
    store.decide([limits[1]], key)
    sent = trips(monkeypatch, store)
    names = store.make_request(limits, key, None, weir.HIT).names
    store._guesses.overtaken(names)
    assert store.decide(limits, key, None, weir.TEST)[0].remaining == 3
    assert [store.decide(limits, key).allowed for _ in range(4)] == [True] * 3 + [False]
    assert sent == [2] * 5
    for _ in range(100):
        peeked = store.decide(limits, key, [0, 0], weir.TEST)
        assert [verdict.remaining for verdict in peeked] == [0, 16]
    assert sent[-1] == 1


def test_a_locked_row_takes_no_longer_than_the_deadline(
    servers: Any, store: PostgreSQLStorage, key: str, default_deadline: None
) -> None:
    limits = [weir.parse("10/day"), weir.parse("20/day")]
    store.deadline = 20.0
    store.decide(limits, key)
    with psycopg.connect(servers.postgresql.uri) as connection:
        connection.execute("SELECT 1 FROM weir_states WHERE name LIKE %s FOR UPDATE", [f"%{key}%"])
        store.deadline = 0.5
        start = time.monotonic()
        with pytest.raises(StorageError, match=r"no answer within 0\.5 s"):
            store.decide(limits, key)
        assert time.monotonic() - start < 5
        store.deadline = 20.0
    assert store.decide(limits, key)[0].remaining == 8


def test_most_updates_touch_no_index(
    store: PostgreSQLStorage, sql: Any, key: str, wait_for: Any
) -> None:
    """Also those of strategies whose states expire later with each hit."""
    limits = [
        weir.parse(text).replace(strategy=strategy)
        for strategy in weir._core.STRATEGIES
        for text in ("1000/hour", "10000/day")
    ]
    for limit in limits:
        if limit.strategy == "leaky-bucket":
            limits[limits.index(limit)] = limit.replace(max_delay=3600.0)
    question = (
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'weir_states'"
    )
    sql("SELECT pg_stat_force_next_flush()")
    ((before, hot_before),) = sql(question)
    for _ in range(100):
        store.decide(limits, key)
    store.close()  # its connections report their statistics
    wait_for(lambda: sql(question)[0][0] - before >= 99 * len(limits))
    ((after, hot_after),) = sql(question)
    assert hot_after - hot_before > 0.8 * (after - before)


def test_threads_with_one_client_do_not_overtake_each_other(
    store: PostgreSQLStorage, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.set_clock(time.time(), True)
    store.decide([MANY], key)
    sent = trips(monkeypatch, store)
    threads = [
        threading.Thread(target=lambda: [store.decide([MANY], key) for _ in range(10)])
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sent == [1] * 60


SOURCE = """
import functools, weir
from weir.stores.postgresql import PostgreSQLStorage

@functools.cache
def open_store(uri):
    return PostgreSQLStorage(uri, socket_timeout=60.0, remember_denials=0)

def prepare(task):
    uri, key, texts, hits = task
    store, limits = open_store(uri), [weir.parse(text) for text in texts]
    return lambda: sum(store.decide(limits, key).allowed for _ in range(hits))
"""


@pytest.mark.slow
def test_eight_processes_admit_exactly_the_limit(servers: Any, store: PostgreSQLStorage) -> None:
    """Twenty rounds, the limits of a decision in another order in each process."""
    store.decide([MANY], "ready")
    texts = ["20 per day", "21 per day", "20 per day burst 20"]
    orders = [texts[number % 3 :] + texts[: number % 3] for number in range(8)]
    crew = Crew(SOURCE, len(orders))
    try:
        for round_ in range(20):
            key = f"round-{round_}-{uuid.uuid4()}"
            admitted = crew.run([[servers.postgresql.uri, key, order, 6] for order in orders])
            assert sum(admitted) == 20, (round_, admitted)
    finally:
        crew.end()


def test_overlapping_keys_in_any_order_are_never_a_deadlock(store: PostgreSQLStorage) -> None:
    seed = int(os.environ.get("WEIR_SEED") or random.randrange(2**32))
    print(f"WEIR_SEED={seed}")
    failed: list[BaseException] = []

    def decide(number: int) -> None:
        dice = random.Random(seed + number)
        try:
            for _ in range(40):
                keys = [f"overlap-{seed}-{n}" for n in dice.sample(range(6), 4)]
                store.decide([MANY] * 4, keys)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=decide, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    peeked = store.decide([MANY] * 6, [f"overlap-{seed}-{n}" for n in range(6)], [0] * 6, weir.TEST)
    assert sum(MANY.amount - verdict.remaining for verdict in peeked) == 6 * 40 * 4


def test_a_server_that_was_killed_and_started_again_goes_on(
    postgresql_server: Any, wait_for: Any
) -> None:
    store = storage_from_string(postgresql_server.uri, create=True)
    limit = weir.parse("5/day")
    for _ in range(3):
        assert store.decide([limit], "a").allowed
    postgresql_server.kill()
    with pytest.raises(
        StorageError, match=rf"postgresql://127.0.0.1:{postgresql_server.port}/postgres: "
    ):
        storage_from_string(postgresql_server.uri, socket_timeout=0.5).decide([limit], "a")
    assert not storage_from_string(postgresql_server.uri, socket_timeout=0.5).check()
    postgresql_server.start()
    wait_for(store.check)  # the table was on the disk when it was created
    admitted = sum(store.decide([limit], "a").allowed for _ in range(5))
    assert admitted <= 5
    assert not store.decide([limit], "a").allowed
    store.close()


def test_a_server_that_is_silent_takes_no_longer_than_the_deadline(
    postgresql_server: Any, default_deadline: None
) -> None:
    store = storage_from_string(postgresql_server.uri, create=True, socket_timeout=5.0)
    store.decide([MANY], "a")
    store.deadline = 0.25
    with postgresql_server.frozen():
        for _ in range(2):
            start = time.monotonic()
            with pytest.raises(StorageError, match=r"no answer within 0\.25 s"):
                store.decide([MANY], "a")
            assert time.monotonic() - start < 5
    store.deadline = 20.0
    assert store.decide([MANY], "a").allowed
    store.close()


def test_a_bucket_that_takes_ages_to_refill_is_kept(
    store: PostgreSQLStorage, sql: Any, key: str
) -> None:
    limit = weir.Limit(1, 100, "year", burst=2000)
    assert [store.decide([limit], key, [999]).allowed for _ in range(3)] == [True, True, False]
    store._guesses.overtaken(store.make_request([limit], key, None, weir.HIT).names)
    assert store.decide([limit], key, [2]).allowed
    assert not store.decide([limit], key).allowed
    found = sql(
        "SELECT expires_at > '2262-01-01' FROM weir_states WHERE name LIKE %s", [f"%{key}%"]
    )
    assert found == [(True,)]


def test_what_has_expired_is_removed_by_those_who_write(
    store: PostgreSQLStorage, sql: Any, key: str
) -> None:
    store.decide([MANY], "first")
    sql("INSERT INTO weir_states SELECT 'old-' || n, 'x', '2001-01-01' FROM generate_series(1, 50)"
        " AS n RETURNING 1")  # fmt: skip
    for n in range(20):
        store.decide([MANY], f"{key}-{n}")
    assert sql("SELECT count(*) FROM weir_states WHERE name LIKE 'old-%'") == [(0,)]


def test_no_statement_reads_the_whole_table(postgresql_server: Any, key: str) -> None:
    with psycopg.connect(postgresql_server.uri, autocommit=True) as connection:
        check_that_no_statement_reads_the_whole_table(
            postgresql_server.uri, lambda text: connection.execute(text).fetchall(), key
        )


def check_that_no_statement_reads_the_whole_table(
    uri: str, sql: Callable[[str], Any], key: str
) -> None:
    store = PostgreSQLStorage(uri, create=True, remember_denials=0)
    store.decide([MANY], "first")
    sql("INSERT INTO weir_states SELECT 'many-' || n, 'x', now() + interval '1 day'"
        " FROM generate_series(1, 20000) AS n ON CONFLICT DO NOTHING RETURNING 1")  # fmt: skip
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("ANALYZE weir_states")
    # The functions' statements, with values for their variables.
    statements = [
        "SELECT value FROM weir_states WHERE name = 'many-7'",
        "SELECT value FROM weir_states WHERE name = 'many-7' FOR NO KEY UPDATE",
        "SELECT 1 FROM weir_states WHERE name = 'many-7' AND value = 'x' FOR SHARE",
        "SELECT 1 WHERE NOT EXISTS (SELECT FROM weir_states WHERE name = 'many-7')",
        "UPDATE weir_states SET value = 'y' WHERE name = 'many-7' AND value = 'x'",
        "UPDATE weir_states SET value = CASE name WHEN 'many-7' THEN 'y'::bytea ELSE 'z' END"
        " WHERE name = ANY (ARRAY['many-7', 'many-9', NULL, NULL]) AND value = 'x'",
        "DELETE FROM weir_states WHERE name = 'many-7'",
        "DELETE FROM weir_states WHERE name = ANY (ARRAY(SELECT name FROM weir_states WHERE"
        " expires_at < now() - interval '1 minute' ORDER BY expires_at LIMIT 4"
        " FOR UPDATE SKIP LOCKED))",
        *(
            RESET.format(table="weir_states", condition=condition) % ("'weir:'", "'weir;'", *words)
            for condition, words in (("", ()), (OF_ONE, (10, "'a}'")), (OF_NONE, (10, "'{}'")))
        ),
        NOTES.format(table="weir_states") % ("'weir;'", "'weir<'"),
    ]
    for statement in statements:
        plan = "\n".join(row[0] for row in sql(f"EXPLAIN {statement}"))
        assert "Seq Scan" not in plan, plan
        assert "Index" in plan or "Bitmap" in plan, plan
    # And as they are run. The server counts what a connection did when it ends, before it is gone.
    count = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'weir_states'"
    others = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'weir'"
    store.close()
    wait_for(lambda: not sql(others))
    before = sql(count)
    again = PostgreSQLStorage(uri, remember_denials=0)
    for n in range(30):
        again.decide([MANY, weir.parse("7/day")], f"{key}-{n}")
        again._guesses.overtaken([f"{key}-{n}"])
        again.decide([MANY, weir.parse("7/day")], f"{key}-{n}", [weir.Peek(1), 1])
    again.reset()
    again.close()
    wait_for(lambda: not sql(others))
    assert sql(count) == before


def test_missing_functions_are_an_error_with_the_command_to_run(servers: Any) -> None:
    store = PostgreSQLStorage(servers.postgresql.uri, table="not_there")
    with pytest.raises(StorageError, match="run `weir store init --store URI` once, with the URI"):
        store.decide([MANY], "a")
    store.close()


def test_a_user_needs_four_rights(postgresql_server: Any) -> None:
    """The error names the missing right to create the table."""
    with psycopg.connect(postgresql_server.uri, autocommit=True) as connection:
        connection.execute("CREATE USER app")
        uri = postgresql_server.uri.replace("weir@", "app@")
        store = PostgreSQLStorage(uri, remember_denials=0)
        with pytest.raises(StorageError, match="GRANT CREATE ON SCHEMA to the user, or run"):
            store.init()
        connection.execute(store.init_text())
        connection.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON weir_states TO app")
        limits = [weir.parse("2/day"), weir.parse("3/day")]
        assert [store.decide(limits, "a").allowed for _ in range(3)] == [True, True, False]
        store.clear(limits, "a")
        store.reset()
        assert store.check()
        store.close()


class Slow(Relay):
    """A server that is far away."""

    def answer(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                time.sleep(0.3)
                client.sendall(data)
        self.hang_up(client, server)


def test_weir_store_init(postgresql_server: Any) -> None:
    def weir_store(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "weir", "store", "init", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    printed = weir_store("--store", postgresql_server.uri, "--print")
    assert printed.stdout.startswith('CREATE TABLE IF NOT EXISTS "weir_states"')
    with contextlib.closing(Slow(postgresql_server.port)) as slow:
        done = weir_store("--store", f"postgresql://weir@127.0.0.1:{slow.port}/postgres")
        assert (done.returncode, done.stdout) == (0, "The store is ready.\n"), done.stderr
    for _ in range(2):
        done = weir_store("--store", postgresql_server.uri)
        assert (done.returncode, done.stdout) == (0, "The store is ready.\n"), done.stderr
    store = PostgreSQLStorage(postgresql_server.uri)
    assert store.decide([MANY], "a").allowed
    store.close()
    nothing = weir_store("--store", "memcached://127.0.0.1:1")
    assert nothing.returncode == 4
    assert "nothing to create" in nothing.stderr


def test_a_forked_child_opens_its_own_connections(store: PostgreSQLStorage, key: str) -> None:
    limit = weir.parse("3/day")
    assert store.decide([limit], key).allowed
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if store.check() and store.decide([limit], key).allowed else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert store.decide([limit], key)[0].remaining == 0


def test_a_connection_that_the_server_closed_is_not_used_again(
    store: PostgreSQLStorage, sql: Any, key: str
) -> None:
    store.decide([MANY], key)
    # Again and again: the pool may still be opening another connection.
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'weir'"
    wait_for(lambda: not sql(end))
    assert store.decide([MANY], key).allowed


def test_reset_clears_the_counters_of_the_prefix(servers: Any, store: PostgreSQLStorage) -> None:
    other = PostgreSQLStorage(servers.postgresql.uri, key_prefix="other")
    limit = weir.parse("1/day")
    for one in (store, other):
        one.decide([limit], "reset")
        assert not one.decide([limit], "reset").allowed
    store.reset()
    assert store.decide([limit], "reset").allowed
    assert not other.decide([limit], "reset").allowed
    other.reset()
    other.close()


@pytest.mark.parametrize(
    "table", ["a-b", "1abc", "x; DROP TABLE y", 'a"b', "", "a" * 41, "größe", "a\n"]
)
def test_names_that_no_table_has_are_refused(table: str) -> None:
    with pytest.raises(ConfigurationError, match="table: "):
        PostgreSQLStorage("postgresql://127.0.0.1:1/x", table=table)
