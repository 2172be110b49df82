"""Checks: limits that are decided together, prepared as far as possible.

A :class:`Check` is a prepared check of the core, made together with its plan. The limits of a
:class:`Dynamic` check depend on the result of a function, a :class:`Wide` check has more limits
than fit into one decision, and a :class:`Broken` one raises the error that prevented its check.
Each of these has a method ``next(request)``, which the hooks call until they have a check, or
``None`` if there is nothing to check.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from weir._core import (
    CHECKS_MAX,
    EACH,
    HIT,
    ROLE_CHARGED,
    ROLE_DEFERRED,
    ROLE_PEEKED,
    ROLE_SHADOW,
    PreparedCheck,
    RemoteAddress,
    WeirError,
    join_key,
)
from weir._core import Limit as RateLimit
from weir.strategies import takes

from .context import current_context
from .errors import ConfigurationError
from .limits import RuntimeLimit
from .util import get_remote_address

if TYPE_CHECKING:
    from .headers import HeaderWriter
    from .store import Store

#: Texts of one dynamic limit that are cached; then the cache is cleared.
TEXTS_MAX = 1024

#: Key functions that return the address of the client, which the core reads itself if possible.
_remote_address = RemoteAddress(current_context, get_remote_address)


class Context(Protocol):
    """The part of the limiter's state that a check uses."""

    store: Store
    headers: HeaderWriter
    fail_on_first_breach: bool
    shadow: bool
    strict: bool
    key_prefix: str
    delays: bool

    def count(self, what: str) -> None: ...

    def watch_responses(self) -> None: ...

    def log_error(self, message: str) -> None: ...


class Entry:
    """One limit of a check, with the values that a request needs."""

    __slots__ = (
        "amount_text", "bound", "cost", "cost_of", "deduct_when", "endpoint", "exempt_when",
        "key_func", "limit", "metas", "method", "reserve", "scope", "scope_of", "shadow", "text",
    )  # fmt: skip

    def __init__(
        self, limit: RuntimeLimit, strategy: str, endpoint: str, method: str | None
    ) -> None:
        self.limit = limit
        #: The meta limits of this limit only.
        self.metas: tuple[Entry, ...] = ()
        self.bound: RateLimit = limit.limit
        if self.bound.strategy is None:
            self.bound = self.bound.replace(strategy=strategy)
        self.key_func = limit.key_func
        self.endpoint = endpoint
        self.method = method
        #: The scope, or "" if scope_of has to be called.
        self.scope = ""
        self.scope_of: Callable[[], str] | None = None
        if callable(limit.scope):
            self.scope_of = self._call_scope
        else:
            self.scope = limit.join_scope(endpoint, limit.scope, method)
        self.cost_of = limit.cost if callable(limit.cost) else None
        self.cost = 1 if callable(limit.cost) else limit.cost
        self.exempt_when = limit.exempt_when
        self.deduct_when = limit.deduct_when
        self.reserve = limit.reserve
        self.shadow = limit.shadow
        self.amount_text = str(self.bound.burst or self.bound.amount)
        self.text = str(limit.limit)

    def _call_scope(self) -> str:
        return self.limit.scope_for(self.endpoint, self.method)

    @property
    def counter(self) -> object:
        """Identifies the counter: entries with equal values count a client in the same counter."""
        return self.bound, self.key_func, self.scope or self

    def part(self, role: int) -> tuple[Any, ...]:
        """The argument of :class:`weir._core.PreparedCheck` for this limit."""
        key_func = self.key_func
        return (
            self.bound,
            _remote_address if key_func is get_remote_address else key_func,
            "/" + join_key(self.scope),
            self.cost,
            role,
            self.exempt_when,
            self.scope_of,
            self.cost_of,
            self.deduct_when,
        )


def mask_of(entries: Sequence[Entry], chosen: Callable[[Entry], object]) -> int:
    """The mask in which bit i is set if entry i is selected."""
    return sum(1 << i for i, entry in enumerate(entries) if chosen(entry))


def bits(mask: int) -> Iterator[int]:
    """The indices of the bits that are set, from the lowest."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


class Check(PreparedCheck):
    """The limits of one check, shortest window first, then their meta limits.

    Index i is entry i, part i of the core's check, and bit i of every mask.
    """

    __slots__ = (
        "context", "entries", "global_metas", "main_count", "main_mask", "meta_mask",
        "replaceable", "shadow_mask",
    )  # fmt: skip

    context: Context
    #: The limits of the route, then the meta limits.
    entries: tuple[Entry, ...]
    #: Meta limits that count any refusal.
    global_metas: tuple[Entry, ...]
    #: The number of limits of the route.
    main_count: int
    #: Masks of these, of the meta limits, and of the limits of both kinds in shadow mode.
    main_mask: int
    meta_mask: int
    shadow_mask: int
    #: Whether other limits replace it during an outage of the store.
    replaceable: bool

    @classmethod
    def make(
        cls,
        context: Context,
        limits: Sequence[Entry],
        peeked: Iterable[Entry] = (),
        global_metas: Sequence[Entry] = (),
        *,
        defaults: bool = False,
    ) -> Check:
        """Prepare the check of ``limits``.

        peeked: the meta limits that can refuse the request. global_metas: those that count any
        refusal. defaults: whether the default limits are among the limits.
        """
        store = context.store
        prefix = join_key(context.key_prefix) + "/" if context.key_prefix else ""
        peeked = list(peeked)
        metas = distinct([*peeked, *global_metas, *(m for e in limits for m in e.metas)])
        entries = (*limits, *metas)
        main_count = len(limits)
        main_mask = (1 << main_count) - 1
        shadow = mask_of(entries, lambda entry: context.shadow or entry.shadow)
        peeked_counters = {meta.counter for meta in peeked}
        peeked_mask = mask_of(metas, lambda meta: meta.counter in peeked_counters) << main_count
        meta_mask = ((1 << len(entries)) - 1) & ~main_mask
        roles = [*(role_of(entry, context) for entry in limits), *[ROLE_PEEKED] * len(metas)]
        self = cls(
            store.stats_table,
            store.decider,
            [entry.part(role) for entry, role in zip(entries, roles, strict=True)],
            prefix,
            _Empty(context, entries),
            main_count,
            HIT if context.fail_on_first_breach else EACH,
            # Shadow denials are counted when the outcome of the request is known.
            0 if context.shadow else ~(shadow & meta_mask) & 0xFFFFFFFF,
            main_mask | peeked_mask,
            shadow,
            mask_of(entries, lambda entry: not entry.limit.shared),
            shadow & meta_mask,
        )
        self.context = context
        self.entries = entries
        self.global_metas = tuple(global_metas)
        self.main_count = main_count
        self.main_mask = main_mask
        self.meta_mask = meta_mask
        self.shadow_mask = shadow
        self.replaceable = False
        self.defaults = defaults
        self.headers = context.headers.templates(limits)
        self._announce()
        self._register(prefix)
        return self

    def _announce(self) -> None:
        """Register with the application what this check needs."""
        if self.responsive:
            self.context.watch_responses()
        limits = self.entries[: self.main_count]
        if any(takes(entry.bound.strategy or "", "max_delay") for entry in limits):
            self.context.delays = True

    def _register(self, prefix: str) -> None:
        """Register the limits in the statistics table, so that commands can list them."""
        for entry in self.entries:
            if entry.scope_of is None:
                # An error would occur again in the decision, which raises it.
                with contextlib.suppress(WeirError, UnicodeError):
                    self.context.store.stats_table.register(
                        entry.bound, prefix, "/" + join_key(entry.scope)
                    )

    def metas_of(self, denied: Iterable[int]) -> int:
        """The mask of the meta limits that count a refusal by these limits."""
        wanted = {meta.counter for meta in self.global_metas}
        for i in denied:
            wanted.update(meta.counter for meta in self.entries[i].metas)
        return self.meta_mask & mask_of(self.entries, lambda entry: entry.counter in wanted)


def distinct(metas: Sequence[Entry]) -> list[Entry]:
    """The entries without duplicates: a counter that two meta limits share is decided once."""
    by_counter: dict[object, Entry] = {}
    for meta in metas:
        by_counter.setdefault(meta.counter, meta)
    return list(by_counter.values())


def role_of(entry: Entry, context: Context) -> int:
    """The role of a limit of the route in its check."""
    if entry.shadow and not context.shadow:
        return ROLE_SHADOW
    return ROLE_DEFERRED if entry.deduct_when and not entry.reserve else ROLE_CHARGED


class _Empty:
    """Called for a limit whose key or scope is empty. The limit is skipped."""

    __slots__ = ("context", "entries")

    def __init__(self, context: Context, entries: Sequence[Entry]) -> None:
        self.context = context
        self.entries = entries

    def __call__(self, index: int, what: str) -> None:
        entry = self.entries[index]
        self.context.count("empty_key")
        message = f"the {what} of {entry.bound} at endpoint {entry.endpoint!r} is empty"
        if self.context.strict:
            raise ConfigurationError("EEMPTY", message)
        limit = entry.bound
        # The text is the one of Flask-Limiter.
        self.context.log_error(
            f"Skipping limit: {limit}. Empty value found in parameters. EEMPTY: {message}"
        )


#: A check, a step towards one, or ``None``.
Node: TypeAlias = "Check | Dynamic | Broken | LoggedErrors | Wide | Away | None"


class Dynamic:
    """A check that depends on the result of one function."""

    __slots__ = ("cache", "function", "make")

    def __init__(self, function: Callable[[], str], make: Callable[[str], Node]) -> None:
        self.function = function
        self.make = make
        self.cache: dict[str, Node] = {}

    def next(self, request: object) -> Node:
        """Call the function, and return the node for its result."""
        text = self.function()
        if text.__class__ is not str:
            text = "" if not text else str(text) if isinstance(text, str) else repr(text)
        try:
            return self.cache[text]
        except KeyError:
            if len(self.cache) >= TEXTS_MAX:
                self.cache.clear()
            node = self.cache[text] = self.make(text)
            return node


class Broken:
    """A check that cannot be made, for example because of an invalid default limit."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error

    def next(self, request: object) -> Node:
        """Raise the error that occurred when the plan was made."""
        raise self.error.with_traceback(None)


class LoggedErrors:
    """Logs the invalid limits of a check each time it is made."""

    __slots__ = ("context", "messages", "node")

    def __init__(self, context: Context, messages: Sequence[str], node: Node) -> None:
        self.context = context
        self.messages = messages
        self.node = node

    def next(self, request: object) -> Node:
        for message in self.messages:
            self.context.log_error(message)
        return self.node


class Wide:
    """More limits than fit into one decision: several checks, one after the other."""

    __slots__ = ("checks",)

    def __init__(self, checks: Sequence[Check]) -> None:
        self.checks = checks

    def next(self, request: Any) -> Any:
        request.evaluate_all(self.checks)
        return request


class Away:
    """A check that another one replaces during an outage of the store."""

    __slots__ = ("context", "instead", "usual")

    def __init__(self, context: Context, usual: Node, instead: Callable[[], Node]) -> None:
        self.context = context
        self.usual = usual
        self.instead = instead

    def next(self, request: object) -> Node:
        return self.instead() if self.context.store.is_replaced() else self.usual


def make_node(
    context: Context,
    limits: Sequence[Entry],
    peeked: Sequence[Entry],
    global_metas: Sequence[Entry],
    errors: Sequence[str],
    defaults: bool,
) -> Node:
    """The node that checks these limits."""
    limits = sorted(limits, key=lambda entry: entry.bound.get_expiry())
    node: Node = None
    if limits or peeked:
        metas = {meta.counter for meta in (*peeked, *global_metas)}
        metas |= {meta.counter for entry in limits for meta in entry.metas}
        room = CHECKS_MAX - len(metas)
        if room <= 0:
            raise ConfigurationError(
                "EVALUE", f"{len(metas)} meta limits in one check, of {CHECKS_MAX - 1} at most"
            )
        if len(limits) <= room:
            node = Check.make(context, limits, peeked, global_metas, defaults=defaults)
        else:
            groups = [limits[i : i + room] for i in range(0, len(limits), room)]
            node = Wide(
                [
                    Check.make(
                        context, group, peeked if i == 0 else (), global_metas, defaults=defaults
                    )
                    for i, group in enumerate(groups)
                ]
            )
    return LoggedErrors(context, errors, node) if errors else node
