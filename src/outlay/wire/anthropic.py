"""Anthropic's dialect, requests: `/v1/messages` and `/v1/messages/count_tokens`.

Bytes -> `CallIntent`, or `Rejection` for what cannot be bounded. No I/O, no prices.

*Input bound.* As in `wire.openai`: UTF-8 bytes of the body (>= tokens, also of base64 signatures and encrypted
blocks that come back) plus `MESSAGES_OVERHEAD_TOKENS` and what tools add unseen: a system prompt of several hundred
tokens if there is any tool, and a schema kept by Anthropic for each tool type that it defines. Tools that Anthropic
runs (`hosted_tools`) bring input without bound: lookup takes the context window instead, and refuses if `max_uses`
is absent. Only with such a tool may the results of earlier uses, which are encrypted, come back. An image counts
`IMAGE_TOKENS` instead of its bytes; a document that is not text, a file or an address sets `has_referenced_input`.

*Unknown fields* pass, since each beta adds some; refused by name are those known to change money (see `wire.openai`).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from outlay.wire.anthropic_answer import MessagesStream, read_answer
from outlay.wire.fields import (
    MAX_COUNT,
    Fields,
    decode_or_refuse,
    find_case_variant,
    first_duplicate,
    has_escaped_ascii,
    is_null,
    read_fields,
    refuse_model,
    refuse_nested_duplicate,
    refuse_tier,
)
from outlay.wire.intent import CacheWrite, CallIntent, Dialect, HostedTool, Modality, Operation, Rejection
from outlay.wire.media import Media

__all__ = ["MessagesStream", "parse_count_tokens", "parse_messages", "read_answer"]

MESSAGES_OVERHEAD_TOKENS: Final = 128
"""Once per call: what surrounds system prompt and turns."""
TOOLS_OVERHEAD_TOKENS: Final = 1024
"""Once per call with tools: Anthropic's tool-use system prompt (published per model, 159 to about 800 tokens)."""

IMAGE_TOKENS: Final = 4_800
"""Most tokens of an image: one for each 28 x 28 pixels after it is scaled to at most 2576 on the long edge and 4784
tokens (models before Opus 4.7: 1568). https://platform.claude.com/docs/en/build-with-claude/vision, read 2026-11-24"""

# published: bash 245, text editor 700, computer 735 + 499; the toolsets are families of many tools
_CLIENT_TOOL_TOKENS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "custom": 0,
        "bash": 512,
        "text_editor": 1536,
        "computer": 2560,
        "memory": 2048,
        "computer_toolset": 8192,
        "browser_toolset": 8192,
    }
)
_HOSTED_TOOLS: Final = frozenset(
    {"web_search", "web_fetch", "code_execution", "tool_search_tool_bm25", "tool_search_tool_regex"}
)
_DATE_DIGITS: Final = 8

_FIELDS: Final = frozenset(
    [
        "model",
        "messages",
        "max_tokens",
        "stream",
        "system",
        "tools",
        "service_tier",
        "speed",
        "inference_geo",
        "cache_control",
        "diagnostics",
        "metadata",
        "output_config",
        "stop_sequences",
        "temperature",
        "thinking",
        "tool_choice",
        "top_k",
        "top_p",
    ]
)
_BY_REFERENCE: Final = ("unbounded_input", "brings input that the body does not hold; send it as text")
_OTHER_MODEL: Final = ("unsupported_field", "lets other models answer; name one in `model`")
_BILLED_APART: Final = (
    "unsupported_field",
    "changes what is billed, or to whom, in a way that usage does not show",
)
_REFUSED: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "container": _BY_REFERENCE,
        "mcp_servers": _BY_REFERENCE,
        "thread": _BY_REFERENCE,
        "prompt": _BY_REFERENCE,
        "max_tokens_to_sample": ("unsupported_field", "belongs to an older interface; use `max_tokens`"),
        "fallbacks": _OTHER_MODEL,
        "compaction": _BILLED_APART,
        "fallback_credit_token": _BILLED_APART,
        "billing_policy": _BILLED_APART,
    }
)
_MONEY_NAMES: Final = _FIELDS | frozenset(_REFUSED) | {"context_management"}

_TEXT_BLOCKS: Final = frozenset(
    ["text", "thinking", "redacted_thinking", "tool_use", "tool_result", "search_result", "server_tool_use"]
)
_TEXT_SOURCES: Final = frozenset({"text", "content"})
"""Sources of a document that stands in the body as text or as blocks."""
_HOSTED_RESULTS: Final = frozenset(
    [
        "web_search_tool_result",
        "web_fetch_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "tool_reference",
    ]
)


_TELLING: Final = (b'"image"', b'"document"', b'"container_upload"', b'"web_', b'"code_execution', b'"mcp_')
"""What a block or tool that this room refuses or bounds would mention."""


class _Source(msgspec.Struct, gc=False):
    type: str = ""
    data: str | None = None
    content: "str | list[_Block] | None" = None


class _Block(msgspec.Struct, gc=False):
    type: str = ""
    content: "str | list[_Block] | _Block | None" = None
    source: "_Source | str | None" = None
    transformations: dict[str, Any] | None = None


class _Message(msgspec.Struct, gc=False):
    content: str | list[_Block] | None = None


class _Tool(msgspec.Struct, gc=False):
    type: str | None = None
    max_uses: int | None = None


class _Edit(msgspec.Struct, gc=False):
    type: str = ""


class _ContextManagement(msgspec.Struct, gc=False):
    edits: list[_Edit] | None = None


class _Messages(msgspec.Struct, gc=False):
    model: str
    messages: list[_Message]
    max_tokens: int | None = None
    stream: bool | None = None
    system: str | list[_Block] | None = None
    tools: list[_Tool] | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None
    context_management: _ContextManagement | None = None


class _CountTokens(msgspec.Struct, gc=False):
    model: str


_decode_messages: Final = msgspec.json.Decoder(_Messages).decode
_decode_count_tokens: Final = msgspec.json.Decoder(_CountTokens).decode


def parse_messages(body: bytes, headers: Mapping[str, str] | None = None) -> CallIntent | Rejection:
    """The money side of a message. Never raises.

    `max_tokens` 0 is valid (it only fills the cache). `headers` (lower case) are taken since Anthropic states betas
    there; none of them changes a bound without a body field that is judged here.
    """
    fields = read_fields(body)
    if isinstance(fields, Rejection):
        return fields
    refused = _refuse_fields(fields, ("model", "messages"))
    if refused is not None:
        return refused
    message = decode_or_refuse(_decode_messages, body)
    if isinstance(message, Rejection):
        return message
    refused = refuse_model(message.model) or refuse_tier(message.service_tier)
    if refused is not None:
        return refused
    if message.max_tokens is not None and not 0 <= message.max_tokens <= MAX_COUNT:
        return Rejection(400, "invalid_value", f"`max_tokens` must be from 0 to {MAX_COUNT}", "max_tokens")
    hosted: tuple[HostedTool, ...] = ()
    overhead = MESSAGES_OVERHEAD_TOKENS
    if message.tools:
        read = _read_tools(message.tools, fields)
        if isinstance(read, Rejection):
            return read
        hosted, overhead = read
    media = Media()
    refused = _read_content(message, media, has_hosted_tools=bool(hosted)) or refuse_nested_duplicate(
        body, _TELLING
    )
    if refused is not None:
        return refused
    return CallIntent(
        dialect=Dialect.ANTHROPIC,
        operation=Operation.MESSAGES,
        model=message.model,
        input_tokens_bound=len(body) + overhead + media.tokens(IMAGE_TOKENS),
        max_output_tokens=message.max_tokens,
        output_limit_field="max_tokens",
        stream=message.stream is True,
        wants_stream_usage=message.stream is True,
        service_tier=message.service_tier,
        speed=message.speed,
        inference_geo=message.inference_geo,
        cache_write=_cache_write(body),
        hosted_tools=hosted,
        has_referenced_input=media.is_referenced,
        input_modalities=media.kinds(),
    )


def parse_count_tokens(body: bytes, headers: Mapping[str, str] | None = None) -> CallIntent | Rejection:
    """A free call: only the model is read, and any content may be counted."""
    fields = read_fields(body)
    if isinstance(fields, Rejection):
        return fields
    if "model" not in fields:
        return Rejection(400, "missing_field", "`model` is missing", "model")
    refused = find_case_variant(fields, _MONEY_NAMES)
    if refused is not None:
        return refused
    counted = decode_or_refuse(_decode_count_tokens, body)
    if isinstance(counted, Rejection):
        return counted
    model = counted.model
    refused = refuse_model(model)
    if refused is not None:
        return refused
    return CallIntent(
        dialect=Dialect.ANTHROPIC,
        operation=Operation.COUNT_TOKENS,
        model=model,
        input_tokens_bound=len(body) + MESSAGES_OVERHEAD_TOKENS + TOOLS_OVERHEAD_TOKENS,
        max_output_tokens=0,
        output_limit_field=None,
    )


def _refuse_fields(fields: Fields, required: tuple[str, ...]) -> Rejection | None:
    """Refuse a missing field, a field that changes money unseen, or a money field in another case."""
    for name in required:
        if name not in fields:
            return Rejection(400, "missing_field", f"`{name}` is missing", name)
    if _FIELDS.issuperset(fields):
        return None
    for name in fields.keys() & _REFUSED.keys():
        if not is_null(fields[name]) and bytes(fields[name]) != b"[]":
            code, reason = _REFUSED[name]
            return Rejection(422, code, f"`{name}` {reason}", name)
    return find_case_variant(fields, _MONEY_NAMES)


def _read_tools(tools: list[_Tool], fields: Fields) -> tuple[tuple[HostedTool, ...], int] | Rejection:
    """The tools that Anthropic runs, and the overhead in tokens of all tools; refuses types that are not known."""
    hosted: list[HostedTool] = []
    overhead = MESSAGES_OVERHEAD_TOKENS + TOOLS_OVERHEAD_TOKENS
    for tool in tools:
        kind = "custom" if tool.type is None else _without_date(tool.type)
        tokens = _CLIENT_TOOL_TOKENS.get(kind)
        if tokens is not None:
            overhead += tokens
        elif kind not in _HOSTED_TOOLS:
            return Rejection(
                422,
                "unsupported_tool",
                f"`tools`: type `{kind[:64]}` is not known and may bring input or cost without bound",
                "tools",
            )
        elif tool.max_uses is not None and not 0 < tool.max_uses <= MAX_COUNT:
            return Rejection(400, "invalid_value", f"`max_uses` must be from 1 to {MAX_COUNT}", "tools")
        else:
            hosted.append(HostedTool(kind, tool.max_uses))
    if hosted and first_duplicate(bytes(fields["tools"]), at_any_depth=True) is not None:
        return Rejection(422, "duplicate_field", "a tool in `tools` has a field twice; send it once", "tools")
    return tuple(hosted), overhead


def _without_date(tool_type: str) -> str:
    """`web_search_20250305` -> `web_search`: a version changes neither who runs a tool nor how it is billed."""
    name, _, date = tool_type.rpartition("_")
    return name if len(date) == _DATE_DIGITS and date.isascii() and date.isdigit() else tool_type


def _read_content(message: _Messages, media: Media, *, has_hosted_tools: bool) -> Rejection | None:
    """Tally media, wherever content may stand; refuse blocks of unknown kinds, and edits that sample a model."""
    for edit in (message.context_management and message.context_management.edits) or ():
        if not edit.type.startswith("clear_"):  # clearing only takes input away
            return Rejection(
                422,
                "unbounded_input",
                f"`context_management`: edit `{edit.type[:64]}` samples a model outside of usage; leave it out",
                "context_management",
            )
    kind = _odd_block(message.system, media, has_hosted_tools)
    if kind is not None:
        return _bad_block("system", kind)
    for index, turn in enumerate(message.messages):
        content = turn.content
        if content is None or isinstance(content, str):
            continue
        kind = _odd_block(content, media, has_hosted_tools)
        if kind is not None:
            return _bad_block(f"messages[{index}].content", kind)
    return None


def _odd_block(
    content: str | list[_Block] | _Block | None, media: Media, has_hosted_tools: bool
) -> str | None:
    """Type of the first block (at any depth) that nothing bounds; None if there is none."""
    if content is None or isinstance(content, str):
        return None
    for block in content if isinstance(content, list) else (content,):
        if block.type in _TEXT_BLOCKS:
            inner = block.content
        elif block.type == "image":
            source = block.source
            is_inline = isinstance(source, _Source) and source.data is not None and source.data.isascii()
            media.add_image(len(source.data or "") if is_inline and isinstance(source, _Source) else 0)
            if block.transformations:
                media.add_reference(Modality.IMAGE)  # how it is scaled is no longer the rule
            inner = None
        elif block.type == "document":
            source = block.source
            inner = source.content if isinstance(source, _Source) else None
            if not isinstance(source, _Source) or source.type not in _TEXT_SOURCES:
                media.add_reference(Modality.IMAGE)
        elif block.type == "container_upload":
            media.add_reference(Modality.IMAGE)
            inner = None
        elif has_hosted_tools and block.type in _HOSTED_RESULTS:
            inner = None
        else:
            return block.type or "without type"
        if inner is not None and (kind := _odd_block(inner, media, has_hosted_tools)) is not None:
            return kind
    return None


def _bad_block(name: str, kind: str) -> Rejection:
    if kind in _HOSTED_RESULTS:
        return Rejection(
            422,
            "unbounded_input",
            f"`{name}`: `{kind}` holds encrypted input; declare its tool with `max_uses` in `tools`, or leave it out",
            name,
        )
    return Rejection(422, "unsupported_modality", f"`{name}`: a block `{kind[:64]}` cannot be bounded", name)


def _cache_write(body: bytes) -> CacheWrite:
    """Dearest cache write that the body can ask for, by its bytes: a false match only holds a little more.

    `cache_control` may stand at the top level, in system, tools, messages and blocks within; its `ttl` is 5m or 1h.
    """
    if b"cache_control" in body:
        return CacheWrite.HOUR if b"1h" in body or has_escaped_ascii(body) else CacheWrite.DEFAULT
    return CacheWrite.HOUR if has_escaped_ascii(body) else CacheWrite.NONE
