"""A table that has no room for a decision refuses it, charges nothing and says what to do."""

from __future__ import annotations

import weir
from weir import Limit, Table


def test_a_table_too_small_for_a_decision_says_what_to_do() -> None:
    limits = [Limit(n) for n in range(1, 33)]
    errors = []
    for _ in range(1000):  # each with a secret of its own
        table = Table("memory://?keys=64")
        try:
            table.decide(limits, "a")
        except weir.TableError as error:
            errors.append(error)
            left = [table.decide([limit], "a", [0], weir.TEST)[0] for limit in limits]
            assert all(verdict.remaining == verdict.limit for verdict in left)
    assert 0 < len(errors) < 200
    assert {(error.code, error.is_outage) for error in errors} == {("ETOOMANY", False)}
    assert all("?keys=N" in str(error) for error in errors)
