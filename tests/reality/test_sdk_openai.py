"""The official openai SDK through the gateway, changed in nothing but base_url and key.

Each test ends by the check of `sdk.firewall`: the ledger equals the provider's own meter and nothing is held.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from outlay.flow.budgets import AccessRule
from outlay.flow.gateway.snapshot import Disclose, Settings
from outlay.testing import MockProvider
from tests.harness import SECRET, RunningGateway, budget, key
from tests.reality.sdk import charges, firewall

HELLO: list[Any] = [{"role": "user", "content": "hello there"}]  # 11 bytes: 3 tokens, and 3 for the message
CALL: dict[str, Any] = {"model": "gpt-test", "messages": HELLO}
# 6 input tokens at 2500 nanos and 80 output tokens at 10000
COST = 6 * 2_500 + 80 * 10_000
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Stage:
    """Mock, gateway and SDK client."""

    def __init__(self, mock: MockProvider, gateway: RunningGateway, client: openai.OpenAI) -> None:
        self.mock, self.gateway, self.client = mock, gateway, client


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with (
        firewall(tmp_path) as (mock, gateway),
        openai.OpenAI(base_url=gateway.url + "/v1", api_key=SECRET, max_retries=0) as client,
    ):
        yield Stage(mock, gateway, client)


def client_of(gateway: RunningGateway, **changes: Any) -> openai.OpenAI:
    return openai.OpenAI(**{"base_url": gateway.url + "/v1", "api_key": SECRET, "max_retries": 0, **changes})


def test_whole_answer_and_its_headers(stage: Stage) -> None:
    raw = stage.client.chat.completions.with_raw_response.create(**CALL, extra_headers={"x-outlay-run": "r1"})
    assert raw.parse().choices[0].finish_reason == "stop"
    assert raw.headers["x-outlay-cost-usd"] == "0.000815"
    assert raw.headers["x-outlay-run-cost-usd"] == "0.000815"
    assert raw.headers["x-outlay-remaining-usd"] == "999.999185"
    assert raw.headers["x-outlay-output-limit"] == "4096 (default)"
    again = stage.client.chat.completions.with_raw_response.create(
        **CALL, max_tokens=50, extra_headers={"x-outlay-run": "r1"}
    )
    assert again.headers["x-outlay-run-cost-usd"] == "0.00133"
    assert "x-outlay-output-limit" not in again.headers
    assert stage.mock.meter.total_nanos == COST + 6 * 2_500 + 50 * 10_000
    charge = charges(stage.gateway)[0]
    assert raw.headers["x-outlay-request-id"].startswith("req_")
    assert again.headers["x-outlay-request-id"] == "req_" + charge.request_id
    # what authenticates to Outlay, and what is ours, does not go on
    sent = stage.mock.calls[0]
    assert sent.header(b"authorization") == "Bearer mock-key"
    assert sent.header(b"x-outlay-run") is None
    assert SECRET.encode() not in b"".join(value for _, value in sent.headers)


def test_request_lookup_is_for_the_own_key_only(tmp_path: Path) -> None:
    keys = [key(), key("other", "sk-other")]
    with firewall(tmp_path, keys=keys) as (_, gateway), client_of(gateway) as client:
        raw = client.chat.completions.with_raw_response.create(**CALL)
        url = f"{gateway.url}/outlay/v1/requests/{raw.headers['x-outlay-request-id']}"
        found = httpx.get(url, headers={"authorization": f"Bearer {SECRET}"})
        assert found.status_code == 200
        assert found.json()["cost_usd"] == "0.000815"
        assert found.json()["is_open"] is False
        assert [row["output_tokens"] for row in found.json()["attempts"]] == [80]
        foreign = httpx.get(url, headers={"authorization": "Bearer sk-other"})
        unknown = httpx.get(url[:-4] + "0000", headers={"authorization": f"Bearer {SECRET}"})
        assert foreign.status_code == unknown.status_code == 404
        codes = [answer.json()["error"]["code"] for answer in (foreign, unknown)]
        assert codes == ["request_not_found", "request_not_found"]
        assert httpx.get(url).status_code == 401


def test_stream_without_the_usage_option(stage: Stage) -> None:
    events = list(stage.client.chat.completions.create(**CALL, stream=True))
    assert all(event.usage is None for event in events)
    assert all(event.choices for event in events)
    text = "".join(event.choices[0].delta.content or "" for event in events)
    assert len(text.split()) == 80
    charge = charges(stage.gateway)[0]
    assert (charge.basis, charge.cost_nanos) == ("metered", COST)


def test_stream_with_the_usage_option(stage: Stage) -> None:
    events = list(
        stage.client.chat.completions.create(**CALL, stream=True, stream_options={"include_usage": True})
    )
    usages = [event.usage for event in events if event.usage is not None]
    assert len(usages) == 1
    assert usages[0].completion_tokens == 80
    assert charges(stage.gateway)[0].cost_nanos == COST


def test_streamed_events_are_the_providers(stage: Stage) -> None:
    body = {**CALL, "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 9}
    with MockProvider() as other:
        direct = httpx.post(other.url + "/v1/chat/completions", json=body)
    through = httpx.post(
        stage.gateway.url + "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {SECRET}"}
    )

    def told(answer: httpx.Response) -> list[Any]:
        lines = [line[6:] for line in answer.text.split("\n\n") if line]
        assert lines[-1] == "[DONE]"
        # ids and times differ between any two calls
        return [{**json.loads(line), "id": "", "created": 0} for line in lines[:-1]]

    assert told(direct) == told(through)
    assert charges(stage.gateway)[0].cost_nanos == 6 * 2_500 + 9 * 10_000


def test_stream_helper(stage: Stage) -> None:
    with stage.client.chat.completions.stream(**CALL) as stream:
        final = stream.get_final_completion()
    assert len((final.choices[0].message.content or "").split()) == 80
    assert charges(stage.gateway)[0].cost_nanos == COST


def test_tools_round_trip(stage: Stage) -> None:
    ask: list[Any] = [{"role": "user", "content": "use the tool"}]
    first = stage.client.chat.completions.create(model="gpt-test", messages=ask, tools=[WEATHER])
    [call] = first.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert "city" in json.loads(call.function.arguments)
    turns: list[Any] = [
        *ask,
        first.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    with stage.client.chat.completions.stream(
        model="gpt-test", messages=turns, tools=[WEATHER], tool_choice="none"
    ) as stream:
        assert stream.get_final_completion().choices[0].finish_reason == "stop"
    assert len(charges(stage.gateway)) == 2


class Leg(BaseModel):
    city: str
    days: int


class Trip(BaseModel):
    legs: list[Leg]
    is_paid: bool


def test_structured_output(stage: Stage) -> None:
    answer = stage.client.chat.completions.parse(**CALL, response_format=Trip)
    assert isinstance(answer.choices[0].message.parsed, Trip)
    with pytest.raises(openai.LengthFinishReasonError):
        stage.client.chat.completions.parse(**CALL, response_format=Trip, max_tokens=3)
    assert len(charges(stage.gateway)) == 2


def test_several_choices(stage: Stage) -> None:
    answer = stage.client.chat.completions.create(**CALL, n=3, max_tokens=10)
    assert len(answer.choices) == 3
    assert charges(stage.gateway)[0].cost_nanos == 6 * 2_500 + 30 * 10_000


def test_embeddings(stage: Stage) -> None:
    packed = stage.client.embeddings.create(model="embed-test", input=["alpha", "beta!"])
    plain = stage.client.embeddings.create(
        model="embed-test", input=["alpha", "beta!"], encoding_format="float"
    )
    assert [row.embedding for row in packed.data] == [row.embedding for row in plain.data]
    # four tokens at 20 nanos, each time
    assert [charge.cost_nanos for charge in charges(stage.gateway)] == [80, 80]


def test_models(stage: Stage) -> None:
    names = [model.id for model in stage.client.models.list()]
    assert "gpt-test" in names
    assert "claude-test" not in names
    assert stage.client.models.retrieve("gpt-test").id == "gpt-test"
    with pytest.raises(openai.NotFoundError) as missing:
        stage.client.models.retrieve("gpt-none")
    assert missing.value.code == "model_not_found"
    assert not stage.mock.calls


def test_many_at_once_async(tmp_path: Path) -> None:
    with firewall(tmp_path) as (mock, gateway):

        async def talk() -> None:
            async with openai.AsyncOpenAI(
                base_url=gateway.url + "/v1", api_key=SECRET, max_retries=0
            ) as client:
                create = client.chat.completions.create
                answers = await asyncio.gather(*(create(**CALL) for _ in range(20)))
                assert {answer.choices[0].finish_reason for answer in answers} == {"stop"}
                stream = await create(**CALL, stream=True)
                text = [event.choices[0].delta.content or "" async for event in stream]
                assert len("".join(text).split()) == 80

        asyncio.run(talk())
        assert mock.meter.total_nanos == 21 * COST


def refusal(call: Any, kind: type[openai.APIStatusError]) -> openai.APIStatusError:
    with pytest.raises(kind) as refused:
        call()
    return refused.value


def test_unknown_key(stage: Stage) -> None:
    error = refusal(
        lambda: stage.client.with_options(api_key="sk-wrong").chat.completions.create(**CALL),
        openai.AuthenticationError,
    )
    assert error.code == "key_unknown"
    assert "sk-wrong" not in str(error)
    assert not stage.mock.calls


def test_model_that_is_not_allowed(tmp_path: Path) -> None:
    rules = [AccessRule({"team": "search"}, deny=("gpt-*",))]
    with firewall(tmp_path, rules=rules) as (mock, gateway), client_of(gateway) as client:
        error = refusal(lambda: client.chat.completions.create(**CALL), openai.PermissionDeniedError)
        assert error.code == "model_not_allowed"
        assert "gpt-test" not in [model.id for model in client.models.list()]
        assert not mock.calls


def test_model_that_nobody_serves(tmp_path: Path) -> None:
    with firewall(tmp_path) as (mock, gateway):
        providers = [
            provider for provider in gateway.snapshot.providers.values() if provider.name != "openai"
        ]
        gateway.swap(providers=tuple(providers))
        with client_of(gateway) as client:
            error = refusal(lambda: client.chat.completions.create(**CALL), openai.NotFoundError)
        assert error.code == "model_not_found"
        assert error.param == "model"
        assert not mock.calls


@pytest.mark.parametrize(
    ("request_body", "code"),
    [
        ({"model": "gpt-unpriced", "messages": HELLO}, "model_unpriced"),
        (
            {
                "model": "gpt-test",
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "hologram", "url": "https://x.test/a"}],
                    }
                ],
            },
            "unsupported_modality",
        ),
    ],
)
def test_calls_that_cannot_be_bounded(stage: Stage, request_body: dict[str, Any], code: str) -> None:
    error = refusal(
        lambda: stage.client.chat.completions.create(**request_body), openai.UnprocessableEntityError
    )
    assert error.code == code
    assert not stage.mock.calls


def test_spent_budget_says_why_and_is_not_retried(tmp_path: Path) -> None:
    budgets = [budget("tiny", "0.0012", {"key": "test"}, "month")]
    settings = Settings(disclose=Disclose.OWN, raise_url="https://ask.example/{request_id}")
    with (
        firewall(tmp_path, budgets, settings=settings) as (mock, gateway),
        client_of(gateway, max_retries=3) as client,
    ):
        client.chat.completions.create(**CALL, max_tokens=60)
        error = refusal(lambda: client.chat.completions.create(**CALL, max_tokens=60), openai.APIStatusError)
        assert error.status_code == 402
        assert error.code == "budget_spent"
        assert isinstance(error.body, dict)
        body = error.body
        assert body["budget"] == "tiny"
        assert body["scope"] == "key=test"
        assert (body["limit"], body["spent"], body["held"]) == ("0.0012", "0.000615", "0.00")
        assert body["resets_at"].endswith("Z")
        assert body["raise_url"].endswith(error.response.headers["x-outlay-request-id"])
        assert error.response.headers["x-should-retry"] == "false"
        assert gateway.call(gateway.gateway.view).refusals["budget_spent"] == 1
        assert len(mock.calls) == 1


def test_busy_budget_is_retried_by_the_sdk_and_then_serves(tmp_path: Path) -> None:
    # room for one hold of 1000 output tokens at a time
    settings = Settings(disclose=Disclose.ALL, wait_s=0, retry_after_s=1)
    with firewall(
        tmp_path, [budget("one", "0.013")], settings=settings, behaviour={"first_byte_ms": 300}
    ) as (mock, gateway):

        async def both() -> None:
            async with openai.AsyncOpenAI(
                base_url=gateway.url + "/v1", api_key=SECRET, max_retries=4
            ) as client:
                create = client.chat.completions.create
                answers = await asyncio.gather(*(create(**CALL, max_tokens=1000) for _ in range(2)))
                assert all(answer.choices for answer in answers)

        asyncio.run(both())
        assert gateway.call(gateway.gateway.view).refusals["budget_busy"] >= 1
        assert len(mock.calls) == 2


@pytest.mark.parametrize("status", [429, 500, 503])
def test_provider_errors_are_retried_and_each_attempt_is_booked(tmp_path: Path, status: int) -> None:
    with firewall(tmp_path) as (mock, gateway), client_of(gateway, max_retries=2) as client:
        mock.queue({"status": status, "retry_after": "0.01"}, {"status": status, "retry_after": "0.01"})
        assert client.chat.completions.create(**CALL).choices[0].finish_reason == "stop"
        found = charges(gateway)
        assert [charge.status for charge in found] == ["settled", "void", "void"]
        assert [charge.http_status for charge in found] == [200, status, status]
        assert mock.meter.total_nanos == COST


def test_provider_error_keeps_its_words(stage: Stage) -> None:
    stage.mock.queue({"status": 400})
    error = refusal(lambda: stage.client.chat.completions.create(**CALL), openai.BadRequestError)
    assert "x-outlay-request-id" in error.response.headers
    assert error.response.headers["x-outlay-cost-usd"] == "0.00"
    assert charges(stage.gateway)[0].status == "void"


def until_settled(gateway: RunningGateway, count: int) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if len(charges(gateway)) >= count and gateway.call(lambda: gateway.books.open_holds) == 0:
            return
        time.sleep(0.01)
    raise AssertionError("not settled")


def test_client_timeout_is_still_booked(stage: Stage) -> None:
    stage.mock.behave(first_byte_ms=400)
    with pytest.raises(openai.APITimeoutError):
        stage.client.with_options(timeout=0.1).chat.completions.create(**CALL)
    until_settled(stage.gateway, 1)
    assert charges(stage.gateway)[0].cost_nanos == COST


def test_stream_closed_early_is_booked_whole(stage: Stage) -> None:
    stage.mock.behave(chunk_ms=5)
    with stage.client.chat.completions.create(**CALL, stream=True) as stream:
        next(iter(stream))
    until_settled(stage.gateway, 1)
    assert charges(stage.gateway)[0].cost_nanos == COST


def test_wrong_key_at_the_provider_is_not_ours(tmp_path: Path) -> None:
    # the provider refuses the gateway's own key: passed on, and nothing is booked
    with firewall(tmp_path) as (mock, gateway), client_of(gateway) as client:
        mock.queue({"status": 401})
        error = refusal(lambda: client.chat.completions.create(**CALL), openai.AuthenticationError)
        assert error.code != "key_unknown"
        assert charges(gateway)[0].status == "void"
