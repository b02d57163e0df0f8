"""The mock's Google side: generateContent, its stream, embeddings and countTokens in the Gemini API's format.

Written from the public API reference and the official SDK's types; shares nothing with `outlay.wire`.
"""

from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from outlay.testing import content, media
from outlay.testing.answer import (
    Answer,
    Identity,
    Length,
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
from outlay.testing.behaviour import Behaviour, BehaviourError, UsageReport, split_model
from outlay.testing.call import Ask, Reply
from outlay.testing.meter import NOTHING, Tokens

IMAGE_TOKENS = 258
"""Flat input tokens of a picture, a page or a file, as Google counts a small picture."""
AUDIO_TOKENS_PER_SECOND = 32
OUTPUT_IMAGE_TOKENS = 1290
"""Output tokens of one generated picture, as Google states them."""
DEFAULT_DIMENSIONS = 16
MAX_CANDIDATES = 8
_JSON = msgspec.json.Encoder()
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_MESSAGES = {
    404: "models/{model} is not found for API version v1beta, or is not supported for generateContent.",
    429: "You exceeded your current quota, please check your plan and billing details.",
    503: "The model is overloaded. Please try again later.",
}
_SIGNATURE = "bW9jay10aG91Z2h0LXNpZ25hdHVyZQ=="


class _Counted(NamedTuple):
    total: int
    audio: int
    image: int

    def plus(self, other: "_Counted") -> "_Counted":
        return _Counted(self.total + other.total, self.audio + other.audio, self.image + other.image)


class _Plot(NamedTuple):
    """One answer to be told."""

    behaviour: Behaviour
    identity: Identity
    model: str
    length: Length
    calls: list[ToolCall]
    says: Saying
    """The text, if no function is called."""
    tokens: Tokens
    candidates: int
    media_kind: str
    """`image` or `audio` if the answer is one; else empty."""
    shows_thoughts: bool


class GeminiRoom:
    """Builds answers; keeps nothing between requests."""

    def generate(self, ask: Ask) -> Reply:
        """POST models/{model}:generateContent."""
        return self._generated(ask, is_stream=False)

    def stream_generate(self, ask: Ask) -> Reply:
        """POST models/{model}:streamGenerateContent: events with `alt=sse`, else one JSON array in pieces."""
        return self._generated(ask, is_stream=True)

    def embed(self, ask: Ask) -> Reply:
        """POST models/{model}:embedContent."""
        return self._embedded(ask, is_batch=False)

    def batch_embed(self, ask: Ask) -> Reply:
        """POST models/{model}:batchEmbedContents."""
        return self._embedded(ask, is_batch=True)

    def count_tokens(self, ask: Ask) -> Reply:
        """POST models/{model}:countTokens: never billed."""
        opened = _opened(ask)
        if isinstance(opened, Answer):
            return opened, None
        request, behaviour, model = opened
        if behaviour.status != 200:
            return _status_answer(ask.identity, behaviour, model), behaviour
        inner = _field(request, "generateContentRequest")
        tokens = _billed_input(inner if isinstance(inner, dict) else request, behaviour)
        value = {"totalTokens": tokens.input, "promptTokensDetails": _modalities(tokens)}
        return _whole(ask.identity, model, value), behaviour

    def _generated(self, ask: Ask, *, is_stream: bool) -> Reply:
        opened = _opened(ask)
        if isinstance(opened, Answer):
            return opened, None
        request, behaviour, model = opened
        problem = _problem(request)
        if problem is not None:
            return error_answer(ask.identity, 400, problem), None
        tier = behaviour.service_tier or str(_field(request, "serviceTier") or "standard").lower()
        counted = _billed_input(request, behaviour)
        if behaviour.status != 200:
            refused = _status_answer(ask.identity, behaviour, model)
            refused.tokens = with_output(counted, behaviour.output_tokens, 0)
            refused.service_tier, refused.is_stream = tier, is_stream
            return refused, behaviour
        plot = _plotted(request, behaviour, ask.identity, model, counted)
        is_sse = is_stream and ask.call.parameter("alt") == "sse"
        answer = Answer(
            status=200,
            content_type=b"text/event-stream" if is_sse else b"application/json; charset=UTF-8",
            headers=_headers(tier),
            pieces=[],
            model=model,
            service_tier=tier,
            request_id=ask.identity.serial,
            is_stream=is_stream,
            tokens=reported(behaviour.usage, plot.tokens),
        )
        if not is_stream:
            answer.pieces.append(Piece(_JSON.encode(_whole_object(plot)), plot.tokens.output))
            return answer, behaviour
        failed = _JSON.encode(error_object(500, "An internal error has occurred."))
        chunks = _chunks(plot)
        if is_sse:
            answer.pieces = [Piece(b"data: " + data + b"\r\n\r\n", tokens) for data, tokens in chunks]
            answer.error_event = b"data: " + failed + b"\r\n\r\n"
            return answer, behaviour
        last = len(chunks) - 1
        answer.pieces = [
            Piece((b"," if index else b"[") + data + (b"]" if index == last else b"\n"), tokens)
            for index, (data, tokens) in enumerate(chunks)
        ]
        answer.error_event = b"," + failed + b"]"
        return answer, behaviour

    def _embedded(self, ask: Ask, *, is_batch: bool) -> Reply:
        opened = _opened(ask)
        if isinstance(opened, Answer):
            return opened, None
        request, behaviour, model = opened
        rows = _field(request, "requests") if is_batch else [request]
        if (
            not isinstance(rows, list)
            or not rows
            or not all(isinstance(_field(row, "content"), dict) for row in rows)
        ):
            return error_answer(
                ask.identity, 400, "* EmbedContentRequest.content: contents is not specified"
            ), None
        counts = [_content_tokens(_field(row, "content"), behaviour) for row in rows]
        tokens = input_tokens(behaviour, sum(count.total for count in counts))
        if behaviour.status != 200:
            refused = _status_answer(ask.identity, behaviour, model)
            refused.tokens = tokens
            return refused, behaviour
        vectors = [{"values": _vector(row)} for row in rows]
        value: dict[str, Any] = {"embeddings": vectors} if is_batch else {"embedding": vectors[0]}
        stated = reported(behaviour.usage, tokens)
        if behaviour.embed_usage and behaviour.usage is not UsageReport.OMIT:
            value["usageMetadata"] = {
                "promptTokenCount": stated.input,
                "totalTokenCount": stated.input,
                "promptTokensDetails": _modalities(stated),
            }
        answer = _whole(ask.identity, model, value)
        answer.tokens = stated
        return answer, behaviour


def models_answer(identity: Identity, models: list[str], one: str | None) -> Answer:
    """GET /v1beta/models, or one of them (404 if it is not there)."""
    rows = [
        {
            "name": f"models/{name}",
            "version": "001",
            "displayName": name,
            "inputTokenLimit": 1_048_576,
            "outputTokenLimit": 65_536,
            "supportedGenerationMethods": ["generateContent", "countTokens", "embedContent"],
        }
        for name in models
        if one is None or name == one
    ]
    if one is not None and not rows:
        return error_answer(identity, 404, _MESSAGES[404].format(model=one))
    return _whole(identity, "", {"models": rows} if one is None else rows[0])


def error_object(status: int, message: str) -> dict[str, Any]:
    """Google's error object."""
    return {"error": {"code": status, "message": message, "status": _STATUS.get(status, "UNKNOWN")}}


def error_answer(identity: Identity, status: int, message: str) -> Answer:
    """Google's error object for `status`, as an answer."""
    answer = _whole(identity, "", error_object(status, message))
    answer.status = status
    return answer


def _status_answer(identity: Identity, behaviour: Behaviour, model: str) -> Answer:
    message = _MESSAGES.get(behaviour.status, "An internal error has occurred. Please retry.")
    value = error_object(behaviour.status, message.format(model=model))
    if behaviour.retry_after is not None:
        kind = "type.googleapis.com/google.rpc.RetryInfo"
        value["error"]["details"] = [{"@type": kind, "retryDelay": f"{behaviour.retry_after}s"}]
    answer = _whole(identity, model, value)
    answer.status = behaviour.status
    if behaviour.retry_after is not None:
        answer.headers += f"retry-after: {behaviour.retry_after}\r\n".encode()
    return answer


def _headers(tier: str) -> bytes:
    return f"x-gemini-service-tier: {tier}\r\nserver-timing: gfet4t7; dur=12\r\n".encode()


def _whole(identity: Identity, model: str, value: object) -> Answer:
    return Answer(
        status=200,
        content_type=b"application/json; charset=UTF-8",
        headers=b"server-timing: gfet4t7; dur=12\r\n",
        pieces=[Piece(_JSON.encode(value), 0)],
        model=model,
        request_id=identity.serial,
    )


def _opened(ask: Ask) -> tuple[dict[str, Any], Behaviour, str] | Answer:
    """The decoded body, the behaviour, and the model served; or Google's refusal."""
    model, directive = split_model(ask.captures["model"])
    try:
        request = msgspec.json.decode(ask.body)
    except msgspec.MsgspecError as error:
        return error_answer(ask.identity, 400, f"Invalid JSON payload received. {error}")
    if not isinstance(request, dict):
        return error_answer(ask.identity, 400, "Invalid JSON payload received. Root must be a message.")
    try:
        behaviour = ask.resolve(model, directive)
    except BehaviourError as error:
        return error_answer(ask.identity, 400, f"mock: {error}")
    return request, behaviour, behaviour.served_model or model


def _field(value: object, name: str) -> Any:
    """A field by its camelCase name; Google also reads the snake_case spelling."""
    if not isinstance(value, dict):
        return None
    found = value.get(name)
    if found is None:
        found = value.get("".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name))
    return found


def _problem(request: dict[str, Any]) -> str | None:
    contents = _field(request, "contents")
    if not isinstance(contents, list) or not contents:
        return "* GenerateContentRequest.contents: contents is not specified"
    config = _field(request, "generationConfig") or {}
    limit, candidates = _field(config, "maxOutputTokens"), _field(config, "candidateCount")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        return "* GenerateContentRequest.generation_config.max_output_tokens: must be positive"
    if candidates is not None and (not isinstance(candidates, int) or not 1 <= candidates <= MAX_CANDIDATES):
        return f"* GenerateContentRequest.generation_config.candidate_count: must be in [1, {MAX_CANDIDATES}]"
    return None


def _billed_input(request: dict[str, Any], behaviour: Behaviour) -> Tokens:
    """Prompt and what the provider's own tools put into it; cached content is named, so it is a knob."""
    counted = _Counted(content.json_tokens(_field(request, "tools")), 0, 0)
    for turn in [*(_field(request, "contents") or ()), _field(request, "systemInstruction")]:
        if isinstance(turn, dict):
            counted = counted.plus(_content_tokens(turn, behaviour))
    return input_tokens(behaviour, counted.total, audio=counted.audio, image=counted.image)


def _content_tokens(turn: dict[str, Any], behaviour: Behaviour) -> _Counted:
    counted = _Counted(content.TOKENS_PER_MESSAGE, 0, 0)
    parts = turn.get("parts")
    for part in parts if isinstance(parts, list) else [parts]:
        counted = counted.plus(_part_tokens(part, behaviour))
    return counted


def _part_tokens(part: object, behaviour: Behaviour) -> _Counted:
    text = _field(part, "text")
    if isinstance(text, str):
        return _Counted(content.text_tokens(text), 0, 0)
    inline, file = _field(part, "inlineData"), _field(part, "fileData")
    if inline is None and file is None:
        tool = _field(part, "functionCall") or _field(part, "functionResponse")
        return _Counted(content.json_tokens(tool), 0, 0)
    if str(_field(inline or file, "mimeType")).startswith("audio/"):
        length = media.audio_ms_base64(str(_field(inline, "data") or ""), behaviour.audio_ms)
        tokens = media.per_second(AUDIO_TOKENS_PER_SECOND, length)
        return _Counted(tokens, tokens, 0)
    return _Counted(IMAGE_TOKENS, 0, IMAGE_TOKENS)


def _plotted(
    request: dict[str, Any], behaviour: Behaviour, identity: Identity, model: str, counted: Tokens
) -> _Plot:
    config = _field(request, "generationConfig") or {}
    thinking = _field(config, "thinkingConfig") or {}
    budget = _field(thinking, "thinkingBudget")
    told = behaviour
    if isinstance(budget, int) and 0 <= budget < behaviour.reasoning_tokens:
        told = replace(behaviour, reasoning_tokens=budget)
    length = length_of(told, _field(config, "maxOutputTokens"))
    tool, says = _what_to_say(request, config, told)
    candidates = _field(config, "candidateCount") or 1
    kinds = [str(kind).upper() for kind in _field(config, "responseModalities") or ()]
    media_kind = "image" if "IMAGE" in kinds else "audio" if "AUDIO" in kinds else ""
    output, output_image = length.output, 0
    if media_kind == "image":
        output_image = OUTPUT_IMAGE_TOKENS
        if told.image_output_tokens is not None:
            output_image = told.image_output_tokens
        output += output_image
    tokens = with_output(counted, output * candidates, length.reasoning * candidates)
    tokens = replace(
        tokens,
        input=tokens.input + told.tool_prompt_tokens,
        output_image=output_image * candidates,
        output_audio=length.visible * candidates if media_kind == "audio" else 0,
        web_searches=told.web_searches,
    )
    shows = bool(_field(thinking, "includeThoughts")) and length.reasoning > 0
    calls = [] if tool is None else calls_of(tool, told, length.visible)
    return _Plot(told, identity, model, length, calls, says, tokens, candidates, media_kind, shows)


def _what_to_say(
    request: dict[str, Any], config: dict[str, Any], behaviour: Behaviour
) -> tuple[Offer | None, Saying]:
    """The function to call, if one is, and the text or the arguments."""
    offers = []
    for tool in _field(request, "tools") or ():
        for declared in _field(tool, "functionDeclarations") or ():
            schema = _field(declared, "parametersJsonSchema") or _lower_types(_field(declared, "parameters"))
            offers.append(Offer(str(declared.get("name", "")), schema or {"type": "object"}))
    calling = _field(_field(request, "toolConfig"), "functionCallingConfig") or {}
    mode, allowed = str(calling.get("mode") or "AUTO").upper(), _field(calling, "allowedFunctionNames")
    if allowed:
        offers = [offer for offer in offers if offer.name in allowed]
    if mode != "NONE":
        tool = chosen_tool(
            offers, behaviour, forced=None, is_demanded=mode == "ANY", prompt=_last_prompt(request)
        )
        if tool is not None:
            return tool, tool.arguments(behaviour)
    schema = _field(config, "responseJsonSchema") or _lower_types(_field(config, "responseSchema"))
    if isinstance(schema, dict):
        return None, saying(behaviour, content.instance_json(schema))
    if _field(config, "responseMimeType") == "application/json":
        return None, saying(behaviour, '{"answer":"ledger"}')
    return None, saying(behaviour, None)


def _lower_types(schema: object) -> Any:
    """A schema of Google's own kind (`STRING`, `OBJECT`) as a JSON schema."""
    if isinstance(schema, list):
        return [_lower_types(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: value.lower() if name == "type" and isinstance(value, str) else _lower_types(value)
        for name, value in schema.items()
    }


def _last_prompt(request: dict[str, Any]) -> str:
    last = request["contents"][-1]
    if not isinstance(last, dict) or last.get("role", "user") != "user":
        return ""
    parts = last.get("parts")
    return (
        content.content_text([part for part in parts if isinstance(part, dict)])
        if isinstance(parts, list)
        else ""
    )


def _vector(row: dict[str, Any]) -> list[float]:
    turn = _field(row, "content")
    config = _field(row, "embedContentConfig")
    wanted = _field(row, "outputDimensionality") or _field(config, "outputDimensionality")
    return content.vector(str(turn), wanted if isinstance(wanted, int) else DEFAULT_DIMENSIONS)


def _whole_object(plot: _Plot) -> dict[str, Any]:
    told = [part for call in plot.calls for part in _call_parts(plot, call)]
    if not plot.calls:
        told = _parts(plot, 0, plot.length.visible)
    parts = [*_thought_parts(plot), *told, *_media_parts(plot)]
    return _object(plot, parts, _finish(plot), plot.tokens)


def _chunks(plot: _Plot) -> list[tuple[bytes, int]]:
    """JSON text and tokens of each chunk; every chunk states the usage so far, the last one how it ended."""
    chunks: list[tuple[bytes, int]] = []
    hidden, told = plot.length.reasoning, 0

    def add(parts: list[dict[str, Any]], tokens: int, finish: str | None = None) -> None:
        nonlocal told
        told += tokens
        so_far = with_output(
            replace(plot.tokens, output_audio=0, output_image=0),
            told * plot.candidates,
            plot.tokens.reasoning,
        )
        usage = plot.tokens if finish else so_far
        chunks.append((_JSON.encode(_object(plot, parts, finish, usage)), tokens * plot.candidates))

    if plot.shows_thoughts:
        add(_thought_parts(plot), hidden)
        hidden = 0
    for call in plot.calls:
        add(_call_parts(plot, call), call.visible + hidden)  # a function call comes whole
        hidden = 0
    for start, end in [] if plot.calls else chunk_bounds(plot.behaviour, plot.length.visible):
        add(_parts(plot, start, end), end - start + hidden)
        hidden = 0
    pictures = _media_parts(plot)
    if pictures:
        add(pictures, plot.tokens.output_image // plot.candidates)
    add([] if plot.calls else [{"text": ""}], hidden, _finish(plot))
    return chunks


def _finish(plot: _Plot) -> str:
    return "MAX_TOKENS" if plot.length.is_cut else "STOP"


def _thought_parts(plot: _Plot) -> list[dict[str, Any]]:
    if not plot.shows_thoughts:
        return []
    return [{"text": content.words(0, min(plot.length.reasoning, 4)), "thought": True}]


def _call_parts(plot: _Plot, call: ToolCall) -> list[dict[str, Any]]:
    """A function call; nothing if a limit cut it, because half a call is not sent."""
    if call.visible < call.says.total or not call.text:
        return []
    part: dict[str, Any] = {
        "functionCall": {"name": call.name, "args": msgspec.json.decode(call.text.encode())}
    }
    if plot.length.reasoning and call.number == 0:
        part["thoughtSignature"] = _SIGNATURE
    return [part]


def _parts(plot: _Plot, start: int, end: int) -> list[dict[str, Any]]:
    text = plot.says.part(start, end)
    if plot.media_kind == "audio":
        kind = f"audio/L16;codec=pcm;rate={media.PCM_RATE}"
        return [{"inlineData": {"mimeType": kind, "data": media.silence_base64(end - start)}}]
    return [{"text": text}] if text or not end else []


def _media_parts(plot: _Plot) -> list[dict[str, Any]]:
    if plot.media_kind != "image":
        return []
    data = media.png_base64(plot.identity.sequence)
    return [{"inlineData": {"mimeType": "image/png", "data": data}}]


def _object(plot: _Plot, parts: list[dict[str, Any]], finish: str | None, tokens: Tokens) -> dict[str, Any]:
    """A GenerateContentResponse."""
    candidates: list[dict[str, Any]] = []
    for index in range(plot.candidates):
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": index}
        if finish is not None:
            candidate["finishReason"] = finish
        if finish is not None and plot.tokens.web_searches:
            queries = [content.words(number, 3).strip() for number in range(plot.tokens.web_searches)]
            candidate["groundingMetadata"] = {"webSearchQueries": queries}
        candidates.append(candidate)
    value: dict[str, Any] = {
        "candidates": candidates,
        "modelVersion": plot.model,
        "responseId": plot.identity.serial,
    }
    match plot.behaviour.usage:
        case UsageReport.OMIT:
            pass
        case UsageReport.NULL:
            value["usageMetadata"] = None
        case UsageReport.ZERO:
            value["usageMetadata"] = _usage(NOTHING, 0)
        case UsageReport.NORMAL:
            value["usageMetadata"] = _usage(tokens, plot.behaviour.tool_prompt_tokens)
    return value


def _usage(tokens: Tokens, tool_prompt: int) -> dict[str, Any]:
    """Usage metadata; the candidates' count leaves out the thoughts, the prompt's what tools put in."""
    prompt = tokens.input - tool_prompt
    value: dict[str, Any] = {
        "promptTokenCount": prompt,
        "candidatesTokenCount": tokens.output - tokens.reasoning,
        "totalTokenCount": tokens.input + tokens.output,
        "promptTokensDetails": _modalities(replace(tokens, input=prompt)),
    }
    if tokens.cached:
        value["cachedContentTokenCount"] = tokens.cached
        value["cacheTokensDetails"] = _modalities(
            Tokens(input=tokens.cached, input_audio=tokens.cached_audio)
        )
    if tokens.reasoning:
        value["thoughtsTokenCount"] = tokens.reasoning
    if tool_prompt:
        value["toolUsePromptTokenCount"] = tool_prompt
        value["toolUsePromptTokensDetails"] = _modalities(Tokens(input=tool_prompt))
    if tokens.output_audio or tokens.output_image:
        value["candidatesTokensDetails"] = _modalities(
            Tokens(
                input=tokens.output - tokens.reasoning,
                input_audio=tokens.output_audio,
                input_image=tokens.output_image,
            )
        )
    return value


def _modalities(tokens: Tokens) -> list[dict[str, Any]]:
    """Token counts by modality; only what is there."""
    text = tokens.input - tokens.input_audio - tokens.input_image
    counts = (("TEXT", text), ("AUDIO", tokens.input_audio), ("IMAGE", tokens.input_image))
    return [{"modality": name, "tokenCount": count} for name, count in counts if count]
