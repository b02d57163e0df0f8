"""A provider's stream in the client's dialect: its server-sent events in, the client's out."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from outlay.wire.intent import Operation
from outlay.wire.sse import EventSplitter, event_data
from outlay.wire.translate.chat_events import ChatDecoder, ChatEncoder
from outlay.wire.translate.errors import VendorError
from outlay.wire.translate.events import Decoder, Encoder, Event, Failed, Finished
from outlay.wire.translate.gemini_events import GenerateDecoder, GenerateEncoder
from outlay.wire.translate.messages_events import MessagesDecoder, MessagesEncoder
from outlay.wire.translate.responses_events import ResponsesDecoder, ResponsesEncoder

_EARLY: Final = VendorError("the provider's stream ended before its answer did")
DECODERS: Final[Mapping[Operation, Callable[[], Decoder]]] = MappingProxyType(
    {
        Operation.CHAT: ChatDecoder,
        Operation.RESPONSES: ResponsesDecoder,
        Operation.MESSAGES: MessagesDecoder,
        Operation.GENERATE: GenerateDecoder,
    }
)


def encoder(client: Operation, model: str, *, include_usage: bool) -> Encoder:
    """What writes a client's stream."""
    match client:
        case Operation.CHAT:
            return ChatEncoder(model, include_usage=include_usage)
        case Operation.RESPONSES:
            return ResponsesEncoder(model)
        case Operation.MESSAGES:
            return MessagesEncoder(model)
        case Operation.GENERATE:
            return GenerateEncoder(model)
        case _:
            raise ValueError(f"{client} is no text generation")


class StreamTranslation:
    """One stream. Never raises, whatever the upstream sends.

    The bytes that go out, joined, do not depend on how the bytes that come in are split. After the end of the answer
    or an error nothing more goes out. A stream that ends before its answer does ends with an error: many clients take
    a stream that only stops for whole.
    """

    __slots__ = ("_decoder", "_encoder", "_is_over", "_splitter")

    def __init__(self, decoder: Decoder, encoder: Encoder) -> None:
        self._splitter = EventSplitter()
        self._decoder = decoder
        self._encoder = encoder
        self._is_over = False

    def feed(self, chunk: bytes) -> bytes:
        """Take what the upstream sent; return what goes to the client now (may be empty)."""
        if self._is_over:
            return b""
        written: list[bytes] = []
        for event in self._splitter.push(chunk):
            data = event_data(event)
            if not data:
                continue
            try:
                self._decoder.read(data)
            except (ValueError, RecursionError):
                self._decoder.fail(VendorError("the provider sent an event that cannot be read"), 502)
            if self._write(self._decoder.take(), written):
                return b"".join(written)
        if self._splitter.is_broken:
            failure = Failed(502, VendorError("the provider sent an event that is too long"))
            self._write([failure], written)
        return b"".join(written)

    def end(self) -> bytes:
        """The upstream closed: what was held back, and an error if the answer is not whole."""
        if self._is_over:
            return b""
        written: list[bytes] = []
        data = event_data(self._splitter.flush())
        if data:
            # a server that omits the last blank line still means its event; a cut one is not repaired
            try:
                self._decoder.read(data)
            except (ValueError, RecursionError):
                return self.fail(502, _EARLY)
        self._decoder.close()
        if not self._write(self._decoder.take(), written):
            written.append(self.fail(502, _EARLY))
        return b"".join(written)

    def fail(self, status: int, error: VendorError) -> bytes:
        """End the stream with an error; nothing if it is over."""
        written: list[bytes] = []
        if not self._is_over:
            self._write([Failed(status, error)], written)
        return b"".join(written)

    def _write(self, events: list[Event], written: list[bytes]) -> bool:
        """Append the bytes of events; return whether the stream is over."""
        for event in events:
            written.append(self._encoder.write(event))
            if isinstance(event, Finished | Failed):
                self._is_over = True
                return True
        return False


def open_translation(
    client: Operation, upstream: Operation, *, model: str, include_usage: bool
) -> StreamTranslation:
    """The translation of one stream. `model` is the name the client asked for.

    `include_usage`: whether a chat client asked for `stream_options.include_usage`; without it no usage chunk comes.
    """
    return StreamTranslation(DECODERS[upstream](), encoder(client, model, include_usage=include_usage))
