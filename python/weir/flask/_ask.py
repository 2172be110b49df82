"""A check with everything that limits can have, and the one place where the storage is asked.

How a check goes:

1. Meta limits are looked at. A client over one of them is refused, and nothing else is asked.
2. For each limit that applies: who is it, in which scope, what does it cost.
3. One decision about all of them. Limits with ``deduct_when`` are only looked at, since they count
   once the response is known; with ``reserve`` they count now and are given back then. Shadow
   limits are asked last and refuse nobody.
4. If the request is refused: log, callbacks, the meta limits count it, and the 429.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flask.wrappers import Response

from weir._core import CHECKS_MAX, EACH, HIT, REFUND, TEST, Decision, Look, Verdict, join_key
from weir.audit import Breach

from ._context import current_context
from ._limits import RequestLimit
from .errors import ConfigurationError, RateLimitExceeded
from .signals import rate_limit_breached
from .util import get_remote_address, note_proxy

if TYPE_CHECKING:
    from ._check import Check, Entry
    from ._request import RequestState
    from ._state import AppState


class StoreFailedError(Exception):
    """The storage raised ``error`` when asked by way of ``decide``."""

    def __init__(self, error: Exception, decide: object) -> None:
        super().__init__(str(error))
        self.error = error
        self.decide = decide


class Asked:
    """One limit that is asked in a request."""

    __slots__ = ("bound", "cost", "entry", "key", "rule", "scope", "verdict", "who")

    #: What it said; there once it was asked.
    verdict: Verdict

    def __init__(self, entry: Entry, who: str, scope: str, key: str, cost: int) -> None:
        self.entry = entry
        self.bound = entry.bound
        self.who = who
        self.scope = scope
        #: What the storage knows it by, together with the limit itself.
        self.key = key
        self.cost = cost
        #: "block" or "allow" if a rule about the client decided instead of the limit.
        self.rule = ""


def ask(state: AppState, group: Sequence[Asked], mode: int, looked: int = 0) -> bool:
    """Decide these limits at once and keep their verdicts. True: none of them denied.

    looked: that many of them, the first, are only looked at; the state must say that it ``looks``.
    """
    decide = state.decide
    costs = [asked.cost for asked in group]
    costs[:looked] = map(Look, costs[:looked])
    try:
        if len(group) > CHECKS_MAX:
            return _ask_in_parts(state, group, mode)
        decision = decide(
            [asked.bound for asked in group],
            [asked.key for asked in group],
            costs,
            mode,
        )
    except StoreFailedError:
        raise
    except Exception as error:
        raise StoreFailedError(error, decide) from error
    keep(group, decision)
    return decision.allowed


def keep(group: Sequence[Asked], decision: Decision) -> None:
    rule = getattr(decision, "rule", "")
    for asked, verdict in zip(group, decision, strict=True):
        asked.verdict = verdict
        asked.rule = rule


def _ask_in_parts(state: AppState, group: Sequence[Asked], mode: int) -> bool:
    """More limits than fit into one decision: part after part, given back if a later one denies."""
    parts = [group[i : i + CHECKS_MAX] for i in range(0, len(group), CHECKS_MAX)]
    allowed = True
    for n, part in enumerate(parts):
        allowed = ask(state, part, mode if allowed or mode != HIT else TEST) and allowed
        if not allowed and mode == HIT:
            mode = TEST
            for before in parts[:n]:
                verdicts = [asked.verdict for asked in before]
                ask(state, before, REFUND)
                for asked, verdict in zip(before, verdicts, strict=True):
                    asked.verdict = verdict
    return allowed


def by_counter(metas: Sequence[Asked]) -> list[Asked]:
    """The first of these meta limits for each counter, which is to be asked once only."""
    found: dict[object, Asked] = {}
    for asked in metas:
        found.setdefault((asked.entry.bound, asked.key), asked)
    return list(found.values())


def as_key(key: object) -> tuple[str, str]:
    """What a key function returned: as text, and as the storage is given it; "" for nothing."""
    if not key:
        return "", ""
    if isinstance(key, bytes):
        return key.decode(errors="backslashreplace"), join_key(key)
    text = key if isinstance(key, str) else str(key)
    return text, join_key(text)


class FullCheck:
    """One check of one request."""

    def __init__(self, request: RequestState, check: Check) -> None:
        self.request = request
        self.state = request.state
        self.check = check
        self.each: bool = check.mode == EACH
        self.keys: dict[Callable[[], str], tuple[str, str]] = {}
        #: Whether no limit denied, that is whether everything was counted.
        self.passed = True

    def make(self) -> None:
        """Decide the check."""
        self.sort(self.prepare_all(self.check.metas), self.prepare_all(self.check.entries))
        looked = [*self.metas, *self.watched]
        together = self.can_ask_together(looked)
        if together:
            self.passed = ask(self.state, [*looked, *self.counted], HIT, len(looked))
        elif looked and not ask(self.state, looked, TEST):
            self.note_refusal(looked)
        self.watch_metas()
        if not together:
            self.count()
        self.count_shadows()
        self.conclude()

    def can_ask_together(self, looked: Sequence[Asked]) -> bool:
        """Whether one decision does for what is looked at and for what is charged then."""
        state = self.state
        return (
            bool(looked and self.counted)
            and len(looked) + len(self.counted) <= CHECKS_MAX
            and state.looks
            and not (self.each or state.shadow)
            and not any(asked.entry.shadow for asked in self.metas)
        )

    def resume(self, key: str, decision: Decision) -> None:
        """Go on where the fast path found that something was denied."""
        check = self.check
        self.keys[check.key_func] = as_key(key)
        self.sort(self.prepare_all(check.looked_metas), self.prepare_all(check.entries))
        keep([*self.firm, *self.metas], decision)
        self.watch_metas()
        self.passed = False
        self.conclude()

    def sort(self, metas: list[Asked], asked: list[Asked]) -> None:
        self.metas = by_counter(metas)
        # Shadow limits are asked by themselves. If all are, they go as others do until the end.
        self.shadows = [] if self.state.shadow else [a for a in asked if a.entry.shadow]
        self.firm = [a for a in asked if not a.entry.shadow] if self.shadows else asked
        self.watched = [a for a in self.firm if a.entry.deduct_when and not a.entry.reserve]
        self.counted = [a for a in self.firm if not a.entry.deduct_when or a.entry.reserve]

    # -- what to ask

    def prepare_all(self, entries: Sequence[Entry]) -> list[Asked]:
        return [asked for asked in map(self.prepare, entries) if asked is not None]

    def prepare(self, entry: Entry) -> Asked | None:
        """Who, in which scope, and how much; None if the limit does not apply to the request."""
        if entry.exempt_when is not None and entry.exempt_when():
            return None
        key_func = entry.key_func
        key = self.keys.get(key_func)
        if key is None:
            key = self.keys[key_func] = as_key(key_func())
        who, text = key
        scope = entry.scope
        if entry.scope_of is not None:
            scope = entry.limit.scope_for(entry.endpoint, entry.method)
        if not who or not scope:
            self.skip(entry, "scope" if who else "key")
            return None
        cost = entry.cost if entry.cost_of is None else entry.cost_of()
        return Asked(entry, who, scope, f"{self.check.prefix}{text}/{join_key(scope)}", cost)

    def skip(self, entry: Entry, what: str) -> None:
        """A limit cannot be asked because there is nobody to count."""
        self.state.counters["empty_key"] += 1
        message = f"the {what} of {entry.bound} at endpoint {entry.endpoint!r} is empty"
        if self.state.strict:
            raise ConfigurationError("EEMPTY", message)
        self.state.limiter.logger.error("EEMPTY: skipping a limit: %s", message)

    def count(self) -> None:
        """Ask the limits that count, unless one that was looked at denies."""
        state = self.state
        self.passed = all(asked.verdict.allowed for asked in self.watched)
        if self.counted:
            mode = EACH if self.each else HIT if self.passed else TEST
            self.passed = ask(state, self.counted, mode) and self.passed
            if mode == TEST:
                self.note_refusal(self.counted)

    def count_shadows(self) -> None:
        """The shadow limits count by themselves; what they say refuses nobody."""
        for asked in self.shadows:
            ask(self.state, [asked], HIT if self.passed or self.each else TEST)

    def note_refusal(self, looked: Sequence[Asked]) -> None:
        """Note those that deny of limits that were only looked at: looks count nothing."""
        for asked in looked:
            if not asked.verdict.allowed:
                self.state.note(asked.entry.bound, asked.key, asked.verdict)

    # -- what comes of it

    def conclude(self) -> None:
        """Note what was said; raise the 429 if the request is refused."""
        state = self.state
        firm, shadows = self.firm, self.shadows
        denied = [i for i, asked in enumerate(firm) if not asked.verdict.allowed]
        self.expect_deductions(firm, denied)
        if state.shadow:
            firm, shadows, denied = [], firm, []
        for asked in shadows:
            if not asked.verdict.allowed:
                self.report_shadow(asked)
        request = self.request
        if not denied:
            request.show(firm, self.check.most_telling([asked.entry for asked in firm]))
            if firm:
                request.wait_for(asked.verdict.delay for asked in firm)
            return

        told = max(denied, key=lambda i: firm[i].verdict.retry_after)
        request.show(firm, told)
        state.counters["denied"] += 1
        if firm[told].entry.key_func is get_remote_address:
            note_proxy(current_context().request.environ)
        failed = denied if self.each else [told]
        response = None
        for i in failed:
            asked = firm[i]
            state.limiter.logger.info(
                # The words are Flask-Limiter's: fail2ban filters look for them.
                "ratelimit %s (%s) exceeded at endpoint: %s",
                asked.entry.limit.limit,
                asked.who,
                asked.scope,
            )
            self.report(asked, request.request_limit(i))
        for i in failed:
            callbacks = [state.on_breach, firm[i].entry.limit.on_breach]
            response = self.call_back(callbacks, request.request_limit(i), "on_breach") or response
        self.count_breach([firm[i].entry for i in denied])
        self.exceed(firm[told], told, response)

    def expect_deductions(self, firm: Sequence[Asked], denied: Sequence[int]) -> None:
        """Remember limits that count when the response is known.

        Of a refused request those are asked again that would have been reached before the refusal.
        """
        for i, asked in enumerate(firm):
            if asked.entry.deduct_when is None:
                continue
            if denied and not self.each and not self.state.shadow and i > denied[0]:
                break
            taken = asked.entry.reserve and (asked.verdict.allowed if self.each else self.passed)
            if self.request.pending is None:
                self.request.pending = []
            self.request.pending.append((asked, taken))

    def report_shadow(self, asked: Asked) -> None:
        self.state.counters["shadow_denied"] += 1
        self.state.limiter.logger.info(
            "shadow ratelimit %s (%s) would have been exceeded at endpoint: %s",
            asked.entry.limit.limit,
            asked.who,
            asked.scope,
        )
        loud = asked.entry.bound.replace()
        loud.quiet = False
        self.state.note(loud, asked.key, asked.verdict, shadow=True)
        self.report(asked, self.request.limit_of(asked), shadow=True)

    def report(self, asked: Asked, limit: RequestLimit, shadow: bool = False) -> None:
        """Tell those who want to know of breaches."""
        state = self.state
        verdict = asked.verdict
        breach = Breach(
            time.time(),
            str(asked.entry.bound),
            asked.scope,
            asked.entry.endpoint,
            state.audit.name_of(asked.who),
            asked.cost,
            verdict.remaining,
            verdict.retry_after if math.isfinite(verdict.retry_after) else None,
            shadow,
            state.store_name(),
            asked.rule,
        )
        state.audit.note(breach, asked.entry.bound, asked.key)
        if rate_limit_breached.receivers:
            try:
                rate_limit_breached.send(
                    state.app, limiter=state.limiter, breach=breach, limit=limit
                )
            except Exception as error:
                state.limiter.logger.exception("a receiver of breaches failed: %s", error)

    def call_back(
        self,
        callbacks: Sequence[Callable[[RequestLimit], Response | None] | None],
        limit: RequestLimit,
        what: str,
    ) -> Response | None:
        """Call each of them once; the last response that one returns is sent."""
        response = None
        for callback in dict.fromkeys(callbacks):
            if callback is None:
                continue
            try:
                result = callback(limit)
            except Exception as error:
                if not self.state.swallow_errors:
                    raise
                self.state.limiter.logger.exception("%s failed: %s", what, error)
            else:
                if isinstance(result, Response):
                    response = result
        return response

    def exceed(self, asked: Asked, told: int, response: Response | None) -> None:
        """Raise the 429."""
        request = self.request
        raise RateLimitExceeded(
            asked.entry.limit,
            response,
            request_limit=request.request_limit(told),
            headers=self.state.headers.describe(request.entries, request.verdicts, told),
            policy=self.state.headers.policy_of(request.entries, told)
            if self.state.problem_json
            else None,
            rule=asked.rule,
        )

    # -- meta limits

    def watch_metas(self) -> None:
        """Refuse a client that was refused too often."""
        denied = [a for a in self.metas if not a.verdict.allowed]
        for a in denied:
            if self.state.shadow or a.entry.shadow:
                self.report_shadow(a)
        denied = [a for a in denied if not (self.state.shadow or a.entry.shadow)]
        if not denied:
            return
        told = max(denied, key=lambda a: a.verdict.retry_after)
        self.request.show([told], 0)
        self.state.counters["denied"] += 1
        self.report(told, self.request.request_limit(0))
        callback = told.entry.limit.on_breach or self.state.on_meta_breach
        response = self.call_back([callback], self.request.request_limit(0), "on_meta_breach")
        self.exceed(told, 0, response)

    def count_breach(self, failed: Sequence[Entry]) -> None:
        """The meta limits count a refusal."""
        entries = [*self.check.global_metas, *(meta for entry in failed for meta in entry.metas)]
        asked = by_counter(self.prepare_all(list(dict.fromkeys(entries))))
        if not asked:
            return
        for a in asked:
            a.cost = 1
        try:
            ask(self.state, asked, EACH)
        except StoreFailedError:
            self.state.limiter.logger.exception("a meta limit could not be counted")


def count_pending(request: RequestState, response: Response) -> None:
    """Count what depends on the response, or give it back."""
    pending, request.pending = request.pending or [], None
    state = request.state
    count: list[Asked] = []
    give_back: list[Asked] = []
    for asked, taken in pending:
        deduct_when = asked.entry.deduct_when
        wanted = deduct_when is not None and deduct_when(response)
        if wanted and not taken:
            if not asked.verdict.allowed:  # which was counted as that
                asked.bound = asked.bound.replace()
                asked.bound.quiet = True
            count.append(asked)
        elif taken and not wanted:
            give_back.append(asked)
    for group, mode in ((count, EACH), (give_back, REFUND)):
        if not group:
            continue
        try:
            ask(state, group, mode)
        except StoreFailedError as failure:
            state.fail_late(failure.error)
            continue
        said = {asked.entry: asked.verdict for asked in group if asked.verdict.allowed}
        request.verdicts = [
            said.get(entry, verdict)
            for entry, verdict in zip(request.entries, request.verdicts, strict=True)
        ]
