"""Anthropic's dialect, answers: usage from a message body or a message stream. No I/O.

Anthropic's `input_tokens` is what was neither read from nor written to the cache; ours is the sum of the three. In a
stream `message_start` states usage and `message_delta` states it again, cumulatively: the last value of each field
counts, nothing is added. What `iterations` of type compaction, advisor or fallback cost is not in the totals (or is
billed as another model), so usage with one of them is unknown.
"""

from typing import Any, Final

import msgspec

from outlay.wire.intent import Answer, Operation, Usage
from outlay.wire.stream import EventReader

MAX_TOKENS: Final = 2**40
"""A count above this is no count; the usage is then unknown."""


class _CacheCreation(msgspec.Struct, gc=False):
    ephemeral_5m_input_tokens: int | None = None
    ephemeral_1h_input_tokens: int | None = None


class _ServerToolUse(msgspec.Struct, gc=False):
    web_search_requests: int | None = None
    code_execution_requests: int | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    thinking_tokens: int | None = None


class _Iteration(msgspec.Struct, gc=False):
    type: str = "message"


class _Usage(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation: _CacheCreation | None = None
    server_tool_use: _ServerToolUse | None = None
    output_tokens_details: _OutputDetails | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None
    iterations: list[_Iteration] | None = None


class _Body(msgspec.Struct, gc=False):
    type: str | None = None
    id: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    usage: _Usage | None = None
    input_tokens: int | None = None
    """Of a count_tokens answer."""


class _Block(msgspec.Struct, gc=False):
    """What a content block or a delta may hold of generated content."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    name: str | None = None
    partial_json: str | None = None
    input: Any = None
    stop_reason: str | None = None


class _Content(msgspec.Struct, gc=False):
    content: list[_Block] | None = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    delta: _Block | None = None
    content_block: _Block | None = None
    message: _Body | None = None
    usage: _Usage | None = None


_decode_body: Final = msgspec.json.Decoder(_Body).decode
_decode_content: Final = msgspec.json.Decoder(_Content).decode
_decode_event: Final = msgspec.json.Decoder(_Event).decode
_COUNTED_ITERATIONS: Final = frozenset({"message"})


def read_answer(operation: Operation, body: bytes) -> Answer:
    """What a whole body says. Never raises: garbage gives `Answer(usage=None)`."""
    try:
        decoded = _decode_body(body)
    except (ValueError, RecursionError):
        return Answer(usage=None, is_error=b'"error"' in body[:64], output_bytes=_body_output_bytes(body))
    if decoded.type == "error":
        return Answer(usage=None, is_error=True)
    if operation is Operation.COUNT_TOKENS:
        return Answer(usage=_count_usage(decoded.input_tokens))
    usage = None if decoded.usage is None else _usage(decoded.usage, decoded.model)
    return Answer(
        usage=usage,
        response_id=decoded.id,
        finish_reason=decoded.stop_reason,
        # only `counted` settlement asks for it, and that only without usage
        output_bytes=0 if usage is not None else _body_output_bytes(body),
    )


class MessagesStream(EventReader):
    """Reads a message stream; every byte is forwarded at once, in the very objects that came."""

    __slots__ = ("_model", "_stated")

    def __init__(self) -> None:
        super().__init__(holds_back=False)
        self._stated: _Usage | None = None
        self._model: str | None = None

    def is_content_only(self, chunk: bytes) -> bool:
        """Neither usage (start and delta of the message) nor its end nor an error."""
        return b'"usage"' not in chunk and b"message_" not in chunk and b"error" not in chunk

    def read_data(self, data: bytes) -> bool:
        """Take one event's data."""
        if not data:
            return True
        try:
            event = _decode_event(data)
        except (ValueError, RecursionError):
            self._read_odd_event(data)
            return True
        match event.type:
            case "content_block_delta":
                if event.delta is not None:
                    self._count(event.delta)
            case "content_block_start":
                if event.content_block is not None and not event.content_block.type.endswith("_tool_result"):
                    self._count(event.content_block)
            case "message_start":
                if event.message is not None:
                    self._model = event.message.model
                    self.response_id = event.message.id
                    self._state(event.message.usage)
            case "message_delta":
                if event.delta is not None and event.delta.stop_reason is not None:
                    self.finish_reason = event.delta.stop_reason
                if event.usage is not None:
                    self.usage_is_final = True
                    self._state(event.usage)
            case "message_stop":
                self.is_done = True
            case "error":
                self.error_seen = True
            case _:
                pass  # ping, content_block_stop, events to come
        return True

    def _count(self, block: _Block) -> None:
        self._count_output(_block_bytes(block))

    def _state(self, stated: _Usage | None) -> None:
        """Take over each field that is stated; what is absent or null keeps its last value."""
        if stated is None:
            return
        known = self._stated
        if known is None:
            self._stated = known = stated
        else:
            for name in _Usage.__struct_fields__:
                value = getattr(stated, name)
                if value is not None:
                    setattr(known, name, value)
        self.usage = _usage(known, self._model)

    def _read_odd_event(self, data: bytes) -> None:
        """An event of unknown shape: what usage it stated is unknown, and its bytes count as output."""
        if b'"error"' in data[:64]:
            self.error_seen = True
        elif b'"usage"' in data and not self._is_ending:
            self.usage = None
            self._stated = _Usage()  # without totals nothing later can make it whole by accident
        self._count_output(len(data))


def _usage(stated: _Usage, model: str | None) -> Usage | None:
    """The stated counts as one record; None if a total is missing or a count is absurd."""
    plain, output_tokens = stated.input_tokens, stated.output_tokens
    if plain is None or output_tokens is None:
        return None
    read, written = stated.cache_read_input_tokens or 0, stated.cache_creation_input_tokens or 0
    written_1h = 0
    if stated.cache_creation is not None:
        written_5m = stated.cache_creation.ephemeral_5m_input_tokens or 0
        written_1h = stated.cache_creation.ephemeral_1h_input_tokens or 0
        if written_5m < 0:
            return None
        if written_1h and written > written_5m + written_1h:
            written_1h = written - written_5m  # written after the split was stated: the dearer class
        written = max(written, written_5m + written_1h)
    tools = stated.server_tool_use
    searches = (tools.web_search_requests or 0) if tools is not None else 0
    executions = (tools.code_execution_requests or 0) if tools is not None else 0
    details = stated.output_tokens_details
    reasoning = (details.thinking_tokens or 0) if details is not None else 0
    counts = (plain, output_tokens, read, written, written_1h, searches, executions, reasoning)
    if min(counts) < 0 or max(counts) > MAX_TOKENS:
        return None
    if any(iteration.type not in _COUNTED_ITERATIONS for iteration in stated.iterations or ()):
        return None
    return Usage(
        plain + read + written,
        max(output_tokens, reasoning),
        cache_read_input_tokens=read,
        cache_creation_input_tokens=written,
        cache_creation_1h_input_tokens=written_1h,
        reasoning_output_tokens=reasoning,
        web_search_requests=searches,
        code_execution_requests=executions,
        model=model,
        service_tier=stated.service_tier,
        speed=stated.speed,
        inference_geo=stated.inference_geo,
    )


def _count_usage(input_tokens: int | None) -> Usage | None:
    """Usage of a free count_tokens call: nothing was served, so explicit zeros, if the answer has its one field."""
    return None if input_tokens is None else Usage(0, 0)


def _block_bytes(block: _Block) -> int:
    """UTF-8 bytes of generated content. Signatures and redacted data stand for reasoning that is not shown."""
    size = 0
    for text in (block.text, block.thinking, block.partial_json, block.signature, block.data, block.name):
        if text:
            size += len(text) if text.isascii() else len(text.encode())
    if block.input:
        size += len(msgspec.json.encode(block.input))
    return size


def _body_output_bytes(body: bytes) -> int:
    """UTF-8 bytes generated, of a body without usage; the whole body if its shape is unknown."""
    try:
        decoded = _decode_content(body)
    except (ValueError, RecursionError):
        return len(body)
    return sum(_block_bytes(b) for b in decoded.content or () if not b.type.endswith("_tool_result"))
