"""`outlay approve` and `outlay budget raise`: more money for a while, asked for and decided."""

import argparse
from typing import Any

from outlay.app.cli.access import actor, operating, pairs
from outlay.app.cli.exit_codes import OK
from outlay.app.cli.output import Terminal, iso, usd
from outlay.kernel.errors import NotFound


def show_all(options: argparse.Namespace, terminal: Terminal) -> int:
    """Asks that wait for a decision; with `--all` every one."""
    with operating(options.config) as operations:
        found = operations.asks(None if options.all else "open")
    terminal.document({"asks": found})
    if not found:
        terminal.text("nobody asks for anything")
        return OK
    terminal.table(
        ("ASK", "STATE", "WHAT", "SCOPE", "WANTS", "BY", "AT", "WHY"),
        [
            (
                ask["id"],
                ask["state"],
                ask["budget"] or ask["order"],
                ask["scope"] if ask["budget"] else "-",
                usd(ask["wanted_nanos"]) if ask["wanted_nanos"] else "to go on",
                ask["requester"],
                iso(ask["at"]) or "-",
                ask["reason"],
            )
            for ask in found
        ],
        right="WANTS",
    )
    return OK


def show(options: argparse.Namespace, terminal: Terminal) -> int:
    """One ask with its figures."""
    with operating(options.config) as operations:
        ask = next((item for item in operations.asks() if item["id"] == options.id), None)
    if ask is None:
        raise NotFound(f"nothing is asked for under {options.id!r}")
    terminal.document(ask)
    rows = [
        ("state", ask["state"]),
        ("asked by", f"{ask['requester']} at {iso(ask['at'])}"),
        ("why", ask["reason"]),
        ("what", f"{ask['budget'] or ask['order']} ({ask['scope']})" if ask["budget"] else ask["order"]),
        ("wants", f"{usd(ask['wanted_nanos'])} more" if ask["wanted_nanos"] else "to go on"),
        ("for", f"{ask['hours']} hours" if ask["hours"] else "until the window ends"),
    ]
    if ask["limit_nanos"]:
        rows.append(
            (
                "then",
                f"{usd(ask['spent_nanos'])} spent, {usd(ask['held_nanos'])} held of {usd(ask['limit_nanos'])};"
                f" the call may need {usd(ask['needed_nanos'])}",
            )
        )
    if ask["decided_by"]:
        rows.append(("decided", f"by {ask['decided_by']} at {iso(ask['decided_at'])}: {ask['note']}"))
    terminal.table(("WHAT", "VALUE"), rows)
    return OK


def grant(options: argparse.Namespace, terminal: Terminal) -> int:
    """Approve an ask."""
    said = {"usd": options.usd, "hours": options.hours, "note": options.note}
    with operating(options.config) as operations:
        done = operations.grant(options.id, said, actor())
    terminal.document(done)
    if done["granted_nanos"]:
        until = iso(done["until"]) or "for ever"
        terminal.text(
            f"raised {done['budget']} ({done['scope']}) by {usd(done['granted_nanos'])} until {until}"
        )
    if done["order"]:
        terminal.text(f"lifted {done['order']}")
    return OK


def deny(options: argparse.Namespace, terminal: Terminal) -> int:
    """Deny an ask."""
    with operating(options.config) as operations:
        done = operations.deny(options.id, options.note, actor())
    terminal.document(done)
    terminal.text(f"denied {done['id']}")
    return OK


def request(options: argparse.Namespace, terminal: Terminal) -> int:
    """Ask for a raise."""
    said = {**_said(options), "reason": options.note}
    del said["note"]
    with operating(options.config) as operations:
        done = operations.ask(said, actor())
    terminal.document(done)
    terminal.text(f"asked: {done['id']}; `outlay approve grant {done['id']}` approves it")
    return OK


def put(options: argparse.Namespace, terminal: Terminal) -> int:
    """Raise a budget without an ask."""
    with operating(options.config) as operations:
        done = operations.raise_budget(_said(options), actor())
    terminal.document(done)
    until = iso(done["until"]) or "for ever"
    terminal.text(f"raised {done['budget']} ({done['scope']}) by {usd(done['extra_nanos'])} until {until}")
    return OK


def raises(options: argparse.Namespace, terminal: Terminal) -> int:
    """Raises in force."""
    with operating(options.config) as operations:
        found = operations.raises()
    terminal.document({"raises": found})
    if not found:
        terminal.text("no budget is raised")
        return OK
    terminal.table(
        ("RAISE", "BUDGET", "SCOPE", "BY", "UNTIL", "ACTOR", "NOTE"),
        [
            (
                item["id"],
                item["budget"],
                item["scope"],
                usd(item["extra_nanos"]),
                iso(item["until"]) or "for ever",
                item["actor"],
                item["note"],
            )
            for item in found
        ],
        right="BY",
    )
    return OK


def end(options: argparse.Namespace, terminal: Terminal) -> int:
    """End a raise."""
    with operating(options.config) as operations:
        done = operations.end_raise(options.id, actor())
    terminal.document(done)
    terminal.text(f"ended {done['id']}")
    return OK


def _said(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "budget": options.name,
        "scope": dict(pairs(options.scope, "--scope")),
        "usd": options.usd,
        "hours": options.hours or 0,
        "note": options.note,
    }
