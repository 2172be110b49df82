"""``weir top``: once, as a stream of JSON, and live on a terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click.testing
import pytest

import weir as package
from servers.load import hammering
from servers.terminal import Screen
from table_requests import hits

Weir = Callable[..., click.testing.Result]

SHM = Path("/dev/shm")


def test_top_once(weir: Weir, store: str, table: package.Table) -> None:
    hits(table, "203.0.113.7", 15)
    result = weir("top", "--once", "-s", store)
    assert result.exit_code == 0
    assert re.search(r"10 per 1 minute +0.0 +0.0 +10 +5 +3 +0", result.stdout)
    assert re.search(r"203.0.113.7 +10 per 1 minute +0.0 +0.0 +5 +10 ", result.stdout)
    assert re.search(r"keys +2 of 262,144", result.stdout)


def test_top_of_a_new_table(weir: Weir, store: str) -> None:
    package.Table(store)
    result = weir("top", "--once", "-s", store)
    assert (result.exit_code, "Limits: none yet" in result.stdout) == (0, True)


def test_top_json_reports_rates(weir_json: Any, store: str, table: package.Table) -> None:
    hits(table, "10.0.0.1", 2000)  # yesterday's
    with hammering(partial(hits, table, "203.0.113.7"), 0.005):
        answer = weir_json("top", "-s", store)
    assert answer["clients"][0]["client"] == "203.0.113.7", "the top_clients now comes first"
    assert answer["clients"][0]["denied_per_second"] > 1
    minute = next(one for one in answer["limits"] if one["limit"] == "10 per 1 minute")
    assert minute["denied_per_second"] > 1
    assert minute["denied"] >= 1990
    assert answer["health"]["table"]["evictions"] == 0
    assert 0.4 < answer["seconds"] < 60


def test_top_json_with_an_interval_is_a_stream(store: str, table: package.Table) -> None:
    arguments = ["top", "--json", "--interval", "0.1", "-s", store]
    with subprocess.Popen(
        [sys.executable, "-m", "weir", *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.terminate()
    assert lines[0]["time"] < lines[1]["time"] < lines[2]["time"]


def test_an_interrupted_stream_ends_quietly(store: str, table: package.Table) -> None:
    arguments = ["top", "--json", "--interval", "0.1", "-s", store]
    with subprocess.Popen(
        [sys.executable, "-m", "weir", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(2)
        assert process.wait(120) == 0
        assert process.stderr.read() == ""


def test_in_a_pipe_top_prints_once(store: str, table: package.Table) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "weir", "top", "-s", store],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "Top clients" in done.stdout


def test_the_live_view_shows_a_hammering_client_within_two_seconds(
    store: str, table: package.Table
) -> None:
    screen = Screen("top", "-s", store)
    waited: list[float] = []
    try:
        assert screen.until("Ctrl-C ends this view", 120), screen.seen
        # Once is enough: the machine may have been busy with something else.
        for number in range(100):
            client = f"203.0.113.{number}"
            assert client not in screen.seen
            with hammering(partial(hits, table, client), 0.005):
                began = time.monotonic()
                assert screen.until(client, 120), screen.seen
                waited.append(time.monotonic() - began)
            if waited[-1] < 2.0:
                break
    finally:
        code = screen.end()
    assert waited[-1] < 2.0, waited
    assert code == 0
    assert "\x1b[?1049l" in screen.seen, "the screen from before is there again"


def test_the_live_view_without_rich_names_the_package(
    store: str, table: package.Table, tmp_path: Path
) -> None:
    (tmp_path / "rich.py").write_text("raise ImportError('rich')\n")
    there = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(tmp_path), *([there] if there else [])])
    screen = Screen("top", "-s", store, env={"PYTHONPATH": path})
    assert screen.until("pip install rich", 120), screen.seen
    assert screen.end(key=b"") == 2


def test_tables_are_drawn_by_rich_on_a_terminal(store: str, table: package.Table) -> None:
    hits(table, "203.0.113.7", 15)
    screen = Screen("top", "--once", "-s", store)
    assert screen.until("recoveries", 120), screen.seen
    assert screen.end(key=b"") == 0
    assert "━" in screen.seen or "─" in screen.seen


def test_the_live_view_fits_its_terminal(store: str) -> None:
    table = package.Table(store)
    for number in range(40):
        for client in range(3):
            table.decide([package.Limit(1, number + 1, "hour")], f"192.0.2.{client}")
    hot = package.parse("1 per 100 day")
    table.register(hot, "", "/search")
    for _ in range(100):
        table.decide([hot], "203.0.113.7/search")
    screen = Screen("top", "-s", store)
    try:
        assert screen.until("Ctrl-C ends this view", 120), screen.seen
        first = screen.seen
    finally:
        screen.end()
    assert "203.0.113.7" in first
    assert "1 per 100 day" in first
    assert "evictions" in first
    assert first.count("\n") <= 41


def test_a_table_whose_server_has_gone_is_shown_as_removed(
    weir: Weir, weir_json: Any, store: str, table: package.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert weir_json("top", "-s", store)["health"]["removed"] is False
    monkeypatch.setattr("weir.cli.commands.top.time.sleep", lambda _: package.unlink(store))
    assert "its server has ended" in weir("top", "--once", "-s", store).stdout
