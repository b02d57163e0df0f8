"""`outlay import`: another gateway's keys, limits, spend so far and models, made into Outlay's; twice equals once."""

import argparse
import os
from pathlib import Path
from typing import Any

from outlay.app.cli.access import actor
from outlay.app.cli.exit_codes import CONFLICT, OK
from outlay.app.cli.output import Terminal, iso, money, usd
from outlay.app.importing.bifrost import plan_bifrost
from outlay.app.importing.carrying import Outcome, carry
from outlay.app.importing.litellm_source import plan_litellm
from outlay.app.importing.plan import Plan
from outlay.kernel.clock import SystemClock


def litellm(options: argparse.Namespace, terminal: Terminal) -> int:
    """From LiteLLM's PostgreSQL, its config.yaml, or both."""
    source = None if options.source_config is None else Path(options.source_config)
    plan = plan_litellm(options.database, source, os.environ, SystemClock().now())
    return _carried(plan, options, terminal)


def bifrost(options: argparse.Namespace, terminal: Terminal) -> int:
    """From Bifrost's config.json."""
    plan = plan_bifrost(Path(options.source_config), os.environ, SystemClock().now())
    return _carried(plan, options, terminal)


def _carried(plan: Plan, options: argparse.Namespace, terminal: Terminal) -> int:
    path = Path(options.config)
    outcome = carry(plan, path, os.environ, actor(), dry_run=options.dry_run, replace=options.replace)
    terminal.document(_document(plan, outcome, dry_run=options.dry_run))
    _print(plan, outcome, terminal, dry_run=options.dry_run)
    return CONFLICT if outcome.conflicts else OK


def _document(plan: Plan, outcome: Outcome, *, dry_run: bool) -> dict[str, Any]:
    return {
        "source": plan.source,
        "dry_run": dry_run,
        "changes": outcome.changes,
        "made": [item._asdict() for item in outcome.made],
        "same": [item._asdict() for item in outcome.same],
        "conflicts": [item._asdict() for item in outcome.conflicts],
        "openings": [
            {
                "budget": opening.budget,
                **money("spent", opening.nanos),
                **money("posted", posted),
                "since": iso(opening.at),
                "note": opening.note,
            }
            for opening, posted in outcome.openings
        ],
        "left_out": [{"name": name, "reason": why} for name, why in plan.refused.values()],
        "unmapped": [item._asdict() for item in plan.unmapped],
        "notes": list(plan.notes),
        "file": None if outcome.file is None else str(outcome.file),
        "file_is_whole": outcome.is_whole,
        "file_is_new": outcome.is_file_new,
    }


def _print(plan: Plan, outcome: Outcome, terminal: Terminal, *, dry_run: bool) -> None:
    will = "would be made" if dry_run else "made"
    if outcome.made:
        terminal.text(f"{will}:")
        terminal.table(
            ("KIND", "NAME", "WHERE"), [(i.kind, i.name, i.detail or "store") for i in outcome.made]
        )
    if outcome.openings:
        terminal.text()
        terminal.text(f"spent so far in running windows ({will}):")
        terminal.table(
            ("BUDGET", "SINCE", "SPENT THERE", "POSTED"),
            [(o.budget, iso(o.at) or "-", usd(o.nanos), usd(posted)) for o, posted in outcome.openings],
            right="POSTED",
        )
    if outcome.conflicts:
        terminal.text()
        terminal.text("conflicts (left as they are):")
        terminal.table(("KIND", "NAME", "PROBLEM", "WHAT TO DO"), [tuple(item) for item in outcome.conflicts])
    if plan.refused:
        terminal.text()
        terminal.text("left out, so their bearers are refused:")
        terminal.table(("KEY", "REASON"), list(plan.refused.values()))
    if plan.unmapped:
        terminal.text()
        terminal.text("not carried over:")
        terminal.table(("FIELD", "VALUE", "REASON", "WHAT TO DO"), [tuple(item) for item in plan.unmapped])
    for note in plan.notes:
        terminal.note(note)
    terminal.text()
    terminal.text(_summary(outcome, dry_run=dry_run))


def _summary(outcome: Outcome, *, dry_run: bool) -> str:
    if not outcome.changes:
        waits = f"; {outcome.file} waits to be pasted" if outcome.file is not None else ""
        return f"nothing to do: {len(outcome.same)} objects are there already{waits}"
    text = f"{len(outcome.made)} new, {len(outcome.same)} there already, {len(outcome.conflicts)} conflicts"
    if dry_run:
        return text + "; nothing was changed (--dry-run)"
    if outcome.file is not None and outcome.is_whole:
        return text + f"; {outcome.file} written (mode 0600): check it, set its variables, then `outlay up`"
    if outcome.file is not None:
        return text + f"; paste the lists of {outcome.file} into the configuration, then delete that file"
    return text
