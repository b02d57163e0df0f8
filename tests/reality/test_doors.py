"""F4: every route is refused when the budget is spent, charged when used, and equal to the provider's meter."""

from pathlib import Path

import pytest

from outlay.flow.ledger.audit import audit
from outlay.wire.routes import ROUTES, Metering
from tests.reality.doors import DOORS, clients, house
from tests.reality.sdk import charges


@pytest.mark.parametrize("name", DOORS)
def test_charged_when_used(tmp_path: Path, name: str) -> None:
    door = DOORS[name]
    with house(tmp_path) as (mock, gateway):
        with clients(gateway.url) as vendors:
            door.use(vendors)
        mock.wait_for(1)
        booked = charges(gateway)
        assert len(booked) == 1
        assert booked[0].basis == door.basis, booked[0].reason
        if door.basis == "metered":
            assert booked[0].cost_nanos == mock.meter.total_nanos
        else:
            assert booked[0].cost_nanos > mock.meter.total_nanos > 0
        assert (booked[0].cost_nanos == 0) == door.is_free
        assert booked[0].cost_nanos <= booked[0].hold_nanos
        found = audit(gateway.path)
        assert found.findings == ()
        assert found.open_holds == 0
        assert found.spend_nanos == booked[0].cost_nanos


@pytest.mark.parametrize("name", [name for name, door in DOORS.items() if not door.is_free])
def test_refused_when_the_budget_is_spent(tmp_path: Path, name: str) -> None:
    with house(tmp_path, "0.000000001") as (mock, gateway):
        # each vendor's SDK has its own class for it; none may take it for success, and nothing may leave
        with clients(gateway.url) as vendors, pytest.raises(Exception) as raised:
            DOORS[name].use(vendors)
        assert status_of(raised.value) == 402
        assert "budget" in str(raised.value).lower()
        assert not mock.calls
        assert charges(gateway) == []


@pytest.mark.parametrize("name", DOORS)
def test_no_key_opens_no_door(tmp_path: Path, name: str) -> None:
    with house(tmp_path) as (mock, gateway):
        with clients(gateway.url, "sk-wrong") as vendors, pytest.raises(Exception) as raised:
            DOORS[name].use(vendors)
        assert status_of(raised.value) == 401
        assert not mock.calls


def test_every_route_has_a_test() -> None:
    jobs = {route.path for route in ROUTES if route.metering in (Metering.DEFERRED, Metering.SESSION)}
    local = {route.path for route in ROUTES if route.metering is Metering.LOCAL}
    looks = {
        route.path for route in ROUTES if "{id}" in route.path or route.lists or route.path == "/v1/files"
    }
    held = {door.path for door in DOORS.values()}
    same = {path.replace("/v1beta/", "/v1/") for path in held} | {"/v1/rerank"}
    one_by_one = {path.replace(":batchEmbedContents", ":embedContent") for path in held | same}
    assert {route.path for route in ROUTES} - held - same - one_by_one - jobs - local - looks == set()


def status_of(error: BaseException) -> int | None:
    """The HTTP status in an error of any vendor's SDK."""
    for name in ("status_code", "code"):
        found = getattr(error, name, None)
        if isinstance(found, int):
            return found
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        return int(answer["ResponseMetadata"]["HTTPStatusCode"])
    return None
