"""What the gateway reads: a real `ClientConnection` on a transport and a host that only write down."""

import asyncio
from collections.abc import Iterable
from enum import Enum
from typing import Any

from outlay.flow.gateway.client import ClientConnection, Request
from outlay.flow.gateway.snapshot import Settings
from tests.fuzz.reading import End, Message, Reading, comparable

SETTINGS = Settings(max_body_bytes=100_000, max_header_bytes=8_000, max_headers=40)
SOCKET = b"/socket"
"""A path whose upgrades are granted."""


class Answering(Enum):
    """When a request is answered."""

    AT_ONCE = 0
    """Within `on_request`, as refusals are."""
    SOON = 1
    """Before the next bytes come."""
    LATE = 2
    """When the transport has been paused for two reads; a transport may deliver what it had read."""


class Wire(asyncio.Transport):
    """A transport that goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_paused = False
        self._is_closing = False

    def write(self, data: Any) -> None:
        assert not self._is_closing, "written to a closed connection"
        self.written += bytes(data)

    def close(self) -> None:
        self._is_closing = True

    abort = close

    def is_closing(self) -> bool:
        return self._is_closing

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class Writer:
    """The host: takes down what the connection gives it, and answers."""

    settings = SETTINGS
    is_draining = False
    tick = 0

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self.reading = Reading()
        self.waiting: ClientConnection | None = None
        self._answers = 0

    def monotonic(self) -> int:
        return 0

    def on_connected(self, connection: ClientConnection) -> bool:
        return True

    def on_disconnected(self, connection: ClientConnection) -> None:
        pass

    def may_continue(self, headers: list[tuple[bytes, bytes]]) -> bool:
        return True

    def fault_body(self, path: bytes, status: int, code: str, message: str) -> bytes:
        assert 400 <= status < 500
        self.reading.end, self.reading.why = End.REFUSED, code
        return b"{}"

    def on_request(self, connection: ClientConnection, request: Request) -> None:
        assert not connection.is_closing, "a request of a connection that is closing"
        assert self.waiting is None, "two requests at a time"
        self._note(request)
        self.waiting = connection
        if self._answering is Answering.AT_ONCE:
            self.answer()

    def on_upgrade(self, connection: ClientConnection, request: Request, rest: bytes) -> bool:
        if request.path != SOCKET:
            return False
        self._note(request)
        self.reading.end = End.SWITCHED
        self.reading.rests.append(rest)
        return True

    def answer(self) -> None:
        """Answer the request that waits."""
        connection, self.waiting = self.waiting, None
        assert connection is not None
        assert connection.request is not None
        request = connection.request
        self._answers += 1
        is_stream = self._answers % 2 == 0
        if not request.keep_alive or (is_stream and request.is_http10):
            self.reading.end = End.CLOSED
        if not is_stream:
            connection.write_whole(200, b"", b"ok")
        else:
            connection.begin_stream(200, b"")
            connection.write_part(b"o")
            connection.end_stream(b"k")

    def _note(self, request: Request) -> None:
        fields = comparable(request.headers)
        self.reading.messages.append(
            Message(request.method, request.path, fields, request.body, True, request.keep_alive)
        )


def ours(pieces: Iterable[bytes], answering: Answering) -> Reading:
    """Feed the pieces as they are to a connection of their own, and answer what it asks."""
    wire, writer = Wire(), Writer(answering)
    connection = ClientConnection(writer)
    connection.connection_made(wire)
    patience = 2 if answering is Answering.LATE else 0
    held_back = 0
    left = list(pieces)[::-1]
    while left and not connection.is_closing:
        if wire.is_paused or (writer.waiting is not None and answering is Answering.SOON):
            held_back += 1
            if held_back > patience:
                held_back = 0
                writer.answer()
                continue
        if left:
            connection.data_received(left.pop())
    while writer.waiting is not None:
        writer.answer()
    reading = writer.reading
    if connection.is_closing:
        taken = len(reading.messages)
        connection.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert len(reading.messages) == taken, "read on behind the end"
        if reading.end is End.SWITCHED:
            reading.rests.append(reading.rests.pop() + b"".join(left[::-1]))
        assert reading.end is not End.OPEN, "closed without an answer"
    elif connection._in_message and connection._headers_done:
        request = connection._parser
        reading.messages.append(
            Message(
                request.get_method(),
                connection._url,
                comparable(connection._headers),
                b"".join(connection._body),
                False,
            )
        )
    connection.connection_lost(None)
    return reading
