"""The nginx module: its decisions, responses and log lines."""

from __future__ import annotations

import signal
import socket
import time

import pytest

from servers.nginx_server import PAGE, needs_nginx
from servers.ports import wait_for
from weir import Table

pytestmark = needs_nginx


# ------------------------------------------------------------------------------------ deciding


def test_the_limit_passes_and_the_next_is_refused_with_retry_after(serving) -> None:
    nginx = serving(
        'weir_limit_zone $remote_addr zone=one "3/hour";',
        f"location / {{ weir_limit zone=one; {PAGE} }}",
    )
    assert nginx.statuses("/", 4) == [200, 200, 200, 429]
    refused = nginx.get("/")
    assert 3590 <= int(refused.headers["retry-after"]) <= 3600
    assert "x-ratelimit-limit" not in refused.headers
    assert 'limiting requests, by limit "3 per 1 hour" of zone "one"' in nginx.log.read_text()


def test_several_zones_are_one_decision_all_or_nothing(serving) -> None:
    nginx = serving(
        'weir_limit_zone $remote_addr zone=few "2/hour";'
        'weir_limit_zone $remote_addr zone=many "5/hour; 9/day";',
        f"location /both {{ weir_limit zone=few zone=many; {PAGE} }}"
        f"location /many {{ weir_limit zone=many; weir_headers x-ratelimit; {PAGE} }}",
    )
    assert nginx.statuses("/both", 6) == [200, 200, 429, 429, 429, 429]
    # Of those six, two were charged to "many".
    assert nginx.get("/many").headers["x-ratelimit-remaining"] == "2"
    assert nginx.statuses("/many", 3) == [200, 200, 429]


def test_an_empty_key_is_not_counted(serving) -> None:
    nginx = serving(
        'weir_limit_zone $arg_key zone=one "1/hour";',
        f"location / {{ weir_limit zone=one; {PAGE} }}",
    )
    assert nginx.statuses("/", 3) == [200, 200, 200]
    assert nginx.statuses("/?key=a", 2) == [200, 429]
    assert nginx.statuses("/?key=b", 2) == [200, 429]


def test_own_limits_replace_inherited_ones_and_off_removes_them(serving) -> None:
    nginx = serving(
        'weir_limit_zone $remote_addr zone=one "1/hour"; weir_limit_zone $uri zone=uri "2/hour";',
        f"weir_limit zone=one; location / {{ {PAGE} }}"
        f"location /own {{ weir_limit zone=uri; {PAGE} }}"
        f"location /off {{ weir_limit off; {PAGE} }}",
    )
    assert nginx.statuses("/a", 2) == [200, 429]
    assert nginx.statuses("/own", 3) == [200, 200, 429]
    assert nginx.statuses("/off", 3) == [200, 200, 200]


def test_the_cost_is_a_value_of_the_request(serving) -> None:
    nginx = serving(
        'weir_limit_zone $remote_addr zone=one "10/hour" cost=$arg_cost;',
        f"location / {{ weir_limit zone=one; weir_headers x-ratelimit; {PAGE} }}",
    )
    assert nginx.get("/?cost=4").headers["x-ratelimit-remaining"] == "6"
    assert nginx.get("/?cost=7").status == 429
    assert nginx.get("/?cost=0").headers["x-ratelimit-remaining"] == "6"
    assert nginx.get("/").headers["x-ratelimit-remaining"] == "5"
    assert nginx.get("/?cost=-4").headers["x-ratelimit-remaining"] == "4"
    assert nginx.get("/?cost=" + "9" * 40).status == 429
    assert nginx.get("/?cost=4").headers["x-ratelimit-remaining"] == "0"


@pytest.mark.parametrize(
    "cost",
    ["a%0a2026/01/01 FORGED", "a%1b[2J%07", "%e2%80%ae%e2%80%a8", "%ff%80", "%7f", "a" * 3000],
)
def test_a_cost_is_logged_on_one_short_clean_line(serving, cost: str) -> None:
    """A variable may contain a part of the path, in which nginx has decoded %0a to a line break."""
    nginx = serving(
        'weir_limit_zone $remote_addr zone=one "10/hour" cost=$paid;',
        f'location ~ "(?s)^/c/(?<paid>.*)$" {{ weir_limit zone=one; {PAGE} }}',
    )
    nginx.get("/c/" + cost.replace(" ", "%20"))
    wait_for(lambda: "is not a number" in nginx.log.read_text(errors="replace"))
    lines = nginx.log.read_bytes().decode("latin-1").split("\n")
    logged = [line.partition(" is not a number")[0] for line in lines if " is not a number" in line]
    assert len(logged) == 1
    assert logged[0].isascii()
    assert logged[0].isprintable()
    assert len(logged[0]) < 500
    assert not [line for line in lines if line.startswith("2026/01/01")]


@pytest.mark.parametrize(
    "strategy",
    ["fixed-window", "moving-window", "sliding-window-counter", "token-bucket", "leaky-bucket"],
)
def test_every_strategy_admits_its_limit(serving, strategy: str) -> None:
    nginx = serving(
        f'weir_limit_zone $remote_addr zone=one "3/hour" strategy={strategy};',
        f"location / {{ weir_limit zone=one nodelay; {PAGE} }}",
    )
    # A leaky bucket without burst= passes one, and the next 20 minutes later.
    passes = 1 if strategy == "leaky-bucket" else 3
    assert nginx.statuses("/", 5) == [200] * passes + [429] * (5 - passes)


def test_a_token_bucket_holds_its_burst(serving) -> None:
    nginx = serving(
        'weir_limit_zone $remote_addr zone=one "1/hour" burst=4;',
        f"location / {{ weir_limit zone=one; {PAGE} }}",
    )
    assert nginx.statuses("/", 5) == [200] * 4 + [429]


# -------------------------------------------------------------------------------------- delays


def test_a_leaky_bucket_delays_by_timers_and_serves_others_meanwhile(serving) -> None:
    nginx = serving(
        'weir_limit_zone $remote_addr zone=one "2/second" strategy=leaky-bucket burst=2;'
        "map $uri $none { default '-'; }",
        f"location /slow {{ weir_limit zone=one; add_header X-Status $weir_status always; {PAGE} }}"
        f"location / {{ {PAGE} }}",
    )
    passed = time.monotonic()
    assert nginx.get("/slow").headers["x-status"] == "PASSED"
    while True:  # on a busy machine, half a second may pass between two requests
        started = time.monotonic()
        reply = nginx.get("/slow")
        assert reply.status == 200
        if reply.headers["x-status"] == "DELAYED":
            break
        passed = started
    assert time.monotonic() - passed >= 0.4
    assert "delaying request" in nginx.log.read_text()


def test_a_burst_larger_than_the_amount_waits_longer_than_a_period(serving) -> None:
    nginx = serving(
        'weir_limit_zone $remote_addr zone=one "1/minute" strategy=leaky-bucket burst=5;',
        f"location / {{ weir_limit zone=one nodelay; {PAGE} }}",
    )
    assert nginx.statuses("/", 7) == [200] * 6 + [429]


def test_delay_n_lets_n_pass_at_once(serving) -> None:
    nginx = serving(
        'weir_limit_zone $arg_key zone=one "1/second" strategy=leaky-bucket burst=9;',
        f"location / {{ weir_limit zone=one delay=3; add_header X-Status $weir_status; {PAGE} }}",
    )
    seen = []
    for attempt in range(20):
        started = time.monotonic()
        seen = [nginx.get(f"/?key={attempt}").headers["x-status"] for _ in range(5)]
        assert seen[:4] == ["PASSED"] * 4
        # On a busy machine the bucket leaks between two requests; a delay takes part of a second.
        if seen[4] == "DELAYED" and time.monotonic() - started < 2:
            break
    assert seen[4] == "DELAYED"


def test_a_client_that_leaves_while_delayed_leaves_nothing_behind(serving) -> None:
    nginx = serving(
        'weir_limit_zone $remote_addr zone=one "1/minute" strategy=leaky-bucket burst=5;',
        f"location / {{ weir_limit zone=one; {PAGE} }}",
    )
    nginx.get("/")
    with socket.create_connection(("127.0.0.1", nginx.port)) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        wait_for(lambda: "delaying request" in nginx.log.read_text())
    nginx.stop(signal.SIGQUIT)
    text = nginx.log.read_text()
    assert "open socket" not in text
    assert "exited on signal" not in text


# ------------------------------------------------------------------------- dry run, status, log


def test_a_dry_run_refuses_and_delays_nothing_and_counts_what_it_would(serving) -> None:
    nginx = serving(
        'weir_limit_zone $remote_addr zone=one "2/hour";'
        'weir_limit_zone $remote_addr zone=leak "1/hour" strategy=leaky-bucket burst=1;',
        f"weir_limit_dry_run on; weir_headers x-ratelimit; add_header X-Status $weir_status always;"
        f"location /one {{ weir_limit zone=one; {PAGE} }}"
        f"location /leak {{ weir_limit zone=leak; {PAGE} }}"
        f"location /none {{ {PAGE} }}",
    )
    seen = [nginx.get("/one") for _ in range(3)]
    assert [answer.status for answer in seen] == [200] * 3
    assert [a.headers["x-status"] for a in seen] == ["PASSED", "PASSED", "REJECTED_DRY_RUN"]
    assert "x-ratelimit-limit" not in seen[0].headers
    assert [nginx.get("/leak").headers["x-status"] for _ in range(3)] == [
        "PASSED",
        "DELAYED_DRY_RUN",
        "REJECTED_DRY_RUN",
    ]
    assert "x-status" not in nginx.get("/none").headers
    with Table(nginx.table) as table:
        counts = {entry.limit: entry for entry in table.counts()}
    assert counts["2 per 1 hour"].allowed == 2
    assert counts["2 per 1 hour"].denied == 0
    assert counts["2 per 1 hour"].shadow == 1
    assert "limiting requests, dry run" in nginx.log.read_text()


def test_status_and_log_level_are_as_configured(serving) -> None:
    nginx = serving(
        'weir_limit_zone $uri zone=one "1/hour";',
        f"weir_limit zone=one; location / {{ weir_limit_status 503; {PAGE} }}"
        f"location /quiet {{ weir_limit_log_level info; weir_limit_status 444; {PAGE} }}",
    )
    assert nginx.statuses("/", 2) == [200, 503]
    assert "[error]" in nginx.log.read_text()
    assert nginx.get("/quiet").status == 200
    with pytest.raises(Exception, match=r"closed|reset"):
        nginx.get("/quiet")  # 444: the connection is closed
    assert "[info]" in nginx.log.read_text()


def test_variables_contain_the_decision(serving) -> None:
    nginx = serving(
        'weir_limit_zone $remote_addr zone=one "2/hour; 5/day";',
        "location / { weir_limit zone=one; add_header X-Status"
        f' "$weir_status $weir_limit $weir_remaining $weir_retry_after" always; {PAGE} }}',
    )
    values = [nginx.get("/").headers["x-status"] for _ in range(3)]
    assert values[0] == "PASSED 2 1 0"
    assert values[1] == "PASSED 2 0 0"
    assert values[2].startswith("REJECTED 2 0 3")


def test_a_request_is_decided_once_whatever_redirects_follow(serving) -> None:
    nginx = serving(
        'weir_limit_zone $remote_addr zone=one "4/hour";',
        "weir_limit zone=one; weir_headers x-ratelimit; error_page 429 /sorry;"
        "error_page 404 /gone;"
        f"location / {{ {PAGE} }}"
        "location /missing { root /usr/share/nginx/html; }"
        f"location = /gone {{ {PAGE} }} location = /sorry {{ {PAGE} }}",
    )
    assert nginx.get("/missing").headers["x-ratelimit-remaining"] == "3"
    assert nginx.get("/").headers["x-ratelimit-remaining"] == "2"
    nginx.statuses("/", 2)
    refused = nginx.get("/")
    assert (refused.status, refused.headers["x-ratelimit-remaining"]) == (429, "0")
    assert "Welcome" in refused.body  # the error page itself is not refused
    assert int(refused.headers["retry-after"]) > 3000


def test_auth_request_may_carry_the_limit_without_becoming_500(serving) -> None:
    nginx = serving(
        'weir_limit_zone $remote_addr zone=one "2/hour";',
        f"location / {{ auth_request /auth; weir_limit zone=one; {PAGE} }}"
        f"location = /auth {{ internal; {PAGE} }}",
    )
    assert nginx.statuses("/", 3) == [200, 200, 429]


# ------------------------------------------------------------------------------------- headers


def test_headers_are_those_of_weir_flask(serving) -> None:
    nginx = serving(
        'weir_limit_zone $remote_addr zone=one "2/hour; 9/day";'
        'weir_limit_zone $remote_addr zone=sole "2/hour";',
        f"location /old {{ weir_limit zone=one; weir_headers x-ratelimit; {PAGE} }}"
        f"location /new {{ weir_limit zone=one; weir_headers draft-11; {PAGE} }}"
        f"location /sole {{ weir_limit zone=sole; weir_headers draft-11; {PAGE} }}",
    )
    now = time.time()
    old = nginx.get("/old").headers
    assert (old["x-ratelimit-limit"], old["x-ratelimit-remaining"]) == ("2", "1")
    assert now + 3590 < int(old["x-ratelimit-reset"]) < now + 3610
    assert 3590 < int(old["retry-after"]) <= 3601
    new = nginx.get("/new").headers
    assert new["ratelimit-policy"] == '"2 per 1 hour";q=2;w=3600, "9 per 1 day";q=9;w=86400'
    name, remaining, seconds = new["ratelimit"].split(";")
    assert (name, remaining) == ('"2 per 1 hour"', "r=0")
    assert 3590 < int(seconds.removeprefix("t=")) <= 3600
    assert "retry-after" not in new
    refused = nginx.get("/new")
    assert refused.status == 429
    assert 3590 < int(refused.headers["retry-after"]) <= 3600
    sole = nginx.get("/sole").headers
    assert sole["ratelimit-policy"] == '"default";q=2;w=3600'
    assert sole["ratelimit"].startswith('"default";r=1;t=')


def test_retry_after_is_exact_in_nginx(serving) -> None:
    nginx = serving(
        'weir_limit_zone $remote_addr zone=one "1/2seconds";',
        f"location / {{ weir_limit zone=one; {PAGE} }}",
    )
    assert nginx.get("/").status == 200
    while (refused := nginx.get("/")).status == 200:
        pass  # on a busy machine, two seconds may pass between two requests
    assert refused.status == 429
    time.sleep(int(refused.headers["retry-after"]))
    assert nginx.get("/").status == 200


# --------------------------------------------------------------------------------------- IPv6


def with_real_ip(zones: str, server: str) -> tuple[str, str]:
    return zones, f"set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP; {server}"


@pytest.mark.parametrize("key", ["$binary_remote_addr", "$remote_addr", "$weir_client"])
def test_an_ipv6_client_is_its_network(serving, key: str) -> None:
    nginx = serving(
        *with_real_ip(
            f'weir_limit_zone {key} zone=one "2/hour";',
            f"location / {{ weir_limit zone=one; {PAGE} }}"
            f"location /128 {{ weir_limit zone=one; weir_ipv6_prefix 128; {PAGE} }}",
        )
    )

    def send(path: str, address: str) -> int:
        return nginx.get(path, X_Real_IP=address).status

    assert send("/", "2001:db8:1:2::1") == 200
    assert send("/", "2001:db8:1:2:ffff::2") == 200
    assert send("/", "2001:db8:1:2::3") == 429
    assert send("/", "2001:db8:1:3::3") == 200
    assert [send("/128", "2001:db8:1:2::1") for _ in range(3)] == [200, 200, 429]
    assert send("/128", "2001:db8:1:2::2") == 200
    # An IPv4 address mapped into IPv6 is the IPv4 address.
    assert send("/", "192.0.2.7") == 200
    assert send("/", "::ffff:192.0.2.7") == 200
    assert send("/", "192.0.2.7") == 429


# --------------------------------------------------------------------------------------- rules


def test_blocked_clients_are_refused_and_allowed_ones_pass_before_any_limit(serving) -> None:
    nginx = serving(
        *with_real_ip(
            'weir_limit_zone $arg_key zone=one "1/hour";',
            "weir_rules on; add_header X-Status $weir_status always;"
            f"location / {{ {PAGE} }} location /limited {{ weir_limit zone=one; {PAGE} }}",
        )
    )
    with Table(nginx.table) as table:
        table.block("203.0.113.0/24", time.time() + 600)
        table.allow("198.51.100.7")
        table.block("2001:db8:5::/48", time.time() + 600)
        refused = nginx.get("/", X_Real_IP="203.0.113.9")
        assert (refused.status, refused.headers["x-status"]) == (429, "REJECTED")
        assert 590 <= int(refused.headers["retry-after"]) <= 601
        assert nginx.get("/", X_Real_IP="203.0.114.9").status == 200
        assert nginx.get("/", X_Real_IP="2001:db8:5::1").status == 429
        assert nginx.get("/", X_Real_IP="::ffff:203.0.113.9").status == 429
        for _ in range(3):
            assert nginx.get("/limited?key=a", X_Real_IP="198.51.100.7").status == 200
        assert nginx.get("/limited?key=a", X_Real_IP="192.0.2.1").status == 200
        table.unlist("203.0.113.0/24")
        assert nginx.get("/", X_Real_IP="203.0.113.9").status == 200


# ------------------------------------------------------------------------- seen from elsewhere


def test_weir_top_and_block_see_and_steer_nginx(serving) -> None:
    nginx = serving(
        *with_real_ip(
            'weir_limit_zone $remote_addr zone=one "2/hour";',
            f"location / {{ weir_limit zone=one; {PAGE} }}",
        )
    )
    for _ in range(5):
        nginx.get("/", X_Real_IP="192.0.2.1")
    with Table(nginx.table) as table:
        (counts,) = [entry for entry in table.counts() if entry.limit == "2 per 1 hour"]
        assert (counts.allowed, counts.denied) == (2, 3)
        assert [entry.client for entry in table.top_clients()] == ["192.0.2.1"]
        (described,) = table.registry()
        assert (str(described.limit), described.after) == ("2 per 1 hour", "/nginx:one")
        table.block("192.0.2.2")
        assert nginx.get("/", X_Real_IP="192.0.2.2").status == 429
        assert table.check()


def test_zones_with_flask_s_scope_share_flask_s_counter(serving, serve) -> None:
    program = """
from flask import Flask
from weir.flask import Limiter
from weir.flask.util import get_remote_address
import os

app = Flask(__name__)
limiter = Limiter(get_remote_address, app=app, storage_uri=os.environ["STORE"])

@app.get("/")
def home():
    return "home"

@app.get("/login")
@limiter.limit("5/hour; 20/day")
def login():
    return "in"
"""
    nginx = serving(
        'weir_limit_zone $remote_addr zone=login "5/hour; 20/day" scope=login;',
        f"location /login {{ weir_limit zone=login; {PAGE} }}"
        f"location /door {{ weir_limit zone=login peek; {PAGE} }}",
    )
    app = serve(program, workers=2, STORE=nginx.table)
    assert [app.send("/login")[0] for _ in range(3)] == [200] * 3
    assert nginx.statuses("/door", 4) == [200] * 4  # peeks
    assert nginx.statuses("/login", 3) == [200, 200, 429]
    assert nginx.get("/door").status == 429
    assert app.send("/login")[0] == 429
