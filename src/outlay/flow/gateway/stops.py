"""The kill path: an order comes in, calls in its scope are found, cut and settled; says how long each part took.

A cut call's upstream is closed before anything else is done; what it cost is booked by the table, and its client gets
a well-formed end in its own dialect. New calls are refused from the same moment on, because the snapshot is swapped
first. Nothing here waits: durability of the order is the caller's.
"""

from collections.abc import Iterable
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from outlay.flow.gateway.admission import Admission
from outlay.flow.gateway.refusal import stopped_by
from outlay.flow.orders import Order, OrderKind, exact_scope, is_covered, is_covered_by_run
from outlay.flow.outcome import Failure
from outlay.flow.scope import Identity

if TYPE_CHECKING:
    from outlay.flow.gateway.server import Gateway


class Stopped(msgspec.Struct, frozen=True):
    """What an order did. Times in ns."""

    cut_calls: int
    cut_sessions: int
    detect_ns: int
    """From what called for the order (a person's command, a rule's threshold) until the gateway had it."""
    decide_ns: int
    """New calls refused, and calls in scope found."""
    act_ns: int
    """Until the last upstream connection of them was closed, its hold settled and its client told."""
    decided_at: int = 0
    """On the machine's monotonic clock, ns."""


def carry_out(gateway: "Gateway", order: Order, orders: tuple[Order, ...], asked_at: int = 0) -> Stopped:
    """Put `orders` (with `order` among them) in force and, for a kill, cut what runs. `asked_at`: UTC ns."""
    detect_ns = max(0, gateway.clock.now() - asked_at) if asked_at else 0
    began = gateway.clock.monotonic()
    gateway.take_orders(orders)
    if order.kind is not OrderKind.KILL:
        return Stopped(0, 0, detect_ns, gateway.clock.monotonic() - began, 0)
    calls = _found(gateway, order, gateway.exchanges)
    sessions = [session for session in gateway.sessions if _covers(gateway, order, session.identity)]
    decided = gateway.clock.monotonic()
    refusal = stopped_by(order, gateway.snapshot.settings)
    for exchange in calls:
        exchange.close_upstream()
    for exchange in calls:
        exchange.kill(Failure.CLIENT_GONE, f"killed: {order.reason}", refusal)
    for session in sessions:
        session.cut(refusal)
    acted_ns = gateway.clock.monotonic() - decided
    return Stopped(len(calls), len(sessions), detect_ns, decided - began, acted_ns, decided)


def _found(gateway: "Gateway", order: Order, exchanges: Iterable[Admission]) -> list[Admission]:
    """Calls in flight that an order covers."""
    exact = exact_scope(order)
    if exact is None or exact[0] == "run":
        return [exchange for exchange in exchanges if _covers(gateway, order, exchange.identity)]
    # one run, key or team is the usual case, and hundreds of calls are looked at
    dimension, value = exact
    of = attrgetter(dimension)
    return [exchange for exchange in exchanges if of(exchange.identity) == value]


def _covers(gateway: "Gateway", order: Order, identity: Identity) -> bool:
    if is_covered(order, identity):
        return True
    if "run" not in order.scope:
        return False
    run = gateway.books.directory.runs.of(identity)
    above = () if run is None else tuple(ancestor.name for ancestor in run.line()[1:])
    return is_covered_by_run(order, identity, above)
