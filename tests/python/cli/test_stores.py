"""Commands about a table: ``tables``, ``top``, ``show``, ``reset``, and which store is meant."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import pytest

import weir as package
from table_requests import LIMIT, hits
from weir.cli import discover as found
from weir.stores import auto

Weir = Callable[..., click.testing.Result]

SHM = Path("/dev/shm")


# ----------------------------------------------------------------------------- which store is meant


@pytest.mark.parametrize("command", [["top", "--once"], ["show", "me"], ["reset", "me"], ["rules"],
                                     ["block", "me", "--for", "1h"], ["unlist", "me"]])  # fmt: skip
@pytest.mark.parametrize(
    ("uri", "code", "advice"),
    [
        ("shm://test-cli-missing", 3, "weir tables"),
        ("file:///nowhere/at/all", 3, "there is no table"),
        ("memory://", 4, "shm://name"),
        ("orders", 2, "is not a URI"),
        ("ftp://orders", 2, "one of shm://"),
        ("shm://", 2, "needs a name"),
    ],
)
def test_a_store_that_is_not_there(
    weir: Weir, command: list[str], uri: str, code: int, advice: str
) -> None:
    result = weir(*command, "-s", uri)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("weir: ")
    assert advice in result.stderr
    assert not (SHM / "weir.test-cli-missing").exists(), "a peek created it"


@pytest.mark.parametrize(
    ("uri", "code", "text"),
    [
        ("shm://test-cli-missing", 4, "nothing to create: shm://"),
        ("file:///nowhere/at/all", 4, "nothing to create: file://"),
        ("memory://", 4, "nothing to create: memory://"),
        ("redis://127.0.0.1:1/0", 4, "nothing to create: redis://"),
        ("postgresql://127.0.0.1:1/shop", 3, "no answer within"),
        ("orders", 2, "begins with its scheme"),
        ("ftp://orders", 2, "ftp"),
    ],
)
def test_store_init_creates_no_table(weir: Weir, uri: str, code: int, text: str) -> None:
    result = weir("store", "init", "-s", uri)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert text in result.stderr
    assert not (SHM / "weir.test-cli-missing").exists()


def test_store_init_of_an_existing_table_changes_nothing(weir: Weir, store: str) -> None:
    result = weir("store", "init", "-s", store)
    assert (result.exit_code, result.stdout) == (4, ""), result.output


def test_the_store_can_be_set_in_three_places(
    weir: Weir, store: str, table: package.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    hits(table, "10.0.0.1")
    arguments = ["top", "--json"]
    assert json.loads(weir(*arguments, "-s", store).stdout)["store"] == store
    assert json.loads(weir("-s", store, *arguments).stdout)["store"] == store
    monkeypatch.setenv("WEIR_STORE", store)
    assert json.loads(weir(*arguments).stdout)["store"] == store
    assert weir(*arguments, "-s", "shm://test-cli-missing").exit_code == 3, "the nearest counts"


def servers(monkeypatch: pytest.MonkeyPatch, *running: str) -> None:
    def tables() -> list[found.Found]:
        return [
            found.Found(uri.removeprefix("shm://"), 7 + i, f"gunicorn {i}", 4, 0.0, True, True)
            for i, uri in enumerate(running)
        ] + [found.Found("old", None, "", 0, 0.0, True, True)]

    monkeypatch.setattr("weir.cli.open_store.tables", tables)


def test_the_only_servers_table_is_meant(
    weir: Weir, store: str, table: package.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers(monkeypatch, store)
    for options in ([], ["-s", "auto://"]):
        assert json.loads(weir("top", "--json", *options).stdout)["store"] == store


def test_of_several_servers_none_is_guessed(weir: Weir, monkeypatch: pytest.MonkeyPatch) -> None:
    servers(monkeypatch, "shm://a", "shm://b")
    result = weir("top", "--once")
    assert result.exit_code == 3
    assert "--store shm://a   gunicorn 0" in result.stderr
    assert "--store shm://b   gunicorn 1" in result.stderr
    assert "old" not in result.stderr


def test_without_a_server_the_error_suggests_an_option(
    weir: Weir, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers(monkeypatch)
    result = weir("top", "--once")
    assert (result.exit_code, "--store URI" in result.stderr) == (3, True)


def test_tables_of_another_user_are_reported(weir: Weir, monkeypatch: pytest.MonkeyPatch) -> None:
    servers(monkeypatch)
    monkeypatch.setattr("weir.cli.open_store.other_users", lambda: ["www-data"])
    assert "sudo -u www-data weir" in weir("top", "--once").stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_whose_a_table_is(store: str, table: package.Table) -> None:
    os.chown(SHM / f"weir.{store.removeprefix('shm://')}", 33, 33)
    assert found.other_users()
    assert store not in [one.uri for one in found.tables()]


def test_a_table_that_is_none_is_an_error(weir: Weir, tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("not a table" * 1000)
    result = weir("show", "me", "-s", f"file://{other}")
    assert (result.exit_code, result.stdout) == (3, "")
    assert other.read_text() == "not a table" * 1000


# ------------------------------------------------------------------------------------------ tables


def test_tables_lists_what_is_there(weir: Weir, weir_json: Any, store: str) -> None:
    def mine() -> dict[str, Any] | None:
        return next((t for t in weir_json("tables")["tables"] if t["store"] == store), None)

    assert mine() is None
    opened = package.Table(f"{store}?keys=800")
    hits(opened, "10.0.0.1")
    seen = mine()
    assert seen is not None
    assert (seen["table"]["keys"], seen["table"]["keys_max"]) == (2, 800)
    assert (seen["server"], seen["running"], seen["problem"]) == (None, False, None)
    assert 0 <= seen["age"] < 600
    assert re.search(rf"{store} +not in use +2 +800", weir("tables").stdout)


def test_a_table_that_a_process_has_open_is_in_use(weir_json: Any, store: str) -> None:
    code = f"import weir; t = weir.Table({store!r}); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (seen,) = [t for t in weir_json("tables")["tables"] if t["store"] == store]
        assert (seen["users"], seen["running"]) == (1, True)
        assert process.stdin is not None
        process.stdin.close()


def test_a_servers_table_is_found_by_its_process(weir_json: Any) -> None:
    me = auto.Server(os.getpid(), auto._started(os.getpid()))
    folder = auto._own_folder()
    assert folder is not None
    names = [
        f"{folder.name[5:]}/{namespace}-{me.pid}-{started}-{'0' * 12}"
        for namespace, started in (
            (auto._pid_namespace(), me.started),
            (auto._pid_namespace(), me.started - 1),
            (1, me.started),
        )
    ]
    try:
        for name in names:
            package.Table(f"shm://{name}?keys=80").close()
        seen = {t["store"]: t for t in weir_json("tables")["tables"]}
        mine, ended, elsewhere = (seen[f"shm://{name}"] for name in names)
        assert (mine["server"], mine["running"]) == (me.pid, True)
        assert "python" in mine["command"]
        assert (ended["server"], ended["running"]) == (None, False)
        assert not elsewhere["running"]
        assert elsewhere["problem"] == "belongs to another container"
    finally:
        for name in names:
            (SHM / f"weir.{name}").unlink(missing_ok=True)


def test_a_damaged_table_is_listed_with_what_is_wrong(weir_json: Any, store: str) -> None:
    place = SHM / f"weir.{store.removeprefix('shm://')}"
    place.touch(0o600)
    place.write_bytes(b"x" * 10000)
    (seen,) = [t for t in weir_json("tables")["tables"] if t["store"] == store]
    assert seen["table"] is None
    assert "not a weir table" in seen["problem"]


# ------------------------------------------------------------------------------------ show, reset


def test_show_lists_what_a_client_has_used(
    weir: Weir, weir_json: Any, store: str, table: package.Table
) -> None:
    hits(table, "10.0.0.1", 14)
    hits(table, "10.0.0.2", 3)
    answer = weir_json("show", "10.0.0.1", "-s", store)
    assert answer["client"] == "10.0.0.1"
    assert [
        (one["limit"], one["used"], one["remaining"], one["scope"]) for one in answer["limits"]
    ] == [
        ("10 per 1 minute", 10, 0, "search"),
        ("100 per 1 hour", 10, 90, "search"),
    ]
    assert answer["limits"][1]["strategy"] == "moving-window"
    assert answer["rule"] is None
    assert answer["place"] == {"denied": 1, "allowed": 1}
    assert weir_json("show", "10.0.0.2", "-s", store)["place"] == {"denied": None, "allowed": 2}
    counted = {one["limit"]: (one["allowed"], one["denied"]) for one in answer["counted"]}
    assert counted["10 per 1 minute"] == (10, 4)
    plain = weir("show", "10.0.0.1", "-s", store).stdout
    assert re.search(r"10 per 1 minute +search +10 +0 +in ", plain)
    assert "number 1 by denied requests" in plain
    again = weir_json("show", "10.0.0.1", "-s", store)
    assert [one["used"] for one in again["limits"]] == [10, 10], "a peek charges nothing"


@pytest.mark.parametrize("client", ["ann/../%2F", "käthe", "a b", "key\x1b[2J"])
def test_clients_are_named_as_the_key_function_does(
    weir: Weir, weir_json: Any, store: str, table: package.Table, client: str
) -> None:
    hits(table, client, 4)
    assert [one["used"] for one in weir_json("show", client, "-s", store)["limits"]] == [4, 4]
    assert weir_json("show", client, "-s", store)["place"]["allowed"] == 1
    assert "\x1b" not in weir("show", client, "-s", store).output
    assert weir("reset", client, "-s", store).exit_code == 0
    assert [one["used"] for one in weir_json("show", client, "-s", store)["limits"]] == [0, 0]


def test_a_client_that_is_no_address_is_found_by_its_hash(
    weir: Weir, weir_json: Any, store: str, table: package.Table
) -> None:
    hits(table, "api-key-of-ann", 12)
    name = table.name_of("api-key-of-ann")
    assert name.startswith("#")
    answer = weir_json("show", name, "-s", store)
    assert answer["place"]["denied"] == 1
    assert answer["limits"] == []
    assert "pass the client itself" in weir("show", name, "-s", store).stderr
    assert "api-key-of-ann" not in weir("top", "--once", "-s", store).output
    assert weir("reset", name, "-s", store).exit_code == 1


def test_a_client_without_requests(weir: Weir, weir_json: Any, store: str, table: Any) -> None:
    answer = weir_json("show", "10.9.9.9", "-s", store)
    assert answer["place"] == {"denied": None, "allowed": None}
    assert "Not among the top clients" in weir("show", "10.9.9.9", "-s", store).stdout


def test_all_storages_of_one_server_are_read(weir_json: Any, store: str, table: Any) -> None:
    second = package.Table(store, namespace=1)
    second.register(LIMIT, "", "/other")
    second.decide([LIMIT], "10.0.0.1/other")
    limits = weir_json("show", "10.0.0.1", "-s", store)["limits"]
    assert {one["scope"]: one["used"] for one in limits} == {"search": 0, "other": 1}


def test_reset_clears_one_client_only(
    weir: Weir, weir_json: Any, store: str, table: package.Table
) -> None:
    hits(table, "10.0.0.1", 12)
    hits(table, "10.0.0.2", 12)
    answer = weir_json("reset", "10.0.0.1", "-s", store)
    assert [one["used"] for one in answer["cleared"]] == [10, 10]
    used = {
        client: [one["used"] for one in weir_json("show", client, "-s", store)["limits"]]
        for client in ("10.0.0.1", "10.0.0.2")
    }
    assert used == {"10.0.0.1": [0, 0], "10.0.0.2": [10, 10]}
    hits(table, "10.0.0.1", 1)
    assert table.decide([LIMIT], "10.0.0.1/search").allowed


def test_reset_without_a_registered_limit_is_reported(weir: Weir, store: str) -> None:
    package.Table(store)
    result = weir("reset", "10.0.0.1", "-s", store)
    assert (result.exit_code, "no limit is registered" in result.stderr) == (1, True)


def test_file_tables(weir_json: Any, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/with%20blank"
    table = package.Table(uri)
    table.register(LIMIT, "", "/search")
    table.decide([LIMIT], "10.0.0.1/search")
    assert weir_json("show", "10.0.0.1", "-s", uri)["limits"][0]["used"] == 1


def test_limits_of_a_program_without_flask(weir: Weir, weir_json: Any, store: str) -> None:
    table = package.Table(store)
    limiter = package.strategies.MovingWindowRateLimiter(table)
    item = package.parse("10/minute")
    for _ in range(4):
        limiter.hit(item, "ann", "login")
    options = ("--limit", "10/minute", "--strategy", "moving-window", "--scope", "login")
    (limit,) = weir_json("show", "ann", *options, "-s", store)["limits"]
    assert (limit["used"], limit["scope"], limit["strategy"]) == (4, "login", "moving-window")
    assert weir_json("show", "ann", *options[:4], "-s", store)["limits"][0]["used"] == 0
    assert weir("reset", "ann", *options, "-s", store).exit_code == 0
    assert limiter.get_window_stats(item, "ann", "login").remaining == 10
    assert "with --limit" in weir("show", "ann", "-s", store).stderr
    assert weir("show", "ann", "--scope", "login", "-s", store).exit_code == 2
    assert weir("show", "ann", "--limit", "ten", "-s", store).exit_code == 2


def test_the_table_beside_a_remote_store_is_not_mistaken_for_it(weir: Weir) -> None:
    name = f"test-cli-{uuid.uuid4()}-stats123"
    try:
        package.Table(f"shm://{name}?keys=800")
        for command in (["show", "me"], ["reset", "me"], ["block", "me", "--for", "1h"]):
            result = weir(*command, "-s", f"shm://{name}")
            assert (result.exit_code, "pass its URI" in result.stderr) == (4, True)
        assert weir("top", "--once", "-s", f"shm://{name}").exit_code == 0
    finally:
        (SHM / f"weir.{name}").unlink(missing_ok=True)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_names_that_the_terminal_cannot_show(
    store: str, table: package.Table, encoding: str
) -> None:
    for client in (b"k\xc3\xa4the \xe2\x98\x83", b"no utf-8: \xff"):
        for command in (["show"], ["show", "--json"], ["block", "--for", "1h"], ["reset"]):
            arguments: list[str | bytes] = [sys.executable, "-m", "weir", *command, client]
            done = subprocess.run(
                [*arguments, "-s", store],
                capture_output=True,
                timeout=300,
                env={**os.environ, "PYTHONIOENCODING": encoding},
            )
            assert (done.returncode, done.stderr) == (0, b""), command
            assert done.stdout
