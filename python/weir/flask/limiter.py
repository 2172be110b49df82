"""The Flask extension, :class:`Limiter`."""

from __future__ import annotations

import functools
import itertools
import logging
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

import flask
from flask import Flask

from weir._core import RateLimiter
from weir.storage import StorageTypes

from .constants import EXEMPT_BY_DEFAULT, ConfigVars, ExemptionScope
from .context import require_context
from .decorate import decorate
from .errors import UsageError
from .hooks import hooks
from .limits import (
    EXEMPT_MARK,
    VIEW_MARK,
    RequestLimit,
    RouteLimit,
    View,
    check_key_function,
)
from .options import (
    LIMIT_DEFAULTS,
    LIMITER_DEFAULTS,
    LimiterOptions,
    LimitOptions,
    check_names,
    complete,
    limit_fields,
    takes,
)
from .registry import Registry
from .request import hooks_for, request_of
from .room import refuse_unfit
from .settings import Reader
from .state import AppState
from .usage import KnownNames, no_key_function, unknown_argument
from .util import get_qualified_name

if TYPE_CHECKING:
    from typing_extensions import Unpack

P = ParamSpec("P")
R = TypeVar("R")

_numbers = itertools.count()


class Limiter(KnownNames):
    """Rate limits for Flask applications::

        limiter = Limiter(get_remote_address, app=app, default_limits=["50 per hour"])

        @app.route("/slow")
        @limiter.limit("1 per day")
        def slow(): ...

    The state for each application is in ``app.extensions``, so one limiter can serve several
    applications: call :meth:`init_app` for each. Nearly every argument can also be a setting of the
    application, see :class:`~weir.flask.constants.ConfigVars`; the argument takes precedence.

    :param key_func: a function that returns the key of the client to count. It is called once per
        check. The older form ``Limiter(app, key_func=...)`` works as well.
    :param app: the application; or call :meth:`init_app` later.
    :param default_limits: limits for every route that has no limits: texts, functions that
        return texts, or :class:`Limit`.
    :param default_limits_per_method: count each HTTP method separately.
    :param default_limits_exempt_when: a function; if it returns true, the request is not limited.
    :param default_limits_deduct_when: a function of the response; the request is charged only if it
        returns true.
    :param default_limits_cost: the cost of a request, or a function that returns it.
    :param application_limits: limits that all routes share: texts, functions,
        :class:`ApplicationLimit`.
    :param application_limits_per_method: as for the defaults; so are ``_exempt_when``,
        ``_deduct_when`` and ``_cost``.
    :param headers_enabled: send headers with the state of limits. ``True`` or ``"x-ratelimit"`` for
        ``X-RateLimit-*`` and ``Retry-After``, ``"draft-11"`` for ``RateLimit`` and
        ``RateLimit-Policy`` of draft-ietf-httpapi-ratelimit-headers-11, or both, joined by a comma.
    :param header_name_mapping: other names for the headers, by :class:`HeaderNames`.
    :param strategy: ``"fixed-window"`` (default), ``"moving-window"``,
        ``"sliding-window-counter"``, ``"token-bucket"``, ``"leaky-bucket"``,
        ``"calendar-window"``; each limit may set another one.
    :param storage_uri: where counts are kept; ``"auto://"`` by default, which all workers of a
        preforking server share.
    :param storage_options: further arguments of the storage.
    :param swallow_errors: log errors in a check, and let the request pass.
    :param fail_on_first_breach: a refused request is not charged to any limit (default). ``False``:
        it is charged to each limit that has room.
    :param on_breach: called with a :class:`RequestLimit` when a limit is exceeded; a response that
        it returns is sent.
    :param meta_limits: limits on how often other limits may be exceeded: texts, functions,
        :class:`MetaLimit`.
    :param on_meta_breach: as ``on_breach``, for meta limits.
    :param in_memory_fallback: limits that apply in each process during an outage of the storage.
    :param in_memory_fallback_enabled: during an outage, count the usual limits in each process.
    :param retry_after: ``"http-date"`` or ``"delta-seconds"`` (default), for ``Retry-After``.
    :param key_prefix: a prefix of every key.
    :param request_identifier: a function that returns the name to use as the endpoint.
    :param enabled: ``False`` turns everything off.
    :param strict: raise an exception instead of logging an invalid limit, an empty key, an unknown
        setting, or two limits that count a request in the same counter.
    :param shadow: evaluate, log and count, but never refuse.
    :param problem_json: refuse with an ``application/problem+json`` body.
    :param on_store_error: the policy for an outage of the storage: ``"raise"`` (default),
        ``"open"`` (all requests pass), ``"closed"`` (none passes), ``"local"`` (each host limits
        separately), see :mod:`weir.stores.failover`.
    :param reveal_keys: show keys in clear in the audit log, in commands and on the live page.
        Otherwise addresses are shown, and any other key as ``#`` and a keyed hash.
    :raises UsageError: for unknown arguments and invalid values.
    """

    @takes(LimiterOptions, LIMITER_DEFAULTS)
    def __init__(
        self,
        first: Callable[[], str] | Flask | None = None,
        second: Callable[[], str] | Flask | None = None,
        /,
        *,
        key_func: Callable[[], str] | Literal[True] | None = None,
        app: Flask | None = None,
        enabled: bool = True,
        **options: Unpack[LimiterOptions],
    ) -> None:
        for name in options:
            if name not in LIMITER_DEFAULTS:
                raise unknown_argument("Limiter", name, Limiter.__init__)
        for argument in (first, second):
            # By its type, because isinstance() raises for an unbound proxy.
            if issubclass(type(argument), Flask) or argument is flask.current_app:
                app = argument if app is None else app  # type: ignore[assignment]
            elif key_func is None:
                key_func = argument  # type: ignore[assignment]
        if key_func is True:  # some programs use this if each limit has its own
            key_func = no_key_function
        elif key_func is not None:
            check_key_function(key_func)

        #: The logger. Its name is that of Flask-Limiter, so that log settings keep working.
        self.logger = logging.getLogger("flask-limiter")
        self._key_func = key_func
        self._slot = f"_weir_{next(_numbers)}"
        self._hooks = hooks_for(self._slot)
        self._registry = Registry()
        self._request_filters: list[Callable[[], bool]] = []
        self._states: weakref.WeakSet[AppState] = weakref.WeakSet()
        self._latest: weakref.ref[AppState] | None = None
        self._blocks: dict[tuple[str, RouteLimit], View] = {}
        self._enabled = self._enabled_before = enabled
        self._missing_reported = False
        self._options = complete(options)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Limit ``app``. Its settings are read now; another call reads them again.

        :raises ConfigurationError: for invalid settings.
        """
        enabled = Reader(app.config).flag(None, ConfigVars.ENABLED, self._enabled)
        app.config[ConfigVars.ENABLED] = enabled
        states: dict[Limiter, AppState] = app.extensions.setdefault("weir", {})
        state = states.get(self)
        if not enabled:
            self._enabled = False
            if state is not None:
                state.enable(False)
            return
        if state is None:
            state = AppState(self, app)
            state.hook_in(*hooks(state))
            states[self] = state
            # Programs written for Flask-Limiter expect it there.
            app.extensions.setdefault("limiter", set()).add(self)
            self._states.add(state)
        else:
            state.configure()
            state.enable(True)
            if state.headers.kinds:
                state.watch_responses()
        self._latest = weakref.ref(state)

    # -- declaring

    @takes(LimitOptions, LIMIT_DEFAULTS)
    def limit(
        self,
        limit_value: str | Callable[[], str],
        *,
        scope: str | Callable[[str], str] | None = None,
        **options: Unpack[LimitOptions],
    ) -> RouteLimit:
        """Limit a view function, a method of a class-based view, a blueprint, or a block::

            @app.route("/search")
            @limiter.limit("5/second; 100/minute")
            def search(): ...

            limiter.limit("1000/hour")(blueprint)

            with limiter.limit("1/minute"):
                send_mail()

        :param limit_value: the limits as text, or a function that returns it at each request.
        :param key_func: the key function of this limit; by default that of the limiter.
        :param per_method: count each HTTP method separately.
        :param methods: the HTTP methods to count.
        :param error_message: the text of the 429.
        :param exempt_when: a function; if it returns true, the request is not limited.
        :param override_defaults: whether the default limits, and for a blueprint those of the
            blueprints around it, do not apply.
        :param deduct_when: a function of the response; the request is charged only if it returns
            true.
        :param on_breach: called when the limit is exceeded; a response that it returns is sent.
        :param cost: the cost of a request, or a function that returns it.
        :param scope: a part of the endpoint that is counted separately, or a function of the
            endpoint that returns it.
        :param meta_limits: limits on how often this one may be exceeded.
        :param strategy: the strategy of this limit.
        :param burst: the size of the token bucket.
        :param max_delay: leaky bucket: the longest delay of an admitted request, in seconds.
        :param tz: calendar window: the zone of its midnights, such as ``"Europe/Berlin"`` or
            ``"+05:30"``; UTC unless given.
        :param reserve: with ``deduct_when``: charge before the view runs, and give back if the
            request is not to be charged, so that concurrent requests cannot exceed the limit.
        :param shadow: evaluate, log and count, but never refuse.
        """
        check_names(options, "limit")
        return RouteLimit(limit_value, limiter=self, scope=scope, **limit_fields(options))

    @takes(LimitOptions, LIMIT_DEFAULTS)
    def shared_limit(
        self,
        limit_value: str | Callable[[], str],
        scope: str | Callable[[str], str],
        **options: Unpack[LimitOptions],
    ) -> RouteLimit:
        """As :meth:`limit`, but all functions with the same ``scope`` are counted together."""
        check_names(options, "shared_limit")
        limit = self.limit(limit_value, scope=scope, **options)
        limit.shared = True
        return limit

    @overload
    def exempt(self, obj: flask.Blueprint, *, flags: ExemptionScope = ...) -> flask.Blueprint: ...

    @overload
    def exempt(self, obj: Callable[P, R], *, flags: ExemptionScope = ...) -> Callable[P, R]: ...

    @overload
    def exempt(self, *, flags: ExemptionScope = ...) -> Callable[[Any], Any]: ...

    def exempt(self, obj: Any = None, *, flags: ExemptionScope = EXEMPT_BY_DEFAULT) -> Any:
        """Do not limit a view, a class-based view, or a blueprint::

            @app.route("/health")
            @limiter.exempt
            def health(): ...

            @app.route("/status")
            @limiter.exempt(flags=ExemptionScope.APPLICATION)
            def status(): ...

            limiter.exempt(blueprint, flags=ExemptionScope.DEFAULT | ExemptionScope.ANCESTORS)

        :param flags: the limits to exempt from; by default application, default and meta limits.
        """
        if obj is None:
            return functools.partial(self.exempt, flags=flags)
        if isinstance(obj, flask.Blueprint):
            self._registry.blueprint_exemptions[obj.name] = flags
        elif not callable(obj):
            raise UsageError(
                "ENOTVIEW", f"exempt({obj!r}), which is not a view function or blueprint"
            )
        else:
            try:
                setattr(obj, EXEMPT_MARK, {**getattr(obj, EXEMPT_MARK, {}), self: flags})
            except AttributeError:  # a bound method or a builtin has no attributes
                self._registry.named_exemptions[get_qualified_name(obj)] = flags
            view = getattr(obj, VIEW_MARK, {}).get(self)
            if view is not None:
                view.exempt = bool(flags)
        self._changed()
        return obj

    def request_filter(self, fn: Callable[[], bool]) -> Callable[[], bool]:
        """Call ``fn`` at each check. If it returns true, nothing is limited."""
        self._request_filters.append(fn)
        self._changed()
        return fn

    def _apply(self, limit: RouteLimit, obj: Any) -> Any:
        """Apply a limit to a function or a blueprint."""
        for state in list(self._states):
            refuse_unfit(state.store.opened, state.strategy, [limit])
        limited = None
        if isinstance(obj, flask.Blueprint):
            self._registry.limit_blueprint(obj.name, limit)
        else:
            limited = decorate(limit, obj, self, self._hooks, self._slot)
        self._changed()
        return limited

    def _changed(self) -> None:
        for state in list(self._states):
            state.clear_plans()

    # -- in a request

    def _enter_block(self, limit: RouteLimit, location: str) -> None:
        request = request_of(require_context(), self, self._slot)
        if request is None:
            return
        view = self._blocks.get((location, limit))
        if view is None:
            if len(self._blocks) >= 1024:  # limits that are created in each request
                self._blocks.clear()
                self._changed()
            view = self._blocks[location, limit] = View(location, location)
            view.add(limit)
        request.enter(view)

    def check(self) -> None:
        """Check the limits of the current request's route, now.

        :raises RateLimitExceeded: if one of them is exceeded.
        """
        request = request_of(require_context(), self, self._slot)
        if request is not None:
            request.enter(request.plan.resolver.view)

    def identify_request(self) -> str:
        """The name of the current request's endpoint for limits; "" if it is not limited."""
        context = require_context()
        states: dict[Limiter, AppState] = context.app.extensions.get("weir", {})
        state = states.get(self)
        if state is None or not state.enabled:
            return ""
        if state.identify is not None:
            return str(state.identify())
        return context.request.endpoint or ""

    @property
    def current_limit(self) -> RequestLimit | None:
        """The reported limit of the current request.

        If limits refused it, the one with the longest wait; otherwise the one with the shortest
        window.
        """
        request = request_of(require_context(), self, self._slot)
        return request.current_limit() if request is not None else None

    @property
    def current_limits(self) -> list[RequestLimit]:
        """The limits that were checked for the current request, smallest window first."""
        request = request_of(require_context(), self, self._slot)
        return request.current_limits() if request is not None else []

    # -- the application

    @property
    def _state(self) -> AppState:
        """The state for the current application, or for the one that was initialized last."""
        state: AppState | None = None
        if flask.has_app_context():
            state = flask.current_app.extensions.get("weir", {}).get(self)
        if state is None and self._latest is not None:
            state = self._latest()
        if state is None:
            raise RuntimeError("the limiter has no application yet; call init_app() first")
        return state

    @property
    def initialized(self) -> bool:
        """Whether the limiter has an application."""
        return len(self._states) > 0

    @property
    def enabled(self) -> bool:
        """Whether anything is limited. Setting this affects all applications of the limiter."""
        states = list(self._states)
        return any(state.enabled for state in states) if states else self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._enabled_before = self.enabled
        self._enabled = value
        for state in list(self._states):
            state.enable(value)

    @enabled.deleter
    def enabled(self) -> None:
        # mock.patch.object(limiter, "enabled", False) deletes the attribute at its end.
        self.enabled = self._enabled_before

    @property
    def storage(self) -> StorageTypes:
        """The storage with the counters."""
        return self._state.store.public

    @property
    def limiter(self) -> RateLimiter:
        """The strategy on the storage; during an outage, on the fallback."""
        return self._state.rate_limiter()

    @property
    def counters(self) -> dict[str, int]:
        """Counts of events in this process: ``denied``, ``shadow_denied``, ``empty_key``, …"""
        return dict(self._state.counters)

    def reset(self) -> None:
        """Delete the application's counters and those of its fallback, if the storage can do so."""
        try:
            self._state.store.storage.reset()
        except NotImplementedError:
            self.logger.warning("This storage type does not support being reset")
        else:
            self.logger.info("Storage has been reset and all limits cleared")
