"""A check, ready to be made: its limits, with everything in reach that a request needs of them.

A :class:`Check` is made with its plan. An :class:`Ask` stands for one that depends on what a
function returns, a :class:`Broken` for one that cannot be made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from weir._core import CHECKS_MAX, EACH, HIT, Decision, Verdict, join_key
from weir._core import Limit as RateLimit

from ._limits import RuntimeLimit, View

if TYPE_CHECKING:
    from flask.ctx import RequestContext

    from ._plan import Plan
    from ._state import AppState

#: How many texts of a dynamic limit are remembered before starting anew.
TEXTS_MAX = 1024


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
NOBODY = View("")


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
