"""Responses requests: what is bounded by bytes, what by the window, which tools are billed, what is refused."""

import json

import pytest

from outlay.wire.intent import CacheWrite, CallIntent, HostedTool, Modality, Operation, Rejection
from outlay.wire.openai_responses import (
    MAX_CONTAINERS,
    RESPONSES_OVERHEAD_TOKENS,
    TOOLS_OVERHEAD_TOKENS,
    parse_responses,
    read_answer,
)
from outlay.wire.openai_terms import IMAGE_TOKENS, TILED_MINI_IMAGE_TOKENS

INLINE = "data:image/png;base64," + "A" * 90_000


def body_of(**fields: object) -> bytes:
    return json.dumps({"model": "gpt-6.2-sol", "input": "hi", **fields}, separators=(",", ":")).encode()


def taken(body: bytes) -> CallIntent:
    intent = parse_responses(body)
    assert isinstance(intent, CallIntent), intent
    return intent


def items(*given: object) -> bytes:
    return body_of(input=list(given))


def parts(*given: object) -> bytes:
    return items({"role": "user", "content": list(given)})


def test_plain_text() -> None:
    body = body_of(max_output_tokens=50, stream=True, service_tier="flex", background=True)
    intent = taken(body)
    assert intent.operation is Operation.RESPONSES
    assert intent.input_tokens_bound == len(body) + RESPONSES_OVERHEAD_TOKENS
    assert (intent.max_output_tokens, intent.output_limit_field) == (50, "max_output_tokens")
    assert (intent.stream, intent.is_background, intent.service_tier) == (True, True, "flex")
    assert intent.cache_write is CacheWrite.DEFAULT
    assert not intent.has_referenced_input and intent.input_modalities == ()


@pytest.mark.parametrize(
    "body",
    [
        body_of(previous_response_id="resp_1"),
        body_of(conversation={"id": "conv_1"}),
        body_of(prompt={"id": "pmpt_1"}, tools=[]),
        items({"type": "item_reference", "id": "msg_1"}),
        items({"id": "msg_1"}),
        items({"type": "reasoning", "id": "rs_1", "summary": []}),
        items({"type": "compaction", "encrypted_content": "x"}),
        items({"type": "web_search_call", "id": "ws_1", "status": "completed"}),
        parts({"type": "input_file", "file_id": "file_1"}),
        parts({"type": "input_file", "file_data": "data:application/pdf;base64,AAAA"}),
        items(
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": [{"type": "input_file", "file_url": "https://x"}],
            }
        ),
        items({"type": "some_later_kind", "id": "x"}),
    ],
)
def test_what_is_named_and_not_sent_takes_the_window(body: bytes) -> None:
    assert taken(body).has_referenced_input


@pytest.mark.parametrize(
    "body",
    [
        items(
            {
                "type": "message",
                "role": "assistant",
                "id": "msg_1",
                "content": [{"type": "output_text", "text": "x"}],
            },
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
            {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "42"},
            {"type": "custom_tool_call_output", "call_id": "d", "output": "x"},
            {"type": "shell_call_output", "call_id": "e", "output": [{"stdout": "x", "stderr": ""}]},
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "x"}, {"type": "input_text", "text": "y"}],
            },
        ),
        body_of(previous_response_id=None, conversation=None, prompt=None, tools=None),
    ],
)
def test_what_an_agent_sends_back_is_bounded_by_its_bytes(body: bytes) -> None:
    intent = taken(body)
    assert not intent.has_referenced_input
    assert intent.input_tokens_bound == len(body) + RESPONSES_OVERHEAD_TOKENS


@pytest.mark.parametrize(
    ("model", "tokens"), [("gpt-6.2-sol", IMAGE_TOKENS), ("gpt-4o-mini", TILED_MINI_IMAGE_TOKENS)]
)
def test_an_image_counts_by_its_formula_not_its_bytes(model: str, tokens: int) -> None:
    image = {"type": "input_image", "image_url": INLINE}
    screen = {
        "type": "computer_call_output",
        "call_id": "c",
        "output": {"type": "computer_screenshot", "file_id": "f"},
    }
    body = json.dumps({"model": model, "input": [{"role": "user", "content": [image]}, screen]}).encode()
    intent = taken(body)
    assert (
        intent.input_tokens_bound == len(body) - len(INLINE) + 2 * tokens + 128 == intent.input_tokens_bound
    )
    assert intent.input_modalities == (Modality.IMAGE,) and not intent.has_referenced_input


def test_audio_takes_the_window() -> None:
    intent = taken(parts({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}))
    assert intent.has_referenced_input and intent.input_modalities == (Modality.AUDIO,)


def test_hosted_tools() -> None:
    tools = [
        {"type": "web_search"},
        {"type": "web_search_preview_2025_03_11"},
        {"type": "file_search", "vector_store_ids": ["v"]},
        {"type": "code_interpreter", "container": {"type": "auto"}},
        {"type": "mcp", "server_label": "x", "server_url": "https://x"},
        {"type": "function", "name": "f", "parameters": {}},
        {
            "type": "namespace",
            "name": "n",
            "tools": [{"type": "function", "name": "g"}, {"type": "web_search"}],
        },
    ]
    intent = taken(body_of(tools=tools, max_tool_calls=4))
    assert intent.hosted_tools == (
        HostedTool("web_search", 4),
        HostedTool("web_search", 4),
        HostedTool("file_search", 4),
        HostedTool("code_execution", MAX_CONTAINERS),
        HostedTool("mcp", 4),
        HostedTool("web_search", 4),
    )
    assert taken(body_of(tools=[{"type": "web_search"}])).hosted_tools == (HostedTool("web_search", None),)
    client = body_of(tools=[{"type": "custom", "name": "f"}, {"type": "local_shell"}, {"type": "function"}])
    assert taken(client).hosted_tools == ()
    assert taken(client).input_tokens_bound == len(client) + RESPONSES_OVERHEAD_TOKENS + TOOLS_OVERHEAD_TOKENS


def test_a_tool_declared_among_the_items_counts() -> None:
    body = items({"type": "additional_tools", "role": "developer", "tools": [{"type": "web_search"}]})
    assert taken(body).hosted_tools == (HostedTool("web_search", None),)


@pytest.mark.parametrize(
    ("body", "status", "code", "word"),
    [
        (b'{"input":"x"}', 400, "missing_field", "model"),
        (body_of(model=""), 400, "invalid_value", "model"),
        (body_of(model=3), 400, "invalid_value", "model"),
        (body_of(max_output_tokens=0), 400, "invalid_value", "max_output_tokens"),
        (body_of(max_tokens=5), 422, "unsupported_field", "max_tokens"),
        (body_of(n=2), 422, "unsupported_field", "n"),
        (body_of(service_tier="batch"), 422, "unsupported_field", "service_tier"),
        (
            body_of(context_management=[{"type": "compaction"}]),
            422,
            "unsupported_field",
            "context_management",
        ),
        (body_of(prompt={"id": "p"}), 422, "unbounded_input", "prompt"),
        (body_of(Max_Output_Tokens=5), 422, "duplicate_field", "max_output_tokens"),
        (b'{"model":"m","model":"n","input":"x"}', 422, "duplicate_field", "model"),
        (
            b'{"model":"m","input":[{"role":"user","content":[{"type":"input_text","type":"input_image"}]}]}',
            422,
            "duplicate_field",
            "type",
        ),
        (body_of(tools=[{"type": "image_generation"}]), 422, "unsupported_tool", "image_generation"),
        (body_of(tools=[{"type": "shell"}]), 422, "unsupported_tool", "shell"),
        (
            body_of(
                tools=[{"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "64g"}}]
            ),
            422,
            "unsupported_tool",
            "code_interpreter",
        ),
        (body_of(tools=[{"type": "later_tool"}]), 422, "unsupported_tool", "later_tool"),
        (b"[]", 400, "invalid_json", "object"),
    ],
)
def test_refusals_name_the_field(body: bytes, status: int, code: str, word: str) -> None:
    refused = parse_responses(body)
    assert isinstance(refused, Rejection)
    assert (refused.status, refused.code) == (status, code)
    assert word in refused.message


def test_answers_that_are_not_ready_or_not_known() -> None:
    queued = read_answer(
        Operation.RESPONSES, b'{"id":"r","object":"response","status":"queued","usage":null}'
    )
    assert (queued.usage, queued.finish_reason, queued.response_id, queued.output_bytes) == (
        None,
        "queued",
        "r",
        0,
    )
    assert read_answer(Operation.RESPONSES, b'{"error":{"message":"x"}}').is_error
    failed = read_answer(
        Operation.RESPONSES,
        b'{"object":"response","status":"failed","error":{"code":"x"},'
        b'"usage":{"input_tokens":5,"output_tokens":0}}',
    )
    assert not failed.is_error and failed.usage is not None and failed.usage.input_tokens == 5
    drawn = (
        b'{"object":"response","status":"completed","usage":{"input_tokens":5,"output_tokens":0},'
        b'"tool_usage":{"image_gen":{"total_tokens":9}}}'
    )
    assert read_answer(Operation.RESPONSES, drawn).usage is None
