"""The C API's reference from the headers' own comments, as reStructuredText.

Functions, structs, enums and bounds, each with the comment before it. The text is in the headers;
this module only formats it. ``docs/capi.py`` passes it to Sphinx.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

INCLUDE = Path(__file__).resolve().parents[1] / "include" / "weir"

#: A comment that begins a line, or a run of code up to the next one.
COMMENT = re.compile(r"^/\*(.*?)\*/\n", re.MULTILINE | re.DOTALL)
RULE = re.compile(r"^-{10,} (.*)$")
STRUCT = re.compile(r"^struct (\w+) \{\n(.*?)^\};", re.MULTILINE | re.DOTALL)
ENUM = re.compile(r"^enum (\w+) \{(.*?)\};", re.MULTILINE | re.DOTALL)
OPAQUE = re.compile(r"^struct (\w+);", re.MULTILINE)
FUNCTION = re.compile(r"^WEIR_API ([^;]*);", re.MULTILINE | re.DOTALL)
DEFINE = re.compile(
    r"^#define (WEIR_\w+) +(?:\\\n +)?([^\n/]+?) *(?:/\*(.*?)\*/)?$", re.MULTILINE | re.DOTALL
)
ERRORS = re.compile(r"X\((\w+), (-\d+), \"(.*?)\"\)")
MEMBER = re.compile(r"^ {4}([\w ]+[ *])(\w+)((?:\[\w+\])?);(?: */\*(.*?)\*/)?", re.M | re.S)
VALUE = re.compile(r"^ *(WEIR_\w+)(?: = \d+)?,?(?: */\*(.*?)\*/)?\s*$", re.MULTILINE | re.DOTALL)


class Section(NamedTuple):
    """Code, and the comment before it."""

    comment: str
    code: str


def sections(header: str) -> Iterator[Section]:
    """The header as pairs of comment and code."""
    parts = COMMENT.split(header)
    yield Section("", parts[0])
    for comment, code in zip(parts[1::2], parts[2::2], strict=True):
        lines = [re.sub(r"^ ?\* ?", "", line.rstrip()) for line in comment.split("\n")]
        yield Section("\n".join(lines).strip(" \n"), code)


def functions(header: str) -> list[str]:
    """The names of all functions that a header declares."""
    return [re.findall(r"(\w+)\(", text)[0] for text in FUNCTION.findall(header)]


# ----------------------------------------------------------------------- comments into reST


def set_words(text: str) -> str:
    """One paragraph: C identifiers as code, everything else unchanged."""
    text = re.sub(r"([\\*|])", r"\\\1", text)
    text = re.sub(r"(?<!`)`([^`]+)`(?!`)", lambda m: f"``{m[1]}``", text)

    def in_type(match: re.Match[str]) -> str:
        word = match[0]
        if word[0] == '"' and word[1].isupper():  # words, not a value
            return word
        word = word.replace("\\", "")
        if word.startswith("``"):
            return word
        if word.startswith("WEIR_") and word.endswith("E..."):
            return f"``{word}``"
        if word.startswith("weir_") and word.endswith("()"):
            return f":c:func:`{word[:-2]}`"
        if word.startswith("WEIR_E") and word != "WEIR_EACH":
            return f":c:enumerator:`{word}`"
        return f"``{word}``"

    text = re.sub(
        r"``[^`]+``|WEIR_E\.\.\.|\b(?:weir_\w+\(\)|WEIR_\w+)|\"[^\"\n]+\"|\b\w+\[[^\]]*\]\)?"
        r"|(?:\\\*)?\b\w+_(?:ns|s|len|at|after)\b|(?<![\w*])\\\*\w+\b(?!\\)",
        in_type,
        text,
    )
    return re.sub(r"(\w)_(?=[\s.,;:)]|$)", r"\1\\_", text)


def set_comment(comment: str) -> list[str]:
    """A comment as reST: paragraphs, lists, and indented blocks unchanged."""
    out: list[str] = []
    for block in re.split(r"\n\s*\n", comment):
        lines = block.split("\n")
        if all(line.startswith("    ") for line in lines) and out and out[-1] == "    ":
            out[-1:] = ["", *lines, "    "]  # continues after a blank line
        elif all(line.startswith("    ") for line in lines):
            out += ["::", "", *lines, "    "]
        elif len(lines) == 2 and re.fullmatch(r"-{3,}", lines[1]):
            out += [f"**{lines[0]}**", ""]
        elif re.match(r" ?- ", lines[0]) or (len(lines) > 2 and re.fullmatch(r"-{3,}", lines[1])):
            if re.fullmatch(r"-{3,}", lines[1] if len(lines) > 1 else ""):
                out += [f"**{lines[0]}**", ""]
                lines = lines[2:]
            items = re.split(r"^ ?- ", "\n".join(lines), flags=re.MULTILINE)[1:]
            for item in items:
                out.append("- " + set_words(" ".join(item.split())))
            out.append("")
        else:
            out += set_paragraphs(lines)
    return out


def set_paragraphs(lines: list[str]) -> list[str]:
    """Lines of text; ``Errors:``, and ``Returns`` in front of a line, begin a new paragraph."""
    paragraphs: list[list[str]] = [[]]
    for line in re.sub(r"(?<=[.;:)]) (?=Errors[:,])", "\n", "\n".join(lines)).split("\n"):
        if paragraphs[-1] and re.match(r"(Errors|Returns)\b", line):
            paragraphs.append([])
        paragraphs[-1].append(line.strip())
    out = []
    for paragraph in paragraphs:
        text = set_words(" ".join(paragraph))
        out += [re.sub(r"^(Errors)\b", r"**\1**", text), ""]
    return out


# -------------------------------------------------------------------- declarations into reST


def one_line(text: str) -> str:
    return " ".join(text.split())


def described(directive: str, body: list[str], indent: str = "") -> list[str]:
    return [f"{indent}.. {directive}", "", *(f"{indent}   {line}".rstrip() for line in body), ""]


def set_struct(name: str, body: str, comment: list[str], shared: bool) -> list[str]:
    members: list[str] = []
    for kind, member, array, words in MEMBER.findall(body):
        text = [set_words(one_line(words))] if words else []
        members += described(f"c:member:: {one_line(kind)} {member}{array}", text)
    body_lines = [*comment, *members]
    lines = described(f"c:struct:: {name}", body_lines)
    if shared:
        return [".. c:namespace-push:: structs", "", *lines, ".. c:namespace-pop::", ""]
    return lines


def set_enum(name: str, body: str, comment: list[str], header: str) -> list[str]:
    values: list[str] = []
    if "\n" not in body:
        body = body.replace(", ", ",\n")
    for value, words in VALUE.findall(body):
        values += described(f"c:enumerator:: {value}", [set_words(one_line(words))])
    if "WEIR_ERRORS(" in body:
        for value, number, text in ERRORS.findall(header):
            values += described(f"c:enumerator:: WEIR_{value} = {number}", [text])
    return described(f"c:enum:: {name}", [*comment, *values])


def set_section(section: Section, header: str) -> list[str]:
    """The reST of one comment and of the code after it."""
    comment, code = section
    rule = RULE.match(comment)
    out = [f".. rubric:: {rule[1].strip()}", ""] if rule else []
    text = [] if rule else set_comment(comment)
    found: list[tuple[int, list[str]]] = []

    def add(at: int, make: Any, *arguments: Any) -> None:
        # The comment belongs to the first declaration after it.
        found.append((at, make(*arguments)))

    places = sorted(
        [(m.start(), "struct", m) for m in STRUCT.finditer(code)]
        + [(m.start(), "enum", m) for m in ENUM.finditer(code)]
        + [(m.start(), "opaque", m) for m in OPAQUE.finditer(code)]
        + [(m.start(), "function", m) for m in FUNCTION.finditer(code)]
        + [
            (m.start(), "define", m)
            for m in DEFINE.finditer(code)
            if not re.search("VERSION|_API", m[1])
        ],
        key=lambda place: place[0],
    )
    defines = [place for place in places if place[1] == "define"]
    if len(defines) > 1 and text:
        out, text = [*out, *text], []  # it is about all of them
    for at, kind, match in places:
        if kind == "struct":
            # C has a separate name space for structs, Sphinx does not.
            shared = match[1] in functions(header)
            add(at, set_struct, match[1], match[2], text, shared)
        elif kind == "enum":
            add(at, set_enum, match[1], match[2], text, header)
        elif kind == "opaque":
            add(at, described, f"c:struct:: {match[1]}", ["Opaque.", *text])
        elif kind == "function":
            add(at, described, f"c:function:: {one_line(match[1])}", text)
        else:
            words = [set_words(one_line(match[3]))] if match[3] else []
            value = [f"``{one_line(match[2])}``", ""]
            add(at, described, f"c:macro:: {match[1]}", [*text, *value, *words])
        text = []
    for _, lines in found:
        out += lines
    return out + (text if not found and "is the manual" not in comment else [])


def headers() -> list[Path]:
    """The public headers: first the one that the others include.

    Left out: ``strategies.h``, which has rows and no declarations, and headers of earlier names.
    """
    found = [
        path
        for path in INCLUDE.glob("*.h")
        if path.name != "strategies.h" and "\n * Deprecated:" not in path.read_text()[:20]
    ]
    return sorted(found, key=lambda path: (path.name != "weir.h", path.name))


def set_header(header: str) -> list[str]:
    # clang-format puts a type on a separate line if the comment is long.
    header = re.sub(r"^( {4}\w[\w ]*)\n +(\*?\w+;)", r"\1 \2", header, flags=re.MULTILINE)
    return [line for section in sections(header) for line in set_section(section, header)]
