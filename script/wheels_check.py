"""Checks wheels: what is in them, and whether they run. Used by script/wheels.

A wheel for glibc runs in a root of its own, unpacked from Debian's packages: no compiler, no
libsodium, nothing of the machine's but an interpreter of pyenv that Debian lacks. Those for aarch64
run under qemu-user. Those for musl run in a root that has musl's C library and a Python for it,
built from source by wheels_pythons, and nothing else.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import wheels_debian
import wheels_pythons
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
NEEDS = ("pytest", "hypothesis", "Flask", "freezegun", "hiro", "limits", "time-machine")
ALL_NEEDS = (
    *NEEDS,
    "asgiref",
    "click",
    "fakeredis",
    "Flask-Limiter",
    "Flask-RESTful",
    "flask-restx",
    "gevent",
    "gunicorn",
    "prometheus_client",
    "psycopg",
    "pymemcache",
    "redis",
    "rich",
    "valkey",
)

#: What interpreters are linked with, and what tests expect of a system.
PACKAGES = [
    "python3.14",
    "python3.13",
    "dash",
    "bash",
    "coreutils",
    "tzdata",
    "libc-bin",
    "zlib1g",
    "libbz2-1.0",
    "liblzma5",
    "libffi8",
    "libexpat1",
    "libssl3t64",
    "libsqlite3-0",
    "libreadline8t64",
    "libncursesw6",
    "libuuid1",
    "mount",
    "util-linux",
]


class Row(NamedTuple):
    """One line of the table."""

    path: Path
    ran: str
    failed: bool = False


def table(rows: list[Row]) -> str:
    """What was built, how large it is, and what was run where."""
    lines = [("file", "kB", "what was run")]
    for row in rows:
        ran = ("FAILED: " if row.failed else "") + row.ran
        lines.append((row.path.name, f"{row.path.stat().st_size / 1000:.0f}", ran))
    widths = [max(len(line[i]) for line in lines) for i in range(2)]
    return "\n".join(f"{a:{widths[0]}}  {b:>{widths[1]}}  {c}" for a, b, c in lines)


# ----------------------------------------------------------------------------- Pythons and Debian


def interpreter(version: str) -> str | None:
    """A Python of this machine that has its headers: Debian's or pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = sorted(pyenv.glob(f"{version}.*/bin/python{version}"))
    if found:
        return str(found[-1])
    header = Path(f"/usr/include/python{version}/Python.h")
    python = Path(f"/usr/bin/python{version}")
    return str(python) if header.exists() and python.exists() else None


def unpacked_root(arch: str) -> Path:
    """A root of Debian testing's packages, unpacked and not configured."""
    root = OUT / "roots" / arch
    if (root / "stamp").exists():
        return root
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for folder in ("bin", "lib", "sbin", "lib64"):
        (root / "usr" / folder).mkdir(parents=True, exist_ok=True)
        (root / folder).symlink_to(f"usr/{folder}")
    apt, environment = wheels_debian.APT, wheels_debian.apt()
    names = [f"{package}:{arch}" for package in PACKAGES if package != "tzdata"] + ["tzdata"]
    options = (
        "-y",
        "-q",
        "--no-install-recommends",
        "--download-only",
        f"-oAPT::Architecture={arch}",
    )
    call("apt-get", *options, "install", *names, environment=environment)
    for deb in sorted((apt / "archives").glob("*.deb")):
        packed = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", deb], check=True, capture_output=True
        ).stdout
        with tarfile.open(fileobj=BytesIO(packed)) as archive:
            unpack(archive, root)
        deb.unlink()
    for folder in ("dev", "proc", "tmp", "weir", "site", "etc"):
        (root / folder).mkdir(exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "stamp").touch()
    return root


def unpack(archive: tarfile.TarFile, root: Path) -> None:
    """All of a package, below usr/ what it has for bin/ and lib/ (those are links)."""
    for member in archive.getmembers():
        member.name = re.sub(r"^\./(bin|lib|lib64|sbin)(?=/|$)", r"./usr/\1", member.name)
        if not member.isdev():
            archive.extract(member, root)


# -------------------------------------------------------------------------------------- inspecting


def musl_libc(arch: str) -> Path:
    """Musl's C library, which is its dynamic linker too, from Debian's package."""
    unpacked = OUT / "musl" / arch
    if not (unpacked / "stamp").exists():
        shutil.rmtree(unpacked, ignore_errors=True)
        wheels_debian.package(f"musl:{'arm64' if arch == 'aarch64' else 'amd64'}", unpacked)
        (unpacked / "stamp").touch()
    (found,) = (path for path in unpacked.rglob("libc.so") if "musl" in path.parent.name)
    return found


def lacking_in_musl(symbols: Sequence[Symbol], arch: str) -> list[str]:
    """What an extension needs and neither CPython nor musl's C library defines."""
    with musl_libc(arch).open("rb") as file:
        table = ELFFile(file).get_section_by_name(".dynsym")
        known = {s.name for s in table.iter_symbols() if s["st_shndx"] != "SHN_UNDEF"}
    needed = (s for s in symbols if s["st_shndx"] == "SHN_UNDEF")
    names = {s.name for s in needed if s["st_info"]["bind"] != "STB_WEAK"}
    return sorted(n for n in names - known if not n.startswith(("Py", "_Py")))


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


def site_of(wheel: Path, version: str, arch: str, libc: str, needs: Sequence[str]) -> Path:
    """The wheel and what the tests need, installed by pip for that Python and platform."""
    site = OUT / "work/site"
    shutil.rmtree(site, ignore_errors=True)
    names = ["musllinux_1_1", "musllinux_1_2"]
    if libc == "gnu":
        names = ["manylinux2014", "manylinux_2_17", "manylinux_2_28"]
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    command += ["--target", str(site), "--only-binary=:all:", "--no-compile", "--no-warn-conflicts"]
    command += ["--implementation=cp", f"--python-version={version}", "--abi=abi3", "--abi=none"]
    command += [f"--abi=cp{version.replace('.', '')}", *(f"--platform={n}_{arch}" for n in names)]
    files = (ROOT / f"requirements/{name}.txt" for name in ("test", "demo", "peers"))
    pinned = "".join(path.read_text() for path in files)
    wanted = [re.search(rf"(?mi)^{name}==\S+", pinned) for name in needs]
    names = [found.group() for found in wanted if found]
    if version == "3.10":  # the newest of some need a later Python
        names = [name.partition("==")[0] for name in names]
        names += ["exceptiongroup", "typing_extensions"]  # pip asks its own Python, not that one
    call(*command, wheel, *names, "tomli", "tzdata")
    return site


def precompile(root: Path, version: str) -> None:
    """Bytecode for a root whose Python is emulated, by the same Python for this processor.

    Under qemu-user, compiling the modules of pytest alone takes minutes.
    """
    native = unpacked_root("amd64")
    (native / "mnt").mkdir(exist_ok=True)
    python = ["chroot", str(native), f"/usr/bin/python{version}", "-m", "compileall", "-q"]
    python += ["--invalidation-mode=unchecked-hash", "/mnt/site", f"/mnt/usr/lib/python{version}"]
    script = f"mount --bind {root} {native}/mnt && {shlex.join(python)} || true"
    call("unshare", "--mount", "sh", "-c", script)


def run_inside(root: Path, command: list[str], tests: list[str], bind: str = "") -> str:
    """Pytest's last line, of tests in a root with its own /proc and /dev/shm."""
    weir = root / "weir"
    shutil.rmtree(weir, ignore_errors=True)
    for name in call("git", "-C", ROOT, "ls-files", "-z").split("\0"):
        if name and (ROOT / name).is_file():
            (weir / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, weir / name)
    mounts = ["mount -t proc proc {0}/proc", "mount -t tmpfs tmpfs {0}/dev", "mkdir {0}/dev/shm"]
    mounts += ["mount -t tmpfs tmpfs {0}/dev/shm"]
    for device in ("null", "urandom", "zero"):
        mounts.append(f"touch {{0}}/dev/{device} && mount --bind /dev/{device} {{0}}/dev/{device}")
    if bind:
        mounts.append(f"mkdir -p {{0}}{bind} && mount --bind {bind} {{0}}{bind}")
    start = (
        "import os, sys, pytest, weir; os.chdir('/weir'); "
        "assert weir.__file__.startswith('/site/'), weir.__file__; "
        "sys.exit(pytest.main(sys.argv[1:]))"
    )
    clean = ["HOME=/tmp", "PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "PYTHONPATH=/site", "TMPDIR=/tmp"]
    words = ["env", "-i", *clean, "PYTHONDONTWRITEBYTECODE=1", shutil.which("chroot") or "chroot"]
    words += [
        str(root),
        *command,
        "-c",
        start,
        "-q",
        "-p",
        "no:cacheprovider",
        "-rf",
        "--tb=line",
        "-k",
        "not full_shared_memory",
        *tests,
        *(f"--ignore=tests/python/{name}" for name in APART),
    ]
    script = " && ".join(line.format(root) for line in mounts) + " && exec " + shlex.join(words)
    output = call("timeout", "3600", "unshare", "--mount", "sh", "-c", script)
    return output.strip().splitlines()[-1].strip("= ")


#: For a Python that was built without zlib: all that the tests and what they import need of it.
ZLIB = """\
from binascii import crc32


class error(Exception):
    pass


def compress(data, *arguments, **options):
    return bytes(data)


decompress = compress


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return 0  # constants
"""


def musl_root(version: str, arch: str) -> Path | str:
    """A root with musl's C library and a Python for it, nothing else; or why there is none."""
    same = interpreter(version)
    if same is None:
        return "only inspected: no such Python here to build one for musl with"
    python = wheels_pythons.for_musl(version, arch, same)
    if python is None:
        return f"only inspected: no Python {version} for musl; see build/wheels/pythons"
    root = OUT / "roots" / f"musl-{arch}-{version}"
    if not (root / "stamp").exists():
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(python, root, symlinks=True)
        (root / "lib").mkdir(exist_ok=True)
        shutil.copy(musl_libc(arch), root / f"lib/ld-musl-{arch}.so.1")
        for folder in ("dev", "proc", "tmp", "usr/bin"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        modules = root / f"{wheels_pythons.PREFIX[1:]}/lib/python{version}"
        (modules / "zlib.py").write_text(ZLIB)
        (root / "stamp").touch()
    return root


class Place(NamedTuple):
    """Where a wheel can run.

    command: what starts Python in the root. bind: a folder of this machine that it needs. name:
    what the table calls it.
    """

    root: Path
    command: list[str]
    name: str
    bind: str = ""


def place(version: str, arch: str, libc: str) -> Place | str:
    """Where a wheel can run, or why nowhere."""
    if os.geteuid() != 0 or not shutil.which("dpkg-deb"):
        return "only inspected: running it takes root on Debian"
    emulator = shutil.which("qemu-aarch64-static") if arch == "aarch64" else ""
    if emulator is None:
        return "only inspected: install qemu-user-static to run it"
    if libc == "musl":
        root = musl_root(version, arch)
        if isinstance(root, str):
            return root
        name = "musl's libc and nothing else"
    else:
        root = unpacked_root("arm64" if arch == "aarch64" else "amd64")
        name = "Debian testing's Python"
    prefix = wheels_pythons.PREFIX if libc == "musl" else "/usr"
    python = f"{prefix}/bin/python{version}"
    if (root / python[1:]).exists():
        if emulator:
            shutil.copy(emulator, root / "usr/bin")
            return Place(root, ["/usr/bin/qemu-aarch64-static", python], f"qemu-user, {name}")
        return Place(root, [python], name)
    found = interpreter(version)
    if arch == "aarch64" or found is None or found.startswith("/usr/bin/"):
        return "only inspected: no such Python here"
    return Place(root, [found], "pyenv's Python", str(Path(found).parents[1]))


def check_wheel(wheel: Path) -> Row:
    """One wheel: inspected, and run where that can be."""
    _, _, python, _, platform = wheel.stem.split("-")
    version = f"3.{python.removeprefix('cp3')}"
    arch = "aarch64" if platform.endswith("aarch64") else "x86_64"
    libc = "musl" if "musllinux" in platform else "gnu"
    try:
        inspect(wheel, arch, libc)
        found = place(version, arch, libc)
        if isinstance(found, str):
            return Row(wheel, found)
        everything = (arch, libc) == ("x86_64", "gnu")
        site = site_of(wheel, version, arch, libc, ALL_NEEDS if everything else NEEDS)
        shutil.rmtree(found.root / "site", ignore_errors=True)
        shutil.copytree(site, found.root / "site")
        if (arch, libc) == ("aarch64", "gnu"):
            precompile(found.root, version)
        names = CORE if arch == "aarch64" else CORE + MORE
        tests = ["tests/python"] if everything else [f"tests/python/test_{n}.py" for n in names]
        ended = run_inside(found.root, found.command, tests, found.bind)
        return Row(wheel, f"{found.name}, no compiler: {ended}")
    except (AssertionError, RuntimeError) as error:
        return Row(wheel, f"{type(error).__name__}: {error}", failed=True)


def check_sdist(sdist: Path) -> Row:
    """Builds and installs the source distribution with a C compiler and no pkg-config."""
    work = OUT / "work/sdist"
    shutil.rmtree(work, ignore_errors=True)
    try:
        call(sys.executable, "-m", "venv", "--system-site-packages", work)
        python = work / "bin/python"
        pip: list[str | Path] = [
            python,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--disable-pip-version-check",
        ]
        call(*pip, sdist, environment={"PKG_CONFIG": "/bin/false", "PKG_CONFIG_PATH": ""})
        call(
            python,
            "-c",
            "import weir; t = weir.Table('memory://'); assert t",
            environment={"PYTHONPATH": ""},
        )
    except RuntimeError as error:
        return Row(sdist, str(error), failed=True)
    return Row(sdist, "built by gcc without libsodium, installed, imported")


def check(path: Path) -> Row:
    """A row of the table."""
    row = check_wheel(path) if path.suffix == ".whl" else check_sdist(path)
    print(f"wheels: {path.name}: {row.ran}", file=sys.stderr, flush=True)
    return row
