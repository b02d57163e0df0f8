"""The provider's side of a realtime session: one WebSocket, framed by the `websockets` library without its I/O."""

import asyncio
from collections.abc import Callable
from urllib.parse import quote

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.frames import OP_BINARY, OP_CONT, OP_TEXT, Frame
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from outlay.flow.gateway.entries import Entry
from outlay.flow.gateway.upstream import tls_context

_OWN = frozenset({"host", "accept-encoding"})


class UpstreamSocket(asyncio.Protocol):
    """See the module. `start` delivers what came before the callbacks were set."""

    transport: asyncio.Transport

    def __init__(self, uri: str, headers: list[tuple[str, str]], max_message_bytes: int) -> None:
        self._protocol = ClientProtocol(parse_uri(uri), max_size=max_message_bytes)
        self._headers = headers
        self._max = max_message_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._early: list[bytes] = []
        self._is_started = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_message: Callable[[bytes], None] = self._early.append
        self.on_closed: Callable[[str], None] = _nothing

    def start(self) -> None:
        """Deliver what has come already, and from now on."""
        self._is_started = True
        early, self._early = self._early, []
        for message in early:
            self.on_message(message)

    def send(self, text: bytes) -> None:
        """Send one text message; nothing once the socket is closing."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_text(text)
            self._write()

    def flow(self, is_wanted: bool) -> None:
        """Take what the provider sends, or let it wait."""
        if self.transport.is_closing():
            return
        if is_wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def close(self) -> None:
        """Begin the closing handshake, and end the connection soon whatever the peer does."""
        self.on_closed = _nothing
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
            self._write()
        self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        self.on_closed = _nothing
        self.transport.abort()

    # -- asyncio ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        request = self._protocol.connect()
        for name, value in self._headers:
            request.headers[name] = value
        self._protocol.send_request(request)
        self._write()

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self._on_response(event)
            elif isinstance(event, Frame):
                self._take(event)
        self._write()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("the provider closed the connection"))
        self.on_closed("the provider closed the session")

    def _on_response(self, response: Response) -> None:
        error = self._protocol.handshake_exc
        if self.opened.done():
            return
        if error is None and response.status_code == 101:
            self.opened.set_result(None)
        else:
            text = (
                f"status {response.status_code}"
                if isinstance(error, InvalidHandshake)
                else "no sound handshake"
            )
            self.opened.set_exception(ValueError(text))

    def _take(self, frame: Frame) -> None:
        if frame.opcode in (OP_TEXT, OP_BINARY):
            self._parts, self._size = [], 0
        elif frame.opcode != OP_CONT:
            return
        self._size += len(frame.data)
        if self._size > self._max:
            self.transport.abort()
            return
        self._parts.append(bytes(frame.data))
        if frame.fin:
            message = b"".join(self._parts)
            self._parts = []
            self.on_message(message) if self._is_started else self._early.append(message)

    def _write(self) -> None:
        for data in self._protocol.data_to_send():
            if data and not self.transport.is_closing():
                self.transport.write(data)
        if self._protocol.close_expected():
            self.transport.close()


async def connect(entry: Entry, max_message_bytes: int) -> UpstreamSocket:
    """Open a session at an entry's provider. Raises OSError, TimeoutError or ValueError (what it answered)."""
    pool = entry.pool
    address = pool.address
    scheme = "wss" if address.is_tls else "ws"
    name = entry.model
    path = entry.path.decode()
    uri = f"{scheme}://{address.host_header}{path}{'&' if '?' in path else '?'}model={quote(name, safe='')}"
    headers = []
    for line in entry.upstream_head.decode("latin-1").split("\r\n"):
        key, _, value = line.partition(": ")
        if key and key not in _OWN:
            headers.append((key, value))
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(entry.provider.connect_timeout_s):
        _, socket = await loop.create_connection(
            lambda: UpstreamSocket(uri, headers, max_message_bytes),
            address.host,
            address.port,
            ssl=tls_context(entry.provider) if address.is_tls else None,
            server_hostname=address.host if address.is_tls else None,
        )
        await socket.opened
    return socket


def _nothing(_reason: str) -> None:
    return None
