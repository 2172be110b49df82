"""The sum that script/test prints counts every failure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

TALLY = Path(__file__).parents[2] / "script" / "tally.py"
TAP = "1..3\nok 1 - test_a\nnot ok 2 - test_b\n# why\nnot ok 3 # SKIP test_c\n# not ok - tests\n"


def tally(kind: str, path: Path) -> str:
    run = [sys.executable, str(TALLY), kind, str(path)]
    return subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip()


def programs(path: Path, *results: tuple[str, str]) -> Path:
    log = path / "testlog.json"
    lines = [json.dumps({"name": "t", "stdout": out, "result": result}) for out, result in results]
    log.write_text("\n".join(lines) + "\n")
    return log


def test_cmocka_tests_count_one_by_one(tmp_path: Path) -> None:
    assert tally("meson", programs(tmp_path, (TAP, "FAIL"), ("ok 1 - t\n", "OK"))) == "2 1 1"


def test_a_program_without_tap_is_one_test(tmp_path: Path) -> None:
    assert tally("meson", programs(tmp_path, ("33 inputs\n", "OK"), ("", "FAIL"))) == "1 1 0"


def test_a_crash_after_passed_tests_fails(tmp_path: Path) -> None:
    assert tally("meson", programs(tmp_path, ("1..2\nok 1 - t\n", "FAIL"))) == "1 1 0"
    assert tally("meson", programs(tmp_path, ("1..2\nok 1 - t\n", "TIMEOUT"))) == "1 1 0"


def test_no_report_is_a_failure(tmp_path: Path) -> None:
    assert tally("meson", tmp_path / "none.json") == "0 1 0"
    assert tally("pytest", tmp_path / "none.xml") == "0 1 0"


def test_a_pytest_report_counts_errors_as_failures(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite tests="9" failures="2" errors="1" skipped="3"/></testsuites>'
    )
    assert tally("pytest", report) == "3 3 3"
