"""The timelines of the C tests, run through the extension."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

import timelines
import weir

TIMELINES = Path(__file__).parents[1] / "timelines.txt"
MODES = {"hit": weir.HIT, "test": weir.TEST, "refund": weir.REFUND}
NEVER = 2**63 - 1


def stories() -> Iterator[tuple[str, list[str]]]:
    head, lines = "", list[str]()
    for line in TIMELINES.read_text().splitlines():
        if line.startswith("= "):
            if head:
                yield head, lines
            head, lines = line[2:], []
        elif line.strip() and not line.startswith("#"):
            lines.append(line)
    yield head, lines


def whole_microseconds(head: str, lines: list[str]) -> bool:
    """Python distinguishes microseconds, and only until 2106."""
    strategy, _, delay, _ = head.split(" | ")
    if strategy == "leaky-bucket" and int(delay) % 1000:
        return False
    moments = [int(line.split()[0]) for line in lines]
    return all(moment % 1000 == 0 and moment < 2**32 * 10**9 for moment in moments)


STORIES = [story for story in stories() if whole_microseconds(*story)]


def seconds(ns: int) -> float:
    return math.inf if ns == NEVER else math.ceil(ns / 1000) / 1e6 if ns < 2**53 else exact(ns)


def exact(ns: int) -> float:
    return -(-ns // 1000) / 1e6


@pytest.mark.parametrize(("head", "lines"), STORIES, ids=[head for head, _ in STORIES])
def test_timeline(head: str, lines: list[str]) -> None:
    strategy, text, delay, _ = (part.strip() for part in head.split("|"))
    limit = weir.parse(text).replace(strategy=strategy)
    if strategy == "calendar-window":
        limit = limit.replace(tz=delay)
    if strategy == "leaky-bucket":
        limit = limit.replace(max_delay=int(delay) / 1e9)
    table = weir.Table("memory://?keys=64")
    for line in lines:
        question, _, answer = line.partition(" -> ")
        now, op, cost = question.split()
        allowed, remaining, reset_at, retry_after, delay_ns = map(int, answer.split())
        with mock.patch.object(time, "time", return_value=int(now) / 1e9):
            verdict = table.decide([limit], "key", [int(cost)], MODES[op])[0]
        # The largest number stands for any moment after time's end.
        reset = verdict.reset_at if reset_at == NEVER else exact(reset_at)
        wanted = (bool(allowed), remaining, reset, seconds(retry_after), seconds(delay_ns))
        assert (
            verdict.allowed,
            verdict.remaining,
            verdict.reset_at,
            verdict.retry_after,
            verdict.delay,
        ) == wanted, line


def test_the_file_is_what_the_models_answer() -> None:
    assert TIMELINES.read_text() == timelines.text(), "run tests/timelines.py"


def test_most_timelines_are_run_from_python() -> None:
    strategies = [head.split(" | ")[0] for head, _ in STORIES]
    assert {
        name: strategies.count(name) >= 15 for name in weir.strategies.STRATEGIES
    } == dict.fromkeys(weir.strategies.STRATEGIES, True)
