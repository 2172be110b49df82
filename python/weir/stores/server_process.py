"""Finds the process that started all processes which serve an application.

=====================================  ======================================================
gunicorn                               its arbiter: the parent of a worker; with ``--preload``
                                       this process itself
uWSGI                                  its master
uvicorn, hypercorn, granian            the supervisor that multiprocessing calls the parent
processes that an application starts   the server that the environment variable ``WEIR_SERVER``
by multiprocessing or Celery           names; else the process that started them
processes that a program forks         the program's first process
=====================================  ======================================================
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import NamedTuple

#: Where shm:// tables are, each as weir.<name>. Names of auto:// tables contain a server's pid.
SHARED_MEMORY = Path("/dev/shm")

#: Servers whose workers are children of one supervisor by way of multiprocessing.
_SPAWNING = frozenset({"uvicorn", "hypercorn", "granian"})

#: Ancestors that are looked at.
_GENERATIONS_MAX = 64

#: The environment variable in which a worker names its server, for processes that it starts.
_NOTE = "WEIR_SERVER"


class Server(NamedTuple):
    """A process: its id, and its start time in ticks since boot (0: unknown).

    alone: whether this process may serve as well, and would then count separately.
    """

    pid: int
    started: int
    alone: bool = False


# ------------------------------------------------------------------------------------ processes


def _fields(name: str) -> dict[str, list[str]]:
    """The lines of ``/proc/self/status`` by their names, each as words."""
    try:
        text = Path("/proc/self/status").read_text(errors="replace")
    except OSError:
        return {}
    return {line.partition(":")[0]: line.split()[1:] for line in text.splitlines()}


def _proc_name(pid: int) -> str | None:
    """The name of a process in ``/proc``, or ``None`` if it cannot be determined.

    A new PID namespace may still see the ``/proc`` of the outer namespace, in which the same
    numbers belong to other processes. Only this process and its parent can then be found.
    """
    status = _fields("status")
    numbers = status.get("NSpid") or status.get("Pid") or []
    if len(numbers) == 1 and numbers[0] == str(os.getpid()):
        return str(pid)
    if pid == os.getpid():
        return "self"
    if pid == os.getppid() and pid != 0:
        parent = (status.get("PPid") or ["0"])[0]
        return parent if parent != "0" else None
    return None


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/<pid>/stat`` from the third on, or none."""
    name = _proc_name(pid)
    if name is None:
        return []
    try:
        text = Path(f"/proc/{name}/stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _started(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[19]) if len(fields) > 19 and fields[0] not in "ZX" else 0


def command_line(pid: int) -> bytes:
    """The words of the command line, each with a NUL after it; none if it cannot be read."""
    name = _proc_name(pid)
    try:
        return Path(f"/proc/{name}/cmdline").read_bytes() if name else b""
    except OSError:
        return b""


def _command(pid: int) -> bytes:
    """The command line, which setproctitle may have replaced by ``gunicorn: worker [app]``."""
    command = command_line(pid)
    title = re.match(rb"gunicorn: (master|worker) (\[.*?\])", command)
    return title[2] if title else command


def _is_fork(pid: int, parent: int) -> bool:
    """Whether a process was forked from its parent, and neither has called exec() since.

    After exec(), the stack and the program text are at other random addresses. The kernel reports
    them as 0 for processes that this one may not trace, such as the parent of a worker that runs as
    another user; then the command lines are compared.
    """
    own, its_parent = _stat(pid), _stat(parent)
    if len(own) < 26 or len(its_parent) < 26:
        return False
    start_code, start_stack = 23, 25
    if "0" in (own[start_stack], its_parent[start_stack]):
        return _command(pid) == _command(parent) != b""
    addresses = slice(start_code, start_stack + 1)
    return own[addresses] == its_parent[addresses]


def first_fork(pid: int) -> int:
    """The oldest ancestor from which a process was forked, in one step or several; or ``pid``."""
    for _ in range(_GENERATIONS_MAX):
        fields = _stat(pid)
        parent = int(fields[1]) if len(fields) > 1 else 0
        if parent == 0 or not _is_fork(pid, parent):
            break
        pid = parent
    return pid


def _itself(*, alone: bool = False) -> Server:
    return Server(os.getpid(), _started(os.getpid()), alone)


def _parent(expected: object = None) -> Server | None:
    """The parent, or ``None`` if the original parent has died."""
    pid = os.getppid()
    if isinstance(expected, int) and expected != pid:
        return None
    return Server(pid, _started(pid))


def _pid_namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def _runs(pid: int, started: int) -> bool:
    """Whether this process runs in our PID namespace."""
    return started > 0 and 0 < pid < 1 << 31 and _started(pid) == started


# ------------------------------------------------------------------------------------- servers


def _chain(frame: FrameType | None) -> Iterator[FrameType]:
    while frame:
        yield frame
        frame = frame.f_back


def _frames() -> Iterator[FrameType]:
    """The stack frames of this thread, innermost first; then those of other threads."""
    own = sys._getframe(1)
    yield from _chain(own)
    for frame in sys._current_frames().values():
        if frame is not own:
            yield from _chain(frame)


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _of_worker(frame: FrameType) -> Server | None:
    """The arbiter of the gunicorn worker that this process is, or was forked from."""
    worker = frame.f_locals.get("self")
    arbiter, pid = getattr(worker, "ppid", None), getattr(worker, "pid", None)
    if isinstance(arbiter, int) and isinstance(pid, int) and pid != os.getpid():
        started = _started(arbiter)
        return Server(arbiter, started) if started else None
    return _parent(arbiter)


def _gunicorn() -> tuple[bool, Server | None]:
    """Whether this process belongs to gunicorn, and the arbiter if it runs."""
    if "gunicorn.arbiter" not in sys.modules:
        return False, None
    arbiter = False
    for frame in _frames():
        module = _module_of(frame)
        if module.startswith("gunicorn.workers."):
            return True, _of_worker(frame)
        if module == "gunicorn.arbiter":
            arbiter = True
            # Hooks such as post_fork run in the worker, from the middle of the arbiter's code.
            if frame.f_code.co_name == "spawn_worker" and frame.f_locals.get("pid") == 0:
                return True, _parent(getattr(frame.f_locals.get("self"), "pid", None))
    if arbiter:
        return True, _itself()
    # A thread of the application, or a program that starts gunicorn's arbiter later.
    return True, _parent() if _is_fork(os.getpid(), os.getppid()) else _itself()


def predecessor() -> int:
    """The pid of the arbiter that was replaced by USR2, or 0."""
    if "gunicorn.arbiter" not in sys.modules:
        return 0
    text = os.environ.get("GUNICORN_PID", "")
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) else 0


def _uwsgi() -> Server | None:
    module: ModuleType | None = sys.modules.get("uwsgi")
    # uWSGI's module is built in; an application may have a file uwsgi.py.
    if module is None or getattr(module, "__file__", None) or not hasattr(module, "masterpid"):
        return None
    pid = int(module.masterpid())
    if pid:
        return Server(pid, _started(pid))
    if int(getattr(module, "numproc", 1)) < 2:
        return None
    # Without a master the first worker has forked the others. It may have died since.
    if int(module.worker_id()) <= 1:
        return _itself()
    workers = module.workers() if hasattr(module, "workers") else ()
    return _parent(workers[0].get("pid") if workers else None)


def _executable(pid: int) -> str:
    try:
        return str(Path(f"/proc/{_proc_name(pid)}/exe").readlink())
    except OSError:
        return ""


def _starter() -> int:
    """The pid that started this process, or the fork server from which it was forked.

    0 if that has ended: the parent is then another process, usually of another program.
    """
    first = first_fork(os.getpid())
    fields = _stat(first)
    parent = int(fields[1]) if len(fields) > 1 else 0
    return parent if parent and _executable(parent) == _executable(first) != "" else 0


def _multiprocessing_parent() -> int:
    """The pid that started this process by multiprocessing or billiard (Celery); 0: none."""
    if "multiprocessing.process" in sys.modules:
        from multiprocessing import current_process, parent_process

        supervisor = parent_process()
        if supervisor is not None and supervisor.pid is not None:
            return supervisor.pid
        # A process that was not forked imports the main module before it has its parent's pid.
        if getattr(current_process(), "_inheriting", False):
            return _starter()
    billiard = sys.modules.get("billiard.process")
    current = getattr(billiard, "current_process", None)
    pid = getattr(current(), "_parent_pid", None) if callable(current) else None
    return pid if isinstance(pid, int) else 0


def _spawned() -> Server | None:
    pid = _multiprocessing_parent()
    if pid and any(_module_of(frame).partition(".")[0] in _SPAWNING for frame in _frames()):
        started = _started(pid)
        return Server(pid, started) if started or _proc_name(pid) is None else None
    return None


def _of_application() -> Server | None:
    """The server of a process that an application started by multiprocessing."""
    pid = _multiprocessing_parent()
    if not pid:
        return None
    note = re.fullmatch(r"(\d{1,19})-(\d{1,9})-(\d{1,19})", os.environ.get(_NOTE, ""), re.ASCII)
    if note is not None:
        namespace, server_pid, started = map(int, note.groups())
        if namespace == _pid_namespace() and _runs(server_pid, started):
            return Server(server_pid, started)
    pid = first_fork(pid)
    started = _started(pid)
    return Server(pid, started, alone=True) if started else None


def _of_fork() -> Server | None:
    """The first process of a program that forks by itself; ``None`` if this one is not forked.

    Apache's and Passenger's processes are forks, too, but may serve other applications.
    """
    if "mod_wsgi" in sys.modules or "passenger_wsgi" in sys.modules:
        return None
    pid = first_fork(os.getpid())
    started = _started(pid) if pid != os.getpid() else 0
    return Server(pid, started, alone=True) if started else None


def has_forks() -> bool:
    """Whether a process that this one forked is running, and has not called exec()."""
    pid, children = os.getpid(), ""
    with contextlib.suppress(OSError):
        for path in Path("/proc/self/task").glob("*/children"):
            children += path.read_text() + " "
    return any(_is_fork(int(child), pid) for child in children.split())


def note_server(server: Server) -> None:
    """Name the server in the environment, for processes that this one starts."""
    if not server.alone:
        os.environ[_NOTE] = f"{_pid_namespace()}-{server.pid}-{server.started}"


def server() -> Server | None:
    """The process that started all that serve this application, or ``None``."""
    found = _uwsgi()
    if found is None:
        is_gunicorn, found = _gunicorn()
        if is_gunicorn:
            return found
    return found or _spawned() or _of_application() or _of_fork()
