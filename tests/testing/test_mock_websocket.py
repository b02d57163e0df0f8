"""The mock's WebSockets by the official openai SDK, and by a plain WebSocket client where the SDK hides too much."""

import base64
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


REALTIME = {
    "gpt-realtime": {
        "input": 4_000_000_000,
        "cached": 400_000_000,
        "input_audio": 32_000_000_000,
        "cached_audio": 500_000_000,
        "output": 16_000_000_000,
        "output_audio": 64_000_000_000,
    },
    "gpt-4o-transcribe": {"input": 1, "input_audio": 6_000_000_000, "output": 10_000_000_000},
}


@pytest.fixture
def realtime() -> Iterator[MockProvider]:
    with MockProvider(prices=REALTIME, behaviour={"output_tokens": 8}) as running:
        yield running


def user_says(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def until_done(connection: Any) -> list[Any]:
    events = []
    for event in connection:
        events.append(event)
        if event.type in ("response.done", "error"):
            return events
    raise AssertionError("closed before the response was done")


@pytest.fixture
def session(realtime: MockProvider) -> Iterator[Any]:
    with (
        openai.OpenAI(base_url=realtime.url + "/v1", api_key="any", max_retries=0) as client,
        client.realtime.connect(model="gpt-realtime") as connection,
    ):
        assert connection.recv().type == "session.created"
        yield connection


def test_a_realtime_text_talk_gets_dearer_with_every_turn(realtime, session):
    session.session.update(
        session={"type": "realtime", "output_modalities": ["text"], "instructions": "four"}
    )
    assert session.recv().session.instructions == "four"
    seen = []
    for _ in range(2):
        session.conversation.item.create(item=user_says("hello there"))
        session.response.create()
        events = until_done(session)
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        done = events[-1].response
        assert "".join(deltas) == done.output[0].content[0].text
        seen.append(done.usage)
    # 1 of the instructions, 6 of the message; then also 3 + 12 of the answer (45 bytes) and 6 of the next message
    answer_tokens = -(-len("".join(deltas)) // 4)
    assert [usage.input_tokens for usage in seen] == [7, 7 + 3 + answer_tokens + 6]
    assert [entry.tokens.input for entry in realtime.meter.entries] == [usage.input_tokens for usage in seen]
    # 7 * 4000 + 8 * 16000
    assert realtime.meter.entries[0].cost_nanos == 156_000
    assert seen[0].output_token_details.text_tokens == 8


def test_speech_in_and_out_is_stated_and_billed_apart(realtime, session):
    realtime.behave(cached_tokens=5, cached_audio_tokens=4)
    half_a_second = bytes(24_000)
    session.input_audio_buffer.append(audio=base64.b64encode(half_a_second).decode())
    session.input_audio_buffer.append(audio=base64.b64encode(half_a_second).decode())
    session.input_audio_buffer.commit()
    assert session.recv().type == "input_audio_buffer.committed"
    session.response.create()
    events = until_done(session)
    sound = b"".join(
        base64.b64decode(event.delta) for event in events if event.type == "response.output_audio.delta"
    )
    assert len(sound) == 8 * 1200 * 2
    said = [event.delta for event in events if event.type == "response.output_audio_transcript.delta"]
    assert "".join(said) == events[-1].response.output[0].content[0].transcript
    usage = events[-1].response.usage
    # one second is 10 tokens, the message 3
    assert (usage.input_token_details.text_tokens, usage.input_token_details.audio_tokens) == (3, 10)
    assert usage.input_token_details.cached_tokens_details.audio_tokens == 4
    assert (usage.output_token_details.text_tokens, usage.output_token_details.audio_tokens) == (2, 6)
    [entry] = realtime.meter.entries
    # text: 2 * 4000 + 1 * 400; sound: 6 * 32000 + 4 * 500; out: 2 * 16000 + 6 * 64000
    assert entry.cost_nanos == 8_400 + 194_000 + 416_000
    assert (entry.request_id, entry.model) == (events[-1].response.id, "gpt-realtime")
    session.response.create()
    assert until_done(session)[-1].response.usage.input_token_details.audio_tokens == 10 + 6


def test_a_cancelled_response_bills_what_was_said(realtime, session):
    realtime.behave(output_tokens=400, chunk_ms=20, tokens_per_chunk=4)
    session.conversation.item.create(item=user_says("hello there"))
    session.response.create()
    for event in session:
        if event.type == "response.output_audio.delta":
            break
    session.response.create()  # refused: one at a time
    session.response.cancel()
    done = until_done(session)[-1].response
    assert (done.status, done.status_details.reason) == ("cancelled", "client_cancelled")
    [entry] = realtime.meter.entries
    assert 0 < entry.tokens.output < 400
    assert done.usage.output_tokens == entry.tokens.output
    assert entry.outcome == "cut"
    assert until_done(session)[-1].error.code == "conversation_already_has_active_response"
    session.response.cancel()
    assert until_done(session)[-1].error.code == "response_cancel_not_active"


def test_a_function_call_over_realtime(realtime, session):
    tool = {
        "type": "function",
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {}}},
    }
    session.session.update(session={"type": "realtime", "tools": [tool]})
    session.recv()
    session.conversation.item.create(item=user_says("use the tool"))
    session.response.create()
    events = until_done(session)
    [call] = events[-1].response.output
    assert (call.type, json.loads(call.arguments)) == ("function_call", {"city": "ledger"})
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert done[0].arguments == call.arguments


def test_transcription_of_the_input_is_billed_to_its_own_model(realtime, session):
    transcription = {"model": "gpt-4o-transcribe"}
    session.session.update(session={"type": "realtime", "audio": {"input": {"transcription": transcription}}})
    assert session.recv().session.audio.input.format.rate == 24_000  # what was not changed is still there
    session.input_audio_buffer.append(audio=base64.b64encode(bytes(48_000)).decode())
    session.input_audio_buffer.commit()
    for event in session:
        if event.type == "conversation.item.input_audio_transcription.completed":
            break
    assert (event.usage.input_tokens, event.usage.output_tokens) == (10, 4)
    [entry] = realtime.meter.entries
    # 10 * 6000 + 4 * 10000
    assert (entry.model, entry.cost_nanos) == ("gpt-4o-transcribe", 100_000)


def test_realtime_mistakes_and_failures(realtime, session):
    session.send({"type": "nonsense"})
    assert session.recv().error.code == "invalid_value"
    session.input_audio_buffer.commit()
    assert session.recv().error.code == "input_audio_buffer_commit_empty"
    realtime.queue({"status": 429}, {"failure": "stream_error"}, {"failure": "cut"})
    session.response.create()
    assert until_done(session)[-1].error.code == "rate_limit_exceeded"
    session.response.create()
    assert until_done(session)[-1].response.status == "failed"
    session.response.create()
    with pytest.raises((ConnectionClosed, AssertionError)):
        until_done(session)
    assert [entry.tokens.output for entry in realtime.meter.entries] == [0, 4, 4]
    assert [entry.outcome for entry in realtime.meter.entries] == ["refused", "cut", "cut"]


def test_azures_realtime_path(realtime):
    url = f"ws://127.0.0.1:{realtime.port}/openai/realtime?api-version=2024-10-01-preview&deployment=gpt-realtime"
    with connect(url, additional_headers={"api-key": "any"}) as socket:
        assert json.loads(socket.recv(timeout=10))["session"]["model"] == "gpt-realtime"
        socket.send(json.dumps({"type": "response.create", "response": {"output_modalities": ["text"]}}))
        assert hear(socket, "response.done")[-1]["response"]["status"] == "completed"
    assert realtime.meter.entries[0].path == "/openai/realtime"
