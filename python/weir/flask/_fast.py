"""The path of most requests: nothing but the key has to be found out, and no limit denies.

Everything here could be left out, and :mod:`weir.flask._request` would do the same, slower. Whether
a check can go this way is known when its plan is made (:attr:`Check.simple`). As soon as anything
else happens (a denial, an error, a key that is empty or no text) the long way takes over with what
is known by then, so that the storage is not asked twice.

Each such check is made into a function of the request context, in which everything but the key is
at hand. The request context holds, under the limiter's slot, first the view and the function for
its check (:data:`Armed`), then what came of the check that was made last (:data:`Seen`).
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

from weir._core import EACH, HIT, TEST, Decision, join_key

from ._ask import StoreFailedError
from ._check import Group
from ._context import current_context
from ._request import RequestState
from .util import get_remote_address

if TYPE_CHECKING:
    from ._check import Check, Seen
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

    # Plain functions: Flask asks of each hook whether it is a coroutine function, and that is the
    # answer it finds soonest.
    def before_request() -> None:
        context = current()
        request = context.request
        rule = request.url_rule
        if rule is not None:
            ready = state.ready.get((rule.endpoint, request.method))
            if ready is not None and ready[0] is views.get(rule.endpoint):
                setattr(context, slot, ready[1])
                if ready[2] is not None:
                    ready[2](context)
                return
        if state.enabled:
            RequestState.start(context, slot, state.plan_for(request)).begin()

    def after_request(response: Response) -> Response:
        seen = getattr(current(), slot, None)
        if seen.__class__ is not tuple:
            if seen is not None:
                seen.finish(response)
            return response
        if seen[0] is not None:
            return response  # there was nothing to check
        _, check, _, decision, looked = seen
        told = check.told
        writer = state.headers
        if check.later is not None:
            wanted, after = count_later(seen, response)
            if writer.plain:
                decision, told = check.told_in(decision, looked, wanted, after)
            else:
                decision = check.verdicts(decision, looked, wanted, after)
        if told < 0:
            return response
        if writer.plain:
            # What most want told, without a call: see HeaderWriter.write() for the same at length.
            remaining, reset, wait = decision.texts(told)
            pairs = response.headers._list
            for name, _ in pairs:
                if len(name) == 11 and name.lower() == "retry-after":
                    wait = str(writer.merge(response.headers, int(wait)))
                    pairs = response.headers._list
                    break
            pairs += (
                check.told_pair,
                (writer.remaining, remaining),
                (writer.reset, reset),
                (writer.retry_after, wait),
            )
        elif writer.kinds:
            writer.write(response.headers, check.entries, decision, told)
        return response

    return before_request, after_request


def limited(limiter: Limiter, view: View, function: Callable[P, R]) -> Callable[P, R]:
    """``function``, with the check of ``view`` before it."""
    slot = limiter._slot
    current = current_context
    asynchronous = inspect.iscoroutinefunction(function)

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            context = current()
        except (LookupError, RuntimeError):
            return function(*args, **kwargs)  # called outside of a request: nobody is asking
        seen = getattr(context, slot, None)
        wake = 0.0
        if seen.__class__ is tuple and seen[0] is view:
            seen[1](context)
            if not asynchronous:
                return function(*args, **kwargs)
        elif seen.__class__ is tuple and seen[0] is None and seen[1].plan.follows(seen[1], view):
            # The check before dispatch went the fast way, and this one can, too.
            seen[1].plan.fast_call[1](context)
        else:
            full = RequestState.of(context, limiter)
            if full is not None:
                full.enter(view)
                wake, full.wake = full.wake, 0.0
        if asynchronous:
            call: Any = functools.partial(_later, wake, function) if wake else function
            return cast(R, context.app.ensure_sync(call)(*args, **kwargs))
        if wake:
            time.sleep(max(0.0, wake - time.time()))
        return function(*args, **kwargs)

    return wrapper


async def _later(wake: float, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Awaits ``function`` at the time ``wake``."""
    await asyncio.sleep(max(0.0, wake - time.time()))
    return await function(*args, **kwargs)


def compile_check(check: Check, plan: Plan) -> Callable[[RequestContext], None]:
    """The function that makes ``check``: it returns if the request may go on, and raises otherwise.

    For a check that is :attr:`Check.simple`.
    """
    slot = plan.state.slot
    ask = plan.state.decide
    key_func = check.key_func
    prefix = check.prefix
    looked_at = check.looked
    group = check.counted
    suffix = group.suffix if group is not None else None
    if looked_at is not None:
        looked_bounds, looked_costs, looked_keys = looked_at.bounds, looked_at.costs, looked_at.keys
    if group is not None:
        bounds, costs, keys = group.bounds, group.costs, group.keys

    by_address = key_func is get_remote_address

    def run(context: RequestContext) -> None:
        key: str | None = None
        if by_address:
            key = context.request.remote_addr
            if not key or ":" in key:
                key = None  # not as plain as an IPv4 address
        if key is None:
            try:
                key = key_func()
            except Exception:
                RequestState.start(context, slot, plan).swallow()
                return
            if key.__class__ is not str or not key:
                RequestState.start(context, slot, plan).run(check)
                return
        looked = counted = None
        try:
            text = key if key.isascii() and "/" not in key and "%" not in key else join_key(key)
            if prefix:
                text = prefix + text
            if looked_at is not None:
                looked = ask(looked_bounds, looked_keys(text), looked_costs, TEST)
            if group is not None and (looked is None or looked.allowed):
                counted = ask(bounds, keys(text), costs, HIT)
        except Exception as error:
            fail(context, key, error)
            return
        if (counted is None or counted.allowed) and (looked is None or looked.allowed):
            setattr(context, slot, (None, check, key, counted, looked))
        else:
            RequestState.start(context, slot, plan).go_on(check, key, looked, counted)

    def fail(context: RequestContext, key: str, error: Exception) -> None:
        failure = StoreFailedError(error, ask)
        RequestState.start(context, slot, plan).go_on(check, key, None, None, failure)

    if not by_address or looked_at is not None or suffix is None:
        return run

    def run_for_address(context: RequestContext) -> None:
        """The same for an IPv4 address and a single scope."""
        key = context.request.remote_addr
        if not key or ":" in key:
            run(context)
            return
        try:
            counted = ask(bounds, f"{prefix}{key}{suffix}", costs, HIT)
        except Exception as error:
            fail(context, key, error)
            return
        if counted.allowed:
            setattr(context, slot, (None, check, key, counted, None))
        else:
            RequestState.start(context, slot, plan).go_on(check, key, None, counted)

    return run_for_address


def count_later(seen: Seen, response: Response) -> tuple[Sequence[int], Decision | None]:
    """Count the limits with ``deduct_when`` that say so: which they are, and what they said."""
    _, check, key, _, _ = seen
    entries = check.entries
    wanted: Sequence[int] = check.watched
    for i in check.watched:
        if not entries[i].deduct_when(response):  # type: ignore[misc]
            wanted = [n for n in wanted if n != i]
    if not wanted:
        return wanted, None
    later = check.later
    if later is None or wanted is not check.watched:
        later = Group([entries[i] for i in wanted])
    state = check.plan.state
    try:
        text = key if key.isascii() and "/" not in key and "%" not in key else join_key(key)
        return wanted, state.decide(
            later.bounds, later.keys(check.prefix + text), later.costs, EACH
        )
    except Exception as error:
        state.fail_late(error)
        return wanted, None
