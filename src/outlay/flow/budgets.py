"""Budgets as declared: which spend they cover, how much may be spent, in which window. Pure.

A budget covers every identity its scope selects; `*` in a scope makes one account per distinct value.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from outlay.flow.scope import Identity, match_scope
from outlay.flow.windows import Window

RUN_METER = "outlay.run"
"""Name of the built-in budget without a limit that keeps each run's total."""


class Origin(StrEnum):
    """Where an object was declared: what the YAML owns is read-only elsewhere."""

    YAML = "yaml"
    STORE = "store"
    BUILT_IN = "built_in"


class BudgetSpec(msgspec.Struct, frozen=True):
    """One declared budget."""

    name: str
    scope: Mapping[str, str]
    """Dimension or `tag.NAME` -> value, `prefix*` or `*` (one account per value)."""
    limit_nanos: int | None
    """None: metered only."""
    window: Window
    hard: bool = True
    """A soft budget never refuses; it counts and reports."""
    origin: Origin = Origin.STORE
    place: str = ""
    """`file:line` of a YAML declaration, for errors."""


class AccessRule(msgspec.Struct, frozen=True):
    """Which models a scope may call. Patterns are exact names or `prefix*`; deny wins; empty allow allows all."""

    scope: Mapping[str, str]
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


def pattern_matches(pattern: str, name: str) -> bool:
    """Exact name, or a prefix when the pattern ends in `*`."""
    return name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1]))


def model_allowed(rules: Sequence[AccessRule], identity: Identity, target: str = "") -> bool:
    """Whether every rule that applies to the identity lets its model through; case does not matter.

    `target` is the provider's name of a routed model: a deny reaches a model behind any name, also those of the
    identity's `model_names`. What is allowed is the name that was asked for.
    """
    asked = identity.model.lower()
    names = (asked, target.lower(), *(name.lower() for name in identity.model_names))
    if identity.billing:
        # rules of access hold whoever pays
        identity = msgspec.structs.replace(identity, billing="")
    for rule in rules:
        if match_scope(rule.scope, identity) is None:
            continue
        if any(pattern_matches(pattern.lower(), name) for pattern in rule.deny for name in names):
            return False
        if rule.allow and not any(pattern_matches(pattern.lower(), asked) for pattern in rule.allow):
            return False
    return True


class Applied(msgspec.Struct, frozen=True):
    """A budget that applies to an identity, and the scope values that name its account."""

    budget: BudgetSpec
    values: tuple[tuple[str, str], ...]


def budgets_for(budgets: Sequence[BudgetSpec], identity: Identity) -> tuple[Applied, ...]:
    """Every budget that applies to the identity, in declaration order."""
    return tuple(
        Applied(budget, values)
        for budget in budgets
        if (values := match_scope(budget.scope, identity)) is not None
    )
