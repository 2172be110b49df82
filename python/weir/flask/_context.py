"""The request context itself, without a proxy in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import flask.ctx

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask.ctx import RequestContext


def _find() -> Callable[[], RequestContext]:
    # From Flask 3.2 on there is one context; until then requests have their own. A LocalProxy's
    # _get_current_object is documented, and costs a tenth of going through the proxy each time.
    merged = hasattr(flask.ctx.AppContext, "request")
    proxy: Any = flask.globals.app_ctx if merged else flask.globals.request_ctx
    return cast("Callable[[], RequestContext]", proxy._get_current_object)


#: Returns the context of the current request; RuntimeError outside of one.
current_context = _find()
