"""Whether another distribution has files in the folder ``weir`` that this package is installed in.

The distribution of this package is ``weir-limiter``; on PyPI, ``weir`` is another project. Both
install a folder ``weir``: whichever comes last overwrites files of the other, and uninstalling one
damages the other.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from .errors import WeirWarning

DISTRIBUTION = "weir-limiter"

_FOREIGN = re.compile(r"weir-\d[^-]*(-py[\d.]+)?\.(dist|egg)-info", re.ASCII | re.IGNORECASE)

REPAIR = (
    "run `pip uninstall weir weir-limiter`, "
    "then install weir-limiter again from its checkout or wheel"
)


def foreign_distribution(folder: Path | None = None) -> Path | None:
    """The metadata of the other ``weir`` beside this package, or ``None``.

    folder: where to look (default: the folder that holds this package).
    """
    folder = folder or Path(__file__).parent.parent
    try:
        return next((path for path in folder.iterdir() if _FOREIGN.fullmatch(path.name)), None)
    except OSError:  # imported from an archive
        return None


def warn_of_foreign(folder: Path | None = None) -> None:
    """Warn if the other ``weir`` is installed in the same folder."""
    found = foreign_distribution(folder)
    if found is not None:
        warnings.warn(
            f"another project named weir is installed in addition to weir-limiter ({found}): "
            f"they overwrite each other's files; {REPAIR}",
            WeirWarning,
            stacklevel=3,
        )
