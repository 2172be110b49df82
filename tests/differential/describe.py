"""Random applications and requests, as plain data."""

from __future__ import annotations

import random
from typing import Any

from differential.differences import META_SCOPES

PERIODS = ["second", "2 second", "minute", "90 second", "3 minute", "hour", "day", "2 hour"]


class Maker:
    """Makes plain data that describes an application, and requests for it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        #: Limits there are: those that a header of a request can select, and each that is made.
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
        # At most one limit comes from a header: two would be equal and share a counter.
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

    def blueprints(self) -> list[dict[str, Any]]:
        pick = self.random.choice
        blueprints: list[dict[str, Any]] = []
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
        return blueprints

    def routes(self, blueprints: int) -> list[dict[str, Any]]:
        """Some routes, of the application or of one of so many blueprints."""
        pick = self.random.choice
        shared = [self.limit() for _ in range(pick([0, 0, 1, 2]))]
        for limit in shared:
            limit["shared"] = pick(["together", "called"])
        routes = [
            {
                "kind": pick(["function", "function", "function", "class", "block"]),
                "blueprint": self.maybe(0.6, lambda: self.random.randrange(blueprints))
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
                # One limit, which the view itself enters. Flask-Limiter finds the limits of such a
                # function at its first request: see docs/differences.md.
                route["limits"] = [{**self.limit(), "dynamic": None}]
                route["blueprint"] = route["exempt"] = None
        return routes

    def options(self) -> dict[str, Any]:
        """What the limiter is made with."""
        pick = self.random.choice
        return {
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
        }

    def app(self) -> dict[str, Any]:
        blueprints = self.blueprints()
        routes = self.routes(len(blueprints))
        return {
            "strategy": self.random.choice(
                ["fixed-window"] * 4 + ["moving-window"] * 2 + ["sliding-window-counter"]
            ),
            "options": self.options(),
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
