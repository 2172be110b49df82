"""From identifiers to keys: readable, and never the same for different identifiers."""

from __future__ import annotations

import decimal
import enum
import ipaddress
import uuid
from pathlib import Path

import limits as peer
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import weir
from clocks import stop_clock
from weir import Limit, join_key

TEXT = st.text(st.characters(codec=None), max_size=6)  # surrogates, NUL and all
IDENTIFIERS = st.lists(
    st.one_of(TEXT, st.binary(max_size=4), st.sampled_from(["", "/", "%", "%2F", "a/b", "%80"])),
    max_size=4,
)


def canonical(identifier: str | bytes) -> bytes:
    """The bytes of an identifier: a str is its UTF-8."""
    if isinstance(identifier, bytes):
        return identifier
    return identifier.encode("utf-8", "surrogatepass")


@given(IDENTIFIERS, IDENTIFIERS)
@example(["a/b", "c"], ["a", "b/c"])
@example(["a"], ["a", ""])
@example([], [""])
@example(["%2F"], ["/"])
@example(["\udc80"], [b"\x80"])
@example([b"\xff"], ["%FF"])
def test_different_identifiers_make_different_keys(
    a: list[str | bytes], b: list[str | bytes]
) -> None:
    same = [canonical(i) for i in a] == [canonical(i) for i in b]
    assert (join_key(*a) == join_key(*b)) == same
    limit = Limit(10)
    assert (limit.key_for(*a) == limit.key_for(*b)) == same


@given(IDENTIFIERS)
def test_keys_are_text(identifiers: list[str | bytes]) -> None:
    key = join_key(*identifiers)
    key.encode("utf-8")
    assert Limit(10).full_key(key) == Limit(10).key_for(*identifiers)


@given(st.lists(st.text("abc:.@-_é€ \n", min_size=1), min_size=1))
def test_plain_identifiers_are_joined_as_in_limits(identifiers: list[str]) -> None:
    assert Limit(10, 2, "hour").key_for(*identifiers) == peer.parse("10 per 2 hour").key_for(
        *identifiers
    )


def test_examples() -> None:
    limit = weir.parse("10/minute")
    assert limit.key_for("alice") == "LIMITER/alice/10/1/minute"
    assert limit.key_for() == "LIMITER/10/1/minute"
    assert limit.key_for("a/b", "50%") == "LIMITER/a%2Fb/50%25/10/1/minute"
    assert limit.key_for(1, -2, 3.5, 10**30) == f"LIMITER/1/-2/3.5/{10**30}/10/1/minute"
    assert limit.key_for(b"bytes", b"\xff/") == "LIMITER/bytes/%FF%2F/10/1/minute"
    assert limit.replace(burst=20).key_for("a") == "LIMITER/a/10/1/minute/burst/20"
    assert limit.replace(namespace="a/b\0").key_for("c") == "a%2Fb\0/c/10/1/minute"
    assert limit.full_key("a/b") == "LIMITER/a/b/10/1/minute"
    assert limit.full_key("") == "LIMITER/10/1/minute"
    assert join_key() == ""
    assert join_key("") == "%"
    assert join_key("", "") == "/"


def test_numbers_are_their_digits() -> None:
    class Number(enum.IntEnum):
        ONE = 1

    assert join_key(1) == join_key("1") == join_key(b"1")
    assert join_key(-(2**63)) == str(-(2**63))
    assert join_key(2**63) == str(2**63)
    assert join_key(1.0) == "1.0"
    assert join_key(float("nan")) == "nan"
    assert join_key(Number.ONE) == str(Number.ONE)


def test_a_subclass_of_str_counts_by_its_text() -> None:
    class Word(str, enum.Enum):
        RED = "red"

    class Name(str):
        pass

    class Loud(str):
        def __str__(self) -> str:
            return self.upper()

    assert join_key(Word.RED) == str(Word.RED)
    assert join_key(Name("a/b")) == "a%2Fb"
    assert join_key("x", Loud("a/b")) == "x/A%2FB"


class Plan(enum.Enum):
    FREE = 1


class Proxy:
    """What werkzeug's LocalProxy is: every access is forwarded to another object."""

    def __init__(self, value: object) -> None:
        self.value = value

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # type: ignore[override]
        return type(self.value)

    def __str__(self) -> str:
        return str(self.value)

    def __bytes__(self) -> bytes:
        return self.value  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (ipaddress.ip_address("2001:db8::1"), "2001:db8::1"),
        (ipaddress.ip_network("10.0.0.0/8"), "10.0.0.0%2F8"),
        (Plan.FREE, "Plan.FREE"),
        (decimal.Decimal("1.50"), "1.50"),
        (None, "None"),
        (True, "True"),
        (("a", 1), "('a', 1)"),
        ({}, "{}"),
        (1j, "1j"),
        (Path("/tmp/x"), "%2Ftmp%2Fx"),
        (Proxy("alice"), "alice"),
        (Proxy(b"alice"), "alice"),
        (Proxy(b"\xff"), "%FF"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_object_is_its_text_on_tables_and_on_other_stores(given: object, text: str) -> None:
    assert join_key(given) == text
    limit = Limit(1)
    assert limit.key_for(given) == f"LIMITER/{text}/1/1/minute"
    made = weir.identifier(given)
    assert isinstance(made, str | bytes)
    assert join_key(made) == text
    table = weir.Table("memory://?keys=64")
    limiter = weir.RateLimiter(table)
    assert limiter.hit(limit, "user", given)
    assert not limiter.hit(limit, "user", made)
    assert not table.decide([limit], f"user/{text}").allowed
    limiter.clear(limit, "user", given)
    assert limiter.test(limit, "user", made)
    if given is None:
        return  # a rule needs a client
    table.block(given)
    client = "10.1.2.3" if isinstance(given, ipaddress.IPv4Network) else given
    assert not limiter.test(limit, client)


@pytest.mark.parametrize(
    "wrong", [object(), Proxy.__str__, lambda: "alice", len, "alice".upper, Proxy("").__str__]
)
def test_an_object_whose_text_is_its_address_is_refused(wrong: object) -> None:
    for make in (join_key, Limit(10).key_for, weir.identifier):
        with pytest.raises(TypeError, match="an identifier must be"):
            make(wrong)
    if callable(wrong):
        with pytest.raises(TypeError, match=r"was it to be called\?"):
            join_key(wrong)


def test_what_an_objects_own_str_raises_is_raised() -> None:
    class Unbound:
        def __str__(self) -> str:
            raise LookupError("no request")

    limiter = weir.RateLimiter(weir.Table("memory://?keys=64"))
    with pytest.raises(LookupError, match="no request"):
        limiter.hit(Limit(1), "a", Unbound())
    assert limiter.hit(Limit(1), "a")


@pytest.mark.parametrize("method", ["hit", "test", "refund", "decide", "clear", "get_window_stats"])
def test_an_objects_str_may_close_the_table_or_change_the_limiter(method: str) -> None:
    class Closing:
        def __str__(self) -> str:
            limiter.storage.close()
            return "a"

    class Changing:
        def __str__(self) -> str:
            limiter.__init__(Other())  # type: ignore[misc]
            return "a"

    class Other:
        def decide(self, *arguments: object) -> None: ...
        def clear(self, *arguments: object) -> None: ...

    limiter = weir.RateLimiter(weir.Table("memory://?keys=64"))
    with pytest.raises(weir.TableError, match="closed"):
        getattr(limiter, method)(Limit(1), Closing())
    limiter = weir.RateLimiter(weir.Table("memory://?keys=64"))
    with pytest.raises(RuntimeError, match="another store"):
        getattr(limiter, method)(Limit(1), Changing())


def test_keys_beyond_what_stands_on_the_stack() -> None:
    for length in (479, 480, 481):
        for text in ("x", "/", "é"):
            identifiers = [text] * length
            assert join_key(*identifiers) == "/".join([text.replace("/", "%2F")] * length)


@pytest.mark.parametrize("strategy", sorted(weir.strategies.STRATEGIES))
@pytest.mark.parametrize(
    "key",
    ["", "\0", "\n", "a\0b", "é€😀", "\udc80", b"\xff\xfe", "x" * 10**6, b"\0" * 10**6],
    ids=lambda key: f"{key[:3]!r}x{len(key)}",
)
def test_any_key_can_be_limited(
    strategy: str, key: str | bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_clock(monkeypatch, 1_700_000_000.0)
    limiter = weir.RateLimiter(weir.Table("memory://?keys=64"), strategy)
    limit = Limit(1, 1, "day")
    assert limiter.hit(limit, key)
    assert not limiter.hit(limit, key)
    assert limiter.hit(limit, key, key), "another key"
    limiter.clear(limit, key)
    assert limiter.hit(limit, key)
    table = weir.Table("memory://?keys=64")
    assert table.decide([limit], key).allowed
    assert not table.decide([limit], [key]).allowed


def test_namespaces_are_apart() -> None:
    table = weir.Table("memory://?keys=64")
    limiter = weir.RateLimiter(table)
    for namespace in ("a", "a/b", "a%2Fb", "", "\0", "\0\1\0\0\0\0\0\0\0"):
        assert limiter.hit(Limit(1, namespace=namespace), "b", "c"), namespace
        assert not limiter.hit(Limit(1, namespace=namespace), "b", "c"), namespace
    assert limiter.hit(Limit(1, namespace="a"), "c")


def test_a_limiter_and_its_table_count_the_same_key() -> None:
    table = weir.Table("memory://?keys=64")
    limiter = weir.RateLimiter(table)
    limit = Limit(2)
    for identifiers in ([], [""], ["a"], ["a", "b"], ["a/b", "%"], [b"\xff", 7]):
        assert limiter.hit(limit, *identifiers)
        assert table.decide([limit], join_key(*identifiers))[0].remaining == 0
        assert not limiter.hit(limit, *identifiers)
        table.clear([limit], [join_key(*identifiers)])
        assert limiter.hit(limit, *identifiers)


# ------------------------------------------------------------------------------ keys that are long

LONG = st.one_of(
    st.integers(200, 2000).flatmap(
        lambda n: st.sampled_from(["/", "%", "a", "é", "€"]).map(lambda c: c * n)
    ),
    st.binary(min_size=250, max_size=300),
    st.text(min_size=250, max_size=300),
)


@given(st.lists(LONG, max_size=4), st.lists(LONG, max_size=4))
def test_long_identifiers_make_different_keys(a: list[str | bytes], b: list[str | bytes]) -> None:
    same = [canonical(i) for i in a] == [canonical(i) for i in b]
    assert (join_key(*a) == join_key(*b)) == same
    limit = Limit(10)
    assert limit.full_key(join_key(*a)) == limit.key_for(*a)


@pytest.mark.parametrize("identifier", ["/" * 5_000_000, b"\xff" * 5_000_000, "é" * 300, "a" * 257])
def test_a_long_identifier_is_hashed(identifier: str | bytes) -> None:
    key = join_key("api", identifier, "view")
    assert len(key.encode()) < 300
    assert key.startswith("api/")
    assert key.endswith("/view")
    assert "%#" in key
    assert join_key(identifier + identifier[:1]) != join_key(identifier)


def test_an_identifier_of_256_bytes_stays_readable() -> None:
    assert join_key("a" * 256) == "a" * 256
    assert join_key("a" * 257).startswith("a" * 64 + "%#")


def test_as_many_identifiers_as_one_likes_make_a_bounded_key() -> None:
    key = join_key(*["x" * 200] * 500)
    assert len(key) < 300
    assert Limit(10).key_for(*["x" * 200] * 500) == Limit(10).full_key(key)


@pytest.mark.parametrize(
    "key", ["x" * 5_000_000, "/" * 5_000_000, "a/" * 5000, b"\xff" * 20_000_000]
)
def test_a_long_joined_key_is_bounded(key: str | bytes) -> None:
    table = weir.Table()
    assert len(weir.parse("2/minute").full_key(key)) < 4096
    assert [table.decide([weir.parse("2/minute")], key).allowed for _ in range(3)] == [
        True,
        True,
        False,
    ]
    assert table.decide([weir.parse("2/minute")], key[:-1]).allowed
