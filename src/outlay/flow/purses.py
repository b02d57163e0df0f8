"""Purses: the balances of a replay. As `accounts.Account`, without a store, and made for a tight loop. Pure.

`room` is what another hold may take: `limit - spent - held`; so a hold is one subtraction, and whether it fits one
comparison.
"""

from collections import deque
from collections.abc import Sequence

from outlay.flow.budgets import BudgetSpec
from outlay.flow.past import Cause
from outlay.flow.policy import PolicyMode, PolicySpec, Rung
from outlay.flow.windows import FOREVER, NANOS_PER_SECOND, WindowKind, bucket_nanos


class Purse:
    """Balance of one budget with a limit, one scope value, one window. Nanos; times in UTC ns."""

    __slots__ = ("buckets", "budget", "end", "is_ring", "limit", "room", "size", "spent", "stay")

    def __init__(self, budget: BudgetSpec, limit: int, end: int) -> None:
        self.budget = budget
        self.limit = self.room = limit
        self.end = end
        self.spent = 0
        self.is_ring = budget.window.kind is WindowKind.ROLLING
        self.buckets: deque[list[int]] = deque()
        """Rolling: [bucket start, spent], the oldest first."""
        self.size = bucket_nanos(budget.window)
        self.stay = self.size + budget.window.seconds * NANOS_PER_SECOND

    @property
    def held(self) -> int:
        """What calls in flight hold."""
        return self.limit - self.spent - self.room

    def post(self, nanos: int, now: int) -> None:
        """Spend without a hold."""
        self.spent += nanos
        self.room -= nanos
        if self.is_ring:
            self.fill(nanos, now)

    def fill(self, nanos: int, now: int) -> None:
        """Put spend into its bucket."""
        start, buckets = now - now % self.size, self.buckets
        if buckets and buckets[-1][0] >= start:
            buckets[-1][1] += nanos
        else:
            buckets.append([start, nanos])

    def leave(self, now: int) -> None:
        """Let buckets that are wholly outside leave."""
        before, buckets = now - self.stay, self.buckets
        while buckets and buckets[0][0] <= before:
            nanos = buckets.popleft()[1]
            self.spent -= nanos
            self.room += nanos


class Purses:
    """The purses that an identity falls under, in the windows of a time."""

    __slots__ = ("all", "end", "hard", "rings", "soft")

    def __init__(self, purses: Sequence[Purse]) -> None:
        self.all = tuple(purses)
        self.hard = tuple(purse for purse in purses if purse.budget.hard)
        self.soft = tuple(purse for purse in purses if not purse.budget.hard)
        self.rings = tuple(purse for purse in purses if purse.is_ring)
        self.end = min((purse.end for purse in purses), default=FOREVER)
        """UTC ns from which on others are to be looked for."""

    def blocking(self, held: int) -> Cause:
        """The budget that does not take a hold, by the order of `authorize`: spent, too large, busy."""
        for purse in self.hard:
            if purse.spent >= purse.limit and held > purse.limit - purse.spent:
                return Cause(purse.budget.name, "budget_spent")
        tight = [purse for purse in self.hard if held > purse.limit - purse.spent]
        if tight:
            narrow = min(tight, key=lambda purse: purse.limit - purse.spent)
            return Cause(narrow.budget.name, "call_too_large")
        busy = next(purse for purse in self.hard if purse.room < held)
        return Cause(busy.budget.name, "budget_busy")


class Step:
    """A rung of a ladder at one purse."""

    __slots__ = ("from_nanos", "is_shadow", "policy", "purse", "rung")

    def __init__(self, purse: Purse, rung: Rung, policy: PolicySpec) -> None:
        self.purse, self.rung, self.policy = purse, rung, policy
        self.is_shadow = policy.mode is PolicyMode.SHADOW
        self.from_nanos = -(-purse.limit * rung.at_percent // 100)
        """Spent, from which on it is reached."""


def reached(steps: Sequence[Step]) -> Step | None:
    """The first rung that is reached."""
    for step in steps:
        if step.purse.spent >= step.from_nanos:
            return step
    return None
