"""Waiting is fair: a large call is not starved by small ones, and one team's empty budget is nobody else's matter."""

import asyncio
import time
from pathlib import Path

from outlay.flow.gateway.snapshot import Disclose, Settings
from outlay.flow.ledger.audit import audit
from outlay.testing import MockProvider
from tests.harness import MOCK_PRICES, RunningGateway, budget, key
from tests.reality.load import Reply, post

BODY = {"model": "gpt-test", "messages": [{"role": "user", "content": "hello"}]}
OTHER = "sk-outlay-other"


def asked(tokens: int, says: int, pause_ms: int = 100) -> dict[str, object]:
    user = f"mock:output_tokens={says};first_byte_ms={pause_ms}"
    return {**BODY, "max_tokens": tokens, "user": user}


def test_a_large_waiting_call_is_not_starved_by_small_ones(tmp_path: Path) -> None:
    """Small calls keep the budget busy for seconds; the large one needs nearly all of it."""

    async def scene(gateway: RunningGateway) -> tuple[Reply, list[tuple[float, Reply]]]:
        clock = time.monotonic
        ends_at = clock() + 6
        small: list[tuple[float, Reply]] = []

        async def flood() -> None:
            while clock() < ends_at:
                small.append((clock(), await post(gateway.url, asked(40, 1))))

        floods = [asyncio.create_task(flood()) for _ in range(12)]
        await asyncio.sleep(0.3)
        large = asyncio.create_task(post(gateway.url, asked(900, 1)))
        reply = await asyncio.wait_for(large, 20)
        done_at = clock()
        await asyncio.gather(*floods)
        assert done_at < ends_at, "the large call only got its turn when the small ones had ended"
        return reply, small

    settings = Settings(disclose=Disclose.ALL, wait_s=15)
    with (
        MockProvider(prices=MOCK_PRICES) as mock,
        RunningGateway(
            tmp_path / "l.db", mock.url, [budget("b", "0.0105", window="60s")], settings=settings
        ) as gateway,
    ):
        gateway.swap(budgets=(budget("b", "0.02", window="1h"),))
        reply, small = asyncio.run(scene(gateway))
        assert reply.status == 200
        assert sum(found.status == 200 for _, found in small) > 20
        gateway.call(gateway.books.flush)
        found = audit(gateway.path)
        assert (found.findings, found.open_holds) == ((), 0)


def test_a_team_that_waits_holds_nobody_else_up(tmp_path: Path) -> None:
    """A hundred calls of one team wait for money; another team's calls go through one after the other meanwhile."""

    async def scene(gateway: RunningGateway) -> int:
        slow = asked(100, 100, pause_ms=1_500)
        waiting = [asyncio.create_task(post(gateway.url, slow)) for _ in range(100)]
        while gateway.gateway.room.count < 90:  # noqa: ASYNC110 - a state of another loop
            await asyncio.sleep(0.01)
        served = 0
        while gateway.gateway.room.count >= 80 and served < 200:
            reply = await post(gateway.url, asked(10, 1, pause_ms=0), secret=OTHER)
            assert reply.status == 200
            served += 1
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return served

    budgets = [budget("x", "0.003", {"team": "search"}), budget("y", "10", {"team": "ads"})]
    with (
        MockProvider(prices=MOCK_PRICES) as mock,
        RunningGateway(
            tmp_path / "l.db", mock.url, budgets, keys=[key(), key("other", OTHER, team="ads")]
        ) as gateway,
    ):
        assert asyncio.run(scene(gateway)) >= 50
