"""Several targets behind one name: each attempt has its own hold and charge, and the ledger equals both meters."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from outlay.flow.budgets import AccessRule
from outlay.flow.gateway.snapshot import Disclose, ModelRoute, Provider, Settings, Strategy, Target
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import ChargeView, LedgerReader
from outlay.testing import MockProvider
from outlay.wire.intent import Dialect
from tests.harness import MOCK_PRICES, SECRET, RunningGateway, budget
from tests.reality.load import Reply, post

HELLO = {"role": "user", "content": "hello"}
CALL: dict[str, Any] = {"model": "fast", "messages": [HELLO], "max_tokens": 50}


class Stage:
    """Two providers, a and b, and the gateway in front of them."""

    def __init__(self, a: MockProvider, b: MockProvider, gateway: RunningGateway) -> None:
        self.a, self.b, self.gateway = a, b, gateway

    def post(self, **changes: Any) -> Reply:
        return asyncio.run(post(self.gateway.url, {**CALL, **changes}))

    def charges(self) -> list[ChargeView]:
        """All charges, oldest first."""
        self.gateway.call(self.gateway.books.flush)
        with LedgerReader(self.gateway.path) as reader:
            return reader.charges(5000)[::-1]

    def outcome(self) -> list[tuple[str, int, str]]:
        """(provider, attempt, basis) of all charges."""
        return [(charge.provider, charge.attempt, charge.basis) for charge in self.charges()]


@contextmanager
def two(folder: Path, *, budgets: list[Any] | None = None, **route: Any) -> Iterator[Stage]:
    """The stage; at the end the books are right and no less than what the providers billed."""
    provider_changes = route.pop("providers", {})
    settings = route.pop("settings", Settings(disclose=Disclose.ALL))
    rules = route.pop("rules", ())
    targets = route.pop("targets", (Target("a", "gpt-test"), Target("b", "gpt-test")))
    with MockProvider(prices=MOCK_PRICES) as a, MockProvider(prices=MOCK_PRICES) as b:
        upstreams = tuple(
            Provider(
                name=name,
                dialect=Dialect.OPENAI,
                base_url=mock.url + "/v1",
                api_key="k",
                price_source="openai",
                send_request_id=True,
                **provider_changes,
            )
            for name, mock in (("a", a), ("b", b))
        )
        with RunningGateway(
            folder / "l.db",
            a.url,
            budgets or [budget("all", "10")],
            models=[ModelRoute("fast", targets=targets, **route)],
            upstreams=upstreams,
            settings=settings,
            rules=rules,
        ) as gateway:
            yield Stage(a, b, gateway)
            a.wait_for(0)
            b.wait_for(0)
            gateway.call(gateway.books.flush)
            found = audit(gateway.path)
            assert found.findings == ()
            assert found.open_holds == 0
            assert found.spend_nanos >= a.meter.total_nanos + b.meter.total_nanos
            known = found.spend_nanos - found.unknown_nanos
            assert known <= a.meter.total_nanos + b.meter.total_nanos


@pytest.mark.parametrize("status", [429, 500, 503, 529])
def test_a_refusal_for_load_goes_on_to_the_next(tmp_path: Path, status: int) -> None:
    with two(tmp_path) as stage:
        stage.a.behave(status=status)
        reply = stage.post()
        assert reply.status == 200
        assert stage.outcome() == [("a", 1, "void"), ("b", 2, "metered")]
        assert stage.charges()[0].request_id == stage.charges()[1].request_id


def test_a_callers_fault_is_not_tried_again(tmp_path: Path) -> None:
    with two(tmp_path) as stage:
        stage.a.behave(status=400)
        assert stage.post().status == 400
        assert stage.outcome() == [("a", 1, "void")]
        assert not stage.b.calls


def test_half_an_answer_is_booked_and_another_target_answers(tmp_path: Path) -> None:
    with two(tmp_path) as stage:
        stage.a.behave(failure="cut", bill="full")
        assert stage.post().status == 200
        assert stage.outcome() == [("a", 1, "full"), ("b", 2, "metered")] or stage.outcome() == [
            ("a", 1, "outcome_unknown"),
            ("b", 2, "metered"),
        ]
        first = stage.charges()[0]
        assert first.cost_nanos >= stage.a.meter.total_nanos > 0


def test_a_target_that_accepts_and_never_answers(tmp_path: Path) -> None:
    with two(tmp_path, providers={"first_byte_timeout_s": 1}) as stage:
        stage.a.behave(failure="hang_headers", on_client_gone="full")
        assert stage.post().status == 200
        assert stage.outcome() == [("a", 1, "outcome_unknown"), ("b", 2, "metered")]
        stage.a.wait_for(1)


def test_a_dead_target_costs_nothing(tmp_path: Path) -> None:
    with two(tmp_path) as stage:
        stage.a.behave(failure="refuse")
        assert stage.post().status == 200
        assert [charge.basis for charge in stage.charges()][-1] == "metered"
        assert stage.charges()[-1].provider == "b"


def test_a_stream_that_has_begun_is_not_begun_again(tmp_path: Path) -> None:
    with two(tmp_path) as stage:
        stage.a.behave(failure="cut", after_chunks=3)
        reply = stage.post(stream=True)
        assert reply.status == 200
        assert b"upstream_failed" in reply.body
        assert len(stage.outcome()) == 1
        assert not stage.b.calls


def test_a_stream_that_is_refused_goes_on_to_the_next(tmp_path: Path) -> None:
    with two(tmp_path) as stage:
        stage.a.behave(status=503)
        reply = stage.post(stream=True)
        assert b"[DONE]" in reply.body
        assert stage.outcome() == [("a", 1, "void"), ("b", 2, "metered")]


def test_rounds_with_pauses_and_every_attempt_that_was_billed_is_booked(tmp_path: Path) -> None:
    with two(tmp_path, retries=2, backoff_ms=10) as stage:
        # each provider bills its refusals here, as some aggregators do
        stage.a.behave(status=503, bill="full", output_tokens=10)
        stage.b.behave(status=429, retry_after="0")
        reply = stage.post()
        assert reply.status == 429
        assert [name for name, _, _ in stage.outcome()] == ["a", "b"] * 3
        assert [attempt for _, attempt, _ in stage.outcome()] == [1, 2, 3, 4, 5, 6]
        # what its errors cost, their provider does not say: the table's word (void) stands, and the meter differs
        stage.a.meter.reset()


def test_the_last_error_is_what_the_client_gets(tmp_path: Path) -> None:
    with two(tmp_path) as stage:
        stage.a.behave(status=500)
        stage.b.behave(status=529)
        reply = stage.post()
        assert reply.status == 529


def test_weights_are_shares(tmp_path: Path) -> None:
    targets = (Target("a", "gpt-test", weight=3), Target("b", "gpt-test", weight=1))
    with two(tmp_path, strategy=Strategy.WEIGHTED, targets=targets) as stage:
        for _ in range(20):
            assert stage.post().status == 200
        assert (len(stage.a.calls), len(stage.b.calls)) == (15, 5)


def test_the_cheapest_that_can_serve(tmp_path: Path) -> None:
    # embed-test has no output price, so it cannot serve a chat; claude-test is dearer at both ends
    targets = (Target("a", "embed-test"), Target("b", "gpt-test"))
    with two(tmp_path, strategy=Strategy.CHEAPEST, targets=targets) as stage:
        assert stage.post().status == 200
        assert [charge.provider for charge in stage.charges()] == ["b"]


def test_an_open_circuit_is_left_out_and_probed(tmp_path: Path) -> None:
    settings = Settings(disclose=Disclose.ALL, breaker_failures=2, breaker_s=1)
    with two(tmp_path, settings=settings) as stage:
        stage.a.behave(status=503)
        for _ in range(6):
            assert stage.post().status == 200
        assert len(stage.a.calls) == 2
        stage.a.behave(status=200)
        asyncio.run(asyncio.sleep(1.1))
        for _ in range(3):
            assert stage.post().status == 200
        assert len(stage.a.calls) == 5
        view = stage.gateway.call(stage.gateway.gateway.view)
        assert view.targets["a/gpt-test"] == {"failures": 0, "in_flight": 0, "is_open": False}


def test_a_target_at_its_limit_is_passed_over(tmp_path: Path) -> None:
    targets = (Target("a", "gpt-test", max_concurrent=1), Target("b", "gpt-test", max_concurrent=1))
    with two(tmp_path, targets=targets) as stage:
        stage.a.behave(first_byte_ms=300)
        stage.b.behave(first_byte_ms=300)

        async def three() -> list[int]:
            url = stage.gateway.url
            return sorted(
                reply.status for reply in await asyncio.gather(*(post(url, CALL) for _ in range(3)))
            )

        assert asyncio.run(three()) == [200, 200, 429]
        assert stage.post().status == 200


def test_the_gate_is_run_for_the_model_that_will_bill(tmp_path: Path) -> None:
    # the fallback's model is denied: a refusal of the first is not a way around the rule
    rules = [AccessRule({"team": "search"}, deny=("claude-*",))]
    targets = (Target("a", "gpt-test"), Target("b", "claude-test"))
    with two(tmp_path, targets=targets, rules=rules) as stage:
        stage.a.behave(status=503)
        assert stage.post().status == 503
        assert not stage.b.calls


def test_a_fallback_that_the_budget_does_not_cover(tmp_path: Path) -> None:
    # room for one attempt at a time; the first is billed in full and unknown, so nothing is left for the second
    with two(tmp_path, budgets=[budget("all", "0.0015")], providers={"first_byte_timeout_s": 1}) as stage:
        stage.a.behave(failure="hang_headers", on_client_gone="full")
        reply = stage.post()
        assert reply.status == 402
        assert reply.error["code"] in ("budget_spent", "call_too_large")
        assert not stage.b.calls
        stage.a.wait_for(1)


def test_a_client_that_leaves_during_a_pause(tmp_path: Path) -> None:
    with two(tmp_path, retries=3, backoff_ms=2000) as stage:
        stage.a.behave(status=503)
        stage.b.behave(status=503)
        client = openai.OpenAI(base_url=stage.gateway.url + "/v1", api_key=SECRET, max_retries=0, timeout=0.5)
        with pytest.raises(openai.APITimeoutError), client:
            client.chat.completions.create(**CALL)
        asyncio.run(asyncio.sleep(0.2))
        assert [attempt for _, attempt, _ in stage.outcome()] == [1, 2]
        assert stage.gateway.call(lambda: len(stage.gateway.gateway.exchanges)) == 0


def test_a_storm_over_failing_targets(tmp_path: Path) -> None:
    with two(tmp_path, retries=1, backoff_ms=5, budgets=[budget("all", "100")]) as stage:
        mixed: list[dict[str, object]] = [
            {"status": 429},
            {},
            {"failure": "cut", "bill": "full"},
            {"failure": "cut_headers"},
            {"status": 500},
            {},
        ]
        stage.a.queue(*mixed * 50)
        stage.b.queue(*mixed * 50)

        async def storm() -> list[Reply]:
            url = stage.gateway.url
            return list(await asyncio.gather(*(post(url, CALL) for _ in range(200))))

        replies = asyncio.run(storm())
        assert sum(reply.status == 200 for reply in replies) > 150
        by_request: dict[str, list[int]] = {}
        for charge in stage.charges():
            by_request.setdefault(charge.request_id, []).append(charge.attempt)
        assert len(by_request) == 200
        assert all(sorted(attempts) == list(range(1, len(attempts) + 1)) for attempts in by_request.values())


def test_a_translated_target_that_has_no_price_leaves_nothing_behind(tmp_path: Path) -> None:
    route = ModelRoute("fast", targets=(Target("anthropic", "nobody-knows"), Target("openai", "gpt-test")))
    with (
        MockProvider(prices=MOCK_PRICES) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("all", "10")], models=[route]) as gateway,
    ):
        for stream in (False, True):
            reply = asyncio.run(post(gateway.url, {**CALL, "stream": stream}))
            assert (reply.status, reply.finish) == (200, "length")
        gateway.call(gateway.books.flush)
        assert audit(gateway.path).spend_nanos == mock.meter.total_nanos > 0
