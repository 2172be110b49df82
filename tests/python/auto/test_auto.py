"""auto://: which workers share a table, and the message if that cannot be determined.

These tests cover the rules; those in tests/system run real servers.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import weir
from weir import Limit, Table
from weir.storage import MemoryStorage, storage_from_string
from weir.stores import auto, server_process
from weir.stores.auto import Server, note_environ, open_auto

SHM = Path("/dev/shm")
ONCE = Limit(1, 1, "day")


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
def test_a_script_gets_no_warning(imports: str) -> None:
    done = run(SCRIPT.format(imports=imports), "-W", "error")
    assert (done.stdout, done.stderr) == ("", "")


def test_forked_children_of_a_script_share_its_table() -> None:
    """By multiprocessing, ProcessPoolExecutor, os.fork(); a subprocess is a separate program."""
    program = (
        SCRIPT.format(imports="concurrent.futures, multiprocessing, subprocess")
        + """
limiter = weir.RateLimiter(store, "fixed-window")
item = weir.parse("10/day")

def hit(n):
    return limiter.hit(item, "a")

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    with context.Pool(3) as pool:
        admitted = sum(pool.map(hit, range(12)))
    with concurrent.futures.ProcessPoolExecutor(3, context) as pool:
        admitted += sum(pool.map(hit, range(12)))
    if os.fork() == 0:
        os._exit(hit(0))
    admitted += os.waitstatus_to_exitcode(os.wait()[1])
    print(admitted + hit(0))
"""
    )
    done = run(program, "-W", "error")
    assert (done.stdout, done.stderr) == ("10\n", "")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_spawned_children_share_a_table_and_warn(method: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        f"""
import multiprocessing, weir

def hit(n):
    global limiter
    if n == 0 or "limiter" not in globals():
        limiter = weir.RateLimiter(
            weir.storage.storage_from_string("auto://?keys=64"), "fixed-window"
        )
    return limiter.hit(weir.parse("10/day"), "a")

if __name__ == "__main__":
    with multiprocessing.get_context({method!r}).Pool(3) as pool:
        print(sum(pool.map(hit, range(1, 40), chunksize=1)))
"""
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "10\n"
    assert "not with the process that started them" in done.stderr


def test_processes_of_an_application_find_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spawned processes inherit only the environment."""
    me = server_process._itself()
    monkeypatch.setattr(server_process, "_multiprocessing_parent", os.getppid)
    server_process.note_server(me)
    assert server_process._of_application() == me
    parent = server_process._parent()
    assert parent is not None
    for note in (f"1-{me.pid}-{me.started}", f"{auto._pid_namespace()}-{me.pid}-1", "x", "9" * 99):
        monkeypatch.setenv("WEIR_SERVER", note)
        assert server_process._of_application() == parent._replace(alone=True)


@pytest.mark.skipif(not find_spec("gunicorn"), reason="gunicorn is not installed")
def test_a_module_of_gunicorn_is_no_server() -> None:
    program = """
import gunicorn.arbiter, os, weir
from weir.stores import auto
# A program that may run the arbiter later: the table is its own, and its children's.
assert auto.server() == auto.Server(os.getpid(), auto._started(os.getpid()))
# Its forked child belongs to it.
if os.fork() == 0:
    os._exit(0 if auto.server() == auto.Server(os.getppid(), auto._started(os.getppid())) else 1)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
"""
    run(program)


# ------------------------------------------------------------------------------------- a server


def test_the_workers_of_a_server_share_a_table(served: Server) -> None:
    store = storage_from_string("auto://?keys=64")
    assert isinstance(store, Table)
    assert re.fullmatch(
        rf"shm://auto-{os.geteuid()}/\d+-{served.pid}-{served.started}-[0-9a-f]{{12}}-keys64\?keys=64",
        store.uri,
    )
    assert store.decide([ONCE], "a").allowed
    child = os.fork()
    if child == 0:  # another worker, which opens it for itself
        auto._made.clear()
        os._exit(storage_from_string("auto://?keys=64").decide([ONCE], "a").allowed)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "already hit"


def test_storages_of_one_process_are_numbered(served: Server) -> None:
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


def test_a_process_is_identified_by_its_start_time(served: Server) -> None:
    assert served.started > 0
    assert auto._started(2**22 + 1) == 0
    assert auto._started(1) > 0 or server_process._stat(1)[19] == "0"


# ------------------------------------------------------------------------------------ applications


class App:
    """What distinguishes an application is passed beside it."""


def test_applications_of_one_server_share_nothing(served: Server) -> None:
    apps = {name: App() for name in ("shop", "bank")}

    def table(name: str, prefix: str = "") -> Table:
        with auto.application(apps[name], name, prefix):
            return open_auto(keys=64)

    # Two workers that make them in another order.
    one = {name: table(name) for name in ("shop", "bank")}
    auto._made.clear()
    two = {name: table(name) for name in ("bank", "shop")}
    assert {name: store.uri for name, store in one.items()} == {n: s.uri for n, s in two.items()}
    for name in apps:
        assert one[name].decide([ONCE], "a").allowed
        assert not two[name].decide([ONCE], "a").allowed
    one["shop"].block("a")
    one["shop"].reset()
    assert one["bank"].rule_of("a") is None
    assert not one["bank"].decide([ONCE], "a").allowed, "a reset of the shop is not the bank's"
    auto._made.clear()
    assert table("shop", "v2:").uri != one["shop"].uri


def test_applications_on_one_remote_store_have_separate_stats_tables(served: Server) -> None:
    def stats_table(prefix: str) -> Table:
        with auto.application(self, "shop", prefix):
            return auto.open_stats_table("auto://?keys=64", "redis://localhost", counts=True)

    self = App()
    first, second, again = stats_table("a:"), stats_table("b:"), stats_table("a:")
    first.block("ann")
    assert first.decide([ONCE], "k").allowed
    assert second.rule_of("ann") is None
    assert second.decide([ONCE], "k").allowed
    assert again.rule_of("ann") is not None
    assert not again.decide([ONCE], "k").allowed


def test_applications_that_cannot_be_distinguished_are_a_warning(served: Server) -> None:
    first, second = App(), App()
    with auto.application(first, "tenant"):
        open_auto(keys=64)
        open_auto(keys=64)  # two limiters of one application
    with auto.application(second, "tenant"), pytest.warns(weir.WeirWarning, match="distinguished"):
        open_auto(keys=64)


def test_functions_that_open_a_storage_are_applications(served: Server) -> None:
    def shop() -> Table:
        return storage_from_string("auto://?keys=64")  # type: ignore[return-value]

    def bank() -> Table:
        return storage_from_string("auto://?keys=64")  # type: ignore[return-value]

    assert shop().uri != bank().uri
    assert shop().namespace == 1


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
        "master": Server(1, auto._started(1)),
        "itself": Server(os.getpid(), auto._started(os.getpid())),
        "parent": Server(os.getppid(), auto._started(os.getppid())),
    }
    assert server_process._uwsgi() == (servers[expected] if expected else None)


# ------------------------------------------------------------------------------ when it is unknown


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


def test_wsgi_multiprocess_is_a_warning() -> None:
    several = {"wsgi.multiprocess": True}
    private = open_auto()
    note_environ(private, {"wsgi.multiprocess": False})
    note_environ(private, {})
    note_environ(MemoryStorage(keys=64), several)  # was named explicitly
    note_environ(object(), several)
    with pytest.warns(weir.WeirWarning, match="wsgi.multiprocess"):
        note_environ(private, several)
    note_environ(private, several)


def test_one_process_of_mod_wsgi_is_no_reason_to_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``processes=1`` it reports that there may be several."""
    module = types.ModuleType("mod_wsgi")
    vars(module)["maximum_processes"] = 1
    monkeypatch.setitem(sys.modules, "mod_wsgi", module)
    note_environ(open_auto(), {"wsgi.multiprocess": True})
    monkeypatch.setitem(sys.modules, "mod_wsgi", types.ModuleType("mod_wsgi"))  # the installer
    open_auto()


def test_a_shared_table_is_no_reason_to_warn(served: Server) -> None:
    note_environ(open_auto(keys=64), {"wsgi.multiprocess": True})


def test_a_server_that_forks_after_the_storage_was_made_shares_it() -> None:
    """Such as Werkzeug's with processes=4."""
    program = """
import http.server, socketserver, threading, urllib.error, urllib.request
import weir
limiter = weir.RateLimiter(weir.storage.storage_from_string("auto://"), "fixed-window")

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204 if limiter.hit(weir.parse("2/day"), "a") else 429)
        self.end_headers()
    def log_message(self, *arguments):
        pass

class Server(socketserver.ForkingMixIn, http.server.HTTPServer):
    pass

with Server(("127.0.0.1", 0), Handler) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for _ in range(4):
        try:
            url = "http://127.0.0.1:%d/" % server.server_address[1]
            print(urllib.request.urlopen(url).status)
        except urllib.error.HTTPError as error:
            print(error.code)
    server.shutdown()
    thread.join()
"""
    done = run(program, "-W", "error")
    assert done.stdout.split() == ["204", "204", "429", "429"]


def test_warnings_are_shown_by_default() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        note_environ(open_auto(), {"wsgi.multiprocess": True})
    assert issubclass(caught[0].category, UserWarning)
    assert "Each process counts limits separately" in str(caught[0].message)
