"""`outlay status` and `outlay doctor`: what runs, and what is wrong with it."""

import argparse
from typing import Any, NamedTuple

from outlay.app.cli.access import open_config, operating, reading
from outlay.app.cli.exit_codes import FAILED, OK, UNAVAILABLE
from outlay.app.cli.output import Terminal, money, usd
from outlay.app.cli.start import config_notes
from outlay.app.config import Config
from outlay.kernel.errors import OutlayError


class Finding(NamedTuple):
    """One thing the doctor looked at."""

    check: str
    state: str
    """`ok`, `warning` or `problem`."""
    detail: str


def status(options: argparse.Namespace, terminal: Terminal) -> int:
    """What runs. Exit code 5 if no gateway does."""
    with operating(options.config) as operations:
        found = operations.status()
    terminal.document(found)
    metrics = found.get("metrics") or {}
    rows = [
        ("gateway", "running" if found["is_running"] else "not running"),
        ("config", f"{found['config']}{': ' + found['config_problem'] if found['config_problem'] else ''}"),
        ("ledger", found["ledger"]),
        ("prices", found["price_feed"]),
        ("providers", ", ".join(found["providers"]) or "none"),
        ("keys", str(found["keys"])),
        ("budgets", str(found["budgets"])),
        ("policies", str(found["policies"])),
        ("stopped or paused scopes", str(found["orders"])),
        ("raises in force / asked for", f"{found['raises']} / {found['asks_open']}"),
        ("alerts that fire", str(found["alerts_firing"])),
    ]
    if metrics:
        rows += [
            ("connections", str(metrics.get("connections", 0))),
            ("calls in flight", str(metrics.get("exchanges", 0))),
            ("waiting for money", str(metrics.get("waiting", 0))),
            ("jobs at providers", str(metrics.get("jobs", 0))),
            ("open WebSockets", str(metrics.get("sessions", 0))),
            ("open holds", f"{metrics.get('open_holds', 0)} ({usd(metrics.get('held_nanos', 0))})"),
            ("spent since start", usd(sum((metrics.get("spend_nanos") or {}).values()))),
            ("refused since start", str(sum((metrics.get("refusals") or {}).values()))),
            ("blocked", metrics.get("blocked") or "no"),
        ]
    terminal.table(("WHAT", "STATE"), rows)
    return OK if found["is_running"] else UNAVAILABLE


def doctor(options: argparse.Namespace, terminal: Terminal) -> int:
    """Look at everything; exit code 1 if something is a problem."""
    config = open_config(options.config)
    with operating(options.config) as operations:
        accepts = {
            "host_crashed": options.accept_recovery,
            "clock_jumped": options.accept_clock,
            "ledger_restored": options.accept_restore,
        }
        code = next((code for code, is_accepted in accepts.items() if is_accepted), None)
        if code is not None:
            accepted = operations.accept(code)
            terminal.document({"code": code, "accepted": accepted})
            terminal.text(
                "accepted: spending goes on" if accepted else f"nothing to accept: {code} blocks nothing"
            )
            return OK if accepted else FAILED
        state = operations.status()
        objects = operations.objects()
    findings = [
        Finding("config", "ok", f"{config.path} is right"),
        *(Finding("config", "warning", note) for note in config_notes(config)),
        *_of_state(state),
        *_of_objects(objects),
        *_of_ledger(config),
    ]
    is_well = not any(finding.state == "problem" for finding in findings)
    terminal.document({"is_well": is_well, "findings": [finding._asdict() for finding in findings]})
    terminal.table(("CHECK", "STATE", "DETAIL"), findings)
    return OK if is_well else FAILED


def _of_state(state: dict[str, Any]) -> list[Finding]:
    metrics = state.get("metrics") or {}
    found = [
        Finding("gateway", "ok", "running")
        if state["is_running"]
        else Finding("gateway", "warning", "not running; `outlay up` starts it")
    ]
    if state["config_problem"]:
        found.append(
            Finding("config", "problem", f"the last edit is not in force: {state['config_problem']}")
        )
    if state["host_crashed"] or metrics.get("host_crashed"):
        found.append(
            Finding(
                "recovery",
                "problem" if metrics.get("blocked") == "host_crashed" else "warning",
                "the host went down without a clean stop: the last rows may be missing;"
                " compare with the provider, then `outlay doctor --accept-recovery`",
            )
        )
    elif not state["was_clean"]:
        found.append(
            Finding(
                "recovery",
                "warning",
                f"the last process was killed; {state['recovered_holds']} holds recovered",
            )
        )
    found += [
        Finding(
            "identity", "problem", f"keys of the issuer {name!r}: {problem}; the last good ones are in force"
        )
        for name, problem in (state.get("issuers") or {}).items()
        if problem
    ]
    blocked = metrics.get("blocked")
    if blocked and blocked != "host_crashed":
        hints = {
            "clock_jumped": "; check the clock, then `outlay doctor --accept-clock`",
            "ledger_restored": ": the ledger is older than what this gateway wrote, so that what was spent since is not"
            " in it; compare with the provider, then `outlay doctor --accept-restore`",
        }
        hint = hints.get(blocked, "")
        found.append(Finding("spending", "problem", f"blocked: {blocked}{hint}"))
    if metrics.get("is_store_down"):
        found.append(Finding("ledger", "problem", "the ledger does not take writes; all calls are refused"))
    return found


def _of_objects(objects: list[dict[str, Any]]) -> list[Finding]:
    owned = {(item["kind"], item["name"]): item["place"] for item in objects if item["origin"] == "yaml"}
    return [
        Finding(
            "objects",
            "warning",
            f"the stored {item['kind']} {item['name']!r} is not in force:"
            f" {owned[item['kind'], item['name']]} declares it",
        )
        for item in objects
        if item["origin"] == "store" and (item["kind"], item["name"]) in owned
    ]


def _of_ledger(config: Config) -> list[Finding]:
    try:
        with reading(config) as reader:
            totals = reader.totals()
    except OutlayError as error:
        return [Finding("ledger", "problem", str(error))]
    spent = money("spend", totals["spend_nanos"])["spend_usd"]
    found = [Finding("ledger", "ok", f"{totals['charges']} charges, ${spent} spent")]
    if totals["unknown"]:
        found.append(
            Finding(
                "ledger",
                "warning",
                f"{totals['unknown']} charges of unknown outcome; `outlay ledger unknown`",
            )
        )
    return found
