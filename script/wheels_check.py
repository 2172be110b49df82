"""Checks wheels: what is in them, and whether they run. Used by script/wheels.

Where they run, wheels_roots prepares. What was run stays in build/wheels/results: a wheel that
passed is not run again until it, the tests or these scripts change.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shlex
import shutil
import sys
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import wheels_roots
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Symbol
from wheels_debian import call

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build/wheels"

#: What the extension may be linked with.
LIBRARIES = re.compile(r"lib(c|pthread|dl|rt)\.so(\.\d+)?|ld-(linux|musl)-.*|libc\.musl-.*")

#: Tests of the core: those that qemu and musl run.
CORE = ("limit", "limit_strings", "limiter", "timelines", "table", "rules", "key", "storage")
MORE = ("strategies_model", "clock", "prepared_check", "own_items", "callables", "distribution")

#: The Python with whose wheel for glibc and x86_64 all of tests/python run, not only the core's.
WHOLE = "3.11"

#: Seconds that the tests of one wheel may take.
PATIENCE = 3600

#: Tests that need a compiler, a server, or the checkout; all others of tests/python run.
APART = (
    "stores",
    "test_docs.py",
    "test_for_limits_workers.py",
    "test_memory_safety.py",
    "test_peer_names.py",
    "test_tally.py",
    "test_tutorial.py",
    "test_typing.py",
)

#: A test that needs another /dev/shm than a root has.
LEFT_OUT = ("full_shared_memory",)

#: Those that need a program: ``mount``, which is not in a root for musl, and Python itself, which
#: an emulated one cannot start unless the kernel calls qemu.
MOUNTING, STARTING = "full_file_system", "another_process"

NEEDS = ("pytest", "hypothesis", "Flask", "freezegun", "hiro", "limits", "time-machine")
ALL_NEEDS = (
    *NEEDS,
    "asgiref",
    "click",
    "fakeredis",
    "Flask-Limiter",
    "Flask-Login",
    "Flask-RESTful",
    "flask-restx",
    "gevent",
    "gunicorn",
    "prometheus_client",
    "psycopg",
    "psycopg-binary",
    "psycopg-pool",
    "pymemcache",
    "pytest-xdist",
    "redis",
    "rich",
    "slowapi",
    "starlette",
    "valkey",
)


class Row(NamedTuple):
    """One line of the table."""

    path: Path
    ran: str
    failed: bool = False
    seconds: float = 0


def table(rows: list[Row]) -> str:
    """What was built, how large it is, what was run where, and how long that took."""
    lines = [("file", "kB", "s", "what was run")]
    for row in rows:
        ran = ("FAILED: " if row.failed else "") + row.ran
        size = f"{row.path.stat().st_size / 1000:.0f}"
        lines.append((row.path.name, size, f"{row.seconds:.0f}", ran))
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    shown = (f"{a:{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d}" for a, b, c, d in lines)
    return "\n".join(shown)


# -------------------------------------------------------------------------------------- inspecting


def lacking_in_musl(symbols: Sequence[Symbol], arch: str) -> list[str]:
    """What an extension needs and neither CPython nor musl's C library defines."""
    with wheels_roots.musl_libc(arch).open("rb") as file:
        table = ELFFile(file).get_section_by_name(".dynsym")
        known = {s.name for s in table.iter_symbols() if s["st_shndx"] != "SHN_UNDEF"}
    needed = (s for s in symbols if s["st_shndx"] == "SHN_UNDEF")
    names = {s.name for s in needed if s["st_info"]["bind"] != "STB_WEAK"}
    return sorted(n for n in names - known if not n.startswith(("Py", "_Py")))


def inspect_files(wheel: Path, python: str, arch: str, libc: str) -> None:
    """Raises AssertionError if files are missing or damaged, or if the tags are wrong."""
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    wanted = call("git", "-C", ROOT, "ls-files", "python/weir").split()
    missing = {name.removeprefix("python/") for name in wanted} - files.keys()
    assert not missing, f"lacks {', '.join(sorted(missing))}"
    (information,) = {name.partition("/")[0] for name in files} - {"weir"}
    for line in files[f"{information}/RECORD"].decode().splitlines():
        name, digest, _ = line.rsplit(",", 2)
        assert name in files, f"lacks {name}, which RECORD lists"
        found = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).decode()
        assert not digest or digest == f"sha256={found.rstrip('=')}", f"{name} is not as in RECORD"
    tags = re.findall(r"^Tag: (\S+)", files[f"{information}/WHEEL"].decode(), re.MULTILINE)
    named = wheel.stem.split("-", 2)[2]
    start, _, platforms = named.rpartition("-")
    assert {f"{start}-{one}" for one in platforms.split(".")} == set(tags), f"tags are {tags}"
    short = python.removeprefix("cp")
    extension = f"weir/_core.cpython-{short}-{arch}-linux-{libc}.so"
    assert extension in files, f"lacks {extension}"
    machine = ELFFile(BytesIO(files[extension])).get_machine_arch()
    assert machine == {"x86_64": "x64", "aarch64": "AArch64"}[arch], f"is for {machine}"


def inspect(wheel: Path, arch: str, libc: str) -> None:
    """Raises AssertionError if a wheel needs or shows more than it should."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (extension,) = (name for name in names if name.endswith(".so"))
        data = archive.read(extension)
        assert "weir/py.typed" in names
        assert any(re.fullmatch(r".*\.dist-info/licenses/LICENSE", name) for name in names)
        (metadata,) = (archive.read(n).decode() for n in names if n.endswith("/METADATA"))
    assert "License-Expression: MIT" in metadata
    elf = ELFFile(BytesIO(data))
    needed = [tag.needed for tag in elf.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")]
    assert all(LIBRARIES.fullmatch(name) for name in needed), needed
    symbols = [s for s in elf.get_section_by_name(".dynsym").iter_symbols() if s.name]
    shown = {s.name for s in symbols if s["st_shndx"] != "SHN_UNDEF"}
    assert shown == {"PyInit__core"}, shown
    assert not any("sodium" in s.name or "crypto_" in s.name for s in symbols)
    assert (libc == "musl") == (not re.search(rb"GLIBC_2\.", data)), "of the other C library"
    if libc == "musl" and shutil.which("dpkg-deb"):
        lacking = lacking_in_musl(symbols, arch)
        assert not lacking, f"musl has no {', '.join(lacking)}"


# ----------------------------------------------------------------------------------------- running


def install(
    wheel: Path, site: Path, version: str, arch: str, libc: str, needs: Sequence[str]
) -> None:
    """Have pip install the wheel and what the tests need, for that Python and platform."""
    names = ["musllinux_1_1", "musllinux_1_2"]
    if libc == "gnu":
        names = ["manylinux2014", "manylinux_2_17", "manylinux_2_28"]
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    command += ["--target", str(site), "--only-binary=:all:", "--no-compile", "--no-warn-conflicts"]
    command += ["--implementation=cp", f"--python-version={version}", "--abi=abi3", "--abi=none"]
    command += [f"--abi=cp{version.replace('.', '')}", *(f"--platform={n}_{arch}" for n in names)]
    files = (ROOT / f"requirements/{name}.txt" for name in ("test", "demo", "load", "peers"))
    pinned = "".join(path.read_text() for path in files)
    wanted = [re.search(rf"(?mi)^{name}==\S+", pinned) for name in needs]
    names = [found.group() for found in wanted if found]
    if version == "3.10":  # the newest of some need a later Python
        names = [name.partition("==")[0] for name in names]
        names += [
            "exceptiongroup",
            "typing_extensions",
        ]  # pip evaluates this for its own Python, not that one
    call(*command, wheel, *names, "tomli", "tzdata")


def checkout(to: Path) -> None:
    """Copy what git has of the checkout, as it is now."""
    for name in call("git", "-C", ROOT, "ls-files", "-z").split("\0"):
        if name and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)


def mounts(where: wheels_roots.Place, work: Path) -> str:
    """Commands that give a root its own /proc, /tmp and /dev, and the files of ``work``."""
    # Programs that change how mounts propagate need a root that is a mount itself.
    lines = ["mount --bind {0} {0}"]
    lines += ["mount -t proc proc {0}/proc", "mount -t tmpfs tmpfs {0}/tmp"]
    lines += ["mount -t tmpfs tmpfs {0}/dev", "mkdir {0}/dev/shm {0}/dev/pts"]
    lines += ["mount -t tmpfs tmpfs {0}/dev/shm"]
    lines += ["mount -t devpts -o newinstance,ptmxmode=0666 devpts {0}/dev/pts"]
    lines += ["ln -s pts/ptmx {0}/dev/ptmx"]
    for device in ("null", "urandom", "zero"):
        lines.append(f"touch {{0}}/dev/{device} && mount --bind /dev/{device} {{0}}/dev/{device}")
    lines += [f"mount --bind {work}/{name} {{0}}/{name}" for name in ("site", "weir")]
    if where.bind:
        lines.append(f"mkdir -p {{0}}{where.bind} && mount --bind {where.bind} {{0}}{where.bind}")
    return " && ".join(lines).format(where.root)


def run_inside(where: wheels_roots.Place, work: Path, tests: list[str]) -> str:
    """Pytest's last line, of tests in a root."""
    start = (
        "import os, sys, pytest, weir; os.chdir('/weir'); "
        "assert weir.__file__.startswith('/site/'), weir.__file__; "
        "sys.exit(pytest.main(sys.argv[1:]))"
    )
    emulated = where.library is not None
    left_out = [*LEFT_OUT]
    if emulated or not (where.root / "usr/bin/mount").exists():
        left_out.append(MOUNTING)
    if emulated:
        left_out.append(STARTING)
    clean = ["HOME=/tmp", "PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "PYTHONPATH=/site", "TMPDIR=/tmp"]
    words = ["env", "-i", *clean, "PYTHONDONTWRITEBYTECODE=1", shutil.which("chroot") or "chroot"]
    words += [str(where.root), *where.command, "-c", start, "-q", "-p", "no:cacheprovider", "-rf"]
    words += ["--tb=line", "-k", f"not ({' or '.join(left_out)})", *tests]
    words += [f"--ignore=tests/python/{name}" for name in APART]
    script = f"{mounts(where, work)} && exec {shlex.join(words)}"
    output = call("timeout", str(PATIENCE), "unshare", "--mount", "sh", "-c", script)
    return output.strip().splitlines()[-1].strip("= ")


def check_wheel(wheel: Path, work: Path, all_tests: bool) -> str:
    """One wheel: inspected, and run where that can be. What was run."""
    _, _, python, _, platform = wheel.stem.split("-")
    version = f"3.{python.removeprefix('cp3')}"
    arch = "aarch64" if platform.endswith("aarch64") else "x86_64"
    libc = "musl" if "musllinux" in platform else "gnu"
    inspect_files(wheel, python, arch, libc)
    inspect(wheel, arch, libc)
    where = wheels_roots.place(version, arch, libc)
    if isinstance(where, str):
        return where
    everything = (arch, libc) == ("x86_64", "gnu") and (all_tests or version == WHOLE)
    needs = ALL_NEEDS if everything else NEEDS
    install(wheel, work / "site", version, arch, libc, needs)
    checkout(work / "weir")
    if where.library:
        wheels_roots.precompile(work / "site", where.library, version)
    names = CORE if arch == "aarch64" else CORE + MORE
    tests = ["-n2", "tests/python"] if everything else [f"tests/python/test_{n}.py" for n in names]
    what = "all tests" if everything else "core"
    return f"{where.name}, no compiler, {what}: {run_inside(where, work, tests)}"


def check_sdist(sdist: Path, work: Path) -> str:
    """Builds and installs the source distribution with a C compiler and no pkg-config."""
    call(sys.executable, "-m", "venv", "--system-site-packages", work / "venv")
    python = work / "venv/bin/python"
    pip = [str(python), "-m", "pip", "install", "-q", "--no-deps"]
    pip.append("--disable-pip-version-check")
    call(*pip, sdist, environment={"PKG_CONFIG": "/bin/false", "PKG_CONFIG_PATH": ""})
    code = "import weir; t = weir.Table('memory://'); assert t"
    call(python, "-c", code, environment={"PYTHONPATH": ""})
    return "built by gcc without libsodium, installed, imported"


# ----------------------------------------------------------------------------------------- all


def inputs() -> str:
    """A digest of what a check depends on besides the file that it checks."""
    digest = hashlib.sha256()
    folders = ("tests", "script/wheels*", "requirements", "docs", "examples")
    for name in call("git", "-C", ROOT, "ls-files", "-z", *folders).split("\0"):
        if name and (ROOT / name).is_file():
            digest.update(name.encode() + b"\0" + (ROOT / name).read_bytes() + b"\0")
    return digest.hexdigest()


def check(path: Path, others: str, all_tests: bool) -> Row:
    """A row of the table: from the last run if it passed then and nothing has changed."""
    key = hashlib.sha256(path.read_bytes() + f"{others} {all_tests}".encode()).hexdigest()
    result = OUT / "results" / f"{path.name}.json"
    if result.exists() and (known := json.loads(result.read_text()))["key"] == key:
        return Row(path, known["ran"], seconds=known["seconds"])
    work = OUT / "work/checks" / path.name
    shutil.rmtree(work, ignore_errors=True)
    (work / "weir").mkdir(parents=True)
    began = time.monotonic()
    try:
        if path.suffix == ".whl":
            ran = check_wheel(path, work, all_tests)
        else:
            ran = check_sdist(path, work)
    except (AssertionError, OSError, RuntimeError) as error:
        text = f"{type(error).__name__}: {error}"
        return Row(path, text, failed=True, seconds=time.monotonic() - began)
    seconds = time.monotonic() - began
    result.parent.mkdir(exist_ok=True)
    result.write_text(json.dumps({"key": key, "ran": ran, "seconds": round(seconds)}))
    shutil.rmtree(work)
    return Row(path, ran, seconds=seconds)


def check_all(paths: list[Path], all_tests: bool) -> list[Row]:
    """The table's rows, with two checks at a time.

    all_tests: run all of tests/python with each wheel for glibc and x86_64, not only with WHOLE's.
    """
    others, began = inputs(), time.monotonic()
    rows: dict[Path, Row] = {}

    def one(path: Path) -> None:
        rows[path] = row = check(path, others, all_tests)
        ended = f"{len(rows)} of {len(paths)} after {time.monotonic() - began:.0f} s"
        state = "FAILED: " if row.failed else ""
        print(f"wheels: {ended}: {path.name}: {state}{row.ran}", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        whole = f"cp{WHOLE.replace('.', '')}-manylinux"
        slow_first = sorted(
            paths, key=lambda path: (whole not in path.name, "aarch64" in path.name)
        )
        list(pool.map(one, slow_first))
    return [rows[path] for path in paths]
