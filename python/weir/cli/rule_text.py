"""A rule about a client, in words and for programs."""

from __future__ import annotations

from typing import Any

from .._core import Rule
from .words import iso, moment, shown


def rule_text(rule: Rule | None) -> str:
    """What a rule says, in words."""
    if rule is None:
        return "no rule"
    done = "blocked" if rule.kind == "block" else "allowed"
    until = "forever" if rule.until is None else f"until {moment(rule.until)}"
    return f"{done} {until}, as {shown(rule.client)} since {moment(rule.since)}"


def rule_json(rule: Rule | None) -> dict[str, Any] | None:
    """The same for programs."""
    if rule is None:
        return None
    return {
        "client": rule.client,
        "kind": rule.kind,
        "since": iso(rule.since),
        "until": None if rule.until is None else iso(rule.until),
    }
