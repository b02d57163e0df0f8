"""Whose amounts a caller may be told: those of budgets that stand for it, and of nobody beside or above it. Pure.

A header anyone can write (`x-outlay-agent`, `x-outlay-customer`) proves nothing: naming another's agent must not show
what that agent has spent.
"""

from typing import Final

from outlay.flow.budgets import BudgetSpec
from outlay.flow.gateway.keys import KeySpec
from outlay.flow.gateway.snapshot import Disclose, Settings
from outlay.flow.scope import ANY, UNATTRIBUTED

_SAID: Final = ("agent", "customer")
"""Own dimensions that a client may name itself where its key pins none."""
_BINDING: Final = ("team", "project")
"""Pinned dimensions within which a named agent or customer is the caller's own."""


def may_see(budget: BudgetSpec, key: KeySpec, settings: Settings) -> bool:
    """Whether a bearer of `key` may be told the amounts of a budget that covers its call."""
    if settings.disclose is Disclose.ALL:
        return True
    scope = budget.scope
    if _is_one(scope.get("run")):
        # the account is of this run of this org and team
        return True
    if _stands_for(scope.get("user"), key.user):
        return True
    # a key that tokens stand for is many people's
    if key.bearer is None and _stands_for(scope.get("key"), key.name):
        return True
    is_bound = any(_stands_for(scope.get(dimension), getattr(key, dimension)) for dimension in _BINDING)
    return any(
        _stands_for(scope.get(dimension), getattr(key, dimension))
        or (is_bound and _is_one(scope.get(dimension)))
        for dimension in _SAID
    )


def _is_one(wanted: str | None) -> bool:
    """Whether a scope's value makes an account of one named value, and not of several together."""
    return wanted is not None and (wanted == ANY or not wanted.endswith(ANY)) and wanted != UNATTRIBUTED


def _stands_for(wanted: str | None, value: str) -> bool:
    """Whether a scope's value selects this very value and no other with it."""
    return bool(value) and wanted in (ANY, value)
