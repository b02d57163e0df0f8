"""OpenAI Responses: a request body read into a `Conversation`.

Items that follow each other and are of one answer (reasoning, message, calls) become one assistant turn.
"""

from typing import Any, Final, Literal

import msgspec

from outlay.wire.intent import Operation
from outlay.wire.translate.chat_reader import read_file_data, read_image_url
from outlay.wire.translate.conversation import (
    ABSENT,
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
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
    Untranslatable,
    joined_text,
    stated_raw,
    unwrap_seal,
)
from outlay.wire.translate.effort import checked_effort
from outlay.wire.translate.names import decoding_problem, refuse_set

_RESPONSES: Final = Operation.RESPONSES
SEAL_SEPARATOR: Final = "|"
"""Between an item's id and its encrypted content in a seal."""


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _InputText(_Strict, tag_field="type", tag="input_text"):
    text: str
    prompt_cache_breakpoint: Any = None


class _OutputText(_Strict, tag_field="type", tag="output_text"):
    text: str
    annotations: Any = None
    logprobs: Any = None


class _RefusalPart(_Strict, tag_field="type", tag="refusal"):
    refusal: str


class _InputImage(_Strict, tag_field="type", tag="input_image"):
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    prompt_cache_breakpoint: Any = None


class _InputFile(_Strict, tag_field="type", tag="input_file"):
    file_data: str | None = None
    file_url: str | None = None
    file_id: str | None = None
    filename: str | None = None
    detail: str | None = None
    prompt_cache_breakpoint: Any = None


_Content = _InputText | _OutputText | _RefusalPart | _InputImage | _InputFile


class _Message(_Strict):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[_Content]
    type: str = "message"
    id: str | None = None
    status: str | None = None
    phase: str | None = None


class _Caller(_Strict):
    type: Literal["direct"]


class _FunctionCall(_Strict):
    type: str
    call_id: str
    name: str
    arguments: str = ""
    id: str | None = None
    status: str | None = None
    namespace: str | None = None
    caller: _Caller | None = None


class _CustomCall(_Strict):
    type: str
    call_id: str
    name: str
    input: str
    id: str | None = None
    status: str | None = None
    namespace: str | None = None
    caller: _Caller | None = None


class _CallOutput(_Strict):
    type: str
    call_id: str
    output: str | list[_InputText | _InputImage | _InputFile]
    id: str | None = None
    status: str | None = None
    name: str | None = None
    caller: _Caller | None = None


class _Summary(_Strict):
    text: str
    type: str = "summary_text"


class _ReasoningItem(_Strict):
    type: str
    summary: list[_Summary] | None = None
    content: list[_Summary] | None = None
    encrypted_content: str | None = None
    id: str | None = None
    status: str | None = None


class _Kind(msgspec.Struct):
    type: str | None = None
    role: str | None = None


class _FunctionTool(_Strict, tag_field="type", tag="function"):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = ABSENT
    strict: bool | None = None
    defer_loading: bool | None = None


class _Grammar(_Strict):
    type: Literal["text", "grammar"]
    syntax: str | None = None
    definition: str | None = None


class _CustomTool(_Strict, tag_field="type", tag="custom"):
    name: str
    description: str | None = None
    format: _Grammar | None = None
    defer_loading: bool | None = None


class _NamedTool(_Strict):
    type: Literal["function", "custom"]
    name: str


class _FunctionChoice(_Strict, tag_field="type", tag="function"):
    name: str


class _CustomChoice(_Strict, tag_field="type", tag="custom"):
    name: str


class _AllowedChoice(_Strict, tag_field="type", tag="allowed_tools"):
    mode: Literal["auto", "required"]
    tools: list[_NamedTool]


class _TextFormat(_Strict, tag_field="type", tag="text"):
    pass


class _ObjectFormat(_Strict, tag_field="type", tag="json_object"):
    pass


class _SchemaFormat(_Strict, tag_field="type", tag="json_schema"):
    name: str
    schema: msgspec.Raw
    description: str | None = None
    strict: bool | None = None


class _TextConfig(_Strict):
    format: _TextFormat | _ObjectFormat | _SchemaFormat | None = None
    verbosity: str | None = None


class _Reasoning(_Strict):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None
    context: str | None = None
    mode: str | None = None


class _Responses(_Strict):
    model: str
    input: str | list[msgspec.Raw]
    instructions: str | None = None
    max_output_tokens: int | None = None
    stream: bool | None = None
    stream_options: Any = None
    tools: list[_FunctionTool | _CustomTool] | None = None
    tool_choice: (
        Literal["none", "auto", "required"] | _FunctionChoice | _CustomChoice | _AllowedChoice | None
    ) = None
    parallel_tool_calls: bool | None = None
    text: _TextConfig | None = None
    reasoning: _Reasoning | None = None
    temperature: float | None = None
    top_p: float | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, str] | None = None
    client_metadata: Any = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Any = None
    prompt_cache_options: Any = None
    service_tier: str | None = None
    include: list[str] | None = None
    max_tool_calls: int | None = None
    truncation: str | None = None
    store: bool | None = None
    background: bool | None = None
    background_options: Any = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None
    top_logprobs: int | None = None
    context_management: list[Any] | None = None
    moderation: Any = None
    access_programs: Any = None
    image: Any = None


_AT_OPENAI: Final = "lives at OpenAI; send the whole conversation in `input`"
_REFUSED: Final = {
    "store": "nothing is stored at another vendor; send false",
    "background": "there are no background answers at another vendor; leave it out",
    "background_options": "there are no background answers at another vendor; leave it out",
    "previous_response_id": _AT_OPENAI,
    "conversation": _AT_OPENAI,
    "prompt": "a stored prompt " + _AT_OPENAI,
    "top_logprobs": "log probabilities are not translated; leave it out",
    "context_management": "is done by OpenAI's server; shorten the input yourself",
    "moderation": "has no counterpart; leave it out",
    "access_programs": "has no counterpart; leave it out",
    "image": "has no counterpart; leave it out",
}

_decode: Final = msgspec.json.Decoder(_Responses).decode
_decode_kind: Final = msgspec.json.Decoder(_Kind).decode
_decode_message: Final = msgspec.json.Decoder(_Message).decode
_decode_function_call: Final = msgspec.json.Decoder(_FunctionCall).decode
_decode_custom_call: Final = msgspec.json.Decoder(_CustomCall).decode
_decode_output: Final = msgspec.json.Decoder(_CallOutput).decode
_decode_reasoning: Final = msgspec.json.Decoder(_ReasoningItem).decode


def read_responses(body: bytes) -> Conversation:
    """A request body as a `Conversation`. Raises Untranslatable and msgspec's errors."""
    asked = _decode(body)
    refuse_set({name: getattr(asked, name) for name in _REFUSED}, _REFUSED)
    if asked.truncation not in {None, "disabled"}:
        raise Untranslatable("truncation", "is done by OpenAI's server; shorten the input yourself")
    if "message.output_text.logprobs" in (asked.include or ()):
        raise Untranslatable("include", "log probabilities are not translated; leave them out")
    text = asked.text or _TextConfig()
    conversation = Conversation(
        source=_RESPONSES,
        turns=[],
        system=[asked.instructions] if asked.instructions else [],
        tools=[_read_tool(index, tool) for index, tool in enumerate(asked.tools or ())],
        parallel=asked.parallel_tool_calls,
        format=_read_format(text.format),
        max_tokens=asked.max_output_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        thinking=_read_reasoning(asked.reasoning),
        user=asked.user,
        safety_identifier=asked.safety_identifier,
        cache_key=asked.prompt_cache_key,
        metadata=asked.metadata or None,
        verbosity=text.verbosity,
        service_tier=None if asked.service_tier == "auto" else asked.service_tier,
    )
    _read_choice(asked, conversation)
    if isinstance(asked.input, str):
        conversation.turns.append(Turn(Role.USER, (Text(asked.input),)))
        return conversation
    for index, item in enumerate(asked.input):
        try:
            _read_item(conversation, index, bytes(item))
        except msgspec.ValidationError as error:
            raise decoding_problem(error, f"input[{index}]") from None
    return conversation


def _read_item(conversation: Conversation, index: int, item: bytes) -> None:
    kind = _decode_kind(item)
    match kind.type or ("message" if kind.role else None):
        case "message":
            _read_message(conversation, index, _decode_message(item))
        case "function_call":
            call = _decode_function_call(item)
            _refuse_namespace(call.namespace, index)
            _append_output(conversation, index, ToolCall(call.call_id, call.name, call.arguments))
        case "custom_tool_call":
            custom = _decode_custom_call(item)
            _refuse_namespace(custom.namespace, index)
            part = ToolCall(custom.call_id, custom.name, custom.input, is_custom=True)
            _append_output(conversation, index, part)
        case "function_call_output" | "custom_tool_call_output":
            given = _decode_output(item)
            content = (
                [Text(given.output)]
                if isinstance(given.output, str)
                else _read_content(given.output, f"input[{index}].output")
            )
            kept = tuple(part for part in content if isinstance(part, Text | Image | File))
            result = ToolResult(given.call_id, kept, is_custom=given.type == "custom_tool_call_output")
            conversation.turns.append(Turn(Role.USER, (result,), index))
        case "reasoning":
            _append_output(conversation, index, _read_reasoning_item(_decode_reasoning(item)))
        case "item_reference":
            raise Untranslatable(f"input[{index}]", "an item reference " + _AT_OPENAI)
        case other:
            raise Untranslatable(
                f"input[{index}]",
                f"an item of type `{str(other)[:64]}` is not translated to another dialect; leave it out or use a"
                " model of OpenAI",
            )


def _refuse_namespace(namespace: str | None, index: int) -> None:
    if namespace is not None:
        raise Untranslatable(
            f"input[{index}].namespace", "tool namespaces have no counterpart; use plain names"
        )


def _read_message(conversation: Conversation, index: int, message: _Message) -> None:
    content = message.content
    parts = [Text(content)] if isinstance(content, str) else _read_content(content, f"input[{index}].content")
    turns = conversation.turns
    if message.role == "assistant":
        last = turns[-1] if turns else None
        if last is not None and last.role is Role.ASSISTANT and not _is_text_only(last.parts):
            # of the same answer: calls must stay next to their results
            turns[-1] = Turn(Role.ASSISTANT, last.parts + tuple(parts), last.at)
        else:
            turns.append(Turn(Role.ASSISTANT, tuple(parts), index))
    elif message.role == "user":
        turns.append(Turn(Role.USER, tuple(parts), index))
    elif not all(isinstance(part, Text) for part in parts):
        raise Untranslatable(f"input[{index}]", f"only text is translated in a {message.role} message")
    elif turns:
        turns.append(Turn(Role.SYSTEM, tuple(parts), index))
    else:
        conversation.system.append(joined_text(tuple(parts), SYSTEM_SEPARATOR))


def _is_text_only(parts: tuple[Part, ...]) -> bool:
    return any(isinstance(part, Text | Refusal) for part in parts) and not any(
        isinstance(part, ToolCall) for part in parts
    )


def _append_output(conversation: Conversation, index: int, part: Part) -> None:
    """Part of the model's answer: joins the assistant turn before it, unless reasoning begins a new one."""
    turns = conversation.turns
    last = turns[-1] if turns else None
    if last is not None and last.role is Role.ASSISTANT:
        turns[-1] = Turn(Role.ASSISTANT, (*last.parts, part), last.at)
    else:
        turns.append(Turn(Role.ASSISTANT, (part,), index))


def _read_content(
    content: list[_Content] | list[_InputText | _InputImage | _InputFile], place: str
) -> list[Part]:
    parts: list[Part] = []
    for at, part in enumerate(content):
        name = f"{place}[{at}]"
        match part:
            case _InputText() | _OutputText():
                parts.append(Text(part.text))
            case _RefusalPart():
                parts.append(Refusal(part.refusal))
            case _InputImage():
                if part.image_url is None:
                    raise Untranslatable(
                        name, "an image kept at OpenAI cannot be read elsewhere; send its data"
                    )
                parts.append(read_image_url(part.image_url, part.detail, name))
            case _InputFile():
                if part.file_data is not None:
                    parts.append(read_file_data(part.file_data, part.filename, name))
                elif part.file_url is not None:
                    parts.append(File(url=part.file_url, name=part.filename))
                else:
                    raise Untranslatable(
                        name, "a file kept at OpenAI cannot be read elsewhere; send it as `file_data`"
                    )
    return parts


def _read_reasoning_item(item: _ReasoningItem) -> Reasoning:
    text = "\n\n".join(part.text for part in item.summary or item.content or ())
    if item.encrypted_content is None:
        return Reasoning(text)
    seal = unwrap_seal(item.encrypted_content, Origin.RESPONSES)
    if seal.origin is Origin.RESPONSES:
        seal = response_seal(item.id, item.encrypted_content)
    return Reasoning(text, seal)


def response_seal(item_id: str | None, encrypted: str) -> Seal:
    """OpenAI's encrypted reasoning with the id of its item."""
    return Seal(Origin.RESPONSES, f"{item_id or ''}{SEAL_SEPARATOR}{encrypted}")


def _read_tool(index: int, tool: _FunctionTool | _CustomTool) -> Tool:
    if tool.defer_loading:
        raise Untranslatable(f"tools[{index}].defer_loading", "tool search runs at OpenAI; send false")
    if isinstance(tool, _FunctionTool):
        return Tool(tool.name, tool.description, stated_raw(tool.parameters), tool.strict)
    stated = tool.format
    grammar = None
    if stated is not None and stated.type == "grammar":
        grammar = (stated.syntax or "", stated.definition or "")
    return Tool(tool.name, tool.description, is_custom=True, grammar=grammar)


def _read_choice(asked: _Responses, conversation: Conversation) -> None:
    match asked.tool_choice:
        case None:
            return
        case str():
            conversation.choice = Choice(asked.tool_choice)
        case _FunctionChoice() | _CustomChoice():
            conversation.choice = Choice.REQUIRED
            conversation.allowed = (asked.tool_choice.name,)
        case _AllowedChoice():
            conversation.choice = Choice(asked.tool_choice.mode)
            conversation.allowed = tuple(tool.name for tool in asked.tool_choice.tools)


def _read_format(stated: _TextFormat | _ObjectFormat | _SchemaFormat | None) -> OutputFormat | None:
    if isinstance(stated, _ObjectFormat):
        return OutputFormat()
    if isinstance(stated, _SchemaFormat):
        return OutputFormat(stated.schema, stated.name, stated.description, stated.strict)
    return None


def _read_reasoning(reasoning: _Reasoning | None) -> Thinking | None:
    if reasoning is None:
        return None
    if reasoning.mode not in {None, "standard"}:
        raise Untranslatable("reasoning.mode", "has no counterpart; leave it out")
    effort = checked_effort(reasoning.effort, "reasoning.effort")
    shows = True if (reasoning.summary or reasoning.generate_summary) else None
    return None if effort is None and shows is None else Thinking(effort, shows=shows)
