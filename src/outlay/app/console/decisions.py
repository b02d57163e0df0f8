"""Decisions about money, made by a person: checked against their scope and amount, then handed to the gateway."""

from collections.abc import Mapping
from typing import Any

from outlay.app.console.desk import Desk
from outlay.app.console.people import Forbidden, Person, check_decision, raised_by
from outlay.app.control import ControlClient
from outlay.kernel.errors import ConfigError, NotFound
from outlay.kernel.money import MoneyError, usd_to_nanos


def grant_ask(desk: Desk, person: Person, ask_id: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """Approve an ask. Raises Forbidden, NotFound, ConfigError, GatewayDown."""
    # one decision at a time: two must not both find the same amount still free
    with desk.deciding, desk.operating() as operations:
        ask = _ask(operations, ask_id)
        nanos = ask["wanted_nanos"] if said.get("usd") is None else _nanos(said["usd"])
        _check_ask(operations, person, ask, nanos)
        return operations.grant(ask_id, said, person.actor)


def deny_ask(desk: Desk, person: Person, ask_id: str, note: str) -> dict[str, Any]:
    """Deny an ask. Raises Forbidden, NotFound, ConfigError, GatewayDown."""
    with desk.deciding, desk.operating() as operations:
        _check_ask(operations, person, _ask(operations, ask_id), 0)
        return operations.deny(ask_id, note, person.actor)


def raise_account(desk: Desk, person: Person, said: Mapping[str, Any]) -> dict[str, Any]:
    """Raise an account without an ask. Raises Forbidden, NotFound, ConfigError, GatewayDown."""
    values = {str(name): str(value) for name, value in (said.get("scope") or {}).items()}
    with desk.deciding, desk.operating() as operations:
        budget = str(said.get("budget") or "")
        if not person.is_admin:
            entry = next((entry for _, entry in desk.budgets() if entry.name == budget), None)
            fixed = {} if entry is None else {n: v for n, v in entry.scope.items() if not v.endswith("*")}
            raised = raised_by(person, operations.raises(), budget, {**fixed, **values})
            check_decision(person, {**values, **fixed}, _nanos(said.get("usd")), raised)
        return operations.raise_budget(said, person.actor)


def end_raise(desk: Desk, person: Person, raise_id: str) -> dict[str, Any]:
    """End a raise. Raises Forbidden, NotFound, GatewayDown."""
    with desk.deciding, desk.operating() as operations:
        if not person.is_admin:
            found = next((item for item in operations.raises() if item["id"] == raise_id), None)
            if found is None:
                raise NotFound(f"there is no raise {raise_id!r} in force")
            check_decision(person, dict(found["values"]), 0, 0)
        return operations.end_raise(raise_id, person.actor)


def may_decide(person: Person, ask: Mapping[str, Any], orders: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether an ask lies in what the person decides about; `orders` are the scopes of those in force by name."""
    return person.is_admin or person.covers(_scope_of(ask, orders))


def _check_ask(operations: ControlClient, person: Person, ask: Mapping[str, Any], nanos: int) -> None:
    if person.is_admin:
        return
    orders = {order["name"]: order["scope"] for order in operations.orders()}
    values = _scope_of(ask, orders)
    raised = raised_by(person, operations.raises(), ask["budget"], values) if ask["budget"] else 0
    check_decision(person, values, nanos, raised)


def _scope_of(ask: Mapping[str, Any], orders: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """What would change: the account, or all that the order stops."""
    return dict(ask["values"]) if ask["budget"] else dict(orders.get(ask["order"], {}))


def _ask(operations: ControlClient, ask_id: str) -> dict[str, Any]:
    found = next((ask for ask in operations.asks() if ask["id"] == ask_id), None)
    if found is None:
        raise NotFound(f"nothing is asked for under {ask_id!r}")
    return found


def _nanos(usd: object) -> int:
    try:
        return usd_to_nanos(str(usd))
    except MoneyError as error:
        raise ConfigError(f"{error}; give USD such as 12.50", key="usd") from error


__all__ = ["Forbidden", "deny_ask", "end_raise", "grant_ask", "may_decide", "raise_account"]
