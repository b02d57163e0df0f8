"""`outlay run`: runs of agents, what they cost and where that went; pause one, let it go on."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from outlay.app.cli.access import actor, open_config, operating
from outlay.app.cli.exit_codes import OK
from outlay.app.cli.output import Terminal, iso, money, usd
from outlay.app.cli.times import parse_when
from outlay.app.config import Config
from outlay.flow.ledger.run_reader import RunReader, RunView
from outlay.flow.orders import Order, OrderKind, find_order
from outlay.flow.run_report import RunCharge, RunParts, run_state, split_run
from outlay.flow.scope import Identity
from outlay.kernel.clock import SystemClock
from outlay.kernel.errors import NotFound

PARTS = (
    ("first_call", "its first call"),
    ("new_work", "new work of later calls"),
    ("resent_context", "context sent again"),
    ("reasoning", "reasoning"),
    ("retries", "attempts that were tried again"),
    ("sub_agents", "runs below it"),
    ("unknown", "outcome unknown or counted"),
)


def show_all(options: argparse.Namespace, terminal: Terminal) -> int:
    """Runs with a charge since a time."""
    config = open_config(options.config)
    now = SystemClock().now()
    with RunReader(config.ledger_place) as reader:
        found = reader.runs(parse_when(options.since, now, "--since"), options.limit)
    stops = _stops(options.config)
    terminal.document({"runs": [run_document(run, stops) for run in found]})
    if not found:
        terminal.text(f"no run has a charge since {options.since}; callers name theirs in `x-outlay-run`")
        return OK
    terminal.table(
        ("RUN", "TEAM", "AGENT", "COST", "WITH BELOW", "CAP", "CALLS", "LAST", "STATE"),
        [
            (
                run.name,
                run.team or "unattributed",
                run.agent or "-",
                usd(run.cost_nanos),
                usd(run.tree_nanos),
                usd(run.cap_nanos),
                str(run.calls) + (f"/{run.max_calls}" if run.max_calls is not None else ""),
                iso(run.last_at) or "-",
                state_of(run, stops, now),
            )
            for run in found
        ],
        right="COST CAP CALLS",
    )
    return OK


def show(options: argparse.Namespace, terminal: Terminal) -> int:
    """Where a run's money went."""
    config: Config = open_config(options.config)
    now = SystemClock().now()
    with RunReader(config.ledger_place) as reader:
        run, charges = reader.run_charges(
            options.name, team=options.team, since_ns=parse_when(options.since, now, "--since")
        )
    parts = split_run(run.name, charges)
    stops = _stops(options.config)
    terminal.document(
        {
            **run_document(run, stops),
            "parts": parts_document(parts),
            "charges": [charge_document(charge) for charge in charges] if options.calls else [],
        }
    )
    terminal.text(f"run {run.name} of team {run.team or 'unattributed'}: {state_of(run, stops, now)}")
    terminal.table(
        ("WHERE IT WENT", "COST", "SHARE"),
        [
            *(
                (title, usd(getattr(parts, name)), _share(getattr(parts, name), parts.total))
                for name, title in PARTS
                if getattr(parts, name)
            ),
            ("total", usd(parts.total), ""),
        ],
        right="COST SHARE",
    )
    tenths = parts.multiplier_tenths
    if tenths is not None:
        terminal.text(f"{tenths // 10}.{tenths % 10} times its first call, in {run.calls} calls")
    if options.calls:
        terminal.table(
            ("AT", "RUN", "MODEL", "COST", "INPUT", "CACHED", "OUTPUT", "STATUS", "WHY"),
            [
                (
                    iso(charge.placed_at) or "-",
                    charge.run,
                    charge.model,
                    usd(charge.cost_nanos),
                    str(charge.input_tokens if charge.input_tokens is not None else "-"),
                    str(charge.cache_read_tokens),
                    str(charge.output_tokens),
                    f"{charge.status} ({charge.basis})",
                    charge.reason or "",
                )
                for charge in charges
            ],
            right="COST INPUT CACHED OUTPUT",
        )
    return OK


def pause(options: argparse.Namespace, terminal: Terminal) -> int:
    """Refuse a run's new calls."""
    with operating(options.config) as operations:
        done = operations.order(OrderKind.PAUSE.value, _scope(options), options.reason, actor())
    terminal.document(done)
    of = "" if options.team else " of every team"
    terminal.text(
        f"paused {options.name}{of}: new calls are refused (402 `paused`); `outlay run resume {options.name}`"
    )
    return OK


def resume(options: argparse.Namespace, terminal: Terminal) -> int:
    """Lift every order that names the run."""
    with operating(options.config) as operations:
        names = [
            order["name"]
            for order in operations.orders()
            if order["scope"].get("run") == options.name
            and options.team in (None, order["scope"].get("team", options.team))
        ]
        if not names:
            raise NotFound(f"nothing stops the run {options.name!r}")
        done = [operations.lift(name, actor()) for name in names]
    terminal.document({"lifted": done})
    terminal.text(f"{options.name} goes on")
    return OK


def run_document(run: RunView, stops: Sequence[Order]) -> dict[str, Any]:
    """A run as JSON."""
    found: dict[str, Any] = {name: getattr(run, name) for name in ("org", "team", "name", "agent", "parent")}
    for name in ("cost", "tree", "cap"):
        found |= money(name, getattr(run, f"{name}_nanos"))
    for name in ("calls", "max_calls", "input_tokens", "cache_read_tokens", "output_tokens"):
        found[name] = getattr(run, name)
    found |= {"first_at": iso(run.first_at), "last_at": iso(run.last_at), "ends_at": iso(run.deadline)}
    stop = _stop_of(run, stops)
    return {
        **found,
        "order": None if stop is None else stop.name,
        "reason": None if stop is None else stop.reason,
    }


def parts_document(parts: RunParts) -> dict[str, Any]:
    """The split as JSON."""
    found = money("total", parts.total)
    for name, _ in PARTS:
        found |= money(name, getattr(parts, name))
    tenths = parts.multiplier_tenths
    return {**found, "multiplier": None if tenths is None else f"{tenths // 10}.{tenths % 10}"}


def charge_document(charge: RunCharge) -> dict[str, Any]:
    """One charge of a run as JSON."""
    found = {
        name: getattr(charge, name) for name in RunCharge.__struct_fields__ if not name.endswith("_nanos")
    }
    times = {name: iso(getattr(charge, name)) for name in ("placed_at", "first_byte_at", "settled_at")}
    return {**found, **times, **money("cost", charge.cost_nanos), **money("held", charge.hold_nanos)}


def state_of(run: RunView, stops: Sequence[Order], now: int) -> str:
    """`killed: why`, `paused: why`, `expired`, `calls spent`, `cap spent`, or `open`."""
    return run_state(run, run.calls, _stop_of(run, stops), now)[1]


def orders_of(found: Iterable[Mapping[str, Any]]) -> tuple[Order, ...]:
    """Orders as `Operations.orders` gives them."""
    return tuple(
        Order(OrderKind(item["kind"]), item["scope"], item["reason"], item["actor"], item["at"])
        for item in found
    )


def _stop_of(run: RunView, stops: Sequence[Order]) -> Order | None:
    return find_order(stops, Identity(org=run.org, team=run.team, run=run.name, agent=run.agent))


def _stops(path: str) -> tuple[Order, ...]:
    with operating(path) as operations:
        return orders_of(operations.orders())


def _scope(options: argparse.Namespace) -> dict[str, str]:
    return {"run": options.name} | ({"team": options.team} if options.team else {})


def _share(nanos: int, total: int) -> str:
    tenths = nanos * 1000 // total if total else 0
    return f"{tenths // 10}.{tenths % 10} %"
