"""OpenAI chat completions: a request body written from a `Conversation`."""

from typing import Final

import msgspec

from outlay.wire.intent import Operation
from outlay.wire.translate.conversation import (
    DEFAULT_FILE_NAME,
    DEFAULT_FORMAT_NAME,
    ERROR_PREFIX,
    SYSTEM_SEPARATOR,
    Choice,
    Conversation,
    File,
    Image,
    OutputFormat,
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
    joined_text,
)
from outlay.wire.translate.effort import effort_name
from outlay.wire.translate.names import refuse_field, refuse_part

_CHAT: Final = Operation.CHAT
DEFAULT_VERBOSITY: Final = "medium"
"""Not stated: servers that are not OpenAI's may refuse the field."""


def write_chat(conversation: Conversation, target: Target) -> bytes:
    """The request body for a chat completions provider. Raises Untranslatable."""
    body: dict[str, object] = {"model": target.model}
    messages: list[dict[str, object]] = []
    if conversation.system:
        messages.append({"role": "system", "content": SYSTEM_SEPARATOR.join(conversation.system)})
    for turn in conversation.turns:
        match turn.role:
            case Role.SYSTEM:
                messages.append({"role": "system", "content": joined_text(turn.parts, SYSTEM_SEPARATOR)})
            case Role.USER:
                _write_user(conversation, turn, messages)
            case Role.ASSISTANT:
                message = _write_assistant(conversation, turn)
                if message is not None:
                    messages.append(message)
    body["messages"] = messages
    limit = target.limit(conversation)
    if limit is not None:
        body["max_completion_tokens"] = limit
    write_openai_settings(conversation, body)
    if conversation.top_k is not None:
        raise refuse_field(conversation, "top_k", _CHAT, "leave it out")
    for name in ("seed", "presence_penalty", "frequency_penalty"):
        value = getattr(conversation, name)
        if value is not None:
            body[name] = value
    if conversation.stop:
        body["stop"] = list(conversation.stop)
    if conversation.tools:
        body["tools"] = [_write_tool(tool) for tool in conversation.tools]
    _write_choice(conversation, body)
    if conversation.format is not None:
        body["response_format"] = _write_format(conversation.format)
    if conversation.thinking is not None:
        effort = effort_name(conversation.thinking)
        if effort is not None:
            body["reasoning_effort"] = effort
    if conversation.verbosity not in {None, DEFAULT_VERBOSITY}:
        body["verbosity"] = conversation.verbosity
    if target.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return msgspec.json.encode(body)


def write_openai_settings(conversation: Conversation, body: dict[str, object]) -> None:
    """The fields that chat completions and Responses share."""
    for name, value in (
        ("temperature", conversation.temperature),
        ("top_p", conversation.top_p),
        ("user", conversation.user),
        ("safety_identifier", conversation.safety_identifier),
        ("service_tier", conversation.service_tier),
    ):
        if value is not None:
            body[name] = value
    # without tools OpenAI refuses the field
    if conversation.parallel is not None and conversation.tools:
        body["parallel_tool_calls"] = conversation.parallel


def _write_user(conversation: Conversation, turn: Turn, messages: list[dict[str, object]]) -> None:
    """Tool results first, each a message of its own, then what else the turn holds.

    A tool message takes text only: images and files of results follow in the user message, under a line that names
    their call.
    """
    content: list[dict[str, object]] = []
    others: list[dict[str, object]] = []
    for part in turn.parts:
        if isinstance(part, ToolResult):
            texts = [item for item in part.content if isinstance(item, Text)]
            media = [item for item in part.content if not isinstance(item, Text)]
            messages.append(
                {
                    "role": "tool",
                    "tool_call_id": part.call_id,
                    "content": result_text(texts, is_error=part.is_error),
                }
            )
            if media:
                content.append({"type": "text", "text": f"From the result of tool call {part.call_id}:"})
                content.extend(_write_part(conversation, turn, item) for item in media)
        else:
            others.append(_write_part(conversation, turn, part))
    content.extend(others)
    if len(content) == 1 and content[0]["type"] == "text":
        messages.append({"role": "user", "content": content[0]["text"]})
    elif content:
        messages.append({"role": "user", "content": content})


def result_text(texts: list[Text], *, is_error: bool) -> str:
    """A tool result's text, marked if the tool failed and the text does not say so."""
    text = "\n".join(item.text for item in texts)
    if is_error and not text[:8].lower().startswith("error"):
        return ERROR_PREFIX + text
    return text


def _write_part(conversation: Conversation, turn: Turn, part: Part) -> dict[str, object]:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Image():
            image: dict[str, object] = {"url": data_url(part) if part.data else part.url}
            if part.detail is not None:
                image["detail"] = part.detail
            return {"type": "image_url", "image_url": image}
        case File():
            if not part.data:
                raise refuse_part(conversation, turn, _CHAT, "a file by its address", "send it as base64")
            file = {"file_data": data_url(part), "filename": part.name or DEFAULT_FILE_NAME}
            return {"type": "file", "file": file}
        case _:
            raise refuse_part(
                conversation, turn, _CHAT, "this part in a user turn", "send text, images or files"
            )


def data_url(part: Image | File) -> str:
    """Base64 data as OpenAI takes it."""
    return f"data:{part.media_type};base64,{part.data}"


def _write_assistant(conversation: Conversation, turn: Turn) -> dict[str, object] | None:
    """One message; None if the turn held nothing but reasoning, which is not sent back (see `table`)."""
    texts: list[str] = []
    refusals: list[str] = []
    calls: list[dict[str, object]] = []
    for part in turn.parts:
        match part:
            case Text():
                texts.append(part.text)
            case Refusal():
                refusals.append(part.text)
            case ToolCall():
                calls.append(_write_call(part))
            case Reasoning():
                pass
            case _:
                raise refuse_part(conversation, turn, _CHAT, "media in an assistant turn", "leave it out")
    if not (texts or refusals or calls):
        return None
    message: dict[str, object] = {"role": "assistant", "content": "".join(texts) if texts else None}
    if refusals:
        message["refusal"] = "".join(refusals)
    if calls:
        message["tool_calls"] = calls
    return message


def _write_call(call: ToolCall) -> dict[str, object]:
    if call.is_custom:
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    function = {"name": call.name, "arguments": call.arguments or "{}"}
    return {"id": call.id, "type": "function", "function": function}


def _write_tool(tool: Tool) -> dict[str, object]:
    definition: dict[str, object] = {"name": tool.name}
    if tool.description is not None:
        definition["description"] = tool.description
    if tool.is_custom:
        if tool.grammar is not None:
            syntax, text = tool.grammar
            definition["format"] = {"type": "grammar", "grammar": {"syntax": syntax, "definition": text}}
        return {"type": "custom", "custom": definition}
    if tool.schema is not None:
        definition["parameters"] = tool.schema
    if tool.strict is not None:
        definition["strict"] = tool.strict
    return {"type": "function", "function": definition}


def _write_choice(conversation: Conversation, body: dict[str, object]) -> None:
    choice, allowed = conversation.choice, conversation.allowed
    if choice is None or not conversation.tools:
        return
    custom = {tool.name for tool in conversation.tools if tool.is_custom}
    if not allowed:
        body["tool_choice"] = choice.value
        return
    named: list[dict[str, object]] = [
        {"type": kind, kind: {"name": name}}
        for name, kind in ((name, "custom" if name in custom else "function") for name in allowed)
    ]
    if choice is Choice.REQUIRED and len(named) == 1:
        body["tool_choice"] = named[0]
    else:
        body["tool_choice"] = {
            "type": "allowed_tools",
            "allowed_tools": {"mode": choice.value, "tools": named},
        }


def _write_format(stated: OutputFormat) -> dict[str, object]:
    if stated.schema is None:
        return {"type": "json_object"}
    schema: dict[str, object] = {"name": stated.name or DEFAULT_FORMAT_NAME, "schema": stated.schema}
    if stated.description is not None:
        schema["description"] = stated.description
    if stated.strict is not None:
        schema["strict"] = stated.strict
    return {"type": "json_schema", "json_schema": schema}
