"""Readings of gateway and ledger in the console's own records: charges, keys, budgets, prices, quotes, metrics."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from outlay.app.cli.output import amount_nanos, iso, money, scope_words, window_words
from outlay.app.config import BudgetEntry, Config, KeyEntry
from outlay.app.console.desk import Desk, GatewayDown
from outlay.app.console.metrics import BudgetGauge, MetricsReading
from outlay.app.console.records import (
    AccountView,
    BudgetView,
    ChargeView,
    KeyView,
    PriceView,
    QuoteView,
    SpendFigures,
)
from outlay.flow.gateway.metrics import MetricsView
from outlay.flow.ledger import reader as ledger
from outlay.flow.scope import ANY
from outlay.flow.windows import WindowKind, bounds, parse_window
from outlay.kernel.errors import StoreError

PINS: Final = (
    "org",
    "team",
    "project",
    "user",
    "agent",
    "workload",
    "deployment",
    "environment",
    "customer",
)
"""Dimensions that a key may pin, beside tags."""
_FIGURES: Final = (
    "charges",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
)
_AMOUNTS: Final = ("cost", "unknown", "overrun")


def charge_view(charge: ledger.ChargeView) -> ChargeView:
    """A charge as the API shows it."""
    return ChargeView(
        id=f"req_{charge.id}",
        request_id=f"req_{charge.request_id}",
        attempt=charge.attempt,
        placed_at=iso(charge.placed_at),
        settled_at=iso(charge.settled_at),
        provider=charge.provider,
        model=charge.model,
        served=charge.served,
        operation=charge.operation,
        status=charge.status,
        basis=charge.basis,
        reason=charge.reason,
        http_status=charge.http_status,
        price_id=charge.price_id,
        identity=charge.identity,
        tokens=charge.tokens,
        **money("held", charge.hold_nanos),
        **money("cost", charge.cost_nanos),
    )


def key_view(found: dict[str, Any], config: Config) -> KeyView:
    """A key, wherever it was declared; never its hash."""
    entry = next((key for key in config.declared.keys if key.name == found["name"]), None)
    if found["origin"] == "store" or entry is None:
        entry = msgspec.convert(found.get("body") or {"name": found["name"]}, KeyEntry)
    return KeyView(
        name=found["name"],
        origin=found["origin"],
        place=found.get("place"),
        version=found.get("version"),
        pins={name: getattr(entry, name) for name in PINS if getattr(entry, name)},
        tags=dict(entry.tags),
        allow_models=list(entry.allow_models),
        deny_models=list(entry.deny_models),
        expires=entry.expires,
        previous=[old.until for old in entry.previous],
    )


def price_view(found: dict[str, Any], config: Config) -> PriceView:
    """A price entry of the operator's own, of file or store."""
    names = [name for kind, name in config.owned_names() if kind == "price"]
    declared = dict(zip(names, config.declared.prices, strict=True))
    entry = found.get("body")
    if entry is None:
        # an edit of the file may have come between the gateway's answer and our reading
        entry = msgspec.to_builtins(declared[found["name"]]) if found["name"] in declared else {}
    return PriceView(
        name=found["name"],
        origin=found["origin"],
        place=found.get("place"),
        version=found.get("version"),
        entry=entry,
    )


def budget_view(
    found: dict[str, Any], entry: BudgetEntry, accounts: Iterable[ledger.AccountView]
) -> BudgetView:
    """A budget with the accounts of its windows."""
    return BudgetView(
        name=entry.name,
        scope=dict(entry.scope),
        window=entry.window,
        timezone=entry.timezone,
        hard=entry.is_hard,
        origin=found["origin"],
        place=found.get("place"),
        version=found.get("version"),
        accounts=[_account_view(account) for account in accounts if account.budget == entry.name],
        **money("limit", amount_nanos(entry.limit_usd)),
    )


def _account_view(account: ledger.AccountView) -> AccountView:
    return AccountView(
        scope=account.scope,
        window_start=iso(account.window_start) if account.window_start else None,
        window_end=iso(account.window_end),
        is_current=account.is_current,
        **money("limit", account.limit_nanos),
        **money("spent", account.spent_nanos),
        **money("held", account.held_nanos),
        **money("available", _left(account.limit_nanos, account.spent_nanos, account.held_nanos)),
    )


def spend_figures(rows: Iterable[ledger.SpendRow]) -> SpendFigures:
    """The sum of rows."""
    found = list(rows)
    amounts: dict[str, Any] = {}
    for name in _AMOUNTS:
        amounts |= money(name, sum(getattr(row, f"{name}_nanos") for row in found))
    return SpendFigures(**amounts, **{name: sum(getattr(row, name) for row in found) for name in _FIGURES})


def quote_view(found: dict[str, Any]) -> QuoteView:
    """What `Operations.quote` says, with amounts as text too."""
    refusal = found.get("refusal")
    if refusal is not None:
        refusal = {name: refusal.get(name) for name in ("status", "code", "message", "fields")}
    parts = found.get("quote")
    if parts is None:  # no price, no route, or not a request: nothing to compute
        return QuoteView(passes=False, bound=None, budgets=[], refusal=refusal)
    bound = {
        "provider": found["provider"],
        "model": found["model"],
        **money("total", parts["total_nanos"]),
        **money("input", parts["input_nanos"]),
        **money("output", parts["output_nanos"]),
        **money("fees", parts["fees_nanos"]),
        "input_tokens": parts["input_tokens"],
        "max_output_tokens": parts["max_output_tokens"],
        "clamped_max_output_tokens": found["max_output_tokens"] if found["is_clamped"] else None,
        "price_id": found["price_id"],
        "price_source": found["price_source"],
        "is_ceiling": found["is_ceiling"],
        "downgraded_from": found["downgraded_from"] or None,
    }
    budgets = [
        {
            "name": budget["budget"],
            "scope": budget["scope"],
            "window": window_words(budget["window"]),
            "hard": budget["is_hard"],
            **money("limit", budget["limit_nanos"]),
            **money("spent", budget["spent_nanos"]),
            **money("held", budget["held_nanos"]),
            **money("available", _left(budget["limit_nanos"], budget["spent_nanos"], budget["held_nanos"])),
            "resets_at": iso(budget["resets_at"]),
        }
        for budget in found["budgets"]
    ]
    return QuoteView(passes=found["passes"], bound=bound, budgets=budgets, refusal=refusal)


def metrics_reading(desk: Desk) -> MetricsReading:
    """Gateway and ledger as they stand; what cannot be reached is absent."""
    view, entries = None, list(desk.config().declared.budgets)
    try:
        with desk.operating() as operations:
            view = msgspec.convert(operations.status()["metrics"], MetricsView)
        entries = [entry for _, entry in desk.budgets()]
    except GatewayDown:
        pass  # outlay_up says it; the budgets of the file can still be read
    try:
        with desk.reading() as reader:
            accounts = reader.accounts(desk.clock.now())
    except StoreError:
        return MetricsReading(view, False, ())
    return MetricsReading(view, True, tuple(_gauges(entries, accounts, desk.clock.now())))


def _gauges(
    entries: Iterable[BudgetEntry], accounts: list[ledger.AccountView], now: int
) -> Iterable[BudgetGauge]:
    for entry in entries:
        if ANY in entry.scope.values():
            continue  # an account for each run or user is no label
        window = parse_window(entry.window, entry.timezone)
        start = 0 if window.kind is WindowKind.ROLLING else bounds(window, now)[0]
        scope = scope_words(entry.scope)
        # a budget that got another window or scope leaves accounts of its old meaning behind: the newest counts
        found = max(
            (
                account
                for account in accounts
                if (account.budget, account.scope, account.window_start) == (entry.name, scope, start)
            ),
            key=lambda account: account.id,
            default=None,
        )
        limit = amount_nanos(entry.limit_usd)
        spent, held = (0, 0) if found is None else (found.spent_nanos, found.held_nanos)
        yield BudgetGauge(entry.name, scope, limit, spent, held)


def _left(limit: int | None, spent: int, held: int) -> int | None:
    return None if limit is None else limit - spent - held
