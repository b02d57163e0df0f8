"""A running mock provider, and a raw socket that shows what really came over the wire."""

import json
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from outlay.testing import MockProvider

PRICES = {
    "gpt-4o-mini": {"input": 150_000_000, "cached": 75_000_000, "output": 600_000_000},
    "gpt-5-mini": {"input": 250_000_000, "cached": 25_000_000, "output": 2_000_000_000},
    "gpt-5-mini@flex": {"input": 125_000_000, "output": 1_000_000_000},
    "claude-haiku-4-5": {
        "input": 1_000_000_000,
        "cached": 100_000_000,
        "cache_write": 1_250_000_000,
        "cache_write_long": 2_000_000_000,
        "output": 5_000_000_000,
    },
    "text-embedding-3-small": {"input": 20_000_000},
}


QUIET_SECONDS = 0.1
"""How long nothing may come before a raw client calls it silence."""


class Reply(NamedTuple):
    """What a raw client saw."""

    raw: bytes
    ended: str
    """`eof`, `reset`, or `silence` (nothing more for a while; the connection is still open)."""

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1])

    @property
    def headers(self) -> dict[str, str]:
        lines = self.raw.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def body(self) -> bytes:
        """The body without framing; whatever of it has arrived."""
        rest = self.raw.partition(b"\r\n\r\n")[2]
        if self.headers.get("transfer-encoding") != "chunked":
            return rest
        return b"".join(self.chunks)

    @property
    def chunks(self) -> list[bytes]:
        rest = self.raw.partition(b"\r\n\r\n")[2]
        found = []
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            if length == 0:
                break
            found.append(rest[:length])
            rest = rest[length + 2 :]
        return found

    @property
    def is_whole(self) -> bool:
        """By its own framing; a body until close has none."""
        if self.headers.get("transfer-encoding") == "chunked":
            return self.raw.endswith(b"0\r\n\r\n")
        return len(self.body) == int(self.headers["content-length"])

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """Decoded `data:` lines of a stream, `[DONE]` as text."""
        lines = [line[6:] for line in self.body.split(b"\n") if line.startswith(b"data: ")]
        return ["[DONE]" if line == b"[DONE]" else json.loads(line) for line in lines]


class RawClient:
    """One TCP connection to the mock."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def send(
        self, body: dict[str, Any], path: str = "/v1/chat/completions", headers: dict[str, str] | None = None
    ) -> None:
        data = json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", "host: mock", f"content-length: {len(data)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)

    def read_to_end(self) -> Reply:
        """Read until the other side ends the connection."""
        return self._read(lambda reply: False)

    def read_until_quiet(self, is_enough: Callable[[Reply], bool] = lambda reply: True) -> Reply:
        """Read until `is_enough`, and on until the connection ends or stays quiet."""
        reply = self._read(is_enough)
        if reply.ended != "silence":
            return reply
        self.socket.settimeout(QUIET_SECONDS)
        try:
            while data := self.socket.recv(65536):
                reply = Reply(reply.raw + data, "silence")
        except TimeoutError:
            return reply
        except ConnectionResetError:
            return Reply(reply.raw, "reset")
        return Reply(reply.raw, "eof")

    def read_answer(self) -> Reply:
        """Read one well-framed answer."""
        reply = self._read(lambda reply: b"\r\n\r\n" in reply.raw and reply.is_whole)
        assert reply.ended == "silence", f"ended within an answer: {reply}"
        return reply

    def _read(self, is_enough: Callable[[Reply], bool]) -> Reply:
        self.socket.settimeout(10)
        raw = b""
        while not is_enough(Reply(raw, "silence")):
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                return Reply(raw, "reset")
            if not data:
                return Reply(raw, "eof")
            raw += data
        return Reply(raw, "silence")

    def close(self) -> None:
        self.socket.close()

    def close_by_reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


@pytest.fixture
def provider() -> Iterator[MockProvider]:
    with MockProvider(prices=PRICES) as running:
        yield running


@pytest.fixture
def dial() -> Iterator[Callable[[int], RawClient]]:
    """Opens raw connections to a port; closed after the test."""
    clients: list[RawClient] = []

    def open_one(port: int) -> RawClient:
        clients.append(RawClient(port))
        return clients[-1]

    yield open_one
    for client in clients:
        client.close()


@pytest.fixture
def connect(provider: MockProvider, dial: Callable[[int], RawClient]) -> Callable[[], RawClient]:
    """Opens raw connections to the provider."""
    return lambda: dial(provider.port)


@pytest.fixture
def raw(connect: Callable[[], RawClient]) -> RawClient:
    return connect()
