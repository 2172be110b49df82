"""Requests per second of nginx: no limit, its own limit_req, and the module, alternately.

    python bench/nginx_wrk.py [--seconds 3] [--rounds 7]

Caveats: wrk and nginx share the machine's cores, so absolute numbers mean little. Each round
measures all variants one after the other; compare the medians of the rounds' ratios to limit_req.
On a loaded machine, only the worker's CPU time per request is reliable.
Pages are 612 bytes from the file system; no request is refused. nginx runs one worker.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from servers.nginx_server import PAGE, Nginx

#: Paths, and the directives in their locations.
VARIANTS = {
    "none": "",
    "limit_req": "limit_req zone=req1 burst=100000 nodelay;",
    "weir": "weir_limit zone=weir1;",
    "weir_leaky": "weir_limit zone=leaky nodelay;",
    "weir_rules": "weir_rules on; weir_limit zone=weir1;",
    "limit_req3": "".join(f"limit_req zone=req{n} burst=100000 nodelay;" for n in (1, 2, 3)),
    "weir3": "weir_limit zone=weir3;",
    "weir_headers": "weir_limit zone=weir1; weir_headers x-ratelimit;",
}

ZONES = """
limit_req_zone $binary_remote_addr zone=req1:1m rate=100000r/s;
limit_req_zone $binary_remote_addr zone=req2:1m rate=100000r/s;
limit_req_zone $binary_remote_addr zone=req3:1m rate=100000r/s;
weir_limit_zone $binary_remote_addr zone=weir1 "100000000/minute";
weir_limit_zone $binary_remote_addr zone=weir3 "100000000/minute; 1000000000/hour; 10000000000/day";
weir_limit_zone $binary_remote_addr zone=leaky "100000/second" burst=100000 strategy=leaky-bucket;
"""


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Run(NamedTuple):
    rate: float  # requests per second
    p99: float  # milliseconds
    cpu: float  # microseconds of the worker for each request


def measure(nginx: Nginx, path: str, seconds: int) -> Run:
    (worker,) = nginx.workers()
    before = cpu_seconds(worker)
    command = ["wrk", "-t1", "-c16", "--latency", f"-d{seconds}s"]
    printed = subprocess.run(
        [*command, f"http://127.0.0.1:{nginx.port}/{path}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rate = re.findall(r"Requests/sec: +([\d.]+)", printed)
    tail = re.findall(r"99% +([\d.]+)(us|ms|s)", printed)
    if not rate or not tail or "Non-2xx" in printed:
        raise SystemExit(printed)
    requests = int(re.findall(r"(\d+) requests in", printed)[0])
    return Run(
        float(rate[0]),
        float(tail[0][0]) * {"us": 1e-3, "ms": 1, "s": 1e3}[tail[0][1]],
        (cpu_seconds(worker) - before) / requests * 1e6,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        nginx = Nginx(Path(folder))
        locations = "".join(
            f"location = /{name} {{ {text} {PAGE} }}" for name, text in VARIANTS.items()
        )
        nginx.write(f"{ZONES} server {{ listen 127.0.0.1:{nginx.port}; {locations} }}")
        nginx.start()
        seen: dict[str, list[Run]] = {name: [] for name in VARIANTS}
        try:
            for round_ in range(options.rounds):
                names = list(VARIANTS) if round_ % 2 else list(reversed(VARIANTS))
                for name in names:
                    seen[name].append(measure(nginx, name, options.seconds))
        finally:
            nginx.end()
    print("                requests/s   p99 ms   CPU us   rate and CPU / limit_req's")
    for name, runs in seen.items():
        base = seen["limit_req3" if name.endswith("3") else "limit_req"]
        pairs = list(zip(runs, base, strict=True))
        print(
            f"{name:14}{statistics.median(run.rate for run in runs):12.0f}"
            f"{statistics.median(run.p99 for run in runs):9.2f}"
            f"{statistics.median(run.cpu for run in runs):9.2f}"
            f"{statistics.median(run.rate / other.rate for run, other in pairs):12.3f}"
            f"{statistics.median(run.cpu / other.cpu for run, other in pairs):8.3f}"
        )


if __name__ == "__main__":
    main()
