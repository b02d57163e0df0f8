"""Anthropic requests: what is taken, what is refused, and that every refusal names its field."""

import json

import pytest

from outlay.wire.anthropic import (
    IMAGE_TOKENS,
    MESSAGES_OVERHEAD_TOKENS,
    TOOLS_OVERHEAD_TOKENS,
    parse_count_tokens,
    parse_messages,
)
from outlay.wire.intent import CacheWrite, CallIntent, HostedTool, Modality, Operation, Rejection

TEXT = {"type": "text", "text": "hi"}
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
SEARCH_RESULT = {
    "type": "web_search_tool_result",
    "tool_use_id": "t",
    "content": [{"type": "web_search_result"}],
}


def body_of(**fields: object) -> bytes:
    whole = {"model": "c", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], **fields}
    return json.dumps(whole, separators=(",", ":")).encode()


def turn(*blocks: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


def taken(body: bytes) -> CallIntent:
    intent = parse_messages(body, {})
    assert isinstance(intent, CallIntent), intent
    return intent


def test_a_plain_message() -> None:
    body = body_of(stream=True, service_tier="auto", speed="fast", inference_geo="us", system=[TEXT])
    intent = taken(body)
    assert (intent.model, intent.max_output_tokens, intent.output_limit_field) == ("c", 9, "max_tokens")
    assert (intent.stream, intent.service_tier, intent.speed, intent.inference_geo) == (
        True,
        "auto",
        "fast",
        "us",
    )
    assert intent.input_tokens_bound == len(body) + MESSAGES_OVERHEAD_TOKENS
    assert intent.cache_write is CacheWrite.NONE and intent.hosted_tools == ()


def test_a_warm_up_generates_nothing() -> None:
    assert taken(body_of(max_tokens=0)).max_output_tokens == 0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"cache_control": {"type": "ephemeral"}}, CacheWrite.DEFAULT),
        ({"system": [{**TEXT, "cache_control": {"type": "ephemeral", "ttl": "5m"}}]}, CacheWrite.DEFAULT),
        (turn({**TEXT, "cache_control": {"type": "ephemeral", "ttl": "1h"}}), CacheWrite.HOUR),
        ({"tools": [{"name": "f", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]}, CacheWrite.HOUR),
    ],
)
def test_cache_write(fields: dict[str, object], expected: CacheWrite) -> None:
    assert taken(body_of(**fields)).cache_write is expected


def test_an_escaped_cache_control_is_not_missed() -> None:
    body = body_of(cache_control={"type": "ephemeral"}).replace(b'"cache_', b'"\\u0063ache_')
    assert taken(body).cache_write is CacheWrite.HOUR


@pytest.mark.parametrize(
    "block",
    [
        TEXT,
        {"type": "thinking", "thinking": "x", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"image": 1}},
        {"type": "tool_result", "tool_use_id": "t", "content": "x"},
        {"type": "tool_result", "tool_use_id": "t", "content": [TEXT]},
        {"type": "search_result", "source": "s", "title": "t", "content": [TEXT]},
    ],
)
def test_text_blocks_pass(block: object) -> None:
    taken(body_of(**turn(block)))


PICTURE = "A" * 60_000


@pytest.mark.parametrize("place", ["turn", "tool_result", "document"])
@pytest.mark.parametrize(
    ("source", "inline"),
    [
        ({"type": "base64", "media_type": "image/png", "data": PICTURE}, len(PICTURE)),
        ({"type": "url", "url": "https://x"}, 0),
        ({"type": "file", "file_id": "f"}, 0),
    ],
)
def test_an_image_counts_by_its_formula(place: str, source: object, inline: int) -> None:
    image = {"type": "image", "source": source}
    block = {
        "turn": image,
        "tool_result": {"type": "tool_result", "tool_use_id": "t", "content": [image]},
        "document": {"type": "document", "source": {"type": "content", "content": [image]}},
    }[place]
    body = body_of(**turn(block))
    intent = taken(body)
    assert intent.input_tokens_bound == len(body) - inline + MESSAGES_OVERHEAD_TOKENS + IMAGE_TOKENS
    assert intent.input_modalities == (Modality.IMAGE,) and not intent.has_referenced_input


@pytest.mark.parametrize(
    "block",
    [
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}},
        {"type": "document", "source": {"type": "url", "url": "https://x"}},
        {"type": "document", "source": {"type": "file", "file_id": "f"}},
        {"type": "container_upload", "file_id": "f"},
        {
            "type": "image",
            "source": {"type": "url", "url": "https://x"},
            "transformations": {"resize": "none"},
        },
    ],
)
def test_documents_and_files_take_the_window(block: object) -> None:
    assert taken(body_of(**turn(block))).has_referenced_input


def test_a_document_in_plain_text_is_bounded_by_its_bytes() -> None:
    body = body_of(**turn({"type": "document", "source": {"type": "text", "data": "x" * 500}}))
    intent = taken(body)
    assert not intent.has_referenced_input
    assert intent.input_tokens_bound == len(body) + MESSAGES_OVERHEAD_TOKENS


REFUSED_BLOCKS = [
    {"type": "video"},
    {"type": "tool_addition", "tool": {"type": "tool_definition"}},
    {"type": "compaction", "encrypted_content": "x"},
    {"text": "no type"},
]


@pytest.mark.parametrize("block", REFUSED_BLOCKS)
@pytest.mark.parametrize("place", ["turn", "tool_result", "system", "deep"])
def test_blocks_that_are_not_text(block: dict[str, object], place: str) -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "content": [TEXT, block]}
    fields, name = {
        "turn": (turn(TEXT, block), "messages[0].content"),
        "tool_result": (turn(result), "messages[0].content"),
        "system": ({"system": [block]}, "system"),
        "deep": (turn({"type": "search_result", "content": [result]}), "messages[0].content"),
    }[place]
    refused = parse_messages(body_of(**fields), {})
    assert isinstance(refused, Rejection)
    assert (refused.status, refused.code, refused.param) == (422, "unsupported_modality", name)


def test_encrypted_results_need_their_tool() -> None:
    refused = parse_messages(body_of(**turn(SEARCH_RESULT)), {})
    assert isinstance(refused, Rejection) and refused.code == "unbounded_input"
    assert taken(body_of(**turn(SEARCH_RESULT), tools=[SEARCH])).hosted_tools == (
        HostedTool("web_search", 3),
    )


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        (SEARCH, HostedTool("web_search", 3)),
        ({"type": "web_search_20260318", "name": "web_search"}, HostedTool("web_search", None)),
        ({"type": "web_fetch_20250910", "name": "web_fetch", "max_uses": 1}, HostedTool("web_fetch", 1)),
        ({"type": "code_execution_20250825", "name": "code_execution"}, HostedTool("code_execution", None)),
        ({"type": "tool_search_tool_bm25", "name": "t"}, HostedTool("tool_search_tool_bm25", None)),
    ],
)
def test_hosted_tools(tool: dict[str, object], expected: HostedTool) -> None:
    assert taken(body_of(tools=[tool])).hosted_tools == (expected,)


@pytest.mark.parametrize("kind", [None, "custom", "bash_20250124", "text_editor_20250728", "memory_20250818"])
def test_client_tools_add_overhead_only(kind: str | None) -> None:
    body = body_of(tools=[{"type": kind, "name": "f"}])
    intent = taken(body)
    assert intent.hosted_tools == ()
    assert intent.input_tokens_bound >= len(body) + MESSAGES_OVERHEAD_TOKENS + TOOLS_OVERHEAD_TOKENS


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"container": "c"}, 422, "unbounded_input", "container"),
        ({"mcp_servers": [{"type": "url", "url": "http://x"}]}, 422, "unbounded_input", "mcp_servers"),
        ({"thread": {"type": "create"}}, 422, "unbounded_input", "thread"),
        ({"fallbacks": "default"}, 422, "unsupported_field", "fallbacks"),
        ({"compaction": {}}, 422, "unsupported_field", "compaction"),
        ({"billing_policy": {"bill_to": "self"}}, 422, "unsupported_field", "billing_policy"),
        (
            {"context_management": {"edits": [{"type": "compact_20260112"}]}},
            422,
            "unbounded_input",
            "context_management",
        ),
        ({"tools": [{"type": "mcp_toolset"}]}, 422, "unsupported_tool", "tools"),
        ({"tools": [{"type": "advisor_20260301"}]}, 422, "unsupported_tool", "tools"),
        ({"tools": [{"type": "tool_of_tomorrow_20300101"}]}, 422, "unsupported_tool", "tools"),
        ({"tools": [{**SEARCH, "max_uses": 0}]}, 400, "invalid_value", "tools"),
        ({"MAX_TOKENS": 1}, 422, "duplicate_field", "max_tokens"),
        ({"Speed": "fast"}, 422, "duplicate_field", "speed"),
        ({"max_tokens": -1}, 400, "invalid_value", "max_tokens"),
        ({"max_tokens": 1.5}, 400, "invalid_value", "max_tokens"),
        ({"max_tokens": True}, 400, "invalid_value", "max_tokens"),
        ({"max_tokens": 2**31 + 1}, 400, "invalid_value", "max_tokens"),
        ({"model": ""}, 400, "invalid_value", "model"),
    ],
)
def test_refused_fields(fields: dict[str, object], status: int, code: str, param: str) -> None:
    refused = parse_messages(body_of(**fields), {})
    assert isinstance(refused, Rejection)
    assert (refused.status, refused.code, refused.param) == (status, code, param)


def test_clearing_context_passes() -> None:
    taken(body_of(context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}))
    taken(body_of(context_management=None, container=None, mcp_servers=[]))


def test_a_hosted_tool_cannot_state_two_bounds() -> None:
    body = body_of(tools=[SEARCH]).replace(b'"max_uses":3', b'"max_uses":300,"max_uses":3')
    refused = parse_messages(body, {})
    assert isinstance(refused, Rejection)
    assert (refused.code, refused.param) == ("duplicate_field", "tools")


def test_counting_is_free_and_takes_any_content() -> None:
    intent = parse_count_tokens(body_of(**turn(REFUSED_BLOCKS[0])), {})
    assert isinstance(intent, CallIntent)
    assert (intent.operation, intent.max_output_tokens) == (Operation.COUNT_TOKENS, 0)


@pytest.mark.parametrize("body", [b"{}", b"x", b'{"model":1}', b'{"model":"a","model":"b"}', b'{"model":""}'])
def test_refused_counting(body: bytes) -> None:
    assert isinstance(parse_count_tokens(body, {}), Rejection)
