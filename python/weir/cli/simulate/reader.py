"""Reads a log line by line: detects its format, counts bad lines and keeps the first of them.

Nothing of a file is kept but the current line, whose length is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from ..errors import Unreadable
from ..times import LineError
from ..words import shown
from .formats import FORMATS, Record

#: Bytes of a line, at most.
LINE_MAX = 65536

#: Lines from which the format is detected.
SAMPLE = 50


class Bad(NamedTuple):
    """A line that cannot be read."""

    line: int
    reason: str
    text: str


def lines_of(file: BinaryIO) -> Iterator[tuple[int, str | None, int]]:
    """Number, text and bytes of each line that is not empty; ``None`` for one that is too long."""
    number = 0
    while True:
        line = file.readline(LINE_MAX + 1)
        if not line:
            return
        number += 1
        size = len(line)
        if size > LINE_MAX and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = file.readline(LINE_MAX)
                size += len(line)
            yield number, None, size
            continue
        text = line.decode("utf-8-sig" if number == 1 else "utf-8", "backslashreplace").strip()
        if text and not text.startswith("#"):
            yield number, text, size


def detect(sample: Sequence[str], columns: Sequence[str], time_column: str | None) -> str:
    """The format that reads most of these lines; ends the command if none reads any."""
    best, most, refusals = "", 0, []
    for name, make in FORMATS.items():
        good, first = 0, ""
        try:
            parser = make(columns, time_column)
            for line in sample:
                try:
                    good += parser(line) is not None
                except LineError as error:
                    first = first or str(error)
        except Unreadable as error:
            first = error.message
        refusals.append(f"    as {name}: {first}")
        if good > most:
            best, most = name, good
    if not best:
        raise Unreadable(
            "cannot detect the format of the log: set --format. The first line is\n"
            f"    {shown(sample[0], 90) if sample else '(there is none)'}\n" + "\n".join(refusals)
        )
    return best


class Reader:
    """The requests of a log, one by one; bad lines are counted and the first of them kept.

    KEEP: how many bad lines are kept.
    """

    KEEP = 10

    def __init__(
        self, file: BinaryIO, form: str | None, columns: Sequence[str], time_column: str | None
    ) -> None:
        self.lines = 0
        self.bytes = 0
        self.bad = 0
        self.examples: list[Bad] = []
        self._rest = lines_of(file)
        self._sample: list[tuple[int, str | None, int]] = []
        for line in self._rest:
            self._sample.append(line)
            if len(self._sample) >= SAMPLE:
                break
        texts = [text for _, text, _ in self._sample if text is not None]
        self.empty = not self._sample
        if self.empty:
            self.format = form or "plain"
        else:
            self.format = form or detect(texts, columns, time_column)
        self._parser = FORMATS[self.format](columns, time_column)

    def _all(self) -> Iterator[tuple[int, str | None, int]]:
        yield from self._sample
        self._sample = []
        yield from self._rest

    def _refuse(self, number: int, reason: str, text: str) -> None:
        self.bad += 1
        if len(self.examples) < self.KEEP:
            self.examples.append(Bad(number, reason, shown(text, 80)))

    def __iter__(self) -> Iterator[Record]:
        for number, text, size in self._all():
            self.lines += 1
            self.bytes += size
            if text is None:
                self._refuse(number, f"longer than {LINE_MAX:,} bytes", "")
                continue
            try:
                record = self._parser(text)
            except LineError as error:
                self._refuse(number, str(error), text)
                continue
            if record is not None:
                yield record
