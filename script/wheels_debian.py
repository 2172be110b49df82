"""Packages of Debian releases, for script/wheels. Nothing is installed on this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
APT = ROOT / "build/wheels/apt"

#: Sources are looked for in all of these.
RELEASES = ("bookworm", "trixie", "testing")

#: Packages are looked for in these. By default, apt takes the newest.
PACKAGED = ("bookworm", "testing")


def call(
    *command: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """Run a command; its output. Fails with the output's end."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=os.environ | dict(environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]}: {done.stdout[-3000:]}")
    return done.stdout


def mirror() -> str:
    """Where this machine's own packages come from."""
    uris = call("apt-get", "indextargets", "--format", "$(REPO_URI)").split()
    if not uris:
        raise RuntimeError("apt has no package lists: run apt-get update, or set WEIR_DEBIAN")
    named = [uri for uri in uris if uri.rstrip("/").endswith("/debian")]
    return (named or uris)[0].rstrip("/")


def apt() -> dict[str, str]:
    """An environment in which apt uses RELEASES and has nothing installed."""
    config = APT / "apt.conf"
    folders = ("state/lists/partial", "archives/partial", "etc/apt.conf.d", "etc/preferences.d")
    for name in folders:
        (APT / name).mkdir(parents=True, exist_ok=True)
    (APT / "state/status").touch()
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    where = os.environ.get("WEIR_DEBIAN") or mirror()
    lines = [f"deb [signed-by={keys}] {where} {release} main\n" for release in PACKAGED]
    lines += [f"deb-src [signed-by={keys}] {where} {release} main\n" for release in RELEASES]
    sources = APT / "etc/sources.list"
    known = sources.exists() and sources.read_text() == "".join(lines)
    sources.write_text("".join(lines))
    config.write_text(
        f'Dir "{APT}/";\nDir::Etc "etc";\nDir::Etc::sourcelist "sources.list";\n'
        f'Dir::Etc::sourceparts "none";\nDir::State "state";\nDir::Cache "{APT}";\n'
        f'Dir::State::status "{APT}/state/status";\nAcquire::Check-Valid-Until "false";\n'
        'Acquire::Languages "none";\n'
        'APT::Architectures { "amd64"; "arm64"; };\nAPT::Sandbox::User "root";\n'
    )
    environment = {"APT_CONFIG": str(config)}
    if not known or not list((APT / "state/lists").glob("*Packages*")):
        call("apt-get", "-q", "update", environment=environment)
    return environment


def package(name: str, to: Path) -> None:
    """Download a package of testing and unpack it below ``to``. name: ``musl:arm64``."""
    environment = apt()
    folder = APT / "downloads"
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left
    folder.mkdir()
    to.mkdir(parents=True, exist_ok=True)
    call("apt-get", "download", name, cwd=folder, environment=environment)
    (deb,) = folder.glob(f"{name.partition(':')[0]}_*.deb")
    call("dpkg-deb", "-x", deb, to)
    deb.unlink()


def source_of(name: str) -> Path:
    """The archive of a source package's authors, of the newest version that can be fetched."""
    environment = apt()
    listed = call("apt-cache", "madison", name, environment=environment)
    versions = re.findall(rf"^ *{re.escape(name)} \| *(\S+) \| .* Sources$", listed, re.MULTILINE)
    folder = APT / "sources"
    folder.mkdir(exist_ok=True)
    failure = RuntimeError(f"no release of {', '.join(RELEASES)} has the source of {name}")
    for version in dict.fromkeys(versions):
        arguments = ("source", "--download-only", "--only-source", f"{name}={version}")
        try:
            call("apt-get", *arguments, cwd=folder, environment=environment)
        except RuntimeError as error:  # a mirror may list more than it has
            failure = error
            continue
        upstream = version.partition(":")[2] or version  # without the epoch
        upstream = upstream.rpartition("-")[0]
        (archive,) = folder.glob(f"{name}_{upstream}.orig.tar.*[xz2]")
        return archive
    raise failure
