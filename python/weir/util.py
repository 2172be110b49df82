"""The names of ``limits.util``."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

from ._core import WindowStats, join_key, parse, parse_many
from .errors import ConfigurationError
from .limits import granularity_from_string

__all__ = [
    "Dependency",
    "LazyDependency",
    "WindowStats",
    "get_dependency",
    "granularity_from_string",
    "join_key",
    "parse",
    "parse_many",
]


@dataclass
class Dependency:
    """A module that a storage needs."""

    name: str
    version_required: Any
    version_found: Any
    module: ModuleType


#: Stands for a module that is not installed.
MissingModule = ModuleType("Missing")


def _version(text: object) -> Any:
    try:
        from packaging.version import Version
    except ImportError:
        return tuple(int(part) for part in re.findall(r"\d+", str(text))[:3])
    return Version(str(text))


def get_dependency(module_path: str) -> tuple[ModuleType, Any]:
    """A module and its version; :data:`MissingModule` and None if it is not installed."""
    try:
        module = importlib.import_module(module_path)
    except ImportError:
        return MissingModule, None
    root = sys.modules[module_path.partition(".")[0]]
    return module, _version(getattr(root, "__version__", "0.0.0"))


class _Dependencies(dict[str, Dependency]):
    def __getitem__(self, name: str) -> Dependency:
        found = super().__getitem__(name)
        required = found.version_required
        if found.module is MissingModule:
            least = f" A minimum version of {required} is required." if required else ""
            raise ConfigurationError(
                f"'{name}' prerequisite not available.{least} Run: pip install {name}"
            )
        if required and (not found.version_found or found.version_found < required):
            raise ConfigurationError(
                f"The minimum version of {required} for '{name}' could not be found: "
                f"{found.version_found} is installed"
            )
        return found


class LazyDependency:
    """Finds the modules that a class names in ``DEPENDENCIES`` at their first use."""

    DEPENDENCIES: ClassVar[Mapping[str, Any] | Sequence[str]] = ()

    def __init__(self) -> None:
        self._dependencies: _Dependencies | None = None

    @property
    def dependencies(self) -> Mapping[str, Dependency]:
        """The modules by their names; one that is missing raises at its first use."""
        if getattr(self, "_dependencies", None) is None:
            names = self.DEPENDENCIES
            wanted = names if isinstance(names, Mapping) else dict.fromkeys(names)
            found = _Dependencies()
            for name, least in wanted.items():
                module, version = get_dependency(name)
                found[name] = Dependency(name, least, version, module)
            self._dependencies = found
        assert self._dependencies is not None
        return self._dependencies
