"""Roots of Linux systems in which wheels can run. Used by script/wheels.

A root for glibc is unpacked from the packages of a Debian release: no compiler, no libsodium. Where
Debian has no such Python, pyenv's is bound into it. A root for musl has musl's C library, a Python
for it that wheels_pythons builds from source, and nothing else. Those for aarch64 run under
qemu-user.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tarfile
import threading
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import wheels_debian
import wheels_pythons
from wheels_debian import call

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build/wheels"

#: The releases whose packages make roots, and the Pythons that they have.
PYTHONS = {"bookworm": ["python3.11"], "testing": ["python3.13", "python3.14"]}

#: What interpreters are linked with, and what tests expect of a system.
PACKAGES = [
    "bash",
    "coreutils",
    "dash",
    "libbz2-1.0",
    "libc-bin",
    "libexpat1",
    "libffi8",
    "liblzma5",
    "libncursesw6",
    "libsqlite3-0",
    "libuuid1",
    "mount",
    "tzdata",
    "util-linux",
    "zlib1g",
]
RENAMED = {
    "bookworm": ["libreadline8", "libssl3"],
    "testing": ["libreadline8t64", "libssl3t64"],
}

#: Roots are made by one thread at a time.
LOCK = threading.Lock()


def interpreter(version: str) -> str | None:
    """A Python of this machine that has its headers: Debian's or pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = sorted(pyenv.glob(f"{version}.*/bin/python{version}"))
    if found:
        return str(found[-1])
    header = Path(f"/usr/include/python{version}/Python.h")
    python = Path(f"/usr/bin/python{version}")
    return str(python) if header.exists() and python.exists() else None


def unpacked_root(arch: str, release: str) -> Path:
    """A root of a Debian release's packages, unpacked and not configured."""
    root = OUT / "roots" / f"{release}-{arch}"
    packages = sorted([*PYTHONS[release], *PACKAGES, *RENAMED[release]])
    if (root / "stamp").exists() and (root / "stamp").read_text() == " ".join(packages):
        return root
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for folder in ("bin", "lib", "sbin", "lib64"):
        (root / "usr" / folder).mkdir(parents=True, exist_ok=True)
        (root / folder).symlink_to(f"usr/{folder}")
    apt, environment = wheels_debian.APT, wheels_debian.apt()
    names = [f"{package}:{arch}" for package in packages if package != "tzdata"] + ["tzdata"]
    options = ["-y", "-q", "--no-install-recommends", "--download-only", f"-t{release}"]
    options.append(f"-oAPT::Architecture={arch}")
    for old in (apt / "archives").glob("*.deb"):  # what an interrupted run left
        old.unlink()
    call("apt-get", *options, "install", *names, environment=environment)
    for deb in sorted((apt / "archives").glob("*.deb")):
        command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
        packed = subprocess.run(command, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=BytesIO(packed)) as archive:
            unpack(archive, root)
        deb.unlink()
    for folder in ("dev", "proc", "tmp", "weir", "site", "etc", "mnt"):
        (root / folder).mkdir(exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\ntty:x:5:\n")
    (root / "stamp").write_text(" ".join(packages))
    return root


def unpack(archive: tarfile.TarFile, root: Path) -> None:
    """All of a package, below usr/ what it has for bin/ and lib/ (those are links)."""
    for member in archive.getmembers():
        member.name = re.sub(r"^\./(bin|lib|lib64|sbin)(?=/|$)", r"./usr/\1", member.name)
        if not member.isdev():
            archive.extract(member, root)


def musl_libc(arch: str) -> Path:
    """Musl's C library, which is its dynamic linker too, from Debian's package."""
    unpacked = OUT / "musl" / arch
    if not (unpacked / "stamp").exists():
        shutil.rmtree(unpacked, ignore_errors=True)
        wheels_debian.package(f"musl:{'arm64' if arch == 'aarch64' else 'amd64'}", unpacked)
        (unpacked / "stamp").touch()
    (found,) = (path for path in unpacked.rglob("libc.so") if "musl" in path.parent.name)
    return found


def musl_root(version: str, arch: str) -> Path | str:
    """A root with musl's C library and a Python for it, nothing else; or why there is none."""
    same = interpreter(version)
    if same is None:
        return "only inspected: no such Python here to build one for musl with"
    python = wheels_pythons.for_musl(version, arch, same)
    if python is None:
        return f"only inspected: no Python {version} for musl; see build/wheels/pythons"
    root = OUT / "roots" / f"musl-{arch}-{version}"
    stamp = (python / "stamp").read_text()
    if not (root / "stamp").exists() or (root / "stamp").read_text() != stamp:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(python, root, symlinks=True, ignore=shutil.ignore_patterns("stamp"))
        (root / "lib").mkdir(exist_ok=True)
        shutil.copy(musl_libc(arch), root / f"lib/ld-musl-{arch}.so.1")
        for folder in ("dev", "proc", "tmp", "usr/bin", "site", "weir"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "stamp").write_text(stamp)
    return root


class Place(NamedTuple):
    """Where a wheel can run.

    command: what starts Python in the root. bind: a folder of this machine that it needs. name:
    what the table calls it. library: its standard library, where that must be compiled before.
    """

    root: Path
    command: list[str]
    name: str
    bind: str = ""
    library: Path | None = None


def place(version: str, arch: str, libc: str) -> Place | str:
    """Where a wheel can run, or why nowhere."""
    with LOCK:
        return _place(version, arch, libc)


def _place(version: str, arch: str, libc: str) -> Place | str:
    if os.geteuid() != 0 or not shutil.which("dpkg-deb"):
        return "only inspected: running it takes root on Debian"
    if arch == "aarch64" and not shutil.which("qemu-aarch64-static"):
        return "only inspected: install qemu-user-static to run it"
    if libc == "musl":
        root = musl_root(version, arch)
        if isinstance(root, str):
            return root
        prefix, name = wheels_pythons.PREFIX, "musl's libc and nothing else"
    else:
        having = [r for r, names in PYTHONS.items() if f"python{version}" in names]
        release = having[0] if having else "bookworm"
        root = unpacked_root("arm64" if arch == "aarch64" else "amd64", release)
        prefix, name = "/usr", f"Debian {release}"
        if not having:
            found = interpreter(version)
            if arch == "aarch64" or found is None or found.startswith("/usr/bin/"):
                return "only inspected: no registry has such a Python"
            return Place(root, [found], f"{name}, pyenv's Python", str(Path(found).parents[1]))
    python = f"{prefix}/bin/python{version}"
    if arch != "aarch64":
        return Place(root, [python], name)
    emulator = shutil.which("qemu-aarch64-static")
    assert emulator
    inside = root / "usr/bin" / Path(emulator).name
    if not inside.exists():  # it may be running
        shutil.copy(emulator, inside)
    command = ["/usr/bin/qemu-aarch64-static", python]
    library = root / prefix[1:] / f"lib/python{version}"
    return Place(root, command, f"qemu-user, {name}", library=library)


def precompile(site: Path, library: Path, version: str) -> None:
    """Bytecode for an emulated Python, by the same Python for this processor.

    Under qemu-user, compiling the modules of pytest alone takes minutes.
    """
    release = next(r for r, names in PYTHONS.items() if f"python{version}" in names)
    with LOCK:
        native = unpacked_root("amd64", release)
    python = ["chroot", str(native), f"/usr/bin/python{version}", "-m", "compileall", "-q"]
    python += ["--invalidation-mode=unchecked-hash", "/mnt"]
    for folder in (site, library):
        script = f"mount --bind {folder} {native}/mnt && {shlex.join(python)} || true"
        call("unshare", "--mount", "sh", "-c", script)
