#!/usr/bin/env python3
"""Writes the table of Flask-Limiter's and limits' public names into docs/migrating.md.

The names are those of the installed packages; each is tested by importing it under
weir.compat, in another process. ``--check`` reports whether the table is up to date.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

PAGE = Path(__file__).resolve().parent.parent / "docs" / "migrating.md"
BEGIN, END = "<!-- names: made by script/peer_names.py -->", "<!-- end of names -->"

#: Names that exist and differ, and where that is described.
DIFFERS = {
    "flask_limiter.Limiter": "differences.md",
    "flask_limiter.RateLimitExceeded": "differences.md",
    "limits.RateLimitItem": "differences.md#the-package-limits",
    "limits.limits.RateLimitItem": "differences.md#the-package-limits",
    "limits.storage.MemoryStorage": "differences.md#the-package-limits",
    "limits.storage.RedisStorage": "redis.md",
    "limits.storage.MemcachedStorage": "stores.md",
    "limits.strategies.FixedWindowRateLimiter": "differences.md#the-package-limits",
    "limits.strategies.MovingWindowRateLimiter": "differences.md#the-package-limits",
    "limits.strategies.SlidingWindowCounterRateLimiter": "differences.md#the-package-limits",
}


def modules(package: str) -> list[str]:
    """The public modules of a package, itself first."""
    root = importlib.import_module(package)
    found = [package]
    for module in pkgutil.walk_packages(root.__path__, f"{package}."):
        private = any(part.startswith("_") for part in module.name.split("."))
        bridge = module.name.startswith("limits.aio.storage.") and module.name.count(".") > 3
        if not private and not bridge:
            found.append(module.name)
    return found


def names(module: ModuleType, package: str) -> list[str]:
    """Its public names: those that it lists, or those that its package defines."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return sorted(listed)
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and (
            (
                getattr(value, "__module__", None) == module.__name__
                and (inspect.isclass(value) or inspect.isfunction(value))
            )
            or (name.isupper() and isinstance(value, dict | str | int | tuple))
        )
    )


def members(value: object) -> list[str]:
    """The public methods and attributes of a class."""
    if not inspect.isclass(value):
        return []
    return sorted(
        name
        for base in value.__mro__
        if base.__module__.partition(".")[0] in ("limits", "flask_limiter")
        for name in vars(base)
        if not name.startswith("_")
    )


def peers() -> dict[str, list[str]]:
    """Every public name, and the members of those that are classes."""
    found: dict[str, list[str]] = {}
    for package in ("flask_limiter", "limits"):
        for path in modules(package):
            try:
                module = importlib.import_module(path)
            except ImportError:
                continue
            for name in names(module, package):
                value = getattr(module, name, None)
                found[f"{path}.{name}"] = sorted(set(members(value)))
    return found


#: Run under weir.compat: reads the names, answers with what is wrong with each.
PROBE = """
import importlib, json, sys
import weir
weir.install_as_flask_limiter()
answers = {}
for path, members in json.load(sys.stdin).items():
    module, _, name = path.rpartition(".")
    try:
        value = getattr(importlib.import_module(module), name)
    except Exception as error:
        answers[path] = f"{type(error).__name__}: {error}"
    else:
        answers[path] = [member for member in members if not hasattr(value, member)]
json.dump(answers, sys.stdout)
"""


def table() -> str:
    """The table, as Markdown."""
    found = peers()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROBE],
        input=json.dumps(found),
        capture_output=True,
        text=True,
        check=True,
    )
    rows = ["| name | under Weir |", "|---|---|"]
    for path, answer in json.loads(done.stdout).items():
        if isinstance(answer, str):
            result = f"refused: `{answer}`"
        elif path in DIFFERS:
            result = f"[differs]({DIFFERS[path]})"
        else:
            result = "works"
        if isinstance(answer, list) and answer:
            result += "; refused (`AttributeError`): " + ", ".join(f"`{name}`" for name in answer)
        rows.append(f"| `{path}` | {result} |")
    return "\n".join(rows)


def page_with(text: str, made: str) -> str:
    """The page with the table in its place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


def main() -> int:
    text = PAGE.read_text()
    new = page_with(text, table())
    if "--check" in sys.argv[1:]:
        if new != text:
            print(f"{PAGE.name}: the table of names is out of date; run script/peer_names.py")
        return int(new != text)
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
