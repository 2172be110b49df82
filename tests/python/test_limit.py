"""Limit: a value that behaves as the items of ``limits`` do."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import weakref

import limits as peer
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weir
from models import UNITS
from weir import Limit, ParseError, parse, parse_many
from weir.limits import GRANULARITIES, TIME_TYPES

MAX = 2**63 - 1


def make(amount: int, multiples: int, unit: str) -> Limit:
    return Limit(amount, multiples, unit)


LIMITS = st.builds(make, st.integers(0, 5), st.integers(1, 3), st.sampled_from(list(UNITS)))


def like_peer(limit: Limit) -> peer.RateLimitItem:
    return peer.parse(str(limit))


# ------------------------------------------------------------------------------------- printing


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("10 per minute", "10 per 1 minute"),
        ("60/hour", "60 per 1 hour"),
        ("1 per 2 days", "1 per 2 day"),
        ("250/7days", "250 per 7 day"),
        (f"{MAX}/second", f"{MAX} per 1 second"),
        ("10 per minute burst 20", "10 per 1 minute burst 20"),
    ],
)
def test_prints_as_limits_does_and_reads_back(text: str, printed: str) -> None:
    limit = parse(text)
    assert str(limit) == repr(limit) == printed
    assert parse(printed) == limit


def test_members() -> None:
    limit = Limit(10, 2, "Minutes", burst=20, namespace="shop")
    assert (limit.amount, limit.multiples, limit.unit) == (10, 2, "minute")
    assert (limit.burst, limit.strategy, limit.max_delay) == (20, "token-bucket", None)
    assert limit.namespace == "shop"
    assert limit.get_expiry() == 120
    assert tuple(limit.GRANULARITY) == (60, "minute")
    assert limit.GRANULARITY.name == "minute"


def test_defaults() -> None:
    limit = Limit(10)
    assert str(limit) == "10 per 1 minute"
    assert (limit.burst, limit.strategy, limit.max_delay) == (None, None, None)
    assert limit.namespace == "LIMITER"


def test_members_cannot_be_set() -> None:
    limit = Limit(10)
    with pytest.raises(AttributeError):
        limit.amount = 11  # type: ignore[misc]
    with pytest.raises(AttributeError):
        limit.other = 11  # type: ignore[attr-defined]


@pytest.mark.parametrize("unit", UNITS)
def test_units_last_as_long_as_in_limits(unit: str) -> None:
    assert Limit(1, 3, unit).get_expiry() == peer.parse(f"1 per 3 {unit}").get_expiry()
    assert Limit(1, 3, unit + "s") == Limit(1, 3, unit) == Limit(1, 3, unit.upper())


# ----------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((True,), TypeError),
        ((10.0,), TypeError),
        (("10",), TypeError),
        ((None,), TypeError),
        ((10, True), TypeError),
        ((10, 1.5), TypeError),
        ((10, 1, 60), TypeError),
        ((10, 1, None), TypeError),
        ((), TypeError),
        ((-1,), ValueError),
        ((MAX + 1,), ValueError),
        ((10**40,), ValueError),
        ((10, 0), ValueError),
        ((10, -1), ValueError),
        ((10, MAX, "second"), ValueError),
        ((10, 101, "year"), ValueError),
        ((10, 1, "fortnight"), ValueError),
        ((10, 1, ""), ValueError),
        ((10, 1, "s"), ValueError),
    ],
)
def test_refuses(arguments: tuple[object, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        Limit(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"burst": 0}, ValueError),
        ({"burst": -1}, ValueError),
        ({"burst": True}, TypeError),
        ({"burst": 2.0}, TypeError),
        ({"burst": 5, "strategy": "fixed-window"}, ValueError),
        ({"strategy": "fixed"}, ValueError),
        ({"strategy": 0}, TypeError),
        ({"max_delay": -0.1}, ValueError),
        ({"max_delay": float("nan")}, ValueError),
        ({"max_delay": float("inf")}, ValueError),
        ({"max_delay": 61}, ValueError),
        ({"max_delay": True}, TypeError),
        ({"max_delay": "1"}, TypeError),
        ({"max_delay": 1.0, "strategy": "moving-window"}, ValueError),
        ({"namespace": None}, TypeError),
        ({"namespace": b"x"}, TypeError),
        ({"nothing": 1}, TypeError),
    ],
)
def test_refuses_options(options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        Limit(10, **options)  # type: ignore[arg-type]
    with pytest.raises(error):
        Limit(10).replace(**options)  # type: ignore[arg-type]


def test_int_subclasses_are_ints() -> None:
    class Count(int):
        pass

    assert Limit(Count(10), Count(2)) == Limit(10, 2)


def test_bounds_are_inclusive() -> None:
    assert Limit(0).amount == 0
    assert Limit(MAX, burst=MAX).burst == MAX
    assert Limit(10, max_delay=60).max_delay == 60.0
    assert Limit(10, max_delay=0).max_delay == 0.0
    assert Limit(1, 100, "year").get_expiry() == 100 * 360 * 86400


def test_parse_refuses_what_is_no_string() -> None:
    for wrong in (None, 10, b"10/minute", ["10/minute"]):
        with pytest.raises(ParseError, match="must be str"):
            parse(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", "x", "10/minute\0", "10/minute\udc80", "10 per minuté", "1e3/day"]
)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(weir.ParseError) as refusal:
        parse(text)
    assert refusal.value.code == "ESYNTAX"
    assert refusal.value.column >= 1
    assert isinstance(refusal.value, ValueError)
    assert isinstance(refusal.value, weir.WeirError)


def test_parse_takes_one_limit_and_parse_many_at_most_32() -> None:
    with pytest.raises(weir.ParseError) as refusal:
        parse("10/minute; 100/hour")
    assert refusal.value.code == "ETOOMANY"
    assert len(parse_many(";".join(["1/day"] * 32))) == 32
    with pytest.raises(weir.ParseError) as refusal:
        parse_many(";".join(["1/day"] * 33))
    assert refusal.value.code == "ETOOMANY"


def test_parse_error_survives_pickling() -> None:
    with pytest.raises(weir.ParseError) as refusal:
        parse("10 per fortnight")
    again = pickle.loads(pickle.dumps(refusal.value))
    assert type(again) is weir.ParseError
    assert (again.code, again.column, str(again)) == ("ESYNTAX", 8, str(refusal.value))


# --------------------------------------------------------------------- equality, order and hash


@given(LIMITS, LIMITS)
def test_equality_and_order_extend_those_of_limits(a: Limit, b: Limit) -> None:
    assert (a == b) == (like_peer(a) == like_peer(b))
    if like_peer(a) < like_peer(b):
        assert a < b
    assert (a < b) + (a == b) + (a > b) == 1
    assert (a <= b) == (a < b or a == b)
    assert (a >= b) == (a > b or a == b)
    if a == b:
        assert hash(a) == hash(b)


@given(st.lists(LIMITS))
def test_sorting_agrees_with_limits_on_units(items: list[Limit]) -> None:
    assert [item.unit for item in sorted(items)] == [
        item.GRANULARITY.name for item in sorted(map(like_peer, items))
    ]


def test_every_member_counts_for_equality() -> None:
    variants = [
        Limit(10),
        Limit(11),
        Limit(10, 2),
        Limit(10, 1, "hour"),
        Limit(10, burst=10),
        Limit(10, burst=20),
        Limit(10, strategy="fixed-window"),
        Limit(10, strategy="token-bucket"),
        Limit(10, strategy="leaky-bucket"),
        Limit(10, max_delay=0.5),
        Limit(10, max_delay=0.25),
        Limit(10, namespace="other"),
        Limit(60, 60, "second"),
    ]
    assert len(set(variants)) == len(variants)
    assert sorted(sorted(variants, reverse=True)) == sorted(variants)


def test_compares_with_limits_only() -> None:
    strangers: list[object] = ["10 per 1 minute", 10, None, peer.parse("10/minute")]
    assert Limit(10) not in strangers
    with pytest.raises(TypeError):
        assert Limit(10) < 11  # type: ignore[operator]


# ---------------------------------------------------------------------------- copies and replace


@pytest.mark.parametrize(
    "limit",
    [
        Limit(10),
        Limit(MAX, 7, "day", namespace="é\udc80\n\0"),
        Limit(10, burst=20),
        Limit(10, max_delay=1.25),
        Limit(10, strategy="moving-window"),
    ],
    ids=str,
)
def test_copies_and_pickles(limit: Limit) -> None:
    assert copy.copy(limit) is limit
    assert copy.deepcopy([limit])[0] is limit
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(limit, protocol))
        assert type(again) is type(limit)
        assert again == limit
        assert hash(again) == hash(limit)
        assert again.max_delay == limit.max_delay


def test_replace_changes_what_is_named() -> None:
    limit = Limit(10, 2, "hour", burst=20, namespace="shop")
    assert limit.replace() == limit
    assert limit.replace(burst=30) == Limit(10, 2, "hour", burst=30, namespace="shop")
    assert limit.replace(namespace="x").namespace == "x"
    assert limit.replace(burst=None, strategy=None) == Limit(10, 2, "hour", namespace="shop")
    assert Limit(10).replace(strategy="moving-window").strategy == "moving-window"
    assert Limit(10, max_delay=1).replace(max_delay=None).max_delay is None
    with pytest.raises(ValueError, match="burst"):
        limit.replace(strategy="fixed-window")


def test_weak_references() -> None:
    limit = Limit(10)
    reference = weakref.ref(limit)
    assert reference() is limit
    del limit
    gc.collect()
    assert reference() is None


def test_immutable_type() -> None:
    with pytest.raises(TypeError):
        Limit.amount = 3  # type: ignore[assignment]


# ------------------------------------------------------------------------------ names of limits


@pytest.mark.parametrize("unit", UNITS)
def test_constructors_by_unit(unit: str) -> None:
    name = f"RateLimitItemPer{unit.title()}"
    ours, theirs = getattr(weir, name), getattr(peer, name)
    for arguments in ((10,), (10, 3), (10, None), (10, 3, "shop")):
        item = ours(*arguments)
        assert type(item) is ours
        assert (repr(item), item.namespace) == (
            repr(theirs(*arguments)),
            theirs(*arguments).namespace,
        )
        assert item.key_for("a", 1) == theirs(*arguments).key_for("a", 1)
        assert item.GRANULARITY == theirs(*arguments).GRANULARITY
    assert isinstance(parse(f"1/{unit}"), ours)
    assert not isinstance(parse("1/month" if unit == "day" else "1/day"), ours)
    assert isinstance(ours(1), weir.RateLimitItem)
    assert TIME_TYPES[unit] == ours.GRANULARITY
    assert GRANULARITIES[unit] is ours


def test_nothing_is_kept_alive() -> None:
    text = "".join(["name", "space", str(id(object()))])
    before = sys.getrefcount(text)
    items = [Limit(10, namespace=text).replace(burst=3) for _ in range(100)]
    assert sys.getrefcount(text) > before
    del items
    gc.collect()
    assert sys.getrefcount(text) == before
