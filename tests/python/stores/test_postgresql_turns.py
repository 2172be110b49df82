"""Threads of one process that use the same counters of a PostgreSQL server take turns."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter

import pytest

from servers.ports import wait_for
from weir._clock import monotonic
from weir.stores.postgresql_waits import Turns, TurnTimeoutError


def test_first_come_first_served() -> None:
    turns = Turns()
    assert not turns.take(["a", "b"], None)
    done: list[int] = []

    def use(number: int, names: list[str]) -> None:
        assert turns.take(names, None)
        done.append(number)
        turns.leave(names)

    threads = []
    for number, names in enumerate((["a"], ["b", "c"], ["c"], ["a", "b"])):
        thread = threading.Thread(target=use, args=(number, names))
        thread.start()
        threads.append(thread)
        wait_for(lambda: len(turns._waiting) == len(threads))
    assert not turns.take(["d"], None), "it is not used, and no thread waits for it"
    turns.leave(["a", "b"])
    for thread in threads:
        thread.join()
    assert sorted(done) == [0, 1, 2, 3]
    assert done.index(1) < done.index(2), "2 waits for c, which 1 has asked for earlier"
    assert done.index(3) > max(done.index(0), done.index(1))


def test_who_gives_up_leaves_nothing_behind() -> None:
    turns = Turns()
    turns.take(["a"], None)
    with pytest.raises(TurnTimeoutError):
        turns.take(["a", "b"], monotonic())
    assert not turns.take(["b"], None), "no thread waits for it"
    turns.leave(["a"])
    assert not turns.take(["a"], None)


def test_no_two_threads_use_one_counter() -> None:
    seed = int(os.environ.get("WEIR_SEED") or random.randrange(2**32))
    print(f"WEIR_SEED={seed}")
    turns, used, failed = Turns(), Counter[str](), []

    def use(number: int) -> None:
        dice = random.Random(seed + number)
        for _ in range(300):
            names = dice.sample("abcdef", dice.randint(1, 4))
            try:
                turns.take(names, monotonic() + dice.choice([0.0, 60.0]))
            except TurnTimeoutError:
                continue
            for name in names:
                used[name] += 1
            if any(used[name] != 1 for name in names):
                failed.append(names)
            for name in names:
                used[name] -= 1
            turns.leave(names)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert not turns._taken
    assert not turns._waiting
