"""One limiter on one application: its settings, its storage, and its plans."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flask import Flask, Request
from flask.wrappers import Response

from weir._auto import note_environ
from weir._core import TEST, Decision, Table, Verdict, WeirError
from weir._core import Limit as RateLimit
from weir._watched import StandIn, Watched, board_for, name_of
from weir.audit import Audit
from weir.observe.stats import StoreMeters
from weir.policy import POLICIES, Guarded
from weir.storage import StorageTypes, storage_from_string
from weir.stores._common import shown
from weir.strategies import STRATEGIES, RateLimiter

from ._check import Ready
from ._headers import HeaderWriter
from ._limits import ApplicationLimit, Limit, MetaLimit, RequestLimit, View
from ._plan import PLANS_MAX, Plan, Resolver
from ._registry import declared_limits
from .constants import MAX_BACKEND_CHECKS, ConfigVars
from .errors import ConfigurationError
from .util import check_ipv6_prefix, get_remote_address, note_proxy

if TYPE_CHECKING:
    from ._limiter import Limiter

_autos = itertools.count()

T = TypeVar("T")
L = TypeVar("L", bound=Limit)


@dataclasses.dataclass
class Options:
    """The arguments of :class:`~weir.flask.Limiter`, as given: ``None`` means not given."""

    default_limits: Sequence[str | Callable[[], str] | Limit] | None = None
    default_limits_per_method: bool | None = None
    default_limits_exempt_when: Callable[[], bool] | None = None
    default_limits_deduct_when: Callable[[Response], bool] | None = None
    default_limits_cost: int | Callable[[], int] | None = None
    application_limits: Sequence[str | Callable[[], str] | ApplicationLimit] | None = None
    application_limits_per_method: bool | None = None
    application_limits_exempt_when: Callable[[], bool] | None = None
    application_limits_deduct_when: Callable[[Response], bool] | None = None
    application_limits_cost: int | Callable[[], int] | None = None
    headers_enabled: bool | str | Sequence[str] | None = None
    header_name_mapping: dict[Any, str] | None = None
    strategy: str | None = None
    storage_uri: str | None = None
    storage_options: dict[str, Any] | None = None
    swallow_errors: bool | None = None
    fail_on_first_breach: bool | None = None
    on_breach: Callable[[RequestLimit], Response | None] | None = None
    meta_limits: Sequence[str | Callable[[], str] | MetaLimit] | None = None
    on_meta_breach: Callable[[RequestLimit], Response | None] | None = None
    in_memory_fallback: Sequence[str | Callable[[], str] | Limit] | None = None
    in_memory_fallback_enabled: bool | None = None
    retry_after: str | None = None
    key_prefix: str = ""
    request_identifier: Callable[..., str] | None = None
    strict: bool | None = None
    shadow: bool | None = None
    problem_json: bool | None = None
    on_store_error: str | None = None
    reveal_keys: bool | None = None


class AppState:
    """Lives in ``app.extensions["weir"]`` and makes the limiter work there."""

    def __init__(self, limiter: Limiter, app: Flask) -> None:
        self.limiter = limiter
        self.app = app
        self.enabled = True
        self.slot = limiter._slot
        self.plans: dict[object, Plan] = {}
        #: By endpoint and method, of the plans that can go the fast way.
        self.ready: dict[str, dict[str, Ready]] = {}
        #: Whether the limits that were declared as text have their labels on the board.
        self._labelled = False
        self.learned: dict[object, list[View]] = {}
        self.lock = threading.Lock()
        #: Our function to be called after requests, until it is.
        self._after: Callable[[Response], Response] | None = None
        self._after_at = 0
        #: How often what happened: ``empty_key``, ``shadow_denied``, ``store_error``, …
        self.counters: Counter[str] = Counter()
        self.configure()

    # -- settings

    def configure(self) -> None:
        """Read arguments and settings; the arguments win."""
        options = self.limiter._options
        config = self.app.config
        self._report_unknown(config)

        def flag(given: bool | None, name: str, default: bool = False) -> bool:
            return bool(config.get(name, default)) if given is None else given

        def value(given: T | None, name: str, default: Any = None) -> Any:
            return given or config.get(name, default)

        self.strict = flag(options.strict, ConfigVars.STRICT)
        self.shadow = flag(options.shadow, ConfigVars.SHADOW)
        self.problem_json = flag(options.problem_json, ConfigVars.PROBLEM_JSON)
        if ConfigVars.IPV6_PREFIX in config:
            check_ipv6_prefix(config[ConfigVars.IPV6_PREFIX])
        self.swallow_errors = flag(options.swallow_errors, ConfigVars.SWALLOW_ERRORS)
        self.fail_on_first_breach = flag(
            options.fail_on_first_breach, ConfigVars.FAIL_ON_FIRST_BREACH, True
        )
        key_func: Callable[[], str] | None = self.limiter._key_func or config.get(
            ConfigVars.KEY_FUNC
        )
        if key_func is None:
            raise ConfigurationError("EOPTION", "Limiter() needs a key_func")
        self.key_func = key_func
        self.key_prefix: str = value(options.key_prefix, ConfigVars.KEY_PREFIX, "")
        self.identify: Callable[..., str] | None = value(
            options.request_identifier, ConfigVars.REQUEST_IDENTIFIER
        )
        self.on_breach: Callable[[RequestLimit], Response | None] | None = value(
            options.on_breach, ConfigVars.ON_BREACH
        )
        self.on_meta_breach: Callable[[RequestLimit], Response | None] | None = value(
            options.on_meta_breach, ConfigVars.ON_META_BREACH
        )
        self.headers = HeaderWriter(
            config.get(ConfigVars.HEADERS_ENABLED, False)
            if options.headers_enabled is None
            else options.headers_enabled,
            options.header_name_mapping or {},
            config,
            value(options.retry_after, ConfigVars.HEADER_RETRY_AFTER_VALUE),
        )

        self.strategy: str = options.strategy or config.setdefault(
            ConfigVars.STRATEGY, "fixed-window"
        )
        if self.strategy not in STRATEGIES:
            raise ConfigurationError(
                "EOPTION", f"unknown strategy {self.strategy!r}; there are {', '.join(STRATEGIES)}"
            )
        self.storage_uri: str = value(options.storage_uri, ConfigVars.STORAGE_URI, "auto://")
        self.storage_options = {
            **(options.storage_options or {}),
            **config.get(ConfigVars.STORAGE_OPTIONS, {}),
        }
        #: Which of this process's automatic storages ours is; None if it is another kind.
        self.auto_number = next(_autos) if self.storage_uri.startswith("auto:") else None
        self.opened = storage_from_string(self.storage_uri, **self.storage_options)
        self._configure_store(options, config)

        self._configure_limits(options, config)
        self._configure_fallback(options, config)
        reveal = flag(options.reveal_keys, ConfigVars.REVEAL_KEYS)
        self.board.reveal = reveal
        self.audit = Audit(self.board, reveal=reveal)
        self.forget_plans()

    def use_storage(self, storage: StorageTypes) -> None:
        """Count in ``storage`` from now on."""
        self.storage = storage
        self.decide = storage.decide
        self.forget_plans()

    @property
    def looks(self) -> bool:
        """Whether what decides now can look at some limits and charge others in one decision."""
        store = getattr(self.decide, "__self__", None)
        return isinstance(store, Table) or bool(getattr(store, "LOOKS", False))

    def _configure_store(self, options: Options, config: Any) -> None:
        """What surrounds the store that was opened: its board, and what stands in for it."""
        policy = options.on_store_error or config.get(ConfigVars.ON_STORE_ERROR)
        if policy is not None and policy not in POLICIES:
            raise ConfigurationError(
                "EOPTION", f"on_store_error={policy!r}; there are {', '.join(POLICIES)}"
            )
        self.on_store_error: str | None = policy
        storage = self.opened
        #: The store and the table beside it; None for a store that is a table itself.
        self.watched: Watched | None = None
        if isinstance(storage, Table):
            #: What tells of decisions, and has rules about clients.
            self.board = storage
            #: How the store does, all processes together.
            self.meters = StoreMeters(storage, shown(self.storage_uri), timed=False)
        else:
            self.board = board_for(storage, counts=policy == "local")
            storage = self.watched = Watched(storage, self.board)
            self.meters = self.watched.meters
        if policy not in (None, "raise"):
            fallback = "auto://" if self.watched is None else self.board
            storage = Guarded(storage, policy, fallback)
        self.use_storage(storage)

    def _configure_limits(self, options: Options, config: Any) -> None:
        per_method = options.default_limits_per_method
        if per_method is None:
            per_method = bool(config.get(ConfigVars.DEFAULT_LIMITS_PER_METHOD, False))
        self.default_options: dict[str, Any] = {
            "per_method": per_method,
            "exempt_when": options.default_limits_exempt_when
            or config.get(ConfigVars.DEFAULT_LIMITS_EXEMPT_WHEN),
            "deduct_when": options.default_limits_deduct_when
            or config.get(ConfigVars.DEFAULT_LIMITS_DEDUCT_WHEN),
            "cost": options.default_limits_cost or config.get(ConfigVars.DEFAULT_LIMITS_COST, 1),
        }
        per_method = options.application_limits_per_method
        if per_method is None:
            per_method = bool(config.get(ConfigVars.APPLICATION_LIMITS_PER_METHOD, False))
        self.application_options: dict[str, Any] = {
            "per_method": per_method,
            "exempt_when": options.application_limits_exempt_when
            or config.get(ConfigVars.APPLICATION_LIMITS_EXEMPT_WHEN),
            "deduct_when": options.application_limits_deduct_when
            or config.get(ConfigVars.APPLICATION_LIMITS_DEDUCT_WHEN),
            "cost": options.application_limits_cost
            or config.get(ConfigVars.APPLICATION_LIMITS_COST, 1),
        }
        self.default_limits = self._groups(
            Limit,
            options.default_limits,
            config.get(ConfigVars.DEFAULT_LIMITS),
            self.default_options,
        )
        self.application_limits = self._groups(
            ApplicationLimit,
            options.application_limits,
            config.get(ConfigVars.APPLICATION_LIMITS),
            self.application_options,
        )
        self.meta_limits = self._groups(
            MetaLimit, options.meta_limits, config.get(ConfigVars.META_LIMITS), {}
        )
        if self.strict:
            # Anything wrong with them is told now instead of at the first request.
            for group in [*self.default_limits, *self.application_limits, *self.meta_limits]:
                if not callable(group.limit_provider):
                    group.items(group.limit_provider)

    def _groups(
        self, kind: type[L], given: Any, configured: Any, options: dict[str, Any]
    ) -> list[L]:
        groups = []
        for limit in as_list(given) or as_list(configured):
            if not isinstance(limit, Limit):
                groups.append(kind(limit, **options))
            elif limit.finalized:
                groups.append(cast(L, limit))
            else:
                groups.append(cast(L, dataclasses.replace(limit, **options, finalized=True)))
        return groups

    def _configure_fallback(self, options: Options, config: Any) -> None:
        self.fallback_limits = self._groups(
            Limit,
            options.in_memory_fallback,
            config.get(ConfigVars.IN_MEMORY_FALLBACK),
            {},
        )
        enabled = (
            options.in_memory_fallback_enabled
            or config.get(ConfigVars.IN_MEMORY_FALLBACK_ENABLED, False)
            or bool(self.fallback_limits)
        )
        #: Where counts go while the storage is away, if Flask-Limiter's arguments say so.
        self.fallback: StorageTypes | None = None
        if enabled and self.on_store_error is None:
            self.fallback = storage_from_string("memory://")
            if self.watched is not None:
                self.fallback = StandIn(self.fallback, self.watched)
        self.dead = False
        self._probes = 0
        self._next_probe = 0.0

    def _report_unknown(self, config: Any) -> None:
        known = ConfigVars.known()
        for name in config:
            if isinstance(name, str) and name.startswith("RATELIMIT_") and name not in known:
                near = difflib.get_close_matches(name, known, 1)
                message = f"there is no setting {name}" + (
                    f"; did you mean {near[0]}?" if near else ""
                )
                if self.strict_setting(config):
                    raise ConfigurationError("EOPTION", message)
                self.limiter.logger.warning("EOPTION: %s", message)

    def strict_setting(self, config: Any) -> bool:
        strict = self.limiter._options.strict
        return bool(config.get(ConfigVars.STRICT, False) if strict is None else strict)

    # -- plans

    def forget_plans(self) -> None:
        """Something was registered: find out anew what applies."""
        # New ones, so that a plan that is being made is put into the old ones and forgotten, too.
        self.plans = {}
        self.ready = {}
        self._labelled = False

    def label_static_limits(self) -> None:
        """Give limits whose text is known their labels on the board, once.

        Before the first dynamic limit gets one: a board has few, and the client may have a say in
        what dynamic limits there are.
        """
        if self._labelled:
            return
        self._labelled = True
        groups = [*self.application_limits, *self.default_limits, *self.meta_limits]
        groups += declared_limits(self.limiter, self.app)
        metas = [meta for group in groups for meta in group.metas()]
        for group in [*groups, *metas]:
            text = group.limit_provider
            if not callable(text):
                with contextlib.suppress(WeirError, ValueError):  # whoever asks it is told
                    for limit in group.expand(text, self.key_func):
                        self.board.decide([limit.limit], "-", [0], TEST)

    # -- Flask's hooks

    def hook_in(self, before: Callable[[], None], after: Callable[[Response], Response]) -> None:
        """Have Flask call these before and after each request."""
        self.app.before_request(before)
        self._after = after
        self._after_at = len(self.app.after_request_funcs.get(None, ()))
        if self.headers.kinds:
            self.watch_responses()

    def watch_responses(self) -> None:
        """Be called with each response, from the place that was ours when we were initialized.

        Not before there is something to do with them, headers or a limit that depends on them:
        being called is half of what a limit costs otherwise.
        """
        with self.lock:
            if self._after is not None:
                # A new list: others may be on their way through the old one.
                hooks = list(self.app.after_request_funcs.get(None, ()))
                hooks.insert(self._after_at, self._after)
                self.app.after_request_funcs[None] = hooks
                self._after = None

    def enable(self, enabled: bool) -> None:
        self.enabled = enabled
        self.forget_plans()

    def plan_for(self, request: Request) -> Plan:
        """The plan for a request."""
        rule = request.url_rule
        endpoint = rule.endpoint if rule is not None else ""
        identity = endpoint
        # What leads nowhere has one plan, whatever method a client makes up.
        method = request.method if rule is not None else ""
        key: object = (endpoint, method)
        if self.identify is not None:
            identity = self.identify() or ""
            key = (identity, request.method, endpoint)
        plans, ready = self.plans, self.ready
        plan = plans.get(key)
        function = self.app.view_functions.get(endpoint)
        if plan is None or plan.function is not function:
            note_environ(self.opened, request.environ)
            if self.key_func is get_remote_address:
                note_proxy(request.environ)
            resolver = self.resolve(
                identity, endpoint, request.method, function, self.learned.get(key, ())
            )
            plan = Plan(self, key, function, resolver)
            if len(plans) >= PLANS_MAX:
                plans.clear()
                ready.clear()
                self.learned.clear()
            plans[key] = plan
            resume = plan.resume_before
            if plan.fast_call and resume and self.identify is None and self.enabled:
                ready.setdefault(endpoint, {})[method] = (
                    function,
                    plan.fast_call,
                    plan.fast_before,
                    resume,
                )
        return plan

    def resolve(
        self,
        identity: str,
        endpoint: str,
        method: str | None,
        function: Any,
        learned: Sequence[View] = (),
    ) -> Resolver:
        """Who finds out what applies to ``endpoint``, which limits know as ``identity``."""
        dotted = endpoint.rpartition(".")[0] or None
        return Resolver(self, identity, dotted, method, function, learned)

    def learn(self, plan: Plan, view: View) -> None:
        """The endpoint of ``plan`` calls the limited function ``view``: the next plan will know."""
        with self.lock:
            learned = self.learned.setdefault(plan.key, [])
            if not any(
                known.name == view.name and known.overrides == view.overrides for known in learned
            ):
                learned.append(view)
                self.plans.pop(plan.key, None)
                self.ready.pop(plan.resolver.endpoint, None)

    # -- a storage that is away

    def fail(self, error: Exception, decide: object) -> bool:
        """The storage raised ``error`` when asked by way of ``decide``.

        True: ask again, now locally. Otherwise raises ``error``.
        """
        self._count_failure(error)
        if self.fallback is not None and decide != self.fallback.decide:
            with self.lock:
                if not self.dead:
                    self.limiter.logger.warning(
                        "the rate limit storage cannot be reached; counting in memory: %s",
                        error,
                    )
                    self.decide = self.fallback.decide
                    self.dead = True
                    self._probes = 0
                    self._next_probe = time.time() + 1
                    self.forget_plans()  # for the fast path is closed now
            return True
        raise error

    def _count_failure(self, error: Exception) -> None:
        self.counters["store_error"] += 1
        if self.watched is None and isinstance(error, WeirError | OSError):
            self.meters.failed(error)  # one beside a board counts for itself
            if self.fallback is not None:
                self.meters.away()

    def fail_late(self, error: Exception) -> None:
        """The storage raised ``error``, which is being handled, when the response was there."""
        self._count_failure(error)
        if self.fallback is None and not self.swallow_errors:
            raise error
        self.limiter.logger.exception("a limit could not be counted after the response")

    def probe(self) -> bool:
        """Whether the storage is back, asking at most after 1, 2, 4, … 32 seconds."""
        now = time.time()
        with self.lock:
            if now < self._next_probe <= now + 2**MAX_BACKEND_CHECKS:
                return False
            self._probes = min(self._probes + 1, MAX_BACKEND_CHECKS)
            self._next_probe = now + 2**self._probes
        try:
            alive = self.storage.check()
        except Exception:
            alive = False
        if alive:
            self.limiter.logger.info("the rate limit storage can be reached again")
            self.meters.back()
            self.decide = self.storage.decide
            self.dead = False
            self.forget_plans()
        return alive

    def note(self, limit: RateLimit, key: str, verdict: Verdict, *, shadow: bool = False) -> None:
        """Note on the board what a limit has said where it does not by itself."""
        with contextlib.suppress(WeirError):  # what limits say is not less true without
            self.board.note([limit], key, Decision([verdict], 0, time.time()), shadow)

    def store_name(self) -> str:
        """The store that decides at this moment, without its password."""
        storage: object = self.storage
        if self.dead and self.fallback is not None:
            storage = self.fallback
        elif isinstance(storage, Guarded):
            storage = storage.fallback or storage.policy if storage.away else storage.storage
        if storage is self.opened:
            return shown(self.storage_uri)  # auto://, not how that is called today
        return storage if isinstance(storage, str) else name_of(storage)

    def rate_limiter(self) -> RateLimiter:
        """The strategy over the storage in use."""
        storage = self.fallback if self.dead and self.fallback is not None else self.storage
        if isinstance(storage, Watched | StandIn):
            storage = storage.storage
        return STRATEGIES[self.strategy](storage)


def as_list(value: Any) -> list[Any]:
    """A single limit or several, as a list."""
    if not value:
        return []
    if isinstance(value, str | Limit) or callable(value):
        return [value]
    return list(value)
