"""Builds the wheels and the source distribution. Run by script/wheels.

Meson compiles, with zig as the cross compiler, once per processor and C library; only the extension
is compiled again for each Python. A Python is described to meson by its headers and a PEP 739 file,
so that none needs to run. auditwheel names the wheels for glibc by what they need.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import wheels_check
import wheels_debian
import wheels_macos
import wheels_pythons
import wheels_roots
from pyproject_metadata import StandardMetadata

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build/wheels"
WORK = OUT / "work"
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

#: 2.17 is the oldest glibc that manylinux names and zig supports; the code needs nothing newer.
GLIBC = "2.17"


class Target(NamedTuple):
    """A processor and a C library."""

    arch: str
    libc: str

    @property
    def zig(self) -> str:
        """Zig's name of it."""
        return f"{self.arch}-linux-" + (f"gnu.{GLIBC}" if self.libc == "gnu" else "musl")

    @property
    def policy(self) -> str:
        """The platform tag of its wheels."""
        start = "manylinux_" + GLIBC.replace(".", "_") if self.libc == "gnu" else "musllinux_1_2"
        return f"{start}_{self.arch}"


TARGETS = [Target(arch, libc) for libc in ("gnu", "musl") for arch in ("x86_64", "aarch64")]


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """Run a command; its output, or an error that shows it."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout[-6000:]}")
    return done.stdout


# ------------------------------------------------------------------------------ headers of a Python


def headers(version: str) -> Path:
    """A folder with Python.h and pyconfig.h of that Python."""
    folder = OUT / "headers" / version
    if (folder / "Python.h").exists() and (folder / "pyconfig.h").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    python = wheels_roots.interpreter(version)
    if python is None:
        fetch_headers(version, folder)
    else:
        include = run(
            python, "-c", "import sysconfig; print(sysconfig.get_path('include'))"
        ).strip()
        shutil.copytree(include, folder)
        config = Path(sysconfig_header(python))
        if config.exists():
            shutil.copy(config, folder / "pyconfig.h")
    if not (folder / "Python.h").exists():
        raise SystemExit(f"no headers of Python {version}: install python{version}-dev")
    return folder


def sysconfig_header(python: str) -> str:
    """The pyconfig.h that has the definitions, on Debian not the one beside Python.h."""
    ask = (
        "import sys, sysconfig, os; i = sysconfig.get_path('include');"
        "m = sysconfig.get_config_var('MULTIARCH') or '';"
        "d = os.path.join(os.path.dirname(i), m, os.path.basename(i), 'pyconfig.h');"
        "print(d if m and os.path.exists(d) else sysconfig.get_config_h_filename())"
    )
    return run(python, "-c", ask).strip()


def fetch_headers(version: str, folder: Path) -> None:
    """From Debian's package libpythonX.Y-dev, downloaded and unpacked, not installed."""
    unpacked = folder.with_suffix(".deb")
    wheels_debian.package(f"libpython{version}-dev", unpacked)
    shutil.copytree(unpacked / f"usr/include/python{version}", folder)
    (config,) = (unpacked / "usr/include").glob(f"*/python{version}/pyconfig.h")
    shutil.copy(config, folder / "pyconfig.h")
    shutil.rmtree(unpacked)


def describe(version: str, target: Target) -> Path:
    """The PEP 739 file that describes a Python that does not run here, for meson."""
    short = version.replace(".", "")
    suffix = f".cpython-{short}-{target.arch}-linux-{target.libc}.so"
    path = WORK / f"python-{version}-{target.arch}-{target.libc}.json"
    text = json.dumps(
        {
            "schema_version": "1.0",
            "base_prefix": "/usr",
            "platform": f"linux-{target.arch}",
            "language": {"version": version},
            "implementation": {"name": "cpython"},
            "abi": {"flags": [], "extension_suffix": suffix, "stable_abi_suffix": ".abi3.so"},
            "suffixes": {"extensions": [suffix, ".abi3.so", ".so"]},
            "libpython": {"link_extensions": False},
            "c_api": {"headers": str(headers(version))},
        }
    )
    path.write_text(text)
    return path


# ----------------------------------------------------------------------------------------- building


def cross_file(target: Target) -> Path:
    """The description of the target for meson."""
    path = WORK / f"{target.arch}-{target.libc}.ini"
    zig = f"'{sys.executable}', '-m', 'ziglang'"
    path.write_text(
        f"[binaries]\n"
        f"c = [{zig}, 'cc', '-target', '{target.zig}', '-fno-sanitize=undefined']\n"
        f"ar = [{zig}, 'ar']\n"
        f"[host_machine]\n"
        f"system = 'linux'\ncpu_family = '{target.arch}'\ncpu = '{target.arch}'\n"
        f"endian = 'little'\n"
    )
    return path


def compile_for(target: Target, version: str) -> Path:
    """The package as it is to be installed; the folder that holds ``weir``."""
    build = WORK / f"build-{target.arch}-{target.libc}"
    options = [f"-Dpython.build_config={describe(version, target)}"]
    if (build / "build.ninja").exists():
        # Without --clearcache, meson keeps the headers of the Python before.
        run("meson", "setup", "--reconfigure", "--clearcache", build, *options)
    else:
        options += ["-Dpython=true", "-Dsodium=disabled", "-Dbuildtype=release", "-Dwerror=true"]
        options += ["-Dc_link_args=-s", "--cross-file", str(cross_file(target))]
        run("meson", "setup", build, *options)
    ninja = (build / "build.ninja").read_text()
    used = set(re.findall(rf"{re.escape(str(OUT))}/headers/([\d.]+)", ninja))
    assert used == {version}, f"compiled with the headers of {used}, not {version}"
    run("meson", "compile", "-C", build)
    staged = WORK / "staged"
    shutil.rmtree(staged, ignore_errors=True)
    tags = "--tags=runtime,python-runtime"
    run("meson", "install", "-C", build, "--no-rebuild", tags, f"--destdir={staged}")
    merged = WORK / "package"
    shutil.rmtree(merged, ignore_errors=True)
    for folder in staged.rglob("weir"):
        if folder.is_dir() and folder.parent.name.endswith("-packages"):
            shutil.copytree(folder, merged / "weir", dirs_exist_ok=True)
    (extension,) = (merged / "weir").glob("_core*.so")
    assert f"-{version.replace('.', '')}-" in extension.name, extension
    return merged


# ------------------------------------------------------------------------------------------ packing


def dist_info(tag: str) -> Iterator[tuple[str, bytes]]:
    """The files of the wheel's metadata, but for RECORD."""
    project = PYPROJECT["project"]
    yield "METADATA", bytes(StandardMetadata.from_pyproject(PYPROJECT, ROOT).as_rfc822())
    wheel = f"Wheel-Version: 1.0\nGenerator: script/wheels\nRoot-Is-Purelib: false\nTag: {tag}\n"
    yield "WHEEL", wheel.encode()
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    lines = []
    for group, entries in groups.items():
        lines += [f"[{group}]", *(f"{name} = {place}" for name, place in entries.items()), ""]
    yield "entry_points.txt", "\n".join(lines).encode()
    for name in project["license-files"]:
        yield f"licenses/{name}", (ROOT / name).read_bytes()


def pack(package: Path, tag: str, to: Path) -> Path:
    """A wheel of a folder. The same input gives the same bytes."""
    name = f"{PYPROJECT['project']['name'].replace('-', '_')}-{PYPROJECT['project']['version']}"
    files = {
        path.relative_to(package).as_posix(): path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    files |= {f"{name}.dist-info/{file}": data for file, data in dist_info(tag)}
    record = []
    for file, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record.append(f"{file},sha256={digest},{len(data)}\n")
    record.append(f"{name}.dist-info/RECORD,,\n")
    files[f"{name}.dist-info/RECORD"] = "".join(record).encode()
    wheel = to / f"{name}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, data in files.items():
            entry = zipfile.ZipInfo(file, (2020, 1, 1, 0, 0, 0))
            entry.external_attr = (0o755 if file.endswith(".so") else 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return wheel


def build_wheel(target: Target, version: str) -> Path:
    """A wheel in build/wheels, named by what it needs."""
    short = f"cp{version.replace('.', '')}"
    package = compile_for(target, version)
    if target.libc == "musl":
        # auditwheel takes the C library from the machine that it runs on; wheels_check looks
        # at what these need.
        return pack(package, f"{short}-{short}-{target.policy}", OUT)
    raw = pack(package, f"{short}-{short}-linux_{target.arch}", WORK)
    repaired = WORK / "repaired"
    shutil.rmtree(repaired, ignore_errors=True)
    # "auto": the command line of auditwheel does not accept the policies of other processors.
    command = (sys.executable, "-m", "auditwheel", "repair", "--plat", "auto", "-w", repaired)
    run(*command, raw, SOURCE_DATE_EPOCH="1577836800")
    raw.unlink()
    (found,) = repaired.glob("*.whl")
    assert target.policy in found.name, f"{found.name} is no {target.policy}"
    return Path(shutil.move(found, OUT / found.name))


def build_sdist() -> Path:
    """The source distribution of the last commit."""
    where = "import mesonpy, sys; print(mesonpy.build_sdist(sys.argv[1]))"
    name = run(sys.executable, "-c", where, OUT).split()[-1]
    return OUT / name


def build_python(name: str) -> Path:
    """A Python from source, for script/pythons: ``3.13t``."""
    if not name.endswith("t"):
        raise SystemExit("--python builds free-threaded Pythons: 3.13t or 3.14t")
    built = wheels_pythons.free_threaded(name.removesuffix("t"))
    if built is None:
        failure = wheels_pythons.PYTHONS / f"{name}.failed"
        reason = failure.read_text().partition("\n")[2].strip()
        again = f"remove {failure.relative_to(ROOT)} to try again"
        raise SystemExit(f"{reason}\nwheels: Python {name} cannot be built; {again}")
    return built


def check_macos() -> str:
    """What compiling for macOS came to."""
    try:
        return wheels_macos.compile_all(headers("3.12"), WORK / "macos")
    except RuntimeError as error:
        return f"FAILED: {wheels_macos.TARGET}\n{error}"


def main() -> None:
    """Build, check, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--no-check", action="store_true")
    parser.add_argument("--all-tests", action="store_true")
    parser.add_argument("--check-only", action="store_true", help="of what is built already")
    parser.add_argument("--python", metavar="VERSION")
    arguments = parser.parse_args()
    if arguments.python:
        print(build_python(arguments.python))
        return
    WORK.mkdir(parents=True, exist_ok=True)
    built = []
    if arguments.check_only:
        built = [p for p in sorted(OUT.glob("weir_limiter-*")) if arguments.only in p.name]
    for target in () if built else TARGETS:
        for version in VERSIONS:
            name = f"cp{version.replace('.', '')}-{target.policy}"
            if re.search(re.escape(arguments.only), name):
                built.append(build_wheel(target, version))
                print(f"wheels: {built[-1].name}", file=sys.stderr, flush=True)
    if not arguments.check_only and (not arguments.only or arguments.only == "sdist"):
        built.append(build_sdist())
    if arguments.no_check:
        rows = [wheels_check.Row(path, "not checked") for path in built]
    else:
        rows = wheels_check.check_all(built, arguments.all_tests)
    macos = "" if arguments.no_check or arguments.only else check_macos()
    text = f"{wheels_check.table(rows)}\n{macos}".strip()
    print(text)
    if not arguments.only:
        (OUT / "table.txt").write_text(f"{text}\n")
    if any(row.failed for row in rows) or "FAILED" in macos:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
