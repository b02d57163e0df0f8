"""`/api/v1/alerts`: what fires, acknowledged by whom, as JSON."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from outlay.app.cli.output import iso, money
from outlay.app.console.desk import Desk
from outlay.app.console.door import person_of
from outlay.app.console.people import Person


class Acknowledge(BaseModel):
    """Somebody has seen it."""

    model_config = ConfigDict(extra="forbid")

    id: str
    note: Annotated[str, Field(max_length=500)] = ""


class Alerts(BaseModel):
    """Alerts, the newest change first. Amounts as `_usd` and `_nanos`."""

    alerts: list[dict[str, Any]]


class Kept(BaseModel):
    """An alert's state as it is kept now."""

    id: str
    state: str


def add_alerts(router: APIRouter, desk: Desk) -> None:
    """The routes, over a desk; who calls is kept with an acknowledgement."""

    @router.get("/alerts", tags=["alerts"])
    def list_alerts(*, resolved: bool = False) -> Alerts:
        """Alerts that fire or were acknowledged; those that are over if asked."""
        with desk.operating() as operations:
            found = sorted(operations.alerts(), key=lambda alert: -int(alert["changed_at"]))
        return Alerts(alerts=[_shown(alert) for alert in found if resolved or alert["state"] != "resolved"])

    @router.post("/alerts/acknowledge", tags=["alerts"])
    def acknowledge(asked: Acknowledge, person: Annotated[Person, Depends(person_of)]) -> Kept:
        """Say that somebody has seen a firing alert."""
        with desk.operating() as operations:
            return Kept(**operations.acknowledge(asked.id, asked.note, person.actor))


def _shown(alert: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in alert.items():
        if name.endswith("_nanos"):
            found |= money(name.removesuffix("_nanos"), value)
        elif name in ("fired_at", "changed_at", "window_end"):
            found[name] = iso(value)
        elif name == "window_start":
            found[name] = iso(value) if value else None
        else:
            found[name] = value
    return found
