"""Google Gemini `generateContent`: a request body read into a `Conversation`.

The model and whether to stream stand in the path, so neither is in the body. Calls and results of tools are matched by
`id` where the client gives one, else by name in order. Names are read in camelCase and in snake_case, as Google does.
"""

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
    OutputFormat,
    Part,
    Reasoning,
    Role,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
    Untranslatable,
    decode_text,
    standard_base64,
    stated_raw,
    unwrap_seal,
)
from outlay.wire.translate.names import refuse_set
from outlay.wire.translate.schemas import json_schema, promised_format

_GENERATE: Final = Operation.GENERATE
FOREIGN_SIGNATURE: Final = "skip_thought_signature_validator"
"""Google's own word for a call that its model did not make: Gemini 3 refuses calls without a signature
(https://ai.google.dev/gemini-api/docs/thought-signatures)."""
JSON_TYPE: Final = "application/json"
_TIERS_IN: Final = {"standard": "default", "flex": "flex", "priority": "priority"}
_NO_FILTER: Final = frozenset({"BLOCK_NONE", "OFF"})


class _Strict(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    pass


class _Blob(_Strict):
    data: str
    mime_type: str
    display_name: str | None = None


class _FunctionCall(_Strict):
    name: str
    id: str | None = None
    args: msgspec.Raw = ABSENT


class _ResponsePart(_Strict):
    inline_data: _Blob | None = None


class _FunctionResponse(_Strict):
    name: str
    response: msgspec.Raw = ABSENT
    id: str | None = None
    parts: list[_ResponsePart] | None = None


class _Part(_Strict):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    inline_data: _Blob | None = None
    function_call: _FunctionCall | None = None
    function_response: _FunctionResponse | None = None
    media_resolution: Any = None


class _Content(_Strict):
    parts: list[_Part] | None = None
    role: str | None = None


class _Function(_Strict):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = ABSENT
    parameters_json_schema: msgspec.Raw = ABSENT
    response: Any = None
    response_json_schema: Any = None


class _Tool(_Strict):
    function_declarations: list[_Function] | None = None


class _Calling(_Strict):
    mode: Literal["AUTO", "ANY", "NONE", "VALIDATED", "MODE_UNSPECIFIED"] | None = None
    allowed_function_names: list[str] | None = None


class _ToolConfig(_Strict):
    function_calling_config: _Calling | None = None


class _ThinkingConfig(_Strict):
    include_thoughts: bool | None = None
    thinking_budget: int | None = None
    thinking_level: str | None = None


class _Config(_Strict):
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    max_output_tokens: int | None = None
    candidate_count: int | None = None
    stop_sequences: list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_mime_type: str | None = None
    response_schema: msgspec.Raw = ABSENT
    response_json_schema: msgspec.Raw = ABSENT
    thinking_config: _ThinkingConfig | None = None
    response_modalities: list[str] | None = None
    media_resolution: str | None = None
    response_logprobs: bool | None = None
    logprobs: int | None = None


class _Safety(_Strict):
    category: str
    threshold: str
    method: str | None = None


class _Generate(_Strict):
    contents: list[_Content]
    model: str | None = None
    system_instruction: _Content | None = None
    generation_config: _Config | None = None
    tools: list[_Tool] | None = None
    tool_config: _ToolConfig | None = None
    safety_settings: list[_Safety] | None = None
    cached_content: str | None = None
    labels: dict[str, str] | None = None
    service_tier: str | None = None
    store: bool | None = None


_REFUSED: Final = {
    "cachedContent": "lives at Google; send the whole conversation in `contents`",
    "store": "nothing is stored at another vendor; leave it out",
}
_REFUSED_CONFIG: Final = {
    "responseLogprobs": "log probabilities are not translated; leave it out",
    "logprobs": "log probabilities are not translated; leave it out",
}

# what a client's own names may stand in
_OPAQUE: Final = frozenset(
    [
        "args",
        "response",
        "parameters",
        "parametersJsonSchema",
        "responseSchema",
        "responseJsonSchema",
        "labels",
    ]
)

_decode: Final = msgspec.json.Decoder(_Generate).decode
_decode_any: Final = msgspec.json.Decoder().decode


def read_generate(body: bytes) -> Conversation:
    """A request body as a `Conversation`. Raises Untranslatable and msgspec's errors."""
    try:
        asked = _decode(body)
    except msgspec.ValidationError:
        # perhaps only its spelling: Google's own SDK mixes `mimeType` and `mime_type`
        asked = _decode(msgspec.json.encode(_in_camel_case(_decode_any(body))))
    refuse_set({"cachedContent": asked.cached_content, "store": asked.store}, _REFUSED)
    for index, setting in enumerate(asked.safety_settings or ()):
        if setting.threshold not in _NO_FILTER:
            raise Untranslatable(
                f"safetySettings[{index}]", "other vendors' filters cannot be set; leave it out or send `OFF`"
            )
    config = asked.generation_config or _Config()
    _refuse_config(config)
    conversation = Conversation(
        source=_GENERATE,
        turns=[],
        system=_read_system(asked.system_instruction),
        format=_read_format(config),
        max_tokens=config.max_output_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=_read_top_k(config.top_k),
        seed=config.seed,
        presence_penalty=config.presence_penalty,
        frequency_penalty=config.frequency_penalty,
        stop=tuple(config.stop_sequences or ()),
        thinking=_read_thinking(config.thinking_config),
        service_tier=_read_tier(asked.service_tier),
    )
    _read_choice(asked.tool_config, conversation)
    calling = None if asked.tool_config is None else asked.tool_config.function_calling_config
    strict = True if calling is not None and calling.mode == "VALIDATED" else None
    for tool in asked.tools or ():
        for function in tool.function_declarations or ():
            conversation.tools.append(_read_tool(function, strict))
    _TurnReader(conversation).read(asked.contents)
    return conversation


def _in_camel_case(value: Any) -> Any:
    """The value with Google's names in one spelling. Raises Untranslatable if a name is there in both."""
    if isinstance(value, list):
        return [_in_camel_case(item) for item in value]
    if not isinstance(value, dict):
        return value
    spelled: dict[str, Any] = {}
    for name, item in value.items():
        first, *rest = name.split("_")
        camel = first + "".join(word.capitalize() for word in rest)
        if camel in spelled:
            raise Untranslatable(camel, "is given in two spellings; send it once", status=400)
        spelled[camel] = item if camel in _OPAQUE else _in_camel_case(item)
    return spelled


def _read_system(instruction: _Content | None) -> list[str]:
    texts: list[str] = []
    for part in (instruction or _Content()).parts or ():
        if part.text is None or part.inline_data or part.function_call or part.function_response:
            raise Untranslatable("systemInstruction.parts", "only text is translated here")
        texts.append(part.text)
    return texts


def _refuse_config(config: _Config) -> None:
    prefix = "generationConfig."
    refuse_set(
        {prefix + "responseLogprobs": config.response_logprobs, prefix + "logprobs": config.logprobs},
        {prefix + name: fix for name, fix in _REFUSED_CONFIG.items()},
    )
    if config.candidate_count not in {None, 1}:
        raise Untranslatable(
            prefix + "candidateCount", "several candidates are not translated; ask once per candidate"
        )
    if config.response_modalities is not None and config.response_modalities != ["TEXT"]:
        raise Untranslatable(prefix + "responseModalities", "only text is translated")


def _read_top_k(top_k: float | None) -> int | None:
    """Google's is a float in the SDK; a whole number."""
    if top_k is None:
        return None
    if not top_k.is_integer():
        raise Untranslatable("generationConfig.topK", "must be a whole number", status=400)
    return int(top_k)


def _read_tier(tier: str | None) -> str | None:
    tier = None if tier is None else tier.lower()
    if tier in {None, "unspecified", "service_tier_unspecified"}:
        return None
    if tier not in _TIERS_IN:
        raise Untranslatable("serviceTier", "has no counterpart; leave it out")
    return _TIERS_IN[tier]


def _read_format(config: _Config) -> OutputFormat | None:
    prefix = "generationConfig."
    if config.response_mime_type in {None, "text/plain"}:
        if stated_raw(config.response_schema) or stated_raw(config.response_json_schema):
            raise Untranslatable(prefix + "responseMimeType", f"a schema needs `{JSON_TYPE}`", status=400)
        return None
    if config.response_mime_type != JSON_TYPE:
        raise Untranslatable(
            prefix + "responseMimeType", f"only `{JSON_TYPE}` and `text/plain` are translated"
        )
    schema = stated_raw(config.response_json_schema)
    if schema is not None:
        return promised_format(schema)
    schema = stated_raw(config.response_schema)
    if schema is not None:
        return promised_format(json_schema(schema))
    return OutputFormat()


def _read_thinking(config: _ThinkingConfig | None) -> Thinking | None:
    if config is None:
        return None
    shows, budget = config.include_thoughts, config.thinking_budget
    level = None if config.thinking_level is None else config.thinking_level.lower()
    if level == "thinking_level_unspecified":
        level = None
    if level is not None and level not in {"minimal", "low", "medium", "high", "xhigh"}:
        raise Untranslatable(
            "generationConfig.thinkingConfig.thinkingLevel", f"`{level[:64]}` is no known level", status=400
        )
    if level is None and budget == -1:
        return Thinking(is_adaptive=True, shows=shows)
    if level is None and budget == 0:
        return Thinking("none", shows=shows)
    if level is None and budget is None and shows is None:
        return None
    return Thinking(level, None if level is not None else budget, shows=shows)


def _read_choice(config: _ToolConfig | None, conversation: Conversation) -> None:
    calling = None if config is None else config.function_calling_config
    if calling is None:
        return
    match calling.mode:
        case "ANY":
            conversation.choice = Choice.REQUIRED
        case "NONE":
            conversation.choice = Choice.NONE
        case "AUTO" | "VALIDATED":
            conversation.choice = Choice.AUTO
        case _:
            pass
    if calling.allowed_function_names:
        conversation.choice = conversation.choice or Choice.AUTO
        conversation.allowed = tuple(calling.allowed_function_names)


def _read_tool(function: _Function, strict: bool | None) -> Tool:
    schema = stated_raw(function.parameters_json_schema)
    openapi = stated_raw(function.parameters)
    if schema is None and openapi is not None:
        schema = json_schema(openapi)
    return Tool(function.name, function.description, schema, strict)


class _TurnReader:
    """Reads contents in order; gives calls without an id one, and finds the call that a response answers."""

    def __init__(self, conversation: Conversation) -> None:
        self._turns = conversation.turns
        self._open: list[ToolCall] = []
        self._calls = 0

    def read(self, contents: list[_Content]) -> None:
        for index, content in enumerate(contents):
            role = Role.ASSISTANT if content.role == "model" else Role.USER
            if content.role not in {None, "user", "model", "function"}:
                raise Untranslatable(f"contents[{index}].role", "must be `user` or `model`", status=400)
            parts: list[Part] = []
            for at, part in enumerate(content.parts or ()):
                self._read_part(f"contents[{index}].parts[{at}]", role, part, parts)
            self._turns.append(Turn(role, tuple(parts), index))

    def _read_part(self, name: str, role: Role, part: _Part, parts: list[Part]) -> None:
        given = (part.text, part.inline_data, part.function_call, part.function_response)
        if sum(item is not None for item in given) > 1:
            raise Untranslatable(name, "holds more than one thing", status=400)
        seal = None
        if part.thought_signature is not None and part.thought_signature != FOREIGN_SIGNATURE:
            seal = unwrap_seal(_unpacked(part.thought_signature), Origin.GENERATE)
        if part.thought and part.text is not None:
            last = parts[-1] if parts else None
            if isinstance(last, Reasoning) and last.seal is None:
                # one thought, as it was streamed; its seal comes last and is of the whole
                parts[-1] = Reasoning(last.text + part.text, seal)
            else:
                parts.append(Reasoning(part.text, seal))
            return
        if seal is not None:
            parts.append(Reasoning("", seal))
        if part.text is not None:
            parts.append(Text(part.text))
        elif part.inline_data is not None:
            parts.append(_read_blob(name, part.inline_data))
        elif part.function_call is not None:
            if role is not Role.ASSISTANT:
                raise Untranslatable(name, "`functionCall` belongs to the model's turn", status=400)
            parts.append(self._read_call(part.function_call))
        elif part.function_response is not None:
            parts.append(self._read_response(name, part.function_response))
        elif seal is None and part.thought_signature is None:
            raise Untranslatable(name, "is empty", status=400)

    def _read_call(self, call: _FunctionCall) -> ToolCall:
        self._calls += 1
        arguments = bytes(stated_raw(call.args) or b"{}").decode()
        read = ToolCall(call.id or f"call_{self._calls}", call.name, arguments)
        self._open.append(read)
        return read

    def _read_response(self, name: str, given: _FunctionResponse) -> ToolResult:
        call_id = given.id
        for call in self._open:
            if call.id == given.id or (given.id is None and call.name == given.name):
                self._open.remove(call)
                call_id = call.id
                break
        if call_id is None:
            raise Untranslatable(name, "answers no `functionCall` before it", status=400)
        content, is_error = _read_output(stated_raw(given.response))
        for part in given.parts or ():
            if part.inline_data is not None:
                media = _read_blob(name, part.inline_data)
                content.append(media)
        return ToolResult(call_id, tuple(content), is_error)


def _unpacked(signature: str) -> str:
    """A signature as it was given to the client: one of ours is packed in base64, since Google's field is bytes."""
    try:
        text = decode_text(standard_base64(signature), "")
    except Untranslatable:
        return signature
    return text if text.startswith("outlay:") else signature


def _read_blob(name: str, blob: _Blob) -> Image | File:
    media_type = blob.mime_type.lower()
    data = standard_base64(blob.data)
    if media_type.startswith("image/"):
        return Image(media_type, data)
    if media_type == "application/pdf" or media_type.startswith("text/"):
        return File(media_type, data, name=blob.display_name)
    raise Untranslatable(name, f"media of type `{media_type[:64]}` is not translated; use a Gemini model")


def _read_output(response: msgspec.Raw | None) -> tuple[list[Text | Image | File], bool]:
    """The text of a function response, and whether it is an error."""
    if response is None:
        return [], False
    given = _decode_any(response)
    if isinstance(given, dict) and len(given) == 1:
        if "output" in given:
            return _as_text(given["output"]), False
        if "error" in given:
            return _as_text(given["error"]), True
    return [Text(bytes(response).decode())], False


def _as_text(value: object) -> list[Text | Image | File]:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return [Text(text)] if text else []
