"""What comes of a check that was decided and is not plainly passed.

How a check goes: the core finds out who is asking, which limits apply and what the request costs,
and decides all of them at once. Limits with ``deduct_when`` are only looked at, since they are
charged once the response is known; with ``reserve`` they are charged now and given back then. Meta
limits are looked at, too: a client over one of them is refused. Shadow limits refuse nobody.

Here: if the request is refused, the log line, the callbacks, the meta limits that count it, and the
429; and a leaky bucket's delay.
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
    """A request, as its evaluation needs it; see :class:`weir.flask.request.RequestState`."""

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
    """Take note of what was decided: ``None`` if the request may go on, else what refuses it."""
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
    """Remember the limits that are charged or given back when the response is known.

    Of a refused request those that would have been reached before the refusal.
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
    """Report the breach; the 429."""
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
    """The exception for what was decided."""
    entry = evaluation.check.entries[evaluation.reported]
    return RateLimitExceeded(entry.limit, response, decided=request.decided(evaluation))


def call_back(
    request: RequestState,
    callbacks: Sequence[OnBreach | None],
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
            if not request.state.swallow_errors:
                raise
            request.state.logger.exception("%s callback failed with error %s", what, error)
        else:
            if isinstance(result, Response):
                response = result
    return response


# -- reporting


def logged_key(request: RequestState, evaluation: Evaluation, i: int) -> str:
    """The client's key as a log line may have it: a key may be a secret, an address is not."""
    who: str = evaluation.who(i)
    return who if shows_keys() else request.state.audit.name_of(who)


def log_breach(request: RequestState, evaluation: Evaluation, i: int) -> None:
    entry = evaluation.check.entries[i]
    request.state.logger.info(
        # The words are Flask-Limiter's: fail2ban filters look for them.
        "ratelimit %s (%s) exceeded at endpoint: %s",
        entry.limit.limit,
        logged_key(request, evaluation, i),
        request.scope_of(evaluation, i),
    )


def report_shadow(request: RequestState, evaluation: Evaluation, i: int) -> None:
    """Note that a limit that refuses nobody would have refused the request."""
    state = request.state
    check: Check = evaluation.check
    state.count("shadow_denied")
    state.logger.info(
        "shadow ratelimit %s (%s) would have been exceeded at endpoint: %s",
        check.entries[i].limit.limit,
        logged_key(request, evaluation, i),
        request.scope_of(evaluation, i),
    )
    if not check.shadows >> i & 1:  # the core has counted those
        state.store.note(evaluation, 1 << i)
    report(request, evaluation, i, shadow=True)


def report(request: RequestState, evaluation: Evaluation, i: int, shadow: bool = False) -> None:
    """Tell those who want to know of breaches; nothing is made of it where nobody does."""
    state = request.state
    receivers = bool(rate_limit_breached.receivers)
    audited = state.audit.listens
    if not (receivers or audited):
        return
    entry = evaluation.check.entries[i]
    verdict = evaluation.verdict(i)
    who = evaluation.who(i)
    breach = Breach(
        time.time(),
        str(entry.bound),
        request.scope_of(evaluation, i),
        entry.endpoint,
        state.audit.name_of(who),
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


# -- what is counted afterwards


def count_breach(request: RequestState, evaluation: Evaluation, denied: int) -> None:
    """The meta limits count a refusal."""
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
    """One of each counter: two meta limits may turn out to watch the same client."""
    if metas & (metas - 1) == 0:
        return metas
    entries = evaluation.check.entries
    found: dict[object, int] = {}
    for i in bits(metas):
        found.setdefault((entries[i].bound, evaluation.key(i)), i)
    return sum(1 << i for i in found.values())
