"""Unusual storage URIs under weir.compat, compared with ``limits``."""

from __future__ import annotations

import subprocess
import sys

import limits
import limits.aio.storage
import pytest

import weir
from weir import aio
from weir.storage import MemoryStorage, storage_from_string

OPEN = """
import json, sys, warnings
if sys.argv[1] == "weir":
    import weir
    weir.install_as_flask_limiter()
from limits.errors import ConfigurationError
from limits.storage import storage_from_string
warnings.simplefilter("ignore")
for uri in json.loads(sys.argv[2]):
    try:
        print(repr(uri), type(storage_from_string(uri)).__name__)
    except (ConfigurationError, ValueError) as error:
        print(repr(uri), "refused")
"""

#: Both open these, as the same class, or both refuse them.
SAME = """[
    "memory://", "memory://?a=b", "memory://a?b=c", "memory://host:80/p?x=1#f", "memory:",
    "memory:/", "memory:///", "memory", "", "://", "//", "foo://", "foo://a", "MEMORY://",
    "Memory://name", " memory://", "memory:// ", "\\nmemory://", "memory:?a", "memory://?&&",
    null, [],
    "redis", "redis:", "redis:/", "redis:localhost", "redis//localhost", "redis://localhost:port",
    "redis://localhost:99999999", "redis://[::1", "redis://:pw@", "redis+sentinel://",
    "redis+sentinel://localhost", "redis+unix://",
    "redis+foo://", "memcached://localhost:x", "memcached://a:1,b:2", "memory+x://", "etcd://localhost",
    "async+memory://", "async+memory:", "async+memory://?a=b", "async+foo://", "async+"
]"""


def opened(package: str) -> list[str]:
    command = [sys.executable, "-c", OPEN, package, SAME]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_odd_uris_are_opened_or_refused_as_in_limits() -> None:
    ours, theirs = opened("weir"), opened("limits")
    assert ours == theirs
    assert sum(line.endswith("refused") for line in ours) > 15


def test_without_compat_an_unknown_option_is_an_error() -> None:
    with pytest.raises(weir.ParseError, match="unknown option"):
        storage_from_string("memory://?key=100")
    assert isinstance(storage_from_string(" Memory:?keys=100"), MemoryStorage)


@pytest.mark.parametrize("uri", [None, 7, b"memory://", [], 0.5])
def test_a_uri_that_is_not_a_text(uri: object) -> None:
    for opener in (storage_from_string, aio.storage.storage_from_string):
        with pytest.raises(weir.errors.ConfigurationError, match="must be a text, not "):
            opener(uri)  # type: ignore[arg-type]


def test_an_ignored_option_is_reported_under_compat() -> None:
    code = """
import warnings, weir
weir.install_as_flask_limiter()
from limits.storage import storage_from_string
with warnings.catch_warnings(record=True) as issued:
    warnings.simplefilter("always")
    storage = storage_from_string("memory://?keys=100&kyes=7&a")
print(storage.info()["keys_max"], *[str(one.message) for one in issued])
"""
    command = [sys.executable, "-c", code]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert text == "104 memory://: these options have no effect: kyes=7, a\n"


@pytest.mark.parametrize("name", ["Memory", "Memcached", "Redis"])
def test_asynchronous_storages_have_the_classes_of_limits(name: str) -> None:
    storage = storage_from_string(f"async+{name.lower()}://localhost:1")
    assert type(storage).__name__ == f"{name}Storage"
    for other in ("Memory", "Memcached", "Redis", "MongoDB"):
        kind = getattr(aio.storage, f"{other}Storage")
        assert hasattr(limits.aio.storage, kind.__name__)
        assert isinstance(storage, kind) == (other == name)
    assert isinstance(storage, aio.storage.Storage)
