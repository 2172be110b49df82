"""``auto://``: one table for all processes that serve an application together.

An application often names no storage and runs under ``gunicorn -w 4``. Each worker imports it, and
without sharing each would count separately. The workers of a server have the same parent process
(:mod:`weir.stores.server_process`), so the table is shared memory that is named after that process
and the application::

    /dev/shm/weir.auto-<uid>/<pid namespace>-<pid>-<its start time>-<application>

Only this user can create files in the folder. If another user has taken its name, the next free
name is used, which all workers find.

Without such a server the table is in memory that forked children share.

An application is identified by where it is defined, its name, and the prefix of its keys. Several
automatic storages of one application share its table. They are numbered in the order in which they
are made, which is the same in every worker that imports the application.

Every process that uses a table holds a lock on it (``flock``), which the kernel releases when the
process ends. The next server of the same user removes tables that no process has locked. A server
that was replaced by USR2 (gunicorn) shares its table with its successor; a reload (HUP) keeps it.
"""

from __future__ import annotations

import contextlib
import contextvars
import fcntl
import hashlib
import os
import re
import stat
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .._core import Table
from .._locks import after_fork
from ..errors import WarnAfterwards, WeirError, warn
from .registry import TableStorage, with_sizes
from .server_process import (
    SHARED_MEMORY,
    Server,
    _frames,
    _itself,
    _module_of,
    _pid_namespace,
    _runs,
    _started,
    first_fork,
    has_forks,
    note_server,
    predecessor,
    server,
)

__all__ = [
    "SHARED_MEMORY",
    "Named",
    "Server",
    "_pid_namespace",
    "_started",
    "application",
    "automatic_tables",
    "digest_of",
    "note_environ",
    "open_auto",
    "open_stats_table",
    "server",
    "stats_suffix",
    "unwritable",
]

#: Folder names that are tried at most, since other users may have taken some.
_FOLDERS_MAX = 1024

#: Table names that are tried at most: a table may be damaged, or of another version of Weir.
_NAMES_MAX = 16

#: Numbers of keys to try if there is no room for the default.
_FEWER_KEYS = (65536, 16384)

_ADVICE = (
    "Each process counts limits separately: %s. "
    'To share the counters, name a store: storage_uri="%s"'
)


# ------------------------------------------------------------------------- warnings

#: Tables that only one process and its forks use, and the process that made each.
_private: weakref.WeakKeyDictionary[Table, int] = weakref.WeakKeyDictionary()
_warned = False


def _warn(why: str, uri: str = "shm://name") -> None:
    global _warned
    if not _warned:
        _warned = True
        # Only Linux has tables that processes share.
        usable = uri if sys.platform.startswith("linux") else "redis://host"
        warn(_ADVICE % (why, usable), stacklevel=3)


def unwritable(folder: Path) -> str:
    """Why this user cannot create files in a folder; "" if it can."""
    if not folder.is_dir():
        return f"{folder} does not exist"
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return f"{folder} is mounted read-only"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"this user may not write to {folder}"
    return ""


def _several_by_mod_wsgi() -> bool:
    """Whether mod_wsgi runs several processes; a module of that name may be another one."""
    return int(getattr(sys.modules.get("mod_wsgi"), "maximum_processes", 1)) > 1


def _private_table(sizes: str, number: int) -> Table:
    if _several_by_mod_wsgi():
        _warn("mod_wsgi may run several processes")
    elif "passenger_wsgi" in sys.modules:
        _warn("passenger_wsgi may run several processes")
    table = TableStorage(f"memory://{_query(sizes)}", namespace=number, _forks_share=True)
    _private[table] = os.getpid()
    return table


def note_environ(storage: object, environ: dict[str, Any]) -> None:
    """Warn once if ``storage`` is private but the WSGI server runs several processes.

    environ: the WSGI environment of the first request. mod_wsgi sets ``wsgi.multiprocess`` also for
    one process, if that number was configured.
    """
    if not environ.get("wsgi.multiprocess") or not isinstance(storage, Table):
        return
    one = hasattr(sys.modules.get("mod_wsgi"), "maximum_processes") and not _several_by_mod_wsgi()
    # Processes that were forked after the storage was made share it.
    if _private.get(storage) == os.getpid() and not one:
        _warn("the server may run several processes (wsgi.multiprocess)")


# ---------------------------------------------------------------------------------- applications


class _Application(NamedTuple):
    """An application: the text that identifies it in all workers, and the object in this one."""

    text: str
    itself: object


_application: contextvars.ContextVar[_Application | None] = contextvars.ContextVar(
    "weir application", default=None
)


@contextlib.contextmanager
def application(itself: object, *parts: str) -> Iterator[None]:
    """Storages that are made in this context belong to that application.

    parts: what distinguishes it from other applications of the server: names, folders, prefixes.
    """
    parts = tuple("__main__" if part == "__mp_main__" else part for part in parts)
    token = _application.set(_Application(repr(parts), itself))
    try:
        yield
    finally:
        _application.reset(token)


def _caller() -> str:
    """The innermost function on the stack that is not part of this package."""
    package = __name__.partition(".")[0]
    for frame in _frames():
        if _module_of(frame).partition(".")[0] not in (package, "contextlib"):
            code = frame.f_code
            return repr((code.co_filename, getattr(code, "co_qualname", code.co_name)))
    return ""


_lock = threading.RLock()
_made: Counter[str] = Counter()
_owners: dict[str, weakref.ref[Any]] = {}


def _renew_lock() -> None:
    """In a forked child: the thread that may hold the lock does not exist."""
    global _lock
    _lock = threading.RLock()


after_fork(_renew_lock)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def digest_of(itself: object, *parts: str) -> str:
    """The hash of an application that is part of the names of its tables."""
    with application(itself, *parts):
        current = _application.get()
        assert current is not None
        return _digest(current.text)


#: The remote store whose fallback table is being opened; "" for none.
_fallback_of: contextvars.ContextVar[str] = contextvars.ContextVar("weir store", default="")


@contextlib.contextmanager
def as_fallback_of(store: str, tenant: int) -> Iterator[None]:
    """Tables that are opened within replace ``store`` for one tenant; each tenant has its own."""
    token = _fallback_of.set(f"{store} {tenant}")
    try:
        yield
    finally:
        _fallback_of.reset(token)


def _identify() -> str:
    """The current application's hash. Warns if two applications here have the same one."""
    current = _application.get()
    if current is None:
        return _digest(_caller() + _fallback_of.get())
    mark = _digest(current.text + _fallback_of.get())
    with contextlib.suppress(TypeError):
        owner = _owners.setdefault(mark, weakref.ref(current.itself))()
        if owner is not None and owner is not current.itself and server() is not None:
            warn(
                "two applications of this process cannot be distinguished, so their limits may "
                f"be counted together: {current.text}. Give each its own name or key_prefix",
                stacklevel=3,
            )
    return mark


# --------------------------------------------------------------------------------------- names

_NAME = re.compile(
    r"weir\.(auto-(\d{1,10})(?:\.\d{1,4})?/(\d{1,19})-(\d{1,10})-(\d{1,19})"
    r"-([0-9a-f]{12})((?:-(?:keys|hits|rules|stats)\d{1,19})*)(?:\.\d{1,2})?)",
    re.ASCII,
)


class Named(NamedTuple):
    """An automatic table, by its name: ``shm://<name>``."""

    name: str
    path: Path
    namespace: int
    server: Server
    application: str

    @property
    def runs(self) -> bool:
        """Whether its server runs, as far as can be seen in this PID namespace."""
        return self.namespace == _pid_namespace() != 0 and _runs(*self.server[:2])


def _is_own_folder(path: Path) -> bool:
    """Whether only this user can create files there. Raises FileNotFoundError."""
    status = path.lstat()
    mine = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return mine and not status.st_mode & 0o077


def _folders() -> tuple[list[Path], Path | None]:
    """This user's folders, and the first name that is free."""
    own, free = [], None
    for i in range(_FOLDERS_MAX):
        path = SHARED_MEMORY / f"weir.auto-{os.geteuid()}{f'.{i}' if i else ''}"
        try:
            if _is_own_folder(path):
                own.append(path)
        except OSError:
            free = free or path
    return own, free


def _own_folder() -> Path | None:
    """The folder of this user's automatic tables, created if needed; ``None`` if it cannot be."""
    for _ in range(_NAMES_MAX):
        own, free = _folders()
        if own or free is None:
            return own[0] if own else None
        try:
            free.mkdir(mode=0o700)
        except FileExistsError:
            continue  # another worker, or another user
        except OSError:
            return None
    return None


def automatic_tables() -> Iterator[Named]:
    """This user's automatic tables, running or not."""
    for folder in _folders()[0]:
        try:
            names = [path.name for path in folder.iterdir()]
        except OSError:
            continue
        for name in names:
            match = _NAME.fullmatch(f"{folder.name}/{name}")
            if match is not None:
                namespace, pid, started = map(int, match.group(3, 4, 5))
                found = Server(pid, started)
                yield Named(match[1], folder / name, namespace, found, match[6])


# --------------------------------------------------------------------------------------- tables


def _remove_unless_mapped(path: Path) -> None:
    """Remove a table unless a process has it open."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A process that opens it now waits for this lock and then sees that the file is gone.
        path.unlink()
    except OSError:
        pass  # a process has it open, or another worker removed it
    finally:
        os.close(file)


def _is_mapped(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def _remove_ended(current: Server, namespace: int) -> None:
    """Remove tables without a process, except those of servers that still run."""
    for table in automatic_tables():
        own = table.namespace == namespace and table.server[:2] == current[:2]
        if not own and not table.runs:
            _remove_unless_mapped(table.path)


def _share_with_predecessor(path: Path, current: Server) -> None:
    """After USR2: give the table of the old arbiter a second name, that of the new one."""
    before = predecessor()
    if before == 0 or path.exists():
        return
    own = f"-{current.pid}-{current.started}-"
    for table in automatic_tables():
        theirs = f"-{table.server.pid}-{table.server.started}-"
        same = table.server.pid == before and (table.path.name.replace(theirs, own, 1) == path.name)
        if same and _is_mapped(table.path):
            with contextlib.suppress(OSError):
                os.link(table.path, path)


def _open_named(name: str, sizes: str, number: int) -> Table:
    """Open the table of that name. If a file of that name is unusable, try the next name."""
    for i in range(_NAMES_MAX):
        uri = f"shm://{name}{f'.{i}' if i else ''}"
        try:
            return _open_fitting(uri, sizes, number)
        except WeirError as error:
            useless = ("EFORMAT", "EVERSION", "EACCES")
            if getattr(error, "code", "") not in useless or i + 1 == _NAMES_MAX:
                raise
    raise AssertionError


def _open_fitting(uri: str, sizes: str, number: int) -> Table:
    """Open the table; a smaller one if there is no room and no size was requested."""
    try:
        return TableStorage(f"{uri}{_query(sizes)}", namespace=number)
    except WeirError as error:
        if getattr(error, "code", "") != "ENOSPC" or "keys=" in sizes or "hits=" in sizes:
            raise
        for keys in _FEWER_KEYS:
            fewer = f"{sizes}&keys={keys}" if sizes else f"keys={keys}"
            try:
                table = TableStorage(f"{uri}?{fewer}", namespace=number)
            except WeirError:
                continue
            warn(f"{uri}: /dev/shm has room for a table of {keys} keys only", stacklevel=4)
            return table
        raise


def _query(sizes: str) -> str:
    return f"?{sizes}" if sizes else ""


def _shared_table(scope: Server, sizes: str, number: int, mark: str, suffix: str = "") -> Table:
    folder = _own_folder()
    if folder is None:
        _warn(
            unwritable(SHARED_MEMORY) or f"this user cannot create a directory in {SHARED_MEMORY}",
            "file:///folder/name",
        )
        return _private_table(sizes, number)
    namespace = _pid_namespace()
    name = f"{namespace}-{scope.pid}-{scope.started}-{mark}"
    for what, size in sorted(re.findall(r"(keys|hits|rules)=(\d+)", sizes)):
        name += f"-{what}{size}"  # each size has its own table
    path = folder / f"{name}{suffix}"
    if not path.exists():
        _remove_ended(scope, namespace)
        _share_with_predecessor(path, scope)
    elif scope.started == 0 or namespace == 0:
        # The server cannot be identified. If no process has the table open, another server made it.
        _remove_unless_mapped(path)
    note_server(scope)
    if scope.alone and first_fork(os.getpid()) != scope.pid:
        _warn("spawned processes share counters, but not with the process that started them")
    try:
        return _open_named(f"{folder.name.removeprefix('weir.')}/{path.name}", sizes, number)
    except WeirError as error:
        if getattr(error, "code", "") == "ENOENT":  # another worker removed the empty folder
            folder.mkdir(mode=0o700, exist_ok=True)
            return TableStorage(
                f"shm://{folder.name[5:]}/{path.name}{_query(sizes)}", namespace=number
            )
        with contextlib.suppress(OSError):
            folder.rmdir()  # if it is empty
        raise


def _with_forks(mark: str) -> Server | None:
    """This process, if processes that it started have a table, or may create one."""
    itself = _itself(alone=True)
    name = f"{_pid_namespace()}-{itself.pid}-{itself.started}-{mark}*"
    shares = has_forks() or any(any(folder.glob(name)) for folder in _folders()[0])
    return itself if shares else None


def open_auto(uri: str = "auto://", **options: Any) -> Table:
    """Open the store of ``auto://``. Takes the options of ``shm://``."""
    sizes = with_sizes(uri, options).partition("?")[2]
    scope = server()
    with WarnAfterwards(), _lock:
        mark = _identify()
        number = _made[mark]
        scope = scope or _with_forks(mark)
        if scope is None:
            table = _private_table(sizes, number)
        else:
            table = _shared_table(scope, sizes, number, mark)
            if scope.alone and scope.pid == os.getpid():
                _private[table] = scope.pid
        _made[mark] += 1
    return table


def stats_suffix(store: str, tenant: int | None = None) -> str:
    """How names of the tables beside ``store`` end, of one tenant's or of all."""
    digest = int.from_bytes(hashlib.blake2b(store.encode(), digest_size=8).digest(), "big") >> 1
    return f"{'' if tenant is None else f'-stats{tenant}'}-stats{digest}"


def open_stats_table(uri: str, store: str, tenant: int = 0, *, counts: bool) -> Table:
    """The table beside ``store``, one for all limiters of this application that use that store.

    tenant: a number for the prefixes of the application (:mod:`weir.stores.tenants`).
    counts: whether limits are counted in it, so that one has to be warned of a private one.
    """
    sizes = uri.partition("?")[2]
    scope = server()
    if scope is None:
        return _private_table(sizes, 0) if counts else TableStorage(f"memory://{_query(sizes)}")
    with WarnAfterwards(), _lock:
        return _shared_table(scope, sizes, 0, _identify(), stats_suffix(store, tenant))
