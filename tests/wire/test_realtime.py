"""Realtime events: limits and models that a client sets, usage that a server states."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from outlay.wire.intent import Modality, Operation, Rejection, Units, Usage
from outlay.wire.realtime import (
    ClientEvent,
    ServerEvent,
    read_client_event,
    read_server_event,
    response_intent,
    transcription_intent,
)

SDK: TypeAdapter[object] = TypeAdapter(RealtimeServerEvent)


def client(kind: str, **fields: Any) -> ClientEvent | Rejection:
    return read_client_event(json.dumps({"type": kind, **fields}).encode())


def server(event: dict[str, Any], *, is_known: bool = True) -> ServerEvent:
    if is_known:
        SDK.validate_python(event)
    return read_server_event(json.dumps(event).encode())


@pytest.mark.parametrize(
    ("session", "expected"),
    [
        ({"max_output_tokens": 700}, {"max_output_tokens": 700}),
        ({"max_response_output_tokens": 700}, {"max_output_tokens": 700}),
        ({"max_output_tokens": "inf"}, {"is_output_unlimited": True}),
        (
            {"audio": {"input": {"transcription": {"model": "whisper-1"}}}},
            {"transcription_model": "whisper-1", "has_transcription": True},
        ),
        (
            {"input_audio_transcription": {"model": "gpt-4o-transcribe"}},
            {"transcription_model": "gpt-4o-transcribe", "has_transcription": True},
        ),
        ({"audio": {"input": {"transcription": None}}}, {"has_transcription": True}),
        # at the provider's choice of model: billed all the same
        (
            {"audio": {"input": {"transcription": {}}}},
            {"transcription_model": "", "has_transcription": True},
        ),
        ({"audio": {"input": {"turn_detection": None}}}, {"responds_unasked": False}),
        ({"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}}, {"responds_unasked": True}),
        ({"turn_detection": {"type": "server_vad", "create_response": False}}, {"responds_unasked": False}),
        ({"output_modalities": ["text"]}, {"output_modalities": ()}),
        ({"modalities": ["text", "audio"]}, {"output_modalities": (Modality.AUDIO,)}),
        ({"instructions": "be kind"}, {}),
    ],
)
def test_settings(session: dict[str, Any], expected: dict[str, Any]) -> None:
    assert client("session.update", session=session) == ClientEvent("session.update", **expected)


def test_a_response_may_have_its_own_limit() -> None:
    event = client("response.create", response={"max_output_tokens": 50})
    assert isinstance(event, ClientEvent) and event.starts_response and event.max_output_tokens == 50
    plain = client("response.create")
    assert isinstance(plain, ClientEvent) and plain.starts_response and plain.max_output_tokens is None
    audio = client("input_audio_buffer.append", audio="A" * 1000)
    assert audio == ClientEvent("input_audio_buffer.append")


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"session.update","session":{"max_output_tokens":1,"max_output_tokens":4096}}',
        b'{"type":"input_audio_buffer.append","type":"response.create"}',
        json.dumps({"type": "response.create", "response": {"max_output_tokens": 0}}).encode(),
        json.dumps({"type": "response.create", "response": {"max_output_tokens": "many"}}).encode(),
        json.dumps(
            {
                "type": "session.update",
                "session": {"max_output_tokens": 1, "max_response_output_tokens": "inf"},
            }
        ).encode(),
        json.dumps({"type": "session.update", "session": {"tools": [{"type": "mcp"}]}}).encode(),
        json.dumps({"type": "response.create", "response": {"prompt": {"id": "p"}}}).encode(),
        b"[]",
        b"not json",
    ],
)
def test_refused_events(data: bytes) -> None:
    assert isinstance(read_client_event(data), Rejection)


def test_usage_of_a_response() -> None:
    event = {
        "type": "response.done",
        "event_id": "e",
        "response": {
            "id": "resp_1",
            "object": "realtime.response",
            "status": "completed",
            "usage": {
                "total_tokens": 253,
                "input_tokens": 132,
                "output_tokens": 121,
                "input_token_details": {
                    "text_tokens": 119,
                    "audio_tokens": 13,
                    "image_tokens": 0,
                    "cached_tokens": 64,
                    "cached_tokens_details": {"text_tokens": 60, "audio_tokens": 4, "image_tokens": 0},
                },
                "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
            },
        },
    }
    read = server(event)
    assert read.ends_response and (read.response_id, read.status) == ("resp_1", "completed")
    assert read.usage == Usage(
        132,
        121,
        cache_read_input_tokens=64,
        input_audio_tokens=13,
        cache_read_audio_tokens=4,
        output_audio_tokens=91,
    )
    event["response"]["usage"]["input_token_details"]["audio_tokens"] = 500
    assert server(event).usage is None
    cancelled = server({"type": "response.done", "event_id": "e", "response": {"status": "cancelled"}})
    assert cancelled.ends_response and cancelled.usage is None


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {
                "type": "tokens",
                "input_tokens": 26,
                "output_tokens": 8,
                "total_tokens": 34,
                "input_token_details": {"text_tokens": 1, "audio_tokens": 25},
            },
            Usage(26, 8, input_audio_tokens=25),
        ),
        ({"type": "duration", "seconds": 2.5}, Usage(0, 0, units=(Units("audio_ms", 2_500),))),
    ],
)
def test_usage_of_what_was_heard(usage: dict[str, Any], expected: Usage) -> None:
    event = {
        "type": "conversation.item.input_audio_transcription.completed",
        "event_id": "e",
        "item_id": "i",
        "content_index": 0,
        "transcript": "hi",
        "usage": usage,
    }
    assert server(event).transcription_usage == expected


def test_sessions_and_errors() -> None:
    created = {"type": "session.created", "session": {"model": "gpt-realtime", "max_output_tokens": 4096}}
    assert server(created, is_known=False) == ServerEvent("session.created", "gpt-realtime", 4096)
    unlimited = {"type": "session.updated", "session": {"max_output_tokens": "inf"}}
    assert server(unlimited, is_known=False).max_output_tokens is None
    assert server({"type": "error", "event_id": "e", "error": {"type": "x", "message": "y"}}).is_error
    assert read_server_event(b"garbage").type == ""


def test_intents() -> None:
    intent = response_intent("gpt-realtime", 500)
    assert (intent.operation, intent.has_referenced_input) == (Operation.REALTIME, True)
    assert Modality.AUDIO in intent.input_modalities and intent.output_modalities == (Modality.AUDIO,)
    heard = transcription_intent("whisper-1", 2_001)
    assert heard.units == (Units("audio_ms", 2_001),) and heard.input_tokens_bound >= 3 * 17


@given(
    data=st.binary(max_size=100)
    | st.recursive(
        st.none()
        | st.booleans()
        | st.floats()
        | st.integers()
        | st.sampled_from(["inf", "session.update", "x"]),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(
                    ["type", "session", "response", "usage", "max_output_tokens", "audio", "seconds"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
def test_nothing_raises(data: bytes) -> None:
    assert isinstance(read_client_event(data), ClientEvent | Rejection)
    assert isinstance(read_server_event(data), ServerEvent)
