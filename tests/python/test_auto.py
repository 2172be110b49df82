"""auto://: whose workers share a table, and what is said when that cannot be told.

Real servers are in tests/system; here are the rules.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import weir
from weir import Limit, Table, _auto
from weir._auto import Server, note_environ, open_auto
from weir.storage import MemoryStorage, storage_from_string

SHM = Path("/dev/shm")
ONCE = Limit(1, 1, "day")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_auto, "_warned", False)
    monkeypatch.setattr(_auto, "_made", 0)
    monkeypatch.delitem(sys.modules, "gunicorn.arbiter", raising=False)  # of another test


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """This process is a worker of its parent, as far as ``server()`` can tell."""
    server = Server(os.getppid(), _auto._started(os.getppid()))
    monkeypatch.setattr(_auto, "server", lambda: server)
    before = set(SHM.iterdir())
    yield server
    for path in set(SHM.iterdir()) - before:
        if re.match(rf"weir\.auto-\d+-\d+-{server.pid}-", path.name):
            path.unlink()


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments, "-c", program], capture_output=True, text=True, check=True
    )


# ------------------------------------------------------------------------------------- no server


def test_memory_without_a_server() -> None:
    store = storage_from_string("auto://")
    assert isinstance(store, Table)
    assert store.uri == "memory://"
    assert open_auto("auto://?keys=64").info()["keys_max"] == 64
    assert open_auto("auto://", keys=64).info()["keys_max"] == 64


def test_storages_without_a_server_share_nothing() -> None:
    first, second = open_auto(), open_auto()
    assert first.decide([ONCE], "a").allowed
    assert second.decide([ONCE], "a").allowed


SCRIPT = """
import {imports}
import weir, os, sys
store = weir.storage.storage_from_string("auto://")
assert store.uri == "memory://", store.uri
"""


@pytest.mark.parametrize(
    "imports", ["os", "flask", "multiprocessing, concurrent.futures", "werkzeug.serving"]
)
def test_a_script_is_not_bothered(imports: str) -> None:
    done = run(SCRIPT.format(imports=imports), "-W", "error")
    assert (done.stdout, done.stderr) == ("", "")


def test_children_of_a_script_are_not_bothered() -> None:
    """multiprocessing, os.fork() and subprocesses are no web servers."""
    program = (
        SCRIPT.format(imports="multiprocessing, subprocess")
        + """
def work(n):
    return store.check() and weir.storage.storage_from_string("auto://").uri

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(work, range(4)) == ["memory://"] * 4
    subprocess.run(["true"], preexec_fn=lambda: None)
    if os.fork() == 0:
        os._exit(0)
    os.wait()
    print("all well")
"""
    )
    done = run(program, "-W", "error")
    assert (done.stdout, done.stderr) == ("all well\n", "")


@pytest.mark.skipif(not find_spec("gunicorn"), reason="gunicorn is not installed")
def test_a_module_of_gunicorn_is_no_server() -> None:
    program = """
import gunicorn.arbiter, os, weir
from weir import _auto
# A program that may run the arbiter later: the table is its own, and its children's.
assert _auto.server() == _auto.Server(os.getpid(), _auto._started(os.getpid()))
# Its forked child belongs to it.
if os.fork() == 0:
    os._exit(0 if _auto.server() == _auto.Server(os.getppid(), _auto._started(os.getppid())) else 1)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
"""
    run(program)


# ------------------------------------------------------------------------------------- a server


def test_the_workers_of_a_server_share_a_table(served: Server) -> None:
    store = storage_from_string("auto://?keys=64")
    assert isinstance(store, Table)
    assert re.fullmatch(
        rf"shm://auto-{os.geteuid()}-\d+-{served.pid}-{served.started}-keys64\?keys=64", store.uri
    )
    assert store.decide([ONCE], "a").allowed
    child = os.fork()
    if child == 0:  # another worker, which opens it for itself
        _auto._made = 0
        os._exit(open_auto("auto://?keys=64").decide([ONCE], "a").allowed)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "already hit"


def test_storages_of_one_process_are_told_apart_by_their_order(served: Server) -> None:
    first, second = open_auto(keys=64), open_auto(keys=64)
    assert first.uri == second.uri
    assert (first.namespace, second.namespace) == (0, 1)
    assert first.decide([ONCE], "a").allowed
    assert second.decide([ONCE], "a").allowed
    assert not first.decide([ONCE], "a").allowed
    assert weir.RateLimiter(second, "moving-window").hit(ONCE, "a")


def test_tables_of_another_size_are_other_tables(served: Server) -> None:
    a, b, c = open_auto(keys=64), open_auto(keys=128), open_auto("auto://?keys=64&hits=64")
    assert len({a.uri, b.uri, c.uri}) == 3
    assert (a.info()["keys_max"], b.info()["keys_max"]) == (64, 128)


def test_a_failure_to_open_takes_no_place(served: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(weir.ParseError):
        open_auto("auto://?nonsense=1")
    assert open_auto(keys=64).namespace == 0


def test_a_process_is_known_by_its_start(served: Server) -> None:
    assert served.started > 0
    assert _auto._started(2**22 + 1) == 0
    assert _auto._started(1) > 0 or _auto._stat(1)[19] == "0"


# -------------------------------------------------------------------------------- ended servers


def dead_pid() -> int:
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def test_tables_of_ended_servers_are_removed(served: Server) -> None:
    namespace = _auto._pid_namespace()
    assert namespace > 0
    uid, alive, started = os.geteuid(), os.getpid(), _auto._started(os.getpid())
    ended = [
        f"auto-{uid}-{namespace}-{dead_pid()}-1",
        f"auto-{uid}-{namespace}-{alive}-{started + 1}",
        f"auto-{uid}-{namespace}-{dead_pid()}-0-hits64-keys64",
    ]
    kept = [
        f"auto-{uid}-{namespace}-{alive}-{started}",
        f"auto-{uid}-{namespace}-{alive}-0",  # its start could not be told: a process is there
        f"auto-{uid}-{namespace + 1}-{dead_pid()}-1",  # another container's
        f"auto-{uid + 1}-{namespace}-{dead_pid()}-1",  # another user's
        f"automatic-{uid}-{namespace}-{dead_pid()}-1",
        "auto-",
    ]
    try:
        for name in ended + kept:
            Table(f"shm://{name}?keys=8&hits=8").close()
        open_auto(keys=64)
        assert [name for name in ended if (SHM / f"weir.{name}").exists()] == []
        assert [name for name in kept if (SHM / f"weir.{name}").exists()] == kept
    finally:
        for name in ended + kept:
            (SHM / f"weir.{name}").unlink(missing_ok=True)


def test_no_shared_memory_to_look_into(served: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_auto, "SHARED_MEMORY", Path("/no/such/place"))
    assert open_auto(keys=64).check()


# --------------------------------------------------------------------------------------- uWSGI


def uwsgi(**members: Any) -> types.ModuleType:
    module = types.ModuleType("uwsgi")
    vars(module).update(members)
    return module


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"masterpid": lambda: 1, "numproc": 4}, "master"),
        ({"masterpid": lambda: 0, "numproc": 1, "worker_id": lambda: 1}, None),
        ({"masterpid": lambda: 0, "numproc": 4, "worker_id": lambda: 0}, "itself"),
        ({"masterpid": lambda: 0, "numproc": 4, "worker_id": lambda: 1}, "itself"),
        ({"masterpid": lambda: 0, "numproc": 4, "worker_id": lambda: 2}, "parent"),
        ({"masterpid": lambda: 1, "__file__": "/srv/app/uwsgi.py"}, None),
        ({}, None),
    ],
)
def test_uwsgi(
    members: dict[str, Any], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi(**members))
    servers = {
        "master": Server(1, _auto._started(1)),
        "itself": Server(os.getpid(), _auto._started(os.getpid())),
        "parent": Server(os.getppid(), _auto._started(os.getppid())),
    }
    assert _auto._uwsgi() == (servers[expected] if expected else None)


# ----------------------------------------------------------------------------- when we cannot tell


@pytest.mark.parametrize(
    ("name", "members", "warns"),
    [
        ("mod_wsgi", {"maximum_processes": 2}, True),
        ("mod_wsgi", {"maximum_processes": 1}, False),
        ("passenger_wsgi", {}, True),
    ],
)
def test_other_servers(
    name: str, members: dict[str, Any], warns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)
    if not warns:
        open_auto()
        return
    with pytest.warns(weir.WeirWarning, match=r'storage_uri="shm://name"') as caught:
        assert open_auto().uri == "memory://"
    assert len(caught) == 1
    open_auto()  # once is enough: a second warning would be an error here


def test_a_server_that_says_so() -> None:
    several = {"wsgi.multiprocess": True}
    private = open_auto()
    note_environ(private, {"wsgi.multiprocess": False})
    note_environ(private, {})
    note_environ(MemoryStorage(keys=64), several)  # was asked for by name
    note_environ(object(), several)
    with pytest.warns(weir.WeirWarning, match="says"):
        note_environ(private, several)
    note_environ(private, several)


def test_a_shared_table_is_no_reason_to_warn(served: Server) -> None:
    note_environ(open_auto(keys=64), {"wsgi.multiprocess": True})


def test_a_server_that_forks_after_the_storage_was_made() -> None:
    """Such as Werkzeug's with processes=4."""
    program = """
import http.server, socketserver, threading, urllib.request
import weir
store = weir.storage.storage_from_string("auto://")

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204)
        self.end_headers()
    def log_message(self, *arguments):
        pass

class Server(socketserver.ForkingMixIn, http.server.HTTPServer):
    pass

with Server(("127.0.0.1", 0), Handler) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for _ in range(3):
        urllib.request.urlopen("http://127.0.0.1:%d/" % server.server_address[1]).close()
    server.shutdown()
    thread.join()
"""
    done = run(program)
    assert done.stderr.count("WeirWarning") == 1
    assert "socketserver forks" in done.stderr
    quiet = run(program.replace('"auto://"', '"memory://"'))
    assert "WeirWarning" not in quiet.stderr, "was asked for by name"
    threads = run(program.replace("ForkingMixIn", "ThreadingMixIn"), "-W", "error")
    assert threads.stderr == ""


def test_warnings_are_shown_by_default() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        note_environ(open_auto(), {"wsgi.multiprocess": True})
    assert issubclass(caught[0].category, UserWarning)
    assert "Limits are counted by each process" in str(caught[0].message)
