"""OpenAI chat completions: a request body read into a `Conversation`."""

from typing import Any, Final, Literal

import msgspec

from outlay.wire.intent import Operation
from outlay.wire.translate.conversation import (
    ABSENT,
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
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
    Untranslatable,
    media_of_data_url,
    stated_raw,
)
from outlay.wire.translate.effort import checked_effort
from outlay.wire.translate.names import refuse_set

_CHAT: Final = Operation.CHAT


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _TextPart(_Strict, tag_field="type", tag="text"):
    text: str
    prompt_cache_breakpoint: Any = None
    cache_control: Any = None


class _RefusalPart(_Strict, tag_field="type", tag="refusal"):
    refusal: str


class _ImageUrl(_Strict):
    url: str
    detail: str | None = None


class _ImagePart(_Strict, tag_field="type", tag="image_url"):
    image_url: _ImageUrl
    prompt_cache_breakpoint: Any = None
    cache_control: Any = None


class _FileData(_Strict):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class _FilePart(_Strict, tag_field="type", tag="file"):
    file: _FileData
    prompt_cache_breakpoint: Any = None
    cache_control: Any = None


class _System(_Strict, tag_field="role", tag="system"):
    content: str | list[_TextPart]
    name: str | None = None


class _Developer(_Strict, tag_field="role", tag="developer"):
    content: str | list[_TextPart]
    name: str | None = None


class _User(_Strict, tag_field="role", tag="user"):
    content: str | list[_TextPart | _ImagePart | _FilePart]
    name: str | None = None


class _Function(_Strict):
    name: str
    arguments: str = ""


class _FunctionCall(_Strict, tag_field="type", tag="function"):
    id: str
    function: _Function
    index: int | None = None


class _Custom(_Strict):
    name: str
    input: str


class _CustomCall(_Strict, tag_field="type", tag="custom"):
    id: str
    custom: _Custom
    index: int | None = None


class _Assistant(_Strict, tag_field="role", tag="assistant"):
    content: str | list[_TextPart | _RefusalPart] | None = None
    refusal: str | None = None
    tool_calls: list[_FunctionCall | _CustomCall] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    annotations: list[Any] | None = None
    audio: Any = None
    function_call: Any = None


class _Tool(_Strict, tag_field="role", tag="tool"):
    tool_call_id: str
    content: str | list[_TextPart] | None = None
    name: str | None = None


class _Definition(_Strict):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = ABSENT
    strict: bool | None = None


class _FunctionTool(_Strict, tag_field="type", tag="function"):
    function: _Definition
    cache_control: Any = None


class _Grammar(_Strict):
    definition: str
    syntax: str


class _CustomFormat(_Strict):
    type: Literal["text", "grammar"]
    grammar: _Grammar | None = None


class _CustomDefinition(_Strict):
    name: str
    description: str | None = None
    format: _CustomFormat | None = None


class _CustomTool(_Strict, tag_field="type", tag="custom"):
    custom: _CustomDefinition


class _Named(_Strict):
    name: str


class _NamedTool(_Strict):
    type: Literal["function", "custom"]
    function: _Named | None = None
    custom: _Named | None = None


class _NamedChoice(_Strict, tag_field="type", tag="function"):
    function: _Named


class _CustomChoice(_Strict, tag_field="type", tag="custom"):
    custom: _Named


class _AllowedTools(_Strict):
    mode: Literal["auto", "required"]
    tools: list[_NamedTool]


class _AllowedChoice(_Strict, tag_field="type", tag="allowed_tools"):
    allowed_tools: _AllowedTools


class _TextFormat(_Strict, tag_field="type", tag="text"):
    pass


class _ObjectFormat(_Strict, tag_field="type", tag="json_object"):
    pass


class _Schema(_Strict):
    name: str
    description: str | None = None
    schema: msgspec.Raw = ABSENT
    strict: bool | None = None


class _SchemaFormat(_Strict, tag_field="type", tag="json_schema"):
    json_schema: _Schema


class _Chat(_Strict):
    model: str
    messages: list[_System | _Developer | _User | _Assistant | _Tool]
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream: bool | None = None
    stream_options: Any = None
    service_tier: str | None = None
    tools: list[_FunctionTool | _CustomTool] | None = None
    tool_choice: (
        Literal["none", "auto", "required"] | _NamedChoice | _CustomChoice | _AllowedChoice | None
    ) = None
    parallel_tool_calls: bool | None = None
    response_format: _TextFormat | _ObjectFormat | _SchemaFormat | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: str | list[str] | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Any = None
    prompt_cache_options: Any = None
    modalities: list[str] | None = None
    top_logprobs: int | None = None
    logprobs: bool | None = None
    logit_bias: dict[str, Any] | None = None
    store: bool | None = None
    functions: list[Any] | None = None
    function_call: Any = None
    audio: Any = None
    prediction: Any = None
    moderation: Any = None
    web_search_options: Any = None


_REFUSED: Final = {
    "logprobs": "log probabilities are not translated; use a chat model",
    "top_logprobs": "log probabilities are not translated; use a chat model",
    "logit_bias": "names tokens of one tokenizer; leave it out",
    "store": "nothing is stored at another vendor; leave it out or send false",
    "functions": "is deprecated; use `tools`",
    "function_call": "is deprecated; use `tool_choice`",
    "audio": "audio is not translated; use a chat model",
    "prediction": "has no counterpart; leave it out",
    "moderation": "has no counterpart; leave it out",
    "web_search_options": "is a tool that OpenAI runs; use a chat model of OpenAI",
}

_decode: Final = msgspec.json.Decoder(_Chat).decode


def read_chat(body: bytes) -> Conversation:
    """A request body as a `Conversation`. Raises Untranslatable and msgspec's errors."""
    chat = _decode(body)
    refuse_set({name: getattr(chat, name) for name in _REFUSED}, _REFUSED)
    if chat.web_search_options is not None:
        # an empty object asks for a search as well
        raise Untranslatable("web_search_options", _REFUSED["web_search_options"])
    if chat.n is not None and chat.n != 1:
        raise Untranslatable("n", "several choices are not translated; ask once per choice")
    if chat.modalities is not None and chat.modalities != ["text"]:
        raise Untranslatable("modalities", "only text is translated")
    conversation = Conversation(
        source=_CHAT,
        turns=[],
        tools=[_read_tool(tool) for tool in chat.tools or ()],
        parallel=chat.parallel_tool_calls,
        format=_read_format(chat.response_format),
        max_tokens=chat.max_completion_tokens if chat.max_tokens is None else chat.max_tokens,
        temperature=chat.temperature,
        top_p=chat.top_p,
        top_k=chat.top_k,
        seed=chat.seed,
        presence_penalty=chat.presence_penalty,
        frequency_penalty=chat.frequency_penalty,
        stop=(chat.stop,) if isinstance(chat.stop, str) else tuple(chat.stop or ()),
        thinking=_read_effort(chat.reasoning_effort),
        user=chat.user,
        safety_identifier=chat.safety_identifier,
        cache_key=chat.prompt_cache_key,
        metadata=chat.metadata or None,
        verbosity=chat.verbosity,
        service_tier=None if chat.service_tier == "auto" else chat.service_tier,
    )
    _read_choice(chat, conversation)
    custom_calls: set[str] = set()
    for index, message in enumerate(chat.messages):
        _read_message(conversation, index, message, custom_calls)
    return conversation


def _read_message(
    conversation: Conversation,
    index: int,
    message: _System | _Developer | _User | _Assistant | _Tool,
    custom_calls: set[str],
) -> None:
    if message.name is not None and not isinstance(message, _Tool):
        raise Untranslatable(
            f"messages[{index}].name", "other dialects do not name participants; write the name into the text"
        )
    turns = conversation.turns
    match message:
        case _System() | _Developer():
            text = _plain_text(message.content)
            if turns:
                turns.append(Turn(Role.SYSTEM, (Text(text),), index))
            else:
                conversation.system.append(text)
        case _User():
            turns.append(Turn(Role.USER, tuple(_read_content(message.content, index)), index))
        case _Assistant():
            parts = _read_assistant(message, index)
            custom_calls.update(part.id for part in parts if isinstance(part, ToolCall) and part.is_custom)
            turns.append(Turn(Role.ASSISTANT, tuple(parts), index))
        case _Tool():
            content = message.content or ""
            texts = [content] if isinstance(content, str) else [part.text for part in content]
            result = ToolResult(
                message.tool_call_id,
                tuple(Text(text) for text in texts if text),
                is_custom=message.tool_call_id in custom_calls,
            )
            turns.append(Turn(Role.USER, (result,), index))


def _plain_text(content: str | list[_TextPart]) -> str:
    return content if isinstance(content, str) else SYSTEM_SEPARATOR.join(part.text for part in content)


def _read_content(content: str | list[_TextPart | _ImagePart | _FilePart], index: int) -> list[Part]:
    if isinstance(content, str):
        return [Text(content)]
    parts: list[Part] = []
    for at, part in enumerate(content):
        name = f"messages[{index}].content[{at}]"
        match part:
            case _TextPart():
                parts.append(Text(part.text))
            case _ImagePart():
                parts.append(read_image_url(part.image_url.url, part.image_url.detail, name))
            case _FilePart():
                if part.file.file_data is None or part.file.file_id is not None:
                    raise Untranslatable(
                        name, "a file kept at OpenAI cannot be read elsewhere; send it as `file_data`"
                    )
                parts.append(read_file_data(part.file.file_data, part.file.filename, name))
    return parts


def read_image_url(url: str, detail: str | None, param: str) -> Image:
    """An image of OpenAI's, by data URL or address. Raises Untranslatable."""
    detail = None if detail == "auto" else detail
    if url.startswith("data:"):
        media_type, data = media_of_data_url(url, param)
        return Image(media_type, data, detail=detail)
    return Image(url=url, detail=detail)


def read_file_data(data: str, name: str | None, param: str) -> File:
    """A file of OpenAI's, as data URL or plain base64 (then a PDF). Raises Untranslatable."""
    if data.startswith("data:"):
        media_type, data = media_of_data_url(data, param)
        return File(media_type, data, name=name)
    return File("application/pdf", data, name=name)


def _read_assistant(message: _Assistant, index: int) -> list[Part]:
    for name in ("audio", "function_call"):
        if getattr(message, name) is not None:
            raise Untranslatable(f"messages[{index}].{name}", "is not translated; use text and `tool_calls`")
    parts: list[Part] = []
    reasoning = message.reasoning_content or message.reasoning
    if reasoning and isinstance(reasoning, str):
        parts.append(Reasoning(reasoning))
    if isinstance(message.content, str):
        if message.content:
            parts.append(Text(message.content))
    else:
        for part in message.content or ():
            parts.append(Text(part.text) if isinstance(part, _TextPart) else Refusal(part.refusal))
    if message.refusal:
        parts.append(Refusal(message.refusal))
    for call in message.tool_calls or ():
        if isinstance(call, _FunctionCall):
            parts.append(ToolCall(call.id, call.function.name, call.function.arguments))
        else:
            parts.append(ToolCall(call.id, call.custom.name, call.custom.input, is_custom=True))
    return parts


def _read_tool(tool: _FunctionTool | _CustomTool) -> Tool:
    if isinstance(tool, _FunctionTool):
        function = tool.function
        return Tool(function.name, function.description, stated_raw(function.parameters), function.strict)
    custom = tool.custom
    grammar = None if custom.format is None else custom.format.grammar
    return Tool(
        custom.name,
        custom.description,
        is_custom=True,
        grammar=None if grammar is None else (grammar.syntax, grammar.definition),
    )


def _read_choice(chat: _Chat, conversation: Conversation) -> None:
    match chat.tool_choice:
        case None:
            return
        case str():
            conversation.choice = Choice(chat.tool_choice)
        case _NamedChoice():
            conversation.choice = Choice.REQUIRED
            conversation.allowed = (chat.tool_choice.function.name,)
        case _CustomChoice():
            conversation.choice = Choice.REQUIRED
            conversation.allowed = (chat.tool_choice.custom.name,)
        case _AllowedChoice():
            allowed = chat.tool_choice.allowed_tools
            conversation.choice = Choice(allowed.mode)
            named = [tool.function or tool.custom for tool in allowed.tools]
            conversation.allowed = tuple(tool.name for tool in named if tool is not None)


def _read_format(stated: _TextFormat | _ObjectFormat | _SchemaFormat | None) -> OutputFormat | None:
    if isinstance(stated, _ObjectFormat):
        return OutputFormat()
    if isinstance(stated, _SchemaFormat):
        schema = stated.json_schema
        return OutputFormat(
            stated_raw(schema.schema) or msgspec.Raw(b"{}"),
            schema.name,
            schema.description,
            schema.strict,
        )
    return None


def _read_effort(effort: str | None) -> Thinking | None:
    return None if effort is None else Thinking(checked_effort(effort, "reasoning_effort"))
