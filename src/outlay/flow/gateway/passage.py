"""A call that its provider takes in another dialect: the body there, and the way of the answer back. Pure.

Pass-through calls have no passage and pay nothing for this.
"""

import msgspec

from outlay.flow.gateway.dialects import PARSERS, parse_generated
from outlay.flow.gateway.refusal import Refusal
from outlay.flow.gateway.snapshot import Settings
from outlay.wire.intent import CallIntent, Operation, Rejection
from outlay.wire.refusal import error_body
from outlay.wire.translate import (
    StreamTranslation,
    VendorError,
    open_translation,
    translate_answer,
    translate_error,
    translate_request,
)

_CONTENT_TYPE = b"content-type: application/json\r\n"
_FORWARDED = {Operation.MESSAGES: _CONTENT_TYPE + b"anthropic-version: 2023-06-01\r\n"}
_JSON = [(b"content-type", b"application/json")]
_EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class Passage:
    """See the module."""

    __slots__ = ("_asked", "_stream", "body", "intent")

    def __init__(self, asked: CallIntent, intent: CallIntent, body: bytes) -> None:
        self._asked = asked
        self.intent = intent
        """The call as its provider is asked for it."""
        self.body = body
        self._stream: StreamTranslation | None = None

    @property
    def forwarded(self) -> bytes:
        """Header lines that go to the provider: the client's own are of another vendor."""
        return _FORWARDED.get(self.intent.operation, _CONTENT_TYPE)

    def headers(self, is_stream: bool) -> list[tuple[bytes, bytes]]:
        """Header fields of the client's answer: the provider's speak of another body."""
        return _EVENTS if is_stream else _JSON

    def feed(self, data: bytes) -> bytes:
        """Events of the client's dialect for bytes of the provider's stream."""
        return self._opened().feed(data) if data else b""

    def end(self) -> bytes:
        """What is left at the stream's end; an error if the answer is not whole."""
        return self._opened().end()

    def fail(self, status: int, code: str, message: str) -> bytes:
        """The error that ends a stream; nothing if the client has been told of an end."""
        return self._opened().fail(status, VendorError(message, code))

    def _opened(self) -> StreamTranslation:
        if self._stream is None:
            asked = self._asked
            self._stream = open_translation(
                asked.operation,
                self.intent.operation,
                model=asked.model,
                include_usage=asked.wants_stream_usage,
            )
        return self._stream

    def answer(self, status: int, body: bytes, request_id: str) -> tuple[int, bytes]:
        """Status and body of a whole answer in the client's dialect."""
        asked, upstream = self._asked, self.intent.operation
        if status >= 300:
            return status, translate_error(asked.operation, upstream, status, body, request_id)
        translated = translate_answer(asked.operation, upstream, body, model=asked.model)
        if translated is not None:
            return status, translated
        text = "The provider's answer cannot be read, so it cannot be translated; it was booked."
        return 502, error_body(asked.dialect, 502, "upstream_unreadable", text, {}, request_id)


def passage_of(
    asked: CallIntent, upstream: Operation, model: str, body: bytes, settings: Settings
) -> Passage | Refusal:
    """The passage of a call to a provider that speaks `upstream`; a refusal that names what it cannot carry."""
    limit = asked.max_output_tokens
    if limit is None:
        limit = settings.default_max_output_tokens
    translated = translate_request(
        asked.operation, upstream, body, model=model, stream=asked.stream, max_output_tokens=limit
    )
    if isinstance(translated, Rejection):
        return _refusal(translated)
    intent: CallIntent | Rejection
    if upstream is Operation.GENERATE:
        intent = parse_generated(translated.body, model, asked.stream)
    else:
        intent = PARSERS[upstream](translated.body)
    if isinstance(intent, Rejection):
        return _refusal(intent)
    if asked.max_output_tokens is None:
        # what stands there is the operator's default: it may be lowered, and a header says so
        intent = msgspec.structs.replace(intent, max_output_tokens=None)
    return Passage(asked, intent, translated.body)


def _refusal(rejection: Rejection) -> Refusal:
    return Refusal(rejection.status, rejection.code, rejection.message, {"param": rejection.param})
