"""What the gateway asks of each dialect, as a table: parse a body, read an answer, follow a stream. No I/O."""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from outlay.wire import anthropic, anthropic_answer, openai, openai_answer
from outlay.wire.intent import Answer, CallIntent, Dialect, Operation, Rejection
from outlay.wire.routes import ROUTES
from outlay.wire.stream import StreamReader

PARSERS: Final[Mapping[Operation, Callable[[bytes], CallIntent | Rejection]]] = {
    Operation.CHAT: openai.parse_chat,
    Operation.EMBEDDINGS: openai.parse_embeddings,
    Operation.MESSAGES: anthropic.parse_messages,
    Operation.COUNT_TOKENS: anthropic.parse_count_tokens,
}

FAST_ROUTES: Final = {
    (method.encode(), path.encode()): route
    for (method, path), route in ROUTES.items()
    if route[1] is not Operation.MODELS
}
"""The metered routes as they come off the wire."""

HAS_OUTPUT: Final = frozenset({Operation.CHAT, Operation.MESSAGES})


def read_answer(dialect: Dialect, operation: Operation, body: bytes) -> Answer:
    """What a whole answer says; never raises."""
    if dialect is Dialect.ANTHROPIC:
        return anthropic_answer.read_answer(operation, body)
    return openai_answer.read_answer(operation, body)


def open_stream(intent: CallIntent) -> StreamReader:
    """A reader for the answer of a streaming call."""
    if intent.dialect is Dialect.ANTHROPIC:
        return anthropic_answer.MessagesStream()
    return openai_answer.ChatStream(strip_usage=not intent.wants_stream_usage)


def models_body(dialect: Dialect, names: list[str]) -> bytes:
    """The model list in the dialect's shape."""
    if dialect is Dialect.ANTHROPIC:
        data = [_anthropic_model(name) for name in names]
        ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
        return msgspec.json.encode({"data": data, "has_more": False, **ends})
    return msgspec.json.encode({"object": "list", "data": [_openai_model(name) for name in names]})


def model_body(dialect: Dialect, name: str) -> bytes:
    """One model in the dialect's shape."""
    return msgspec.json.encode(
        _anthropic_model(name) if dialect is Dialect.ANTHROPIC else _openai_model(name)
    )


def _openai_model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "outlay"}


def _anthropic_model(name: str) -> dict[str, object]:
    return {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"}
