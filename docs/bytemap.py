"""Writes the byte map of a table into ``docs/reference/table.md``, from ``src/table/layout.h``.

Usage: ``python docs/bytemap.py``. Fields and comments are from the header, offsets and sizes
from a C program that is compiled with it (``CC``, default ``cc``). A test compares the page
with the output of this script.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "table.md"

#: What the page shows, and where it is declared.
STRUCTS = {
    "weir_header": "src/table/layout.h",
    "weir_cell": "src/table/layout.h",
    "weir_state": "src/strategy/strategy.h",
    "weir_line": "src/strategy/log/lines.h",
    "weir_lock": "src/table/layout.h",
    "weir_undo": "src/table/layout.h",
    "weir_stripe": "src/table/layout.h",
    "weir_pool": "src/table/layout.h",
    "weir_link": "src/strategy/log/lines.h",
    "weir_stats": "src/stats/stats_layout.h",
    "weir_stats_stripe": "src/stats/stats_layout.h",
    "weir_hitter": "src/stats/stats_layout.h",
    "weir_registered_limit": "include/weir/stats.h",
    "weir_rules": "src/rules/rules.h",
    "weir_rules_copy": "src/rules/rules.h",
    "weir_rule_entry": "src/rules/rules.h",
    "weir_rule_wides": "src/rules/rules.h",
    "weir_rule_slot": "src/rules/rules.h",
}

INCLUDED = sorted({name.removeprefix("src/").removeprefix("include/") for name in STRUCTS.values()})

MEMBER = re.compile(
    r"^ {4}(?:_Alignas\(64\) )?([\w ]+?[ *])\s*(\w+)((?:\[[^\]]*\])*);(?:\s*/\*(.*?)\*/)?",
    re.MULTILINE | re.DOTALL,
)


class Field(NamedTuple):
    kind: str
    name: str
    array: str
    comment: str


def fields(struct: str) -> list[Field]:
    """The members of a struct, as its declaration has them."""
    text = (ROOT / STRUCTS[struct]).read_text()
    body = re.search(rf"^struct {struct} \{{\n(.*?)^\}};", text, re.MULTILINE | re.DOTALL)
    if body is None:
        raise SystemExit(f"{STRUCTS[struct]} has no struct {struct} any more: see STRUCTS here")
    # Join lines that clang-format broke.
    flat = re.sub(r"_Alignas\(\s+64\)", "_Alignas(64)", body[1])
    flat = re.sub(r"^( {4}[\w ]+)\n\s+(\w)", r"\1 \2", flat, flags=re.MULTILINE)
    flat = re.sub(r"\]\n\s+\[", "][", flat)
    return [
        Field(kind.strip(), name, array, " ".join(comment.split()))
        for kind, name, array, comment in MEMBER.findall(flat)
    ]


def measured() -> dict[str, int]:
    """``struct.member`` to its offset, ``struct.member size`` and ``struct`` to their sizes."""
    lines = [f'#include "{name}"' for name in INCLUDED]
    lines += ["#include <stdio.h>", "int main(void) {"]
    for struct in STRUCTS:
        lines.append(f'    printf("{struct}=%zu\\n", sizeof(struct {struct}));')
        for field in fields(struct):
            place = f"{struct}.{field.name}"
            size = f"sizeof(((struct {struct} *)0)->{field.name})"
            if field.array == "[]":
                size = "(size_t)0"
            lines.append(
                f'    printf("{place}=%zu\\n{place} size=%zu\\n", '
                f"offsetof(struct {struct}, {field.name}), {size});"
            )
    lines.append("}")
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "map.c"), Path(folder, "map")
        source.write_text("\n".join(lines))
        include = [f"-I{ROOT / name}" for name in ("include", "src")]
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, "-std=c11", *include, source, "-o", program], check=True)
        text = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in (line.split("=") for line in text.splitlines())}


def table(struct: str, sizes: dict[str, int]) -> str:
    """One struct as a Markdown table, gaps included."""
    rows = [f"`struct {struct}`: {sizes[struct]} bytes", "", "| offset | bytes | field | |"]
    rows.append("|---:|---:|---|---|")
    end = 0
    for field in fields(struct):
        place = f"{struct}.{field.name}"
        if sizes[place] != end:
            rows.append(f"| {end} | {sizes[place] - end} | | (unused) |")
        comment = field.comment.replace("|", "\\|")
        rows.append(
            f"| {sizes[place]} | {sizes[place + ' size']} "
            f"| `{field.kind} {field.name}{field.array}` | {comment} |"
        )
        end = sizes[place] + sizes[place + " size"]
    if end != sizes[struct]:
        rows.append(f"| {end} | {sizes[struct] - end} | | (unused) |")
    return "\n".join(rows)


def regions() -> str:
    """The regions of the mapping, from the comment at the top of ``src/table/layout.h``."""
    head = re.search(
        r"^ \*     (offset .*?)^ \*$", (ROOT / "src/table/layout.h").read_text(), re.M | re.S
    )
    assert head is not None
    return "```text\n" + re.sub(r"^ \*     ", "", head[1], flags=re.MULTILINE) + "```"


def written(page: str) -> str:
    """The page with every table between marks replaced."""
    sizes = measured()

    def updated(match: re.Match[str]) -> str:
        new = regions() if match[1] == "regions" else table(match[1], sizes)
        return f"<!-- {match[1]} -->\n\n{new}\n\n<!-- end -->"

    return re.sub(r"<!-- (weir_\w+|regions) -->\n.*?<!-- end -->", updated, page, flags=re.DOTALL)


def main() -> int:
    PAGE.write_text(written(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
