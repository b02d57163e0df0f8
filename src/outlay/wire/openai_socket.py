"""OpenAI's Responses API over a WebSocket: single messages, from either side. No I/O, no prices, no state.

A message of the client is one `response.create`, whose fields stand beside its type as in the body of a POST. The
server's messages are the events of a response stream, without SSE: `ResponsesStream.read_data` takes each as it comes.
Responses of one lane (`stream_id`) follow each other, lanes run side by side; every event of a lane names it.
"""

from typing import Final

import msgspec

from outlay.wire.fields import decode_or_refuse, read_fields
from outlay.wire.intent import CallIntent, Rejection
from outlay.wire.openai_responses import parse_responses

MAX_LANE_CHARS: Final = 256
CREATE: Final = "response.create"
_STEER: Final = "response.steer"


class SocketRequest(msgspec.Struct, frozen=True, gc=False):
    """One response that a client asks for."""

    intent: CallIntent
    lane: str | None


class _Message(msgspec.Struct, gc=False):
    type: str = ""
    stream_id: str | None = None


_decode: Final = msgspec.json.Decoder(_Message).decode


def parse_socket_message(data: bytes) -> SocketRequest | Rejection:
    """The money side of a client's message. Never raises.

    A message of another type is refused: `response.steer` starts a further response with no limit of its own, and of
    those to come nothing is known.
    """
    fields = read_fields(data)
    if isinstance(fields, Rejection):
        return fields
    message = decode_or_refuse(_decode, data)
    if isinstance(message, Rejection):
        return message
    if message.type != CREATE:
        reason = (
            "starts a further response, which has no bound of its own; send `response.create`"
            if message.type == _STEER
            else "is not known, and may start billable work"
        )
        return Rejection(422, "unsupported_field", f"`type`: `{message.type[:64]}` {reason}", "type")
    if message.stream_id is not None and len(message.stream_id) > MAX_LANE_CHARS:
        return Rejection(
            400, "invalid_value", f"`stream_id` must have at most {MAX_LANE_CHARS} characters", "stream_id"
        )
    intent = parse_responses(data)
    if isinstance(intent, Rejection):
        return intent
    # over a socket every response is a stream
    return SocketRequest(
        msgspec.structs.replace(intent, stream=True, wants_stream_usage=True), message.stream_id
    )


def lane_of(data: bytes) -> str | None:
    """The lane that a server's message names; None if it names none. Never raises."""
    try:
        return _decode(data).stream_id
    except (ValueError, RecursionError):
        return None
