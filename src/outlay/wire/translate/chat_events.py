"""OpenAI chat completions: its stream read into neutral events, and written from them."""

from typing import Any, Final

import msgspec

from outlay.wire.intent import Operation
from outlay.wire.translate.chat_answers import STOPS, ChatUsage, chat_usage, finish_reason
from outlay.wire.translate.conversation import Seconds, Stop, Tokens
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

_DONE: Final = b"[DONE]"


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Custom(msgspec.Struct, gc=False):
    name: str | None = None
    input: str | None = None


class _Call(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    custom: _Custom | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    id: str | None = None
    created: Seconds | None = None
    choices: list[_Choice] | None = None
    usage: ChatUsage | None = None
    error: Any = None


_decode: Final = msgspec.json.Decoder(_Chunk).decode


class ChatDecoder(Decoder):
    """Its end mark is `[DONE]`; usage comes after the finish reason."""

    def __init__(self) -> None:
        super().__init__()
        self._stop = Stop.END
        self._tokens: Tokens | None = None
        self._call_index = -1
        self._call_id = ""

    def read(self, data: bytes) -> None:
        """See `Decoder`."""
        if data == _DONE:
            self.finish(self._stop, self._tokens)
            return
        chunk = _decode(data)
        if chunk.error is not None:
            error = error_of({"error": chunk.error}) or VendorError("the provider reported an error")
            self.fail(error, status_of(error))
            return
        self.start(chunk.id or "", int(chunk.created or 0))
        if chunk.usage is not None:
            self._tokens = chunk.usage.tokens()
        for choice in chunk.choices or ():
            if choice.index == 0:
                if choice.delta is not None:
                    self._read_delta(choice.delta)
                if choice.finish_reason is not None:
                    self._stop = STOPS.get(choice.finish_reason, Stop.END)

    def _read_delta(self, delta: _Delta) -> None:
        reasoning = delta.reasoning_content or delta.reasoning
        if reasoning and isinstance(reasoning, str):
            self.add(ReasoningDelta(reasoning))
        if delta.content:
            self.add(TextDelta(delta.content))
        if delta.refusal:
            self.add(RefusalDelta(delta.refusal))
        for call in delta.tool_calls or ():
            self._read_call(call)

    def _read_call(self, call: _Call) -> None:
        index = self._call_index if call.index is None else call.index
        function = call.function or _Function()
        custom = call.custom
        name = function.name if custom is None else custom.name
        # some servers give every call the index 0, and some repeat id and name in every delta
        is_other = bool(call.id) and bool(name) and call.id != self._call_id
        if index > self._call_index or is_other or not self.calls:
            self._call_index = max(index, self._call_index)
            self._call_id = call.id or f"call_{self.core}_{self.calls}"
            self.begin_call(self._call_id, name or "", is_custom=custom is not None)
        elif index < self._call_index or not self.has_open_call:
            self.fail(VendorError("the provider mixed the parts of several tool calls"), 502)
            return
        arguments = function.arguments if custom is None else custom.input
        self.add_arguments(arguments or "")


class ChatEncoder:
    """One chunk an event."""

    def __init__(self, model: str, *, include_usage: bool) -> None:
        self._model = msgspec.json.encode(model)
        self._include_usage = include_usage
        self._head = b""
        self._no_usage = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._tail = b',"logprobs":null,"finish_reason":null}]' + self._no_usage
        self._calls = -1
        self._is_custom = False
        self._has_refusal = False

    def write(self, event: Event) -> bytes:
        """See `Encoder`."""
        match event:
            case TextDelta():
                return self._chunk({"content": event.text})
            case CallDelta():
                kind, field = ("custom", "input") if self._is_custom else ("function", "arguments")
                call: dict[str, object] = {"index": self._calls, kind: {field: event.arguments}}
                return self._chunk({"tool_calls": [call]})
            case ReasoningDelta():
                return self._chunk({"reasoning_content": event.text})
            case RefusalDelta():
                self._has_refusal = True
                return self._chunk({"refusal": event.text})
            case CallStarted():
                return self._start_call(event)
            case Started():
                self._head = (
                    b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":['
                    % (msgspec.json.encode(f"chatcmpl-{event.id}"), event.created, self._model)
                )
                return self._chunk({"role": "assistant", "content": "", "refusal": None})
            case Finished():
                return self._finish(event)
            case Failed():
                return error_event(Operation.CHAT, event.status, event.error, 0)
            case Sealed() | CallEnded():
                return b""  # a seal has no place here

    def _chunk(self, delta: dict[str, object]) -> bytes:
        return b'%b{"index":0,"delta":%b%b' % (self._head, msgspec.json.encode(delta), self._tail)

    def _start_call(self, event: CallStarted) -> bytes:
        self._calls += 1
        self._is_custom = event.is_custom
        kind, field = ("custom", "input") if event.is_custom else ("function", "arguments")
        call = {"index": self._calls, "id": event.id, "type": kind, kind: {"name": event.name, field: ""}}
        return self._chunk({"tool_calls": [call]})

    def _finish(self, event: Finished) -> bytes:
        reason = finish_reason(event.stop, has_refusal=self._has_refusal)
        last = b'%b{"index":0,"delta":{},"logprobs":null,"finish_reason":"%b"}]%b' % (
            self._head,
            reason.encode(),
            self._no_usage,
        )
        usage = b""
        if self._include_usage and event.tokens is not None:
            usage = self._head + b'],"usage":' + msgspec.json.encode(chat_usage(event.tokens)) + b"}\n\n"
        return last + usage + b"data: [DONE]\n\n"
