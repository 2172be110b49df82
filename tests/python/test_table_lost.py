"""Tables whose file is removed or cut short while processes have it open."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

import weir
from weir import Limit, Table, TableError

LIMIT = Limit(2, 1, "hour")
NOW = 1_800_000_000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    clock = mock.Mock(return_value=NOW)
    monkeypatch.setattr("time.time", clock)
    return clock


@pytest.fixture(params=["shm", "file", "auto"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A URI, and the file that it names."""
    name = f"lost-{uuid.uuid4().hex}"
    if request.param == "file":
        yield f"file://{tmp_path / name}?keys=1000", tmp_path / name
        return
    if request.param == "auto":
        folder = Path(f"/dev/shm/weir.auto-{os.geteuid()}.999-{name}")
        folder.mkdir(mode=0o700)
        yield f"shm://{folder.name[5:]}/table?keys=1000", folder / "table"
        shutil.rmtree(folder, ignore_errors=True)
        return
    path = Path(f"/dev/shm/weir.{name}")
    yield f"shm://{name}?keys=1000", path
    path.unlink(missing_ok=True)


def test_all_who_have_a_removed_table_meet_in_the_next_one(
    place: tuple[str, Path], clock: mock.Mock, caplog: pytest.LogCaptureFixture
) -> None:
    uri, path = place
    with Table(uri) as one, Table(uri) as two:
        assert one.decide([LIMIT], "a").allowed
        assert two.decide([LIMIT], "b").allowed
        path.unlink()
        clock.return_value += 0.5
        assert two.decide([LIMIT], "a").allowed, "not looked at yet"
        clock.return_value += 0.6
        with caplog.at_level(logging.WARNING, "weir"):
            assert one.decide([LIMIT], "a").allowed
            assert two.decide([LIMIT], "a").allowed
        assert not one.decide([LIMIT], "a").allowed
        with Table(uri) as three:
            assert not three.decide([LIMIT], "a").allowed
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == 2, "one line of each handle"
        assert all("was removed while in use: all counts begin anew" in line for line in said)
        assert "keys=" not in said[0]
        clock.return_value += 5
        one.decide([LIMIT], "a")
        assert len(caplog.records) == 2
        one.verify()


def test_a_folder_of_automatic_tables_that_is_gone_is_made_again(clock: mock.Mock) -> None:
    folder = Path(f"/dev/shm/weir.auto-{os.geteuid()}.998-{uuid.uuid4().hex}")
    folder.mkdir(mode=0o700)
    try:
        with Table(f"shm://{folder.name[5:]}/table?keys=1000") as table:
            shutil.rmtree(folder)
            clock.return_value += 1
            assert table.decide([LIMIT], "a").allowed
            assert (folder / "table").exists()
            assert folder.stat().st_mode & 0o777 == 0o700
            # A folder that others can enter is not used: counting goes on in the table there was.
            shutil.rmtree(folder)
            folder.mkdir()
            folder.chmod(0o777)
            clock.return_value += 1
            assert table.decide([LIMIT], "a").allowed
            assert not table.decide([LIMIT], "a").allowed
            assert not (folder / "table").exists()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_rules_statistics_and_notes_go_into_the_next_table(
    tmp_path: Path, clock: mock.Mock
) -> None:
    uri = f"file://{tmp_path / 'table'}?keys=1000"
    with Table(uri) as table:
        table.block("192.0.2.1")
        table.ipv6_prefix = 56
        table.reveal = True
        table.register(LIMIT, "before/", "/after")
        table.register(Limit(2, 1, "day", tz="Asia/Tokyo"), "before/", "/after")
        table.decide([Limit(1), LIMIT], ["192.0.2.2", "192.0.2.2"])
        labels = [counts[0] for counts in table.counts()]
        known = table.registry()
        weir.unlink(uri)
        clock.return_value += 1
        table.decide([Limit(1), LIMIT], ["192.0.2.2", "192.0.2.2"])
        assert [rule.client for rule in table.rules()] == ["192.0.2.1"]
        assert table.ipv6_prefix == 56
        assert table.reveal
        assert table.registry() == known
        assert known[1].limit.tz == "Asia/Tokyo"
        assert [counts[0] for counts in table.counts()] == labels
        assert sum(counts.allowed for counts in table.counts()) == 2, "counted from nothing"


def test_a_removed_table_that_cannot_be_made_again_goes_on(
    tmp_path: Path, clock: mock.Mock, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with Table(f"file://{folder / 'table'}?keys=1000") as table:
        table.decide([LIMIT], "a")
        shutil.rmtree(folder)
        for _ in range(3):
            clock.return_value += 1
            table.decide([LIMIT], "a")
        assert not table.decide([LIMIT], "a").allowed
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == 1
        assert "there is no new one yet" in said[0]
        folder.mkdir()
        clock.return_value += 1
        assert table.decide([LIMIT], "a").allowed


def test_a_descriptor_that_the_program_closed_is_not_judged(
    tmp_path: Path, clock: mock.Mock
) -> None:
    path = tmp_path / "table"
    with Table(f"file://{path}?keys=1000") as table:
        numbers = [
            int(number.name)
            for number in Path("/proc/self/fd").iterdir()
            if number.exists() and number.samefile(path)
        ]
        (number,) = numbers
        other = os.open("/dev/null", os.O_RDONLY)
        os.dup2(other, number)
        os.close(other)
        clock.return_value += 1
        assert table.decide([LIMIT], "a").allowed
        assert table.decide([LIMIT], "a").allowed
        assert not table.decide([LIMIT], "a").allowed


_TRUNCATED = """
import os, sys, time
from unittest import mock
from weir import Limit, RateLimiter, Table, TableError
path = sys.argv[1]
limit = Limit(2, 1, "hour")
with mock.patch("time.time", return_value=1_800_000_000.0) as clock:
    table = Table(f"file://{path}?keys=1000")
    limiter = RateLimiter(table)
    assert table.decide([limit], "a").allowed
    size = os.path.getsize(path)
    os.truncate(path, int(sys.argv[2]))
    clock.return_value += 1
    calls = [
        lambda: table.decide([limit], "a"),
        lambda: limiter.hit(limit, "a"),
        lambda: limiter.test(limit, "a"),
        lambda: limiter.get_window_stats(limit, "a"),
        lambda: table.peek([limit], "a"),
        lambda: table.clear([limit], "a"),
        table.reset, table.info, table.verify, table.counts, table.rules, table.registry,
        lambda: table.block("192.0.2.1"),
        lambda: table.meter("m"),
        lambda: table.name_of("a"),
        lambda: table.top_clients("denied", 5),
        lambda: table.ipv6_prefix,
        lambda: table.rules_version,
    ]
    def refused():
        for i, call in enumerate(calls):
            try:
                call()
            except TableError as error:
                assert "truncated" in str(error), error
                assert error.is_outage
            else:
                raise AssertionError(i)
        assert not table.check()
        assert not table.closed
    refused()
    os.truncate(path, size)
    clock.return_value += 1
    refused()
    os.unlink(path)
    clock.return_value += 1
    assert table.decide([limit], "a").allowed
    assert table.decide([limit], "a").allowed
    assert not table.decide([limit], "a").allowed
    table.verify()
    os.truncate(path, 0)
    clock.return_value += 1
    assert not table.check()
    table.close()
    assert table.closed
    try:
        table.decide([limit], "a")
    except TableError as error:
        assert "closed" in str(error)
"""


@pytest.mark.parametrize("left", [0, 100, 4096, 20000])
def test_a_truncated_table_refuses_until_it_is_removed(tmp_path: Path, left: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _TRUNCATED, str(tmp_path / "table"), str(left)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, (done.returncode, done.stderr)


def test_memory_is_not_watched(clock: mock.Mock) -> None:
    with Table("memory://?keys=1000") as table:
        table.decide([LIMIT], "a")
        clock.return_value += 100
        assert table.decide([LIMIT], "a").allowed
        assert not table.decide([LIMIT], "a").allowed
    with pytest.raises(TableError, match="closed"):
        table.decide([LIMIT], "a")


def test_who_only_looks_at_a_table_makes_none_anew(tmp_path: Path, clock: mock.Mock) -> None:
    path = tmp_path / "table"
    with Table(f"file://{path}?keys=1000", _observes=True) as table:
        path.unlink()
        clock.return_value += 1
        assert table.peek([LIMIT], "a").allowed
        assert table.decide([LIMIT], "a").allowed
        assert table.counts()[0].allowed == 1
        assert not path.exists()
