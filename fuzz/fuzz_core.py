#!/usr/bin/env python3
"""Calls all functions and methods of weir._core with random objects, many of them hostile.

Their __str__, __eq__, __hash__, __index__, __bool__, __len__ and __iter__ close tables, change the
lists that they are in, call back into the extension, or raise. Several threads do so at the same
time. No call may crash, hang or raise SystemError. Under AddressSanitizer, a use after free is a
crash, too:

    LD_PRELOAD=$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 python fuzz_core.py

WEIR_SECONDS: how long (default 10). WEIR_SEED: repeats a run; it is printed first.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import weir
from weir import _core

SECONDS = float(os.environ.get("WEIR_SECONDS", "10"))
SEED = int(os.environ.get("WEIR_SEED", "0")) or random.SystemRandom().getrandbits(32)
THREADS = 3
KEPT = 24

#: Names that are not called.
_SKIPPED = {"__init_subclass__", "__subclasshook__", "__class_getitem__", "__class__"}

_NAMES = [name for name in vars(_core) if not name.startswith("__")]


@functools.cache
def names_of(kind: type) -> list[str]:
    return [name for name in dir(kind) if name not in _SKIPPED]


def nests(value: Any) -> bool:
    """Whether a container has containers in it. Calls no hostile method."""
    kind = list if issubclass(type(value), list) else tuple
    if not issubclass(type(value), kind):
        return False
    return any(issubclass(type(item), list | tuple) for item in kind.__iter__(value))


class Fuzzer:
    """The random calls of one thread; all threads share the objects."""

    def __init__(self, seed: int, shared: list[Any]) -> None:
        self.chance = random.Random(seed)
        self.shared = shared
        self.calls = 0
        self.depth = 0

    # -- objects

    def side_effect(self) -> None:
        """What a hostile object does in the middle of a call."""
        chance = self.chance
        victim = chance.choice(self.shared)
        match chance.randrange(7):
            case 0:
                for thing in self.shared:
                    if isinstance(thing, _core.Table):
                        thing.close()
                        break
            case 1 if isinstance(victim, list):
                victim.clear()
            case 2 if isinstance(victim, list):
                victim.extend([None] * 40)
            case 3:
                self.shared[chance.randrange(len(self.shared))] = self.fresh()
            case 4:
                gc.collect(0)
            case 5 if self.depth < 3:
                self.call()
            case 6:
                raise RuntimeError("hostile")

    def hostile(self) -> Any:
        """An object whose methods all have side effects."""

        def act(result: Callable[[], Any]) -> Callable[..., Any]:
            def method(*arguments: Any) -> Any:
                self.side_effect()
                return result()

            return method

        chance = self.chance
        methods: dict[str, Any] = {
            "__str__": act(lambda: chance.choice(["ann", "10.0.0.1", "", "x" * 400])),
            "__repr__": act(lambda: "hostile"),
            "__eq__": act(lambda: True),
            "__hash__": act(lambda: 1),
            "__index__": act(lambda: chance.randrange(-2, 40)),
            "__float__": act(lambda: chance.random()),
            "__bool__": act(lambda: chance.random() < 0.5),
            "__len__": act(lambda: chance.randrange(4)),
            "__iter__": act(lambda: iter([self.value() for _ in range(chance.randrange(4))])),
            "__getitem__": act(self.value),
            "__call__": act(self.value),
            "decide": act(self.value),
            "clear": act(self.value),
        }
        base = chance.choice([object, object, str, int, list, tuple, bytes])
        if base in (str, int, tuple, bytes, list):
            methods = {
                name: methods[name] for name in ("__str__", "__repr__", "__eq__", "__hash__")
            }
        return type("Hostile", (base,), methods)()

    def value(self) -> Any:
        """Any object."""
        chance = self.chance
        match chance.randrange(16):
            case 0 | 1 | 2:
                return chance.choice(self.shared)
            case 3 | 4:
                return self.hostile()
            case 5:
                return chance.choice([0, 1, -1, 2**63 - 1, 2**63, -(2**63), 2**200, True])
            case 6:
                return chance.choice([0.0, -1.0, 1e300, float("inf"), float("nan"), time.time()])
            case 7:
                return chance.choice(
                    ["", "ann", "a/b", "10.0.0.1", "2001:db8::/64", "\udc80", "\0"]
                )
            case 8:
                return chance.choice([b"", b"ann", b"\xff\x00", b"*1\r\n:1\r\n", "x" * 5000])
            case 9:
                return chance.choice(["10/minute", "5 per hour burst 7", "1/day;2/second", "block"])
            case 10 | 11:
                made = self.items()
                self.shared[chance.randrange(len(self.shared))] = (
                    made  # so that other calls change it
                )
                return made
            case 12:
                return tuple(self.items())
            case 13:
                return None
            case 14:
                return lambda *arguments: self.value()
            case _:
                return self.fresh()

    def items(self) -> list[Any]:
        """The items of a container, or arguments, nested at most once.

        Containers that share their parts at every level take forever to print.
        """
        return [self.flat() for _ in range(self.chance.randrange(4))]

    def flat(self) -> Any:
        value = self.value()
        return None if nests(value) else value

    def fresh(self) -> Any:
        """A valid object of the extension."""
        chance = self.chance
        limit = _core.Limit(chance.randrange(1, 20), 1, "minute", strategy="fixed-window")
        table = _core.Table("memory://?keys=64&hits=64&rules=4")
        match chance.randrange(11):
            case 6 | 7:
                return self.prepared(table)
            case 8:
                prepared = self.prepared(table)
                with contextlib.suppress(Exception):  # raised by a hostile function
                    return prepared.gather() if chance.random() < 0.5 else prepared.evaluate()
                return prepared
            case 9:
                return _core.state_request(
                    b"p:", [limit], ["ann"], [1], chance.choice([0, 1, 2, 3])
                )
            case 10:
                tz = chance.choice(["UTC", "+05:30", "Europe/Berlin", None])
                return _core.Limit(5, 1, "day", strategy="calendar-window", tz=tz)
            case 0:
                return table
            case 1:
                return limit
            case 2:
                return table.decide([limit], "ann")
            case 3:
                return [limit, _core.Limit(5, 1, "second", strategy="moving-window")]
            case 4:
                return _core.RateLimiter(table, "fixed-window")
            case _:
                return weir.parse("10/minute")

    def function(self) -> Any:
        """A function for a prepared check: has side effects, and returns anything."""
        if self.chance.random() < 0.3:
            return None

        def function(*arguments: Any) -> Any:
            if self.chance.random() < 0.4:
                self.side_effect()
            return self.chance.choice(["ann", "10.0.0.1", b"x", 1, True, False, self.value()])

        return function

    def prepared(self, table: Any) -> Any:
        """A prepared check whose functions are hostile."""
        chance = self.chance
        kinds = ["fixed-window", "moving-window", "token-bucket"]
        parts = [
            (
                _core.Limit(chance.randrange(1, 9), 1, "minute", strategy=chance.choice(kinds)),
                self.function() or (lambda: "ann"),
                chance.choice(["", "/x"]),
                chance.randrange(3),
                chance.randrange(4),
                *(self.function() for _ in range(4)),
            )
            for _ in range(chance.randrange(1, 5))
        ]
        masks = [chance.randrange(1 << len(parts)) for _ in range(5)]
        return _core.PreparedCheck(
            table,
            chance.choice([None, None, self.hostile()]),
            parts,
            "prefix/",
            self.function() or (lambda index, what: None),
            chance.randrange(len(parts) + 1),
            chance.choice([0, 2]),
            *masks,
        )

    # -- calls

    def target(self) -> Any:
        """Something to call: a function or type of the module, or a method of an object."""
        chance = self.chance
        if chance.random() < 0.4:
            return getattr(_core, chance.choice(_NAMES))
        thing = chance.choice(self.shared)
        if not type(thing).__module__.startswith("weir"):
            thing = self.fresh()
        name = chance.choice(names_of(type(thing)))
        if chance.random() < 0.05 and not name.startswith("__"):
            setattr(thing, name, self.value())
        return getattr(thing, name)

    def call(self) -> None:
        """One random call."""
        self.depth += 1
        self.calls += 1
        try:
            function = self.target()
            if not callable(function) or function is _core.unlink:
                return
            arguments = [self.flat() for _ in range(self.chance.randrange(6))]
            named = {}
            if self.chance.random() < 0.2:
                named[self.chance.choice(["now", "until", "limit", "shadow"])] = self.value()
            if inspect.isclass(function) and issubclass(function, _core.Table) and arguments:
                arguments[0] = "memory://?keys=8"  # not an existing file
            result = function(*arguments, **named)
            if type(result).__module__.startswith("weir"):
                self.shared[self.chance.randrange(len(self.shared))] = result
        except SystemError:
            raise
        except Exception:
            pass
        finally:
            self.depth -= 1

    def run(self, until: float) -> None:
        while time.monotonic() < until:
            self.call()


def main() -> None:
    print(f"WEIR_SEED={SEED}", flush=True)
    sys.setswitchinterval(1e-4)
    first = Fuzzer(SEED, [None])
    shared = [first.fresh() for _ in range(KEPT)]
    fuzzers = [Fuzzer(SEED + i, shared) for i in range(THREADS)]
    failed: list[BaseException] = []

    def run(fuzzer: Fuzzer) -> None:
        try:
            fuzzer.run(time.monotonic() + SECONDS)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=run, args=(fuzzer,)) for fuzzer in fuzzers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(sum(fuzzer.calls for fuzzer in fuzzers), "calls")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
