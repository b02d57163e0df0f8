"""A runaway agent at the gateway: marked, paused until somebody approves, or cut; nothing of its text is kept."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from outlay.flow.gateway.snapshot import Disclose, Mode, Settings
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import LedgerReader
from outlay.flow.orders import OrderKind
from outlay.flow.policy import PolicySpec
from outlay.flow.runaway import RunawayAction
from outlay.testing import MockProvider
from tests.harness import MOCK_PRICES, RunningGateway, budget, key
from tests.reality.load import Reply, post

SECRET_OF_NOBODY = "sk-of-a-key-without-a-team"
SECRET_TEXT = "the-launch-code-is-4711"


def step(number: int, result: str) -> dict[str, Any]:
    """The request of an agent's step: a growing conversation, and the newest tool's result at its end."""
    history = [{"role": "user", "content": f"turn {turn}"} for turn in range(number)]
    call = {"id": f"call_{number}", "type": "function", "function": {"name": "poll", "arguments": "{}"}}
    return {
        "model": "gpt-test",
        "max_tokens": 20,
        "messages": [
            *history,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call_{number}", "content": result},
        ],
    }


def ask(gateway: RunningGateway, body: dict[str, Any], run: str = "r") -> Reply:
    return asyncio.run(post(gateway.url, body, headers={"x-outlay-run": run} if run else {}))


def loop(gateway: RunningGateway, steps: int, run: str = "r") -> list[Reply]:
    return [ask(gateway, step(number, SECRET_TEXT), run) for number in range(steps)]


def running(tmp_path: Path, mock: MockProvider, **settings: Any) -> RunningGateway:
    return RunningGateway(
        tmp_path / "l.db",
        mock.url,
        [budget("all", "10")],
        settings=Settings(disclose=Disclose.ALL, **settings),
    )


@pytest.fixture
def mock() -> Any:
    with MockProvider(prices=MOCK_PRICES, behaviour={"output_tokens": 5}) as found:
        yield found


def test_by_default_a_runaway_is_marked_and_goes_on(tmp_path: Path, mock: MockProvider) -> None:
    with running(tmp_path, mock) as gateway:
        replies = loop(gateway, 10)
        assert {reply.status for reply in replies} == {200}
        assert "x-outlay-runaway" not in replies[2].headers
        assert "again and again" in replies[-1].headers["x-outlay-runaway"]
        gateway.call(gateway.books.flush)
        with LedgerReader(gateway.path) as reader:
            assert "runaway: the same call" in (reader.charges()[0].reason or "")
        # other runs, and calls without one, are not looked at
        assert "x-outlay-runaway" not in loop(gateway, 3, "s")[-1].headers
        assert "x-outlay-runaway" not in loop(gateway, 12, "")[-1].headers
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert SECRET_TEXT.encode() not in stored


def test_a_pause_stops_it_and_an_approval_lets_it_go_on(tmp_path: Path, mock: MockProvider) -> None:
    with running(tmp_path, mock, runaway=RunawayAction.PAUSE) as gateway:
        replies = loop(gateway, 12)
        statuses = [reply.status for reply in replies]
        assert statuses[0] == 200
        assert statuses[-1] == 402
        assert statuses == sorted(statuses)
        assert 5 <= statuses.count(200) <= 8
        error = replies[-1].error
        assert (error["code"], error["scope"]) == ("paused", "org=acme,run=r,team=search")
        assert "runaway" in error["reason"]
        assert replies[-1].headers["x-should-retry"] == "false"
        assert ask(gateway, step(1, "other work"), "s").status == 200
        (order,) = gateway.gateway.snapshot.orders
        assert order.kind is OrderKind.PAUSE
        request_id = replies[-1].headers["x-outlay-request-id"]
        assert gateway.gateway.refused_calls[request_id].order == order.name

        def lift() -> None:
            gateway.gateway.take_orders(())
            gateway.gateway.watching.lifted(order)

        gateway.call(lift)
        assert ask(gateway, step(13, "something new")).status == 200
        assert [ask(gateway, step(20, "again")).status for _ in range(9)][-1] == 402
        gateway.call(gateway.books.flush)
        assert audit(gateway.path).findings == ()


def test_a_counter_in_the_arguments_hides_nothing(tmp_path: Path, mock: MockProvider) -> None:
    def counted(number: int, result: str) -> dict[str, Any]:
        body = step(number, result)
        body["messages"][-2]["tool_calls"][0]["function"]["arguments"] = (
            f'{{"path":"a.txt","attempt":{number}}}'
        )
        return body

    text = " ".join(f"line {number} is {SECRET_TEXT}" for number in range(20))
    with running(tmp_path, mock, runaway=RunawayAction.PAUSE) as gateway:
        replies = [ask(gateway, counted(number, f"{text} at 12:{10 + number}:07")) for number in range(12)]
        assert replies[-1].status == 402
        assert 6 <= [reply.status for reply in replies].count(200) <= 8
        assert "the same call but for numbers, again and again" in replies[-1].error["reason"]
        edits = [ask(gateway, counted(number, "ok"), "edits") for number in range(14)]
        assert {reply.status for reply in edits} == {200}


def test_a_run_without_a_team_stops_no_other_of_its_name(tmp_path: Path, mock: MockProvider) -> None:
    with RunningGateway(
        tmp_path / "l.db",
        mock.url,
        [budget("all", "10")],
        keys=(key(), key("nobodys", SECRET_OF_NOBODY, team="")),
        settings=Settings(runaway=RunawayAction.CUT),
    ) as gateway:

        def theirs(number: int, result: str) -> Reply:
            run = {"x-outlay-run": "r"}
            return asyncio.run(post(gateway.url, step(number, result), headers=run, secret=SECRET_OF_NOBODY))

        replies = [theirs(number, "same") for number in range(12)]
        assert replies[-1].error["code"] == "killed"
        assert ask(gateway, step(1, "honest work"), "r").status == 200
        (order,) = gateway.gateway.snapshot.orders
        assert order.name == "kill:org=acme,run=r,team=unattributed"

        def lift() -> None:
            gateway.gateway.take_orders(())
            gateway.gateway.watching.lifted(order)

        gateway.call(lift)
        assert theirs(13, "something new").status == 200


def test_a_policy_cuts_what_else_runs(tmp_path: Path, mock: MockProvider) -> None:
    async def scene(gateway: RunningGateway) -> Reply:
        endless = {**step(1, "a stream beside it"), "stream": True, "max_tokens": 4000}
        endless["user"] = "mock:output_tokens=3000;tokens_per_chunk=1;chunk_ms=20"
        beside = asyncio.create_task(post(gateway.url, endless, headers={"x-outlay-run": "r"}))
        await asyncio.sleep(0.2)
        for number in range(12):
            reply = await post(gateway.url, step(number, "x"), headers={"x-outlay-run": "r"})
            if reply.status == 403:
                assert reply.error["code"] == "killed"
                break
        return await asyncio.wait_for(beside, 10)

    with running(tmp_path, mock) as gateway:
        gateway.swap(policies=(PolicySpec(name="agents", runaway=RunawayAction.CUT),))
        beside = asyncio.run(scene(gateway))
        assert b'"code":"killed"' in beside.body
        gateway.call(gateway.books.flush)
        assert audit(gateway.path).open_holds == 0


def test_shadow_mode_and_off(tmp_path: Path, mock: MockProvider) -> None:
    with running(tmp_path, mock, runaway=RunawayAction.CUT, mode=Mode.SHADOW) as gateway:
        replies = loop(gateway, 12)
        assert {reply.status for reply in replies} == {200}
        assert "x-outlay-runaway" in replies[-1].headers
    (tmp_path / "two").mkdir()
    with running(tmp_path / "two", mock, runaway=RunawayAction.OFF) as gateway:
        assert "x-outlay-runaway" not in loop(gateway, 12)[-1].headers


def test_tries_after_a_refusal_or_a_failure_are_no_circle(tmp_path: Path, mock: MockProvider) -> None:
    """What was not answered taught the agent nothing: it asks again, as every SDK does."""
    body = step(1, SECRET_TEXT)
    with running(tmp_path, mock, runaway=RunawayAction.CUT, wait_s=0) as gateway:
        gateway.swap(policies=(PolicySpec(name="slow", requests_per_minute=1),))
        statuses = [ask(gateway, body, "limited").status for _ in range(9)]
        assert statuses == [200] + [429] * 8
        gateway.swap(policies=())
        mock.queue(*[{"status": 503}] * 7)
        statuses = [ask(gateway, body, "unlucky").status for _ in range(9)]
        assert statuses == [503] * 7 + [200, 200]
        # failures in a row have their own bound
        mock.queue(*[{"status": 503}] * 20)
        statuses = [ask(gateway, body, "broken").status for _ in range(16)]
        assert statuses[:12] == [503] * 12
        assert statuses[-1] == 403


def test_the_same_call_many_times_at_once_is_no_circle(tmp_path: Path, mock: MockProvider) -> None:
    mock.behave(first_byte_ms=300)
    body = step(1, SECRET_TEXT)

    async def all_at_once(gateway: RunningGateway) -> list[Reply]:
        headers = {"x-outlay-run": "sampling"}
        return await asyncio.gather(*(post(gateway.url, body, headers=headers) for _ in range(10)))

    with running(tmp_path, mock, runaway=RunawayAction.CUT) as gateway:
        assert {reply.status for reply in asyncio.run(all_at_once(gateway))} == {200}
