"""Items of an application's own classes: what they replace is honoured, or refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import limits.limits as peer
import pytest
from flask import Flask

import weir
from clocks import stop_clock
from weir import Granularity, Limit, RateLimitItem, RateLimitItemPerHour, parse, parse_many
from weir.flask import Limiter
from weir.limits import GRANULARITIES, granularity_from_string, safe_string, split_key
from weir.storage import Storage

STRATEGIES = sorted(weir.strategies.STRATEGIES)


class PerWeek(RateLimitItem):
    GRANULARITY = Granularity(604800, "week")


class Per90Seconds(RateLimitItem):
    GRANULARITY = Granularity(90, "ninety")


class Burst(RateLimitItemPerHour):
    """Adds nothing but its name."""


class OneKey(RateLimitItemPerHour):
    def key_for(self, *identifiers: object) -> str:
        return "one/" + "/".join(map(str, identifiers[:1]))


class AnyCase(RateLimitItemPerHour):
    def key_for(self, *identifiers: object) -> str:
        return super().key_for(*[str(identifier).lower() for identifier in identifiers])


class Quarter(RateLimitItemPerHour):
    def get_expiry(self) -> int:
        return 900 * self.multiples


class Named(RateLimitItemPerHour):
    __slots__ = ("label",)

    def __init__(self, label: str, amount: int) -> None:
        super().__init__(amount, 2, namespace="NAMED")  # type: ignore[call-arg]
        self.label = label


@pytest.fixture(autouse=True)
def own_units() -> Iterator[None]:
    before = dict(GRANULARITIES)
    GRANULARITIES.update({"week": PerWeek, "ninety": Per90Seconds})
    yield
    GRANULARITIES.clear()
    GRANULARITIES.update(before)


class Elsewhere(Storage):
    """A table behind the interface of a store in Python."""

    def __init__(self) -> None:
        super().__init__("elsewhere://")
        self.table = weir.Table("memory://?keys=64")
        self.keys: list[Any] = []

    def decide(self, limits: Any, keys: Any, *rest: Any) -> weir.Decision:
        self.keys += keys
        return self.table.decide(limits, keys, *rest)

    def clear(self, limits: Any, keys: Any, /) -> None:
        self.table.clear(limits, keys)


@pytest.fixture(params=["table", "store"])
def store(request: pytest.FixtureRequest) -> Any:
    return weir.Table("memory://?keys=64") if request.param == "table" else Elsewhere()


# ------------------------------------------------------------------------------------------- units


@pytest.mark.parametrize("ours", [PerWeek, Per90Seconds])
@pytest.mark.parametrize("multiples", [None, 1, 3])
def test_a_custom_unit_works_as_in_limits(ours: type[Limit], multiples: int | None) -> None:
    theirs = type(
        ours.__name__, (peer.RateLimitItem,), {"GRANULARITY": peer.Granularity(*ours.GRANULARITY)}
    )  # type: ignore[misc]
    a: Any = ours(2, multiples, "shop")  # type: ignore[arg-type]
    b: Any = theirs(2, multiples, "shop")
    try:
        for name in ("amount", "multiples", "namespace", "GRANULARITY"):
            assert getattr(a, name) == getattr(b, name), name
        assert (str(a), a.get_expiry()) == (str(b), b.get_expiry())
        assert a.key_for("alice", 7) == b.key_for("alice", 7)
        assert type(a).__name__ == type(b).__name__
        name = a.GRANULARITY.name
        for text in (f"5/{name}", f"5 per 2 {name}s", f"5 PER {name.upper()}; 7/hour"):
            assert str(parse_many(text)) == str(peer_parse(text))
    finally:
        peer.GRANULARITIES.pop(ours.GRANULARITY.name)  # type: ignore[attr-defined]


def peer_parse(text: str) -> Any:
    import limits

    return limits.parse_many(text)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_its_period_is_counted(strategy: str, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = stop_clock(monkeypatch, 1_000_000_000.0)
    limiter = weir.RateLimiter(store, strategy)
    item = PerWeek(1, None, "w")  # type: ignore[arg-type]
    verdict = limiter.decide(item, "alice")
    assert verdict.allowed
    verdict = limiter.decide(item, "alice")
    assert not verdict.allowed
    assert verdict.retry_after > 60
    clock.now += 2 * 604800
    assert limiter.hit(item, "alice")


def test_a_class_may_replace_one_of_the_units() -> None:
    class PerShortHour(RateLimitItem):
        GRANULARITY = Granularity(3000, "hour")

    item = parse("5/hour burst 9")
    assert (type(item), item.get_expiry(), item.burst) == (PerShortHour, 3000, 9)
    assert granularity_from_string("Hours") is PerShortHour
    assert str(item) == "5 per 1 hour burst 9"


def test_burst_and_limits_without_it_may_be_mixed() -> None:
    items = parse_many("5/week burst 10; 2 per 3 weeks, 7/minute burst 8")
    assert [str(item) for item in items] == [
        "5 per 1 week burst 10",
        "2 per 3 week",
        "7 per 1 minute burst 8",
    ]
    assert [item.strategy for item in items] == ["token-bucket", None, "token-bucket"]


@pytest.mark.parametrize(
    "text", ["1/fortnight", "1/week burst 0", "x/week", "1/0 weeks", "1/week;"]
)
def test_text_that_no_class_accepts_is_refused(text: str) -> None:
    for call in (parse, parse_many):
        with pytest.raises(weir.ParseError):
            call(text)
    with pytest.raises(weir.ParseError):
        parse("1/week;2/week")


@pytest.mark.parametrize(
    "granularity",
    [
        (0, "x"),
        (0.5, "x"),
        (-1, "x"),
        (10**18, "x"),
        (True, "x"),
        (1, ""),
        (1, 2),
        "week",
        (1,),
        None,
    ],
)
def test_a_unit_that_cannot_be_is_refused_where_it_is_defined(granularity: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"Wrong\.GRANULARITY"):

        class Wrong(RateLimitItem):
            GRANULARITY = granularity


def test_a_period_beyond_the_longest_is_refused() -> None:
    for multiples in (10**9, 2**62):
        with pytest.raises(ValueError, match="multiples"):
            PerWeek(1, multiples)


# ----------------------------------------------------------------------------------------- classes


def test_subclasses_of_the_units() -> None:
    assert Burst(1).get_expiry() == 3600
    assert type(Burst(1)).__name__ == "Burst"
    assert isinstance(Burst(1), RateLimitItemPerHour)
    assert type(parse("1/hour")).__name__ == "RateLimitItemPerHour"
    assert Burst("10").amount == 10  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ten"):
        Burst("ten")  # type: ignore[arg-type]


def test_a_custom_init(store: Any) -> None:
    item = Named("login", 1)
    assert (item.label, str(item), item.namespace) == ("login", "1 per 2 hour", "NAMED")
    limiter = weir.RateLimiter(store)
    assert [limiter.hit(item, "a") for _ in range(2)] == [True, False]
    again = item.replace(burst=3)
    assert (type(again), again.label, again.burst) == (Named, "login", 3)


def test_an_init_that_does_not_call_ours_is_an_error(store: Any) -> None:
    class Forgetful(RateLimitItemPerHour):
        def __init__(self, amount: int) -> None:
            pass

    with pytest.raises((weir.WeirError, ValueError)):
        weir.RateLimiter(store).hit(Forgetful(5), "a")


@pytest.mark.parametrize(
    "item",
    [PerWeek(2, 3), Quarter(4), OneKey(1), Named("x", 7), PerWeek(5).replace(burst=9)],
    ids=repr,
)
def test_copies_and_pickles(item: Limit) -> None:
    assert copy.deepcopy(item) is item
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(item, protocol))
        assert type(again) is type(item)
        assert (again, hash(again), str(again)) == (item, hash(item), str(item))
        assert getattr(again, "label", None) == getattr(item, "label", None)


def test_order_and_equality() -> None:
    assert PerWeek(1) == PerWeek(1) != PerWeek(2)
    assert PerWeek(1) != Limit(1, 7, "day")
    assert sorted([parse("1/month"), PerWeek(9), parse("1/day")]) == [
        parse("1/day"),
        PerWeek(9),
        parse("1/month"),
    ]


# ----------------------------------------------------------------------------------------- methods


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "leaky-bucket"])
def test_a_custom_key_is_counted(
    strategy: str, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_clock(monkeypatch, 1_000_000_000.0)
    limiter = weir.RateLimiter(store, strategy)
    item = OneKey(2)
    assert limiter.test(item, "a", cost=2)
    assert [limiter.hit(item, "a", str(i)) for i in range(4)] == [True, True, False, False]
    assert limiter.get_window_stats(item, "a", "x").remaining == 0
    assert limiter.hit(item, "b")
    limiter.refund(item, "a", "other")
    assert limiter.decide(item, "a").allowed
    limiter.clear(item, "a", "another")
    assert limiter.hit(item, "a", cost=2)
    with_strategy = item.replace(strategy=strategy)
    assert not store.decide([with_strategy], "a/whatever", [2])[0].allowed
    assert store.decide([with_strategy], ["b/x"])[0].remaining == 0
    assert item.full_key("a/x") == "=/one%2Fa/2/1/hour"


def test_a_key_that_begins_as_usual_keeps_its_client() -> None:
    table = weir.Table("memory://?keys=64")
    limiter = weir.RateLimiter(table)
    item = AnyCase(1)
    assert [limiter.hit(item, name) for name in ("Alice", "ALICE")] == [True, False]
    table.block("bob")
    assert not limiter.hit(item, "BOB")
    assert not table.decide([item], "Bob").allowed


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_custom_period_is_counted(
    strategy: str, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = stop_clock(monkeypatch, 1_000_000_000.0)
    limiter = weir.RateLimiter(store, strategy)
    item = Quarter(1)
    assert limiter.hit(item, "a")
    assert not limiter.hit(item, "a")
    clock.now += 1801
    assert limiter.hit(item, "a")
    assert not store.decide([item.replace(strategy=strategy)], "a").allowed


def test_a_period_that_changes_is_refused_when_it_does() -> None:
    class UntilMidnight(RateLimitItemPerHour):
        left = 3600

        def get_expiry(self) -> int:
            return UntilMidnight.left

    limiter = weir.RateLimiter(weir.Table("memory://?keys=64"))
    assert limiter.hit(UntilMidnight(2), "a")
    UntilMidnight.left = 3599
    with pytest.raises(ValueError, match="calendar-window"):
        limiter.hit(UntilMidnight(2), "a")


@pytest.mark.parametrize("answer", [0, -1, 0.5, "60", None, True, 10**18])
def test_a_period_that_is_none_is_refused(answer: Any) -> None:
    class Wrong(RateLimitItemPerHour):
        def get_expiry(self) -> int:
            return answer  # type: ignore[no-any-return]

    limiter = weir.RateLimiter(weir.Table("memory://?keys=64"))
    with pytest.raises(ValueError, match="whole seconds"):
        limiter.hit(Wrong(2), "a")


def test_what_the_methods_raise_is_raised() -> None:
    class Failing(RateLimitItemPerHour):
        def key_for(self, *identifiers: object) -> str:
            raise LookupError("no such key")

    class Wrong(RateLimitItemPerHour):
        def key_for(self, *identifiers: object) -> str:
            return 7  # type: ignore[return-value]

    table = weir.Table("memory://?keys=64")
    limiter = weir.RateLimiter(table)
    for call in (
        lambda item: limiter.hit(item, "a"),
        lambda item: table.decide([item, Limit(1)], "a"),
        lambda item: item.full_key("a"),
    ):
        with pytest.raises(LookupError, match="no such key"):
            call(Failing(1))
        with pytest.raises(TypeError, match="must return a text"):
            call(Wrong(1))


def test_a_method_that_changes_the_lists_it_is_called_for() -> None:
    class Shrinking(RateLimitItemPerHour):
        def key_for(self, *identifiers: object) -> str:
            limits.clear()
            keys.clear()
            return "x"

    limits: list[Limit] = [Shrinking(1), Limit(1)]
    keys = ["a", "b"]
    assert len(weir.Table("memory://?keys=64").decide(limits, keys)) == 2


@pytest.mark.parametrize(
    "identifiers", [(), ("",), ("a",), ("", ""), ("a/b", "%"), ("%41", "é"), (b"\xff", "x")]
)
def test_a_joined_key_can_be_split(identifiers: tuple[Any, ...]) -> None:
    assert split_key(weir.join_key(*identifiers)) == identifiers


def test_safe_string() -> None:
    assert [safe_string(value) for value in (b"a", "b", 1, 1.5)] == ["a", "b", "1", "1.5"]


def test_on_a_redis_server_the_same() -> None:
    codec = weir._core.RedisCodec(b"weir")
    plain = codec.decide([parse("1 per 7 days")], ["a"], None, weir.HIT)
    assert bytes(codec.decide([PerWeek(1)], ["a"], None, weir.HIT)) == bytes(plain)
    one, two = (codec.decide([OneKey(2)], [key], None, weir.HIT) for key in ("a/1", "a/2"))
    assert bytes(one) == bytes(two)
    assert b"{=/one%2Fa}/2/1/hour" in bytes(one)


def test_a_flask_limit_of_a_custom_class() -> None:
    class PerShift(RateLimitItem):
        GRANULARITY = Granularity(28800, "shift")

        def get_expiry(self) -> int:
            return 7200

    class PerDesk(RateLimitItem):
        GRANULARITY = Granularity(60, "desk")

        def key_for(self, *identifiers: object) -> str:
            return "desk"

    app = Flask("shop")
    app.testing = True
    limiter = Limiter(lambda: "me", app=app, storage_uri="memory://", headers_enabled=True)
    app.add_url_rule("/week", "week", limiter.limit("1/week")(lambda: "hello"))
    app.add_url_rule("/shift", "shift", limiter.limit("1/shift")(lambda: "hello"))
    client = app.test_client()
    for path, period in (("/week", 604800), ("/shift", 7200)):
        assert client.get(path).status_code == 200
        refused = client.get(path)
        assert refused.status_code == 429
        assert period - 60 <= int(refused.headers["Retry-After"]) <= period
    with pytest.raises(TypeError, match=r"PerDesk replaces key_for\(\)"):
        limiter.limit("1/desk")(lambda: "hello")
