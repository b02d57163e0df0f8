"""Time-ordered ids: UUIDv7 (RFC 9562), strictly increasing within a process, made in about half a microsecond."""

import os
from array import array
from binascii import hexlify
from typing import NewType

from outlay.kernel.clock import Clock

Id = NewType("Id", bytes)
"""16 bytes of a UUIDv7; sorts by time of making."""

_LOW_MASK = (1 << 62) - 1


class IdMaker:
    """Makes ids in rising order: 48 bits of milliseconds, then a counter seeded at random each millisecond.

    A clock that steps back keeps the last millisecond, so order is kept. Not thread-safe: one a thread.
    """

    __slots__ = ("_clock", "_counter", "_last_ms", "_steps")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_ms = 0
        self._counter = 0
        self._steps: list[int] = []

    def make(self, now: int | None = None) -> Id:
        """The next id; `now` (UTC ns) saves reading the clock again."""
        ms = (self._clock.now() if now is None else now) // 1_000_000
        if ms > self._last_ms:
            self._last_ms = ms
            # the two top bits stay free, so that a busy millisecond cannot run out of counter
            self._counter = int.from_bytes(os.urandom(9), "big")
        else:
            self._counter += 1 + self._step()
        counter = self._counter
        high, low = counter >> 62, counter & _LOW_MASK
        return Id(((self._last_ms << 80) | (7 << 76) | (high << 64) | (2 << 62) | low).to_bytes(16, "big"))

    def _step(self) -> int:
        if not self._steps:
            self._steps = list(array("I", os.urandom(4096)))
        return self._steps.pop()


def id_text(value: bytes) -> str:
    """The id as a person sees it: `req_` and 32 hexadecimal digits."""
    return "req_" + value.hex()


def id_header(value: bytes) -> bytes:
    """`id_text` as bytes for a header."""
    return b"req_" + hexlify(value)


def parse_id(text: str) -> Id | None:
    """The id of `req_<32 hex>` (the prefix may be missing); None if it is not one."""
    digits = text.removeprefix("req_").replace("-", "")
    try:
        value = bytes.fromhex(digits)
    except ValueError:
        return None
    return Id(value) if len(value) == 16 else None


def id_time_ms(value: bytes) -> int:
    """UTC milliseconds at which the id was made."""
    return int.from_bytes(value[:6], "big")
