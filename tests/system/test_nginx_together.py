"""nginx and gunicorn share a table: counts are exact, also after a crash or a restart of either."""

from __future__ import annotations

import contextlib
import http.client
import os
import pwd
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from servers.nginx_server import NGINX, PAGE, Nginx, needs_nginx
from servers.ports import PATIENCE, free_port, wait_for
from servers.web import fetch, hammer
from weir import Limit, Table

pytestmark = needs_nginx

LIMIT = 50
ROUNDS = 20

PROGRAM = """
import os
from flask import Flask, request
from weir.flask import Limiter

app = Flask(__name__)
limiter = Limiter(lambda: request.args.get("key", ""), app=app, storage_uri=os.environ["STORE"])

@app.get("/")
def home():
    return str(os.getpid())

@app.get("/shared")
@limiter.limit("50/day")
def shared():
    return str(os.getpid())
"""


@pytest.fixture
def pair(serving, serve) -> tuple[Nginx, int]:
    """An nginx of four workers and the port of a gunicorn of four; "/shared" counts in both."""
    nginx = serving(
        'weir_limit_zone $arg_key zone=shared "50/day" scope=shared;',
        f"location /shared {{ weir_limit zone=shared; {PAGE} }}",
        workers=4,
    )
    app = serve(PROGRAM, workers=4, STORE=nginx.table)
    return nginx, app.port


def test_four_and_four_processes_admit_exactly_the_limit(pair) -> None:
    nginx, port = pair
    for round_ in range(ROUNDS):
        counts = hammer([nginx.port, port], f"/shared?key=round{round_}", 3 * LIMIT)
        assert counts == {200: LIMIT, 429: 2 * LIMIT}, round_
    with Table(nginx.table) as table:
        assert table.check()


def test_reloads_lose_no_count(pair) -> None:
    nginx, port = pair
    for round_ in range(5):
        reloading = threading.Thread(target=nginx.reload)
        reloading.start()
        counts = hammer([nginx.port, port], f"/shared?key=reload{round_}", 3 * LIMIT)
        reloading.join()
        lost = counts.pop("lost", 0)
        assert counts[200] <= LIMIT
        assert counts[200] >= LIMIT - lost
    with Table(nginx.table) as table:
        assert table.check()


def test_killed_workers_of_both_lose_nothing(pair) -> None:
    nginx, port = pair
    seed = int(os.environ.get("WEIR_SEED", time.time_ns()))
    print("WEIR_SEED", seed)
    chance = random.Random(seed)
    killed = rounds = 0
    stop = threading.Event()

    def kill() -> None:
        nonlocal killed
        while not stop.wait(chance.uniform(0.01, 0.08)):
            pids = nginx.workers()
            with contextlib.suppress(ValueError):
                pids += [int(http_body(port))]
            if pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(pids), signal.SIGKILL)
                    killed += 1

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        while rounds < 6 or killed < 6:
            rounds += 1
            assert killer.is_alive()
            counts = hammer([nginx.port, port], f"/shared?key=kill{rounds}", 4 * LIMIT)
            # A request whose process died may be counted or not. None is admitted beyond the limit.
            assert LIMIT - counts["lost"] <= counts[200] <= LIMIT, counts
    finally:
        stop.set()
        killer.join()
    with Table(nginx.table) as table:
        assert table.check()
    counts = hammer([nginx.port, port], "/shared?key=after", 2 * LIMIT)
    assert counts[200] + counts["lost"] >= LIMIT
    assert "exited on signal 11" not in nginx.log.read_text()


def http_body(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


# --------------------------------------------------------------------------- one nginx by itself

ZONE = 'weir_limit_zone $arg_key zone=one "5/hour";'
LOCATION = f"location / {{ weir_limit zone=one; {PAGE} }}"


def test_a_restart_keeps_the_counters(serving) -> None:
    nginx = serving(ZONE, LOCATION)
    assert nginx.statuses("/?key=a", 3) == [200] * 3
    nginx.stop()
    nginx.start()
    assert nginx.statuses("/?key=a", 3) == [200, 200, 429]


def test_a_binary_upgrade_keeps_the_counters(nginx: Nginx) -> None:
    nginx.write(f"{ZONE} server {{ listen 127.0.0.1:{nginx.port}; {LOCATION} }}", workers=2)
    # As a daemon: otherwise nginx ignores SIGUSR2, as the new binary of an upgrade does.
    nginx.conf.write_text(nginx.conf.read_text().replace("daemon off;", ""))
    started = nginx.command()
    assert started.returncode == 0, started.stderr
    wait_for(nginx.has_pid)  # the daemon writes it when its parent has ended
    old = new = nginx.master()
    try:
        wait_for(lambda: nginx.statuses("/?key=a", 3) == [200] * 3)
        os.kill(old, signal.SIGUSR2)
        wait_for(lambda: nginx.master() != old)
        new = nginx.master()
        wait_for(lambda: len(nginx.workers(new)) >= 2)
        os.kill(old, signal.SIGQUIT)
        wait_for(lambda: not Path(f"/proc/{old}").exists())
        assert nginx.statuses("/?key=a", 3) == [200, 200, 429]
    finally:
        for master in {old, new}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(master, signal.SIGQUIT)
            wait_for(lambda master=master: not Path(f"/proc/{master}").exists())


def test_a_graceful_exit_leaves_only_the_named_table_behind(serving) -> None:
    before = {path.name for path in Path("/dev/shm").iterdir()}
    nginx = serving(ZONE, LOCATION, workers=2)
    nginx.statuses("/?key=a", 6)
    pids = [nginx.master(), *nginx.workers()]
    nginx.stop(signal.SIGQUIT)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    left = {path.name for path in Path("/dev/shm").iterdir()} - before
    assert {name for name in left if "test-nginx" in name} == {
        "weir." + nginx.table.removeprefix("shm://")
    }
    with Table(nginx.table) as table:
        assert table.check()
        assert table.info()["recoveries"] == 0
    text = nginx.log.read_text()
    assert "[alert]" not in text
    assert "open socket" not in text


# ----------------------------------------------------------------------------------- two users

USERS = """
import os, sys
from weir import Table, parse
os.setgroups([int(sys.argv[3])] if sys.argv[4] == "member" else [])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
try:
    table = Table(sys.argv[1])
except Exception as error:
    print("refused:", error)
else:
    print(all(table.decide([parse("5/hour")], b"x", [1]) for _ in range(2)))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
def test_a_group_shares_the_table_between_users(module: Path, tmp_path: Path) -> None:
    group = pwd.getpwnam("www-data").pw_gid
    nginx = Nginx(tmp_path, user="www-data")
    try:
        nginx.write(
            f"{ZONE} server {{ listen 127.0.0.1:{nginx.port}; {LOCATION} }}",
            table="keys=8192 group=www-data",
        )
        nginx.start()
        assert nginx.statuses("/?key=a", 6) == [200] * 5 + [429]
        stat = Path("/dev/shm", f"weir.{nginx.table.removeprefix('shm://')}").stat()
        assert (stat.st_mode & 0o777, stat.st_gid) == (0o660, group)
        assert stat.st_uid == pwd.getpwnam("www-data").pw_uid

        def other(uri: str, member: str) -> str:
            return subprocess.run(
                [sys.executable, "-c", USERS, uri, "64001", str(group), member],
                capture_output=True,
                text=True,
                timeout=300,
            ).stdout

        assert "True" in other(f"{nginx.table}?group=www-data", "member")
        assert "not a member of the group" in other(f"{nginx.table}?group=www-data", "stranger")
        assert "refused" in other(nginx.table, "member")
        nginx.reload()
        assert nginx.get("/?key=a").status == 429
    finally:
        nginx.end()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
def test_without_a_group_the_table_belongs_to_the_workers(module: Path, tmp_path: Path) -> None:
    nginx = Nginx(tmp_path, user="www-data")
    try:
        nginx.write(f"{ZONE} server {{ listen 127.0.0.1:{nginx.port}; {LOCATION} }}")
        nginx.start()
        stat = Path("/dev/shm", f"weir.{nginx.table.removeprefix('shm://')}").stat()
        assert stat.st_uid == pwd.getpwnam("www-data").pw_uid
        assert stat.st_mode & 0o777 == 0o600
    finally:
        nginx.end()


# ------------------------------------------------------------------------------------ valgrind


@pytest.mark.slow
def test_ten_thousand_requests_with_reloads_are_clean_under_valgrind(
    nginx: Nginx, tmp_path: Path
) -> None:
    wrk = "/usr/bin/wrk"
    if not Path(wrk).exists() or not Path("/usr/bin/valgrind").exists():
        pytest.skip("needs valgrind and wrk")
    assert NGINX
    nginx.port = free_port()
    nginx.write(
        'weir_limit_zone $arg_key zone=one "5/second; 1000/day";'
        'weir_limit_zone $uri zone=leak "100/second" strategy=leaky-bucket burst=20;'
        f"server {{ listen 127.0.0.1:{nginx.port}; weir_headers draft-11; weir_rules on;"
        f"location / {{ weir_limit zone=one zone=leak nodelay; {PAGE} }}"
        f"location /dry {{ weir_limit zone=one; weir_limit_dry_run on; {PAGE} }} }}",
        workers=2,
    )
    report = tmp_path / "valgrind"
    nginx.start(
        (
            *("/usr/bin/valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full"),
            *("--trace-children=yes", "--errors-for-leak-kinds=definite"),
            f"--log-file={report}.%p",
        ),
        patience=120,
    )
    sent = 0
    for round_ in range(4):
        for path in ("/dry?key=a/%41%2f", f"/?key={'k' * 300}{round_}", "/?key=é", "/a%2Fb?key=b"):
            for _ in range(625):
                fetch(nginx.port, path.replace("é", "%C3%A9"))
                sent += 1
        os.kill(nginx.master(), signal.SIGHUP)
    assert sent == 10_000
    nginx.stop(signal.SIGQUIT)
    output = "".join(path.read_text(errors="replace") for path in tmp_path.glob("valgrind.*"))
    # Each report ends in an empty line. nginx itself leaks some blocks when it ends. A module is
    # unloaded by then, so its frames have no file name.
    reports = re.split(r"^==\d+== $", output, flags=re.MULTILINE)
    ours = [
        report
        for report in reports
        if "weir" in report or re.search(r"0x[0-9A-F]+: \?\?\?$", report, re.MULTILINE)
    ]
    assert not ours, "\n\n".join(ours)
    assert "Invalid" not in output, output


# ----------------------------------------------------------------- tables whose file is lost


def path_of(nginx: Nginx) -> Path:
    return Path(f"/dev/shm/weir.{nginx.table.partition('://')[2]}")


def test_a_removed_table_is_opened_again_by_all_workers(serving) -> None:
    """nginx and a program that opens the table later use the same table."""
    nginx = serving(
        'weir_limit_zone $arg_key zone=shared "50/day" scope=shared;',
        f"location /shared {{ weir_limit zone=shared; {PAGE} }}",
        workers=2,
    )
    assert nginx.statuses("/shared?key=a", 60).count(200) == LIMIT
    path_of(nginx).unlink()
    deadline = time.monotonic() + 60
    passed = 0
    while passed < LIMIT:  # a worker checks at its first request after a second
        assert time.monotonic() < deadline, nginx.log.read_text()
        passed += nginx.statuses("/shared?key=a", 10).count(200)
    assert nginx.statuses("/shared?key=a", 60).count(200) == 0
    assert passed == LIMIT, "the workers do not share one new table"
    with Table(nginx.table) as table:
        assert table.counts()[0].allowed == LIMIT
    assert "was removed or truncated while in use" in nginx.log.read_text()


def test_limits_are_registered_in_the_table_that_replaces_a_truncated_one(serving) -> None:
    nginx = serving(
        'weir_limit_zone $arg_key zone=shared "5/day; 7/hour" scope=shared;',
        f"location /shared {{ weir_limit zone=shared; {PAGE} }}",
        workers=1,
    )
    with Table(nginx.table) as table:
        nginx.get("/shared?key=a")
        known = table.registry()
        assert len(known) == 2
    os.truncate(path_of(nginx), 4096)
    path_of(nginx).unlink()
    with Table(f"{nginx.table}?keys=8192") as table:
        table.decide([Limit(1, 1, "minute"), Limit(7, 1, "hour")], "b")
        deadline = time.monotonic() + 60
        while not table.registry():
            assert time.monotonic() < deadline
            nginx.get("/shared?key=a")
        assert table.registry() == known
        before = {counts.limit: counts.allowed for counts in table.counts()}
        assert nginx.get("/shared?key=c").status == 200
        after = {counts.limit: counts.allowed for counts in table.counts()}
        assert after["5 per 1 day"] == before["5 per 1 day"] + 1
        assert after["7 per 1 hour"] == before["7 per 1 hour"] + 1
        assert after["1 per 1 minute"] == before["1 per 1 minute"] == 1


@pytest.mark.parametrize("left", [0, 4096, 100_000])
def test_no_worker_ends_when_the_table_is_cut_short(serving, left: int) -> None:
    nginx = serving(
        'weir_limit_zone $arg_key zone=shared "5/day" scope=shared;',
        f"location /shared {{ weir_limit zone=shared; {PAGE} }}",
        workers=2,
    )
    before = nginx.workers()
    nginx.statuses("/shared?key=a", 10)
    os.truncate(path_of(nginx), left)
    for i in range(200):
        assert nginx.get(f"/shared?key={i}").status == 200
    assert nginx.workers() == before
    assert "exited on signal" not in nginx.log.read_text()
    deadline = time.monotonic() + 60
    while not nginx.statuses("/shared?key=b", 20).count(429):
        assert time.monotonic() < deadline
    assert nginx.workers() == before
