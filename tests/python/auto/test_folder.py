"""The folder of automatic tables: what ended servers leave, other users, other namespaces."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import weir
from weir import Limit, Table
from weir.storage import storage_from_string
from weir.stores import auto, server_process
from weir.stores.auto import Server, open_auto

SHM = Path("/dev/shm")


ONCE = Limit(1, 1, "day")


def dead_pid() -> int:
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def make_table(name: str) -> Path:
    """An automatic table that no process has."""
    folder = auto._own_folder()
    assert folder is not None
    Table(f"shm://{folder.name[5:]}/{name}?keys=8&hits=8").close()
    return folder / name


def test_dead_is_what_no_process_maps(served: Server) -> None:
    namespace, mark = auto._pid_namespace(), "0" * 12
    me = server_process._itself()
    ended = [
        make_table(name)
        for name in (
            f"{namespace}-{dead_pid()}-1-{mark}",
            f"{namespace}-{me.pid}-{me.started + 1}-{mark}",
            f"{namespace}-{me.pid}-0-{mark}",  # its start is not known: no evidence that it runs
            f"{namespace}-{dead_pid()}-0-{mark}-hits64-keys64",
            f"{namespace + 1}-{me.pid}-{me.started}-{mark}",  # another container's
            f"{namespace}-{'9' * 10}-{'9' * 19}-{mark}",
        )
    ]
    between_workers = make_table(f"{namespace}-{me.pid}-{me.started}-{mark}")
    other = make_table(f"something-{mark}")
    mapped = make_table(f"{namespace + 1}-1-1-{mark}")
    try:
        with Table(f"shm://{mapped.parent.name[5:]}/{mapped.name}"):
            open_auto(keys=64)
            assert [path for path in ended if path.exists()] == []
            assert between_workers.exists(), "its server runs"
            assert other.exists(), "no table of ours"
            assert mapped.exists(), "a process has it"
        storage_from_string("auto://?keys=128")
        assert not mapped.exists()
    finally:
        for path in (between_workers, other, mapped, *ended):
            path.unlink(missing_ok=True)


def test_a_lock_that_is_held_by_a_killed_process_is_none(served: Server) -> None:
    name = f"1-1-1-{'1' * 12}"
    path = make_table(name)
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys, weir; t = weir.Table(sys.argv[1]);"
         "print(1, flush=True); sys.stdin.read()", f"shm://{path.parent.name[5:]}/{name}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    holder.stdout.readline()
    open_auto(keys=64)
    assert path.exists()
    holder.kill()
    holder.communicate()
    open_auto(keys=72)
    assert not path.exists()


def test_names_that_are_none_are_passed_over(served: Server) -> None:
    folder = auto._own_folder()
    assert folder is not None
    names = [f"{'9' * 40}-1-1-{'0' * 12}", f"1-{'9' * 12}-1-{'0' * 12}", "x", "1-1-1", "\udc80"]
    try:
        for name in names:
            (folder / name).touch(0o600)
        assert open_auto(keys=64).check()
        assert all((folder / name).exists() for name in names)
    finally:
        for name in names:
            (folder / name).unlink(missing_ok=True)


def test_a_table_that_is_of_no_use_is_passed_over(served: Server) -> None:
    """Damaged, or of another version of Weir: all workers take the next name."""
    first = open_auto(keys=64)
    path = SHM / f"weir.{first.uri.removeprefix('shm://').partition('?')[0]}"
    path.unlink()
    path.touch(0o600)
    path.write_bytes(b"x" * 10000)
    auto._made.clear()
    second = open_auto(keys=64)
    assert second.uri == first.uri.replace("-keys64", "-keys64.1")
    auto._made.clear()
    third = open_auto(keys=64)
    assert third.uri == second.uri
    assert second.decide([ONCE], "a").allowed
    assert not third.decide([ONCE], "a").allowed


@pytest.fixture
def shm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(auto, "SHARED_MEMORY", tmp_path)
    return tmp_path


def test_the_folder_is_closed_to_others(shm: Path) -> None:
    folder = auto._own_folder()
    assert folder == shm / f"weir.auto-{os.geteuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert auto._own_folder() == folder


def test_what_is_not_ours_alone_is_not_used(shm: Path) -> None:
    base = f"weir.auto-{os.geteuid()}"
    (shm / "elsewhere").mkdir(mode=0o700)
    (shm / base).symlink_to(shm / "elsewhere")
    (shm / f"{base}.1").mkdir(mode=0o700)
    (shm / f"{base}.1").chmod(0o777)
    (shm / f"{base}.2").touch()
    assert auto._own_folder() == shm / f"{base}.3"
    (shm / base).unlink()
    assert auto._own_folder() == shm / f"{base}.3", "all workers find the one that was made"


@pytest.mark.skipif(os.geteuid() != 0, reason="makes files of another user")
def test_foreign_names_are_passed_over_and_cost_nothing(shm: Path) -> None:
    base = f"weir.auto-{os.geteuid()}"
    for i in range(3):
        (shm / f"{base}{f'.{i}' if i else ''}").mkdir(mode=0o700)
        os.chown(shm / f"{base}{f'.{i}' if i else ''}", 65534, 65534)
    assert auto._own_folder() == shm / f"{base}.3"
    looked: list[str] = []
    scandir, listdir = os.scandir, os.listdir
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", lambda path=".": looked.append(str(path)) or scandir(path))
        patch.setattr(os, "listdir", lambda path=".": looked.append(str(path)) or listdir(path))
        assert list(auto.automatic_tables()) == []
    assert str(shm) not in looked, "how much is in the shared folder does not matter"


def test_every_name_is_taken(shm: Path, served: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "_FOLDERS_MAX", 2)
    for name in ("", ".1"):
        (shm / f"weir.auto-{os.geteuid()}{name}").touch()
    with pytest.warns(weir.WeirWarning, match="cannot create a directory"):
        assert open_auto(keys=64).uri == "memory://?keys=64"


def test_no_shared_memory(served: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "SHARED_MEMORY", Path("/no/such/place"))
    with pytest.warns(weir.WeirWarning, match=r"/no/such/place does not exist.*file:///"):
        assert open_auto(keys=64).check()


def test_macos_gets_no_advice_that_it_refuses(
    served: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "SHARED_MEMORY", Path("/no/such/place"))
    monkeypatch.setattr(auto.sys, "platform", "darwin")
    with pytest.warns(weir.WeirWarning, match=r"redis://host") as caught:
        assert open_auto(keys=64).uri == "memory://?keys=64"
    assert "file://" not in str(caught[0].message)


def test_start_times_of_another_namespace_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """``unshare --pid`` without a /proc of its own: /proc has other processes by our numbers."""
    own = server_process._itself()
    assert own.started > 0
    fields = dict(server_process._fields("status"))
    fields["NSpid"] = ["4242", str(os.getpid())]
    fields["PPid"] = [str(os.getppid())]
    monkeypatch.setattr(server_process, "_fields", lambda name: fields)
    assert server_process._started(os.getpid()) == own.started, "by /proc/self"
    assert server_process._started(1) == (0 if os.getppid() != 1 else server_process._started(1))
    assert not server_process._runs(1, 1)


CONTAINER = """
import os, sys, weir
from weir.stores import auto, server_process
auto.server = lambda: server_process._itself()
table = weir.storage.storage_from_string("auto://?keys=64")
allowed = table.decide([weir.Limit(1, 1, "day")], "a").allowed
print(allowed, len(list(auto.automatic_tables())), flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("proc", [["--mount-proc"], []])
def test_a_kept_dev_shm_does_not_fill_up(proc: list[str]) -> None:
    """A new PID namespace at each start, and an end by SIGKILL: as containers have it."""
    mount = "mount -t tmpfs -o size=1m none /dev/shm || exit 77; "
    each = f'unshare --pid --fork {" ".join(proc)} "$0" -c "$1"; '
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount + each * 5, sys.executable, CONTAINER],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 77 or done.stderr.startswith("unshare: "):
        pytest.skip("no file system can be mounted here")
    assert done.stdout.splitlines() == ["True 1"] * 5, done.stderr
