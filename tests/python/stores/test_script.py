"""The script on the server refuses what libweir never sends, and writes nothing then."""

from __future__ import annotations

import contextlib
import math
import random
import struct
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import valkey

from weir import HIT, Limit
from weir._core import REDIS_SCRIPT, RedisCodec

STRATEGIES = {
    "fixed-window": 0,
    "moving-window": 1,
    "sliding-window-counter": 2,
    "token-bucket": 3,
    "leaky-bucket": 4,
}

WIDE, PEEK = 16, 32

#: Cost, amount and three numbers of each strategy, as the script takes them.
NUMBERS = {
    0: (1, 5, 60e6, 0, 0),
    1: (1, 5, 60e6, 4, 1),
    2: (1, 5, 60e6, 0, 0),
    3: (1, 5, 5, 1, 12e6),
    4: (1, 5, 0, 1, 12e6),
}


@pytest.fixture(params=["redis", "valkey"])
def client(servers: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    with getattr(servers, request.param).client() as client:
        yield client


def packed(
    kind: int, numbers: Any = None, *, mode: int = 0, slot: int = 1, plain: int = 1
) -> bytes:
    numbers = NUMBERS.get(kind % 16, NUMBERS[0]) if numbers is None else numbers
    return struct.pack("<BBBBd", mode, 1, plain, 0, 0.0) + struct.pack(
        "<BBddddd", kind, slot, *numbers
    )


def refuses(client: Any, argument: bytes, names: int = 1) -> None:
    keys = [f"weir:xx:{{k}}{i}" for i in range(names)]
    with pytest.raises(Exception, match="malformed arguments") as refused:
        client.eval(REDIS_SCRIPT, names, *keys, argument)
    assert "ResponseError" in type(refused.value).__name__
    assert client.dbsize() == 0


def test_what_libweir_sends_is_taken(client: Any) -> None:
    for name, kind in STRATEGIES.items():
        moving = name == "moving-window"
        argument = packed(kind, plain=0 if moving else 1)
        command = RedisCodec(b"weir").decide([Limit(5, strategy=name)], f"k{kind}", None, HIT)
        assert len(command.arguments()[-1]) == len(argument)
        assert client.eval(REDIS_SCRIPT, 1, f"k{kind}", argument)


@pytest.mark.parametrize("kind", [5, 9, 15, 5 + PEEK, 64, 96, 200, 255])
def test_unknown_strategies_are_refused(client: Any, kind: int) -> None:
    for mode in range(4):
        refuses(client, packed(kind, mode=mode))
        refuses(client, packed(kind, mode=mode, plain=0))


@pytest.mark.parametrize("kind", [5 + WIDE, 15 + WIDE, 5 + WIDE + PEEK])
def test_unknown_wide_strategies_are_refused(client: Any, kind: int) -> None:
    refuses(client, packed(kind) + bytes(45))


@pytest.mark.parametrize("mode", [4, 5, 127, 255])
def test_unknown_modes_are_refused(client: Any, mode: int) -> None:
    for kind in range(5):
        refuses(client, packed(kind, mode=mode, plain=kind != 1))


@pytest.mark.parametrize("number", [-1.0, -math.inf, math.inf, math.nan, 2.0**60])
@pytest.mark.parametrize("kind", range(5))
def test_numbers_that_are_none_are_refused(client: Any, kind: int, number: float) -> None:
    for place in range(5):
        numbers = list(NUMBERS[kind])
        numbers[place] = number
        refuses(client, packed(kind, numbers, plain=kind != 1))


def test_an_empty_period_is_refused(client: Any) -> None:
    for kind, place in ((0, 2), (1, 2), (1, 3), (1, 4), (2, 2), (3, 4), (4, 4)):
        numbers = list(NUMBERS[kind])
        numbers[place] = 0
        refuses(client, packed(kind, numbers, plain=kind != 1))


def test_wide_numbers_beyond_what_limits_have_are_refused(client: Any) -> None:
    for place in range(5):
        numbers = bytearray(45)
        for i in range(5):
            numbers[9 * i] = 1
        numbers[9 * place + 8] = 1
        refuses(client, packed(0 + WIDE) + numbers)
        numbers[9 * place + 8], numbers[9 * place + 7] = 0, 0x80
        refuses(client, packed(0 + WIDE) + numbers)


def test_places_beyond_the_names_are_refused(client: Any) -> None:
    for slot in (0, 2, 255):
        refuses(client, packed(0, slot=slot))
    refuses(client, packed(0, plain=0))
    refuses(client, packed(1, plain=1))
    refuses(client, packed(0, plain=2))
    refuses(client, packed(0), names=2)


def test_a_wrong_number_of_bytes_is_refused(client: Any) -> None:
    for kind in range(5):
        argument = packed(kind, plain=kind != 1)
        for end in range(len(argument)):
            refuses(client, argument[:end])
        refuses(client, argument + b"\0")
    refuses(client, struct.pack("<BBBBd", 0, 0, 1, 0, 0.0))
    refuses(client, struct.pack("<BBBBd", 0, 33, 1, 0, 0.0))
    refuses(client, struct.pack("<BBBBd", 0, 1, 1, 0, math.nan) + packed(0)[12:])


def test_random_bytes_never_hang_or_write(client: Any) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)
    for _ in range(500):
        argument = bytearray(
            packed(draw.randrange(256), plain=draw.randrange(2), mode=draw.randrange(6))
        )
        for _ in range(draw.randrange(4)):
            argument[draw.randrange(len(argument))] = draw.randrange(256)
        with contextlib.suppress(redis.ResponseError, valkey.ResponseError):
            client.eval(REDIS_SCRIPT, 1, "weir:xx:{k}", bytes(argument))
        for key in client.scan_iter():
            assert client.pttl(key) != -1, "a key without a time to live"
        client.flushall()
