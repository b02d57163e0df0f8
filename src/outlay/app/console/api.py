"""`/api/v1`: what the command line does, as JSON. Each route is a few lines over `Desk` and `reading`."""

from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Query, Security
from fastapi.security import HTTPBearer

from outlay.app.cli.output import iso, money
from outlay.app.cli.times import parse_when
from outlay.app.config import check_object, config_origins, new_secret, secret_hash
from outlay.app.console.alerts_api import add_alerts
from outlay.app.console.desk import Conflict, Desk
from outlay.app.console.door import person_of
from outlay.app.console.orders_api import add_orders
from outlay.app.console.people import Person
from outlay.app.console.policies_api import add_policies, refuse_floats
from outlay.app.console.raises_api import add_raises
from outlay.app.console.reading import (
    budget_view,
    charge_view,
    key_view,
    price_view,
    quote_view,
    spend_figures,
)
from outlay.app.console.records import (
    BudgetList,
    BudgetPut,
    BudgetView,
    ChargeList,
    ConfigValue,
    ConfigView,
    Done,
    ErrorBody,
    KeyCreate,
    KeyList,
    KeyMade,
    KeyRotate,
    KeyRotated,
    PriceList,
    QuoteAsk,
    QuoteView,
    RequestView,
    ResolveAsk,
    Resolved,
    SpendReport,
    SpendRow,
    VerifyView,
)
from outlay.kernel.clock import UnixNanos
from outlay.kernel.errors import ConfigError, NotFound
from outlay.kernel.ids import Id, parse_id
from outlay.kernel.money import MoneyError, usd_to_nanos

Signed = Annotated[Person, Depends(person_of)]
"""Who calls: kept with every change."""
MAX_CHARGES: Final = 1_000
"""Charges in one answer."""
_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    401: {"model": ErrorBody, "description": "No token that is in force"},
    403: {"model": ErrorBody, "description": "The person's role, scope or amount does not cover it"},
    404: {"model": ErrorBody, "description": "No such object"},
    409: {"model": ErrorBody, "description": "outlay.yaml owns the object, or its name is taken"},
    422: {"model": ErrorBody, "description": "What was sent is wrong; `key` names the field"},
    503: {"model": ErrorBody, "description": "The gateway or the ledger cannot be reached"},
}


def api_router(desk: Desk) -> APIRouter:
    """All routes over a desk. The bearer scheme is here for the OpenAPI document; `Door` enforces it."""
    router = APIRouter(
        prefix="/api/v1", dependencies=[Security(HTTPBearer(auto_error=False))], responses=_ERRORS
    )
    _add_keys(router, desk)
    _add_budgets(router, desk)
    _add_prices(router, desk)
    _add_reports(router, desk)
    _add_ledger(router, desk)
    _add_state(router, desk)
    add_policies(router, desk)
    add_orders(router, desk)
    add_raises(router, desk)
    add_alerts(router, desk)
    return router


def _put(desk: Desk, person: Person, kind: str, name: str, body: dict[str, Any]) -> Done:
    """Change an object. The check here names the field; the gateway's own check decides."""
    with desk.operating() as operations:
        check_object(desk.config(), kind, name, _encoded(body))
        return Done(**operations.put(kind, name, body, person.actor))


def _delete(desk: Desk, person: Person, kind: str, name: str) -> Done:
    with desk.operating() as operations:
        return Done(**operations.delete(kind, name, person.actor))


def _add_keys(router: APIRouter, desk: Desk) -> None:
    @router.get("/keys", tags=["keys"])
    def list_keys() -> KeyList:
        """All virtual keys, without their secrets."""
        config = desk.config()
        return KeyList(keys=[key_view(found, config) for found in desk.objects("key")])

    @router.post("/keys", tags=["keys"], status_code=201)
    def create_key(asked: KeyCreate, person: Signed) -> KeyMade:
        """Make a key. The answer holds its secret, which is kept nowhere."""
        secret = new_secret()
        body = {name: value for name, value in asked.model_dump().items() if value}
        body["secret_sha256"] = secret_hash(secret)
        with desk.making:
            if any(
                (found["name"], found["origin"]) == (asked.name, "store") for found in desk.objects("key")
            ):
                raise Conflict(f"there is a key {asked.name!r} already; revoke it first")
            done = _put(desk, person, "key", asked.name, body)
        return KeyMade(**done.model_dump(), secret=secret)

    @router.post("/keys/{name:path}/rotate", tags=["keys"])
    def rotate_key(name: str, person: Signed, asked: KeyRotate | None = None) -> KeyRotated:
        """Give a key a new secret; the answer holds it. Old ones go on for the overlap."""
        secret, overlap_s = new_secret(), (asked or KeyRotate()).overlap_s
        with desk.operating() as operations:
            done = operations.rotate_key(name, secret_hash(secret), overlap_s, person.actor)
        return KeyRotated(**done, secret=secret)

    @router.delete("/keys/{name:path}", tags=["keys"])
    def revoke_key(name: str, person: Signed) -> Done:
        """Revoke a key: its bearer is refused from now on."""
        return _delete(desk, person, "key", name)


def _add_budgets(router: APIRouter, desk: Desk) -> None:
    @router.get("/budgets", tags=["budgets"])
    def list_budgets() -> BudgetList:
        """All budgets with the balances of their current windows."""
        found = desk.budgets()
        with desk.reading() as reader:
            accounts = reader.accounts(desk.clock.now())
        return BudgetList(budgets=[budget_view(item, entry, accounts) for item, entry in found])

    @router.get("/budgets/{name:path}", tags=["budgets"])
    def show_budget(name: str) -> BudgetView:
        """One budget, past windows included."""
        for item, entry in desk.budgets():
            if entry.name == name:
                with desk.reading() as reader:
                    accounts = reader.accounts(desk.clock.now(), with_past=True, budget=name)
                return budget_view(item, entry, accounts)
        raise NotFound(f"there is no budget {name!r}")

    @router.put("/budgets/{name:path}", tags=["budgets"])
    def set_budget(name: str, asked: BudgetPut, person: Signed) -> Done:
        """Make or replace a budget; in force for the next call."""
        return _put(desk, person, "budget", name, {"name": name, **asked.model_dump()})

    @router.delete("/budgets/{name:path}", tags=["budgets"])
    def delete_budget(name: str, person: Signed) -> Done:
        """Take a stored budget away; what was spent stays in the ledger."""
        return _delete(desk, person, "budget", name)


def _add_prices(router: APIRouter, desk: Desk) -> None:
    @router.get("/prices", tags=["prices"])
    def list_prices() -> PriceList:
        """The operator's own price entries, of outlay.yaml and the ledger; the feed's are not listed."""
        config = desk.config()
        return PriceList(prices=[price_view(found, config) for found in desk.objects("price")])

    @router.put("/prices/{name:path}", tags=["prices"])
    def set_price(name: str, entry: dict[str, Any], person: Signed) -> Done:
        """Set a price entry, as in outlay.yaml with amounts as text; `PROVIDER/MODEL` names a model's own."""
        refuse_floats(entry, "")
        return _put(desk, person, "price", name, {"kind": "custom", **entry})

    @router.delete("/prices/{name:path}", tags=["prices"])
    def delete_price(name: str, person: Signed) -> Done:
        """Take an entry away: the feed's price is in force again, if it has one."""
        return _delete(desk, person, "price", name)


def _add_reports(router: APIRouter, desk: Desk) -> None:
    @router.post("/quote", tags=["reports"])
    def quote(asked: QuoteAsk) -> QuoteView:
        """What a request would be held at, and whether it may pass now. Holds nothing."""
        with desk.operating() as operations:
            return quote_view(operations.quote(asked.path, asked.body, asked.key))

    @router.get("/spend", tags=["reports"])
    def spend(by: str = "team,model", since: str = "30d", until: str = "now") -> SpendReport:
        """Spend by dimensions, `tag.NAME`, `served`, `basis`, `status`, `operation`, `day` or `hour`.

        `since` and `until`: `7d`, `12h`, `today`, `now`, or an ISO date or date and time (UTC).
        """
        now = desk.clock.now()
        start = parse_when(since, now, "since")
        # a charge of this very moment belongs to a report until now
        end = UnixNanos(now + 1) if until == "now" else parse_when(until, now, "until")
        if start >= end:
            raise ConfigError("ends before it begins", key="until")
        groups = [name.strip() for name in by.split(",") if name.strip()]
        if len(set(groups)) != len(groups):
            raise ConfigError("names a group twice", key="by")
        with desk.reading() as reader:
            rows = reader.spend(groups, start, end)
        return SpendReport(
            since=iso(start),
            until=iso(end),
            by=groups,
            rows=[SpendRow(group=row.group, **spend_figures([row]).model_dump()) for row in rows],
            total=spend_figures(rows),
        )


def _add_ledger(router: APIRouter, desk: Desk) -> None:
    limit_type = Annotated[int, Query(ge=1, le=MAX_CHARGES)]

    @router.get("/charges", tags=["ledger"])
    def charges(limit: limit_type = 100, basis: str | None = None, before: str | None = None) -> ChargeList:
        """The newest charges, optionally of one basis; `before` is the id to go on from."""
        older = None if before is None else _id(before, "before")
        with desk.reading() as reader:
            found = [charge_view(charge) for charge in reader.charges(limit, basis=basis, before=older)]
        return ChargeList(charges=found, next_before=found[-1].id if len(found) == limit else None)

    @router.get("/unknown", tags=["ledger"])
    def unknown(limit: limit_type = 100, before: str | None = None) -> ChargeList:
        """Charges booked at the held amount because their outcome is unknown."""
        return charges(limit, "outcome_unknown", before)

    @router.get("/requests/{request_id}", tags=["ledger"])
    def request(request_id: str) -> RequestView:
        """All ended attempts of a request."""
        wanted = _id(request_id, "request_id")
        with desk.reading() as reader:
            found = [charge_view(charge) for charge in reader.request(wanted)]
        if not found:
            raise NotFound("no ended attempt of that request is in the ledger")
        return RequestView(request_id=found[0].request_id, charges=found)

    @router.post("/charges/{charge_id}/resolve", tags=["ledger"])
    def resolve(charge_id: str, asked: ResolveAsk, person: Signed) -> Resolved:
        """Book what a call of unknown outcome really cost."""
        try:
            nanos = usd_to_nanos(asked.cost_usd)
        except MoneyError as error:
            raise ConfigError(f"{error}; give USD such as 0.0123", key="cost_usd") from error
        if nanos < 0:
            raise ConfigError("may not be negative", key="cost_usd")
        _id(charge_id, "charge_id")
        with desk.operating() as operations:
            done = operations.resolve(charge_id, nanos, person.actor, asked.note)
        return Resolved(
            id=done["id"],
            **money("cost", done["cost_nanos"]),
            **money("adjustment", done["adjustment_nanos"]),
        )

    @router.get("/verify", tags=["ledger"])
    def verify() -> VerifyView:
        """Recompute the whole ledger from its rows; reads all of it."""
        found = desk.audit()
        return VerifyView(
            is_right=not found.findings,
            charges=found.charges,
            open_holds=found.open_holds,
            accounts=found.accounts,
            findings=list(found.findings),
            **money("spend", found.spend_nanos),
            **money("unknown", found.unknown_nanos),
            **money("overrun", found.overrun_nanos),
            **money("most_over_limit", found.most_over_limit_nanos),
        )


def _add_state(router: APIRouter, desk: Desk) -> None:
    @router.get("/status", tags=["state"])
    def status() -> dict[str, Any]:
        """Counters and gauges of the gateway, and what a doctor would look at. Amounts are nanos."""
        with desk.operating() as operations:
            return operations.status()

    @router.get("/config", tags=["state"])
    def config() -> ConfigView:
        """Every effective value of outlay.yaml and where it comes from; secrets are masked."""
        found = desk.config()
        values = [ConfigValue(**value._asdict()) for value in config_origins(found)]
        return ConfigView(file=found.file, values=values)


def _id(text: str, key: str) -> Id:
    found = parse_id(text)
    if found is None:
        raise ConfigError("is not an id (req_ and 32 hexadecimal digits)", key=key)
    return found


def _encoded(body: dict[str, Any]) -> bytes:
    return msgspec.json.encode(body)
