"""Key functions: the address of the client."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from weir.flask import ConfigurationError, util
from weir.flask.contrib.util import get_remote_address_cloudflare
from weir.flask.util import get_remote_address, trusted_proxies


def send(
    function: Any, address: str | None, headers: dict[str, str] | None = None, **settings: Any
) -> str:
    app = Flask("util")
    app.config.update(settings)
    base = {"REMOTE_ADDR": address} if address is not None else {}
    with app.test_request_context("/", environ_base=base, headers=headers) as context:
        if address is None:
            context.request.remote_addr = None
        return str(function())


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:192.0.2.1", "192.0.2.1"),
        ("64:ff9b::192.0.2.1", "192.0.2.1"),
        ("64:FF9B::c000:201", "192.0.2.1"),
        ("::ffff:0:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("[192.0.2.1]:4711", "192.0.2.1"),
        ("[2001:DB8::1]:4711", "2001:db8::/64"),
        ("[2001:db8::1]", "2001:db8::/64"),
        ("unix:/run/socket", "unix:/run/socket"),
        ("", "127.0.0.1"),
        (None, "127.0.0.1"),
    ],
)
def test_get_remote_address(address: str | None, key: str) -> None:
    assert send(get_remote_address, address) == key


@pytest.mark.parametrize(
    ("prefix", "key"),
    [
        (128, "2001:db8:1:2:3:4:5:6"),
        (56, "2001:db8:1::/56"),
        (50, "2001:db8:1::/50"),
        (47, "2001:db8::/47"),
        (0, "::/0"),
    ],
)
def test_the_length_of_an_ipv6_network_is_a_setting(prefix: int, key: str) -> None:
    address = "2001:db8:1:2:3:4:5:6"
    assert send(get_remote_address, address, RATELIMIT_IPV6_PREFIX=prefix) == key


@pytest.mark.parametrize(
    ("address", "forwarded", "client"),
    [
        ("10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "1.2.3.4, 198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "1.2.3.4, 198.51.100.7, 10.9.9.9", "198.51.100.7"),
        ("10.0.0.1", "198.51.100.7:4711", "198.51.100.7"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::/64"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::/64"),
        ("10.0.0.1", "::ffff:198.51.100.7", "198.51.100.7"),
        ("::ffff:10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "1.2.3.4, unknown", "peer of 10.0.0.1"),
        ("10.0.0.1", "1.2.3.4, garbage, 10.9.9.9", "peer of 10.9.9.9"),
        ("10.0.0.1", "", "peer of 10.0.0.1"),
        ("[::ffff:10.0.0.1]:80", "198.51.100.7", "198.51.100.7"),
        ("64:ff9b::10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ("198.51.100.1", "1.2.3.4", "198.51.100.1"),
    ],
)
def test_trusted_proxies(address: str, forwarded: str, client: str) -> None:
    function = trusted_proxies("10.0.0.0/8", "2001:db8:ffff::/48")
    assert send(function, address, {"X-Forwarded-For": forwarded}) == client


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("for=198.51.100.7", "198.51.100.7"),
        ('for="[2001:db8::1]:4711";proto=https', "2001:db8::/64"),
        ("for=1.2.3.4, For=198.51.100.7;by=10.0.0.1", "198.51.100.7"),
        ("for=198.51.100.7, for=10.9.9.9", "198.51.100.7"),
        ("for=1.2.3.4, for=_hidden", "peer of 10.0.0.1"),
        ("proto=https", "peer of 10.0.0.1"),
    ],
)
def test_trusted_proxies_with_the_forwarded_header(forwarded: str, client: str) -> None:
    function = trusted_proxies("10.0.0.0/8", header="Forwarded")
    headers = {"Forwarded": forwarded, "X-Forwarded-For": "6.6.6.6"}
    assert send(function, "10.0.0.1", headers) == client
    assert send(trusted_proxies("10.0.0.0/8"), "10.0.0.1", {"Forwarded": forwarded}) == client


def test_a_client_cannot_choose_the_header_that_is_believed(monkeypatch: Any, caplog: Any) -> None:
    """Most proxies write X-Forwarded-For and forward Forwarded as the client sent it."""
    monkeypatch.setattr(util, "_warned_of_conflict", False)
    spoofed = {"X-Forwarded-For": "198.51.100.7", "Forwarded": "for=6.6.6.6"}
    function = trusted_proxies("10.0.0.0/8")
    assert [send(function, "10.0.0.1", spoofed) for _ in range(3)] == ["198.51.100.7"] * 3
    assert caplog.text.count("Forwarded with different clients") == 1
    key_func = trusted_proxies("10.0.0.0/8", header="x-forwarded-for")
    assert send(key_func, "10.0.0.1", spoofed) == "198.51.100.7"
    agreeing = {"X-Forwarded-For": "6.6.6.6, 198.51.100.7", "Forwarded": "for=198.51.100.7"}
    assert send(function, "10.0.0.1", agreeing) == "198.51.100.7"


@pytest.mark.parametrize(
    "forwarded",
    ['for="6.6.6.6, for=198.51.100.7', 'for="6.6.6.6;by=\\", for="198.51.100.7:80"'],
)
def test_an_open_quote_does_not_swallow_what_the_proxy_added(forwarded: str) -> None:
    function = trusted_proxies("10.0.0.0/8")
    assert send(function, "10.0.0.1", {"Forwarded": forwarded}) == "198.51.100.7"


@pytest.mark.parametrize(
    "network", ["::ffff:10.0.0.0/104", "64:ff9b::a00:0/104", "::ffff:0:10.0.0.0/104", "10.0.0.0/8"]
)
def test_a_network_of_proxies_in_any_form(network: str) -> None:
    function = trusted_proxies(network)
    for proxy in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "10.1.2.3:99"):
        assert send(function, proxy, {"X-Forwarded-For": "198.51.100.7"}) == "198.51.100.7"
    assert send(function, "11.1.2.3", {"X-Forwarded-For": "198.51.100.7"}) == "11.1.2.3"


@pytest.mark.parametrize("proxies", [(), ("nonsense",), ("10.0.0.0/99",)])
def test_proxies_that_are_none(proxies: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="EVALUE"):
        trusted_proxies(*proxies)


@pytest.mark.parametrize("options", [{"header": "X-Real-IP"}, {"ipv6_prefix": 129}])
def test_options_of_trusted_proxies_that_are_none(options: Any) -> None:
    with pytest.raises(ConfigurationError, match="EVALUE"):
        trusted_proxies("10.0.0.1", **options)


@pytest.mark.parametrize("prefix", ["/64", -1, 129, True])
def test_a_length_of_an_ipv6_network_that_is_none(make: Any, app: Flask, prefix: Any) -> None:
    app.config["RATELIMIT_IPV6_PREFIX"] = prefix
    with pytest.raises(ConfigurationError, match=r"EVALUE: .*an IPv6 prefix"):
        make()


def test_get_remote_address_outside_of_a_request() -> None:
    with pytest.raises(RuntimeError, match="there is no request"):
        get_remote_address()


def test_an_untrusted_proxy_is_reported_once(
    make: Any, app: Flask, get: Any, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(util, "_warned", False)
    make(default_limits=["9/minute"])
    app.add_url_rule("/", "hello", lambda: "hello")
    for _ in range(3):
        get("/", X_Forwarded_For="1.2.3.4")
    assert caplog.text.count("X-Forwarded-For") == 1
    assert "trusted_proxies" in caplog.text


def test_proxy_fix_is_not_reported(
    make: Any, app: Flask, get: Any, monkeypatch: Any, caplog: Any
) -> None:
    from werkzeug.middleware.proxy_fix import ProxyFix

    monkeypatch.setattr(util, "_warned", False)
    limiter = make(default_limits=["9/minute"])
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    app.add_url_rule("/", "hello", lambda: str(limiter.current_limit.request_args[0]))
    assert get("/", X_Forwarded_For="1.2.3.4").text == "1.2.3.4"
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3::1", "2001:db8:1:2::/64"),
        ("", "127.0.0.1"),
        (None, "127.0.0.1"),
    ],
)
def test_the_client_that_cloudflare_names(header: str | None, key: str) -> None:
    headers = {} if header is None else {"CF-Connecting-IP": header}
    assert send(get_remote_address_cloudflare, "10.0.0.1", headers) == key
