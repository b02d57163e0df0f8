"""Budgets: spent, held and limit of each account, where its limit comes from, and the charges behind it."""

import re
from collections.abc import Mapping
from typing import Annotated, Final

from fastapi import APIRouter, Path, Request, Response

from outlay.app.cli.output import iso
from outlay.app.console.budget_views import AccountLine, BudgetLine, budget_lines
from outlay.app.console.charts import MONEY
from outlay.app.console.desk import Desk
from outlay.app.console.door import person_of
from outlay.app.console.filters import Filters
from outlay.app.console.tables import Link, Table, Usd
from outlay.app.console.web import Page, Part, Web
from outlay.flow.budgets import RUN_METER
from outlay.flow.ledger.reader import ChargeView
from outlay.flow.scope import scope_text
from outlay.kernel.errors import NotFound
from outlay.kernel.ids import parse_id

MAX_ACCOUNTS_SHOWN: Final = 50
"""Accounts of one budget on a page, those nearest to their limits; the files have all."""
FEW_ACCOUNTS: Final = 6
"""Of them at once; the rest on demand."""
_NUMBER: Final = re.compile(r"[0-9]{1,18}\Z")
"""What SQLite takes for an id."""
CHARGES: Final = 100
"""Charges of one page."""
ALL_TIME: Final = 2**62


def add_budgets(router: APIRouter, desk: Desk, web: Web) -> None:
    """The rooms at `/budgets` and `/charges`."""

    @router.get("/budgets")
    def budgets(request: Request) -> Response:
        lines = budget_lines(desk)
        wanted = request.query_params.get("q", "").strip().lower()
        shown = [line for line in lines.budgets if not wanted or _mentions(line, wanted)]
        table = Table(
            "accounts",
            "Every account of a running window",
            ("budget", "scope", "spent", "held", "limit", "left", "window", "resets", "limit from"),
            [
                (
                    Link(line.name, account.href),
                    account.scope,
                    Usd(account.spent_nanos),
                    Usd(account.held_nanos),
                    Usd(account.effective_nanos),
                    Usd(account.left_nanos),
                    line.window,
                    iso(account.window_end) or "never",
                    _limit_words(line, account),
                )
                for line in shown
                for account in line.current
            ],
        )
        part = web.part(
            request,
            "budgets",
            "tree",
            table,
            lines=shown,
            is_up=lines.is_gateway_up,
            q=wanted,
            most=MAX_ACCOUNTS_SHOWN,
            few=FEW_ACCOUNTS,
            limit_words=_limit_words,
            nearest=_nearest,
        )
        return web.answer(request, Page("Budgets", "/budgets", (part,)))

    @router.get("/budgets/account/{account_id}")
    def account(request: Request, account_id: Annotated[int, Path(ge=0, lt=10**18)]) -> Response:
        parts = _account_parts(request, web, desk, account_id)
        return web.answer(request, Page("Budget account", "/budgets", parts))

    @router.get("/charges")
    def charges(request: Request) -> Response:
        return web.answer(request, _charges_page(request, web, desk))


def _mentions(line: BudgetLine, wanted: str) -> bool:
    texts = (line.name, line.scope, *(account.scope for account in line.accounts))
    return any(wanted in text.lower() for text in texts)


def _nearest(line: BudgetLine) -> list[AccountLine]:
    def left(account: AccountLine) -> int:
        return ALL_TIME if account.left_nanos is None else account.left_nanos

    return sorted(line.current, key=lambda account: (left(account), account.scope))[:MAX_ACCOUNTS_SHOWN]


def _limit_words(line: BudgetLine, account: AccountLine) -> str:
    """Where an effective limit is inherited from."""
    if account.effective_nanos is None:
        return f"no limit ({line.origin})"
    raises = "".join(
        f" + raise of {MONEY.say(item['extra_nanos'])} by {item['actor']} until {iso(item['until']) or 'it is ended'}"
        for item in account.raised
    )
    kind = "" if line.is_hard else ", soft: it never refuses"
    return f"{MONEY.say(line.limit_nanos or 0)} {line.origin}{kind}{raises}"


def _account_parts(request: Request, web: Web, desk: Desk, account_id: int) -> tuple[Part, ...]:
    lines = budget_lines(desk, with_past=True)
    found = next(
        ((line, account) for line in lines.budgets for account in line.accounts if account.id == account_id),
        None,
    )
    if found is None:
        return _run_account(request, web, desk, account_id)
    line, account = found
    past = [other for other in line.accounts if other.scope == account.scope and other.id != account.id]
    with desk.reading() as reader:
        history = reader.limit_history(account_id)
        recent = reader.charges_behind(0, ALL_TIME, {}, account_id=account_id, limit=20)
        values = reader.account_values(account_id)
    table = charge_table(recent)
    head = web.part(
        request,
        "budgets",
        "account",
        line=line,
        account=account,
        words=_limit_words(line, account),
        history=history,
        past=past,
        scope_fields=[(name, value) for name, value in values if line.name != RUN_METER],
        may_raise=_may_raise(request, dict(values)),
    )
    charges = web.part(
        request, "budgets", "charges", table, href=f"/charges?account={account_id}", older=None
    )
    return head, charges


def _run_account(request: Request, web: Web, desk: Desk, account_id: int) -> tuple[Part, ...]:
    """The account that keeps a run's total: it belongs to the run's own page."""
    with desk.reading() as reader:
        values = dict(reader.account_values(account_id))
    if "run" not in values:
        raise NotFound("there is no such account")
    part = web.part(
        request, "budgets", "of_run", values=values, scope=scope_text(tuple(sorted(values.items())))
    )
    return (part,)


def _may_raise(request: Request, values: Mapping[str, str]) -> bool:
    return request.state.session is not None and person_of(request).covers(values)


def _charges_page(request: Request, web: Web, desk: Desk) -> Page:
    filters = Filters.of(request.query_params)
    span = filters.span(desk.clock.now())
    query = request.query_params
    account = int(query["account"]) if _NUMBER.match(query.get("account", "")) else None
    before = parse_id(query["before"]) if "before" in query else None
    request_id = parse_id(query["request"]) if "request" in query else None
    # an account's charges are all of it, whenever they were made
    since, until = (0, ALL_TIME) if account is not None else (span.since, span.until)
    with desk.reading() as reader:
        if request_id is not None:
            found = reader.request(request_id)
        else:
            found = reader.charges_behind(
                since, until, dict(filters.where), account_id=account, before=before, limit=CHARGES
            )
    older = None
    if len(found) == CHARGES:
        extra = {"account": None if account is None else str(account)}
        older = "/charges" + filters.query(**extra, before=f"req_{found[-1].id}")
    part = web.part(request, "budgets", "charges", charge_table(found), href=None, older=older)
    choices: dict[str, list[str]] = {}
    return Page("Charges", "/budgets", (part,), None if account or request_id else filters, choices)


def charge_table(found: list[ChargeView]) -> Table:
    """Charges, one a row: what each figure of a page comes from."""
    return Table(
        "charges",
        "Charges, newest first",
        (
            "placed",
            "team",
            "key",
            "run",
            "model",
            "cost",
            "held",
            "input",
            "cached",
            "output",
            "how",
            "why",
            "request",
        ),
        [
            (
                iso(charge.placed_at) or "",
                str(charge.identity.get("team", "unattributed")),
                str(charge.identity.get("key", "unattributed")),
                str(charge.identity.get("run", "-")),
                charge.model,
                Usd(charge.cost_nanos),
                Usd(charge.hold_nanos),
                charge.tokens["input_tokens"],
                charge.tokens["cache_read_tokens"],
                charge.tokens["output_tokens"],
                f"{charge.status}, {charge.basis}",
                charge.reason or "",
                Link(f"req_{charge.request_id[:12]}...", f"/charges?request=req_{charge.request_id}"),
            )
            for charge in found
        ],
    )
