"""Overview: what is spent, by whom, what is held, what was refused, and whether anything went past a limit."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request, Response

from outlay.app.cli.output import iso
from outlay.app.console.budget_views import AccountLine, budget_lines
from outlay.app.console.charts import COUNT, MAX_SERIES, MONEY, Series, stacked_bars
from outlay.app.console.desk import Desk, GatewayDown
from outlay.app.console.filters import FILTERS, RANGE_WORDS, Filters, Span
from outlay.app.console.tables import Cell, Link, Table, Usd
from outlay.app.console.web import Page, Part, Web
from outlay.flow.ledger.rollup import NOTHING, Figures
from outlay.flow.ledger.room_reader import PastLimit, RefusalSum
from outlay.flow.ledger.rows import NoLedger
from outlay.flow.scope import UNATTRIBUTED, Identity
from outlay.kernel.clock import NANOS_PER_SECOND

_DAY: Final = 86_400 * NANOS_PER_SECOND
MAX_CHOICES: Final = 200
"""Values that a filter offers; any other may be typed into the address."""
GLANCE: Final = 6
"""Budgets on the first page: those that are nearest to their limits."""


@dataclass(frozen=True, slots=True)
class Spend:
    """Sums of a range, as filtered."""

    span: Span
    total: Figures
    groups: Mapping[str, Figures]
    by_slot: Mapping[str, Mapping[int, int]]
    """Group -> slot -> nanos."""
    choices: Mapping[str, list[str]]


def add_overview(router: APIRouter, desk: Desk, web: Web) -> None:
    """The room at `/`."""

    @router.get("/")
    def overview(request: Request) -> Response:
        filters = Filters.of(request.query_params)
        now = desk.clock.now()
        span = filters.span(now)
        try:
            spend = sum_up(desk, filters, span)
        except NoLedger:
            empty = web.part(request, "overview", "nothing")
            return web.answer(request, Page("Overview", "/", (empty,), filters))
        with desk.reading() as reader:
            refusals = reader.refusals(span.since, span.until, span.size, dict(filters.where))
            held = reader.held()
        past = desk.overspends()
        parts = (
            _kpis(request, web, desk, filters, spend, held, past, refusals),
            _spend_part(request, web, filters, spend),
            _budgets_part(request, web, desk),
            _refusals_part(request, web, filters, span, refusals),
        )
        return web.answer(
            request, Page("Overview", "/", parts, filters, spend.choices, span.since, has_group=True)
        )


def sum_up(desk: Desk, filters: Filters, span: Span) -> Spend:
    """Sums by group and slot. Raises StoreError if there is no ledger."""
    cells = desk.rollup.cells(span.since, span.until, span.size)
    names = desk.rollup.names
    sums: dict[int, Figures] = {}
    for _, number, figures in cells:
        before = sums.get(number)
        sums[number] = figures if before is None else before.plus(figures)
    shown: dict[int, str] = {}
    groups: dict[str, Figures] = {}
    for number, figures in sums.items():
        identity = names[number]
        if filters.covers(identity):
            group = shown[number] = identity.value(filters.by) or UNATTRIBUTED
            groups[group] = groups.get(group, NOTHING).plus(figures)
    by_slot: dict[str, dict[int, int]] = {group: {} for group in groups}
    for at, number, figures in cells:
        if number in shown:
            slots = by_slot[shown[number]]
            slots[at] = slots.get(at, 0) + figures.cost
    total = NOTHING
    for figures in groups.values():
        total = total.plus(figures)
    ordered = dict(sorted(groups.items(), key=lambda item: (-item[1].cost, item[0])))
    return Spend(span, total, ordered, by_slot, choices_of([(names[n], f.cost) for n, f in sums.items()]))


def choices_of(weights: Iterable[tuple[Identity, int]]) -> dict[str, list[str]]:
    """What a filter offers: of each dimension the values that cost most."""
    found: dict[str, dict[str, int]] = {name: {} for name in FILTERS}
    for identity, cost in weights:
        for name, values in found.items():
            value = identity.value(name) or UNATTRIBUTED
            values[value] = values.get(value, 0) + cost
    return {
        name: sorted(heapq.nlargest(MAX_CHOICES, values, key=values.__getitem__))
        for name, values in found.items()
    }


def _kpis(  # noqa: PLR0917 - one strip, each figure from its own source
    request: Request,
    web: Web,
    desk: Desk,
    filters: Filters,
    spend: Spend,
    held: tuple[int, int],
    past: Sequence[PastLimit],
    refusals: list[RefusalSum],
) -> Part:
    now = desk.clock.now()
    midnight = now // _DAY * _DAY
    today = sum(
        figures.cost
        for _, number, figures in desk.rollup.cells(midnight, midnight + _DAY, _DAY)
        if filters.covers(desk.rollup.names[number])
    )
    try:
        with desk.operating() as operations:
            asks: int | None = len(operations.asks("open"))
    except GatewayDown:
        asks = None
    return web.part(
        request,
        "overview",
        "kpis",
        spend=spend,
        today=today,
        held=held,
        past=past,
        refused=sum(row.count for row in refusals),
        asks=asks,
        words=RANGE_WORDS[filters.range],
        query=filters.query(),
        charges_href=f"/charges{filters.query(by=None)}",
    )


def _spend_part(request: Request, web: Web, filters: Filters, spend: Spend) -> Part:
    span = spend.span
    names = list(spend.groups)
    series = [
        Series(name, [spend.by_slot[name].get(at, 0) for at in span.slots], index)
        for index, name in enumerate(names[:MAX_SERIES])
    ]
    if len(names) > MAX_SERIES:
        rest = names[MAX_SERIES:]
        left = [sum(spend.by_slot[name].get(at, 0) for name in rest) for at in span.slots]
        series.append(Series(f"{len(rest)} others", left, -1))
    labels = [span.label(at) for at in span.slots]
    rows: list[tuple[Cell, ...]] = [
        (
            Link(name, _into(filters, name)),
            Usd(figures.cost),
            figures.charges,
            figures.input,
            figures.cache_read,
            figures.output,
            Usd(figures.unknown),
        )
        for name, figures in spend.groups.items()
    ]
    groups = Table(
        "groups",
        f"Spend by {filters.by}, {RANGE_WORDS[filters.range]}",
        (filters.by, "cost", "charges", "input tokens", "cached", "output tokens", "outcome unknown"),
        rows,
    )
    over_time = Table(
        "spend",
        f"Spend by {filters.by} over time (UTC)",
        ("from", *(line.name for line in series), "total"),
        [
            (
                iso(at),
                *(Usd(line.values[index]) for line in series),
                Usd(sum(line.values[index] for line in series)),
            )
            for index, at in enumerate(span.slots)
        ],
    )
    chart = stacked_bars(f"Spend by {filters.by} over time", labels, series, MONEY)
    return web.part(
        request,
        "overview",
        "spend",
        groups,
        over_time,
        chart=chart,
        series=series,
        spend=spend,
        by=filters.by,
    )


def _into(filters: Filters, name: str) -> str:
    """A group's figures lead to itself alone, by the next dimension down."""
    further = {"team": "model", "model": "key", "provider": "model", "key": "run", "run": "model"}
    return "/" + filters.query(**{filters.by: name, "by": further.get(filters.by, "model")})


def _budgets_part(request: Request, web: Web, desk: Desk) -> Part:
    lines = budget_lines(desk)
    accounts = [line for budget in lines.budgets for line in budget.accounts if line.is_current]

    def fullness(line: AccountLine) -> int:
        limit = line.effective_nanos
        return -1 if limit is None else (line.spent_nanos + line.held_nanos) * 10**6 // max(limit, 1)

    # runs that spent their cap are many and done: they come after accounts that go on
    nearest = sorted(
        accounts, key=lambda line: ("run=" in line.scope, -fullness(line), line.budget, line.scope)
    )[:GLANCE]
    table = Table(
        "budgets",
        "Budgets nearest to their limits",
        ("budget", "scope", "spent", "held", "limit"),
        [
            (
                Link(line.budget, line.href),
                line.scope,
                Usd(line.spent_nanos),
                Usd(line.held_nanos),
                Usd(line.effective_nanos),
            )
            for line in nearest
        ],
    )
    return web.part(
        request, "overview", "budgets", table, css="half", lines=nearest, has_budgets=bool(lines.budgets)
    )


def _refusals_part(
    request: Request, web: Web, filters: Filters, span: Span, refusals: list[RefusalSum]
) -> Part:
    counts: dict[str, dict[int, int]] = {}
    sums: dict[tuple[str, str], int] = {}
    for row in refusals:
        slots = counts.setdefault(row.code, {})
        slots[row.at] = slots.get(row.at, 0) + row.count
        sums[row.code, row.budget] = sums.get((row.code, row.budget), 0) + row.count
    codes = sorted(counts, key=lambda code: (-sum(counts[code].values()), code))
    series = [
        Series(code, [counts[code].get(at, 0) for at in span.slots], index)
        for index, code in enumerate(codes[:MAX_SERIES])
    ]
    table = Table(
        "refusals",
        f"Refusals, {RANGE_WORDS[filters.range]}",
        ("reason", "budget or policy", "refusals"),
        [
            (code, budget or "-", count)
            for (code, budget), count in sorted(sums.items(), key=lambda item: -item[1])
        ],
    )
    ignored = [name for name, _ in filters.where if name not in ("team", "key")]
    chart = stacked_bars("Refusals by reason over time", [span.label(at) for at in span.slots], series, COUNT)
    return web.part(
        request, "overview", "refusals", table, css="half", chart=chart, series=series, ignored=ignored
    )
