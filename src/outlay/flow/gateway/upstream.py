"""The provider's side of HTTP/1.1: a keep-alive pool per provider, one call at a time on each connection.

Knows nothing of money. A `Call` is told when its bytes have left, when the answer begins, each piece of it, and how
it ended; the pool gives connections in order of asking and never more than the provider's limit.
"""

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from typing import Protocol

import httptools

from outlay.flow.gateway.snapshot import Address, Provider, parse_base_url
from outlay.kernel.errors import AccountingBroken

MAX_HEAD_BYTES = 64 * 1024
"""Header block of a provider's answer."""
MAX_HEADERS = 256
MAX_LENGTH_DIGITS = 20
"""Of a content-length: more are zeros, or more bytes than there are."""
_FRAMING = frozenset((b"content-length", b"transfer-encoding"))
_HOP_BY_HOP = _FRAMING | {b"connection", b"keep-alive", b"te", b"trailer", b"upgrade"}
"""Fields that end with this connection; a call does not see them."""
MAX_QUEUED = 10_000
"""Calls that may wait for a connection of one provider; their holds are placed, so this is bounded by money too."""


class Call(Protocol):
    """What a connection tells the exchange that uses it."""

    def on_upstream_ready(self, connection: "UpstreamConnection") -> None:
        """A connection is yours: send on it, or give it back."""

    def on_upstream_failed(self, reason: str) -> None:
        """No connection, or it broke before the answer was whole. The connection is gone."""

    def on_answer_started(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Status and header fields, without hop-by-hop fields and anything that looks like ours."""

    def on_answer_data(self, data: bytes) -> None: ...
    def on_answer_read(self) -> None:
        """All bytes that arrived together have been given; forward them now."""

    def on_answer_ended(self) -> None:
        """The answer is whole. The connection has gone back to the pool."""


class Ticker(Protocol):
    """Time for limits of seconds."""

    @property
    def tick(self) -> int:
        """Monotonic ns, renewed a few times a second."""


class UpstreamConnection(asyncio.Protocol):
    """One connection to a provider."""

    __slots__ = (
        "_ends_with_close",
        "_head_bytes",
        "_headers",
        "_in_answer",
        "_is_framed",
        "_is_unasked",
        "_parser",
        "_pool",
        "call",
        "idle_since",
        "is_open",
        "is_reused",
        "quiet_since",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._in_answer = False
        self._ends_with_close = False
        self._is_framed = False
        self._is_unasked = False
        self.call: Call | None = None
        self.is_open = False
        self.is_reused = False
        self.idle_since = 0
        self.quiet_since = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._pool.forget(self)
        call, self.call = self.call, None
        if call is None:
            return
        if self._ends_with_close and exc is None:
            call.on_answer_ended()
        else:
            call.on_upstream_failed("the provider closed the connection")

    def send(self, call: Call, data: bytes) -> None:
        """Send one request; `call` hears of its answer."""
        self.call = call
        self.quiet_since = self._pool.ticker.tick
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        call = self.call
        if call is None:
            # nobody asked: an early error answer or noise; this connection cannot be trusted
            self.abort()
            return
        self.quiet_since = self._pool.ticker.tick
        if not self._in_answer:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._break("the provider switched protocols")
            return
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, AccountingBroken):
                raise error.__context__ from None
            self._break("the provider's answer is not valid HTTP/1.1")
            return
        if not self._in_answer and self.call is call and self._head_bytes > MAX_HEAD_BYTES:
            self._break("the provider's header block is too large")
            return
        if self.call is call:
            call.on_answer_read()
        elif self._is_unasked:
            # more than one answer to one request: whose would the next one be?
            self.abort()

    def on_message_begin(self) -> None:
        if self.call is None:
            self._is_unasked = True
        self._headers = []
        self._is_framed = False
        self._in_answer = False

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _HOP_BY_HOP:
            if name in _FRAMING:
                if self._is_framed or not _is_framing(name, value):
                    raise ValueError("framed twice, behind the body, or by what is not decoded here")
                self._is_framed = True
        elif not self._in_answer and not name.startswith(b"x-outlay-"):
            # not a trailer: the answer's head is what it was when the answer began
            self._headers.append((name, value.rstrip()))  # llhttp leaves the spaces behind it

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 100:
            raise ValueError("a status below 100")
        if status < 200:
            return
        self._in_answer = True
        self._head_bytes = 0
        headers = self._headers
        if len(headers) > MAX_HEADERS:
            raise ValueError("too many header fields")
        self._ends_with_close = not self._is_framed and status not in (204, 304)
        if self.call is not None:
            self.call.on_answer_started(status, headers)

    def on_body(self, data: bytes) -> None:
        if self.call is not None:
            self.call.on_answer_data(data)

    def on_message_complete(self) -> None:
        if not self._in_answer:
            return
        self._in_answer = False
        self._ends_with_close = False
        call, self.call = self.call, None
        parser = self._parser
        # of a server that speaks something older, it is not sure where its answer ends
        if call is not None and parser.should_keep_alive() and parser.get_http_version() == "1.1":
            self._pool.give_back(self)
        else:
            self.abort()
        if call is not None:
            call.on_answer_ended()

    def abort(self) -> None:
        """Close at once; the call, if any, hears nothing more."""
        self.call = None
        self._pool.forget(self)
        if self.is_open:
            self.transport.abort()

    def cut(self) -> None:
        """Close at once, this very moment: a kill does not wait for the loop's turn to send the provider its FIN."""
        handle = self.transport.get_extra_info("socket") if self.is_open else None
        if handle is not None:
            # the same descriptor, not a second one: to make one may cost milliseconds in the kernel
            with contextlib.suppress(OSError):
                own = socket.socket(handle.family, handle.type, fileno=handle.fileno())
                try:
                    own.shutdown(socket.SHUT_RDWR)
                finally:
                    own.detach()
        self.abort()

    def _break(self, reason: str) -> None:
        call = self.call
        self.abort()
        if call is not None:
            call.on_upstream_failed(reason)


class Pool:
    """Connections to one provider. Last used, first reused, so that the rest go idle and close."""

    def __init__(self, provider: Provider, loop: asyncio.AbstractEventLoop, ticker: Ticker) -> None:
        self.provider = provider
        self.address: Address = parse_base_url(provider.base_url)
        self.ticker = ticker
        self._loop = loop
        self._idle: list[UpstreamConnection] = []
        self._open: set[UpstreamConnection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._waiting: deque[Call] = deque()
        self._is_closed = False
        self._tls = tls_context(provider) if self.address.is_tls else None

    @property
    def open_connections(self) -> int:
        """Open and opening connections."""
        return len(self._open) + len(self._connecting)

    def acquire(self, call: Call) -> None:
        """Give the call a connection, now or later, through its `on_upstream_ready`."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.is_open and not connection.transport.is_closing():
                connection.is_reused = True
                call.on_upstream_ready(connection)
                return
        if len(self._waiting) >= MAX_QUEUED:
            call.on_upstream_failed("too many calls wait for a connection to the provider")
            return
        self._waiting.append(call)
        self._open_more()

    def cancel(self, call: Call) -> None:
        """A waiting call no longer wants a connection."""
        if call in self._waiting:
            self._waiting.remove(call)

    def give_back(self, connection: UpstreamConnection) -> None:
        """An unused or finished connection is free again."""
        connection.call = None
        if self._is_closed:
            connection.abort()
            return
        if self._waiting:
            connection.is_reused = True
            # not within the parser of the answer before: the next call writes in a turn of its own
            self._loop.call_soon(self._hand_over, connection)
            return
        connection.idle_since = self.ticker.tick
        self._idle.append(connection)

    def _hand_over(self, connection: UpstreamConnection) -> None:
        if connection.transport.is_closing():
            # what came behind its last answer was nobody's; those who wait get another one
            return
        if connection.is_open and self._waiting:
            self._waiting.popleft().on_upstream_ready(connection)
        elif connection.is_open:
            self.give_back(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection is closed."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._waiting:
            self._open_more()

    def close_idle(self, now: int) -> None:
        """Close what has been idle for the provider's limit."""
        limit = self.provider.keepalive_s * 1_000_000_000
        for connection in [found for found in self._idle if now - found.idle_since >= limit]:
            connection.abort()

    def close(self) -> None:
        """No more connections; idle ones close now, busy ones when their call has ended."""
        self._is_closed = True
        for connection in list(self._idle):
            connection.abort()

    def _open_more(self) -> None:
        while (
            len(self._connecting) < len(self._waiting)
            and self.open_connections < self.provider.max_connections
        ):
            task = self._loop.create_task(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._on_connect_done)

    def _on_connect_done(self, task: asyncio.Task[None]) -> None:
        self._connecting.discard(task)
        if self._waiting:
            # a call that came while the finished task still counted has no connection on its way
            self._open_more()

    async def _connect(self) -> None:
        connection = UpstreamConnection(self)
        address = self.address
        try:
            async with asyncio.timeout(self.provider.connect_timeout_s):
                await self._loop.create_connection(
                    lambda: connection,
                    address.host,
                    address.port,
                    ssl=self._tls,
                    server_hostname=address.host if self._tls else None,
                )
        except (OSError, TimeoutError, ssl.SSLError) as error:
            reason = "did not answer in time" if isinstance(error, TimeoutError) else type(error).__name__
            if self._waiting:
                self._waiting.popleft().on_upstream_failed(f"no connection to the provider ({reason})")
            return
        if not connection.is_open:
            if self._waiting:
                self._waiting.popleft().on_upstream_failed("the provider closed the connection at once")
            return
        self._open.add(connection)
        if self._waiting:
            self._waiting.popleft().on_upstream_ready(connection)
        else:
            self.give_back(connection)


def _is_framing(name: bytes, value: bytes) -> bool:
    if name == b"content-length":
        return len(value) <= MAX_LENGTH_DIGITS
    # with a tab behind it, llhttp does not know the word, and reads to the connection's end
    return value.rstrip(b" ").lower() == b"chunked"


def tls_context(provider: Provider) -> ssl.SSLContext:
    """What a connection to the provider trusts."""
    context = ssl.create_default_context(cafile=provider.ca_file or None)
    context.set_alpn_protocols(["http/1.1"])
    return context
