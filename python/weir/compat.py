"""Replaces Flask-Limiter and limits for programs that import them.

Either in the program, before it imports them::

    import weir

    weir.install_as_flask_limiter()

or without touching it::

    python -m weir.compat app.py
    python -m weir.compat -m flask run

From then on ``flask_limiter`` and ``limits`` are names of Weir, and so are their modules ``util``,
``constants``, ``errors``, ``commands``, ``contrib``, ``storage``, ``strategies``, ``aio``,
``typing`` and ``limits.limits``. Neither package needs to be installed. Importing a name without
counterpart raises an error.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import logging
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NoReturn

from ._core import VERSION
from ._log import keys_as_in_flask_limiter
from .errors import ConfigurationError
from .stores.registry import memory_as_in_limits

__all__ = ["install_as_flask_limiter", "main"]

#: The module of Weir for each module name.
MODULES = {
    "flask_limiter": "weir.flask",
    "flask_limiter.commands": "weir.flask.commands",
    "flask_limiter.constants": "weir.flask.constants",
    "flask_limiter.contrib": "weir.flask.contrib",
    "flask_limiter.contrib.util": "weir.flask.contrib.util",
    "flask_limiter.errors": "weir.flask.errors",
    "flask_limiter.extension": "weir.flask",  # of earlier versions
    "flask_limiter.storage": "weir.limits_storage",
    "flask_limiter.util": "weir.flask.util",
    "limits": "weir",
    "limits.aio": "weir.aio",
    "limits.aio.storage": "weir.aio.storage",
    "limits.aio.storage.base": "weir.aio.storage",
    "limits.aio.storage.memcached": "weir.aio.storage",
    "limits.aio.storage.memory": "weir.aio.storage",
    "limits.aio.storage.mongodb": "weir.aio.storage",
    "limits.aio.storage.redis": "weir.aio.storage",
    "limits.aio.strategies": "weir.aio.strategies",
    "limits.errors": "weir.errors",
    "limits.limits": "weir.limits",
    "limits.storage": "weir.limits_storage",
    "limits.storage.base": "weir.limits_storage",
    "limits.storage.memcached": "weir.limits_storage",
    "limits.storage.memory": "weir.limits_storage",
    "limits.storage.mongodb": "weir.limits_storage",
    "limits.storage.redis": "weir.limits_storage",
    "limits.storage.redis_cluster": "weir.limits_storage",
    "limits.storage.redis_sentinel": "weir.limits_storage",
    "limits.storage.registry": "weir.limits_storage",
    "limits.strategies": "weir.strategies",
    "limits.typing": "weir.limits_typing",
    "limits.util": "weir.limits_util",
}

#: The versions that are reported, because programs compare them.
VERSIONS = {"flask_limiter": "4.1.1", "limits": "5.8.0"}

#: What ``from limits import *`` brings.
NAMES = {
    "flask_limiter": """
        ExemptionScope HeaderNames Limit Limiter RateLimitExceeded RequestLimit RouteLimit
        ApplicationLimit MetaLimit
    """,
    "limits": """
        RateLimitItem RateLimitItemPerDay RateLimitItemPerHour RateLimitItemPerMinute
        RateLimitItemPerMonth RateLimitItemPerSecond RateLimitItemPerYear WindowStats
        aio parse parse_many storage strategies
    """,
}

#: The stores that ``from limits.storage import *`` brings, if their client libraries are there.
STORES = (
    "MemcachedStorage",
    "MemoryStorage",
    "MongoDBStorage",
    "RedisClusterStorage",
    "RedisSentinelStorage",
    "RedisStorage",
)

#: The packages that are replaced.
PACKAGES = tuple(VERSIONS)


class AliasModule(ModuleType):
    """A module with the attributes of one of Weir's modules, under another name."""

    def __init__(self, name: str, ours: str) -> None:
        super().__init__(name, f"{ours}, in place of {name}.")
        self.__ours = ours
        # A package, if there are modules in it.
        if any(other.startswith(f"{name}.") for other in MODULES):
            self.__path__: list[str] = []

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__") and attribute not in ("__all__", "__version__"):
            raise AttributeError(attribute)
        inner = f"{self.__name__}.{attribute}"
        if inner in MODULES:
            return importlib.import_module(inner)
        if attribute == "__version__" and self.__name__ in VERSIONS:
            return f"{VERSIONS[self.__name__]}+weir{VERSION}"
        if attribute == "__all__":
            return self._names()
        if inner in ("limits.parse", "limits.parse_many"):  # of several limits, the first
            return getattr(importlib.import_module("weir.limits_util"), attribute)
        try:
            return getattr(importlib.import_module(self.__ours), attribute)
        except AttributeError as error:
            reason = str(error) if "has no counterpart" in str(error) else ""
            raise AttributeError(
                reason or f"{self.__name__}.{attribute} has no counterpart in {self.__ours}"
            ) from None

    def _names(self) -> list[str]:
        """What ``from … import *`` brings."""
        if self.__name__ in NAMES:
            return NAMES[self.__name__].split()
        ours = importlib.import_module(self.__ours)
        names = set(getattr(ours, "__all__", [name for name in vars(ours) if name[0] != "_"]))
        if self.__ours == "weir.limits_storage":  # which imports them when they are first needed
            names.update(name for name in STORES if self._has_client_of(name))
        return sorted(names)

    def _has_client_of(self, store: str) -> bool:
        try:
            getattr(self, store)
        except (AttributeError, ImportError, ConfigurationError):
            return False
        return True

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(importlib.import_module(self.__ours))})


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of :data:`MODULES`, before any other finder does."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in MODULES:
            if name.startswith(("flask_limiter.", "limits.")):
                raise ModuleNotFoundError(f"{name} has no counterpart in weir", name=name)
            return None
        package = any(other.startswith(f"{name}.") for other in MODULES)
        return importlib.machinery.ModuleSpec(name, self, is_package=package)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return AliasModule(spec.name, MODULES[spec.name])

    def exec_module(self, module: ModuleType) -> None:
        pass


def _is_held(package: str) -> bool:
    """Whether a module outside of the two packages has something of this one."""
    for name, module in list(sys.modules.items()):
        if module is None or name.partition(".")[0] in (*PACKAGES, "weir"):
            continue
        for value in list(getattr(module, "__dict__", {}).values()):
            kind = type(value)
            origin = value.__name__ if kind is ModuleType else getattr(kind, "__module__", None)
            if kind is type or isinstance(value, FunctionType):
                origin = value.__module__
            if isinstance(origin, str) and origin.partition(".")[0] == package:
                return True
    return False


def install_as_flask_limiter() -> None:
    """Let ``import flask_limiter`` and ``import limits`` find Weir.

    :raises weir.errors.ConfigurationError: if one of them was imported before, because the program
        then keeps references to the other package.
    """
    if any(isinstance(finder, Finder) for finder in sys.meta_path):
        return
    for name in ("flask_limiter", "limits"):
        if name in sys.modules and _is_held(name):
            raise ConfigurationError(
                f"{name} is imported already; call install_as_flask_limiter() before that"
            )
    # Modules that no other module refers to were imported by the flask command, which loads the
    # commands of all installed extensions before the application.
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[name]
    sys.meta_path.insert(0, Finder())
    keys_as_in_flask_limiter()
    memory_as_in_limits()
    # Such programs may parse their log, so audit lines are off unless their level is set.
    audit = logging.getLogger("weir.audit")
    if audit.level == logging.NOTSET:
        audit.setLevel(logging.CRITICAL)


def run_program(
    runner: str, arguments: Sequence[str], prepare: Callable[[], None] = lambda: None
) -> None:
    """Run a program or module as ``python`` would, after ``prepare()``."""
    rest = list(arguments)
    if not rest or rest[0] in ("-h", "--help") or rest == ["-m"]:
        print(f"usage: python -m {runner} program.py [arguments]")
        print(f"       python -m {runner} -m module [arguments]")
        raise SystemExit(0 if rest and rest[0] != "-m" else 2)
    prepare()
    _keep_running(runner, rest)
    if rest[0] == "-m":
        sys.argv[:] = rest[1:]
        runpy.run_module(rest[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = rest
        # As "python program.py" has it.
        sys.path[0] = str(Path(rest[0]).resolve().parent)
        runpy.run_path(rest[0], run_name="__main__")


def _keep_running(runner: str, program: list[str]) -> None:
    """If a server executes itself again, as gunicorn does on USR2, run it under this module."""
    execute = os.execvpe

    def execvpe(file: str, args: Any, env: Any) -> NoReturn:
        words = list(args)
        if file == sys.executable and words[2:] == sys.argv[1:]:
            words = [words[0], "-m", runner, *program]
        execute(file, words, env)

    os.execvpe = execvpe  # type: ignore[assignment]


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m weir.compat [-m] program [arguments]``."""
    run_program(
        "weir.compat",
        sys.argv[1:] if arguments is None else arguments,
        install_as_flask_limiter,
    )


if __name__ == "__main__":
    # The same module under its own name, so that there is one Finder class.
    from weir.compat import main as run

    run()
