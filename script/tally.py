"""Counts the tests of one run: prints "PASSED FAILED SKIPPED".

    tally.py meson TESTLOG.json    cmocka's tests (TAP) within meson's; another program is one
    tally.py pytest REPORT.xml     a JUnit report

A program that failed without saying which test, and a report that is not there, count as one
failure.
"""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

TAP_LINE = re.compile(r"^(not )?ok (\d+)\b(.*)$", re.MULTILINE)


class Tally(NamedTuple):
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def plus(self, other: Tally) -> Tally:
        return Tally(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def tally_program(output: str, result: str) -> Tally:
    """One program of meson's log, by its TAP lines if it has any, and by its result."""
    if result == "SKIP":
        return Tally(skipped=1)
    passed = failed = skipped = 0
    for negated, _, rest in TAP_LINE.findall(output):
        if "# SKIP" in rest:
            skipped += 1
        elif negated:
            failed += 1
        else:
            passed += 1
    if result != "OK" and failed == 0:
        failed = 1  # crashed, timed out, or failed outside of a test
    if passed + failed + skipped == 0:
        passed = 1
    return Tally(passed, failed, skipped)


def tally_meson(path: Path) -> Tally:
    total = Tally()
    for line in path.read_text(errors="replace").splitlines():
        program = json.loads(line)
        total = total.plus(tally_program(program.get("stdout", ""), program["result"]))
    return total


def tally_pytest(path: Path) -> Tally:
    total = Tally()
    for suite in ElementTree.parse(path).getroot().iter("testsuite"):
        tests, failures, errors, skipped = (
            int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")
        )
        failed = failures + errors
        total = total.plus(Tally(tests - failed - skipped, failed, skipped))
    return total


def main(kind: str, path: Path) -> None:
    try:
        total = tally_meson(path) if kind == "meson" else tally_pytest(path)
    except (OSError, ValueError, KeyError, ElementTree.ParseError) as error:
        print(f"{path.name}: {error}", file=sys.stderr)
        total = Tally(failed=1)
    print(*total)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
