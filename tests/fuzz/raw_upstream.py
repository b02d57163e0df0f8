"""A provider that keeps every byte it gets and reads them with `h11`, which is strict."""

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import h11

GOOD = json.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "model": "gpt-test",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
).encode()
GOOD_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(GOOD),
    GOOD,
)


class RawUpstream:
    """`with RawUpstream() as upstream: upstream.url`. `answer`: what is sent to a request; `closes`: and no more."""

    def __init__(self) -> None:
        self.requests: list[tuple[h11.Request, bytes]] = []
        self.faults: list[str] = []
        self.answer: Callable[[], bytes] | None = None
        self.closes = True
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> "RawUpstream":
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = await self._loop.create_server(lambda: _Reader(self), "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._started.set()
        await self._stopping.wait()
        server.close()


class _Reader(asyncio.Protocol):
    """One connection of the gateway."""

    def __init__(self, owner: RawUpstream) -> None:
        self._owner = owner
        self._connection = h11.Connection(h11.SERVER)
        self._head: h11.Request | None = None
        self._body = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head is not None or self._connection.trailing_data[0]:
            self._owner.faults.append(f"a request that is not whole: {self._head}, {self._body!r}")

    def data_received(self, data: bytes) -> None:
        self._connection.receive_data(data)
        try:
            self._read()
        except h11.RemoteProtocolError as error:
            self._owner.faults.append(f"{error}: {data!r}")

    def _read(self) -> None:
        while True:
            event = self._connection.next_event()
            if isinstance(event, h11.Request):
                self._head, self._body = event, b""
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert self._head is not None
                self._owner.requests.append((self._head, self._body))
                self._head = None
                if self._owner.answer is not None:
                    self._transport.write(self._owner.answer())
                    if self._owner.closes:
                        self._transport.close()
                        return
                else:
                    self._transport.write(GOOD_ANSWER)
                self._connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                self._connection.send(h11.EndOfMessage())
                self._connection.start_next_cycle()
            else:
                return
