"""One limiter in one request: what was asked and answered, and what the client is told."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flask.wrappers import Response

from weir._core import join_key

from ._ask import Asked, FullCheck, StoreFailedError, count_pending
from ._limits import RequestLimit, Verdicts, View
from .errors import RateLimitExceeded

if TYPE_CHECKING:
    from ._plan import Ask, Check, Entry, Plan
    from ._state import AppState


class RequestState:
    """Made before dispatch, kept in the request context, read by headers and ``current_limit``."""

    # Class attributes are what holds at first, so that a request sets only what it needs.

    #: The limits of the last check, and what they said.
    entries: Sequence[Entry] = ()
    verdicts: Verdicts = ()
    #: Who was counted and in which scope, for each limit; or one key for all, in the plan's scopes.
    who: str | Sequence[str] = ""
    scopes: Sequence[str] | None = None
    #: Index of the limit to tell the client of; -1 for none.
    told = -1
    #: Counts that depend on the response, and whether each is taken already.
    pending: list[tuple[Asked, bool]] | None = None
    #: Whether the default limits counted this request.
    defaults_counted = False
    #: Leaky bucket: when the view may run, in seconds since the Unix epoch; 0.0 for at once.
    wake = 0.0
    _limits: tuple[object, list[RequestLimit]] | None = None

    def __init__(self, state: AppState, plan: Plan) -> None:
        self.state = state
        self.plan = plan

    # -- the moments of a request

    def begin(self) -> None:
        """Before dispatch."""
        plan = self.plan
        filters = self.state.limiter._request_filters
        if filters and any(skip() for skip in filters):
            self.run(plan.bare)
        elif not plan.idle:
            self.run(plan.before)
        if self.wake and not plan.resolver.leaves_defaults:
            wake, self.wake = self.wake, 0.0
            time.sleep(max(0.0, wake - time.time()))

    def enter(self, view: View | None) -> None:
        """A limited function is called."""
        plan = self.plan
        node = plan.calls.get((view, self.defaults_counted))
        if node is None:
            node = plan.call(view, self.defaults_counted)
        filters = self.state.limiter._request_filters
        if filters and any(skip() for skip in filters):
            node = plan.bare
        self.run(node)

    def finish(self, response: Response) -> None:
        """The response is there: count what depended on it, write the headers."""
        if self.pending:
            count_pending(self, response)
        told = self.told
        if told >= 0:
            self.state.headers.write(response.headers, self.entries, self.verdicts, told)

    # -- a check

    def run(self, node: Check | Ask) -> None:
        """Make a check. Returns if the request may go on, raises what it gets otherwise."""
        try:
            while node.is_ask:
                node = node.next()
            self.decide(node)
        except RateLimitExceeded:
            raise
        except Exception:
            if not self.state.swallow_errors:
                raise
            self.state.counters["swallowed"] += 1
            self.state.limiter.logger.exception(
                "a rate limit could not be checked; the request passes"
            )

    def decide(self, check: Check) -> None:
        """Decide a check: in a few lines if only the key can differ, as it is for most."""
        state = self.state
        if check.simple and not state.dead:
            key = check.key_func()
            if key.__class__ is str and key:
                text = join_key(key) if "/" in key or "%" in key else key
                if check.prefix:
                    text = check.prefix + text
                decide = state.decide
                try:
                    decision = decide(
                        check.bounds,
                        [text + suffix for suffix in check.suffixes],
                        check.costs,
                        check.mode,
                    )
                except Exception as error:
                    self._failed(check, StoreFailedError(error, decide))
                    return
                self.entries = check.entries
                self.verdicts = decision
                self.who = key
                self.scopes = None
                if decision.allowed:
                    self.told = check.header
                    if check.defaults:
                        self.defaults_counted = True
                    if check.delays:
                        self.wait_for(decision, decision.now)
                else:
                    FullCheck(self, check).refuse(key, decision)
                return
        self._decide_in_full(check)

    def _decide_in_full(self, check: Check) -> None:
        state = self.state
        if state.dead and not self._is_early(check) and not state.probe() and state.fallback_limits:
            check = self.plan.fallback()
        for complaint in check.complaints:
            state.limiter.logger.error("%s", complaint)
        if check.defaults:
            self.defaults_counted = True
        try:
            FullCheck(self, check).make()
        except StoreFailedError as failure:
            self._failed(check, failure)

    def _is_early(self, check: Check) -> bool:
        """Whether the view of this endpoint is going to make another check."""
        return self.plan.resolver.leaves_defaults and check is self.plan.before

    def _failed(self, check: Check, failure: StoreFailedError) -> None:
        error = failure.error
        if isinstance(error, UnicodeEncodeError) and check.simple:
            check.simple = False  # a key that is no UTF-8: the long way copes with it
            self._decide_in_full(check)
            return
        if isinstance(error, TypeError | ValueError | OverflowError) and not hasattr(error, "code"):
            raise error  # a cost or a key that is none; the storage is fine
        self.show([], -1)
        if self.state.fail(error, failure.decide):
            self._decide_in_full(check)

    def wait_for(self, verdicts: Verdicts, now: float) -> None:
        """Let the view run when the slowest of the limits says so."""
        delay = max(verdict.delay for verdict in verdicts)
        if delay:
            self.wake = max(self.wake, now + delay)

    # -- what is told

    def show(self, asked: Sequence[Asked], told: int) -> None:
        """From now on these are the limits of the request."""
        self.entries = [a.entry for a in asked]
        self.verdicts = [a.verdict for a in asked]
        self.who = [a.who for a in asked]
        self.scopes = [a.scope for a in asked]
        self.told = told

    def current_limits(self) -> list[RequestLimit]:
        """The limits of the last check, smallest window first."""
        if self._limits is None or self._limits[0] is not self.verdicts:
            limits = [self.request_limit(i) for i in range(len(self.entries))]
            self._limits = (self.verdicts, limits)
        return self._limits[1]

    def current_limit(self) -> RequestLimit | None:
        """The limit to tell the client of."""
        return self.current_limits()[self.told] if self.told >= 0 else None

    def request_limit(self, index: int) -> RequestLimit:
        """One limit of the last check."""
        entry = self.entries[index]
        verdict = self.verdicts[index]
        who = self.who if isinstance(self.who, str) else self.who[index]
        scope = entry.scope if self.scopes is None else self.scopes[index]
        prefix = self.state.key_prefix
        return RequestLimit(
            self.state.limiter,
            entry.limit.limit,
            [prefix, who, scope] if prefix else [who, scope],
            not verdict.allowed,
            entry.limit.shared,
            verdict,
        )
