"""What README and docs show is true: snippets run, pictures and tables are the real ones."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import bytemap
import draw
import header
import pytest

import pages
import weir
from pages import ROOT, Block
from weir.flask.constants import ConfigVars

TIMELINE = re.compile(r"^```text\nsecond (.*?)^```", re.MULTILINE | re.DOTALL)

BLOCKS = pages.every_block()


def of(language: str) -> list[pytest.param]:
    return [
        pytest.param(block, id=block.name)
        for block in BLOCKS
        if block.language == language and block.mark != "skip"
    ]


# ---------------------------------------------------------------------------------------- snippets


def test_every_block_is_run_or_has_a_reason() -> None:
    skipped = 0
    for block in BLOCKS:
        if block.language.startswith("{"):
            continue  # for Sphinx
        assert block.language in pages.RUN | pages.SHOWN, f"{block.name}: who runs this?"
        if block.mark == "skip":
            assert len(block.argument) > 10, f"{block.name}: skipped without a reason"
            skipped += block.language in pages.RUN
    run = sum(block.language in pages.RUN for block in BLOCKS)
    assert skipped <= run / 4, f"{skipped} of {run} blocks are skipped"


@pytest.mark.parametrize("block", of("python"))
def test_a_snippet_runs(block: Block, tmp_path: Path) -> None:
    files = pages.files(block.page)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    code = block.text
    if block.mark == "app":
        code = files["app.py"] + code
    if block.argument == "shop.py":
        code = "import weir; weir.install_as_flask_limiter()\n" + code
    # A snippet names no store that outlives it: shm:// tables are its own.
    own = code.replace("shm://", f"shm://test-docs-{os.getpid()}-")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", own], cwd=tmp_path, capture_output=True, text=True
    )
    for uri in re.findall(r"shm://[\w.-]+", own):
        Path("/dev/shm/weir." + uri.removeprefix("shm://")).unlink(missing_ok=True)
    assert done.returncode == 0, f"{block.name}:\n{code}\n{done.stderr}"


@pytest.mark.parametrize("block", of("c"))
def test_a_c_program_prints_what_the_page_shows(block: Block, tmp_path: Path) -> None:
    libraries = sorted((ROOT / "build").glob("wheel/**/libweir.a"))
    if not libraries:
        pytest.skip("libweir was not built by script/setup")
    source, program = tmp_path / "program.c", tmp_path / "program"
    source.write_text(block.text)
    command = [os.environ.get("CC", "cc"), "-std=c11", "-Wall", "-Werror", "-o", program, source]
    build = next(path for path in libraries[-1].parents if (path / "meson-info").is_dir())
    found = (build / "meson-info/intro-dependencies.json").read_text()
    sodium = ["-lsodium"] if '"libsodium"' in found else []
    subprocess.run(
        [*command, f"-I{ROOT / 'include'}", libraries[-1], *sodium, "-pthread"], check=True
    )
    printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    here = pages.blocks(block.page)
    output = here[here.index(block) + 1]
    assert output.mark == "output", f"{block.name} has no expected output"
    assert printed == output.text


def test_the_refusal_on_the_first_page_is_a_real_one() -> None:
    snippet, answer, *_ = pages.blocks(ROOT / "docs/index.md")
    names: dict[str, object] = {"__name__": "shown"}
    exec(snippet.text, names)
    client = names["app"].test_client()  # type: ignore[attr-defined]
    response = [client.get("/search") for _ in range(4)][-1]
    status, *headers, dots, body = answer.text.splitlines()
    assert status == f"HTTP/1.1 {response.status}"
    assert dots == "..."
    assert body in response.text
    for line in headers:
        name, _, value = line.partition(": ")
        assert response.headers[name].isdigit()
        if name != "X-RateLimit-Reset":
            assert response.headers[name] == value


# ---------------------------------------------------------------------------------------- pictures


def test_the_timelines_are_what_the_strategies_do(monkeypatch: pytest.MonkeyPatch) -> None:
    match = TIMELINE.search((ROOT / "README.md").read_text())
    assert match is not None
    head, *rows = match.group(1).splitlines()
    moments = [int(word) for word in head.split()]
    assert len(rows) == len(weir.strategies.STRATEGIES)
    for row in rows:
        strategy, *marks = row.split()[: len(moments) + 1]
        limiter = weir.strategies.RateLimiter(
            weir.storage.storage_from_string("memory://"), strategy
        )
        item = weir.parse("3 per minute")
        seen = []
        for moment in moments:
            monkeypatch.setattr("time.time", lambda moment=moment: 1_800_000_000.0 + moment)
            seen.append("x" if limiter.hit(item, "me") else "-")
        assert seen == marks, strategy


def test_the_pictures_are_what_the_strategies_do() -> None:
    drawn = draw.pictures()
    kept = {path.name: path.read_text() for path in draw.PICTURES.glob("*.svg")}
    assert sorted(kept) == sorted(drawn)
    for name, svg in drawn.items():
        assert kept[name] == svg, f"{name} is not what the code does: run docs/draw.py, and look"


def test_every_strategy_has_a_picture_and_words_for_it() -> None:
    page = (ROOT / "docs/strategies.md").read_text()
    for strategy in weir.strategies.STRATEGIES:
        assert f"](pictures/{strategy}.svg)" in page
        svg = (draw.PICTURES / f"{strategy}.svg").read_text()
        assert re.search(r"<desc [^>]*>Requests: 0 s passes; .{100,}</desc>", svg)


# --------------------------------------------------------------------------------------- reference


@pytest.mark.parametrize("path", header.headers(), ids=lambda path: path.name)
def test_every_function_struct_and_bound_of_a_header_is_on_its_page(path: Path) -> None:
    text = path.read_text()
    page = "\n".join(header.set_header(text))
    # Found another way than docs/header.py finds them.
    code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    functions = set(re.findall(r"\b(weir_\w+)\(", code))
    structs = set(re.findall(r"struct (weir_\w+)\s*[{;]", code))
    enums = re.findall(r"enum weir_\w+\s*\{(.*?)\}", code, re.DOTALL)
    enumerators = set(re.findall(r"\b(WEIR_(?!ERROR)[A-Z]\w+)\b", " ".join(enums)))
    # Made from a list of rows (an X macro), whose own comment documents it.
    enumerators = {n for n in enumerators if not re.search(r"_(ROWS|ENUM)$", n)}
    errors = {f"WEIR_{name}" for name in re.findall(r"X\((E\w+),", code)}
    bounds = set(re.findall(r"#define (WEIR_\w+_(?:MAX|NEVER|NS))\b", code))
    assert functions or "_ROWS(X)" in text
    for name in functions:
        assert re.search(rf"^\.\. c:function:: .*\b{name}\(", page, re.MULTILINE), name
    for name in structs:
        assert re.search(rf"^\.\. c:struct:: {name}$", page, re.MULTILINE), name
    for name in enumerators | errors:
        assert re.search(rf"^ +\.\. c:enumerator:: {name}( = -\d+)?$", page, re.MULTILINE), name
    for name in bounds:
        assert re.search(rf"^\.\. c:macro:: {name}$", page, re.MULTILINE), name


def test_every_function_of_the_header_has_words() -> None:
    for path in header.headers():
        lines = header.set_header(path.read_text())
        for number, line in enumerate(lines):
            if line.startswith(".. c:function::") and "weir_redis_sha1" not in line:
                assert lines[number + 2].strip(), f"{line} has no comment"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the byte map is that of x86-64")
def test_the_byte_map_is_the_compilers() -> None:
    page = bytemap.PAGE.read_text()
    assert bytemap.written(page) == page, "the layout has changed: run docs/bytemap.py, and read"


def test_the_byte_map_leaves_no_shared_struct_out() -> None:
    private = {"weir_rule_match"}  # this process's own
    headers = ("table/layout.h", "stats/stats_layout.h", "rules/rules.h")
    layout = "".join((ROOT / "src" / name).read_text() for name in headers)
    declared = set(re.findall(r"^struct (\w+) \{", layout, re.MULTILINE)) - private
    shown = set(re.findall(r"^<!-- (weir_\w+) -->$", bytemap.PAGE.read_text(), re.MULTILINE))
    assert declared <= shown
    assert shown == set(bytemap.STRUCTS)


def test_every_setting_is_on_its_page() -> None:
    page = (ROOT / "docs/reference/settings.md").read_text()
    shown = re.findall(r"^\| `(RATELIMIT_\w+)` \|", page, re.MULTILINE)
    assert sorted(shown) == sorted(ConfigVars.known())


def test_every_public_name_is_in_the_reference() -> None:
    from weir import errors, limits, storage, strategies

    page = (ROOT / "docs/reference/python.md").read_text()
    by_module = {name for m in (errors, limits, storage, strategies) for name in m.__all__}
    for name in set(weir.__all__) - by_module - {"__version__"}:
        assert re.search(rf"\bweir\.(compat\n.*)?{name}\b", page), f"weir.{name}"
    page = (ROOT / "docs/reference/flask.md").read_text()
    for name in set(weir.flask.__all__) - {"__version__"}:
        assert re.search(rf"\bweir\.flask\.{name}\b", page), f"weir.flask.{name}"


def test_the_links_of_the_readme_lead_somewhere() -> None:
    readme = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#([^)]+))?\)", readme)
    assert len(links) >= 10
    for path, anchor in links:
        assert (ROOT / path).exists(), path
        if anchor:
            heads = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads]
            assert anchor in anchors, f"{path}#{anchor}"


def test_the_files_and_functions_that_architecture_names_exist() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    files = set(re.findall(r"`((?:src|include|python|tests|docs|nginx|script)/[\w./-]*)`", page))
    assert len(files) >= 20
    assert [name for name in sorted(files) if not (ROOT / name).exists()] == []
    places = re.findall(r"`(\w+)\(\)` in `([\w./]+)`", page)
    assert len(places) >= 4
    for function, name in places:
        assert re.search(rf"\b{function}\(", (ROOT / name).read_text()), f"{function}() in {name}"


def test_no_page_loads_anything_from_elsewhere() -> None:
    for path in [*(ROOT / "docs").glob("**/*.md"), *(ROOT / "docs/_static").glob("*")]:
        if path.is_file() and path.suffix in (".md", ".css", ".js"):
            loads = re.findall(
                r"(?:src=|url\(|@import |!\[[^\]]*\]\()[\"']?https?:", path.read_text()
            )
            assert not loads, path
