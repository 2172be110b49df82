"""Limits as declared, as parsed, and as checked in one request.

A :class:`Limit` is a declaration: a text, or a function that returns one, with options. Parsing it
gives one :class:`RuntimeLimit` for each limit in the text. A :class:`RequestLimit` is one of these
after it was checked.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import tzinfo
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

import flask
from flask.wrappers import Response

from weir._callables import uncallable_reason
from weir._core import Limit as RateLimit
from weir._core import ParseError, Verdict, WindowStats, parse_many
from weir._zones import zone_of
from weir.limits import plain_item
from weir.strategies import takes, taking

from .config_errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from weir._core import RateLimiter

P = ParamSpec("P")
R = TypeVar("R")

#: Attributes in which a function keeps its limits and exemptions: {limiter: View}, {limiter:
#: ExemptionScope}. functools.wraps copies both to wrappers of the function.
VIEW_MARK = "__weir_view__"
EXEMPT_MARK = "__weir_exempt__"


class Applies(Protocol):
    """The part of :class:`weir.flask.Limiter` that limits use."""

    @property
    def limiter(self) -> RateLimiter: ...

    def _apply(self, limit: RouteLimit, obj: Any) -> Any: ...

    def _enter_block(self, limit: RouteLimit, location: str) -> None: ...


@dataclasses.dataclass(eq=True, unsafe_hash=True)
class RuntimeLimit:
    """One limit with its options."""

    limit: RateLimit
    key_func: Callable[[], str]
    scope: str | Callable[[str], str] | None = None
    per_method: bool = False
    methods: Sequence[str] | None = None
    error_message: str | Callable[[], str] | None = None
    exempt_when: Callable[[], bool] | None = None
    override_defaults: bool | None = False
    deduct_when: Callable[[Response], bool] | None = None
    on_breach: Callable[[RequestLimit], Response | None] | None = None
    cost: Callable[[], int] | int = 1
    shared: bool = False
    meta_limits: tuple[RuntimeLimit, ...] | None = None
    reserve: bool = False
    shadow: bool = False

    @property
    def is_exempt(self) -> bool:
        """Whether ``exempt_when`` returns true for the current request."""
        return bool(self.exempt_when and self.exempt_when())

    @property
    def deduction_amount(self) -> int:
        """The cost of the current request."""
        return self.cost() if callable(self.cost) else self.cost

    @property
    def method_exempt(self) -> bool:
        """Whether the limit does not count requests of the current method."""
        return not self.counts(flask.request.method)

    def counts(self, method: str | None) -> bool:
        """Whether the limit counts requests of ``method``."""
        return self.methods is None or method is None or method.lower() in self.methods

    def scope_for(self, endpoint: str, method: str | None) -> str:
        """The scope that is counted together: an endpoint, a part of one, or a shared scope."""
        scope = self.scope
        if callable(scope):
            scope = scope(flask.request.endpoint or "")
        return self.join_scope(endpoint, scope, method)

    def join_scope(self, endpoint: str, scope: str | None, method: str | None) -> str:
        """As :meth:`scope_for`, for a scope that is already a text."""
        if not scope:
            scope = endpoint
        elif not self.shared:
            scope = f"{endpoint}:{scope}"
        return f"{scope}:{method.upper()}" if self.per_method and method else scope


@dataclasses.dataclass(eq=True, unsafe_hash=True)
class Limit:
    """A limit for ``default_limits`` with options::

        Limiter(get_remote_address, default_limits=[
            Limit("10/second", key_function=get_user),
            Limit("100/second"),
        ])

    Its options replace the ``default_limits_*`` ones.
    """

    #: The limits as text, e.g. ``"10/minute; 100/hour"``, or a function that returns it at each
    #: request.
    limit_provider: Callable[[], str] | str
    #: The key function; by default the limiter's ``key_func``.
    key_function: Callable[[], str] | None = None
    #: A part of the endpoint that is counted separately, or a function that returns it. If the
    #: limit is shared: the name under which endpoints are counted together.
    scope: str | Callable[[str], str] | None = None
    #: The cost of a request, or a function that returns it. 0 and ``None`` mean 1.
    cost: Callable[[], int] | int | None = None
    #: Whether several endpoints are counted together.
    shared: bool = False
    #: The HTTP methods that count; all if not given.
    methods: Sequence[str] | None = None
    #: Whether each HTTP method is counted separately.
    per_method: bool = False
    #: The text of the 429; by default the limit.
    error_message: str | Callable[[], str] | None = None
    #: Limits on how often this limit may be exceeded.
    meta_limits: Iterable[Callable[[], str] | str | MetaLimit] | None = None
    #: If it returns true, the current request is not limited.
    exempt_when: Callable[[], bool] | None = None
    #: Called with the response; the request is charged only if it returns true.
    deduct_when: Callable[[Response], bool] | None = None
    #: Called when the limit is exceeded; a response that it returns is sent.
    on_breach: Callable[[RequestLimit], Response | None] | None = None
    #: Whether the default limits do not apply where this one does. Only limits of routes and
    #: blueprints do.
    override_defaults: bool | None = dataclasses.field(default=False, init=False)
    #: False: the ``default_limits_*`` or ``application_limits_*`` options apply.
    finalized: bool = True
    #: The strategy of this limit; the limiter's if not given.
    strategy: str | None = dataclasses.field(default=None, kw_only=True)
    #: Token bucket: its size.
    burst: int | None = dataclasses.field(default=None, kw_only=True)
    #: Leaky bucket: the longest delay of an admitted request, in seconds.
    max_delay: float | None = dataclasses.field(default=None, kw_only=True)
    #: Calendar window: the zone of its midnights, ``"Europe/Berlin"`` or ``"+05:30"``; else UTC.
    tz: str | tzinfo | None = dataclasses.field(default=None, kw_only=True)
    #: With ``deduct_when``: charge before the view runs, and give back if it is not to be charged.
    reserve: bool = dataclasses.field(default=False, kw_only=True)
    #: Evaluate, log and count, but never refuse.
    shadow: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.methods is not None:
            self.methods = tuple(method.lower() for method in self.methods)
        if self.meta_limits:
            self.meta_limits = tuple(self.meta_limits)
        if self.tz is not None:
            zone_of(self.tz)  # raises for an unknown zone
        if self.key_function is not None:
            check_key_function(self.key_function)

    def metas(self) -> list[MetaLimit]:
        """The meta limits, with their ``parent_limit`` set."""
        metas = []
        for meta in self.meta_limits or ():
            meta = dataclasses.replace(meta) if isinstance(meta, MetaLimit) else MetaLimit(meta)
            meta.parent_limit = self
            metas.append(meta)
        return metas

    def own_key_function(self) -> Callable[[], str] | None:
        """The key function of this limit, without the limiter's."""
        return self.key_function

    def items(self, text: str | None, strategy: str | None = None) -> list[RateLimit]:
        """The limits in ``text``, with this definition's strategy, burst, delay and zone.

        strategy: the limiter's; "week" is a unit of calendar windows only.

        :raises ParseError: for an invalid text.
        """
        if not text:
            return []
        if not isinstance(text, str):
            raise ParseError(f"a limit must be a string, not {text!r}")
        chosen = self.strategy or strategy or ""
        keeps_burst = takes(chosen, "burst") and chosen != taking("burst")
        if takes(chosen, "tz") or keeps_burst or self.tz is not None:
            limits = parse_many(
                text,
                strategy=self.strategy
                or (chosen if self.tz is None or takes(chosen, "tz") else taking("tz")),
                tz=self.tz,
            )
        else:
            limits = parse_many(text)
        limits = [plain_item(limit) for limit in limits]
        options: dict[str, Any] = {}
        if self.strategy is not None:
            options["strategy"] = self.strategy
        if self.burst is not None:
            options["burst"] = self.burst
            options.setdefault("strategy", taking("burst"))
        if self.max_delay is not None:
            options["max_delay"] = self.max_delay
            options.setdefault("strategy", taking("max_delay"))
        return [limit.replace(**options) for limit in limits] if options else limits

    def expand(
        self,
        text: str | None,
        key_func: Callable[[], str],
        metas: tuple[RuntimeLimit, ...] = (),
        strategy: str | None = None,
    ) -> list[RuntimeLimit]:
        """One :class:`RuntimeLimit` for each limit in ``text``; strategy: the limiter's."""
        return [
            RuntimeLimit(
                limit,
                self.own_key_function() or key_func,
                scope=self.scope,
                per_method=self.per_method,
                methods=self.methods,
                error_message=self.error_message,
                exempt_when=self.exempt_when,
                deduct_when=self.deduct_when,
                override_defaults=self.override_defaults,
                on_breach=self.on_breach,
                cost=self.cost or 1,
                shared=self.shared,
                meta_limits=metas,
                reserve=self.reserve,
                shadow=self.shadow,
            )
            for limit in self.items(text, strategy)
        ]


@dataclasses.dataclass(kw_only=True, unsafe_hash=True)
class ApplicationLimit(Limit):
    """A limit for ``application_limits``: all routes of the application count together."""

    #: The name under which they are counted together.
    scope: str | Callable[[str], str] | None = "global"
    shared: bool = dataclasses.field(init=False, default=True)


@dataclasses.dataclass(kw_only=True, unsafe_hash=True)
class MetaLimit(Limit):
    """A limit on how often other limits may be exceeded, for ``meta_limits``.

    All requests of a client over it are refused until the period of the meta limit has passed.
    """

    #: The name under which breaches are counted together.
    scope: str | Callable[[str], str] | None = "meta"
    shared: bool = dataclasses.field(init=False, default=True)
    meta_limits: Iterable[Callable[[], str] | str | MetaLimit] | None = dataclasses.field(
        init=False, default=None
    )
    deduct_when: Callable[[Response], bool] | None = dataclasses.field(init=False, default=None)
    #: The limit whose breaches this one counts.
    parent_limit: Limit | None = dataclasses.field(init=False, default=None, repr=False)

    def own_key_function(self) -> Callable[[], str] | None:
        """The key function of this limit, or that of its parent."""
        return self.key_function or (self.parent_limit.key_function if self.parent_limit else None)


class View:
    """The limits of one decorated function, or of one ``with`` block.

    Limits, exemptions and plans are stored by the identity of this object, so two functions of the
    same name do not share limits.
    """

    __slots__ = ("exempt", "limits", "name", "origin")

    def __init__(self, name: str, origin: object = None) -> None:
        self.name = name
        #: Views of one origin are never used in the same request: a ``with`` block whose options
        #: are created in each request, such as functions, is a new view each time.
        self.origin = origin or self
        self.limits: list[Limit] = []
        self.exempt = False

    def add(self, limit: Limit) -> None:
        if limit not in self.limits:
            self.limits.append(limit)

    @property
    def overrides(self) -> bool:
        """Whether the default limits do not apply where this function is called."""
        return any(limit.override_defaults for limit in self.limits)


@dataclasses.dataclass(unsafe_hash=True, kw_only=True)
class RouteLimit(Limit):
    """A limit on a view function, method or blueprint: what :meth:`Limiter.limit` returns.

    It can also be created directly::

        @app.route("/")
        @RouteLimit("2/second", limiter=limiter)
        def view(): ...

    and in a view it limits a block::

        with limiter.limit("1/minute"):
            send_mail()
    """

    override_defaults: bool | None = False
    #: The limiter that the limit belongs to.
    limiter: Applies = dataclasses.field(hash=False, compare=False, repr=False)

    def __enter__(self) -> None:
        caller = sys._getframe(1)
        code = caller.f_code
        self.limiter._enter_block(self, f"{code.co_filename}:{code.co_name}:{caller.f_lineno}")

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    @overload
    def __call__(self, obj: Callable[P, R]) -> Callable[P, R]: ...

    @overload
    def __call__(self, obj: flask.Blueprint) -> None: ...

    def __call__(self, obj: Callable[P, R] | flask.Blueprint) -> Callable[P, R] | None:
        applied: Callable[P, R] | None = self.limiter._apply(self, obj)
        return applied


def check_key_function(function: Callable[[], str]) -> None:
    """Check that a key function can be called without arguments.

    :raises UsageError: ``EKEYFUNC``.
    """
    reason = uncallable_reason(function)
    if reason is not None:
        raise UsageError("EKEYFUNC", f"key_func: {reason}")


class RequestLimit:
    """The state of one limit in the current request."""

    __slots__ = ("_verdict", "breached", "extension", "limit", "request_args", "shared")

    def __init__(
        self,
        extension: Applies,
        limit: RateLimit,
        request_args: list[str],
        breached: bool,
        shared: bool,
        verdict: Verdict | None = None,
    ) -> None:
        self.extension = extension
        #: The limit: amount, multiples, unit.
        self.limit = limit
        #: Prefix (if any), key and scope.
        self.request_args = request_args
        #: Whether the request was over the limit.
        self.breached = breached
        #: Whether several endpoints are counted together.
        self.shared = shared
        self._verdict = verdict

    @property
    def key(self) -> str:
        """Prefix, key, scope and limit as one text."""
        return self.limit.key_for(*self.request_args)

    @property
    def limiter(self) -> RateLimiter:
        """The limiter's strategy over its storage."""
        return self.extension.limiter

    @property
    def window(self) -> WindowStats:
        """When the limit resets, and what is left of it."""
        verdict = self._verdict
        if verdict is None:
            return self.limiter.get_window_stats(self.limit, *self.request_args)
        return WindowStats(verdict.reset_at, verdict.remaining)

    @property
    def reset_at(self) -> int:
        """When the limit resets, in whole seconds since the Unix epoch: the first one after it."""
        return int(self.window[0] + 1)

    @property
    def remaining(self) -> int:
        """What is left after this request."""
        return self.window[1]

    @property
    def retry_after(self) -> int | None:
        """Seconds, rounded up, until the same request can pass: 0 if it did, ``None`` for never."""
        wait = self._verdict.retry_after if self._verdict is not None else 0.0
        return None if math.isinf(wait) else math.ceil(wait)

    def __repr__(self) -> str:
        state = "breached" if self.breached else "kept"
        return f"<RequestLimit {self.limit} of {self.key!r}: {state}>"


class Decided:
    """The decision of a request, for headers and the 429; computed when it is read."""

    __slots__ = ("evaluation", "request")

    def __init__(self, request: Any, evaluation: Any) -> None:
        self.request = request
        self.evaluation = evaluation

    @property
    def indices(self) -> list[int]:
        """The indices of the limits for headers."""
        indices: list[int] = self.request.reported(self.evaluation)
        return indices

    @property
    def entry(self) -> Any:
        """The reported limit."""
        return self.evaluation.check.entries[self.evaluation.reported]

    @property
    def verdict(self) -> Verdict:
        """The verdict of the reported limit."""
        verdict: Verdict = self.evaluation.verdict(self.evaluation.reported)
        return verdict

    @property
    def request_limit(self) -> RequestLimit:
        """The state of the reported limit in the request."""
        limit: RequestLimit = self.request.request_limit(self.evaluation, self.evaluation.reported)
        return limit

    @property
    def headers(self) -> dict[str, str]:
        """The headers for it, whether or not the limiter sends them itself."""
        headers: dict[str, str] = self.request.state.headers.describe(self)
        return headers

    @property
    def policy(self) -> str | None:
        """The name of the limit's policy, if the body is problem+json."""
        state = self.request.state
        name: str | None = state.headers.policy_of(self) if state.problem_json else None
        return name

    @property
    def rule(self) -> str:
        """``"block"`` if a rule refused the client, and not the limit."""
        rule: str = self.evaluation.rule
        return rule


def iterate(limit: Limit, key_func: Callable[[], str]) -> Iterator[RuntimeLimit]:
    """The limits that a declaration gives at this moment."""
    provider = limit.limit_provider
    text = provider() if callable(provider) else provider
    metas = tuple(item for meta in limit.metas() for item in iterate(meta, key_func))
    yield from limit.expand(text, key_func, metas)


__all__ = [
    "ApplicationLimit",
    "ConfigurationError",
    "Limit",
    "MetaLimit",
    "RequestLimit",
    "RouteLimit",
    "RuntimeLimit",
]
