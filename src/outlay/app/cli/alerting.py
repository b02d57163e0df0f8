"""`outlay alert`: what fires, acknowledge it, and whether messages arrive."""

import argparse

import msgspec

from outlay.app.alerting.telling import payload_of, tell, text_of, title_of
from outlay.app.cli.access import actor, open_config, operating
from outlay.app.cli.exit_codes import FAILED, OK
from outlay.app.cli.output import Terminal, iso, usd
from outlay.kernel.clock import SystemClock
from outlay.kernel.errors import NotFound
from outlay.report.alerts import Alert, Kind, State


def show_all(options: argparse.Namespace, terminal: Terminal) -> int:
    """Alerts, the newest change first."""
    with operating(options.config) as operations:
        found = sorted(operations.alerts(), key=lambda alert: -int(alert["changed_at"]))
    if not options.all:
        found = [alert for alert in found if alert["state"] != State.RESOLVED]
    terminal.document({"alerts": found})
    if not found:
        terminal.text("nothing fires")
        return OK
    terminal.table(
        ("ALERT", "STATE", "BUDGET", "SCOPE", "AT", "OF", "SPENT", "LIMIT", "SINCE"),
        [
            (
                alert["id"],
                alert["state"],
                alert["budget"],
                alert["scope"],
                f"{alert['value_percent']} %",
                f"{alert['threshold']} % of {alert['kind'].replace('_', ' ')}",
                usd(alert["spent_nanos"]),
                usd(alert["limit_nanos"]),
                iso(alert["fired_at"]) or "-",
            )
            for alert in found
        ],
        right="AT SPENT LIMIT",
    )
    return OK


def acknowledge(options: argparse.Namespace, terminal: Terminal) -> int:
    """Somebody has seen it."""
    with operating(options.config) as operations:
        done = operations.acknowledge(options.id, options.note, actor())
    terminal.document(done)
    terminal.text(f"acknowledged {options.id}")
    return OK


def test(options: argparse.Namespace, terminal: Terminal) -> int:
    """Send a test message to targets, from here."""
    section = open_config(options.config).declared.alerts
    known = {target.name: target for target in section.targets}
    missing = [name for name in options.target if name not in known]
    if missing or not known:
        raise NotFound(
            f"there is no target {missing[0]!r}" if missing else "outlay.yaml names no alerts.targets"
        )
    now = SystemClock().now()
    alert = Alert(
        "test", "test", Kind.SPEND, 80, State.FIRING, "test", "this is a test", 0, now, 10**11, 8 * 10**10, 10**9,
        80, now, now,
    )  # fmt: skip
    told = [
        tell(
            known[name],
            f"Test: {title_of(alert)}",
            text_of(alert, (), section.link),
            {**payload_of(alert, (), section.link), "event": "test"},
        )
        for name in (options.target or list(known))
    ]
    terminal.document({"targets": msgspec.to_builtins(told)})
    terminal.table(
        ("TARGET", "STATE", "WHY"),
        [(item.target, "ok" if item.is_delivered else "problem", item.problem) for item in told],
    )
    return OK if all(item.is_delivered for item in told) else FAILED
