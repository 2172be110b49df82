"""Rules about clients: Table.block(), allow() and their like."""

from __future__ import annotations

import ipaddress
import math
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from weir import (
    EACH,
    HIT,
    REFUND,
    TEST,
    Limit,
    ParseError,
    RateLimiter,
    Rule,
    Table,
    TableError,
    unlink,
)
from weir import join_key as key

NOW = 1_700_000_000.0
LIMIT = Limit(10)


@pytest.fixture
def table() -> Iterator[Table]:
    with Table("memory://?keys=1000") as table:
        yield table
        if not table.closed:
            table.verify()


def kind_of(table: Table, client: Any, now: float = NOW) -> str:
    """The rule that decides about this client."""
    return table.decide([LIMIT], key(client, "view"), None, HIT, now).rule


# -- what a rule is about


@pytest.mark.parametrize(
    ("rule", "clients", "others"),
    [
        (
            "10.0.0.0/8",
            ["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"],
            ["11.0.0.0", "9.255.255.255"],
        ),
        ("10.1.2.3", ["10.1.2.3", "::FFFF:10.1.2.3", "::ffff:a01:203"], ["10.1.2.4", "10.1.2.03"]),
        ("::ffff:10.0.0.0/104", ["10.1.2.3"], ["11.0.0.0"]),
        ("2001:DB8::/32", ["2001:db8::1", "2001:db8:ffff::"], ["2001:db9::", "10.1.2.3"]),
        ("::/0", ["::1", "2001:db8::1"], ["10.1.2.3", "::ffff:10.1.2.3"]),
        ("0.0.0.0/0", ["10.1.2.3", "255.255.255.255"], ["::1", "alice"]),
        ("fe80::/10", ["fe80::1%eth0", "fe80::1"], ["fec0::"]),
        ("alice", ["alice"], ["Alice", "alice ", "10.1.2.3"]),
        ("user/7", ["user/7"], ["user", "user%2F7"]),
        ("50%", ["50%"], ["50", "50%25"]),
        ("\u00fcmit", ["\u00fcmit", "\u00fcmit".encode()], ["umit"]),
        (42, [42, "42", b"42"], [43]),
        (b"\xff\x00", [b"\xff\x00"], [b"\xff"]),
        ("a\udc80", ["a\udc80"], ["a"]),
        ("10.1.2.3:80", ["10.1.2.3:80"], ["10.1.2.3"]),
    ],
)
def test_whom_a_rule_is_about(
    table: Table, rule: Any, clients: list[Any], others: list[Any]
) -> None:
    table.block(rule)
    assert [kind_of(table, client) for client in clients] == ["block"] * len(clients)
    assert [kind_of(table, client) for client in others] == [""] * len(others)
    assert all(table.rule_of(client) == table.rules()[0] for client in clients)
    assert table.unlist(rule)
    assert not table.unlist(rule)
    assert [kind_of(table, client) for client in clients] == [""] * len(clients)


@pytest.mark.parametrize(
    ("given", "listed"),
    [
        ("10.1.2.3/32", "10.1.2.3"),
        ("2001:DB8:0:0::/64", "2001:db8::/64"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("user/7 50% \u00fc", "user/7 50% \u00fc"),
        (7, "7"),
        ("a\udc80", "a\udc80"),
        ("#0123456789abcdef", "#0123456789abcdef"),
    ],
)
def test_a_rule_is_listed_in_a_form_that_sets_it_again(
    table: Table, given: Any, listed: str
) -> None:
    table.block(given)
    assert [rule.client for rule in table.rules()] == [listed]
    table.allow(listed)
    assert [(rule.client, rule.kind) for rule in table.rules()] == [(listed, "allow")]


def test_a_client_by_the_name_that_lists_show(table: Table) -> None:
    name = table.name_of("alice")
    assert name.startswith("#")
    table.block(name)
    assert kind_of(table, "alice") == "block"
    assert kind_of(table, name) == ""  # a client with that name
    assert table.rule_of(name) == table.rule_of("alice")


@pytest.mark.parametrize(
    ("client", "why"),
    [
        ("10.1.2.3/8", "the range is 10.0.0.0/8"),
        ("2001:db8::1/32", "the range is 2001:db8::/32"),
        ("10.0.0.0/33", "from 0 to 32"),
        ("::/129", "from 0 to 128"),
        ("10.0.0/8", "not an IPv4 or IPv6 address"),
        ("10.0.0.0/255.0.0.0", "number of bits"),
        ("10.0.0.256", "0 to 255"),
        ("", "1 to 256 bytes"),
        ("/" * 86, "1 to 256 bytes"),
    ],
)
def test_clients_that_cannot_be(table: Table, client: str, why: str) -> None:
    for call in (table.block, table.allow, table.unlist, table.rule_of):
        with pytest.raises(ValueError, match=why):
            call(client)
    assert table.rules_version == 0


def test_a_long_client_has_the_rule_of_its_hash(table: Table) -> None:
    table.block("x" * 257)
    assert not table.decide([Limit(9)], key("x" * 257)).allowed
    assert table.decide([Limit(9)], key("x" * 258)).allowed


def test_arguments_that_cannot_be(table: Table) -> None:
    with pytest.raises(TypeError):
        table.block(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        table.block("a", "tomorrow")  # type: ignore[arg-type]
    with pytest.raises(ParseError, match="not a duration"):
        table.block("a", 3600)
    with pytest.raises(ValueError, match="until"):
        table.block("a", math.nan)
    with pytest.raises(ValueError, match="until"):
        table.block("a", -1)
    table.close()
    for call in (table.rules, lambda: table.block("a"), lambda: table.rules_version):
        with pytest.raises(TableError, match="closed"):
            call()


# -- what holds


def test_the_narrowest_rule_that_has_not_ended(table: Table) -> None:
    table.block("10.0.0.0/8", now=NOW)
    table.allow("10.1.0.0/16", NOW + 20, NOW)
    table.block("10.1.2.3", NOW + 10, NOW)
    assert [kind_of(table, "10.1.2.3", NOW + s) for s in (0, 9.99, 10, 19.99, 20, 1e6)] == [
        "block", "block", "allow", "allow", "block", "block",
    ]  # fmt: skip
    assert table.rule_of("10.1.2.3", NOW + 10) == Rule("10.1.0.0/16", "allow", NOW, NOW + 20)
    assert len(table.rules(NOW)) == 3
    assert [rule.client for rule in table.rules(NOW + 15)] == ["10.0.0.0/8", "10.1.0.0/16"]


def test_the_verdicts_of_a_block(table: Table) -> None:
    limits = [Limit(10), Limit(5, burst=7), Limit(3, unit="hour", strategy="moving-window")]
    table.block("eve", NOW + 12.5, NOW)
    for mode in (HIT, TEST, EACH):
        decision = table.decide(limits, "eve/view", None, mode, NOW)
        assert (decision.allowed, decision.rule) == (False, "block")
        assert [v.limit for v in decision] == [10, 7, 3]
        assert {(v.allowed, v.remaining, v.retry_after, v.reset_at, v.delay) for v in decision} == {
            (False, 0, 12.5, NOW + 12.5, 0.0)
        }
    assert table.decide(limits, "eve/view", None, REFUND, NOW).rule == ""


def test_a_block_for_good(table: Table) -> None:
    table.block("eve")
    table.block("mallory", math.inf)
    verdict = table.decide([LIMIT], "eve", None, HIT, NOW).verdict
    assert verdict.retry_after == math.inf
    assert verdict.reset_at == NOW + 60
    assert [rule.until for rule in table.rules()] == [None, None]


def test_one_let_through_uses_nothing(table: Table) -> None:
    limit = Limit(1)
    table.allow("alice", NOW + 5, NOW)
    for _ in range(3):
        decision = table.decide([limit], "alice", [100], HIT, NOW)
        assert (decision.allowed, decision.rule) == (True, "allow")
        assert decision.verdict == (True, 1, 1, NOW, 0.0, 0.0)
    assert table.decide([limit], "alice", None, HIT, NOW + 5).verdict.remaining == 0


def test_limiters_look_up_rules(table: Table) -> None:
    limiter = RateLimiter(table, "sliding-window-counter")
    table.block("eve")
    table.allow("alice")
    assert not limiter.hit(LIMIT, "eve", "view")
    assert not limiter.test(LIMIT, "eve")
    assert limiter.hit(LIMIT, "alice", cost=1000)
    assert limiter.hit(LIMIT, "bob", "eve")  # eve is not the client


def test_all_namespaces_of_a_table_share_its_rules() -> None:
    uri = f"shm://test-rules-{os.getpid()}"
    with Table(f"{uri}?keys=100") as one:
        try:
            with Table(uri, namespace=7) as other:
                other.block("eve")
                assert kind_of(one, "eve") == kind_of(other, "eve") == "block"
                one.reset()
                assert kind_of(other, "eve") == "block"
        finally:
            unlink(uri)


# -- many


def test_loading_many(table: Table) -> None:
    rules = [(f"10.0.{i}.0/24", "block", None) for i in range(256)]
    assert table.load_rules(iter(rules)) == 256
    assert table.rules_version == 1
    assert len(table.rules()) == 256
    assert table.load_rules(rules) == 256
    assert table.rules_version == 1  # nothing has changed
    assert table.load_rules([("10.0.0.0/24", "allow", NOW * 2), ("x", "block", NOW * 2)]) == 2
    assert table.rules_version == 2
    assert len(table.rules()) == 257
    assert table.load_rules([("x", "allow", NOW - 1)], now=NOW) == 0  # over already
    assert kind_of(table, "x") == "block"


def test_replacing_all(table: Table) -> None:
    table.block("old", now=NOW)
    table.block("both", now=NOW)
    assert (
        table.load_rules(
            [("both", "block", None), ("new", "allow", None)], replace=True, now=NOW + 1
        )
        == 2
    )
    assert sorted(table.rules()) == [
        Rule("both", "block", NOW, None),  # since then
        Rule("new", "allow", NOW + 1, None),
    ]
    version = table.rules_version
    table.load_rules([("new", "allow", None), ("both", "block", None)], replace=True)
    assert table.rules_version == version
    assert table.load_rules([], replace=True) == 0
    assert table.rules() == []


@pytest.mark.parametrize(
    "bad",
    [
        ("10.1.2.3/8", "block", None),
        ("a", "ban", None),
        ("a", "block"),
        ("a", "block", "tomorrow"),
        ("a", 1, None),
        (None, "block", None),
        7,
    ],
)
def test_one_wrong_rule_and_none_is_loaded(table: Table, bad: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        table.load_rules([("fine", "block", None), bad])
    assert table.rules() == []


def test_a_full_table() -> None:
    with Table("memory://?keys=100&rules=2") as table:
        table.block("a", NOW + 10, NOW)
        table.block("b", now=NOW)
        with pytest.raises(TableError, match="room for 2 rules"):
            table.block("c", now=NOW)
        with pytest.raises(TableError, match="room for 2 rules"):
            table.load_rules([(str(i), "block", None) for i in range(10)])
        table.block("c", now=NOW + 10)  # in place of the one that has ended
        assert sorted(rule.client for rule in table.rules(NOW)) == ["b", "c"]


@pytest.mark.parametrize("rules", ["x", "-1", "1000001"])
def test_sizes_that_cannot_be(rules: str) -> None:
    with pytest.raises(ParseError):
        Table(f"memory://?rules={rules}")


def test_random_lists_as_ipaddress_sees_them(table: Table) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    networks: dict[Any, str] = {}
    for _ in range(400):
        bits, kind = chance.choice([(32, ipaddress.IPv4Network), (128, ipaddress.IPv6Network)])
        prefix = chance.randrange(bits + 1)
        first = (0x20010DB8 << 96 if bits == 128 else 10 << 24) | chance.getrandbits(bits - 12)
        network = kind((first >> (bits - prefix) << (bits - prefix), prefix))
        networks[network] = chance.choice(["block", "allow"])
    table.load_rules([(str(network), kind, None) for network, kind in networks.items()])
    assert len(table.rules()) == len(networks)
    for network in list(networks):
        for number in (0, -1, network.num_addresses, network.num_addresses // 2):
            value = int(network.network_address) + number
            if not 0 <= value < 2**network.max_prefixlen:
                continue
            client = type(network.network_address)(value)
            if client.version == 6 and client.ipv4_mapped:
                continue
            over = [n for n in networks if n.version == client.version and client in n]
            expected = networks[max(over, key=lambda n: n.prefixlen)] if over else ""
            assert kind_of(table, str(client)) == expected, (seed, client)


# -- for stores that decide elsewhere


def test_ruled(table: Table) -> None:
    limits = [Limit(10), Limit(100, unit="hour")]
    assert table.ruled(limits, "eve/view") is None
    table.block("eve", NOW + 5, NOW)
    table.allow("alice")
    decision = table.ruled(limits, "eve/view", NOW)
    assert decision is not None
    assert (decision.allowed, decision.rule, decision.now, len(decision)) == (
        False,
        "block",
        NOW,
        2,
    )
    assert decision.verdict.retry_after == 5
    assert table.ruled(limits, "eve/view", NOW + 5) is None
    assert table.ruled(limits, ["alice/a", "alice/b"]).rule == "allow"  # type: ignore[union-attr]
    assert table.ruled(limits, ["alice/a", "bob/b"]) is None  # the limits decide about bob
    assert table.ruled(limits, ["alice/a", "eve/b"], NOW).rule == "block"  # type: ignore[union-attr]
    assert table.ruled(limits, "bob") is None
    with pytest.raises(ValueError, match="differ in length"):
        table.ruled(limits, ["eve"])


# -- several processes


def test_another_process_sees_a_rule_at_once(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/table"
    code = (
        "import sys, weir\n"
        "table = weir.Table(sys.argv[1])\n"
        "for line in sys.stdin:\n"
        "    print(table.decide([weir.Limit(10)], line.strip()).rule or '-', flush=True)\n"
    )
    with Table(f"{uri}?keys=100") as table:
        child = subprocess.Popen(
            [sys.executable, "-c", code, uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdin
        assert child.stdout

        def rule_of(client: str) -> str:
            child.stdin.write(f"{client}\n")  # type: ignore[union-attr]
            child.stdin.flush()  # type: ignore[union-attr]
            return child.stdout.readline().strip()  # type: ignore[union-attr]

        try:
            assert rule_of("10.1.2.3") == "-"
            for _ in range(20):
                table.block("10.0.0.0/8")
                assert rule_of("10.1.2.3") == "block"
                table.allow("10.1.0.0/16")
                assert rule_of("10.1.2.3") == "allow"
                table.unlist("10.1.0.0/16")
                assert rule_of("10.1.2.3") == "block"
                table.unlist("10.0.0.0/8")
                assert rule_of("10.1.2.3") == "-"
        finally:
            child.stdin.close()
            child.wait(120)
            child.stdout.close()
