"""Limits of another gateway as budgets here, with what was spent in their running windows."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from typing import Final, NamedTuple

from outlay.app.config.tree import BudgetEntry
from outlay.app.importing.lengths import Length, length_of, nanos_of
from outlay.app.importing.plan import Opening, Plan, limit_text, shown, spent_nanos
from outlay.flow.scope import MAX_VALUE_LENGTH
from outlay.kernel.clock import UnixNanos

_DIGEST_LENGTH: Final = 12


class Limit(NamedTuple):
    """One limit as the source has it."""

    where: str
    """In the source: `team search`."""
    name: str
    """Of the budget here: `team/search`."""
    scope: Mapping[str, str]
    identity: Mapping[str, object]
    """What the spend so far is attributed to."""
    limit: Decimal | None
    duration: str | None
    resets_at: datetime | None
    spent: Decimal
    made_at: datetime | None = None
    """When the thing was made: nothing was spent before."""
    soft: bool = False
    calendar: bool = True


class Limits:
    """Adds limits to a plan."""

    def __init__(self, plan: Plan, timezone: str, now: UnixNanos) -> None:
        self._plan = plan
        self.timezone = timezone
        self._now = now
        self._names: set[str] = set()

    def add(self, limit: Limit) -> None:
        """Add a budget, and its opening if something was spent; nothing for a limit that is none."""
        if limit.limit is None:
            return
        length = self._length(limit)
        if length is None:
            return
        name = self._name(limit.name)
        budget = BudgetEntry(
            name=name,
            scope=dict(limit.scope),
            limit_usd=limit_text(limit.limit),
            window=length.window,
            timezone=length.timezone,
            soft=True if limit.soft else None,
        )
        self._plan.budgets.append(budget)
        if limit.spent <= 0:
            return
        if length.is_over:
            self._plan.note(
                f"{limit.where}: its window ended and was not emptied; it starts from 0 here, as it would there"
            )
            return
        made = UnixNanos(0) if limit.made_at is None else nanos_of(limit.made_at)
        at = UnixNanos(min(max(length.since, made), self._now))
        note = shown(f"import {self._plan.source}: {limit.where}")
        self._plan.openings.append(Opening(name, dict(limit.identity), spent_nanos(limit.spent), at, note))

    def _length(self, limit: Limit) -> Length | None:
        length = length_of(limit.duration, limit.resets_at, self.timezone, self._now, calendar=limit.calendar)
        if length is None:
            self._plan.leave(
                f"{limit.where}: budget_duration",
                limit.duration,
                "no duration that can be read",
                f"outlay budget set NAME --limit {limit_text(limit.limit or Decimal(0))} --window WINDOW",
            )
        elif length.note:
            self._plan.note(f"{limit.where}: {length.note}")
        return length

    def _name(self, name: str) -> str:
        """A name that fits and is free; the same for the same source."""
        if len(name) > MAX_VALUE_LENGTH:
            digest = sha256(name.encode()).hexdigest()[:_DIGEST_LENGTH]
            name = f"{name[: MAX_VALUE_LENGTH - _DIGEST_LENGTH - 1]}-{digest}"
        found, number = name, 1
        while found in self._names:
            number += 1
            found = f"{name[: MAX_VALUE_LENGTH - 4]}-{number}"
        self._names.add(found)
        return found
