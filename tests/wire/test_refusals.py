"""Error bodies and events, as the vendors' own SDKs take them; routes; changes to bodies."""

import json
from collections.abc import Iterator
from pathlib import Path

import anthropic as anthropic_sdk
import msgspec
import openai as openai_sdk
import pytest
from anthropic.types import ErrorResponse
from botocore.eventstream import EventStreamBuffer
from google.genai import errors as genai_errors
from openai.types.responses import ResponseErrorEvent
from openai.types.shared import ErrorObject

from outlay.wire import route_table
from outlay.wire.bedrock import ConverseStream
from outlay.wire.body import insert_field, replace_fields, with_stream_usage
from outlay.wire.gemini import GenerateStream
from outlay.wire.intent import Dialect, Operation
from outlay.wire.openai_responses import ResponsesStream
from outlay.wire.refusal import error_body, error_type, stream_error_event
from outlay.wire.routes import ROUTES, find_route

FIELDS = {"budget": "team-a", "needed": "0.12", "message": "not this one", "param": "max_tokens"}


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422, 429, 500, 503, 529])
def test_openai_bodies(status: int) -> None:
    body = json.loads(error_body(Dialect.OPENAI, status, "budget_spent", "No money.", FIELDS, "req_1"))
    error = ErrorObject.model_validate(body["error"])
    assert (error.code, error.message, error.param) == ("budget_spent", "No money.", "max_tokens")
    assert error.type == error_type(Dialect.OPENAI, status)
    assert (body["error"]["budget"], body["error"]["request_id"]) == ("team-a", "req_1")


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422, 429, 500, 503, 504, 529])
def test_anthropic_bodies(status: int) -> None:
    body = error_body(Dialect.ANTHROPIC, status, "budget_spent", "No money.", FIELDS, "req_1")
    whole = ErrorResponse.model_validate_json(body)
    assert whole.request_id == "req_1"
    assert (whole.error.message, whole.error.type) == ("No money.", error_type(Dialect.ANTHROPIC, status))
    assert json.loads(body)["error"]["code"] == "budget_spent"


def test_a_spent_budget_is_a_billing_matter() -> None:
    assert error_type(Dialect.ANTHROPIC, 402) == "billing_error"
    assert error_type(Dialect.OPENAI, 402) == "budget_exceeded"


def sdk_stream(dialect: Dialect, raw: bytes) -> Iterator[object]:
    """The SDK's own reading of a 200 stream."""
    if dialect is Dialect.OPENAI:
        decoder = openai_sdk._streaming.SSEDecoder()
    else:
        decoder = anthropic_sdk._streaming.SSEDecoder()
    yield from decoder.iter_bytes(iter([raw]))


@pytest.mark.parametrize("dialect", [Dialect.OPENAI, Dialect.ANTHROPIC])
def test_stream_errors_are_one_event(dialect: Dialect) -> None:
    (event,) = sdk_stream(dialect, stream_error_event(dialect, "run_killed", "Stopped.", {"run": "r1"}))
    body = event.json()  # type: ignore[attr-defined]
    assert body["error"]["code"] == "run_killed" and body["error"]["message"] == "Stopped."
    # what makes each SDK raise: OpenAI's looks for `error` in the data, Anthropic's at the event's name
    assert event.event == ("error" if dialect is Dialect.ANTHROPIC else None)  # type: ignore[attr-defined]
    assert body["error"]["run"] == "r1"


def test_a_response_stream_ends_in_an_error_that_its_sdk_raises() -> None:
    raw = stream_error_event(
        Dialect.OPENAI, "budget_spent", "No money.", {"budget": "b"}, operation=Operation.RESPONSES
    )
    (event,) = sdk_stream(Dialect.OPENAI, raw)
    data = event.json()  # type: ignore[attr-defined]
    assert event.event == "error"  # type: ignore[attr-defined]
    # the SDK raises for `error`; Codex and others read the event's own shape
    assert data["error"]["message"] == "No money." and data["error"]["code"] == "budget_spent"
    shape = ResponseErrorEvent.model_validate(data)
    assert (shape.code, shape.message, shape.type) == ("budget_spent", "No money.", "error")
    reader = ResponsesStream()
    reader.feed(raw)
    assert reader.error_seen


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422, 429, 500, 503])
def test_google_bodies(status: int) -> None:
    fields = {"budget": "b", "limit_usd": "1.50", "spent": 7, "param": None}
    body = json.loads(error_body(Dialect.GOOGLE, status, "budget_spent", "No money.", fields, "req_1"))
    error = genai_errors.APIError(status, body)
    assert (error.code, error.message) == (status, "No money.")
    assert error.status == error_type(Dialect.GOOGLE, status)
    (info,) = body["error"]["details"]
    assert info["reason"] == "BUDGET_SPENT"
    assert info["metadata"] == {"budget": "b", "limit_usd": "1.50", "spent": "7", "request_id": "req_1"}


def test_a_google_stream_ends_in_a_chunk_that_its_sdk_raises() -> None:
    raw = stream_error_event(Dialect.GOOGLE, "run_killed", "Stopped.", {"run": "r1"})
    assert raw.startswith(b'data: {"error":') and raw.endswith(b"\n\n")
    chunk = json.loads(raw[6:])
    with pytest.raises(genai_errors.ClientError) as raised:
        genai_errors.APIError.raise_error(chunk["error"]["code"], chunk, None)
    assert raised.value.code == 402 and raised.value.message == "Stopped."
    reader = GenerateStream()
    reader.feed(raw)
    assert reader.error_seen


def test_flat_bodies() -> None:
    for dialect in (Dialect.COHERE, Dialect.BEDROCK):
        body = json.loads(error_body(dialect, 402, "budget_spent", "No money.", FIELDS, "req_1"))
        assert (body["message"], body["code"], body["budget"]) == ("No money.", "budget_spent", "team-a")
        assert body["request_id"] == "req_1"
    types = {status: error_type(Dialect.BEDROCK, status) for status in (400, 402, 429, 500, 503)}
    assert types[400] == "ValidationException" and types[429] == "ThrottlingException"
    assert len(set(types.values())) == 5


def test_a_bedrock_stream_ends_in_an_exception_frame() -> None:
    raw = stream_error_event(Dialect.BEDROCK, "run_killed", "Stopped.", {"run": "r1"}, status=429)
    buffer = EventStreamBuffer()
    buffer.add_data(raw)
    (frame,) = list(buffer)
    assert frame.headers[":message-type"] == "exception"
    assert frame.headers[":exception-type"] == "throttlingException"
    assert json.loads(frame.payload)["message"] == "Stopped."
    reader = ConverseStream()
    reader.feed(raw)
    assert reader.error_seen


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("POST", "/v1/chat/completions", (Dialect.OPENAI, Operation.CHAT)),
        ("POST", "/v1/chat/completions?x=/..", (Dialect.OPENAI, Operation.CHAT)),
        ("POST", "/v1/embeddings", (Dialect.OPENAI, Operation.EMBEDDINGS)),
        ("POST", "/v1/messages", (Dialect.ANTHROPIC, Operation.MESSAGES)),
        ("POST", "/v1/messages?beta=true", (Dialect.ANTHROPIC, Operation.MESSAGES)),
        ("POST", "/v1/messages/count_tokens", (Dialect.ANTHROPIC, Operation.COUNT_TOKENS)),
        ("GET", "/v1/models", (Dialect.OPENAI, Operation.MODELS)),
        ("GET", "/v1/models/gpt-5", (Dialect.OPENAI, Operation.MODELS)),
        ("GET", "/v1/models/org/name:tag", (Dialect.OPENAI, Operation.MODELS)),
        ("GET", "/v1/chat/completions", None),
        ("POST", "/v1/chat/completions/", None),
        ("POST", "//v1/chat/completions", None),
        ("POST", "/v1//chat/completions", None),
        ("POST", "/V1/chat/completions", None),
        ("POST", "/v1/x/../chat/completions", None),
        ("POST", "/v1/chat%2fcompletions", None),
        ("POST", "/v1/chat/completions;x", None),
        ("POST", "/v1/chat/completions#x", None),
        ("POST", "http://h/v1/chat/completions", None),
        ("POST", "/chat/completions", (Dialect.OPENAI, Operation.CHAT)),
        ("POST", "/openai/v1/responses", (Dialect.OPENAI, Operation.RESPONSES)),
        ("POST", "/openai/deployments/gpt-x/embeddings", (Dialect.OPENAI, Operation.EMBEDDINGS)),
        ("POST", "/openai/deployments/../chat/completions", None),
        ("POST", "/openai/deployments/a/b/chat/completions", None),
        ("POST", "/v1beta/models/gemini-x:generateContent", (Dialect.GOOGLE, Operation.GENERATE)),
        ("POST", "/v1beta/models/gemini-x:batchGenerateContent", None),
        ("POST", "/v1beta/models/../x:generateContent", None),
        ("POST", "/model/anthropic.claude%3A0/converse", (Dialect.BEDROCK, Operation.CONVERSE)),
        ("POST", "/model/%2e%2e/converse", None),
        ("GET", "/v1/files/file-1/content", (Dialect.OPENAI, Operation.FREE)),
        ("GET", "/v1/files/..", None),
        ("GET", "/v1/files/a%2fb", None),
        ("POST", "/v1/fine_tuning/jobs/x/resume", None),
        ("GET", "/v1/models/%2e%2e", None),
        ("POST", "", None),
        ("GET", "/v1/models/", None),
        ("GET", "/v1/models/..", None),
        ("GET", "/v1/models/a/../../chat", None),
        ("GET", "/v1/models/a%2fb", (Dialect.OPENAI, Operation.MODELS)),
        ("GET", "/v1/models/a//b", None),
        ("GET", "/v1/models/a\\b", None),
        ("DELETE", "/v1/models/gpt-5", None),
        ("PUT", "/v1/responses", None),
    ],
)
def test_routes(method: str, target: str, expected: tuple[Dialect, Operation] | None) -> None:
    found = find_route(method, target)
    assert (None if found is None else (found.route.dialect, found.route.operation)) == expected


def test_models_exist_in_both_dialects() -> None:
    for path in ("/v1/models", "/v1/models/claude-x"):
        found = find_route("GET", path, has_anthropic_version=True)
        assert found is not None
        assert (found.route.dialect, found.route.operation) == (Dialect.ANTHROPIC, Operation.MODELS)
    found = find_route("POST", "/v1/chat/completions", has_anthropic_version=True)
    assert found is not None
    assert (found.route.dialect, found.route.operation) == (Dialect.OPENAI, Operation.CHAT)


def test_inserting_keeps_every_byte() -> None:
    body = b'{ "model" : "m{}" ,\n "x": {"a": [1, 2.50]} }\n'
    changed = insert_field(body, "max_tokens", 7)
    assert changed == b'{ "model" : "m{}" ,\n "x": {"a": [1, 2.50]} ,"max_tokens":7}'
    assert json.loads(changed) == {**json.loads(body), "max_tokens": 7}


@pytest.mark.parametrize("name", ["max_tokens", "max_t\\u006fkens"])
def test_inserting_never_writes_a_name_twice(name: str) -> None:
    body = b'{"model":"m","%b":null}' % name.encode()
    assert insert_field(body, "max_tokens", 7) == b'{"model":"m","max_tokens":7}'


def test_replacing_keeps_other_values_and_order() -> None:
    body = b'{"max_tokens": 9, "t": 1.50, "x": {"max_tokens":  1}}'
    assert (
        replace_fields(body, {"max_tokens": 3, "n": 1})
        == b'{"max_tokens":3,"t":1.50,"x":{"max_tokens":  1},"n":1}'
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a":1}', {"a": 1, "stream_options": {"include_usage": True}}),
        (b'{"stream_options":null}', {"stream_options": {"include_usage": True}}),
        (
            b'{"stream_options":{"include_usage":false,"k":[1]}}',
            {"stream_options": {"include_usage": True, "k": [1]}},
        ),
    ],
)
def test_asking_for_stream_usage(body: bytes, expected: object) -> None:
    assert json.loads(with_stream_usage(body)) == expected


def test_a_body_that_is_no_object_is_not_changed() -> None:
    with pytest.raises(ValueError, match="subsection not found"):
        insert_field(b"[]", "n", 1)
    with pytest.raises(msgspec.DecodeError):
        replace_fields(b"[]", {"n": 1})


def test_the_page_of_routes_is_current() -> None:
    page = (Path(__file__).parents[2] / "docs" / "routes.md").read_text()
    assert page == route_table.page(), "run `python -m outlay.wire.route_table > docs/routes.md`"


def test_every_route_says_how_it_is_metered_and_tested() -> None:
    assert all(route.sdk for route in ROUTES)
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)
