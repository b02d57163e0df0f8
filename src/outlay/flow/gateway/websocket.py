"""The client's side of a WebSocket: framing by the `websockets` library without its I/O, on the transport of a client.

Knows nothing of money or of vendors: whole messages go to `on_message`, and text goes out by `send`.
"""

import asyncio
from collections.abc import Callable, Sequence

from websockets.exceptions import InvalidHandshake
from websockets.frames import OP_BINARY, OP_CONT, OP_TEXT, Frame
from websockets.http11 import Request as Handshake
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from outlay.flow.gateway.client import Request

GOING_AWAY = 1001
POLICY = 1008
TOO_BIG = 1009
MAX_UNREAD = 4 * 1024 * 1024
"""Bytes that a peer may leave unread while it sends more."""
FRAME_COST = 64
"""What a frame counts beside its bytes: a message may come in many empty ones."""
CLOSE_S = 5.0
"""How long the peer has for its part of the closing handshake."""


class WebSocket(asyncio.Protocol):
    """One accepted WebSocket. The owner sets the callbacks before `open` is called."""

    def __init__(
        self, transport: asyncio.Transport, max_message_bytes: int, subprotocols: Sequence[str]
    ) -> None:
        self.transport = transport
        self._protocol = ServerProtocol(
            max_size=max_message_bytes,
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            select_subprotocol=_select,
        )
        self._parts: list[bytes] = []
        self._size = 0
        self._max = max_message_bytes
        self.is_open = False
        self.can_write = True
        self._deadline: asyncio.TimerHandle | None = None
        """Ends the wait for the peer's goodbye."""
        self.on_message: Callable[[bytes], None] = _ignore
        self.on_closed: Callable[[], None] = _nothing
        self.on_writable: Callable[[bool], None] = _ignore_bool

    def open(self, request: Request, rest: bytes) -> bool:
        """Answer the handshake and take over the transport; False if it is no sound handshake (nothing was written)."""
        if self.transport.is_closing():
            return False
        lines = [b"%b %b HTTP/1.1\r\n" % (request.method, request.path)]
        lines += [b"%b: %b\r\n" % header for header in request.headers]
        self._protocol.receive_data(b"".join(lines) + b"\r\n")
        events = self._protocol.events_received()
        if len(events) != 1 or not isinstance(events[0], Handshake):
            return False
        try:
            response = self._protocol.accept(events[0])
        except InvalidHandshake:
            return False
        if response.status_code != 101:
            return False
        self._protocol.send_response(response)
        self.transport.set_protocol(self)
        self.is_open = True
        self._write()
        if rest:
            self.data_received(rest)
        return True

    def send(self, text: bytes) -> None:
        """Send one text message; nothing once the socket is closing."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_text(text)
            self._write()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the closing handshake."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason[:100])
            self._write()

    def abort(self) -> None:
        """Close at once."""
        if self.is_open:
            self.transport.abort()

    # -- the client's connection, before the handshake is answered (`client.Answering`) -------------------------

    def on_client_gone(self) -> None:
        """The client left while its handshake was waiting."""
        self.on_closed()

    def on_client_writable(self, is_writable: bool) -> None:
        """Nothing is written before the handshake."""

    # -- asyncio ----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self.can_write and self.transport.get_write_buffer_size() > MAX_UNREAD:
            # it asks (pings) and does not read what it is answered
            self.transport.abort()
            return
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take(event)
        self._write()

    def eof_received(self) -> bool:
        self._protocol.receive_eof()
        self._write()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self.is_open:
            self.is_open = False
            self.on_closed()

    def pause_writing(self) -> None:
        self.can_write = False
        self.on_writable(False)

    def resume_writing(self) -> None:
        self.can_write = True
        self.on_writable(True)

    def _take(self, frame: Frame) -> None:
        if frame.opcode in (OP_TEXT, OP_BINARY):
            self._parts, self._size = [], 0
        elif frame.opcode is not OP_CONT and frame.opcode != OP_CONT:
            return
        if self._protocol.state is not State.OPEN:
            # sent before the peer saw our goodbye
            return
        self._size += len(frame.data) + FRAME_COST
        if self._size > self._max:
            self.close(TOO_BIG, "the message is too large")
            return
        self._parts.append(bytes(frame.data))
        if frame.fin:
            message = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts = []
            self.on_message(message)

    def _write(self) -> None:
        for data in self._protocol.data_to_send():
            if self.transport.is_closing():
                continue
            if data:
                self.transport.write(data)
            elif self.transport.can_write_eof():
                self.transport.write_eof()
        if not self._protocol.close_expected() or self.transport.is_closing():
            return
        if self._protocol.close_rcvd is not None:
            # both have said goodbye: what is written still goes out
            self.transport.close()
        elif self._deadline is None:
            # To close over bytes that were not read resets the connection, and the peer never sees why it was closed.
            self._deadline = asyncio.get_running_loop().call_later(CLOSE_S, self.transport.abort)


def _select(protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """The first of ours that the client offers; none if it offers none: it needs none here."""
    ours = protocol.available_subprotocols or ()
    return next((name for name in ours if name in offered), None)


def _ignore(_message: bytes) -> None:
    return None


def _ignore_bool(_is_writable: bool) -> None:
    return None


def _nothing() -> None:
    return None
