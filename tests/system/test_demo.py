"""The demo: a real server, four workers, exactly ten of fifteen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("time", range(5))
def test_demo_passes_every_time(time: int) -> None:
    run = subprocess.run(
        [sys.executable, str(ROOT / "script" / "demo.py")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, f"time {time}:\n{run.stdout}{run.stderr}"
    assert "10 x 200, 5 x 429" in run.stdout


@pytest.mark.parametrize("name", ["setup", "demo", "serve", "test", "bench", "pythons", "wheels"])
def test_every_script_has_help(name: str) -> None:
    run = subprocess.run(
        [str(ROOT / "script" / name), "--help"], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0
    assert f"usage: script/{name}" in run.stdout
