"""Locks of the package: free in a forked child, and never held while something is logged."""

from __future__ import annotations

import ast
import logging
import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import pytest

import weir
from servers.ports import PATIENCE
from weir.flask import Limiter
from weir.observe import audit as audits
from weir.observe.metrics import Collector
from weir.storage import storage_from_string
from weir.stores import auto, failover
from weir.stores.denials import Denials

PACKAGE = Path(weir.__file__).parent
LOGS = {"warning", "info", "error", "exception", "debug", "critical", "log", "log_error", "warn"}
MAKES = re.compile(r"(threading\.)?(Lock|RLock|Condition|Semaphore|BoundedSemaphore)")

#: Where a lock is made, and what renews it in a forked child.
MADE = {
    ("_locks.py", "new_lock"): "the module itself",
    ("flask/dashboard/__init__.py", "renew"): "_locks.after_fork()",
    ("observe/audit.py", "_reset"): "_locks.after_fork()",
    ("stores/auto.py", None): "_locks.after_fork()",
    ("stores/auto.py", "_renew_lock"): "_locks.after_fork()",
    ("stores/hosts.py", "_drop_threads"): "the next look-up sees another process",
    ("stores/mongodb.py", "__init__"): "after_fork()",
    ("stores/mongodb.py", "after_fork"): "the next call sees another process",
    (
        "stores/postgresql.py",
        "__init__",
    ): "after_fork(), or of one connection, which is left behind",
    ("stores/postgresql.py", "after_fork"): "the next call sees another process",
    (
        "stores/postgresql_connections.py",
        "__init__",
    ): "after_fork() of the store, which makes others",
    ("stores/postgresql_guesses.py", "__init__"): "after_fork()",
    ("stores/postgresql_waits.py", "__init__"): "after_fork()",
    ("stores/redis_cluster.py", "reset"): "the next call sees another process",
    ("stores/redis_server.py", "__init__"): "of one attempt to connect, which is left behind",
    ("stores/redis_server.py", "drop_connections"): "the next call sees another process",
    ("stores/sync.py", "_reset"): "_locks.after_fork()",
}


def functions(tree: ast.AST) -> dict[ast.AST, str]:
    """The innermost function that each node is in."""
    found: dict[ast.AST, str] = {}
    for function in ast.walk(tree):  # from the outside in
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            found |= dict.fromkeys(ast.walk(function), function.name)
    return found


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield str(path.relative_to(PACKAGE)), ast.parse(path.read_text())


def test_each_lock_is_renewed_in_a_forked_child() -> None:
    made = set()
    for name, tree in modules():
        inside = functions(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and MAKES.fullmatch(ast.unparse(node.func)):
                made.add((name, inside.get(node)))
    assert made == set(MADE), "make locks by weir._locks.new_lock(), or list here what renews them"


def called_by(node: ast.AST) -> set[str]:
    """The names of functions and methods that a piece of code calls."""
    calls = (each for each in ast.walk(node) if isinstance(each, ast.Call))
    return {getattr(call.func, "attr", getattr(call.func, "id", "")) for call in calls}


def logging_functions(tree: ast.AST) -> set[str]:
    """The functions of a module that log, or call another of its functions that does."""
    calls = {
        node.name: called_by(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    found = set(LOGS)
    while more := {name for name, called in calls.items() if called & found} - found:
        found |= more
    return found


def test_nothing_is_logged_and_nothing_yielded_in_the_body_of_a_lock() -> None:
    """Neither there nor in functions of the same module that the body calls."""
    wrong = []
    for name, tree in modules():
        logs = logging_functions(tree)
        for block in ast.walk(tree):
            if not isinstance(block, ast.With):
                continue
            what = " ".join(ast.unparse(item.context_expr) for item in block.items)
            if "suppress" in what or not re.search(r"lock|condition|opening|creating", what):
                continue
            forbidden = logs if not what.startswith("WarnAfterwards() ") else LOGS
            for node in ast.walk(block):
                called = called_by(node) if isinstance(node, ast.Call) else set()
                if called & forbidden or isinstance(node, ast.Yield | ast.YieldFrom):
                    wrong.append((name, getattr(node, "lineno", 0), ast.unparse(node)[:60]))
    wrong = [place for place in wrong if not place[0].startswith("testing/")]
    assert wrong == []


# -------------------------------------------------------------------------------------- forks


def failover_store() -> Any:
    return failover.FailoverStorage(storage_from_string("memory://"), policy="open")


def each_lock() -> dict[str, Callable[[], Callable[[], Any]]]:
    """For each lock that lives long: what makes its owner, and then how the lock is found."""

    def denials() -> Callable[[], Any]:
        owner = Denials()
        return lambda: owner._lock

    def store() -> Callable[[], Any]:
        owner = failover_store()
        return lambda: owner._lock

    def metrics() -> Callable[[], Any]:
        owner = Collector(weir.Table("memory://?keys=64"))
        return lambda: owner._lock

    def state() -> Callable[[], Any]:
        app = flask.Flask(__name__)
        limiter = Limiter(lambda: "a", app=app, default_limits=["5/hour"], storage_uri="memory://")
        found = app.extensions["weir"][limiter]
        return lambda: found.lock

    def audit() -> Callable[[], Any]:
        owner = audits.Audit(weir.Table("memory://?keys=64"))
        return lambda: owner._lock

    return {
        "denials": denials,
        "failover": store,
        "metrics": metrics,
        "audit": audit,
        "limiter": state,
        "summary thread": lambda: lambda: audits._summary_thread._condition,
        "automatic tables": lambda: lambda: auto._lock,
    }


@pytest.mark.parametrize("name", each_lock())
def test_a_child_of_a_fork_finds_the_lock_free(name: str) -> None:
    find = each_lock()[name]()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with find():
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        child = os.fork()
        if child == 0:
            free = False
            try:
                free = find().acquire(timeout=PATIENCE)
            finally:
                os._exit(0 if free else 1)
        _, status = os.waitpid(child, 0)
    finally:
        done.set()
        holder.join()
    assert os.waitstatus_to_exitcode(status) == 0


def test_requests_of_children_are_answered_whatever_the_parent_s_threads_do() -> None:
    """Forks among threads that decide, scrape and fail."""
    table = weir.Table("memory://?keys=1000")
    collector = Collector(table)
    denials, store = Denials(), failover_store()
    limit = weir.Limit(1000000)
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            list(collector.collect())
            store.decide([limit], "a")
            with denials._lock:
                pass

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                signal.alarm(round(PATIENCE))
                list(collector.collect())
                store.decide([limit], "a")
                with denials._lock:
                    os._exit(0)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
    finally:
        ended.set()
        for thread in threads:
            thread.join()


# ------------------------------------------------------------------------------------ logging


class DecidesAgain(logging.Handler):
    """Calls the store again for each line, in this thread and in another."""

    def __init__(self, decide: Callable[[], object]) -> None:
        super().__init__()
        self.decide = decide
        self.lines: list[str] = []
        self.stuck = 0
        self.inside = False

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        if self.inside:
            return
        self.inside = True
        other = threading.Thread(target=self.decide, daemon=True)
        other.start()
        other.join(PATIENCE)
        self.stuck += other.is_alive()
        self.decide()
        self.inside = False


@pytest.mark.parametrize("policy", ["open", "closed", "local"])
def test_a_handler_may_call_the_limiter_that_logs(policy: str) -> None:
    class Broken(weir.Table):
        broken = True

        def decide(self, *args: Any) -> Any:
            if self.broken:
                raise ConnectionRefusedError("away")
            return super().decide(*args)

        def check(self) -> bool:
            return not self.broken

    clock = time.monotonic()
    broken = Broken("memory://?keys=64")
    logger = logging.getLogger(f"test.{policy}")
    store = failover.FailoverStorage(
        broken, policy, "memory://?keys=64", logger=logger, clock=lambda: clock
    )
    limit = weir.Limit(100)

    def send() -> None:
        store.decide([limit], "a")

    handler = DecidesAgain(send)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    ended = threading.Event()

    def run() -> None:
        nonlocal clock
        send()
        broken.broken = False
        clock += 100
        send()
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    assert ended.wait(2 * PATIENCE), "a request waits for a lock that its own log line holds"
    assert handler.stuck == 0
    assert len(handler.lines) == 2, handler.lines


def test_a_warning_about_an_automatic_table_holds_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its handler waits for another thread that opens a table."""
    parent = auto.Server(os.getppid(), auto._started(os.getppid()))
    monkeypatch.setattr(auto, "server", lambda: parent._replace(alone=True))
    monkeypatch.setattr(auto, "first_fork", lambda pid: pid)
    monkeypatch.setattr(auto, "_warned", False)
    seen: list[tuple[str, bool]] = []

    def show(message: object, *where: object) -> None:
        other = threading.Thread(target=auto.open_auto, args=("auto://?keys=64",), daemon=True)
        other.start()
        other.join(PATIENCE)
        seen.append((str(message), other.is_alive()))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", show)
        table = auto.open_auto("auto://?keys=64")
    name = table.uri.removeprefix("shm://").partition("?")[0]
    (auto.SHARED_MEMORY / f"weir.{name}").unlink()
    assert len(seen) == 1
    assert "Each process counts limits separately" in seen[0][0]
    assert not seen[0][1], "another thread waits for the lock"
