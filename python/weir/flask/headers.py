"""Response headers: ``X-RateLimit-*``, ``Retry-After``, and those of the IETF draft.

They are written from the decision that was made for the request. The store is not called again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from werkzeug.datastructures import Headers
from werkzeug.http import http_date, parse_date

from .constants import HeaderNames
from .errors import ConfigurationError

if TYPE_CHECKING:
    from weir._core import Verdict

    from .limits import Decided

LEGACY = "x-ratelimit"
DRAFT = "draft-11"

RETRY_AFTER = HeaderNames.RETRY_AFTER.value

#: The longest Retry-After of another package that is kept, in seconds: a hundred years.
WAIT_MAX = 100 * 360 * 86400


class Wait(NamedTuple):
    """A wait in seconds and as a date, both rounded up."""

    seconds: int
    #: Seconds since the Unix epoch.
    date: int


def parse_kinds(enabled: Any) -> frozenset[str]:
    """Read ``headers_enabled``: a truth value, one of the kinds, or several of them."""
    if isinstance(enabled, str):
        words = [word.strip().lower() for word in enabled.split(",") if word.strip()]
    elif isinstance(enabled, Sequence | set | frozenset):
        words = [str(word).lower() for word in enabled]
    else:
        return frozenset({LEGACY} if enabled else ())
    for word in words:
        if word not in (LEGACY, DRAFT):
            raise ConfigurationError(
                "EOPTION",
                f"RATELIMIT_HEADERS_ENABLED, or headers_enabled, must be True, False, {LEGACY}, "
                f"{DRAFT} or several of these, not {enabled!r}",
            )
    return frozenset(words)


class HeaderWriter:
    """The headers of one limiter on one application."""

    def __init__(
        self, enabled: Any, names: Mapping[HeaderNames, str], retry_after: str | None
    ) -> None:
        self.kinds = parse_kinds(enabled)
        self.legacy = LEGACY in self.kinds
        self.draft = DRAFT in self.kinds
        self.http_date = retry_after == "http-date"
        self.limit, self.remaining, self.reset, self.retry_after = (
            names.get(header, header.value)
            for header in (
                HeaderNames.LIMIT,
                HeaderNames.REMAINING,
                HeaderNames.RESET,
                HeaderNames.RETRY_AFTER,
            )
        )
        #: Only the four headers, and ``Retry-After`` under its own name.
        self.plain = (
            self.legacy
            and not self.draft
            and not self.http_date
            and self.retry_after == RETRY_AFTER
        )
        self.mapping = {
            HeaderNames.RESET: self.reset,
            HeaderNames.REMAINING: self.remaining,
            HeaderNames.LIMIT: self.limit,
            HeaderNames.RETRY_AFTER: self.retry_after,
        }

    def templates(self, entries: Sequence[Any]) -> tuple[tuple[Any, ...], ...] | None:
        """For each limit the template from which the core writes headers; None if it cannot."""
        if not self.plain:
            return None
        names = (self.remaining, self.reset, self.retry_after)
        return tuple(((self.limit, entry.amount_text), *names) for entry in entries)

    def write(self, headers: Headers, decided: Decided) -> None:
        """Write the headers of a response, for the reported limit."""
        verdict = decided.verdict
        now = time.time()
        if self.draft:
            self._write_draft(headers, decided, verdict, now)
        if self.legacy:
            headers.add(self.limit, decided.entry.amount_text)
            headers.add(self.remaining, f"{verdict.remaining}")
            headers.add(self.reset, f"{_reset_of(verdict)}")
        elif verdict.allowed:
            return  # the draft's headers are complete; Retry-After is for refused requests
        wait = max([_wait_for(verdict, now), *self._earlier_waits(headers, now)])
        headers.set(self.retry_after, self._format(wait))

    def _earlier_waits(self, headers: Headers, now: float) -> Iterator[Wait]:
        """The waits in a Retry-After that the response already has."""
        for name in {RETRY_AFTER, self.retry_after}:
            for value in headers.getlist(name):
                yield _read_retry_after(value, now)

    def _format(self, wait: Wait) -> str:
        return http_date(wait.date) if self.http_date else f"{wait.seconds}"

    def _write_draft(
        self, headers: Headers, decided: Decided, verdict: Verdict, now: float
    ) -> None:
        """``RateLimit-Policy`` for all limits, and ``RateLimit`` for the reported one."""
        policies = []
        for name, entry in policy_names(decided):
            window = _integer(entry.bound.get_expiry())
            policies.append(f"{name};q={_integer(entry.bound.amount)};w={window}")
        wait = verdict.retry_after
        if verdict.allowed or math.isinf(wait):
            wait = max(0.0, verdict.reset_at - now)
        headers.add("RateLimit-Policy", ", ".join(policies))
        left, seconds = _integer(verdict.remaining), _integer(math.ceil(wait))
        headers.add("RateLimit", f"{reported_name(decided)};r={left};t={seconds}")

    def policy_of(self, decided: Decided) -> str:
        """The name of a limit for the client: that in ``RateLimit-Policy``, or its text."""
        if self.draft:
            return reported_name(decided).strip('"')
        return str(decided.entry.limit.limit)

    def describe(self, decided: Decided) -> dict[str, str]:
        """The headers as a dict, for error handlers."""
        now = time.time()
        verdict = decided.verdict
        headers = Headers()
        if self.draft:
            self._write_draft(headers, decided, verdict, now)
        if self.legacy or not self.draft:
            headers.add(self.limit, decided.entry.amount_text)
            headers.add(self.remaining, f"{verdict.remaining}")
            headers.add(self.reset, f"{_reset_of(verdict)}")
        headers.add(self.retry_after, self._format(_wait_for(verdict, now)))
        return dict(headers)


def _reset_of(verdict: Verdict) -> int:
    """The first whole second after the limit resets, since the Unix epoch."""
    return int(verdict.reset_at) + 1


def _wait_for(verdict: Verdict, now: float) -> Wait:
    """The wait, rounded up so that the request passes at that time."""
    if verdict.allowed or math.isinf(verdict.retry_after):
        reset = _reset_of(verdict)
        return Wait(max(0, int(reset - now)), reset)
    # Not computed from whole seconds, which would round the date twice.
    date = math.ceil(now + verdict.retry_after)
    return Wait(math.ceil(verdict.retry_after), date)


def _integer(number: int) -> int:
    """The number, bounded to the 15 digits of an Integer in Structured Fields."""
    return min(number, 999_999_999_999_999)


def policy_names(decided: Decided) -> list[tuple[str, Any]]:
    """Each limit with its name as a Structured Fields string.

    A single limit is named "default".
    """
    entries = [decided.evaluation.check.entries[i] for i in decided.indices]
    if len(entries) == 1:
        return [('"default"', entries[0])]
    names: list[str] = []
    for entry in entries:
        name = f'"{entry.limit.limit}"'
        n = 2
        while name in names:
            name = f'"{entry.limit.limit} #{n}"'
            n += 1
        names.append(name)
    return list(zip(names, entries, strict=True))


def reported_name(decided: Decided) -> str:
    """The name of the reported limit."""
    place = decided.indices.index(decided.evaluation.reported)
    return policy_names(decided)[place][0]


def _read_retry_after(value: str, now: float) -> Wait:
    """The wait in a Retry-After header; nothing if it cannot be parsed."""
    value = value.strip()
    if value.isascii() and value.isdecimal():
        seconds = int(value) if len(value) <= 10 else WAIT_MAX
        seconds = min(seconds, WAIT_MAX)
        return Wait(seconds, math.ceil(now + seconds))
    date = parse_date(value)  # in UTC, regardless of the local time zone
    if date is None:
        return Wait(0, 0)
    moment = int(date.timestamp())
    return Wait(max(0, math.ceil(moment - now)), moment)
