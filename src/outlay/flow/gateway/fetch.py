"""Calls of the gateway's own to a provider: the state of a job, a file of results. Nothing here is billed."""

import asyncio
from collections.abc import Callable
from typing import Final

from outlay.flow.gateway.entries import upstream_head
from outlay.flow.gateway.upstream import Pool, UpstreamConnection
from outlay.wire.intent import Dialect

FETCH_TIMEOUT_S: Final = 120
"""A file of results may be large; silence for so long is a failure."""

Done = Callable[[int, bytes], None]
"""(status, body) of the answer; status 0: there was none, and the body says why."""


TOO_LARGE: Final = b"larger than max_job_bytes"
"""What a fetch says, with status 0, of an answer that it did not read to its end."""


class Fetch:
    """One GET under the provider's own credential. `done` is called once, never from within the constructor."""

    def __init__(self, pool: Pool, path: str, max_bytes: int, done: Done, auth: bytes = b"") -> None:
        self._pool = pool
        self._max_bytes = max_bytes
        self._done: Done | None = done
        self._parts: list[bytes] = []
        self._size = 0
        self._status = 0
        self._connection: UpstreamConnection | None = None
        head = upstream_head(pool, auth)
        if pool.provider.dialect is Dialect.ANTHROPIC:
            head += b"anthropic-version: 2023-06-01\r\n"
        self._data = b"GET %b HTTP/1.1\r\n%b\r\n" % ((pool.address.path + path).encode(), head)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(FETCH_TIMEOUT_S, self._late)
        loop.call_soon(pool.acquire, self)

    def on_upstream_ready(self, connection: UpstreamConnection) -> None:
        """See `upstream.Call`."""
        if self._done is None:
            self._pool.give_back(connection)
            return
        self._connection = connection
        connection.send(self, self._data)

    def on_upstream_failed(self, reason: str) -> None:
        """See `upstream.Call`."""
        self._finish(0, reason.encode())

    def on_answer_started(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """See `upstream.Call`."""
        self._status = status

    def on_answer_data(self, data: bytes) -> None:
        """See `upstream.Call`."""
        self._size += len(data)
        if self._size <= self._max_bytes:
            self._parts.append(data)
        elif self._connection is not None:
            self._connection.abort()
            self._finish(0, TOO_LARGE)

    def on_answer_read(self) -> None:
        """See `upstream.Call`."""

    def on_answer_ended(self) -> None:
        """See `upstream.Call`."""
        self._finish(self._status, b"".join(self._parts))

    def _late(self) -> None:
        if self._connection is not None:
            self._connection.abort()
        self._pool.cancel(self)
        self._finish(0, b"no answer in time")

    def _finish(self, status: int, body: bytes) -> None:
        done, self._done = self._done, None
        if done is not None:
            self._timer.cancel()
            done(status, body)
