"""One limiter in one request: what was asked and answered, and what the client is told."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from flask.ctx import RequestContext
from flask.wrappers import Response

from weir._core import Decision, Verdict

from ._ask import Asked, FullCheck, StoreFailedError, count_pending
from ._limits import RequestLimit, View
from .errors import RateLimitExceeded

if TYPE_CHECKING:
    from ._check import Armed, Check, Entry, Node, Seen
    from ._limiter import Limiter
    from ._plan import Plan
    from ._state import AppState


class RequestState:
    """Kept in the request context; read by headers and ``current_limit``."""

    # Class attributes are what holds at first, so that a request sets only what it needs.

    #: The limits of the last check: what they said, who was counted, in which scope.
    entries: Sequence[Entry] = ()
    verdicts: Sequence[Verdict] = ()
    who: Sequence[str] = ()
    scopes: Sequence[str] = ()
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

    @classmethod
    def of(cls, context: RequestContext, limiter: Limiter) -> RequestState | None:
        """The state of a request; None if ``limiter`` does not limit its application."""
        seen = getattr(context, limiter._slot, None)
        if seen.__class__ is tuple:
            return cls.take_over(context, limiter, seen)
        if seen is None:
            state: AppState | None = context.app.extensions.get("weir", {}).get(limiter)
            if state is None or not state.enabled:
                return None
            return cls.start(context, limiter._slot, state.plan_for(context.request))
        assert isinstance(seen, cls)
        return seen

    @classmethod
    def start(cls, context: RequestContext, slot: str, plan: Plan) -> RequestState:
        """Begin anew."""
        self = cls(plan.state, plan)
        setattr(context, slot, self)
        return self

    @classmethod
    def take_over(
        cls, context: RequestContext, limiter: Limiter, seen: Seen | Armed
    ) -> RequestState:
        """Go on from what the fast path found out."""
        slot = limiter._slot
        if len(seen) == 3:
            state: AppState = context.app.extensions["weir"][limiter]
            return cls.start(context, slot, state.plan_for(context.request))
        _, check, key, decision = seen
        self = cls.start(context, slot, check.plan)
        entries = check.entries
        verdicts = decision[: len(entries)] if decision is not None else ()
        if check.watched:
            self.pending = []
            for i in check.watched:
                text = check.key_of(key, entries[i])
                asked = Asked(entries[i], key, entries[i].scope, text, entries[i].cost)
                asked.verdict = verdicts[i]
                self.pending.append((asked, False))
        self.entries = entries
        self.verdicts = verdicts
        self.who = [key] * len(entries)
        self.scopes = [entry.scope for entry in entries]
        self.told = check.told
        self.defaults_counted = check.defaults
        return self

    # -- the moments of a request

    def begin(self) -> None:
        """Before dispatch."""
        self.run(self.plan.bare if self._is_filtered() else self.plan.before)
        if self.wake and not self.plan.resolver.leaves_defaults:
            wake, self.wake = self.wake, 0.0
            time.sleep(max(0.0, wake - time.time()))

    def enter(self, view: View | None) -> None:
        """A limited function is called."""
        plan = self.plan
        node = plan.calls.get((view, self.defaults_counted))
        if node is None:
            node = plan.call(view, self.defaults_counted)
        self.run(plan.bare if self._is_filtered() else node)

    def finish(self, response: Response) -> None:
        """The response is there: count what depended on it, write the headers."""
        if self.pending:
            count_pending(self, response)
        told = self.told
        writer = self.state.headers
        if told >= 0 and writer.kinds:
            writer.write(response.headers, self.entries, self.verdicts, told)

    def _is_filtered(self) -> bool:
        filters = self.state.limiter._request_filters
        return bool(filters) and any(skip() for skip in filters)

    # -- a check

    def run(self, node: Node) -> None:
        """Make a check. Returns if the request may go on, raises what it gets otherwise."""
        try:
            while node.is_ask:
                node = node.next()
            if not node.idle:
                self.decide(node)
            elif self.entries:
                self.show([], -1)
        except RateLimitExceeded:
            raise
        except Exception:
            self.swallow()

    def decide(self, check: Check) -> None:
        """Decide a check that may have everything."""
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
            self.fail(check, failure)

    def go_on(self, check: Check, key: str, said: Decision | StoreFailedError) -> None:
        """Go on with a check where the fast path was denied or failed."""
        if check.defaults:
            self.defaults_counted = True
        try:
            try:
                if isinstance(said, StoreFailedError):
                    raise said
                FullCheck(self, check).resume(key, said)
            except StoreFailedError as failure:
                self.fail(check, failure)
        except RateLimitExceeded:
            raise
        except Exception:
            self.swallow()

    def _is_early(self, check: Check) -> bool:
        """Whether the view of this endpoint is going to make another check."""
        return self.plan.resolver.leaves_defaults and check is self.plan.before

    def fail(self, check: Check, failure: StoreFailedError) -> None:
        """The storage could not decide."""
        error = failure.error
        if isinstance(error, TypeError | ValueError | OverflowError) and not hasattr(error, "code"):
            raise error  # a cost or a key that is none; the storage is fine
        self.show([], -1)
        if self.state.fail(error, failure.decide):
            self.decide(check)

    def swallow(self) -> None:
        """In the handler of an exception: raise it, or log it and let the request pass."""
        state = self.state
        if not state.swallow_errors:
            raise
        state.counters["swallowed"] += 1
        state.limiter.logger.exception("a rate limit could not be checked; the request passes")

    def wait_for(self, delays: Iterable[float]) -> None:
        """Let the view run when the slowest of the limits says so."""
        delay = max(delays)
        if delay:
            self.wake = max(self.wake, time.time() + delay)

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
        return self._as_told(
            self.entries[index], self.verdicts[index], self.who[index], self.scopes[index]
        )

    def limit_of(self, asked: Asked) -> RequestLimit:
        """One limit that was asked, whether or not the client is told of it."""
        return self._as_told(asked.entry, asked.verdict, asked.who, asked.scope)

    def _as_told(self, entry: Entry, verdict: Verdict, who: str, scope: str) -> RequestLimit:
        arguments = [who, scope]
        if self.state.key_prefix:
            arguments.insert(0, self.state.key_prefix)
        limit = entry.limit
        return RequestLimit(
            self.state.limiter,
            limit.limit,
            arguments,
            not verdict.allowed,
            limit.shared,
            verdict,
        )
