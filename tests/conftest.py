"""What all Python tests share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# On a machine that has other things to do, how long an example takes says nothing.
settings.register_profile(
    "weir", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("weir")
