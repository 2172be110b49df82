"""Names of :mod:`.base` and :mod:`.hosts` for modules that know them by this place."""

from .base import DEADLINE, failure, monotonic, need, seconds, true_time
from .hosts import Hosts, check_uri, is_readable, scheme_of, shown

__all__ = [
    "DEADLINE",
    "Hosts",
    "check_uri",
    "failure",
    "is_readable",
    "monotonic",
    "need",
    "scheme_of",
    "seconds",
    "shown",
    "true_time",
]
