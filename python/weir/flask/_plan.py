"""What applies to an endpoint, found out once.

A :class:`Plan` belongs to one endpoint and HTTP method. It holds a *check* for the moment before
the request is dispatched and one for each limited function that is called in it; most have exactly
one of these, their view. A check is a :class:`Check`, ready to be decided, or an :class:`Ask`: the
texts of some limits come from functions, and which other limits apply may depend on what they
return. So an Ask calls one such function and leads, by the text, to the next Ask or to the Check.
What was built is kept until a limit, an exemption or a filter is registered, so that a request
finds tuples and no questions.

Which limits apply is what Flask-Limiter documents:

- before dispatch: the limits of the application; and, unless the view has limits of its own, those
of its
  blueprints and the defaults;
- when a limited function is called: its limits; those of the blueprints, unless these override
them; the
  defaults, unless one of all these overrides them or if none counts this HTTP method.

A function that is limited but is no view (a helper, a method of a class-based view, a ``with``
block) has its check when it is called. Its endpoint then leaves the defaults to it: for the methods
of a class-based view from the start, otherwise from the second request on, when it is known that it
will be called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from flask import Flask

from weir._core import CHECKS_MAX, EACH, HIT, Decision, Verdict, join_key
from weir._core import Limit as RateLimit

from ._limits import EXEMPT_MARK, VIEW_MARK, Limit, RuntimeLimit, View, iterate
from .constants import ExemptionScope
from .errors import ConfigurationError

if TYPE_CHECKING:
    from flask.ctx import RequestContext

    from ._limiter import Limiter
    from ._state import AppState

#: How many texts of a dynamic limit, and how many endpoints, are remembered before starting anew.
TEXTS_MAX = 1024
PLANS_MAX = 8192


class Entry:
    """One limit of a check: what the request needs of it, in reach."""

    __slots__ = (
        "amount_text",
        "bound",
        "cost",
        "cost_of",
        "deduct_when",
        "endpoint",
        "exempt_when",
        "key_func",
        "limit",
        "metas",
        "method",
        "reserve",
        "scope",
        "scope_of",
        "shadow",
        "suffix",
    )

    def __init__(
        self, limit: RuntimeLimit, strategy: str, endpoint: str, method: str | None
    ) -> None:
        self.limit = limit
        #: The meta limits of this limit alone.
        self.metas: tuple[Entry, ...] = ()
        self.bound: RateLimit = limit.limit
        if self.bound.strategy is None:
            self.bound = self.bound.replace(strategy=strategy)
        self.key_func = limit.key_func
        self.endpoint = endpoint
        self.method = method
        #: The scope, or "" if scope_of has to be called.
        self.scope = ""
        self.scope_of = limit.scope if callable(limit.scope) else None
        if self.scope_of is None:
            self.scope = limit.join_scope(endpoint, limit.scope, method)  # type: ignore[arg-type]
        self.suffix = "/" + join_key(self.scope)
        self.cost_of = limit.cost if callable(limit.cost) else None
        self.cost = 1 if callable(limit.cost) else limit.cost
        self.exempt_when = limit.exempt_when
        self.deduct_when = limit.deduct_when
        self.reserve = limit.reserve
        self.shadow = limit.shadow
        self.amount_text = str(self.bound.burst or self.bound.amount)

    @property
    def is_static(self) -> bool:
        """Whether nothing but the key can differ from request to request."""
        return (
            self.scope_of is None
            and self.cost_of is None
            and self.exempt_when is None
            and not self.reserve
            and not self.shadow
        )


class Group:
    """Limits that are asked together, of one key: everything but the key itself."""

    __slots__ = ("bounds", "costs", "keys", "suffix")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.bounds = tuple(entry.bound for entry in entries)
        costs = tuple(entry.cost for entry in entries)
        self.costs = None if all(cost == 1 for cost in costs) else costs
        suffixes = [entry.suffix for entry in entries]
        #: What follows the key, if it is the same for all.
        self.suffix = suffixes[0] if len(set(suffixes)) == 1 else None
        #: Makes the keys of these limits of a text, the prefix and the key.
        self.keys = _key_maker(suffixes)


def _key_maker(suffixes: Sequence[str]) -> Callable[[str], str | Sequence[str]]:
    if len(set(suffixes)) == 1:
        one = suffixes[0]
        return lambda text: text + one
    if len(suffixes) == 2:
        first, second = suffixes
        return lambda text: (text + first, text + second)
    return lambda text: [text + suffix for suffix in suffixes]


class Check:
    """The limits of one check, in the order in which they are told: smallest window first."""

    __slots__ = (
        "complaints",
        "counted",
        "defaults",
        "entries",
        "global_metas",
        "idle",
        "key_func",
        "later",
        "looked",
        "metas",
        "mode",
        "plan",
        "prefix",
        "simple",
        "told",
        "told_pair",
        "told_there",
        "watched",
    )

    is_ask: Literal[False] = False
    #: Whose check it is; there once it is armed.
    plan: Plan
    mode: int

    def __init__(
        self,
        entries: Sequence[Entry],
        metas: Sequence[Entry],
        global_metas: Sequence[Entry],
        state: AppState,
        *,
        defaults: bool = False,
        complaints: Sequence[str] = (),
    ) -> None:
        self.entries = tuple(sorted(entries, key=lambda entry: entry.bound.get_expiry()))
        #: Meta limits that can refuse the request, and those that count any refusal.
        self.metas = tuple(metas)
        self.global_metas = tuple(global_metas)
        #: Whether the default limits are among them.
        self.defaults = defaults
        #: What to log whenever this check is made: limits that cannot be read.
        self.complaints = tuple(complaints)
        self.mode = HIT if state.fail_on_first_breach else EACH
        self.prefix = join_key(state.key_prefix) + "/" if state.key_prefix else ""
        #: Nothing to do at all.
        self.idle = not (self.entries or self.metas or self.complaints)
        #: Of these limits, if none denies: which to tell the client of.
        self.told = self.most_telling(self.entries)
        told = self.entries[self.told] if self.entries else None
        #: Its header.
        self.told_pair = (state.headers.limit, told.amount_text if told else "")
        #: Those that count once the response is known, by their index.
        self.watched = tuple(i for i, entry in enumerate(self.entries) if entry.deduct_when)

        watched = [self.entries[i] for i in self.watched]
        counted = [entry for entry in self.entries if not entry.deduct_when]
        everything = [*self.metas, *self.entries]
        self.key_func = everything[0].key_func if everything else state.key_func
        #: The fast path can make this check: the key is all there is to find out.
        self.simple = (
            self.mode == HIT
            and not self.complaints
            and not state.shadow
            and len(everything) <= CHECKS_MAX
            and all(entry.is_static and entry.key_func is self.key_func for entry in everything)
            and not any(entry.bound.strategy == "leaky-bucket" for entry in self.entries)
        )
        #: Those that count at once, and those that are only looked at; None if there are none.
        self.counted = Group(counted) if self.simple and counted else None
        looked = [*self.metas, *watched]
        self.looked = Group(looked) if self.simple and looked else None
        self.later = Group(watched) if self.simple and watched else None
        #: Where the limit to tell of is among its like.
        own = watched if self.told in self.watched else counted
        self.told_there = own.index(told) if told is not None else -1

    def arm(self, plan: Plan) -> Callable[[RequestContext], None]:
        """The function that makes this check on the fast path."""
        from ._fast import compile_check

        self.plan = plan
        return compile_check(self, plan)

    def verdicts(
        self,
        counted: Decision | None,
        looked: Decision | None,
        wanted: Sequence[int] = (),
        after: Decision | None = None,
    ) -> list[Verdict]:
        """What all limits said, in their order.

        counted, looked: decisions of the fast path. after: of the limits at ``wanted``, after the
        view.
        """
        at_once = iter(counted or ())
        watched = iter(looked[len(self.metas) :] if looked is not None else ())
        verdicts = [next(watched if entry.deduct_when else at_once) for entry in self.entries]
        for i, verdict in zip(wanted, after or (), strict=False):
            if verdict.allowed:
                verdicts[i] = verdict
        return verdicts

    def told_in(
        self,
        counted: Decision | None,
        looked: Decision | None,
        wanted: Sequence[int],
        after: Decision | None,
    ) -> tuple[Decision | None, int]:
        """Which of these decisions tells of the limit to tell of, and where in it."""
        if self.told not in self.watched:
            return counted, self.told_there
        if after is not None and self.told in wanted:
            index = wanted.index(self.told)
            if after[index].allowed:
                return after, index
        return looked, len(self.metas) + self.told_there

    def key_of(self, key: str, entry: Entry) -> str:
        """What the storage knows a static limit by."""
        return self.prefix + join_key(key) + entry.suffix

    @staticmethod
    def most_telling(entries: Sequence[Entry]) -> int:
        """Of limits that were kept: the first that is not shared, or else the first; or -1."""
        for i, entry in enumerate(entries):
            if not entry.limit.shared:
                return i
        return 0 if entries else -1


#: What the request context holds before a check: the view, and the function that makes its check.
Armed: TypeAlias = "tuple[View, Callable[[RequestContext], None]]"

#: See :attr:`AppState.ready`.
Ready: TypeAlias = "tuple[Any, Armed, Callable[[RequestContext], None] | None]"

#: What it holds after one: None, the check, the key, and the decisions about the limits that
#: counted and those that were looked at.
Seen: TypeAlias = "tuple[None, Check, str, Decision | None, Decision | None]"

#: Stands for the function when there is none.
_NOBODY = View("")


Node: TypeAlias = "Check | Ask | Broken"


class Ask:
    """A check that depends on what one function returns."""

    __slots__ = ("ask", "grow", "known")

    is_ask: Literal[True] = True

    def __init__(self, ask: Callable[[], str], grow: Callable[[str], Node]) -> None:
        self.ask = ask
        self.grow = grow
        self.known: dict[str, Node] = {}

    def next(self) -> Node:
        """Ask, and go on with the answer."""
        text = self.ask()
        if not text:
            text = ""
        elif text.__class__ is not str:
            text = repr(text) if not isinstance(text, str) else str(text)
        node = self.known.get(text)
        if node is None:
            if len(self.known) >= TEXTS_MAX:
                self.known.clear()
            node = self.known[text] = self.grow(text)
        return node


class Broken:
    """A check that cannot be made: a default limit that cannot be read, say."""

    __slots__ = ("error",)

    is_ask: Literal[True] = True

    def __init__(self, error: Exception) -> None:
        self.error = error

    def next(self) -> Node:
        """Raise what was raised when the plan was made."""
        raise self.error.with_traceback(None)


class UnaskedError(Exception):
    """The text of a dynamic limit is needed to go on."""

    def __init__(self, group: Limit) -> None:
        self.group = group


class Registry:
    """What was declared on one limiter, whichever application it is for."""

    def __init__(self) -> None:
        self.blueprint_limits: dict[str, list[Limit]] = {}
        self.blueprint_exemptions: dict[str, ExemptionScope] = {}
        self.named_exemptions: dict[str, ExemptionScope] = {}

    def limit_blueprint(self, name: str, limit: Limit) -> None:
        limits = self.blueprint_limits.setdefault(name, [])
        if limit not in limits:
            limits.append(limit)


def unwrap(function: Any) -> Iterator[Any]:
    """The function, what it wraps, what that wraps, …"""
    seen: set[int] = set()
    while function is not None and id(function) not in seen:
        seen.add(id(function))
        yield function
        function = getattr(function, "__wrapped__", None) or getattr(function, "func", None)


def find_view(limiter: Limiter, function: Any) -> tuple[View | None, ExemptionScope]:
    """What ``limiter`` knows of a view function: its limits, and from what it is exempt."""
    from .util import get_qualified_name

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


def find_handlers(limiter: Limiter, function: Any, method: str | None) -> list[View]:
    """The limited methods of a class-based view that handle ``method``, or any if it is None."""
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


class Blueprints:
    """The blueprints that a view is in, and what they say about it."""

    def __init__(self, registry: Registry, app: Flask, dotted: str | None) -> None:
        #: Names as registered on the limiter, from the outermost to the view's own.
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
        #: Those that exempt everything below them, too.
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


class Resolver:
    """Finds out which limits apply to one endpoint, given the texts of the dynamic ones."""

    def __init__(
        self,
        state: AppState,
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
        self.complaints: list[str] = []
        #: Which function's check counts into which counter.
        self.counted: dict[object, object] = {}
        self.meta_entries: dict[RuntimeLimit, Entry] = {}
        self.view, exempt = find_view(state.limiter, function)
        self.route_exempt = bool(exempt)
        #: Limited functions that are known to be called when this endpoint is.
        self.inner = list(
            dict.fromkeys([*find_handlers(state.limiter, function, method), *learned])
        )
        self.blueprints = Blueprints(state.limiter._registry, state.app, dotted)
        self.dotted = dotted
        self.exemption = exempt | self.blueprints.exemption

    # -- texts to limits

    def expand(self, group: Limit) -> list[RuntimeLimit]:
        """The limits that ``group`` stands for."""
        metas = tuple(item for meta in group.metas() for item in self.expand_meta(group, meta))
        return group.expand(self.text_of(group), self.state.key_func, metas)

    def expand_meta(self, group: Limit, meta: Limit) -> list[RuntimeLimit]:
        # Each time a new object (it knows its parent), so it is known by its provider.
        return meta.expand(self.text_of(meta), self.state.key_func)

    def text_of(self, group: Limit) -> str | None:
        provider = group.limit_provider
        if not callable(provider):
            return provider
        try:
            return self.texts[id(provider)]
        except KeyError:
            raise UnaskedError(group) from None

    def expand_all(self, groups: Sequence[Limit]) -> list[RuntimeLimit]:
        return [limit for group in groups for limit in self.expand(group)]

    def expand_declared(self, groups: Sequence[Limit], what: str) -> list[RuntimeLimit]:
        """The limits of a function or blueprint; what cannot be read is reported and left out."""
        limits = []
        for group in groups:
            try:
                limits.extend(self.expand(group))
            except ValueError as error:
                if self.state.strict:
                    raise
                self.complaints.append(f"failed to load the rate limit of {what}: {error}")
        return limits

    # -- which apply

    @property
    def leaves_defaults(self) -> bool:
        """Whether the view, or a function that it calls, sees to the defaults."""
        return self.view is not None or bool(self.inner)

    def application(self) -> list[RuntimeLimit]:
        if self.exemption & ExemptionScope.APPLICATION:
            return []
        return self.expand_all(self.state.application_limits)

    def defaults(self) -> list[RuntimeLimit]:
        return self.expand_all(self.state.default_limits)

    def wants_defaults(self, limits: Sequence[RuntimeLimit]) -> bool:
        """Whether the defaults apply besides these limits of the route and its blueprints."""
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
        """Limits of the application, defaults, and limits of the route, before dispatch."""
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
        """Defaults and limits of the route when the limited function ``view`` is called."""
        declared = self.from_view(view) if view is not None else []
        # Not again for a function that nobody knew of: then they counted before dispatch.
        inherits = view is None or self.leaves_defaults
        if inherits and not any(limit.override_defaults for limit in declared):
            declared += self.from_blueprints()
        return self.defaults() if self.wants_defaults(declared) else [], declared

    def describe(self) -> Iterator[tuple[str, RuntimeLimit]]:
        """All limits of the route, with where they come from; for people to read."""
        self.complaints = []
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
    ) -> Check:
        """The check of these limits, in the function ``origin``."""
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
        watched = [*global_metas, *metas]
        if self.exemption & ExemptionScope.META:
            watched = []
        return Check(
            entries,
            list(dict.fromkeys(watched)),
            global_metas,
            state,
            defaults=defaults,
            complaints=self.complaints,
        )

    def entries_of(self, metas: Sequence[RuntimeLimit]) -> list[Entry]:
        """Meta limits; the same object for the same limit."""
        entries = []
        for meta in metas:
            if meta not in self.meta_entries:
                self.meta_entries[meta] = Entry(meta, self.state.strategy, self.endpoint, None)
            entries.append(self.meta_entries[meta])
        return entries

    def find_twins(self, entries: Sequence[Entry], declared: set[int], origin: object) -> None:
        """Find limits that count a request twice into one counter.

        :raises ConfigurationError: ``ETWICE``, if the limiter is strict; otherwise it is logged.
        """
        here = set()
        for entry in entries:
            if entry.scope_of is not None:
                continue
            counter = (entry.bound, entry.key_func, entry.scope)
            twin = counter in here
            if id(entry.limit) in declared:
                twin = twin or self.counted.setdefault(counter, origin) is not origin
            if twin:
                message = (
                    f"two limits of {entry.bound} count each request to {self.endpoint!r} into one"
                    f" counter (scope {entry.scope!r}), so it counts twice"
                )
                if self.state.strict:
                    raise ConfigurationError("ETWICE", message)
                self.state.limiter.logger.error("ETWICE: %s", message)
            here.add(counter)

    def grow(self, build: Callable[[], Check], texts: dict[int, str]) -> Node:
        """The check that ``build`` makes, or what has to be asked for it first."""
        self.texts = texts
        self.complaints = []
        try:
            return build()
        except UnaskedError as need:
            provider: Any = need.group.limit_provider
            return Ask(provider, lambda text: self.grow(build, {**texts, id(provider): text}))
        except Exception as error:
            return Broken(error)


class Plan:
    """Everything about one endpoint and method that does not change from request to request."""

    __slots__ = (
        "bare",
        "before",
        "calls",
        "exempt",
        "fast_before",
        "fast_call",
        "function",
        "key",
        "resolver",
        "state",
    )

    def __init__(self, state: AppState, key: object, function: Any, resolver: Resolver) -> None:
        self.state = state
        self.key = key
        self.function = function
        self.resolver = resolver
        #: By the function called, and whether the defaults counted the request before.
        self.calls: dict[tuple[View | None, bool], Node] = {}
        #: Static files, and requests that lead nowhere.
        self.exempt = not resolver.endpoint or resolver.endpoint.rpartition(".")[2] == "static"
        #: What remains for a request that is exempt or filtered out: meta limits.
        self.bare: Node = resolver.grow(lambda: resolver.check([], []), {})
        #: The check before dispatch.
        self.before = self.bare if self.exempt else resolver.grow(self._before, {})

        #: For the fast path: what the request context holds at first, None if this is no way for
        #: it; and what makes the check before dispatch, None if there is none.
        self.fast_call: Armed | None = None
        self.fast_before: Callable[[RequestContext], None] | None = None
        self.find_fast_path()

    def find_fast_path(self) -> None:
        before = self.before
        state = self.state
        if before.is_ask or not before.simple or state.dead or state.limiter._request_filters:
            return
        view = self.resolver.view
        if before.watched and self.resolver.leaves_defaults:
            return  # two checks with counts that depend on the response
        run = before.arm(self)
        if not before.idle:
            self.fast_before = run
        self.fast_call = (_NOBODY, run)
        if view is not None and not self.exempt and not self.resolver.inner:
            check = self.call(view, False)
            if not check.is_ask and check.simple:
                self.fast_call = (view, check.arm(self))

    def follows(self, check: Check, view: View) -> bool:
        """Whether, after ``check`` before dispatch, that of ``view`` can go the fast way."""
        armed = self.fast_call
        return armed is not None and armed[0] is view and self.before is check

    def _before(self) -> Check:
        application, defaults, declared = self.resolver.before_dispatch()
        return self.resolver.check([*application, *defaults], declared, bool(defaults), self)

    def call(self, view: View | None, defaults_counted: bool) -> Node:
        """The check for calling the limited function ``view``."""
        resolver = self.resolver
        if view is not None and view is not resolver.view and view not in resolver.inner:
            self.state.learn(self, view)
        if self.exempt:
            return self.bare

        def build() -> Check:
            defaults, declared = resolver.at_call(view)
            counted = [] if defaults_counted else defaults
            return resolver.check(counted, declared, bool(defaults), view)

        node = self.calls[view, defaults_counted] = resolver.grow(build, {})
        return node

    def fallback(self) -> Check:
        """The limits that apply instead of all others while the storage is away."""
        resolver = self.resolver
        state = self.state
        limits = [
            item for group in state.fallback_limits for item in iterate(group, state.key_func)
        ]
        resolver.complaints = []
        return resolver.check(limits, [])
