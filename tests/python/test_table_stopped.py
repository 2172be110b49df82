"""A process is stopped while it holds the locks of a table: our other threads go on."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

import weir
from servers.ports import PATIENCE, wait_for
from weir import Limit, RateLimiter, Table, TableError

pytestmark = pytest.mark.slow

LIMIT = Limit(5, 1, "hour")

FUTEX_PRIVATE = 128  # a flag of the operation, FUTEX_PRIVATE_FLAG in linux/futex.h

#: Takes every lock of a table as libweir would, prints a line, and stops itself.
HOLDER = """
import ctypes, mmap, os, signal, struct, sys
file = os.open(sys.argv[1], os.O_RDWR)
memory = mmap.mmap(file, 0)
stripes, lines, stripes_at, pool_at = struct.unpack_from("<IIQQ", memory, 48)
size = (pool_at - stripes_at) // stripes
base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
libc = ctypes.CDLL(None)
places = [stripes_at + i * size for i in range(stripes)]
for place in [*places, pool_at, int(sys.argv[2])]:
    assert libc.pthread_mutex_lock(ctypes.c_void_p(base + place)) == 0, place
print("held", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


def hold(path: Path) -> subprocess.Popen[str]:
    """Starts a process that stops while it holds all locks of a table."""
    (rules_at,) = struct.unpack_from("<Q", path.read_bytes(), 96)  # its lock is in its second line
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), str(rules_at + 64)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    os.waitpid(holder.pid, os.WUNTRACED)
    return holder


def waits_for_a_lock(thread: threading.Thread) -> bool:
    """Whether a thread waits for a lock that processes share. Those of Python are private ones."""
    try:
        task = Path(f"/proc/self/task/{thread.native_id}")
        operation = int((task / "syscall").read_text().split()[2], 16)
        return "futex" in (task / "wchan").read_text() and not operation & FUTEX_PRIVATE
    except (OSError, IndexError):  # it has ended, or it runs
        return False


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Table]:
    """A table of which a stopped process holds all locks."""
    path = tmp_path / "table"
    table = Table(f"file://{path}?keys=1000")
    assert table.decide([LIMIT], "a").allowed
    table.block("192.0.2.1")
    holder = hold(path)
    try:
        yield table
    finally:
        holder.kill()
        holder.communicate()
        table.close()


def evaluate(table: Table) -> Callable[[], object]:
    """A request of an application, as weir.flask decides it."""
    import flask

    from weir.flask import Limiter

    app = flask.Flask(__name__)
    limiter = Limiter(lambda: "a", app=app, storage_uri=table.uri, default_limits=["5 per hour"])
    app.route("/")(lambda: "")
    with app.app_context():
        assert limiter.storage is not None
    client = app.test_client()
    return lambda: client.get("/")


CALLS: dict[str, Callable[[Table], Callable[[], object]]] = {
    "decide": lambda t: lambda: t.decide([LIMIT], "a"),
    "decide of several": lambda t: lambda: t.decide([LIMIT, Limit(9), Limit(7)], "abc"),
    "a blocked client": lambda t: lambda: t.decide([LIMIT], "192.0.2.1"),
    "peek": lambda t: lambda: t.peek([LIMIT], "a"),
    "clear": lambda t: lambda: t.clear([LIMIT], "a"),
    "hit": lambda t: lambda: RateLimiter(t).hit(LIMIT, "a"),
    "hit under another limit": lambda t: lambda: RateLimiter(t).hit(Limit(3, 7), "a"),
    "test": lambda t: lambda: RateLimiter(t).test(LIMIT, "a"),
    "refund": lambda t: lambda: RateLimiter(t).refund(LIMIT, "a"),
    "clear of a limiter": lambda t: lambda: RateLimiter(t).clear(LIMIT, "a"),
    "get_window_stats": lambda t: lambda: RateLimiter(t).get_window_stats(LIMIT, "a"),
    "reset": lambda t: t.reset,
    "info": lambda t: t.info,
    "verify": lambda t: t.verify,
    "check": lambda t: t.check,
    "counts": lambda t: t.counts,
    "top clients": lambda t: t.top_clients,
    "record": lambda t: (
        lambda: t.record(
            [LIMIT], ["a"], weir.Decision([weir.Verdict(True, 5, 4, 1e9, 0.0, 0.0)], 0, 1e9)
        )
    ),
    "register": lambda t: lambda: t.register(Limit(11), "x/", ""),
    "block": lambda t: lambda: t.block("192.0.2.2"),
    "unlist": lambda t: lambda: t.unlist("192.0.2.2"),
    "rules": lambda t: t.rules,
    "rule_of": lambda t: lambda: t.rule_of("192.0.2.2"),
    "load_rules": lambda t: lambda: t.load_rules([("192.0.2.3", "block", None)]),
}


def longest_pause(call: Callable[[], object]) -> tuple[float, float]:
    """How long another thread had to wait at most during a call, and how long the call took."""
    longest, ended = 0.0, False
    begun = threading.Event()

    def tick() -> None:
        nonlocal longest
        last = time.monotonic()
        begun.set()
        while not ended:
            time.sleep(0.005)
            now = time.monotonic()
            longest = max(longest, now - last)
            last = now

    ticker = threading.Thread(target=tick)
    ticker.start()
    begun.wait()
    start = time.monotonic()
    busy = ""
    try:
        call()
    except TableError as error:
        busy = error.code
    took = time.monotonic() - start
    ended = True
    ticker.join()
    assert busy in ("", "EBUSY")
    return longest, took


def shortest_pause(
    call: Callable[[], object], before: Callable[[], object] = lambda: None
) -> tuple[float, float]:
    """The first pause that is short enough. A call that holds the GIL makes each of them long."""
    for _ in range(10):
        before()
        pause, took = longest_pause(call)
        if pause < max(0.5, took / 2):
            break
    return pause, took


@pytest.mark.parametrize("name", CALLS)
def test_other_threads_go_on_while_a_call_waits(held: Table, name: str) -> None:
    pause, took = shortest_pause(CALLS[name](held))
    assert pause < max(0.5, took / 2), (pause, took)


Lost = tuple[Table, Callable[[], None]]


@contextlib.contextmanager
def lose(path: Path) -> Iterator[Lost]:
    """A removed table of many limits, where a stopped process holds all locks of the next table.

    Also a function that moves the time of the table to its next check.
    """
    uri = f"file://{path}?keys=1000"
    with mock.patch("time.time", return_value=1_800_000_000.0) as clock, Table(uri) as table:
        for amount in range(1, 20):
            assert table.decide([Limit(amount)], "a").allowed
            table.register(Limit(amount), "x/", "")
        table.block("192.0.2.1")
        path.unlink()
        other = Table(uri)
        holder = hold(path)

        def next_check() -> None:
            clock.return_value += 1.5
            Table("memory://?keys=100").decide(
                [LIMIT], "a"
            )  # calls without a time use the last one

        try:
            yield table, next_check
        finally:
            holder.kill()
            holder.communicate()
            other.close()


@pytest.fixture
def lost(tmp_path: Path) -> Iterator[Lost]:
    with lose(tmp_path / "table") as lost:
        yield lost


@pytest.mark.parametrize(
    "name", ["decide", "peek", "clear", "hit", "record", "info", "block", "name_of", "meter"]
)
def test_other_threads_go_on_while_a_lost_table_is_opened_again(lost: Lost, name: str) -> None:
    table, next_check = lost
    others: dict[str, Callable[[Table], Callable[[], object]]] = {
        "name_of": lambda t: lambda: t.name_of("a"),
        "meter": lambda t: lambda: t.meter("m"),
    }
    call = (CALLS | others)[name](table)
    pause, took = shortest_pause(call, next_check)
    assert took > 0.9, "it waited for the locks"
    assert took < 10, "it did not wait once for each limit"
    assert pause < max(0.5, took / 2), (pause, took)


def close_while_it_is_opened_again(table: Table, next_check: Callable[[], None]) -> object:
    """The outcome of a call that waits for a lock while its table is closed.

    ``None`` if the wait ended too early.
    """
    limiter = RateLimiter(table)
    outcomes: list[object] = []

    def attempt() -> None:
        try:
            outcomes.append(limiter.hit(LIMIT, "a"))
        except TableError as error:
            outcomes.append(error.code)

    next_check()
    thread = threading.Thread(target=attempt)
    thread.start()
    wait_for(lambda: outcomes or waits_for_a_lock(thread))
    try:
        assert limiter.hit(LIMIT, "b"), "in the lost table"
    except TableError:  # the other call has ended, so this one opened the table
        thread.join()
        return None
    limiter.__init__(Table(), "fixed-window")  # type: ignore[misc]
    table.close()
    waited = waits_for_a_lock(thread)
    thread.join()
    assert len(outcomes) == 1
    assert limiter.hit(LIMIT, "c")
    return outcomes[0] if waited else None


def test_a_table_can_be_closed_and_used_while_it_is_opened_again(tmp_path: Path) -> None:
    outcome: object = None
    for attempt in range(10):  # a call waits for a second, and a busy machine may take longer
        with lose(tmp_path / f"table-{attempt}") as (table, next_check):
            outcome = close_while_it_is_opened_again(table, next_check)
        if outcome is not None:
            break
    assert outcome == "EINVAL"


def test_a_table_is_replaced_although_calls_of_its_threads_wait_for_it(tmp_path: Path) -> None:
    path = tmp_path / "table"
    uri = f"file://{path}?keys=1000"
    with mock.patch("time.time", return_value=1_800_000_000.0) as clock, Table(uri) as table:
        assert table.decide([LIMIT], "a").allowed
        holder = hold(path)
        outcomes: list[str] = []

        def attempt(offset: float) -> None:
            time.sleep(offset)  # so that one of them waits at any time
            while not outcomes or outcomes[-1] == "EBUSY":
                try:
                    table.decide([LIMIT], "a")
                    outcomes.append("decided")
                except TableError as error:
                    outcomes.append(error.code)

        waiting = [threading.Thread(target=attempt, args=[i * 0.3]) for i in range(4)]
        try:
            for thread in waiting:
                thread.start()
            while not outcomes:
                time.sleep(0.01)
            path.unlink()
            clock.return_value += 1.5
            for thread in waiting:
                thread.join(PATIENCE)
            assert set(outcomes) == {"EBUSY", "decided"}
        finally:
            outcomes.append("ended")
            holder.kill()
            holder.communicate()
        table.verify()


def test_calls_that_count_do_wait(held: Table) -> None:
    """That the test above tests something: they cannot be answered before the locks are free."""
    for name in ("decide", "hit", "record", "counts", "block"):
        assert longest_pause(CALLS[name](held))[1] > 0.9, name


def test_requests_of_other_threads_go_on_while_one_waits(held: Table) -> None:
    pause, took = shortest_pause(evaluate(held))
    assert took > 0.9
    assert pause < max(0.5, took / 2), (pause, took)


def test_a_table_that_is_closed_while_a_call_waits_stays_until_the_call_ends(held: Table) -> None:
    outcomes: list[object] = []

    def decide() -> None:
        try:
            outcomes.append(held.decide([LIMIT], "a"))
        except TableError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=decide) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: outcomes or all(map(waits_for_a_lock, threads)))
    held.close()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 4
    assert set(outcomes) <= {"EBUSY", "EINVAL"}, outcomes


def test_a_call_goes_on_as_soon_as_the_process_dies(held: Table) -> None:
    (holder,) = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _is_child(entry) and b"SIGSTOP" in _command(entry)
    ]
    killed = threading.Event()

    def kill() -> None:
        os.kill(holder, signal.SIGKILL)
        killed.set()

    killer = threading.Timer(0.3, kill)
    killer.start()
    while True:
        dead = killed.is_set()
        try:
            assert held.decide([LIMIT], "a").allowed
            break
        except TableError as error:
            if error.code != "EBUSY" or dead:  # a busy machine may kill it after a second
                raise
    killer.join()
    assert held.info()["recoveries"] > 0
    held.verify()


def _is_child(entry: Path) -> bool:
    try:
        return f"\nPPid:\t{os.getpid()}\n" in (entry / "status").read_text()
    except OSError:
        return False


def _command(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""
