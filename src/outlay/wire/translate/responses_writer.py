"""OpenAI Responses: a request body written from a `Conversation`.

`store` is always false: OpenAI keeps a response for 30 days unless told not to, and no other dialect's client asked it
to.
"""

from typing import Final

import msgspec

from outlay.wire.intent import Operation
from outlay.wire.translate.chat_writer import data_url, result_text, write_openai_settings
from outlay.wire.translate.conversation import (
    DEFAULT_FILE_NAME,
    DEFAULT_FORMAT_NAME,
    SYSTEM_SEPARATOR,
    Choice,
    Conversation,
    File,
    Image,
    Origin,
    OutputFormat,
    Part,
    Reasoning,
    Refusal,
    Role,
    Seal,
    Target,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
    joined_text,
)
from outlay.wire.translate.effort import effort_name
from outlay.wire.translate.names import refuse_field, refuse_part
from outlay.wire.translate.responses_reader import SEAL_SEPARATOR

_RESPONSES: Final = Operation.RESPONSES
EMPTY_SCHEMA: Final = msgspec.Raw(b'{"type":"object","properties":{}}')
"""The schema of a tool without arguments, where one must be stated."""


def write_responses(conversation: Conversation, target: Target) -> bytes:
    """The request body for a Responses provider. Raises Untranslatable."""
    body: dict[str, object] = {"model": target.model}
    if conversation.system:
        body["instructions"] = SYSTEM_SEPARATOR.join(conversation.system)
    items: list[dict[str, object]] = []
    for turn in conversation.turns:
        match turn.role:
            case Role.SYSTEM:
                text = joined_text(turn.parts, SYSTEM_SEPARATOR)
                items.append({"type": "message", "role": "developer", "content": text})
            case Role.USER:
                _write_user(conversation, turn, items)
            case Role.ASSISTANT:
                _write_assistant(conversation, turn, items)
    body["input"] = items
    limit = target.limit(conversation)
    if limit is not None:
        body["max_output_tokens"] = limit
    write_openai_settings(conversation, body)
    for name, value in (("prompt_cache_key", conversation.cache_key), ("metadata", conversation.metadata)):
        if value is not None:
            body[name] = value
    _refuse_missing(conversation)
    if conversation.tools:
        body["tools"] = [_write_tool(tool) for tool in conversation.tools]
    _write_choice(conversation, body)
    text_config: dict[str, object] = {}
    if conversation.format is not None:
        text_config["format"] = _write_format(conversation.format)
    if conversation.verbosity is not None:
        text_config["verbosity"] = conversation.verbosity
    if text_config:
        body["text"] = text_config
    _write_reasoning(conversation.thinking, body)
    body["store"] = False
    if target.stream:
        body["stream"] = True
    return msgspec.json.encode(body)


def _refuse_missing(conversation: Conversation) -> None:
    if conversation.top_k is not None:
        raise refuse_field(conversation, "top_k", _RESPONSES, "leave it out")
    if conversation.seed is not None:
        raise refuse_field(conversation, "seed", _RESPONSES, "leave it out")
    if conversation.presence_penalty:
        raise refuse_field(conversation, "presence_penalty", _RESPONSES, "leave it out")
    if conversation.frequency_penalty:
        raise refuse_field(conversation, "frequency_penalty", _RESPONSES, "leave it out")
    if conversation.stop:
        raise refuse_field(conversation, "stop", _RESPONSES, "leave it out")


def _write_user(conversation: Conversation, turn: Turn, items: list[dict[str, object]]) -> None:
    content: list[dict[str, object]] = []
    for part in turn.parts:
        if isinstance(part, ToolResult):
            items.append(_write_result(conversation, turn, part))
        else:
            content.append(_write_part(conversation, turn, part))
    if len(content) == 1 and content[0]["type"] == "input_text":
        items.append({"type": "message", "role": "user", "content": content[0]["text"]})
    elif content:
        items.append({"type": "message", "role": "user", "content": content})


def _write_result(conversation: Conversation, turn: Turn, result: ToolResult) -> dict[str, object]:
    output: object
    if all(isinstance(part, Text) for part in result.content):
        texts = [part for part in result.content if isinstance(part, Text)]
        output = result_text(texts, is_error=result.is_error)
    else:
        output = [_write_part(conversation, turn, part) for part in result.content]
    kind = "custom_tool_call_output" if result.is_custom else "function_call_output"
    return {"type": kind, "call_id": result.call_id, "output": output}


def _write_part(conversation: Conversation, turn: Turn, part: Part) -> dict[str, object]:
    match part:
        case Text():
            return {"type": "input_text", "text": part.text}
        case Image():
            url = data_url(part) if part.data else part.url
            return {"type": "input_image", "image_url": url, "detail": part.detail or "auto"}
        case File():
            if not part.data:
                return {"type": "input_file", "file_url": part.url}
            name = part.name or DEFAULT_FILE_NAME
            return {"type": "input_file", "file_data": data_url(part), "filename": name}
        case _:
            raise refuse_part(
                conversation, turn, _RESPONSES, "this part in a user turn", "send text, images or files"
            )


def _write_assistant(conversation: Conversation, turn: Turn, items: list[dict[str, object]]) -> None:
    texts: list[str] = []
    for number, part in enumerate(turn.parts):
        if texts and not isinstance(part, Text):
            items.append({"type": "message", "role": "assistant", "content": "".join(texts)})
            texts = []
        match part:
            case Text():
                texts.append(part.text)
            case Refusal():
                items.append(
                    {
                        "type": "message",
                        "id": f"msg_{turn.at}_{number}",
                        "role": "assistant",
                        "status": "completed",
                        "content": [{"type": "refusal", "refusal": part.text}],
                    }
                )
            case ToolCall():
                items.append(_write_call(part))
            case Reasoning():
                if part.seal is not None and part.seal.origin is Origin.RESPONSES:
                    items.append(_write_reasoning_item(part.text, part.seal))
            case _:
                raise refuse_part(
                    conversation, turn, _RESPONSES, "media in an assistant turn", "leave it out"
                )
    if texts:
        items.append({"type": "message", "role": "assistant", "content": "".join(texts)})


def _write_reasoning_item(text: str, seal: Seal) -> dict[str, object]:
    item_id, _, encrypted = seal.data.partition(SEAL_SEPARATOR)
    item: dict[str, object] = {"type": "reasoning"}
    if item_id:
        item["id"] = item_id
    item["summary"] = [{"type": "summary_text", "text": text}] if text else []
    item["encrypted_content"] = encrypted
    return item


def _write_call(call: ToolCall) -> dict[str, object]:
    if call.is_custom:
        return {"type": "custom_tool_call", "call_id": call.id, "name": call.name, "input": call.arguments}
    return {
        "type": "function_call",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments or "{}",
    }


def _write_tool(tool: Tool) -> dict[str, object]:
    written: dict[str, object] = {"type": "custom" if tool.is_custom else "function", "name": tool.name}
    if tool.description is not None:
        written["description"] = tool.description
    if tool.is_custom:
        if tool.grammar is not None:
            syntax, definition = tool.grammar
            written["format"] = {"type": "grammar", "syntax": syntax, "definition": definition}
        return written
    written["parameters"] = tool.schema if tool.schema is not None else EMPTY_SCHEMA
    # absent means strict here and not strict in the other dialects
    written["strict"] = tool.strict is True
    return written


def _write_choice(conversation: Conversation, body: dict[str, object]) -> None:
    choice, allowed = conversation.choice, conversation.allowed
    if choice is None or not conversation.tools:
        return
    if not allowed:
        body["tool_choice"] = choice.value
        return
    custom = {tool.name for tool in conversation.tools if tool.is_custom}
    named = [{"type": "custom" if name in custom else "function", "name": name} for name in allowed]
    if choice is Choice.REQUIRED and len(named) == 1:
        body["tool_choice"] = named[0]
    else:
        body["tool_choice"] = {"type": "allowed_tools", "mode": choice.value, "tools": named}


def _write_format(stated: OutputFormat) -> dict[str, object]:
    if stated.schema is None:
        return {"type": "json_object"}
    written: dict[str, object] = {
        "type": "json_schema",
        "name": stated.name or DEFAULT_FORMAT_NAME,
        "schema": stated.schema,
    }
    if stated.description is not None:
        written["description"] = stated.description
    if stated.strict is not None:
        written["strict"] = stated.strict
    return written


def _write_reasoning(thinking: Thinking | None, body: dict[str, object]) -> None:
    if thinking is None:
        return
    effort = effort_name(thinking)
    reasoning: dict[str, object] = {}
    if effort is not None:
        reasoning["effort"] = effort
    if thinking.shows and effort != "none":
        reasoning["summary"] = "auto"
    if reasoning:
        body["reasoning"] = reasoning
        if effort != "none":
            # so that the reasoning can come back with the next call; models without reasoning refuse the field
            body["include"] = ["reasoning.encrypted_content"]
