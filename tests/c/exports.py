"""Fails unless a library exports exactly the functions of its headers, with their versions.

    exports.py --versioned|--unversioned LIBRARY PREFIX LIST HEADER...

Each line of LIST is a function and the version in which it appears. The comment of a function in a
header says "Since version 0.2." unless that is 0.1. The symbols of LIBRARY have the version
PREFIX_0.2, where the linker knows versions.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs"))

from header import functions, sections

FIRST = "0.1"
SINCE = re.compile(r"\bSince\s+version\s+(\d+(?:\.\d+)+)")


def of_headers(paths: list[str]) -> dict[str, str]:
    """The functions that the headers declare, and since when."""
    found = {}
    for path in paths:
        for section in sections(Path(path).read_text()):
            since = SINCE.search(section.comment)
            for name in functions(section.code):
                found[name] = since[1] if since else FIRST
    return found


def of_library(path: str) -> dict[str, str]:
    """The functions that the library exports, and the versions of their symbols."""
    command = ["nm", "--dynamic", "--defined-only", "--format=posix", path]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    symbols = [words[0] for words in map(str.split, lines) if words[1] != "A"]  # A: a version
    return {name: version for name, _, version in (re.split("(@+|$)", s)[:3] for s in symbols)}


def wrong(
    exported: dict[str, str], listed: dict[str, str], declared: dict[str, str]
) -> Iterator[str]:
    """A sentence about each difference."""
    for name in sorted(declared.keys() - listed.keys()):
        yield f'{name}() is declared, but not in the list: add "{name} {declared[name]}"'
    for name in sorted(listed.keys() - declared.keys()):
        yield f"{name}() is in the list, but no header declares it"
    for name in sorted(exported.keys() - listed.keys()):
        yield f"{name}() is exported, but not in the list"
    for name in sorted(listed.keys() - exported.keys()):
        yield f"{name}() is in the list, but not exported"
    for name in sorted(listed.keys() & declared.keys()):
        if listed[name] != declared[name]:
            yield (
                f"{name}() appears in {listed[name]} according to the list, and in "
                f"{declared[name]} according to its header: correct the list, or write "
                f'"Since version {listed[name]}." into its comment'
            )


def main(versioned: str, library: str, prefix: str, path: str, *headers: str) -> int:
    listed = dict(map(str.split, Path(path).read_text().splitlines()))
    exported = of_library(library)
    bad = list(wrong(exported, listed, of_headers(list(headers))))
    if not bad and versioned == "--versioned":
        bad = [
            f"{name}() has the symbol version {exported[name] or 'none'}, not {prefix}_{version}"
            for name, version in listed.items()
            if exported[name] != f"{prefix}_{version}"
        ]
    print("\n".join(f"{path}: {text}" for text in bad) or f"{len(listed)} functions, as listed")
    return 1 if bad or not listed else 0


sys.exit(main(*sys.argv[1:]))
