"""Memcached: several servers, and the addresses of one."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import pytest

import weir
from servers.ports import wait_for
from weir import Limit, StoreAwayError
from weir.stores.memcached import MemcachedStorage


def test_a_name_may_have_addresses_at_which_no_server_listens(
    servers: Any, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    look_up = socket.getaddrinfo

    def found(host: Any, *args: Any) -> list[Any]:
        if host != "several.invalid":
            return look_up(host, *args)
        return [x for address in ("127.7.7.7", "127.0.0.1") for x in look_up(address, *args)]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    port = servers.memcached.uri.rpartition(":")[2].partition("/")[0]
    store = MemcachedStorage(f"memcached://several.invalid:{port}", socket_timeout=20)
    once = Limit(1, 1, "day")
    assert [store.decide([once], key).allowed for _ in range(2)] == [True, False]
    store.close()


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_nothing_stays_charged_when_the_second_server_is_away(
    servers: Any, make_memcached: Any, how: str
) -> None:
    other = make_memcached().start()
    try:
        uri = f"memcached://127.0.0.1:{servers.memcached.port},127.0.0.1:{other.port}"
        store = MemcachedStorage(uri, remember_denials=0, socket_timeout=1.0)
        here = store._servers._by_name[f"memcached://127.0.0.1:{servers.memcached.port}"]
        items = [Limit(10, 1, "hour"), Limit(10, 1, "day")]
        keys = [f"{how}-{i}" for i in range(200)]
        apart = {
            key: [store._node(check.name) is here for check in checks]
            for key in keys
            for checks in [weir._core.memcached_checks(b"weir", items, key, None)]
        }
        key = next(key for key in keys if apart[key] == [True, False])
        store.decide(items, key, [0, 0])
        with contextlib.ExitStack() as stack:
            if how == "killed":
                other.kill()
            else:
                stack.enter_context(other.frozen())
            for _ in range(10 if how == "killed" else 3):
                with pytest.raises(StoreAwayError):
                    store.decide(items, key)
            sure = MemcachedStorage(servers.memcached.uri, remember_denials=0)
            # Otherwise the first server keeps what it charged.
            wait_for(lambda: sure.decide(items[:1], key, [0])[0].remaining == 10)
            sure.close()
        store.close()
    finally:
        other.stop()
