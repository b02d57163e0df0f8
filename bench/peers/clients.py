"""Clients in numbers, on asyncio: a storm of so many calls, and callers that go on until they are told to stop."""

import asyncio
import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from types import MappingProxyType
from typing import Final

from bench.natives import request_bytes
from bench.peers.gateway import Caller

CALL_SECONDS: Final = 60.0
"""An answer that takes longer counts as none."""
LEAVE_AFTER: Final = 10
"""Chunks after which a client that leaves has left."""
_PAUSE_SECONDS: Final = 0.05
"""Of a steady caller after a refusal."""
_WARM_CALLS: Final = 40
_WARM_AT_ONCE: Final = 10
_READ_BYTES: Final = 65536
_CONTENT = re.compile(rb'"content":\s?"[1-9]')
"""A chunk of the mock: its content is a time. An empty or missing content does not count."""


class Kind(Enum):
    """What a client asks for and how it behaves."""

    PLAIN = auto()
    STREAM = auto()
    OPEN = auto()
    """Not streamed, without `max_tokens`."""
    LEAVING = auto()
    """Streamed; the client is gone after ten chunks."""

    @property
    def is_stream(self) -> bool:
        return self in (Kind.STREAM, Kind.LEAVING)


@dataclass(slots=True)
class Answers:
    """How calls ended."""

    answered: int = 0
    """200 and whole, or left as planned."""
    refused: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    """Neither whole nor refused."""
    seconds: float = 0.0


def request_of(caller: Caller, kind: Kind) -> bytes:
    """The bytes of one call; the connection ends with it."""
    changes = dict(caller.changes)
    if kind is Kind.OPEN:
        changes["max_tokens"] = None
    headers = {**caller.headers, "connection": "close"}
    return request_bytes(headers, stream=kind.is_stream, path=caller.path, changes=MappingProxyType(changes))


async def storm(port: int, caller: Caller, kind: Kind, calls: int, at_once: int) -> Answers:
    """So many calls, so many of them at once, as fast as they are answered."""
    answers, request = Answers(), request_of(caller, kind)
    turns = iter(range(calls))
    begun = time.monotonic()

    async def work() -> None:
        for _ in turns:
            await _one(port, request, kind, answers)

    await asyncio.gather(*(work() for _ in range(at_once)))
    answers.seconds = time.monotonic() - begun
    return answers


async def warmed(port: int, caller: Caller) -> None:
    """A few calls before what is measured: lazy imports and empty pools are no figure of a running gateway."""
    await storm(port, caller, Kind.PLAIN, _WARM_CALLS, _WARM_AT_ONCE)


async def steady(
    port: int, caller: Caller, callers: int, seconds: float, kill: Callable[[], None]
) -> Answers:
    """Callers that ask again and again until, after `seconds`, `kill` ends the gateway under them.

    What was answered is counted the moment before.
    """
    answers, request = Answers(), request_of(caller, Kind.PLAIN)

    async def work() -> None:
        while True:
            before = answers.answered
            await _one(port, request, Kind.PLAIN, answers)
            if answers.answered == before:
                await asyncio.sleep(_PAUSE_SECONDS)

    tasks = [asyncio.create_task(work()) for _ in range(callers)]
    try:
        await asyncio.sleep(seconds)
        stood = Answers(answers.answered, Counter(answers.refused), answers.broken, seconds)
        kill()
        return stood
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _one(port: int, request: bytes, kind: Kind, answers: Answers) -> None:
    status, is_whole = 0, False
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
        async with asyncio.timeout(CALL_SECONDS):
            status, is_whole = await _exchange(port, request, kind)
    if status == 200 and is_whole:
        answers.answered += 1
    elif status >= 400:
        answers.refused[status] += 1
    else:
        answers.broken += 1


async def _exchange(port: int, request: bytes, kind: Kind) -> tuple[int, bool]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        body = b""
        while True:
            data = await reader.read(_READ_BYTES)
            body += data
            if kind is Kind.LEAVING and status == 200 and _chunks(body) >= LEAVE_AFTER:
                return status, True
            if not data:
                break
        return status, is_whole(body, is_stream=kind.is_stream)
    finally:
        writer.transport.abort()


def _chunks(body: bytes) -> int:
    return len(_CONTENT.findall(body))


def is_whole(body: bytes, *, is_stream: bool) -> bool:
    """A stream ends with its mark; an answer has its usage."""
    return b"[DONE]" in body if is_stream else b'"total_tokens"' in body
