"""Pickles and copies of a MemoryStorage contain its counters, as with ``limits``."""

from __future__ import annotations

import asyncio
import copy
import pickle
import random
import zlib
from collections.abc import Callable
from typing import Any

import limits
import limits.aio.storage
import limits.storage
import limits.strategies
import pytest

import weir
from weir import aio, strategies
from weir.storage import MemoryStorage
from weir.stores.registry import load_memory

SEED = random.randrange(2**32)

SHARED = ["fixed-window", "moving-window", "sliding-window-counter"]

WAYS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda what, protocol=protocol: pickle.loads(
            pickle.dumps(what, protocol)
        )
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


def hits(package: Any, storage: Any, strategy: str, way: Callable[[Any], Any]) -> list[Any]:
    """What a storage and its copy admit in turn."""
    kind = package.strategies.STRATEGIES[strategy]
    item = package.parse("7/day")
    original = kind(storage)
    answers: list[Any] = [original.hit(item, "alice") for _ in range(3)]
    original.hit(item, "bob", cost=6)
    other = kind(way(storage))
    choose = random.Random(SEED)
    for _ in range(20):
        limiter = choose.choice((original, other))
        name = choose.choice(("alice", "bob", "carol"))
        answers.append((limiter.hit(item, name), limiter.get_window_stats(item, name).remaining))
    return answers


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("strategy", SHARED)
def test_counters_go_with_a_copy_as_in_limits(strategy: str, way: str) -> None:
    print(f"seed {SEED}")
    ours = hits(weir, MemoryStorage("memory://?keys=64"), strategy, WAYS[way])
    assert ours == hits(limits, limits.storage.MemoryStorage(), strategy, WAYS[way])


@pytest.mark.parametrize("strategy", sorted(set(strategies.STRATEGIES) - set(SHARED)))
def test_counters_of_other_strategies_go_with_a_copy(strategy: str) -> None:
    storage = MemoryStorage("memory://?keys=64")
    limiter = strategies.STRATEGIES[strategy](storage)
    item = weir.parse("3/day")
    while limiter.hit(item, "alice"):
        pass
    again = type(limiter)(pickle.loads(pickle.dumps(storage)))
    assert not again.test(item, "alice")
    assert again.test(item, "bob")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("strategy", SHARED)
def test_limiters_are_copied_with_their_storage(strategy: str, way: str) -> None:
    def left(package: Any) -> list[int]:
        item = package.parse("9/day")
        storage = package.storage.storage_from_string("memory://?keys=64")
        limiter = package.strategies.STRATEGIES[strategy](storage)
        limiter.hit(item, "alice", cost=2)
        again = WAYS[way](limiter)
        again.hit(item, "alice")
        return [each.get_window_stats(item, "alice").remaining for each in (limiter, again)]

    assert left(weir) == left(limits)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("strategy", SHARED)
def test_asynchronous_storages_and_limiters_are_copied(strategy: str, way: str) -> None:
    async def left(package: Any) -> list[int]:
        item = (weir if package is aio else limits).parse("9/day")
        limiter = package.strategies.STRATEGIES[strategy](
            package.storage.MemoryStorage("memory://?keys=64")
        )
        await limiter.hit(item, "alice", cost=2)
        limiters = [limiter, WAYS[way](limiter), type(limiter)(WAYS[way](limiter.storage))]
        await limiters[1].hit(item, "alice")
        await limiters[2].hit(item, "alice", cost=3)
        return [(await each.get_window_stats(item, "alice")).remaining for each in limiters]

    assert asyncio.run(left(aio)) == asyncio.run(left(limits.aio))


class Named(MemoryStorage):
    """A subclass with attributes, of which one is not pickled."""

    def __init__(self, uri: str | None = None, *, name: str, **options: Any) -> None:
        super().__init__(uri, **options)
        self.name = name
        self.handle = lambda: name

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        del state["handle"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.handle = lambda: "again"


def test_a_subclass_keeps_its_attributes() -> None:
    storage = Named("memory://?keys=64", name="shop", wrap_exceptions=True)
    storage.incr("bare", 60)
    again = pickle.loads(pickle.dumps(storage))
    assert (type(again), again.name, again.handle()) == (Named, "shop", "again")
    assert (again.get("bare"), again.uri, again.wrap_exceptions) == (1, storage.uri, True)


def test_what_is_not_a_saved_table_is_refused() -> None:
    storage = MemoryStorage("memory://?keys=64")
    storage.incr("bare", 60)
    saved = storage._save()
    other_version = saved[:8] + b"\xff" + saved[9:]
    for damaged, text in [
        (b"", "truncated"),
        (saved[:-1], "truncated"),
        (bytes(len(saved)), "not a weir table"),
        (saved[:60] + b"\xff" + saved[61:], "damaged"),
        (other_version, "another version"),
    ]:
        with pytest.raises(weir.TableError, match=text):
            load_memory(MemoryStorage, "memory://", zlib.compress(damaged))
    packed = zlib.compress(saved)
    for damaged in (b"", b"text", packed[:-9], zlib.compress(bytes(300 << 20), 1)):
        with pytest.raises(ValueError, match="pickled MemoryStorage"):
            load_memory(MemoryStorage, "memory://", damaged)
    with pytest.raises(ValueError, match="set fewer keys"):
        pickle.dumps(MemoryStorage("memory://?keys=4400000&hits=0"))
