"""Orders: a stop that a person, or a rule on their behalf, put on a scope. Pure: says what is stopped, stops nothing.

A *kill* refuses new calls and cuts those in flight; a *pause* refuses new ones until somebody lets the work go on. An
order is in force until it is lifted, in shadow mode too: it is an act, not a policy.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from outlay.flow.scope import UNATTRIBUTED, Identity, match_scope, scope_text

_LENIENT = frozenset({"model", "billing"})
"""Dimensions whose values match in more ways than by being equal."""


class OrderKind(StrEnum):
    KILL = "kill"
    PAUSE = "pause"


class Order(msgspec.Struct, frozen=True):
    """One order. `scope` is as a budget's: dimension or `tag.NAME` -> value or `prefix*`; empty stops everything."""

    kind: OrderKind
    scope: Mapping[str, str]
    reason: str
    actor: str
    at: int
    """UTC ns."""

    @property
    def name(self) -> str:
        """`kill:run=nightly-17`: one order of a kind for a scope."""
        return order_name(self.kind, self.scope)

    @property
    def scope_text(self) -> str:
        """The scope for people."""
        return scope_text(tuple(sorted(self.scope.items())))


def order_name(kind: OrderKind, scope: Mapping[str, str]) -> str:
    """Name of an order as it is stored."""
    return f"{kind.value}:{scope_text(tuple(sorted(scope.items())))}"


def is_covered(order: Order, identity: Identity) -> bool:
    """Whether an order covers an identity; who pays for the call does not matter."""
    scope = order.scope
    for dimension, wanted in scope.items():
        # the exact value is the usual case, and a kill looks at every call in flight
        if not dimension.startswith("tag."):
            if getattr(identity, dimension) == wanted:
                continue
            if dimension not in _LENIENT and wanted != UNATTRIBUTED and "*" not in wanted:
                return False
        if identity.billing and "billing" not in scope:
            identity = msgspec.structs.replace(identity, billing="")
        return match_scope(scope, identity) is not None
    return True


def run_scope(org: str, team: str, run: str) -> dict[str, str]:
    """The scope of one run: a run without a team must not stop those of the same name in every team."""
    return {"org": org or UNATTRIBUTED, "team": team or UNATTRIBUTED, "run": run}


def run_of(scope: Mapping[str, str]) -> tuple[str, str, str]:
    """(org, team, run) that a scope names; "" for what it leaves open or calls unattributed."""
    values = (scope.get(name, "") for name in ("org", "team", "run"))
    org, team, run = ("" if value == UNATTRIBUTED else value for value in values)
    return org, team, run


def exact_scope(order: Order) -> tuple[str, str] | None:
    """The one dimension and value of an order that covers just those whose value is equal; None for all others."""
    if len(order.scope) != 1:
        return None
    ((dimension, value),) = order.scope.items()
    is_lenient = dimension.startswith("tag.") or dimension in _LENIENT
    return None if is_lenient or value == UNATTRIBUTED or "*" in value else (dimension, value)


def is_covered_by_run(order: Order, identity: Identity, above: Sequence[str]) -> bool:
    """Whether an order covers one of the runs `above` the identity's: what is below a stopped run is stopped."""
    return "run" in order.scope and any(
        is_covered(order, msgspec.structs.replace(identity, run=name)) for name in above
    )


def find_order(orders: Sequence[Order], identity: Identity, above: Sequence[str] = ()) -> Order | None:
    """The order that stops an identity, or a run `above` its own; a kill before a pause."""
    found = None
    for order in orders:
        if is_covered(order, identity) or is_covered_by_run(order, identity, above):
            if order.kind is OrderKind.KILL:
                return order
            found = found or order
    return found
