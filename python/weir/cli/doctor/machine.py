"""What ``weir doctor`` finds on this machine: Python, packages, shared memory, servers, stores.

Each function yields findings about one subject.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import socket
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from ... import Table, __version__, _foreign
from ...stores.auto import unwritable
from ...stores.server_process import SHARED_MEMORY
from ..discover import tables
from ..words import shown
from .finding import BAD, FINE, WARN, Arguments, Finding, amount, examine_store, free_bytes

#: Bytes of a table with the usual number of keys, and of the smallest that auto:// tries.
_TABLE, _SMALLEST = 24 << 20, 2 << 20

#: Fewer keys that a finding suggests.
_KEYS = (100_000, 50_000, 20_000, 10_000, 5_000, 1_000)

#: Seconds for a server to answer.
_PATIENCE = 0.5

_SHARED = "memory that all its workers share, named after "

#: Application servers, and the store that ``auto://`` selects under each.
_SERVERS = {
    "gunicorn": f"{_SHARED}the arbiter",
    "uwsgi": f"{_SHARED}the master (start it with --master)",
    "uvicorn": f"with --workers: {_SHARED}the supervisor; without: private memory",
    "hypercorn": f"with --workers: {_SHARED}the supervisor; without: private memory",
    "granian": f"with --workers: {_SHARED}the supervisor; without: private memory",
    "waitress": "private memory: waitress is one process",
}

#: Optional parts: module, distribution, and what needs it.
_PARTS = [
    ("click", "click", "the command weir"),
    ("rich", "rich", "weir top and flask limiter"),
    ("flask", "Flask", "weir.flask"),
    ("prometheus_client", "prometheus_client", "weir.metrics"),
    ("redis", "redis", "redis://"),
    ("valkey", "valkey", "valkey://"),
    ("pymemcache", "pymemcache", "memcached://"),
    ("psycopg", "psycopg", "postgresql://"),
    ("pymongo", "pymongo", "mongodb://"),
]


# ------------------------------------------------------------------------------ machine and Python


def _libc() -> str:
    name, version = platform.libc_ver()
    if name:
        return f"{name} {version}"
    return "musl" if "musl" in (sysconfig.get_config_var("SOABI") or "") else "unknown C library"


def _version(distribution: str) -> str:
    """The version of a distribution that is installed; "" if it is not."""
    try:
        return shown(metadata.version(distribution))
    except metadata.PackageNotFoundError:
        return ""


def check_python(_: Arguments) -> Iterator[Finding]:
    """Version, implementation, C library, processor."""
    text = f"{platform.python_implementation()} {platform.python_version()}, {_libc()}"
    text += f", {platform.system()} {platform.machine()}"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        text += ", free-threaded; importing Weir enabled the GIL"
    yield Finding("python", FINE, text)
    folder = Path(__file__).parents[2]
    yield Finding("weir", FINE, f"{_foreign.DISTRIBUTION} {__version__}, {folder}")


def check_parts(_: Arguments) -> Iterator[Finding]:
    """Which optional packages are installed."""
    there, missing = [], []
    for module, name, used_by in _PARTS:
        if importlib.util.find_spec(module) is None:
            missing.append(f"{name} ({used_by})")
        else:
            there.append(f"{name} {_version(name)}".strip())
    yield Finding("packages", FINE, ", ".join(there) or "none")
    if missing:
        fix = "install those that you use: pip install NAME"
        yield Finding("not installed", FINE, ", ".join(missing), fix)


# ------------------------------------------------------------------------------------ shared memory


class _Room(NamedTuple):
    """The state of /dev/shm. why_not: why it cannot contain a table; "" if it can."""

    why_not: str
    text: str = ""
    free: int = 0
    size: int = 0
    read_only: bool = False


def _shared_memory() -> _Room:
    if platform.system() != "Linux":
        return _Room(f"{platform.system()} has no tables that processes share")
    why_not = unwritable(SHARED_MEMORY)
    if not SHARED_MEMORY.is_dir():
        return _Room(why_not)
    status = os.statvfs(SHARED_MEMORY)
    size, free = status.f_blocks * status.f_frsize, free_bytes(SHARED_MEMORY)
    text = f"{amount(free)} of {amount(size)} free"
    return _Room(why_not, text, free, size, bool(status.f_flag & os.ST_RDONLY))


def _fewer_keys(free: int) -> str:
    """A setting with which a table fits into ``free`` bytes, or a store to use instead."""
    for keys in _KEYS:
        with Table(f"memory://?keys={keys}") as table:
            if table.info()["bytes"] <= free:
                return f", or set fewer keys: shm://name?keys={keys}"
    return ", or use file:///path or a remote store"


def check_shared_memory(_: Arguments) -> Iterator[Finding]:
    """Size and rights of /dev/shm."""
    room = _shared_memory()
    name, size = str(SHARED_MEMORY), _TABLE >> 20
    if platform.system() != "Linux":
        yield Finding(name, FINE, f"{room.why_not}: use memory:// or a remote store")
    elif not room.text:
        fix = "in a container, mount a tmpfs there; or use file:///path or a remote store"
        yield Finding(name, BAD, "does not exist: workers cannot share memory", fix)
    elif room.why_not:
        remedy = "mount it writable" if room.read_only else "let this user write there"
        fix = f"{remedy}, or use file:///path or a remote store"
        yield Finding(name, BAD, f"{room.why_not}: workers cannot share memory", fix)
    elif room.free < _TABLE:
        fix = "run the container with --shm-size=128m" + _fewer_keys(room.free)
        yield Finding(name, WARN, f"{room.text}; a table takes {size} MiB", fix)
    else:
        yield Finding(name, FINE, f"{room.text}, writable")


# ------------------------------------------------------------------------------------------ stores


def _automatic(server: str, room: _Room) -> tuple[str, str]:
    """Status and text: the store that ``auto://`` selects under a server on this machine."""
    text = _SERVERS[server]
    if _SHARED not in text:
        return FINE, text
    if room.why_not:
        return WARN, f"private memory, each worker counts separately: {room.why_not}"
    if room.free < _SMALLEST:
        text = f"the server does not start: {SHARED_MEMORY} has {amount(room.free)} free, "
        return BAD, f"{text}and the smallest table that it tries takes {amount(_SMALLEST)}"
    if room.free < _TABLE:
        return WARN, f"{text}; there is room for a smaller table only"
    return FINE, text


def _remedy(room: _Room) -> str:
    """What to change so that ``auto://`` selects shared memory."""
    what = (
        f"correct {SHARED_MEMORY} as described in its line"
        if room.why_not or room.size < _TABLE
        else f"make room in {SHARED_MEMORY}"
    )
    return f"{what}, or configure another store"


def check_servers(_: Arguments) -> Iterator[Finding]:
    """The store that ``auto://`` selects, under running and installed servers."""
    for found in tables():
        if found.server is not None:
            text = f"{shown(found.uri)}, of {shown(found.command, 40)} (process {found.server})"
            yield Finding("auto:// now", FINE, text)
    room = _shared_memory()
    for server in _SERVERS:
        version = _version(server)
        if version:
            status, text = _automatic(server, room)
            fix = "" if status == FINE else _remedy(room)
            yield Finding(f"auto:// under {server}", status, f"{text} ({server} {version})", fix)
    yield Finding("auto:// without a server", FINE, "private memory that forked children share")


def check_store(arguments: Arguments) -> Iterator[Finding]:
    """Whether the given store answers; without one, whether a Redis runs on this host."""
    if arguments.store:
        yield examine_store(arguments.store)
        return
    fix = "to check another server: weir doctor --store redis://host"
    try:
        with socket.create_connection(("127.0.0.1", 6379), _PATIENCE) as connection:
            connection.settimeout(_PATIENCE)
            connection.sendall(b"PING\r\n")
            answer = connection.recv(64)
    except OSError:
        yield Finding("redis", FINE, "no server at 127.0.0.1:6379", fix)
        return
    if answer.startswith(b"-NOAUTH"):
        yield Finding(
            "redis", FINE, "a server at 127.0.0.1:6379 answers and requires a password", fix
        )
    elif answer.startswith((b"+PONG", b"-DENIED")):
        yield Finding("redis", FINE, "a server at 127.0.0.1:6379 answers", fix)
    else:
        text = "another program answers at 127.0.0.1:6379, or Redis with TLS"
        yield Finding(
            "redis",
            WARN,
            text,
            "if your application uses this address, find out which program it is",
        )


# ---------------------------------------------------------------------------------------- conflicts


def check_conflicts(_: Arguments) -> Iterator[Finding]:
    """Other distributions that install the same names."""
    foreign = _foreign.foreign_distribution()
    if foreign is not None:
        text = f"another project named weir is installed: {foreign}"
        yield Finding("conflicts", BAD, text, _foreign.REPAIR)
    version = _version("Flask-Limiter")
    if version:
        text = f"Flask-Limiter {version} is also installed: `flask limiter` serves both"
        fix = "import Limiter from weir.flask; `flask weir` is always Weir's command"
        yield Finding("conflicts", FINE, text, fix)
    if foreign is None and not version:
        yield Finding("conflicts", FINE, "none")
