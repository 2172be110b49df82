"""Builds Pythons that no registry has as a package, from Debian's source packages.

For script/wheels: Pythons for musl, by zig as the cross compiler, to run the musllinux wheels on;
and free-threaded ones. They stay in build/wheels/pythons. If a source package cannot be had, or a
build fails, a file there has the reason, and it is not tried again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import wheels_debian
import ziglang

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ROOT / "build/wheels/pythons"

#: What configure cannot find out without running a program of the target.
ANSWERS = {
    "ac_cv_file__dev_ptmx": "yes",
    "ac_cv_file__dev_ptc": "no",
    "ac_cv_buggy_getaddrinfo": "no",
    "ac_cv_working_tzset": "yes",
}

#: Precedes the call of the compiler. With these arguments, zig prints header directories of this
#: machine, which it does not use. setup.py of Python 3.11 would add them, and its
#: modules would then need glibc.
NO_SEARCH_LIST = '[ "$*" != "-E -v -" ] || exit 1'

#: By this definition, of musl's stdarg.h, configure of Python 3.13 recognizes musl. Zig has a
#: stdarg.h that lacks it, and modules would then be named as for no platform.
MUSL_MARK = 'case $* in *platform_triplet.c*) set -- -D__DEFINED_va_list "$@" ;; esac'

#: Where a Python is in its root. Not /usr: setup.py of Python 3.11 would take headers from there.
PREFIX = "/python"

#: Seconds that one build may take; on two quiet cores it takes about four minutes.
PATIENCE = 3600


def run(command: list[str | Path], folder: Path, log: Path, **environment: str) -> None:
    """Run a command with its output in a log; RuntimeError with the log's end if it fails."""
    with log.open("a") as output:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=folder,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
        )
    if done.returncode != 0:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise RuntimeError(f"{command[0]}: exit code {done.returncode}\n{end}")


def source(name: str) -> Path:
    """The unpacked source of a Debian package, as its authors published it."""
    folder = PYTHONS / "source" / name
    if (folder / "configure").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    packed = wheels_debian.source_of(name)
    with tarfile.open(packed) as archive:
        for member in archive.getmembers():
            member.name = member.name.partition("/")[2]
            if member.name:
                archive.extract(member, folder)
    return folder


def tools(folder: Path, target: str) -> dict[str, str]:
    """Compiler and archiver for a target of zig, as programs of one word each."""
    commands = {
        "CC": f"cc -target {target} -dynamic -fno-sanitize=undefined -Wno-date-time",
        "AR": "ar",
        "RANLIB": "ranlib",
    }
    # Without the Python between, which would start some thousand times.
    zig = Path(ziglang.__file__).parent / "zig"
    found = {}
    for name, arguments in commands.items():
        path = folder / f"zig-{name.lower()}"
        path.write_text(
            f'#!/bin/sh\n{NO_SEARCH_LIST}\n{MUSL_MARK}\nexec "{zig}" {arguments} "$@"\n'
        )
        path.chmod(0o755)
        found[name] = str(path)
    # Without it, setup.py of Python 3.11 would add the include folders of this machine.
    hidden = folder / "dpkg-architecture"
    hidden.write_text("#!/bin/sh\nexit 1\n")
    hidden.chmod(0o755)
    found["READELF"] = shutil.which("readelf") or "readelf"
    found["PKG_CONFIG"] = "/bin/false"
    found["PATH"] = f"{folder}:{os.environ['PATH']}"
    return found


def zlib(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """Compile zlib for the target of the tools in that folder; returns the settings for configure.

    pip, pytest and zipfile need the module zlib.
    """
    place = folder / "zlib"
    if not (place / "lib/libz.a").exists():
        work, log = folder / "zlib.build", folder / "zlib.log"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(source("zlib"), work)
        uname = {"uname": "Linux"}
        environment = environment | uname | {"CFLAGS": "-O2 -fPIC", "CHOST": ""}
        run(["./configure", "--static", f"--prefix={place}"], work, log, **environment)
        run(["make", "install"], work, log, **environment)
        shutil.rmtree(work)
    return {"ZLIB_CFLAGS": f"-I{place}/include", "ZLIB_LIBS": f"-L{place}/lib -lz"}


def built(name: str, version: str, options: list[str], environment: dict[str, str]) -> Path | None:
    """The folder that a Python is installed in, as below ``/``; None if it cannot be built."""
    place, failure = PYTHONS / name, PYTHONS / f"{name}.failed"
    common = [f"--prefix={PREFIX}", "--disable-test-modules", "--without-ensurepip", "CFLAGS=-O1"]
    known = sorted((key, value) for key, value in environment.items() if key != "PATH")
    what = (common, options, known, NO_SEARCH_LIST, MUSL_MARK)
    how = hashlib.sha256(repr(what).encode()).hexdigest()
    if (place / "stamp").exists() and (place / "stamp").read_text() == how:
        return place
    if failure.exists() and failure.read_text().startswith(how):
        return None
    work, log = PYTHONS / f"{name}.build", PYTHONS / f"{name}.log"
    shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(place, ignore_errors=True)
    work.mkdir(parents=True)
    log.unlink(missing_ok=True)
    print(f"wheels: building Python {name} from source", file=sys.stderr, flush=True)
    try:
        run([source(f"python{version}") / "configure", *common, *options], work, log, **environment)
        run(["make", f"-j{os.cpu_count()}"], work, log, **environment)
        run(["make", "install", f"DESTDIR={place}"], work, log, **environment)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        failure.write_text(f"{how}\n{error}\n")
        return None
    shutil.rmtree(work)
    shutil.rmtree(place / f"{PREFIX[1:]}/lib/python{version}/test", ignore_errors=True)
    (place / "stamp").write_text(how)
    failure.unlink(missing_ok=True)
    return place


def builder(version: str, here: str) -> str | None:
    """A Python for this machine with which one of the same version is cross-compiled.

    here: a Python of this machine. 3.13's Makefile runs the source's modules with it: those of
    3.13.15 do not run on 3.13.0, so it is one that is built from the same source.
    """
    if version == "3.11":
        return here
    place = free_threaded(version)
    return None if place is None else str(place / f"{PREFIX[1:]}/bin/python{version}t")


def for_musl(version: str, arch: str, here: str) -> Path | None:
    """A Python for musl. here: a Python of that version that runs here."""
    name = f"{version}-musl-{arch}"
    try:
        source(f"python{version}")
        same = builder(version, here)
    except RuntimeError as error:
        (PYTHONS / f"{name}.failed").write_text(f"\n{error}\n")
        return None
    if same is None:
        return None
    # With "musl" in both names: Python 3.11 names its modules by the machine that it is built on.
    options = [
        "--build=x86_64-pc-linux-musl",
        f"--host={arch}-linux-musl",
        f"--with-build-python={same}",
    ]
    folder = PYTHONS / f"tools-{arch}"
    folder.mkdir(parents=True, exist_ok=True)
    environment = ANSWERS | tools(folder, f"{arch}-linux-musl")
    try:
        environment |= zlib(folder, environment)
    except RuntimeError as error:
        print(f"wheels: no zlib for musl: {error}", file=sys.stderr, flush=True)
        return None
    return built(name, version, options, environment)


def free_threaded(version: str) -> Path | None:
    """A free-threaded Python for this machine, compiled by gcc."""
    return built(f"{version}t", version, ["--disable-gil"], {"PKG_CONFIG": "/bin/false"})
