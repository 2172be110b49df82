"""Two limits, and requests of a client that both count."""

from __future__ import annotations

import weir

LIMIT = weir.parse("10/minute")
HOURLY = weir.parse("100/hour").replace(strategy="moving-window")


def hits(table: weir.Table, client: str, times: int = 1) -> None:
    key = f"{weir.join_key(client)}/search"
    for _ in range(times):
        table.decide([LIMIT, HOURLY], key)
