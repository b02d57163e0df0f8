"""Amazon Bedrock's dialect, answers: usage from bodies, headers and event streams. No I/O.

Converse counts `inputTokens` without what was read from or written to the cache; ours is the sum of the three (the
totals that are stated are not trusted to hold them). InvokeModel answers in each vendor's shape, and with two headers.
A stream's frames pass untouched; `metadata` (Converse), or the vendor's own events, state the usage.
"""

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from outlay.wire.anthropic_answer import MessagesStream
from outlay.wire.anthropic_answer import read_answer as read_message
from outlay.wire.eventstream import Frame, FrameSplitter
from outlay.wire.intent import Answer, Operation, Usage

MAX_TOKENS: Final = 2**40
"""A count above this is no count; the usage is then unknown."""
_INPUT_HEADER: Final = "x-amzn-bedrock-input-token-count"
_OUTPUT_HEADER: Final = "x-amzn-bedrock-output-token-count"
_MAX_DIGITS: Final = 12


class _CacheDetail(msgspec.Struct, gc=False):
    ttl: str | None = None
    inputTokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    inputTokens: int | None = None
    outputTokens: int | None = None
    cacheReadInputTokens: int | None = None
    cacheWriteInputTokens: int | None = None
    cacheReadInputTokenCount: int | None = None
    cacheWriteInputTokenCount: int | None = None
    cacheDetails: list[_CacheDetail] | None = None


class _Tier(msgspec.Struct, gc=False):
    type: str | None = None


class _Performance(msgspec.Struct, gc=False):
    latency: str | None = None


class _Answer(msgspec.Struct, gc=False):
    usage: _Usage | None = None
    stopReason: str | None = None
    serviceTier: _Tier | None = None
    performanceConfig: _Performance | None = None
    output: msgspec.Raw = msgspec.Raw(b"")
    message: Any = None


class _Odd(msgspec.Struct, gc=False):
    """What tells the shapes of InvokeModel apart."""

    type: str | None = None
    inputTextTokenCount: int | None = None
    message: Any = None


class _Delta(msgspec.Struct, gc=False):
    text: str | None = None
    toolUse: Any = None
    reasoningContent: Any = None


class _DeltaEvent(msgspec.Struct, gc=False):
    delta: _Delta | None = None


class _Chunk(msgspec.Struct, gc=False):
    bytes: str | None = None


class _NovaEvent(msgspec.Struct, gc=False):
    contentBlockDelta: _DeltaEvent | None = None
    messageStop: _Answer | None = None
    metadata: _Answer | None = None


_decode_answer: Final = msgspec.json.Decoder(_Answer).decode
_decode_odd: Final = msgspec.json.Decoder(_Odd).decode
_decode_delta: Final = msgspec.json.Decoder(_DeltaEvent).decode
_decode_chunk: Final = msgspec.json.Decoder(_Chunk).decode
_decode_nova: Final = msgspec.json.Decoder(_NovaEvent).decode


def read_answer(operation: Operation, body: bytes) -> Answer:
    """What a whole body says, of Converse or of any InvokeModel that is metered. Never raises."""
    if operation is Operation.INVOKE:
        try:
            odd = _decode_odd(body)
        except (ValueError, RecursionError):
            return Answer(usage=None, output_bytes=len(body))
        if odd.type == "message":
            return read_message(Operation.MESSAGES, body)
        if odd.inputTextTokenCount is not None:
            tokens = odd.inputTextTokenCount
            return Answer(usage=Usage(tokens, 0) if 0 <= tokens <= MAX_TOKENS else None)
    try:
        answer = _decode_answer(body)
    except (ValueError, RecursionError):
        return Answer(usage=None, output_bytes=len(body))
    usage = None if answer.usage is None else _usage(answer.usage, answer)
    is_error = answer.usage is None and not answer.output and isinstance(answer.message, str)
    return Answer(
        usage=usage,
        finish_reason=answer.stopReason,
        is_error=is_error,
        output_bytes=0 if usage is not None else len(answer.output),
    )


def usage_of_headers(headers: Mapping[str, str]) -> Usage | None:
    """Usage that InvokeModel states in its answer's headers (lower case); None if it does not."""
    counts = [headers.get(name, "") for name in (_INPUT_HEADER, _OUTPUT_HEADER)]
    if not all(text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS for text in counts if text):
        return None
    if not counts[0]:
        return None
    return Usage(int(counts[0]), int(counts[1] or "0"))


class FrameReader:
    """A `StreamReader` over event-stream frames; every byte is forwarded at once."""

    __slots__ = (
        "_splitter",
        "deltas",
        "error_seen",
        "finish_reason",
        "is_done",
        "output_bytes",
        "response_id",
        "usage",
        "usage_is_final",
    )

    def __init__(self) -> None:
        self._splitter = FrameSplitter()
        self.usage: Usage | None = None
        self.usage_is_final = False
        self.is_done = False
        self.error_seen = False
        self.response_id: str | None = None
        self.finish_reason: str | None = None
        self.deltas = 0
        self.output_bytes = 0

    @property
    def saw_output(self) -> bool:
        """See `StreamReader`."""
        return self.deltas > 0

    @property
    def is_between_events(self) -> bool:
        """See `StreamReader`: a frame is an event."""
        return self._splitter.is_between_frames

    def feed(self, chunk: bytes) -> bytes:
        """See `StreamReader`."""
        for frame in self._splitter.push(chunk):
            kind = frame.headers.get(":event-type", "")
            if frame.headers.get(":message-type", "event") != "event" or kind.endswith("Exception"):
                self.error_seen = True
            else:
                self.read_frame(kind, frame)
        if self._splitter.is_broken:
            self.usage = None
            self.usage_is_final = False
        return chunk

    def end(self) -> bytes:
        """See `StreamReader`; nothing is held back."""
        return b""

    def read_frame(self, kind: str, frame: Frame) -> None:
        """Take one event."""
        raise AssertionError("an operation defines this")

    def _count_output(self, size: int) -> None:
        if size:
            self.deltas += 1
            self.output_bytes += size

    def _take_metadata(self, answer: _Answer) -> None:
        self.usage = None if answer.usage is None else _usage(answer.usage, answer)
        self.usage_is_final = self.usage is not None
        self.is_done = True


class ConverseStream(FrameReader):
    """Reads a `ConverseStream`: its last frame is `metadata`, which brings the usage."""

    __slots__ = ()

    def read_frame(self, kind: str, frame: Frame) -> None:
        """Take one event."""
        try:
            if kind == "contentBlockDelta":
                self._count_output(_delta_bytes(_decode_delta(frame.payload)))
            elif kind == "messageStop":
                self.finish_reason = _decode_answer(frame.payload).stopReason
            elif kind == "metadata":
                self._take_metadata(_decode_answer(frame.payload))
        except (ValueError, RecursionError):
            self._count_output(len(frame.payload))
            if kind == "metadata":
                self.usage = None
                self.usage_is_final = False


class InvokeStream(FrameReader):
    """Reads the stream of InvokeModel: each frame's payload wraps an event of the vendor (Anthropic or Nova)."""

    __slots__ = ("_message",)

    def __init__(self) -> None:
        super().__init__()
        self._message = MessagesStream()

    def read_frame(self, kind: str, frame: Frame) -> None:
        """Take one event."""
        try:
            wrapped = _decode_chunk(frame.payload).bytes
            data = b64decode(wrapped, validate=True) if wrapped is not None else b""
        except (ValueError, RecursionError, Base64Error):
            self._count_output(len(frame.payload))
            return
        if data.startswith((b'{"type"', b'{ "type"')) or b'"type"' in data[:200]:
            self._read_message(data)
        else:
            self._read_nova(data)

    def _read_message(self, data: bytes) -> None:
        message = self._message
        message.read_data(data)
        self.usage, self.usage_is_final = message.usage, message.usage_is_final
        self.is_done, self.finish_reason = message.is_done, message.finish_reason
        self.error_seen = self.error_seen or message.error_seen
        self.response_id = message.response_id
        self.deltas, self.output_bytes = message.deltas, message.output_bytes

    def _read_nova(self, data: bytes) -> None:
        try:
            event = _decode_nova(data)
        except (ValueError, RecursionError):
            self._count_output(len(data))
            return
        if event.contentBlockDelta is not None:
            self._count_output(_delta_bytes(event.contentBlockDelta))
        if event.messageStop is not None:
            self.finish_reason = event.messageStop.stopReason
        if event.metadata is not None:
            self._take_metadata(event.metadata)


def _delta_bytes(event: _DeltaEvent) -> int:
    """UTF-8 bytes generated; structures by their JSON."""
    delta = event.delta
    if delta is None:
        return 0
    size = len((delta.text or "").encode())
    for value in (delta.toolUse, delta.reasoningContent):
        if value is not None:
            size += len(msgspec.json.encode(value))
    return size


def _usage(stated: _Usage, answer: _Answer) -> Usage | None:
    """The stated counts as one record; None if a total is missing or a count is absurd."""
    plain, output = stated.inputTokens, stated.outputTokens
    if plain is None or output is None:
        return None
    read = stated.cacheReadInputTokens or stated.cacheReadInputTokenCount or 0
    written = stated.cacheWriteInputTokens or stated.cacheWriteInputTokenCount or 0
    hour = sum(detail.inputTokens or 0 for detail in stated.cacheDetails or () if detail.ttl == "1h")
    counts = (plain, output, read, written, hour)
    if min(counts) < 0 or max(counts) > MAX_TOKENS or hour > written:
        return None
    tier = None if answer.serviceTier is None else answer.serviceTier.type
    latency = None if answer.performanceConfig is None else answer.performanceConfig.latency
    return Usage(
        plain + read + written,
        output,
        cache_read_input_tokens=read,
        cache_creation_input_tokens=written,
        cache_creation_1h_input_tokens=hour,
        service_tier=tier,
        speed=None if latency in {None, "standard"} else latency,
    )
