"""Gates: checks made beforehand, of which only the client is still to be found out.

One over a local table is C (:class:`weir._core.Gate`); :class:`StoreGate` does the same over any
other storage. In a gate's decision the verdicts of the check's limits come first, in their order,
then those of the meta limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from weir._core import EACH, HIT, TEST, Decision, Gate, Look, Table, Verdict, join_key

if TYPE_CHECKING:
    from ._check import Check, Entry
    from ._state import AppState

#: A limit and the place of its verdict.
Placed: TypeAlias = "tuple[int, Entry]"


class Group:
    """Limits that are asked together, of one client: everything but the client itself."""

    __slots__ = ("bounds", "costs", "places", "suffixes")

    def __init__(self, limits: Sequence[Placed]) -> None:
        self.places = [place for place, _ in limits]
        self.bounds = [entry.bound for _, entry in limits]
        self.suffixes = [entry.suffix for _, entry in limits]
        self.costs = [entry.cost for _, entry in limits]

    def keys(self, text: str) -> list[str]:
        """Their keys; text: the prefix and the client."""
        return [text + suffix for suffix in self.suffixes]


class StoreGate:
    """A gate over a storage that is no local table."""

    def __init__(
        self, state: AppState, looked: Sequence[Placed], counted: Sequence[Placed], prefix: str
    ) -> None:
        self.decide = state.decide
        self.note = state.board.note
        self.looked = Group(looked)
        self.counted = Group(counted)
        #: All at once, in the order of their places, if the storage can.
        self.together: Group | None = None
        if looked and counted and state.looks:
            self.together = Group(sorted([*looked, *counted], key=lambda placed: placed[0]))
            for place, entry in looked:
                self.together.costs[place] = Look(entry.cost)
        self.prefix = prefix
        self.size = len(looked) + len(counted)

    def _decide(self, group: Group, text: str, mode: int) -> Decision:
        return self.decide(group.bounds, group.keys(text), group.costs, mode)

    def ask(self, who: str, /) -> Decision:
        """Look at the limits that are only looked at; charge the others if none denies."""
        text = self.prefix + join_key(who)
        if self.together is not None:
            return self._decide(self.together, text, HIT)
        verdicts: list[Verdict | None] = [None] * self.size
        deciding = -1
        allowed = True
        for group, mode in ((self.looked, TEST), (self.counted, HIT)):
            if not group.bounds:
                continue
            said = self._decide(group, text, mode if allowed else TEST)
            if not said.allowed and mode == TEST:
                # It refuses the request: it counts, which looks do not otherwise.
                self.note(group.bounds, group.keys(text), said)
            for place, verdict in zip(group.places, said, strict=True):
                verdicts[place] = verdict
            if allowed:
                deciding = group.places[said.deciding]
            allowed = allowed and said.allowed
        return Decision([v for v in verdicts if v is not None], deciding, said.now, said.rule)

    def charge(self, who: str, decision: Decision, /) -> Decision:
        """Charge each limit that has room; the decision with their new verdicts."""
        said = self._decide(self.counted, self.prefix + join_key(who), EACH)
        verdicts = list(decision)
        for place, verdict in zip(self.counted.places, said, strict=True):
            if verdict.allowed:
                verdicts[place] = verdict
        return Decision(verdicts, decision.deciding, said.now, said.rule)


AnyGate: TypeAlias = "Gate | StoreGate"


def make_gate(
    check: Check, state: AppState, looked: Sequence[Placed], counted: Sequence[Placed]
) -> AnyGate:
    """A gate of these limits."""
    storage = state.storage
    if isinstance(storage, Table) and state.decide == storage.decide == Table.decide.__get__(
        storage
    ):
        return Gate(
            storage,
            [(entry.bound, entry.suffix, entry.cost, place) for place, entry in looked],
            [(entry.bound, entry.suffix, entry.cost, place) for place, entry in counted],
            check.prefix,
            state.slot,
            check,
        )
    return StoreGate(state, looked, counted, check.prefix)
