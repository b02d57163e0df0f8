"""Anthropic Messages: a request body read into a `Conversation`."""

from typing import Any, Final, Literal

import msgspec

from outlay.wire.intent import Operation
from outlay.wire.translate.conversation import (
    ABSENT,
    Choice,
    Conversation,
    File,
    Image,
    Origin,
    Part,
    Reasoning,
    Role,
    Seal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
    Untranslatable,
    encode_text,
    stated_raw,
    unwrap_seal,
)
from outlay.wire.translate.effort import checked_effort
from outlay.wire.translate.names import refuse_set
from outlay.wire.translate.schemas import promised_format

_MESSAGES: Final = Operation.MESSAGES
_PLAIN: Final = "text/plain"


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _Base64(_Strict, tag_field="type", tag="base64"):
    media_type: str
    data: str


class _Url(_Strict, tag_field="type", tag="url"):
    url: str


class _PlainText(_Strict, tag_field="type", tag="text"):
    data: str
    media_type: str = _PLAIN


class _Text(_Strict, tag_field="type", tag="text"):
    text: str
    cache_control: Any = None
    citations: Any = None


class _Image(_Strict, tag_field="type", tag="image"):
    source: _Base64 | _Url
    cache_control: Any = None


class _Citations(_Strict):
    enabled: bool | None = None


class _Document(_Strict, tag_field="type", tag="document"):
    source: _Base64 | _Url | _PlainText
    title: str | None = None
    context: str | None = None
    citations: _Citations | None = None
    cache_control: Any = None


class _Caller(_Strict):
    type: Literal["direct"]


class _ToolUse(_Strict, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: msgspec.Raw
    cache_control: Any = None
    caller: _Caller | None = None
    toolset_name: None = None


class _ToolResult(_Strict, tag_field="type", tag="tool_result"):
    tool_use_id: str
    content: str | list[_Text | _Image | _Document] | None = None
    is_error: bool | None = None
    cache_control: Any = None
    toolset_name: None = None


class _Thinking(_Strict, tag_field="type", tag="thinking"):
    thinking: str
    signature: str = ""
    cache_control: Any = None


class _Redacted(_Strict, tag_field="type", tag="redacted_thinking"):
    data: str
    cache_control: Any = None


_Block = _Text | _Image | _Document | _ToolUse | _ToolResult | _Thinking | _Redacted


class _Message(_Strict):
    role: Literal["user", "assistant", "system"]
    content: str | list[_Block]


class _Tool(_Strict):
    name: str
    type: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = ABSENT
    strict: bool | None = None
    cache_control: Any = None
    eager_input_streaming: bool | None = None
    defer_loading: bool | None = None
    allowed_callers: list[str] | None = None
    input_examples: list[Any] | None = None


class _Choice(_Strict):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _ThinkingConfig(_Strict):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None
    display: str | None = None


class _Format(_Strict):
    type: Literal["json_schema"]
    schema: msgspec.Raw


class _OutputConfig(_Strict):
    effort: str | None = None
    format: _Format | None = None


class _Metadata(_Strict):
    user_id: str | None = None


class _Edit(msgspec.Struct):
    type: str = ""


class _ContextManagement(_Strict):
    edits: list[_Edit] | None = None


class _Messages(_Strict):
    model: str
    messages: list[_Message]
    max_tokens: int | None = None
    stream: bool | None = None
    system: str | list[_Text] | None = None
    tools: list[_Tool] | None = None
    tool_choice: _Choice | None = None
    output_config: _OutputConfig | None = None
    thinking: _ThinkingConfig | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    metadata: _Metadata | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None
    context_management: _ContextManagement | None = None
    cache_control: Any = None
    diagnostics: Any = None
    container: Any = None
    mcp_servers: list[Any] | None = None


_REFUSED: Final = {
    "inference_geo": "where a model runs cannot be promised for another vendor; leave it out",
    "container": "lives at Anthropic; leave it out",
    "mcp_servers": "Anthropic's server calls these; call them yourself and send `tools`",
}

_decode: Final = msgspec.json.Decoder(_Messages).decode


def read_messages(body: bytes) -> Conversation:
    """A request body as a `Conversation`. Raises Untranslatable and msgspec's errors."""
    asked = _decode(body)
    refuse_set({name: getattr(asked, name) for name in _REFUSED}, _REFUSED)
    if asked.speed not in {None, "standard"}:
        raise Untranslatable("speed", "has no counterpart; leave it out")
    for index, edit in enumerate((asked.context_management or _ContextManagement()).edits or ()):
        if not edit.type.startswith("clear_"):
            raise Untranslatable(
                f"context_management.edits[{index}]", "is done by Anthropic's server; leave it out"
            )
    if asked.max_tokens == 0:
        raise Untranslatable("max_tokens", "0 only fills Anthropic's cache; send at least 1")
    output = asked.output_config or _OutputConfig()
    conversation = Conversation(
        source=_MESSAGES,
        turns=[],
        system=_read_system(asked.system),
        tools=[_read_tool(index, tool) for index, tool in enumerate(asked.tools or ())],
        format=None if output.format is None else promised_format(output.format.schema),
        max_tokens=asked.max_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        stop=tuple(asked.stop_sequences or ()),
        thinking=_read_thinking(asked.thinking, output.effort),
        user=None if asked.metadata is None else asked.metadata.user_id,
        service_tier="default" if asked.service_tier == "standard_only" else None,
    )
    if asked.service_tier not in {None, "auto", "standard_only"}:
        raise Untranslatable("service_tier", "has no counterpart; leave it out")
    _read_choice(asked.tool_choice, conversation)
    for index, message in enumerate(asked.messages):
        content = message.content
        parts = (
            [Text(content)]
            if isinstance(content, str)
            else [_read_block(f"messages[{index}].content[{at}]", block) for at, block in enumerate(content)]
        )
        if message.role == "system" and not all(isinstance(part, Text) for part in parts):
            raise Untranslatable(f"messages[{index}]", "only text is translated in a system message")
        conversation.turns.append(Turn(Role(message.role), tuple(parts), index))
    return conversation


def _read_system(system: str | list[_Text] | None) -> list[str]:
    if system is None:
        return []
    return [system] if isinstance(system, str) else [block.text for block in system]


def _read_block(name: str, block: _Block) -> Part:
    match block:
        case _Text():
            return Text(block.text)
        case _Image():
            if isinstance(block.source, _Url):
                return Image(url=block.source.url)
            return Image(block.source.media_type, block.source.data)
        case _Document():
            return _read_document(name, block)
        case _ToolUse():
            return ToolCall(block.id, block.name, bytes(block.input).decode())
        case _ToolResult():
            content = block.content or ""
            parts = (
                [Text(content)] if isinstance(content, str) else [_read_block(name, part) for part in content]
            )
            kept = tuple(part for part in parts if isinstance(part, Text | Image | File))
            return ToolResult(block.tool_use_id, kept, block.is_error is True)
        case _Thinking():
            seal = unwrap_seal(block.signature, Origin.MESSAGES) if block.signature else None
            return Reasoning(block.thinking, seal)
        case _Redacted():
            return Reasoning("", Seal(Origin.REDACTED, block.data))


def _read_document(name: str, block: _Document) -> File:
    if block.context is not None:
        raise Untranslatable(f"{name}.context", "has no counterpart; send it as text")
    if block.citations is not None and block.citations.enabled:
        raise Untranslatable(f"{name}.citations", "has no counterpart; leave it out")
    match block.source:
        case _Url():
            return File(url=block.source.url, name=block.title)
        case _Base64():
            return File(block.source.media_type, block.source.data, name=block.title)
        case _PlainText():
            return File(_PLAIN, encode_text(block.source.data), name=block.title)


def _read_tool(index: int, tool: _Tool) -> Tool:
    name = f"tools[{index}]"
    if tool.type not in {None, "custom"}:
        raise Untranslatable(
            name,
            f"type `{str(tool.type)[:64]}` is defined by Anthropic; describe a tool of your own with `input_schema`",
        )
    if tool.defer_loading:
        raise Untranslatable(f"{name}.defer_loading", "tool search runs at Anthropic; send false")
    if tool.allowed_callers not in (None, [], ["direct"]):
        raise Untranslatable(f"{name}.allowed_callers", 'only ["direct"] has a counterpart')
    if tool.input_examples:
        raise Untranslatable(f"{name}.input_examples", "has no counterpart; put examples into `description`")
    return Tool(tool.name, tool.description, stated_raw(tool.input_schema), tool.strict)


def _read_choice(choice: _Choice | None, conversation: Conversation) -> None:
    if choice is None:
        return
    match choice.type:
        case "auto":
            conversation.choice = Choice.AUTO
        case "none":
            conversation.choice = Choice.NONE
        case "any":
            conversation.choice = Choice.REQUIRED
        case "tool":
            conversation.choice = Choice.REQUIRED
            conversation.allowed = (choice.name or "",)
    if choice.disable_parallel_tool_use is not None:
        conversation.parallel = not choice.disable_parallel_tool_use


def _read_thinking(config: _ThinkingConfig | None, effort: str | None) -> Thinking | None:
    effort = checked_effort(effort, "output_config.effort")
    if config is None:
        return None if effort is None else Thinking(effort)
    shows = True if config.display is None else config.display == "summarized"
    match config.type:
        case "disabled":
            return Thinking("none")
        case "enabled":
            return Thinking(effort, config.budget_tokens, shows=shows)
        case "adaptive":
            return Thinking(effort, is_adaptive=True, shows=shows)
