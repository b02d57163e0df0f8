"""Runs: what each cost, why it stopped, where its money went call by call; pause, kill and continue."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Request, Response
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool

from outlay.app.cli.output import iso
from outlay.app.cli.runs import PARTS, orders_of
from outlay.app.console.charts import MONEY, share_bar, steps, time_bar
from outlay.app.console.desk import Desk, GatewayDown
from outlay.app.console.door import person_of
from outlay.app.console.filters import Filters, Span
from outlay.app.console.overview_room import choices_of
from outlay.app.console.tables import Cell, Link, Table, Usd
from outlay.app.console.web import Page, Part, Web
from outlay.flow.ledger.rollup import NOTHING, Figures
from outlay.flow.ledger.rows import NoLedger
from outlay.flow.ledger.run_reader import RunView
from outlay.flow.orders import Order, OrderKind, find_order
from outlay.flow.run_report import RunCharge, run_state, split_run
from outlay.flow.runs import MAX_DEPTH
from outlay.flow.scope import UNATTRIBUTED, Identity
from outlay.kernel.errors import ConfigError, NotFound, OutlayError

MAX_RUNS: Final = 200
"""Runs on the page, the newest; a filter finds others."""
MAX_WATERFALL: Final = 200
"""Calls that are drawn, the newest; the files have all."""
_MILLION: Final = 1_000_000
_BEFORE: Final = 3_600 * 1_000_000_000
"""How far before a run's first charge in a range its own page looks for children and earlier calls."""

Key = tuple[str, str, str]


@dataclass(slots=True)
class RunLine:
    """One run in the table. Amounts in nanos, times in UTC ns."""

    key: Key
    agent: str
    figures: Figures
    parent: str = ""
    cap_nanos: int | None = None
    max_calls: int | None = None
    deadline: int | None = None
    tree_nanos: int = 0
    state: str = "open"
    kind: str = "open"
    """`killed`, `paused`, `over` or `open`."""

    @property
    def href(self) -> str:
        """Its own page."""
        return run_href(self.key[1], self.key[2])


def add_runs(router: APIRouter, desk: Desk, web: Web) -> None:
    """The rooms at `/runs`."""

    @router.get("/runs")
    def runs(request: Request) -> Response:
        filters = Filters.of(request.query_params)
        span = filters.span(desk.clock.now())
        try:
            lines, choices = _lines(desk, filters, span)
        except NoLedger:
            lines, choices = [], {}
        table = Table(
            "runs",
            "Runs, the newest first",
            (
                "run",
                "team",
                "agent",
                "cost",
                "with children",
                "cap",
                "calls",
                "most calls",
                "first",
                "last",
                "state",
                "parent",
            ),
            [
                (
                    Link(line.key[2], line.href),
                    line.key[1] or UNATTRIBUTED,
                    line.agent or "-",
                    Usd(line.figures.cost),
                    Usd(line.tree_nanos),
                    Usd(line.cap_nanos),
                    line.figures.calls,
                    line.max_calls,
                    iso(line.figures.first_at) or "",
                    iso(line.figures.last_at) or "",
                    line.state,
                    Link(line.parent, run_href(line.key[1], line.parent)) if line.parent else "-",
                )
                for line in lines[:MAX_RUNS]
            ],
        )
        part = web.part(
            request, "runs", "list", table, lines=lines, most=MAX_RUNS, back_all="/runs?range=30d"
        )
        return web.answer(request, Page("Runs", "/runs", (part,), filters, choices))

    @router.post("/runs/act")
    async def act(request: Request) -> Response:
        fields = await web.form(request)
        actor = person_of(request).actor
        try:
            text = await run_in_threadpool(lambda: _act(desk, fields, actor))
        except OutlayError as error:
            return web.failed(request, fields, error)
        return web.done(request, fields, text)

    @router.get("/runs/{team}/{name:path}")
    def run(request: Request, team: str, name: str) -> Response:
        query = request.query_params
        team, name = query.get("t", team), query.get("n", name)
        team = "" if team == UNATTRIBUTED else team
        view, charges = _read(desk, team, name, query.get("org"))
        parts = _run_parts(request, web, desk, view, charges)
        return web.answer(request, Page(f"Run {name}", "/runs", parts))


def run_href(team: str, name: str) -> str:
    """The page of a run: in the path if a browser leaves it as it is, else as parameters."""
    team = team or UNATTRIBUTED
    pieces = [team, *name.split("/")]
    if "/" in team or any(piece in ("", ".", "..") for piece in pieces) or "\\" in team + name:
        return f"/runs/-/-?{urlencode({'t': team, 'n': name})}"
    return f"/runs/{quote(team, safe='')}/{quote(name, safe='/')}"


def _lines(desk: Desk, filters: Filters, span: Span) -> tuple[list[RunLine], dict[str, list[str]]]:
    found: dict[Key, RunLine] = {}
    shown: set[Key] = set()
    sums: dict[int, Figures] = {}
    for _, number, figures in desk.rollup.cells(span.since, span.until, span.size):
        before = sums.get(number)
        sums[number] = figures if before is None else before.plus(figures)
    weights = []
    for number, figures in sums.items():
        identity = desk.rollup.names[number]
        if not identity.run:
            continue
        weights.append((identity, figures.cost))
        key = (identity.org, identity.team, identity.run)
        line = found.get(key)
        if line is None:
            line = found[key] = RunLine(key, identity.agent, NOTHING)
        line.figures = line.figures.plus(figures)
        if filters.covers(identity):
            shown.add(key)
    with desk.reading() as reader:
        for org, team, name, parent, cap, calls, deadline in reader.opened_runs():
            line = found.get((org, team, name))
            if line is not None:
                line.parent, line.cap_nanos, line.max_calls, line.deadline = parent, cap, calls, deadline
    _add_trees(found)
    orders, now = _orders(desk), desk.clock.now()
    lines = sorted((found[key] for key in shown), key=lambda line: (-line.figures.last_at, line.key))
    for line in lines[:MAX_RUNS]:
        line.kind, line.state = _state(line, orders, now)
    return lines, choices_of(weights)


def _add_trees(found: Mapping[Key, RunLine]) -> None:
    """A run's cost belongs to every run above it, too."""
    for key, line in found.items():
        seen, at = [key], line
        while at.parent and len(seen) <= MAX_DEPTH:
            above = (key[0], key[1], at.parent)
            if above in seen or above not in found:
                break
            seen.append(above)
            at = found[above]
        for one in seen:
            found[one].tree_nanos += line.figures.cost


def _orders(desk: Desk) -> tuple[Order, ...]:
    try:
        with desk.operating() as operations:
            return orders_of(operations.orders())
    except GatewayDown:
        return ()


def _state(line: RunLine, orders: Sequence[Order], now: int) -> tuple[str, str]:
    return run_state(line, line.figures.calls, _stop_of(line.key, line.agent, orders), now)


def _stop_of(key: Key, agent: str, orders: Sequence[Order]) -> Order | None:
    return find_order(orders, Identity(org=key[0], team=key[1], run=key[2], agent=agent))


def _act(desk: Desk, fields: Mapping[str, str], actor: str) -> str:
    """Kill, pause or let go on what a form names; says what was done."""
    name, team, do = fields.get("run", ""), fields.get("team", ""), fields.get("do", "")
    if do == "lift":
        with desk.operating() as operations:
            operations.lift(fields.get("order", ""), actor)
        return f"{name} goes on."
    if not name:
        raise ConfigError("names no run", key="run")
    scope = {"run": name, "team": team or UNATTRIBUTED}
    at = time.time_ns()
    with desk.operating() as operations:
        done = operations.order(do, scope, fields.get("reason", ""), actor, at)
    if do == OrderKind.PAUSE.value:
        return f"Paused {name}: new calls are refused until it goes on."
    return (
        f"Killed {name}: cut {done.get('cut_calls', 0)} calls in flight and {done.get('cut_sessions', 0)} sessions;"
        " new calls are refused."
    )


# -- one run --------------------------------------------------------------------------------------------------------


def _read(desk: Desk, team: str, name: str, org: str | None) -> tuple[RunView, list[RunCharge]]:
    """A run and its charges: newest time first, so that a run of today is found without reading a year."""
    error: NotFound | None = None
    for label in ("24h", "30d"):
        span = Filters(range=label).span(desk.clock.now())
        firsts = [
            figures.first_at
            for _, number, figures in desk.rollup.cells(span.since, span.until, span.size)
            if _names_run(desk.rollup.names[number], team, name)
        ]
        if not firsts or (label == "24h" and min(firsts) < span.since + _BEFORE):
            continue
        with desk.reading() as reader:
            return reader.run_charges(name, team=team, org=org, since_ns=min(firsts) - _BEFORE)
    with desk.reading() as reader:
        try:
            return reader.run_charges(name, team=team, org=org)
        except NotFound as found:
            error = found
    raise error


def _names_run(identity: Identity, team: str, name: str) -> bool:
    return identity.run == name and identity.team == team


def _run_parts(
    request: Request, web: Web, desk: Desk, view: RunView, charges: Sequence[RunCharge]
) -> tuple[Part, ...]:
    key = (view.org, view.team, view.name)
    line = RunLine(key, view.agent, NOTHING._replace(calls=view.calls, cost=view.cost_nanos))
    line.parent, line.cap_nanos, line.max_calls, line.deadline = (
        view.parent,
        view.cap_nanos,
        view.max_calls,
        view.deadline,
    )
    line.tree_nanos = view.tree_nanos
    orders = _orders(desk)
    stop = _stop_of(key, view.agent, orders)
    line.kind, line.state = _state(line, orders, desk.clock.now())
    parts = split_run(view.name, charges)
    split = [
        (title, getattr(parts, name), share_bar(getattr(parts, name), parts.total, index, title))
        for index, (name, title) in enumerate(PARTS)
        if getattr(parts, name)
    ]
    tenths = parts.multiplier_tenths
    split_table = Table(
        "split",
        "Where the money went",
        ("part", "cost"),
        [*((title, Usd(nanos)) for title, nanos, _ in split), ("total", Usd(parts.total))],
    )
    children: dict[str, tuple[int, int]] = {}
    for charge in charges:
        if charge.run != view.name:
            cost, calls = children.get(charge.run, (0, 0))
            children[charge.run] = (cost + charge.cost_nanos, calls + (charge.attempt == 1))
    return (
        web.part(
            request,
            "runs",
            "head",
            view=view,
            line=line,
            stop=stop,
            parent_href=run_href(view.team, view.parent) if view.parent else "",
            children=[(name, run_href(view.team, name), *sums) for name, sums in sorted(children.items())],
            may_act=person_of(request).is_admin and request.state.session is not None,
            may_raise=request.state.session is not None
            and person_of(request).covers({"org": view.org, "team": view.team, "run": view.name}),
        ),
        web.part(
            request,
            "runs",
            "split",
            split_table,
            css="half",
            split=split,
            total=parts.total,
            multiplier=None if tenths is None else f"{tenths // 10}.{tenths % 10}",
        ),
        _cumulative_part(request, web, charges),
        _waterfall_part(request, web, view, charges),
    )


def _cumulative_part(request: Request, web: Web, charges: Sequence[RunCharge]) -> Part:
    ends = sorted((charge.settled_at, charge.cost_nanos) for charge in charges)
    start = min((charge.placed_at for charge in charges), default=0)
    length = max(1, (ends[-1][0] if ends else 0) - start)
    total = 0
    points: list[tuple[int, int]] = []
    rows: list[tuple[Cell, ...]] = []
    for at, cost in ends:
        total += cost
        points.append(((at - start) * _MILLION // length, total))
        rows.append((iso(at) or "", Usd(cost), Usd(total)))
    table = Table("cumulative", "Cumulative cost", ("settled", "cost", "cost so far"), rows)
    labels = ((iso(start) or "")[11:19], (iso(ends[-1][0]) or "")[11:19] if ends else "")
    # a line of more points than a screen has columns says no more
    thin = points[:: max(1, len(points) // 800)] + points[-1:]
    chart = steps("Cumulative cost", thin, labels, MONEY)
    return web.part(request, "runs", "cumulative", table, css="half", chart=chart)


def _waterfall_part(request: Request, web: Web, view: RunView, charges: Sequence[RunCharge]) -> Part:
    shown = charges[-MAX_WATERFALL:]
    start = min((charge.placed_at for charge in shown), default=0)
    length = max(1, max((charge.settled_at for charge in shown), default=0) - start)
    models = list(dict.fromkeys(charge.model for charge in shown))

    def bar(charge: RunCharge) -> Markup:
        def place(at: int) -> int:
            return max(0, at - start) * _MILLION // length

        first = None if charge.first_byte_at is None else place(charge.first_byte_at)
        colour = models.index(charge.model) % 8
        title = f"from {(charge.placed_at - start) // 1_000_000} ms, {_took(charge)}"
        return time_bar(place(charge.placed_at), first, place(charge.settled_at), f"s{colour}", title)

    table = Table(
        "calls",
        "Calls",
        (
            "placed",
            "run",
            "agent",
            "model",
            "attempt",
            "cost",
            "input",
            "cached",
            "output",
            "took",
            "how",
            "why",
            "request",
        ),
        [
            (
                iso(charge.placed_at) or "",
                charge.run,
                charge.agent or "-",
                charge.model,
                charge.attempt,
                Usd(charge.cost_nanos),
                charge.input_tokens,
                charge.cache_read_tokens,
                charge.output_tokens,
                _took(charge),
                f"{charge.status}, {charge.basis}",
                charge.reason or "",
                Link(f"req_{charge.request_id[:12]}...", f"/charges?request=req_{charge.request_id}"),
            )
            for charge in charges
        ],
    )
    rows = [(charge, bar(charge), _took(charge)) for charge in shown]
    return web.part(
        request, "runs", "waterfall", table, rows=rows, own=view.name, total=len(charges), start=start
    )


def _took(charge: RunCharge) -> str:
    return f"{(charge.settled_at - charge.placed_at) // 1_000_000:,} ms"
