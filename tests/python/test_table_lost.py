"""Tables whose file is removed or cut short while processes have it open."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from flask import Flask

import weir
from servers.ports import PATIENCE, quickest
from weir import Limit, Table, TableError
from weir.flask import Limiter

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
        logged = [record.getMessage() for record in caplog.records]
        assert len(logged) == 2, "one line of each handle"
        assert all("was removed while in use: all counts start at zero" in line for line in logged)
        assert "keys=" not in logged[0]
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
            # A folder that others can enter is not used: the old table continues to count.
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


@pytest.mark.parametrize("happens", ["removed", "truncated"])
def test_applications_register_their_limits_in_the_next_table(
    tmp_path: Path, clock: mock.Mock, happens: str
) -> None:
    """Even if another process has created it, and gave its labels other numbers."""
    path = tmp_path / "table"
    uri = f"file://{path}?keys=1000"
    app = Flask(__name__)
    limiter = Limiter(lambda: "192.0.2.1", app=app, storage_uri=uri)
    app.get("/")(limiter.limit("2/hour; 9/day")(lambda: ""))
    client = app.test_client()
    table = limiter.storage
    assert isinstance(table, Table)
    with app.app_context():
        assert [client.get("/").status_code for _ in range(3)] == [200, 200, 429]
        known, prefix = table.registry(), table.ipv6_prefix
        assert len(known) == 2
        if happens == "truncated":
            os.truncate(path, 4096)
        path.unlink()
        with Table(uri) as other:
            other.decide([Limit(7), Limit(9, 1, "day")], "b")
            clock.return_value += 1
            assert [client.get("/").status_code for _ in range(3)] == [200, 200, 429]
            counts = {counts.limit: counts[1:3] for counts in other.counts()}
            assert counts["2 per 1 hour"] == (2, 1), counts
            assert other.registry() == known
            assert other.ipv6_prefix == prefix
    table.close()


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
        logged = [record.getMessage() for record in caplog.records]
        assert len(logged) == 1
        assert "there is no new one yet" in logged[0]
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
import logging, os, sys
from unittest import mock
from weir import Limit, RateLimiter, Table, TableError
path, left = sys.argv[1], int(sys.argv[2])
uri = f"file://{path}?keys=1000"
limit = Limit(2, 1, "hour")
calls = [
    lambda: table.decide([limit], "a"),
    lambda: limiter.hit(limit, "a"),
    lambda: limiter.test(limit, "a"),
    lambda: limiter.get_window_stats(limit, "a"),
    lambda: table.peek([limit], "a"),
    lambda: table.clear([limit], "a"),
    lambda: table.reset(), lambda: table.info(), lambda: table.verify(), lambda: table.counts(),
    lambda: table.rules(), lambda: table.registry(),
    lambda: table.block("192.0.2.1"),
    lambda: table.meter("m"),
    lambda: table.name_of("a"),
    lambda: table.top_clients("denied", 5),
    lambda: table.ipv6_prefix,
    lambda: table.rules_version,
]
lines = []
logging.getLogger("weir").addFilter(lambda record: lines.append(record.getMessage()))
with mock.patch("time.time", return_value=1_800_000_000.0) as clock:
    for i, call in enumerate(calls):
        table = Table(uri)
        limiter = RateLimiter(table)
        assert table.decide([limit], "a").allowed
        table.block("192.0.2.9")
        os.truncate(path, left)
        try:
            call()
        except TableError as error:
            assert "truncated" in str(error), error
            assert error.is_outage
        assert not table.closed
        clock.return_value += 1
        assert table.peek([limit], "c")  # a call that reads the clock, as clear() does not
        call()
        assert [table.decide([limit], "b").allowed for _ in range(3)] == [True, True, False], i
        table.verify()
        with Table(uri) as other:
            assert not other.decide([limit], "b").allowed, i
        assert table.rule_of("192.0.2.9") is None
        assert len(lines) == i + 1, lines
        assert "truncated while in use: all counts start at zero in a new table" in lines[i]
        assert lines[i].endswith("and rules about clients are lost")
        table.close()
        os.unlink(path)
"""


@pytest.mark.parametrize("left", [0, 100, 4096, 20000])
def test_a_truncated_table_is_replaced_within_a_second(tmp_path: Path, left: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _TRUNCATED, str(tmp_path / "table"), str(left)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, (done.returncode, done.stderr)


@pytest.mark.parametrize("left", [0, 4096, 100_000, -64])
def test_a_table_that_is_extended_again_gives_no_second_quota(
    tmp_path: Path, clock: mock.Mock, left: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "table"
    uri = f"file://{path}?keys=1000"
    with Table(uri) as table, Table(uri) as other:
        assert [table.decide([LIMIT], "a").allowed for _ in range(3)] == [True, True, False]
        assert not other.decide([LIMIT], "a").allowed
        size = path.stat().st_size
        os.truncate(path, left if left >= 0 else size + left)
        os.truncate(path, size)
        for one in (table, other):  # before any of them looks at the file
            with pytest.raises(TableError, match="truncated"):
                one.decide([LIMIT], "a")
        with pytest.raises(TableError, match=r"not a weir table|truncated"):
            Table(uri)
        clock.return_value += 1
        allowed = [one.decide([LIMIT], "a").allowed for one in (table, other, table, other)]
        assert allowed == [True, True, False, False], "one quota in one new table"
        lines = [record.getMessage() for record in caplog.records]
        assert sum("was truncated while in use" in line for line in lines) == 2, lines
        with Table(uri) as third:
            assert not third.decide([LIMIT], "a").allowed


def test_a_file_with_other_data_is_not_replaced(
    tmp_path: Path, clock: mock.Mock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "table"
    with Table(f"file://{path}?keys=1000") as table:
        table.decide([LIMIT], "a")
        path.write_text("the only copy")
        for _ in range(3):
            clock.return_value += 1
            with pytest.raises(TableError, match="truncated"):
                table.decide([LIMIT], "a")
        assert path.read_text() == "the only copy"
        (line,) = [record.getMessage() for record in caplog.records]
        assert "has other data now; remove it" in line
        path.unlink()
        clock.return_value += 1
        assert table.decide([LIMIT], "a").allowed


_CUT_AT_ONCE = """
import os, random, sys, threading
from unittest import mock
from weir import Limit, RateLimiter, Table, TableError
path, left, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
limits = [Limit(50, 1, "hour"), Limit(40, 1, "hour", strategy="moving-window")]
outcomes = []

def send(call):
    try:
        call()
    except TableError as error:
        assert error.code == "EFORMAT", error
        assert error.is_outage
        assert "truncated" in str(error), error
        outcomes.append("refused")
    else:
        outcomes.append("done")

with mock.patch("time.time", return_value=1_800_000_000.0):  # no second passes: no check
    table = Table(f"file://{path}?keys=1000")
    limiter = RateLimiter(table)
    for i in range(500):
        table.decide(limits, f"client {i}")
    table.block("192.0.2.1")
    calls = [
        lambda: [table.decide(limits, f"client {i}") for i in range(1000)],
        lambda: [limiter.hit(limits[1], f"client {i}") for i in range(1000)],
        lambda: [table.clear(limits, f"client {i}") for i in range(1000)],
        table.counts, table.top_clients, table.rules, table.registry, table.info, table.verify,
        lambda: table.block("192.0.2.2"), lambda: table.rule_of("192.0.2.1"),
        lambda: table.load_rules([("192.0.2.3", "block", None)]), lambda: table.unlist("192.0.2.1"),
        lambda: table.register(limits[0], "x/", ""), lambda: table.meter("m", 1),
        table.reset,
    ]
    calls = calls[number:number + 1] or calls
    if number == 99:  # from several threads, in the middle of it
        until = threading.Event()
        def hammer():
            while "refused" not in outcomes and not until.is_set():
                send(random.choice(calls[:2]))
        threads = [threading.Thread(target=hammer) for _ in range(4)]
        for thread in threads:
            thread.start()
        os.truncate(path, left)
        threading.Timer(20, until.set).start()
        for thread in threads:
            thread.join()
        assert "refused" in outcomes
        until.set()
    else:
        os.truncate(path, left)
        send(calls[0])
        send(calls[0])
    send(lambda: [table.decide(limits, f"client {i}") for i in range(1000)])
    replaced = os.path.getsize(path) > left  # by a call that looks at the file each time
    assert outcomes[-1] == "refused" or replaced, outcomes
    for _ in range(3):  # other tables go on, and so do the robust locks of this thread
        with Table(f"file://{path}.other?keys=1000") as other:
            assert other.decide(limits, "a").allowed
            other.verify()
        os.unlink(f"{path}.other")
    table.close()
os._exit(0 if threading.active_count() < 3 else 3)
"""


@pytest.mark.parametrize("left", [0, 4096, 20000, 100_000, 800_000])
@pytest.mark.parametrize("number", [*range(16), 99])
def test_no_call_ends_the_process_at_the_moment_of_the_cut(
    tmp_path: Path, left: int, number: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CUT_AT_ONCE, str(tmp_path / "table"), str(left), str(number)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, (done.returncode, done.stderr)


_FOREIGN = """
import faulthandler, mmap, os, signal, sys
from weir import Table
{before}
table = Table(f"file://{{sys.argv[1]}}?keys=1000")
{after}
with open(sys.argv[1] + ".mine", "w+b") as file:
    file.truncate(8192)
    mine = mmap.mmap(file.fileno(), 8192)
    file.truncate(0)
    print("reading", flush=True)
    mine[5000]
"""


@pytest.mark.parametrize(
    ("before", "after", "error"),
    [
        ("", "", ""),
        ("faulthandler.enable()", "", "Bus error"),
        ("", "faulthandler.enable()", "Bus error"),
        ("signal.signal(signal.SIGBUS, signal.SIG_IGN)", "", ""),
        ("", "signal.signal(signal.SIGBUS, signal.SIG_DFL)", ""),
        ("", "os.kill(os.getpid(), signal.SIGBUS)", None),
    ],
)
def test_a_bus_error_of_another_mapping_goes_where_it_went_before(
    tmp_path: Path, before: str, after: str, error: str | None
) -> None:
    program = _FOREIGN.format(before=before, after=after)
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "table")],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == -signal.SIGBUS, (done.returncode, done.stderr)
    assert ("reading" in done.stdout) == (error is not None)
    assert (error or "") in done.stderr


def test_a_cut_is_no_bus_error_for_a_handler_that_was_there_before(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", _CUT_AT_ONCE, tmp_path / "table", "4096", "0"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert "Bus error" not in done.stderr


def test_opening_again_does_not_wait_for_a_file_lock(tmp_path: Path, clock: mock.Mock) -> None:
    path = tmp_path / "table"
    with Table(f"file://{path}?keys=1000") as table:
        bytes_of_another = path.read_bytes()
        path.unlink()
        path.write_bytes(bytes_of_another)
        path.chmod(0o600)
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)

            def decide() -> float:
                clock.return_value += 1
                start = time.monotonic()
                assert table.decide([LIMIT], f"a{start}").allowed
                return time.monotonic() - start

            assert quickest(decide, 2) < 2
        clock.return_value += 1
        assert table.decide([LIMIT], "b").allowed
        assert table.decide([LIMIT], "a").allowed
        assert table.decide([LIMIT], "a").allowed, "in the new table"


def test_memory_is_not_watched(clock: mock.Mock) -> None:
    with Table("memory://?keys=1000") as table:
        table.decide([LIMIT], "a")
        clock.return_value += 100
        assert table.decide([LIMIT], "a").allowed
        assert not table.decide([LIMIT], "a").allowed
    with pytest.raises(TableError, match="closed"):
        table.decide([LIMIT], "a")


def test_reading_a_lost_table_creates_no_new_one(tmp_path: Path, clock: mock.Mock) -> None:
    path = tmp_path / "table"
    uri = f"file://{path}?keys=1000"
    with pytest.raises(TableError, match="No such file"):
        Table(uri, _observes=True)
    assert not path.exists()
    with Table(uri), Table(uri, _observes=True) as table:
        path.unlink()
        clock.return_value += 1
        assert table.peek([LIMIT], "a").allowed
        assert table.decide([LIMIT], "a").allowed
        assert table.counts()[0].allowed == 1
        assert not path.exists()
