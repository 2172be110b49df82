"""A free-threaded Python: importing Weir enables the GIL, or is refused if the GIL is forced off.

Run by script/pythons; other Pythons skip these tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig

import pytest

pytestmark = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python always has the GIL"
)

ENABLES_THE_GIL = """
import sys, warnings
assert not sys._is_gil_enabled()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import weir
assert sys._is_gil_enabled()
(only,) = caught
assert only.category is RuntimeWarning and "weir._core" in str(only.message), only
assert weir.RateLimiter(weir.Table("memory://?keys=8")).hit(weir.parse("1/day"))
print("all well")
"""

IS_REFUSED = """
import sys
for _ in range(2):
    for module in ("weir", "weir._core", "weir.flask", "weir.cli"):
        try:
            __import__(module)
        except ImportError as error:
            assert "weir needs the GIL" in str(error) and "remove that setting" in str(error), error
        else:
            raise AssertionError(module)
assert not sys._is_gil_enabled()
print("all well")
"""


def run(program: str, *options: str, gil: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program in a new process with this value of PYTHON_GIL."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    if gil is not None:
        environment["PYTHON_GIL"] = gil
    return subprocess.run(
        [sys.executable, *options, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_enables_the_gil_with_pythons_warning() -> None:
    done = run(ENABLES_THE_GIL)
    assert (done.stdout, done.returncode) == ("all well\n", 0), done.stderr


def test_each_subinterpreter_enables_its_own_gil() -> None:
    program = """
import _interpreters
for _ in range(2):
    interpreter = _interpreters.create()
    failure = _interpreters.run_string(
        interpreter, "import sys, weir; assert sys._is_gil_enabled(); weir.parse('1/day')"
    )
    assert failure is None, failure
    _interpreters.destroy(interpreter)
assert not sys._is_gil_enabled()
print("all well")
"""
    done = run("import sys" + program, "-W", "ignore")
    assert (done.stdout, done.returncode) == ("all well\n", 0), done.stderr


@pytest.mark.parametrize(("options", "gil"), [((), "0"), (("-X", "gil=0"), None)])
def test_importing_is_refused_if_the_gil_is_forced_off(
    options: tuple[str, ...], gil: str | None
) -> None:
    done = run(IS_REFUSED, *options, gil=gil)
    assert (done.stdout, done.returncode) == ("all well\n", 0), done.stderr


def test_importing_is_refused_if_the_gil_is_forced_off_in_a_subinterpreter() -> None:
    program = """
import _interpreters
interpreter = _interpreters.create()
failure = _interpreters.run_string(interpreter, "import weir")
assert failure.type.__name__ == "ImportError" and "needs the GIL" in failure.msg, failure
print("all well")
"""
    done = run(program, gil="0")
    assert (done.stdout, done.returncode) == ("all well\n", 0), done.stderr


def test_pythons_warning_as_an_error_is_an_exception() -> None:
    program = """
try:
    import weir
except RuntimeWarning as warning:
    assert "weir._core" in str(warning)
    print("all well")
"""
    done = run(program, "-W", "error")
    assert (done.stdout, done.returncode) == ("all well\n", 0), done.stderr
