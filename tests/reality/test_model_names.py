"""One model under several names: what is said of it holds by each of them, whichever a client asks for."""

from pathlib import Path

import pytest

from outlay.flow.budgets import AccessRule
from outlay.flow.gateway.snapshot import ModelRoute, Target
from outlay.flow.orders import Order, OrderKind
from outlay.flow.policy import PolicySpec, Rung
from outlay.flow.scope import Identity, match_scope
from outlay.kernel.clock import SystemClock
from outlay.lookup.book import PriceBook
from outlay.lookup.feed import feed_of
from outlay.lookup.overrides import CustomModel
from outlay.testing import MockProvider
from tests.harness import budget
from tests.reality.test_policies import World
from tests.world import MODELS, meter_prices

DATED = "gpt-test-2026-01-01"
NAMES = ("gpt-test", DATED, "smart", "GPT-Test")
"""As it is, as the price book also knows it, as a route calls it, and in letters of another case."""
ROUTE = ModelRoute("smart", targets=(Target("openai", "gpt-test"),))


def book() -> PriceBook:
    """`gpt-test` with an alias, and a cheaper model to step down to."""
    rates = {"input": "2.5", "output": "10"}
    models = (
        CustomModel(provider="openai", model="gpt-test", usd_per_mtok=rates, aliases=(DATED, "GPT-Test")),
        CustomModel(provider="openai", model="mini-test", usd_per_mtok=rates),
    )
    return PriceBook.build(feed_of({}), models)


@pytest.fixture
def mock() -> "MockProvider":
    prices = {**meter_prices(), DATED: meter_prices()["gpt-test"], "mini-test": meter_prices()["gpt-test"]}
    with MockProvider(prices=prices, models=MODELS) as found:
        yield found


def world(folder: Path, mock: MockProvider, *policies: PolicySpec, **changes: object) -> World:
    return World(folder, mock, *policies, price_book=book(), models=[ROUTE], **changes)


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_covers_it(tmp_path: Path, mock: MockProvider, name: str) -> None:
    scoped = budget("this-model", "0.002", {"model": "gpt-test"})
    with world(tmp_path, mock, budgets=[budget("all", "1"), scoped]) as found:
        replies = [found.call({"model": name}) for _ in range(6)]
        assert replies[0].status == 200
        assert replies[-1].status == 402
        assert replies[-1].error["budget"] == "this-model"


def test_and_all_names_share_it(tmp_path: Path, mock: MockProvider) -> None:
    scoped = budget("this-model", "0.002", {"model": "gpt-test"})
    with world(tmp_path, mock, budgets=[budget("all", "1"), scoped]) as found:
        passed = [name for _ in range(4) for name in NAMES if found.call({"model": name}).status == 200]
        assert 0 < len(passed) < 5
        assert found.call({"model": "mini-test"}).status == 200


@pytest.mark.parametrize("name", NAMES)
def test_a_list_denies_it(tmp_path: Path, mock: MockProvider, name: str) -> None:
    with world(tmp_path, mock, rules=[AccessRule({}, (), ("gpt-test",))]) as found:
        reply = found.call({"model": name})
        assert (reply.status, reply.error["code"]) == (403, "model_not_allowed")
        assert found.call({"model": "mini-test"}).status == 200


@pytest.mark.parametrize("name", NAMES)
def test_an_order_stops_it(tmp_path: Path, mock: MockProvider, name: str) -> None:
    with world(tmp_path, mock) as found:
        order = Order(OrderKind.KILL, {"model": "gpt-test"}, "too dear", "eve", SystemClock().now())
        found.gateway.swap(orders=(order,))
        reply = found.call({"model": name})
        assert (reply.status, reply.error["code"]) == (403, "killed")
        assert found.call({"model": "mini-test"}).status == 200


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_of_its_scope_holds(tmp_path: Path, mock: MockProvider, name: str) -> None:
    policy = PolicySpec(name="slow", scope={"model": "gpt-test"}, requests_per_minute=1)
    with world(tmp_path, mock, policy) as found:
        assert [found.call({"model": name}).status for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("name", NAMES)
def test_a_ladder_moves_it(tmp_path: Path, mock: MockProvider, name: str) -> None:
    policy = PolicySpec(name="down", ladder=(Rung(0, "all", "mini-test", ("gpt-test",)),))
    with world(tmp_path, mock, policy) as found:
        reply = found.call({"model": name})
        assert reply.headers["x-outlay-downgrade"] == f"{name} -> mini-test"


def test_a_ladder_leads_on(tmp_path: Path, mock: MockProvider) -> None:
    """What a rung leads to has rungs of its own; ladders that lead to each other end."""
    down = PolicySpec(name="down", ladder=(Rung(0, "all", "mini-test", ("gpt-test",)),))
    halt = PolicySpec(name="halt", ladder=(Rung(0, "all", "", ("mini-test",)),))
    back = PolicySpec(name="back", ladder=(Rung(0, "all", "gpt-test", ("mini-test",)),))
    with world(tmp_path, mock, down, halt) as found:
        reply = found.call({"model": "gpt-test"})
        assert (reply.status, reply.error["code"], reply.error["policy"]) == (402, "paused", "halt")
        found.gateway.swap(policies=(down, back))
        assert found.call({"model": "gpt-test"}).status == 200


def test_a_star_takes_the_name_that_was_asked_for() -> None:
    who = Identity(org="acme", model="smart", model_names=("gpt-test",))
    assert match_scope({"model": "*"}, who) == (("model", "smart"),)
    assert match_scope({"model": "gpt-*"}, who) == (("model", "gpt-*"),)
    assert match_scope({"model": "gpt-test"}, who) == (("model", "gpt-test"),)
    assert match_scope({"model": "unattributed"}, who) is None
