"""The functions that Flask calls before and after each request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask.wrappers import Response

from .answer import answer
from .context import current_context
from .request import RequestState

if TYPE_CHECKING:
    from .state import AppState


def hooks(state: AppState) -> tuple[Callable[[], Any], Callable[[Response], Response]]:
    """The functions for ``app.before_request`` and ``app.after_request``."""
    core = state.hooks
    views = state.app.view_functions
    before, after = core.before, core.after

    # Plain functions: Flask tests whether each hook is a coroutine function, which is fastest for
    # them.
    def before_request() -> Any:
        denial = before(state.ready, views)
        if denial is False:
            if not state.enabled:
                return None
            context = current_context()
            denial = core.begin(context, state.plan_for(context.request))
        if denial is not None:
            return answer(denial, getattr(current_context(), state.slot).plan)
        if state.delays:
            held = getattr(current_context(), state.slot, None)
            # A limited view waits when it is called. A function that the view calls might not be
            # called.
            if held is not None and held.wake and held.plan.view is None:
                held.sleep()
        return None

    def after_request(response: Response) -> Response:
        request: RequestState | None = after(response)
        if request is not None:
            request.finish(response)
        return response

    return before_request, after_request
