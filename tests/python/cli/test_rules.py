"""``weir block``, ``allow``, ``unlist`` and ``rules``."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import pytest

import weir as package
from weir.cli.words import parse_duration

Weir = Callable[..., click.testing.Result]

LIMIT = package.parse("10/minute")
SHM = Path("/dev/shm")


@pytest.fixture
def table(store: str) -> package.Table:
    table = package.Table(f"{store}?keys=800")
    table.register(LIMIT, "", "/search")
    return table


def decided(table: package.Table, client: str, now: float | None = None) -> str:
    """What decides about the client: a rule, or its limit."""
    decision = table.decide([LIMIT], f"{package.join_key(client)}/search", None, package.HIT, now)
    return decision.rule or ("admitted" if decision.allowed else "denied")


@pytest.mark.parametrize("client", ["203.0.113.7", "2001:db8::1", "ann", "key/with/slashes", "50%"])
def test_block_holds_at_once_and_until_it_ends(
    weir: Weir, store: str, table: package.Table, client: str
) -> None:
    assert decided(table, client) == "admitted"
    result = weir("block", client, "--for", "1h", "-s", store)
    assert result.exit_code == 0
    assert re.search(r"is blocked until \d{4}-", result.stdout)
    assert decided(table, client) == "block"
    assert decided(table, "192.0.2.99") == "admitted"
    assert decided(table, client, time.time() + 3590) == "block"
    assert decided(table, client, time.time() + 3610) == "admitted"


def test_an_ipv6_address_is_the_network_that_is_counted(
    weir: Weir, weir_json: Any, store: str, table: package.Table
) -> None:
    table.ipv6_prefix = 56
    result = weir("block", "[2001:DB8:1:2::3]:443", "--for", "1h", "-s", store)
    assert result.exit_code == 0
    assert "blocks 2001:db8:1::/56, the network that is counted" in result.stderr
    assert decided(table, "2001:db8:1::/56") == "block"
    assert weir_json("show", "2001:db8:1:9::", "-s", store)["rule"]["client"] == "2001:db8:1::/56"
    assert weir_json("unlist", "2001:db8:1:2::4", "-s", store)["removed"] is True
    assert decided(table, "2001:db8:1::/56") == "admitted"
    weir("allow", "::ffff:10.0.0.1", "--for", "1h", "-s", store)
    assert decided(table, "10.0.0.1") == "allow"


@pytest.mark.parametrize("noted", [64, None])
def test_show_and_reset_find_an_ipv6_client(
    weir_json: Any, store: str, table: package.Table, noted: int | None
) -> None:
    """By its network where weir.flask counts, by its address where another program counts."""
    if noted:
        table.ipv6_prefix = noted
    client = "2001:db8::/64" if noted else "2001:db8::1"
    for _ in range(3):
        decided(table, client)
    options = ("2001:db8::1", "--limit", str(LIMIT), "--scope", "search", "-s", store)
    assert weir_json("show", *options)["limits"][0]["used"] == 3
    assert weir_json("reset", *options)["cleared"][0]["used"] == 3
    assert weir_json("show", *options)["limits"][0]["used"] == 0


def test_block_for_good_and_unlist(weir: Weir, weir_json: Any, store: str, table: Any) -> None:
    answer = weir_json("block", "203.0.113.7", "--for", "for good", "-s", store)
    assert (answer["rule"]["kind"], answer["rule"]["until"]) == ("block", None)
    assert decided(table, "203.0.113.7", time.time() + 1e9) == "block"
    assert weir_json("unlist", "203.0.113.7", "-s", store)["removed"] is True
    assert decided(table, "203.0.113.7") == "admitted"
    assert weir("unlist", "203.0.113.7", "-s", store).exit_code == 1


def test_allow_passes_beyond_the_limit(weir: Weir, store: str, table: package.Table) -> None:
    assert weir("allow", "10.0.0.1", "--for", "7d", "-s", store).exit_code == 0
    assert {decided(table, "10.0.0.1") for _ in range(30)} == {"allow"}
    weir("unlist", "10.0.0.1", "-s", store)
    assert decided(table, "10.0.0.1") == "admitted", "nothing was charged"


def test_the_most_specific_rule_wins(
    weir: Weir, weir_json: Any, store: str, table: package.Table
) -> None:
    weir("block", "203.0.113.0/24", "--for", "1h", "-s", store)
    weir("allow", "203.0.113.64/26", "--for", "1h", "-s", store)
    weir("block", "203.0.113.70", "--for", "1h", "-s", store)
    clients = ("203.0.113.1", "203.0.113.65", "203.0.113.70", "203.0.114.1")
    assert [decided(table, client) for client in clients] == ["block", "allow", "block", "admitted"]
    rule = weir_json("show", "203.0.113.65", "-s", store)["rule"]
    assert (rule["client"], rule["kind"]) == ("203.0.113.64/26", "allow")
    removed = weir("unlist", "203.0.113.70", "-s", store)
    assert "rule for 203.0.113.64/26 still applies" in removed.stderr


def test_a_hash_names_the_client(weir: Weir, store: str, table: package.Table) -> None:
    decided(table, "api-key-of-ann")
    name = table.top_clients("allowed")[0].client
    assert name.startswith("#")
    assert weir("block", name, "--for", "1h", "-s", store).exit_code == 0
    assert decided(table, "api-key-of-ann") == "block"
    assert decided(table, "api-key-of-bob") == "admitted"
    assert "blocked until" in weir("show", "api-key-of-ann", "-s", store).stdout


def test_show_lists_the_usage_of_a_blocked_client(
    weir: Weir, weir_json: Any, store: str, table: package.Table
) -> None:
    for _ in range(4):
        decided(table, "10.0.0.1")
    for command in ("block", "allow"):
        weir(command, "10.0.0.1", "--for", "1h", "-s", store)
        answer = weir_json("show", "10.0.0.1", "-s", store)
        assert answer["rule"]["kind"] == command
        assert [one["used"] for one in answer["limits"]] == [4]


@pytest.mark.parametrize("key", ["10.0.0.1/8", "10.0.0.0/33", "300.0.0.0/8", ""])
@pytest.mark.parametrize("command", ["block", "allow"])
def test_an_invalid_client_is_refused(
    weir: Weir, store: str, table: package.Table, command: str, key: str
) -> None:
    result = weir(command, key, "--for", "1h", "-s", store)
    if result.exit_code == 0:  # a text that is not an address is a name
        assert key == "300.0.0.0/8"
        return
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("weir: ")


@pytest.mark.parametrize("text", ["1 hour", "0s", "-5m", "1y", "h", "", "99999999d", "1.5.5h", "∞"])
def test_what_is_no_duration_is_refused(weir: Weir, store: str, table: Any, text: str) -> None:
    result = weir("block", "me", "--for", text, "-s", store)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "90s, 15m, 1h, 7d" in result.stderr or "at most 36500d" in result.stderr


def test_durations() -> None:
    known = {"90s": 90, "15m": 900, "1h": 3600, "7d": 604800, "2w": 1209600, "1h30m": 5400,
             "0.5h": 1800, " 1H ": 3600, "for good": None, "For  Good": None}  # fmt: skip
    assert {text: parse_duration(text) for text in known} == known


def test_a_rule_needs_a_duration(weir: Weir, store: str, table: Any) -> None:
    result = weir("block", "me", "-s", store)
    assert (result.exit_code, "--for" in result.stderr) == (2, True)


# -- many


def test_rules_are_listed(weir: Weir, weir_json: Any, store: str, table: package.Table) -> None:
    assert weir_json("rules", "-s", store) == {"rules": []}
    weir("block", "203.0.113.0/24", "--for", "1h", "-s", store)
    weir("allow", "ann", "--for", "for good", "-s", store)
    rules = {rule["client"]: rule for rule in weir_json("rules", "-s", store)["rules"]}
    assert {client: rule["kind"] for client, rule in rules.items()} == {
        "203.0.113.0/24": "block",
        "ann": "allow",
    }
    assert rules["ann"]["until"] is None
    plain = weir("rules", "-s", store).stdout
    assert re.search(r"allow +ann +forever", plain)
    assert re.search(r"block +203.0.113.0/24 +\d{4}-", plain)


def test_many_at_once(
    weir: Weir, weir_json: Any, store: str, table: package.Table, tmp_path: Path
) -> None:
    name = table.name_of("ann")
    later = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 7200))
    log = tmp_path / "rules"
    log.write_text(
        "# office\nallow 192.0.2.0/24\n\n  block 198.51.100.7 1h\n"
        f'block 198.51.100.8 {later}\n{name}\n#\n{{"client": "a b", "kind": "allow"}}\n'
        f'{{"client": "bob", "kind": "block", "until": "{later}"}}\n203.0.113.0/24 for good\n'
    )
    answer = weir_json("rules", "--load", str(log), "--as", "block", "--for", "2h", "-s", store)
    assert answer == {"loaded": 7}
    ends = {
        rule["client"]: (rule["kind"], rule["until"])
        for rule in weir_json("rules", "-s", store)["rules"]
    }
    assert {client: kind for client, (kind, _) in ends.items()} == {
        "192.0.2.0/24": "allow", "198.51.100.7": "block", "198.51.100.8": "block", name: "block",
        "a b": "allow", "bob": "block", "203.0.113.0/24": "block",
    }  # fmt: skip
    assert ends["203.0.113.0/24"][1] is None
    assert ends["bob"][1][:19] == ends["198.51.100.8"][1][:19] == later[:19]
    assert ends["192.0.2.0/24"][1] is not None, "--for is of lines that do not say"
    assert [decided(table, c) for c in ("192.0.2.9", "203.0.113.9", "ann", "bob")] == [
        "allow", "block", "block", "block",
    ]  # fmt: skip


def test_rules_move_from_one_store_to_another(
    weir: Weir, weir_json: Any, store: str, table: package.Table
) -> None:
    weir("block", "203.0.113.0/24", "--for", "1h", "-s", store)
    weir("allow", "a b", "--for", "for good", "-s", store)
    printed = weir("rules", "--json", "-s", store).stdout
    other = f"{store}-other"
    package.Table(other)
    try:
        assert weir_json("rules", "--load", "-", "-s", other, input=printed) == {"loaded": 2}
        there = [
            [(r["client"], r["kind"], r["until"]) for r in weir_json("rules", "-s", uri)["rules"]]
            for uri in (store, other)
        ]
        assert there[0] == there[1]
    finally:
        (SHM / f"weir.{other.removeprefix('shm://')}").unlink()


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("block 10.0.0.1\nten\n", "line 2: a line must be block CLIENT"),
        ("block 10.0.0.1\nblock 10.0.0.2 soon\n", "line 2: 'soon' is not a duration"),
        ("block 10.0.0.1\nblock 10.0.0.2 2001-01-01T00:00:00Z\n", "is in the past"),
        ('block 10.0.0.1\n{"client": 7}\n', 'line 2: a rule is {"client"'),
        ('block 10.0.0.1\n{"client": \n', "line 2: not JSON"),
        ('block 10.0.0.1\n{"rules": 7}\n', 'line 2: "rules" is not a list'),
        ("block 10.0.0.1\nblock 10.0.0.1/8\n", "10.0.0.1/8"),
        (
            "block 10.0.0.1\n" + "".join(f"block 10.0.{i}.1\n" for i in range(200)),
            "room for 100 rules",
        ),
    ],
)
def test_a_file_with_a_mistake_changes_nothing(
    weir: Weir, weir_json: Any, store: str, lines: str, complaint: str
) -> None:
    package.Table(f"{store}?rules=100")
    result = weir("rules", "--load", "-", "-s", store, input=lines)
    assert result.exit_code in (2, 3)
    assert complaint in result.stderr
    assert weir_json("rules", "-s", store) == {"rules": []}


def test_as_and_for_belong_to_load(weir: Weir, store: str, table: Any) -> None:
    assert weir("rules", "--as", "block", "-s", store).exit_code == 2
    missing = weir("rules", "--load", "/no/such/file", "-s", store)
    assert (missing.exit_code, "cannot read" in missing.stderr) == (2, True)


def test_a_rule_that_has_ended_is_none(weir: Weir, weir_json: Any, store: str, table: Any) -> None:
    now = time.time()
    table.block("10.0.0.1", now + 0.01, now)
    while time.time() <= now + 0.01:
        time.sleep(0.001)
    assert weir_json("rules", "-s", store) == {"rules": []}
    assert "no rule" in weir("show", "10.0.0.1", "-s", store).stdout


def test_json_of_rules_is_one_line(weir: Weir, store: str, table: package.Table) -> None:
    weir("block", "ann\n{}", "--for", "1h", "-s", store)
    printed = weir("rules", "--json", "-s", store).stdout
    assert json.loads(printed)["rules"][0]["client"] == "ann\n{}"
    assert printed.count("\n") == 1
