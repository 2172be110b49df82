"""``weir check``: what limits mean, and which of them have no effect."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import NamedTuple

import click

from ..._core import STRATEGIES, Limit
from .. import bounds
from ..errors import WARNED
from ..limit_text import normalized, read_limits, with_strategy
from ..options import json_option, strategy_choice, tz_option
from ..output import say, say_json
from ..words import about, period, some, span

DAY = 86400


class Warned(NamedTuple):
    """A warning about one limit."""

    kind: str  # "zero", "duplicate" or "never-binds"
    place: int  # of the limit
    because: int | None  # the place of the other limit
    text: str


# ------------------------------------------------------------------------------------- warnings


def warnings_of(limits: Sequence[Limit]) -> list[Warned]:
    """The warnings, in the order of the limits."""
    found = []
    needless: set[int] = set()
    for index, limit in enumerate(limits):
        if limit.amount == 0:
            text = f'"{limit}" denies every request'
            found.append(Warned("zero", index, None, text))
            continue
        for other in range(index):
            if bounds.same_counter(limit, limits[other]):
                needless.add(index)
                found.append(Warned("duplicate", index, other, _twice(limit, limits[other])))
                break
    for index in reversed(range(len(limits))):
        if index not in needless:
            guard = _guard_of(index, limits, needless)
            if guard is not None:
                needless.add(index)
                found.append(Warned("never-binds", index, *guard))
    return sorted(found, key=lambda warned: warned.place)


def _twice(limit: Limit, other: Limit) -> str:
    if str(limit) == str(other):
        return f'"{limit}" is written twice: once is enough'
    return f'"{limit}" is the same limit as "{other}": one is enough'


def _guard_of(index: int, limits: Sequence[Limit], needless: set[int]) -> tuple[int, str] | None:
    """The limit because of which this one can never deny, and why."""
    best: tuple[int, int] | None = None
    for other, guard in enumerate(limits):
        if other == index or other in needless:
            continue
        most = bounds.never_binds(limits[index], guard)
        if most is not None and (best is None or most < best[0]):
            best = (most, other)
    if best is None:
        return None
    most, other = best
    return other, _never(limits[index], limits[other], most)


def _never(limit: Limit, guard: Limit, most: int) -> str:
    start = f'"{limit}" can never deny a request: with "{guard}", '
    strategy, length = bounds.shape_of(limit), period(limit.get_expiry())
    if strategy in (bounds.TOKEN, bounds.LEAKY):
        return (
            f"{start}its bucket never runs out: the other limit admits at most "
            f"{some(most, 'request')} at once, and no more in the long run"
        )
    if strategy == bounds.SLIDING and not bounds.same_windows(limit, guard):
        return f"{start}it never counts more than {some(most, 'request')} in {length}"
    return f"{start}no window of {length} has more than {some(most, 'request')}"


def notes_of(limits: Sequence[Limit], warnings: Sequence[Warned]) -> list[str]:
    """Limits that deny only where two windows of another limit meet, which is rare."""
    dull = {warned.place for warned in warnings}
    notes = []
    for index, limit in enumerate(limits):
        for other, guard in enumerate(limits):
            if index == other or index in dull or other in dull:
                continue
            if bounds.binds_at_edges_only(limit, guard):
                notes.append(
                    f'"{limit}" can deny a request only where two windows of "{guard}" meet'
                )
    return notes


# ---------------------------------------------------------------------------------- explanation


def meaning(limit: Limit) -> list[str]:
    """What a limit does, in sentences, from the text of its strategy."""
    if limit.amount == 0:
        return ["Denies every request."]
    most = bounds.most_within(limit, limit.get_expiry())
    if bounds.shape_of(limit) == bounds.ALIGNED:
        most = min(most, 2 * bounds.size(limit))  # where two meet
    words = {
        "requests": some(bounds.size(limit), "request"),
        "period": period(limit.get_expiry()),
        "most": some(most, "request"),
        "tokens": some(bounds.at_once(limit), "token"),
        "every": span(limit.get_expiry() / limit.amount),
        "wait": span(float(bounds.MAX_DELAY if limit.max_delay is None else limit.max_delay)),
        "calendar": calendar(limit),
        "zone": limit.tz or "UTC",
    }
    sentences = STRATEGIES[bounds.strategy_of(limit)][2].split(". ")
    return [
        sentence.rstrip(".").format(**words) + "."
        for sentence in sentences
        if most > bounds.size(limit) or "{most}" not in sentence
    ]


def calendar(limit: Limit) -> str:
    """The unit of a calendar window: "day", "2 weeks"."""
    number, unit = limit.multiples, limit.unit
    if unit == "day" and number % 7 == 0:
        number, unit = number // 7, "week"
    return unit if number == 1 else f"{number} {unit}s"


def per_day(limit: Limit) -> str:
    """The number of requests that pass in the long run."""
    if limit.amount == 0:
        return "At once: 0. In the long run: 0 a day."
    daily = about(bounds.rate(limit) * DAY)
    return f"At once: {about(bounds.at_once(limit))}. In the long run: {daily} a day."


def described(limit: Limit) -> dict[str, object]:
    """The same for programs."""
    seconds = limit.get_expiry()
    return {
        "limit": str(limit),
        "strategy": bounds.strategy_of(limit),
        "tz": limit.tz,
        "amount": limit.amount,
        "period": seconds,
        "burst": bounds.at_once(limit) if bounds.shape_of(limit) == bounds.TOKEN else None,
        "max_delay": (
            float(bounds.MAX_DELAY if limit.max_delay is None else limit.max_delay)
            if bounds.shape_of(limit) == bounds.LEAKY
            else None
        ),
        "at_once": bounds.at_once(limit),
        "within_period": bounds.most_within(limit, seconds),
        "per_day": float(bounds.rate(limit) * DAY),
        "meaning": " ".join(meaning(limit)),
    }


# -------------------------------------------------------------------------------------- command


@click.command()
@click.argument("limits")
@click.option("--strategy", type=strategy_choice, help="Strategy of limits that do not set one.")
@click.option("--max-delay", type=float, metavar="SECONDS", help="Longest delay of leaky buckets.")
@tz_option
@json_option
@click.pass_context
def check(
    context: click.Context,
    limits: str,
    strategy: str | None,
    max_delay: float | None,
    tz: str | None,
    as_json: bool,
) -> None:
    """Explain LIMITS, such as "10/minute; 5/hour", and warn about those that have no effect.

    Warns about a limit that can never deny because of another one, a limit that is written twice,
    and a limit that denies every request; the exit code is then 1, and 2 for a syntax error. The
    warnings consider all possible traffic, and limits that are charged together for one client.
    """
    read = read_limits(limits, strategy, tz)
    found = [with_strategy(limit, strategy, max_delay) for limit in read]
    warnings = warnings_of(found)
    if as_json:
        say_json(
            {
                "normalized": normalized(found),
                "limits": [described(limit) for limit in found],
                "together": _together(found),
                "warnings": [
                    {
                        "kind": warned.kind,
                        "limit": warned.place,
                        "because_of": warned.because,
                        "text": warned.text,
                    }
                    for warned in warnings
                ],
                "notes": notes_of(found, warnings),
            }
        )
    else:
        _print(found, warnings)
    context.exit(WARNED if warnings else 0)


def _together(limits: Sequence[Limit]) -> dict[str, float]:
    return {
        "at_once": min(map(bounds.at_once, limits)),
        "per_day": float(min(map(bounds.rate, limits)) * DAY),
    }


def _print(limits: Sequence[Limit], warnings: Sequence[Warned]) -> None:
    say(normalized(limits), "head")
    for limit in limits:
        say()
        say(f"{limit}, {bounds.strategy_of(limit)}", "head")
        for line in (*meaning(limit), per_day(limit)):
            say(f"  {line}")
    if len(limits) > 1:
        together = _together(limits)
        say()
        say("All together", "head")
        daily = about(min(map(bounds.rate, limits)) * DAY)
        say(f"  At once: {about(floor(together['at_once']))}. In the long run: {daily} a day.")
    notes = notes_of(limits, warnings)
    if warnings or notes:
        say()
    for note in notes:
        say(f"Note: {note}.")
    for warned in warnings:
        say(f"Warning: {warned.text}.", "warn")
