"""Many calls at once against little money: audited from the store's rows, compared with the provider's own meter."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from outlay.flow.gateway.snapshot import Disclose, Settings
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import LedgerReader
from outlay.kernel.money import format_usd
from outlay.testing import MockProvider
from tests.harness import MOCK_PRICES, RunningGateway, budget
from tests.reality.load import Reply, post, storm

pytestmark = pytest.mark.slow

USUAL = {"input_tokens": 120, "output_tokens": 80}
PROMPT = "tell me something about the sea " * 12


def body(**changes: Any) -> dict[str, Any]:
    """A chat request; the mock bills 120 input tokens for it."""
    return {"model": "gpt-test", "messages": [{"role": "user", "content": PROMPT}], **changes}


def hold_of(gateway: RunningGateway, request: dict[str, Any]) -> int:
    """Worst case of a request in nanos, as the ledger books it: one call in a gateway with money enough."""
    asyncio.run(post(gateway.url, request))
    gateway.call(gateway.books.flush)
    with LedgerReader(gateway.path) as reader:
        return reader.charges(1)[0].hold_nanos


def assert_books_right(gateway: RunningGateway, mock: MockProvider, limit_nanos: int) -> None:
    gateway.call(gateway.books.flush)
    found = audit(gateway.path)
    assert found.findings == ()
    assert found.most_over_limit_nanos <= 0
    assert found.open_holds == 0
    assert found.overrun_nanos == 0
    assert found.spend_nanos == mock.meter.total_nanos
    assert found.spend_nanos <= limit_nanos


def refusals(replies: list[Reply]) -> Counter[str]:
    return Counter(reply.error["code"] for reply in replies if reply.status != 200)


@pytest.mark.parametrize("stream", [False, True])
def test_no_hold_past_the_limit_and_the_money_is_used(tmp_path: Path, stream: bool) -> None:
    request = body(max_tokens=80, stream=stream)
    with MockProvider(prices=MOCK_PRICES, behaviour=USUAL) as mock:
        with RunningGateway(tmp_path / "probe.db", mock.url, [budget("all", "100")]) as probe:
            worst = hold_of(probe, request)
        mock.meter.reset()
        mock.behave(first_byte_ms=300)
        limit = 100 * worst
        settings = Settings(disclose=Disclose.ALL, wait_s=60)
        budgets = [budget("hundred", format_usd(limit)), budget("team", "1000", {"team": "*"})]
        with RunningGateway(tmp_path / "l.db", mock.url, budgets, settings=settings) as gateway:
            replies = asyncio.run(storm(gateway.url, 1000, 200, request))
            assert_books_right(gateway, mock, limit)
            good = [reply for reply in replies if reply.status == 200]
            spent = mock.meter.total_nanos
            assert len(good) == len(mock.meter.entries)
            # admitted as holds are released, until the remainder fits no more
            assert limit - spent < worst
            assert all(reply.finish == "stop" for reply in good)
            for reply in replies:
                if reply.status != 200:
                    error = reply.error
                    assert reply.status == 402
                    assert reply.headers["x-should-retry"] == "false"
                    assert error["budget"] == "hundred"
                    least = worst - 64 * 10_000  # min_output_tokens is 16 of 80
                    room = limit - spent
                    assert error["code"] == ("budget_spent" if least > room else "call_too_large")


def test_first_ever_requests_of_a_scope(tmp_path: Path) -> None:
    request = body(max_tokens=80)
    with MockProvider(prices=MOCK_PRICES, behaviour=USUAL) as mock:
        with RunningGateway(tmp_path / "probe.db", mock.url, [budget("all", "100")]) as probe:
            worst = hold_of(probe, request)
        mock.meter.reset()
        mock.behave(first_byte_ms=300)
        limit = 3 * worst
        settings = Settings(disclose=Disclose.ALL, wait_s=0)
        with RunningGateway(
            tmp_path / "l.db",
            mock.url,
            [budget("each", format_usd(limit), {"customer": "*"})],
            settings=settings,
        ) as gateway:

            async def burst() -> list[Reply]:
                calls = [post(gateway.url, request, headers={"x-outlay-customer": "new"}) for _ in range(8)]
                return list(await asyncio.gather(*calls))

            replies = asyncio.run(burst())
            assert_books_right(gateway, mock, limit)
            assert sum(reply.status == 200 for reply in replies) == 3
            assert refusals(replies) == {"budget_busy": 5}
            assert all(reply.headers["retry-after"] == "1" for reply in replies if reply.status == 429)


def test_storm_without_max_tokens(tmp_path: Path) -> None:
    """Operator's default 256, real output 80, the real cost of 100 calls: at least 95 whole, unclamped answers."""
    request = body()
    real = 120 * 2_500 + 80 * 10_000
    limit = 100 * real
    with MockProvider(prices=MOCK_PRICES, behaviour={**USUAL, "first_byte_ms": 300}) as mock:
        settings = Settings(disclose=Disclose.ALL, default_max_output_tokens=256)
        budgets = [budget("hundred", format_usd(limit))]
        with RunningGateway(tmp_path / "l.db", mock.url, budgets, settings=settings) as gateway:
            replies = asyncio.run(storm(gateway.url, 1000, 200, request, patience_s=60))
            assert_books_right(gateway, mock, limit)
            good = [reply for reply in replies if reply.status == 200]
            whole = [reply for reply in good if reply.finish == "stop"]
            unclamped = [
                reply for reply in whole if reply.headers["x-outlay-output-limit"] == "256 (default)"
            ]
            truncated = len(good) - len(whole)
            print(
                f"{len(unclamped)} unclamped, {len(whole) - len(unclamped)} clamped but whole, {truncated} truncated"
            )
            assert len(unclamped) >= 95
            for reply in replies:
                if reply.status != 200:
                    assert reply.error["code"] in ("budget_spent", "budget_busy")
            least = 120 * 2_500 + 16 * 10_000
            spent_refusals = [reply for reply in replies if reply.status == 402]
            for reply in spent_refusals:
                left = limit - round(float(reply.error["spent"]) * 1e9)
                needed = round(float(reply.error["needed"]) * 1e9)
                assert needed > left, "refused as spent while money was free"
            assert needed >= least
