"""What can be typed to steer what runs: `outlay kill`. Imports argparse only."""

import argparse
from typing import Any, Protocol

KILLABLE = ("run", "key", "team", "user", "agent", "model", "customer", "org")
"""Scopes that have a command of their own."""


class AddsCommands(Protocol):
    """A group of commands, as `parser` makes them."""

    def add(self, name: str, run: str, title: str) -> argparse.ArgumentParser: ...


def add_kill(group: AddsCommands) -> None:
    """`outlay kill ...`."""
    for dimension in KILLABLE:
        one = group.add(dimension, "steering:kill", f"stop one {dimension}: cut what runs, refuse what comes")
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
