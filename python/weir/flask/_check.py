"""A check, ready to be made: its limits, with everything in reach that a request needs of them.

A :class:`Check` is made with its plan. An :class:`Ask` stands for one that depends on what a
function returns, a :class:`Broken` for one that cannot be made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from weir._core import CHECKS_MAX, EACH, HIT, Decision, Table, WeirError, join_key
from weir._core import Limit as RateLimit

from ._gate import AnyGate, make_gate
from ._limits import RuntimeLimit, View
from .util import get_remote_address

if TYPE_CHECKING:
    from flask.ctx import RequestContext
    from flask.wrappers import Response

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

    def tell_board(self, prefix: str, board: Table, shadow: bool) -> None:
        """Tell the limit where in its keys the client is, and the board that there is such a limit.

        prefix: what is before the client in every key. shadow: nothing that limits say is enforced.
        """
        skip = len(prefix.encode("utf-8", "surrogateescape"))
        quiet = shadow or self.shadow
        if self.bound.skip != skip or self.bound.quiet != quiet:
            self.bound = self.bound.replace()  # others may have the same object, with other keys
            self.bound.skip = skip
            # What it would have denied is noted when that is known.
            self.bound.quiet = quiet
        if self.scope_of is None:
            with contextlib.suppress(WeirError, UnicodeError):  # deciding will tell, if need be
                board.describe(self.bound, prefix, self.suffix)

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


class Check:
    """The limits of one check, in the order in which they are told: smallest window first."""

    __slots__ = (
        "complaints",
        "defaults",
        "entries",
        "follow",
        "gate",
        "global_metas",
        "idle",
        "key_func",
        "later_gates",
        "looked_metas",
        "metas",
        "mode",
        "plan",
        "prefix",
        "said",
        "simple",
        "tell",
        "told",
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
        #: What headers say of it: the first of them, and the names of the others.
        headers = state.headers
        self.said = (
            (headers.limit, told.amount_text if told else ""),
            headers.remaining,
            headers.reset,
            headers.retry_after,
        )
        #: What is left to do when the response is there; None: more than the fast path does.
        self.tell: Tell | bool | None = None
        #: By what the gate of the limited function is opened that is called after this check, if
        #: that can go the fast way, too.
        self.follow: Armed | None = None
        #: None if there is nothing to ask, or before the check is armed.
        self.gate: AnyGate | None = None
        self.later_gates: dict[tuple[int, ...], AnyGate] = {}
        #: The meta limits that the gate looks at.
        self.looked_metas = self.metas
        #: Those that count once the response is known, by their index.
        self.watched = tuple(i for i, entry in enumerate(self.entries) if entry.deduct_when)
        if self.watched:
            state.watch_responses()

        everything = [*self.metas, *self.entries]
        for entry in everything:
            entry.tell_board(self.prefix, state.board, state.shadow)
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

    def arm(self, plan: Plan, before: Check | None = None) -> tuple[Enter, Resume]:
        """Make the gate of this check, and what opens it.

        before: a check that was made just before this one in any request that comes here.
        """
        from ._fast import close_gate, open_gate

        self.plan = plan
        asked_already = set()
        if before is not None and before.key_func is self.key_func is get_remote_address:
            # The same question about the same client, a moment ago.
            asked_already = {(meta.bound, meta.scope) for meta in before.metas}
        # One counter, one question: one that denies at 2 must not deny at 1 if it is asked twice.
        metas_by_counter = {(meta.bound, meta.scope): meta for meta in reversed(self.metas)}
        self.looked_metas = tuple(
            meta
            for counter, meta in reversed(metas_by_counter.items())
            if counter not in asked_already
        )
        metas = list(enumerate(self.looked_metas, len(self.entries)))
        watched = [(i, self.entries[i]) for i in self.watched]
        counted = [(i, entry) for i, entry in enumerate(self.entries) if not entry.deduct_when]
        if metas or self.entries:
            self.gate = make_gate(self, plan.state, [*metas, *watched], counted)
        self.tell = close_gate(self, plan)
        return open_gate(self, plan)

    def later(self, wanted: Sequence[int]) -> AnyGate:
        """The gate of these of the limits that count once the response is known."""
        gate = self.later_gates.get(tuple(wanted))
        if gate is None:
            gate = make_gate(self, self.plan.state, [], [(i, self.entries[i]) for i in wanted])
            self.later_gates[tuple(wanted)] = gate
        return gate

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


#: Who asked, the decision, and why there is none; None for what there is not.
Outcome: TypeAlias = "tuple[str | None, Decision | None, Exception | None]"

#: Makes a check: None if the request may go on.
Enter: TypeAlias = "Callable[[RequestContext], Outcome | None]"

#: Goes on, at length, where that did not return None.
Resume: TypeAlias = "Callable[[RequestContext, Outcome], None]"

#: What the request context holds before a check: the function that it belongs to, and what makes
#: it.
Armed: TypeAlias = "tuple[View, Enter, Resume]"

#: For one endpoint and method: its view, what the context holds at first, and what makes the check
#: before dispatch, None if there is none.
Ready: TypeAlias = "tuple[Any, Armed, Enter | None, Resume]"

#: Which limit to tell of, and what its headers are beside the numbers; what writes headers where
#: there is a Retry-After; and, of a limit that counts only then, when it does, and what counts it.
Tell: TypeAlias = (
    "tuple[int, Any, Callable[[Response, Decision], None],"
    " Callable[[Response], bool] | None, Callable[[str, Decision], Decision] | None]"
)

#: What it holds after one: None, the check, who asked, and the decision if anything was asked.
Seen: TypeAlias = "tuple[None, Check, str, Decision | None]"

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
