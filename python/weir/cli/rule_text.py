"""A rule about a client, in words and for programs."""

from __future__ import annotations

from typing import Any

from .._core import Rule
from .words import iso, moment, shown


def end_text(until: float | None) -> str:
    """When a rule ends: ``2027-01-15 08:00:00`` or ``forever``."""
    return "forever" if until is None else moment(until)


def effect_text(rule: Rule) -> str:
    """What a rule does: ``blocked until 2027-01-15 08:00:00``."""
    done = "blocked" if rule.kind == "block" else "allowed"
    return f"{done} {'' if rule.until is None else 'until '}{end_text(rule.until)}"


def rule_text(rule: Rule | None) -> str:
    """What a rule says, in words."""
    if rule is None:
        return "no rule"
    return f"{effect_text(rule)}, as {shown(rule.client)} since {moment(rule.since)}"


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
