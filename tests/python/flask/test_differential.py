"""Random applications and requests on Flask-Limiter and on Weir: the same status, body, headers.

Where Weir differs on purpose it is named in docs/differences.md, and either Flask-Limiter is made
to do the same here (:class:`Adjusted`), or what differs is not compared (:func:`compare`). Both go
by the names in ``DIFFERENCES``; the last test sees to it that each is needed and documented.

A failure prints the seed, the application and the requests. ``WEIR_SEED=N`` begins with another
application than the first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import pprint
import random
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import flask_limiter
import flask_limiter.util
import limits.limits
import limits.storage.memory
import limits.strategies
import pytest
from flask.views import MethodView

import weir
import weir.flask
import weir.flask.util
import weir.storage

CHUNKS = 24
APPS = 30
SEQUENCES = 3
# A whole run takes about 40 s; WEIR_SEED=N looks at other applications.
FIRST_SEED = int(os.environ.get("WEIR_SEED", "0"))

#: What is different on purpose, and how the comparison knows. Each has its section in
#: docs/differences.md.
DIFFERENCES = {
    "denied-charges-nothing": "adjusted",
    "smallest-window": "adjusted",
    "escaped-keys": "adjusted",
    "meta-limits": "adjusted",
    "request-identifier": "adjusted",
    "sliding-window-exact": "adjusted",
    "moving-window-end": "adjusted",
    "deciding-limit": "not compared",
    "retry-after": "not compared",
    "sliding-window-reset": "not compared",
    "unused-moving-window": "not compared",
}
used: Counter[str] = Counter()

# -------------------------------------------------------------------------------- the clock


class Clock:
    """Both sides read it. It moves in 64ths of a second, which both represent exactly."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now


# ------------------------------------------------------------- Flask-Limiter, as Weir decides


class Adjusted:
    """Flask-Limiter with the differences that change what later requests meet."""

    @staticmethod
    @contextlib.contextmanager
    def apply(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        limiter = flask_limiter.Limiter
        evaluate = limiter._Limiter__evaluate_limits
        item = limits.limits.RateLimitItem

        # smallest-window: by the length of the window, not by the unit alone.
        by_unit = item.__lt__

        def by_window(a: Any, b: Any) -> bool:
            smaller: bool = a.get_expiry() < b.get_expiry()
            used["smallest-window"] += smaller != by_unit(a, b)
            return smaller

        monkeypatch.setattr(item, "__lt__", by_window)

        # escaped-keys: what joins the parts of a key is escaped in the parts.
        plain = limits.limits.safe_string

        def safe_string(value: Any) -> str:
            text: str = plain(value)
            used["escaped-keys"] += "/" in text
            return text.replace("%", "%25").replace("/", "%2F")

        monkeypatch.setattr(limits.limits, "safe_string", safe_string)

        # denied-charges-nothing: what was counted before a limit denied is given back.
        def evaluate_limits(self: Any, endpoint: str, limits: list[Any]) -> None:
            storage = self._storage
            kept = (
                Counter(storage.storage),
                dict(storage.expirations),
                {key: list(events) for key, events in storage.events.items()},
            )
            fair = self.limiter
            fair.metas.clear()
            try:
                evaluate(self, endpoint, limits)
            except flask_limiter.RateLimitExceeded as refusal:
                if self._fail_on_first_breach:
                    storage.storage, storage.expirations, storage.events = kept
                    if refusal.limit.scope not in META_SCOPES:
                        count_refusal(self, endpoint, limits)
                raise

        monkeypatch.setattr(limiter, "_Limiter__evaluate_limits", evaluate_limits)
        monkeypatch.setattr(limiter, "limiter", property(fair_limiter))

        # sliding-window-exact: the share of the previous window is not rounded down.
        memory = limits.storage.memory.MemoryStorage

        def acquire(self: Any, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
            now = time.time()
            before, current = self.sliding_window_keys(key, expiry, now)
            previous, ttl, count, _ = self._get_sliding_window_info(before, current, expiry, now)
            if count + exact(previous, ttl, expiry) + amount > limit:
                return False
            self.incr(current, 2 * expiry, amount=amount)
            return True

        def weighted(self: Any, item: Any, previous: int, ttl: float, count: int) -> float:
            return exact(previous, ttl, item.get_expiry()) + count

        # moving-window-end: a hit leaves it one period later, not a moment after that.
        def acquire_entry(self: Any, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
            events = self.events.setdefault(key, [])
            now = time.time()
            full = amount > limit or (
                len(events) > limit - amount and events[limit - amount].atime > now - expiry
            )
            if not full:
                if len(events) > limit - amount:
                    used["moving-window-end"] += events[limit - amount].atime == now - expiry
                events[:0] = [limits.storage.memory.Entry(expiry)] * amount
            return not full

        monkeypatch.setattr(memory, "acquire_entry", acquire_entry)
        monkeypatch.setattr(memory, "acquire_sliding_window_entry", acquire)
        monkeypatch.setattr(
            limits.strategies.SlidingWindowCounterRateLimiter, "_weighted_count", weighted
        )
        # Its expiry in a thread of its own is of no use here: every access looks at the clock.
        monkeypatch.setattr(memory, "_MemoryStorage__schedule_expiry", lambda self: None)
        monkeypatch.setattr(
            limits.storage.memory.threading, "Timer", lambda *_: type("Timer", (), {"start": int})
        )
        yield


def exact(previous: int, ttl: float, expiry: int) -> int:
    """The previous window's share, rounded up."""
    used["sliding-window-exact"] += 1
    return -int(-(previous * round(ttl * 64)) // (expiry * 64))


class FairLimiter:
    """A strategy of limits that charges nothing when it denies."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.metas: list[tuple[Any, ...]] = []

    def hit(self, item: Any, *identifiers: str, cost: int | None = None) -> bool:
        if not self.inner.test(item, *identifiers, cost=cost or 1):
            used["denied-charges-nothing"] += 1
            return False
        if cost is None:  # only meta limits are hit without a cost
            if (item, *identifiers) in self.metas:
                used["meta-limits"] += 1
                return True
            self.metas.append((item, *identifiers))
        return self.inner.hit(item, *identifiers, cost=cost or 1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def count_refusal(self: Any, endpoint: str, limits: list[Any]) -> None:
    """meta-limits: those of all limits that denied count, each once."""
    method = flask.request.method
    metas = [meta for group in self._meta_limits for meta in group]
    fair = self.limiter
    for limit in limits:
        if limit.meta_limits and not (limit.is_exempt or limit.method_exempt):
            key = limit.key_func()
            prefix = [self._key_prefix] if self._key_prefix else []
            arguments = [*prefix, key, limit.scope_for(endpoint, method)]
            if key and not fair.test(limit.limit, *arguments, cost=limit.deduction_amount):
                metas += limit.meta_limits
    theirs = list(fair.metas)
    fair.metas.clear()
    for meta in metas:
        if meta.is_exempt:
            continue
        fair.hit(meta.limit, meta.key_func(), meta.scope_for(endpoint, method))
    used["meta-limits"] += theirs != fair.metas


def fair_limiter(self: Any) -> FairLimiter:
    if not hasattr(self, "fair"):
        self.fair = FairLimiter(self._limiter)
    return self.fair


# ------------------------------------------------------------------------- random applications

META_SCOPES = ["meta", "refusals"]
PERIODS = ["second", "2 second", "minute", "90 second", "3 minute", "hour", "day", "2 hour"]


class Maker:
    """Makes plain data that describes an application, and requests for it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        #: Limits there are: those that a request's header can ask for, and each that is made.
        self.taken = {"2 per minute", "1 per hour", "2 per day"}

    def maybe(self, chance: float, value: Any, otherwise: Any = None) -> Any:
        return value() if self.random.random() < chance else otherwise

    def text(self) -> str:
        return ";".join(
            self.one_of(period)
            for period in self.random.sample(PERIODS, self.random.choice([1, 1, 1, 2]))
        )

    def one_of(self, period: str) -> str:
        """A limit that the application does not have yet, so that no two share a counter."""
        amounts = [n for n in (1, 2, 2, 3, 4, 5) if f"{n} per {period}" not in self.taken] or [99]
        text = f"{self.random.choice(amounts)} per {period}"
        self.taken.add(text)
        return text

    def dynamic(self) -> str:
        # One limit at most is told by a header: two would be the same, and share a counter.
        kind = self.random.choice(["constant", "by header"])
        if kind in self.taken:
            return "constant"
        if kind == "by header":
            self.taken.add(kind)
        return kind

    def limit(self) -> dict[str, Any]:
        pick = self.random.choice
        return {
            "text": self.text(),
            "dynamic": self.maybe(0.15, self.dynamic),
            "key": self.maybe(0.25, lambda: pick(["header", "empty", "none"])),
            "per_method": self.maybe(0.2, lambda: True, False),
            "methods": self.maybe(0.2, lambda: pick([["GET"], ["post"], ["GET", "POST"], ()])),
            "error_message": self.maybe(0.15, lambda: pick(["slow down", "called"])),
            "exempt_when": self.maybe(0.15, lambda: True),
            "override_defaults": self.maybe(0.4, lambda: False, True),
            "deduct_when": self.maybe(0.15, lambda: pick(["ok", "refused", "always"])),
            "cost": self.maybe(0.2, lambda: pick([2, 3, "header"]), 1),
            "scope": self.maybe(0.15, lambda: pick(["part", "called"])),
            "shared": None,
            "meta": self.maybe(0.12, self.meta),
            "on_breach": self.maybe(0.15, lambda: pick(["response", "nothing"])),
        }

    def meta(self) -> Any:
        """A meta limit: its text, or what to make an object of."""
        pick = self.random.choice
        text = f"{pick([1, 2, 3])} per {pick(PERIODS[2:])}"
        if self.random.random() < 0.6:
            return text
        return {
            "kind": "MetaLimit",
            "limit_provider": text,
            # Flask-Limiter has another one for those that have none.
            "key_function": pick(["address", "header"]),
            "scope": pick(META_SCOPES),
            "exempt_when": self.maybe(0.3, lambda: "exempt_when"),
            "on_breach": self.maybe(0.3, lambda: pick(["response", "nothing"])),
        }

    def object(self, kind: str) -> dict[str, Any]:
        """What to make a Limit or ApplicationLimit of."""
        pick = self.random.choice
        metas = self.maybe(0.2, lambda: [self.meta()])
        return {
            "meta_limits": metas,
            "kind": kind,
            "limit_provider": self.text(),
            # Flask-Limiter fails if neither the limit nor the meta limit has one.
            "key_function": self.maybe(1 if metas else 0.4, lambda: "header"),
            "scope": self.maybe(0.3, lambda: pick(["part", "called"])),
            "cost": self.maybe(0.3, lambda: pick([2, "header"])),
            "methods": self.maybe(0.2, lambda: pick([["GET"], ["post"]])),
            "per_method": self.maybe(0.3, lambda: True),
            "error_message": self.maybe(0.3, lambda: "slow down"),
            "exempt_when": self.maybe(0.2, lambda: "exempt_when"),
            "deduct_when": self.maybe(0.2, lambda: pick(["ok", "refused"])),
            "on_breach": self.maybe(0.2, lambda: pick(["response", "nothing"])),
        }

    def group(self, name: str) -> dict[str, Any]:
        """Options of default or application limits."""
        pick = self.random.choice
        return {
            f"{name}_limits": [
                self.object({"default": "Limit", "application": "ApplicationLimit"}[name])
                if self.random.random() < 0.2
                else self.text()
                for _ in range(pick([0, 1, 1, 2]))
            ],
            f"{name}_limits_per_method": self.maybe(0.2, lambda: True),
            f"{name}_limits_exempt_when": self.maybe(0.15, lambda: "exempt_when"),
            f"{name}_limits_deduct_when": self.maybe(0.15, lambda: pick(["ok", "refused"])),
            f"{name}_limits_cost": self.maybe(0.15, lambda: pick([2, "header"])),
        }

    def app(self) -> dict[str, Any]:
        pick = self.random.choice
        blueprints = []
        periods = self.random.sample(PERIODS, len(PERIODS))
        for n in range(pick([0, 0, 1, 2, 3])):
            limit = self.maybe(0.6, lambda: self.limit())
            if limit:
                # One window each: with equal ones Flask-Limiter's order depends on a hash.
                limit["text"] = self.one_of(periods.pop())
                limit["dynamic"] = limit["dynamic"] and "constant"
                limit["meta"] = None
            blueprints.append(
                {
                    "parent": self.maybe(0.6, lambda n=n: self.random.randrange(n), None)
                    if n
                    else None,
                    "limit": limit,
                    "exempt": self.maybe(0.25, lambda: self.flags(blueprint=True)),
                }
            )
        shared = [self.limit() for _ in range(pick([0, 0, 1, 2]))]
        for limit in shared:
            limit["shared"] = pick(["together", "called"])
        routes = [
            {
                "kind": pick(["function", "function", "function", "class", "block"]),
                "blueprint": self.maybe(0.6, lambda: self.random.randrange(len(blueprints)))
                if blueprints
                else None,
                "limits": [self.limit() for _ in range(pick([0, 1, 1, 1, 2]))]
                + [limit for limit in shared if self.random.random() < 0.6],
                "exempt": self.maybe(0.12, lambda: self.flags(blueprint=False)),
            }
            for _ in range(pick([1, 2, 3]))
        ]
        for route in routes:
            if route["kind"] == "block":
                # One limit, which the view itself enters. What that has to do with limits before
                # dispatch, Flask-Limiter learns at the first request: see "Limits known from the
                # start".
                route["limits"] = [{**self.limit(), "dynamic": None}]
                route["blueprint"] = route["exempt"] = None
        return {
            "strategy": pick(
                ["fixed-window"] * 4 + ["moving-window"] * 2 + ["sliding-window-counter"]
            ),
            "options": {
                **self.group("default"),
                **self.maybe(0.5, lambda: self.group("application"), {}),
                "headers_enabled": self.maybe(0.8, lambda: True),
                "retry_after": self.maybe(0.2, lambda: "http-date"),
                "key_prefix": self.maybe(0.2, lambda: "prefix", ""),
                "fail_on_first_breach": self.maybe(0.2, lambda: False),
                "swallow_errors": self.maybe(0.3, lambda: pick([True, False])),
                "meta_limits": self.maybe(0.2, lambda: [self.meta()]),
                "on_breach": self.maybe(0.15, lambda: pick(["response", "nothing"])),
                "on_meta_breach": self.maybe(0.15, lambda: pick(["response", "nothing"])),
                "request_identifier": self.maybe(0.1, lambda: "identifier"),
            },
            "config": self.maybe(0.3, lambda: True, False),
            "filter": self.maybe(0.15, lambda: True, False),
            "blueprints": blueprints,
            "routes": routes,
        }

    def flags(self, *, blueprint: bool) -> list[str]:
        names = ["APPLICATION", "DEFAULT", "META"]
        if blueprint:
            names += ["DESCENDENTS", "ANCESTORS"]
        return self.maybe(
            0.5, lambda: self.random.sample(names, self.random.randint(1, len(names))), []
        )

    def requests(self, app: dict[str, Any]) -> list[dict[str, Any]]:
        pick = self.random.choice
        requests = []
        for _ in range(self.random.randint(8, 16)):
            route = self.random.randrange(len(app["routes"]))
            methods = ["GET", "GET", "GET", "POST", "HEAD", "OPTIONS"]
            if app["routes"][route]["kind"] == "block":
                # There what is known of a block is known of every method.
                methods = ["GET"]
            wait = pick([0, 0, 0, 0, 0, 0.25, 1, 1, 2, 7.75, 30, 60, 61.5, 90, 600, 3600, 90000])
            requests.append(
                {
                    "wait": wait,
                    "method": pick(methods),
                    "path": f"/{route}" if self.random.random() < 0.97 else "/nowhere",
                    "address": pick(["10.0.0.1", "10.0.0.1", "10.0.0.2"]),
                    "headers": {
                        name: value
                        for name, chance, value in [
                            ("X-Key", 0.6, pick(["a", "b/c"])),
                            ("X-Exempt", 0.15, "1"),
                            ("X-Cost", 0.3, pick(["1", "2", "4"])),
                            ("X-Status", 0.25, "400"),
                            ("X-Filter", 0.1, "1"),
                            ("X-Limit", 0.3, pick(["2 per minute", "1 per hour; 2 per day", ""])),
                        ]
                        if self.random.random() < chance
                    },
                }
            )
        return requests


# ---------------------------------------------------------------------- from data to Flask


def header(name: str, default: str = "") -> str:
    return flask.request.headers.get(name, default)


def address() -> str:
    return flask.request.remote_addr or ""


def answer(limit: Any) -> flask.Response:
    return flask.make_response(f"{limit.limit} {limit.breached} {limit.shared}", 429)


BREACH: dict[str, Callable[[Any], Any]] = {"response": answer, "nothing": lambda limit: None}

KEYS: dict[str, Callable[[], str]] = {
    "address": address,
    "header": lambda: header("X-Key", "nobody"),
    "empty": lambda: header("X-Key"),
    "none": lambda: header("X-Key") or None,  # type: ignore[dict-item, return-value]
}
DEDUCT: dict[str, Callable[[flask.Response], bool]] = {
    "ok": lambda response: response.status_code == 200,
    "refused": lambda response: response.status_code >= 400,
    "always": lambda response: True,
}


def exempt_when() -> bool:
    return bool(header("X-Exempt"))


def cost() -> int:
    return int(header("X-Cost", "1"))


def called_scope(endpoint: str) -> str:
    return endpoint[-1:] + header("X-Key")


def identifier() -> str:
    return f"{flask.request.endpoint or ''}!"


def resolve(value: Any) -> Any:
    named = {
        "exempt_when": exempt_when,
        "header": cost,
        "identifier": identifier,
        **DEDUCT,
    }
    return named.get(value, value) if isinstance(value, str) else value


def make(package: Any, value: Any) -> Any:
    """A limit as it is given: a text, or an object of the package's."""
    if not isinstance(value, dict):
        return value
    options = {name: given for name, given in value.items() if given is not None}
    options["key_function"] = KEYS.get(options.get("key_function", ""))
    for name in ("exempt_when", "deduct_when", "cost"):
        options[name] = resolve(options.get(name))
    options["on_breach"] = BREACH.get(options.get("on_breach", ""))
    if options.get("scope") == "called":
        options["scope"] = called_scope
    if "meta_limits" in options:
        options["meta_limits"] = [make(package, meta) for meta in options["meta_limits"]]
    kind = getattr(package, options.pop("kind"))
    if kind is package.MetaLimit:
        del options["deduct_when"]
    return kind(**options)


def decorate(package: Any, limiter: Any, limit: dict[str, Any]) -> Any:
    text: Any = limit["text"]
    if limit["dynamic"] == "constant":
        text = functools.partial(str, text)
    elif limit["dynamic"] == "by header":
        text = functools.partial(lambda text: header("X-Limit", text), text)
    options: dict[str, Any] = {
        "key_func": KEYS.get(limit["key"]),
        "per_method": limit["per_method"],
        "methods": limit["methods"],
        "error_message": (lambda: "called")
        if limit["error_message"] == "called"
        else limit["error_message"],
        "exempt_when": exempt_when if limit["exempt_when"] else None,
        "override_defaults": limit["override_defaults"],
        "deduct_when": DEDUCT.get(limit["deduct_when"]),
        "cost": resolve(limit["cost"]),
        "meta_limits": [make(package, limit["meta"])] if limit["meta"] else None,
        "on_breach": BREACH.get(limit["on_breach"]),
    }
    if limit["shared"]:
        scope = called_scope if limit["shared"] == "called" else limit["shared"]
        return limiter.shared_limit(text, scope, **options)
    scope = called_scope if limit["scope"] == "called" else limit["scope"]
    return limiter.limit(text, scope=scope, **options)


SETTINGS = {
    "swallow_errors": "SWALLOW_ERRORS",
    "default_limits": "DEFAULT",
    "default_limits_per_method": "DEFAULTS_PER_METHOD",
    "default_limits_exempt_when": "DEFAULTS_EXEMPT_WHEN",
    "default_limits_deduct_when": "DEFAULTS_DEDUCT_WHEN",
    "default_limits_cost": "DEFAULTS_COST",
    "application_limits": "APPLICATION",
    "application_limits_per_method": "APPLICATION_PER_METHOD",
    "application_limits_exempt_when": "APPLICATION_EXEMPT_WHEN",
    "application_limits_deduct_when": "APPLICATION_DEDUCT_WHEN",
    "application_limits_cost": "APPLICATION_COST",
    "headers_enabled": "HEADERS_ENABLED",
    "retry_after": "HEADER_RETRY_AFTER_VALUE",
    "key_prefix": "KEY_PREFIX",
    "fail_on_first_breach": "FAIL_ON_FIRST_BREACH",
    "meta_limits": "META",
    "on_breach": "ON_BREACH_CALLBACK",
    "on_meta_breach": "ON_META_BREACH_CALLBACK",
    "request_identifier": "REQUEST_IDENTIFIER",
}


BLOCK = """
def entering(view, limit):
    def function():
        with limit():
            return view()

    return function
"""


class Plain(weir.storage.Storage):
    """A store that is no table: what remote stores are to a limiter, by the clock of the test."""

    STORAGE_SCHEME = ("plain", "looking")

    def __init__(self, uri: str, **options: Any) -> None:
        super().__init__(uri)
        self.table = weir.Table("memory://?keys=4096")
        self.LOOKS = uri.startswith("looking")

    def decide(self, *arguments: Any) -> weir.Decision:
        return self.table.decide(*arguments)

    def clear(self, *arguments: Any) -> None:
        self.table.clear(*arguments)

    def reset(self) -> None:
        self.table.reset()


#: Where Weir counts: each application on one of them.
STORES = ("memory://", f"shm://differential-{os.getpid()}?keys=8192", "plain://", "looking://")


def build(package: Any, spec: dict[str, Any], store: str = "memory://") -> tuple[flask.Flask, Any]:
    app = flask.Flask("differential")
    options = {
        name: [make(package, item) for item in value]
        if isinstance(value, list)
        else BREACH[value]
        if "breach" in name and value in BREACH
        else resolve(value)
        for name, value in spec["options"].items()
        if value is not None and value != []
    }
    if spec["config"]:
        for name, value in options.items():
            text = value
            if isinstance(value, list):
                # There a setting is a single text, here any list.
                text = "; ".join(
                    item if isinstance(item, str) else item.limit_provider for item in value
                )
            app.config[f"RATELIMIT_{SETTINGS[name]}"] = text
        options = {}
    limiter = package.Limiter(
        package.util.get_remote_address,
        storage_uri=store if package is weir.flask else "memory://",
        strategy=spec["strategy"],
        **options,
    )
    early = spec["config"]
    if early:
        limiter.init_app(app)
    if spec["filter"]:
        limiter.request_filter(lambda: bool(header("X-Filter")))

    def flags(names: list[str]) -> Any:
        scope = package.ExemptionScope
        return functools.reduce(lambda a, b: a | b, (scope[name] for name in names))

    blueprints = []
    for n, description in enumerate(spec["blueprints"]):
        blueprint = flask.Blueprint(f"bp{n}", "differential")
        if description["limit"]:
            decorate(package, limiter, description["limit"])(blueprint)
        if description["exempt"] is not None:
            names = description["exempt"]
            limiter.exempt(blueprint, **({"flags": flags(names)} if names else {}))
        blueprints.append(blueprint)

    def block(limit: dict[str, Any]) -> Any:
        return decorate(package, limiter, limit)

    for n, route in enumerate(spec["routes"]):

        def view() -> Any:
            checked = [
                (str(limit.limit), limit.key, limit.breached, limit.shared)
                for limit in limiter.current_limits
            ]
            told = limiter.current_limit and str(limiter.current_limit.limit)
            status = int(header("X-Status", "200"))
            return f"{limiter.identify_request()} {checked} {told}", status

        view.__name__ = view.__qualname__ = f"view{n}"
        function: Any = view
        if route["kind"] == "block":
            # Blocks are known by where they stand.
            place: dict[str, Any] = {}
            exec(compile(BLOCK, f"view{n}.py", "exec"), place)
            function = place["entering"](view, lambda limit=route["limits"][0]: block(limit))
            function.__name__ = function.__qualname__ = f"view{n}"
        elif route["kind"] == "class":
            namespace = {
                "get": lambda self, view=view: view(),
                "post": lambda self, view=view: view(),
                "decorators": [decorate(package, limiter, limit) for limit in route["limits"]],
            }
            function = type(f"Class{n}", (MethodView,), namespace).as_view(f"view{n}")
        else:
            for limit in route["limits"]:
                function = decorate(package, limiter, limit)(function)
        if route["exempt"] is not None:
            names = route["exempt"]
            function = limiter.exempt(function, **({"flags": flags(names)} if names else {}))
        target = app if route["blueprint"] is None else blueprints[route["blueprint"]]
        target.add_url_rule(f"/{n}", f"view{n}", function, methods=["GET", "POST"])

    for blueprint, description in reversed(list(zip(blueprints, spec["blueprints"], strict=True))):
        parent = app if description["parent"] is None else blueprints[description["parent"]]
        parent.register_blueprint(blueprint)
    if not early:
        limiter.init_app(app)
    if package is flask_limiter and spec["options"]["request_identifier"]:
        # request-identifier: it looks for the view by the name that the identifier returns.
        used["request-identifier"] += 1
        views = app.view_functions
        views.update({f"{endpoint}!": function for endpoint, function in views.items()})
    return app, limiter


# ---------------------------------------------------------------------------- the comparison


@dataclasses.dataclass
class Reply:
    status: int
    body: str
    headers: dict[str, str]
    #: How many limits denied the request.
    denied: int
    #: Whether it was a meta limit.
    meta: bool


def ask(app: flask.Flask, limiter: Any, request: dict[str, Any]) -> Reply:
    denied = []

    def look(response: flask.Response) -> flask.Response:
        denied[:] = [limit for limit in limiter.current_limits if limit.breached]
        return response

    with app.test_request_context(
        request["path"],
        method=request["method"],
        headers=request["headers"],
        environ_base={"REMOTE_ADDR": request["address"]},
    ) as context:
        context._after_request_functions.append(look)
        response = app.full_dispatch_request()
    return Reply(
        response.status_code,
        response.get_data(as_text=True),
        dict(response.headers),
        len(denied),
        any(part in META_SCOPES for limit in denied for part in limit.key.split("/")),
    )


def compare(spec: dict[str, Any], request: dict[str, Any], theirs: Reply, ours: Reply) -> list[str]:
    """What is different and has no name."""
    wrong = []
    if ours.status != theirs.status:
        return [f"status {theirs.status} became {ours.status}"]
    told = ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After"]
    skip = set()
    refused = ours.status == 429
    if refused and (ours.denied > 1 or (ours.meta and theirs.meta and ours.body != theirs.body)):
        used["deciding-limit"] += 1
        skip.update(told, ["body", "Content-Length"])
    if refused and "Retry-After" in ours.headers:
        # One is rounded up, the other is rounded twice.
        waits = ours.headers["Retry-After"], theirs.headers.get("Retry-After", "")
        used["retry-after"] += waits[0] != waits[1]
        exact = spec["strategy"] == "fixed-window" and "body" not in skip
        if not exact or "GMT" in waits[0] or abs(int(waits[0]) - int(waits[1] or -9)) <= 1:
            skip.add("Retry-After")
    if spec["strategy"] == "sliding-window-counter":
        used["sliding-window-reset"] += 1
        skip.update(told[2:])
    if spec["strategy"] == "moving-window" and ours.headers.get(told[0]) == ours.headers.get(
        told[1]
    ):
        used["unused-moving-window"] += 1
        skip.update(told[2:])
    if "body" not in skip and ours.body != theirs.body:
        wrong.append(f"body {theirs.body!r} became {ours.body!r}")
    for name in sorted({*ours.headers, *theirs.headers}):
        if name not in skip and ours.headers.get(name) != theirs.headers.get(name):
            wrong.append(f"{name}: {theirs.headers.get(name)} became {ours.headers.get(name)}")
        if (name in ours.headers) != (name in theirs.headers):
            wrong.append(f"{name} is there for one only")
    return wrong


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock.time)
    return clock


@pytest.fixture(autouse=True, scope="module")
def remove_shared_table() -> Iterator[None]:
    yield
    with contextlib.suppress(weir.TableError):
        weir.unlink(STORES[1].partition("?")[0])


@pytest.fixture
def quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("flask-limiter", "weir.audit")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.level = logging.CRITICAL + 1
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.level = level


def said(value: Any) -> Any:
    """The description without what it leaves open."""
    if isinstance(value, dict):
        return {
            name: said(given)
            for name, given in value.items()
            if given not in (None, [], "") and (given is not False or name == "override_defaults")
        }
    return [said(item) for item in value] if isinstance(value, list) else value


def run(seed: int, clock: Clock) -> int:
    """One application, several sequences of requests; returns how many pairs were compared."""
    maker = Maker(seed)
    spec = maker.app()
    clock.now = (
        float(1_700_000_000 + maker.random.randrange(10**6)) + maker.random.randrange(64) / 64
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = build(flask_limiter, spec)
    store = STORES[seed % len(STORES)]
    ours = build(weir.flask, spec, store)
    ours[1].reset()
    for _ in range(SEQUENCES):
        requests = maker.requests(spec)
        for n, request in enumerate(requests):
            clock.now += request["wait"]
            reference = ask(*theirs, request)
            wrong = compare(spec, request, reference, ask(*ours, request))
            if wrong or reference.status == 500:
                pytest.fail(
                    f"seed {seed} on {store}, request {n}\n"
                    + "\n".join(wrong)
                    + f"\n{pprint.pformat(said(spec), sort_dicts=False, width=150)}\n"
                    + "\n".join(map(str, requests[: n + 1]))
                )
        theirs[1].reset()
        ours[1].reset()
        clock.now += 10**6
    return SEQUENCES


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_same_as_flask_limiter(
    chunk: int, clock: Clock, quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    used["chunks"] += 1
    with Adjusted.apply(monkeypatch):
        first = FIRST_SEED + chunk * APPS
        for seed in range(first, first + APPS):
            run(seed, clock)


def test_there_are_enough_pairs_and_no_idle_differences() -> None:
    assert CHUNKS * APPS * SEQUENCES >= 2000
    text = (Path(__file__).parents[3] / "docs" / "differences.md").read_text()
    for name in DIFFERENCES:
        assert f"`{name}`" in text
        if used["chunks"] == CHUNKS:
            assert used[name], f"{name} never made a difference"
