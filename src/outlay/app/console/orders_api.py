"""`/api/v1/orders`: kill and pause, as JSON."""

import time
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from outlay.app.cli.output import iso
from outlay.app.console.desk import Desk
from outlay.app.console.door import person_of
from outlay.app.console.people import Person


class OrderAsk(BaseModel):
    """What is to be stopped."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["kill", "pause"]
    scope: dict[str, str] = Field(
        description="Dimension or tag.NAME to value or prefix*; empty stops everything"
    )
    reason: Annotated[str, Field(min_length=1, max_length=500)]


class OrderDone(BaseModel):
    """An order that is in force. Times in nanoseconds; absent when no gateway runs."""

    name: str
    cut_calls: int | None = None
    cut_sessions: int | None = None
    detect_ns: int | None = None
    decide_ns: int | None = None
    act_ns: int | None = None
    decided_at: int | None = None


class OrderView(BaseModel):
    """An order in force."""

    name: str
    kind: str
    scope: dict[str, str]
    reason: str
    actor: str
    at: str | None


class OrderList(BaseModel):
    """Orders in force, newest first."""

    orders: list[OrderView]


class Lifted(BaseModel):
    """An order that is no longer in force."""

    name: str


def add_orders(router: APIRouter, desk: Desk) -> None:
    """The routes, over a desk; who calls is kept with every order."""

    @router.get("/orders", tags=["orders"])
    def list_orders() -> OrderList:
        """What is stopped or paused, since when and why."""
        with desk.operating() as operations:
            found = operations.orders()
        return OrderList(orders=[OrderView(**{**order, "at": iso(order["at"])}) for order in found])

    @router.post("/orders", tags=["orders"], status_code=201)
    def give_order(asked: OrderAsk, person: Annotated[Person, Depends(person_of)]) -> OrderDone:
        """Kill (cut what runs, refuse what comes) or pause (refuse what comes) a scope."""
        at = time.time_ns()
        with desk.operating() as operations:
            return OrderDone(**operations.order(asked.kind, asked.scope, asked.reason, person.actor, at))

    @router.delete("/orders/{name:path}", tags=["orders"])
    def lift_order(name: str, person: Annotated[Person, Depends(person_of)]) -> Lifted:
        """Let a scope go on."""
        with desk.operating() as operations:
            return Lifted(**operations.lift(name, person.actor))
