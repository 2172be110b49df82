"""Which applications share a server, by their prefixes.

Applications that share a server have separate statistics, rules and cached denials. Two prefixes
distinguish them: the store's ``key_prefix``, with which all names
on the server begin, and the ``key_prefix`` of :mod:`weir.flask`, with which its keys begin.

On Redis and Valkey, hosts note both in ``weir:prefixes``, a sorted set of JSON lists scored by the
time of the last note. So commands that are given a server's URI alone find all applications.

PostgreSQL and MongoDB have a row ``weir;shop`` for each application with a prefix, beside its
counters ``weir:fw:{LIMITER/shop}/10.1.2.3/…``, so that :meth:`reset` of an application without a
prefix finds the counters that are not its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from typing import NamedTuple
from urllib.parse import quote, unquote

from .._clock import monotonic
from .._core import join_key

__all__ = [
    "DEFAULT",
    "KNOWN_KEY",
    "KNOWN_MAX",
    "KNOWN_TTL",
    "OwnPrefixes",
    "Tenant",
    "chosen",
    "tenant_of",
]

#: The key on the server that contains the prefixes; how many it contains at most; and the seconds
#: after which a prefix is deleted if no process writes it again.
KNOWN_KEY = "weir:prefixes"
KNOWN_MAX = 1000
KNOWN_TTL = 400 * 86_400

#: Seconds after which a process notes its prefix again.
_NOTE_INTERVAL = 86_400

#: Characters of an application's prefix that stand in names; a longer one is hashed.
_TEXT_MAX = 100

#: The ``key_prefix`` of a store unless its options say otherwise.
_STORE = "weir"


class Tenant(NamedTuple):
    """An application: the ``key_prefix`` of its store, and that of :mod:`weir.flask`."""

    store: str = _STORE
    own: str = ""

    @property
    def label(self) -> str:
        """How the application is shown, and what ``--prefix`` takes; "" without a prefix."""
        return "/".join(part for part in (self.store, self.own) if part not in ("", _STORE))

    @property
    def digits(self) -> int:
        """A number that names of local tables have, below 2**63."""
        digest = hashlib.blake2b(self.dump().encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1

    def name(self, what: str, rest: str = "") -> str:
        """A name on the server. No two applications have one in common.

        >>> Tenant().name("rules"), Tenant("weir", "shop").name("stats", ":1")
        ('weir:rules', 'weir:stats@shop:1')
        """
        if not self.own:
            return f"{self.store}:{what}{rest}"
        text = quote(self.own, safe="", errors="backslashreplace")
        if len(text) > _TEXT_MAX:
            text = "%" + hashlib.blake2b(self.dump().encode(), digest_size=16).hexdigest()
        return f"{self.store}:{what}@{text}{rest}"

    def dump(self) -> str:
        return json.dumps([self.store, self.own])

    @classmethod
    def load(cls, text: str | bytes) -> Tenant | None:
        """What :meth:`dump` wrote; ``None``: it is something else."""
        try:
            parts = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if isinstance(parts, list) and len(parts) == 2 and all(type(p) is str for p in parts):
            return cls(*parts)
        return None


#: An application without prefixes.
DEFAULT = Tenant()


def tenant_of(storage: object, own: str = "") -> Tenant:
    """The application that uses ``storage``. own: the ``key_prefix`` of :mod:`weir.flask`."""
    codec = getattr(storage, "_codec", None)
    prefix = getattr(codec, "prefix", None) or getattr(storage, "_prefix", None) or b""
    text = prefix.decode("utf-8", "backslashreplace") if isinstance(prefix, bytes) else str(prefix)
    return Tenant(text, own)


def chosen(known: list[Tenant], prefix: str | None) -> list[Tenant]:
    """The applications that a command is about.

    prefix: of one application, however it is set; "": of those without one; ``None``: of all.
    """
    if prefix is None:
        return list(dict.fromkeys([*known, DEFAULT]))
    if not prefix:
        return [DEFAULT]
    found = [one for one in known if prefix in (one.label, one.own, one.store)]
    return found or [Tenant(own=prefix), Tenant(store=prefix)]


class OwnPrefixes:
    """The prefixes of the applications that count in one store by one ``key_prefix`` of the store.

    >>> prefixes = OwnPrefixes("weir")
    >>> prefixes.add("shop")
    >>> prefixes.due()
    ['weir;shop']
    >>> prefixes.parts(["weir;shop", "weir;other:fw:{LIMITER/alice}/1/1/day"])
    ['shop}']
    """

    def __init__(self, store: str) -> None:
        self._store = store
        #: The names of all notes are in this range, and no counter of this prefix is.
        self.first, self.end = f"{store};", f"{store}<"
        self._own: set[str] = set()
        self._again = 0.0

    def add(self, own: str) -> None:
        """An application of this process."""
        if own and own not in self._own:
            self._own.add(own)
            self._again = 0.0

    def due(self) -> list[str]:
        """The names to write now."""
        if not self._own or monotonic() < self._again:
            return []
        return [f"{self.first}{quote(join_key(own), safe='')}" for own in sorted(self._own)]

    def note(self, write: Callable[[list[str]], None]) -> None:
        """Call ``write`` with the names that are due. After an error they are due again."""
        names = self.due()
        if names:
            write(names)
            self._again = monotonic() + _NOTE_INTERVAL

    def parts(self, names: Iterable[str]) -> list[str]:
        """The second parts (see :meth:`part`) of the counters of the applications in ``names``."""
        rest = [name[len(self.first) :] for name in names if name.startswith(self.first)]
        return [f"{unquote(one)}}}" for one in rest if ":" not in one]

    @staticmethod
    def part_of(own: str) -> str:
        return f"{join_key(own)}}}"

    @property
    def skipped(self) -> int:
        """The characters before the first part of a counter's name: ``weir:fw:{``."""
        return len(self._store) + len(":fw:{")

    def part(self, name: str) -> str:
        """The second part of a counter's name, which is the prefix of an application that has one.

        "" if the name is a hash, since the key is long or not ASCII.

        >>> OwnPrefixes("weir").part("weir:fw:{LIMITER/shop}/10.1.2.3/api/10/1/minute")
        'shop}'
        """
        return name[self.skipped :].partition("/")[2].partition("/")[0]
