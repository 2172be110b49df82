"""``auto://``: one table for all processes that serve an application together.

The tutorials' code says nothing about a storage, and runs under ``gunicorn -w 4``: each worker
imports the application, and each would count for itself. What the workers of a server have in
common is the process that started them. So the table is shared memory named after that process::

    /dev/shm/weir.auto-<uid>-<pid namespace>-<pid>-<its start time>

gunicorn    its arbiter: the parent of a worker; with ``--preload`` this process itself
uWSGI       its master
uvicorn, hypercorn, granian with several workers
            the supervisor that multiprocessing calls the parent

Without such a server the table is ``memory://``.

Several automatic storages of one process share the table and are told apart by the order in which
they were made, which is the same in every worker that imports the same application.

The next server of the same user removes the tables of those that have ended. A server replaced by
another process (gunicorn's USR2) starts with fresh counters; a reload (HUP) keeps them.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NamedTuple

from ._core import Table, unlink
from ._storage import with_sizes
from .errors import WeirError, warn

SHARED_MEMORY = Path("/dev/shm")

#: Servers whose workers are children of one supervisor by way of multiprocessing.
_SPAWNING = frozenset({"uvicorn", "hypercorn", "granian"})

#: Modules whose forks make children that serve the same application.
_FORKING = frozenset({"gunicorn.arbiter", "socketserver", "tornado.process"})

#: Servers that may run several processes, of which we know no common name.
_UNKNOWN = ("mod_wsgi", "passenger_wsgi")

_ADVICE = (
    "Limits are counted by each process on its own: %s. "
    'To share them, say where: storage_uri="shm://name"'
)


class Server(NamedTuple):
    """A process, by its id and the time it was started at (in ticks since boot; 0: unknown)."""

    pid: int
    started: int


# ------------------------------------------------------------------------------------ processes


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/<pid>/stat`` from the third on, or none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _started(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[19]) if len(fields) > 19 else 0


def _command(pid: int) -> bytes:
    """The command line, which setproctitle may have replaced by ``gunicorn: worker [app]``."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
    title = re.match(rb"gunicorn: (master|worker) (\[.*?\])", command)
    return title[2] if title else command


def _forked_without_exec() -> bool:
    """Whether this process runs in the memory image that its parent was started with.

    A child that has called exec() has a stack and a program text of its own; both are at random
    places. The kernel hides them (as 0) of processes that we may not trace, such as the parent of a
    worker that has become another user; there the command line tells.
    """
    pid, ppid = os.getpid(), os.getppid()
    own, parent = _stat(pid), _stat(ppid)
    if len(own) < 26 or len(parent) < 26:
        return False
    start_code, start_stack = 23, 25
    if "0" in (own[start_stack], parent[start_stack]):
        return _command(pid) == _command(ppid) != b""
    return (own[start_code], own[start_stack]) == (parent[start_code], parent[start_stack])


def _itself() -> Server:
    return Server(os.getpid(), _started(os.getpid()))


def _parent() -> Server:
    return Server(os.getppid(), _started(os.getppid()))


def _pid_namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


# ------------------------------------------------------------------------------------- servers


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame:
        yield frame
        frame = frame.f_back


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _gunicorn() -> Server | None:
    """The arbiter, if this process is one or belongs to one."""
    if "gunicorn.arbiter" not in sys.modules:
        return None
    arbiter = False
    for frame in _frames():
        module = _module_of(frame)
        if module.startswith("gunicorn.workers."):
            return _parent()
        if module == "gunicorn.arbiter":
            arbiter = True
            # Hooks such as post_fork run in the worker, from the middle of the arbiter's code.
            if frame.f_code.co_name == "spawn_worker" and frame.f_locals.get("pid") == 0:
                return _parent()
    if arbiter:
        return _itself()
    # A thread of the application, or a program that runs gunicorn's arbiter later.
    return _parent() if _forked_without_exec() else _itself()


def _uwsgi() -> Server | None:
    module: ModuleType | None = sys.modules.get("uwsgi")
    # The real one is built in; an application may have a uwsgi.py of its own.
    if module is None or getattr(module, "__file__", None) or not hasattr(module, "masterpid"):
        return None
    pid = int(module.masterpid())
    if pid:
        return Server(pid, _started(pid))
    if int(getattr(module, "numproc", 1)) < 2:
        return None
    # Without a master the first worker has forked the others.
    return _parent() if int(module.worker_id()) > 1 else _itself()


def _spawned() -> Server | None:
    if "multiprocessing" not in sys.modules:
        return None
    from multiprocessing import parent_process

    supervisor = parent_process()
    if supervisor is None or supervisor.pid is None:
        return None
    if any(_module_of(frame).partition(".")[0] in _SPAWNING for frame in _frames()):
        return Server(supervisor.pid, _started(supervisor.pid))
    return None


def server() -> Server | None:
    """The process that started those who serve this application; ``None``: there is none."""
    return _uwsgi() or _gunicorn() or _spawned()


# ------------------------------------------------------------------------- when we cannot tell

_private: weakref.WeakSet[Table] = weakref.WeakSet()
_warned = False


def _warn(why: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warn(_ADVICE % why, stacklevel=3)


def _check_fork() -> None:
    """Warn of a server that forks after the application was made: each child gets a copy."""
    if not _private or _warned:
        return
    for frame in _frames():
        module = _module_of(frame)
        if module in _FORKING:
            _warn(f"{module} forks after the storage was made")
        if module != __name__ and not module.startswith("gevent"):
            return  # it was this frame that called os.fork()


def _private_table(uri: str) -> Table:
    for name in _UNKNOWN:
        module = sys.modules.get(name)
        if module is not None and getattr(module, "maximum_processes", 2) > 1:
            _warn(f"{name} may run several")
    table = Table(uri)
    _private.add(table)
    return table


def note_environ(storage: object, environ: dict[str, Any]) -> None:
    """Warn once if a WSGI server says that other processes serve, too, and ``storage`` is private.

    For the first request of an application; ``environ`` is its WSGI environment.
    """
    if environ.get("wsgi.multiprocess") and isinstance(storage, Table) and storage in _private:
        _warn("the server says that it runs several")


# --------------------------------------------------------------------------------------- tables

_lock = threading.RLock()
_made = 0


def _before_fork() -> None:
    _check_fork()
    _lock.acquire()


os.register_at_fork(
    before=_before_fork, after_in_parent=_lock.release, after_in_child=_lock.release
)

_NAME = re.compile(r"weir\.(auto-(\d+)-(\d+)-(\d+)-(\d+)(-(keys|hits|rules|board)\d+)*)")


def _ended(pid: int, started: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    now = _started(pid)
    return bool(now and started and now != started)


def _remove_ended(namespace: int) -> None:
    """Remove the tables of this user's servers that have ended, in this PID namespace."""
    try:
        names = [path.name for path in SHARED_MEMORY.iterdir()]
    except OSError:
        return
    for match in filter(None, map(_NAME.fullmatch, names)):
        uid, ns, pid, started = map(int, match.group(2, 3, 4, 5))
        if uid == os.geteuid() and ns == namespace and _ended(pid, started):
            with contextlib.suppress(WeirError):  # another worker was faster
                unlink(f"shm://{match[1]}")


def open_auto(uri: str = "auto://", **options: Any) -> Table:
    """The store of ``auto://``; see above. Takes what ``shm://`` takes."""
    global _made
    sizes = with_sizes(uri, options).partition("?")[2]
    scope = server()
    if scope is None:
        return _private_table(f"memory://{_query(sizes)}")
    with _lock:
        table = _shared_table(scope, sizes, _made)
        _made += 1
    return table


def open_board(uri: str, store: str, *, counts: bool) -> Table:
    """The table beside ``store``, the same for all limiters of this server that use that store.

    counts: whether limits are counted in it, so that one has to be warned of a private one.
    """
    sizes = uri.partition("?")[2]
    scope = server()
    if scope is None:
        private = f"memory://{_query(sizes)}"
        return _private_table(private) if counts else Table(private)
    with _lock:
        return _shared_table(scope, sizes, 0, f"-board{zlib.crc32(store.encode())}")


def _query(sizes: str) -> str:
    return f"?{sizes}" if sizes else ""


def _shared_table(scope: Server, sizes: str, number: int, mark: str = "") -> Table:
    namespace = _pid_namespace()
    name = f"auto-{os.geteuid()}-{namespace}-{scope.pid}-{scope.started}"
    for what, size in sorted(re.findall(r"(keys|hits|rules)=(\d+)", sizes)):
        name += f"-{what}{size}"  # tables of another size are other tables
    _remove_ended(namespace)
    return Table(f"shm://{name}{mark}{_query(sizes)}", namespace=number)
