"""Idioms of programs written for ``limits`` or Flask-Limiter, in both packages, side by side."""

from __future__ import annotations

import subprocess
import sys

import pytest

IDIOMS = {
    "star imports": """
        from limits.storage import *
        from limits.strategies import *
        print(MemoryStorage.__name__, RedisStorage.__name__, storage_from_string("memory://").check())
        print(FixedWindowRateLimiter.__name__, STRATEGIES["moving-window"].__name__)
        from limits.storage.memory import *
        from limits.storage.base import *
        from limits.limits import *
        from limits.util import *
        print(Storage.__name__, parse_many("1/hour"), RateLimitItemPerDay(1), Granularity(1, "x"))
        from flask_limiter.util import *
        from flask_limiter.constants import *
        print(get_remote_address.__name__, ConfigVars.ENABLED, HeaderNames.LIMIT)
    """,
    "an item without a unit": """
        from limits import RateLimitItem
        class Mine(RateLimitItem):
            pass
        try:
            print(Mine(1).get_expiry())
        except AttributeError as error:
            print("GRANULARITY" in str(error))
    """,
    "a scheme for a subclass of MemoryStorage": """
        from limits import parse, strategies
        from limits.storage import MemoryStorage, storage_from_string
        class Never(MemoryStorage):
            STORAGE_SCHEME = ["never"]
            def check(self):
                return False
            def acquire_entry(self, key, limit, expiry, amount=1):
                return False
        storage = storage_from_string("never://host/path?x=1")
        print(type(storage).__name__, storage.check(), storage.reset())
        for name in ("fixed-window", "moving-window", "sliding-window-counter"):
            print(name, strategies.STRATEGIES[name](storage).hit(parse("2/hour"), "alice"))
    """,
    "a subclass that replaces clear()": """
        from limits import parse, strategies
        from limits.storage import MemoryStorage
        class Noting(MemoryStorage):
            cleared = []
            def clear(self, key):
                self.cleared.append(key)
                super().clear(key)
        for name in ("fixed-window", "moving-window"):
            storage = Noting()
            limiter = strategies.STRATEGIES[name](storage)
            item = parse("2/hour")
            for _ in range(3):
                limiter.hit(item, "alice", "bob")
            limiter.clear(item, "alice", "bob")
            remaining = limiter.get_window_stats(item, "alice", "bob").remaining
            print(name, storage.cleared[-1], remaining)
            storage.incr("bare", 3600)
            storage.clear("bare")
            print(storage.cleared[-1], storage.get("bare"))
    """,
    "a subclass of an asyncio storage that replaces its methods": """
        import asyncio
        from limits import parse
        from limits.aio import strategies
        from limits.aio.storage import MemoryStorage
        class Noting(MemoryStorage):
            STORAGE_SCHEME = ["async+noting"]
            async def incr(self, key, expiry, amount=1):
                print("incr", key, amount)
                return await super().incr(key, expiry, amount=amount)
            async def acquire_entry(self, key, limit, expiry, amount=1):
                print("entry", key, limit, expiry, amount)
                return await super().acquire_entry(key, limit, expiry, amount=amount)
            async def clear(self, key):
                print("clear", key)
                await super().clear(key)
        async def main():
            for name in ("fixed-window", "moving-window"):
                limiter = strategies.STRATEGIES[name](Noting())
                item = parse("2/hour")
                print([await limiter.hit(item, "alice") for _ in range(3)])
                print((await limiter.get_window_stats(item, "alice")).remaining)
                await limiter.clear(item, "alice")
                print(await limiter.test(item, "alice"))
        asyncio.run(main())
    """,
    "private names of a limiter": """
        from flask import Flask
        from flask_limiter import Limiter
        limiter = Limiter(lambda: "k", key_prefix="shop", storage_uri="memory://",
                          strategy="moving-window", swallow_errors=True, headers_enabled=True,
                          storage_options={"keys": 64})
        names = ("_key_prefix", "_storage_uri", "_strategy", "_swallow_errors", "_headers_enabled")
        print([getattr(limiter, name) for name in names])
        limiter.init_app(Flask("shop"))
        print([getattr(limiter, name) for name in names], limiter._storage_options)
        app = Flask("other")
        app.config.update(RATELIMIT_STRATEGY="moving-window", RATELIMIT_SWALLOW_ERRORS=True,
                          RATELIMIT_STORAGE_URI="memory://", RATELIMIT_KEY_PREFIX="s")
        limiter = Limiter(lambda: "k", app=app)
        print([getattr(limiter, name) for name in names])
    """,
    "a storage without moving windows": """
        from flask import Flask
        from flask_limiter import Limiter
        from limits.storage.base import Storage
        class Counts(Storage):
            STORAGE_SCHEME = ["counts"]
            base_exceptions = property(lambda self: KeyError)
            def incr(self, key, expiry, amount=1): return 1
            def get(self, key): return 0
            def get_expiry(self, key): return 0
            def check(self): return True
            def reset(self): return 0
            def clear(self, key): pass
        for strategy in ("fixed-window", "moving-window"):
            try:
                Limiter(lambda: "k", app=Flask("shop"), storage_uri="counts://", strategy=strategy)
                print("made")
            except NotImplementedError:
                print("refused")
    """,
}


def output(idiom: str, package: str) -> str:
    lines = [line[8:] for line in IDIOMS[idiom].splitlines()]
    first = "import weir; weir.install_as_flask_limiter()" if package == "weir" else ""
    command = [sys.executable, "-W", "ignore", "-c", "\n".join([first, *lines])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("idiom", IDIOMS)
def test_an_idiom_gives_the_same(idiom: str) -> None:
    theirs = output(idiom, "limits")
    assert theirs
    assert output(idiom, "weir") == theirs
