"""Limits on functions: views, and functions that views call."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import Callable
from sys import _getframe
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from .answer import answer, flask_calls
from .context import current_context
from .errors import UsageError
from .limits import EXEMPT_MARK, VIEW_MARK, RouteLimit, View
from .request import request_of
from .util import get_qualified_name

if TYPE_CHECKING:
    from weir._core import FlaskHooks

P = ParamSpec("P")
R = TypeVar("R")


def decorate(
    limit: RouteLimit, function: Callable[P, R], key: Any, core: FlaskHooks, slot: str
) -> Callable[P, R]:
    """Limit a function. Returns the same function if it was limited before.

    key: the limiter, under which the function stores its limits.

    :raises UsageError: ``ENOTVIEW``.
    """
    if isinstance(function, type):
        raise UsageError(
            "ENOTVIEW",
            f"a limit on the class {function.__qualname__}: write decorators ="
            " [limiter.limit(...)] in the class, or decorate its methods",
        )
    if not callable(function):
        raise UsageError("ENOTVIEW", f"a limit on {function!r}, which is not a view function")
    marks: dict[Any, View] = getattr(function, VIEW_MARK, {})
    if key in marks:
        # Already decorated: the innermost wrapper checks all limits of this limiter at once.
        marks[key].add(limit)
        return function
    view = View(get_qualified_name(function))
    view.add(limit)
    view.exempt = key in getattr(function, EXEMPT_MARK, {})
    wrapper = _limited(view, function, key, core, slot)
    setattr(wrapper, VIEW_MARK, {**marks, key: view})
    return wrapper


def _limited(
    view: View, function: Callable[P, R], key: Any, core: FlaskHooks, slot: str
) -> Callable[P, R]:
    """``function``, with the check of ``view`` before it."""
    check = core.call
    asynchronous = inspect.iscoroutinefunction(function)

    def unplanned() -> float:
        try:
            context = current_context()
        except (LookupError, RuntimeError):
            return 0.0  # called outside of a request: there is no client
        request = request_of(context, key, slot)
        if request is None:
            key.report_missing_application(view.name)
            return 0.0
        request.enter(view)
        wake, request.wake = request.wake, 0.0
        return wake

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        wake = check(view)
        if wake:
            if wake.__class__ is not float:
                # Refused. Flask can be answered directly; any other caller must see the exception,
                # such as the view itself or a hook, which call it by its name.
                plan = getattr(current_context(), slot).plan
                if plan.function is not wrapper or asynchronous or not flask_calls(_getframe(1)):
                    raise wake
                return cast(R, answer(wake, plan))
        elif wake is None:
            wake = unplanned()
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
