"""The mock's Bedrock side: Converse and InvokeModel, whole and as binary event streams.

Written from AWS's public API reference and botocore's service model; shares nothing with `outlay.wire`.
"""

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from outlay.testing import content, event_stream, sigv4
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
from outlay.testing.call import Ask, Call, Handler, Reply
from outlay.testing.meter import Tokens

SERVICE = "bedrock"
"""The service that a signature names."""
ANTHROPIC_VERSION = "bedrock-2023-05-31"
DEFAULT_DIMENSIONS = 16
_JSON = msgspec.json.Encoder()
_PADDING = "abcdefgh"
"""Bedrock pads its events; readers must ignore it."""
_SIGNATURE = "bW9jay1zaWduYXR1cmU="
_TYPES = {
    400: "ValidationException",
    401: "AccessDeniedException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
}
_MESSAGES = {
    404: "Could not resolve the foundation model from the provided model identifier.",
    429: "Too many requests, please wait before trying again.",
    503: "Bedrock is unable to process your request.",
}


class _Plot(NamedTuple):
    """One answer to be told in the Converse format."""

    behaviour: Behaviour
    identity: Identity
    model: str
    tier: str | None
    length: Length
    calls: list[ToolCall]
    says: Saying
    """The text, if no tool is used."""
    tokens: Tokens

    @property
    def stop(self) -> str:
        return "max_tokens" if self.length.is_cut else "tool_use" if self.calls else "end_turn"


class BedrockRoom:
    """Builds answers; keeps nothing between requests."""

    def __init__(self, anthropic: Handler) -> None:
        """`anthropic` answers the bodies of Anthropic's models."""
        self._anthropic = anthropic

    def converse(self, ask: Ask) -> Reply:
        """POST /model/{modelId}/converse."""
        return _conversed(ask, _whole_converse)

    def converse_stream(self, ask: Ask) -> Reply:
        """POST /model/{modelId}/converse-stream."""
        return _conversed(ask, _converse_stream)

    def invoke(self, ask: Ask) -> Reply:
        """POST /model/{modelId}/invoke: the body is that of the model's own maker."""
        model = ask.captures["model"]
        if "anthropic" in model or "claude" in model:
            return self._invoked_anthropic(ask, is_stream=False)
        if "embed" in model:
            return _embedded(ask)
        return _conversed(ask, _whole_converse)

    def invoke_stream(self, ask: Ask) -> Reply:
        """POST /model/{modelId}/invoke-with-response-stream: the maker's events, each in a `chunk`."""
        model = ask.captures["model"]
        if "anthropic" in model or "claude" in model:
            return self._invoked_anthropic(ask, is_stream=True)
        if "embed" in model:
            message = "The model is unsupported for streaming"
            return error_answer(ask.identity, 400, message), None
        return _conversed(ask, _invoke_stream)

    def count_tokens(self, ask: Ask) -> Reply:
        """POST /model/{modelId}/count-tokens of a Converse request: never billed."""
        opened = _opened(ask)
        if isinstance(opened, Answer):
            return opened, None
        request, behaviour, model = opened
        if behaviour.status != 200:
            return _status_answer(ask.identity, behaviour, model, Tokens()), behaviour
        inner = (request.get("input") or {}).get("converse")
        if not isinstance(inner, dict):
            return error_answer(ask.identity, 400, "input: only converse is supported"), None
        counted = input_tokens(behaviour, _counted(inner)).input
        return _whole(ask.identity, model, {"inputTokens": counted}), behaviour

    def _invoked_anthropic(self, ask: Ask, *, is_stream: bool) -> Reply:
        try:
            request = msgspec.json.decode(ask.body)
        except msgspec.MsgspecError as error:
            return error_answer(ask.identity, 400, f"Malformed input request: {error}"), None
        if not isinstance(request, dict) or request.pop("anthropic_version", None) != ANTHROPIC_VERSION:
            return error_answer(ask.identity, 400, f"anthropic_version: expected '{ANTHROPIC_VERSION}'"), None
        for name in ("model", "stream"):
            if name in request:
                message = f"Malformed input request: extraneous key [{name}] is not permitted"
                return error_answer(ask.identity, 400, message), None
        request |= {"model": ask.captures["model"], "stream": is_stream}
        call = msgspec.structs.replace(ask.call, body=_JSON.encode(request))
        answer, behaviour = self._anthropic(ask._replace(call=call))
        if answer.status != 200:
            told = msgspec.json.decode(answer.pieces[0].data)["error"]["message"]
            if behaviour is None:
                return error_answer(ask.identity, answer.status, told), None
            return _status_answer(ask.identity, behaviour, answer.model, answer.tokens), behaviour
        if behaviour is None:
            return answer, None
        answer.request_id = ask.identity.serial
        answer.service_tier = behaviour.service_tier or ask.call.header(b"x-amzn-bedrock-service-tier")
        answer.headers = _headers(ask.identity)
        if behaviour.usage is not UsageReport.OMIT:
            answer.headers += _count_headers(answer.tokens)
        if is_stream:
            answer.content_type = event_stream.CONTENT_TYPE
            answer.headers += b"x-amzn-bedrock-content-type: application/json\r\n"
            answer.pieces = list(_chunked(answer, behaviour))
            answer.error_event = _failure()
        return answer, behaviour


def refusal(
    call: Call, identity: Identity, secrets: Mapping[str, str] | None, api_keys: frozenset[str] | None
) -> Answer | None:
    """AWS's refusal of a call that is not signed well; None if it may go on.

    A Bedrock API key comes as a bearer token; it is taken unless secrets are set and no API keys are.
    """
    bearer = call.header(b"authorization") or ""
    if bearer.startswith("Bearer "):
        is_known = secrets is None if api_keys is None else bearer.removeprefix("Bearer ") in api_keys
        if is_known:
            return None
        return _refused(identity, sigv4.Fault("UnrecognizedClientException", "The API key is invalid."))
    fault = sigv4.check(call, secrets, SERVICE)
    return None if fault is None else _refused(identity, fault)


def error_answer(identity: Identity, status: int, message: str) -> Answer:
    """AWS's error for `status`: the type is in a header."""
    return _typed_error(identity, status, _TYPES.get(status, "InternalServerException"), message)


def _refused(identity: Identity, fault: sigv4.Fault) -> Answer:
    return _typed_error(identity, 403, fault.code, fault.message)


def _typed_error(identity: Identity, status: int, kind: str, message: str) -> Answer:
    answer = _whole(identity, "", {"message": message})
    answer.status = status
    answer.headers += f"x-amzn-errortype: {kind}\r\n".encode()
    return answer


def _status_answer(identity: Identity, behaviour: Behaviour, model: str, tokens: Tokens) -> Answer:
    message = _MESSAGES.get(behaviour.status, "The system encountered an unexpected error.")
    answer = error_answer(identity, behaviour.status, message)
    if behaviour.retry_after is not None:
        answer.headers += f"retry-after: {behaviour.retry_after}\r\n".encode()
    answer.model, answer.tokens = model, tokens
    return answer


def _headers(identity: Identity) -> bytes:
    return f"x-amzn-requestid: {identity.serial}\r\n".encode()


def _count_headers(tokens: Tokens) -> bytes:
    """Invocations state their counts in headers too; the input leaves out what was cached."""
    plain = tokens.input - tokens.cached - tokens.cache_write
    return (
        f"x-amzn-bedrock-input-token-count: {plain}\r\n"
        f"x-amzn-bedrock-output-token-count: {tokens.output}\r\n"
        "x-amzn-bedrock-invocation-latency: 12\r\n"
    ).encode()


def _whole(identity: Identity, model: str, value: object, *, output_tokens: int = 0) -> Answer:
    return Answer(
        status=200,
        content_type=b"application/json",
        headers=_headers(identity),
        pieces=[Piece(_JSON.encode(value), output_tokens)],
        model=model,
        request_id=identity.serial,
    )


def _opened(ask: Ask) -> tuple[dict[str, Any], Behaviour, str] | Answer:
    """The decoded body, the behaviour, and the model served; or AWS's refusal."""
    model, directive = split_model(ask.captures["model"])
    try:
        request = msgspec.json.decode(ask.body)
    except msgspec.MsgspecError as error:
        return error_answer(ask.identity, 400, f"Malformed input request: {error}")
    if not isinstance(request, dict):
        return error_answer(ask.identity, 400, "Malformed input request: expected an object.")
    metadata = request.get("requestMetadata")
    if isinstance(metadata, dict):
        directive = directive or str(metadata.get("mock", ""))
    try:
        behaviour = ask.resolve(model, directive)
    except BehaviourError as error:
        return error_answer(ask.identity, 400, f"mock: {error}")
    return request, behaviour, behaviour.served_model or model


# Converse


def _conversed(ask: Ask, tell: Callable[[Answer, _Plot], None]) -> Reply:
    opened = _opened(ask)
    if isinstance(opened, Answer):
        return opened, None
    request, behaviour, model = opened
    limit = (request.get("inferenceConfig") or {}).get("maxTokens")
    if not request.get("messages"):
        return error_answer(ask.identity, 400, "messages: expected at least one message"), None
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        return error_answer(ask.identity, 400, "inferenceConfig.maxTokens: must be at least 1"), None
    counted = input_tokens(behaviour, _counted(request))
    tier = behaviour.service_tier or (request.get("serviceTier") or {}).get("type")
    if behaviour.status != 200:
        tokens = with_output(counted, behaviour.output_tokens, 0)
        return _status_answer(ask.identity, behaviour, model, tokens), behaviour
    length = length_of(behaviour, limit)
    tool, says = _what_to_say(request, behaviour)
    calls = [] if tool is None else calls_of(tool, behaviour, length.visible)
    tokens = with_output(counted, length.output, length.reasoning)
    plot = _Plot(behaviour, ask.identity, model, tier, length, calls, says, tokens)
    answer = _whole(ask.identity, model, None)
    answer.service_tier, answer.tokens = tier, reported(behaviour.usage, tokens)
    tell(answer, plot)
    return answer, behaviour


def _counted(request: dict[str, Any]) -> int:
    total = content.json_tokens((request.get("toolConfig") or {}).get("tools"))
    total += sum(content.text_tokens(str(block.get("text") or "")) for block in request.get("system") or ())
    for message in request.get("messages") or ():
        total += content.TOKENS_PER_MESSAGE
        total += sum(_block_tokens(block) for block in message.get("content") or ())
    return total


def _block_tokens(block: dict[str, Any]) -> int:
    if "text" in block:
        return content.text_tokens(str(block["text"]))
    if "toolUse" in block:
        return content.json_tokens(block["toolUse"].get("input"))
    if "toolResult" in block:
        return sum(_block_tokens(part) for part in block["toolResult"].get("content") or ())
    if "json" in block:
        return content.json_tokens(block["json"])
    if "cachePoint" in block or "reasoningContent" in block:
        return 0
    return content.TOKENS_PER_MEDIA_PART


def _what_to_say(request: dict[str, Any], behaviour: Behaviour) -> tuple[Offer | None, Saying]:
    """The tool to use, if one is, and the text or the input's JSON."""
    config = request.get("toolConfig") or {}
    offers = []
    for tool in config.get("tools") or ():
        spec = tool.get("toolSpec")
        if isinstance(spec, dict):
            schema = (spec.get("inputSchema") or {}).get("json")
            offers.append(Offer(str(spec.get("name", "")), schema or {"type": "object"}))
    choice = config.get("toolChoice") or {}
    last = request["messages"][-1]
    texts = [str(block.get("text") or "") for block in last.get("content") or ()]
    tool = chosen_tool(
        offers,
        behaviour,
        forced=str(choice["tool"].get("name")) if "tool" in choice else None,
        is_demanded="any" in choice,
        prompt="\n".join(texts) if last.get("role") == "user" else "",
    )
    if tool is not None:
        return tool, tool.arguments(behaviour)
    structure = ((request.get("outputConfig") or {}).get("textFormat") or {}).get("structure") or {}
    schema = (structure.get("jsonSchema") or {}).get("schema")
    if isinstance(schema, str):
        return None, saying(behaviour, content.instance_json(msgspec.json.decode(schema)))
    return None, saying(behaviour, None)


def _whole_converse(answer: Answer, plot: _Plot) -> None:
    """Fill the answer with the whole of it."""
    blocks: list[dict[str, Any]] = []
    if plot.length.reasoning:
        thought = {"text": content.words(0, 4), "signature": _SIGNATURE}
        blocks.append({"reasoningContent": {"reasoningText": thought}})
    for call in plot.calls:
        try:
            given = msgspec.json.decode(call.text.encode())
        except msgspec.DecodeError:
            given = {}  # what a limit cut off
        blocks.append({"toolUse": _tool_use(plot, call) | {"input": given}})
    if not plot.calls:
        blocks.append({"text": plot.says.part(0, plot.length.visible)})
    value = {
        "output": {"message": {"role": "assistant", "content": blocks}},
        "stopReason": plot.stop,
        "metrics": {"latencyMs": 12},
    }
    value |= _usage_field(plot) | _tier_field(plot)
    answer.pieces = [Piece(_JSON.encode(value), plot.length.output)]


def _converse_stream(answer: Answer, plot: _Plot) -> None:
    """Fill the answer with the event stream of it."""
    answer.is_stream, answer.content_type = True, event_stream.CONTENT_TYPE
    answer.pieces = [
        Piece(b"".join(event_stream.event(kind, _padded(value)) for kind, value in events), tokens)
        for events, tokens in _events(plot)
    ]
    answer.error_event = _failure()


def _invoke_stream(answer: Answer, plot: _Plot) -> None:
    """The same events as the bytes of chunks, as Amazon's own models send them."""
    answer.is_stream, answer.content_type = True, event_stream.CONTENT_TYPE
    answer.headers += b"x-amzn-bedrock-content-type: application/json\r\n"
    answer.pieces = [
        Piece(b"".join(_chunk(_JSON.encode({kind: value})) for kind, value in events), tokens)
        for events, tokens in _events(plot)
    ]
    answer.error_event = _failure()


_Events = list[tuple[str, dict[str, Any]]]


def _events(plot: _Plot) -> Iterator[tuple[_Events, int]]:
    """(events, tokens) that leave together."""
    opening: _Events = [("messageStart", {"role": "assistant"})]
    index, hidden = 0, plot.length.reasoning
    if hidden:
        for thought in ({"text": content.words(0, 4)}, {"signature": _SIGNATURE}):
            opening.append(_delta(0, {"reasoningContent": thought}))
        opening.append(("contentBlockStop", {"contentBlockIndex": 0}))
        index = 1
    yield opening, 0
    for call in plot.calls:
        start = {"contentBlockIndex": index, "start": {"toolUse": _tool_use(plot, call)}}
        yield [("contentBlockStart", start)], 0
        for start_at, end in chunk_bounds(plot.behaviour, call.visible):
            given = {"toolUse": {"input": call.says.part(start_at, end)}}
            yield [_delta(index, given)], end - start_at + hidden
            hidden = 0
        yield [("contentBlockStop", {"contentBlockIndex": index})], 0
        index += 1
    if not plot.calls:
        for start_at, end in chunk_bounds(plot.behaviour, plot.length.visible):
            yield [_delta(index, {"text": plot.says.part(start_at, end)})], end - start_at + hidden
            hidden = 0
        yield [("contentBlockStop", {"contentBlockIndex": index})], 0
    yield [("messageStop", {"stopReason": plot.stop})], hidden
    yield [("metadata", {"metrics": {"latencyMs": 12}} | _usage_field(plot) | _tier_field(plot))], 0


def _delta(index: int, delta: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "contentBlockDelta", {"contentBlockIndex": index, "delta": delta}


def _tool_use(plot: _Plot, call: ToolCall) -> dict[str, Any]:
    return {"toolUseId": call.id("tooluse_", plot.identity.serial), "name": call.name}


def _tier_field(plot: _Plot) -> dict[str, Any]:
    return {} if plot.tier is None else {"serviceTier": {"type": plot.tier}}


def _usage_field(plot: _Plot) -> dict[str, Any]:
    """`usage` as the report wants it: the input leaves out what was read from or written to the cache."""
    if plot.behaviour.usage is UsageReport.OMIT:
        return {}
    if plot.behaviour.usage is UsageReport.NULL:
        return {"usage": None}
    tokens = reported(plot.behaviour.usage, plot.tokens)
    usage: dict[str, Any] = {
        "inputTokens": tokens.input - tokens.cached - tokens.cache_write,
        "outputTokens": tokens.output,
        "totalTokens": tokens.input + tokens.output,
        "cacheReadInputTokens": tokens.cached,
        "cacheWriteInputTokens": tokens.cache_write,
    }
    if tokens.cache_write_long:
        short = tokens.cache_write - tokens.cache_write_long
        usage["cacheDetails"] = [
            {"ttl": "1h", "inputTokens": tokens.cache_write_long},
            {"ttl": "5m", "inputTokens": short},
        ]
    return {"usage": usage}


def _padded(value: dict[str, Any]) -> bytes:
    return _JSON.encode(value | {"p": _PADDING})


def _chunk(data: bytes) -> bytes:
    return event_stream.event("chunk", _padded({"bytes": base64.b64encode(data).decode("ascii")}))


def _failure() -> bytes:
    message = _JSON.encode({"message": "The system encountered an unexpected error during processing."})
    return event_stream.exception("internalServerException", message)


# InvokeModel


def _chunked(answer: Answer, behaviour: Behaviour) -> Iterator[Piece]:
    """Anthropic's server-sent events as Bedrock's chunks; the last one also states the invocation's metrics."""
    for piece in answer.pieces:
        data = b""
        for line in piece.data.split(b"\n"):
            if not line.startswith(b"data: "):
                continue
            value = msgspec.json.decode(line.removeprefix(b"data: "))
            if value["type"] == "message_stop" and behaviour.usage is not UsageReport.OMIT:
                value["amazon-bedrock-invocationMetrics"] = _metrics(answer.tokens)
            data += _chunk(_JSON.encode(value))
        yield Piece(data, piece.tokens)


def _metrics(tokens: Tokens) -> dict[str, int]:
    return {
        "inputTokenCount": tokens.input - tokens.cached - tokens.cache_write,
        "outputTokenCount": tokens.output,
        "cacheReadInputTokenCount": tokens.cached,
        "cacheWriteInputTokenCount": tokens.cache_write,
        "invocationLatency": 12,
        "firstByteLatency": 3,
    }


def _embedded(ask: Ask) -> Reply:
    """Titan's embedding of one text, or Cohere's of several."""
    opened = _opened(ask)
    if isinstance(opened, Answer):
        return opened, None
    request, behaviour, model = opened
    texts = request.get("texts") if "cohere" in model else [request.get("inputText")]
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        return error_answer(ask.identity, 400, "Malformed input request: no text to embed."), None
    tokens = input_tokens(behaviour, sum(content.text_tokens(text) for text in texts))
    if behaviour.status != 200:
        return _status_answer(ask.identity, behaviour, model, tokens), behaviour
    stated = reported(behaviour.usage, tokens)
    wanted = request.get("dimensions")
    vectors = [
        content.vector(text, wanted if isinstance(wanted, int) else DEFAULT_DIMENSIONS) for text in texts
    ]
    value: dict[str, Any] = {"embedding": vectors[0], "inputTextTokenCount": stated.input}
    if "cohere" in model:
        kind = "embeddings_floats"
        value = {"id": ask.identity.serial, "embeddings": vectors, "response_type": kind, "texts": texts}
    elif behaviour.usage in (UsageReport.OMIT, UsageReport.NULL):
        del value["inputTextTokenCount"]
    answer = _whole(ask.identity, model, value)
    answer.tokens = stated
    if behaviour.usage is not UsageReport.OMIT:
        answer.headers += _count_headers(stated)
    return answer, behaviour
