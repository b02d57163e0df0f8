"""`outlay budget`: list, show, set and delete budgets, with balances read from the ledger."""

import argparse
from typing import Any

import msgspec

from outlay.app.cli.access import actor, objects_of, open_config, operating, pairs, reading
from outlay.app.cli.exit_codes import OK
from outlay.app.cli.output import Terminal, amount_nanos, iso, money, scope_words, usd
from outlay.app.config import BudgetEntry, Config
from outlay.flow.ledger.reader import AccountView
from outlay.kernel.clock import SystemClock
from outlay.kernel.errors import ConfigError, NotFound


def show_all(options: argparse.Namespace, terminal: Terminal) -> int:
    """All budgets; one row for each account of the current windows."""
    budgets = _budgets(options, with_past=False)
    terminal.document({"budgets": budgets})
    rows = []
    for budget in budgets:
        kind = "hard" if budget["hard"] else "soft"
        if budget["limit_nanos"] is None:
            kind = "meter"
        for account in budget["accounts"] or [_untouched(budget)]:
            rows.append(
                (
                    budget["name"],
                    account["scope"],
                    budget["window"],
                    kind,
                    usd(account["limit_nanos"]),
                    usd(account["spent_nanos"]),
                    usd(account["held_nanos"]),
                    usd(account["available_nanos"]),
                    budget["place"] or f"store v{budget['version']}",
                )
            )
    heads = ("BUDGET", "SCOPE", "WINDOW", "KIND", "LIMIT", "SPENT", "HELD", "AVAILABLE", "FROM")
    terminal.table(heads, rows, right="LIMIT SPENT HELD AVAILABLE")
    return OK


def show(options: argparse.Namespace, terminal: Terminal) -> int:
    """One budget with its past windows."""
    found = _budgets(options, with_past=True, name=options.name)
    if not found:
        raise NotFound(f"there is no budget {options.name!r}")
    budget = found[0]
    terminal.document(budget)
    kind = "hard" if budget["hard"] else "soft"
    terminal.text(f"{budget['name']}: {usd(budget['limit_nanos'])} per {budget['window']}, {kind}")
    terminal.text(f"scope {scope_words(budget['scope'])}, time zone {budget['timezone']}")
    terminal.text(f"declared in {budget['place'] or 'the ledger, version ' + str(budget['version'])}")
    terminal.table(
        ("ACCOUNT", "FROM", "UNTIL", "LIMIT", "SPENT", "HELD", "AVAILABLE"),
        [
            (
                account["scope"],
                account["window_start"] or "-",
                account["window_end"] or "-",
                usd(account["limit_nanos"]),
                usd(account["spent_nanos"]),
                usd(account["held_nanos"]),
                usd(account["available_nanos"]),
            )
            for account in budget["accounts"]
        ],
        right="LIMIT SPENT HELD AVAILABLE",
    )
    return OK


def put(options: argparse.Namespace, terminal: Terminal) -> int:
    """Make a budget, or change what is given of one that is stored."""
    with operating(options.config) as operations:
        body: dict[str, Any] = {"name": options.name}
        for found in operations.objects():
            if (found["kind"], found["name"], found["origin"]) == ("budget", options.name, "store"):
                body = dict(found["body"])
        if options.scope is not None:
            body["scope"] = dict(pairs(options.scope, "--scope"))
        for option, field in (("limit", "limit_usd"), ("window", "window"), ("timezone", "timezone")):
            if getattr(options, option) is not None:
                body[field] = getattr(options, option)
        if options.soft or options.hard:
            body.pop("hard", None)
            body["soft"] = bool(options.soft)
        if "limit_usd" not in body:
            raise ConfigError("a new budget needs --limit USD (or none, to meter only)", key="--limit")
        done = operations.put("budget", options.name, body, actor())
    terminal.document({**done, "body": body})
    terminal.text(
        f"budget {options.name}: {body['limit_usd']} USD per {body.get('window', 'month')}"
        f" for {scope_words(body.get('scope', {}))} (version {done['version']})"
    )
    return OK


def delete(options: argparse.Namespace, terminal: Terminal) -> int:
    """Take a stored budget away; what was spent stays in the ledger."""
    with operating(options.config) as operations:
        done = operations.delete("budget", options.name, actor())
    terminal.document(done)
    terminal.text(f"budget {options.name} deleted")
    return OK


def _budgets(
    options: argparse.Namespace, *, with_past: bool, name: str | None = None
) -> list[dict[str, Any]]:
    config = open_config(options.config)
    found = [item for item in objects_of(options.config, "budget") if name in (None, item["name"])]
    if not found:
        return []
    now = SystemClock().now()
    with reading(config) as reader:
        accounts = reader.accounts(now, with_past=with_past, budget=name)
    entries = [(item, _entry(item, config)) for item in found]
    return [_described(item, entry, accounts) for item, entry in entries if entry is not None]


def _entry(found: dict[str, Any], config: Config) -> BudgetEntry | None:
    if found["origin"] == "store":
        return msgspec.convert(found["body"], BudgetEntry)
    return next((entry for entry in config.declared.budgets if entry.name == found["name"]), None)


def _described(found: dict[str, Any], entry: BudgetEntry, accounts: list[AccountView]) -> dict[str, Any]:
    """One budget with stable fields, and its accounts."""
    return {
        "name": entry.name,
        "scope": dict(entry.scope),
        **money("limit", amount_nanos(entry.limit_usd)),
        "window": entry.window,
        "timezone": entry.timezone,
        "hard": entry.is_hard,
        "origin": found["origin"],
        "place": found.get("place"),
        "version": found.get("version"),
        "accounts": [_account(account) for account in accounts if account.budget == entry.name],
    }


def _account(account: AccountView) -> dict[str, Any]:
    left = None
    if account.limit_nanos is not None:
        left = account.limit_nanos - account.spent_nanos - account.held_nanos
    return {
        "scope": account.scope,
        "window_start": iso(account.window_start),
        "window_end": iso(account.window_end),
        "is_current": account.is_current,
        **money("limit", account.limit_nanos),
        **money("spent", account.spent_nanos),
        **money("held", account.held_nanos),
        **money("available", left),
    }


def _untouched(budget: dict[str, Any]) -> dict[str, Any]:
    """Stands for the accounts of a budget that nobody has used yet."""
    limit = budget["limit_nanos"]
    return {
        "scope": scope_words(budget["scope"]),
        "limit_nanos": limit,
        "spent_nanos": 0,
        "held_nanos": 0,
        "available_nanos": limit,
    }
