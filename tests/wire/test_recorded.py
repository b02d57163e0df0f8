"""Recorded shapes: the vendors' SDKs accept them, and what is read from them is exactly this."""

from pathlib import Path

import msgspec
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from outlay.wire import anthropic, openai
from outlay.wire.intent import Dialect, Operation, Usage
from outlay.wire.sse import event_data

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
]


@pytest.mark.parametrize(("name", "deltas", "output_bytes", "finish_reason", "usage"), STREAMS)
def test_streams(name: str, deltas: int, output_bytes: int, finish_reason: str, usage: Usage) -> None:
    stream = (RECORDED / name).read_bytes()
    reader = anthropic.MessagesStream() if name.startswith("anthropic") else openai.ChatStream(False)
    assert reader.feed(stream) + reader.end() == stream
    assert reader.usage == usage and reader.usage_is_final
    assert (reader.deltas, reader.output_bytes, reader.finish_reason) == (deltas, output_bytes, finish_reason)
    assert reader.is_done and not reader.error_seen and reader.saw_output
    assert reader.response_id


@pytest.mark.parametrize("name", ["openai_error_stream.sse", "anthropic_error_stream.sse"])
def test_streams_that_end_in_an_error(name: str) -> None:
    reader = anthropic.MessagesStream() if name.startswith("anthropic") else openai.ChatStream(True)
    reader.feed((RECORDED / name).read_bytes())
    assert reader.error_seen and not reader.is_done and not reader.usage_is_final


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.sse")), ids=lambda path: path.name)
def test_the_sdks_know_the_stream_shapes(path: Path) -> None:
    dialect = Dialect.ANTHROPIC if path.name.startswith("anthropic") else Dialect.OPENAI
    model: TypeAdapter[object] = TypeAdapter(
        RawMessageStreamEvent if dialect is Dialect.ANTHROPIC else ChatCompletionChunk
    )
    text = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    seen = 0
    for event in text.split(b"\n\n"):
        data = event_data(event)
        if data in {b"", b"[DONE]"} or b'"error"' in data or data == b'{"type":"ping"}':
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
]


@pytest.mark.parametrize(("name", "operation", "sdk_model", "usage"), ANSWERS)
def test_answers(name: str, operation: Operation, sdk_model: type, usage: Usage) -> None:
    body = (RECORDED / name).read_bytes()
    TypeAdapter(sdk_model).validate_python(msgspec.json.decode(body))
    dialect = anthropic if operation is Operation.MESSAGES else openai
    answer = dialect.read_answer(operation, body)
    assert answer.usage == usage
    assert not answer.is_error
