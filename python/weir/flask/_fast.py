"""The path of most requests: nothing but the key has to be found out, and no limit denies.

Everything here could be left out, and :mod:`weir.flask._request` would do the same, slower. Whether
a check can go this way is known when its plan is made (:attr:`Check.simple`). As soon as anything
else happens (a denial, an error, a key that is empty or no text) the long way takes over with what
is known by then, so that the storage is not asked twice.

What a check needs is in one tuple, :data:`Armed`, made with the plan; what came of it is in
another, :data:`Seen`. One of them is in the request context, under the limiter's slot: first what
the view's check needs, then what came of the check that was made last.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from flask.ctx import RequestContext
from flask.wrappers import Response

from weir._core import HIT, TEST, Decision, join_key

from ._ask import StoreFailedError
from ._context import current_context
from ._request import RequestState
from .util import get_remote_address

if TYPE_CHECKING:
    from ._limiter import Limiter
    from ._limits import View
    from ._plan import Armed, Group
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
        if not state.enabled:
            return
        context = current()
        request = context.request
        rule = request.url_rule
        plan = None
        if rule is not None:
            plan = state.plans.get((rule.endpoint, request.method))
        if plan is None or plan.function is not views.get(rule.endpoint):  # type: ignore[union-attr]
            plan = state.plan_for(request)
        armed = plan.fast_before
        if armed is None:
            full = RequestState(state, plan)
            setattr(context, slot, full)
            full.begin()
            return
        setattr(context, slot, plan.fast_call)
        if not plan.idle:
            decide(context, slot, armed)

    def after_request(response: Response) -> Response:
        seen = getattr(current(), slot, None)
        if seen.__class__ is tuple:
            if seen[0] is None:
                _, check, _, counted, _ = seen
                if check.watched:
                    RequestState.take_over(current(), slot, seen).finish(response)
                elif check.told >= 0:
                    writer = state.headers
                    if writer.plain:
                        writer.write_plain(
                            response.headers, check.entries[check.told], counted[check.told]
                        )
                    elif writer.kinds:
                        writer.write(response.headers, check.entries, counted, check.told)
        elif seen is not None:
            seen.finish(response)
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
            decide(context, slot, seen)
        elif seen.__class__ is tuple and seen[0] is None and seen[1].plan.follows(seen[1], view):
            # The check before dispatch went the fast way, and this one can, too.
            decide(context, slot, seen[1].plan.fast_call)
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


def decide(context: RequestContext, slot: str, armed: Armed) -> None:
    """Make a check. Returns if the request may go on, raises what it gets otherwise."""
    _, key_func, prefix, suffix, bounds, costs, ask, check = armed
    try:
        if key_func is get_remote_address:
            key = context.request.remote_addr or ""
            if not key or ":" in key:
                key = key_func()
        else:
            key = key_func()
    except Exception:
        RequestState.start(context, slot, check.plan).swallow()
        return
    if key.__class__ is not str or not key:
        RequestState.start(context, slot, check.plan).run(check)
        return
    looked = counted = None
    try:
        text = join_key(key) if "/" in key or "%" in key else key
        if check.looked is not None:
            looked = _look(ask, check.looked, prefix, text)
        if bounds and (looked is None or looked.allowed):
            counted = ask(
                bounds,
                f"{prefix}{text}{suffix}"
                if suffix is not None
                else [f"{prefix}{text}{suffix}" for suffix in check.suffixes],
                costs,
                HIT,
            )
    except Exception as error:
        failure = StoreFailedError(error, ask)
        RequestState.start(context, slot, check.plan).go_on(check, key, None, None, failure)
        return
    if (counted is None or counted.allowed) and (looked is None or looked.allowed):
        setattr(context, slot, (None, check, key, counted, looked))
    else:
        RequestState.start(context, slot, check.plan).go_on(check, key, looked, counted)


def _look(ask: Callable[..., Decision], group: Group, prefix: str, text: str) -> Decision:
    return ask(
        group.bounds, [f"{prefix}{text}{suffix}" for suffix in group.suffixes], group.costs, TEST
    )
