"""Stores from URIs, and the registration of others."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import weir
from weir import Limit, Table, storage
from weir.storage import MemoryStorage, Storage, StorageTypes, register, storage_from_string


@pytest.fixture
def schemes() -> Iterator[dict[str, Any]]:
    before = dict(storage.SCHEMES)
    yield storage.SCHEMES
    storage.SCHEMES.clear()
    storage.SCHEMES.update(before)


def test_memory() -> None:
    for store in (
        storage_from_string("memory://"),
        storage_from_string("memory://?keys=64"),
        storage_from_string("memory://", keys=64),
        storage_from_string("memory://?hits=1000", keys=64),
        MemoryStorage(),
        MemoryStorage("memory://", keys="64"),
    ):
        assert isinstance(store, MemoryStorage)
        assert isinstance(store, Table)
        assert isinstance(store, Storage)
        assert isinstance(store, StorageTypes)
        assert store.check()
        assert store.decide([Limit(1)], "a").allowed
        assert not store.decide([Limit(1)], "a").allowed
        store.reset()
        assert store.decide([Limit(1)], "a").allowed
    assert storage_from_string("memory://", keys=64).uri == "memory://?keys=64"  # type: ignore[attr-defined]


def test_options_of_other_stores_are_ignored() -> None:
    """An application keeps its storage_options when its URI changes from redis:// to memory://."""
    options = {"socket_connect_timeout": 30, "wrap_exceptions": True, "keys": None}
    assert storage_from_string("memory://", **options).check()


def test_wrong_sizes_are_refused() -> None:
    for keys in (0, "many", -1):
        with pytest.raises(weir.ParseError):
            storage_from_string("memory://", keys=keys)


def test_shm_and_file(tmp_path: Path) -> None:
    name = f"test-{uuid.uuid4()}"
    try:
        for uri in (f"shm://{name}", f"file://{tmp_path}/table"):
            first = storage_from_string(uri, keys=64)
            second = storage_from_string(uri)
            assert isinstance(first, Table)
            assert first.decide([Limit(1)], "a").allowed
            assert not second.decide([Limit(1)], "a").allowed
    finally:
        weir.unlink(f"shm://{name}")


@pytest.mark.parametrize("uri", ["", "memory", "unknown://", "async+unknown://", "://"])
def test_unknown_schemes(uri: str) -> None:
    with pytest.raises(weir.ConfigurationError, match="memory://"):
        storage_from_string(uri)


@pytest.mark.parametrize("scheme", ["memory", "shm", "file", "auto", "redis", "postgresql", "x"])
@pytest.mark.parametrize(
    "rest",
    [
        *(
            "u:PASSWORD@host/0",
            "PASSWORD@host",
            ":PASSWORD@[::1/0",
            "u:a@PASSWORD@h:x",
            "u:PASSWORD/[@h",
        ),
        *(
            "h/0?password=PASSWORD",
            "h?keys=8&password=PASSWORD",
            "u:PASSWORD?x@h",
            "u: PASSWORD\n@h",
        ),
    ],
)
def test_no_error_shows_the_password_of_a_mistyped_uri(scheme: str, rest: str) -> None:
    uri = f"{scheme}://{rest}"
    text = ""
    try:
        storage_from_string(uri)
    except Exception as error:
        text = str(error)
    assert "PASSWORD" not in text, text
    if scheme not in ("shm", "file"):
        return
    with pytest.raises(weir.ParseError) as raised:
        Table(uri)
    assert "PASSWORD" not in str(raised.value)


def test_an_error_hides_the_password() -> None:
    with pytest.raises(weir.ConfigurationError) as refusal:
        storage_from_string("nosuch://user:secret@host/0")
    assert "secret" not in str(refusal.value)


def test_registration_of_a_callable(schemes: dict[str, Any]) -> None:
    calls = []

    def factory(uri: str, **options: Any) -> Table:
        calls.append((uri, options))
        return Table("memory://?keys=64")

    register("mine", factory)
    assert storage_from_string("mine://here", colour="blue").check()
    assert calls == [("mine://here", {"colour": "blue"})]


def test_registration_by_name_is_imported_when_needed(schemes: dict[str, Any]) -> None:
    register("later", "weir.storage:_open_table")
    register("never", "no.such.module:Storage")
    assert schemes["later"] == "weir.storage:_open_table"
    with pytest.raises(weir.ParseError):  # of the table: the factory was found and called
        storage_from_string("later://")
    assert callable(schemes["later"])
    with pytest.raises(ModuleNotFoundError):
        storage_from_string("never://")


def test_subclasses_register_themselves(schemes: dict[str, Any]) -> None:
    class Mine(Storage):
        STORAGE_SCHEME = ("mine", "mine+tls")

        def decide(self, *arguments: Any) -> Any:
            raise NotImplementedError

        def clear(self, *arguments: Any) -> None:
            raise NotImplementedError

    class Derived(Mine):
        """Registers nothing by inheritance."""

    store = storage_from_string("mine+tls://host", colour="blue")
    assert type(store) is Mine
    assert (store.uri, store.options) == ("mine+tls://host", {"colour": "blue"})
    assert schemes["mine"] is Mine
    assert Derived().check()


def test_abstract_methods_are_required() -> None:
    class Half(Storage):
        def clear(self, *arguments: Any) -> None:
            raise NotImplementedError

    with pytest.raises(TypeError, match="decide"):
        Half()  # type: ignore[abstract]
