"""PostgreSQL: what was written by others in the meantime, and in which order rows are locked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import weir
from servers.ports import wait_for
from weir.stores.postgresql import PostgreSQLStorage

MANY = weir.parse("1000000/day")


@pytest.fixture
def store(servers: Any) -> Iterator[PostgreSQLStorage]:
    store = PostgreSQLStorage(servers.postgresql.uri, remember_denials=0)
    store.init()
    yield store
    store.close()


def states(sql: Any, key: str) -> list[Any]:
    return sql("SELECT name, value FROM weir_states WHERE name LIKE %s ORDER BY name", [f"%{key}%"])


@pytest.mark.parametrize("counters", [1, 2, 3, 4, 5, 6])
def test_what_another_has_changed_leaves_all_counters_as_they_were(
    servers: Any, store: PostgreSQLStorage, sql: Any, key: str, counters: int
) -> None:
    """The function finds that one counter has changed when it has written others."""
    limits = [weir.parse(f"{n}0/day") for n in range(1, counters + 1)]
    other = PostgreSQLStorage(servers.postgresql.uri, remember_denials=0)
    for one in (store, other):
        one.set_clock(time.time(), True)  # else a guess of a busy machine is 50 ms too late
        one.decide(limits, key)
    for changed in range(len(limits)):
        request = store.make_request(limits, key, None, weir.HIT)
        other.decide([limits[changed]], key)
        before = states(sql, key)
        assert store._guess(request) is None
        assert states(sql, key) == before
        assert store._guess(request) is not None
    peeked = store.decide(limits, key, [0] * counters, weir.TEST)
    left = [limit.amount - 3 - counters for limit in limits]
    assert [verdict.remaining for verdict in peeked] == left
    other.close()


@pytest.mark.parametrize("counters", [1, 3, 5])
def test_the_same_change_by_another_is_not_mistaken_for_this_one(
    servers: Any, store: PostgreSQLStorage, key: str, counters: int
) -> None:
    """The other process writes the same bytes into one of several counters."""
    limits = [weir.parse(f"{n}0/day") for n in range(1, counters + 1)]
    other = PostgreSQLStorage(servers.postgresql.uri, remember_denials=0)
    for one in (other, store):
        one.decide(limits, key)
    request = store.make_request(limits, key, None, weir.HIT)
    other.decide([limits[0]], key)
    assert store._guess(request) is None
    peeked = store.decide(limits, key, [0] * counters, weir.TEST)
    assert [verdict.remaining for verdict in peeked] == [7, *(n.amount - 2 for n in limits[1:])]
    other.close()


@pytest.mark.parametrize("counters", [3, 5])
def test_rows_are_locked_in_the_order_of_their_names(
    store: PostgreSQLStorage, sql: Any, key: str, counters: int, servers: Any
) -> None:
    """In whatever order they lie in the table."""
    keys = [f"{letter}-{key}" for letter in "abcde"[:counters]]
    for name in reversed(keys):
        store.decide([MANY], name)
    store.decide([MANY] * counters, keys)
    waits = "SELECT 1 FROM pg_locks WHERE NOT granted"
    free = "SELECT name FROM weir_states WHERE name LIKE %s ORDER BY name FOR UPDATE SKIP LOCKED"
    with psycopg.connect(servers.postgresql.uri) as session:
        session.execute("SELECT 1 FROM weir_states WHERE name LIKE %s FOR UPDATE", [f"%{keys[1]}%"])
        thread = threading.Thread(target=lambda: store.decide([MANY] * counters, keys))
        thread.start()
        wait_for(lambda: sql(waits))
        unlocked = [row[0] for row in sql(free, [f"%{key}%"])]
        assert len(unlocked) == counters - 2
        assert keys[2] in unlocked[0]
        session.rollback()
    thread.join()


def test_one_connection_serves_threads_that_wait_for_it(servers: Any, key: str) -> None:
    """The connection that is kept between calls is given to them."""
    store = PostgreSQLStorage(servers.postgresql.uri, max_connections=1, remember_denials=0)
    admitted: list[bool] = []

    def decide(number: int) -> None:
        for n in range(20):
            admitted.append(store.decide([MANY], f"{key}-{number}-{n}").allowed)

    threads = [threading.Thread(target=decide, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert admitted == [True] * 120
    store.close()


def test_a_counter_that_another_has_made_meanwhile_leaves_no_other_behind(
    servers: Any, store: PostgreSQLStorage, sql: Any, key: str
) -> None:
    limits = [weir.parse(text) for text in ("10/day", "20/day")]
    store.decide([MANY], key)
    other = PostgreSQLStorage(servers.postgresql.uri)
    other.decide([limits[1]], key)
    before = states(sql, key)
    assert len(before) == 2
    assert store._guess(store.make_request(limits, key, None, weir.HIT)) is None
    assert states(sql, key) == before
    other.close()


@pytest.mark.parametrize("deleted", ["first", "last"])
def test_a_counter_removed_at_the_server_starts_at_zero(
    store: PostgreSQLStorage, sql: Any, key: str, deleted: str
) -> None:
    limits = [weir.parse(text) for text in ("10/day", "20/day")]
    store.decide(limits, key)
    name = (min if deleted == "first" else max)(states(sql, key))[0]
    sql("DELETE FROM weir_states WHERE name = %s RETURNING 1", [name])
    left = [verdict.remaining for verdict in store.decide(limits, key)]
    assert left == ([9, 18] if deleted == "first" else [8, 19])
