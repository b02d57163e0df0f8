"""What the mock says in OpenAI's Responses format: the response object, its items, and the events of a stream.

Pure formatting: keeps nothing, bills nothing. An event is JSON text, so that HTTP and WebSocket frame it alike.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from outlay.testing import content
from outlay.testing.answer import Identity, Length, Saying, ToolCall, chunk_bounds
from outlay.testing.behaviour import Behaviour, UsageReport
from outlay.testing.meter import NOTHING, Tokens
from outlay.testing.talk import Beat

_JSON = msgspec.json.Encoder()
_SECRET = "bW9jayByZWFzb25pbmcgdGhhdCBub2JvZHkgcmVhZHM="
_FAILED = {
    "code": "server_error",
    "message": "The server had an error while processing your request. Sorry about that!",
}


class ResponseRequest(msgspec.Struct, gc=False):
    """The fields of POST /v1/responses that the mock reads or repeats."""

    model: str | None = None
    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    store: bool | None = None
    background: bool | None = None
    include: list[str] | None = None
    reasoning: dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    service_tier: str | None = None
    parallel_tool_calls: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    truncation: str | None = None
    metadata: dict[str, Any] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class Plot(msgspec.Struct, gc=False):
    """One response to be told: everything but how it is framed."""

    request: ResponseRequest
    behaviour: Behaviour
    identity: Identity
    model: str
    tier: str
    length: Length
    calls: list[ToolCall]
    says: Saying
    """The text, if no tool is called."""
    tokens: Tokens

    @property
    def response_id(self) -> str:
        return f"resp_{self.identity.serial}"

    @property
    def final_status(self) -> str:
        return "incomplete" if self.length.is_cut else "completed"


def response_object(plot: Plot, status: str) -> dict[str, Any]:
    """The response as it is in `status`; output and usage only when it has ended well."""
    request = plot.request
    is_ended = status in ("completed", "incomplete")
    value: dict[str, Any] = {
        "id": plot.response_id,
        "object": "response",
        "created_at": plot.identity.created,
        "status": status,
        "background": bool(request.background),
        "completed_at": plot.identity.created if status == "completed" else None,
        "error": _FAILED if status == "failed" else None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": None,
        "model": plot.model,
        "output": [item.value for item in _items(plot)] if is_ended else [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": {"effort": None, "summary": None, **(request.reasoning or {})},
        "safety_identifier": request.safety_identifier,
        "service_tier": plot.tier if is_ended else request.service_tier or "auto",
        "store": request.store is not False,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": {"format": {"type": "text"}, **(request.text or {})},
        "tool_choice": request.tool_choice or "auto",
        "tools": request.tools or [],
        "top_logprobs": 0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "truncation": request.truncation or "disabled",
        "user": request.user,
        "metadata": request.metadata or {},
    }
    if request.conversation is not None:
        value["conversation"] = {"id": conversation_id(request)}
    if not is_ended or plot.behaviour.usage is UsageReport.NULL:
        value["usage"] = None
    elif plot.behaviour.usage is not UsageReport.OMIT:
        value["usage"] = usage_object(NOTHING if plot.behaviour.usage is UsageReport.ZERO else plot.tokens)
    return value


def conversation_id(request: ResponseRequest) -> str | None:
    """The conversation that the response belongs to."""
    named = request.conversation
    return str(named.get("id")) if isinstance(named, dict) else named


def usage_object(tokens: Tokens) -> dict[str, Any]:
    """Usage in the Responses format."""
    details: dict[str, Any] = {
        "cached_tokens": tokens.cached,
        "cache_write_tokens": tokens.cache_write,
    }
    if tokens.cache_write_long:
        details["cache_write_tokens_details"] = {
            "ttl_12h_tokens": tokens.cache_write_long,
            "ttl_30m_tokens": tokens.cache_write - tokens.cache_write_long,
        }
    return {
        "input_tokens": tokens.input,
        "input_tokens_details": details,
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.input + tokens.output,
    }


def beats(plot: Plot) -> Iterator[Beat]:
    """The whole stream: created, in progress, each item, and the end."""
    teller = _Teller()
    opening = ["response.created", "response.in_progress"]
    if plot.request.background:
        opening.insert(1, "response.queued")
    status = "queued" if plot.request.background else "in_progress"
    started = response_object(plot, status)
    yield Beat([teller.event(name, response=started) for name in opening], 0)
    hidden = plot.length.reasoning
    for index, (item, kind, shown) in enumerate(_items(plot)):
        if shown is None:
            yield Beat(list(_closed_item(teller, index, item, kind)), 0)
            continue
        yield Beat(list(_item_opening(teller, index, item, kind)), 0)
        name, place = _DELTAS[kind], _place(index, item, kind)
        for start, end in chunk_bounds(plot.behaviour, shown.visible):
            delta = teller.event(f"{name}.delta", **place, delta=shown.says.part(start, end))
            yield Beat([delta], end - start + hidden)
            hidden = 0
        yield Beat(list(_item_ending(teller, index, item, kind)), hidden)
        hidden = 0
    ended = teller.event(f"response.{plot.final_status}", response=response_object(plot, plot.final_status))
    yield Beat([ended], hidden)


def prepared_beats(plot: Plot) -> Iterator[Beat]:
    """A response that only prepares the state (`generate: false`): nothing is generated or used."""
    teller = _Teller()
    started = response_object(plot, "in_progress")
    done = response_object(plot, "completed") | {"output": [], "usage": usage_object(NOTHING)}
    names = ("response.created", "response.in_progress")
    yield Beat([teller.event(name, response=started) for name in names], 0)
    yield Beat([teller.event("response.completed", response=done)], 0)


def failed_event(plot: Plot) -> str:
    """The event by which a stream reports that the response failed."""
    failed = {"type": "response.failed", "sequence_number": plot.length.output + 8}
    return _text({**failed, "response": response_object(plot, "failed")})


def sse(beat: Beat) -> bytes:
    """The beat as server-sent events."""
    frames = []
    for event in beat.events:
        name = event[len('{"type":"') : event.index('"', len('{"type":"'))]
        frames.append(f"event: {name}\ndata: {event}\n\n")
    return "".join(frames).encode()


def input_items(request: ResponseRequest, response_id: str) -> list[dict[str, Any]]:
    """The request's input as the items that are listed for it, newest first."""
    if isinstance(request.input, str):
        rows = [{"role": "user", "content": [{"type": "input_text", "text": request.input}]}]
    else:
        rows = [dict(item) for item in request.input or ()]
    listed = []
    for index, row in enumerate(rows):
        text = row.get("content")
        if isinstance(text, str):
            row["content"] = [{"type": "input_text", "text": text}]
        listed.append({"id": f"item_{index}_{response_id}", "type": "message", "status": "completed", **row})
    return listed[::-1]


_DELTAS = {
    "message": "response.output_text",
    "function_call": "response.function_call_arguments",
    "custom_tool_call": "response.custom_tool_call_input",
}
_EMPTY: dict[str, dict[str, Any]] = {
    "message": {"content": []},
    "function_call": {"arguments": ""},
    "custom_tool_call": {"input": ""},
}


class _Teller:
    """Numbers the events of one stream."""

    def __init__(self) -> None:
        self._next = 0

    def event(self, kind: str, **fields: object) -> str:
        number, self._next = self._next, self._next + 1
        return _text({"type": kind, "sequence_number": number, **fields})


class _Shown(NamedTuple):
    """What of an item is told in pieces."""

    says: Saying
    visible: int


class _Item(NamedTuple):
    """An output item as it ends."""

    value: dict[str, Any]
    kind: str
    shown: _Shown | None


def _items(plot: Plot) -> list[_Item]:
    """The output items in order."""
    serial, status = plot.identity.serial, plot.final_status
    items: list[dict[str, Any]] = []
    if plot.length.reasoning:
        item: dict[str, Any] = {"id": f"rs_{serial}", "type": "reasoning", "summary": []}
        if "reasoning.encrypted_content" in (plot.request.include or ()):
            item["encrypted_content"] = _SECRET
        items.append(item)
    for number in range(plot.tokens.web_searches):
        query = content.words(number, 3).strip()
        action = {"type": "search", "query": query}
        items.append(
            {
                "id": f"ws_{number}_{serial}",
                "type": "web_search_call",
                "status": "completed",
                "action": action,
            }
        )
    shown: dict[int, _Shown] = {}
    for call in plot.calls:
        is_custom = call.is_custom
        shown[len(items)] = _Shown(call.says, call.visible)
        items.append(
            {
                "id": call.id("ctc_" if is_custom else "fc_", serial),
                "type": "custom_tool_call" if is_custom else "function_call",
                "status": status,
                "call_id": call.id("call_", serial),
                "name": call.name,
                "input" if is_custom else "arguments": call.text,
            }
        )
    if not plot.calls and (plot.length.visible or not plot.length.reasoning):
        text = plot.says.part(0, plot.length.visible)
        shown[len(items)] = _Shown(plot.says, plot.length.visible)
        items.append(
            {
                "id": f"msg_{serial}",
                "type": "message",
                "status": status,
                "role": "assistant",
                "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": text}],
            }
        )
    return [_Item(item, str(item["type"]), shown.get(index)) for index, item in enumerate(items)]


def _place(index: int, item: dict[str, Any], kind: str) -> dict[str, Any]:
    """What locates a delta; text deltas also name their part."""
    place = {"item_id": item["id"], "output_index": index}
    return {**place, "content_index": 0, "logprobs": []} if kind == "message" else place


def _closed_item(teller: _Teller, index: int, item: dict[str, Any], kind: str) -> Iterator[str]:
    """An item that shows nothing of its making."""
    begun = {**item, "status": "in_progress"} if kind == "web_search_call" else item
    yield teller.event("response.output_item.added", output_index=index, item=begun)
    if kind == "web_search_call":
        for step in ("in_progress", "searching", "completed"):
            yield teller.event(f"response.{kind}.{step}", output_index=index, item_id=item["id"])
    yield teller.event("response.output_item.done", output_index=index, item=item)


def _item_opening(teller: _Teller, index: int, item: dict[str, Any], kind: str) -> Iterator[str]:
    empty = _EMPTY[kind]
    yield teller.event(
        "response.output_item.added", output_index=index, item={**item, "status": "in_progress", **empty}
    )
    if kind == "message":
        part = {**item["content"][0], "text": ""}
        yield teller.event(
            "response.content_part.added", item_id=item["id"], output_index=index, content_index=0, part=part
        )


def _item_ending(teller: _Teller, index: int, item: dict[str, Any], kind: str) -> Iterator[str]:
    place = _place(index, item, kind)
    if kind == "message":
        part = item["content"][0]
        yield teller.event("response.output_text.done", **place, text=part["text"])
        del place["logprobs"]
        yield teller.event("response.content_part.done", **place, part=part)
    else:
        field = "arguments" if kind == "function_call" else "input"
        named = {"name": item["name"]} if kind == "function_call" else {}
        yield teller.event(f"{_DELTAS[kind]}.done", **place, **named, **{field: item[field]})
    yield teller.event("response.output_item.done", output_index=index, item=item)


def _text(value: object) -> str:
    return _JSON.encode(value).decode()
