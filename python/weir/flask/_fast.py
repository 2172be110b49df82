"""The path of most requests: nothing but the key has to be found out, and no limit denies.

Everything here could be left out, and :mod:`weir.flask._request` would do the same, slower. Whether
a check can go this way is known when its plan is made (:attr:`Check.simple`). As soon as anything
else happens (a denial, an error, a key that is empty or no text) the long way takes over with what
is known by then, so that the storage is not asked twice.

Each such check has a gate, in which everything but the client is at hand (:mod:`weir.flask._gate`).
The request context holds, under the limiter's slot, first the view and what opens the gate of its
check (:data:`Armed`), then what came of the check that was made last (:data:`Seen`).
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from flask.ctx import RequestContext
from flask.wrappers import Response

from weir._core import Decision, Door, Gate

from ._ask import StoreFailedError
from ._context import current_context
from ._request import RequestState
from .util import get_remote_address

if TYPE_CHECKING:
    from ._check import Check, Enter, Outcome, Resume, Tell
    from ._limiter import Limiter
    from ._limits import View
    from ._plan import Plan
    from ._state import AppState

P = ParamSpec("P")
R = TypeVar("R")


def hooks(state: AppState) -> tuple[Callable[[], None], Callable[[Response], Response]]:
    """What Flask calls before and after each request."""
    slot = state.slot
    current = current_context
    views = state.app.view_functions
    door = Door(current, slot)
    before, after = door.before, door.after

    # Plain functions: Flask asks of each hook whether it is a coroutine function, and that is the
    # answer it finds soonest.
    def before_request() -> None:
        if not before(state.ready, views) and state.enabled:
            context = current()
            RequestState.start(context, slot, state.plan_for(context.request)).begin()

    def after_request(response: Response) -> Response:
        if after(response):
            return response
        seen = getattr(current(), slot, None)
        if seen.__class__ is not tuple:
            if seen is not None:
                seen.finish(response)
            return response
        if seen[0] is not None:
            return response  # there was nothing to check
        _, check, key, decision = seen
        if check.watched:
            decision = count_later(check, key, decision, response)
        told = check.told
        if told < 0:
            return response
        writer = state.headers
        if writer.kinds:
            writer.write(response.headers, check.entries, decision, told)
        return response

    return before_request, after_request


def limited(limiter: Limiter, view: View, function: Callable[P, R]) -> Callable[P, R]:
    """``function``, with the check of ``view`` before it."""
    call = Door(current_context, limiter._slot).call
    asynchronous = inspect.iscoroutinefunction(function)

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        wake = 0.0
        if call(view):
            if not asynchronous:
                return function(*args, **kwargs)
        else:
            try:
                context = current_context()
            except (LookupError, RuntimeError):
                return function(*args, **kwargs)  # called outside of a request: nobody is asking
            full = RequestState.of(context, limiter)
            if full is not None:
                full.enter(view)
                wake, full.wake = full.wake, 0.0
        if asynchronous:
            start: Any = functools.partial(_later, wake, function) if wake else function
            return cast(R, current_context().app.ensure_sync(start)(*args, **kwargs))
        if wake:
            time.sleep(max(0.0, wake - time.time()))
        return function(*args, **kwargs)

    return wrapper


async def _later(wake: float, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Awaits ``function`` at the time ``wake``."""
    await asyncio.sleep(max(0.0, wake - time.time()))
    return await function(*args, **kwargs)


def open_gate(check: Check, plan: Plan) -> tuple[Enter, Resume]:
    """What makes ``check``, which is :attr:`Check.simple`, and what goes on if it does not pass."""
    state = plan.state
    slot = state.slot
    gate = check.gate
    key_func = check.key_func

    def nothing(context: RequestContext) -> None:
        setattr(context, slot, (None, check, "", None))

    def enter(context: RequestContext) -> Outcome | None:
        try:
            key = key_func()
        except Exception:
            RequestState.start(context, slot, plan).swallow()
            return None
        if key.__class__ is not str or not key:
            return None, None, None
        try:
            decision = ask(key)
        except Exception as error:
            return key, None, error
        if not decision.allowed:
            return key, decision, None
        setattr(context, slot, (None, check, key, decision))
        return None

    def resume_by_address(context: RequestContext, outcome: Outcome) -> None:
        again = enter(context) if outcome[0] is None else outcome  # no address, or one of IPv6
        if again is not None:
            resume(context, again)

    def resume(context: RequestContext, outcome: Outcome) -> None:
        key, decision, error = outcome
        request = RequestState.start(context, slot, plan)
        if key is not None and decision is not None:
            request.go_on(check, key, decision)
        elif key is not None and error is not None:
            request.go_on(check, key, StoreFailedError(error, state.decide))
        else:
            request.run(check)  # the key is empty or no text

    if gate is None:
        return nothing, resume
    ask = gate.ask
    if key_func is get_remote_address and isinstance(gate, Gate):
        return gate.enter, resume_by_address
    return enter, resume


def close_gate(check: Check, plan: Plan) -> Tell | bool | None:
    """What is left to do of a check that passed when the response is there: :attr:`Check.tell`."""
    headers = plan.state.headers
    told = check.told
    if not check.watched and (told < 0 or not headers.kinds):
        return False
    if len(check.watched) > 1 or told < 0 or not headers.plain:
        return None

    def write(response: Response, decision: Decision) -> None:
        headers.write(response.headers, check.entries, decision, told)

    if not check.watched:
        return told, check.said, write, None, None
    wanted = check.watched

    def charge(key: str, decision: Decision) -> Decision:
        return charge_later(check, wanted, key, decision)

    return told, check.said, write, check.entries[wanted[0]].deduct_when, charge


def count_later(check: Check, key: str, decision: Decision, response: Response) -> Decision:
    """Count the limits with ``deduct_when`` that say so; the decision after that."""
    entries = check.entries
    wanted = [i for i in check.watched if entries[i].deduct_when(response)]  # type: ignore[misc]
    return charge_later(check, wanted, key, decision) if wanted else decision


def charge_later(check: Check, wanted: Sequence[int], key: str, decision: Decision) -> Decision:
    """Count these of the limits with ``deduct_when``; the decision after that."""
    state = check.plan.state
    try:
        after = check.later(wanted).charge(key, decision)
    except Exception as error:
        state.fail_late(error)
        return decision
    if after is not decision:
        setattr(current_context(), state.slot, (None, check, key, after))
    return after
