"""The declared limits and exemptions of blueprints, views and their methods."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from flask import Flask

from .constants import ExemptionScope
from .limits import EXEMPT_MARK, VIEW_MARK, Limit, View
from .util import get_qualified_name


class Registry:
    """The declarations on one limiter, for all its applications."""

    def __init__(self) -> None:
        self.blueprint_limits: dict[str, list[Limit]] = {}
        self.blueprint_exemptions: dict[str, ExemptionScope] = {}
        self.named_exemptions: dict[str, ExemptionScope] = {}

    def limit_blueprint(self, name: str, limit: Limit) -> None:
        limits = self.blueprint_limits.setdefault(name, [])
        if limit not in limits:
            limits.append(limit)


class Declaring(Protocol):
    """The part of a limiter that resolving uses."""

    logger: logging.Logger
    _registry: Registry
    _request_filters: list[Callable[[], bool]]


def unwrap(function: Any) -> Iterator[Any]:
    """The function, and the functions that it wraps, from the outside in."""
    seen: set[int] = set()
    while function is not None and id(function) not in seen:
        seen.add(id(function))
        yield function
        function = getattr(function, "__wrapped__", None) or getattr(function, "func", None)


def find_view(limiter: Declaring, function: Any) -> tuple[View | None, ExemptionScope]:
    """The limits and exemptions of a view function on ``limiter``."""
    view = None
    exempt = ExemptionScope.NONE
    named = limiter._registry.named_exemptions
    for part in unwrap(function):
        if view is None:
            view = getattr(part, VIEW_MARK, {}).get(limiter)
        exempt |= getattr(part, EXEMPT_MARK, {}).get(limiter, ExemptionScope.NONE)
        if named:
            exempt |= named.get(get_qualified_name(part), ExemptionScope.NONE)
        view_class = getattr(part, "view_class", None)
        if view_class is not None:
            exempt |= getattr(view_class, EXEMPT_MARK, {}).get(limiter, ExemptionScope.NONE)
    return view, exempt


def find_handlers(limiter: Declaring, function: Any, method: str | None) -> list[View]:
    """The limited methods of a class-based view that handle ``method``; None: all."""
    for part in unwrap(function):
        view_class = getattr(part, "view_class", None)
        if view_class is not None:
            names = ["dispatch_request"]
            if method is None:
                names += [name.lower() for name in view_class.methods or ()]
            elif method == "HEAD" and not hasattr(view_class, "head"):
                names.append("get")
            else:
                names.append(method.lower())
            found = []
            for name in names:
                handler = getattr(view_class, name, None)
                if handler is not None:
                    view, _ = find_view(limiter, handler)
                    if view is not None:
                        found.append(view)
            return found
    return []


def declared_limits(limiter: Declaring, app: Flask) -> Iterator[Limit]:
    """All limits of the blueprints and views of ``app``."""
    for limits in list(limiter._registry.blueprint_limits.values()):
        yield from limits
    for function in list(app.view_functions.values()):
        view, _ = find_view(limiter, function)
        for known in (view, *find_handlers(limiter, function, None)):
            yield from known.limits if known is not None else ()


class Blueprints:
    """The blueprints of a view, and their declarations for it."""

    def __init__(self, registry: Registry, app: Flask, dotted: str | None) -> None:
        #: Names as registered on the limiter, outermost first.
        self.names: list[str] = []
        parts = dotted.split(".") if dotted and dotted in app.blueprints else []
        for n in range(1, len(parts) + 1):
            blueprint = app.blueprints.get(".".join(parts[:n]))
            self.names.append(blueprint.name if blueprint else parts[n - 1])
        self.limits = registry.blueprint_limits
        flags = registry.blueprint_exemptions
        self.own = (
            flags.get(self.names[-1], ExemptionScope.NONE) if self.names else ExemptionScope.NONE
        )
        #: Those whose exemption includes nested blueprints.
        self.exempting = {
            name: flags[name]
            for name in self.names
            if flags.get(name, ExemptionScope.NONE) & ExemptionScope.DESCENDENTS
        }

    @property
    def exemption(self) -> ExemptionScope:
        exemption = self.own & ~ExemptionScope.ANCESTORS
        for flags in self.exempting.values():
            exemption |= flags
        return exemption

    def applying(self) -> list[Limit]:
        """The limits that the view inherits."""
        if not self.names:
            return []
        if self.own & (ExemptionScope.META | ExemptionScope.DESCENDENTS):
            return []
        own = self.limits.get(self.names[-1], [])
        alone = (own and all(limit.override_defaults for limit in own)) or (
            self.own & ExemptionScope.ANCESTORS
        )
        if alone:
            return own
        return [
            limit
            for name in dict.fromkeys(self.names)
            if name not in self.exempting
            for limit in self.limits.get(name, [])
        ]
