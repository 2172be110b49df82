"""What Weir does differently on purpose."""

from __future__ import annotations

from collections import Counter

#: The intended differences, and how the comparison detects them. Each has its section in
#: docs/differences.md.
DIFFERENCES = {
    "denied-charges-nothing": "adjusted",
    "smallest-window": "adjusted",
    "escaped-keys": "adjusted",
    "meta-limits": "adjusted",
    "request-identifier": "adjusted",
    "sliding-window-exact": "adjusted",
    "moving-window-end": "adjusted",
    "deciding-limit": "not compared",
    "retry-after": "not compared",
    "sliding-window-reset": "not compared",
    "unused-moving-window": "not compared",
}
used: Counter[str] = Counter()

#: The scopes of meta limits, by which both packages' keys show that one is a meta limit's.
META_SCOPES = ["meta", "refusals"]
