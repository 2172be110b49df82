"""A leaky bucket of the module decides each request as nginx's limit_req does."""

from __future__ import annotations

import pytest

from servers.nginx_server import PAGE, needs_nginx

pytestmark = needs_nginx

#: At one request a minute, nothing leaks while a test runs, so both must agree exactly.
RATE = (
    "limit_req_zone $arg_key zone=req:1m rate=1r/m; limit_req_zone $arg_b zone=req2:1m rate=1r/m;"
)


def both(serving, burst: int, mode: str, dry_run: str = "off", second: str = ""):  # type: ignore[no-untyped-def]
    """Status code and variable of eight requests in a row, for limit_req and weir_limit."""
    req2 = f"limit_req zone=req2 burst=3 {mode};" if second else ""
    weir2 = f"weir_limit zone=weir2 {mode};" if second else ""
    nginx = serving(
        RATE
        + f'weir_limit_zone $arg_key zone=weir "1/minute" strategy=leaky-bucket burst={burst};'
        + 'weir_limit_zone $arg_b zone=weir2 "1/minute" strategy=leaky-bucket burst=3;',
        f"limit_req_dry_run {dry_run}; weir_limit_dry_run {dry_run};"
        "location /req { limit_req_status 429; add_header X-Status $limit_req_status always;"
        f" limit_req zone=req {f'burst={burst}' if burst else ''} {mode}; {req2} {PAGE} }}"
        "location /weir { add_header X-Status $weir_status always;"
        f" weir_limit zone=weir {mode}; {weir2} {PAGE} }}",
    )
    results = []
    for path in ("/req", "/weir"):
        answers = [nginx.get(f"{path}?key=a{second}") for _ in range(8)]
        results.append([(answer.status, answer.headers.get("x-status")) for answer in answers])
    return results


@pytest.mark.parametrize("burst", [0, 1, 5])
@pytest.mark.parametrize("dry_run", ["on", "off"])
def test_without_delay(serving, burst: int, dry_run: str) -> None:
    req, weir = both(serving, burst, "nodelay", dry_run)
    assert weir == req


@pytest.mark.parametrize("burst", [0, 1, 5])
@pytest.mark.parametrize("mode", ["", "delay=2", "delay=9"])
def test_with_delay(serving, burst: int, mode: str) -> None:
    req, weir = both(serving, burst, mode, "on")
    assert weir == req


def test_the_smaller_of_two_limits_decides(serving) -> None:
    req, weir = both(serving, 5, "nodelay", "off", "&b=1")
    assert weir == req


def test_an_empty_key_leaves_its_limit_out(serving) -> None:
    req, weir = both(serving, 1, "nodelay", "off", "&b=")
    assert weir == req


def test_without_a_limit_there_is_no_status(serving) -> None:
    nginx = serving(
        RATE + 'weir_limit_zone $arg_key zone=weir "1/minute";',
        "location /req { add_header X-Status $limit_req_status always; limit_req zone=req;"
        f" {PAGE} }} location /weir {{ add_header X-Status $weir_status always;"
        f" weir_limit zone=weir; {PAGE} }}",
    )
    for path in ("/req", "/weir"):
        assert "x-status" not in nginx.get(path).headers
