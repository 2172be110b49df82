"""Raises ImportError if ``weir/__init__.py`` belongs to another distribution.

Imported first by the packages that applications start from, which would otherwise fail by a name
that the other package lacks.
"""

from __future__ import annotations

import sys

if getattr(sys.modules["weir"], "__distribution__", None) != "weir-limiter":
    raise ImportError(
        f"{sys.modules['weir'].__file__ or 'the package weir'} does not belong to weir-limiter: "
        "another project named weir has overwritten it; run `pip uninstall weir weir-limiter`, "
        "then install weir-limiter again from its checkout or wheel"
    )
