"""What follows a decision, unless the request simply passes.

A check works like this: the core determines the client, the limits and the cost of the request, and
decides all limits at once. Limits with ``deduct_when`` are only peeked at, because they are charged
when the response is known; with ``reserve`` they are charged now and given back then. Meta limits
are peeked at, too: a client over one of them is refused. Shadow limits never refuse.

This module handles a refusal: the log line, the callbacks, the meta limits that count it, and the
429. It also handles the delay of a leaky bucket.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from flask.wrappers import Response

from weir._core import EACH, Evaluation
from weir._log import shows_keys
from weir.audit import Breach

from .check import Check, bits
from .context import current_context
from .errors import RateLimitExceeded
from .limits import RequestLimit
from .signals import rate_limit_breached
from .util import get_remote_address, note_proxy

if TYPE_CHECKING:
    from .state import AppState

OnBreach = Callable[[RequestLimit], "Response | None"]


class RequestState(Protocol):
    """The part of :class:`weir.flask.request.RequestState` that an evaluation uses."""

    plan: Any
    evaluation: Evaluation | None
    wake: float

    @property
    def state(self) -> AppState: ...

    def pend(self, evaluation: Evaluation, mask: int) -> None: ...

    def decided(self, evaluation: Evaluation) -> Any: ...

    def request_limit(self, evaluation: Evaluation, i: int) -> RequestLimit: ...

    def scope_of(self, evaluation: Evaluation, i: int) -> str: ...


def conclude(request: RequestState, evaluation: Evaluation) -> RateLimitExceeded | None:
    """Process a decision. Returns ``None`` if the request passes, otherwise the refusal."""
    check: Check = evaluation.check
    denied: int = evaluation.denied
    lenient = check.shadow_mask
    request.evaluation = None
    metas = denied & check.meta_mask
    if metas:
        for i in bits(metas & lenient):
            report_shadow(request, evaluation, i)
        if metas & ~lenient:
            return refuse_by_meta(request, evaluation, metas & ~lenient)
        denied &= check.main_mask
    if check.responsive:
        remember_pending(request, evaluation, denied)
    if denied & lenient:
        for i in bits(denied & lenient):
            report_shadow(request, evaluation, i)
        denied &= ~lenient
    request.evaluation = evaluation
    if denied:
        return refuse(request, evaluation, denied)
    delay = evaluation.delay
    if delay:
        request.wake = max(request.wake, time.time() + delay)
    return None


def remember_pending(request: RequestState, evaluation: Evaluation, denied: int) -> None:
    """Record the limits that are charged or given back when the response is known.

    For a refused request, these are the limits before the one that refused.
    """
    check: Check = evaluation.check
    pending = evaluation.parts & check.responsive
    first = denied & ~check.shadow_mask
    if first and not request.state.charges_each:
        first &= -first
        pending &= first | (first - 1)
    if pending:
        request.pend(evaluation, pending)


def refuse(request: RequestState, evaluation: Evaluation, denied: int) -> RateLimitExceeded:
    """Report the breach, and return the 429."""
    state = request.plan.state
    check: Check = evaluation.check
    entries = check.entries
    reported: int = evaluation.reported
    state.counters["denied"] += 1
    if entries[reported].key_func is get_remote_address:
        note_proxy(current_context().request.environ)
    failed = tuple(bits(denied)) if state.charges_each else (reported,)
    if state.logs_breaches:
        for i in failed:
            log_breach(request, evaluation, i)
    receivers, audited = bool(rate_limit_breached.receivers), state.audit.listens
    if receivers or audited:
        for i in failed:
            report(request, evaluation, i)
    response = None
    for i in failed:
        on_breach = entries[i].limit.on_breach
        if on_breach is not None or state.on_breach is not None:
            callbacks = [state.on_breach, on_breach]
            limit = request.request_limit(evaluation, i)
            response = call_back(request, callbacks, limit, "on_breach") or response
    if check.meta_mask:
        count_breach(request, evaluation, denied)
    return exceeded(request, evaluation, response)


def refuse_by_meta(request: RequestState, evaluation: Evaluation, denied: int) -> RateLimitExceeded:
    """Refuse a client that was refused too often."""
    state = request.state
    reported = max(bits(denied), key=lambda i: evaluation.verdict(i).retry_after)
    evaluation.report(reported)
    request.evaluation = evaluation
    state.count("denied")
    report(request, evaluation, reported)
    callback = evaluation.check.entries[reported].limit.on_breach or state.on_meta_breach
    response = None
    if callback is not None:
        limit = request.request_limit(evaluation, reported)
        response = call_back(request, [callback], limit, "on_meta_breach")
    return exceeded(request, evaluation, response)


def exceeded(
    request: RequestState, evaluation: Evaluation, response: Response | None
) -> RateLimitExceeded:
    """The exception for a decision."""
    entry = evaluation.check.entries[evaluation.reported]
    return RateLimitExceeded(entry.limit, response, decided=request.decided(evaluation))


def call_back(
    request: RequestState,
    callbacks: Sequence[OnBreach | None],
    limit: RequestLimit,
    what: str,
) -> Response | None:
    """Call each callback once. The last response that one returns is sent."""
    response = None
    for callback in dict.fromkeys(callbacks):
        if callback is None:
            continue
        try:
            result = callback(limit)
        except Exception as error:
            if not request.state.swallow_errors:
                raise
            request.state.logger.exception("%s callback failed with error %s", what, error)
        else:
            if isinstance(result, Response):
                response = result
    return response


# -- reporting


def logged_key(request: RequestState, evaluation: Evaluation, i: int) -> str:
    """The client's key for a log line: addresses are shown, other keys may be secret."""
    client: str = evaluation.client(i)
    return client if shows_keys() else request.state.audit.name_of(client)


def log_breach(request: RequestState, evaluation: Evaluation, i: int) -> None:
    entry = evaluation.check.entries[i]
    request.state.logger.info(
        # The text is the one of Flask-Limiter, which fail2ban filters match.
        "ratelimit %s (%s) exceeded at endpoint: %s",
        entry.limit.limit,
        logged_key(request, evaluation, i),
        request.scope_of(evaluation, i),
    )


def report_shadow(request: RequestState, evaluation: Evaluation, i: int) -> None:
    """Record that a limit in shadow mode would have refused the request."""
    state = request.state
    check: Check = evaluation.check
    state.count("shadow_denied")
    state.logger.info(
        "shadow ratelimit %s (%s) would have been exceeded at endpoint: %s",
        check.entries[i].limit.limit,
        logged_key(request, evaluation, i),
        request.scope_of(evaluation, i),
    )
    if not check.shadows >> i & 1:  # the core has counted them
        state.store.note(evaluation, 1 << i)
    report(request, evaluation, i, shadow=True)


def report(request: RequestState, evaluation: Evaluation, i: int, shadow: bool = False) -> None:
    """Send a breach to the audit log and the signal, if anyone listens."""
    state = request.state
    receivers = bool(rate_limit_breached.receivers)
    audited = state.audit.listens
    if not (receivers or audited):
        return
    entry = evaluation.check.entries[i]
    verdict = evaluation.verdict(i)
    client = evaluation.client(i)
    breach = Breach(
        time.time(),
        str(entry.bound),
        request.scope_of(evaluation, i),
        entry.endpoint,
        state.audit.name_of(client),
        evaluation.cost(i),
        verdict.remaining,
        verdict.retry_after if math.isfinite(verdict.retry_after) else None,
        shadow,
        state.store.name(),
        evaluation.rule,
    )
    if audited:
        state.audit.note(breach, entry.bound, evaluation.key(i))
    if receivers:
        limit = request.request_limit(evaluation, i)
        try:
            rate_limit_breached.send(state.app, limiter=state.limiter, breach=breach, limit=limit)
        except Exception as error:
            state.logger.exception("a receiver of breaches failed: %s", error)


# -- counting afterwards


def count_breach(request: RequestState, evaluation: Evaluation, denied: int) -> None:
    """Charge the meta limits for a refusal."""
    check: Check = evaluation.check
    metas = check.metas_of(bits(denied))
    if not metas:
        return
    metas = distinct(evaluation, evaluation.add(metas))
    try:
        evaluation.settle(EACH, metas, True)
    except Exception as error:
        if not request.state.store.failed(error):
            raise
        request.state.logger.exception("a meta limit could not be counted")


def distinct(evaluation: Evaluation, metas: int) -> int:
    """The limits without duplicates: two meta limits may use the same counter."""
    if metas & (metas - 1) == 0:
        return metas
    entries = evaluation.check.entries
    found: dict[object, int] = {}
    for i in bits(metas):
        found.setdefault((entries[i].bound, evaluation.key(i)), i)
    return sum(1 << i for i in found.values())
