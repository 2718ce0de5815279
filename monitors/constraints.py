"""What a column's values should be like: suggested from a baseline, corrected by people, kept as JSON.

By the column's label: ``{"type": "numeric", "completeness": {"at_least": 0.98, "suggested": true}, "range":
{"at_least": 18, "at_most": 90, "suggested": true}, "domain": {"values": ["a", "b"], "suggested": true}}``. What is
``suggested`` only says what the baseline was like and is judged by the alarm budget; without that word a constraint is
a rule, and one row outside it is a violation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from monitors.contract import Column, Role, Type
from monitors.layout import CategoryLayout
from monitors.profile import CategoryProfile, NumericProfile, Profile

MOST_VALUES = 100
"""More categories than this are not suggested as a domain."""
NAMES = ("type", "completeness", "range", "domain", "importance")


class ConstraintsInvalidError(ValueError):
    """A document of constraints that cannot be read; the message says where."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The constraints of one column, None where there is none; ``firm`` ones were set by people."""

    completeness: float | None = None
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] | None = None
    firm_completeness: bool = False
    firm_range: bool = False
    firm_domain: bool = False


def suggest(columns: Sequence[Column], baseline: Profile) -> dict[str, dict[str, Any]]:
    """Return constraints that the baseline itself keeps, by the column's label."""
    return {
        column.label: _suggested(column, baseline)
        for column in columns
        if column.name in baseline.columns and column.role is not Role.GROUND_TRUTH
    }


def _suggested(column: Column, baseline: Profile) -> dict[str, Any]:
    profile = baseline.columns[column.name]
    document: dict[str, Any] = {"type": column.type.value}
    if baseline.rows:
        document["completeness"] = {"at_least": 1.0 - profile.missing / baseline.rows, "suggested": True}
    if isinstance(profile, NumericProfile) and profile.count and column.type is Type.NUMERIC:
        document["range"] = {"at_least": profile.minimum, "at_most": profile.maximum, "suggested": True}
    layout = baseline.layout.columns[column.name]
    if isinstance(profile, CategoryProfile) and isinstance(layout, CategoryLayout) and not profile.counts[-1]:
        held = [name for name, count in zip(layout.categories, profile.counts, strict=False) if count]
        if 0 < len(held) <= MOST_VALUES:
            document["domain"] = {"values": held, "suggested": True}
    return document


def checked(document: Mapping[str, Any], labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return a document of constraints that people sent, unchanged; raise ConstraintsInvalidError where it is wrong."""
    known = set(labels)
    for label, rules in document.items():
        if label not in known:
            raise ConstraintsInvalidError(f"there is no column {label}")
        if not isinstance(rules, Mapping):
            raise ConstraintsInvalidError(f"the constraints of {label} must be an object")
        if unknown := set(rules) - set(NAMES):
            raise ConstraintsInvalidError(f"{label} has unknown constraints {', '.join(sorted(unknown))}")
        for name, members in (
            ("completeness", {"at_least"}),
            ("range", {"at_least", "at_most"}),
            ("domain", {"values"}),
        ):
            if name in rules:
                _check(label, name, rules[name], members)
    return {label: dict(rules) for label, rules in document.items()}


def _check(label: str, name: str, rule: Any, members: set[str]) -> None:
    if not isinstance(rule, Mapping) or set(rule) - members - {"suggested"} or not set(rule) & members:
        raise ConstraintsInvalidError(f"{name} of {label} must be an object with {' or '.join(sorted(members))}")
    for member in members & set(rule):
        value = rule[member]
        if member == "values":
            if not isinstance(value, Sequence) or isinstance(value, str):
                raise ConstraintsInvalidError(f"the values of the domain of {label} must be a list")
        elif value is not None and not (type(value) in (int, float) and isfinite(value)):
            raise ConstraintsInvalidError(f"{member} of {name} of {label} must be a finite number")
    if name == "completeness" and not 0 <= float(rule["at_least"] or 0) <= 1:
        raise ConstraintsInvalidError(f"completeness of {label} must lie between 0 and 1")


def of(column: Column) -> Bounds:
    """Return a column's constraints, those of the schema (``required``, ``range``, ``categories``) first."""
    rules = column.constraints
    complete, range_, domain = (_rule(rules, name) for name in ("completeness", "range", "domain"))
    low, high = range_.get("at_least"), range_.get("at_most")
    firm_range = bool(range_) and not range_.get("suggested")
    if column.range is not None and any(end is not None for end in column.range):
        (low, high), firm_range = column.range, True
    values, firm_domain = domain.get("values"), bool(domain) and not domain.get("suggested")
    if column.categories is not None:
        values, firm_domain = column.categories, True
    least, firm_completeness = complete.get("at_least"), bool(complete) and not complete.get("suggested")
    if column.required:
        least, firm_completeness = 1.0, True
    return Bounds(
        completeness=None if least is None else float(least),
        low=None if low is None else float(low),
        high=None if high is None else float(high),
        values=None if values is None else tuple(str(value) for value in values),
        firm_completeness=firm_completeness,
        firm_range=firm_range,
        firm_domain=firm_domain,
    )


def _rule(rules: Mapping[str, object], name: str) -> Mapping[str, Any]:
    rule = rules.get(name)
    return rule if isinstance(rule, Mapping) else {}
