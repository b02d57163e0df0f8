"""Bedrock: frames as botocore reads them, requests of both operations, usage from bodies, headers and streams."""

import json
import zlib
from base64 import b64encode
from collections.abc import Callable
from itertools import pairwise

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from outlay.wire.bedrock import (
    LIMIT_FIELD,
    OVERHEAD_TOKENS,
    ConverseStream,
    InvokeStream,
    parse_converse,
    parse_invoke,
    read_answer,
    usage_of_headers,
)
from outlay.wire.bedrock_answer import FrameReader
from outlay.wire.eventstream import FrameSplitter, encode_frame
from outlay.wire.intent import CacheWrite, CallIntent, Dialect, Modality, Operation, Rejection, Usage

CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
TEXT = [{"role": "user", "content": [{"text": "hi"}]}]
PICTURE = "A" * 90_000


def event(kind: str, payload: object) -> bytes:
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return encode_frame(headers, json.dumps(payload).encode())


def wrapped(payload: object) -> bytes:
    return event("chunk", {"bytes": b64encode(json.dumps(payload).encode()).decode(), "p": "abcdef"})


CONVERSE = (
    event("messageStart", {"role": "assistant", "p": "ab"})
    + event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Grüße"}})
    + event("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"toolUse": {"input": "{}"}}})
    + event("contentBlockStop", {"contentBlockIndex": 0})
    + event("messageStop", {"stopReason": "end_turn"})
    + event(
        "metadata",
        {
            "usage": {
                "inputTokens": 10,
                "outputTokens": 7,
                "totalTokens": 137,
                "cacheReadInputTokens": 100,
                "cacheWriteInputTokens": 20,
                "cacheDetails": [{"ttl": "1h", "inputTokens": 15}, {"ttl": "5m", "inputTokens": 5}],
            },
            "metrics": {"latencyMs": 1},
            "serviceTier": {"type": "default"},
        },
    )
)
CONVERSE_USAGE = Usage(
    130,
    7,
    cache_read_input_tokens=100,
    cache_creation_input_tokens=20,
    cache_creation_1h_input_tokens=15,
    service_tier="default",
)
INVOKE = (
    wrapped(
        {
            "type": "message_start",
            "message": {"id": "msg_1", "model": "claude", "usage": {"input_tokens": 9, "output_tokens": 1}},
        }
    )
    + wrapped({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "abc"}})
    + wrapped({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}})
    + wrapped({"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 9}})
)
NOVA = (
    wrapped({"contentBlockDelta": {"delta": {"text": "abc"}, "contentBlockIndex": 0}})
    + wrapped({"messageStop": {"stopReason": "max_tokens"}})
    + wrapped({"metadata": {"usage": {"inputTokens": 4, "outputTokens": 3, "cacheReadInputTokenCount": 2}}})
)
STREAMS: list[tuple[bytes, Callable[[], FrameReader], Usage, str, int]] = [
    (CONVERSE, ConverseStream, CONVERSE_USAGE, "end_turn", 2),
    (INVOKE, InvokeStream, Usage(9, 5, model="claude"), "end_turn", 1),
    (NOVA, InvokeStream, Usage(6, 3, cache_read_input_tokens=2), "max_tokens", 1),
]


def test_botocore_reads_our_frames_and_we_read_them() -> None:
    frame = encode_frame({":event-type": "x", ":message-type": "event"}, b"payload")
    buffer = EventStreamBuffer()
    buffer.add_data(frame)
    (theirs,) = list(buffer)
    (ours,) = FrameSplitter().push(frame)
    assert (theirs.headers, theirs.payload) == (ours.headers, ours.payload)
    assert ours.payload == b"payload"


@pytest.mark.parametrize(("stream", "make", "usage", "reason", "deltas"), STREAMS)
@given(places=st.lists(st.integers(min_value=0), max_size=30))
def test_any_split_reads_the_same(
    stream: bytes,
    make: Callable[[], FrameReader],
    usage: Usage,
    reason: str,
    deltas: int,
    places: list[int],
) -> None:
    reader = make()
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    forwarded = b"".join(reader.feed(stream[a:b]) for a, b in pairwise(edges)) + reader.end()
    assert forwarded == stream
    assert (reader.usage, reader.finish_reason, reader.deltas) == (usage, reason, deltas)
    assert reader.is_done and reader.usage_is_final and not reader.error_seen and reader.is_between_events


@pytest.mark.parametrize("place", [0, 5, 9, 13, 40, -1])
def test_a_damaged_frame_ends_the_reading_not_the_forwarding(place: int) -> None:
    damaged = bytearray(CONVERSE)
    damaged[place] ^= 0x55
    reader = ConverseStream()
    assert reader.feed(bytes(damaged)) == bytes(damaged)
    assert reader.usage is None and not reader.usage_is_final


def test_an_absurd_length_holds_nothing() -> None:
    prelude = (2**31).to_bytes(4, "big") + (0).to_bytes(4, "big")
    splitter = FrameSplitter()
    assert splitter.push(prelude + zlib.crc32(prelude).to_bytes(4, "big")) == []
    assert splitter.is_broken and splitter.push(CONVERSE) == []


def test_exceptions_are_errors() -> None:
    headers = {":exception-type": "throttlingException", ":message-type": "exception"}
    reader = ConverseStream()
    reader.feed(encode_frame(headers, b'{"message":"slow down"}'))
    assert reader.error_seen and not reader.is_done


@given(data=st.binary(max_size=200))
def test_no_soup_raises(data: bytes) -> None:
    for make in (ConverseStream, InvokeStream):
        reader = make()
        assert reader.feed(data) == data
        reader.feed(event("chunk", {"bytes": "%%%"}) + encode_frame({":event-type": "metadata"}, data))
        reader.feed(encode_frame({":event-type": "chunk"}, data))
    for operation in (Operation.CONVERSE, Operation.INVOKE):
        read_answer(operation, data)
    assert isinstance(parse_converse(data, model="m", stream=False), CallIntent | Rejection)
    assert isinstance(parse_invoke(data, model="m", stream=False), CallIntent | Rejection)


def body_of(**fields: object) -> bytes:
    return json.dumps({"messages": TEXT, **fields}).encode()


def taken(body: bytes, model: str = CLAUDE) -> CallIntent:
    intent = parse_converse(body, model=model, stream=True)
    assert isinstance(intent, CallIntent), intent
    return intent


def test_converse() -> None:
    body = body_of(inferenceConfig={"maxTokens": 50}, serviceTier={"type": "priority"})
    intent = taken(body)
    assert (intent.dialect, intent.operation, intent.model) == (Dialect.BEDROCK, Operation.CONVERSE, CLAUDE)
    assert (intent.max_output_tokens, intent.output_limit_field) == (50, LIMIT_FIELD)
    assert (intent.stream, intent.service_tier, intent.cache_write) == (True, "priority", CacheWrite.NONE)
    assert intent.input_tokens_bound == len(body) + OVERHEAD_TOKENS


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-haiku-v1:0",
            "anthropic.claude-3-haiku-v1:0",
        ),
        (f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/{CLAUDE}", CLAUDE),
        (CLAUDE, CLAUDE),
    ],
)
def test_an_arn_names_its_model(model: str, expected: str) -> None:
    assert taken(body_of(), model).model == expected


def test_converse_media() -> None:
    image = {"image": {"format": "png", "source": {"bytes": PICTURE}}}
    nested = {"toolResult": {"toolUseId": "t", "content": [image, {"text": "x"}]}}
    body = body_of(messages=[{"role": "user", "content": [image, nested]}])
    intent = taken(body)
    assert intent.input_tokens_bound == len(body) - 2 * len(PICTURE) + OVERHEAD_TOKENS + 2 * 4_800
    assert intent.input_modalities == (Modality.IMAGE,) and not intent.has_referenced_input
    for block, kinds in (
        ({"document": {"source": {"bytes": "AA"}}}, (Modality.IMAGE,)),
        ({"video": {"source": {"s3Location": {"uri": "s3://x"}}}}, (Modality.AUDIO, Modality.VIDEO)),
        ({"audio": {"source": {"bytes": "AA"}}}, (Modality.AUDIO,)),
    ):
        intent = taken(body_of(messages=[{"role": "user", "content": [block]}]))
        assert intent.has_referenced_input and intent.input_modalities == kinds


def test_cache_points() -> None:
    point = {"cachePoint": {"type": "default"}}
    assert taken(body_of(system=[{"text": "x"}, point])).cache_write is CacheWrite.DEFAULT
    hour = {"cachePoint": {"type": "default", "ttl": "1h"}}
    assert taken(body_of(system=[{"text": "x"}, hour])).cache_write is CacheWrite.HOUR


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"{}", "messages"),
        (body_of(inferenceConfig={"maxTokens": 0}), "maxTokens"),
        (body_of(inferenceConfig={"maxTokens": 1, "max_new_tokens": 9}), "max_new_tokens"),
        (body_of(InferenceConfig={"maxTokens": 1}), "inferenceConfig"),
        (b'{"messages":[],"inferenceConfig":{"maxTokens":1,"maxTokens":9}}', "maxTokens"),
        (body_of(guardrailConfig={"guardrailIdentifier": "g"}), "guardrailConfig"),
        (body_of(promptVariables={"a": {"text": "b"}}), "promptVariables"),
        (body_of(additionalModelRequestFields={"max_tokens": 9}), "additionalModelRequestFields.max_tokens"),
        (body_of(additionalModelRequestFields={"tools": []}), "additionalModelRequestFields.tools"),
        (body_of(toolConfig={"tools": [{"systemTool": {"name": "nova_grounding"}}]}), "systemTool"),
        (body_of(performanceConfig={"latency": "optimized"}), "performanceConfig"),
        (body_of(messages=[{"role": "user", "content": [{"hologram": {}}]}]), "hologram"),
        (body_of(messages=[{"role": "user", "content": [{"toolResult": {"content": "x"}}]}]), "toolResult"),
    ],
)
def test_refusals_name_the_field(body: bytes, word: str) -> None:
    refused = parse_converse(body, model=CLAUDE, stream=False)
    assert isinstance(refused, Rejection) and word in refused.message, refused


def test_invoke_with_a_body_of_anthropic() -> None:
    body = json.dumps(
        {
            "anthropic_version": "bedrock-2023-05-31",
            "max_tokens": 9,
            "messages": [{"role": "user", "content": "x"}],
        }
    ).encode()
    intent = parse_invoke(body, model=CLAUDE, stream=True)
    assert isinstance(intent, CallIntent), intent
    assert (intent.dialect, intent.operation, intent.model) == (Dialect.BEDROCK, Operation.INVOKE, CLAUDE)
    assert (intent.max_output_tokens, intent.output_limit_field, intent.stream) == (9, "max_tokens", True)
    other = parse_invoke(
        body.replace(b'"max_tokens"', b'"model": "dear", "max_tokens"'), model=CLAUDE, stream=False
    )
    assert isinstance(other, Rejection) and "`model`" in other.message
    pictured = body.replace(b'"content": "x"', b'"content": [{"type": "hologram"}]')
    assert isinstance(parse_invoke(pictured, model=CLAUDE, stream=False), Rejection)


def test_invoke_of_others() -> None:
    nova = body_of(inferenceConfig={"max_new_tokens": 7}, schemaVersion="messages-v1")
    intent = parse_invoke(nova, model="us.amazon.nova-lite-v1:0", stream=False)
    assert isinstance(intent, CallIntent)
    assert (intent.max_output_tokens, intent.output_limit_field) == (7, "inferenceConfig.max_new_tokens")
    for model, body in (
        ("amazon.titan-embed-text-v2:0", b'{"inputText":"x"}'),
        ("cohere.embed-english-v3", b'{"texts":["x"],"input_type":"search_query"}'),
    ):
        embed = parse_invoke(body, model=model, stream=False)
        assert isinstance(embed, CallIntent) and embed.max_output_tokens == 0
    for model, body in (
        ("amazon.titan-embed-image-v1", b'{"inputText":"x","inputImage":"AA"}'),
        ("meta.llama3-70b-instruct-v1:0", b'{"prompt":"x"}'),
    ):
        assert isinstance(parse_invoke(body, model=model, stream=False), Rejection)


def test_answers() -> None:
    converse = {
        "output": {"message": {"role": "assistant", "content": [{"text": "x"}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 10, "outputTokens": 7, "cacheReadInputTokens": 5, "totalTokens": 22},
        "performanceConfig": {"latency": "optimized"},
    }
    answer = read_answer(Operation.CONVERSE, json.dumps(converse).encode())
    assert answer.usage == Usage(15, 7, cache_read_input_tokens=5, speed="optimized")
    assert answer.finish_reason == "end_turn"
    message = b'{"type":"message","id":"m","model":"c","usage":{"input_tokens":3,"output_tokens":2}}'
    assert read_answer(Operation.INVOKE, message).usage == Usage(3, 2, model="c")
    assert read_answer(Operation.INVOKE, b'{"embedding":[],"inputTextTokenCount":6}').usage == Usage(6, 0)
    assert read_answer(Operation.INVOKE, json.dumps(converse).encode()).usage is not None
    assert read_answer(Operation.CONVERSE, b'{"message":"no"}').is_error
    del converse["usage"]
    assert read_answer(Operation.CONVERSE, json.dumps(converse).encode()).usage is None


def test_headers() -> None:
    stated = {"x-amzn-bedrock-input-token-count": "12", "x-amzn-bedrock-output-token-count": "3"}
    assert usage_of_headers(stated) == Usage(12, 3)
    assert usage_of_headers({"x-amzn-bedrock-input-token-count": "12"}) == Usage(12, 0)
    assert (
        usage_of_headers({}) is None and usage_of_headers({"x-amzn-bedrock-input-token-count": "-1"}) is None
    )
