"""The time of tests: a clock that stands still."""

from __future__ import annotations

import time

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
