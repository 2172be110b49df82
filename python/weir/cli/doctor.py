"""``weir doctor``: what this machine and an application give, and what to change.

Each check is one function that yields findings. A check that raises is reported as a finding.
``--app`` loads an application as ``flask run`` does and checks its limiters.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import socket
import sys
import sysconfig
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import click

from .. import __version__, _foreign
from ..errors import WeirError
from .commands.check import warnings_of
from .discover import tables
from .errors import FINE, WARNED
from .options import json_option
from .output import Cell, say, say_json, table
from .words import shown

FINE_, WARN, BAD = "ok", "warning", "error"

#: Bytes of a table with the usual number of keys.
_TABLE = 24 << 20

#: Seconds for a server to answer.
_PATIENCE = 0.5

#: Servers of applications, and what ``auto://`` is under each.
_SERVERS = {
    "gunicorn": "shared memory of all its workers, named after the arbiter",
    "uwsgi": "shared memory of all its workers, named after the master (needs --master)",
    "uvicorn": "with --workers: shared memory, named after the supervisor; else private memory",
    "hypercorn": "with --workers: shared memory, named after the supervisor; else private memory",
    "granian": "with --workers: shared memory, named after the supervisor; else private memory",
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
]


class Finding(NamedTuple):
    """One line of the report: what was checked, the result, and what to do."""

    name: str
    status: str
    text: str
    fix: str = ""


# ------------------------------------------------------------------------------ machine and Python


def _libc() -> str:
    name, version = platform.libc_ver()
    if name:
        return f"{name} {version}"
    return "musl" if "musl" in (sysconfig.get_config_var("SOABI") or "") else "unknown C library"


def check_python(_: Asked) -> Iterator[Finding]:
    """Version, implementation, C library, processor."""
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    text = f"{platform.python_implementation()} {platform.python_version()}, {_libc()}"
    text += f", {platform.system()} {platform.machine()}"
    yield Finding("python", FINE_, text + ("" if gil else ", without GIL"))
    yield Finding(
        "weir", FINE_, f"{_foreign.DISTRIBUTION} {__version__}, {Path(__file__).parents[1]}"
    )


def check_parts(_: Asked) -> Iterator[Finding]:
    """Which optional packages are there."""
    there, missing = [], []
    for module, name, used_by in _PARTS:
        if importlib.util.find_spec(module) is None:
            missing.append(f"{name} ({used_by})")
        else:
            try:
                there.append(f"{name} {metadata.version(name)}")
            except metadata.PackageNotFoundError:
                there.append(name)
    yield Finding("packages", FINE_, ", ".join(there) or "none")
    if missing:
        yield Finding("not installed", FINE_, ", ".join(missing), "install what you use of them")


def check_shared_memory(_: Asked) -> Iterator[Finding]:
    """Size and rights of /dev/shm."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        fix = "use memory:// or a remote store; in a container, mount a tmpfs at /dev/shm"
        yield Finding("/dev/shm", BAD, "does not exist: shm:// and auto:// cannot share", fix)
        return
    status = os.statvfs(folder)
    size, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
    text = f"{free >> 20} MiB of {size >> 20} MiB free"
    if not os.access(folder, os.W_OK | os.X_OK):
        fix = "let this user write there, or use file:///path"
        yield Finding("/dev/shm", BAD, f"{text}, not writable by this user", fix)
    elif free < _TABLE:
        fix = "run the container with --shm-size=128m, or ask for fewer keys: shm://name?keys=50000"
        yield Finding("/dev/shm", WARN, f"{text}: a table takes {_TABLE >> 20} MiB", fix)
    else:
        yield Finding("/dev/shm", FINE_, f"{text}, writable")


# ------------------------------------------------------------------------------------------ stores


def check_servers(_: Asked) -> Iterator[Finding]:
    """What ``auto://`` is, under the servers that run and those that are installed."""
    running = [found for found in tables() if found.server is not None]
    for found in running:
        text = f"{found.uri}, of {shown(found.command, 40)} (process {found.server})"
        yield Finding("auto://, running", FINE_, text)
    for name, text in _SERVERS.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        yield Finding(f"auto:// under {name} {version}", FINE_, text)
    yield Finding("auto:// without a server", FINE_, "private memory that forked children share")


def check_store(asked: Asked) -> Iterator[Finding]:
    """Whether the store that was named answers; without one, whether a Redis is on this host."""
    if asked.store:
        yield _open(asked.store)
        return
    try:
        with socket.create_connection(("127.0.0.1", 6379), _PATIENCE) as connection:
            connection.settimeout(_PATIENCE)
            connection.sendall(b"PING\r\n")
            answer = connection.recv(64)
    except OSError:
        text = "none at 127.0.0.1:6379"
        yield Finding("redis", FINE_, text, "weir doctor --store redis://host checks another")
        return
    if answer.startswith((b"+PONG", b"-NOAUTH", b"-DENIED")):
        yield Finding("redis", FINE_, "one answers at 127.0.0.1:6379")
    else:
        yield Finding("redis", WARN, "something else answers at 127.0.0.1:6379")


def _open(uri: str, name: str = "store") -> Finding:
    from ..storage import storage_from_string
    from ..stores.hosts import shown as without_password

    shown = without_password(uri)
    try:
        storage = storage_from_string(uri)
        if not storage.check():
            fix = "start the server, or correct the URI"
            return Finding(name, BAD, f"{shown} does not answer", fix)
    except (WeirError, ValueError, OSError) as error:
        return Finding(name, BAD, f"{shown}: {error}", "correct the URI, or what it names")
    return Finding(name, FINE_, f"{shown} answers")


# --------------------------------------------------------------------------------------- conflicts


def check_conflicts(_: Asked) -> Iterator[Finding]:
    """Other distributions that bring the same names."""
    foreign = _foreign.foreign_distribution()
    if foreign is not None:
        yield Finding("conflict", BAD, f"another project named weir: {foreign}", _foreign.REPAIR)
    try:
        version = metadata.version("Flask-Limiter")
    except metadata.PackageNotFoundError:
        version = ""
    if version:
        text = f"Flask-Limiter {version} is installed, too; both bring `flask limiter`"
        fix = "use `flask weir`, and import Limiter from weir.flask"
        yield Finding("Flask-Limiter", FINE_, text, fix)
    if foreign is None and not version:
        yield Finding("conflicts", FINE_, "none")


# ------------------------------------------------------------------------------------- application


def _load(name: str) -> Any:
    from flask.cli import ScriptInfo

    if "" not in sys.path:
        sys.path.insert(0, "")
    return ScriptInfo(app_import_path=name or None).load_app()


def check_application(asked: Asked) -> Iterator[Finding]:
    """The limiters of an application: store, client, proxies, limits."""
    if not asked.app:
        fix = "weir doctor --app module:app, or set FLASK_APP"
        yield Finding("application", FINE_, "none was named", fix)
        return
    if importlib.util.find_spec("flask") is None:
        yield Finding("application", BAD, "Flask is not installed", "pip install Flask")
        return
    try:
        app = _load(asked.app)
    except (Exception, SystemExit) as error:
        text = f"{shown(asked.app)} cannot be loaded: {type(error).__name__}: {error}"
        yield Finding("application", BAD, text, "see that `flask --app … routes` works")
        return
    states = app.extensions.get("weir", {})
    theirs = app.extensions.get("limiter") and not states
    if not states:
        fix = "import Limiter from weir.flask" if theirs else "make a Limiter for it"
        text = "is limited by Flask-Limiter" if theirs else "has no limiter"
        yield Finding("application", WARN, f"{app.name} {text}", fix)
    for limiter, state in states.items():
        yield from _check_limiter(app, limiter, state)


def _check_limiter(app: Any, limiter: Any, state: Any) -> Iterator[Finding]:
    enabled = "" if limiter.enabled else ", switched off (RATELIMIT_ENABLED)"
    status = FINE_ if limiter.enabled else WARN
    yield Finding("application", status, f"{app.name} has a limiter{enabled}")
    uri = limiter_uri(state)
    if uri.startswith("auto:"):
        yield Finding("its store", FINE_, "auto://: depends on the server, see above")
    else:
        yield _open(uri, "its store")
        if uri.startswith("memory:"):
            fix = "leave storage_uri out (auto://), or name a shared store"
            yield Finding("its store", WARN, "memory://: every worker counts on its own", fix)
    yield from _check_proxies(app, state)
    yield from _check_limits(app, limiter, state)


def limiter_uri(state: Any) -> str:
    """The URI that a limiter counts in."""
    owner = getattr(state, "store", state)
    uri = getattr(owner, "storage_uri", None) or getattr(state, "storage_uri", None)
    return str(uri or "auto://")


def _check_proxies(app: Any, state: Any) -> Iterator[Finding]:
    layers: list[str] = []
    layer = app.wsgi_app
    while layer is not None and len(layers) < 32:
        layers.append(type(layer).__name__)
        layer = getattr(layer, "app", None) or getattr(layer, "wsgi_app", None)
    key = getattr(state, "key_func", None)
    name = getattr(key, "__qualname__", type(key).__name__)
    if "ProxyFix" in layers:
        yield Finding("proxies", FINE_, f"ProxyFix; clients by {name}")
    elif name.startswith("trusted_proxies"):
        yield Finding("proxies", FINE_, "trusted_proxies() of weir.flask.util")
    elif name == "get_remote_address":
        fix = "behind a proxy, use trusted_proxies(...) or ProxyFix: else all clients count as one"
        yield Finding("proxies", FINE_, "none is trusted; clients by their address", fix)
    else:
        yield Finding("proxies", FINE_, f"clients by {name}")


def _groups(app: Any, limiter: Any, state: Any) -> dict[str, list[Any]]:
    """The limits that are counted together, by where they are declared."""
    from ..flask.registry import declared_limits

    groups = {
        "application limits": state.application_limits,
        "default limits": state.default_limits,
        "meta limits": state.meta_limits,
    }
    for number, group in enumerate(declared_limits(limiter, app), 1):
        groups[f"declared limit {number}"] = [group]
    return groups


def _check_limits(app: Any, limiter: Any, state: Any) -> Iterator[Finding]:
    checked, warned = 0, 0
    for name, definitions in _groups(app, limiter, state).items():
        limits = []
        for definition in definitions:
            text = definition.limit_provider
            if callable(text):
                continue  # known only within a request
            try:
                expanded = definition.expand(text, state.key_func, (), state.strategy)
                limits += [one.limit for one in expanded]
            except (WeirError, ValueError) as error:
                warned += 1
                yield Finding("limits", BAD, f"{name}: {error}", "correct it")
        checked += len(limits)
        for remark in warnings_of(limits):
            warned += 1
            yield Finding("limits", WARN, f"{name}: {remark.text}", "leave it out, or correct it")
    if not warned:
        yield Finding("limits", FINE_, f"{checked} with a fixed text; each can bind")


# ----------------------------------------------------------------------------------------- command


class Asked(NamedTuple):
    """The arguments of the command."""

    app: str
    store: str


_CHECKS: tuple[Callable[[Asked], Iterator[Finding]], ...] = (
    check_python,
    check_parts,
    check_shared_memory,
    check_servers,
    check_store,
    check_conflicts,
    check_application,
)


def findings(asked: Asked) -> Iterator[Finding]:
    """Run all checks. One that raises is a finding, and the others still run."""
    for check in _CHECKS:
        try:
            yield from check(asked)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            yield Finding(check.__name__.removeprefix("check_"), BAD, text, "please report this")


@click.command("doctor")
@click.option("--app", metavar="MODULE:NAME", help="A Flask application to check (FLASK_APP).")
@click.option("-s", "--store", metavar="URI", help="A store to check.")
@json_option
@click.pass_context
def doctor(context: click.Context, app: str | None, store: str | None, as_json: bool) -> int:
    """Say what this machine and an application give, and what to change.

    Checks Python, the C library, /dev/shm, the store that auto:// would be, Redis, other
    packages, and with --app at an application's store, proxies and limits. Exit code 1 if
    there is anything to change.
    """
    chosen = store or context.obj or os.environ.get("WEIR_STORE") or ""
    found = list(findings(Asked(app or os.environ.get("FLASK_APP") or "", chosen)))
    if as_json:
        say_json({"findings": [one._asdict() for one in found]})
    else:
        styles = {FINE_: "good", WARN: "warn", BAD: "bad"}
        rows: list[list[Cell]] = []
        for one in found:
            text = re.sub(r"\s+", " ", one.text)
            rows.append([(one.status, styles[one.status]), one.name, text])
        table(["", "what", "finding"], rows)
        for one in found:
            if one.fix and one.status != FINE_:
                say(f"{one.name}: {one.fix}")
    return FINE if all(one.status == FINE_ for one in found) else WARNED
