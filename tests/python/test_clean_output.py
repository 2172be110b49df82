"""Text from elsewhere is escaped and cut wherever it is shown; passwords are not shown."""

from __future__ import annotations

import io
import json
import logging
import random
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

import weir
from weir import Table
from weir._text import LINE_MAX, NAME_MAX, hide_password, printable
from weir.audit import Audit, Breach
from weir.cli import output
from weir.metrics import Collector
from weir.observe.hosts import merge_clients, merge_counts, read_host

#: A terminal's escape, line breaks of all kinds, a text direction, halves of characters, length.
EVIL = "a\x1b[2J\r\nFAKE 2026 ok\u2028\u202eb\x00\x7f\x9b\ud800" + "x" * 5000


def is_clean(text: str, most: int) -> bool:
    return text.isprintable() and len(text) <= most


@pytest.mark.parametrize("most", [1, 2, 10, 60, NAME_MAX, LINE_MAX])
def test_any_text_becomes_one_short_printable_line(most: int) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    for _ in range(300):
        length = chance.choice([0, 1, most - 1, most, most + 1, 3 * most])
        text = "".join(chr(chance.choice([9, 10, 27, 65, 0x85, 0x200B, 0xD801, 0x1F600,
                                          chance.randrange(0x110000)]))
                       for _ in range(length))  # fmt: skip
        assert is_clean(printable(text, most), most), f"seed {seed}: {text!r}"
        data = chance.randbytes(length)
        assert is_clean(printable(data, most), most), f"seed {seed}: {data!r}"


def test_printable_text_stays_as_it_is() -> None:
    for text in ("", "192.0.2.7", "2001:db8::/64", "Zoë ☃ 日本", "x" * NAME_MAX):
        assert printable(text) == text


def use(uri: str) -> None:
    weir.storage.storage_from_string(uri).decide([weir.parse("1/minute")], ["key"])


@pytest.mark.parametrize(
    "uri",
    [
        "redis://:SECRET@host:6379/0",
        "redis://user:SECRET@host",
        "redis://SECRET@host",
        "redis://:SECRET@[::1]:6379",
        "redis://:SEC[SECRET@host",
        "redis://:SEC/SECRET@host:6379/0",
        "redis://:SEC?SECRET@host",
        "redis://:SEC#SECRET@host",
        "redis://:SEC@SECRET@host",
        "redis://:a@b?SECRET@host?db=1",
        "redis://host?password=SECRET",
        "redis://host?db=1&password=SECRET@x",
        "redis://host?ssl_password=SECRET",
        "redis://:SECRET",
        "redis://user:SECRET/0",
        "redis:user:SECRET@host",
        "redis:/user:SECRET@host",
        "user:SECRET@host",
        "redis+cluster://user:SECRET@a:1,b:2",
        "redis://a:1,user:SECRET@b:2",
        "postgresql://user:SECRET@host/db",
        "rediss//user:SECRET@host",
    ],
)
def test_no_part_of_a_password_is_shown(uri: str) -> None:
    shown = hide_password(uri)
    assert "SEC" not in shown
    assert "***" in shown
    with pytest.raises((weir.WeirError, ValueError, OSError)) as caught:
        use(uri.replace("host", "127.0.0.1:1"))
    error: BaseException | None = caught.value
    while isinstance(error, weir.WeirError):
        assert "SEC" not in str(error), repr(error)
        error = error.__cause__ if isinstance(error.__cause__, weir.WeirError) else None


@pytest.mark.parametrize(
    "uri",
    ["memory://", "shm://shop?keys=1000", "file:///var/lib/a@b:c", "redis://db.example:6379/0?db=1",
     "redis://[::1]:6379", "redis+cluster://a:1,b:2/0", "memcached://a:11211,b"],
)  # fmt: skip
def test_a_uri_without_a_password_is_shown_whole(uri: str) -> None:
    assert hide_password(uri) == uri


# ------------------------------------------------------------------------------------------- logs


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    loggers = [logging.getLogger(name) for name in ("weir", "flask-limiter")]
    for logger in loggers:
        logger.addHandler(handler)
    yield stream
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.mark.parametrize("name", ["weir", "flask-limiter"])
def test_what_is_logged_is_one_short_line(name: str, log: io.StringIO) -> None:
    logging.getLogger(name).error("%s has failed: %s", EVIL, weir.StorageError(EVIL))
    text = log.getvalue()
    assert text.endswith("\n")
    assert is_clean(text[:-1], LINE_MAX + len("ERROR "))


@pytest.mark.parametrize("name", ["weir", "flask-limiter"])
def test_an_error_in_a_traceback_cannot_forge_a_line(name: str, log: io.StringIO) -> None:
    try:
        try:
            raise KeyError(EVIL)
        except KeyError as error:
            raise weir.StorageError(EVIL) from error
    except weir.StorageError:
        logging.getLogger(name).exception("it failed")
    lines = log.getvalue().splitlines()
    assert not [line for line in lines if line.startswith("FAKE") or not line.isprintable()]
    assert [line.partition(":")[0] for line in lines if EVIL[0] + "\\x1b" in line] == [
        "KeyError",
        "weir.StorageError",
    ]
    assert max(map(len, lines)) < LINE_MAX + 100


def test_records_that_are_clean_keep_their_arguments() -> None:
    record = logging.LogRecord("weir", logging.INFO, "", 1, "%s of %s", ("one", "two"), None)
    assert logging.getLogger("weir").filter(record)
    assert record.args == ("one", "two")


def test_audit_events_are_clean(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "weir.audit")
    audit = Audit(Table(), reveal=True)
    breach = Breach(1.8e9, EVIL, EVIL, EVIL, EVIL, 1, 0, 1.0, False, EVIL)
    audit.note(breach, weir.parse("1/minute"), "key")
    audit.close()
    events = [json.loads(record.getMessage()) for record in caplog.records]
    assert [event["event"] for event in events] == ["breach", "summary"]
    for event in events:
        assert all(is_clean(v, NAME_MAX) for v in event.values() if isinstance(v, str)), event


# ---------------------------------------------------------------------------- other hosts, metrics


def evil_host() -> dict[str, Any]:
    client = [EVIL, EVIL, 1, 2, 0, 1.8e9]
    return {
        "host": EVIL, "name": EVIL, "time": 1.8e9,
        "counts": [[EVIL, 1, 2, 3, 4], ["short", 1], "text", None, [1, 2, 3, 4, 5],
                   ["bool", True, 1, 1, 1], ["huge", 1 << 80, 0, 0, 0], ["minus", -1, 0, 0, 0]]
        + [[f"limit {i}", 1, 1, 1, 1] for i in range(5000)],
        "top_clients": {"denied": [client, [EVIL, EVIL, 1, 1, 0, float("inf")], {}], "allowed": 7},
        "registry": [[EVIL, "x", "a", "b"], ["1/minute", None, "x" * 5000, "b"], 3],
        "info": {EVIL: 1, "keys": "many", "keys_max": 5},
    }  # fmt: skip


@pytest.mark.parametrize(
    "stats", [None, 5, [], {}, {"top_clients": 3, "counts": {}, "time": "now"}]
)
def test_a_host_without_readable_statistics_has_no_rows(stats: Any) -> None:
    host = read_host(stats)
    assert (host.counts, host.denied, host.allowed, host.limits, host.time) == (
        [],
        [],
        [],
        [],
        None,
    )


def test_text_from_another_host_is_escaped_and_bounded() -> None:
    host = read_host(evil_host())
    texts = [host.name, *(row.limit for row in host.counts), *(row.client for row in host.denied),
             *(host.info or {})]  # fmt: skip
    assert all(is_clean(text, NAME_MAX) for text in texts)
    assert len(host.counts) <= 1000
    assert host.counts[0][1:] == (1, 2, 3, 4)
    assert not {"bool", "huge", "minus"} & {row.limit for row in host.counts}
    assert [row[2:] for row in host.denied] == [(1, 2, 0, 1.8e9)]
    assert host.info == {printable(EVIL, 60): 1, "keys_max": 5}


def test_hosts_are_added_up() -> None:
    hosts = [read_host({"counts": [["a", 1, 2, 3, 4]],
                        "top_clients": {"denied": [["c", "a", 1, i, 0, float(i)]]}})
             for i in (3, 5)]  # fmt: skip
    assert merge_counts(hosts) == [weir.LimitCounts("a", 2, 4, 6, 8)]
    assert merge_clients(hosts, "denied") == [weir.TopClient("c", "a", 2, 8, 0, 5.0)]


def test_labels_of_metrics_are_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    class Evil:
        closed, uri = False, "memory://"

        def counts(self) -> list[weir.LimitCounts]:
            return [weir.LimitCounts(EVIL, 1, 1, 1, 1)]

        def top_clients(self, by: str, count: int) -> list[weir.TopClient]:
            return []

        def info(self) -> dict[str, int]:
            return {"keys": 1, "keys_max": 2, "evictions": 0, "recoveries": 0}

        def rules(self) -> list[weir.Rule]:
            return []

    class Source:
        stats_table = Evil()

        class meters:  # noqa: N801
            @staticmethod
            def read() -> Any:
                from weir.observe.stats import StoreSeen

                errors = {"timeout": 1}
                return StoreSeen(f"redis://:SECRET@{EVIL}", (0,) * 14, 0.0, errors, True, True)

    registry = CollectorRegistry()
    registry.register(Collector(Source()))
    text = generate_latest(registry).decode()
    assert "SECRET" not in text
    lines = text.split("\n")
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) < 2 * NAME_MAX
    assert any(EVIL[0] + "\\\\x1b" in line for line in lines)


def test_tables_on_a_terminal_are_clean(capsys: pytest.CaptureFixture[str]) -> None:
    output.table([EVIL, "n"], [[EVIL, "1"], [(EVIL, "bad"), "2"]])
    output.say(EVIL)
    lines = capsys.readouterr().out.split("\n")
    assert len(lines) == 5
    assert all(line.isprintable() for line in lines)
