"""The mock's WebSockets by the official openai SDK, and by a plain WebSocket client where the SDK hides too much."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from outlay.testing import MockProvider

PRICES = {"gpt-5-mini": {"input": 250_000_000, "output": 2_000_000_000}}
CREATE = {"type": "response.create", "model": "gpt-5-mini", "input": "hello there"}


@pytest.fixture
def provider() -> Iterator[MockProvider]:
    with MockProvider(prices=PRICES, behaviour={"output_tokens": 10}) as running:
        yield running


@pytest.fixture
def client(provider: MockProvider) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=provider.url + "/v1", api_key="sk-any", max_retries=0) as made:
        yield made


@pytest.fixture
def open_socket(provider: MockProvider) -> Iterator[Callable[..., ClientConnection]]:
    opened: list[ClientConnection] = []

    def open_one(path: str = "/v1/responses", **headers: str) -> ClientConnection:
        opened.append(connect(f"ws://127.0.0.1:{provider.port}{path}", additional_headers=headers))
        return opened[-1]

    yield open_one
    for socket in opened:
        socket.close()


def say(socket: ClientConnection, **fields: Any) -> None:
    socket.send(json.dumps(CREATE | fields))


def hear(socket: ClientConnection, *ends: str) -> list[dict[str, Any]]:
    """Events up to the first of a type in `ends`."""
    events = []
    while not events or events[-1]["type"] not in (ends or ("response.completed", "error")):
        events.append(json.loads(socket.recv(timeout=10)))
    return events


def test_the_sdk_talks_responses_over_a_socket(client, provider):
    with client.responses.connect() as connection:
        connection.response.create(model="gpt-5-mini", input="hello there", store=False)
        first = None
        for event in connection:
            if event.type == "response.completed":
                first = event.response
                break
        connection.response.create(
            model="gpt-5-mini", input="hello there", store=False, previous_response_id=first.id
        )
        for event in connection:
            if event.type == "response.completed":
                second = event.response
                break
    streamed = list(client.responses.create(model="gpt-5-mini", input="hello there", stream=True))
    assert first.output_text == streamed[-1].response.output_text
    assert first.usage == streamed[-1].response.usage
    assert second.usage.input_tokens == 6 + 6 + 10
    # 6 * 250 + 10 * 2000, and 22 * 250 + 10 * 2000
    assert [entry.cost_nanos for entry in provider.meter.entries[:2]] == [21_500, 25_500]
    with pytest.raises(openai.BadRequestError):  # not stored: known to that connection only
        client.responses.create(model="gpt-5-mini", input="x", previous_response_id=first.id)


def test_the_events_are_those_of_a_stream_and_turns_are_entries(provider, open_socket, raw):
    socket = open_socket(**{"x-outlay-request-id": "req_socket"})
    say(socket)
    kinds = [event["type"] for event in hear(socket)]
    raw.send({"model": "gpt-5-mini", "input": "hello there", "stream": True}, path="/v1/responses")
    assert kinds == [event["type"] for event in raw.read_answer().events()]
    say(socket, stream_id="s-1", max_output_tokens=3)
    events = hear(socket, "response.incomplete")
    assert {event["stream_id"] for event in events} == {"s-1"}
    first, _, third = provider.meter.entries
    assert (first.outlay_request_id, third.outlay_request_id) == ("req_socket", "req_socket")
    assert first.request_id != third.request_id
    assert (first.stream, third.tokens.output) == (True, 3)


def test_errors_are_events_and_the_socket_stays_open(provider, open_socket):
    socket = open_socket()
    provider.queue({"status": 429}, {})
    say(socket)
    [error] = hear(socket)
    assert (error["status"], error["error"]["code"]) == (429, "rate_limit_exceeded")
    say(socket, previous_response_id="resp_unknown")
    assert hear(socket)[-1]["error"]["code"] == "previous_response_not_found"
    socket.send("no json")
    assert hear(socket)[-1]["error"]["code"] == "invalid_event"
    socket.send(json.dumps({"type": "other"}))
    assert hear(socket)[-1]["error"]["code"] == "unknown_event"
    say(socket)
    assert hear(socket)[-1]["type"] == "response.completed"
    assert provider.meter.total_nanos == 21_500


def test_preparing_costs_nothing_and_can_be_built_on(provider, open_socket):
    socket = open_socket()
    say(socket, generate=False, store=False)
    prepared = hear(socket)[-1]["response"]
    assert (prepared["output"], prepared["usage"]["total_tokens"]) == ([], 0)
    assert provider.meter.total_nanos == 0
    say(socket, previous_response_id=prepared["id"])
    assert hear(socket)[-1]["response"]["usage"]["input_tokens"] > 6


@pytest.mark.parametrize(
    ("knobs", "billed"),
    [
        ({"failure": "cut"}, 4),
        ({"failure": "cut", "after_chunks": 2, "reset": True}, 8),
        ({"failure": "early_end"}, 4),
        ({"failure": "cut_json"}, 4),
        ({"failure": "cut_headers"}, None),
        ({"failure": "cut", "bill": "full"}, 10),
    ],
)
def test_a_broken_turn_bills_as_its_failure_says(provider, open_socket, knobs, billed):
    socket = open_socket()
    provider.queue(knobs)
    say(socket)
    with pytest.raises((ConnectionClosed, ValueError)):
        hear(socket)
    [entry] = provider.wait_for(1)
    assert entry.outcome == "cut"
    assert entry.tokens.output == (billed or 0)
    assert entry.tokens.input == (0 if billed is None else 6)


def test_an_error_in_mid_turn_fails_by_event(provider, open_socket):
    socket = open_socket()
    provider.queue({"failure": "stream_error"})
    say(socket)
    assert hear(socket, "response.failed")[-1]["response"]["status"] == "failed"
    say(socket)
    hear(socket)
    assert [entry.tokens.output for entry in provider.meter.entries] == [4, 10]


def test_a_client_that_goes_pays_what_the_knob_says(provider, open_socket):
    socket = open_socket()
    provider.queue({"failure": "hang", "on_client_gone": "sent"})
    say(socket)
    hear(socket, "response.output_text.delta")
    say(socket)  # waits behind the turn that hangs
    provider.wait_for_open(2)
    socket.close()
    entries = provider.wait_for(2)
    assert [(entry.outcome, entry.tokens.output) for entry in entries] == [
        ("client_gone", 4),
        ("client_gone", 0),
    ]


def test_the_upgrade_can_be_refused(provider, open_socket):
    provider.behave(refuse_upgrade=True)
    with pytest.raises(InvalidStatus) as refused:
        open_socket()
    assert refused.value.response.status_code == 426
    assert "error" in json.loads(refused.value.response.body)
    provider.behave(refuse_upgrade=False)
    with pytest.raises(InvalidStatus) as unknown:
        open_socket("/v1/chat/completions")
    assert unknown.value.response.status_code == 405
    assert provider.meter.all.requests == 0


def test_a_socket_needs_a_key_too():
    with MockProvider(api_keys=["right"]) as provider:
        url = f"ws://127.0.0.1:{provider.port}/v1/responses"
        with pytest.raises(InvalidStatus) as refused:
            connect(url, additional_headers={"authorization": "Bearer wrong"})
        assert refused.value.response.status_code == 401
        with connect(url, additional_headers={"authorization": "Bearer right"}) as socket:
            say(socket)
            assert hear(socket)[-1]["type"] == "response.completed"
        with connect(url, subprotocols=["realtime", "openai-insecure-api-key.right"]) as socket:
            assert socket.subprotocol == "realtime"
