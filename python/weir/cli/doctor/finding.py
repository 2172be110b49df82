"""What ``weir doctor`` finds, and how it opens a store."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..._text import hide_password, printable
from ...errors import WeirError
from ...stores.auto import unwritable
from ..local import path_of

FINE, WARN, BAD = "ok", "warning", "error"

#: Characters of a text from elsewhere within a finding.
TEXT_MAX = 160


class Finding(NamedTuple):
    """One line: what was examined, its status, and what to do about it.

    name: what was examined; the same in every run. status: ``ok``, ``warning`` or ``error``.
    fix: what to do; "" if there is nothing to do.
    """

    name: str
    status: str
    text: str
    fix: str = ""


class Arguments(NamedTuple):
    """The arguments of the command; "" if not given."""

    app: str
    store: str


def one_line(text: object, most: int = TEXT_MAX) -> str:
    """A text from elsewhere on one line, cut."""
    return printable(re.sub(r"\s+", " ", str(text)).strip(), most)


def amount(size: int) -> str:
    """A number of bytes in MiB; in KiB if it is small."""
    return f"{size >> 20} MiB" if size >= 2 << 20 else f"{size >> 10} KiB"


def free_bytes(folder: Path) -> int:
    """How much this user can still store in a folder."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def error_line(error: BaseException) -> str:
    """Type and text of an error on one line, cut; the text may fail to be made."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:
        return f"{name}, whose text cannot be shown"
    return one_line(f"{name}: {text}" if text else name, 2 * TEXT_MAX)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Disables logging by client libraries, because the finding contains the error."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def examine_store(uri: str, name: str = "store") -> Finding:
    """Whether a store can be used. Creates no table and charges nothing."""
    from ...storage import storage_from_string

    safe = hide_password(uri)
    new = uri if _is_new(uri) else ""
    if new:  # only its options can be examined
        uri = f"memory://{uri[uri.find('?') :] if '?' in uri else ''}"
    try:
        with _quiet():
            storage: Any = storage_from_string(uri)
            try:
                size = storage.info()["bytes"] if new else 0
                reason = _why_not(storage)
            finally:
                getattr(storage, "close", lambda: None)()
    except (WeirError, ValueError, OSError, ImportError) as error:
        fix = "correct the URI, or what it names"
        if isinstance(error.__cause__, ImportError):
            fix = "install the package"
        return Finding(name, BAD, _without_prefix(safe, error), fix)
    if new:
        return _new_table(path_of(new), safe, name, size)
    if not reason:
        return Finding(name, FINE, f"{safe} answers")
    fix = "start the server, or correct the URI"
    if _ABOUT_PASSWORDS.search(reason):
        fix = "correct the user and password in the URI"
    return Finding(name, BAD, f"{safe} cannot be used: {reason}", fix)


def _is_new(uri: str) -> bool:
    """Whether it names a table that does not exist, in a folder that does."""
    if uri.partition("://")[0] not in ("shm", "file"):
        return False
    path = path_of(uri)
    return path.name not in ("", "weir.") and path.parent.is_dir() and not path.exists()


def _new_table(path: Path, safe: str, name: str, size: int) -> Finding:
    """Whether a table of this size, which does not exist yet, can be created."""
    why_not, fix = unwritable(path.parent), "make the folder writable, or correct the URI"
    free = 0 if why_not else free_bytes(path.parent)
    if not why_not and free < size:
        why_not = f"it takes {amount(size)}, and {path.parent} has {amount(free)} free"
        fix = "free some space, or set fewer keys with ?keys=N"
    if why_not:
        return Finding(name, BAD, f"{safe} cannot be created: {why_not}", fix)
    text = f"{safe} does not exist yet; the first process that uses it creates it"
    return Finding(name, FINE, text)


#: What servers and their clients say of a missing or wrong password.
_ABOUT_PASSWORDS = re.compile(r"auth|passw|WRONGPASS|NOPERM|credential", re.IGNORECASE)


def _why_not(storage: Any) -> str:
    """Why a store does not answer; "" if it does."""
    from ... import TEST, parse

    if storage.check():
        return ""
    try:
        storage.decide([parse("1/second")], ["weir-doctor"], None, TEST)
    except Exception as error:
        uri = str(getattr(storage, "name", ""))
        return _without_prefix(uri, error, alone=True)
    return "it does not answer"


def _without_prefix(uri: str, error: Exception, *, alone: bool = False) -> str:
    """The error's text after the URI; alone: without the URI."""
    text = str(error) or type(error).__name__
    text = text.removeprefix(f"{uri}: ")
    return one_line(text if alone else f"{uri}: {text}", 2 * TEXT_MAX)
