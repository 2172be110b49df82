"""Prepared checks: the same as Table.decide(), with the fixed parts precomputed."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from weir import EACH, HIT, REFUND, TEST, Decision, Limit, Table, TableError, join_key, parse
from weir._core import (
    ROLE_CHARGED,
    ROLE_DEFERRED,
    ROLE_PEEKED,
    ROLE_SHADOW,
    Evaluation,
    PreparedCheck,
)
from weir.storage import Storage

MINUTE = parse("2 per minute")
HOUR = parse("3 per hour")
DAY = parse("9 per day")
ALL = 0xFFFFFFFF
FUNCTIONS = ("exempt_when", "scope_of", "cost_of", "deduct_when")


class Plain(Storage):
    """A store with decide() only, over a table."""

    def __init__(self, table: Table, peeks: bool) -> None:
        super().__init__()
        self.table = table
        self.LOOKS = peeks
        self.modes: list[int] = []

    def decide(self, limits: Any, keys: Any, costs: Any = None, mode: int = HIT, /) -> Decision:
        self.modes.append(mode)
        return self.table.decide(limits, keys, costs, mode)

    def clear(self, limits: Any, keys: Any, /) -> None:
        self.table.clear(limits, keys)


def alice() -> str:
    return "alice"


def part(
    limit: Limit,
    after: str = "/view",
    cost: int = 1,
    role: int = ROLE_CHARGED,
    key_func: Callable[[], Any] = alice,
    **functions: Any,
) -> tuple[Any, ...]:
    others = (functions.get(name) for name in FUNCTIONS)
    return (limit, key_func, after, cost, role, *others)


class Kind:
    """Checks that are decided by a table, or by a store of another kind over one."""

    def __init__(self, name: str) -> None:
        self.table = Table("memory://?keys=1000")
        self.store = None if name == "table" else Plain(self.table, "peeks" in name)

    def check(self, *parts: Any, **options: Any) -> PreparedCheck:
        count = len(parts)
        masks = {"labels": ALL, "evaluated": ALL, "lenient": 0, "unshared": ALL, "observed": 0,
                 **options.pop("masks", {})}  # fmt: skip
        return PreparedCheck(
            options.get("table", self.table),
            self.store,
            parts,
            options.get("prefix", ""),
            options.get("on_empty", lambda index, what: None),
            options.get("main", count),
            options.get("mode", HIT),
            *masks.values(),
        )

    def left(self, limit: Limit, key: str) -> int:
        return self.table.decide([limit], key, None, TEST)[0].remaining


@pytest.fixture(params=["table", "store", "store that peeks"])
def kind(request: Any) -> Kind:
    return Kind(request.param)


def verdicts(evaluation: Evaluation) -> list[bool]:
    return [
        evaluation.verdict(i).allowed
        for i in range(evaluation.parts.bit_length())
        if evaluation.parts >> i & 1
    ]


def test_it_counts_where_the_table_does(kind: Kind) -> None:
    check = kind.check(part(MINUTE, "/view"), part(DAY, "/all", 2), prefix="pre/")
    assert check.evaluate().denied == 0
    assert kind.left(MINUTE, "pre/alice/view") == 1
    assert kind.left(DAY, "pre/alice/all") == 7
    assert kind.left(MINUTE, "alice/view") == 2


@pytest.mark.parametrize("who", ["a/b", "100%", "ä", "\udc80", "x" * 600, "a\0b"])
def test_any_client_has_the_key_that_join_key_makes(kind: Kind, who: str) -> None:
    kind.check(part(MINUTE, key_func=lambda: who)).evaluate()
    assert kind.left(MINUTE, join_key(who) + "/view") == 1


@pytest.mark.parametrize("who", ["", None, 0, b""])
def test_a_limit_without_a_client_is_skipped(kind: Kind, who: Any) -> None:
    reported: list[tuple[int, str]] = []
    check = kind.check(
        part(MINUTE, key_func=lambda: who),
        part(HOUR),
        part(DAY, scope_of=lambda: ""),
        on_empty=lambda *what: reported.append(what),
    )
    evaluation = check.evaluate()
    assert evaluation.parts == 0b010
    assert reported == [(0, "key"), (2, "scope")]


def test_namespaces_of_tables_are_apart() -> None:
    kind = Kind("table")
    kind.table = Table("memory://?keys=1000", namespace=7)
    kind.check(part(MINUTE)).evaluate()
    assert kind.left(MINUTE, "alice/view") == 1


def test_verdicts_have_the_index_of_their_limit_whichever_take_part(kind: Kind) -> None:
    calls: list[str] = []

    def exempt() -> bool:
        calls.append("exempt")
        return True

    check = kind.check(
        part(DAY, "/d"),
        part(MINUTE, "/m", exempt_when=exempt),
        part(HOUR, "/h", cost_of=lambda: 4),
        part(parse("7 per second"), "/s", role=ROLE_PEEKED, exempt_when=lambda: False),
    )
    evaluation = check.evaluate()
    assert evaluation.parts == 0b1101
    assert evaluation.denied == 0b0100
    assert evaluation.reported == 2
    assert [evaluation.verdict(i).limit for i in (0, 2, 3)] == [9, 3, 7]
    assert kind.left(DAY, "alice/d") == 9
    assert calls == ["exempt"]


@pytest.mark.parametrize("mode", [HIT, EACH])
@pytest.mark.parametrize("role", [ROLE_PEEKED, ROLE_DEFERRED])
def test_a_peeked_limit_is_not_charged_and_may_deny(kind: Kind, role: int, mode: int) -> None:
    check = kind.check(part(HOUR, "/h", role=role), part(MINUTE, "/m"), mode=mode)
    assert check.evaluate().denied == 0
    assert (kind.left(HOUR, "alice/h"), kind.left(MINUTE, "alice/m")) == (3, 1)
    kind.table.decide([HOUR], "alice/h", [3], HIT)
    evaluation = check.evaluate()
    assert evaluation.denied == 0b01
    assert verdicts(evaluation) == [False, True]
    # Only a deferred limit lets the others be charged, and only if each counts for itself.
    charged = mode == EACH and role == ROLE_DEFERRED
    assert kind.left(MINUTE, "alice/m") == (0 if charged else 1)


@pytest.mark.parametrize("denied", [False, True])
def test_a_shadow_limit_is_charged_when_the_request_passes(kind: Kind, denied: bool) -> None:
    check = kind.check(
        part(HOUR, "/h", role=ROLE_SHADOW), part(MINUTE, "/m"), masks={"lenient": 0b01}
    )
    if denied:
        kind.table.decide([MINUTE], "alice/m", [2], HIT)
    evaluation = check.evaluate()
    assert evaluation.denied == (0b10 if denied else 0)
    assert evaluation.reported == 1
    assert kind.left(HOUR, "alice/h") == (3 if denied else 2)


def test_a_shadow_limit_that_denies_holds_nothing_back(kind: Kind) -> None:
    check = kind.check(
        part(HOUR, "/h", role=ROLE_SHADOW), part(MINUTE, "/m"), masks={"lenient": 0b01}
    )
    kind.table.decide([HOUR], "alice/h", [3], HIT)
    assert check.evaluate().denied == 0b01
    assert kind.left(MINUTE, "alice/m") == 1


def test_settling_charges_what_has_room(kind: Kind) -> None:
    check = kind.check(
        part(HOUR, "/h", role=ROLE_DEFERRED), part(MINUTE, "/m", 9, role=ROLE_DEFERRED)
    )
    evaluation = check.gather()
    evaluation.settle(EACH, 0b11)
    assert kind.left(HOUR, "alice/h") == 2
    assert kind.left(MINUTE, "alice/m") == 2
    assert evaluation.verdict(0).remaining == 2
    evaluation.settle(REFUND, 0b01)
    assert kind.left(HOUR, "alice/h") == 3


def test_settling_at_a_cost_of_one(kind: Kind) -> None:
    evaluation = kind.check(part(HOUR, "/h", 3, role=ROLE_PEEKED)).evaluate()
    evaluation.settle(EACH, 0b1, True)
    assert kind.left(HOUR, "alice/h") == 2


@pytest.mark.parametrize("cost", [-1, -(2**63), 2**63, 2**64, 10**30])
def test_a_cost_that_no_limit_has_room_for_is_denied(kind: Kind, cost: int) -> None:
    evaluation = kind.check(part(MINUTE, cost_of=lambda: cost)).evaluate()
    assert evaluation.denied == 1
    assert kind.left(MINUTE, "alice/view") == 2


@pytest.mark.parametrize("cost", [None, "1", 1.5])
def test_a_cost_of_another_type_is_an_error(kind: Kind, cost: Any) -> None:
    with pytest.raises(TypeError, match="cost"):
        kind.check(part(MINUTE, cost_of=lambda: cost)).evaluate()


def test_a_key_function_is_called_once_for_all_its_limits(kind: Kind) -> None:
    calls: list[int] = []

    def who() -> str:
        calls.append(1)
        return f"client {len(calls)}"

    kind.check(part(MINUTE, "/m", key_func=who), part(HOUR, "/h", key_func=who)).evaluate()
    assert calls == [1]


def test_a_refused_request_never_passes(kind: Kind) -> None:
    evaluation = kind.check(part(MINUTE), part(HOUR, "/h", role=ROLE_PEEKED), main=1).gather()
    evaluation.refuse()
    assert evaluation.denied == 0b01
    assert evaluation.verdict(0).retry_after == float("inf")


def test_functions_may_do_anything(kind: Kind) -> None:
    """Closing the table, releasing the check, raising: no crash."""

    def close() -> str:
        kind.table.close()
        return "alice"

    def fail() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        kind.check(part(MINUTE, key_func=fail)).evaluate()
    with pytest.raises(TableError):
        kind.check(part(MINUTE, key_func=close)).evaluate()


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ([], ValueError),
        ([part(MINUTE)] * 33, ValueError),
        ([part(MINUTE, cost=-1)], ValueError),
        ([part("2 per minute")], TypeError),  # type: ignore[arg-type]
        ([part(MINUTE, b"")], TypeError),  # type: ignore[arg-type]
        ([list(part(MINUTE))], TypeError),
        ([part(MINUTE, role=9)], ValueError),
    ],
)
def test_what_a_check_is_not_made_of(parts: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Kind("table").check(*parts)


def test_a_check_and_its_functions_are_collected() -> None:
    class Holder:
        check: Any = None

        def who(self) -> str:
            return "alice"

    holder = Holder()
    holder.check = Kind("table").check(part(MINUTE, key_func=holder.who))
    holder.check.evaluate()
    gone = weakref.ref(holder)
    del holder
    gc.collect()
    assert gone() is None


def test_headers_of_an_evaluation() -> None:
    evaluation = Kind("table").check(part(MINUTE)).evaluate()
    names = (("Limit", "2"), "Remaining", "Reset", "Retry")
    pairs = [("Content-Type", "text/html")]
    assert evaluation.write_headers(pairs, names)
    assert [name for name, _ in pairs[1:]] == ["Limit", "Remaining", "Reset", "Retry"]
    assert (pairs[1], pairs[2]) == (("Limit", "2"), ("Remaining", "1"))
    pairs.append(("retry-after", "7"))
    assert not evaluation.write_headers(pairs, names)
