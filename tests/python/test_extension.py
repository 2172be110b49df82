"""The extension as a guest of the interpreter: memory, threads, forks, subinterpreters."""

from __future__ import annotations

import contextlib
import doctest
import gc
import importlib
import os
import pickle
import subprocess
import sys
import sysconfig
import threading
import time
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import weir
from weir import Limit, RateLimiter, Table, parse
from weir import _core as core


def raises(error: type[Exception], call: Callable[[], object]) -> None:
    try:
        call()
    except error:
        return
    raise AssertionError("nothing was raised")


class Proxy(weir.storage.Storage):
    """A store in Python over a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Table("memory://?keys=64")

    def decide(self, *arguments: Any) -> Any:
        return self.table.decide(*arguments)

    def clear(self, *arguments: Any) -> None:
        self.table.clear(*arguments)


# Room for all hits of a run: how many bytes one takes depends on how fast they come.
TABLE = Table("memory://?keys=64&hits=1000000")
LIMIT = Limit(10**12, 1, "hour", namespace="a namespace")
LIMITER = RateLimiter(TABLE, "moving-window")
PROXIED = RateLimiter(Proxy(), "token-bucket")
LONG = "/" * 1000


def frozen() -> float:
    return 1e9


def frozen_hit() -> None:
    """Without mock, which makes a class: once a thread has run, Python 3.13t frees no class."""
    original, time.time = time.time, frozen
    try:
        LIMITER.hit(LIMIT, "a")
    finally:
        time.time = original


STRANGERS: list[object] = [7, None]


def whole_table() -> None:
    TABLE.verify()
    TABLE.reset()
    assert TABLE.check()
    assert "memory" in repr(TABLE)


CALLS: dict[str, Callable[[], object]] = {
    "hit": lambda: LIMITER.hit(LIMIT, "a", b"b", 7, 1.5, cost=2),
    "long key": lambda: LIMITER.hit(LIMIT, LONG, "é", "\udc80", b"\xff", 10**30),
    "test": lambda: LIMITER.test(LIMIT, "a"),
    "refund": lambda: LIMITER.refund(LIMIT, "a", cost=10**9),
    "decide": lambda: LIMITER.decide(LIMIT, "a", mode=weir.TEST),
    "stats": lambda: LIMITER.get_window_stats(LIMIT, "a")._asdict(),
    "clear": lambda: LIMITER.clear(LIMIT, "a"),
    "another clock": frozen_hit,
    "proxied hit": lambda: PROXIED.hit(LIMIT, "a"),
    "proxied stats": lambda: PROXIED.get_window_stats(LIMIT, "a"),
    "proxied clear": lambda: PROXIED.clear(LIMIT, "a"),
    "table": lambda: list(TABLE.decide([LIMIT, LIMIT], ["a", "b"], [1, 2], weir.EACH)[:]),
    "one key": lambda: repr(TABLE.decide((LIMIT,), LONG).verdict),
    "table clear": lambda: TABLE.clear([LIMIT], "a"),
    "info": TABLE.info,
    "whole table": whole_table,
    "open": lambda: Table("memory://?keys=8", namespace=3).close(),
    "open and drop": lambda: MemoryHolder("memory://?keys=8"),
    "limiter": lambda: RateLimiter(TABLE, "leaky-bucket").__init__(TABLE),  # type: ignore[misc]
    "limit": lambda: Limit(1, 2, "hours", burst=3, namespace="x").replace(burst=4, namespace="y"),
    "limit members": lambda: (
        LIMIT.GRANULARITY,
        LIMIT.namespace,
        LIMIT.unit,
        LIMIT.burst,
        hash(LIMIT),
    ),
    "compare": lambda: (Limit(1) == LIMIT, Limit(1) < LIMIT, LIMIT in STRANGERS),
    "pickle": lambda: pickle.loads(pickle.dumps(LIMIT)),
    "key_for": lambda: (LIMIT.key_for("a", 1), LIMIT.full_key(LONG), core.join_key(LONG, b"\xff")),
    "parse": lambda: (parse("10/minute"), weir.parse_many("10/minute;5/day burst 7")),
    "own decision": lambda: weir.Decision([weir.Verdict(True, 1, 1, 1.0, 0.0, 0.0)], 0, 1.0)[0],
    "bad parse": lambda: raises(weir.ParseError, lambda: parse("10 per fortnight")),
    "bad limit": lambda: raises(ValueError, lambda: Limit(1, burst=1, strategy="fixed-window")),
    "bad namespace": lambda: raises(TypeError, lambda: Limit(1, namespace=b"")),  # type: ignore[arg-type]
    "bad identifier": lambda: raises(TypeError, lambda: LIMITER.hit(LIMIT, LONG, object())),
    "bad cost": lambda: raises(ValueError, lambda: LIMITER.hit(LIMIT, LONG, cost=-1)),
    "bad keyword": lambda: raises(TypeError, lambda: LIMITER.hit(LIMIT, LONG, x=1)),  # type: ignore[call-arg]
    "bad uri": lambda: raises(weir.ParseError, lambda: Table("shm://a/b")),
    "bad table": lambda: raises(weir.TableError, lambda: Table("file:///proc/1/no")),
    "bad unlink": lambda: raises(weir.TableError, lambda: weir.unlink("shm://no-such-table")),
    "bad decide": lambda: raises(TypeError, lambda: TABLE.decide([LIMIT, 1], LONG)),  # type: ignore[list-item]
    "bad decision": lambda: raises(TypeError, lambda: weir.Decision([None], 0, 1.0)),  # type: ignore[list-item]
    "bad strategy": lambda: raises(ValueError, lambda: RateLimiter(TABLE, "x")),
}


class MemoryHolder(Table):
    """A subclass with a dict."""

    def __new__(cls, uri: str) -> MemoryHolder:
        self = super().__new__(cls, uri)
        self.me = self
        return self

    me: MemoryHolder


def resident_kib() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * (os.sysconf("SC_PAGE_SIZE") // 1024)


#: The interpreter sometimes enlarges one of its tables, and a free-threaded one frees memory and
#: objects later. A leak of these kinds grows in each of ATTEMPTS runs.
ATTEMPTS = 5
REPEATED = {"bytes", "KiB"}
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    REPEATED |= {"objects", "references"}


@pytest.mark.parametrize("name", CALLS)
def test_nothing_leaks(name: str) -> None:
    call = CALLS[name]
    rounds = 300

    def run() -> None:
        for _ in range(rounds):
            call()
        gc.collect()

    watched: list[Any] = [LIMIT, TABLE, LIMITER, Table, Limit, RateLimiter, LONG, weir.Verdict]

    def grown() -> dict[str, str]:
        references = [sys.getrefcount(thing) for thing in watched]
        objects = len(gc.get_objects())
        traced, resident = tracemalloc.get_traced_memory()[0], resident_kib()
        run()
        more_traced = tracemalloc.get_traced_memory()[0] - traced
        more_resident = resident_kib() - resident
        more_objects = len(gc.get_objects()) - objects
        now = [sys.getrefcount(thing) for thing in watched]
        kinds = {
            "bytes": (more_traced >= 16 * rounds, f"{more_traced} that the interpreter allocated"),
            "KiB": (more_resident >= 16 * rounds, f"{more_resident} of resident memory"),
            "objects": (more_objects >= rounds / 3, f"{more_objects} more"),
            "references": (now != references, f"{references} before, {now} after"),
        }
        return {kind: text for kind, (grew, text) in kinds.items() if grew}

    gc.freeze()  # collections look at what the calls make only
    run()
    tracemalloc.start()
    try:
        run()  # fills what the interpreter keeps for later
        run()
        found = [grown()]
        leaks = set(found[0])
        while leaks and leaks <= REPEATED and len(found) < ATTEMPTS:
            found.append(grown())
            leaks &= set(found[-1])
        assert not leaks, found
    finally:
        tracemalloc.stop()
        gc.unfreeze()


def test_the_deciding_calls_allocate_nothing_that_stays() -> None:
    """A million hits of a hundred thousand keys do not make the process grow."""
    table = Table("memory://?keys=1024")
    limiter = RateLimiter(table)
    for n in range(20_000):
        limiter.hit(LIMIT, n)
    before = resident_kib()
    for n in range(200_000):
        limiter.hit(LIMIT, n)
    assert resident_kib() - before < 2048


# --------------------------------------------------------------------------------------- threads


def test_threads_admit_exactly_the_limit() -> None:
    limiter = RateLimiter(Table("memory://?keys=64"))
    limit = Limit(1000, 1, "day")
    admitted = []

    def work() -> None:
        admitted.append(sum(limiter.hit(limit, "key") for _ in range(400)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(admitted) == 1000


def test_closing_while_others_use_the_table() -> None:
    for _ in range(30):
        table = Table("memory://?keys=4096")
        stop = threading.Event()

        def use(table: Table = table, stop: threading.Event = stop) -> None:
            with contextlib.suppress(weir.TableError):
                while not stop.is_set():
                    table.info()
                    table.verify()
                    table.decide([LIMIT], "a")
                    table.reset()

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        table.close()
        stop.set()
        for thread in threads:
            thread.join()
        assert not table.check()


# ----------------------------------------------------------------------------------------- forks


def in_child(work: Callable[[], bool]) -> bool:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_forked_child_has_its_own_memory_and_shares_the_rest() -> None:
    once = Limit(1, 1, "day")
    name = f"test-{uuid.uuid4()}"
    private = RateLimiter(Table("memory://?keys=64"))
    shared = RateLimiter(Table(f"shm://{name}?keys=64"))
    weir.unlink(f"shm://{name}")
    assert in_child(lambda: private.hit(once, "a") and not private.hit(once, "a"))
    assert private.hit(once, "a")
    assert in_child(lambda: shared.hit(once, "a"))
    assert not shared.hit(once, "a")


def test_forked_children_admit_exactly_the_limit() -> None:
    name = f"test-{uuid.uuid4()}"
    limiter = RateLimiter(Table(f"shm://{name}?keys=64"))
    weir.unlink(f"shm://{name}")
    limit = Limit(5000, 1, "day")
    children = []
    for _ in range(4):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                count = sum(limiter.hit(limit, "key") for _ in range(4000))
                os.write(writer, str(count).encode())
            finally:
                os._exit(0)
        os.close(writer)
        children.append((pid, reader))
    counts = []
    for pid, reader in children:
        counts.append(int(os.read(reader, 20)))
        os.close(reader)
        os.waitpid(pid, 0)
    assert sum(counts) == 5000


# ------------------------------------------------------------------------------- subinterpreters

SUBINTERPRETERS = """
import sys, threading
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import weir

program = '''
import gc, weir
limiter = weir.RateLimiter(weir.Table("memory://?keys=64"), "moving-window")
limit = weir.parse("2/day")
assert [limiter.hit(limit, "a") for _ in range(3)] == [True, True, False]
try:
    weir.parse("nonsense")
except weir.ParseError as error:
    assert type(error) is weir.ParseError and error.code == "ESYNTAX"
weir.strategies.FixedWindowRateLimiter(weir.storage.MemoryStorage(keys=8)).get_window_stats(limit)
del limiter
gc.collect()
'''

def run():
    for _ in range(5):
        interpreter = interpreters.create()
        failure = interpreters.run_string(interpreter, program)
        assert failure is None, failure
        interpreters.destroy(interpreter)

run()
threads = [threading.Thread(target=run) for _ in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert weir.parse("1/day").key_for("a") == "LIMITER/a/1/1/day"
print("all well")
"""


def test_subinterpreters() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SUBINTERPRETERS], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("all well\n", 0), done.stderr


def test_the_module_can_be_loaded_again() -> None:
    program = """
import gc, importlib, sys
import weir
first = weir._core
limit = weir.parse("1/day")
for name in [name for name in sys.modules if name.partition(".")[0] == "weir"]:
    del sys.modules[name]
import weir
assert weir._core is not first
assert weir.Limit is not first.Limit
assert limit != weir.parse("1/day")
try:
    weir.RateLimiter(weir.Table("memory://?keys=8")).hit(limit, "a")
except TypeError:
    print("all well")
del first, limit
gc.collect()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("all well\n", 0), done.stderr


def test_types_are_collected_with_their_module() -> None:
    program = """
import gc, sys, weakref
import weir
dead = weakref.ref(weir._core), weakref.ref(weir.Limit), weakref.ref(weir.Table)
for name in [name for name in sys.modules if name.partition(".")[0] == "weir"]:
    del sys.modules[name]
del weir, name
for _ in range(3):
    gc.collect()
print([reference() for reference in dead])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("[None, None, None]\n", 0), done.stderr


# ----------------------------------------------------------------------------------- documentation


def docstrings(owner: object, path: str) -> Iterator[tuple[str, str]]:
    """Those of what the extension defines: functions, classes, and the attributes of classes."""
    for name, value in vars(owner).items():
        if isinstance(value, type) and value.__module__.partition(".")[0] == "weir":
            yield from docstrings(value, f"{path}.{name}")
        if not name.startswith("__") and isinstance(text := value.__doc__, str):
            yield f"{path}.{name}", text


def test_no_line_of_a_docstring_has_more_than_100_characters() -> None:
    texts = dict(docstrings(core, "weir._core"))
    assert {"weir._core.parse", "weir._core.Table.decide", "weir._core.Table.uri"} <= set(texts)
    lines = [(name, line) for name, text in texts.items() for line in text.split("\n")]
    assert [(name, line) for name, line in lines if len(line) > 100] == []


@pytest.mark.parametrize(
    "module",
    [
        "weir",
        "weir.limits",
        "weir.storage",
        "weir.stores.registry",
        "weir._text",
        "weir.strategies",
        "weir._core",
    ],
)
def test_examples_in_docstrings(module: str, schemes: None) -> None:
    tested = importlib.import_module(module)
    names = {name: getattr(weir, name) for name in weir.__all__} | vars(tested)
    finder = doctest.DocTestFinder(recurse=True)
    runner = doctest.DocTestRunner()
    examples = 0
    for test in finder.find(tested, module, module=False if module == "weir._core" else None):
        test.globs = {**names, **test.globs}
        examples += len(test.examples)
        assert runner.run(test).failed == 0, test.name
    assert examples > 0


@pytest.fixture
def schemes() -> Any:
    before = dict(weir.storage.SCHEMES)
    yield
    weir.storage.SCHEMES.clear()
    weir.storage.SCHEMES.update(before)


def test_version() -> None:
    assert weir.__version__ == core.VERSION
    assert weir.__version__.count(".") == 2
    assert weir.CHECKS_MAX == 32
    assert (weir.HIT, weir.TEST, weir.EACH, weir.REFUND) == (0, 1, 2, 3)


def test_all_names_exist() -> None:
    for module in (weir, weir.errors, weir.storage, weir.strategies, weir.limits):
        for name in module.__all__:
            assert getattr(module, name, None) is not None, name
    assert list(weir.__all__) == sorted(
        weir.__all__, key=lambda n: (not n.isupper(), not n[0].isupper(), n)
    )
