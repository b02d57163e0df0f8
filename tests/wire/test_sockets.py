"""Responses over a WebSocket: what a message asks for, which lane it is of, how an error looks there."""

import json
from typing import Any

import pytest
from openai.types.realtime import RealtimeErrorEvent
from openai.types.responses import ResponsesServerEvent
from pydantic import TypeAdapter

from outlay.wire.intent import Operation, Rejection, Usage
from outlay.wire.openai_responses import ResponsesStream
from outlay.wire.openai_socket import SocketRequest, lane_of, parse_socket_message
from outlay.wire.refusal import socket_error


def message(**fields: Any) -> bytes:
    return json.dumps({"type": "response.create", "model": "m", "input": "hi", **fields}).encode()


def test_a_message_is_a_request_with_a_lane() -> None:
    asked = parse_socket_message(message(max_output_tokens=9, stream_id="lane", previous_response_id="r"))
    assert isinstance(asked, SocketRequest), asked
    assert (asked.lane, asked.intent.operation) == ("lane", Operation.RESPONSES)
    assert (asked.intent.max_output_tokens, asked.intent.has_referenced_input) == (9, True)
    assert asked.intent.stream and asked.intent.wants_stream_usage
    plain = parse_socket_message(message())
    assert isinstance(plain, SocketRequest) and plain.lane is None


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b'{"type":"response.steer","previous_response_id":"r","input":"x"}', "response.steer"),
        (b'{"type":"response.later"}', "response.later"),
        (b'{"model":"m"}', "type"),
        (b'{"type":"response.create","type":"x","model":"m"}', "type"),
        (message(model=""), "model"),
        (message(max_tokens=5), "max_tokens"),
        (message(stream_id="x" * 300), "stream_id"),
        (b"[]", "object"),
        (b"\xff", "JSON"),
    ],
)
def test_refusals(data: bytes, word: str) -> None:
    refused = parse_socket_message(data)
    assert isinstance(refused, Rejection) and word in refused.message


def test_the_servers_messages_are_a_streams_events() -> None:
    reader = ResponsesStream()
    created = b'{"type":"response.created","stream_id":"a","response":{"id":"r","status":"in_progress"}}'
    ended = (
        b'{"type":"response.completed","stream_id":"a","response":{"id":"r","status":"completed",'
        b'"usage":{"input_tokens":3,"output_tokens":2,"total_tokens":5}}}'
    )
    assert lane_of(created) == lane_of(ended) == "a" and lane_of(b"{}") is None and lane_of(b"x") is None
    for data in (created, b'{"type":"response.output_text.delta","delta":"hi"}', ended):
        reader.read_data(data)
    assert reader.usage == Usage(3, 2) and reader.is_done and reader.deltas == 1


@pytest.mark.parametrize("lane", [None, "a"])
def test_an_error_that_both_kinds_of_socket_know(lane: str | None) -> None:
    raw = socket_error(402, "budget_spent", "No money.", {"budget": "b"}, lane=lane, event_id="e1")
    event: Any = TypeAdapter(ResponsesServerEvent).validate_json(raw)
    assert (event.type, event.status, event.stream_id) == ("error", 402, lane)
    assert event.error.code == "budget_spent"
    spoken = RealtimeErrorEvent.model_validate_json(raw)
    assert (spoken.event_id, spoken.error.message) == ("e1", "No money.")
    reader = ResponsesStream()
    reader.read_data(raw)
    assert reader.error_seen
