"""The distribution is weir-limiter, and nothing sends users to the other weir."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import weir
from weir import _foreign

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOLDERS = (
    "docs",
    "python",
    "script",
    "examples",
    "src",
    "include",
    "requirements",
    "nginx",
    "bench",
)
ENDINGS = {".md", ".py", ".txt", ".toml", ".c", ".h", ".html", ".js", ".sh", ".yml", ".ini", ""}

#: What would fetch a stranger's package, or a name of ours that no index has yet.
FORBIDDEN = re.compile(
    r"""(?<![/\w])weir\[\w[\w,]*\]                                  # an extra of the other weir
      | \b(?:pip3?|uv|pipx|poetry)\ (?:install|add|download)\ (?:[^\n`]*[ '"])?
        (?:weir|weir-limiter)(?:[\[=<>~!][^\n`]*)?(?=[\s'"`]|$)""",
    re.VERBOSE,
)


def texts() -> list[Path]:
    found = [*ROOT.glob("*.md"), ROOT / "pyproject.toml"]
    for folder in FOLDERS:
        found += (p for p in (ROOT / folder).rglob("*") if p.is_file() and p.suffix in ENDINGS)
    return [path for path in found if "__pycache__" not in path.parts]


@pytest.mark.parametrize(
    "text",
    [
        "pip install weir",
        "pip install 'weir[cli]'",
        "pip install -U weir Flask",
        "pip install weir-limiter",
        "pip install 'weir-limiter[cli]'",
        "weir.metrics needs 'weir[metrics]'",
        "uv add weir==0.1",
    ],
)
def test_the_search_finds_texts_that_send_users_to_an_index(text: str) -> None:
    assert FORBIDDEN.search(text)


@pytest.mark.parametrize(
    "text",
    [
        "pip install ./weir Flask",
        "pip install weir_limiter-0.1.0-cp311-cp311-linux_x86_64.whl",
        "pip install rich",
        "pip uninstall weir weir-limiter",
    ],
)
def test_the_search_leaves_other_texts_alone(text: str) -> None:
    assert not FORBIDDEN.search(text)


def test_no_text_installs_weir_from_an_index() -> None:
    files = texts()
    assert len(files) > 100
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in files
        for match in FORBIDDEN.finditer(path.read_text(errors="replace"))
        # the extra "all" of pyproject.toml names the others
        if not (path.name == "pyproject.toml" and match.group().startswith("weir-limiter["))
    ]
    assert found == []


def test_the_distribution_and_its_extras() -> None:
    assert PROJECT["name"] == "weir-limiter" == weir.__distribution__
    extras = {"flask", "cli", "metrics", "redis", "valkey", "memcached", "postgresql", "all"}
    assert extras <= PROJECT["optional-dependencies"].keys()
    assert PROJECT["version"] == weir.__version__
    (everything,) = PROJECT["optional-dependencies"]["all"]
    named = set(everything.removeprefix("weir-limiter[").removesuffix("]").split(","))
    assert named == PROJECT["optional-dependencies"].keys() - {"all"}


def test_every_python_of_the_classifiers_is_in_range() -> None:
    versions = {
        line.rpartition(" ")[2]
        for line in PROJECT["classifiers"]
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", line)
    }
    assert versions == {f"3.{minor}" for minor in range(10, 15)}


@pytest.mark.parametrize("name", ["weir-0.4.0.dist-info", "weir-0.4.0-py3.11.egg-info"])
def test_a_foreign_weir_is_reported(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert _foreign.foreign_distribution(tmp_path) == tmp_path / name
    with pytest.warns(weir.WeirWarning, match="another project named weir .*`pip uninstall"):
        _foreign.warn_of_foreign(tmp_path)


@pytest.mark.parametrize("name", ["weir_limiter-0.1.0.dist-info", "weird-1.0.dist-info", "weir"])
def test_other_distributions_are_not_taken_for_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert _foreign.foreign_distribution(tmp_path) is None
    _foreign.warn_of_foreign(tmp_path)


@pytest.mark.parametrize(
    ("program", "code", "start"),
    [
        ("import weir.flask", 1, "ImportError: "),
        ("import weir.cli; weir.cli.main(['doctor'])", 2, "weir: "),
    ],
)
def test_an_overwritten_package_is_reported(
    tmp_path: Path, program: str, code: int, start: str
) -> None:
    """The other weir was installed last and replaced __init__.py."""
    ours = Path(weir.__file__).parent
    package = tmp_path / "weir"
    package.mkdir()
    for path in ours.iterdir():
        if path.name != "__init__.py":
            (package / path.name).symlink_to(path)
    (package / "__init__.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(start)
    assert "another project named weir has overwritten it" in last


@pytest.mark.parametrize(
    ("missing", "program", "text"),
    [
        ("flask", "import weir.flask", "weir.flask needs the package Flask: pip install Flask"),
        ("werkzeug", "import weir.flask", "weir.flask needs the package Flask: pip install Flask"),
        ("redis", "storage('redis://x')", "redis:// needs the package redis: pip install redis"),
        ("psycopg", "storage('postgresql://x')", "pip install 'psycopg[binary,pool]'"),
        ("click", "import weir.cli; weir.cli.main([])", "needs click: pip install click"),
    ],
)
def test_a_missing_package_is_named(missing: str, program: str, text: str) -> None:
    start = f"import sys; sys.modules[{missing!r}] = None\n"
    start += "from weir.storage import storage_from_string as storage\n"
    done = subprocess.run([sys.executable, "-c", start + program], capture_output=True, text=True)
    assert done.returncode != 0
    assert text in done.stderr.strip().splitlines()[-1]


def test_what_macos_lacks_comes_from_platform_h() -> None:
    """Without a Mac: a file that uses a name that platform.h stands in for includes it."""
    platform = (ROOT / "src/platform.h").read_text()
    names = re.findall(r"#define ((?:PTHREAD|O|MADV)_\w+)|inline int (\w+)\(", platform)
    used = re.compile(rf"\b({'|'.join(filter(None, (n for pair in names for n in pair)))})\b")
    assert {"pthread_mutex_consistent", "O_TMPFILE"} <= {n for pair in names for n in pair}
    missing = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "src").rglob("*.c")
        if used.search(path.read_text()) and '#include "platform.h"' not in path.read_text()
    ]
    assert missing == []


@pytest.mark.skipif(shutil.which("meson") is None, reason="meson is not installed")
@pytest.mark.parametrize(
    ("system", "end"),
    [
        ("windows", "on Windows, use WSL or Docker."),
        ("freebsd", "on Windows, use WSL or Docker."),
        ("linux", "or install a wheel; see docs/installing.md."),
    ],
)
def test_the_build_error_names_a_way_without_a_compiler(
    tmp_path: Path, system: str, end: str
) -> None:
    machine = tmp_path / "machine.ini"
    machine.write_text(
        "[binaries]\nc = '/no/such/compiler'\n"
        f"[host_machine]\nsystem = '{system}'\n"
        "cpu_family = 'x86_64'\ncpu = 'x86_64'\nendian = 'little'\n"
    )
    command = ["meson", "setup", str(tmp_path / "build"), str(ROOT), "--cross-file", str(machine)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    (line,) = (line for line in done.stdout.splitlines() if "ERROR" in line)
    assert line.endswith(end)
