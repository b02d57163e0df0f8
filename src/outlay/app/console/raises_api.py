"""`/api/v1/asks` and `/api/v1/raises`: more money for a while, asked for and decided, as JSON."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from outlay.app.cli.output import iso, money
from outlay.app.console import decisions
from outlay.app.console.desk import Desk
from outlay.app.console.door import person_of
from outlay.app.console.people import Person

_AMOUNTS = ("wanted", "limit", "spent", "held", "needed", "granted", "extra")
_TIMES = ("at", "decided_at", "until")
Signed = Annotated[Person, Depends(person_of)]
Usd = Annotated[str, Field(description="Decimal USD as text")]


class AskBody(BaseModel):
    """A request for a raise: of a refused call, or of a budget's account."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(min_length=1, max_length=500)]
    usd: Usd | None = None
    hours: int = 0
    request_id: str | None = None
    budget: str | None = None
    scope: dict[str, str] = {}


class GrantBody(BaseModel):
    """An approval; what is not given is as asked for."""

    model_config = ConfigDict(extra="forbid")

    usd: Usd | None = None
    hours: int | None = None
    note: str = ""


class DenyBody(BaseModel):
    """A denial."""

    model_config = ConfigDict(extra="forbid")

    note: Annotated[str, Field(min_length=1, max_length=500)]


class RaiseBody(BaseModel):
    """A raise without an ask."""

    model_config = ConfigDict(extra="forbid")

    budget: str
    usd: Usd
    scope: dict[str, str] = {}
    hours: int = 0
    note: str = ""


class Asks(BaseModel):
    """Asks, newest first. Amounts as `_usd` and `_nanos`."""

    asks: list[dict[str, Any]]


class Raises(BaseModel):
    """Raises in force."""

    raises: list[dict[str, Any]]


def add_raises(router: APIRouter, desk: Desk) -> None:
    """The routes, over a desk; who calls is kept with every decision, and may decide in their scope only."""

    @router.get("/asks", tags=["raises"])
    def list_asks(state: Literal["open", "approved", "denied"] | None = None) -> Asks:
        """What is asked for."""
        with desk.operating() as operations:
            return Asks(asks=[shown(ask) for ask in operations.asks(state)])

    @router.post("/asks", tags=["raises"], status_code=201)
    def ask(asked: AskBody, person: Signed) -> dict[str, Any]:
        """Ask for a raise."""
        with desk.operating() as operations:
            return shown(operations.ask(asked.model_dump(exclude_none=True), person.actor))

    @router.post("/asks/{ask_id}/grant", tags=["raises"])
    def grant(ask_id: str, asked: GrantBody, person: Signed) -> dict[str, Any]:
        """Approve: raise the limit, let paused work go on."""
        return shown(decisions.grant_ask(desk, person, ask_id, asked.model_dump(exclude_none=True)))

    @router.post("/asks/{ask_id}/deny", tags=["raises"])
    def deny(ask_id: str, asked: DenyBody, person: Signed) -> dict[str, Any]:
        """Deny; the caller reads the note."""
        return shown(decisions.deny_ask(desk, person, ask_id, asked.note))

    @router.get("/raises", tags=["raises"])
    def list_raises() -> Raises:
        """Raises in force, the one that ends first first."""
        with desk.operating() as operations:
            return Raises(raises=[shown(item) for item in operations.raises()])

    @router.post("/raises", tags=["raises"], status_code=201)
    def put_raise(asked: RaiseBody, person: Signed) -> dict[str, Any]:
        """Raise a budget's account for a while."""
        return shown(decisions.raise_account(desk, person, asked.model_dump()))

    @router.delete("/raises/{raise_id}", tags=["raises"])
    def end_raise(raise_id: str, person: Signed) -> dict[str, Any]:
        """End a raise; what was spent under it stays spent."""
        return shown(decisions.end_raise(desk, person, raise_id))


def shown(found: dict[str, Any]) -> dict[str, Any]:
    """Amounts as text and nanos, times as ISO text."""
    result: dict[str, Any] = {}
    for name, value in found.items():
        amount = name.removesuffix("_nanos")
        if amount in _AMOUNTS and name.endswith("_nanos"):
            result.update(money(amount, value))
        elif name in _TIMES:
            result[name] = iso(value) if value else None
        elif name != "values":
            result[name] = value
    return result
