"""Writes tests/timelines.txt: python3 tests/timelines.py > tests/timelines.txt

A story is a limit and a sequence of requests. The models of ``models.py`` compute what each request
must answer; a person checks it once, and from then on it stands in the file.

>>> story = Story("moving-window", "2 per minute", "0", "")
>>> story.ask(0, "hit", 1)
'0 hit 1 -> 1 1 60000000000 0 0'
"""

from __future__ import annotations

import re
import sys
from datetime import datetime, timezone
from fractions import Fraction

from models import MAX, MODELS, SKEW, UNITS, Calendar, S, ask

LATEST = 2**62

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
# Blank lines and lines that begin with # say nothing. Made by tests/timelines.py.
"""


class Story:
    def __init__(self, strategy, limit, delay, title):
        words = re.fullmatch(r"(\d+) per (?:(\d+) )?([a-z]+?)s?(?: burst (\d+))?", limit)
        amount, multiples, unit, burst = words.groups()
        period = int(multiples or 1) * UNITS[unit] * S
        if strategy == "calendar-window":
            self.model = Calendar(int(amount), int(multiples or 1), unit, delay)
        else:
            self.model = MODELS[strategy](int(amount), period, int(burst or 0), int(delay))
        self.head = f"= {strategy} | {limit} | {delay or 0} | {title}"
        self.period = period

    def ask(self, now, op, cost=1):
        answer = ask(self.model, now, op, cost)
        return f"{now} {op} {cost} -> " + " ".join(str(int(number)) for number in answer)


T0 = 1_700_000_000 * S  # a day in 2023: 14 November, 22:13:20 UTC


def stories(strategy):
    """(limit, max_delay, title, [(seconds after T0 or an absolute "=ns", op, cost)])"""
    delays = ["0"] if strategy != "leaky-bucket" else ["0", "500000000", "6000000000"]
    for delay in delays:
        yield (
            "1 per second",
            delay,
            "one, then the same again a second later",
            [
                (0, "hit", 1),
                (0, "hit", 1),
                (Fraction(999_999_999, S), "hit", 1),
                (1, "hit", 1),
                (1, "hit", 1),
            ],
        )
        yield (
            "10 per minute",
            delay,
            "ten at once, the eleventh must wait",
            [
                *[(0, "hit", 1)] * 11,
                (Fraction(1, S), "hit", 1),
                (6, "hit", 1),
                (12, "hit", 1),
                (59, "hit", 1),
                (60, "hit", 1),
                (66, "hit", 1),
            ],
        )
    yield (
        "5 per minute",
        "0",
        "evenly spread, never denied",
        [(12 * i, "hit", 1) for i in range(12)],
    )
    yield (
        "5 per minute",
        "0",
        "looks and tests change nothing",
        [
            (0, "test", 0),
            (0, "test", 1),
            (0, "test", 5),
            (0, "test", 6),
            (0, "hit", 1),
            (0, "test", 0),
            (1, "test", 4),
            (1, "test", 5),
            (1, "test", 0),
            (2, "hit", 1),
        ],
    )
    yield (
        "10 per minute",
        "0",
        "costs above one",
        [
            (0, "hit", 4),
            (1, "hit", 3),
            (2, "hit", 4),
            (3, "hit", 3),
            (4, "hit", 1),
            (30, "hit", 5),
            (60, "hit", 4),
            (61, "hit", 3),
            (90, "hit", 10),
        ],
    )
    yield (
        "10 per minute",
        "0",
        "a cost above the limit never passes and charges nothing",
        [
            (0, "hit", 11),
            (0, "hit", MAX),
            (0, "test", 11),
            (0, "hit", 10),
            (0, "hit", 11),
            (60, "hit", 10),
        ],
    )
    yield (
        "10 per minute",
        "0",
        "cost 0 is always allowed",
        [
            (0, "hit", 0),
            (0, "hit", 10),
            (0, "hit", 0),
            (0, "test", 0),
            (0, "hit", 1),
            (0, "hit", 0),
        ],
    )
    yield (
        "0 per minute",
        "0",
        "an amount of 0 lets nothing through but cost 0",
        [(0, "hit", 1), (0, "hit", 0), (0, "test", 1), (0, "refund", 5), (60, "hit", 1)],
    )
    yield (
        "3 per 2 seconds",
        "0",
        "the last ns of a period and the first after it",
        [
            (0, "hit", 3),
            (Fraction(2 * S - 1, S), "hit", 1),
            (2, "hit", 1),
            (Fraction(2 * S + 1, S), "hit", 2),
            (Fraction(4 * S - 1, S), "hit", 1),
            (4, "hit", 1),
            (Fraction(4 * S + 1, S), "hit", 2),
        ],
    )
    yield (
        "7 per second",
        "0",
        "a limit that does not divide its period",
        [
            *[(Fraction(i, 7), "hit", 1) for i in range(8)],
            (Fraction(8, 7), "hit", 7),
            (2, "hit", 3),
            (Fraction(15, 7), "hit", 5),
        ],
    )
    yield (
        "3 per hour",
        "0",
        "idle gaps",
        [
            (0, "hit", 3),
            (7200, "hit", 1),
            (86400, "hit", 3),
            (86400 + 1800, "hit", 1),
            (86400 * 30, "test", 0),
            (86400 * 365, "hit", 2),
        ],
    )
    yield (
        "10 per minute",
        "0",
        "a refund gives back, never above full",
        [
            (0, "hit", 6),
            (1, "hit", 4),
            (2, "refund", 3),
            (2, "hit", 3),
            (2, "hit", 1),
            (3, "refund", MAX),
            (3, "test", 0),
            (3, "refund", 1),
            (3, "hit", 10),
            (4, "refund", 10),
            (4, "test", 10),
        ],
    )
    yield (
        "10 per minute",
        "0",
        "a refund reaches back over several hits",
        [
            (0, "hit", 3),
            (5, "hit", 3),
            (10, "hit", 3),
            (11, "refund", 4),
            (11, "test", 0),
            (12, "hit", 5),
            (12, "hit", 1),
            (60, "test", 0),
            (65, "test", 0),
            (72, "hit", 5),
        ],
    )
    yield (
        "5 per minute",
        "0",
        "the clock steps back ten seconds",
        [
            (20, "hit", 1),
            (30, "hit", 3),
            (20, "hit", 1),
            (20, "hit", 1),
            (79, "hit", 1),
            (80, "hit", 1),
            (90, "hit", 1),
        ],
    )
    yield (
        "5 per minute",
        "0",
        "the clock steps back an hour",
        [
            (3600, "hit", 5),
            (0, "hit", 1),
            (0, "test", 0),
            (59, "hit", 1),
            (60, "hit", 1),
            (120, "hit", 5),
        ],
    )
    yield (
        "5 per minute",
        "0",
        "the clock steps forward an hour",
        [(0, "hit", 5), (3600, "hit", 5), (3600, "hit", 1), (3660, "hit", 1), (7200, "hit", 5)],
    )
    yield (
        "5 per minute",
        "0",
        "the clock steps back to the epoch",
        [
            (0, "hit", 5),
            ("=0", "hit", 1),
            ("=0", "test", 0),
            ("=59999999999", "hit", 1),
            ("=60000000000", "hit", 1),
            ("=120000000000", "hit", 1),
        ],
    )
    yield (
        "5 per minute",
        "0",
        "calls arrive out of order by less than 100 ms",
        [
            (0, "hit", 2),
            (Fraction(-1, 20), "hit", 1),
            (Fraction(-1, 10), "hit", 1),
            (Fraction(-1, 100), "hit", 1),
            (0, "hit", 1),
            (Fraction(599, 10), "hit", 1),
            (60, "hit", 5),
        ],
    )
    yield (
        "5 per minute",
        "0",
        "100 ms and one ns back is a step of the clock",
        [
            (0, "hit", 5),
            (Fraction(-SKEW - 1, S), "hit", 1),
            (Fraction(-SKEW - 1, S), "test", 0),
            (Fraction(60 * S - SKEW - 2, S), "hit", 1),
            (Fraction(60 * S - SKEW - 1, S), "hit", 1),
        ],
    )
    yield (
        f"{MAX} per second",
        "0",
        "the largest amount, spent at once",
        [
            (0, "hit", MAX),
            (0, "hit", 1),
            (Fraction(1, S), "hit", 1),
            (Fraction(1, 2), "hit", MAX // 2),
            (1, "hit", MAX - 1),
            (1, "hit", 2),
            (3, "test", MAX),
        ],
    )
    yield (
        f"{MAX} per 100 years",
        "0",
        "the largest amount over the longest period",
        [
            (0, "hit", MAX - 1),
            (0, "hit", 1),
            (0, "hit", 1),
            (1, "hit", 1),
            (86400, "hit", MAX),
            (86400, "refund", MAX),
            (86400, "hit", MAX),
        ],
    )
    yield (
        "1 per 100 years",
        "0",
        "the longest period",
        [
            (0, "hit", 1),
            (1, "hit", 1),
            (31104000, "hit", 1),
            (2 * 31104000, "test", 0),
            (f"={LATEST}", "hit", 1),
            (f"={LATEST}", "test", 0),
        ],
    )
    yield (
        "3 per 100 years",
        "0",
        "the longest period, from the epoch on, over an edge",
        [
            ("=0", "hit", 2),
            ("=1", "hit", 1),
            ("=2", "hit", 1),
            ("=3110399999999999999", "hit", 1),
            ("=3110400000000000000", "hit", 2),
            ("=3110400000000000001", "hit", 1),
            (f"={LATEST}", "hit", 1),
        ],
    )
    yield (
        "100 per second",
        "0",
        "at the last moment that there is",
        [
            (f"={LATEST - 1}", "hit", 50),
            (f"={LATEST}", "hit", 50),
            (f"={LATEST}", "hit", 1),
            (f"={LATEST - S}", "hit", 1),
        ],
    )
    yield (
        "10 per minute",
        "0",
        "the edge of a minute of the clock: no second helping",
        [
            (39, "hit", 10),
            (40, "hit", 1),
            (40 + Fraction(1, S), "hit", 1),
            (46, "hit", 1),
            (46, "hit", 1),
            (70, "hit", 5),
            (99, "hit", 2),
            (100, "hit", 10),
            (160, "hit", 10),
        ],
    )
    yield (
        "4 per minute",
        "0",
        "a denial charges nothing",
        [(0, "hit", 4), *[(i, "hit", 1) for i in range(1, 20, 3)], (60, "hit", 4)],
    )
    yield (
        "6 per 3 days",
        "0",
        "several units",
        [
            (0, "hit", 5),
            (86400, "hit", 1),
            (86401, "hit", 1),
            (2 * 86400, "hit", 1),
            (3 * 86400, "hit", 2),
            (4 * 86400, "hit", 6),
        ],
    )
    yield (
        "2 per second",
        "0",
        "hits of the same ns count each",
        [(0, "hit", 1), (0, "hit", 1), (0, "hit", 1), (1, "hit", 1), (1, "hit", 1), (1, "hit", 1)],
    )
    yield (
        "1000000 per day",
        "0",
        "a large window filled by large costs",
        [
            (0, "hit", 999_999),
            (1, "hit", 1),
            (2, "hit", 1),
            (3, "hit", 1000),
            (86400, "hit", 1000),
            (86400, "hit", 500_000),
            (86401, "hit", 500_000),
            (2 * 86400 + 1, "hit", 1_000_000),
        ],
    )
    if strategy == "token-bucket":
        yield (
            "10 per minute burst 20",
            "0",
            "a burst, then one token in six seconds",
            [
                (0, "hit", 20),
                (0, "hit", 1),
                (Fraction(6 * S - 1, S), "hit", 1),
                (6, "hit", 1),
                (12, "hit", 2),
                (18, "hit", 2),
                (138, "test", 0),
                (138, "hit", 20),
                (600, "hit", 21),
            ],
        )
        yield (
            "10 per second burst 1",
            "0",
            "a bucket of one token is strict spacing",
            [
                (0, "hit", 1),
                (0, "hit", 1),
                (Fraction(S // 10 - 1, S), "hit", 1),
                (Fraction(1, 10), "hit", 1),
                (Fraction(1, 10), "hit", 2),
                (10, "hit", 1),
            ],
        )
        yield (
            f"1 per 100 years burst {MAX}",
            "0",
            "a bucket that would take longer than time to drain",
            [
                (0, "hit", MAX),
                (0, "hit", 1),
                (1, "hit", 1),
                (0, "refund", 1),
                (0, "hit", 1),
                (0, "hit", 2),
                (f"={LATEST}", "hit", 1),
                (f"={LATEST}", "hit", 1),
            ],
        )
        yield (
            "7 per second burst 3",
            "0",
            "thirds of sevenths of a second",
            [
                (0, "hit", 3),
                (Fraction(142857142, S), "hit", 1),
                (Fraction(142857143, S), "hit", 1),
                (Fraction(285714285, S), "hit", 1),
                (Fraction(285714286, S), "hit", 1),
                (1, "hit", 3),
                (1, "hit", 1),
            ],
        )
        yield (
            "5 per minute burst 50",
            "0",
            "the clock steps back an hour: one token within one period",
            [(3600, "hit", 50), (0, "hit", 1), (60, "hit", 1), (60, "hit", 1), (72, "hit", 1)],
        )
    if strategy == "leaky-bucket":
        yield (
            "10 per second",
            "500000000",
            "five wait their turn, the seventh is denied",
            [
                *[(0, "hit", 1)] * 7,
                (Fraction(1, 10), "hit", 1),
                (Fraction(1, 5), "test", 0),
                (2, "hit", 1),
            ],
        )
        yield (
            "10 per minute",
            "60000000000",
            "the longest wait there can be: a period",
            [*[(0, "hit", 1)] * 12, (6, "hit", 1), (6, "hit", 1), (60, "hit", 3)],
        )
        yield (
            "10 per minute",
            "6000000000",
            "a cost delays those that come after",
            [
                (0, "hit", 5),
                (0, "hit", 1),
                (24, "hit", 1),
                (30, "hit", 10),
                (30, "hit", 1),
                (84, "hit", 1),
            ],
        )
        yield (
            "10 per minute",
            "6000000000",
            "a refund moves the queue up",
            [
                (0, "hit", 3),
                (0, "hit", 1),
                (0, "refund", 2),
                (0, "hit", 1),
                (0, "hit", 1),
                (0, "refund", 9),
            ],
        )
        yield (
            "5 per minute",
            "12000000000",
            "the clock steps back with a queue",
            [(3600, "hit", 5), (0, "hit", 1), (59, "hit", 1), (60, "hit", 1), (61, "hit", 1)],
        )
        yield (
            "7 per second",
            "1",
            "a wait of one ns",
            [
                (0, "hit", 1),
                (Fraction(142857141, S), "hit", 1),
                (Fraction(142857142, S), "hit", 1),
                (1, "hit", 1),
            ],
        )
    if strategy == "moving-window":
        yield (
            "3 per minute",
            "0",
            "the window moves hit by hit",
            [
                (0, "hit", 1),
                (20, "hit", 1),
                (40, "hit", 1),
                (50, "hit", 1),
                (60, "hit", 1),
                (60, "hit", 1),
                (80, "hit", 1),
                (99, "hit", 1),
                (100, "hit", 1),
            ],
        )
        yield (
            "6 per minute",
            "0",
            "a step back keeps what lies before and brings the rest to now",
            [
                (0, "hit", 2),
                (10, "hit", 2),
                (20, "hit", 2),
                (15, "hit", 1),
                (60, "hit", 2),
                (70, "hit", 2),
                (74, "hit", 1),
                (75, "hit", 2),
            ],
        )
    if strategy == "sliding-window-counter":
        yield (
            "100 per minute",
            "0",
            "the share of the previous window shrinks by the second",
            [
                (-20, "hit", 100),
                (40 - 60 + 1, "hit", 1),
                (40, "hit", 1),
                (46, "hit", 10),
                (46, "hit", 1),
                (70, "hit", 40),
                (70, "hit", 1),
                (100, "hit", 50),
                (130, "hit", 80),
            ],
        )
        yield (
            "10 per minute",
            "0",
            "just before a window that has begun for others",
            [
                (40, "hit", 4),
                (Fraction(39_950_000_000, S), "hit", 2),
                (Fraction(39_900_000_000, S), "hit", 1),
                (Fraction(39_899_999_999, S), "hit", 1),
                (40, "test", 0),
                (100, "test", 0),
            ],
        )
        yield (
            "3 per minute",
            "0",
            "retry_after lies in the window after the next",
            [
                (40, "hit", 3),
                (40, "hit", 3),
                (100, "hit", 3),
                (130, "hit", 1),
                (130, "hit", 3),
                (160, "test", 3),
            ],
        )


def calendar_stories():
    """As stories(), with a zone instead of a delay, and moments as UTC."""

    def at(text, after=0):
        moment = datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
        return f"={int(moment.timestamp()) * S + after}"

    yield (
        "3 per day",
        "UTC",
        "anew at midnight, whenever the first hit came",
        [
            (at("2024-05-07T23:59:58"), "hit", 2),
            (at("2024-05-07T23:59:59"), "hit", 2),
            (at("2024-05-07T23:59:59", 999_999_999), "hit", 1),
            (at("2024-05-08T00:00:00"), "hit", 3),
            (at("2024-05-08T00:00:00"), "hit", 1),
            (at("2024-05-08T23:59:59", 999_999_999), "test", 1),
            (at("2024-05-09T00:00:00"), "test", 3),
        ],
    )
    yield (
        "3 per day",
        "+05:30",
        "midnight of a fixed offset",
        [
            (at("2024-05-07T18:29:59"), "hit", 3),
            (at("2024-05-07T18:29:59", 999_999_000), "hit", 1),
            (at("2024-05-07T18:30:00"), "hit", 3),
            (at("2024-05-08T18:30:00"), "test", 3),
        ],
    )
    yield (
        "10 per day",
        "Europe/Berlin",
        "a day of 23 hours",
        [
            (at("2024-03-30T22:59:59"), "hit", 10),
            (at("2024-03-30T23:00:00"), "hit", 10),
            (at("2024-03-31T00:59:59"), "hit", 1),
            (at("2024-03-31T01:00:00"), "hit", 1),
            (at("2024-03-31T21:59:59"), "hit", 1),
            (at("2024-03-31T22:00:00"), "hit", 10),
            (at("2024-03-31T22:00:00"), "hit", 1),
        ],
    )
    yield (
        "10 per day",
        "Europe/Berlin",
        "a day of 25 hours",
        [
            (at("2024-10-26T21:59:59"), "hit", 10),
            (at("2024-10-26T22:00:00"), "hit", 10),
            (at("2024-10-27T00:59:59"), "hit", 1),
            (at("2024-10-27T01:00:00"), "hit", 1),
            (at("2024-10-27T22:00:00"), "hit", 1),
            (at("2024-10-27T23:00:00"), "hit", 10),
        ],
    )
    yield (
        "2 per day",
        "America/Sao_Paulo",
        "a midnight that the clock skips",
        [
            (at("2018-11-04T02:59:59"), "hit", 2),
            (at("2018-11-04T02:59:59"), "hit", 1),
            (at("2018-11-04T03:00:00"), "hit", 2),
            (at("2018-11-05T01:59:59"), "hit", 1),
            (at("2018-11-05T02:00:00"), "hit", 1),
        ],
    )
    yield (
        "2 per day",
        "America/Sao_Paulo",
        "a clock that goes back from midnight",
        [
            (at("2019-02-17T01:59:59"), "hit", 2),
            (at("2019-02-17T02:30:00"), "hit", 1),
            (at("2019-02-17T03:00:00"), "hit", 1),
        ],
    )
    yield (
        "7 per 7 days",
        "Europe/Berlin",
        "a week begins on Monday",
        [
            (at("2024-03-31T21:59:59"), "hit", 7),
            (at("2024-03-31T21:59:59"), "hit", 1),
            (at("2024-03-31T22:00:00"), "hit", 7),
            (at("2024-04-07T21:59:59"), "test", 1),
            (at("2024-04-07T22:00:00"), "test", 7),
        ],
    )
    yield (
        "5 per month",
        "UTC",
        "months of 29 and 31 days",
        [
            (at("2024-02-01T00:00:00"), "hit", 5),
            (at("2024-02-29T23:59:59"), "hit", 1),
            (at("2024-03-01T00:00:00"), "hit", 5),
            (at("2024-03-31T12:00:00"), "hit", 1),
            (at("2024-04-01T00:00:00"), "hit", 1),
            (at("2023-02-28T23:59:59"), "hit", 1),
        ],
    )
    yield (
        "5 per 3 months",
        "Europe/Berlin",
        "quarters",
        [
            (at("2024-03-31T21:59:59"), "hit", 5),
            (at("2024-03-31T22:00:00"), "hit", 5),
            (at("2024-06-30T21:59:59"), "hit", 1),
            (at("2024-06-30T22:00:00"), "hit", 1),
        ],
    )
    yield (
        "5 per year",
        "+05:30",
        "a year that ends in winter",
        [
            (at("2024-12-31T18:29:59"), "hit", 5),
            (at("2024-12-31T18:30:00"), "hit", 5),
            (at("2025-12-31T18:29:59"), "hit", 1),
        ],
    )
    yield (
        "3 per day",
        "UTC",
        "just before a day that has begun for others",
        [
            (at("2024-05-08T00:00:00"), "hit", 2),
            (at("2024-05-07T23:59:59", 950_000_000), "hit", 1),
            (at("2024-05-07T23:59:59", 950_000_000), "hit", 1),
            (at("2024-05-08T00:00:00"), "hit", 1),
            (at("2024-05-07T23:59:59", 899_999_000), "hit", 1),
            (at("2024-05-08T00:00:00"), "hit", 3),
        ],
    )
    yield (
        "3 per day",
        "UTC",
        "a refund, and a clock that steps back a day",
        [
            (at("2024-05-08T12:00:00"), "hit", 3),
            (at("2024-05-08T12:00:00"), "refund", 1),
            (at("2024-05-08T12:00:00"), "refund", 9),
            (at("2024-05-08T12:00:00"), "hit", 3),
            (at("2024-05-07T12:00:00"), "hit", 1),
            (at("2024-05-08T00:00:00"), "hit", 3),
        ],
    )


def main():
    out = [HEADER]
    for strategy in MODELS:
        told = list(stories(strategy))
        if strategy == "calendar-window":
            told = [(limit, "UTC", title, steps) for limit, _, title, steps in told]
            told += calendar_stories()
        for limit, delay, title, steps in told:
            story = Story(strategy, limit, delay, title)
            out.append(story.head)
            for when, op, cost in steps:
                now = int(when[1:]) if isinstance(when, str) else T0 + when * S
                assert now == int(now) or "7" in limit, (limit, when)
                out.append(story.ask(int(now), op, cost))
            out.append("")
    sys.stdout.write("\n".join(out))


if __name__ == "__main__":
    main()
