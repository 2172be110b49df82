"""Gates: what Table.decide() would say, for a check that was made beforehand."""

from __future__ import annotations

import gc
import types
import weakref
from typing import Any

import pytest

from weir import EACH, HIT, TEST, Decision, Limit, Table, TableError, join_key, parse
from weir._core import Gate
from weir.flask._gate import StoreGate

MINUTE = parse("2 per minute")
HOUR = parse("3 per hour")
DAY = parse("9 per day")


def limits_of(*items: tuple[Limit, str, int, int]) -> list[tuple[int, Any]]:
    """What a StoreGate is made of."""
    return [
        (place, types.SimpleNamespace(bound=limit, suffix=tail, cost=cost))
        for limit, tail, cost, place in items
    ]


class Both:
    """A gate of either kind over a table of its own."""

    def __init__(self, kind: str, looked: Any, counted: Any, prefix: str = "") -> None:
        self.table = Table("memory://?keys=1000")
        self.gate: Gate | StoreGate
        if kind == "Gate":
            self.gate = Gate(self.table, looked, counted, prefix, "slot", None)
        else:
            state: Any = types.SimpleNamespace(
                decide=self.table.decide, board=self.table, looks="at once" in kind
            )
            self.gate = StoreGate(state, limits_of(*looked), limits_of(*counted), prefix)

    def left(self, limit: Limit, key: str) -> int:
        return self.table.decide([limit], key, None, TEST)[0].remaining


@pytest.fixture(params=["Gate", "StoreGate", "StoreGate, at once"])
def kind(request: Any) -> str:
    return str(request.param)


def test_it_counts_where_the_table_does(kind: str) -> None:
    both = Both(kind, [], [(MINUTE, "/view", 1, 0), (DAY, "/all", 2, 1)], "pre/")
    assert both.gate.ask("alice").allowed
    assert both.left(MINUTE, "pre/alice/view") == 1
    assert both.left(DAY, "pre/alice/all") == 7
    assert both.left(MINUTE, "alice/view") == 2


@pytest.mark.parametrize("who", ["a/b", "100%", "ä", "", "\udc80", "x" * 600, "a\0b"])
def test_any_client_has_the_key_that_join_key_makes(kind: str, who: str) -> None:
    both = Both(kind, [], [(MINUTE, "/view", 1, 0)])
    both.gate.ask(who)
    keys = {join_key(who) + "/view", "/view" if who == "" else ""} - {""}
    assert 1 in [both.left(MINUTE, key) for key in keys]


def test_namespaces_are_apart() -> None:
    table = Table("memory://?keys=1000", namespace=7)
    Gate(table, [], [(MINUTE, "/view", 1, 0)], "", "slot", None).ask("alice")
    assert table.decide([MINUTE], "alice/view", None, TEST)[0].remaining == 1


def test_verdicts_have_their_places(kind: str) -> None:
    both = Both(kind, [(HOUR, "/h", 1, 1)], [(DAY, "/d", 1, 2), (MINUTE, "/m", 1, 0)])
    decision = both.gate.ask("alice")
    assert [verdict.limit for verdict in decision] == [2, 3, 9]
    assert [verdict.remaining for verdict in decision] == [1, 3, 8]


def test_what_is_looked_at_is_not_charged_and_may_deny(kind: str) -> None:
    both = Both(kind, [(HOUR, "/h", 1, 0)], [(MINUTE, "/m", 1, 1)])
    both.table.decide([HOUR], "alice/h", [3], HIT)
    decision = both.gate.ask("alice")
    assert not decision.allowed
    assert decision.deciding == 0
    assert [verdict.allowed for verdict in decision] == [False, True]
    assert both.left(MINUTE, "alice/m") == 2


def test_what_is_charged_may_deny(kind: str) -> None:
    both = Both(kind, [(HOUR, "/h", 1, 0)], [(DAY, "/d", 1, 1), (MINUTE, "/m", 2, 2)])
    assert both.gate.ask("alice").allowed
    decision = both.gate.ask("alice")
    assert not decision.allowed
    assert decision.deciding == 2
    assert both.left(DAY, "alice/d") == 8


def test_charging_afterwards(kind: str) -> None:
    both = Both(kind, [(HOUR, "/h", 1, 1)], [(MINUTE, "/m", 1, 0)])
    decision = both.gate.ask("alice")
    if kind == "Gate":
        later: Any = Gate(both.table, [], [(HOUR, "/h", 1, 1), (MINUTE, "/m", 9, 0)], "", "", None)
        with pytest.raises(ValueError, match="another gate"):
            later.charge("alice", both.table.decide([MINUTE], "x"))
    else:
        state: Any = types.SimpleNamespace(
            decide=both.table.decide, board=both.table, looks="at once" in kind
        )
        counted = limits_of((HOUR, "/h", 1, 1), (MINUTE, "/m", 9, 0))
        later = StoreGate(state, [], counted, "")
    after = later.charge("alice", decision)
    # The second has no room: its verdict stays what it was.
    assert [verdict.remaining for verdict in after] == [1, 2]
    assert both.left(HOUR, "alice/h") == 2
    assert both.left(MINUTE, "alice/m") == 1


def test_each_is_the_mode_of_charging() -> None:
    modes = []

    def decide(*arguments: Any) -> Decision:
        modes.append(arguments[3])
        return Table().decide(*arguments)

    state: Any = types.SimpleNamespace(decide=decide, board=Table(), looks=True)
    gate = StoreGate(state, [], limits_of((MINUTE, "", 1, 0)), "")
    gate.charge("alice", gate.ask("alice"))
    assert modes == [HIT, EACH]


class Context:
    def __init__(self, address: Any) -> None:
        self.request = types.SimpleNamespace(remote_addr=address)
        self.slot: Any = None


@pytest.mark.parametrize(
    ("address", "who"), [("10.0.0.1", "10.0.0.1"), (None, "127.0.0.1"), ("", "127.0.0.1")]
)
def test_a_request_that_passes(address: Any, who: str) -> None:
    table = Table("memory://?keys=1000")
    gate = Gate(table, [], [(MINUTE, "/m", 1, 0)], "", "slot", "check")
    context = Context(address)
    assert gate.enter(context) is None
    assert context.slot[:3] == (None, "check", who)
    assert context.slot[3].allowed
    assert table.decide([MINUTE], f"{who}/m", None, TEST)[0].remaining == 1


@pytest.mark.parametrize("address", ["::1", "::ffff:10.0.0.1", "fe80::1%eth0", "ä", b"x", 7])
def test_a_client_that_is_left_to_others(address: Any) -> None:
    gate = Gate(Table("memory://?keys=1000"), [], [(MINUTE, "/m", 1, 0)], "", "slot", None)
    context = Context(address)
    assert gate.enter(context) == (None, None, None)
    assert context.slot is None


def test_a_request_that_is_denied() -> None:
    gate = Gate(Table("memory://?keys=1000"), [], [(MINUTE, "/m", 3, 0)], "", "slot", None)
    context = Context("10.0.0.1")
    who, decision, error = gate.enter(context) or (None, None, None)
    assert (who, error, context.slot) == ("10.0.0.1", None, None)
    assert decision is not None
    assert not decision.allowed


def test_an_error_is_handed_over() -> None:
    table = Table("memory://?keys=1000")
    gate = Gate(table, [], [(MINUTE, "/m", 1, 0)], "", "slot", None)
    table.close()
    who, decision, error = gate.enter(Context("10.0.0.1")) or (None, None, None)
    assert (who, decision) == ("10.0.0.1", None)
    assert isinstance(error, TableError)
    with pytest.raises(TableError):
        gate.ask("10.0.0.1")


@pytest.mark.parametrize(
    ("looked", "counted", "error"),
    [
        ([], [], ValueError),
        ([], [(MINUTE, "", 1, 0)] * 33, ValueError),
        ([], [(MINUTE, "", 1, 1)], ValueError),
        ([], [(MINUTE, "", 1, -1)], ValueError),
        ([], [(MINUTE, "", -1, 0)], ValueError),
        ([], [("2 per minute", "", 1, 0)], TypeError),
        ([], [(MINUTE, b"", 1, 0)], TypeError),
        ([], [[MINUTE, "", 1, 0]], TypeError),
        (None, [(MINUTE, "", 1, 0)], TypeError),
    ],
)
def test_what_a_gate_is_not_made_of(looked: Any, counted: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Gate(Table("memory://?keys=1000"), looked, counted, "", "slot", None)


def test_a_key_that_is_long_is_hashed() -> None:
    table = Table("memory://?keys=1000")
    gate = Gate(table, [], [(MINUTE, "/m", 1, 0)], "", "slot", None)
    gate.ask("x" * (17 << 20))
    remaining = gate.ask("x" * (17 << 20))[0].remaining
    key = join_key("x" * (17 << 20), "m")
    assert len(key) < 300
    assert table.decide([MINUTE], key, None, TEST)[0].remaining == remaining


def test_a_gate_and_its_check_are_collected() -> None:
    class Check:
        gate: Any = None

    check = Check()
    check.gate = Gate(Table("memory://?keys=1000"), [], [(MINUTE, "/m", 1, 0)], "", "slot", check)
    gone = weakref.ref(check)
    del check
    gc.collect()
    assert gone() is None


def test_headers_of_a_decision() -> None:
    decision = Table("memory://?keys=1000").decide([MINUTE], "alice")
    said = (("Limit", "2"), "Remaining", "Reset", "Retry")
    pairs = [("Content-Type", "text/html")]
    assert decision.tell(pairs, 0, said)
    assert pairs[1:3] == [("Limit", "2"), ("Remaining", "1")]
    assert [name for name, _ in pairs[3:]] == ["Reset", "Retry"]
    pairs = [("RETRY-after", "7")]
    assert not decision.tell(pairs, 0, said)
    assert len(pairs) == 1
    with pytest.raises(IndexError):
        decision.tell([], 1, said)
    with pytest.raises(TypeError):
        decision.tell([], 0, said[:3])  # type: ignore[arg-type]
