"""The request context, without the proxies of Flask."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, cast

import flask.ctx
import flask.globals
from flask import current_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask.ctx import RequestContext


def _find() -> Callable[[], RequestContext]:
    # The context variable that flask.request looks into. Reading it takes a quarter of the
    # time of the public way, the proxy's _get_current_object().
    variable = getattr(flask.globals, "_cv_request", None)
    if variable is not None:
        return cast("Callable[[], RequestContext]", variable.get)
    if not hasattr(flask.ctx.AppContext, "request"):
        proxy: Any = flask.globals.request_ctx
        return cast("Callable[[], RequestContext]", proxy._get_current_object)

    # From Flask 3.2 on there is one context for requests and all else.
    def current() -> RequestContext:
        context: Any = flask.globals.app_ctx._get_current_object()  # type: ignore[attr-defined]
        if not context.has_request:
            raise RuntimeError("there is no request")
        return cast("RequestContext", context)

    return current


#: Returns the context of the current request; LookupError or RuntimeError outside of one.
current_context = _find()


def require_context() -> RequestContext:
    """The same, with an error that explains what is wrong.

    :raises RuntimeError: outside of a request.
    """
    try:
        return current_context()
    except LookupError:
        raise RuntimeError(
            "there is no request: this works in a view, in a hook of a request, or within"
            " app.test_request_context()"
        ) from None


def answer_of(authorize: Callable[[], Any]) -> Any:
    """The result of ``authorize``, a function or a coroutine function, for the current request.

    :raises TypeError: if it returned an awaitable, which would count as true and admit everyone
    """
    answer = current_app.ensure_sync(authorize)()
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise TypeError("authorize returned an awaitable: declare it with async def")
    return answer
