"""A link in a refusal leads somewhere: what it names is remembered, and can be asked for. Else there is no link."""

import asyncio
from pathlib import Path

from outlay.flow.gateway.snapshot import Disclose, OnClientGone, Progressive, Settings
from outlay.flow.orders import Order, OrderKind
from outlay.flow.outcome import Billing
from outlay.testing import MockProvider
from tests.harness import MOCK_PRICES, RunningGateway, budget
from tests.reality.load import Reply, post

BODY = {"model": "gpt-test", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}
LINKS = Settings(disclose=Disclose.ALL, wait_s=0, raise_url="http://here/approvals?request={request_id}")
HELD_USD = "0.0018"
"""Enough for one call of that shape and not for two."""


async def call(gateway: RunningGateway, run: str = "", **said: str) -> Reply:
    headers = {"x-outlay-run": run} if run else {}
    headers |= {f"x-outlay-run-{name.replace('_', '-')}": value for name, value in said.items()}
    return await post(gateway.url, BODY, headers=headers)


def leads_somewhere(gateway: RunningGateway, reply: Reply) -> bool:
    """Whether the refusal has a link; one that it has must be to a call that a raise can be asked for."""
    link = reply.error.get("raise_url")
    if link is None:
        return False
    request_id = reply.headers["x-outlay-request-id"]
    assert link == f"http://here/approvals?request={request_id}"
    assert request_id in gateway.gateway.refused_calls
    return True


def test_what_nobody_can_raise_has_no_link_and_says_how_to_go_on(tmp_path: Path) -> None:
    with (
        MockProvider(prices=MOCK_PRICES) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("all", "9")], settings=LINKS) as gateway,
    ):
        spent = asyncio.run(call(gateway, "calls", max_calls="0"))
        assert asyncio.run(call(gateway, "time")).status == 200
        over = asyncio.run(call(gateway, "time", max_seconds="0"))
        for reply, code in ((spent, "run_calls_spent"), (over, "run_expired")):
            assert (reply.status, reply.error["code"]) == (402, code)
            assert not leads_somewhere(gateway, reply)
            assert "another name" in reply.error["message"]


def test_only_what_is_remembered_is_linked(tmp_path: Path) -> None:
    async def scene(gateway: RunningGateway) -> tuple[Reply, Reply, Reply]:
        running = asyncio.create_task(call(gateway))
        await asyncio.sleep(0.15)
        busy = await call(gateway)
        assert (await running).status == 200
        waiting = asyncio.create_task(call(gateway, "r"))
        await asyncio.sleep(0.15)
        return busy, await waiting, await call(gateway)

    with (
        MockProvider(prices=MOCK_PRICES, behaviour={"output_tokens": 100, "first_byte_ms": 500}) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("all", HELD_USD)], settings=LINKS) as gateway,
    ):
        busy, *spent = asyncio.run(scene(gateway))
        assert (busy.status, busy.error["code"]) == (429, "budget_busy")
        assert not leads_somewhere(gateway, busy)
        for reply in spent:
            assert reply.error["code"] in ("budget_spent", "call_too_large")
            assert leads_somewhere(gateway, reply)


def test_a_call_that_is_paused_while_it_waits_is_remembered(tmp_path: Path) -> None:
    settings = Settings(disclose=Disclose.ALL, wait_s=20, raise_url=LINKS.raise_url)
    pause = Order(OrderKind.PAUSE, {"run": "r"}, "look first", "op", 1)

    async def scene(gateway: RunningGateway) -> Reply:
        running = asyncio.create_task(call(gateway))
        await asyncio.sleep(0.15)
        waiting = asyncio.create_task(call(gateway, "r"))
        await asyncio.sleep(0.15)
        await asyncio.to_thread(gateway.call, lambda: gateway.gateway.take_orders((pause,)))
        assert (await running).status == 200
        return await waiting

    with (
        MockProvider(prices=MOCK_PRICES, behaviour={"output_tokens": 10, "first_byte_ms": 800}) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("all", HELD_USD)], settings=settings) as gateway,
    ):
        paused = asyncio.run(scene(gateway))
        assert (paused.status, paused.error["code"]) == (402, "paused")
        assert leads_somewhere(gateway, paused)
        (remembered,) = gateway.gateway.refused_calls.values()
        assert remembered.order == "pause:run=r"


def test_a_stream_that_is_cut_where_its_money_ends_is_remembered(tmp_path: Path) -> None:
    body = {"model": "gpt-test", "stream": True, "messages": BODY["messages"]}
    with (
        MockProvider(
            prices=MOCK_PRICES,
            behaviour={
                "output_tokens": 4000,
                "tokens_per_chunk": 1,
                "chunk_ms": 1,
                "on_client_gone": "ahead",
            },
        ) as mock,
        RunningGateway(
            tmp_path / "l.db",
            mock.url,
            [budget("all", "0.01")],
            settings=LINKS,
            billing=Billing.SELF_HOSTED,
            progressive=Progressive.EVENTS,
            on_client_gone=OnClientGone.CANCEL,
            run_ahead_tokens=16,
        ) as gateway,
    ):
        reply = asyncio.run(post(gateway.url, body))
        assert reply.status == 200
        assert b'"code":"budget_spent"' in reply.body
        assert reply.headers["x-outlay-request-id"] in gateway.gateway.refused_calls
