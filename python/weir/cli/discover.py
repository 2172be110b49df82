"""The tables of this host: those in /dev/shm that belong to this user."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..stores.server_process import SHARED_MEMORY, command_line

_LOCKS = Path("/proc/locks")


class Found(NamedTuple):
    """An existing shm:// table.

    server: the process whose workers share it (``auto://``), if it runs; else ``None``.
    command: the command line of that process. users: number of visible processes that have the
    table open. made: time of creation, in seconds since the epoch.
    """

    name: str
    server: int | None
    command: str
    users: int
    made: float
    automatic: bool
    here: bool  # in this PID namespace, so its processes are visible

    @property
    def uri(self) -> str:
        return f"shm://{self.name}"

    @property
    def runs(self) -> bool:
        """Whether a running process uses it."""
        return self.here and (self.server is not None if self.automatic else self.users > 0)


def _command(pid: int) -> str:
    words = command_line(pid).split(b"\0")
    return " ".join(word.decode(errors="backslashreplace") for word in words).strip()


def _holders() -> dict[int, set[int]]:
    """Which processes hold a shared lock on a file, by its inode; openers of a table do."""
    found: dict[int, set[int]] = {}
    try:
        text = _LOCKS.read_text()
    except OSError:
        return found
    for match in re.finditer(
        r"^\d+: FLOCK +ADVISORY +READ +(\d+) [0-9a-f:]+:(\d+) ", text, re.MULTILINE
    ):
        found.setdefault(int(match[2]), set()).add(int(match[1]))
    return found


def other_users() -> list[str]:
    """Other users who have tables here, by name."""
    users = set()
    with contextlib.suppress(OSError):
        for path in SHARED_MEMORY.glob("weir.*"):
            users.add(path.lstat().st_uid)
    names = []
    for uid in sorted(users - {os.geteuid()}):
        try:
            names.append(pwd.getpwuid(uid).pw_name)
        except KeyError:
            names.append(f"#{uid}")
    return names


def tables() -> list[Found]:
    """This user's tables, by name."""
    return sorted(_tables(), key=lambda found: found.name)


def _tables() -> Iterator[Found]:
    from ..stores import auto  # its hooks watch forks from then on

    namespace, holders = auto._pid_namespace(), _holders()
    automatic = {found.path: found for found in auto.automatic_tables()}
    try:
        paths = [*SHARED_MEMORY.glob("weir.*"), *automatic]
    except OSError:
        return
    for path in paths:
        try:
            status = path.lstat()
        except OSError:
            continue
        if status.st_uid != os.geteuid() or not stat.S_ISREG(status.st_mode):
            continue
        named = automatic.get(path)
        server = named.server.pid if named is not None and named.runs else None
        yield Found(
            named.name if named is not None else path.name.removeprefix("weir."),
            server,
            _command(server) if server is not None else "",
            len(holders.get(status.st_ino, set()) - {os.getpid()}),
            min(status.st_mtime, status.st_ctime),
            named is not None,
            named is None or named.namespace == namespace,
        )
