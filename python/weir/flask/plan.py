"""Plans: the checks of an endpoint, prepared once.

A :class:`Plan` belongs to one endpoint and HTTP method. It has a check for the moment before the
request is dispatched, and one for each limited function that is called in the request, which most
often is only the view. If the texts of limits come from functions, other limits may depend on these
texts: then the plan has the steps towards the check (:mod:`weir.flask.check`). Plans are kept until
a limit, an exemption or a filter is registered.
"""

from __future__ import annotations

from typing import Any

from weir._core import PlanBase

from .check import Away, Check, Node, bits
from .limits import View, iterate
from .resolve import Declared, Resolver
from .util import get_remote_address


class Plan(PlanBase):
    """The parts of one endpoint and method that do not change between requests.

    Members in the core: ``function``, the view function; ``filters``; the nodes ``bare`` (the check
    of a request that is exempt or filtered out: meta limits) and ``before``; ``view``, and the
    nodes ``at_call`` and ``at_call_counted`` for its call.
    """

    __slots__ = ("calls", "direct", "exempt", "fallback", "key", "resolver", "state")

    def __init__(self, state: Declared, key: object, function: Any, resolver: Resolver) -> None:
        self.state = state
        self.key = key
        self.function = function
        self.filters = state.limiter._request_filters
        self.resolver = resolver
        #: Whether refused requests are answered without raising; ``None``: not known yet.
        self.direct: bool | None = None
        #: Checks by the called function, and by whether the default limits have counted the
        #: request.
        self.calls: dict[tuple[View | None, bool], Node] = {}
        #: Static files, and requests without a route.
        self.exempt = not resolver.endpoint or resolver.endpoint.rpartition(".")[2] == "static"
        #: The limits that replace all others during an outage of the storage.
        self.fallback: Node = None
        if state.fallback_limits:
            self.fallback = resolver.grow(self._fallback, {})
        self.bare = self.replaceable(resolver.grow(lambda: resolver.check([], []), {}))
        #: The check before dispatch. Unless the view makes the other one, it is the only one.
        self.before: Node = self.bare
        if not self.exempt:
            before = resolver.grow(self._before, {})
            self.before = before if resolver.leaves_defaults else self.replaceable(before)
        view = resolver.view
        if view is not None and not self.exempt and not resolver.inner:
            self.view = view
            self.at_call = self.node_for(view, False)
            self.at_call_counted = self.node_for(view, True)

    def replaceable(self, node: Node) -> Node:
        """The node, or its replacement during an outage of the store."""
        if self.fallback is None or node is None:
            return node
        if isinstance(node, Check):
            node.replaceable = True
        return Away(self.state, node, lambda: self.fallback)

    def _before(self) -> Node:
        application, defaults, declared = self.resolver.before_dispatch()
        return self.resolver.check([*application, *defaults], declared, bool(defaults), self)

    def _peeked_before(self) -> frozenset[object]:
        """The counters of meta limits at which the check before dispatch peeks."""
        before = self.before
        if not isinstance(before, Check) or self.filters:
            return frozenset()
        peeked = bits(before.evaluated & before.meta_mask & ~before.observed)
        metas = [before.entries[i] for i in peeked]
        return frozenset(
            meta.counter
            for meta in metas
            if meta.key_func is get_remote_address and meta.exempt_when is None and meta.scope
        )

    def node_for(self, view: View | None, defaults_counted: bool) -> Node:
        """The check for a call of the limited function ``view``."""
        if self.exempt:
            if view is not None and not self.resolver.endpoint:
                self.state.report_routeless(view)
            bare: Node = self.bare
            return bare
        key = (view, bool(defaults_counted))
        if key in self.calls:
            return self.calls[key]
        resolver = self.resolver
        if view is not None and view is not resolver.view and view not in resolver.inner:
            self.state.learn(self, view)
        peeked_before = self._peeked_before() if view is resolver.view else frozenset()

        def build() -> Node:
            defaults, declared = resolver.at_call(view)
            counted = [] if defaults_counted else defaults
            origin = view.origin if view is not None else None
            return resolver.check(counted, declared, bool(defaults), origin, peeked_before)

        node: Node = self.replaceable(resolver.grow(build, {}))
        self.calls[key] = node
        return node

    def _fallback(self) -> Node:
        resolver = self.resolver
        state = self.state
        limits = [
            item for group in state.fallback_limits for item in iterate(group, state.key_func)
        ]
        return resolver.check(limits, [])
