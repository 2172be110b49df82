"""What README and docs show is true: every Python snippet runs, every timeline is the real one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import weir

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
SNIPPET = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
TIMELINE = re.compile(r"^```text\nsecond (.*?)^```", re.MULTILINE | re.DOTALL)


def snippets() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        for number, match in enumerate(SNIPPET.finditer(page.read_text()), 1):
            if "python no-run" not in match.group(0):
                found.append((f"{name}#{number}", match.group(1)))
    return found


@pytest.mark.parametrize(("name", "code"), snippets(), ids=lambda value: value.split("\n")[0][:40])
def test_a_snippet_runs(name: str, code: str, tmp_path: Path) -> None:
    # A snippet names no store that outlives it: shm:// tables are its own.
    own = code.replace("shm://", f"shm://test-docs-{abs(hash(name))}-")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", own], cwd=tmp_path, capture_output=True, text=True
    )
    for uri in re.findall(r"shm://[\w.-]+", own):
        Path("/dev/shm/weir." + uri.removeprefix("shm://")).unlink(missing_ok=True)
    assert done.returncode == 0, f"{name}:\n{code}\n{done.stderr}"


def test_the_timelines_are_what_the_strategies_do(monkeypatch: pytest.MonkeyPatch) -> None:
    match = TIMELINE.search((ROOT / "README.md").read_text())
    assert match is not None
    head, *rows = match.group(1).splitlines()
    moments = [int(word) for word in head.split()]
    assert len(rows) == 5
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
