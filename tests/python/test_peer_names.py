"""The table of the peers' public names in the manual matches the installed packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_of_names_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "script" / "peer_names.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
