"""The demo's clients: HTTP/1.1 over asyncio streams, so that it needs no SDK and can hang up where it likes."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

READ_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call came to. `error` is the vendor-shaped error object; status 0: the client hung up itself."""

    status: int
    retry_after_s: int = 0
    error: dict[str, Any] | None = None


class Caller:
    """A kept connection to one address; one call at a time."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(
        self, path: str, body: bytes, headers: dict[str, str], *, leave_after_bytes: int | None = None
    ) -> Answer:
        """One call; with `leave_after_bytes` the client hangs up in the middle of the answer."""
        reader, writer = await self._connected()
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST {path} HTTP/1.1\r\nhost: demo\r\ncontent-type: application/json\r\n{lines}"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        if leave_after_bytes is not None:
            await asyncio.wait_for(reader.read(leave_after_bytes), READ_TIMEOUT_S)
            self.close()
            return Answer(0)
        return await asyncio.wait_for(self._read(reader), READ_TIMEOUT_S)

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._address.hostname, self._address.port)
        return self._streams

    async def _read(self, reader: asyncio.StreamReader) -> Answer:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
        if fields.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(await reader.readline(), 16):
                parts.append(await reader.readexactly(size))
                await reader.readline()
            await reader.readline()
            body = b"".join(parts)
        else:
            body = await reader.readexactly(int(fields["content-length"]))
        if fields.get("connection") == "close":
            self.close()
        status = int(head[0].split()[1])
        error = json.loads(body).get("error") if status >= 400 else None
        return Answer(status, int(fields.get("retry-after", "0")), error)
