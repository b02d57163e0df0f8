"""`outlay kill`: stop a scope, list what is stopped, let it go on."""

import argparse
import time

from outlay.app.cli.access import actor, operating, pairs
from outlay.app.cli.exit_codes import OK
from outlay.app.cli.output import Terminal, iso
from outlay.flow.orders import OrderKind
from outlay.kernel.errors import NotFound


def kill(options: argparse.Namespace, terminal: Terminal) -> int:
    """Cut what runs in a scope and refuse what comes."""
    asked_at = time.time_ns()
    scope = dict(pairs(options.scope, "--scope"))
    if options.dimension is not None:
        scope[options.dimension] = options.value
    with operating(options.config) as operations:
        done = operations.order(OrderKind.KILL.value, scope, options.reason, actor(), asked_at)
    terminal.document(done)
    of = " of every team" if options.dimension == "run" and "team" not in scope else ""
    terminal.text(f"stopped {done['name'].partition(':')[2]}{of}; new calls are refused (403 `killed`)")
    if "cut_calls" in done:
        terminal.text(f"cut {done['cut_calls']} calls in flight and {done['cut_sessions']} open sessions")
        terminal.text(
            f"detect {_ms(done['detect_ns'])} ms, decide {_ms(done['decide_ns'])} ms, act {_ms(done['act_ns'])} ms"
        )
    else:
        terminal.text("no gateway runs: it is refused from the next start on")
    return OK


def orders(options: argparse.Namespace, terminal: Terminal) -> int:
    """Everything that is stopped or paused."""
    with operating(options.config) as operations:
        found = operations.orders()
    terminal.document({"orders": found})
    if not found:
        terminal.text("nothing is stopped")
        return OK
    terminal.table(
        ("ORDER", "SCOPE", "SINCE", "BY", "REASON"),
        [
            (
                order["kind"],
                order["name"].partition(":")[2],
                iso(order["at"]) or "-",
                order["actor"],
                order["reason"],
            )
            for order in found
        ],
    )
    return OK


def lift(options: argparse.Namespace, terminal: Terminal) -> int:
    """Take an order away, by its scope or its whole name."""
    with operating(options.config) as operations:
        names = [order["name"] for order in operations.orders()]
        wanted = [name for name in names if options.name in (name, name.partition(":")[2])]
        if not wanted:
            raise NotFound(f"nothing is stopped by {options.name!r}; `outlay kill list` names what is")
        done = [operations.lift(name, actor()) for name in wanted]
    terminal.document({"lifted": done})
    for item in done:
        terminal.text(f"lifted {item['name']}")
    return OK


def _ms(nanos: int) -> str:
    return f"{nanos // 1_000_000}.{nanos // 1_000 % 1_000:03d}"
