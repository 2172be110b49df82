"""The type annotations are correct, and type checkers infer the intended types."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import weir

pytestmark = pytest.mark.skipif(not find_spec("mypy"), reason="mypy is not installed")

#: What an application may write; mypy must infer the types that stand here.
PROGRAM = """
from typing import assert_type

import weir
from weir import Decision, Limit, Table, Verdict, WindowStats
from weir.flask import Limiter, RouteLimit
from weir.storage import Storage, StorageTypes, storage_from_string
from weir.strategies import STRATEGIES, FixedWindowRateLimiter, MovingWindowRateLimiter

limit = weir.parse("10/minute")
assert_type(limit, Limit)
assert_type(weir.parse_many("10/minute; 100/hour"), list[Limit])
assert_type(limit.amount, int)
assert_type(limit.burst, int | None)
assert_type(limit.replace(burst=5), Limit)
assert_type(limit.GRANULARITY.seconds, int)
assert_type(sorted([limit, Limit(1, 2, "hour", max_delay=0.5)]), list[Limit])
assert_type({limit: 1}, dict[Limit, int])
item: weir.RateLimitItem = weir.RateLimitItemPerMinute(10, 2, namespace="shop")

store = storage_from_string("memory://", keys=1000)
assert_type(store, StorageTypes)
limiter = MovingWindowRateLimiter(store)
assert_type(limiter.hit(item, "alice", 1, 1.5, b"x", cost=2), bool)
assert_type(limiter.test(limit), bool)
assert_type(limiter.get_window_stats(limit, "alice"), WindowStats)
reset_time, remaining = limiter.get_window_stats(limit, "alice")
assert_type(reset_time, float)
assert_type(remaining, int)
assert_type(limiter.decide(limit, "alice", mode=weir.TEST), Verdict)
STRATEGIES["fixed-window"](store).clear(limit, "alice")

with Table("memory://", namespace=1) as table:
    decision = table.decide([limit, item], ["a", b"b"], [1, 2], weir.EACH)
    assert_type(decision, Decision)
    assert_type(decision.verdict.retry_after, float)
    assert_type(decision[0], Verdict)
    assert_type(decision[:1], tuple[Verdict, ...])
    assert_type([verdict.allowed for verdict in decision], list[bool])
    assert_type(table.info(), dict[str, int])
    FixedWindowRateLimiter(table)

limiter.hit("10/minute", "alice")  # type: ignore[arg-type]
limiter.hit(limit, None)
limiter.hit(limit, "alice", cost="1")  # type: ignore[arg-type]
FixedWindowRateLimiter("memory://")  # type: ignore[arg-type]
Limit("10")  # type: ignore[arg-type]
limit.amount = 3  # type: ignore[misc]

in_flask = Limiter(storage_uri="memory://", on_store_error="open")
assert_type(in_flask.limit("1/minute", burst=3, cost=lambda: 2), RouteLimit)
in_flask.limit("1/minute", bursts=3)  # type: ignore[call-arg]
in_flask.limit("1/minute", burst="3")  # type: ignore[arg-type]
in_flask.shared_limit("1/minute", "search", bursts=3)  # type: ignore[call-arg]
Limiter(storage_url="memory://")  # type: ignore[call-arg]

try:
    weir.parse("nonsense")
except weir.ParseError as error:
    assert_type(error.column, int)
    assert_type(error.code, str)
"""

#: Runs stubtest on weir._core and on the stubs that it takes its names from, weir._core_*. These
#: have no modules at run time, so stubtest gets modules with the names that each stub declares. It
#: must be given all of them: of weir._core alone, it checks no name that another stub defines.
STUBS = """
import ast
import sys
from pathlib import Path
from types import ModuleType

import weir._core
from mypy.stubtest import main

modules = ["weir._core"]
for stub in Path(weir.__file__).parent.glob("_core_*.pyi"):
    module = ModuleType(f"weir.{stub.stem}")
    for node in ast.parse(stub.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and hasattr(weir._core, node.name):
            setattr(module, node.name, getattr(weir._core, node.name))
    sys.modules[module.__name__] = module
    modules.append(module.__name__)
assert len(modules) > 1
sys.argv += modules
sys.exit(main())
"""


def run(*arguments: str, cwd: Path) -> str:
    """Run mypy on the installed package."""
    package = Path(weir.__file__).parents[1]
    place = {} if package.name == "site-packages" else {"MYPYPATH": str(package)}
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        env={**os.environ, **place, "MYPY_CACHE_DIR": str(cwd / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_inferred_types(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    arguments = ["mypy", "--strict", "--python-version", "3.11", "program.py"]
    assert "Success" in run(*arguments, cwd=tmp_path)


def test_the_stubs_are_what_the_extension_is(tmp_path: Path) -> None:
    (tmp_path / "stubs.py").write_text(STUBS)
    output = run("stubs", "--ignore-disjoint-bases", "--concise", cwd=tmp_path)
    # Before Python 3.12, the buffer interface is not a method.
    buffer = "weir._core_remote.RedisCommand.__b"
    wrong = [line for line in output.splitlines() if not line.startswith(buffer)]
    wrong = [line for line in wrong if "isn't marked with @final" not in line]
    assert wrong == [] or wrong[0].startswith("Success"), output
