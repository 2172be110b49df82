"""Determines which limits apply to an endpoint, as documented by Flask-Limiter.

Before dispatch
    the limits of the application; and, unless the view has its own limits, those of its blueprints
    and the default limits.

When a limited function is called
    its own limits; those of the blueprints, unless its own override them; the default limits,
    unless one of these overrides them, or if none of them counts this HTTP method.

A limited function that is not a view (a function that a view calls, a method of a class-based view,
a ``with`` block) is checked when it is called, together with the default limits. For methods of
class-based views this holds from the start, otherwise from the second request on, when it is known
that the function is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from flask import Flask

from .check import Broken, Context, Dynamic, Entry, LoggedErrors, Node, make_node
from .constants import ExemptionScope
from .errors import ConfigurationError
from .limits import Limit, RuntimeLimit, View
from .registry import Blueprints, Declaring, find_handlers, find_view


class Declared(Context, Protocol):
    """The declarations for one application: its limits, and how they are counted."""

    app: Flask
    strategy: str

    @property
    def limiter(self) -> Declaring: ...

    @property
    def key_func(self) -> Callable[[], str]: ...

    @property
    def default_limits(self) -> Sequence[Limit]: ...

    @property
    def application_limits(self) -> Sequence[Limit]: ...

    @property
    def meta_limits(self) -> Sequence[Limit]: ...

    @property
    def fallback_limits(self) -> Sequence[Limit]: ...

    def label_static_limits(self) -> None: ...

    def report_routeless(self, view: View) -> None: ...

    def learn(self, plan: Any, view: View) -> None: ...


class UncalledError(Exception):
    """Raised when the text of a dynamic limit is needed to continue."""

    def __init__(self, group: Limit) -> None:
        self.group = group


class Resolver:
    """Determines the limits of one endpoint, given the texts of dynamic limits."""

    def __init__(
        self,
        state: Declared,
        endpoint: str,
        dotted: str | None,
        method: str | None,
        function: Any,
        learned: Sequence[View] = (),
    ) -> None:
        self.state = state
        self.endpoint = endpoint
        self.method = method
        self.texts: dict[int, str] = {}
        self.errors: list[str] = []
        #: The function whose check uses each counter.
        self.counted: dict[object, object] = {}
        self.meta_entries: dict[RuntimeLimit, Entry] = {}
        self.view, exempt = find_view(state.limiter, function)
        self.route_exempt = bool(exempt)
        #: Limited functions that are known to be called in requests for this endpoint.
        self.inner = list(
            dict.fromkeys([*find_handlers(state.limiter, function, method), *learned])
        )
        self.blueprints = Blueprints(state.limiter._registry, state.app, dotted)
        self.dotted = dotted
        self.exemption = exempt | self.blueprints.exemption

    # -- texts to limits

    def expand(self, group: Limit) -> list[RuntimeLimit]:
        """The limits of ``group``."""
        metas = tuple(item for meta in group.metas() for item in self.expand_meta(group, meta))
        return group.expand(self.text_of(group), self.state.key_func, metas, self.state.strategy)

    def expand_meta(self, group: Limit, meta: Limit) -> list[RuntimeLimit]:
        # A new object each time, because of its parent; so it is identified by its provider.
        return meta.expand(self.text_of(meta), self.state.key_func, (), self.state.strategy)

    def text_of(self, group: Limit) -> str | None:
        provider = group.limit_provider
        if not callable(provider):
            return provider
        try:
            return self.texts[id(provider)]
        except KeyError:
            self.state.label_static_limits()
            raise UncalledError(group) from None

    def expand_all(self, groups: Sequence[Limit]) -> list[RuntimeLimit]:
        return [limit for group in groups for limit in self.expand(group)]

    def expand_declared(self, groups: Sequence[Limit], what: str) -> list[RuntimeLimit]:
        """The limits of a function or blueprint. Invalid ones are reported and left out."""
        limits = []
        for group in groups:
            try:
                limits.extend(self.expand(group))
            except ValueError as error:
                if self.state.strict:
                    raise
                self.errors.append(f"failed to load ratelimit for {what}: {error}")
        return limits

    # -- selecting limits

    @property
    def leaves_defaults(self) -> bool:
        """Whether the defaults are checked with the view, or with a function that it calls."""
        return self.view is not None or bool(self.inner)

    def application(self) -> list[RuntimeLimit]:
        if self.exemption & ExemptionScope.APPLICATION:
            return []
        return self.expand_all(self.state.application_limits)

    def defaults(self) -> list[RuntimeLimit]:
        return self.expand_all(self.state.default_limits)

    def wants_defaults(self, limits: Sequence[RuntimeLimit]) -> bool:
        """Whether the default limits apply in addition to these limits."""
        if self.exemption & ExemptionScope.DEFAULT:
            return False
        return not any(limit.override_defaults for limit in limits) or not any(
            limit.counts(self.method) for limit in limits
        )

    def from_blueprints(self) -> list[RuntimeLimit]:
        name = self.blueprints.names[-1] if self.blueprints.names else ""
        return self.expand_declared(self.blueprints.applying(), f"blueprint {name}")

    def from_view(self, view: View) -> list[RuntimeLimit]:
        if view.exempt or (view is self.view and self.route_exempt):
            return []
        return self.expand_declared(view.limits, f"function {view.name}")

    def before_dispatch(self) -> tuple[list[RuntimeLimit], list[RuntimeLimit], list[RuntimeLimit]]:
        """The limits of the application, the defaults, and the route, before dispatch."""
        application = self.application()
        if not self.leaves_defaults:
            declared = self.from_blueprints()
            return application, self.defaults() if self.wants_defaults(declared) else [], declared
        inner = [limit for view in self.inner for limit in view.limits if not view.exempt]
        if (
            inner
            and not any(limit.override_defaults for limit in inner)
            and not self.exemption & ExemptionScope.DEFAULT
        ):
            return application, self.defaults(), []
        return application, [], []

    def at_call(self, view: View | None) -> tuple[list[RuntimeLimit], list[RuntimeLimit]]:
        """The defaults and limits of the route for a call of the limited function ``view``."""
        declared = self.from_view(view) if view is not None else []
        # If the function was not known before, the defaults were counted before dispatch.
        inherits = view is None or self.leaves_defaults
        if inherits and not any(limit.override_defaults for limit in declared):
            declared += self.from_blueprints()
        return self.defaults() if self.wants_defaults(declared) else [], declared

    def describe(self) -> Iterator[tuple[str, RuntimeLimit]]:
        """All limits of the route and their origins, for commands."""
        self.errors = []
        views = [view for view in (self.view, *self.inner) if view is not None]
        declared = [("route", limit) for view in views for limit in self.from_view(view)]
        if not any(limit.override_defaults for _, limit in declared):
            declared += [("blueprint", limit) for limit in self.from_blueprints()]
        if self.wants_defaults([limit for _, limit in declared]):
            yield from (("default", limit) for limit in dict.fromkeys(self.defaults()))
        yield from declared

    # -- limits to checks

    def check(
        self,
        counted: Sequence[RuntimeLimit],
        declared: Sequence[RuntimeLimit],
        defaults: bool = False,
        origin: object = None,
        peeked_before: frozenset[object] = frozenset(),
    ) -> Node:
        """The check of these limits, in the function ``origin``.

        peeked_before: the counters of meta limits that the request has already peeked at.
        """
        state = self.state
        limits = [*dict.fromkeys(counted), *declared]
        global_metas = self.entries_of(self.expand_all(state.meta_limits))
        metas: list[Entry] = []
        entries = []
        for limit in limits:
            own = self.entries_of(limit.meta_limits or ())
            metas += own
            if limit.counts(self.method):
                entry = Entry(limit, state.strategy, self.endpoint, self.method)
                entry.metas = tuple(own)
                entries.append(entry)
        self.find_twins(entries, {id(limit) for limit in declared}, origin)
        peeked = [*global_metas, *metas]
        if self.exemption & ExemptionScope.META:
            peeked = []
        return make_node(
            state,
            entries,
            [meta for meta in peeked if meta.counter not in peeked_before],
            global_metas,
            self.errors,
            defaults,
        )

    def entries_of(self, metas: Sequence[RuntimeLimit]) -> list[Entry]:
        """The meta limits, with one object per limit."""
        entries = []
        for meta in metas:
            if meta not in self.meta_entries:
                self.meta_entries[meta] = Entry(meta, self.state.strategy, self.endpoint, None)
            entries.append(self.meta_entries[meta])
        return entries

    def find_twins(self, entries: Sequence[Entry], declared: set[int], origin: object) -> None:
        """Find limits that would count a request twice in one counter.

        :raises ConfigurationError: ``ETWICE``, if the limiter is strict; otherwise it is logged.
        """
        here = set()
        for entry in entries:
            if entry.scope_of is not None:
                continue
            counter = entry.counter
            twin = counter in here
            if id(entry.limit) in declared:
                twin = twin or self.counted.setdefault(counter, origin) != origin
            if twin:
                message = (
                    f"two limits of {entry.bound} charge the same counter (scope {entry.scope!r}):"
                    f" each request to {self.endpoint!r} counts twice"
                )
                if self.state.strict:
                    raise ConfigurationError("ETWICE", message)
                self.state.limiter.logger.error("ETWICE: %s", message)
            here.add(counter)

    def grow(self, build: Callable[[], Node], texts: dict[int, str]) -> Node:
        """The check that ``build`` makes, or the function that has to be called first."""
        self.texts = texts
        self.errors = []
        try:
            return build()
        except UncalledError as need:
            provider: Any = need.group.limit_provider
            return Dynamic(provider, lambda text: self.grow(build, {**texts, id(provider): text}))
        except Exception as error:
            broken = Broken(error)
            return LoggedErrors(self.state, self.errors, broken) if self.errors else broken
