"""What can be typed to steer what runs: `outlay kill`, `approve`, `policy`. Imports argparse only."""

import argparse
from typing import Any, Protocol

KILLABLE = ("run", "key", "team", "user", "agent", "model", "customer", "org")
"""Scopes that have a command of their own."""
_EVERY_TEAM = "the runs of that name, of every team (`--scope team=TEAM`: of one)"
"""Two teams may each have a run of one name: they are two runs."""


class AddsCommands(Protocol):
    """A group of commands, as `parser` makes them."""

    def add(self, name: str, run: str, title: str) -> argparse.ArgumentParser: ...


def add_kill(group: AddsCommands) -> None:
    """`outlay kill ...`."""
    for dimension in KILLABLE:
        what = _EVERY_TEAM if dimension == "run" else f"one {dimension}"
        one = group.add(dimension, "steering:kill", f"stop {what}: cut what runs, refuse what comes")
        one.add_argument(
            "value", metavar=dimension.upper(), help="its name; `prefix*` stops all that begin so"
        )
        one.set_defaults(dimension=dimension)
        _add_reason(one)
    everything = group.add("all", "steering:kill", "stop everything")
    everything.set_defaults(dimension=None, value=None)
    _add_reason(everything)
    group.add("list", "steering:orders", "what is stopped, since when and why")
    lift = group.add("lift", "steering:lift", "let a scope go on")
    lift.add_argument("name", metavar="NAME", help="as in `outlay kill list`, such as run=nightly-17")


def add_run(group: AddsCommands) -> None:
    """`outlay run ...`."""
    listed = group.add(
        "list", "runs:show_all", "runs, the newest first: cost, calls, limits, what stops them"
    )
    listed.add_argument("--since", default="24h", metavar="WHEN", help="default: 24h")
    listed.add_argument("--limit", type=int, default=50, metavar="N")
    show = group.add(
        "show", "runs:show", "where a run's money went: first call, re-sent context, retries, ..."
    )
    pause = group.add(
        "pause", "runs:pause", "refuse new calls (402) of a run until it is resumed or approved"
    )
    pause.add_argument(
        "--reason", required=True, metavar="TEXT", help="why; callers read it in their refusals"
    )
    resume = group.add("resume", "runs:resume", "let a paused or stopped run go on")
    for one in (show, pause, resume):
        one.add_argument("name", metavar="RUN")
        one.add_argument("--team", metavar="TEAM", help=_one_team(one is show))
    show.add_argument("--since", default="30d", metavar="WHEN", help="default: 30d")
    show.add_argument("--calls", action="store_true", help="every charge of it, too")


def _one_team(is_shown: bool) -> str:
    where = "where several teams have a run of that name"
    return where if is_shown else f"{where}; default: of every team"


def add_approve(group: AddsCommands) -> None:
    """`outlay approve ...`."""
    listed = group.add("list", "approving:show_all", "what is asked for, newest first")
    listed.add_argument("--all", action="store_true", help="decided ones, too")
    show = group.add("show", "approving:show", "one ask: who, why, the figures")
    show.add_argument("id", metavar="ASK")
    grant = group.add("grant", "approving:grant", "approve: raise the limit, let paused work go on")
    grant.add_argument("id", metavar="ASK")
    _add_amount(grant, "default: what is asked for")
    deny = group.add("deny", "approving:deny", "deny; the caller reads the note")
    deny.add_argument("id", metavar="ASK")
    deny.add_argument("--note", required=True, metavar="TEXT")


def add_alert(group: AddsCommands) -> None:
    """`outlay alert ...`."""
    listed = group.add("list", "alerting:show_all", "alerts that fire or were acknowledged")
    listed.add_argument("--all", action="store_true", help="resolved ones, too")
    ack = group.add("ack", "alerting:acknowledge", "say that somebody has seen an alert")
    ack.add_argument("id", metavar="ALERT")
    ack.add_argument("--note", default="", metavar="TEXT")
    test = group.add("test", "alerting:test", "send a test message; exit code 1 if a target did not take it")
    test.add_argument("target", nargs="*", metavar="TARGET", help="default: all")


def add_raises(group: AddsCommands) -> None:
    """`outlay budget request|raise|raises|unraise`."""
    ask = group.add("request", "approving:request", "ask for a raise of a budget")
    put = group.add("raise", "approving:put", "raise a budget for a while")
    for one in (ask, put):
        one.add_argument("name", metavar="BUDGET", help="its name; `outlay.run` for a run's own limit")
        one.add_argument(
            "--scope",
            action="append",
            default=[],
            metavar="DIMENSION=VALUE",
            help="which account, where the budget has one for each value; repeatable",
        )
    _add_amount(ask, "more than the limit", is_required=True)
    _add_amount(put, "more than the limit", is_required=True)
    group.add("raises", "approving:raises", "raises in force")
    end = group.add("unraise", "approving:end", "end a raise before its time")
    end.add_argument("id", metavar="RAISE")


def add_policy(group: AddsCommands) -> None:
    """`outlay policy ...`."""
    check = group.add("check", "policies:check", "check a file of policies and budgets; names every problem")
    plan = group.add("plan", "policies:plan", "what applying a file would make, change and delete")
    plan.add_argument(
        "--detailed-exitcode", action="store_true", help="exit code 1 if there is something to do"
    )
    apply = group.add(
        "apply", "policies:apply", "bring policies and budgets to what a file says, all or nothing"
    )
    apply.add_argument("--note", default="", metavar="TEXT", help="why; kept with every version it makes")
    simulate = group.add(
        "simulate", "simulated:simulate", "what a file would have made of past charges; changes nothing"
    )
    for one in (check, plan, apply, simulate):
        one.add_argument(
            "file", metavar="FILE", help="YAML with `policies:` and `budgets:`, as in outlay.yaml"
        )
    for one in (plan, apply):
        one.add_argument(
            "--prune",
            action="store_true",
            help="delete stored objects that the file does not name, of each section that it has",
        )
    simulate.add_argument(
        "--since", default="30d", metavar="WHEN", help="7d, 12h, 2w, today, or an ISO date; default 30d"
    )
    simulate.add_argument("--until", metavar="WHEN", help="default: now")
    simulate.add_argument(
        "--replace",
        action="store_true",
        help="in the place of the policies and budgets in force; default: beside them",
    )
    group.add("list", "policies:show_all", "all policies, of outlay.yaml and the ledger")
    for name, title in (
        ("show", "one policy, field by field"),
        ("history", "its stored versions: who, when, why, and what changed"),
        ("delete", "take a stored policy away"),
    ):
        group.add(name, f"policies:{name}", title).add_argument("name", metavar="NAME")


def _add_amount(parser: Any, what: str, *, is_required: bool = False) -> None:
    parser.add_argument("--usd", metavar="USD", required=is_required, help=what)
    parser.add_argument("--hours", type=int, metavar="N", help="for how long; default: until the window ends")
    parser.add_argument(
        "--note", "--reason", dest="note", default="", metavar="TEXT", help="why; kept with the raise"
    )


def _add_reason(parser: Any) -> None:
    parser.add_argument(
        "--reason", required=True, metavar="TEXT", help="why; callers read it in their refusals"
    )
    parser.add_argument(
        "--scope",
        action="append",
        default=[],
        metavar="DIMENSION=VALUE",
        help="only where this holds, too; repeatable",
    )
