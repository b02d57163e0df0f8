"""Policies on the request path: rates, prices, hours, ladders; exact under concurrency, and each refusal says why."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from outlay.flow.authorize import Clamp
from outlay.flow.budgets import BudgetSpec
from outlay.flow.gateway.quoting import Preview, preview
from outlay.flow.gateway.refusal import Refusal
from outlay.flow.gateway.snapshot import Disclose, ModelRoute, Settings, Target
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import ChargeView, LedgerReader
from outlay.flow.policy import Hours, PolicyMode, PolicySpec, Rung
from outlay.testing import MockProvider
from tests.harness import SECRET, RunningGateway, budget, key
from tests.reality.load import Reply, post
from tests.world import book, meter_prices, providers

BODY: dict[str, Any] = {
    "model": "gpt-test",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "hello"}],
}
OTHER = "sk-outlay-other"
NEVER = Hours((), 0, 1)


class World:
    """A mock behind a gateway with policies."""

    def __init__(self, folder: Path, mock: MockProvider, *policies: PolicySpec, **changes: Any) -> None:
        budgets: list[BudgetSpec] = changes.pop("budgets", [budget("all", "100")])
        settings = changes.pop("settings", Settings(disclose=Disclose.ALL, wait_s=0))
        self.mock = mock
        self.gateway = RunningGateway(
            folder / "l.db",
            mock.url,
            budgets,
            keys=[key(), key("other", OTHER, team="ads")],
            price_book=changes.pop("price_book", None) or book(),
            upstreams=providers(mock.url),
            settings=settings,
            **changes,
        )
        self.policies = policies

    def __enter__(self) -> "World":
        self.gateway.__enter__()
        if self.policies:
            self.gateway.swap(policies=self.policies)
        return self

    def __exit__(self, *nothing: object) -> None:
        self.gateway.call(self.gateway.books.flush)
        found = audit(self.gateway.path)
        assert (found.findings, found.open_holds) == ((), 0)
        self.gateway.__exit__(*nothing)

    def call(self, body: Any = None, secret: str = SECRET, **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return asyncio.run(post(self.gateway.url, {**BODY, **(body or {})}, secret=secret, headers=named))

    def many(self, count: int, body: Any = None) -> Counter[tuple[int, str]]:
        async def all_at_once() -> list[Reply]:
            asked = {**BODY, **(body or {})}
            return await asyncio.gather(*(post(self.gateway.url, asked) for _ in range(count)))

        replies = asyncio.run(all_at_once())
        return Counter(
            (reply.status, "" if reply.status == 200 else reply.error["code"]) for reply in replies
        )

    @property
    def charges(self) -> list[ChargeView]:
        self.gateway.call(self.gateway.books.flush)
        with LedgerReader(self.gateway.path) as reader:
            return reader.charges()


@pytest.fixture
def mock() -> Any:
    with MockProvider(prices=meter_prices(), behaviour={"output_tokens": 50}) as running:
        yield running


def test_requests_a_minute_are_counted_exactly_for_each_team(tmp_path: Path, mock: MockProvider) -> None:
    policy = PolicySpec(name="pace", scope={"team": "*"}, requests_per_minute=7)
    with World(tmp_path, mock, policy) as world:
        assert world.many(40) == {(200, ""): 7, (429, "rate_limited"): 33}
        refused = world.call()
        assert 1 <= int(refused.headers["retry-after"]) <= 61
        error = refused.error
        assert (error["policy"], error["scope"], error["kind"]) == (
            "pace",
            "team=search",
            "requests_per_minute",
        )
        assert world.call(secret=OTHER).status == 200


def test_calls_in_flight_and_tokens_a_minute(tmp_path: Path, mock: MockProvider) -> None:
    mock.behave(first_byte_ms=300, output_tokens=50)
    with World(tmp_path, mock, PolicySpec(name="p", parallel=3)) as world:
        assert world.many(12) == {(200, ""): 3, (429, "rate_limited"): 9}
        assert world.many(3) == {(200, ""): 3}
    # a failed call lets go of its place, too
    mock.behave(failure="cut_headers")
    (tmp_path / "two").mkdir()
    with World(tmp_path / "two", mock, PolicySpec(name="p", parallel=1)) as world:
        assert [world.call().status for _ in range(3)] == [502, 502, 502]
        mock.behave(failure="none", output_tokens=50)
        assert world.call().status == 200
    (tmp_path / "three").mkdir()
    with World(tmp_path / "three", mock, PolicySpec(name="p", tokens_per_minute=300)) as world:
        found = world.many(10)
        assert set(found) == {(200, ""), (429, "rate_limited")}
        used = sum(
            (charge.tokens["input_tokens"] or 0) + (charge.tokens["output_tokens"] or 0)
            for charge in world.charges
        )
        assert used <= 300
        dear = world.call({"max_tokens": 400})
        assert (dear.status, dear.error["code"]) == (402, "call_above_policy")


def test_dollars_a_minute_hold_before_they_are_spent(tmp_path: Path, mock: MockProvider) -> None:
    mock.behave(first_byte_ms=200, output_tokens=50)
    policy = PolicySpec(name="velocity", scope={"team": "*"}, nanos_per_minute=2_500_000)
    with World(tmp_path, mock, policy) as world:
        found = world.many(30)
        admitted = found[200, ""]
        assert 1 <= admitted <= 4
        assert found[429, "budget_busy"] == 30 - admitted
        spent = world.call({"max_tokens": 300})
        assert spent.error["budget"] == "velocity/usd-per-minute"
        assert spent.error["resets_at"]
        assert sum(charge.cost_nanos for charge in world.charges) <= 2_500_000


def test_price_ceilings_choose_another_target_or_refuse(tmp_path: Path, mock: MockProvider) -> None:
    route = ModelRoute("smart", targets=(Target("anthropic", "claude-test"), Target("openai", "gpt-test")))
    cheap = PolicySpec(name="cheap", scope={"team": "search"}, max_output_nanos_per_mtok=12_000_000_000)
    with World(tmp_path, mock, cheap, models=[route]) as world:
        assert world.call({"model": "smart"}).status == 200
        assert world.call({"model": "smart"}, secret=OTHER).status == 200
        assert sorted(charge.model for charge in world.charges) == ["claude-test", "gpt-test"]
        refused = world.call({"model": "claude-test"})
        assert (refused.status, refused.error["code"]) == (403, "price_above_ceiling")
        assert (refused.error["ceiling"], refused.error["price"]) == ("12.00", "15.00")
        assert refused.headers["x-should-retry"] == "false"


def test_a_call_may_cost_so_much_and_providers_are_preferred(tmp_path: Path, mock: MockProvider) -> None:
    route = ModelRoute("smart", targets=(Target("anthropic", "claude-test"), Target("openai", "gpt-test")))
    policies = (
        PolicySpec(name="small", max_nanos_per_call=3_000_000),
        PolicySpec(name="first", providers=("openai",)),
    )
    with World(tmp_path, mock, *policies, models=[route]) as world:
        assert world.call({"model": "smart"}).status == 200
        assert world.charges[0].provider == "openai"
        refused = world.call({"max_tokens": 5_000})
        assert (refused.status, refused.error["code"], refused.error["policy"]) == (
            402,
            "call_above_policy",
            "small",
        )


def test_no_call_begins_outside_its_hours(tmp_path: Path, mock: MockProvider) -> None:
    with World(tmp_path, mock, PolicySpec(name="office", scope={"team": "search"}, hours=NEVER)) as world:
        refused = world.call()
        assert (refused.status, refused.error["code"], refused.error["policy"]) == (
            403,
            "outside_hours",
            "office",
        )
        assert world.call(secret=OTHER).status == 200
        world.gateway.swap(policies=())
        assert world.call().status == 200


def test_a_ladder_downgrades_says_so_and_pauses(tmp_path: Path, mock: MockProvider) -> None:
    ladder = (
        Rung(30, "month", "gpt-test", ("claude-*",)),
        Rung(80, "month", ""),
    )
    with World(
        tmp_path,
        mock,
        PolicySpec(name="down", ladder=ladder),
        budgets=[budget("month", "0.01", window="month")],
    ) as world:
        seen: list[tuple[int, str, str]] = []
        for _ in range(30):
            reply = world.call({"model": "claude-test"})
            seen.append((reply.status, reply.headers.get("x-outlay-downgrade", ""), reply.body.decode()[:0]))
            if reply.status != 200:
                break
        downgrades = [downgrade for status, downgrade, _ in seen if status == 200]
        assert downgrades[0] == ""
        assert downgrades[-1] == "claude-test -> gpt-test"
        assert downgrades == sorted(downgrades)
        paused = world.call({"model": "claude-test"})
        assert (paused.status, paused.error["code"], paused.error["at_percent"]) == (402, "paused", 80)
        rows = world.charges
        assert {charge.model for charge in rows if "downgraded" in (charge.reason or "")} == {"gpt-test"}
        # paid for what was served: the cheaper model, by the provider's own meter
        assert sum(charge.cost_nanos for charge in rows) == mock.meter.total_nanos
        # a raise lets it go on, down the ladder as far as the larger limit says
        request_id = paused.headers["x-outlay-request-id"]
        assert world.gateway.gateway.refused_calls[request_id].budget == "month"


def test_a_clamp_of_its_own(tmp_path: Path, mock: MockProvider) -> None:
    mock.behave(output_tokens=900)
    policy = PolicySpec(name="whole", scope={"team": "search"}, clamp=Clamp.NEVER)
    with World(tmp_path, mock, policy, budgets=[budget("b", "0.004", {"team": "*"})]) as world:
        unset = {"max_tokens": None}
        assert world.call(unset).error["code"] == "call_too_large"
        assert world.call(unset, secret=OTHER).headers["x-outlay-output-limit"].endswith("(clamped)")


def test_shadow_policies_leave_marks_only(tmp_path: Path, mock: MockProvider) -> None:
    shadow = {"mode": PolicyMode.SHADOW}
    policies = (
        PolicySpec(name="pace", requests_per_minute=1, **shadow),
        PolicySpec(name="deny", scope={"team": "ads"}, deny_models=("gpt-*",), **shadow),
        PolicySpec(name="office", scope={"user": "ada"}, hours=NEVER, **shadow),
    )
    with World(tmp_path, mock, *policies) as world:
        assert [world.call().status for _ in range(2)] == [200, 200]
        assert world.call(secret=OTHER).status == 200
        reasons = [charge.reason for charge in reversed(world.charges)]
        assert reasons == [None, "shadow: rate_limited: pace", "shadow: model_not_allowed: deny"]


def quoted(world: World, name: str = "test", model: str = "gpt-test") -> Preview:
    """The request that `World.call` sends, quoted as the running gateway does."""
    gateway = world.gateway

    def quote() -> Preview | Refusal:
        now, body = gateway.gateway.clock.now(), json.dumps({**BODY, "model": model}).encode()
        key, limits = gateway.snapshot.named[name], gateway.gateway.limits
        return preview(gateway.snapshot, gateway.books, now, key, "/v1/chat/completions", body, limits)

    found = gateway.call(quote)
    assert isinstance(found, Preview), found
    assert found.passes is (found.refusal is None)
    return found


def quoted_code(world: World, name: str = "test", model: str = "gpt-test") -> str:
    refusal = quoted(world, name, model).refusal
    return "" if refusal is None else refusal.code


def test_a_quote_says_what_policies_would(tmp_path: Path, mock: MockProvider) -> None:
    policies = (
        PolicySpec(name="cheap", scope={"team": "search"}, max_output_nanos_per_mtok=1_000_000_000),
        PolicySpec(name="office", scope={"team": "ads"}, hours=NEVER),
    )
    with World(tmp_path, mock, *policies) as world:
        assert quoted_code(world) == "price_above_ceiling"
        assert quoted_code(world, "other") == "outside_hours"


def test_a_quote_says_what_rates_would_and_counts_in_none(tmp_path: Path, mock: MockProvider) -> None:
    pace = PolicySpec(name="pace", scope={"team": "*"}, requests_per_minute=2, tokens_per_minute=10_000)
    with World(tmp_path, mock, pace) as world:
        for left in (2, 1):
            assert [quoted_code(world) for _ in range(5)] == [""] * 5, left
            assert world.call().status == 200
        refused, quote = world.call(), quoted(world)
        assert (refused.status, refused.error["code"]) == (429, "rate_limited")
        assert quote.refusal is not None
        assert (quote.refusal.status, quote.refusal.code) == (429, "rate_limited")
        assert quote.refusal.fields["in_use"] == 2
        assert quoted_code(world, "other") == ""
        # what is only recorded refuses nothing
        world.gateway.swap(policies=(PolicySpec(name="pace", requests_per_minute=1, mode=PolicyMode.SHADOW),))
        world.call()
        assert quoted_code(world) == ""


def test_a_quote_follows_the_ladder(tmp_path: Path, mock: MockProvider) -> None:
    ladder = (Rung(30, "month", "gpt-test", ("claude-*",)), Rung(80, "month", ""))
    settings = Settings(
        disclose=Disclose.ALL, wait_s=0, raise_url="http://here/approvals?request={request_id}"
    )
    with World(
        tmp_path,
        mock,
        PolicySpec(name="down", ladder=ladder),
        budgets=[budget("month", "0.01", window="month")],
        settings=settings,
    ) as world:
        seen = []
        for _ in range(30):
            quote, reply = quoted(world, model="claude-test"), world.call({"model": "claude-test"})
            moved = quote.downgraded_from and f"{quote.downgraded_from} -> {quote.model}"
            assert moved == reply.headers.get("x-outlay-downgrade", "")
            assert quote.passes is (reply.status == 200)
            seen.append(moved)
            if reply.status != 200:
                break
        assert {"", "claude-test -> gpt-test"} == set(seen)
        assert quote.refusal is not None
        assert (quote.refusal.status, quote.refusal.code) == (402, "paused")
        assert quote.refusal.fields["policy"] == "down"
        # a quote is no request: nothing could be asked for at a link
        assert "raise_url" in reply.error and "raise_url" not in quote.refusal.fields
        remembered = world.gateway.gateway.refused_calls
        assert list(remembered) == [reply.headers["x-outlay-request-id"]]


LADDERS = {
    "on to a pause": ((10, "gpt-test", ("claude-*",)), (10, "", ("gpt-*",))),
    "in a circle": ((10, "gpt-test", ("claude-*",)), (10, "claude-test", ("gpt-*",))),
    "by a name of the target": ((10, "gpt-test", ("claude-*",)),),
    "in shadow": ((10, "gpt-test", ("claude-*",)),),
}


@pytest.mark.parametrize("case", LADDERS)
@pytest.mark.parametrize("model", ["claude-test", "smart", "gpt-test"])
def test_a_quote_goes_down_as_far_as_the_call(
    tmp_path: Path, mock: MockProvider, case: str, model: str
) -> None:
    rungs = tuple(Rung(percent, "month", use, models) for percent, use, models in LADDERS[case])
    mode = PolicyMode.SHADOW if case == "in shadow" else PolicyMode.ENFORCE
    route = ModelRoute("smart", targets=(Target("openai", "gpt-test"), Target("anthropic", "claude-test")))
    with World(
        tmp_path,
        mock,
        PolicySpec(name="down", ladder=rungs, mode=mode),
        budgets=[budget("month", "0.005", window="month")],
        models=[route],
    ) as world:
        for _ in range(2):
            world.call()
        quote, reply = quoted(world, model=model), world.call({"model": model})
        assert quote.passes is (reply.status == 200)
        if quote.refusal is not None:
            assert quote.refusal.code == reply.error["code"]
        else:
            moved = quote.downgraded_from and f"{quote.downgraded_from} -> {quote.model}"
            assert moved == reply.headers.get("x-outlay-downgrade", "")
            assert world.charges[0].model == quote.model


def test_a_quote_is_of_the_target_that_would_be_asked(tmp_path: Path, mock: MockProvider) -> None:
    route = ModelRoute("smart", targets=(Target("anthropic", "claude-test"), Target("openai", "gpt-test")))
    with World(tmp_path, mock, PolicySpec(name="first", providers=("openai",)), models=[route]) as world:
        assert (quoted(world, model="smart").provider, quoted_code(world, model="smart")) == ("openai", "")
        world.gateway.swap(policies=(PolicySpec(name="deny", deny_models=("claude-*",)),))
        assert quoted(world, model="smart").provider == "openai"


def test_a_shadow_policy_hides_no_refusal_and_moves_no_call(tmp_path: Path, mock: MockProvider) -> None:
    shadow = {"mode": PolicyMode.SHADOW}
    route = ModelRoute("smart", targets=(Target("anthropic", "claude-test"), Target("openai", "gpt-test")))
    policies = (
        # each is declared before the one that is enforced, and would refuse, move or shorten by itself
        PolicySpec(name="s1", max_nanos_per_call=1, **shadow),
        PolicySpec(name="s2", providers=("openai",), **shadow),
        PolicySpec(name="s3", ladder=(Rung(90, "month", "claude-test"),), **shadow),
        PolicySpec(name="cap", scope={"team": "ads"}, max_nanos_per_call=1),
        PolicySpec(
            name="down", scope={"team": "search"}, ladder=(Rung(20, "month", "gpt-test", ("smart",)),)
        ),
    )
    budgets = [budget("month", "0.004", hard=False)]
    with World(tmp_path, mock, *policies, budgets=budgets, models=[route]) as world:
        refused = world.call(secret=OTHER)
        assert (refused.status, refused.error["code"], refused.error["policy"]) == (
            402,
            "call_above_policy",
            "cap",
        )
        assert world.call({"model": "smart"}).status == 200
        assert world.charges[0].provider == "anthropic"
        while sum(charge.cost_nanos for charge in world.charges) < 4_000_000:
            last = world.call({"model": "smart"})
        assert world.call({"model": "smart"}).headers["x-outlay-downgrade"] == "smart -> gpt-test"
        assert last.status == 200
