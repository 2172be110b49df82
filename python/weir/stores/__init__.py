"""Stores on other machines: Redis and Valkey (:mod:`.redis`), Memcached (:mod:`.memcached`).

They are opened by URI, see :func:`weir.storage.storage_from_string`. Their client libraries are
imported when the first one is opened.
"""
