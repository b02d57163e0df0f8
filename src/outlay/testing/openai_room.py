"""The mock's OpenAI side: chat completions and embeddings in OpenAI's format.

Written from the public API reference and the official SDK's types; shares nothing with `outlay.wire`.
"""

from typing import Any

import msgspec

from outlay.testing import content, media
from outlay.testing.answer import (
    Answer,
    Identity,
    Offer,
    Piece,
    Saying,
    ToolCall,
    calls_of,
    chosen_tool,
    chunk_bounds,
    input_tokens,
    length_of,
    reported,
    saying,
    with_output,
)
from outlay.testing.behaviour import (
    Behaviour,
    BehaviourError,
    UsageReport,
    marked_directive,
    split_model,
)
from outlay.testing.call import Ask, Reply
from outlay.testing.meter import NOTHING, Tokens
from outlay.testing.openai_replies import error_answer, error_text, request_id, status_answer, vendor_headers

DEFAULT_DIMENSIONS = 16
MAX_DIMENSIONS = 4096
MAX_CHOICES = 128  # OpenAI's own limit of n
_AUDIO_LIFE_SECONDS = 3600
_FINGERPRINT = "fp_0ut1aym0ck"
_TEXT = msgspec.json.Encoder()


class _Message(msgspec.Struct, gc=False):
    role: str
    content: str | list[dict[str, Any]] | None = None


class _StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


class _Chat(msgspec.Struct, gc=False):
    model: str | None = None
    messages: list[_Message] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    service_tier: str | None = None
    metadata: dict[str, Any] | None = None
    user: str | None = None
    safety_identifier: str | None = None


class _Embeddings(msgspec.Struct, gc=False):
    model: str | None = None
    input: str | list[Any] | None = None
    encoding_format: str | None = None
    dimensions: int | None = None
    user: str | None = None


class OpenAIRoom:
    """Builds answers; keeps nothing between requests."""

    def __init__(self) -> None:
        self._chat = msgspec.json.Decoder(_Chat)
        self._embeddings = msgspec.json.Decoder(_Embeddings)

    def chat(self, ask: Ask) -> Reply:
        """POST /v1/chat/completions."""
        identity = ask.identity
        try:
            request = self._chat.decode(ask.body)
        except msgspec.MsgspecError as error:
            return error_answer(identity, 400, _json_problem(error)), None
        request.model = ask.deployment or request.model
        problem = _chat_problem(request)
        if problem is not None:
            return error_answer(identity, 400, problem[0], param=problem[1], code=problem[2]), None
        model, directive = split_model(request.model or "")
        try:
            behaviour = ask.resolve(model, directive or _metadata_directive(request))
        except BehaviourError as error:
            return error_answer(identity, 400, f"mock: {error}", code="mock_directive"), None
        counted, audio = _counted(request, behaviour)
        billed_input = input_tokens(behaviour, counted + audio, audio=audio)
        served = behaviour.served_model or model
        tier = behaviour.service_tier or _served_tier(request.service_tier)
        if behaviour.status != 200:
            refused = status_answer(identity, behaviour, served, tier)
            refused.tokens = with_output(billed_input, behaviour.output_tokens, 0)
            refused.is_stream = bool(request.stream)
            return refused, behaviour
        limit = request.max_completion_tokens or request.max_tokens
        length = length_of(behaviour, limit)
        choices = request.n or 1
        tokens = with_output(billed_input, length.output * choices, length.reasoning * choices)
        tool = _tool(request, behaviour)
        says = _says(request, behaviour)
        calls = [] if tool is None else calls_of(tool, behaviour, length.visible)
        speaks = not calls and "audio" in (request.modalities or ())
        if speaks:
            spoken = length.visible * 3 // 4
            if behaviour.output_audio_tokens is not None:
                spoken = min(behaviour.output_audio_tokens, length.visible)
            tokens = msgspec.structs.replace(tokens, output_audio=spoken * choices)
        finish = "length" if length.is_cut else "tool_calls" if calls else "stop"
        answer = Answer(
            status=200,
            content_type=b"text/event-stream; charset=utf-8" if request.stream else b"application/json",
            headers=vendor_headers(identity),
            pieces=[],
            model=served,
            service_tier=tier,
            request_id=request_id(identity),
            is_stream=bool(request.stream),
            tokens=reported(behaviour.usage, tokens),
        )
        if not request.stream:
            text = says.part(0, length.visible)
            message = _tool_message(calls, identity) if calls else _text_message(text)
            if speaks:
                message = _spoken_message(text, identity)
            row = f'"message":{message},"logprobs":null,"finish_reason":"{finish}"'
            rows = ",".join(f'{{"index":{index},{row}}}' for index in range(choices))
            usage = (
                ""
                if behaviour.usage is UsageReport.OMIT
                else f'"usage":{_usage_text(behaviour.usage, tokens)},'
            )
            body_text = _completion(identity, answer, rows, usage)
            answer.pieces.append(Piece(body_text.encode(), length.output * choices))
            return answer, behaviour
        wants_usage = request.stream_options is not None and bool(request.stream_options.include_usage)
        event = _Events(identity, served, tier, wants_usage)
        pieces = answer.pieces
        if ask.deployment is not None:
            pieces.append(Piece(event.prompt_filter(), 0))
        opening = b"".join(event.first(index, is_tool=bool(calls)) for index in range(choices))
        pieces.append(Piece(opening, 0))
        hidden = length.reasoning
        for call in calls:
            pieces.append(Piece(b"".join(event.call(index, call) for index in range(choices)), 0))
            for start, end in chunk_bounds(behaviour, call.visible):
                text = _TEXT.encode(call.says.part(start, end)).decode()
                data = b"".join(event.arguments(index, call, text) for index in range(choices))
                pieces.append(Piece(data, (end - start + hidden) * choices))
                hidden = 0
        for start, end in [] if calls else chunk_bounds(behaviour, length.visible):
            text = _TEXT.encode(says.part(start, end)).decode()
            if speaks:
                data = b"".join(event.sound(index, text) for index in range(choices))
            else:
                data = b"".join(event.content(index, text) for index in range(choices))
            pieces.append(Piece(data, (end - start + hidden) * choices))
            hidden = 0
        ending = b"".join(event.last(index, finish) for index in range(choices))
        if speaks:
            ending = b"".join(event.sound_end(index) for index in range(choices)) + ending
        pieces.append(Piece(ending, hidden * choices))
        if wants_usage and behaviour.usage is not UsageReport.OMIT:
            pieces.append(Piece(event.usage(_usage_text(behaviour.usage, tokens)), 0))
        pieces.append(Piece(b"data: [DONE]\n\n", 0))
        answer.error_event = _event(
            error_text("The server had an error processing your request.", "server_error")
        )
        return answer, behaviour

    def embeddings(self, ask: Ask) -> Reply:
        """POST /v1/embeddings."""
        identity = ask.identity
        try:
            request = self._embeddings.decode(ask.body)
        except msgspec.MsgspecError as error:
            return error_answer(identity, 400, _json_problem(error)), None
        request.model = ask.deployment or request.model
        if not request.model:
            return error_answer(identity, 400, "you must provide a model parameter"), None
        inputs = _embedding_inputs(request.input)
        if not inputs:
            return error_answer(identity, 400, "'$.input' is invalid.", param="input"), None
        dimensions = DEFAULT_DIMENSIONS if request.dimensions is None else request.dimensions
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            return error_answer(identity, 400, "'$.dimensions' is invalid.", param="dimensions"), None
        model, directive = split_model(request.model)
        try:
            behaviour = ask.resolve(model, directive or marked_directive(request.user))
        except BehaviourError as error:
            return error_answer(identity, 400, f"mock: {error}", code="mock_directive"), None
        served = behaviour.served_model or model
        tokens = input_tokens(behaviour, sum(count for _, count in inputs))
        if behaviour.status != 200:
            refused = status_answer(identity, behaviour, served, None)
            refused.tokens = tokens
            return refused, behaviour
        data = []
        for index, (text, _) in enumerate(inputs):
            values = content.vector(text, dimensions)
            value = content.vector_base64(values) if request.encoding_format == "base64" else values
            data.append({"object": "embedding", "index": index, "embedding": value})
        result: dict[str, Any] = {"object": "list", "data": data, "model": served}
        stated = reported(behaviour.usage, tokens)
        match behaviour.usage:
            case UsageReport.NULL:
                result["usage"] = None
            case UsageReport.NORMAL | UsageReport.ZERO:
                result["usage"] = {"prompt_tokens": stated.input, "total_tokens": stated.input}
            case UsageReport.OMIT:
                pass
        answer = Answer(
            status=200,
            content_type=b"application/json",
            headers=vendor_headers(identity),
            pieces=[Piece(_TEXT.encode(result), 0)],
            model=served,
            request_id=request_id(identity),
            tokens=stated,
        )
        return answer, behaviour


class _Events:
    """Server-sent events of one stream."""

    def __init__(self, identity: Identity, model: str, tier: str | None, wants_usage: bool) -> None:
        self._serial = identity.serial
        self._expires_at = identity.created + _AUDIO_LIFE_SECONDS
        self._head = (
            f'{{"id":"chatcmpl-{identity.serial}","object":"chat.completion.chunk","created":{identity.created},'
            f'"model":{_quoted(model)},"service_tier":{_quoted(tier)},"system_fingerprint":"{_FINGERPRINT}","choices":['
        )
        self._tail = ',"usage":null}' if wants_usage else "}"

    def _choice(self, index: int, delta: str, finish: str = "null") -> bytes:
        choice = f'{{"index":{index},"delta":{{{delta}}},"logprobs":null,"finish_reason":{finish}}}]'
        return _event(self._head + choice + self._tail)

    def first(self, index: int, *, is_tool: bool) -> bytes:
        delta = '"role":"assistant","content":' + ("null" if is_tool else '""') + ',"refusal":null'
        return self._choice(index, delta)

    def call(self, index: int, call: ToolCall) -> bytes:
        """Begins a tool call."""
        kind, field = _tool_fields(call)
        head = f'{{"index":{call.number},"id":"{call.id("call_", self._serial)}","type":"{kind}",'
        return self._choice(
            index, f'"tool_calls":[{head}"{kind}":{{"name":{_quoted(call.name)},"{field}":""}}}}]'
        )

    def arguments(self, index: int, call: ToolCall, quoted: str) -> bytes:
        """A piece of a tool call's arguments."""
        kind, field = _tool_fields(call)
        return self._choice(
            index, f'"tool_calls":[{{"index":{call.number},"{kind}":{{"{field}":{quoted}}}}}]'
        )

    def content(self, index: int, quoted: str) -> bytes:
        return self._choice(index, f'"content":{quoted}')

    def sound(self, index: int, quoted: str) -> bytes:
        """A piece of speech and of its transcript."""
        sound = f'"audio":{{"id":"audio_{self._serial}","transcript":{quoted},"data":"{media.silence_base64(24)}"}}'
        return self._choice(index, sound)

    def sound_end(self, index: int) -> bytes:
        """The last word about the speech: until when it is kept."""
        return self._choice(index, f'"audio":{{"id":"audio_{self._serial}","expires_at":{self._expires_at}}}')

    def prompt_filter(self) -> bytes:
        """Azure begins a stream with what its content filter thinks of the prompt, and no choice."""
        return _event(f'{self._head}],"prompt_filter_results":[{{"prompt_index":0}}]{self._tail}')

    def last(self, index: int, finish: str) -> bytes:
        return self._choice(index, "", f'"{finish}"')

    def usage(self, usage: str) -> bytes:
        return _event(f'{self._head}],"usage":{usage}}}')


def _event(text: str) -> bytes:
    return b"data: " + text.encode() + b"\n\n"


def _completion(identity: Identity, answer: Answer, rows: str, usage: str) -> str:
    return (
        f'{{"id":"chatcmpl-{identity.serial}","object":"chat.completion","created":{identity.created},'
        f'"model":{_quoted(answer.model)},"choices":[{rows}],{usage}"service_tier":{_quoted(answer.service_tier)},'
        f'"system_fingerprint":"{_FINGERPRINT}"}}'
    )


def _text_message(text: str) -> str:
    return f'{{"role":"assistant","content":{_quoted(text)},"refusal":null,"annotations":[]}}'


def _spoken_message(text: str, identity: Identity) -> str:
    sound = (
        f'{{"id":"audio_{identity.serial}","data":"{media.silence_base64(240)}",'
        f'"expires_at":{identity.created + _AUDIO_LIFE_SECONDS},"transcript":{_quoted(text)}}}'
    )
    return f'{{"role":"assistant","content":null,"refusal":null,"annotations":[],"audio":{sound}}}'


def _tool_fields(call: ToolCall) -> tuple[str, str]:
    """How a call names its kind, and what it is given."""
    return ("custom", "input") if call.is_custom else ("function", "arguments")


def _tool_message(calls: list[ToolCall], identity: Identity) -> str:
    told = []
    for call in calls:
        kind, field = _tool_fields(call)
        given = f'{{"name":{_quoted(call.name)},"{field}":{_quoted(call.text)}}}'
        told.append(f'{{"id":"{call.id("call_", identity.serial)}","type":"{kind}","{kind}":{given}}}')
    listed = ",".join(told)
    return f'{{"role":"assistant","content":null,"tool_calls":[{listed}],"refusal":null,"annotations":[]}}'


def _usage_text(report: UsageReport, tokens: Tokens) -> str:
    if report is UsageReport.NULL:
        return "null"
    if report is UsageReport.ZERO:
        tokens = NOTHING
    write = ""
    if tokens.cache_write:
        write = f',"cache_write_tokens":{tokens.cache_write}'
        if tokens.cache_write_long:
            short = tokens.cache_write - tokens.cache_write_long
            write += (
                f',"cache_write_tokens_details":{{"ttl_12h_tokens":{tokens.cache_write_long},'
                f'"ttl_30m_tokens":{short}}}'
            )
    return (
        f'{{"prompt_tokens":{tokens.input},"completion_tokens":{tokens.output},'
        f'"total_tokens":{tokens.input + tokens.output},'
        f'"prompt_tokens_details":{{"cached_tokens":{tokens.cached},"audio_tokens":{tokens.input_audio}{write}}},'
        f'"completion_tokens_details":{{"reasoning_tokens":{tokens.reasoning},"audio_tokens":{tokens.output_audio},'
        '"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}'
    )


def _quoted(text: str | None) -> str:
    return "null" if text is None else _TEXT.encode(text).decode()


def _json_problem(error: Exception) -> str:
    return f"We could not parse the JSON body of your request: {error}"


def _chat_problem(request: _Chat) -> tuple[str, str | None, str | None] | None:
    """Message, param and code of what OpenAI would refuse; None if it is sound."""
    if not request.model:
        return "you must provide a model parameter", None, None
    if not request.messages:
        return "Missing required parameter: 'messages'.", "messages", "missing_required_parameter"
    for name in ("max_tokens", "max_completion_tokens"):
        value = getattr(request, name)
        if value is not None and value < 1:
            message = f"Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {value} instead."
            return message, name, "integer_below_min_value"
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        return (
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
            None,
            None,
        )
    if request.n is not None and not 1 <= request.n <= MAX_CHOICES:
        return f"Invalid 'n': expected 1 to {MAX_CHOICES}, but got {request.n} instead.", "n", "invalid_value"
    if request.stream_options is not None and not request.stream:
        return (
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            "stream_options",
            None,
        )
    return None


def _metadata_directive(request: _Chat) -> str:
    if request.metadata is not None and isinstance(request.metadata.get("mock"), str):
        return str(request.metadata["mock"])
    return marked_directive(request.user) or marked_directive(request.safety_identifier)


def _counted(request: _Chat, behaviour: Behaviour) -> tuple[int, int]:
    """Tokens of the input: of all but sound, and of sound."""
    total = audio = 0
    for message in request.messages or ():
        said = message.content
        total += content.content_tokens(said) + content.TOKENS_PER_MESSAGE
        if isinstance(said, list):
            audio += content.audio_tokens(said, behaviour.audio_ms)
    if request.tools:
        total += content.json_tokens(request.tools)
    return total, audio


def _served_tier(requested: str | None) -> str:
    if requested is None or requested == "auto":
        return "default"
    return "priority" if requested == "fast" else requested  # OpenAI answers `priority` for both


def _says(request: _Chat, behaviour: Behaviour) -> Saying:
    """The text of an answer that calls no tool."""
    wanted = request.response_format or {}
    if wanted.get("type") == "json_schema":
        schema = (wanted.get("json_schema") or {}).get("schema") or {"type": "object"}
        return saying(behaviour, content.instance_json(schema))
    if wanted.get("type") == "json_object":
        return saying(behaviour, '{"answer":"ledger"}')
    return saying(behaviour, None)


def _tool(request: _Chat, behaviour: Behaviour) -> Offer | None:
    if not request.tools:
        return None
    offers = [offer for tool in request.tools if (offer := _offer(tool)) is not None]
    choice = request.tool_choice
    if choice == "none":
        return None
    forced = None
    if isinstance(choice, dict):
        forced = str((choice.get("function") or choice.get("custom") or {}).get("name"))
    last = (request.messages or [_Message("user")])[-1]
    return chosen_tool(
        offers,
        behaviour,
        forced=forced,
        is_demanded=choice == "required",
        prompt=content.content_text(last.content) if last.role == "user" else "",
    )


def _offer(tool: dict[str, Any]) -> Offer | None:
    custom, function = tool.get("custom"), tool.get("function")
    if isinstance(custom, dict):
        return Offer(str(custom.get("name", "")), None)
    if not isinstance(function, dict):
        return None
    schema = function.get("parameters")
    return Offer(str(function.get("name", "")), schema if isinstance(schema, dict) else {"type": "object"})


def _embedding_inputs(value: str | list[Any] | None) -> list[tuple[str, int]]:
    """(text, tokens) of each input: texts, token arrays, or one token array. Empty if anything else is there."""
    if value is None or isinstance(value, str):
        return [(value, content.text_tokens(value))] if value else []
    if value and all(isinstance(item, int) for item in value):
        return [(str(value), len(value))]
    rows: list[tuple[str, int]] = []
    for item in value:
        if isinstance(item, str) and item:
            rows.append((item, content.text_tokens(item)))
        elif isinstance(item, list) and item and all(isinstance(token, int) for token in item):
            rows.append((str(item), len(item)))
        else:
            return []
    return rows
