"""The time of tests: a clock that stands still, and a zone in which no day ends soon."""

from __future__ import annotations

import os
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest


class Clock:
    """A time in seconds, which stands still unless it is moved. Calling it returns the time."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


def stop_clock(monkeypatch: pytest.MonkeyPatch, now: float) -> Clock:
    """Put a clock in place of ``time.time()`` until the end of the test."""
    clock = Clock(now)
    monkeypatch.setattr(time, "time", clock)
    return clock


def stop_clock_of_programs(directory: Path, now: float) -> dict[str, str]:
    """Variables of an environment in which ``time.time()`` of each Python program stands still.

    directory: an empty one, where Python finds the module that stops it.
    """
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(f"import time\ntime.time = lambda: {now!r}\n")
    others = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(directory), *([others] if others else [])])}


def noon_zone() -> str:
    """An offset from UTC by which it is noon, for calendar windows by a true clock."""
    now = datetime.now(timezone.utc)
    minutes = 12 * 60 - (now.hour * 60 + now.minute)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
