"""One limiter on one application: its settings, its storage, and its plans."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

from flask import Flask, Request
from flask.wrappers import Response

from weir._core import TEST, Table, WeirError
from weir._locks import new_lock
from weir._log import SeldomLine, shows_keys
from weir.audit import Audit
from weir.observe.stats import StoreMeters
from weir.storage import StorageTypes
from weir.stores.auto import application, note_environ
from weir.stores.failover import POLICIES
from weir.stores.instrumented import InstrumentedStorage
from weir.strategies import STRATEGIES, RateLimiter, check_support, is_built_in, watch

from .constants import ConfigVars
from .errors import ConfigurationError
from .headers import HeaderWriter
from .limits import ApplicationLimit, Applies, Limit, MetaLimit, View
from .options import LimiterOptions
from .plan import Plan
from .registry import Declaring, declared_limits
from .resolve import Resolver
from .room import refuse_unfit
from .settings import Reader, given
from .store import Store, refuses_one_key
from .util import get_remote_address, note_ipv6_prefix, note_proxy

#: Endpoints whose plans are cached; then the cache is cleared.
PLANS_MAX = 8192

#: The words of Flask-Limiter.
_DEDUCT = "Failed to deduct rate limit. Swallowing error"

T = TypeVar("T")
L = TypeVar("L", bound=Limit)


class Owner(Declaring, Applies, Protocol):
    """The part of the limiter that its state uses."""

    _key_func: Any
    _options: LimiterOptions
    _slot: str
    _hooks: Any


class AppState:
    """The state of a limiter for one application, in ``app.extensions["weir"]``."""

    store: Store

    def __init__(self, limiter: Owner, app: Flask) -> None:
        self.limiter = limiter
        self.app = app
        self.enabled = True
        self.slot = limiter._slot
        self.hooks = limiter._hooks
        self.logger = limiter.logger
        self.plans: dict[object, Plan] = {}
        #: Plans by endpoint and method that the hooks may use directly.
        self.ready: dict[str, dict[str, Plan]] = {}
        #: Whether any limit may delay a request.
        self.delays = False
        #: Whether limits that were declared as text have their labels in the statistics.
        self._labelled = False
        self.learned: dict[object, list[View]] = {}
        #: Limited functions that were called in requests without a route.
        self._routeless: set[str] = set()
        self.lock = new_lock()
        #: Our after_request function, until it is registered.
        self._after: Callable[[Response], Response] | None = None
        self._after_at = 0
        #: Log lines about requests that are refused because of errors of their keys.
        self.refused_line = SeldomLine()
        self.swallowed_line = SeldomLine()
        #: Counts of events: ``empty_key``, ``shadow_denied``, ``store_error``, …
        self.counters: Counter[str] = Counter()
        self.configure()
        watch(self)

    def count(self, what: str) -> None:
        """Count an event."""
        self.counters[what] += 1

    def log_error(self, message: str) -> None:
        """Log a complete text, because programs read ``record.msg``."""
        self.logger.error(message)

    @property
    def logs_breaches(self) -> bool:
        """Whether the log line of a breach is written anywhere."""
        return self.logger.isEnabledFor(20)

    # -- settings

    def configure(self) -> None:
        """Read arguments and settings; arguments take precedence."""
        options = self.limiter._options
        config = self.app.config
        read = Reader(config)
        self.strict = read.flag(options["strict"], ConfigVars.STRICT)
        read.report_unknown(self.strict, self.logger)
        self.shadow = read.flag(options["shadow"], ConfigVars.SHADOW)
        self.problem_json = read.flag(options["problem_json"], ConfigVars.PROBLEM_JSON)
        if ConfigVars.IPV6_PREFIX in config:
            config[ConfigVars.IPV6_PREFIX] = read.ipv6_prefix(ConfigVars.IPV6_PREFIX)
        self.swallow_errors = read.flag(options["swallow_errors"], ConfigVars.SWALLOW_ERRORS)
        self.fail_on_first_breach = read.flag(
            options["fail_on_first_breach"], ConfigVars.FAIL_ON_FIRST_BREACH, True
        )
        #: Whether a refused request is charged to the limits that have room.
        self.charges_each = not self.fail_on_first_breach
        key_func = read.function(self.limiter._key_func, ConfigVars.KEY_FUNC, 0)
        if key_func is None:
            raise ConfigurationError("EOPTION", "Limiter() needs a key_func")
        self.key_func = key_func
        self.key_prefix = read.text(options["key_prefix"], ConfigVars.KEY_PREFIX, "")
        self._configure_answers(options, read)
        self._configure_strategy(options, read)
        self.storage_uri = read.text(options["storage_uri"], ConfigVars.STORAGE_URI, "auto://")
        self.storage_options = read.options(options["storage_options"], ConfigVars.STORAGE_OPTIONS)
        self._configure_limits(options, read)
        self._configure_fallback(options, read)
        self._open_store(options, read)
        declared = list(declared_limits(self.limiter, self.app))
        limits = [*self.application_limits, *self.default_limits, *self.meta_limits, *declared]
        check_support(self.store.opened, self.strategy)
        refuse_unfit(self.store.opened, self.strategy, limits)
        self.clear_plans()

    def _configure_answers(self, options: LimiterOptions, read: Reader) -> None:
        """Configure how refused requests are answered."""
        self.identify = read.function(options["request_identifier"], ConfigVars.REQUEST_IDENTIFIER)
        self.on_breach = read.function(options["on_breach"], ConfigVars.ON_BREACH, 1)
        self.on_meta_breach = read.function(options["on_meta_breach"], ConfigVars.ON_META_BREACH, 1)
        self.headers = HeaderWriter(
            read.headers(options["headers_enabled"], ConfigVars.HEADERS_ENABLED),
            read.header_names(options["header_name_mapping"]),
            read.choice(
                options["retry_after"],
                ConfigVars.HEADER_RETRY_AFTER_VALUE,
                ("delta-seconds", "http-date"),
            ),
        )

    def _configure_strategy(self, options: LimiterOptions, read: Reader) -> None:
        strategy = read.choice(options["strategy"], ConfigVars.STRATEGY, tuple(STRATEGIES))
        self.strategy = strategy or "fixed-window"
        self._rate_limiter: RateLimiter | None = None
        if not is_built_in(self.strategy):
            raise ConfigurationError(
                "EOPTION",
                f"strategy={self.strategy!r}: {STRATEGIES[self.strategy].__name__} is a custom"
                " class, and a Flask limiter decides in the core; call the class yourself, or"
                " choose one of Weir's strategies",
            )
        if not given(options["strategy"]):
            self.app.config[ConfigVars.STRATEGY] = self.strategy

    def _open_store(self, options: LimiterOptions, read: Reader) -> None:
        policy = read.choice(options["on_store_error"], ConfigVars.ON_STORE_ERROR, POLICIES)
        with application(self.app, *self.identity()):
            self.store = Store(
                self.storage_uri,
                self.storage_options,
                policy,
                key_prefix=self.key_prefix,
                fallback=self.fallback_enabled,
                replaced=bool(self.fallback_limits),
                logger=self.logger,
            )
        self.store.limiter = self.rate_limiter
        reveal = read.flag(options["reveal_keys"], ConfigVars.REVEAL_KEYS)
        self.store.stats_table.reveal = reveal
        prefix = self.app.config.get(ConfigVars.IPV6_PREFIX)
        note_ipv6_prefix(self.store.stats_table, self.key_func, prefix)
        self.audit = Audit(self.store.stats_table, reveal=reveal)

    def identity(self) -> tuple[str, ...]:
        """Values that identify this application and are the same in all its workers."""
        app = self.app
        main = app.import_name in ("__main__", "__mp_main__")
        where = (app.config.get("SERVER_NAME"), app.config.get("APPLICATION_ROOT"))
        name = "" if main else app.name
        prefix = self.storage_options.get("key_prefix")
        stored = () if prefix is None else (str(prefix),)
        return (app.import_name, name, app.root_path, self.key_prefix, *map(str, where), *stored)

    # -- the store, for commands and the live page

    @property
    def storage(self) -> StorageTypes:
        return self.store.storage

    @property
    def stats_table(self) -> Table:
        return self.store.stats_table

    @property
    def instrumented(self) -> InstrumentedStorage | None:
        return self.store.instrumented

    @property
    def auto_number(self) -> int | None:
        return self.store.auto_number

    @property
    def opened(self) -> StorageTypes:
        return self.store.opened

    @property
    def meters(self) -> StoreMeters:
        return self.store.meters

    def _configure_limits(self, options: LimiterOptions, read: Reader) -> None:
        self.default_options: dict[str, Any] = {
            "per_method": read.flag(
                options["default_limits_per_method"], ConfigVars.DEFAULT_LIMITS_PER_METHOD
            ),
            "exempt_when": read.function(
                options["default_limits_exempt_when"], ConfigVars.DEFAULT_LIMITS_EXEMPT_WHEN, 0
            ),
            "deduct_when": read.function(
                options["default_limits_deduct_when"], ConfigVars.DEFAULT_LIMITS_DEDUCT_WHEN, 1
            ),
            "cost": read.cost(options["default_limits_cost"], ConfigVars.DEFAULT_LIMITS_COST),
        }
        self.application_options: dict[str, Any] = {
            "per_method": read.flag(
                options["application_limits_per_method"], ConfigVars.APPLICATION_LIMITS_PER_METHOD
            ),
            "exempt_when": read.function(
                options["application_limits_exempt_when"],
                ConfigVars.APPLICATION_LIMITS_EXEMPT_WHEN,
                0,
            ),
            "deduct_when": read.function(
                options["application_limits_deduct_when"],
                ConfigVars.APPLICATION_LIMITS_DEDUCT_WHEN,
                1,
            ),
            "cost": read.cost(
                options["application_limits_cost"], ConfigVars.APPLICATION_LIMITS_COST
            ),
        }
        self.default_limits = self._groups(
            Limit,
            read.limits(options["default_limits"], ConfigVars.DEFAULT_LIMITS, Limit),
            self.default_options,
        )
        self.application_limits = self._groups(
            ApplicationLimit,
            read.limits(options["application_limits"], ConfigVars.APPLICATION_LIMITS, Limit),
            self.application_options,
        )
        self.meta_limits = self._groups(
            MetaLimit, read.limits(options["meta_limits"], ConfigVars.META_LIMITS, Limit), {}
        )
        if self.strict:
            # Errors in them are reported now instead of at the first request.
            for group in [*self.default_limits, *self.application_limits, *self.meta_limits]:
                if not callable(group.limit_provider):
                    group.items(group.limit_provider, self.strategy)

    def _groups(self, kind: type[L], limits: list[Any], options: dict[str, Any]) -> list[L]:
        groups = []
        for limit in limits:
            if not isinstance(limit, Limit):
                groups.append(kind(limit, **options))
            elif limit.finalized:
                groups.append(cast(L, limit))
            else:
                groups.append(cast(L, dataclasses.replace(limit, **options, finalized=True)))
        return groups

    def _configure_fallback(self, options: LimiterOptions, read: Reader) -> None:
        self.fallback_limits = self._groups(
            Limit,
            read.limits(options["in_memory_fallback"], ConfigVars.IN_MEMORY_FALLBACK, Limit),
            {},
        )
        #: Whether this process counts during an outage of the storage.
        self.fallback_enabled = read.flag(
            options["in_memory_fallback_enabled"], ConfigVars.IN_MEMORY_FALLBACK_ENABLED
        ) or bool(self.fallback_limits)

    # -- plans

    def clear_plans(self) -> None:
        """Drop all plans after something was registered."""
        # New dicts, so that a plan that is being made is stored in the old ones and dropped, too.
        self.plans = {}
        self.ready = {}
        self._labelled = False

    def label_static_limits(self) -> None:
        """Give limits with a known text their labels in the statistics, once.

        This happens before the first dynamic limit: labels are few, and clients may influence the
        texts of dynamic limits.
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
                with contextlib.suppress(WeirError, ValueError):  # raised again in the decision
                    for limit in group.expand(text, self.key_func, (), self.strategy):
                        self.stats_table.decide([limit.limit], "-", [0], TEST)

    # -- hooks of Flask

    def hook_in(self, before: Callable[[], None], after: Callable[[Response], Response]) -> None:
        """Register functions to call before and after each request."""
        self.app.before_request(before)
        self._after = after
        self._after_at = len(self.app.after_request_funcs.get(None, ()))
        if self.headers.kinds:
            self.watch_responses()

    def watch_responses(self) -> None:
        """Insert our after_request hook at its original position.

        This happens only when it is needed, for headers or for a limit that depends on the
        response: the call of the hook takes half of the time of a limit.
        """
        with self.lock:
            if self._after is not None:
                # A new list: other threads may iterate over the old one.
                hooks = list(self.app.after_request_funcs.get(None, ()))
                hooks.insert(self._after_at, self._after)
                self.app.after_request_funcs[None] = hooks
                self._after = None

    def enable(self, enabled: bool) -> None:
        self.enabled = enabled
        self.clear_plans()

    def plan_for(self, request: Request) -> Plan:
        """The plan for a request."""
        rule = request.url_rule
        endpoint = rule.endpoint if rule is not None else ""
        identity = endpoint
        # Requests without a route share one plan, whatever their method.
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
            if self.identify is None and self.enabled:
                ready.setdefault(endpoint, {})[method] = plan
        return plan

    def resolve(
        self,
        identity: str,
        endpoint: str,
        method: str | None,
        function: Any,
        learned: Sequence[View] = (),
    ) -> Resolver:
        """The resolver for ``endpoint``, whose name for limits is ``identity``."""
        dotted = endpoint.rpartition(".")[0] or None
        return Resolver(self, identity, dotted, method, function, learned)

    def report_routeless(self, view: View) -> None:
        """Log once that a limited function was called in a request without a route.

        :raises ConfigurationError: ``EOPTION``, if the limiter is strict.
        """
        text = (
            f"the limits of {view.name}() are not in force for a URL without a route: to limit"
            " unknown URLs, limit a catch-all route, '/<path:unknown>', that calls abort(404)"
        )
        if self.strict:
            raise ConfigurationError("EOPTION", text)
        if view.name not in self._routeless:
            self._routeless.add(view.name)
            self.log_error(f"EOPTION: {text}")

    def learn(self, plan: Plan, view: View) -> None:
        """Record that the endpoint of ``plan`` calls the limited function ``view``."""
        with self.lock:
            learned = self.learned.setdefault(plan.key, [])
            if not any(
                known.name == view.name and known.overrides == view.overrides for known in learned
            ):
                learned.append(view)
                self.plans.pop(plan.key, None)
                self.ready.pop(plan.resolver.endpoint, None)

    # -- outages

    def fail_late(self, error: Exception) -> None:
        """Handle ``error`` of the storage after the response was made."""
        self.count("store_error")
        self.store.failed(error)
        if refuses_one_key(error):
            self.refused_line.error(self.logger, _DEDUCT + ": %s", error, exc_info=error)
            return
        if not self.swallow_errors:
            raise error
        self.log_swallowed(_DEDUCT, error)

    def log_swallowed(self, text: str, error: BaseException | bool) -> None:
        """Log an error that lets the request pass, with its traceback.

        An outage would write a line for each request, so one is written in ten seconds. Programs
        under :mod:`weir.compat` get each, as from Flask-Limiter.

        error: True: the one that is being handled
        """
        if shows_keys():
            self.logger.error(text, exc_info=error)
        else:
            self.swallowed_line.error(self.logger, text, exc_info=error)

    def use_storage(self, storage: Table) -> None:
        """Use another table from now on."""
        self.store.use(storage)
        self.clear_plans()

    def store_name(self) -> str:
        """The store that decides at this moment, without its password."""
        return self.store.name()

    def rate_limiter(self) -> RateLimiter:
        """The strategy over the storage in use."""
        storage = self.store.current
        if self._rate_limiter is None or self._rate_limiter.storage is not storage:
            self._rate_limiter = STRATEGIES[self.strategy](storage)
        return self._rate_limiter
