"""The load tests: each kind of client sees what it should, by wrk and by Locust."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

LOAD = Path(__file__).resolve().parents[2] / "bench" / "load.py"


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(LOAD), *arguments],
        env={**os.environ, "LOAD_WORK": "10"},  # a view that takes no time
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def table(printed: str) -> dict[str, tuple[int, int]]:
    """Requests admitted and denied, by kind."""
    rows = re.findall(r"^(\w+) +(\d+) +(\d+) +[\d.]+ +[\d.]+ +[\d.]+$", printed, re.MULTILINE)
    return {name: (int(admitted), int(denied)) for name, admitted, denied in rows}


def counts(*arguments: str) -> dict[str, tuple[int, int]]:
    """Those of a run in which each kind was admitted, and the hammering client denied."""
    for seconds in (2, 4, 8, 16, 32):  # on a busy machine, two can be too few for one kind
        rows = table(run(*arguments, "--seconds", str(seconds)))
        if all(admitted for admitted, _ in rows.values()) and rows["hammering"][1] > 0:
            break
    assert list(rows) == ["polite", "bursting", "hammering"]
    assert all(admitted for admitted, _ in rows.values())
    assert rows["hammering"][1] > 0
    return rows


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
def test_wrk_drives_all_kinds_of_clients() -> None:
    # One client that sends many requests, twenty that burst, a thousand polite ones.
    rows = counts("clients", "--limit", "5 per day")
    assert rows["polite"][1] == 0  # no client sends a sixth request
    assert 0 < rows["hammering"][0] <= 5
    assert 0 < rows["bursting"][0] <= 20 * 5


@pytest.mark.skipif(find_spec("locust") is None, reason="Locust is not installed")
def test_locust_drives_all_kinds_of_clients() -> None:
    rows = counts("locust", "--limit", "2 per day", "--users", "10")
    assert 0 < rows["hammering"][0] <= 2  # it is one client
