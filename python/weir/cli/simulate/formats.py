"""Log formats: the time and the key of a request, from one line.

==========  ========================================================================================
plain       ``TIME KEY``; the key is the rest of the line
csv         separated by commas, semicolons or tabs, with or without the names of the columns
json        an object a line
access      nginx's and Apache's common and combined logs
==========  ========================================================================================

A time is seconds since the epoch (or ms, µs, ns, recognized by their size) or ISO 8601, in UTC
unless it names its zone.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..._core import join_key
from ..errors import Unreadable
from ..times import LineError, leading_time, parse_time
from ..words import shown

#: Characters of a key, at most.
KEY_MAX = 1024


class Record(NamedTuple):
    """One request."""

    time: float
    key: str


Parser = Callable[[str], Record | None]  # None: not a request, such as a line of column names


def checked_key(text: str) -> str:
    """The key, if it can be one."""
    if not text:
        raise LineError("the line has no key")
    if len(text) > KEY_MAX:
        raise LineError(f"a key has at most {KEY_MAX:,} characters; this one has {len(text):,}")
    return text


def _joined(parts: Sequence[str]) -> str:
    return checked_key(parts[0] if len(parts) == 1 else join_key(*parts))


# --------------------------------------------------------------------------------------- formats


def _columns_by_number(columns: Sequence[str]) -> None:
    if columns:
        raise Unreadable(
            '"TIME KEY" lines have no columns: leave --key-column away, or give --format csv'
        )


def plain(columns: Sequence[str], time_column: str | None) -> Parser:
    """``TIME KEY``"""
    _columns_by_number([*columns, *([time_column] if time_column else [])])

    def parse(line: str) -> Record | None:
        words = line.split(None, 1)
        if len(words) < 2:
            raise LineError("a line must be TIME KEY; this one has only one word")
        first, rest = words
        if len(first) == 10 and first[4] == "-":  # 2026-11-21 10:00:00 +0100 KEY
            leading = leading_time(f"{first} {rest}")
            if leading is not None:
                return Record(leading[0], checked_key(leading[1]))
        return Record(parse_time(first), checked_key(rest.strip()))

    return parse


_TIME_NAMES = ("time", "timestamp", "@timestamp", "ts", "datetime", "date", "when", "time_iso8601",
               "msec", "time_local", "t")  # fmt: skip
_KEY_NAMES = ("key", "client", "client_ip", "clientip", "ip", "remote_addr", "remote_ip", "host",
              "remote_host", "user", "username", "api_key")  # fmt: skip


def _named(names: Sequence[str], known: Sequence[str]) -> str | None:
    """The first of the known names that exists, in any spelling."""
    there = {name.strip().lower(): name for name in reversed(names)}
    return next((there[name] for name in known if name in there), None)


class _Csv:
    """Finds its columns in the first line, by their names or by their values."""

    def __init__(self, columns: Sequence[str], time_column: str | None) -> None:
        self.columns = list(columns)
        self.time_column = time_column
        self.delimiter = ","
        self.time: int | None = None
        self.keys: list[int] = []

    def split(self, line: str) -> list[str]:
        try:
            rows = list(csv.reader([line], delimiter=self.delimiter))
        except csv.Error as error:
            raise LineError(str(error)) from None
        return [cell.strip() for cell in rows[0]] if rows else []

    def __call__(self, line: str) -> Record | None:
        if self.time is None:
            self.delimiter = max(",;\t", key=line.count)
            cells = self.split(line)
            if len(cells) < 2:
                raise LineError("the line has no comma, semicolon or tab")
            if self._begin(cells):
                return None
        cells = self.split(line)
        last = max(self.time or 0, *self.keys)
        if len(cells) <= last:
            raise LineError(f"there are {len(cells)} columns, not {last + 1}")
        return Record(parse_time(cells[self.time or 0]), _joined([cells[i] for i in self.keys]))

    def _begin(self, cells: list[str]) -> bool:
        """Find the columns; returns whether this line contains their names."""
        times = [i for i, cell in enumerate(cells) if _is_time(cell)]
        if times:
            time = self._place(self.time_column, None, len(cells)) if self.time_column else times[0]
            free = [i for i in range(len(cells)) if i != time]
            keys = [self._place(name, None, len(cells)) for name in self.columns] or free[:1]
        else:
            name = self.time_column or _named(cells, _TIME_NAMES)
            key = _named([cell for cell in cells if cell != name], _KEY_NAMES)
            if name is None or not (self.columns or key):
                what = "time" if name is None else "key"
                raise LineError(f"which column has the {what}? Set --{what}-column")
            time = self._place(name, cells, len(cells))
            keys = [self._place(one, cells, len(cells)) for one in self.columns or [str(key)]]
        self.time, self.keys = time, keys
        return not times

    @staticmethod
    def _place(name: str, names: list[str] | None, width: int) -> int:
        if names is not None and name in names:
            return names.index(name)
        if name.isdigit() and 1 <= int(name) <= width:
            return int(name) - 1
        have = (
            "the first line has no names"
            if names is None
            else "there are " + ", ".join(shown(one, 20) for one in names[:12])
        )
        raise Unreadable(
            f"there is no column {shown(name)!r}: {have}; or use a number from 1 to {width}"
        )


def _is_time(text: str) -> bool:
    try:
        parse_time(text)
    except LineError:
        return False
    # A small number is a count or an id rather than a time in 1970.
    return not text.isdigit() or len(text) >= 9


def _json_at(value: Any, path: str) -> Any:
    if isinstance(value, dict) and path in value:
        return value[path]
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            raise LineError(f"the object has no {shown(path, 40)!r}")
        value = value[part]
    return value


def _scalar(value: Any, what: str) -> str:
    if value is None or isinstance(value, bool | dict | list):
        raise LineError(f"{what} is neither text nor a number")
    return repr(value) if isinstance(value, float) else str(value)


def json_lines(columns: Sequence[str], time_column: str | None) -> Parser:
    """One JSON object per line."""

    def parse(line: str) -> Record | None:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise LineError(f"not JSON: {error}") from None
        if not isinstance(value, dict):
            raise LineError("not a JSON object")
        time = time_column or _named(list(value), _TIME_NAMES)
        names = columns or [name for name in [_named(list(value), _KEY_NAMES)] if name]
        if time is None or not names:
            what = "time" if time is None else "key"
            raise LineError(f"which member has the {what}? Set --{what}-column")
        parts = [_scalar(_json_at(value, name), shown(name, 40)) for name in names]
        return Record(parse_time(_scalar(_json_at(value, time), "the time")), _joined(parts))

    return parse


_ACCESS = re.compile(
    r"(?:(?P<vhost>\S+:\d+) )?(?P<ip>\S+) \S+ (?P<user>\S.*?) "
    r"\[(?P<time>[^\]]{20,30})\]"
    r'(?: "(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}|-)'
    r'(?: (?P<bytes>\S+)(?: "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)")?)?)?',
    re.ASCII,
)
_ACCESS_NAMES = ("ip", "user", "method", "path", "status", "agent", "referer", "vhost")


def _access_cell(match: re.Match[str], name: str) -> str:
    if name in ("method", "path"):
        words = (match["request"] or "").split(" ")
        if len(words) < 2:
            raise LineError("the line has no request")
        return words[0] if name == "method" else words[1].partition("?")[0]
    cell = match[name]
    if not cell:
        raise LineError(f"the line has no {name}")
    return cell


def access(columns: Sequence[str], time_column: str | None) -> Parser:
    """nginx's and Apache's logs; times are whole seconds."""
    names = list(columns) or ["ip"]
    for name in [*names, *([time_column] if time_column else [])]:
        if name not in _ACCESS_NAMES:
            raise Unreadable(
                f"an access log has no column {shown(name)!r}: one of {', '.join(_ACCESS_NAMES)}"
            )
    known: dict[str, float] = {}  # the last time: most lines have the time of the line before

    def parse(line: str) -> Record | None:
        match = _ACCESS.match(line)
        if match is None:
            raise LineError("not a line of an access log")
        text = match["time"]
        if text not in known:
            known.clear()
            known[text] = parse_time(text)
        return Record(known[text], _joined([_access_cell(match, name) for name in names]))

    return parse


#: The formats, in the order in which they are tried: the strictest first.
FORMATS: dict[str, Callable[[Sequence[str], str | None], Parser]] = {
    "json": json_lines,
    "access": access,
    "csv": _Csv,
    "plain": plain,
}
