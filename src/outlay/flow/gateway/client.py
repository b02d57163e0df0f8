"""The client's side of HTTP/1.1: frames requests under limits, one at a time, and writes answers with back-pressure.

Knows nothing of money. A complete `Request` goes to `Host.on_request`; the exchange that answers it writes here.
"""

import asyncio
import zlib
from collections import deque
from typing import Protocol

import httptools

from outlay.flow.gateway.bounds import RequestBounds, is_kept_http10
from outlay.flow.gateway.shape import MAX_REBUILDS, HeadShape, shape_of
from outlay.flow.gateway.snapshot import Settings
from outlay.kernel.errors import AccountingBroken

MAX_PIPELINED = 16
"""Requests of one connection that may wait for their turn; more close it."""
MAX_URL_BYTES = 8 * 1024
EARLY_BYTES = 16 * 1024
"""Body bytes taken from a caller whose key has not been looked at."""
MAX_RATIO = 50
PLAIN_BYTES = 1024 * 1024
"""A compressed body may grow to 1 MiB, or 50-fold: text stays below that, a bomb does not."""
_RARE = frozenset((b"expect", b"content-encoding", b"host", b"transfer-encoding"))
"""Header fields that mean work for this room."""
_CODINGS = [b"chunked"]

_STATUS_LINES: dict[int, bytes] = {
    status: b"HTTP/1.1 %d %s\r\n" % (status, phrase)
    for status, phrase in {
        100: b"Continue",
        200: b"OK",
        201: b"Created",
        202: b"Accepted",
        204: b"No Content",
        400: b"Bad Request",
        401: b"Unauthorized",
        402: b"Payment Required",
        403: b"Forbidden",
        404: b"Not Found",
        405: b"Method Not Allowed",
        408: b"Request Timeout",
        409: b"Conflict",
        413: b"Content Too Large",
        415: b"Unsupported Media Type",
        422: b"Unprocessable Content",
        429: b"Too Many Requests",
        431: b"Request Header Fields Too Large",
        500: b"Internal Server Error",
        502: b"Bad Gateway",
        503: b"Service Unavailable",
        504: b"Gateway Timeout",
        529: b"Overloaded",
    }.items()
}


def status_line(status: int) -> bytes:
    """`HTTP/1.1 402 Payment Required` with its line end."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status


class Request:
    """One framed request. Header names are lower-case; the body is as it came, `encoding` says how (b"": plain)."""

    __slots__ = ("body", "encoding", "headers", "is_http10", "keep_alive", "method", "path", "received_at")

    method: bytes
    path: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    encoding: bytes
    keep_alive: bool
    is_http10: bool
    received_at: int

    @property
    def content_type(self) -> str:
        """The body's media type with its parameters; "" if the client states none."""
        return self.header(b"content-type")

    @property
    def own_address(self) -> str:
        """`https://host` as the client called us; behind a proxy, as that says it was called."""
        scheme = self.header(b"x-forwarded-proto") or "http"
        host = self.header(b"x-forwarded-host") or self.header(b"host")
        return f"{scheme if scheme in ('http', 'https') else 'http'}://{host}"

    def header(self, name: bytes) -> str:
        """The first value of a header field (lower-case name); "" if it is not there."""
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return ""


class Answering(Protocol):
    """Whoever answers the current request."""

    def on_client_gone(self) -> None: ...
    def on_client_writable(self, is_writable: bool) -> None: ...


class Answered(Protocol):
    """Who is answered: a connection, or one turn of a WebSocket."""

    answering: Answering | None
    memo: object | None

    @property
    def can_write(self) -> bool: ...
    def write_whole(self, status: int, head: bytes, body: bytes) -> None: ...
    def begin_stream(self, status: int, head: bytes) -> None: ...
    def write_part(self, data: bytes) -> None: ...
    def end_stream(self, data: bytes = b"") -> None: ...
    def break_off(self, event: bytes) -> None:
        """The begun answer ends within an event and must not be taken for whole; `event` says why, if it can."""


class Host(Protocol):
    """What a client connection needs of the gateway."""

    @property
    def settings(self) -> Settings: ...
    @property
    def is_draining(self) -> bool: ...
    @property
    def tick(self) -> int:
        """Monotonic ns, renewed a few times a second: fine enough for time limits of seconds."""

    def monotonic(self) -> int: ...
    def on_request(self, connection: "ClientConnection", request: Request) -> None: ...
    def on_upgrade(self, connection: "ClientConnection", request: Request, rest: bytes) -> bool:
        """A client asks to switch protocols: True if the transport has been taken over."""

    def may_continue(self, headers: list[tuple[bytes, bytes]]) -> bool: ...
    def on_connected(self, connection: "ClientConnection") -> bool: ...
    def on_disconnected(self, connection: "ClientConnection") -> None: ...
    def fault_body(self, path: bytes, status: int, code: str, message: str) -> bytes: ...


class BadRequest(Exception):
    """Framing or limits are violated; the connection is answered and closed."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class ClientConnection(asyncio.Protocol):
    """See the module."""

    __slots__ = (
        "_backlog",
        "_body",
        "_body_bytes",
        "_bounds",
        "_codings",
        "_has_rare",
        "_head_bytes",
        "_headers",
        "_headers_done",
        "_host",
        "_hosts",
        "_in_message",
        "_is_chunked_answer",
        "_is_known",
        "_last",
        "_length",
        "_parser",
        "_ready",
        "_rebuilds",
        "_shape",
        "_unsent_head",
        "_url",
        "answering",
        "can_write",
        "idle_since",
        "is_closing",
        "is_open",
        "memo",
        "request",
        "stalled_since",
        "transport",
    )

    transport: asyncio.Transport
    _last: Request

    def __init__(self, host: Host) -> None:
        self._host = host
        self._parser = httptools.HttpRequestParser(self)
        self._bounds = RequestBounds()
        self._ready: deque[Request] = deque()
        self._backlog: deque[bytes] = deque()
        self._in_message = False
        self._headers_done = True
        self._has_rare = False
        self._is_known = False
        self._unsent_head = b""
        self._shape: HeadShape | None = None
        self._rebuilds = 0
        self.memo: object | None = None
        """What the host remembers of this connection's last caller."""
        self._is_chunked_answer = False
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._length = self._hosts = 0
        self._codings: list[bytes] = []
        self._body: list[bytes] = []
        self._body_bytes = 0
        self.answering: Answering | None = None
        self.request: Request | None = None
        self.can_write = True
        self.is_open = False
        self.is_closing = False
        self.idle_since = host.tick
        self.stalled_since = 0

    # -- asyncio ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.is_open = True
        if not self._host.on_connected(self):
            self._fail(
                BadRequest(503, "too_many_connections", "the gateway has no room for another connection")
            )

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._host.on_disconnected(self)
        answering, self.answering = self.answering, None
        if answering is not None:
            answering.on_client_gone()
        self._ready.clear()
        self._backlog.clear()

    def pause_writing(self) -> None:
        self.can_write = False
        self.stalled_since = self._host.tick
        if self.answering is not None:
            self.answering.on_client_writable(False)

    def resume_writing(self) -> None:
        self.can_write = True
        self.stalled_since = 0
        if self.answering is not None:
            self.answering.on_client_writable(True)

    def data_received(self, data: bytes) -> None:
        if self.is_closing:
            return
        if self.request is not None:
            # one at a time: what is pipelined behind a running request waits unread
            self._backlog.append(data)
            self.transport.pause_reading()
            return
        shape = self._shape
        is_fresh = self._bounds.is_between
        if shape is not None and is_fresh:
            body = shape.body_of(data, self._host.settings.max_body_bytes)
            if body is not None:
                self.request = request = self._like_last(body)
                self._host.on_request(self, request)
                return
        self._feed(data)
        if self._ready:
            # alone in its bytes: else what was noted of headers is of another request
            if is_fresh and self._bounds.is_between and len(self._ready) == 1:
                self._learn(data)
            self._next()

    def _learn(self, data: bytes) -> None:
        """Remember the head of the request that `data` began with, if the next one may look the same."""
        request = self._ready[0]
        self._shape = None
        if self._rebuilds < MAX_REBUILDS and request.keep_alive and not self._has_rare:
            self._rebuilds += 1
            self._shape = shape_of(data)
            self._last = request

    def _like_last(self, body: bytes) -> Request:
        last = self._last
        request = Request()
        request.method = last.method
        request.path = last.path
        request.headers = last.headers
        request.keep_alive = True
        request.is_http10 = last.is_http10
        request.body = body
        request.encoding = b""
        request.received_at = self._host.monotonic()
        return request

    def _feed(self, data: bytes) -> None:
        start, size = 0, len(data)
        while start < size and not self.is_closing:
            end = self._bounds.piece_end(data, start)
            if end < 0:
                self._fail(BadRequest(400, "bad_http", "the request line is not valid HTTP/1.1"))
                return
            self._parse(data, start, end)
            start = end

    def _parse(self, data: bytes, start: int, end: int) -> None:
        piece = data[start:end]
        # header bytes until the head is whole, then bytes since the last piece of body (a trailer that never ends)
        self._head_bytes += len(piece)
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[start + upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, AccountingBroken):
                raise cause from None
            if isinstance(cause, BadRequest):
                self._fail(cause)
            else:
                self._fail(BadRequest(400, "bad_http", "the request is not valid HTTP/1.1"))
            return
        if self._in_message and self._head_bytes > self._host.settings.max_header_bytes:
            self._fail(BadRequest(431, "headers_too_large", "the request's header block is too large"))

    def _upgrade(self, rest: bytes) -> None:
        """The request just read asks to switch protocols; `rest` came behind it."""
        if self.request is None and len(self._ready) == 1 and not self._has_body():
            request = self._ready.popleft()
            self.request = request
            rest += b"".join(self._backlog)
            if self._host.on_upgrade(self, request, rest):
                self._backlog.clear()
                self.is_closing = True
                self._host.on_disconnected(self)
                return
            self.request = None
        self._fail(BadRequest(400, "upgrade_not_supported", "this gateway does not switch protocols here"))

    def _has_body(self) -> bool:
        # llhttp leaves the body of a request for another protocol to that protocol
        return self._length > 0 or bool(self._codings)

    # -- httptools --------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._bounds.is_between:
            raise BadRequest(400, "bad_http", "nothing may be pipelined behind this body")
        if len(self._ready) >= MAX_PIPELINED:
            raise BadRequest(400, "too_many_pipelined", f"at most {MAX_PIPELINED} requests may be pipelined")
        self._in_message = True
        self._headers_done = False
        self._length = 0
        self._url = b""
        self._headers = []
        self._has_rare = self._is_known = False
        self._hosts = 0
        self._codings = []
        self._body = []
        self._body_bytes = 0
        self.idle_since = self._host.tick

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > MAX_URL_BYTES:
            raise BadRequest(431, "url_too_long", "the request's address is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headers_done:
            # behind the body: who calls and what is encoded was decided by the head
            raise BadRequest(400, "trailers_not_supported", "trailer fields are not taken")
        name = name.lower()
        value = value.rstrip()  # llhttp does not
        if name == b"content-length":
            # the framing is ours on both sides; left out, the headers of a kept connection compare equal
            if len(value) > 12 or int(value) > self._host.settings.max_body_bytes:
                raise _too_large(self._host.settings)
            self._length = int(value)
            return
        if name in _RARE:
            if name == b"host":
                self._hosts += 1
            elif name == b"transfer-encoding":
                self._codings.append(value.lower())
            else:
                self._has_rare = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._headers_done = True
        self._head_bytes = 0
        headers = self._headers
        settings = self._host.settings
        # what RFC 9112 (3.2, 6.1) says a server must not take, because somebody else reads it differently
        bounds = self._bounds
        bounds.body_left = self._length
        is_http10 = bounds.is_http10
        if not bounds.is_begun or self._hosts > 1 or not (self._hosts or is_http10):
            raise BadRequest(400, "bad_http", "a request has one host field")
        if self._codings and (self._codings != _CODINGS or is_http10):
            raise BadRequest(400, "bad_http", "the only transfer-encoding taken is `chunked`")
        if len(headers) > settings.max_headers:
            raise BadRequest(
                431, "too_many_headers", f"at most {settings.max_headers} header fields are taken"
            )
        if not self._has_rare:
            return
        for name, value in headers:
            if name == b"expect" and not is_http10:
                if value.lower() != b"100-continue":
                    raise BadRequest(400, "bad_expect", "only `Expect: 100-continue` is understood")
                if self.request is None and not self._ready and self._host.may_continue(headers):
                    self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        self._body_bytes += len(body)
        if self._body_bytes > EARLY_BYTES and not self._is_known:
            self._is_known = self._host.may_continue(self._headers)
            if not self._is_known:
                raise BadRequest(401, "key_unknown", "no known virtual key: the request body is not taken")
        if self._body_bytes > self._host.settings.max_body_bytes:
            raise _too_large(self._host.settings)
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._in_message = False
        request = Request()
        parser = self._parser
        request.method = parser.get_method()
        request.path = self._url
        request.headers = self._headers
        request.is_http10 = is_http10 = self._bounds.is_http10
        request.keep_alive = parser.should_keep_alive() and (not is_http10 or is_kept_http10(self._headers))
        body = self._body
        request.body = body[0] if len(body) == 1 else b"".join(body)
        request.received_at = self._host.monotonic()
        request.encoding = b""
        if self._has_rare:
            for name, value in request.headers:
                if name == b"content-encoding" and value.lower() != b"identity":
                    request.encoding = value.lower()
        self._ready.append(request)
        self._bounds.end_request()

    # -- turns ------------------------------------------------------------------------------------------------

    def _next(self) -> None:
        request = self._ready.popleft()
        self.request = request
        self._host.on_request(self, request)

    def end_turn(self) -> None:
        """The current request is answered whole: close, or go on with what was pipelined."""
        request, self.request = self.request, None
        self.answering = None
        if not self.is_open:
            return
        if (request is not None and not request.keep_alive) or self._host.is_draining:
            self.close()
            return
        self.idle_since = self._host.tick
        if self._ready:
            self._next()
            return
        if self._backlog:
            self.transport.resume_reading()
        # what stands behind a bad request, or belongs to another protocol by now, is no request
        while self._backlog and not self.is_closing:
            self._feed(self._backlog.popleft())
            if self._ready:
                self._next()
                return

    # -- answers ----------------------------------------------------------------------------------------------

    def write_whole(self, status: int, head: bytes, body: bytes) -> None:
        """A complete answer; `head` are header lines, each with its line end, without content-length."""
        request = self.request
        size = len(body)
        if request is not None:
            if not request.keep_alive:
                head += b"connection: close\r\n"
            if request.method == b"HEAD":
                body = b""
        self.transport.write(b"%bcontent-length: %d\r\n%b\r\n%b" % (status_line(status), size, head, body))
        self.end_turn()

    def begin_stream(self, status: int, head: bytes) -> None:
        """Begin an answer of unknown length."""
        request = self.request
        self._is_chunked_answer = request is not None and not request.is_http10
        if self._is_chunked_answer:
            head += b"transfer-encoding: chunked\r\n"
        if request is not None and (not request.keep_alive or not self._is_chunked_answer):
            request.keep_alive = False
            head += b"connection: close\r\n"
        self._unsent_head = status_line(status) + head + b"\r\n"

    def write_part(self, data: bytes) -> None:
        """A piece of a begun answer, after its head if that has not left; an empty piece only lets the head go."""
        self._write_begun(self._framed(data))

    def end_stream(self, data: bytes = b"") -> None:
        """The begun answer is whole, with `data` as its last piece: one write, for one wake-up of the client."""
        last = self._framed(data)
        self._write_begun(last + b"0\r\n\r\n" if self._is_chunked_answer else last)
        self.end_turn()

    def break_off(self, event: bytes) -> None:
        """See `Answered`. Nothing can follow half an event: the transfer stays incomplete, as HTTP sees it."""
        if self._is_chunked_answer:
            self._write_begun(b"")
            self.close()
        else:
            self.abort()

    def _framed(self, data: bytes) -> bytes:
        # an empty chunk would end the answer
        return b"%x\r\n%b\r\n" % (len(data), data) if data and self._is_chunked_answer else data

    def _write_begun(self, data: bytes) -> None:
        head, self._unsent_head = self._unsent_head, b""
        if head or data:
            self.transport.write(head + data if head else data)

    def close(self) -> None:
        """Close after what is written."""
        self.is_closing = True
        if self.is_open:
            self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        self.is_closing = True
        if self.is_open:
            self.transport.abort()

    def overdue(self, now: int) -> None:
        """Time limits; called a few times a second with monotonic ns."""
        settings = self._host.settings
        waited_s = (now - self.idle_since) // 1_000_000_000
        if self.stalled_since and (now - self.stalled_since) // 1_000_000_000 >= settings.client_stall_s:
            self.abort()
        elif self.request is not None or self.is_closing:
            return
        elif not self._in_message:
            if waited_s >= settings.keepalive_s:
                self.close()
        elif waited_s >= (settings.body_timeout_s if self._headers_done else settings.header_timeout_s):
            self._fail(BadRequest(408, "request_timeout", "the request did not arrive in time"))

    def _fail(self, error: BadRequest) -> None:
        if self.is_closing or not self.is_open:
            return
        # nothing more is begun: what waited before the bad request would be answered by its error
        self._ready.clear()
        if self.request is None:
            body = self._host.fault_body(self._url, error.status, error.code, error.message)
            head = b"content-type: application/json\r\nx-should-retry: false\r\nconnection: close\r\n"
            self.transport.write(
                b"%bcontent-length: %d\r\n%b\r\n%b" % (status_line(error.status), len(body), head, body)
            )
        self.close()


def decoded(body: bytes, encoding: bytes, settings: Settings) -> bytes:
    """The identity form of a gzip or deflate body, under the body limit. Raises BadRequest."""
    if encoding in (b"gzip", b"x-gzip"):
        inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
    elif encoding == b"deflate":
        inflate = zlib.decompressobj()
    else:
        raise BadRequest(415, "unsupported_encoding", "content-encoding must be identity, gzip or deflate")
    try:
        limit = min(settings.max_body_bytes, max(PLAIN_BYTES, MAX_RATIO * len(body)))
        plain = inflate.decompress(body, limit + 1)
    except zlib.error as error:
        raise BadRequest(400, "bad_encoding", "the request body is not valid compressed data") from error
    if len(plain) > limit:
        raise _too_large(settings)
    if not inflate.eof or inflate.unused_data:
        raise BadRequest(400, "bad_encoding", "the request body's compressed data is incomplete")
    return plain


def _too_large(settings: Settings) -> BadRequest:
    return BadRequest(
        413,
        "body_too_large",
        f"the request body is larger than {settings.max_body_bytes} bytes (max_body_bytes)",
    )
