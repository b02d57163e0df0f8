"""What a hostile reviewer got past kills, holds, raises, rates and runs, kept from coming back."""

import asyncio
from pathlib import Path
from typing import Any

from outlay.flow.gateway.snapshot import Disclose, ModelRoute, OnClientGone, Settings, Target
from outlay.flow.gateway.stops import carry_out
from outlay.flow.orders import Order, OrderKind
from outlay.flow.outcome import Billing
from outlay.testing import MockProvider
from tests.harness import MOCK_PRICES, RunningGateway, budget
from tests.reality.load import post

HELLO = [{"role": "user", "content": "hello"}]
SLOW: dict[str, Any] = {"output_tokens": 400, "tokens_per_chunk": 1, "chunk_ms": 20, "on_client_gone": "sent"}


async def until(gateway: RunningGateway, holds: int, waiting: int) -> None:
    """Until so many holds are open and so many calls wait for money."""
    for _ in range(500):
        seen = await asyncio.to_thread(
            gateway.call, lambda: (gateway.books.open_holds, gateway.gateway.room.count)
        )
        if seen == (holds, waiting):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{seen} instead of {(holds, waiting)}")


def test_a_killed_model_is_not_reached_behind_its_other_name_by_a_call_that_waited(tmp_path: Path) -> None:
    """The kill frees the money that the call waits for: it must not go to the killed model with it."""
    body = {"model": "fast", "messages": HELLO, "max_tokens": 400, "stream": True}
    kill = Order(OrderKind.KILL, {"model": "gpt-test"}, "it ran away", "test", 1)

    async def scene(gateway: RunningGateway) -> tuple[Any, Any]:
        first = asyncio.create_task(post(gateway.url, body))
        await until(gateway, 1, 0)
        second = asyncio.create_task(post(gateway.url, body))
        await until(gateway, 1, 1)
        await asyncio.to_thread(gateway.call, lambda: carry_out(gateway.gateway, kill, (kill,)))
        return await first, await second

    with (
        MockProvider(prices=MOCK_PRICES, behaviour=SLOW) as mock,
        RunningGateway(
            tmp_path / "l.db",
            mock.url,
            [budget("all", "0.0055")],
            models=[ModelRoute("fast", targets=(Target("openai", "gpt-test"),))],
            settings=Settings(disclose=Disclose.ALL, wait_s=20),
            billing=Billing.SELF_HOSTED,
            on_client_gone=OnClientGone.CANCEL,
        ) as gateway,
    ):
        cut, refused = asyncio.run(scene(gateway))
        assert b'"code":"killed"' in cut.body
        assert (refused.status, refused.error["code"]) == (403, "killed")
        assert len(mock.calls) == 1
