"""OpenAI's Responses API, requests: `/v1/responses`, also as engines and Codex speak it.

Bytes -> `CallIntent`, or `Rejection` for what cannot be bounded. No I/O, no prices. The input bound is that of
`wire.openai` (UTF-8 bytes, images by formula); whatever is named and not sent (an earlier response, a conversation, a
stored prompt, a file) sets `has_referenced_input`, and lookup takes the context window.

*Tools.* Functions run at the client and are text. Tools that OpenAI runs become `hosted_tools`, with
`max_tool_calls` as their limit. Refused is what another model bills in the shadow of this one (`image_generation`),
and what is not known.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from outlay.wire.fields import (
    Fields,
    decode_or_refuse,
    find_case_variant,
    is_null,
    read_fields,
    refuse_count,
    refuse_missing,
    refuse_model,
    refuse_nested_duplicate,
    refuse_tier,
)
from outlay.wire.intent import CallIntent, Dialect, HostedTool, Modality, Operation, Rejection
from outlay.wire.media import Media
from outlay.wire.openai_responses_answer import ResponsesStream, read_answer
from outlay.wire.openai_terms import cache_write, image_tokens, inline_bytes

__all__ = ["ResponsesStream", "parse_responses", "read_answer"]

RESPONSES_OVERHEAD_TOKENS: Final = 128
"""Once per call, as for a chat."""
TOOLS_OVERHEAD_TOKENS: Final = 384
MAX_CONTAINERS: Final = 1
"""Containers that one `code_interpreter` tool can open in a call; each is billed once."""

_FIELDS: Final = frozenset(
    [
        "model",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "stream",
        "stream_options",
        "service_tier",
        "tools",
        "background",
        "background_options",
        "conversation",
        "previous_response_id",
        "prompt",
        "access_programs",
        "client_metadata",
        "image",
        "include",
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning",
        "safety_identifier",
        "store",
        "temperature",
        "text",
        "tool_choice",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    ]
)
_LIMIT_ALIAS: Final = ("unsupported_field", "is not this route's output limit; use `max_output_tokens`")
_SIDE_CALL: Final = ("unsupported_field", "starts further billable work that has no bound; leave it out")
_OTHER_MODEL: Final = ("unsupported_field", "lets other models answer; name one in `model`")
_REFUSED: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "max_tokens": _LIMIT_ALIAS,
        "max_completion_tokens": _LIMIT_ALIAS,
        "messages": ("unsupported_field", "belongs to chat completions; use `input`"),
        "n": ("unsupported_field", "multiplies what is generated, and this route has no such field"),
        "context_management": _SIDE_CALL,
        "moderation": _SIDE_CALL,
        "models": _OTHER_MODEL,
        "provider": _OTHER_MODEL,
        "route": _OTHER_MODEL,
        "fallbacks": _OTHER_MODEL,
        "plugins": _SIDE_CALL,
    }
)
_MONEY_NAMES: Final = _FIELDS | frozenset(_REFUSED)

_CLIENT_TOOLS: Final = frozenset(
    ["function", "custom", "local_shell", "apply_patch", "computer", "computer_use_preview", "namespace"]
)
_HOSTED_TOOLS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "web_search": "web_search",
        "web_search_2025_08_26": "web_search",
        "web_search_preview": "web_search",
        "web_search_preview_2025_03_11": "web_search",
        "file_search": "file_search",
        "mcp": "mcp",
        "tool_search": "tool_search",
    }
)
"""Type -> the price book's name. The last two have no fee (0 in the book), but bring input."""
_TEXT_ITEMS: Final = frozenset(
    [
        "message",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "reasoning",
        "local_shell_call",
        "local_shell_call_output",
        "shell_call",
        "shell_call_output",
        "apply_patch_call",
        "apply_patch_call_output",
        "computer_call",
        "computer_call_output",
        "mcp_list_tools",
        "mcp_call",
        "mcp_approval_request",
        "mcp_approval_response",
        "tool_search_call",
        "additional_tools",
    ]
)
"""Items whose tokens the body's bytes bound, but for the parts in them. Any other item stands for more than it shows
(`item_reference`, `compaction`, results of hosted tools) and is taken as a reference."""
_TEXT_PARTS: Final = frozenset(
    ["input_text", "output_text", "refusal", "text", "summary_text", "reasoning_text"]
)
_IMAGE_PARTS: Final = frozenset({"input_image", "computer_screenshot"})
_TELLING: Final = (
    b"_image",
    b"image_url",
    b"_file",
    b"file_id",
    b"_audio",
    b"reference",
    b"web_search",
    b"code_interpreter",
    b'"mcp"',
    b"shell",
    b"container",
)
"""What a part or tool that costs more than its bytes would mention."""


class _Part(msgspec.Struct, gc=False):
    type: str = ""
    image_url: str | None = None
    file_id: str | None = None


class _Item(msgspec.Struct, gc=False):
    type: str | None = None
    id: str | None = None
    encrypted_content: str | None = None
    role: str | None = None
    content: str | list[_Part] | None = None
    output: "str | list[_Part] | _Part | None" = None
    tools: "list[_Tool] | None" = None


class _Container(msgspec.Struct, gc=False):
    type: str = ""
    memory_limit: str | None = None


class _Tool(msgspec.Struct, gc=False):
    type: str = "function"
    container: str | _Container | None = None
    environment: _Container | None = None
    tools: "list[_Tool] | None" = None


class _Responses(msgspec.Struct, gc=False):
    model: str
    input: str | list[_Item] | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    stream: bool | None = None
    background: bool | None = None
    service_tier: str | None = None
    tools: list[_Tool] | None = None


_decode: Final = msgspec.json.Decoder(_Responses).decode


def parse_responses(body: bytes) -> CallIntent | Rejection:
    """The money side of a response. Never raises.

    `output_limit_field` is always `max_output_tokens`; reasoning counts towards it.
    """
    fields = read_fields(body)
    if isinstance(fields, Rejection):
        return fields
    refused = refuse_missing(fields, ("model",)) or _refuse_fields(fields)
    if refused is not None:
        return refused
    asked = decode_or_refuse(_decode, body)
    if isinstance(asked, Rejection):
        return asked
    refused = (
        refuse_model(asked.model)
        or refuse_count("max_output_tokens", asked.max_output_tokens)
        or refuse_count("max_tool_calls", asked.max_tool_calls)
        or refuse_tier(asked.service_tier)
        or refuse_nested_duplicate(body, _TELLING)
    )
    if refused is not None:
        return refused
    media = Media()
    media.is_referenced = any(
        not is_null(fields.get(name)) for name in ("previous_response_id", "conversation", "prompt")
    )
    tools = list(asked.tools or ())
    if isinstance(asked.input, list):
        for item in asked.input:
            _read_item(item, media)
            tools.extend(item.tools or ())
    hosted: list[HostedTool] = []
    for tool in tools:
        refused = _read_tool(tool, asked.max_tool_calls, hosted)
        if refused is not None:
            return refused
    overhead = RESPONSES_OVERHEAD_TOKENS + (TOOLS_OVERHEAD_TOKENS if tools else 0)
    return CallIntent(
        dialect=Dialect.OPENAI,
        operation=Operation.RESPONSES,
        model=asked.model,
        input_tokens_bound=len(body) + overhead + media.tokens(image_tokens(asked.model)),
        max_output_tokens=asked.max_output_tokens,
        output_limit_field="max_output_tokens",
        stream=asked.stream is True,
        wants_stream_usage=asked.stream is True,
        service_tier=asked.service_tier,
        cache_write=cache_write(body),
        hosted_tools=tuple(hosted),
        has_referenced_input=media.is_referenced,
        input_modalities=media.kinds(),
        is_background=asked.background is True,
    )


def _refuse_fields(fields: Fields) -> Rejection | None:
    if not is_null(fields.get("prompt")) and "tools" not in fields:
        return Rejection(
            422,
            "unbounded_input",
            "`prompt` may bring tools of its own; send `tools` with it (it may be empty)",
            "prompt",
        )
    if _FIELDS.issuperset(fields):
        return None
    for name in fields.keys() & _REFUSED.keys():
        if not is_null(fields[name]):
            code, reason = _REFUSED[name]
            return Rejection(422, code, f"`{name}` {reason}", name)
    return find_case_variant(fields, _MONEY_NAMES)


def _read_item(item: _Item, media: Media) -> None:
    kind = item.type or "message"
    is_stored = (kind == "message" and item.role is None) or (
        kind == "reasoning" and item.encrypted_content is None and item.id is not None
    )
    if is_stored or kind not in _TEXT_ITEMS:
        media.add_reference(Modality.IMAGE)
    for parts in (item.content, item.output):
        if parts is None or isinstance(parts, str):
            continue
        for part in parts if isinstance(parts, list) else (parts,):
            if part.type in _IMAGE_PARTS:
                media.add_image(inline_bytes(part.image_url))
            elif part.type == "input_audio":
                media.add_reference(Modality.AUDIO)
            elif part.type not in _TEXT_PARTS and part.type:
                media.add_reference(Modality.IMAGE)  # a file's pages are text and images


def _read_tool(tool: _Tool, max_uses: int | None, hosted: list[HostedTool]) -> Rejection | None:
    """Append what the tool makes OpenAI run, or say why it has no bound."""
    for inner in tool.tools or ():
        refused = _read_tool(inner, max_uses, hosted)
        if refused is not None:
            return refused
    name = _HOSTED_TOOLS.get(tool.type)
    if name is not None:
        hosted.append(HostedTool(name, max_uses))
    elif tool.type == "code_interpreter":
        container = tool.container
        if isinstance(container, _Container) and container.memory_limit not in {None, "1g"}:
            return _bad_tool("code_interpreter", "with more memory than `1g` has no price yet")
        hosted.append(HostedTool("code_execution", MAX_CONTAINERS))
    elif tool.type == "shell":
        if tool.environment is None or tool.environment.type != "local":
            return _bad_tool("shell", "runs in a container that usage does not show; only `local` is bounded")
    elif tool.type not in _CLIENT_TOOLS:
        return _bad_tool(tool.type[:64], "is not known, or is billed in a way that usage does not show")
    return None


def _bad_tool(kind: str, reason: str) -> Rejection:
    return Rejection(422, "unsupported_tool", f"`tools`: type `{kind}` {reason}", "tools")
