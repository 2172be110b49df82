"""Custom stores: the example for SQLite, one with coroutines, and an optimistic one."""

from __future__ import annotations

import asyncio
import importlib.util
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

import weir
from weir.aio.storage import storage_from_string as aio_storage_from_string
from weir.aio.strategies import FixedWindowRateLimiter
from weir.errors import ConfigurationError, KeyRefusedError, StorageError
from weir.flask import Limiter
from weir.storage import SCHEMES, storage_from_string
from weir.stores.state import AsyncStateStorage, Change, Conflict, StateStorage
from weir.testing import StoreConformance

EXAMPLE = Path(__file__).parents[3] / "examples/stores/sqlite.py"


@pytest.fixture(autouse=True)
def _schemes() -> Iterator[None]:
    """Unregister the stores of a test when it ends."""
    known = dict(SCHEMES)
    yield
    SCHEMES.clear()
    SCHEMES.update(known)


def sqlite() -> Any:
    spec = importlib.util.spec_from_file_location("sqlite_example", EXAMPLE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_has_fewer_than_sixty_lines() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 60


class TestSQLite(StoreConformance):
    @pytest.fixture(autouse=True)
    def _path(self, tmp_path: Path) -> None:
        self.path = tmp_path / "limits.db"

    def open_store(self) -> Any:
        sqlite()
        return storage_from_string(f"sqlite://{self.path}", socket_timeout=30.0)

    def test_what_has_expired_is_dropped(self, store: Any) -> None:
        limit = weir.parse("1 per minute")
        store.set_clock(-3600.0)
        for n in range(25):
            store.decide([limit], f"old-{n}")
        store.set_clock()
        with store.transaction() as db:
            (before,) = db.execute("SELECT count(*) FROM weir").fetchone()
            db.execute("UPDATE weir SET expires = 1")
        for n in range(3):
            store.decide([limit], f"new-{n}")
        with store.transaction() as db:
            (after,) = db.execute("SELECT count(*) FROM weir").fetchone()
        assert (before, after) == (25, 3)

    def test_a_file_that_cannot_be_written_is_a_store_that_is_away(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="unable to open"):
            sqlite().SQLiteStorage(f"sqlite://{tmp_path}/none/limits.db").decide(
                [weir.parse("1/minute")], "a"
            )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program writes to the file, and does not finish."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        yield


@pytest.mark.parametrize(
    ("policy", "statuses"),
    [
        ("open", [200, 200, 200]),
        ("closed", [429, 429, 429]),
        ("local", [200, 200, 429]),
        ("raise", [500, 500, 500]),
    ],
)
def test_policies_apply_to_a_custom_store(tmp_path: Path, policy: str, statuses: list[int]) -> None:
    sqlite()
    app = Flask("own")
    limiter = Limiter(
        lambda: "alice",
        app=app,
        storage_uri=f"sqlite://{tmp_path}/limits.db",
        storage_options={"socket_timeout": 0.1},
        on_store_error=policy,
    )

    @app.get("/")
    @limiter.limit("2 per hour")
    def page() -> str:
        return "in"

    client = app.test_client()
    with locked(tmp_path / "limits.db"):
        assert [client.get("/").status_code for _ in statuses] == statuses
    if policy == "raise":
        assert [client.get("/").status_code for _ in range(3)] == [200, 200, 429]


def test_coroutines_call_a_custom_store_in_threads(tmp_path: Path) -> None:
    sqlite()
    limit = weir.parse("2 per hour")

    async def hits() -> list[bool]:
        storage = aio_storage_from_string(f"async+sqlite://{tmp_path}/limits.db")
        limiter = FixedWindowRateLimiter(storage)
        passed = [await limiter.hit(limit, "alice") for _ in range(3)]
        await storage.close()
        return passed

    assert asyncio.run(hits()) == [True, True, False]
    with pytest.raises(ConfigurationError, match=r"unknown storage scheme 'async\+nowhere'"):
        storage_from_string("async+nowhere://x")


class Coroutines(AsyncStateStorage):
    def __init__(self) -> None:
        super().__init__("coroutines://")
        self.states: dict[str, bytes] = {}

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[dict[str, bytes]]:
        yield self.states

    async def read(self, transaction: Any, names: Sequence[str]) -> dict[str, bytes]:
        return {name: self.states[name] for name in names if name in self.states}

    async def write(self, transaction: Any, changes: Sequence[Change]) -> None:
        for name, value, _ in changes:
            if value is None:
                self.states.pop(name, None)
            else:
                self.states[name] = value


class TestCoroutines(StoreConformance):
    def open_store(self) -> Any:
        return Coroutines()


class Optimistic(StateStorage):
    """Compares at the end that its states are unchanged, and fails every third time."""

    def __init__(self) -> None:
        super().__init__("optimistic://")
        self.states: dict[str, bytes] = {}
        self.lock = threading.Lock()
        self.decided = 0

    @contextmanager
    def transaction(self) -> Iterator[dict[str, Any]]:
        transaction: dict[str, Any] = {"read": {}, "changes": []}
        yield transaction
        with self.lock:
            self.decided += 1
            if self.decided % 3 == 0 or any(
                self.states.get(name) != value for name, value in transaction["read"].items()
            ):
                raise Conflict
            for name, value, _ in transaction["changes"]:
                if value is None:
                    self.states.pop(name, None)
                else:
                    self.states[name] = value

    def read(self, transaction: Any, names: Sequence[str]) -> dict[str, bytes]:
        transaction["read"] = {name: self.states.get(name) for name in names}
        return {name: value for name, value in transaction["read"].items() if value is not None}

    def write(self, transaction: Any, changes: Sequence[Change]) -> None:
        transaction["changes"] = changes


class TestOptimistic(StoreConformance):
    def open_store(self) -> Any:
        return Optimistic()


class Recorder(StateStorage):
    STORAGE_SCHEME = ("recorder",)
    outage = (TimeoutError,)

    def __init__(self, uri: str | None = None, **options: Any) -> None:
        super().__init__(uri, **options)
        self.states: dict[str, bytes] = {}
        self.names_read: list[Sequence[str]] = []
        self.error: BaseException | None = None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self.error:
            raise self.error
        yield

    def read(self, transaction: Any, names: Sequence[str]) -> dict[str, bytes]:
        self.names_read.append(names)
        return {name: self.states[name] for name in names if name in self.states}

    def write(self, transaction: Any, changes: Sequence[Change]) -> None:
        for name, value, _ in changes:
            if value is not None:
                self.states[name] = value


def test_a_cached_denial_makes_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weir.stores.denials.VERIFY", 3600.0)
    store = Recorder()
    limit = weir.parse("1 per minute")
    assert [store.decide([limit], "a").allowed for _ in range(5)] == [True] + [False] * 4
    assert len(store.names_read) == 2
    store.clear([limit], "a")
    assert len(store.names_read) == 3


def test_names_are_sorted_and_each_is_read_once() -> None:
    store = Recorder()
    limits = [weir.parse("9/minute"), weir.parse("10/minute"), weir.parse("9/minute")]
    store.decide(limits, ["b", "a", "b"])
    (names,) = store.names_read
    assert list(names) == sorted(names)
    assert len(names) == 2
    for name, left in zip(names, (9, 7), strict=True):
        limit, key = limits[1 if "/10/" in name else 0], "a" if "/10/" in name else "b"
        assert store.decide([limit], key, [0], weir.TEST)[0].remaining == left


def test_a_cached_denial_is_not_used_for_other_counters() -> None:
    """The same names and costs, but the third check is of the first counter or of the second."""
    store = Recorder()
    limits = [weir.parse("2/minute"), weir.parse("1/minute")]
    assert not store.decide([*limits, limits[1]], "a").allowed
    assert store.decide([*limits, limits[0]], "a").allowed


def test_an_outage_is_a_storage_error_that_shows_no_password() -> None:
    store = Recorder("recorder://app:secret@db.example/x?password=secret")
    store.error = TimeoutError("no answer")
    with pytest.raises(StorageError, match=r"recorder://db\.example/x: no answer") as raised:
        store.decide([weir.parse("1/minute")], "a")
    assert "secret" not in str(raised.value)
    assert not store.check()
    store.error = KeyError("a fault of the store's own")
    with pytest.raises(KeyError):
        store.decide([weir.parse("1/minute")], "a")


def test_a_value_that_is_no_counter_is_refused_by_name() -> None:
    store = Recorder()
    store.decide([weir.parse("2/minute")], "a")
    store.states = dict.fromkeys(store.states, b"something else")
    with pytest.raises(KeyRefusedError, match=r"weir:fw:\{LIMITER/a\}/2/1/minute holds something"):
        store.decide([weir.parse("2/minute")], "a")


def test_a_prefix_that_names_cannot_have_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="key_prefix"):
        Recorder(key_prefix="a b")


def test_limits_that_go_away_meanwhile_do_not_matter() -> None:
    limits = [weir.Limit(3), weir.Limit(4)]
    request = weir._core.state_request(b"weir", limits, "a", None, weir.HIT)
    limits.clear()
    decision, changes = request.decide([None, None], 1.0)
    assert decision.allowed
    assert len(changes) == 2
    with pytest.raises(ValueError, match="2 values"):
        request.decide([None], 1.0)
    with pytest.raises(TypeError, match="bytes or None"):
        request.decide(["a", None], 1.0)  # type: ignore[list-item]


def test_schemes_of_modules_in_the_environment_are_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "weir_test_plugin.py"
    module.write_text(
        "from weir.storage import register\n"
        "from weir import Table\n"
        "register('plugged', lambda uri, **options: Table('memory://'))\n"
    )
    with pytest.raises(ConfigurationError, match="unknown storage scheme 'plugged'"):
        storage_from_string("plugged://x")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("WEIR_STORES", "weir_test_plugin")
    assert storage_from_string("plugged://x").check()


def test_a_module_in_the_environment_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WEIR_STORES", "no_such_module")
    with pytest.raises(ConfigurationError, match="WEIR_STORES: no_such_module"):
        storage_from_string("plugged://x")
