"""The policies for an outage of the store, as arguments of a limiter."""

from __future__ import annotations

from typing import Any

POLICIES: dict[str, dict[str, Any]] = {
    "raise": {},
    "open": {"on_store_error": "open"},
    "closed": {"on_store_error": "closed"},
    "local": {"on_store_error": "local"},
    "swallow_errors": {"swallow_errors": True},
    "in_memory_fallback": {"in_memory_fallback": ["1000 per day"]},
}
