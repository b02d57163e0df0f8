"""What the mock says in OpenAI's realtime format: items, responses, usage, and the events of one response.

Pure formatting: keeps nothing, bills nothing.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import msgspec

from outlay.testing import media
from outlay.testing.answer import Offer, Saying
from outlay.testing.behaviour import UsageReport
from outlay.testing.meter import NOTHING, Tokens
from outlay.testing.talk import Beat

SAMPLES_PER_TOKEN = media.PCM_RATE // 20
"""A token of the assistant's speech lasts 50 ms."""


class Told(NamedTuple):
    """One response to be told."""

    response_id: str
    item_id: str
    call_id: str
    previous_item_id: str | None
    tool: Offer | None
    says: Saying
    visible: int
    """Tokens that the client sees or hears."""
    speaks: bool
    is_cut: bool
    metadata: dict[str, Any] | None
    usage: dict[str, Any]
    """`{"usage": ...}`, or empty if it is left out."""


class MakeEvent(Protocol):
    """Makes a numbered event."""

    def __call__(self, kind: str, **fields: object) -> str: ...


def error_event(event_id: str, message: str, kind: str, code: str) -> str:
    """The error event."""
    error = {"type": kind, "code": code, "message": message, "param": None, "event_id": None}
    return msgspec.json.encode({"type": "error", "event_id": event_id, "error": error}).decode()


def usage_object(report: UsageReport, tokens: Tokens) -> dict[str, Any]:
    """`usage` of a response as the report wants it."""
    match report:
        case UsageReport.OMIT:
            return {}
        case UsageReport.NULL:
            return {"usage": None}
        case UsageReport.ZERO:
            tokens = NOTHING
        case UsageReport.NORMAL:
            pass
    return {
        "usage": {
            "total_tokens": tokens.input + tokens.output,
            "input_tokens": tokens.input,
            "output_tokens": tokens.output,
            "input_token_details": {
                "text_tokens": tokens.input - tokens.input_audio - tokens.input_image,
                "audio_tokens": tokens.input_audio,
                "image_tokens": tokens.input_image,
                "cached_tokens": tokens.cached,
                "cached_tokens_details": {
                    "text_tokens": tokens.cached - tokens.cached_audio,
                    "audio_tokens": tokens.cached_audio,
                    "image_tokens": 0,
                },
            },
            "output_token_details": {
                "text_tokens": tokens.output - tokens.output_audio,
                "audio_tokens": tokens.output_audio,
            },
        }
    }


def output_item(told: Told, status: str, end: int) -> dict[str, Any]:
    """The item that the response makes, with its first `end` tokens."""
    text = told.says.part(0, end)
    item: dict[str, Any] = {"id": told.item_id, "object": "realtime.item", "status": status}
    if told.tool is not None:
        return item | {
            "type": "function_call",
            "call_id": told.call_id,
            "name": told.tool.name,
            "arguments": text,
        }
    return item | {"type": "message", "role": "assistant", "content": [_part(told, text)]}


def response_object(
    told: Told, status: str, output: list[dict[str, Any]], usage: dict[str, Any]
) -> dict[str, Any]:
    """The response as it is in `status`."""
    reasons = {"incomplete": "max_output_tokens", "cancelled": "client_cancelled"}
    details: dict[str, Any] | None = None
    if status in reasons:
        details = {"type": status, "reason": reasons[status]}
    elif status == "failed":
        error = {"type": "server_error", "code": "server_error", "message": "The server had an error."}
        details = {"type": "failed", "error": error}
    return {
        "object": "realtime.response",
        "id": told.response_id,
        "status": status,
        "status_details": details,
        "output": output,
        "output_modalities": ["audio" if told.speaks else "text"],
        "max_output_tokens": "inf",
        "metadata": told.metadata,
        "usage": None,
    } | usage


def response_beats(
    told: Told, bounds: list[tuple[int, int]], hidden: int, event: MakeEvent
) -> Iterator[Beat]:
    """All events of a response; `hidden` tokens are generated before the first that is shown."""
    begun = output_item(told, "in_progress", 0)
    if told.tool is None:
        begun["content"] = []
    place = {"response_id": told.response_id, "item_id": told.item_id, "output_index": 0}
    in_part = place if told.tool is not None else {**place, "content_index": 0}
    started = response_object(told, "in_progress", [], {"usage": None})
    of_response = {"response_id": told.response_id, "output_index": 0}
    opening = [
        event("response.created", response=started),
        event("response.output_item.added", **of_response, item=begun),
        event("conversation.item.added", previous_item_id=told.previous_item_id, item=begun),
    ]
    if told.tool is None:
        opening.append(event("response.content_part.added", **in_part, part=_part(told, "")))
    yield Beat(opening, 0)
    name = _text_event(told)
    for start, end in bounds:
        events = [event(f"{name}.delta", **in_part, delta=told.says.part(start, end))]
        if told.speaks:
            sound = media.silence_base64((end - start) * SAMPLES_PER_TOKEN)
            events.append(event("response.output_audio.delta", **in_part, delta=sound))
        yield Beat(events, end - start + hidden)
        hidden = 0
    whole = told.says.part(0, told.visible)
    field = "arguments" if told.tool is not None else "transcript" if told.speaks else "text"
    named = {} if told.tool is None else {"name": told.tool.name, "call_id": told.call_id}
    item = output_item(told, "incomplete" if told.is_cut else "completed", told.visible)
    ending = [event(f"{name}.done", **in_part, **named, **{field: whole})]
    if told.speaks:
        ending.append(event("response.output_audio.done", **in_part))
    if told.tool is None:
        ending.append(event("response.content_part.done", **in_part, part=_part(told, whole)))
    ending.append(event("response.output_item.done", **of_response, item=item))
    ending.append(event("conversation.item.done", previous_item_id=told.previous_item_id, item=item))
    yield Beat(ending, 0)
    status = "incomplete" if told.is_cut else "completed"
    done = response_object(told, status, [item], told.usage)
    yield Beat([event("response.done", response=done)], hidden)


def _part(told: Told, text: str) -> dict[str, Any]:
    if told.speaks:
        return {"type": "output_audio", "transcript": text}
    return {"type": "output_text", "text": text}


def _text_event(told: Told) -> str:
    if told.tool is not None:
        return "response.function_call_arguments"
    return "response.output_audio_transcript" if told.speaks else "response.output_text"
