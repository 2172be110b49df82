"""Room: a table without it refuses and charges nothing; workers need it for one table only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import weir
from weir import Limit, Table


def test_a_table_too_small_for_a_decision_suggests_a_size() -> None:
    limits = [Limit(n) for n in range(1, 33)]
    errors = []
    for _ in range(1000):  # each with a secret of its own
        table = Table("memory://?keys=64")
        try:
            table.decide(limits, "a")
        except weir.TableError as error:
            errors.append(error)
            left = [table.decide([limit], "a", [0], weir.TEST)[0] for limit in limits]
            assert all(verdict.remaining == verdict.limit for verdict in left)
    assert 0 < len(errors) < 200
    assert {(error.code, error.is_outage) for error in errors} == {("ETOOMANY", False)}
    assert all("?keys=N" in str(error) for error in errors)


#: Opens a table in several processes at the same moment; prints how many had it.
AT_ONCE = """
import mmap, os, sys, weir
start = mmap.mmap(-1, 1)
children = []
for _ in range(8):
    child = os.fork()
    if not child:
        while start[0] == 0:
            pass
        try:
            weir.Table(sys.argv[1])
        except weir.TableError as error:
            os.write(2, f"{error}\\n".encode())
            os._exit(1)
        os._exit(0)
    children.append(child)
start[0] = 1
print(sum(os.waitpid(child, 0)[1] == 0 for child in children), os.listdir(sys.argv[2]))
"""


def test_workers_that_start_at_once_need_room_for_one_table(tmp_path: Path) -> None:
    """As in a container with 64 MiB of /dev/shm, where each worker created its own table before."""
    mount = 'mount -t tmpfs -o size=36m none "$3" || exit 77; exec "$0" -c "$1" "$2" "$3"'
    uri = f"file://{tmp_path}/table"
    for _ in range(3):
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", mount, sys.executable, AT_ONCE, uri, tmp_path],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 77 or "unshare" in done.stderr:
            pytest.skip("no file system can be mounted here")
        assert done.stdout.split(maxsplit=1) == ["8", "['table']\n"], done.stderr
