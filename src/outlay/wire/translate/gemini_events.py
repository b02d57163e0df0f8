"""Google Gemini: its stream read into neutral events, and written from them.

It has no end mark: an answer whose last chunk named a finish reason is whole when the connection ends. So `Finished`
comes with `close`, with the last usage. Tool calls come whole.
"""

from typing import Any

import msgspec

from outlay.wire.intent import Operation
from outlay.wire.translate.conversation import Reasoning, Stop, Text, Tokens, ToolCall
from outlay.wire.translate.errors import VendorError, error_event, error_of, status_of
from outlay.wire.translate.events import (
    CallDelta,
    CallEnded,
    CallStarted,
    Decoder,
    Event,
    Failed,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Sealed,
    Started,
    TextDelta,
)
from outlay.wire.translate.gemini_answers import (
    call_part,
    decode_google,
    google_chunk,
    google_usage,
    read_part,
    seal_text,
)


class GenerateDecoder(Decoder):
    """Every chunk is an answer of its own; usage is the total so far."""

    def __init__(self) -> None:
        super().__init__()
        self._stop: Stop | None = None
        self._tokens: Tokens | None = None

    def read(self, data: bytes) -> None:
        """See `Decoder`."""
        chunk = decode_google(data)
        if chunk.error is not None:
            error = error_of({"error": chunk.error}) or VendorError("the provider reported an error")
            self.fail(error, status_of(error))
            return
        self.start(chunk.response_id or "")
        if chunk.usage_metadata is not None:
            self._tokens = chunk.usage_metadata.tokens()
        for given in chunk.parts():
            for part in read_part(given, self.core, self.calls):
                match part:
                    case Text():
                        self.add(TextDelta(part.text))
                    case Reasoning():
                        if part.text:
                            self.add(ReasoningDelta(part.text))
                        if part.seal is not None:
                            self.add(Sealed(part.seal))
                    case ToolCall():
                        self.begin_call(part.id, part.name)
                        self.add_arguments(part.arguments)
                        self.end_call()
                    case _:
                        pass
        self._stop = chunk.stop() or self._stop

    def close(self) -> None:
        """See `Decoder`."""
        if self._stop is not None:
            self.finish(self._stop, self._tokens)


class GenerateEncoder:
    """One chunk an event; arguments are held until a call is whole."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._id = ""
        self._call: CallStarted | None = None
        self._arguments: list[str] = []

    def write(self, event: Event) -> bytes:
        """See `Encoder`."""
        match event:
            case TextDelta() | RefusalDelta():
                return self._chunk({"text": event.text})
            case ReasoningDelta():
                return self._chunk({"text": event.text, "thought": True})
            case Sealed():
                return self._chunk({"text": "", "thought": True, "thoughtSignature": seal_text(event.seal)})
            case CallStarted():
                self._call = event
                self._arguments.clear()
                return b""
            case CallDelta():
                self._arguments.append(event.arguments)
                return b""
            case CallEnded():
                call, self._call = self._call, None
                if call is None:
                    return b""
                return self._chunk(call_part(call.id, call.name, "".join(self._arguments)))
            case Started():
                self._id = event.id
                return b""
            case Finished():
                chunk = google_chunk(self._id, self._model, [{"text": ""}], event.stop)
                chunk["usageMetadata"] = google_usage(event.tokens or Tokens())
                return b"data: " + msgspec.json.encode(chunk) + b"\n\n"
            case Failed():
                return error_event(Operation.GENERATE, event.status, event.error, 0)

    def _chunk(self, part: dict[str, Any]) -> bytes:
        return b"data: " + msgspec.json.encode(google_chunk(self._id, self._model, [part], None)) + b"\n\n"
