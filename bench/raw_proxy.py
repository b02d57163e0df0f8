"""The baseline: a proxy of the gateway's own parts that does nothing but pass bytes through.

`asyncio.Protocol` + `httptools` on `uvloop` on both sides, with a keep-alive pool to the upstream. No budgets, no
ledger, no keys, no metering: what Outlay costs is the distance to this. Loopback only; fit for measuring, not for use.
Run: `python bench/raw_proxy.py --upstream-port N`; prints {"port": N, "pid": N}.
"""

import argparse
import asyncio
import contextlib
import json
import os
from collections import deque
from typing import cast

import httptools
import uvloop

HOST = "127.0.0.1"
BACKLOG = 4096
MAX_IDLE = 2048
"""Upstream connections kept; as many as a benchmark holds open."""
HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"host",
    )
)


class Pool:
    """Idle upstream connections, newest first."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: deque[Upstream] = deque()

    def take(self) -> "Upstream | None":
        while self._idle:
            upstream = self._idle.pop()
            if upstream.is_open:
                return upstream
        return None

    async def connect(self) -> "Upstream":
        _, upstream = await asyncio.get_running_loop().create_connection(
            lambda: Upstream(self), HOST, self._port
        )
        return upstream

    def give_back(self, upstream: "Upstream") -> None:
        if len(self._idle) < MAX_IDLE:
            self._idle.append(upstream)
        else:
            upstream.close()

    def forget(self, upstream: "Upstream") -> None:
        with contextlib.suppress(ValueError):
            self._idle.remove(upstream)


class Upstream(asyncio.Protocol):
    """One connection to the upstream; hands each answer to the client that waits for it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._client: Client | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        self._status = b""
        self._headers: list[bytes] = []
        self._is_chunked = False
        self._out: list[bytes] = []
        self._is_complete = False
        self._keeps_alive = False

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, client: "Client", request: bytes) -> None:
        self._client = client
        if self._transport is not None:
            self._transport.write(request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._pool.forget(self)
        if self._client is not None:
            self._client.upstream_gone()
            self._client = None

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()
            return
        client = self._client
        if client is None:
            self.close()
            return
        if self._out:
            client.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
            self._out.clear()
        if self._is_complete:
            keeps_alive = self._keeps_alive
            self._client = None
            self._reset()
            if keeps_alive:
                self._pool.give_back(self)
            else:
                self.close()
            client.answered()

    def pause(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    # httptools

    def on_status(self, status: bytes) -> None:
        self._status += status

    def on_header(self, name: bytes, value: bytes) -> None:
        lowered = name.lower()
        if lowered == b"transfer-encoding":
            self._is_chunked = True
        if lowered not in HOP_BY_HOP:
            self._headers.append(b"%b: %b\r\n" % (name, value))

    def on_headers_complete(self) -> None:
        if self._is_chunked:
            self._headers.append(b"transfer-encoding: chunked\r\n")
        head = b"HTTP/1.1 %d %b\r\n%b\r\n" % (
            self._parser.get_status_code(),
            self._status,
            b"".join(self._headers),
        )
        self._out.append(head)

    def on_body(self, body: bytes) -> None:
        self._out.append(b"%x\r\n%b\r\n" % (len(body), body) if self._is_chunked else body)

    def on_message_complete(self) -> None:
        if self._is_chunked:
            self._out.append(b"0\r\n\r\n")
        self._keeps_alive = self._parser.should_keep_alive()  # a moment later the parser has forgotten
        self._is_complete = True


class Client(asyncio.Protocol):
    """One connection from a client; one request at a time (pipelined ones wait)."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._upstream: Upstream | None = None
        self._waiting: deque[bytes] = deque()
        self._connecting: asyncio.Task[None] | None = None
        self._is_busy = False
        self._url = b""
        self._headers: list[bytes] = []
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._connecting is not None:
            self._connecting.cancel()
        if self._upstream is not None:
            self._upstream.close()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport is not None:
                self._transport.close()

    def pause_writing(self) -> None:
        if self._upstream is not None:
            self._upstream.pause()

    def resume_writing(self) -> None:
        if self._upstream is not None:
            self._upstream.resume()

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def answered(self) -> None:
        self._upstream = None
        self._is_busy = False
        if self._waiting:
            self._forward(self._waiting.popleft())

    def upstream_gone(self) -> None:
        self._upstream = None
        if self._transport is not None:
            self._transport.close()

    # httptools

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._body = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        lowered = name.lower()
        if lowered not in HOP_BY_HOP and lowered != b"content-length":
            self._headers.append(b"%b: %b\r\n" % (name, value))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request = b"%b %b HTTP/1.1\r\nhost: upstream\r\n%bcontent-length: %d\r\n\r\n%b" % (
            self._parser.get_method(),
            self._url,
            b"".join(self._headers),
            len(body),
            body,
        )
        if self._is_busy:
            self._waiting.append(request)
        else:
            self._forward(request)

    def _forward(self, request: bytes) -> None:
        self._is_busy = True
        upstream = self._pool.take()
        if upstream is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect_and_send(request))
            return
        self._upstream = upstream
        upstream.send(self, request)

    async def _connect_and_send(self, request: bytes) -> None:
        upstream = await self._pool.connect()
        self._connecting = None
        self._upstream = upstream
        upstream.send(self, request)


async def serve(upstream_port: int) -> None:
    """Proxy 127.0.0.1:<free port> to the upstream's port until the process is ended."""
    pool = Pool(upstream_port)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Client(pool), HOST, 0, backlog=BACKLOG)
    print(json.dumps({"port": server.sockets[0].getsockname()[1], "pid": os.getpid()}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream-port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().upstream_port))
