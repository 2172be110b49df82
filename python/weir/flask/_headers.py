"""What the client is told: ``X-RateLimit-*``, ``Retry-After``, and the standard's draft.

Everything is written from the decision that was made for the request. Nothing is asked again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from werkzeug.datastructures import Headers
from werkzeug.http import http_date

from .constants import ConfigVars, HeaderNames
from .errors import ConfigurationError

if TYPE_CHECKING:
    from weir._core import Verdict

    from ._check import Entry
    from ._limits import Verdicts

LEGACY = "x-ratelimit"
DRAFT = "draft-11"


def parse_kinds(enabled: Any) -> frozenset[str]:
    """Read ``headers_enabled``: a truth value, one of the kinds, or several of them."""
    if isinstance(enabled, str):
        words = [word.strip().lower() for word in enabled.split(",")]
        if not any(word in (LEGACY, DRAFT) or word.startswith("draft") for word in words):
            return frozenset({LEGACY} if enabled else ())
    elif isinstance(enabled, Sequence | set | frozenset):
        words = [str(word).lower() for word in enabled]
    else:
        return frozenset({LEGACY} if enabled else ())
    for word in words:
        if word not in (LEGACY, DRAFT):
            raise ConfigurationError(
                "EOPTION",
                f"headers_enabled={enabled!r}: there are {LEGACY!r} and {DRAFT!r}, not {word!r}",
            )
    return frozenset(words)


class HeaderWriter:
    """The headers of one limiter on one application."""

    def __init__(
        self, enabled: Any, mapping: Mapping[Any, str], config: Mapping[str, Any], retry_after: Any
    ) -> None:
        self.kinds = parse_kinds(enabled)
        self.legacy = LEGACY in self.kinds
        self.draft = DRAFT in self.kinds
        self.http_date = retry_after == "http-date"
        self.plain = self.legacy and not self.draft and not self.http_date
        given = {HeaderNames(name): value for name, value in mapping.items()}

        def name(header: HeaderNames, setting: str) -> str:
            return given.get(header) or str(config.get(setting, header.value))

        self.limit = name(HeaderNames.LIMIT, ConfigVars.HEADER_LIMIT)
        self.remaining = name(HeaderNames.REMAINING, ConfigVars.HEADER_REMAINING)
        self.reset = name(HeaderNames.RESET, ConfigVars.HEADER_RESET)
        self.retry_after = name(HeaderNames.RETRY_AFTER, ConfigVars.HEADER_RETRY_AFTER)
        self.lower = self.retry_after.lower()
        self.length = len(self.retry_after)
        self.mapping = {
            HeaderNames.RESET: self.reset,
            HeaderNames.REMAINING: self.remaining,
            HeaderNames.LIMIT: self.limit,
            HeaderNames.RETRY_AFTER: self.retry_after,
        }

    def write(
        self, headers: Headers, entries: Sequence[Entry], verdicts: Verdicts, told: int
    ) -> None:
        """Tell the client of its limits, above all of the one at ``told``."""
        verdict = verdicts[told]
        now = time.time()
        reset = int(verdict.reset_at) + 1
        if self.draft:
            self._write_draft(headers, entries, verdicts, told, now)
        if self.legacy:
            headers.add(self.limit, entries[told].amount_text)
            headers.add(self.remaining, f"{verdict.remaining}")
            headers.add(self.reset, f"{reset}")
        elif verdict.allowed:
            return  # the draft's own headers say everything; Retry-After is for the refused
        wait = self.merge(headers, self._wait(verdict, reset, now))
        headers.add(self.retry_after, self._format(wait, reset, verdict, now))

    def _wait(self, verdict: Verdict, reset: int, now: float) -> int:
        """Seconds to wait, rounded so that the request passes then: the moment is a promise."""
        if verdict.allowed or math.isinf(verdict.retry_after):
            return max(0, int(reset - now))
        return math.ceil(verdict.retry_after)

    def _format(self, wait: int, reset: int, verdict: Verdict, now: float) -> str:
        if not self.http_date:
            return f"{wait}"
        if wait == self._wait(verdict, reset, now):
            # Not by way of whole seconds from now, which would round twice.
            if verdict.allowed or math.isinf(verdict.retry_after):
                return http_date(reset)
            return http_date(math.ceil(now + verdict.retry_after))
        return http_date(math.ceil(now + wait))

    def merge(self, headers: Headers, wait: int) -> int:
        """The longer of ``wait`` and what somebody else told to wait, which is taken away."""
        theirs = headers.get(self.retry_after)
        if theirs is None:
            return wait
        headers.remove(self.retry_after)
        return max(wait, _read_retry_after(theirs, time.time()))

    def _write_draft(
        self,
        headers: Headers,
        entries: Sequence[Entry],
        verdicts: Verdicts,
        told: int,
        now: float,
    ) -> None:
        """``RateLimit-Policy``, of all limits, and ``RateLimit``, of the one to tell of."""
        names = policy_names(entries)
        policies = [
            f"{name};q={entry.bound.amount};w={entry.bound.get_expiry()}"
            for name, entry in zip(names, entries, strict=True)
        ]
        verdict = verdicts[told]
        wait = verdict.retry_after
        if verdict.allowed or math.isinf(wait):
            wait = max(0.0, verdict.reset_at - now)
        headers.add("RateLimit-Policy", ", ".join(policies))
        headers.add("RateLimit", f"{names[told]};r={verdict.remaining};t={math.ceil(wait)}")

    def describe(self, entry: Entry, verdict: Verdict) -> dict[str, str]:
        """The headers by themselves, for the handler of an exception."""
        now = time.time()
        reset = int(verdict.reset_at) + 1
        wait = self._wait(verdict, reset, now)
        return {
            self.limit: entry.amount_text,
            self.remaining: str(verdict.remaining),
            self.reset: str(reset),
            self.retry_after: self._format(wait, reset, verdict, now),
        }


def policy_names(entries: Sequence[Entry]) -> list[str]:
    """A name for each limit, as a Structured Fields string: "default" for a single one."""
    if len(entries) == 1:
        return ['"default"']
    names: list[str] = []
    for entry in entries:
        name = f'"{entry.limit.limit}"'
        n = 2
        while name in names:
            name = f'"{entry.limit.limit} #{n}"'
            n += 1
        names.append(name)
    return names


def _read_retry_after(value: str, now: float) -> int:
    """Seconds in a ``Retry-After`` that somebody else set; 0 if it cannot be read."""
    value = value.strip()
    if value.isdecimal():
        return int(value)
    try:
        return max(0, math.ceil(parsedate_to_datetime(value).timestamp() - now))
    except (ValueError, TypeError):
        return 0
