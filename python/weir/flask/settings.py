"""Reads the settings of an application, ``RATELIMIT_*``, and the arguments of a limiter.

None and ``""`` mean "not given", which allows for settings from unset environment variables. Texts
such as ``"False"``, ``"0"`` and ``"off"`` are converted. An invalid value raises an error at start
that names the setting, the value, and what is expected.

A value may be an unbound proxy, which raises when it is used outside of a request. So the type of a
value is tested first, before its truth, equality or class.
"""

from __future__ import annotations

import difflib
import enum
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FunctionType
from typing import Any, TypeVar

from weir._callables import uncallable_reason

from .constants import ConfigVars, HeaderNames
from .errors import ConfigurationError, UsageError

T = TypeVar("T")

_YES = frozenset({"true", "1", "yes", "on", "t", "y"})
_NO = frozenset({"false", "0", "no", "off", "f", "n"})

#: The name of a header (RFC 9110, section 5.6.2).
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

#: Settings of older versions of Flask-Limiter, and their replacements.
GONE = {
    "RATELIMIT_AUTO_CHECK": "limits are checked before each request; call limiter.check() to check"
    " others",
    "RATELIMIT_GLOBAL": "it is RATELIMIT_DEFAULT now",
    "RATELIMIT_STORAGE_URL": "it is RATELIMIT_STORAGE_URI now",
}

#: Arguments of older versions of Flask-Limiter, and their replacements.
GONE_ARGUMENTS = {
    "auto_check": "it was removed in Flask-Limiter 4. Limits are checked before each request: omit"
    " it, and exempt() what must not be limited",
    "global_limits": "it is default_limits now",
    "storage_url": "it is storage_uri now",
}


def given(value: object) -> bool:
    """Whether a setting or argument is given.

    >>> [given(value) for value in (None, "", "  ", 0, False, [])]
    [False, False, False, True, True, True]
    """
    return not (value is None or (type(value) is str and not value.strip()))


def as_flag(value: object) -> bool | None:
    """A value as a flag, or None if it is not one.

    >>> [as_flag(value) for value in (True, "off", "Yes", 0, 2, "maybe")]
    [True, False, True, False, None, None]
    """
    if type(value) is bool:
        return value
    if type(value) is int and value in (0, 1):
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        return True if word in _YES else False if word in _NO else None
    return None


class Reader:
    """Reads arguments, and settings of the application for those that are not given."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def _find(self, argument: object, setting: str) -> tuple[Any, str]:
        """The value, or None if it is not given, and its name for errors."""
        if given(argument):
            return argument, f"the argument for {setting}"
        value = self.config.get(setting)
        return (value if given(value) else None), setting

    def flag(self, argument: object, setting: str, default: bool = False) -> bool:
        """True or False."""
        value, name = self._find(argument, setting)
        if value is None:
            return default
        flag = as_flag(value)
        if flag is None:
            raise wrong(name, value, "True or False")
        return flag

    def text(self, argument: object, setting: str, default: str) -> str:
        value, name = self._find(argument, setting)
        if value is None:
            return default
        if not isinstance(value, str):
            raise wrong(name, value, "a text")
        return value

    def choice(self, argument: object, setting: str, choices: Sequence[str]) -> str | None:
        """One of these words; None: not given."""
        value, name = self._find(argument, setting)
        if value is None:
            return None
        if not isinstance(value, str) or value not in choices:
            raise wrong(name, value, f"one of {', '.join(choices)}")
        return value

    def function(
        self, argument: object, setting: str, arguments: int | None = None
    ) -> Callable[..., Any] | None:
        """A function that accepts ``arguments`` arguments (None: any number); None: not given."""
        value, name = self._find(argument, setting)
        if value is None:
            return None
        if not callable(value):
            raise wrong(name, value, "a function")
        reason = None if arguments is None else uncallable_reason(value, arguments)
        if reason is not None:
            raise ConfigurationError("EOPTION", f"{name}: {reason}")
        function: Callable[..., Any] = value
        return function

    def cost(self, argument: object, setting: str) -> Any:
        """A whole number or a function that returns one."""
        value, name = self._find(argument, setting)
        if value is None:
            return 1
        if type(value) is str and value.strip().isascii() and value.strip().isdigit():
            return int(value)
        if callable(value):
            return self.function(argument, setting, 0)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise wrong(name, value, "a whole number from 0 on, or a function")
        return value

    def limits(self, argument: object, setting: str, kind: type) -> list[Any]:
        """Limits: one or several texts, functions, or objects of a kind; [] if not given."""
        for value, name in ((argument, f"the argument for {setting}"), self._find(None, setting)):
            found = _limits(value, name, kind)
            if found:
                return found
        return []

    def options(self, argument: object, setting: str) -> dict[str, Any]:
        """Arguments of a storage; entries of the setting win over those of the argument."""
        merged: dict[str, Any] = {}
        for value, name in ((argument, f"the argument for {setting}"), self._find(None, setting)):
            if not given(value):
                continue
            if not isinstance(value, Mapping):
                raise wrong(name, value, "a dict of options")
            merged.update(value)
        return merged

    def headers(self, argument: object, setting: str) -> Any:
        """The argument of :func:`weir.flask.headers.parse_kinds`."""
        value, name = self._find(argument, setting)
        if value is None:
            return False
        flag = as_flag(value)
        if flag is not None:
            return flag
        if isinstance(value, str | Sequence | set | frozenset):
            return value
        raise wrong(name, value, "True, False, x-ratelimit, draft-11 or several of these")

    def header_names(self, mapping: object) -> dict[HeaderNames, str]:
        """The names of headers that are changed by ``header_name_mapping`` or a setting."""
        names: dict[HeaderNames, str] = {}
        for header, setting in _HEADER_SETTINGS.items():
            value = self.config.get(setting)
            if given(value):
                names[header] = _header_name(setting, value)
        if not given(mapping):
            return names
        if not isinstance(mapping, Mapping):
            raise wrong("header_name_mapping", mapping, "a dict of names of headers")
        for spelling, value in mapping.items():
            if given(value):
                named = header_of(spelling)
                names[named] = _header_name(f"header_name_mapping[{spelling!r}]", value)
        return names

    def ipv6_prefix(self, setting: str) -> int | None:
        """The number of bits of an IPv6 address that identify a client; None: not given."""
        value = self.config.get(setting)
        if not given(value):
            return None
        if type(value) is str and value.strip().isascii() and value.strip().isdigit():
            value = int(value)
        if type(value) is not int or not 0 <= value <= 128:
            raise ConfigurationError(
                "EVALUE", f"{setting}: an IPv6 prefix has 0 to 128 bits, not {_shown(value)}"
            )
        return value

    def report_unknown(self, strict: bool, logger: logging.Logger) -> None:
        """Log unknown settings; raise if the limiter is strict."""
        for message in self.unknown():
            if strict:
                raise ConfigurationError("EOPTION", message)
            logger.warning("EOPTION: %s", message)

    def unknown(self) -> Iterator[str]:
        """A message for each unknown setting; it names a known one that is similar."""
        allowed = self._allowed()
        known = ConfigVars.known()
        for name in self.config:
            if not isinstance(name, str) or not name.startswith("RATELIMIT_") or name in known:
                continue
            if allowed is True or (allowed and name.startswith(allowed)):
                continue
            yield f"there is no setting {name}{_hint(name, known)}"

    def _allowed(self) -> bool | tuple[str, ...]:
        """RATELIMIT_ALLOW_UNKNOWN: all names are allowed, or the prefixes of allowed names."""
        name = ConfigVars.ALLOW_UNKNOWN
        value = self.config.get(name)
        if not given(value):
            return False
        flag = as_flag(value)
        if flag is not None:
            return flag
        words = value.split(",") if isinstance(value, str) else value
        if not isinstance(words, Sequence | set | frozenset) or not all(
            isinstance(word, str) and word.strip() for word in words
        ):
            raise wrong(name, value, "True, False or a list of prefixes such as RATELIMIT_SHOP_")
        return tuple(word.strip() for word in words)


_HEADER_SETTINGS = {
    HeaderNames.LIMIT: ConfigVars.HEADER_LIMIT,
    HeaderNames.REMAINING: ConfigVars.HEADER_REMAINING,
    HeaderNames.RESET: ConfigVars.HEADER_RESET,
    HeaderNames.RETRY_AFTER: ConfigVars.HEADER_RETRY_AFTER,
}


def header_of(spelling: object) -> HeaderNames:
    """The header for a key of ``header_name_mapping``.

    The key is a member, or the name of the header, the member or the setting, in any case. A member
    of another package's enumeration is accepted as well.

    >>> header_of("X-RateLimit-Reset").name, header_of("limit").name
    ('RESET', 'LIMIT')
    >>> header_of("RATELIMIT_HEADER_RETRY_AFTER").name
    'RETRY_AFTER'
    """
    if isinstance(spelling, HeaderNames):
        return spelling
    word = spelling.name if isinstance(spelling, enum.Enum) else spelling
    if isinstance(word, str):
        word = word.strip().upper().replace("-", "_")
        for header, setting in _HEADER_SETTINGS.items():
            usual = header.value.upper().replace("-", "_")
            if word in (header.name, usual, setting, setting.removeprefix("RATELIMIT_")):
                return header
    names = ", ".join(f"HeaderNames.{header.name}" for header in HeaderNames)
    raise wrong("a key of header_name_mapping", spelling, f"one of {names}")


def _header_name(name: str, value: object) -> str:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value.strip()):
        raise wrong(name, value, "the name of a header, such as X-RateLimit-Limit")
    return value.strip()


def _limits(value: Any, name: str, kind: type) -> list[Any]:
    if not given(value):
        return []
    expected = "limits: a text such as '10 per minute', a function, or a list of these"
    several = type(value) in (list, tuple, set, frozenset) or (
        not isinstance(value, str | kind) and not callable(value) and isinstance(value, Sequence)
    )
    found = [limit for limit in value if given(limit)] if several else [value]
    for limit in found:
        if not callable(limit) and not isinstance(limit, str | kind):
            raise wrong(name, limit, expected)
        reason = uncallable_reason(limit) if type(limit) is FunctionType else None
        if reason is not None:
            raise ConfigurationError("EOPTION", f"{name}: {reason}")
    return found


def _hint(name: str, known: frozenset[str]) -> str:
    """A suggestion for an unknown name, if it differs only slightly from a known one."""
    if name in GONE:
        return f": {GONE[name]}"
    near = difflib.get_close_matches(name, known, 1, cutoff=0.9)
    return f"; did you mean {near[0]}?" if near else ""


def _shown(value: object) -> str:
    """A value for an error text; ``repr()`` of the application's own objects is not called."""
    if type(value) in (str, bytes, int, float, bool, list, tuple, dict, set):
        text = repr(value)
        return text if len(text) <= 80 else f"{text[:77]}..."
    return f"an object of {type(value).__name__}"


def wrong(name: str, value: object, expected: str) -> ConfigurationError:
    """The error for an invalid value."""
    error = ConfigurationError if isinstance(value, str) else UsageError
    return error("EOPTION", f"{name} must be {expected}, not {_shown(value)}")
