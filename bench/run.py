"""Runs the benchmarks one after another and prints their tables; ``--list`` names them.

Each states its workload and measures its peers in the same run. Compare ratios: absolute times vary
with the load of the machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

#: name, what it measures, command
BENCHES: list[tuple[str, str, list[str]]] = [
    ("c", "a decision in C, compared with a mutex and a memory read", ["{build}/decide"]),
    (
        "prepared",
        "a prepared check, compared with Rust's governor",
        ["{build}/prepared"],
    ),
    ("rules", "look-up of rules about clients, up to 100,000 rules", ["{build}/rules"]),
    (
        "python",
        "weir.RateLimiter, compared with limits",
        [sys.executable, str(HERE / "python_hit.py")],
    ),
    (
        "flask",
        "what Weir and Flask-Limiter add to a Flask app, in process",
        [sys.executable, str(HERE / "flask_inprocess.py")],
    ),
    ("wrk", "requests per second under gunicorn", [sys.executable, str(HERE / "flask_wrk.py")]),
    (
        "redis",
        "a check on Redis, compared with a PING",
        [sys.executable, str(HERE / "redis_check.py")],
    ),
    (
        "postgresql",
        "a check on PostgreSQL, compared with SELECT 1",
        [sys.executable, str(HERE / "postgresql_check.py")],
    ),
]


def machine() -> str:
    cpu = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    return (
        f"{cpu}, {os.cpu_count()} cores, Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="run these only")
    parser.add_argument("--list", action="store_true", help="name the benchmarks and stop")
    arguments = parser.parse_args()
    known = {name for name, _, _ in BENCHES}
    if arguments.list:
        for name, what, _ in BENCHES:
            print(f"{name:10} {what}")
        return 0
    if unknown := set(arguments.names) - known:
        parser.error(
            f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}"
        )
    print(machine(), flush=True)
    build = os.environ.get("WEIR_BENCH_BUILD", str(HERE.parent / "build/bench/bench"))
    failed = 0
    for name, what, command in BENCHES:
        if arguments.names and name not in arguments.names:
            continue
        command = [part.format(build=build) for part in command]
        program = Path(command[-1])
        print(f"\n== {name}: {what}\n", flush=True)
        if not program.exists():
            print(f"   (skipped: {program.name} is not there)")
            continue
        failed += subprocess.run(command, check=False).returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
