"""Table and Decision: what goes in, what comes out, and what is refused."""

from __future__ import annotations

import collections.abc
import errno
import math
import os
import subprocess
import sys
import time
import uuid
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import weir
from weir import Decision, Limit, Table, TableError, Verdict, parse

NOW = 1_700_000_040.0
LIMIT = Limit(2)


@pytest.fixture
def clock() -> Iterator[mock.Mock]:
    with mock.patch.object(time, "time", return_value=NOW) as stopped:
        yield stopped


@pytest.fixture
def table() -> Table:
    return Table("memory://?keys=64")


@pytest.fixture
def name() -> Iterator[str]:
    name = f"test-{uuid.uuid4()}"
    yield name
    Path(f"/dev/shm/weir.{name}").unlink(missing_ok=True)


# ------------------------------------------------------------------------------------ decisions


def test_a_decision(table: Table, clock: mock.Mock) -> None:
    limits = [parse("3/minute"), parse("2/second"), parse("10/hour")]
    decision = table.decide(limits, "alice")
    assert decision.allowed is True
    assert decision.deciding == 1
    assert decision.now == NOW
    assert decision.verdict == decision[1] == Verdict(True, 2, 1, NOW + 1, 0.0, 0.0)
    assert len(decision) == 3
    assert [verdict.remaining for verdict in decision] == [2, 1, 9]
    assert decision[-1] == decision[2]
    assert decision[::2] == (decision[0], decision[2])
    with pytest.raises(IndexError):
        decision[3]
    with pytest.raises(TypeError):
        decision["0"]  # type: ignore[call-overload]
    assert "allowed by 1 of 3" in repr(decision)
    table.decide(limits, "alice")
    denied = table.decide(limits, "alice")
    assert (denied.allowed, denied.deciding) == (False, 1)
    assert denied.verdict == Verdict(False, 2, 0, NOW + 1, 1.0, 0.0)
    assert [verdict.remaining for verdict in denied] == [1, 0, 8], "none is charged"


def test_modes(table: Table, clock: mock.Mock) -> None:
    limits = [Limit(1), Limit(3)]

    def left(decision: Decision) -> list[int]:
        return [verdict.remaining for verdict in decision]

    assert left(table.decide(limits, "a", None, weir.TEST)) == [1, 3]
    assert left(table.decide(limits, "a", None, weir.HIT)) == [0, 2]
    assert left(table.decide(limits, "a", None, weir.HIT)) == [0, 2]
    each = table.decide(limits, "a", None, weir.EACH)
    assert left(each) == [0, 1]
    assert not each.allowed
    assert left(table.decide(limits, "a", [5, 1], weir.REFUND)) == [1, 2]


def test_keys_and_costs_by_limit(table: Table, clock: mock.Mock) -> None:
    decision = table.decide((LIMIT, LIMIT), ("a", b"b"), (2, 1))
    assert [verdict.remaining for verdict in decision] == [0, 1]
    assert table.decide([LIMIT], ["b"], [1]).allowed
    assert not table.decide([LIMIT], "b").allowed
    assert not table.decide(iter([LIMIT]), iter(["a"]), iter([1])).allowed  # type: ignore[arg-type]
    table.clear([LIMIT, LIMIT], ["a", "b"])
    assert table.decide([LIMIT, LIMIT], ["a", "b"], [2, 2]).allowed


def test_a_key_and_limit_given_twice_is_charged_twice(table: Table, clock: mock.Mock) -> None:
    decision = table.decide([LIMIT, LIMIT], "a")
    assert [verdict.remaining for verdict in decision] == [1, 0]
    assert not table.decide([LIMIT, LIMIT], "a").allowed
    table.clear([LIMIT], "a")
    assert table.decide([LIMIT], "a").allowed
    denied = table.decide([LIMIT, LIMIT], "a")
    assert [verdict.allowed for verdict in denied] == [True, False]
    assert [verdict.remaining for verdict in denied] == [1, 1]


def test_thirty_two_limits_at_most() -> None:
    # Of 64 keys, not every secret leaves room for 32 of one decision.
    table = Table("memory://?keys=4096")
    limits = [Limit(n) for n in range(1, 34)]
    assert len(table.decide(limits[:32], "a")) == 32
    for some in (limits, []):
        with pytest.raises(ValueError, match="1 to 32"):
            table.decide(some, "a")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), TypeError),
        (([LIMIT],), TypeError),
        (([LIMIT], "a", None, 0, 0.0, 0), TypeError),
        ((LIMIT, "a"), TypeError),
        (("10/minute", "a"), TypeError),
        ((["10/minute"], "a"), TypeError),
        (([LIMIT], 7), TypeError),
        (([LIMIT], [7]), TypeError),
        (([LIMIT], [None]), TypeError),
        (([LIMIT], []), ValueError),
        (([LIMIT], ["a", "b"]), ValueError),
        (([LIMIT], "a", []), ValueError),
        (([LIMIT], "a", [1, 1]), ValueError),
        (([LIMIT], "a", 1), TypeError),
        (([LIMIT], "a", [True]), TypeError),
        (([LIMIT], "a", [1.0]), TypeError),
        (([LIMIT], "a", [-1]), ValueError),
        (([LIMIT], "a", [2**63]), ValueError),
        (([LIMIT], "a", None, 4), ValueError),
        (([LIMIT], "a", None, -1), ValueError),
        (([LIMIT], "a", None, "hit"), TypeError),
        (([LIMIT], "a", None, None), TypeError),
    ],
)
def test_refused_arguments_charge_nothing(
    table: Table, arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        table.decide(*arguments)
    assert table.decide([LIMIT], "a", None, weir.TEST)[0].remaining == 2


def test_a_sequence_that_closes_the_table_is_survived(table: Table) -> None:
    class Closing(collections.abc.Sequence[Any]):
        def __init__(self, item: object) -> None:
            self.item = item

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: Any) -> Any:
            if index:
                raise IndexError
            table.close()
            return self.item

    with pytest.raises(TableError, match="closed"):
        table.decide(Closing(LIMIT), "a")


def test_large_numbers(table: Table, clock: mock.Mock) -> None:
    most = 2**63 - 1
    limit = Limit(most, 100, "year")
    assert table.decide([limit], "a", [most - 1])[0].remaining == 1
    assert not table.decide([limit], "a", [2]).allowed
    assert table.decide([limit], "a", [1])[0] == Verdict(
        True, most, 0, NOW + 100 * 360 * 86400, 0.0, 0.0
    )


# -------------------------------------------------------------------- decisions made by the caller


def test_decisions_can_be_made() -> None:
    verdict = Verdict(True, 10, 9, NOW, 0.0, 0.0)
    never = Verdict(
        allowed=False, limit=1, remaining=0, reset_at=NOW, retry_after=math.inf, delay=0
    )
    decision = Decision([verdict, never], 1, NOW)
    assert (decision.allowed, decision.deciding, decision.now) == (False, 1, NOW)
    assert list(decision) == [verdict, never]
    beyond = Verdict(True, 1, 1, math.inf, 0.0, math.inf)  # what lies after time's end
    assert Decision([beyond], 0, NOW).verdict == beyond
    assert Decision(((1, 10, 9, NOW, 0, 0.0),), deciding=0, now=NOW)[0] == verdict  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [
        ([], 0, NOW),
        ([Verdict(True, 1, 1, NOW, 0, 0)] * 33, 0, NOW),
        ([Verdict(True, 1, 1, NOW, 0, 0)], 1, NOW),
        ([Verdict(True, 1, 1, NOW, 0, 0)], -1, NOW),
        ([Verdict(True, 1, 1, NOW, 0, 0)], 0, math.nan),
        ([Verdict(True, 1, 1, NOW, 0, 0)], 0, -1.0),
        ([Verdict(True, 1, -1, NOW, 0, 0)], 0, NOW),
        ([Verdict(True, 1, 1, math.nan, 0, 0)], 0, NOW),
        ([Verdict(True, 1, 1, -math.inf, 0, 0)], 0, NOW),
        ([(True, 1, 1)], 0, NOW),
        ([None], 0, NOW),
        (None, 0, NOW),
        ([Verdict(True, True, 1, NOW, 0, 0)], 0, NOW),
        ([Verdict(True, 1, 1, "now", 0, 0)], 0, NOW),  # type: ignore[arg-type]
    ],
)
def test_impossible_decisions_are_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Decision(*arguments)


# --------------------------------------------------------------------------------------- opening


def test_uri_and_namespace(name: str) -> None:
    assert Table().uri == "memory://"
    first = Table(f"shm://{name}?keys=64")
    other = Table(f"shm://{name}", namespace=1)
    assert (first.uri, first.namespace) == (f"shm://{name}?keys=64", 0)
    assert (other.uri, other.namespace) == (f"shm://{name}", 1)
    assert repr(other) == f"<weir.Table 'shm://{name}'>"
    once = Limit(1)
    assert first.decide([once], "a").allowed
    assert other.decide([once], "a").allowed, "namespaces are apart"
    assert not other.decide([once], "a").allowed
    assert not Table(f"shm://{name}", namespace=1).decide([once], "a").allowed
    assert Table(f"shm://{name}", namespace=2**63 - 1).decide([once], "a").allowed
    assert weir.RateLimiter(Table(f"shm://{name}", namespace=2)).hit(once, "a")
    assert not Table(f"shm://{name}", namespace=2).decide([once], "a").allowed
    for wrong, error in (
        (-1, ValueError),
        (2**63, ValueError),
        (True, TypeError),
        ("a", TypeError),
    ):
        with pytest.raises(error, match="namespace"):
            Table(namespace=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "memory",
        "memory:/",
        "redis://",
        "shm://",
        "shm://a/b",
        "shm://" + "x" * 201,
        "file://relative",
        "memory://?keys=0",
        "memory://?keys=x",
        "memory://?keys=999999999999",
        "memory://?unknown=1",
        "shm://é",
    ],
)
def test_a_uri_that_cannot_be_read(uri: str) -> None:
    with pytest.raises(weir.ParseError) as refusal:
        Table(uri)
    assert refusal.value.code in ("ESYNTAX", "EINVAL")
    assert str(refusal.value)


def test_wrong_uris() -> None:
    for wrong in (None, b"memory://", 1, Path("/tmp/x")):
        with pytest.raises(TypeError):
            Table(wrong)  # type: ignore[arg-type]
    for text in ("memory://\0", "shm://\udc80"):
        with pytest.raises(ValueError, match=r"NUL|surrogates"):
            Table(text)
    with pytest.raises(TypeError):
        Table(uri="memory://")  # type: ignore[call-arg]


def test_another_size_is_an_error(name: str) -> None:
    table = Table(f"shm://{name}?keys=64")
    assert table.info()["keys_max"] == 64
    assert Table(f"shm://{name}").info()["keys_max"] == 64
    with pytest.raises(TableError) as refusal:
        Table(f"shm://{name}?keys=128")
    assert refusal.value.code == "EMISMATCH"
    assert name in str(refusal.value)


def test_a_file_that_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "table"
    for content in (b"something else entirely\n" * 500, b"x"):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(TableError) as refusal:
            Table(f"file://{path}")
        assert refusal.value.code == "EFORMAT"
        assert str(path) in str(refusal.value)
        assert path.read_bytes() == content


def test_a_table_of_another_version(tmp_path: Path) -> None:
    path = tmp_path / "table"
    Table(f"file://{path}?keys=64").close()
    with path.open("r+b") as file:
        file.seek(8)  # behind the magic
        file.write((999).to_bytes(4, sys.byteorder))
    with pytest.raises(TableError) as refusal:
        Table(f"file://{path}")
    assert refusal.value.code == "EVERSION"


def test_a_truncated_table(tmp_path: Path) -> None:
    path = tmp_path / "table"
    Table(f"file://{path}?keys=64").close()
    size = path.stat().st_size
    for length in (size - 1, size // 2, 4096, 100, 8):
        os.truncate(path, length)
        with pytest.raises(TableError) as refusal:
            Table(f"file://{path}")
        assert refusal.value.code == "EFORMAT"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_table_of_another_user(tmp_path: Path) -> None:
    path = tmp_path / "table"
    Table(f"file://{path}?keys=64").close()
    os.chown(path, 12345, 12345)
    with pytest.raises(TableError) as refusal:
        Table(f"file://{path}")
    assert (refusal.value.code, refusal.value.errno) == ("EACCES", errno.EACCES)
    assert isinstance(refusal.value, OSError)


def test_a_place_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(TableError):
        Table(f"file://{tmp_path}/no/such/place")
    with pytest.raises(TableError):
        Table(f"file://{tmp_path}")


@pytest.fixture
def small_filesystem(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_file_system_is_an_error_at_opening(small_filesystem: Path) -> None:
    with pytest.raises(TableError) as refusal:
        Table(f"file://{small_filesystem}/table")
    assert (refusal.value.code, refusal.value.errno) == ("ENOSPC", errno.ENOSPC)
    assert list(small_filesystem.iterdir()) == [], "nothing is left behind"
    with Table(f"file://{small_filesystem}/table?keys=64&hits=64") as table:
        assert table.decide([LIMIT], "a").allowed


@pytest.mark.parametrize("uri", ["shm://full", "auto://"])
def test_full_shared_memory_is_an_error_at_opening(uri: str) -> None:
    """As in a container whose /dev/shm is small and taken."""
    program = f"""
import os, weir
from weir.stores import auto
auto.server = lambda: auto.Server(os.getpid(), 1)
try:
    weir.storage.storage_from_string({uri!r})
except weir.TableError as error:
    print(error.code, os.listdir("/dev/shm"))
print(weir.storage.storage_from_string({uri!r}, keys=64, hits=64).check())
"""
    mount = "mount -t tmpfs -o size=1m none /dev/shm || exit 77; exec "
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount + '"$0" -c "$1"', sys.executable, program],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no file system can be mounted here")
    assert done.stdout.splitlines() == ["ENOSPC []", "True"], done.stderr


def test_a_file_keeps_its_counters(tmp_path: Path) -> None:
    with Table(f"file://{tmp_path}/table?keys=64") as table:
        table.decide([LIMIT], "a", [2])
    with Table(f"file://{tmp_path}/table") as table:
        assert not table.decide([LIMIT], "a").allowed


def test_unlink(name: str) -> None:
    table = Table(f"shm://{name}?keys=64")
    assert table.decide([LIMIT], "a", [2]).allowed
    weir.unlink(f"shm://{name}")
    assert not table.decide([LIMIT], "a").allowed, "who has it open keeps it"
    assert Table(f"shm://{name}?keys=64").decide([LIMIT], "a").allowed, (
        "the next open makes a new one"
    )
    weir.unlink(f"shm://{name}")
    with pytest.raises(TableError) as refusal:
        weir.unlink(f"shm://{name}")
    assert refusal.value.code == "ENOENT"
    with pytest.raises(weir.ParseError):
        weir.unlink("shm://")
    with pytest.raises(TypeError):
        weir.unlink(7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="NUL"):
        weir.unlink("shm://a\0b")


# -------------------------------------------------------------------------------- the whole table


def test_info_counts(table: Table, clock: mock.Mock) -> None:
    table.decide([LIMIT, Limit(5, strategy="moving-window")], "a")
    info = table.info()
    assert {name: type(value) for name, value in info.items()} == dict.fromkeys(
        (
            "keys_max",
            "keys",
            "evictions",
            "lines_max",
            "lines_used",
            "recoveries",
            "bytes",
            "stripes",
            "huge_pages",
        ),
        int,
    )
    assert (info["keys_max"], info["keys"], info["evictions"]) == (64, 2, 0)
    table.verify()
    table.reset()
    assert table.info()["keys"] == 0
    assert table.decide([LIMIT], "a", [2]).allowed


def test_evictions_are_counted_and_size_is_kept(table: Table) -> None:
    size = table.info()["bytes"]
    for n in range(1000):
        table.decide([LIMIT], str(n))
    info = table.info()
    assert info["evictions"] > 0
    assert info["keys"] <= 64
    assert info["bytes"] == size
    table.verify()


def test_a_closed_table(table: Table) -> None:
    limiter = weir.RateLimiter(table)
    assert table.check() is True
    assert not table.closed
    with table as same:
        assert same is table
    assert table.closed
    table.close()
    assert table.check() is False
    assert "closed" in repr(table)
    for call in (
        lambda: table.decide([LIMIT], "a"),
        lambda: table.clear([LIMIT], "a"),
        table.info,
        table.reset,
        table.verify,
        lambda: limiter.hit(LIMIT, "a"),
        lambda: limiter.test(LIMIT, "a"),
        lambda: limiter.clear(LIMIT, "a"),
        lambda: limiter.get_window_stats(LIMIT, "a"),
    ):
        with pytest.raises(TableError, match="closed") as refusal:
            call()
        assert isinstance(refusal.value, weir.StorageError)


def test_weak_references() -> None:
    table = Table("memory://?keys=64")
    reference = weakref.ref(table)
    del table
    assert reference() is None


def test_errors_form_a_family() -> None:
    assert issubclass(weir.TableError, (weir.StorageError, OSError))
    assert issubclass(weir.StorageError, weir.WeirError)
    assert issubclass(weir.ParseError, weir.WeirError)
    assert issubclass(weir.ConfigurationError, weir.WeirError)
    assert weir.WeirError("x").code == ""
    assert weir.StorageError("x").storage_error is None
    assert weir.ParseError("x").column == 0
