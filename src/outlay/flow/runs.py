"""Runs: an agent's work from its first call to its last, with limits of its own. Pure state; no I/O, no clock.

A run is known by org, team and name. The call that opens it sets its limits; later ones may lower them, a raise needs
an approver. A child run spends from every ancestor's remainder too: its holds are placed in their accounts as well.
"""

import msgspec

MAX_DEPTH = 8
"""Runs above a run: each one is an account more in every hold."""
MAX_CALLS = 2**31
MAX_SECONDS = 10 * 365 * 86_400
_SECOND = 1_000_000_000

RunKey = tuple[str, str, str]
"""(org, team, name)."""


class RunTerms(msgspec.Struct, frozen=True):
    """What a call says of its run. None and "" are unsaid."""

    parent: str = ""
    cap_nanos: int | None = None
    max_calls: int | None = None
    max_seconds: int | None = None
    above: "tuple[tuple[str, RunTerms], ...]" = ()
    """Runs above, the outermost first, with what is said of them: a child's call may be the first of all."""

    def below(self, parent: str) -> "RunTerms":
        """The same under a parent; what the call itself says of its parent stays."""
        return self if not parent or self.parent else msgspec.structs.replace(self, parent=parent)


class Run:
    """One run. Times in UTC ns, amounts in nanos; `calls` counts requests, not attempts."""

    __slots__ = ("calls", "cap_nanos", "deadline", "is_dirty", "key", "max_calls", "opened_at", "parent")

    def __init__(self, key: RunKey, opened_at: int, parent: "Run | None" = None) -> None:
        self.key = key
        self.parent = parent
        self.opened_at = opened_at
        self.cap_nanos: int | None = None
        self.max_calls: int | None = None
        self.deadline: int | None = None
        self.calls = 0
        self.is_dirty = False

    @property
    def name(self) -> str:
        """As its callers name it."""
        return self.key[2]

    def line(self) -> "tuple[Run, ...]":
        """The run and its ancestors, the run first."""
        found: list[Run] = [self]
        while found[-1].parent is not None:
            found.append(found[-1].parent)
        return tuple(found)

    def lower(self, terms: RunTerms) -> bool:
        """Take limits that are lower than those in force; tells whether one was."""
        before = (self.cap_nanos, self.max_calls, self.deadline)
        self.cap_nanos = _lower(self.cap_nanos, terms.cap_nanos)
        self.max_calls = _lower(self.max_calls, terms.max_calls)
        if terms.max_seconds is not None:
            self.deadline = _lower(self.deadline, self.opened_at + terms.max_seconds * _SECOND)
        return before != (self.cap_nanos, self.max_calls, self.deadline)

    def bars(self, now: int) -> str:
        """Why no further call may begin: `run_calls_spent`, `run_expired`, or nothing."""
        if self.deadline is not None and (now >= self.deadline or self.deadline <= self.opened_at):
            # a run of no time at all: the call that opens it began a moment before it
            return "run_expired"
        if self.max_calls is not None and self.calls >= self.max_calls:
            return "run_calls_spent"
        return ""


def _lower(old: int | None, new: int | None) -> int | None:
    if new is None:
        return old
    return new if old is None else min(old, new)
