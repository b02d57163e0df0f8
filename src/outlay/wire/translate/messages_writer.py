"""Anthropic Messages: a request body written from a `Conversation`."""

from typing import Final

import msgspec

from outlay.wire.intent import Operation
from outlay.wire.translate.conversation import (
    SYSTEM_SEPARATOR,
    Choice,
    Conversation,
    File,
    Image,
    Origin,
    Part,
    Reasoning,
    Refusal,
    Role,
    Target,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
    Untranslatable,
    arguments_object,
    decode_text,
    joined_text,
    merged_turns,
    safe_id,
)
from outlay.wire.translate.effort import anthropic_thinking
from outlay.wire.translate.names import field_name, refuse_field, refuse_part

_MESSAGES: Final = Operation.MESSAGES
DEFAULT_MAX_TOKENS: Final = 4096
"""Stated where neither the client nor the gateway limits the output: Anthropic requires a limit."""
_IMAGE_TYPES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_PDF: Final = "application/pdf"
_PLAIN: Final = "text/plain"


def write_messages(conversation: Conversation, target: Target) -> bytes:
    """The request body for an Anthropic provider. Raises Untranslatable."""
    limit = target.limit(conversation)
    if limit is None:
        limit = DEFAULT_MAX_TOKENS
    body: dict[str, object] = {"model": target.model, "max_tokens": limit}
    if conversation.system:
        texts = [text for text in conversation.system if text]
        if len(texts) == 1:
            body["system"] = texts[0]
        elif texts:
            body["system"] = [{"type": "text", "text": text} for text in texts]
    body["messages"] = [
        message
        for turn in merged_turns(_placed(conversation.turns))
        if (message := _write_turn(conversation, turn))
    ]
    _write_settings(conversation, body)
    if conversation.tools:
        body["tools"] = [
            _write_tool(conversation, index, tool) for index, tool in enumerate(conversation.tools)
        ]
    _write_choice(conversation, body)
    thinking, effort = anthropic_thinking(conversation, limit)
    if thinking is not None:
        body["thinking"] = thinking
    output: dict[str, object] = {}
    if effort is not None:
        output["effort"] = effort
    if conversation.format is not None:
        if conversation.format.schema is None:
            raise refuse_field(conversation, "format", _MESSAGES, "state a JSON schema")
        output["format"] = {"type": "json_schema", "schema": conversation.format.schema}
    if output:
        body["output_config"] = output
    if target.stream:
        body["stream"] = True
    return msgspec.json.encode(body)


def _placed(turns: list[Turn]) -> list[Turn]:
    """Later system messages go behind the user's turn they stand before, the only place Anthropic allows."""
    placed = list(turns)
    for index in range(1, len(placed) - 1):
        before, turn, after = placed[index - 1 : index + 2]
        if before.role is not Role.USER and turn.role is Role.SYSTEM and after.role is Role.USER:
            placed[index], placed[index + 1] = after, turn
    return placed


def _write_settings(conversation: Conversation, body: dict[str, object]) -> None:
    # 1 is the default of both, and newer models refuse the fields at any value
    if conversation.temperature is not None and conversation.temperature != 1:
        if conversation.temperature > 1:
            raise refuse_field(conversation, "temperature", _MESSAGES, "send at most 1")
        body["temperature"] = conversation.temperature
    if conversation.top_p is not None and conversation.top_p != 1:
        body["top_p"] = conversation.top_p
    if conversation.top_k is not None:
        body["top_k"] = conversation.top_k
    if conversation.seed is not None:
        raise refuse_field(conversation, "seed", _MESSAGES, "leave it out")
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(conversation, name):
            raise refuse_field(conversation, name, _MESSAGES, "leave it out")
    if conversation.stop:
        body["stop_sequences"] = list(conversation.stop)
    user = conversation.user or conversation.safety_identifier
    if user is not None:
        body["metadata"] = {"user_id": user}
    if conversation.service_tier is not None:
        if conversation.service_tier not in {"default", "standard"}:
            raise refuse_field(conversation, "service_tier", _MESSAGES, "use `auto` or `default`")
        body["service_tier"] = "standard_only"


def _write_turn(conversation: Conversation, turn: Turn) -> dict[str, object] | None:
    """One message; None if nothing of the turn is sent (empty texts, reasoning of another vendor)."""
    if turn.role is Role.SYSTEM:
        return {"role": "system", "content": joined_text(turn.parts, SYSTEM_SEPARATOR)}
    blocks: list[dict[str, object]] = []
    results: list[dict[str, object]] = []
    for part in turn.parts:
        if isinstance(part, ToolResult):
            results.append(_write_result(conversation, turn, part))
        elif turn.role is Role.ASSISTANT:
            block = _write_output(conversation, turn, part)
            if block is not None:
                blocks.append(block)
        elif not isinstance(part, Text) or part.text:
            blocks.append(_write_input(conversation, turn, part))
    # Anthropic wants the results of a turn's calls before anything else
    blocks = results + blocks
    if not blocks:
        return None
    if len(blocks) == 1 and blocks[0]["type"] == "text":
        return {"role": turn.role.value, "content": blocks[0]["text"]}
    return {"role": turn.role.value, "content": blocks}


def _write_result(conversation: Conversation, turn: Turn, result: ToolResult) -> dict[str, object]:
    block: dict[str, object] = {"type": "tool_result", "tool_use_id": safe_id(result.call_id)}
    content = [
        _write_input(conversation, turn, part)
        for part in result.content
        if not isinstance(part, Text) or part.text
    ]
    if len(content) == 1 and content[0]["type"] == "text":
        block["content"] = content[0]["text"]
    elif content:
        block["content"] = content
    if result.is_error:
        block["is_error"] = True
    return block


def _write_input(conversation: Conversation, turn: Turn, part: Part) -> dict[str, object]:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Image():
            if not part.data:
                return {"type": "image", "source": {"type": "url", "url": part.url}}
            if part.media_type not in _IMAGE_TYPES:
                raise refuse_part(
                    conversation, turn, _MESSAGES, f"an image of type `{part.media_type}`", "send JPEG or PNG"
                )
            source = {"type": "base64", "media_type": part.media_type, "data": part.data}
            return {"type": "image", "source": source}
        case File():
            return _write_document(conversation, turn, part)
        case _:
            raise refuse_part(
                conversation, turn, _MESSAGES, "this part in a user turn", "send text, images or files"
            )


def _write_document(conversation: Conversation, turn: Turn, part: File) -> dict[str, object]:
    source: dict[str, object]
    if not part.data:
        source = {"type": "url", "url": part.url}
    elif part.media_type == _PDF:
        source = {"type": "base64", "media_type": _PDF, "data": part.data}
    elif part.media_type.startswith("text/"):
        text = decode_text(part.data, f"{field_name(conversation.source, 'turns')}[{turn.at}]")
        source = {"type": "text", "media_type": _PLAIN, "data": text}
    else:
        raise refuse_part(
            conversation, turn, _MESSAGES, f"a file of type `{part.media_type}`", "send a PDF or text"
        )
    document: dict[str, object] = {"type": "document", "source": source}
    if part.name is not None:
        document["title"] = part.name
    return document


def _write_output(conversation: Conversation, turn: Turn, part: Part) -> dict[str, object] | None:
    match part:
        case Text() | Refusal():
            return {"type": "text", "text": part.text} if part.text else None
        case ToolCall():
            if part.is_custom:
                raise refuse_part(
                    conversation,
                    turn,
                    _MESSAGES,
                    "calls of custom tools",
                    "use function tools with a JSON schema",
                )
            arguments = arguments_object(part.arguments)
            if arguments is None:
                raise refuse_part(
                    conversation, turn, _MESSAGES, "arguments that are no JSON object", "repair the tool call"
                )
            return {"type": "tool_use", "id": safe_id(part.id), "name": part.name, "input": arguments}
        case Reasoning():
            if part.seal is None:
                return None
            if part.seal.origin is Origin.MESSAGES:
                return {"type": "thinking", "thinking": part.text, "signature": part.seal.data}
            if part.seal.origin is Origin.REDACTED:
                return {"type": "redacted_thinking", "data": part.seal.data}
            return None
        case _:
            raise refuse_part(conversation, turn, _MESSAGES, "media in an assistant turn", "leave it out")


def _write_tool(conversation: Conversation, index: int, tool: Tool) -> dict[str, object]:
    if tool.is_custom:
        raise Untranslatable(
            f"tools[{index}]",
            "Anthropic Messages has no custom tools; use a function tool with a JSON schema",
        )
    written: dict[str, object] = {"name": tool.name}
    if tool.description is not None:
        written["description"] = tool.description
    written["input_schema"] = tool.schema if tool.schema is not None else msgspec.Raw(b'{"type":"object"}')
    if tool.strict:
        written["strict"] = True
    return written


def _write_choice(conversation: Conversation, body: dict[str, object]) -> None:
    if not conversation.tools:
        return
    choice, allowed = conversation.choice, conversation.allowed
    written: dict[str, object] | None = None
    if choice is Choice.REQUIRED and len(allowed) == 1:
        written = {"type": "tool", "name": allowed[0]}
    elif allowed:
        raise refuse_field(conversation, "choice", _MESSAGES, "send only the allowed tools in `tools`")
    elif choice is not None:
        written = {"type": "any" if choice is Choice.REQUIRED else choice.value}
    if conversation.parallel is False and choice is not Choice.NONE:
        written = written or {"type": "auto"}
        written["disable_parallel_tool_use"] = True
    if written is not None:
        body["tool_choice"] = written
