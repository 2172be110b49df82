"""Writes tests/timelines.txt: python3 tests/timelines.py > tests/timelines.txt

``timelines-requests.txt`` has limits and sequences of requests. The models of ``models.py`` compute
what each request must answer; a person checks it once, and from then on it stands in the file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from models import MAX, MODELS, UNITS, Calendar, S, apply

REQUESTS = Path(__file__).with_name("timelines-requests.txt")

HEADER = """\
# Timelines of every strategy: requests in order, and what each must answer.
#
#   = <strategy> | <limit> | <max_delay_ns> | <what it shows>      begins a timeline with a fresh key
#   <now_ns> <op> <cost> -> <allowed> <remaining> <reset_at_ns> <retry_after_ns> <delay_ns>
#
# op: hit     charges if allowed
#     test    charges nothing and changes nothing (cost 0: a look at the counters)
#     refund  gives cost back; always allowed
# Times are integers in nanoseconds since the epoch. retry_after 9223372036854775807: never.
# The limit is a limit string; a leaky bucket's max_delay_ns is given, else it is 0. Of a calendar window, the
# third part is its zone instead: UTC, +05:30, Europe/Berlin or America/Sao_Paulo.
# Blank lines and lines that begin with # are ignored. tests/timelines.py makes this file from
# tests/timelines-requests.txt.
"""

T0 = 1_700_000_000 * S  # a day in 2023: 14 November, 22:13:20 UTC
COSTS = {"max": MAX, "max-1": MAX - 1, "max/2": MAX // 2}


class Request(NamedTuple):
    """One line: when it comes, in nanoseconds since the epoch, its mode, and its cost."""

    now: int
    op: str
    cost: int


class Timeline(NamedTuple):
    strategy: str
    limit: str
    #: A leaky bucket's max_delay in nanoseconds, or a calendar window's zone.
    option: str
    title: str
    requests: list[Request]


def moment(text: str) -> int:
    """A time of the file, in nanoseconds since the epoch."""
    if text.startswith("@"):
        return int(text[1:])
    if text.endswith("Z"):
        whole, _, part = text.removesuffix("Z").partition(".")
        seconds = datetime.fromisoformat(whole).replace(tzinfo=timezone.utc).timestamp()
        return int(seconds) * S + int(part.ljust(9, "0"))
    return int(T0 + Fraction(text) * S)


def requests(line: str) -> list[Request]:
    """A line of the file: a request, as often as it comes."""
    when, op, cost, *times = line.split()
    request = Request(moment(when), op, COSTS[cost] if cost in COSTS else int(cost))
    return [request] * int(times[0].removeprefix("x") if times else 1)


def blocks() -> Iterator[Timeline]:
    """The timelines as they stand in the file."""
    block: Timeline | None = None
    for line in REQUESTS.read_text().splitlines():
        if line.startswith("= "):
            if block:
                yield block
            strategy, limit, option, title = line[2:].split(" | ")
            block = Timeline(strategy, limit, option, title, [])
        elif line and not line.startswith("#"):
            assert block, line
            block.requests.extend(requests(line))
    if block:
        yield block


def timelines(strategy: str) -> Iterator[Timeline]:
    """Those of a strategy."""
    for block in blocks():
        if block.strategy not in (strategy, "every"):
            continue
        options = block.option.split(", ")
        if block.strategy == "every" and strategy != "leaky-bucket":
            options = ["UTC" if strategy == "calendar-window" else "0"]
        for option in options:
            yield block._replace(strategy=strategy, option=option)


def model_of(timeline: Timeline) -> object:
    words = re.fullmatch(r"(\d+) per (?:(\d+) )?([a-z]+?)s?(?: burst (\d+))?", timeline.limit)
    assert words, timeline.limit
    amount, multiples, unit, burst = words.groups()
    if timeline.strategy == "calendar-window":
        return Calendar(int(amount), int(multiples or 1), unit, timeline.option)
    period = int(multiples or 1) * UNITS[unit] * S
    return MODELS[timeline.strategy](int(amount), period, int(burst or 0), int(timeline.option))


def lines(timeline: Timeline) -> Iterator[str]:
    """The timeline with its answers."""
    model = model_of(timeline)
    yield "= " + " | ".join(timeline[:4])
    for now, op, cost in timeline.requests:
        answer = apply(model, now, op, cost)
        yield f"{now} {op} {cost} -> " + " ".join(str(int(number)) for number in answer)


def text() -> str:
    """The whole of timelines.txt."""
    written = [HEADER]
    for strategy in MODELS:
        for timeline in timelines(strategy):
            written += [*lines(timeline), ""]
    return "\n".join(written)


if __name__ == "__main__":
    sys.stdout.write(text())
