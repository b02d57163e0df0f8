"""Budgets as a page shows them: each account with its effective limit, and where that comes from. Reads only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from outlay.app.cli.output import amount_nanos, scope_words, window_words
from outlay.app.config import BudgetEntry
from outlay.app.console.charts import MONEY, budget_bar
from outlay.app.console.desk import Desk, GatewayDown
from outlay.flow.ledger.reader import AccountView
from outlay.flow.ledger.rows import NoLedger


@dataclass(frozen=True, slots=True)
class AccountLine:
    """One window of one scope. Amounts in nanos."""

    id: int
    budget: str
    scope: str
    window_start: int
    window_end: int
    is_current: bool
    spent_nanos: int
    held_nanos: int
    limit_nanos: int | None
    """The budget's own."""
    raised: tuple[Mapping[str, Any], ...]
    """Raises in force."""

    @property
    def effective_nanos(self) -> int | None:
        """With raises."""
        if self.limit_nanos is None:
            return None
        return self.limit_nanos + sum(int(item["extra_nanos"]) for item in self.raised)

    @property
    def left_nanos(self) -> int | None:
        """What may still be held."""
        limit = self.effective_nanos
        return None if limit is None else limit - self.spent_nanos - self.held_nanos

    @property
    def href(self) -> str:
        """Its own page."""
        return f"/budgets/account/{self.id}"

    @property
    def bar(self) -> Markup:
        """Spent and held against the effective limit."""
        return budget_bar(self.spent_nanos, self.held_nanos, self.effective_nanos, MONEY)


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """One budget and its accounts, those of running windows first."""

    name: str
    scope: str
    window: str
    timezone: str
    is_hard: bool
    limit_nanos: int | None
    origin: str
    """`declared in outlay.yaml:12`, `store, version 3`, `policy NAME`."""
    level: int
    """Budgets above it that cover all it covers."""
    accounts: tuple[AccountLine, ...]

    @property
    def current(self) -> tuple[AccountLine, ...]:
        """Accounts of running windows."""
        return tuple(line for line in self.accounts if line.is_current)


@dataclass(frozen=True, slots=True)
class BudgetLines:
    """All budgets in the order of a tree."""

    budgets: tuple[BudgetLine, ...]
    is_gateway_up: bool


def budget_lines(desk: Desk, *, with_past: bool = False) -> BudgetLines:
    """See the module. Without a gateway: what outlay.yaml declares and the ledger knows."""
    now = desk.clock.now()
    try:
        found = [(entry, _origin(item)) for item, entry in desk.budgets()]
        with desk.operating() as operations:
            raises: list[dict[str, Any]] = operations.raises()
        is_up = True
    except GatewayDown:
        config = desk.config()
        found = [
            (entry, f"declared in {config.place(f'budgets[{index}]')}")
            for index, entry in enumerate(config.declared.budgets)
        ]
        raises, is_up = [], False
    try:
        with desk.reading() as reader:
            accounts = reader.accounts(now, with_past=with_past)
    except NoLedger:
        accounts = []
    by_budget: dict[str, list[AccountView]] = {}
    for account in accounts:
        by_budget.setdefault(account.budget, []).append(account)
    lines = [
        _line(entry, origin, by_budget.pop(entry.name, []), raises, level)
        for entry, origin, level in _as_tree(found)
    ]
    # what is left are the velocity limits of policies, and budgets that are no longer declared
    lines += [
        _left_over(name, found, raises) for name, found in sorted(by_budget.items()) if "/usd-per-" in name
    ]
    return BudgetLines(tuple(lines), is_up)


def _origin(item: Mapping[str, Any]) -> str:
    if item["origin"] == "yaml":
        return f"declared in {item['place']}"
    return f"store, version {item['version']}"


def _as_tree(found: Sequence[tuple[BudgetEntry, str]]) -> list[tuple[BudgetEntry, str, int]]:
    """Each budget under the narrowest one that covers all it covers."""
    entries = {entry.name: entry for entry, _ in found}
    above: dict[str, str] = {}
    for entry in entries.values():
        wider = [
            other
            for other in entries.values()
            if other.name != entry.name
            and len(other.scope) < len(entry.scope)
            and all(
                entry.scope.get(name) in (value, None) and name in entry.scope
                for name, value in other.scope.items()
            )
        ]
        if wider:
            above[entry.name] = max(wider, key=lambda other: (len(other.scope), other.name)).name
    origins = {entry.name: origin for entry, origin in found}
    ordered: list[tuple[BudgetEntry, str, int]] = []

    def walk(parent: str | None, level: int) -> None:
        for name in sorted(entries):
            if above.get(name) == parent:
                ordered.append((entries[name], origins[name], level))
                walk(name, level + 1)

    walk(None, 0)
    return ordered


def _line(
    entry: BudgetEntry,
    origin: str,
    accounts: Sequence[AccountView],
    raises: Sequence[Mapping[str, Any]],
    level: int,
) -> BudgetLine:
    limit = amount_nanos(entry.limit_usd)
    return BudgetLine(
        entry.name,
        scope_words(entry.scope),
        entry.window,
        entry.timezone,
        entry.is_hard,
        limit,
        origin,
        level,
        tuple(_account(account, limit, raises) for account in _newest(accounts)),
    )


def _left_over(name: str, accounts: Sequence[AccountView], raises: Sequence[Mapping[str, Any]]) -> BudgetLine:
    policy, _, unit = name.rpartition("/usd-per-")
    limit = accounts[0].limit_nanos
    window = window_words({"minute": "60s", "hour": "3600s"}.get(unit, unit))
    lines = tuple(_account(account, account.limit_nanos, raises) for account in _newest(accounts))
    return BudgetLine(name, "by policy", window, "UTC", True, limit, f"policy {policy}", 0, lines)


def _newest(accounts: Sequence[AccountView]) -> list[AccountView]:
    """One account for each scope and window: a budget that got another meaning leaves older ones behind."""
    found: dict[tuple[str, int], AccountView] = {}
    for account in accounts:
        key = (account.scope, account.window_start)
        if key not in found or found[key].id < account.id:
            found[key] = account
    return list(found.values())


def _account(account: AccountView, limit: int | None, raises: Sequence[Mapping[str, Any]]) -> AccountLine:
    return AccountLine(
        account.id,
        account.budget,
        account.scope,
        account.window_start,
        account.window_end,
        account.is_current,
        account.spent_nanos,
        account.held_nanos,
        limit if account.is_current else account.limit_nanos,
        tuple(
            item
            for item in raises
            if account.is_current and item["budget"] == account.budget and item["scope"] == account.scope
        ),
    )
