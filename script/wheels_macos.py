"""Compiles libweir and the extension for macOS, by zig. Used by script/wheels.

Nothing is linked or run, since no macOS machine is at hand: this finds what macOS lacks. The
headers of CPython are those of Linux, which differ in pyconfig.h only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ziglang

ROOT = Path(__file__).resolve().parents[1]
TARGET = "aarch64-macos"

#: Not compiled: what needs a library that is only there natively.
WITH_LIBRARIES = ("hiredis/", "crypto/sodium.c")


def sources() -> list[Path]:
    """All C files of libweir and of the extension."""
    src = ROOT / "src"
    own = [path for path in sorted(src.rglob("*.c")) if not _needs_library(path.relative_to(src))]
    return own + sorted((ROOT / "python/ext").glob("*.c"))


def _needs_library(path: Path) -> bool:
    return path.as_posix().startswith(WITH_LIBRARIES)


def compile_all(headers: Path, work: Path) -> str:
    """Compile each file, warnings as errors. headers: of some CPython. Raises RuntimeError."""
    work.mkdir(parents=True, exist_ok=True)
    rows, script = ROOT / "include/weir/strategies.h", ROOT / "src/remote/decide.lua"
    embed = [sys.executable, str(ROOT / "src/remote/embed.py"), str(rows), str(script)]
    subprocess.run([*embed, str(work / "decide.lua.h")], check=True)
    folders = (ROOT / "include", ROOT / "src", work, headers)
    command = [str(Path(ziglang.__file__).parent / "zig"), "cc", "-target", TARGET, "-std=c11"]
    command += ["-D_GNU_SOURCE=1", "-Wall", "-Wextra", "-Werror", "-Wno-pedantic", "-c"]
    command += [f"-I{folder}" for folder in folders]

    def compiled(number: int, path: Path) -> str:
        output = ["-o", str(work / f"{number}.o")]
        done = subprocess.run([*command, str(path), *output], capture_output=True, text=True)
        return f"{path.relative_to(ROOT)}:\n{done.stderr[:600]}" if done.returncode else ""

    found = sources()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        failed = [text for text in pool.map(compiled, range(len(found)), found) if text]
    if failed:
        raise RuntimeError("\n".join(failed))
    return f"{TARGET}: {len(found)} files of src and python/ext compiled, none linked or run"
