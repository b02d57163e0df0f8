"""Errors of a provider, whole or inside a stream, raise the client's own SDK's error with the provider's words."""

import json
from typing import Any

import anthropic
import openai
import pytest
from google.genai import errors as google_errors
from tests.wire.translate.clients import (
    read_stream,
    read_whole,
)
from tests.wire.translate.upstreams import EXPECTED, stream

from outlay.wire.intent import Operation
from outlay.wire.translate import open_translation, translate_error
from outlay.wire.translate.table import CHAT, GENERATE, MESSAGES, PAIRS, RESPONSES

WORDS = "prompt is too long: 200001 tokens > 200000 maximum"
ERRORS: dict[Operation, dict[str, Any]] = {
    CHAT: {
        "error": {"message": WORDS, "type": "invalid_request_error", "param": "messages", "code": "too_long"}
    },
    RESPONSES: {
        "error": {"message": WORDS, "type": "invalid_request_error", "param": "input", "code": "too_long"}
    },
    MESSAGES: {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": WORDS},
        "request_id": "r",
    },
    GENERATE: {"error": {"code": 400, "message": WORDS, "status": "INVALID_ARGUMENT"}},
}
OVERLOADED: dict[Operation, dict[str, Any]] = {
    CHAT: {"error": {"message": "busy", "type": "rate_limit_error", "code": "rate_limit_exceeded"}},
    RESPONSES: {"type": "error", "code": "rate_limit_exceeded", "message": "busy", "sequence_number": 3},
    MESSAGES: {"type": "error", "error": {"type": "rate_limit_error", "message": "busy"}},
    GENERATE: {"error": {"code": 429, "message": "busy", "status": "RESOURCE_EXHAUSTED"}},
}


@pytest.mark.parametrize(("client", "upstream"), PAIRS)
def test_error_answer(client: Operation, upstream: Operation) -> None:
    body = translate_error(client, upstream, 400, json.dumps(ERRORS[upstream]).encode(), "req-1")
    assert b"req-1" in body
    kinds: dict[Operation, Any] = {
        CHAT: openai.BadRequestError,
        RESPONSES: openai.BadRequestError,
        MESSAGES: anthropic.BadRequestError,
        GENERATE: google_errors.ClientError,
    }
    with pytest.raises(kinds[client], match="prompt is too long"):
        read_whole(client, body, 400)
    decoded = json.loads(body)
    match client:
        case Operation.MESSAGES:
            assert decoded["type"] == "error"
            assert decoded["error"]["type"] == "invalid_request_error"
        case Operation.GENERATE:
            assert (decoded["error"]["code"], decoded["error"]["status"]) == (400, "INVALID_ARGUMENT")
        case _:
            assert decoded["error"]["type"] == "invalid_request_error"
            if upstream in {CHAT, RESPONSES}:
                assert decoded["error"]["param"] == ERRORS[upstream]["error"]["param"]
            # what makes an agent shorten its history, whatever the vendor calls it
            assert decoded["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("client", [CHAT, RESPONSES, MESSAGES, GENERATE])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad gateway</html>",
        b"\xff\xfe",
        b'{"error":"no"}',
        b'{"detail":[]}',
        b"[]",
        b"[1]",
        b"null",
    ],
)
def test_any_error_body_has_a_message(client: Operation, body: bytes) -> None:
    error = json.loads(translate_error(client, CHAT, 502, body, "req-1"))["error"]
    assert error["message"]
    assert len(error["message"]) <= 4096


def test_google_errors_in_a_list() -> None:
    """Google's stream without `alt=sse` is one JSON array."""
    body = json.dumps([ERRORS[GENERATE]]).encode()
    assert json.loads(translate_error(CHAT, GENERATE, 400, body, "r"))["error"]["message"] == WORDS


@pytest.mark.parametrize(
    ("status", "openai_type", "anthropic_type", "google_status"),
    [
        (401, "authentication_error", "authentication_error", "UNAUTHENTICATED"),
        (403, "permission_error", "permission_error", "PERMISSION_DENIED"),
        (404, "not_found_error", "not_found_error", "NOT_FOUND"),
        (429, "rate_limit_error", "rate_limit_error", "RESOURCE_EXHAUSTED"),
        (500, "api_error", "api_error", "INTERNAL"),
        (503, "api_error", "overloaded_error", "UNAVAILABLE"),
    ],
)
def test_types_follow_the_status(
    status: int, openai_type: str, anthropic_type: str, google_status: str
) -> None:
    def error(client: Operation) -> dict[str, Any]:
        decoded: dict[str, Any] = json.loads(translate_error(client, CHAT, status, b"x", "r"))["error"]
        return decoded

    assert error(CHAT)["type"] == error(RESPONSES)["type"] == openai_type
    assert error(MESSAGES)["type"] == anthropic_type
    assert error(GENERATE)["status"] == google_status


@pytest.mark.parametrize(("client", "upstream"), PAIRS)
def test_error_inside_a_stream(client: Operation, upstream: Operation) -> None:
    """What came before it arrives, then the SDK raises; what comes after it is not sent."""
    sent = stream(upstream, EXPECTED["plain"]).replace(b"\r\n", b"\n")
    events = sent.split(b"\n\n")
    broken = b"\n\n".join(events[:-3]) + b"\n\n"
    name = b"event: error\n" if upstream in {RESPONSES, MESSAGES} else b""
    broken += name + b"data: " + json.dumps(OVERLOADED[upstream]).encode() + b"\n\n" + sent
    translation = open_translation(client, upstream, model="asked", include_usage=True)
    out = translation.feed(broken) + translation.end()
    assert out.count(b"busy") >= 1
    assert b"busy" in out.rstrip().rpartition(b"\n\n")[2]
    kinds: dict[Operation, Any] = {
        CHAT: openai.APIError,
        RESPONSES: openai.APIError,
        MESSAGES: anthropic.APIStatusError,
        GENERATE: google_errors.APIError,
    }
    with pytest.raises(kinds[client], match="busy"):
        read_stream(client, out)


@pytest.mark.parametrize("client", [RESPONSES, MESSAGES, GENERATE])
@pytest.mark.parametrize(
    "event",
    [
        b"data: {not json\n\n",
        b'data: {"choices":[{"index":0,"delta":{"content":7}}]}\n\n',
        b"data: " + b"x" * (9 * 1024 * 1024) + b"\n\n",
    ],
)
def test_an_event_that_cannot_be_read_is_an_error(client: Operation, event: bytes) -> None:
    start = stream(CHAT, EXPECTED["plain"]).partition(b"\n\n")[0] + b"\n\n"
    translation = open_translation(client, CHAT, model="asked", include_usage=True)
    out = (
        translation.feed(start + event)
        + translation.feed(stream(CHAT, EXPECTED["plain"]))
        + translation.end()
    )
    assert b"the provider sent an event" in out
    assert b"Hello" not in out


def test_mixed_tool_calls_are_an_error_not_a_wrong_call() -> None:
    def delta(index: int, **call: Any) -> bytes:
        calls = [{"index": index, **call}]
        return (
            b"data: "
            + json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": calls}}]}).encode()
            + b"\n\n"
        )

    sent = (
        delta(0, id="a", function={"name": "f", "arguments": '{"x":'})
        + delta(1, id="b", function={"name": "g", "arguments": "{}"})
        + delta(0, function={"arguments": "1}"})
    )
    translation = open_translation(MESSAGES, CHAT, model="asked", include_usage=True)
    out = translation.feed(sent)
    assert b"event: error" in out
    assert b"mixed" in out


def test_an_input_that_is_too_long_is_known_to_anthropics_clients() -> None:
    words = "This model's maximum context length is 128000 tokens."
    body = json.dumps({"error": {"message": words, "code": "context_length_exceeded"}}).encode()
    error = json.loads(translate_error(MESSAGES, CHAT, 400, body, "r"))["error"]
    assert error["message"] == f"prompt is too long: {words}"


def test_codex_is_told_that_the_response_failed() -> None:
    """It does not look at `error` events, and would try again."""
    event = b"event: error\ndata: " + json.dumps(OVERLOADED[MESSAGES]).encode() + b"\n\n"
    translation = open_translation(RESPONSES, MESSAGES, model="m", include_usage=True)
    out = translation.feed(stream(MESSAGES, EXPECTED["plain"]).partition(b"\n\n")[0] + b"\n\n" + event)
    last = json.loads(out.rstrip().rpartition(b"data: ")[2])
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert last["response"]["error"] == {"code": "rate_limit_exceeded", "message": "busy"}
