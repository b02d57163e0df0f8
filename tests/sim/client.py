"""A client of a simulation: one call on a connection of its own, patient or not."""

import asyncio
import json
from typing import Any

import httptools


class Client(asyncio.Protocol):
    """Sends one request and reads what comes; `leaves_after` bytes of an answer it hangs up."""

    def __init__(self, secret: str, body: dict[str, Any], run: str, leaves_after: int | None) -> None:
        self.run = run
        self.status = 0
        self.body = b""
        self.is_over = False
        self.is_stream = bool(body.get("stream"))
        self.last_data_at = 0.0
        self.began_at = 0.0
        self._leaves_after = leaves_after
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        raw = json.dumps(body).encode()
        head = (
            f"host: x\r\nauthorization: Bearer {secret}\r\ncontent-length: {len(raw)}\r\nx-outlay-run: {run}"
        )
        self._request = f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n\r\n".encode() + raw

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.began_at = self._loop.time()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.last_data_at = self._loop.time()
        self._parser.feed_data(data)
        if self._leaves_after is not None and len(self.body) >= self._leaves_after:
            self.is_over = True
            self.transport.abort()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = True

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.is_over = True
        self.transport.close()
