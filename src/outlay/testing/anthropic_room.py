"""The mock's Anthropic side: messages, count_tokens, models and errors in Anthropic's format.

Written from the public API reference and the official SDK's types; shares nothing with `outlay.wire`.
"""

import json
from typing import Any, NamedTuple

import msgspec

from outlay.testing import content
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
from outlay.testing.behaviour import (
    Behaviour,
    BehaviourError,
    Resolve,
    UsageReport,
    marked_directive,
    split_model,
)
from outlay.testing.call import Ask, Reply
from outlay.testing.meter import NOTHING, Tokens

_TEXT = msgspec.json.Encoder()
_SIGNATURE = "bW9jay10aGlua2luZy1zaWduYXR1cmU="
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_MESSAGES = {
    401: "invalid x-api-key",
    429: "This request would exceed your organization's rate limit.",
    529: "Overloaded",
}


class _Message(msgspec.Struct, gc=False):
    role: str
    content: str | list[dict[str, Any]]


class _Metadata(msgspec.Struct, gc=False):
    user_id: str | None = None


class _Messages(msgspec.Struct, gc=False):
    model: str | None = None
    messages: list[_Message] | None = None
    max_tokens: int | None = None
    system: str | list[dict[str, Any]] | None = None
    stream: bool | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    output_format: dict[str, Any] | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None
    metadata: _Metadata | None = None


class AnthropicRoom:
    """Builds answers; keeps nothing between requests."""

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(_Messages)

    def messages(self, ask: Ask) -> Reply:
        """POST /v1/messages."""
        identity = ask.identity
        request = self._sound_request(ask.body, needs_limit=True)
        if isinstance(request, str):
            return error_answer(identity, 400, request), None
        behaviour = _behaviour(request, ask.resolve)
        if isinstance(behaviour, str):
            return error_answer(identity, 400, behaviour), None
        model, _ = split_model(request.model or "")
        served = behaviour.served_model or model
        tier = behaviour.service_tier or "standard"
        counted = input_tokens(behaviour, _counted(request))
        if behaviour.status != 200:
            refused = status_answer(identity, behaviour, served, tier)
            refused.tokens = with_output(counted, behaviour.output_tokens, 0)
            refused.is_stream = bool(request.stream)
            return refused, behaviour
        length = length_of(behaviour, request.max_tokens)
        searched = msgspec.structs.replace(counted, web_searches=behaviour.web_searches)
        tokens = with_output(searched, length.output, length.reasoning)
        tool = _tool(request, behaviour)
        says = _says(request, behaviour)
        calls = [] if tool is None else calls_of(tool, behaviour, length.visible)
        thought = _thought(request, length)
        stop = "max_tokens" if length.is_cut else "tool_use" if calls else "end_turn"
        answer = Answer(
            status=200,
            content_type=b"text/event-stream; charset=utf-8" if request.stream else b"application/json",
            headers=vendor_headers(identity),
            pieces=[],
            model=served,
            service_tier=tier,
            speed=request.speed,
            inference_geo=request.inference_geo,
            request_id=_request_id(identity),
            is_stream=bool(request.stream),
            tokens=reported(behaviour.usage, tokens),
        )
        if not request.stream:
            blocks: list[dict[str, Any]] = [_tool_block(call, identity, _loose(call.text)) for call in calls]
            if not calls:
                blocks = [{"type": "text", "text": says.part(0, length.visible)}]
            if thought is not None:
                blocks.insert(0, thought)
            usage = _usage_field(behaviour.usage, _full_usage(reported(behaviour.usage, tokens), answer))
            body_text = _message_text(identity, served, _TEXT.encode(blocks).decode(), _quoted(stop), usage)
            answer.pieces.append(Piece(body_text.encode(), length.output))
            return answer, behaviour
        stated = reported(behaviour.usage, tokens)
        begun = with_output(counted if stated.input else NOTHING, min(1, stated.output), 0)
        usage = _usage_field(behaviour.usage, _full_usage(begun, answer))
        message = _message_text(identity, served, "[]", "null", usage)
        opening = _event("message_start", f'"message":{message}')
        if thought is not None:
            opening += _thought_events(thought)
        pieces, hidden = answer.pieces, length.reasoning
        pieces.append(Piece(opening, 0))
        index = 0 if thought is None else 1
        told = [_Block.of_call(call, identity) for call in calls] or [_Block.of_text(says, length.visible)]
        for block in told:
            start_text = f'"index":{index},"content_block":{_quoted_json(block.opening)}'
            ping = _event("ping", "") if block is told[0] else b""
            pieces.append(Piece(_event("content_block_start", start_text) + ping, 0))
            for start, end in chunk_bounds(behaviour, block.visible):
                text = _quoted(block.says.part(start, end))
                delta = f'"index":{index},"delta":{{"type":"{block.kind}","{block.field}":{text}}}'
                pieces.append(Piece(_event("content_block_delta", delta), end - start + hidden))
                hidden = 0
            pieces.append(Piece(_event("content_block_stop", f'"index":{index}'), 0))
            index += 1
        final = _usage_field(behaviour.usage, _delta_usage(stated))
        ending = f'"delta":{{"stop_reason":"{stop}","stop_sequence":null}}{final}'
        pieces.append(Piece(_event("message_delta", ending), hidden))
        pieces.append(Piece(_event("message_stop", ""), 0))
        answer.error_event = _event("error", '"error":{"type":"overloaded_error","message":"Overloaded"}')
        return answer, behaviour

    def count_tokens(self, ask: Ask) -> Reply:
        """POST /v1/messages/count_tokens: never billed."""
        identity = ask.identity
        request = self._sound_request(ask.body, needs_limit=False)
        if isinstance(request, str):
            return error_answer(identity, 400, request), None
        behaviour = _behaviour(request, ask.resolve)
        if isinstance(behaviour, str):
            return error_answer(identity, 400, behaviour), None
        model, _ = split_model(request.model or "")
        if behaviour.status != 200:
            return status_answer(identity, behaviour, model, None), behaviour
        counted = input_tokens(behaviour, _counted(request)).input
        answer = Answer(
            status=200,
            content_type=b"application/json",
            headers=vendor_headers(identity),
            pieces=[Piece(f'{{"input_tokens":{counted}}}'.encode(), 0)],
            model=model,
            request_id=_request_id(identity),
        )
        return answer, behaviour

    def _sound_request(self, body: bytes, *, needs_limit: bool) -> _Messages | str:
        """The request, or what Anthropic would say against it."""
        try:
            request = self._decoder.decode(body)
        except msgspec.MsgspecError as error:
            return f"The request body is not valid JSON: {error}"
        if not request.model:
            return "model: Field required"
        if request.messages is None:
            return "messages: Field required"
        if not request.messages:
            return "messages: at least one message is required"
        if needs_limit and request.max_tokens is None:
            return "max_tokens: Field required"
        if request.max_tokens is not None and request.max_tokens < 1:
            return "max_tokens: must be greater than or equal to 1"
        return request


def models_answer(identity: Identity, models: list[str], one: str | None) -> Answer:
    """GET /v1/models, or one of them (404 if it is not there)."""
    rows = [
        {
            "type": "model",
            "id": name,
            "display_name": name,
            "created_at": "2026-01-01T00:00:00Z",
            "lifecycle": "active",
        }
        for name in models
        if one is None or name == one
    ]
    if one is not None and not rows:
        return error_answer(identity, 404, f"model: {one}")
    listing = {
        "data": rows,
        "has_more": False,
        "first_id": rows[0]["id"] if rows else None,
        "last_id": rows[-1]["id"] if rows else None,
    }
    return Answer(
        status=200,
        content_type=b"application/json",
        headers=vendor_headers(identity),
        pieces=[Piece(_TEXT.encode(listing if one is None else rows[0]), 0)],
        request_id=_request_id(identity),
    )


def error_answer(identity: Identity, status: int, message: str) -> Answer:
    """Anthropic's error object for `status`."""
    kind = _ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": _request_id(identity)}
    return Answer(
        status=status,
        content_type=b"application/json",
        headers=vendor_headers(identity),
        pieces=[Piece(_TEXT.encode(body), 0)],
        request_id=_request_id(identity),
    )


def status_answer(identity: Identity, behaviour: Behaviour, model: str, tier: str | None) -> Answer:
    """The error that `behaviour.status` asks for."""
    message = (
        f"model: {model}"
        if behaviour.status == 404
        else _MESSAGES.get(behaviour.status, "Internal server error")
    )
    answer = error_answer(identity, behaviour.status, message)
    if behaviour.retry_after is not None:
        answer.headers += f"retry-after: {behaviour.retry_after}\r\n".encode()
    answer.model, answer.service_tier = model, tier
    return answer


def vendor_headers(identity: Identity) -> bytes:
    """The headers that Anthropic adds to every answer."""
    return (
        f"request-id: {_request_id(identity)}\r\nanthropic-organization-id: org-mock\r\n"
        "anthropic-ratelimit-requests-limit: 4000\r\nanthropic-ratelimit-requests-remaining: 3999\r\n"
        "anthropic-ratelimit-tokens-limit: 4000000\r\nanthropic-ratelimit-tokens-remaining: 3999000\r\n"
    ).encode()


def _event(name: str, fields: str) -> bytes:
    comma = "," if fields else ""
    return f'event: {name}\ndata: {{"type":"{name}"{comma}{fields}}}\n\n'.encode()


class _Block(NamedTuple):
    """One content block of a stream."""

    opening: dict[str, Any]
    kind: str
    field: str
    says: Saying
    visible: int

    @classmethod
    def of_call(cls, call: ToolCall, identity: Identity) -> "_Block":
        opening = _tool_block(call, identity, {})
        return cls(opening, "input_json_delta", "partial_json", call.says, call.visible)

    @classmethod
    def of_text(cls, says: Saying, visible: int) -> "_Block":
        return cls({"type": "text", "text": ""}, "text_delta", "text", says, visible)


def _tool_block(call: ToolCall, identity: Identity, given: object) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id("toolu_", identity.serial), "name": call.name, "input": given}


def _thought(request: _Messages, length: Length) -> dict[str, Any] | None:
    """The thinking block, if thinking was asked for and there was any."""
    asked = (request.thinking or {}).get("type") in ("enabled", "adaptive")
    if not asked or not length.reasoning:
        return None
    return {"type": "thinking", "thinking": content.words(0, 4), "signature": _SIGNATURE}


def _thought_events(thought: dict[str, Any]) -> bytes:
    """The thinking block as it is streamed."""
    opening = _quoted_json({**thought, "thinking": "", "signature": ""})
    deltas = (
        {"type": "thinking_delta", "thinking": thought["thinking"]},
        {"type": "signature_delta", "signature": thought["signature"]},
    )
    return (
        _event("content_block_start", f'"index":0,"content_block":{opening}')
        + b"".join(
            _event("content_block_delta", f'"index":0,"delta":{_quoted_json(delta)}') for delta in deltas
        )
        + _event("content_block_stop", '"index":0')
    )


def _message_text(identity: Identity, model: str, blocks: str, stop: str, usage: str) -> str:
    return (
        f'{{"id":"msg_{identity.serial}","type":"message","role":"assistant","model":{_quoted(model)},'
        f'"content":{blocks},"stop_reason":{stop},"stop_sequence":null{usage}}}'
    )


def _usage_field(report: UsageReport, text: str) -> str:
    """`,"usage":...` as the report wants it; nothing for `omit`."""
    match report:
        case UsageReport.OMIT:
            return ""
        case UsageReport.NULL:
            return ',"usage":null'
        case _:
            return f',"usage":{text}'


def _full_usage(tokens: Tokens, answer: Answer) -> str:
    """Anthropic states uncached, cache-reading and cache-writing input apart; speed and geo only if asked for."""
    served = "".join(
        f',"{name}":{_quoted(value)}'
        for name, value in (("speed", answer.speed), ("inference_geo", answer.inference_geo))
        if value is not None
    )
    short, tier = tokens.cache_write - tokens.cache_write_long, _quoted(answer.service_tier or "")
    return (
        f"{{{_input_counts(tokens)},"
        f'"cache_creation":{{"ephemeral_5m_input_tokens":{short},"ephemeral_1h_input_tokens":{tokens.cache_write_long}}},'
        f'"output_tokens":{tokens.output}{_details(tokens)},"service_tier":{tier}{served}}}'
    )


def _delta_usage(tokens: Tokens) -> str:
    return f'{{{_input_counts(tokens)},"output_tokens":{tokens.output}{_details(tokens)}}}'


def _input_counts(tokens: Tokens) -> str:
    return (
        f'"input_tokens":{tokens.input - tokens.cached - tokens.cache_write},'
        f'"cache_creation_input_tokens":{tokens.cache_write},"cache_read_input_tokens":{tokens.cached}'
    )


def _details(tokens: Tokens) -> str:
    """Thinking and searches, where there were any."""
    text = f',"output_tokens_details":{{"thinking_tokens":{tokens.reasoning}}}' if tokens.reasoning else ""
    if tokens.web_searches:
        text += f',"server_tool_use":{{"web_search_requests":{tokens.web_searches},"web_fetch_requests":0}}'
    return text


def _quoted_json(value: object) -> str:
    return _TEXT.encode(value).decode()


def _quoted(text: str) -> str:
    return _TEXT.encode(text).decode()


def _request_id(identity: Identity) -> str:
    return f"req_011{identity.serial}"


def _loose(text: str) -> object:
    """The tool's input; what a limit cut off reads as an empty object, as Anthropic sends it."""
    try:
        return json.loads(text)
    except ValueError:
        return {}


def _behaviour(request: _Messages, resolve: Resolve) -> Behaviour | str:
    model, directive = split_model(request.model or "")
    if request.metadata is not None:
        directive = directive or marked_directive(request.metadata.user_id)
    try:
        return resolve(model, directive)
    except BehaviourError as error:
        return f"mock: {error}"


def _counted(request: _Messages) -> int:
    total = content.content_tokens(request.system)
    for message in request.messages or ():
        total += content.content_tokens(message.content) + content.TOKENS_PER_MESSAGE
    if request.tools:
        total += content.json_tokens(request.tools)
    return total


def _says(request: _Messages, behaviour: Behaviour) -> Saying:
    """The text of an answer that uses no tool."""
    wanted = request.output_format or (request.output_config or {}).get("format") or {}
    if wanted.get("type") == "json_schema" and isinstance(wanted.get("schema"), dict):
        return saying(behaviour, content.instance_json(wanted["schema"]))
    return saying(behaviour, None)


def _tool(request: _Messages, behaviour: Behaviour) -> Offer | None:
    offers = [
        Offer(str(tool.get("name", "")), tool["input_schema"])
        for tool in request.tools or ()
        if isinstance(tool.get("input_schema"), dict)
    ]
    choice = request.tool_choice or {}
    if choice.get("type") == "none":
        return None
    last = (request.messages or [_Message("user", "")])[-1]
    return chosen_tool(
        offers,
        behaviour,
        forced=str(choice.get("name")) if choice.get("type") == "tool" else None,
        is_demanded=choice.get("type") == "any",
        prompt=content.content_text(last.content) if last.role == "user" else "",
    )
