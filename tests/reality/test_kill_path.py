"""A kill cuts what runs in its scope, at once and well-formed, books what it cost, and refuses what comes."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from outlay.flow.gateway.snapshot import Mode, OnClientGone, Settings
from outlay.flow.gateway.stops import Stopped, carry_out
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import LedgerReader
from outlay.flow.orders import Order, OrderKind
from outlay.flow.outcome import Billing
from outlay.testing import MockProvider
from tests.harness import SECRET, RunningGateway, budget, key
from tests.reality.load import post
from tests.world import book, meter_prices, providers

SLOW = {"output_tokens": 400, "tokens_per_chunk": 1, "chunk_ms": 20, "on_client_gone": "sent"}
VERSION = {"anthropic-version": "2023-06-01"}
OTHER = "sk-outlay-other"
ENDLESS: dict[str, tuple[str, dict[str, Any], bytes]] = {
    "chat": (
        "/v1/chat/completions",
        {"model": "gpt-test", "stream": True, "messages": [{"role": "user", "content": "hi"}]},
        b'"code":"killed"',
    ),
    "responses": (
        "/v1/responses",
        {"model": "gpt-test", "stream": True, "input": "hi"},
        b'"code":"killed"',
    ),
    "messages": (
        "/v1/messages",
        {
            "model": "claude-test",
            "stream": True,
            "max_tokens": 400,
            "messages": [{"role": "user", "content": "hi"}],
        },
        b'"code":"killed"',
    ),
    "gemini": (
        "/v1beta/models/gemini-test:streamGenerateContent?alt=sse",
        {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
        b"KILLED",
    ),
    "translated": (
        "/v1/chat/completions",
        {"model": "claude-test", "stream": True, "messages": [{"role": "user", "content": "hi"}]},
        b'"code":"killed"',
    ),
}


def order(kind: OrderKind = OrderKind.KILL, **scope: str) -> Order:
    return Order(kind, scope, "it ran away", "test", 1)


def give(gateway: RunningGateway, *orders: Order) -> Stopped:
    return gateway.call(lambda: carry_out(gateway.gateway, orders[0], orders))


def lift(gateway: RunningGateway) -> None:
    gateway.call(lambda: gateway.gateway.swap(gateway.gateway.snapshot.with_orders(())))


def world(tmp_path: Path, mock: MockProvider, **changes: Any) -> RunningGateway:
    return RunningGateway(
        tmp_path / "l.db",
        mock.url,
        [budget("all", "100")],
        keys=[key(), key("other", OTHER, team="ads")],
        price_book=book(),
        upstreams=providers(mock.url, billing=Billing.SELF_HOSTED, on_client_gone=OnClientGone.CANCEL),
        **changes,
    )


async def streams(
    gateway: RunningGateway, asked: list[tuple[str, dict[str, Any], dict[str, str], str]]
) -> Any:
    """Begin streams, and give them as tasks once all of them run."""
    tasks = [
        asyncio.create_task(post(gateway.url, body, path, secret, headers))
        for path, body, headers, secret in asked
    ]
    while sum(len(pool._open) for pool in gateway.gateway.pools.values()) < len(asked):  # noqa: ASYNC110 - a state of another loop
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    return tasks


@pytest.mark.parametrize("dialect", ENDLESS)
def test_a_killed_run_is_cut_and_others_go_on(tmp_path: Path, dialect: str) -> None:
    path, body, mark = ENDLESS[dialect]

    async def scene(gateway: RunningGateway) -> None:
        doomed, other = await streams(
            gateway,
            [
                (path, body, {"x-outlay-run": "bad", **VERSION}, SECRET),
                (path, body, {"x-outlay-run": "good", **VERSION}, SECRET),
            ],
        )
        stopped = await asyncio.to_thread(give, gateway, order(run="bad"))
        assert (stopped.cut_calls, stopped.cut_sessions) == (1, 0)
        cut = await asyncio.wait_for(doomed, 5)
        assert cut.status == 200
        assert mark in cut.body
        assert b"it ran away" in cut.body
        assert b"[DONE]" not in cut.body
        assert not other.done()
        again = await post(gateway.url, body, path, SECRET, {"x-outlay-run": "bad", **VERSION})
        assert again.status == 403
        assert again.headers["x-should-retry"] == "false"
        assert b"it ran away" in again.body
        await asyncio.to_thread(give, gateway, order(team="search"))
        assert mark in (await asyncio.wait_for(other, 5)).body

    with (
        MockProvider(prices=meter_prices(), behaviour=SLOW) as mock,
        world(tmp_path, mock) as gateway,
    ):
        asyncio.run(scene(gateway))
        gateway.call(gateway.books.flush)
        mock.wait_for(2)
        found = audit(gateway.path)
        assert (found.findings, found.open_holds, found.charges) == ((), 0, 2)
        with LedgerReader(gateway.path) as reader:
            for charge in reader.charges():
                assert charge.basis == "counted"
                assert "killed: it ran away" in (charge.reason or "")
        assert found.spend_nanos >= mock.meter.total_nanos > 0


@pytest.mark.parametrize(
    ("scope", "is_cut"),
    [
        ({"key": "test"}, True),
        ({"key": "other"}, False),
        ({"team": "sea*"}, True),
        ({"model": "gpt-test"}, True),
        ({"model": "GPT-test"}, True),
        ({"model": "claude-test"}, False),
        ({"run": "r", "team": "ads"}, False),
        ({}, True),
    ],
)
def test_what_a_scope_covers(tmp_path: Path, scope: dict[str, str], is_cut: bool) -> None:
    path, body, _ = ENDLESS["chat"]

    async def scene(gateway: RunningGateway) -> None:
        (task,) = await streams(gateway, [(path, body, {"x-outlay-run": "r"}, SECRET)])
        stopped = await asyncio.to_thread(give, gateway, order(**scope))
        assert stopped.cut_calls == int(is_cut)
        reply = await post(gateway.url, {**body, "stream": False, "max_tokens": 1}, path)
        refused = is_cut and "run" not in scope
        assert reply.status == (403 if refused else 200)
        if refused:
            assert json.loads(reply.body)["error"]["code"] == "killed"
        await asyncio.to_thread(give, gateway, order())
        await task

    with MockProvider(prices=meter_prices(), behaviour=SLOW) as mock, world(tmp_path, mock) as gateway:
        asyncio.run(scene(gateway))


def test_a_call_that_waits_for_money_is_refused_too(tmp_path: Path) -> None:
    path, body, _ = ENDLESS["chat"]
    settings = Settings(wait_s=20)

    async def scene(gateway: RunningGateway) -> None:
        gateway.swap(budgets=(budget("all", "0.02"),))
        running = await streams(gateway, [(path, {**body, "max_tokens": 1500}, {}, SECRET)])
        waiting = asyncio.create_task(post(gateway.url, {**body, "max_tokens": 1500}, path))
        while not gateway.gateway.room.count:  # noqa: ASYNC110 - a state of another loop
            await asyncio.sleep(0.01)
        await asyncio.to_thread(give, gateway, order(key="test"))
        reply = await asyncio.wait_for(waiting, 5)
        assert (reply.status, reply.error["code"]) == (403, "killed")
        await running[0]

    with (
        MockProvider(prices=meter_prices(), behaviour=SLOW) as mock,
        world(tmp_path, mock, settings=settings) as gateway,
    ):
        asyncio.run(scene(gateway))
        gateway.call(gateway.books.flush)
        assert audit(gateway.path).open_holds == 0


def test_a_pause_lets_what_runs_end_and_says_where_to_ask(tmp_path: Path) -> None:
    path, body, _ = ENDLESS["chat"]
    short = {**body, "max_tokens": 20}
    settings = Settings(mode=Mode.SHADOW, raise_url="http://here/approvals?request={request_id}")

    async def scene(gateway: RunningGateway) -> None:
        (task,) = await streams(gateway, [(path, short, {"x-outlay-run": "r"}, SECRET)])
        await asyncio.to_thread(give, gateway, order(OrderKind.PAUSE, run="r"))
        paused = await post(gateway.url, short, path, SECRET, {"x-outlay-run": "r"})
        assert paused.status == 402  # in shadow mode, too: a person asked for it
        error = paused.error
        assert (error["code"], error["order"], error["scope"]) == ("paused", "pause", "run=r")
        assert error["raise_url"].endswith(paused.headers["x-outlay-request-id"])
        assert (await task).finish == "length"
        lift(gateway)
        assert (await post(gateway.url, short, path, SECRET, {"x-outlay-run": "r"})).finish == "length"

    with (
        MockProvider(prices=meter_prices(), behaviour={**SLOW, "chunk_ms": 5}) as mock,
        world(tmp_path, mock, settings=settings) as gateway,
    ):
        asyncio.run(scene(gateway))


def test_before_the_answer_begins_the_client_gets_the_reason_as_a_status(tmp_path: Path) -> None:
    path, body, _ = ENDLESS["chat"]

    async def scene(gateway: RunningGateway) -> None:
        (task,) = await streams(gateway, [(path, {**body, "stream": False}, {}, SECRET)])
        assert (await asyncio.to_thread(give, gateway, order(team="search"))).cut_calls == 1
        reply = await asyncio.wait_for(task, 5)
        assert (reply.status, reply.error["code"]) == (403, "killed")

    behaviour = {**SLOW, "first_byte_ms": 3000}
    with MockProvider(prices=meter_prices(), behaviour=behaviour) as mock, world(tmp_path, mock) as gateway:
        asyncio.run(scene(gateway))


def test_what_is_below_a_killed_run_is_killed_with_it(tmp_path: Path) -> None:
    """Streams of its children are cut, and a fresh name under a parent that the key pins gets nowhere."""
    pinned = key("pinned", OTHER, team="search", run_parent="boss")
    path, body, _ = ENDLESS["chat"]
    with (
        MockProvider(prices=meter_prices(), behaviour=SLOW) as mock,
        RunningGateway(
            tmp_path / "l.db", mock.url, [budget("all", "100")], keys=[key(), pinned], price_book=book()
        ) as gateway,
    ):

        async def stream(secret: str, **headers: str) -> tuple[bytes, int]:
            named = {f"x-outlay-{name.replace('_', '-')}": value for name, value in headers.items()}
            reply = await post(gateway.url, body, path=path, secret=secret, headers=named)
            return reply.body, reply.status

        async def scene() -> list[tuple[bytes, int]]:
            streams = [
                asyncio.create_task(stream(SECRET, run="child", run_parent="boss")),
                asyncio.create_task(stream(OTHER, run="fresh")),
                asyncio.create_task(stream(SECRET, run="elsewhere")),
            ]
            await asyncio.sleep(0.5)
            done = await asyncio.to_thread(give, gateway, order(run="boss"))
            assert done.cut_calls == 2
            return await asyncio.gather(*streams)

        child, fresh, elsewhere = asyncio.run(scene())
        assert b'"code":"killed"' in child[0]
        assert b'"code":"killed"' in fresh[0]
        assert elsewhere[0].endswith(b"[DONE]\n\n")
        for headers in ({"run": "fresh"}, {"run": "another"}):
            assert asyncio.run(stream(OTHER, **headers))[1] == 403
        assert asyncio.run(stream(SECRET, run="child"))[1] == 403
        mock.behave(output_tokens=2)
        assert asyncio.run(stream(SECRET, run="others"))[1] == 200
        lift(gateway)
        assert asyncio.run(stream(OTHER, run="another"))[1] == 200
        gateway.call(gateway.books.flush)
        assert audit(gateway.path).findings == ()
