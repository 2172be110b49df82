"""Two applications on one server, with two prefixes: neither sees, blocks or erases the other's."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask, request

import weir
from weir import Table
from weir.cli.main import cli
from weir.flask import Limiter
from weir.storage import storage_from_string
from weir.stores.auto import stats_suffix
from weir.stores.instrumented import InstrumentedStorage
from weir.stores.shared_stats import SharedStats
from weir.stores.tenants import KNOWN_KEY, KNOWN_MAX, Tenant, chosen


class App:
    """An application of weir.flask, and one client of it."""

    def __init__(self, uri: str, **options: Any) -> None:
        self.app = Flask(__name__)
        options["storage_options"] = {"remember_denials": 0, **options.get("storage_options", {})}
        self.limiter = Limiter(
            lambda: request.headers["X-Client"],
            app=self.app,
            default_limits=["2 per day"],
            storage_uri=uri,
            **options,
        )
        self.app.get("/")(lambda: "ok")
        self.client = self.app.test_client()
        self.store: Any = self.limiter._state.store
        if self.store.instrumented.sync is not None:  # only sync() exchanges anything
            self.store.instrumented.sync.wake = lambda: None

    def send(self, client: str = "10.0.0.1") -> int:
        code: int = self.client.get("/", headers={"X-Client": client}).status_code
        return code

    def sync(self) -> None:
        sync = self.store.instrumented.sync
        assert sync is not None
        sync.once(force=True)

    def close(self) -> None:
        self.store.opened.close()


#: How two applications are distinguished: by weir.flask's prefix, by the store's, by one of each.
APART: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "own": ({"key_prefix": "shop"}, {"key_prefix": "bank"}),
    "store": (
        {"storage_options": {"key_prefix": "shop"}},
        {"storage_options": {"key_prefix": "bank"}},
    ),
    "one": ({"key_prefix": "shop"}, {}),
    "mixed": ({"key_prefix": "shop"}, {"storage_options": {"key_prefix": "shop"}}),
}


@pytest.fixture(params=["redis", "valkey", "cluster", "valkey_cluster"])
def uri(request: pytest.FixtureRequest, servers: Any) -> str:
    return str(getattr(servers, request.param).uri)


@pytest.fixture
def make(uri: str) -> Iterator[Callable[..., App]]:
    made: list[App] = []

    def start(**options: Any) -> App:
        made.append(App(uri, **options))
        return made[-1]

    yield start
    for app in made:
        shared = app.store.instrumented.sync.shared
        for rule in shared.rules():
            shared.remove_rule(rule.client)
        app.close()


@pytest.fixture(params=list(APART))
def pair(request: pytest.FixtureRequest, make: Callable[..., App]) -> tuple[App, App]:
    first, second = APART[request.param]
    return make(**first), make(**second)


def test_a_rule_of_one_is_none_of_the_other(pair: tuple[App, App]) -> None:
    shop, bank = pair
    shop.store.instrumented.block("10.0.0.1")
    bank.store.instrumented.allow("10.0.0.2")
    for _ in range(2):
        shop.sync()
        bank.sync()
    assert shop.send("10.0.0.1") == 429
    assert bank.send("10.0.0.1") == 200
    assert [bank.send("10.0.0.2") for _ in range(4)] == [200] * 4
    assert [shop.send("10.0.0.2") for _ in range(4)] == [200, 200, 429, 429]
    assert bank.store.instrumented.unlist("10.0.0.2")
    shop.sync()
    assert shop.send("10.0.0.1") == 429


def test_each_counts_for_itself_and_resets_its_own(pair: tuple[App, App]) -> None:
    shop, bank = pair
    shop.sync()
    bank.sync()
    for app in pair:
        assert [app.send() for _ in range(3)] == [200, 200, 429]
    shop.limiter.reset()
    assert shop.send() == 200
    assert bank.send() == 429
    bank.limiter.reset()
    assert bank.send() == 200
    assert [shop.send() for _ in range(2)] == [200, 429]


@pytest.fixture(params=["postgresql", "mongodb"])
def database(request: pytest.FixtureRequest, servers: Any) -> tuple[str, dict[str, Any]]:
    """A URI, and options that give this test its own counters."""
    options = {"create": True} if request.param == "postgresql" else {"socket_timeout": 20.0}
    prefix = f"reset-{uuid.uuid4().hex[:8]}"
    return str(getattr(servers, request.param).uri), {**options, "key_prefix": prefix}


@pytest.mark.parametrize("other", ["bank", "b:a;n<k%", "bänk/x", "b" * 300])
def test_reset_without_a_prefix_keeps_the_counters_of_those_with_one(
    database: tuple[str, dict[str, Any]], other: str
) -> None:
    uri, options = database
    apps = [
        App(uri, storage_options=options, key_prefix=prefix) for prefix in ("", other, "bank of x")
    ]
    odd = ["10.0.0.1", "ä", "c" * 250]
    try:
        for app in apps:
            for client in odd:
                assert [app.send(client) for _ in range(3)] == [200, 200, 429]
        apps[0].limiter.reset()
        assert apps[0].send("10.0.0.1") == 200, "its own are deleted"
        for app in apps[1:]:
            assert [app.send(client) for client in odd] == [429] * 3
        apps[1].limiter.reset()
        # The names of counters whose key is not ASCII are hashes, which do not contain the prefix.
        assert apps[1].send("10.0.0.1") == (200 if other.isascii() else 429)
        assert apps[2].send("10.0.0.1") == 429
        assert apps[0].send("10.0.0.1") == 200
        assert apps[0].send("10.0.0.1") == 429
    finally:
        for app in apps:
            app.close()


def test_reset_of_the_only_application_deletes_all_counters(
    database: tuple[str, dict[str, Any]],
) -> None:
    uri, options = database
    app = App(uri, storage_options=options)
    try:
        for client in ("10.0.0.1", "ä", "c" * 250):
            assert [app.send(client) for _ in range(3)] == [200, 200, 429]
        app.limiter.reset()
        assert [app.send(client) for client in ("10.0.0.1", "ä", "c" * 250)] == [200] * 3
    finally:
        app.close()


def test_statistics_are_apart(pair: tuple[App, App]) -> None:
    shop, bank = pair
    for _ in range(3):
        shop.send("10.0.0.1")
    bank.send("10.0.0.2")
    shop.sync()
    bank.sync()
    for app, mine in ((shop, "10.0.0.1"), (bank, "10.0.0.2")):
        (stats,) = app.store.instrumented.sync.shared.read()
        clients = [row[0] for row in stats["top_clients"]["allowed"]]
        assert clients == [mine]


def test_cached_denials_are_dropped_by_prefix(pair: tuple[App, App]) -> None:
    shop, bank = (app.store.instrumented.sync.shared for app in pair)
    shop.drop_denials()
    assert shop.denials_version()
    assert not bank.denials_version()


def test_counters_of_the_fallback_are_apart(
    servers: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Two limiters of one application, distinguished by the store's prefix, under one server."""
    import os

    from weir.stores import auto

    monkeypatch.setattr(auto, "server", lambda: auto.Server(os.getpid(), 1))
    monkeypatch.setattr(auto, "SHARED_MEMORY", tmp_path)
    names = []

    def opened(uri: str, *_: Any, **__: Any) -> Table:
        names.append(uri)
        return Table()

    monkeypatch.setattr(auto, "TableStorage", opened)
    for _ in range(2):
        monkeypatch.setattr(auto, "_owners", {})  # another worker
        for prefix in ("shop", "bank"):
            App(
                "redis://127.0.0.1:1",
                on_store_error="local",
                storage_options={"key_prefix": prefix},
            )
    assert len(names) == 4
    assert names[:2] == names[2:]
    assert names[0] != names[1]


@pytest.mark.parametrize("order", [("shop", "bank"), ("bank", "shop")])
def test_the_order_of_stores_does_not_matter(
    order: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Workers that make their stores lazily find the same local table for each of them."""
    import os

    from weir.stores import auto
    from weir.stores.failover import FailoverStorage

    monkeypatch.setattr(auto, "server", lambda: auto.Server(os.getpid(), 1))
    monkeypatch.setattr(auto, "SHARED_MEMORY", tmp_path)
    found: dict[str, Any] = {}

    def opened(uri: str, *_: Any, namespace: int = 0, **__: Any) -> Table:
        found[prefix] = (uri, namespace)
        return Table()

    monkeypatch.setattr(auto, "TableStorage", opened)
    seen = []
    for prefixes in (order, order[::-1]):
        monkeypatch.setattr(auto, "_made", Counter())  # another worker
        for prefix in prefixes:
            storage = storage_from_string("redis://127.0.0.1:1", key_prefix=prefix)
            FailoverStorage(storage, "local")
        seen.append(dict(found))
    assert seen[0] == seen[1]
    assert seen[0]["shop"] != seen[0]["bank"]


# ------------------------------------------------------------------------------------ the commands


def run(uri: str, *arguments: str) -> tuple[str, str, int]:
    done = CliRunner().invoke(cli, [*arguments, "--store", uri], catch_exceptions=False)
    return done.stdout, done.stderr, done.exit_code


def test_block_is_about_all_applications_or_one(uri: str, pair: tuple[App, App]) -> None:
    bank = pair[1]
    for app in pair:
        app.send("10.0.0.9")
        app.sync()
    _, warned, code = run(uri, "block", "10.0.0.1", "--for", "1h", "--prefix", "bank")
    assert code == 0
    assert "bank" in warned or bank.store.instrumented.sync.shared.tenant.label != "bank"
    labels = [app.store.instrumented.sync.shared.tenant.label for app in pair]
    _, warned, code = run(uri, "block", "10.0.0.2", "--for", "1h")
    assert code == 0
    assert all(label in warned for label in labels if label)
    for app in pair:
        app.sync()
        assert app.send("10.0.0.2") == 429
    if "bank" in labels:
        assert [app.send("10.0.0.1") for app in pair] == [200, 429]
    out, _, _ = run(uri, "rules", "--json")
    clients = [rule["client"] for rule in json.loads(out)["rules"]]
    assert clients.count("10.0.0.2") == 1
    _, _, code = run(uri, "unlist", "10.0.0.2")
    assert code == 0
    for app in pair:
        app.sync()
        assert app.send("10.0.0.2") == 200
    run(uri, "unlist", "10.0.0.1", "--prefix", "bank")


def test_reset_finds_the_counters_of_each(uri: str, make: Callable[..., App]) -> None:
    apps = [make(key_prefix="shop"), make(storage_options={"key_prefix": "bank"}), make()]
    for app in apps:
        assert [app.send() for _ in range(3)] == [200, 200, 429]
        app.sync()
    out, warned, _ = run(uri, "show", "10.0.0.1", "--json")
    assert "bank" in warned
    assert [limit["used"] for limit in json.loads(out)["limits"]] == [2, 2, 2]
    out, _, _ = run(uri, "reset", "10.0.0.1", "--prefix", "bank", "--json")
    assert [one["used"] for one in json.loads(out)["cleared"]] == [2]
    assert [app.send() for app in apps] == [429, 200, 429]
    run(uri, "reset", "10.0.0.1")
    assert [app.send() for app in apps] == [200, 200, 200]


def test_top_shows_one_or_all(uri: str, make: Callable[..., App]) -> None:
    shop, bank = make(key_prefix="shop"), make(key_prefix="bank")
    for app, client in ((shop, "10.0.0.1"), (bank, "10.0.0.2")):
        app.send(client)
        app.sync()
    out, _, _ = run(uri, "top", "--json")
    assert {"10.0.0.1", "10.0.0.2"} <= {row["client"] for row in json.loads(out)["clients"]}
    out, _, _ = run(uri, "top", "--json", "--prefix", "shop")
    assert {row["client"] for row in json.loads(out)["clients"]} == {"10.0.0.1"}


def test_a_prefix_is_for_stores_that_are_shared() -> None:
    done = CliRunner().invoke(cli, ["rules", "--store", "shm://x", "--prefix", "shop"])
    assert done.exit_code == 2
    assert "--prefix" in done.stderr


# ------------------------------------------------------------------------------------ what is noted


def test_names_of_two_applications_are_never_the_same() -> None:
    texts = ["", "a", "weir", "a@b", "a:b", "%40", "é", "x" * 300, "x" * 301, "a/b", " ", "*"]
    tenants = [Tenant(store, own) for store in ("weir", "a", "weir:rules@a") for own in texts]
    words = ("rules", "rules :version", "hosts", "stats :0123", "denials :version")
    names = [tenant.name(*word.split()) for tenant in tenants for word in words]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) < 150
    assert len({tenant.digits for tenant in tenants}) == len(tenants)
    for tenant in tenants:
        assert Tenant.load(tenant.dump()) == tenant


@pytest.mark.parametrize(
    "text", [b"", b"x", b"[]", b"[1,2]", b'["a"]', b"null", b'{"a":1}', b"[" * 10_000]
)
def test_what_others_note_is_passed_over(text: bytes) -> None:
    assert Tenant.load(text) is None


def test_which_are_meant() -> None:
    shop, bank = Tenant(own="shop"), Tenant("bank", "web")
    known = [shop, bank]
    assert chosen(known, None) == [shop, bank, Tenant()]
    assert chosen(known, "") == [Tenant()]
    assert chosen(known, "shop") == [shop]
    assert chosen(known, "bank") == chosen(known, "web") == chosen(known, "bank/web") == [bank]
    assert chosen(known, "new") == [Tenant(own="new"), Tenant(store="new")]


def test_the_number_of_those_that_are_noted_is_bounded(servers: Any) -> None:
    shared = SharedStats(storage_from_string(servers.redis.uri))
    with servers.redis.client() as client:
        client.zadd(KNOWN_KEY, {Tenant(own=f"{i}").dump(): i for i in range(KNOWN_MAX + 50)})
        client.expire(KNOWN_KEY, 60)
        shared.note()
        assert client.zcard(KNOWN_KEY) <= KNOWN_MAX
        assert client.ttl(KNOWN_KEY) > 86_400
    assert shared.tenant in shared.known()


def test_a_user_who_may_write_its_own_names_only(servers: Any, caplog: Any) -> None:
    with servers.redis.client() as client:
        client.acl_setuser(
            "shop", enabled=True, passwords=["+secret"], keys=["shop:*"], categories=["+@all"]
        )
    try:
        uri = servers.redis.uri.replace("://", "://shop:secret@")
        storage = storage_from_string(uri, key_prefix="shop")
        store = InstrumentedStorage(storage, Table())
        assert store.decide([weir.parse("2/day")], "a").allowed
        assert store.sync is not None
        store.sync.once(force=True)
        store.sync.once(force=True)
        assert len(store.sync.shared.read()) == 1
        assert sum("--prefix shop" in record.message for record in caplog.records) == 1
        store.block("10.0.0.1")
        assert store.unlist("10.0.0.1")
    finally:
        with servers.redis.client() as client:
            client.acl_deluser("shop")


def test_tables_beside_a_store_are_found_by_store_and_application() -> None:
    assert stats_suffix("redis://a", 5).endswith(stats_suffix("redis://a"))
    assert not stats_suffix("redis://b", 5).endswith(stats_suffix("redis://a"))
