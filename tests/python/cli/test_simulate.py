"""``weir simulate``"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tracemalloc
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import pytest

import weir as package
from weir.cli import times
from weir.cli.simulate import formats, reader
from weir.cli.simulate.replay import COLUMNS, REORDER, Replay, Timeline, in_order

Weir = Callable[..., click.testing.Result]
Process = Callable[..., subprocess.CompletedProcess[str]]

START = 1_800_000_000

#: Four requests of Alice in ten seconds, one of Bob, and one of Alice after the minute.
STORY = [(0, "alice"), (1, "alice"), (2.5, "bob"), (3, "alice"), (10, "alice"), (61, "alice")]

PLAIN = "".join(f"{START + t} {key}\n" for t, key in STORY)
CSV = "when,bytes,client\n" + "".join(f"{START + t},17,{key}\n" for t, key in STORY)
BARE_CSV = "".join(f"{START + t};{key};x\n" for t, key in STORY)
TSV = "time\tuser\n" + "".join(f"{START + t}\t{key}\n" for t, key in STORY)
JSON = "".join(json.dumps({"ts": START + t, "ip": key, "n": 1}) + "\n" for t, key in STORY)
ISO = "".join(f"2027-01-15T08:{int(t) // 60:02}:{t % 60:06.3f}Z {key}\n" for t, key in STORY)
SPACED = ISO.replace("T", " ").replace("Z ", " +0000 ")


def access_line(second: float, ip: str, rest: str = "") -> str:
    clock = f"15/Jan/2027:09:{int(second) // 60:02}:{int(second) % 60:02} +0100"
    return f'{ip} - ann [{clock}] "GET /a?b=c HTTP/1.1" 200 12{rest}\n'


COMMON = "".join(access_line(t, key) for t, key in STORY)
COMBINED = "".join(access_line(t, key, ' "-" "curl/8 \\"x\\""') for t, key in STORY)
VHOST = "".join("example.org:443 " + access_line(t, key, ' "-" "-"') for t, key in STORY)

FORMATS = {
    "plain": PLAIN,
    "iso": ISO,
    "spaced": SPACED,
    "csv": CSV,
    "bare-csv": BARE_CSV,
    "tsv": TSV,
    "json": JSON,
    "common": COMMON,
    "combined": COMBINED,
    "vhost": VHOST,
}


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_detected_and_read(weir_json: Any, name: str) -> None:
    answer = weir_json("simulate", "3/minute", input=FORMATS[name])
    assert answer["format"] == {
        "iso": "plain", "spaced": "plain", "bare-csv": "csv", "tsv": "csv", "common": "access",
        "combined": "access", "vhost": "access",
    }.get(name, name)  # fmt: skip
    (result,) = answer["strategies"]
    assert (result["requests"], result["admitted"], result["denied"]) == (6, 5, 1)
    assert result["top"] == [
        {
            "client": "alice", "requests": 5, "admitted": 4, "denied": 1, "longest_wait": 50.0,
            "first_denied": "2027-01-15T08:00:10.000000Z",
        },
        {
            "client": "bob", "requests": 1, "admitted": 1, "denied": 0, "longest_wait": 0.0,
            "first_denied": None,
        },
    ]  # fmt: skip


def test_a_picture_and_a_table(weir: Weir, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(PLAIN)
    result = weir("simulate", "3/minute", str(log))
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.search(r"alice +5 +4 +1 +50 s +2027-01-15 08:00:10", result.stdout)
    assert "█ admitted  ░ denied, in each 0.1 s" in result.stdout or "in each 1 s" in result.stdout
    assert "08:00:00" in result.stdout


def test_the_picture_shows_what_was_denied_when(weir: Weir) -> None:
    # A minute of quiet, then a minute of hammering.
    log = "".join(f"{START + t} me\n" for t in range(60)) + "".join(
        f"{START + 60 + t / 10} me\n" for t in range(600)
    )
    lines = weir("simulate", "60/minute", input=log).stdout.splitlines()
    picture = [line[10:] for line in lines if set(line) & set("█░") and "admitted" not in line]
    assert len(picture) == 8
    half = max(map(len, picture)) // 2
    assert not any("░" in line[: half - 1] for line in picture)
    assert any("░" in line[half:] for line in picture)


def test_strategies_side_by_side(weir: Weir, weir_json: Any) -> None:
    log = "".join(f"{START + t} me\n" for t in (0, 40, 50, 55, 62, 65, 70, 90, 101, 125))
    chosen = ["fixed-window", "moving-window", "token-bucket"]
    options = [word for name in chosen for word in ("--strategy", name)]
    answer = weir_json("simulate", "3/minute", *options, input=log)
    assert [result["strategy"] for result in answer["strategies"]] == chosen
    # The README's timelines.
    assert [result["denied"] for result in answer["strategies"]] == [3, 4, 2]
    plain = weir("simulate", "3/minute", *options, input=log).stdout
    assert re.search(r"me +10 +3 +4 +2\n", plain)


@pytest.mark.parametrize("strategy", sorted(package.strategies.STRATEGIES))
def test_it_decides_as_a_table_does(weir_json: Any, strategy: str) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    moment, requests = float(START), []
    for _ in range(500):
        moment += round(chance.expovariate(0.5), 3)
        requests.append((moment, f"10.0.0.{chance.randrange(4)}"))
    log = "".join(f"{moment:.3f} {key}\n" for moment, key in requests)
    limits = [limit.replace(strategy=strategy) for limit in package.parse_many("5/minute; 40/hour")]
    table = package.Table()
    denied = sum(
        not table.decide(limits, key, None, package.HIT, round(moment, 3)).allowed
        for moment, key in requests
    )
    answer = weir_json("simulate", "5/minute; 40/hour", "--strategy", strategy, input=log)
    assert answer["strategies"][0]["denied"] == denied, f"seed {seed}"
    assert 0 < denied < 500


def test_key_columns(weir_json: Any) -> None:
    def clients(*options: str, log: str) -> set[str]:
        answer = weir_json("simulate", "3/minute", *options, input=log)
        return {client["client"] for client in answer["strategies"][0]["top"]}

    assert clients("--key-column", "user", log=COMBINED) == {"ann"}
    assert clients("--key-column", "path", "--key-column", "ip", log=COMBINED) == {
        "%2Fa/alice",
        "%2Fa/bob",
    }
    assert clients("--key-column", "agent", log=COMBINED) == {'curl/8 \\"x\\"'}
    assert clients("--key-column", "bytes", log=CSV) == {"17"}
    assert clients("--key-column", "3", log=CSV) == {"alice", "bob"}
    assert clients("--key-column", "3", log=BARE_CSV) == {"x"}
    assert clients("--key-column", "n", log=JSON) == {"1"}
    nested = '{"at": "2027-01-15T08:00:00Z", "request": {"who": "ann"}}\n'
    columns = ("--key-column", "request.who", "--time-column", "at")
    assert clients(*columns, log=nested) == {"ann"}


@pytest.mark.parametrize(
    ("log", "options", "complaint"),
    [
        (CSV, ["--key-column", "nobody"], "there is no column 'nobody': there are when, bytes"),
        (BARE_CSV, ["--key-column", "ip"], "the first line has no names"),
        (COMBINED, ["--key-column", "ipp"], "one of ip, user"),
        (PLAIN, ["--key-column", "ip"], "no columns"),
        ("neither\nnor\n", [], "cannot detect the format"),
        ("a,b\nc,d\n", ["--format", "csv"], "which column has the time? Set --time-column"),
        ("x y\n" * 12, ["--format", "plain"], "no line of - can be read as plain"),
    ],
)
def test_a_log_that_cannot_be_read_is_refused(
    weir: Weir, log: str, options: list[str], complaint: str
) -> None:
    result = weir("simulate", "3/minute", *options, input=log)
    assert (result.exit_code, result.stdout) == (2, "")
    assert complaint in result.stderr


def test_bad_lines_are_counted_and_shown(weir: Weir, weir_json: Any) -> None:
    log = PLAIN + "17:05 carol\n\n# a remark\n" + "\x1b]0;x\x07\n" * 30 + f"{START + 70} bob\n"
    answer = weir_json("simulate", "3/minute", input=log, code=1)
    assert (answer["lines"], answer["bad_lines"]) == (38, 31)
    assert len(answer["bad_examples"]) == 10
    assert answer["bad_examples"][0] == {
        "line": 7, "reason": "'17:05' is not a time", "text": "17:05 carol",
    }  # fmt: skip
    assert answer["strategies"][0]["requests"] == 7
    plain = weir("simulate", "3/minute", input=log)
    assert plain.exit_code == 1
    assert "31 lines could not be read" in plain.stderr
    assert "… and 21 more" in plain.stderr
    assert "\x1b" not in plain.output


def test_an_empty_log(weir: Weir, weir_json: Any) -> None:
    assert weir("simulate", "3/minute", input="").exit_code == 0
    assert weir_json("simulate", "3/minute", input="\n\n")["strategies"][0]["requests"] == 0


@pytest.mark.parametrize("name", ["missing", "missing.gz", "folder"])
def test_a_file_that_cannot_be_opened(weir: Weir, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    result = weir("simulate", "3/minute", str(tmp_path / name))
    assert result.exit_code == 2
    assert "cannot read" in result.stderr


def test_compressed_logs(weir: Weir, weir_json: Any, tmp_path: Path) -> None:
    packed = tmp_path / "access.log.gz"
    packed.write_bytes(gzip.compress(COMBINED.encode()))
    assert weir_json("simulate", "3/minute", str(packed))["strategies"][0]["denied"] == 1
    packed.write_bytes(gzip.compress(COMBINED.encode())[:-20])
    result = weir("simulate", "3/minute", str(packed))
    assert (result.exit_code, "cannot read the log" in result.stderr) == (2, True)


def test_the_order_of_lines_does_not_matter_within_reach(weir_json: Any) -> None:
    lines = [f"{START + t / 7:.3f} me\n" for t in range(2000)]
    shuffled = lines[:]
    random.Random(5).shuffle(shuffled)
    expected = weir_json("simulate", "3/minute", input="".join(lines))
    answer = weir_json("simulate", "3/minute", input="".join(shuffled))
    assert answer == expected
    assert answer["late"] == 0


def test_what_comes_too_late_is_counted_as_of_the_latest_moment() -> None:
    records = [formats.Record(START + i, "a") for i in range(REORDER + 5)]
    records.append(formats.Record(START, "late"))
    ordered = list(in_order(records))
    times = [record.time for record, _ in ordered]
    assert times == sorted(times)
    assert [(record, late) for record, late in ordered if record.key == "late"] == [
        (formats.Record(START + 4, "late"), True)
    ]
    assert sum(late for _, late in ordered) == 1


def test_svg(weir: Weir, tmp_path: Path) -> None:
    target = tmp_path / "picture.svg"
    options = ["--strategy", "fixed-window", "--strategy", "leaky-bucket"]
    result = weir("simulate", "3/minute", *options, "--svg", str(target), input=PLAIN)
    assert result.exit_code == 0
    root = ElementTree.fromstring(target.read_text())
    texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "3 per 1 minute" in texts
    assert any(text.startswith("fixed-window: 5 admitted, 1 denied") for text in texts)
    assert any(text.startswith("leaky-bucket: ") for text in texts)
    assert "http" not in target.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
    refused = weir("simulate", "3/minute", "--svg", str(tmp_path / "no/x.svg"), input=PLAIN)
    assert (refused.exit_code, "cannot write" in refused.stderr) == (2, True)


def test_a_limit_written_twice_counts_once(weir_json: Any) -> None:
    answer = weir_json("simulate", "3/minute; 3 per 60 second", input=PLAIN)
    assert answer["strategies"][0]["denied"] == 1


def test_a_limit_of_none_waits_for_ever(weir: Weir, weir_json: Any) -> None:
    assert weir_json("simulate", "0/minute", input=PLAIN)["strategies"][0]["denied"] == 6
    assert "never" in weir("simulate", "0/minute", input=PLAIN).stdout


def test_sums_are_right_with_more_clients_than_are_kept(weir: Weir, weir_json: Any) -> None:
    log = "".join(f"{START + t / 10:.1f} {key}\n" for t in range(3000) for key in ["hog", f"c{t}"])
    options = ("simulate", "10/minute", "--clients", "50")
    (result,) = weir_json(*options, input=log)["strategies"]
    assert (result["requests"], result["clients_dropped"] > 2000) == (6000, True)
    assert result["admitted"] + result["denied"] == 6000
    assert result["top"][0]["client"] == "hog"
    assert result["top"][0]["requests"] == 3000
    assert "Raise --clients" in weir(*options, input=log).stderr


def test_evictions_are_reported(weir: Weir, weir_json: Any) -> None:
    log = "".join(f"{START + t / 100:.2f} c{t % 300}\n" for t in range(30000))
    options = ["simulate", "200/minute", "--strategy", "moving-window"]
    (result,) = weir_json(*options, "--hits", "1000", input=log)["strategies"]
    assert result["evictions"] > 0
    assert "Raise --hits" in weir(*options, "--hits", "1000", input=log).stderr
    assert weir(*options, input=log).stderr == ""


def test_memory_is_bounded() -> None:
    class Endless(io.RawIOBase):
        """So many lines, of clients that never come again."""

        def __init__(self, lines: int) -> None:
            self.left = lines
            self.number = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            if self.number >= self.left:
                return 0
            self.number += 1
            line = f"{START + self.number} client-{self.number}\n".encode()
            buffer[: len(line)] = line
            return len(line)

    def peak(lines: int) -> int:
        replay = Replay("fixed-window", package.parse_many("3/minute"), 2000)
        tracemalloc.start()
        opened = reader.Reader(
            io.BufferedReader(Endless(lines)),
            None,
            [],
            None,  # type: ignore[arg-type]
        )
        for record, _ in in_order(opened):
            replay.decide(record)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert replay.requests == lines
        return top

    few, many = peak(15_000), peak(60_000)
    assert many < few * 1.2, (few, many)


def test_a_line_without_end_is_one_bad_line(weir_json: Any) -> None:
    log = PLAIN + "x" * (3 * reader.LINE_MAX) + "\n" + f"{START + 70} " + "k" * 2000 + "\n" + PLAIN
    answer = weir_json("simulate", "3/minute", input=log, code=1)
    assert [bad["line"] for bad in answer["bad_examples"]] == [7, 8]
    assert "longer than" in answer["bad_examples"][0]["reason"]
    assert "at most 1,024" in answer["bad_examples"][1]["reason"]


def test_progress_is_written_to_standard_error(weir: Weir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weir.cli.commands.simulate.PROGRESS", (0.0, 0.0))
    log = "".join(f"{START + t} me\n" for t in range(9000))
    loud = weir("simulate", "3/minute", input=log)
    assert re.search(r"weir: [\d,]+ lines read", loud.stderr)
    assert weir("simulate", "3/minute", "--quiet", input=log).stderr == ""


def test_no_line_breaks_a_parser() -> None:
    seed = int(os.environ.get("WEIR_SEED") or random.randrange(2**32))
    chance = random.Random(seed)
    samples = [line for text in FORMATS.values() for line in text.splitlines()]
    parsers = [make([], None) for make in formats.FORMATS.values()]
    for _ in range(5000):
        line = list(chance.choice(samples))
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(line) + 1)
            line[place : place + chance.randrange(3)] = chance.choice(
                ["", '"', "[", "9" * 30, "\x00", "☃", ",", " ", "{", "-", "\\", "99", "e5", "²"]
            )
        for parser in parsers:
            try:
                record = parser("".join(line).strip())
            except times.LineError:
                continue
            assert record is None or 0 <= record.time < times.LATEST, f"seed {seed}: {line}"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("1800000000", 1.8e9),
        ("1800000000.25", 1.8e9 + 0.25),
        ("1800000000250", 1.8e9 + 0.25),
        ("1800000000250000", 1.8e9 + 0.25),
        ("1800000000250000000", 1.8e9 + 0.25),
        ("2027-01-15T08:00:00Z", 1.8e9),
        ("2027-01-15t08:00:00.250z", 1.8e9 + 0.25),
        ("2027-01-15 08:00:00", 1.8e9),
        ("2027-01-15T08:00", 1.8e9),
        ("2027-01-15T02:30:00-05:30", 1.8e9),
        ("2027-01-15T09:00:00,123456789+01", 1.8e9 + 0.123456),
        ("15/Jan/2027:09:00:00 +0100", 1.8e9),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert times.parse_time(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "-1", "noon", "2027-13-01T00:00:00Z", "2027-01-15T25:00:00Z", "1e9", "nan",
             "99999999999999999999", "2200-01-01T00:00:00Z", "2027-01-15T00:00:00+99:99", "²"]
)  # fmt: skip
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(times.LineError):
        times.parse_time(text)


def test_a_timeline_keeps_its_sums_while_intervals_grow() -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    timeline, moment, sums = Timeline(), float(START), [0, 0]
    for _ in range(3000):
        moment += chance.expovariate(1) * chance.choice([0.01, 1, 100, 10000])
        denied = chance.random() < 0.3
        sums[denied] += 1
        timeline.add(moment, denied)
        assert timeline.columns() <= COLUMNS
    for shown in (timeline, timeline.narrowed(50)):
        bars = shown.filled()
        assert [sum(bar[1] for bar in bars), sum(bar[2] for bar in bars)] == sums, f"seed {seed}"
        assert bars[0][0] <= START + 100000
    assert timeline.narrowed(50).columns() <= 50


def test_ascii_where_the_terminal_has_no_more(process: Process) -> None:
    done = process("simulate", "3/minute", input=PLAIN, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert "# admitted  - denied" in done.stdout


def test_an_interrupted_command_prints_that_and_exits_with_130() -> None:
    reader, writer = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-m", "weir", "simulate", "3/minute"],
        stdin=reader,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        # More than a pipe holds: the command runs when all was taken.
        for _ in range(20):
            os.write(writer, PLAIN.encode() * 100)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
        assert process.stderr.read().strip() == b"weir: interrupted"
    os.close(reader)
    os.close(writer)


def test_who_has_seen_enough_may_close_the_pipe(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"{START + t} client-{t}\n" for t in range(20000)))
    command = f"{shlex.quote(sys.executable)} -m weir simulate 3/minute {log} --top 20000"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} --clients 30000 | head -n 1"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("3 per 1 minute: 20,000 requests")
