"""A small HTTP/1.1 client for storms: one connection a call, hundreds of calls at once, loopback only."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.harness import SECRET

MAX_WAIT_S = 60


@dataclass(slots=True)
class Reply:
    """One answer. `finish` is the finish reason of the first choice, of JSON or stream."""

    status: int
    headers: dict[str, str]
    body: bytes
    tries: int = 1
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def error(self) -> dict[str, Any]:
        """The error object of a refusal."""
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found

    @property
    def finish(self) -> str | None:
        if self.events:
            reasons = [
                choice.get("finish_reason") for event in self.events for choice in event.get("choices", [])
            ]
            return next((reason for reason in reasons if reason), None)
        return str(json.loads(self.body)["choices"][0]["finish_reason"])


async def post(
    url: str,
    body: dict[str, Any],
    path: str = "/v1/chat/completions",
    secret: str = SECRET,
    headers: dict[str, str] | None = None,
) -> Reply:
    """One call on a connection of its own, read to its end."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        data = json.dumps(body).encode()
        extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = (
            f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {secret}\r\n{extra}"
            f"content-type: application/json\r\nconnection: close\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        writer.write(head.encode() + data)
        raw = await asyncio.wait_for(reader.read(-1), MAX_WAIT_S)
    finally:
        writer.close()
    return parse(raw)


def parse(raw: bytes) -> Reply:
    """A whole answer off the wire."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            body += rest[: int(size, 16)]
            rest = rest[int(size, 16) + 2 :]
    else:
        body = rest
    reply = Reply(int(lines[0].split()[1]), headers, body)
    if headers.get("content-type", "").startswith("text/event-stream"):
        data = [line[6:] for line in body.decode().split("\n") if line.startswith("data: ")]
        reply.events = [json.loads(text) for text in data if text != "[DONE]"]
    return reply


async def storm(
    url: str, count: int, at_once: int, body: dict[str, Any], *, patience_s: float = 0
) -> list[Reply]:
    """`count` calls, at most `at_once` in flight; with patience, clients obey `Retry-After` for so long."""
    gate = asyncio.Semaphore(at_once)
    clock = asyncio.get_running_loop().time
    until = clock() + patience_s

    async def one() -> Reply:
        async with gate:
            tries = 1
            while True:
                reply = await post(url, body)
                if reply.status != 429 or clock() >= until:
                    reply.tries = tries
                    return reply
                tries += 1
                await asyncio.sleep(int(reply.headers["retry-after"]))

    return await asyncio.gather(*(one() for _ in range(count)))
