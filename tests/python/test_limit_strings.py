"""Limit strings mean what they mean to the ``limits`` library."""

from __future__ import annotations

import limits
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import weir
from models import UNITS

BLANKS = st.text(alphabet=" \t\n\r\f\v\x1c\x1d\x1e\x1f", max_size=2)


@st.composite
def one_limit(draw: st.DrawFn) -> str:
    blanks = [draw(BLANKS) for _ in range(5)]
    count = draw(st.integers(0, 2**63 - 1))
    multiples = draw(st.one_of(st.just(""), st.integers(1, 100)))
    per = draw(st.sampled_from(["/", "per", "PER", "Per"]))
    unit = draw(st.sampled_from(list(UNITS))) + draw(st.sampled_from(["", "s"]))
    unit = draw(st.sampled_from([unit, unit.upper(), unit.title()]))
    return f"{blanks[0]}{count}{blanks[1]}{per}{blanks[2]}{multiples}{blanks[3]}{unit}{blanks[4]}"


@st.composite
def many_limits(draw: st.DrawFn) -> str:
    pieces = draw(st.lists(one_limit(), min_size=1, max_size=5))
    return draw(st.sampled_from(";,|")).join(pieces)


@given(many_limits())
@example("10 per minute")
@example("50/day, 250/7days")
@example("1per2hours")
@example("10 PER MINUTE")
@example("1/second:;2/minute")
def test_what_limits_reads_is_read_alike(text: str) -> None:
    theirs = [
        (item.amount, item.multiples, item.GRANULARITY.name) for item in limits.parse_many(text)
    ]
    ours = [(item.amount, item.multiples, item.unit) for item in weir.parse_many(text)]
    assert ours == theirs


@given(many_limits())
def test_items_print_and_expire_alike(text: str) -> None:
    theirs = [(str(item), item.get_expiry()) for item in limits.parse_many(text)]
    ours = [(str(item), item.get_expiry()) for item in weir.parse_many(text)]
    assert ours == theirs


WORDS = [
    "1",
    "07",
    " ",
    "/",
    "per",
    "minute",
    "Hours",
    ";",
    ",",
    "|",
    ":",
    "-",
    ".",
    "fortnight",
    "\n",
]


@given(st.lists(st.sampled_from(WORDS), max_size=9).map("".join))
def test_what_limits_refuses_is_refused(text: str) -> None:
    try:
        limits.parse_many(text)
    except ValueError:
        with pytest.raises(weir.ParseError):
            weir.parse_many(text)
    else:
        assert weir.parse_many(text)


def test_a_refusal_names_the_place() -> None:
    with pytest.raises(weir.ParseError) as refusal:
        weir.parse("10 per fortnight")
    assert str(refusal.value) == '"10 per fortnight": unknown unit "fortnight" at column 8'
    assert refusal.value.column == 8
