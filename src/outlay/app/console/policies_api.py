"""`/api/v1/policies`: policies as JSON, as outlay.yaml writes them with amounts as text."""

from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends
from pydantic import BaseModel

from outlay.app.config import check_object
from outlay.app.config.policy_file import policies_in_force
from outlay.app.console.desk import Desk
from outlay.app.console.door import person_of
from outlay.app.console.people import Person
from outlay.app.console.records import Done
from outlay.kernel.errors import ConfigError, NotFound

POLICY: Final = "policy"


class PolicyView(BaseModel):
    """A policy as it is declared."""

    name: str
    origin: str
    """`yaml` or `store`."""
    place: str | None
    version: int | None
    body: dict[str, Any]
    """As in outlay.yaml."""


class PolicyList(BaseModel):
    """All policies, by name."""

    policies: list[PolicyView]


def add_policies(router: APIRouter, desk: Desk) -> None:
    """The routes, over a desk; who calls is kept with every version."""

    @router.get("/policies", tags=["policies"])
    def list_policies() -> PolicyList:
        """All policies, of outlay.yaml and the ledger."""
        return PolicyList(policies=_policies(desk))

    @router.get("/policies/{name}", tags=["policies"])
    def show_policy(name: str) -> PolicyView:
        """One policy."""
        found = next((item for item in _policies(desk) if item.name == name), None)
        if found is None:
            raise NotFound(f"there is no policy {name!r}")
        return found

    @router.put("/policies/{name}", tags=["policies"])
    def set_policy(name: str, body: dict[str, Any], person: Annotated[Person, Depends(person_of)]) -> Done:
        """Make or replace a policy; in force for the next call. Amounts are text."""
        refuse_floats(body, "")
        entry = {**body, "name": body.get("name", name)}
        with desk.operating() as operations:
            check_object(desk.config(), POLICY, name, msgspec.json.encode(entry))
            return Done(**operations.put(POLICY, name, entry, person.actor))

    @router.delete("/policies/{name}", tags=["policies"])
    def delete_policy(name: str, person: Annotated[Person, Depends(person_of)]) -> Done:
        """Take a stored policy away; budgets of its spend velocity go with it."""
        with desk.operating() as operations:
            return Done(**operations.delete(POLICY, name, person.actor))


def _policies(desk: Desk) -> list[PolicyView]:
    return [PolicyView(**item) for item in policies_in_force(desk.config(), desk.objects(POLICY))]


def refuse_floats(value: object, path: str) -> None:
    """Amounts come as text: a JSON number with a fraction has been through a float by now. Raises ConfigError."""
    match value:
        case float():
            raise ConfigError('give amounts as text, such as "2.5"', key=path)
        case dict():
            for name, inner in value.items():
                refuse_floats(inner, f"{path}.{name}" if path else str(name))
        case list():
            for index, inner in enumerate(value):
                refuse_floats(inner, f"{path}[{index}]")
