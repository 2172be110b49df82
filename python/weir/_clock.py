"""Clocks that freezegun, time-machine and the like do not move."""

from __future__ import annotations

import time

__all__ = ["monotonic", "true_time"]


def monotonic() -> float:
    """Seconds on the monotonic clock, even if a test has stopped ``time.monotonic()``."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def true_time() -> float:
    """Seconds since the epoch by the machine's clock, even if a test moves ``time.time()``."""
    return time.clock_gettime(time.CLOCK_REALTIME)
