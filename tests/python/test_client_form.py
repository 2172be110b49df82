"""One client's address is one client to rules, heavy hitters, key functions and commands."""

from __future__ import annotations

import pytest

from clocks import stop_clock
from weir import Limit, Table
from weir._core import client_form

LIMIT = Limit(10, 1, "minute", strategy="fixed-window")

#: How proxies, sockets and people write one client, and what it is counted under.
FORMS = [
    ("10.0.0.1", "10.0.0.1"),
    ("10.0.0.1:443", "10.0.0.1"),
    ("::ffff:10.0.0.1", "10.0.0.1"),
    ("::FFFF:a00:1", "10.0.0.1"),
    ("64:ff9b::10.0.0.1", "10.0.0.1"),
    ("::ffff:0:10.0.0.1", "10.0.0.1"),
    ("[::ffff:10.0.0.1]:443", "10.0.0.1"),
    ("2001:DB8::1", "2001:db8::/64"),
    ("2001:db8:0:0:0:0:0:1", "2001:db8::/64"),
    ("[2001:db8::1]:443", "2001:db8::/64"),
    ("2001:db8::1%eth0", "2001:db8::/64"),
    ("fe80::1%eth0", "fe80::/64"),
    ("2001:db8::/64", "2001:db8::/64"),
    ("2001:db8::/32", "2001:db8::/32"),
]

#: What merely looks like an address.
OTHERS = ["", "x", "10.0.0.1:x", "10.0.0.1:123456", "10.0.0.256", "[]", "[]:1", "[2001:db8::1",
          "[2001:db8::1]x", "2001:db8::1:443:1:2:3:4:5:6", ":", "a:1", "10.0.0.1.", "\udc80",
          "2001:db8::1/64", "::/129", "x" * 300]  # fmt: skip


@pytest.mark.parametrize(("text", "form"), FORMS)
def test_the_counted_form_of_an_address(text: str, form: str) -> None:
    assert client_form(text) == form
    assert client_form(form) == form, "a form is its own form"


@pytest.mark.parametrize("text", OTHERS)
def test_what_is_no_address_stays_as_it_is(text: str) -> None:
    assert client_form(text) == text


@pytest.mark.parametrize(
    ("prefix", "form"), [(128, "2001:db8:1:2::3"), (56, "2001:db8:1::/56"), (0, "::/0")]
)
def test_the_length_of_the_network_is_an_argument(prefix: int, form: str) -> None:
    assert client_form("2001:db8:1:2::3", prefix) == form


@pytest.mark.parametrize(
    "arguments", [("::1", 129), ("::1", -1), (1,), (), ("a", "b"), ("a", True)]
)
def test_arguments_that_are_none(arguments: tuple[object, ...]) -> None:
    with pytest.raises((TypeError, ValueError)):
        client_form(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "form"), FORMS)
def test_a_rule_about_any_form_holds_for_the_counted_client(text: str, form: str) -> None:
    if text.startswith("[") or text == "10.0.0.1:443":
        text = client_form(text)  # rules are about addresses, not about connections
    with Table("memory://?keys=64") as table:
        table.ipv6_prefix = 64
        table.block(text)
        assert not table.decide([LIMIT], form.replace("/", "%2F")).allowed
        assert table.rule_of(form) is not None
        assert [rule.client for rule in table.rules()] == [form]
        assert table.unlist(text)
        assert table.decide([LIMIT], form.replace("/", "%2F")).allowed
        table.load_rules([(text, "block", None)])
        assert not table.decide([LIMIT], form.replace("/", "%2F")).allowed


def test_rules_of_a_table_without_an_application_are_about_single_addresses() -> None:
    with Table("memory://?keys=64") as table:
        assert table.ipv6_prefix is None
        table.block("2001:db8::1")
        assert [rule.client for rule in table.rules()] == ["2001:db8::1"]
        assert table.decide([LIMIT], "2001:db8::2").allowed


def test_the_latest_note_of_the_length_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = stop_clock(monkeypatch, 1_000_000.0)
    with Table("memory://?keys=64") as table:
        table.ipv6_prefix = 64
        clock.now += 1
        table.ipv6_prefix = 56
        assert table.ipv6_prefix == 56
        table.block("2001:db8:1:2::3")
        assert [rule.client for rule in table.rules()] == ["2001:db8:1::/56"]
        for wrong in (129, -1, "64", None):
            with pytest.raises((TypeError, ValueError)):
                table.ipv6_prefix = wrong  # type: ignore[assignment]


def test_heavy_hitters_list_a_client_under_one_name() -> None:
    with Table("memory://?keys=64") as table:
        for key in ("::ffff:10.0.0.1", "10.0.0.1", "64:ff9b::a00:1"):
            table.decide([LIMIT], key)
        for key in ("2001:DB8::1", "2001:db8:0::1", "2001:db8::1%25eth0"):
            table.decide([LIMIT], key)
        names = {top.client for top in table.top_clients("allowed")}
        assert names == {"10.0.0.1", "2001:db8::1"}
