"""The configuration of the nginx module: what is refused, with which error."""

from __future__ import annotations

import os
import re
import signal

import pytest

from servers.nginx_server import PAGE, Nginx, needs_nginx
from servers.ports import wait_for

pytestmark = needs_nginx

WRONG = [
    ('weir_limit_zone $remote_addr zone=one "10 per fortnight";', 'unknown unit "fortnight"', 0),
    ('weir_limit_zone $remote_addr zone=one:1m "1/hour";', "a zone has no size", 0),
    ('weir_limit_zone $remote_addr "1/hour" burst=3;', 'must have "zone=NAME"', 0),
    ("weir_limit_zone $remote_addr zone=one;", "weir_limit_zone", 0),
    ("weir_limit_zone $remote_addr zone=one burst=3;", "must have limits", 0),
    ('weir_limit_zone $remote_addr zone=one "1/hour" strategy=none;', 'strategy "none"', 0),
    ('weir_limit_zone $remote_addr zone=one "1/hour" burst=x;', 'parameter "burst=x"', 0),
    ('weir_limit_zone $remote_addr zone=one "1/hour" max_delay=x;', 'parameter "max_delay=x"', 0),
    ('weir_limit_zone $remote_addr zone=one "1/hour" rate=3;', 'parameter "rate=3"', 0),
    ('weir_limit_zone $remote_addr zone=one "1/hour" "2/day";', 'parameter "2/day"', 0),
    ('weir_limit_zone $nothing zone=one "1/hour";', 'unknown "nothing" variable', None),
    ('weir_limit_zone $remote_addr zone=one "1/hour" strategy=fixed-window burst=2;', "burst", 0),
    (
        'weir_limit_zone $remote_addr zone=one "1/hour";\n'
        'weir_limit_zone $remote_addr zone=one "1/hour";',
        "defined twice",
        1,
    ),
    ("server { weir_limit zone=two; }", 'unknown zone "two"', 0),
    ("\nserver {\n weir_limit nodelay; }", 'must have "zone=NAME"', 2),
    ("server { weir_limit zone=two zone=two; }", 'zone "two" is duplicate', 0),
    ("server { weir_limit zone=two fast; }", 'invalid parameter "fast"', 0),
    ("server { weir_limit zone=two burst=5; }", 'belongs to "weir_limit_zone"', 0),
    ("weir_limit_status 200;", "must be between 400 and 599", 0),
    ("weir_headers all;", 'invalid value "all"', 0),
    ("weir_ipv6_prefix 129;", "must be between 0 and 128", 0),
    ("weir_limit_dry_run maybe;", 'invalid value "maybe"', 0),
    ("weir_table shm://other;", "is duplicate", 0),
]


@pytest.mark.parametrize(("text", "error", "line"), WRONG)
def test_errors_of_the_configuration_name_file_line_and_cause(
    nginx: Nginx, text: str, error: str, line: int | None
) -> None:
    nginx.write(text)
    tested = nginx.command("-t")
    assert tested.returncode != 0
    assert re.search(error, tested.stderr), tested.stderr
    if line is not None:
        first = nginx.conf.read_text().split(text)[0].count("\n") + 1
        assert f"{nginx.conf}:{first + line}" in tested.stderr


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ("weir_table memory://;", "each worker would count by itself"),
        ("weir_table shm://a/b;", "a name may hold letters"),
        ("weir_table shm://test-nginx-x keys=many;", "expected a whole number"),
        ("weir_table shm://test-nginx-x colour;", 'invalid parameter "colour"'),
        ("weir_table shm://test-nginx-x group=no-such-group-here;", "there is no group"),
        ("weir_table file:///no/such/folder/table;", "No such file or directory"),
        ("", '"weir_limit" needs a table'),
    ],
)
def test_tables_that_cannot_be_are_refused_with_their_line(
    nginx: Nginx, table: str, error: str
) -> None:
    zone = 'weir_limit_zone $remote_addr zone=one "1/hour"; server { weir_limit zone=one; }'
    nginx.write(f"{table}\n{zone}", table="")
    tested = nginx.command("-t")
    assert tested.returncode != 0
    assert error in tested.stderr
    assert f"{nginx.conf}:" in tested.stderr


def test_the_table_may_be_named_outside_of_http(nginx: Nginx) -> None:
    nginx.write("", main="weir_table {table} keys=64;", table="")
    assert nginx.command("-t").returncode == 0, nginx.what_it_said()


def test_a_reload_with_a_wrong_table_keeps_the_old_configuration(serving) -> None:
    nginx = serving(
        'weir_limit_zone $remote_addr zone=one "2/hour";',
        f"location / {{ weir_limit zone=one; {PAGE} }}",
    )
    assert nginx.get("/").status == 200
    nginx.conf.write_text(nginx.conf.read_text().replace("keys=8192", "keys=64"))
    os.kill(nginx.master(), signal.SIGHUP)
    wait_for(lambda: "exists with keys=8192" in nginx.log.read_text())
    assert nginx.statuses("/", 2) == [200, 429]
