"""The official anthropic SDK through the gateway, changed in nothing but base_url and key; and curl, if it is here.

Each test ends by the check of `sdk.firewall`: the ledger equals the provider's own meter and nothing is held.
"""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from pydantic import BaseModel

from outlay.flow.budgets import AccessRule
from outlay.flow.gateway.snapshot import Disclose, Settings
from outlay.testing import MockProvider
from tests.harness import SECRET, RunningGateway, budget
from tests.reality.sdk import charges, firewall
from tests.reality.test_sdk_openai import until_settled

HELLO: list[Any] = [{"role": "user", "content": "hello there"}]  # 11 bytes: 3 tokens, and 3 for the message
CALL: dict[str, Any] = {"model": "claude-test", "messages": HELLO, "max_tokens": 200}
# 6 input tokens at 3000 nanos and 80 output tokens at 15000
COST = 6 * 3_000 + 80 * 15_000
WEATHER: Any = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class Stage:
    """Mock, gateway and SDK client."""

    def __init__(self, mock: MockProvider, gateway: RunningGateway, client: anthropic.Anthropic) -> None:
        self.mock, self.gateway, self.client = mock, gateway, client


def client_of(gateway: RunningGateway, **changes: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(**{"base_url": gateway.url, "api_key": SECRET, "max_retries": 0, **changes})


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with firewall(tmp_path) as (mock, gateway), client_of(gateway) as client:
        yield Stage(mock, gateway, client)


def test_whole_answer_and_its_headers(stage: Stage) -> None:
    raw = stage.client.messages.with_raw_response.create(**CALL, extra_headers={"x-outlay-run": "r7"})
    assert raw.parse().stop_reason == "end_turn"
    assert raw.headers["x-outlay-cost-usd"] == "0.001218"
    assert raw.headers["x-outlay-run-cost-usd"] == "0.001218"
    assert raw.headers["x-outlay-remaining-usd"] == "999.998782"
    assert "x-outlay-output-limit" not in raw.headers
    assert raw.headers["x-outlay-request-id"] == "req_" + charges(stage.gateway)[0].request_id
    sent = stage.mock.calls[0]
    assert sent.header(b"x-api-key") == "mock-key"
    assert sent.header(b"anthropic-version") is not None
    assert SECRET.encode() not in b"".join(value for _, value in sent.headers)


def test_bearer_token_of_the_sdk(stage: Stage) -> None:
    with anthropic.Anthropic(base_url=stage.gateway.url, auth_token=SECRET, max_retries=0) as client:
        assert client.messages.create(**CALL).stop_reason == "end_turn"


def test_stream_and_its_helper(stage: Stage) -> None:
    events = [event.type for event in stage.client.messages.create(**CALL, stream=True)]
    assert events[0] == "message_start"
    assert events[-1] == "message_stop"
    with stage.client.messages.stream(**CALL) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert len(text.split()) == final.usage.output_tokens == 80
    assert [charge.cost_nanos for charge in charges(stage.gateway)] == [COST, COST]


def test_cached_tokens_are_priced_apart(stage: Stage) -> None:
    stage.mock.behave(
        input_tokens=100, cached_tokens=60, cache_write_tokens=30, cache_write_long_tokens=10, output_tokens=5
    )
    system: Any = [
        {"type": "text", "text": "brief " * 30, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    ]
    expected = 10 * 3_000 + 60 * 300 + 20 * 3_750 + 10 * 6_000 + 5 * 15_000
    stage.client.messages.create(**CALL, system=system)
    with stage.client.messages.stream(**CALL, system=system) as stream:
        stream.until_done()
    assert [charge.cost_nanos for charge in charges(stage.gateway)] == [expected, expected]


def test_tools_round_trip(stage: Stage) -> None:
    ask: list[Any] = [{"role": "user", "content": "use the tool"}]
    request = {**CALL, "tools": [WEATHER]}
    first = stage.client.messages.create(**{**request, "messages": ask})
    assert first.stop_reason == "tool_use"
    block = first.content[0]
    assert block.type == "tool_use"
    result = {"type": "tool_result", "tool_use_id": block.id, "content": "sunny"}
    turns = [*ask, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = stage.client.messages.create(**{**request, "messages": turns, "tool_choice": {"type": "none"}})
    assert second.stop_reason == "end_turn"
    with stage.client.messages.stream(**{**request, "messages": ask}) as stream:
        assert stream.get_final_message().content[0].type == "tool_use"
    assert len(charges(stage.gateway)) == 3


class Trip(BaseModel):
    city: str
    days: int


def test_structured_output(stage: Stage) -> None:
    parsed = stage.client.messages.parse(**CALL, output_format=Trip)
    assert isinstance(parsed.parsed_output, Trip)


def test_count_tokens_is_free(stage: Stage) -> None:
    counted = stage.client.messages.count_tokens(model="claude-test", messages=HELLO)
    assert counted.input_tokens == 6
    assert sum(charge.cost_nanos for charge in charges(stage.gateway)) == 0


def test_models(stage: Stage) -> None:
    names = [model.id for model in stage.client.models.list()]
    assert "claude-test" in names
    assert "gpt-test" not in names
    assert stage.client.models.retrieve("claude-test").type == "model"
    with pytest.raises(anthropic.NotFoundError):
        stage.client.models.retrieve("claude-none")
    assert not stage.mock.calls


def test_async(tmp_path: Path) -> None:
    with firewall(tmp_path) as (mock, gateway):

        async def talk() -> None:
            async with anthropic.AsyncAnthropic(
                base_url=gateway.url, api_key=SECRET, max_retries=0
            ) as client:
                answers = await asyncio.gather(*(client.messages.create(**CALL) for _ in range(20)))
                assert {answer.stop_reason for answer in answers} == {"end_turn"}
                async with client.messages.stream(**CALL) as stream:
                    assert (await stream.get_final_message()).usage.output_tokens == 80

        asyncio.run(talk())
        assert mock.meter.total_nanos == 21 * COST


def refusal(call: Any, kind: type[anthropic.APIStatusError]) -> dict[str, Any]:
    with pytest.raises(kind) as refused:
        call()
    body = refused.value.body
    assert isinstance(body, dict)
    assert body["type"] == "error"
    error: dict[str, Any] = body["error"]
    return {**error, "status": refused.value.status_code, "headers": refused.value.response.headers}


def test_unknown_key(stage: Stage) -> None:
    with client_of(stage.gateway, api_key="sk-wrong") as client:
        error = refusal(lambda: client.messages.create(**CALL), anthropic.AuthenticationError)
    assert error["code"] == "key_unknown"
    assert error["type"] == "authentication_error"
    assert not stage.mock.calls


def test_model_that_is_not_allowed(tmp_path: Path) -> None:
    rules = [AccessRule({}, allow=("claude-other*",))]
    with firewall(tmp_path, rules=rules) as (mock, gateway), client_of(gateway) as client:
        error = refusal(lambda: client.messages.create(**CALL), anthropic.PermissionDeniedError)
        assert error["code"] == "model_not_allowed"
        assert not mock.calls


HOLOGRAM: Any = [{"role": "user", "content": [{"type": "hologram", "url": "https://x.test/a"}]}]


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"model": "claude-unpriced"}, "model_unpriced"), ({"messages": HOLOGRAM}, "unsupported_modality")],
)
def test_calls_that_cannot_be_bounded(stage: Stage, changes: dict[str, Any], code: str) -> None:
    error = refusal(
        lambda: stage.client.messages.create(**{**CALL, **changes}), anthropic.UnprocessableEntityError
    )
    assert error["code"] == code
    assert not stage.mock.calls


def test_spent_budget_says_why_and_is_not_retried(tmp_path: Path) -> None:
    with (
        firewall(tmp_path, [budget("tiny", "0.004", {"key": "test"})]) as (mock, gateway),
        client_of(gateway, max_retries=3) as client,
    ):
        mock.behave(input_tokens=300, output_tokens=200)  # 3.9 of 4 thousandths
        client.messages.create(**{**CALL, "messages": [{"role": "user", "content": "x" * 50}]})
        error = refusal(lambda: client.messages.create(**CALL), anthropic.APIStatusError)
        assert error["status"] == 402
        assert (error["code"], error["budget"], error["limit"], error["spent"]) == (
            "budget_spent",
            "tiny",
            "0.004",
            "0.0039",
        )
        assert error["resets_at"] is None
        assert error["headers"]["x-should-retry"] == "false"
        assert gateway.call(gateway.gateway.view).refusals == {"budget_spent": 1}
        assert len(mock.calls) == 1


def test_amounts_of_a_budget_above_the_caller_are_hidden(tmp_path: Path) -> None:
    settings = Settings(disclose=Disclose.OWN)
    with (
        firewall(tmp_path, [budget("org", "0.000001")], settings=settings) as (_, gateway),
        client_of(gateway) as client,
    ):
        error = refusal(lambda: client.messages.create(**CALL), anthropic.APIStatusError)
        assert error["budget"] == "org"
        assert error.keys().isdisjoint({"limit", "spent", "held", "needed"})
        assert "0.000001" not in error["message"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, anthropic.RateLimitError), (500, anthropic.InternalServerError), (529, anthropic.OverloadedError)],
)
def test_provider_errors_are_retried_and_each_attempt_is_booked(
    tmp_path: Path, status: int, kind: type[anthropic.APIStatusError]
) -> None:
    with firewall(tmp_path) as (mock, gateway), client_of(gateway, max_retries=1) as client:
        mock.queue({"status": status, "retry_after": "0.01"})
        assert client.messages.create(**CALL).stop_reason == "end_turn"
        mock.queue({"status": status, "retry_after": "0.01"}, {"status": status, "retry_after": "0.01"})
        with pytest.raises(kind):
            client.messages.create(**CALL)
        assert [charge.http_status for charge in charges(gateway)] == [status, status, 200, status]
        assert mock.meter.total_nanos == COST


def test_client_timeout_is_still_booked(stage: Stage) -> None:
    stage.mock.behave(first_byte_ms=400)
    with pytest.raises(anthropic.APITimeoutError):
        stage.client.with_options(timeout=0.1).messages.create(**CALL)
    until_settled(stage.gateway, 1)
    assert charges(stage.gateway)[0].cost_nanos == COST


def test_stream_closed_early_is_booked_whole(stage: Stage) -> None:
    stage.mock.behave(chunk_ms=5)
    with stage.client.messages.stream(**CALL) as stream:
        next(iter(stream.text_stream))
    until_settled(stage.gateway, 1)
    assert charges(stage.gateway)[0].cost_nanos == COST


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl command")
@pytest.mark.parametrize("stream", [False, True])
def test_curl(tmp_path: Path, stream: bool) -> None:
    with firewall(tmp_path) as (_, gateway):
        body = json.dumps({**CALL, "stream": stream})
        command = ["curl", "-sS", "--max-time", "20", "-D", "-", gateway.url + "/v1/messages"]
        command += ["-H", f"x-api-key: {SECRET}", "-H", "anthropic-version: 2023-06-01"]
        command += ["-H", "content-type: application/json", "-H", "Expect: 100-continue", "--data", body]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert said.startswith("HTTP/1.1 100 Continue")
        assert "HTTP/1.1 200 OK" in said
        assert ("message_stop" in said) is stream
        assert ("x-outlay-cost-usd: 0.001218" in said) is not stream
