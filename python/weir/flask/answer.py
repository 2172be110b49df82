"""How a refused request is answered.

Flask turns an exception that a hook or a view raises into a response by its error handlers. Where
nothing stands between us and Flask (a hook before the request, or the limited function is the view
function itself) and nobody has changed how Flask does that, the same answer is given without
raising: what the handler returns, or the default page.
"""

from __future__ import annotations

from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from flask import Flask
from flask.wrappers import Response
from werkzeug.datastructures import Headers

from .context import current_context
from .errors import RateLimitExceeded

if TYPE_CHECKING:
    from .plan import Plan

#: What handles exceptions in Flask, and may be replaced in an application or its class.
_MACHINERY = (
    "handle_user_exception",
    "handle_http_exception",
    "trap_http_exception",
    "_find_error_handler",
    "full_dispatch_request",
    "dispatch_request",
    "preprocess_request",
    "make_response",
    "finalize_request",
)


_DISPATCH: CodeType = Flask.dispatch_request.__code__


def flask_calls(caller: FrameType) -> bool:
    """Whether this frame is Flask's own call of a view function."""
    return caller.f_code is _DISPATCH


def answers_directly(app: Flask) -> bool:
    """Whether the application handles exceptions as Flask does, so that we may do the same."""
    if app.config.get("TRAP_HTTP_EXCEPTIONS") or not hasattr(Flask, "_find_error_handler"):
        return False
    return all(
        name not in vars(app) and getattr(type(app), name, None) is getattr(Flask, name, None)
        for name in _MACHINERY
    )


def copy_of(response: Any, app: Flask) -> Response | None:
    """A response of its own for this request; ``None`` where copying takes more than its parts."""
    if (
        type(response) is not app.response_class
        or not response.is_sequence
        or response.direct_passthrough
        or response._on_close
    ):
        return None
    parts: Any = list(response.response)
    copied: Response = app.response_class(parts, response.status, Headers(response.headers))
    return copied


def answer(denial: RateLimitExceeded, plan: Plan) -> Any:
    """The answer for Flask; raises the exception where Flask has to see it."""
    app = plan.state.app
    if plan.direct is None:
        plan.direct = answers_directly(app)
    if not plan.direct:
        raise denial
    request = current_context().request
    handler = app._find_error_handler(denial, request.blueprints)
    if handler is None:
        if request.method == "HEAD":
            raise denial  # Werkzeug takes the body off, which hooks after the request may look at
        if denial.response is not None:
            # A callback may return the same one each time, and hooks add headers to it.
            return copy_of(denial.response, app) or denial  # which Flask copies, slowly
        return denial.get_response()
    try:
        result = app.ensure_sync(handler)(denial)
    except Exception:
        # Flask has no other handler for what a handler raises; from here it would look for one.
        raise denial from None
    if result is None:
        raise denial  # Flask says what is wrong with such a handler
    return result
