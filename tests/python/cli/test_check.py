"""``weir check``"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import click.testing
import pytest

import weir as package
from weir.cli.errors import (
    AWAY,
    EXIT_CODES,
    FINE,
    INTERRUPTED,
    UNABLE,
    UNREADABLE,
    WARNED,
)
from weir.cli.main import cli

Weir = Callable[..., click.testing.Result]


@pytest.mark.parametrize(
    "limits",
    ["10/minute", "5 per second; 60/minute; 2500/hour", "10/minute; 600/hour", "5/day burst 2"],
)
def test_limits_that_all_can_bind_are_fine(weir: Weir, limits: str) -> None:
    result = weir("check", limits)
    assert result.exit_code == 0
    assert "Warning" not in result.output


@pytest.mark.parametrize(
    ("limits", "kind", "place", "because"),
    [
        ("10/minute; 50/hour; 100/hour", "never-binds", 2, 1),
        ("1000/minute; 10/second", "never-binds", 0, 1),
        ("10/minute; 5/hour", "never-binds", 0, 1),
        ("10/minute; 10 per minute", "duplicate", 1, 0),
        ("60/minute, 60 per 60 second", "duplicate", 1, 0),
        ("10/minute; 0/hour", "zero", 1, None),
    ],
)
def test_a_limit_that_cannot_work_is_warned_of(
    weir: Weir, weir_json: Any, limits: str, kind: str, place: int, because: int | None
) -> None:
    answer = weir_json("check", limits, code=1)
    assert [(w["kind"], w["limit"], w["because_of"]) for w in answer["warnings"]] == [
        (kind, place, because)
    ]
    plain = weir("check", limits)
    assert plain.exit_code == 1
    assert f"Warning: {answer['warnings'][0]['text']}." in plain.stdout


def test_of_two_that_rule_each_other_out_one_is_kept(weir_json: Any) -> None:
    # One a minute, evenly: neither denies what the other admits.
    for limits in ("1/minute; 1/60 second", "60/60 minute; 60/hour; 60/hour"):
        answer = weir_json("check", limits, "--strategy", "moving-window", code=1)
        assert len(answer["warnings"]) == len(answer["limits"]) - 1


def test_what_binds_at_the_edge_of_windows_only_is_a_note(weir: Weir) -> None:
    result = weir("check", "600/hour; 10/minute")
    assert result.exit_code == 0
    assert (
        'Note: "600 per 1 hour" can deny a request only where two windows of "10 per 1 minute"'
        in (result.stdout)
    )


def test_the_normalized_form_reads_back_as_the_same(weir_json: Any) -> None:
    text = "10/MINUTE , 50 per 2 hours|300/day burst 400"
    answer = weir_json("check", text)
    assert answer["normalized"] == "10 per 1 minute; 50 per 2 hour; 300 per 1 day burst 400"
    assert package.parse_many(answer["normalized"]) == package.parse_many(text)
    assert weir_json("check", answer["normalized"]) == answer


@pytest.mark.parametrize("strategy", sorted(package.strategies.STRATEGIES))
def test_each_strategy_is_explained_with_its_numbers(
    weir: Weir, weir_json: Any, strategy: str
) -> None:
    plain = weir("check", "10/minute", "--strategy", strategy).stdout
    assert strategy in plain
    assert "14,400 a day" in plain
    (limit,) = weir_json("check", "10/minute", "--strategy", strategy)["limits"]
    assert (limit["strategy"], limit["per_day"]) == (strategy, 14400)
    within = {"opened": 19, "moving": 10, "weighed": 20, "bucket": 19, "queue": 11, "aligned": 20}
    assert limit["within_period"] == within[package._core.STRATEGIES[strategy][1]]


def test_a_burst_keeps_its_strategy(weir_json: Any) -> None:
    answer = weir_json("check", "10/minute burst 3; 50/hour", "--strategy", "moving-window")
    assert [limit["strategy"] for limit in answer["limits"]] == ["token-bucket", "moving-window"]
    assert answer["limits"][0]["at_once"] == 3


def test_max_delay_is_shown(weir: Weir) -> None:
    arguments = ("check", "10/minute", "--strategy", "leaky-bucket")
    assert "wait for at most 0.5 s" in weir(*arguments).stdout
    assert "wait for at most 30 s" in weir(*arguments, "--max-delay", "30").stdout
    refused = weir(*arguments, "--max-delay", "61")
    assert (refused.exit_code, "--max-delay" in refused.stderr) == (2, True)


def test_a_caret_stands_below_the_place_that_cannot_be_read(weir: Weir) -> None:
    result = weir("check", "10 per fortnight")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        'weir: "10 per fortnight": unknown unit "fortnight" at column 8\n'
        "    10 per fortnight\n"
        "           ^\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "10/minute; 5/fort\x1b[31mnight",
        "10/minute ☃",
        "; ".join(["1/second"] * 20) + " x",
        "\ud800",
    ],
)
def test_whatever_stands_there_the_terminal_is_safe(weir: Weir, text: str) -> None:
    result = weir("check", text)
    assert result.exit_code == 2
    message, shown, caret = result.stderr.rstrip("\n").split("\n")
    assert result.stderr.isprintable() or "\x1b" not in result.stderr
    assert caret.strip() == "^"
    assert len(caret) <= len(shown) + 1
    assert "column" in message


@pytest.mark.parametrize("text", ["", "1/second;" * 40 + "1/second", "1/second " * 1000])
def test_no_limits_or_too_many(weir: Weir, text: str) -> None:
    result = weir("check", text)
    assert result.exit_code == 2
    assert result.stderr.startswith("weir: ")
    assert len(result.stderr) < 1000


# -- the command itself


Process = Callable[..., subprocess.CompletedProcess[str]]


def test_python_m_weir(process: Process) -> None:
    done = process("check", "10/minute; 0/day")
    assert (done.returncode, done.stderr) == (1, "")
    assert "denies every request" in done.stdout
    assert process("check", "ten").returncode == 2
    assert process("--version").stdout == f"weir, version {package.__version__}\n"


def test_help_lists_the_exit_codes(process: Process) -> None:
    text = process("--help").stdout
    assert "Exit codes:" in text
    for command in ("check", "simulate"):
        assert command in text
        assert process(command, "--help").returncode == 0


def without(tmp_path: Path, *modules: str) -> dict[str, str]:
    """An environment in which these modules cannot be imported."""
    for module in modules:
        (tmp_path / f"{module}.py").write_text(f"raise ImportError({module!r})\n")
    there = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), *([there] if there else [])])}


def test_without_click_the_error_names_the_package(process: Process, tmp_path: Path) -> None:
    done = process("check", "10/minute", env=without(tmp_path, "click"))
    assert done.returncode == 2
    assert done.stderr == "weir: the command line needs click: pip install click\n"


def test_without_rich_output_is_plain(process: Process, tmp_path: Path) -> None:
    env = without(tmp_path, "rich")
    assert process("check", "10/minute", env=env).stdout == process("check", "10/minute").stdout
    assert process("check", "10/minute", "--json", env=env).returncode == 0


def test_the_package_itself_imports_neither(tmp_path: Path) -> None:
    code = "import sys, weir, weir.cli; print('click' in sys.modules, 'rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


# -- every command


def test_every_command_prints_json_and_is_in_the_manual(process: Process) -> None:
    page = (Path(__file__).parents[3] / "docs/cli.md").read_text()
    # A group (`weir store`) has commands of its own, which print nothing to read.
    commands = {n: c for n, c in cli.commands.items() if not isinstance(c, click.Group)}
    for name, command in commands.items():
        assert any("--json" in option.opts for option in command.params), name
        assert re.search(rf"`weir {name}`|`{name}`", page) or f"`weir {name}" in page, name
        assert command.help, name


def test_the_manual_lists_the_exit_codes() -> None:
    page = (Path(__file__).parents[3] / "docs/cli.md").read_text()
    for code in (FINE, WARNED, UNREADABLE, AWAY, UNABLE, INTERRUPTED):
        assert f"\n| {code} | " in page
        assert re.search(rf"^  {code} +\w", EXIT_CODES, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "number", "expected"),
    [
        ("weir ch", 1, "check"),
        ("weir check --stra", 2, "--strategy"),
        ("weir check --strategy mov", 3, "moving-window"),
        ("weir block --fo", 2, "--for"),
    ],
)
def test_the_shell_completes(words: str, number: int, expected: str) -> None:
    env = {"_WEIR_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number)}
    code = "import sys; sys.argv = ['weir']; from weir.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env}
    )
    assert f"plain,{expected}" in done.stdout.split("\n"), done
