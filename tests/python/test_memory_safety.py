"""Python code that runs during a call of the extension: the call uses no freed object afterwards.

Each runs in a process of its own, since a failure is a crash.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import gc, weir
from weir import Decision, Limit, Table, Verdict
from weir.errors import WeirError

table = Table("memory://?keys=1000")
LIMIT = Limit(5, 1, "minute", strategy="fixed-window")

class Closing:
    def __str__(self):
        table.close()
        return "ann"

class Clearing:
    def __init__(self, victim):
        self.victim = victim
    def __str__(self):
        self.victim.clear()
        gc.collect()
        return "ann"
    def __bool__(self):
        return bool(str(self))
    __index__ = lambda self: len(str(self))

def attempt(function, *arguments):
    try:
        return function(*arguments)
    except (WeirError, TypeError, ValueError, AttributeError) as error:
        return error
"""

CASES = {
    "name_of": "assert isinstance(attempt(table.name_of, Closing()), WeirError)",
    "block": "assert isinstance(attempt(table.block, Closing()), WeirError)",
    "unlist": "assert isinstance(attempt(table.unlist, Closing()), WeirError)",
    "rule_of": "assert isinstance(attempt(table.rule_of, Closing()), WeirError)",
    "load_rules": "rules = [(Closing(), 'block', None)]\n"
    "assert isinstance(attempt(table.load_rules, rules), WeirError)",
    "hit": "limiter = weir.RateLimiter(table, 'fixed-window')\n"
    "assert isinstance(attempt(limiter.hit, LIMIT, Closing()), WeirError)",
    "a rule that empties its own entry": "entry = []\n"
    "entry += [Clearing(entry), 'block', None]\n"
    "print(attempt(table.load_rules, [entry]))",
    "a verdict that empties itself": "verdict = []\n"
    "verdict += [Clearing(verdict), 5, 5, 1.0, 0.0, 0.0]\n"
    "print(attempt(Decision, [verdict], 0, 1.0))",
    "verdicts that empty their list": "verdicts = []\n"
    "verdicts += [[Clearing(verdicts), 5, 5, 1.0, 0.0, 0.0]] * 9\n"
    "print(attempt(Decision, verdicts, 0, 1.0))",
}


@pytest.mark.parametrize("case", CASES)
def test_evil_objects_do_not_crash(case: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + CASES[case]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_limits_that_a_list_loses_are_kept_as_long_as_a_check_needs_them() -> None:
    """Redis and Memcached checks keep what they were made of."""
    program = """
limits = [Limit(5, 1, "minute", strategy="fixed-window", namespace=f"n{i}") for i in range(9)]
class Finalizer:
    def __del__(self):
        limits.clear()
cycle = Finalizer()
cycle.itself = cycle
del cycle
gc.set_threshold(1)
for _ in range(100):
    attempt(table.decide, limits, "ann")
"""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
