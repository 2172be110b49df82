"""``MemcachedStorage.storage``: the client of pymemcache, as with ``limits``."""

from __future__ import annotations

import threading
from typing import Any

from weir.storage import storage_from_string


def test_storage_is_a_client_of_pymemcache_for_each_thread(servers: Any, key: str) -> None:
    store: Any = storage_from_string(servers.memcached.uri)
    assert store.storage.set(key, b"1")
    assert store.storage.get(key) == b"1"
    assert store.storage is store.storage
    others: list[Any] = []
    thread = threading.Thread(target=lambda: others.append(store.storage))
    thread.start()
    thread.join()
    assert others[0] is not store.storage
    store.storage.close()
    store.close()


def test_several_servers_are_one_client(servers: Any, key: str) -> None:
    place = servers.memcached.uri.partition("://")[2]
    store: Any = storage_from_string(
        f"memcached://{place},{place.replace('127.0.0.1', 'localhost')}"
    )
    assert store.storage.set(key, b"2")
    assert store.storage.get(key) == b"2"
    store.storage.close()
    store.close()
