"""Anthropic Messages: its stream read into neutral events, and written from them."""

from typing import Any, Final

import msgspec

from outlay.wire.intent import Operation
from outlay.wire.translate.conversation import Origin, Seal, Stop, Tokens, unwrap_seal
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
from outlay.wire.translate.messages_answers import (
    REASONS,
    STOPS,
    MessageUsage,
    StopDetails,
    message_usage,
    seal_block,
)


class _Block(msgspec.Struct, gc=False):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")
    data: str = ""


class _Delta(msgspec.Struct, gc=False):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: StopDetails | None = None


class _Message(msgspec.Struct, gc=False):
    id: str = ""
    usage: MessageUsage | None = None


class _Event(msgspec.Struct):
    type: str = ""
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: MessageUsage | None = None
    error: Any = None


_decode: Final = msgspec.json.Decoder(_Event).decode


class MessagesDecoder(Decoder):
    """Its end mark is `message_stop`."""

    def __init__(self) -> None:
        super().__init__()
        self._usage = MessageUsage()
        self._stop = Stop.END
        self._stop_sequence: str | None = None
        self._is_foreign = False

    def read(self, data: bytes) -> None:
        """See `Decoder`."""
        event = _decode(data)
        match event.type:
            case "content_block_delta" if event.delta is not None:
                self._read_delta(event.delta)
            case "content_block_start" if event.content_block is not None:
                self._start_block(event.content_block)
            case "content_block_stop":
                self._is_foreign = False
                self.end_call()
            case "message_start" if event.message is not None:
                self.start(event.message.id)
                if event.message.usage is not None:
                    self._usage = event.message.usage
            case "message_delta":
                self._read_end(event)
            case "message_stop":
                self.finish(self._stop, self._usage.tokens(), self._stop_sequence)
            case "error":
                error = error_of({"error": event.error}) or VendorError("the provider reported an error")
                self.fail(error, status_of(error))
            case _:
                pass

    def _start_block(self, block: _Block) -> None:
        match block.type:
            case "text" if block.text:
                self.add(TextDelta(block.text))
            case "tool_use":
                self.begin_call(block.id, block.name)
                if bytes(block.input).strip() not in {b"{}", b"null", b'""'}:
                    self.add_arguments(bytes(block.input).decode())
            case "thinking":
                if block.thinking:
                    self.add(ReasoningDelta(block.thinking))
                if block.signature:
                    self.add(Sealed(unwrap_seal(block.signature, Origin.MESSAGES)))
            case "redacted_thinking":
                self.add(Sealed(Seal(Origin.REDACTED, block.data)))
            case "text":
                pass
            case _:
                # of a tool that Anthropic runs, which no translated request can ask for
                self._is_foreign = True

    def _read_delta(self, delta: _Delta) -> None:
        match delta.type:
            case "text_delta" if delta.text:
                self.add(TextDelta(delta.text))
            case "input_json_delta" if not self._is_foreign:
                self.add_arguments(delta.partial_json)
            case "thinking_delta" if delta.thinking:
                self.add(ReasoningDelta(delta.thinking))
            case "signature_delta" if delta.signature:
                self.add(Sealed(unwrap_seal(delta.signature, Origin.MESSAGES)))
            case _:
                pass

    def _read_end(self, event: _Event) -> None:
        if event.usage is not None:
            self._usage = event.usage.after(self._usage)
        if event.delta is not None and event.delta.stop_reason is not None:
            self._stop = STOPS.get(event.delta.stop_reason, Stop.END)
            self._stop_sequence = event.delta.stop_sequence
            details = event.delta.stop_details
            if details is not None and details.explanation:
                self.add(RefusalDelta(details.explanation))


def _event(name: bytes, fields: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, msgspec.json.encode({"type": name.decode(), **fields}))


class MessagesEncoder:
    """Content blocks one after the other, each opened and closed."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._index = -1
        self._open: str | None = None
        self._delta_head = b""

    def write(self, event: Event) -> bytes:
        """See `Encoder`."""
        match event:
            case TextDelta() | RefusalDelta():
                return self._delta("text", b"text_delta", b"text", event.text)
            case CallDelta():
                return self._delta("tool_use", b"input_json_delta", b"partial_json", event.arguments)
            case ReasoningDelta():
                return self._delta("thinking", b"thinking_delta", b"thinking", event.text)
            case Sealed():
                return self._seal(event.seal)
            case CallStarted():
                block = {"type": "tool_use", "id": event.id, "name": event.name, "input": {}}
                return self._start_block("tool_use", block)
            case CallEnded():
                return self._close()
            case Started():
                message: dict[str, Any] = {
                    "id": f"msg_{event.id}",
                    "type": "message",
                    "role": "assistant",
                    "model": self._model,
                    "content": [],
                    "stop_reason": None,
                    "stop_sequence": None,
                    "usage": message_usage(Tokens()),
                }
                return _event(b"message_start", {"message": message})
            case Finished():
                delta = {"stop_reason": REASONS[event.stop], "stop_sequence": event.stop_sequence}
                usage = message_usage(event.tokens or Tokens())
                return (
                    self._close()
                    + _event(b"message_delta", {"delta": delta, "usage": usage})
                    + _event(b"message_stop", {})
                )
            case Failed():
                return error_event(Operation.MESSAGES, event.status, event.error, 0)

    def _delta(self, block: str, kind: bytes, field: bytes, text: str) -> bytes:
        start = b""
        if self._open != block:
            start = self._start_block(block, {"type": block, "text" if block == "text" else "thinking": ""})
        return b'%bevent: content_block_delta\ndata: %b"%b","%b":%b}}\n\n' % (
            start,
            self._delta_head,
            kind,
            field,
            msgspec.json.encode(text),
        )

    def _seal(self, seal: Seal) -> bytes:
        if seal.origin is Origin.REDACTED:
            return self._start_block("redacted", seal_block(seal, "")) + self._close()
        start = b""
        if self._open != "thinking":
            start = self._start_block("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        signature = seal_block(seal, "")["signature"]
        delta = {"type": "signature_delta", "signature": signature}
        return start + _event(b"content_block_delta", {"index": self._index, "delta": delta}) + self._close()

    def _start_block(self, kind: str, block: dict[str, Any]) -> bytes:
        closed = self._close()
        self._open = kind
        self._index += 1
        self._delta_head = b'{"type":"content_block_delta","index":%d,"delta":{"type":' % self._index
        if kind == "thinking":
            block.setdefault("signature", "")
        return closed + _event(b"content_block_start", {"index": self._index, "content_block": block})

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return _event(b"content_block_stop", {"index": self._index})
