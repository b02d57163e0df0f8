"""Accounts: the balances of budget windows, in the memory of the one process that decides. No I/O.

An account is one budget, one scope value, one window. `available = limit - held - spent`. Holds belong to the
account they were placed in; a rolling account is a ring of buckets whose spend leaves with its bucket. Every
change of a balance is a method here, so that debits equal credits by construction.
"""

from collections import deque

from outlay.flow.budgets import BudgetSpec
from outlay.flow.scope import scope_text
from outlay.flow.windows import FOREVER, WindowKind, bucket_leaves_at, bucket_start

UNLIMITED = 2**120
"""Stands for "no limit" in comparisons; a soft or metered account never refuses."""


class Account:
    """Balance of one budget window. Amounts in nanos; times in UTC ns."""

    __slots__ = (
        "buckets",
        "budget",
        "cap",
        "end",
        "held",
        "id",
        "is_dirty",
        "open_holds",
        "own_is_hard",
        "own_limit",
        "raised",
        "spent",
        "start",
        "unwritten",
        "values",
        "waiting",
    )

    def __init__(
        self, account_id: int, budget: BudgetSpec, values: tuple[tuple[str, str], ...], start: int, end: int
    ) -> None:
        self.id = account_id
        self.budget = budget
        self.values = values
        self.start = start
        self.end = end
        self.spent = 0
        self.held = 0
        self.open_holds = 0
        self.is_dirty = False
        self.waiting = 0
        """Waiters that queue on this account; for fair shares."""
        self.buckets: deque[list[int]] | None = deque() if budget.window.kind is WindowKind.ROLLING else None
        """Rolling: [bucket start, spent] oldest first."""
        self.unwritten: set[int] = set()
        """Starts of the buckets that changed since they were last handed to a store."""
        self.own_limit: int | None = None
        """A limit of this account alone (a run's), in the place of its budget's."""
        self.own_is_hard = True
        self.raised = 0
        """What raises in force add to the limit."""
        self.cap = UNLIMITED
        self.set_budget(budget)

    def set_budget(self, budget: BudgetSpec) -> None:
        """Take a changed declaration (limit, hard or soft); spent, held, own limit and raises stay."""
        self.budget = budget
        limit = self.limit
        self.cap = limit if self.is_hard and limit is not None else UNLIMITED

    def set_own(self, limit: int | None, raised: int, *, is_hard: bool = True) -> bool:
        """Take a limit of its own (None: the budget's) and raises; tells whether the limit in force changed."""
        if (self.own_limit, self.raised, self.own_is_hard) == (limit, raised, is_hard):
            return False
        self.own_limit, self.raised, self.own_is_hard = limit, raised, is_hard
        self.set_budget(self.budget)
        return True

    @property
    def is_hard(self) -> bool:
        """Whether it refuses."""
        return self.budget.hard if self.own_limit is None else self.own_is_hard

    @property
    def limit(self) -> int | None:
        """The limit in force in nanos (also of a soft budget), raises included; None if metered only."""
        limit = self.budget.limit_nanos if self.own_limit is None else self.own_limit
        return None if limit is None else limit + self.raised

    @property
    def available(self) -> int:
        """`cap - spent - held`; negative if typed postings took it past its limit."""
        return self.cap - self.spent - self.held

    @property
    def scope(self) -> str:
        """`team=search` for people."""
        return scope_text(self.values)

    def hold(self, nanos: int) -> None:
        """Place a hold; the caller has checked that it fits."""
        self.held += nanos
        self.open_holds += 1

    def release(self, nanos: int) -> None:
        """End a hold of `nanos`."""
        self.held -= nanos
        self.open_holds -= 1

    def post(self, nanos: int, now: int) -> None:
        """Post spend (or a negative adjustment) at time `now`."""
        self.spent += nanos
        if self.buckets is not None and nanos:
            start = bucket_start(self.budget.window, now)
            if self.buckets and self.buckets[-1][0] >= start:
                start = self.buckets[-1][0]
                self.buckets[-1][1] += nanos
            else:
                self.buckets.append([start, nanos])
            self.unwritten.add(start)

    def adjust(self, nanos: int, posted_at: int, now: int) -> None:
        """Correct spend that was posted at `posted_at`; nothing if it has left a rolling window since."""
        if self.buckets is None:
            self.spent += nanos
            return
        self.leave(now)
        start = bucket_start(self.budget.window, posted_at)
        for bucket in self.buckets:
            if bucket[0] == start:
                bucket[1] += nanos
                self.spent += nanos
                self.unwritten.add(start)
                return

    def rewrite_buckets(self) -> None:
        """What a store did not take must be handed to it again."""
        self.unwritten.update(bucket[0] for bucket in self.buckets or ())

    def leave(self, now: int) -> bool:
        """Let buckets that are wholly outside leave a rolling account; tell whether spend went away."""
        buckets = self.buckets
        gone = False
        while buckets and bucket_leaves_at(self.budget.window, buckets[0][0]) <= now:
            self.spent -= buckets.popleft()[1]
            gone = True
        return gone

    def changes_at(self, now: int) -> int:
        """When time alone next changes this account's meaning: window end, or the oldest bucket's leaving."""
        if self.buckets is None:
            return self.end
        return bucket_leaves_at(self.budget.window, self.buckets[0][0]) if self.buckets else FOREVER

    def resets_at(self, now: int) -> int | None:
        """UTC ns at which money comes back by itself; None for a lifetime budget."""
        at = self.changes_at(now)
        return None if at >= FOREVER else at
