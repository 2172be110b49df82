"""The installed C library: found by pkg-config, usable with its header alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = r"""
#include <stdio.h>
#include <weir/weir.h>

int main(void) {
    struct weir_error error;
    struct weir_limit limit;
    struct weir_table *table;
    struct weir_verdict verdict;
    struct weir_check check = {.limit = &limit, .key = "10.1.2.3", .key_len = 8, .cost = 1};

    if (weir_limit_parse("3 per minute", 12, &limit, &error) < 0 ||
        weir_table_open("memory://", &table, &error) < 0) {
        puts(error.message);
        return 1;
    }
    for (int i = 0; i < 5; i++) {
        if (weir_decide(table, &check, 1, 1000000000, WEIR_HIT, &verdict, NULL) < 0)
            return 1;
        printf("%d", verdict.allowed);
    }
    weir_table_close(table);
    return 0;
}
"""


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("install")
    build, prefix = folder / "build", folder / "prefix"
    run("meson", "setup", build, ROOT, f"--prefix={prefix}", "--libdir=lib")
    run("meson", "install", "-C", build)
    return prefix


@pytest.mark.parametrize("static", [False, True], ids=["shared", "static"])
def test_a_program_builds_and_decides(prefix: Path, tmp_path: Path, static: bool) -> None:
    source, program = tmp_path / "program.c", tmp_path / "program"
    source.write_text(PROGRAM)
    pkgconfig = {"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    mode = ["--static"] if static else []
    flags = run("pkg-config", *mode, "--cflags", "--libs", "weir", **pkgconfig).split()
    link = ["-static"] if static else []
    run("gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", *link, source, *flags, "-o", program)
    assert run(program, LD_LIBRARY_PATH=str(prefix / "lib")) == "11100"


def test_the_header_is_cplusplus_too(tmp_path: Path) -> None:
    if not shutil.which("clang++"):
        pytest.skip("no C++ compiler")
    source = tmp_path / "program.cpp"
    source.write_text('#include "weir/weir.h"\nint main() { return weir_version() == nullptr; }\n')
    run("clang++", "-fsyntax-only", "-Wall", "-Werror", "-I", ROOT / "include", source)
