"""Recorded shapes: the vendors' SDKs accept them, and what is read from them is exactly this."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from google.genai.types import GenerateContentResponse
from openai.types import CreateEmbeddingResponse, ImageGenStreamEvent
from openai.types.audio import TranscriptionStreamEvent
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from outlay.wire import anthropic, audio, gemini, images, openai, openai_responses
from outlay.wire.intent import Operation, Units, Usage
from outlay.wire.sse import event_data
from outlay.wire.stream import EventReader

RECORDED = Path(__file__).parents[1] / "recorded"
GPT = "gpt-5-mini-2025-08-07"
CLAUDE = "claude-sonnet-4-5-20250929"


def usage_of_chat(tier: str) -> Usage:
    return Usage(
        1200,
        90,
        cache_read_input_tokens=1024,
        cache_creation_input_tokens=100,
        reasoning_output_tokens=64,
        model=GPT,
        service_tier=tier,
    )


# file, deltas, bytes of output, finish reason, usage
STREAMS = [
    (
        "openai_chat_stream.sse",
        2,
        len("Größe 東京".encode()),
        "stop",
        usage_of_chat("default"),
    ),
    (
        "openai_tools_stream.sse",
        3,
        len('lookup{"city":"Oslo"}'),
        "tool_calls",
        Usage(70, 17, model=GPT, service_tier="default"),
    ),
    ("vllm_continuous_stream.sse", 3, 5, "stop", Usage(9, 3, model="Qwen/Qwen3-8B")),
    ("llamacpp_stream.sse", 2, len("Hi there"), "stop", Usage(11, 3, model="gemma")),
    ("openai_comments_crlf_stream.sse", 2, 2, "stop", Usage(5, 2, model=GPT, service_tier="default")),
    ("openai_cr_bom_stream.sse", 2, 2, "stop", Usage(5, 2, model=GPT, service_tier="default")),
    ("openai_multiline_stream.sse", 1, 2, "stop", Usage(6, 2, model=GPT, service_tier="default")),
    (
        "anthropic_stream.sse",
        3,
        len("HmGrüße".encode()) + len("c2ln"),
        "end_turn",
        Usage(
            2325,
            42,
            cache_read_input_tokens=2000,
            cache_creation_input_tokens=300,
            cache_creation_1h_input_tokens=200,
            reasoning_output_tokens=30,
            model=CLAUDE,
            service_tier="standard",
            speed="standard",
            inference_geo="us",
        ),
    ),
    (
        "anthropic_tools_stream.sse",
        4,
        len('web_search{"query":"x"}save{"a":1}'),
        "tool_use",
        Usage(9000, 120, web_search_requests=2, model=CLAUDE),
    ),
    (
        "openai_responses_stream.sse",
        3,
        len('HmGrüße{"a":1}'.encode()),
        "completed",
        msgspec.structs.replace(usage_of_chat("default"), web_search_requests=1),
    ),
    (
        "gemini_stream.sse",
        2,
        len('Grüße aus{"name":"f","args":{"a":1}}'.encode()),
        "STOP",
        Usage(
            350,
            47,
            cache_read_input_tokens=100,
            reasoning_output_tokens=40,
            web_search_requests=1,
            input_image_tokens=258,
            cache_read_image_tokens=100,
            model="gemini-2.5-flash",
        ),
    ),
    (
        "images_stream.sse",
        2,
        2,
        "completed",
        Usage(50, 7124, output_image_tokens=7124, units=(Units("image", 1),)),
    ),
    (
        "transcript_stream.sse",
        2,
        len("Grüße aus".encode()),
        "completed",
        Usage(14, 45, input_audio_tokens=14),
    ),
    ("speech_stream.sse", 1, 1, "completed", Usage(12, 90, output_audio_tokens=90)),
]
WITHOUT_ID = ("images", "transcript", "speech")


# start of the name, reader, what the SDK makes of an event
KINDS: list[tuple[str, Callable[[], EventReader], object]] = [
    ("anthropic", anthropic.MessagesStream, RawMessageStreamEvent),
    ("openai_responses", openai_responses.ResponsesStream, ResponseStreamEvent),
    ("gemini", gemini.GenerateStream, GenerateContentResponse),
    ("images", images.ImageStream, ImageGenStreamEvent),
    ("transcript", audio.TranscriptStream, TranscriptionStreamEvent),
    ("speech", audio.SpeechStream, dict),  # the SDK has no type for it
    ("", lambda: openai.ChatStream(False), ChatCompletionChunk),
]


def reader_of(name: str) -> EventReader:
    return next(make() for start, make, _ in KINDS if name.startswith(start))


def sdk_type_of(name: str) -> TypeAdapter[object]:
    return TypeAdapter(next(kind for start, _, kind in KINDS if name.startswith(start)))


@pytest.mark.parametrize(("name", "deltas", "output_bytes", "finish_reason", "usage"), STREAMS)
def test_streams(name: str, deltas: int, output_bytes: int, finish_reason: str, usage: Usage) -> None:
    stream = (RECORDED / name).read_bytes()
    reader = reader_of(name)
    assert reader.feed(stream) + reader.end() == stream
    assert reader.usage == usage and reader.usage_is_final
    assert (reader.deltas, reader.output_bytes, reader.finish_reason) == (deltas, output_bytes, finish_reason)
    assert reader.is_done and not reader.error_seen and reader.saw_output
    assert reader.response_id or name.startswith(WITHOUT_ID)


def test_a_failed_response_is_an_error() -> None:
    reader = reader_of("openai_responses")
    reader.feed((RECORDED / "openai_responses_failed_stream.sse").read_bytes())
    assert reader.error_seen and reader.is_done and reader.usage is None and not reader.usage_is_final


@pytest.mark.parametrize("name", ["openai_error_stream.sse", "anthropic_error_stream.sse"])
def test_streams_that_end_in_an_error(name: str) -> None:
    reader = anthropic.MessagesStream() if name.startswith("anthropic") else openai.ChatStream(True)
    reader.feed((RECORDED / name).read_bytes())
    assert reader.error_seen and not reader.is_done and not reader.usage_is_final


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.sse")), ids=lambda path: path.name)
def test_the_sdks_know_the_stream_shapes(path: Path) -> None:
    model = sdk_type_of(path.name)
    text = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    seen = 0
    for event in text.split(b"\n\n"):
        data = event_data(event)
        if data in {b"", b"[DONE]", b'{"type":"ping"}'}:
            continue
        if b'"error"' in data and b'"error":null' not in data:
            continue
        model.validate_json(data)
        seen += 1
    assert seen


# file, operation, SDK model, usage
ANSWERS: list[tuple[str, Operation, type, Usage]] = [
    ("openai_chat.json", Operation.CHAT, ChatCompletion, usage_of_chat("priority")),
    ("vllm_chat.json", Operation.CHAT, ChatCompletion, Usage(9, 4, model="Qwen/Qwen3-8B")),
    (
        "openai_embeddings.json",
        Operation.EMBEDDINGS,
        CreateEmbeddingResponse,
        Usage(8, 0, model="text-embedding-3-small"),
    ),
    (
        "anthropic_message.json",
        Operation.MESSAGES,
        Message,
        Usage(
            2325,
            12,
            cache_read_input_tokens=2000,
            cache_creation_input_tokens=300,
            cache_creation_1h_input_tokens=200,
            web_search_requests=1,
            model=CLAUDE,
            service_tier="standard",
            speed="standard",
            inference_geo="us",
        ),
    ),
    (
        "openai_response.json",
        Operation.RESPONSES,
        Response,
        Usage(
            500,
            16,
            cache_creation_input_tokens=400,
            cache_creation_12h_input_tokens=400,
            reasoning_output_tokens=16,
            web_search_requests=3,
            file_search_requests=1,
            code_execution_requests=1,
            model="gpt-6.2-sol",
            service_tier="priority",
        ),
    ),
    (
        "gemini_generate.json",
        Operation.GENERATE,
        GenerateContentResponse,
        Usage(
            1000,
            25,
            reasoning_output_tokens=5,
            web_search_requests=2,
            input_audio_tokens=960,
            output_audio_tokens=12,
            units=(Units("google_maps", 1),),
            model="gemini-3.8-flash",
            service_tier="priority",
        ),
    ),
]
READS = {
    Operation.MESSAGES: anthropic.read_answer,
    Operation.RESPONSES: openai_responses.read_answer,
    Operation.GENERATE: gemini.read_answer,
}


@pytest.mark.parametrize(("name", "operation", "sdk_model", "usage"), ANSWERS)
def test_answers(name: str, operation: Operation, sdk_model: type, usage: Usage) -> None:
    body = (RECORDED / name).read_bytes()
    TypeAdapter(sdk_model).validate_python(msgspec.json.decode(body))
    answer = READS.get(operation, openai.read_answer)(operation, body)
    assert answer.usage == usage
    assert not answer.is_error
