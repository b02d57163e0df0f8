"""Progressive holds: many streams without a limit, money for few; whole answers for as many as there is money for."""

import asyncio
import random
import statistics
from pathlib import Path
from typing import Any

import pytest

from outlay.flow.gateway.snapshot import Disclose, OnClientGone, Progressive, Settings
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import ChargeView, LedgerReader
from outlay.flow.outcome import Billing
from outlay.flow.policy import PolicySpec
from outlay.kernel.errors import StoreError
from outlay.testing import MockProvider
from tests.harness import MOCK_PRICES, RunningGateway, budget
from tests.reality.load import Reply, post

ENGINE: dict[str, Any] = {
    "billing": Billing.SELF_HOSTED,
    "on_client_gone": OnClientGone.CANCEL,
    "progressive": Progressive.EVENTS,
    "run_ahead_tokens": 16,
}
MOCK = {"tokens_per_chunk": 1, "chunk_ms": 4, "on_client_gone": "ahead", "run_ahead_tokens": 8}
SETTINGS = Settings(disclose=Disclose.ALL, default_max_output_tokens=4_000)


def body(tokens: int) -> dict[str, Any]:
    return {
        "model": "gpt-test",
        "stream": True,
        "messages": [{"role": "user", "content": "hello there"}],
        "user": f"mock:output_tokens={tokens}",
    }


def charges_of(gateway: RunningGateway) -> list[ChargeView]:
    gateway.call(gateway.books.flush)
    with LedgerReader(gateway.path) as reader:
        return reader.charges(10_000)


@pytest.mark.slow
def test_a_thousand_streams_with_money_for_a_hundred(tmp_path: Path) -> None:
    chance = random.Random(10)
    answers = [max(40, min(900, round(chance.lognormvariate(5, 0.4)))) for _ in range(1_000)]
    samples: dict[str, list[int]] = {}

    def sample(gateway: RunningGateway) -> None:
        for hold in gateway.books._open.values():
            samples.setdefault(hold.id.hex(), []).append(hold.nanos)

    async def scene(gateway: RunningGateway, tokens: list[int]) -> list[Reply]:
        gate = asyncio.Semaphore(200)
        done = asyncio.Event()

        async def one(size: int) -> Reply:
            async with gate:
                return await post(gateway.url, body(size))

        async def watch() -> None:
            while not done.is_set():
                await asyncio.to_thread(gateway.call, lambda: sample(gateway))
                await asyncio.sleep(0.05)

        watcher = asyncio.create_task(watch())
        replies = await asyncio.gather(*(one(size) for size in tokens))
        done.set()
        await watcher
        return replies

    with (
        MockProvider(prices=MOCK_PRICES, behaviour=MOCK) as mock,
        RunningGateway(
            tmp_path / "l.db", mock.url, [budget("warm", "100")], settings=SETTINGS, **ENGINE
        ) as gateway,
    ):
        # what answers usually are is known from calls before, as in any gateway that has run for a minute
        asyncio.run(scene(gateway, [max(40, round(chance.lognormvariate(5, 0.4))) for _ in range(40)]))
        before = charges_of(gateway)
        output_nanos = [(charge.tokens["output_tokens"] or 0) * 10_000 for charge in before]
        input_nanos = before[0].cost_nanos - output_nanos[0]
        mean = input_nanos + sum(answers) * 10_000 // len(answers)
        spent = sum(charge.cost_nanos for charge in before)
        samples.clear()
        gateway.swap(budgets=(budget("all", f"{(spent + 100 * mean) / 10**9:.9f}"),))
        replies = asyncio.run(scene(gateway, answers))
        mock.wait_for(0)
        charges = charges_of(gateway)[: -len(before)]
        found = audit(gateway.path)
        assert found.findings == ()
        assert found.open_holds == 0
        assert found.most_over_limit_nanos <= 0
        whole = sum(reply.status == 200 and b"[DONE]" in reply.body for reply in replies)
        cut = sum(reply.status == 200 and b"[DONE]" not in reply.body for reply in replies)
        assert {reply.status for reply in replies} <= {200, 402, 429}
        assert whole >= 90
        assert cut <= 10
        for reply in replies:
            if reply.status == 200 and b"[DONE]" not in reply.body:
                assert b'"code":"budget_spent"' in reply.body
        limit = spent + 100 * mean
        assert mock.meter.total_nanos <= limit
        assert mock.meter.total_nanos <= found.spend_nanos <= limit
        real = {charge.id: charge.cost_nanos for charge in charges}
        ratios = [nanos / real[hold] for hold, seen in samples.items() for nanos in seen if real.get(hold)]
        assert statistics.median(ratios) <= 2


@pytest.mark.parametrize("how", [Progressive.EVENTS, Progressive.BYTES])
def test_a_long_answer_extends_and_is_whole(tmp_path: Path, how: Progressive) -> None:
    with (
        MockProvider(prices=MOCK_PRICES, behaviour={**MOCK, "chunk_ms": 1}) as mock,
        RunningGateway(
            tmp_path / "l.db",
            mock.url,
            [budget("all", "1")],
            settings=Settings(first_slice_tokens=40),
            **{**ENGINE, "progressive": how},
        ) as gateway,
    ):
        reply = asyncio.run(post(gateway.url, body(700)))
        assert reply.status == 200
        assert reply.finish == "stop"
        assert b"[DONE]" in reply.body
        assert reply.headers["x-outlay-output-limit"] == "4096 (default)"
        (charge,) = charges_of(gateway)
        assert charge.cost_nanos == mock.meter.total_nanos
        assert charge.hold_nanos >= charge.cost_nanos
        found = audit(gateway.path)
        assert (found.findings, found.overrun_nanos) == ((), 0)


def test_a_stated_limit_and_whole_answers_are_held_whole(tmp_path: Path) -> None:
    with (
        MockProvider(prices=MOCK_PRICES, behaviour={"output_tokens": 20}) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("all", "1")], **ENGINE) as gateway,
    ):
        for changes in ({"max_tokens": 2_000}, {"stream": False}):
            assert asyncio.run(post(gateway.url, {**body(20), **changes})).status == 200
        holds = sorted(charge.hold_nanos for charge in charges_of(gateway))
        assert holds[0] > 2_000 * 10_000
        assert holds[1] > 4_096 * 10_000


def test_a_policy_asks_for_the_worst_case_of_a_call_and_not_for_its_first_slice(tmp_path: Path) -> None:
    dearest = PolicySpec(name="small", max_nanos_per_call=5_000_000)
    with (
        MockProvider(prices=MOCK_PRICES) as mock,
        RunningGateway(
            tmp_path / "l.db", mock.url, [budget("all", "10")], settings=SETTINGS, **ENGINE
        ) as gateway,
    ):
        gateway.swap(policies=(dearest,))
        refused = asyncio.run(post(gateway.url, body(1_000)))
        assert (refused.status, refused.error["code"]) == (402, "call_above_policy")
        assert not mock.meter.entries
        assert asyncio.run(post(gateway.url, {**body(10), "max_tokens": 20})).status == 200


def test_a_stream_that_no_budget_extends_is_cut_and_says_so(tmp_path: Path) -> None:
    settings = Settings(disclose=Disclose.ALL, first_slice_tokens=40, extend_wait_ms=200, wait_s=0)
    with (
        MockProvider(prices=MOCK_PRICES, behaviour=MOCK) as mock,
        RunningGateway(
            tmp_path / "l.db", mock.url, [budget("all", "0.0015")], settings=settings, **ENGINE
        ) as gateway,
    ):
        reply = asyncio.run(post(gateway.url, body(900)))
        assert reply.status == 200
        assert b"[DONE]" not in reply.body
        error = reply.events[-1]["error"]
        assert (error["code"], error["budget"]) == ("budget_spent", "all")
        mock.wait_for(1)
        (charge,) = charges_of(gateway)
        assert (charge.basis, "no further slice" in (charge.reason or "")) == ("counted", True)
        assert mock.meter.total_nanos <= charge.cost_nanos <= charge.hold_nanos <= 1_500_000
        assert audit(gateway.path).findings == ()


def test_a_stream_waits_for_what_others_give_back(tmp_path: Path) -> None:
    settings = Settings(disclose=Disclose.ALL, first_slice_tokens=60, extend_wait_ms=8_000, wait_s=0)

    async def scene(gateway: RunningGateway) -> tuple[Reply, Reply]:
        held = {**body(20), "max_tokens": 100, "user": "mock:output_tokens=100;chunk_ms=15"}
        first = asyncio.create_task(post(gateway.url, held))
        await asyncio.sleep(0.2)
        slow = {**body(150), "user": "mock:output_tokens=150;chunk_ms=40"}
        second = asyncio.create_task(post(gateway.url, slow))
        return await first, await second

    with (
        MockProvider(prices=MOCK_PRICES, behaviour=MOCK) as mock,
        RunningGateway(
            tmp_path / "l.db", mock.url, [budget("all", "0.0036")], settings=settings, **ENGINE
        ) as gateway,
    ):
        first, second = asyncio.run(scene(gateway))
        assert (first.status, second.status) == (200, 200), second.body
        assert b"[DONE]" in second.body
        assert audit(gateway.path).findings == ()
        mock.wait_for(2)
        assert sum(charge.cost_nanos for charge in charges_of(gateway)) == mock.meter.total_nanos


def test_a_stream_that_waits_for_money_never_outruns_what_is_held(tmp_path: Path) -> None:
    """An engine makes on while nobody reads: waiting may only last as long as what is held reaches."""
    settings = Settings(disclose=Disclose.ALL, default_max_output_tokens=4_000, first_slice_tokens=100)

    async def scene(gateway: RunningGateway) -> tuple[Reply, Reply]:
        held = {**body(300), "max_tokens": 300, "user": "mock:output_tokens=300;chunk_ms=40"}
        first = asyncio.create_task(post(gateway.url, held))
        while not gateway.books.open_holds:  # noqa: ASYNC110 - a state of another loop
            await asyncio.sleep(0.01)
        return await post(gateway.url, body(900)), await first

    with (
        MockProvider(prices=MOCK_PRICES, behaviour=MOCK) as mock,
        RunningGateway(
            tmp_path / "l.db", mock.url, [budget("all", "0.0056")], settings=settings, **ENGINE
        ) as gateway,
    ):
        second, first = asyncio.run(scene(gateway))
        assert (first.status, b"[DONE]" in first.body) == (200, True)
        assert second.events[-1]["error"]["code"] == "budget_spent"
        mock.wait_for(2)
        charges_of(gateway)
        found = audit(gateway.path)
        assert (found.findings, found.overrun_nanos) == ((), 0)
        assert mock.meter.total_nanos <= found.spend_nanos <= 5_600_000


def test_an_extension_that_cannot_be_written_lets_nothing_pass(tmp_path: Path) -> None:
    settings = Settings(first_slice_tokens=60)

    async def scene(gateway: RunningGateway) -> Reply:
        task = asyncio.create_task(post(gateway.url, body(400)))
        await asyncio.sleep(0.1)
        store = gateway.books._store
        submit = store.submit

        def failing(batch: Any, done: Any) -> None:
            if batch.extensions:
                done(StoreError("down (test)"))
            else:
                submit(batch, done)

        gateway.call(lambda: setattr(gateway.books, "_store", _Failing(store, failing)))
        return await task

    with (
        MockProvider(prices=MOCK_PRICES, behaviour=MOCK) as mock,
        RunningGateway(
            tmp_path / "l.db", mock.url, [budget("all", "1")], settings=settings, **ENGINE
        ) as gateway,
    ):
        reply = asyncio.run(scene(gateway))
        assert b"[DONE]" not in reply.body
        passed = sum(bool(event.get("choices")) for event in reply.events)
        assert passed <= 60
        mock.wait_for(1)
        (charge,) = charges_of(gateway)
        assert charge.cost_nanos >= mock.meter.total_nanos
        found = audit(gateway.path)
        assert (found.findings, found.open_holds) == ((), 0)


class _Failing:
    """A store whose `submit` is another."""

    def __init__(self, store: Any, submit: Any) -> None:
        self._inner = store
        self.submit = submit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
