"""PostgreSQL is killed and started again while eight processes count hits of one key."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

import weir
from servers.ports import wait_for
from weir.stores.postgresql import PostgreSQLStorage

LIMIT, PROCESSES = 2000, 8

#: Hits per process; afterwards it only peeks until it reports the outage.
BEFORE = 200

WORKER = """
import json, signal, sys, time, weir
from weir.stores.postgresql import PostgreSQLStorage

uri, durable, text, before = sys.argv[1:]
store = PostgreSQLStorage(uri, durable=durable == "True", remember_denials=0, socket_timeout=5.0)
limit, admitted, unknown, resumed, noticed = weir.parse(text), 0, 0, 0, False
signal.alarm(240)
sys.stdin.readline()
while True:
    peeks = not noticed and admitted >= int(before)
    try:
        if peeks:
            store.decide([limit], "hot", [0], weir.TEST)
            continue
        if not store.decide([limit], "hot").allowed:
            break
        admitted += 1
        resumed += noticed
    except (weir.StoreAwayError, weir.KeyRefusedError) as error:
        if not noticed:
            print("noticed", flush=True)
        noticed = True
        unknown += not peeks
        if isinstance(error, weir.StoreAwayError):
            time.sleep(0.02)  # the server is being started again
print(json.dumps([admitted, unknown, resumed]))
"""


@pytest.mark.parametrize("durable", [True, False])
def test_a_killed_server_is_used_again_and_admits_no_more(
    postgresql_server: Any, durable: bool
) -> None:
    """Hits whose outcome is unknown may be charged. Only with ``durable`` is none lost."""
    text = f"{LIMIT} per day"
    store = PostgreSQLStorage(
        postgresql_server.uri, create=True, remember_denials=0, socket_timeout=20.0
    )
    store.init()

    def left() -> int:
        return store.decide([weir.parse(text)], "hot", [0], weir.TEST)[0].remaining

    command = [sys.executable, "-c", WORKER, postgresql_server.uri, str(durable), text, str(BEFORE)]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("\n")
        worker.stdin.flush()
    wait_for(lambda: left() < LIMIT - 200)
    postgresql_server.kill_all()
    # One that was between two calls would notice nothing if the server were back within 5 s.
    for worker in workers:
        assert worker.stdout
        assert worker.stdout.readline() == "noticed\n"
    postgresql_server.start()
    answers = [json.loads(worker.communicate(timeout=240)[0]) for worker in workers]
    assert all(worker.returncode == 0 for worker in workers)
    admitted, unknown, resumed = (sum(column) for column in zip(*answers, strict=True))
    print(answers)
    assert admitted + unknown >= LIMIT, "more was charged than requested"
    assert resumed > 0, "they went on afterwards"
    if durable:
        assert admitted <= LIMIT
    assert left() == 0
    store.close()
