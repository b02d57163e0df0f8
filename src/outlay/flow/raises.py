"""Raises: more money for one account for a while, because somebody approved it. Pure.

A raise names a budget and the scope values of one of its accounts, adds to the limit from its approval on, and ends by
itself; what was spent under it stays spent. Nothing is taken from other budgets: a call must still fit in all of them.
"""

from collections.abc import Iterable, Mapping

import msgspec

Values = tuple[tuple[str, str], ...]


class Raise(msgspec.Struct, frozen=True):
    """One raise in force."""

    id: str
    budget: str
    """Name of the budget; `outlay.run` for a run's own limit."""
    values: Values
    """Scope values that name the account, sorted by dimension."""
    extra_nanos: int
    until: int
    """UTC ns."""
    actor: str
    at: int
    note: str = ""


RaisesByAccount = Mapping[tuple[str, Values], tuple[Raise, ...]]


def by_account(raises: Iterable[Raise]) -> RaisesByAccount:
    """Raises by (budget name, scope values)."""
    found: dict[tuple[str, Values], tuple[Raise, ...]] = {}
    for item in raises:
        key = (item.budget, item.values)
        found[key] = (*found.get(key, ()), item)
    return found


def raised_at(raises: Iterable[Raise], now: int) -> tuple[int, int]:
    """(nanos that are added at `now`, UTC ns at which that changes next; 2**63 - 1 for never)."""
    extra, until = 0, 2**63 - 1
    for item in raises:
        if item.until > now:
            extra += item.extra_nanos
            until = min(until, item.until)
    return extra, until
