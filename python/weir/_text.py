"""Makes text from other sources safe to print: escaped, cut, and without passwords.

Names of clients, limits, stores and hosts reach log lines, terminals, labels and pages. All of them
pass through :func:`printable`, so that none of them breaks a line, moves a cursor or fills a disk.
"""

from __future__ import annotations

import re

__all__ = ["LINE_MAX", "NAME_MAX", "hide_password", "printable", "printable_lines"]

#: Characters of a name in a log line, a table or a label.
NAME_MAX = 256

#: Characters of a whole line of a log.
LINE_MAX = 1024


def printable(text: object, most: int = NAME_MAX) -> str:
    """``text`` on one line, of at most ``most`` characters; what cannot be printed is escaped.

    Control characters, line and paragraph separators, direction marks and surrogates become
    ``\\\\x1b`` or ``\\\\u202e``; what is cut ends with ``…``. Bytes are read as UTF-8.

    >>> printable("a" + chr(27) + "[2J")
    'a\\\\x1b[2J'
    >>> printable("abcdef", 4)
    'abc…'
    """
    if isinstance(text, bytes | bytearray):
        text = bytes(text[: 4 * most + 4]).decode("utf-8", "backslashreplace")
    elif not isinstance(text, str):
        text = str(text)
    if len(text) <= most and text.isprintable():
        return text
    safe = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: most + 1]
    )
    return safe if len(safe) <= most else safe[: max(0, most - 1)] + "…"


def printable_lines(text: str, most: int = LINE_MAX) -> str:
    """The same for each line of a text that Weir itself wrote."""
    return "\n".join(printable(line, most) for line in text.split("\n"))


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/{0,2}", re.ASCII)
#: Stores whose URI has a name or a path, and no place for a password.
_LOCAL = re.compile(r"(memory|shm|file|auto):", re.ASCII)
#: ``user:password``, with all that is not plain percent-encoded.
_USER = re.compile(r"([\w.~%-]*):[^:/?#\[\]@]*\Z", re.ASCII)
_SECRET_OPTION = re.compile(
    r"([?&;](?!keys=)[^=&;]*(?:pass|secret|token|auth|key)[^=&;]*=)[^&;]*", re.I
)


def hide_password(uri: str) -> str:
    """The URI as it may be shown. Of a mistyped one, more is hidden rather than less.

    In ``redis://secret@host`` a password stands where the user belongs, and an unquoted password
    may contain anything; so the user is shown only in the regular form ``user:password@``. What
    follows a host's colon without being a port is hidden, too.

    >>> hide_password("redis://app:secret@db.example:6379/0?password=x&db=1")
    'redis://app:***@db.example:6379/0?password=***&db=1'
    >>> hide_password("redis://pa/s[s@db.example"), hide_password("redis://app:secret")
    ('redis://***@db.example', 'redis://app:***')
    >>> hide_password("shm://shop?keys=1000")
    'shm://shop?keys=1000'
    """
    if _LOCAL.match(uri) and ("@" not in uri or uri.startswith("file:///")):
        return _SECRET_OPTION.sub(r"\1***", uri)
    match = _SCHEME.match(uri)
    scheme, rest = (match[0], uri[match.end() :]) if match else ("", uri)
    base, question, options = rest.partition("?")
    if "@" in options:  # the end of the password is ambiguous
        return f"{scheme}***"
    info, at, hosts = base.rpartition("@")
    user = _USER.match(info)
    hidden = f"{user[1]}:***@" if user else "***@" if at else ""
    shown = _SECRET_OPTION.sub(r"\1***", question + options)
    return f"{scheme}{hidden}{','.join(map(_hide_port, hosts.split(',')))}{shown}"


def _hide_port(host: str) -> str:
    """``host:port/path`` as it is; with anything but a number after the colon, that is hidden."""
    address, bracket, rest = host.rpartition("]")
    name, colon, port = rest.partition(":")
    if not colon or re.fullmatch(r"\d{0,5}(/.*)?", port, re.ASCII | re.DOTALL):
        return host
    return f"{address}{bracket}{name}:***"
