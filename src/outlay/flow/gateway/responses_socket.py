"""The Responses API over a WebSocket: each `response.create` is an ordinary call, its events go back as messages.

The gateway ends the socket and asks the provider over HTTP, so that every response has its own hold, may be
translated, and may go to any target. What a provider would keep for the length of a socket (`store: false` with
`previous_response_id`) is kept here instead: the last conversation, in memory, under the limits of a body. So is what
`generate: false` prepares (Codex does that first): HTTP knows no such call and would generate, so it is answered here
and costs nothing.
"""

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from outlay.flow.gateway.client import Answering, Request
from outlay.flow.gateway.exchange import Exchange
from outlay.flow.gateway.refusal import Refusal
from outlay.flow.gateway.websocket import GOING_AWAY, POLICY, WebSocket
from outlay.flow.scope import Identity
from outlay.kernel.errors import AccountingBroken
from outlay.wire.fields import read_fields
from outlay.wire.intent import Rejection
from outlay.wire.refusal import socket_error
from outlay.wire.sse import EventSplitter, event_data

if TYPE_CHECKING:
    from outlay.flow.gateway.server import Gateway

MAX_QUEUED: Final = 16
"""Responses asked for while one is running."""
IDLE_S: Final = 3600
"""A socket that asks for nothing for so long is closed."""


class _Message(msgspec.Struct, gc=False):
    type: str = ""
    stream_id: str | None = None
    """The lane, which every event of its response names."""
    generate: bool | None = None


class _Completed(msgspec.Struct, gc=False):
    id: str = ""
    output: list[msgspec.Raw] = []


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    response: _Completed | None = None


_decode_message: Final = msgspec.json.Decoder(_Message).decode
_decode_event: Final = msgspec.json.Decoder(_Event).decode
_decode_items: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_NOT_SENT: Final = frozenset(
    {"type", "background", "stream", "stream_options", "event_id", "stream_id", "generate"}
)
_ENDS: Final = (b"response.completed", b"response.incomplete")
_LAST: Final = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})
"""Events after which a client waits for nothing more."""
_NO_USAGE: Final = {
    "input_tokens": 0,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 0,
}


class Body(NamedTuple):
    """What is asked over HTTP for one `response.create`."""

    data: bytes
    items: list[msgspec.Raw] | None
    """Its whole input, if that must be remembered."""
    base: object | None
    """The provider's response that it goes on from."""


class Memory:
    """The conversation of a socket's last response that the provider did not keep."""

    __slots__ = ("base", "is_prepared", "items", "response_id")

    def __init__(self) -> None:
        self.response_id = ""
        self.items: list[msgspec.Raw] = []
        self.is_prepared = False
        """It was only prepared: the provider has not seen it, stored or not."""
        self.base: object | None = None
        """The provider's response that came before `items`."""


class ResponsesSession:
    """See the module. One a socket; responses run one after the other."""

    def __init__(self, gateway: "Gateway", socket: WebSocket, request: Request, identity: Identity) -> None:
        self.identity = identity
        self._gateway = gateway
        self._socket = socket
        self._handshake = request
        self._turn: Turn | None = None
        self._queue: deque[bytes] = deque()
        self.memory = Memory()
        self.memo: object | None = None
        self._idle_since = gateway.tick
        socket.on_message = self._on_message
        socket.on_closed = self._on_closed
        socket.on_writable = self._on_writable
        self._stalled_since = 0
        gateway.sessions.add(self)

    def stop(self, reason: str) -> None:
        """The gateway stops: no further response."""
        self._queue.clear()
        self._socket.close(GOING_AWAY, reason)

    def cut(self, refusal: Refusal) -> None:
        """An order stops it; the running response was cut as a call."""
        self._queue.clear()
        self._refuse(refusal.status, refusal.code, refusal.message)
        self._socket.close(POLICY, refusal.code)

    def overdue(self, now: int) -> None:
        """Time limits; monotonic ns."""
        if (
            self._stalled_since
            and now - self._stalled_since >= self._gateway.settings.client_stall_s * 1_000_000_000
        ):
            # its goodbye would not be read either; the turn goes on as a call whose client is gone
            self._socket.abort()
        if self._turn is None and (now - self._idle_since) // 1_000_000_000 >= IDLE_S:
            self._socket.close(GOING_AWAY, "idle")

    def send(self, data: bytes) -> None:
        """One event to the client."""
        self._socket.send(data)

    @property
    def can_write(self) -> bool:
        """Whether the client takes its messages."""
        return self._socket.can_write

    def turn_ended(self) -> None:
        """The response is over; the next one begins."""
        self._turn = None
        self._idle_since = self._gateway.tick
        if self._queue and self._socket.is_open:
            self._gateway.loop.call_soon(self._begin_next)

    def _begin_next(self) -> None:
        if self._queue and self._turn is None and self._socket.is_open:
            self._begin(self._queue.popleft())

    def _on_message(self, message: bytes) -> None:
        try:
            kind = _decode_message(message).type
        except (ValueError, RecursionError):
            self._refuse(400, "invalid_json", "a message must be one JSON object")
            return
        if kind != "response.create":
            self._refuse(
                422, "unsupported_event", f"`type` {kind[:64]!r} is not metered here; send response.create"
            )
        elif self._turn is None:
            self._begin(message)
        elif len(self._queue) < MAX_QUEUED:
            self._queue.append(message)
        else:
            self._refuse(429, "too_many_pipelined", f"at most {MAX_QUEUED} responses may wait for their turn")

    def _begin(self, message: bytes) -> None:
        body = self._body_of(message)
        if isinstance(body, Rejection):
            self._refuse(body.status, body.code, body.message)
            self.turn_ended()
            return
        asked = _decode_message(message)
        lane = (
            b"" if asked.stream_id is None else b',"stream_id":' + msgspec.json.encode(asked.stream_id) + b"}"
        )
        if asked.generate is False:
            self._prepare(body, lane)
            return
        turn = Turn(self, body, lane)
        self._turn = turn
        request = Request()
        shaken = self._handshake
        request.method, request.path, request.headers = b"POST", b"/v1/responses", shaken.headers
        request.body, request.encoding, request.keep_alive, request.is_http10 = body.data, b"", True, False
        request.received_at = self._gateway.clock.monotonic()
        exchange = Exchange(self._gateway, turn, request)
        try:
            self._gateway.desk.take(exchange, turn, request)
        except AccountingBroken:
            raise
        except Exception as error:  # noqa: BLE001 - the request shell: whatever went wrong, the hold ends
            exchange.fail(error)

    def _body_of(self, message: bytes) -> "Body | Rejection":
        """The HTTP body of a `response.create`, with what of it must be remembered."""
        fields = read_fields(message)
        if isinstance(fields, Rejection):
            return fields
        kept: dict[str, object] = {name: value for name, value in fields.items() if name not in _NOT_SENT}
        kept["stream"] = True
        items: list[msgspec.Raw] | None = None
        memory, previous = self.memory, fields.get("previous_response_id")
        is_last = previous is not None and bytes(previous) == msgspec.json.encode(memory.response_id)
        is_stored = bytes(fields.get("store", b"true")) != b"false"
        is_prepared = bytes(fields.get("generate", b"true")) == b"false"
        if not is_stored or is_prepared or (is_last and memory.is_prepared):
            items = _items_of(fields.get("input"))
            if items is not None and is_last:
                items = memory.items + items
                del kept["previous_response_id"]
                if memory.base is not None:
                    kept["previous_response_id"] = memory.base
            if items is not None:
                kept["input"] = items
        body = msgspec.json.encode(kept)
        if len(body) > self._gateway.settings.max_body_bytes:
            return Rejection(
                413, "body_too_large", "the conversation of this socket is larger than max_body_bytes"
            )
        return Body(body, items, kept.get("previous_response_id"))

    def _prepare(self, body: "Body", lane: bytes) -> None:
        """Answer `generate: false`: remembered under an id that the next response may build on."""
        fields = msgspec.json.decode(body.data, type=dict[str, msgspec.Raw])
        gateway, memory = self._gateway, self.memory
        memory.response_id = "resp_" + gateway.ids.make().hex()
        memory.items, memory.base, memory.is_prepared = body.items or [], body.base, True
        response: dict[str, object] = {
            "id": memory.response_id,
            "object": "response",
            "created_at": gateway.clock.now() // 1_000_000_000,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "instructions": fields.get("instructions"),
            "model": fields.get("model"),
            "output": [],
            "parallel_tool_calls": fields.get("parallel_tool_calls", True),
            "tool_choice": fields.get("tool_choice", "auto"),
            "tools": fields.get("tools", []),
            "usage": None,
        }
        self._tell("response.created", 0, response, lane)
        response |= {"status": "completed", "usage": _NO_USAGE}
        self._tell("response.completed", 1, response, lane)
        self.turn_ended()

    def _tell(self, kind: str, number: int, response: dict[str, object], lane: bytes) -> None:
        event = msgspec.json.encode({"type": kind, "sequence_number": number, "response": response})
        self.send(event[:-1] + lane if lane else event)

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._gateway.metrics.refused(code)
        self.send(socket_error(status, code, message, {}))

    def _on_closed(self) -> None:
        self._gateway.sessions.discard(self)
        self._queue.clear()
        turn, self._turn = self._turn, None
        if turn is not None and turn.answering is not None:
            turn.answering.on_client_gone()

    def _on_writable(self, is_writable: bool) -> None:
        self._stalled_since = 0 if is_writable else self._gateway.tick
        turn = self._turn
        if turn is not None and turn.answering is not None:
            turn.answering.on_client_writable(is_writable)


class Turn:
    """One response of a socket, in the shape of a client's connection."""

    def __init__(self, session: ResponsesSession, body: Body, lane: bytes) -> None:
        self._session = session
        self._items, self._base = body.items, body.base
        self._lane = lane
        self._splitter = EventSplitter()
        self._is_told = False
        self.answering: Answering | None = None

    @property
    def memo(self) -> object | None:
        """What the gateway remembers of the caller."""
        return self._session.memo

    @memo.setter
    def memo(self, value: object | None) -> None:
        self._session.memo = value

    @property
    def can_write(self) -> bool:
        """Whether the client takes its messages."""
        return self._session.can_write

    def write_whole(self, status: int, head: bytes, body: bytes) -> None:
        """An answer that is no stream: an error, as an event."""
        try:
            error = msgspec.json.decode(body, type=dict[str, dict[str, object]])["error"]
        except (ValueError, KeyError, RecursionError):
            error = {}
        code, message = error.pop("code", None), error.pop("message", None)
        text = message if isinstance(message, str) else f"the provider answered with status {status}"
        self._send(socket_error(status, code if isinstance(code, str) else "upstream_error", text, error))
        self._session.turn_ended()

    def begin_stream(self, status: int, head: bytes) -> None:
        """The events follow."""

    def write_part(self, data: bytes) -> None:
        """Bytes of the event stream: whole events go on as messages."""
        for event in self._splitter.push(data):
            text = event_data(event)
            if text and text != b"[DONE]":
                self._pass_on(text)

    def _pass_on(self, text: bytes) -> None:
        if self._items is not None and any(end in text for end in _ENDS):
            self._remember(text)
        if b'"response"' in text or b'"error"' in text:
            self._is_told = self._is_told or _type_of(text) in _LAST
        self._send(text)

    def _send(self, event: bytes) -> None:
        self._session.send(event[:-1] + self._lane if self._lane else event)

    def end_stream(self, data: bytes = b"") -> None:
        """The response is over. A socket stays open, so a stream that only stops would leave its client waiting."""
        self.write_part(data)
        rest = event_data(self._splitter.flush())
        if rest and _type_of(rest):
            self._pass_on(rest)  # a server that omits the last blank line still means its event
        if not self._is_told:
            text = "The provider's stream ended before its answer did."
            self._send(socket_error(502, "upstream_failed", text, {}))
        self._session.turn_ended()

    def break_off(self, event: bytes) -> None:
        """See `client.Answered`: half an event has not left."""
        self._splitter = EventSplitter()
        self.end_stream(event)

    def _remember(self, text: bytes) -> None:
        try:
            event = _decode_event(text)
        except (ValueError, RecursionError):
            return
        if event.response is not None and event.type.encode() in _ENDS and self._items is not None:
            memory = self._session.memory
            memory.response_id = event.response.id
            memory.items = self._items + event.response.output
            memory.is_prepared, memory.base = False, self._base


def _type_of(event: bytes) -> str:
    """The type of an event; empty if it cannot be read."""
    try:
        return _decode_event(event).type
    except (ValueError, RecursionError):
        return ""


def _items_of(value: msgspec.Raw | None) -> list[msgspec.Raw] | None:
    """The input as items; None if it cannot be read as such."""
    if value is None:
        return []
    try:
        if bytes(value)[:1] == b'"':
            text = msgspec.json.decode(value, type=str)
            return [msgspec.Raw(msgspec.json.encode({"role": "user", "content": text}))]
        return _decode_items(value)
    except (ValueError, RecursionError):
        return None
