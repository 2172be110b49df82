"""script/sizes.py measures the functions of each language."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SIZES = Path(__file__).parents[2] / "script" / "sizes.py"

LUA = """
local function make(a) -- of functions
    local b = 1
    local function one(
        x, y)
        if x then return y end
        return {
            y,
        }
    end
    local meta = {}
    meta.__lt = function(x, y)
        return first(x, function(z) return z end)
    end
    meta.__le = function(x) return x end
    -- another function (of x)
    local function two(x) local y = first(x, function(z) return z end) -- to the end
        return y
    end
    local function three(x) if x then return "end" end
        return 3
    end
    return {
        read = function(x)
            return x
        end,
    }
end
"""

C = """
#define ONE 1
#define TWO(x) \\
    do { \\
        (x)++; \\
    } while (0)
#ifdef ONE
#  define THREE \\
    3
#endif
static int four(int x) {
    return x;
}
"""

JS = """
(function () {
  const twice = (x) => 2 * x;
  const many = async (x, options = {}) => {
    if (x) {
      return `${x}`;
    } else if (options) {
      return 1;
    }
  };
  function few(
    a,
    b,
  ) {
    rows.map((row) => {
      return row;
    });
  }
  class Table {
    static read(x) {
      for (const y of x) {
        y();
      }
    }
  }
})();
"""

SHELL = """#!/usr/bin/env bash
say() { echo "$*"; }
usage() {
    cat <<'USAGE'
}
USAGE
    cat <<<"one"
}
run()
{
    first=(
        a
    )
    case $1 in
    b) exit ;;
    esac
}
list() (
    ls
)
"""


@pytest.fixture(scope="module")
def sizes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sizes", SIZES)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "text", "lengths"),
    [
        ("a.lua", LUA, {"make": 8, "one": 7, "meta.__lt": 3, "two": 3, "three": 3, "read": 3}),
        ("a.c", C, {"four": 3, "ONE": 1, "TWO": 4, "THREE": 2}),
        ("a.h", C, {"four": 3, "ONE": 1, "TWO": 4, "THREE": 2}),
        ("a.js", JS, {"line-2": 5, "many": 7, "few": 8, "line-15": 3, "read": 5}),
        ("script/a", SHELL, {"usage": 6, "run": 9, "list": 3}),
        ("a.sh", SHELL, {"usage": 6, "run": 9, "list": 3}),
    ],
)
def test_functions_are_counted_without_those_in_them(
    sizes: ModuleType, name: str, text: str, lengths: dict[str, int]
) -> None:
    assert dict(sizes.functions(name, text)) == lengths


@pytest.mark.parametrize(
    ("name", "head", "line", "end"),
    [
        ("a.lua", "local function long()", "    call()", "end"),
        ("a.lua", "local function long() call()", "    call()", "end"),
        ("a.js", "const long = (x) => {", "  call();", "};"),
        ("a.sh", "long() {", "    call", "}"),
        ("a.py", "def long():", "    call()", "    call()"),
        ("a.c", "int long(void) {", "    call();", "}"),
        ("a.h", "#define long \\", "    call(); \\", "    call()"),
    ],
)
def test_a_function_has_at_most_50_lines(
    sizes: ModuleType, name: str, head: str, line: str, end: str
) -> None:
    def of(lines: int) -> str:
        return "\n".join([head, *[line] * (lines - 2), end, ""])

    assert sizes.too_long(name, of(50)) == {}
    assert sizes.too_long(name, of(51)) == {f"{name}:long": 51}
