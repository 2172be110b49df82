"""Redis: moving windows of many hits."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from weir import Limit
from weir.stores.redis import RedisStorage


@pytest.fixture
def store(redis_store: RedisStorage) -> RedisStorage:
    return redis_store


def test_a_large_window_neither_grows_nor_stalls(store: Any, client: Any) -> None:
    """Memory follows the hits, and a hit on a full window costs as much as on an empty one."""
    item = Limit(70_000, 1, "day", strategy="moving-window")
    start = 1_700_000_000.0
    for i in range(70_000):
        store.set_clock(start + i * 1.2, True)
        assert store.decide([item], "a").allowed
    (name,) = client.keys()
    assert client.memory_usage(name) < 70_000 * 10.5
    store.set_clock(start + 70_000 * 1.2, True)
    assert not store.decide([item], "a").allowed
    client.config_resetstat()
    for i in range(2_000):
        store.set_clock(start + 86_400 + i * 1.2, True)
        assert store.decide([item], "a").allowed
        assert not store.decide([item], "a").allowed
    # By the median: the server, too, is at times held up by others.
    histogram = client.execute_command("LATENCY HISTOGRAM evalsha")[b"evalsha"]
    counts = histogram[b"histogram_usec"].items()  # of calls that took so long or less
    median = min(usec for usec, count in counts if count >= histogram[b"calls"] / 2)
    assert median < 200
    assert client.memory_usage(name) < 70_000 * 10.5
    # After a pause only what is left is kept.
    store.set_clock(start + 86_400 * 1.999, True)
    assert store.decide([item], "a").allowed
    assert client.memory_usage(name) < 50_000


def write_log(store: Any, item: Limit, key: str, times: list[float]) -> None:
    """Put a log under the name of a counter, as src/strategy/log/log.lua writes it."""
    *_, name, packed = store.encode([item], key).arguments()
    period, of_time, of_hits = (round(x) for x in struct.unpack_from("<BBddddd", packed, 12)[-3:])
    micro = [round(moment * 1e6) for moment in times]
    closed = len(micro) - 1
    value = struct.pack("<ddd", micro[-1] + period, micro[0], micro[-1])
    value += (0).to_bytes(of_hits, "little") + len(micro).to_bytes(of_hits, "little")
    value += struct.pack("<III", 0, closed, closed)
    records = [
        moment.to_bytes(8, "little")[:of_time] + count.to_bytes(of_hits, "little")
        for count, moment in enumerate(micro[:-1], 1)
    ]
    store.client.set(name, value + b"".join(records), ex=600)


def closed_records(store: Any, item: Limit, key: str) -> int:
    *_, name, packed = store.encode([item], key).arguments()
    of_hits = round(struct.unpack_from("<BBddddd", packed, 12)[-1])
    found: int = struct.unpack_from("<III", store.client.get(name), 24 + 2 * of_hits)[1]
    return found


def test_a_long_window_is_bounded(store: Any, key: str) -> None:
    """Hits within a 131,072nd of the period join when there are many: none is admitted twice."""
    item = Limit(1_000_000, 1, "day", strategy="moving-window")
    start, count = 1_700_000_000.0, 150_000
    write_log(store, item, key, [start + i * 0.5 for i in range(count)])
    now = start + count * 0.5
    for hit in range(1, 301):
        store.set_clock(now + hit * 0.01, True)
        decision = store.decide([item], key)
        assert decision.allowed
        assert decision[0].remaining == 1_000_000 - count - hit
    # 3 s of hits, and one record at least each 2 * 0.66 s.
    assert count <= closed_records(store, item, key) <= count + 10
    # What joined leaves with the last of them, not earlier, and no more than 0.66 s later.
    for hit in (100, 200):
        store.set_clock(now + hit * 0.01 + 86_400, True)
        left = store.decide([item], key, [0], 1)[0].remaining
        assert 1_000_000 - (300 - hit) - 67 <= left <= 1_000_000 - (300 - hit)
    store.set_clock(now + 3.001 + 86_400, True)
    assert store.decide([item], key, [0], 1)[0].remaining == 1_000_000


def test_the_longest_window_is_rewritten_in_time(store: Any, key: str) -> None:
    """A hit that lets the longest log grow takes the server less than half of a deadline."""
    item = Limit(10**9, 1, "day", strategy="moving-window")
    count = 3 * 131_072
    times = [1_700_000_000.0 + i * 0.21 for i in range(count)]
    took = []

    def used() -> float:
        info = store.client.info("cpu")
        return float(info["used_cpu_user"] + info["used_cpu_sys"])

    for _ in range(5):
        write_log(store, item, key, times)
        store.set_clock(times[-1] + 2, True)
        began = used()
        assert store.decide([item], key)[0].remaining == 10**9 - count - 1
        took.append(used() - began)
    assert min(took) < 0.125
