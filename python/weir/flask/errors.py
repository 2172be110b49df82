"""Exceptions: 429 for a client over its limit, and errors in the configuration."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException, TooManyRequests

from .config_errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from flask.wrappers import Response

    from .limits import Decided, RequestLimit, RuntimeLimit


__all__ = ["ConfigurationError", "RateLimitExceeded", "UsageError"]

_UNKNOWN = object()


@functools.lru_cache(maxsize=256)
def _page(description: str) -> bytes:
    """The default page of Werkzeug."""
    return TooManyRequests(description).get_body().encode()


class RateLimitExceeded(TooManyRequests):
    """The 429 for a request over its limit; handle it with ``@app.errorhandler(429)``.

    ``description`` is the limit (``10 per 1 minute``), or the limit's ``error_message``.
    """

    #: The limit that was exceeded.
    limit: RuntimeLimit

    def __init__(
        self,
        limit: RuntimeLimit,
        response: Response | None = None,
        *,
        request_limit: RequestLimit | None = None,
        headers: dict[str, str] | None = None,
        policy: str | None = None,
        rule: str = "",
        decided: Decided | None = None,
    ) -> None:
        message = limit.error_message
        self.description = (message() if callable(message) else message) or str(limit.limit)
        self.response = response
        self.limit = limit
        #: The decision; its parts are computed when they are read.
        self._decided = decided
        self._request_limit = request_limit
        self._headers = headers
        self._policy_name = policy
        self._rule = rule
        self._wait: Any = _UNKNOWN

    @property
    def request_limit(self) -> RequestLimit | None:
        """The limit with its state in this request; ``None`` for an exception raised by hand."""
        if self._request_limit is None and self._decided is not None:
            self._request_limit = self._decided.request_limit
        return self._request_limit

    @property  # type: ignore[override]
    def retry_after(self) -> int | None:
        """Seconds, rounded up, after which the same request can pass; ``None`` if it never can."""
        if self._wait is _UNKNOWN:
            self._wait = self.request_limit.retry_after if self.request_limit else None
        wait: int | None = self._wait
        return wait

    @retry_after.setter
    def retry_after(self, seconds: int | None) -> None:
        self._wait = seconds

    @property
    def headers(self) -> dict[str, str]:
        """The headers for this limit, whether or not the limiter sends them itself."""
        if self._headers is None:
            self._headers = self._decided.headers if self._decided is not None else {}
        return self._headers

    @property
    def rule(self) -> str:
        """``"block"`` if a rule (``weir block``) refused the client, and not the limit."""
        return self._rule or (self._decided.rule if self._decided is not None else "")

    @property
    def _policy(self) -> str | None:
        if self._policy_name is None and self._decided is not None:
            self._policy_name = self._decided.policy
        return self._policy_name

    @property
    def reset_at(self) -> int | None:
        """When the limit resets, in seconds since the Unix epoch, rounded up."""
        return self.request_limit.reset_at if self.request_limit else None

    @property
    def remaining(self) -> int | None:
        """What is left of the limit: less than the cost of the request."""
        return self.request_limit.remaining if self.request_limit else None

    def get_response(self, environ: Any = None, scope: Any = None) -> Any:
        """The response if the application has no error handler."""
        if self.response is not None or self._policy or scope is not None or environ is not None:
            return super().get_response(environ, scope)
        from flask import current_app

        headers = {"Content-Type": "text/html; charset=utf-8"}
        return current_app.response_class(_page(str(self.description)), 429, headers)

    def get_headers(
        self, environ: WSGIEnvironment | None = None, scope: dict[str, Any] | None = None
    ) -> list[tuple[str, str]]:
        # Not the one of TooManyRequests, which would add a Retry-After: the limiter decides which
        # headers are sent.
        headers = HTTPException.get_headers(self, environ, scope)
        if self._policy:
            headers = [(name, value) for name, value in headers if name.lower() != "content-type"]
            headers.append(("Content-Type", "application/problem+json"))
        return headers

    def get_body(
        self, environ: WSGIEnvironment | None = None, scope: dict[str, Any] | None = None
    ) -> str:
        if not self._policy:
            return super().get_body(environ, scope)
        problem: dict[str, object] = {
            "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
            "title": "Too Many Requests",
            "status": 429,
            "detail": self.description,
            "violated-policies": [self._policy],
        }
        if self.retry_after is not None:
            problem["retry-after"] = self.retry_after
        return json.dumps(problem)
