"""Metrics, audit and alerts of real servers: each worker reports the counts of all workers."""

from __future__ import annotations

import collections
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from servers import process
from servers.ports import free_port
from servers.redis_server import RedisServer
from weir.metrics import Collector

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "monitoring"

SHOP = """
import json, logging, os
from flask import Flask
from weir.flask import Limiter
from weir.flask.metrics import mount
from weir.flask.util import get_remote_address

app = Flask(__name__)
limiter = Limiter(get_remote_address, app=app, storage_uri=os.environ["STORE"])
mount(app, limiter)
handler = logging.FileHandler(os.environ["AUDIT"])
logging.getLogger("weir.audit").addHandler(handler)

@app.get("/")
def index():
    return "here"

@app.get("/limited")
@limiter.limit("1300/hour")
def limited():
    return "in"

@app.after_request
def set_header(response):
    response.headers["X-Worker"] = str(os.getpid())
    return response
"""

Serve = Callable[..., Any]


class Client:
    """A client with its own address; keeps its connection while the server does."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        self.connection = http.client.HTTPConnection(
            "127.0.0.1", port, timeout=300, source_address=(address, 0)
        )

    def get(self, path: str) -> http.client.HTTPResponse:
        self.connection.request("GET", path)
        response = self.connection.getresponse()
        response.text = response.read().decode()  # type: ignore[attr-defined]
        return response

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def hammer(port: int, path: str, requests: int, clients: int = 8) -> collections.Counter[int]:
    """The number of responses by status; several clients of one address send concurrently."""
    counts: collections.Counter[int] = collections.Counter()
    lock = threading.Lock()

    def work(share: int) -> None:
        client = Client(port)
        own: collections.Counter[int] = collections.Counter()
        for _ in range(share):
            own[client.get(path).status] += 1
        client.close()
        with lock:
            counts.update(own)

    threads = [threading.Thread(target=work, args=(requests // clients,)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts


def metrics_of_each_worker(port: int, workers: int) -> dict[str, dict[str, float]]:
    """The samples on the metrics page of each worker."""
    pages: dict[str, dict[str, float]] = {}
    deadline = time.monotonic() + 120
    while len(pages) < workers:
        assert time.monotonic() < deadline, f"only {len(pages)} workers answer"
        with Client(port) as client:
            response = client.get("/metrics")
        assert response.status == 200
        text: str = response.text  # type: ignore[attr-defined]
        pages[response.headers["X-Worker"]] = {
            sample.name + json.dumps(sample.labels, sort_keys=True): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    return pages


@pytest.fixture
def redis_uri(redis: RedisServer) -> str:
    # A deadline for a machine that is busy with other tests.
    return f"redis+unix://{redis.directory}/socket?socket_timeout=20"


@pytest.mark.parametrize("store", ["auto", "redis"])
def test_any_worker_reports_exactly_what_all_decided(
    serve: Serve, tmp_path: Path, request: pytest.FixtureRequest, store: str
) -> None:
    uri = "auto://" if store == "auto" else request.getfixturevalue("redis_uri")
    audit = tmp_path / "audit.log"
    # Connections are kept as long as a client may be stopped.
    options = ("-k", "gthread", "--threads", "4", "--keep-alive", "300")
    server = serve(SHOP, *options, workers=4, STORE=uri, AUDIT=str(audit))
    assert hammer(server.port, "/limited", 2000) == {200: 1300, 429: 700}
    time.sleep(1.1)  # a worker caches its samples for a second
    pages = metrics_of_each_worker(server.port, 4)
    assert len(pages) == 4
    for page in pages.values():

        def value(name: str, page: dict[str, float] = page, **labels: str) -> float:
            return page[name + json.dumps(labels, sort_keys=True)]

        limit = "1300 per 1 hour"
        assert value("weir_decisions_total", limit=limit, verdict="allowed") == 1300
        assert value("weir_decisions_total", limit=limit, verdict="denied") == 700
        assert value("weir_near_limit_total", limit=limit) == 1300 - 1040 + 1
        assert value("weir_fallback_active") == 0
        if store == "redis":
            (count,) = (n for name, n in page.items() if name.startswith("weir_store_seconds_coun"))
            # Denials are cached, so not every request was a round trip.
            assert 1300 < count <= 2000
    server.stop()
    events = [json.loads(line) for line in audit.read_text().splitlines()]
    assert sum(e["count"] for e in events if e["event"] == "summary") == 700
    assert sum(e["event"] == "breach" for e in events) == 1
    assert len(events) < 10


#: Calls the application directly, as a server's worker does, until the given number is denied.
WORKER = """
import logging, os, sys

sys.path.insert(0, os.path.dirname(__file__))
from shop import app

logging.getLogger("flask-limiter").disabled = True
environ = {
    "REQUEST_METHOD": "GET", "PATH_INFO": "/limited", "REMOTE_ADDR": "192.0.2.7",
    "SERVER_NAME": "shop", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
    "wsgi.url_scheme": "http",
}
denied = 0

def start(status, headers, error=None):
    global denied
    denied += status.startswith("429")

while denied < int(sys.argv[1]):
    for _ in app(dict(environ), start):
        pass
print(denied)
"""


@pytest.mark.slow
def test_a_hundred_thousand_denials_are_fewer_than_ten_lines(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP.replace("1300/hour", "10/minute"))
    (tmp_path / "worker.py").write_text(WORKER)
    name = f"test-audit-{time.time_ns()}"
    audit = tmp_path / "audit.log"
    processes = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "worker.py"), "25000"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "STORE": f"shm://{name}", "AUDIT": str(audit)},
        )
        for _ in range(4)
    ]
    try:
        for process in processes:
            assert process.communicate(timeout=300)[0] == "25000\n"
    finally:
        Path(f"/dev/shm/weir.{name}").unlink(missing_ok=True)
    events = [json.loads(line) for line in audit.read_text().splitlines()]
    assert sum(e["count"] for e in events if e["event"] == "summary") == 100_000
    assert len(events) < 10


# ------------------------------------------------------------------------------------- alerts


def run_promtool(*arguments: str) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool (Debian's prometheus) is not installed")
    done = subprocess.run(
        ["promtool", *arguments], cwd=EXAMPLES, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_valid_and_pass_their_tests() -> None:
    run_promtool("check", "config", "prometheus.yml")
    run_promtool("check", "rules", "weir.rules.yml")
    run_promtool("test", "rules", "weir.rules.test.yml")


def test_rules_and_dashboard_use_metrics_that_exist() -> None:
    known = {"ALERTS", "up"}
    for family in Collector().describe():
        known |= {family.name, f"{family.name}_total", f"{family.name}_bucket"}
    rules = (EXAMPLES / "weir.rules.yml").read_text()
    known |= set(re.findall(r"record: (\S+)", rules))
    dashboard = json.loads((EXAMPLES / "grafana.json").read_text())
    queries = re.findall(r"expr: (?:\|\n)?((?:.*\n)(?:^ {10}.*\n)*)", rules, re.MULTILINE)
    assert len(queries) == rules.count("expr:")
    queries += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    for query in queries:
        named = set(re.findall(r"\b(?:weir[_:][\w:]+|up|ALERTS)\b", query))
        assert named, query
        assert named <= known, query
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    assert len(places) == len(set(places))


#: Replacements that make the example's rules quicker: seconds instead of minutes. WeirLimitTight
#: keeps its hour: within seconds, two clients at their limits are half of what is admitted.
SHORTENED = {
    "[2m]": "[5s]",
    "[5m]": "[5s]",
    "[10m]": "[10s]",
    "[1d] offset 10m": "[5m] offset 20s",
    "for: 5m": "for: 1s",
    "for: 1m": "for: 1s",
}


class Prometheus:
    """A real Prometheus that watches ``port`` with the quicker rules of the example."""

    def __init__(self, directory: Path, port: int) -> None:
        if shutil.which("prometheus") is None:
            pytest.skip("Debian's package prometheus is not installed")
        rules = (EXAMPLES / "weir.rules.yml").read_text()
        for slow, quick in SHORTENED.items():
            assert slow in rules, slow
            rules = rules.replace(slow, quick)
        config = (EXAMPLES / "prometheus.yml").read_text()
        config = config.replace("interval: 15s", "interval: 1s").replace(":8000", f":{port}")
        directory.mkdir()
        (directory / "weir.rules.yml").write_text(rules)
        (directory / "prometheus.yml").write_text(config)
        self.port = free_port()
        self.log = directory / "log"
        self.process = process.launch(
            [
                "prometheus",
                f"--config.file={directory}/prometheus.yml",
                f"--storage.tsdb.path={directory}/data",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--log.level=warn",
            ],
            self.log,
            cwd=directory,
        )

    def query(self, query: str) -> list[dict[str, Any]]:
        client = Client(self.port)
        try:
            response = client.get(f"/api/v1/query?{urllib.parse.urlencode({'query': query})}")
            answer = json.loads(response.text)  # type: ignore[attr-defined]
            return list(answer["data"]["result"])
        except (OSError, http.client.HTTPException, KeyError, ValueError):
            assert self.process.poll() is None, self.log.read_text()
            return []
        finally:
            client.close()

    def firing(self) -> set[str]:
        """The alerts about clients. Without WeirUnseen: a busy machine may miss a scrape."""
        found = self.query('ALERTS{alertstate="firing",alertname!="WeirUnseen"}')
        return {result["metric"]["alertname"] for result in found}

    def wait_for(self, what: Callable[[], Any], seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while not (answer := what()):
            assert time.monotonic() < deadline, f"firing: {self.firing()}"
            time.sleep(0.2)
        return answer

    def stop(self) -> None:
        process.end(self.process)


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[[int], Prometheus]]:
    started: list[Prometheus] = []

    def watch(port: int) -> Prometheus:
        started.append(Prometheus(tmp_path / "prometheus", port))
        return started[-1]

    yield watch
    for prometheus in started:
        prometheus.stop()


@pytest.mark.slow
def test_an_alert_fires_when_one_client_sends_many_requests_and_not_before(
    serve: Serve, watch: Callable[[int], Prometheus]
) -> None:
    program = (EXAMPLES / "app.py").read_text()
    options = ("-k", "gthread", "--threads", "4", "--keep-alive", "300")
    server = serve(program, *options, workers=2)
    prometheus = watch(server.port)
    stopped = threading.Event()

    def visit(address: str, pause: float, path: str) -> None:
        while not stopped.is_set():
            with Client(server.port, address) as client:
                client.get(path)
            stopped.wait(pause)

    # Ordinary traffic: many clients within their limits, and a few that are denied sometimes.
    visitors = [(f"127.0.1.{i}", 1.0, "/") for i in range(6)]
    visitors += [(f"127.0.2.{i}", 2.0, "/search") for i in range(2)]
    threads = [threading.Thread(target=visit, args=visitor) for visitor in visitors]
    with Client(server.port, "127.0.2.99") as client:
        statuses = [client.get("/search").status for _ in range(12)]
    assert statuses == [200] * 10 + [429] * 2
    try:
        for thread in threads:
            thread.start()
        allowed = 'sum(weir_decisions_total{verdict="allowed"})'
        prometheus.wait_for(
            lambda: [r for r in prometheus.query(allowed) if float(r["value"][1]) > 30], 120
        )
        quiet = 'weir:top_client_denied:rate{limit="10 per 1 minute"}'
        prometheus.wait_for(lambda: prometheus.query(quiet), 120)
        until = time.monotonic() + 5
        while time.monotonic() < until:
            assert prometheus.firing() == set()
            time.sleep(0.3)

        hammering = threading.Thread(target=visit, args=("127.0.3.1", 0.02, "/search"))
        threads.append(hammering)
        hammering.start()
        firing = 'ALERTS{alertname="WeirClientHammers",alertstate="firing"}'
        (alert,) = prometheus.wait_for(lambda: prometheus.query(firing), 120)
        assert alert["metric"]["limit"] == "10 per 1 minute"
        assert "127.0.3.1" not in json.dumps(prometheus.query('{__name__=~"weir.*"}'))
        assert prometheus.firing() <= {"WeirClientHammers", "WeirDenialsUnusual"}
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
