"""How a refused request is answered.

Flask converts an exception that a hook or a view raises into a response by its error handlers. If
Flask is the direct caller (of a hook before the request, or of a view that is the limited function
itself) and the application has not changed this conversion, the same response is returned without
raising: the result of the error handler, or the default page.
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

#: Methods of Flask that handle exceptions; an application or its class may override them.
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
    """Whether the application handles exceptions as Flask does."""
    if app.config.get("TRAP_HTTP_EXCEPTIONS") or not hasattr(Flask, "_find_error_handler"):
        return False
    return all(
        name not in vars(app) and getattr(type(app), name, None) is getattr(Flask, name, None)
        for name in _MACHINERY
    )


def copy_of(response: Any, app: Flask) -> Response | None:
    """A copy of the response for this request; ``None`` if it cannot be copied by its parts."""
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
    """The response for Flask. Raises the exception if Flask has to handle it."""
    app = plan.state.app
    if plan.direct is None:
        plan.direct = answers_directly(app)
    if not plan.direct:
        raise denial
    request = current_context().request
    handler = app._find_error_handler(denial, request.blueprints)
    if handler is None:
        if request.method == "HEAD":
            raise denial  # Werkzeug removes the body, which hooks after the request may read
        if denial.response is not None:
            # A callback may return the same object each time, and hooks add headers to it.
            return copy_of(denial.response, app) or denial  # which Flask copies, slowly
        return denial.get_response()
    try:
        result = app.ensure_sync(handler)(denial)
    except Exception:
        # Flask does not handle exceptions of error handlers; raised here, it would.
        raise denial from None
    if result is None:
        raise denial  # Flask reports what is wrong with such a handler
    return result
