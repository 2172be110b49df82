"""Whatever arguments, files, clients and stores hold, commands print clean lines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import weir as package
from weir._text import LINE_MAX

Weir = Callable[..., Any]

HOSTILE = {
    "escape": "a\x1b[2Jz",
    "title": "a\x1b]0;own\x07z",
    "csi": "a\x9b31mz",
    "lines": "a\nFORGED: all is fine",
    "return": "a\rFORGED: all is fine",
    "separators": "a\u2028FORGED\u2029\x85\x0b\x0cz",
    "bidi": "a\u202egnp.exe\u2066z\u200f",
    "zero width": "a\u200bz\ufeff",
    "delete": "a\x7f\x08z",
    "surrogate": "a\udcff\udc80z",
    "long": "a" * 100_000,
    "markup": "[bold red]a[/bold red][link=http://evil]z",
}
EACH = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)

#: What Weir itself writes between lines.
LINES = re.compile("\n")


def check_clean(result: Any, text: str) -> None:
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    for line in LINES.split(result.output):
        assert line.isprintable(), ascii(line)
        assert len(line) <= max(LINE_MAX, 4096) + 100, f"a line of {len(line)} characters"
        assert not line.lstrip().startswith("FORGED"), result.output
    assert "Traceback" not in result.output


ARGUMENTS: dict[str, list[str]] = {
    "a command": ["{}"],
    "an option": ["top", "--{}"],
    "an option's value": ["simulate", "1/minute", "--top", "{}"],
    "one argument too many": ["check", "1/minute", "{}"],
    "a limit": ["check", "{}"],
    "a unit": ["check", "10 per {}"],
    "a strategy": ["check", "1/minute", "--strategy", "{}"],
    "a file": ["simulate", "1/minute", "/nowhere/{}"],
    "a format": ["simulate", "1/minute", "--format", "{}"],
    "a table": ["top", "--once", "-s", "shm://{}"],
    "a file of a table": ["rules", "-s", "file:///nowhere/{}"],
    "a scheme": ["rules", "-s", "{}://x"],
    "no URI": ["rules", "-s", "{}"],
    "a host": ["rules", "-s", "redis://127.0.0.1:1/{}"],
    "a port": ["rules", "-s", "redis://127.0.0.1:{}/"],
    "an option of a URI": ["rules", "-s", "redis://127.0.0.1:1/?{}=1"],
    "a size": ["rules", "-s", "shm://x?keys={}"],
    "a duration": ["block", "a", "--for", "{}", "-s", "{store}"],
    "a blocked client": ["block", "{}", "-s", "{store}"],
    "an allowed client": ["allow", "{}", "-s", "{store}"],
    "a client to unlist": ["unlist", "{}", "-s", "{store}"],
    "a client to show": ["show", "{}", "-s", "{store}"],
    "a client to reset": ["reset", "{}", "-s", "{store}"],
    "an application": ["rules", "-s", "redis://127.0.0.1:1", "--prefix", "{}"],
    "a doctor's store": ["doctor", "-s", "redis://127.0.0.1:1/{}"],
}


@EACH
@pytest.mark.parametrize("case", ARGUMENTS)
def test_an_argument_is_repeated_clean(
    weir: Weir, store: str, table: package.Table, case: str, text: str
) -> None:
    words = [word.replace("{store}", store).replace("{}", text) for word in ARGUMENTS[case]]
    check_clean(weir(*words), text)


@EACH
def test_clients_and_limits_in_a_table_are_shown_clean(
    weir: Weir, store: str, table: package.Table, text: str
) -> None:
    short = text[:200].replace("\udcff", "\ufffd").replace("\udc80", "\ufffe")
    table.reveal = True
    limit = package.parse("1/minute")
    table.register(limit, "", short)
    for _ in range(3):
        table.decide([limit], package.join_key(short) + short)
    for words in (["top", "--once"], ["rules"], ["show", short], ["reset", short]):
        check_clean(weir(*words, "-s", store), text)


@EACH
def test_lines_of_a_log_are_shown_clean(weir: Weir, tmp_path: Path, text: str) -> None:
    raw = text.encode("utf-8", "surrogateescape" if "\udcff" in text else "strict")
    log = tmp_path / "access.log"
    line = b'%s - - [10/Oct/2026:13:55:36 +0000] "GET /%s HTTP/1.1" 200 5 "-" "%s"\n'
    raw = raw.replace(b"\n", b"")  # it ends a line of the log
    log.write_bytes(line % (raw, raw, raw) * 3 + raw + b"\n" + b"192.0.2.1 - garbage\n")
    check_clean(weir("simulate", "1/minute", str(log)), text)
    rows = [json.dumps({"remote_addr": text, "time": "2026-10-10T13:55:36Z"}) for _ in range(3)]
    log.write_text("\n".join(rows))
    check_clean(weir("simulate", "1/minute", str(log)), text)


@EACH
def test_names_of_files_are_shown_clean(weir: Weir, tmp_path: Path, text: str) -> None:
    name = text[:100].replace("/", "_")
    path = tmp_path / name
    path.write_bytes(b"neither a log nor rules\n")
    for words in (["simulate", "1/minute"], ["rules", "--load"], ["rules", "-s", "shm://none"]):
        check_clean(weir(*words, str(path)), text)
    check_clean(weir("rules", "-s", f"file://{path}"), text)
