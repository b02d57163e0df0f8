"""Alerts: which thresholds of spend and of run rate an account has crossed, and the life of an alert. Pure.

An alert is one rule, one account (so one period) and one threshold: it fires once. It is *firing* until somebody
acknowledges it, and *resolved* when the figure has fallen well below, or when the period is over. A rolling account has
no period: it may fire anew after it was resolved.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase

import msgspec

from outlay.flow.windows import FOREVER

CALM_POINTS = 5
"""How far below its threshold (in points of a per cent) a figure must be for its alert to be resolved."""
LEAST_ELAPSED_PERCENT = 5
"""Share of a window that must have passed before its run rate says anything."""
LEAST_SPENT_PERCENT = 2
"""Share of the limit that must be spent before a run rate says anything."""


class Kind(StrEnum):
    SPEND = "spend"
    """Actual spend over the limit."""
    RUN_RATE = "run_rate"
    """What the window will have cost at its end if it goes on as until now, over the limit."""


class State(StrEnum):
    FIRING = "firing"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class Rule(msgspec.Struct, frozen=True):
    """When to tell whom. Thresholds in per cent of the limit."""

    name: str
    budgets: tuple[str, ...] = ("*",)
    """Names or patterns (`team-*`)."""
    percent: tuple[int, ...] = ()
    run_rate_percent: tuple[int, ...] = ()
    targets: tuple[str, ...] = ()


class Balance(msgspec.Struct, frozen=True):
    """An account as of now. Amounts in nanos, times in UTC ns."""

    account_id: int
    budget: str
    scope: str
    window_start: int
    window_end: int
    """`FOREVER` for lifetime and rolling budgets."""
    limit_nanos: int
    spent_nanos: int
    held_nanos: int


class Alert(msgspec.Struct, frozen=True):
    """One alert. `value_percent` is of the limit, as of its last change."""

    id: str
    rule: str
    kind: Kind
    threshold: int
    state: State
    budget: str
    scope: str
    window_start: int
    window_end: int
    limit_nanos: int
    spent_nanos: int
    held_nanos: int
    value_percent: int
    fired_at: int
    changed_at: int
    actor: str = ""
    note: str = ""
    undelivered: tuple[str, ...] = ()
    """Targets that did not take it."""

    @property
    def account_id(self) -> int:
        """The account that it is about, as its id says; 0 if that is of another form."""
        parts = self.id.split("|")
        return int(parts[1]) if len(parts) == 4 and parts[1].isdecimal() else 0


class Crossing(msgspec.Struct, frozen=True):
    """A threshold, and how the account stands to it."""

    rule: Rule
    kind: Kind
    threshold: int
    value_percent: int
    balance: Balance

    @property
    def id(self) -> str:
        """Of the alert: the same for ever for one rule, account and threshold."""
        return f"{self.rule.name}|{self.balance.account_id}|{self.kind.value}|{self.threshold}"

    @property
    def is_over(self) -> bool:
        """At or above the threshold."""
        return self.value_percent >= self.threshold


def crossings(rules: Sequence[Rule], balances: Iterable[Balance], now: int) -> list[Crossing]:
    """How every account stands to every threshold that a rule watches."""
    found = []
    for balance in balances:
        if balance.limit_nanos <= 0:
            continue
        spent = balance.spent_nanos * 100 // balance.limit_nanos
        rate = run_rate_percent(balance, now)
        for rule in rules:
            if not any(fnmatchcase(balance.budget, pattern) for pattern in rule.budgets):
                continue
            found += [Crossing(rule, Kind.SPEND, threshold, spent, balance) for threshold in rule.percent]
            if rate is not None:
                found += [
                    Crossing(rule, Kind.RUN_RATE, threshold, rate, balance)
                    for threshold in rule.run_rate_percent
                ]
    return found


def run_rate_percent(balance: Balance, now: int) -> int | None:
    """Projected spend at the window's end over the limit, in per cent; None where a rate says nothing (yet)."""
    length = balance.window_end - balance.window_start
    elapsed = now - balance.window_start
    if balance.window_end >= FOREVER or length <= 0 or elapsed * 100 < length * LEAST_ELAPSED_PERCENT:
        return None
    if balance.spent_nanos * 100 < balance.limit_nanos * LEAST_SPENT_PERCENT:
        return 0
    return balance.spent_nanos * length * 100 // (min(elapsed, length) * balance.limit_nanos)


def changes(known: Mapping[str, Alert], found: Sequence[Crossing], now: int) -> list[Alert]:
    """Alerts that are new, fire anew or are resolved; what stays as it is is not listed."""
    result = []
    seen = set()
    for crossing in found:
        seen.add(crossing.id)
        old = known.get(crossing.id)
        is_live = old is not None and old.state is not State.RESOLVED
        if crossing.is_over and not is_live:
            is_rolling = crossing.balance.window_end >= FOREVER
            if old is None or is_rolling or crossing.kind is Kind.RUN_RATE:
                result.append(_alert(crossing, State.FIRING, now, now))
        elif old is not None and is_live and crossing.value_percent < crossing.threshold - CALM_POINTS:
            result.append(_alert(crossing, State.RESOLVED, old.fired_at, now))
    for alert_id, old in known.items():
        if alert_id not in seen and old.state is not State.RESOLVED:
            # its period is over, or its budget or rule is gone
            result.append(msgspec.structs.replace(old, state=State.RESOLVED, changed_at=now))
    return result


def _alert(crossing: Crossing, state: State, fired_at: int, now: int) -> Alert:
    balance = crossing.balance
    return Alert(
        crossing.id,
        crossing.rule.name,
        crossing.kind,
        crossing.threshold,
        state,
        balance.budget,
        balance.scope,
        balance.window_start,
        balance.window_end,
        balance.limit_nanos,
        balance.spent_nanos,
        balance.held_nanos,
        crossing.value_percent,
        fired_at,
        now,
    )
