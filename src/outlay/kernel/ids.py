"""Time-ordered ids: UUIDv7 (RFC 9562), strictly increasing within a process, made in about half a microsecond."""

import os
from typing import NewType

from outlay.kernel.clock import Clock

Id = NewType("Id", bytes)
"""16 bytes of a UUIDv7; sorts by time of making."""

_COUNTER_BITS = 74
_COUNTER_MAX = 1 << _COUNTER_BITS
_STEP_MASK = (1 << 32) - 1


class IdMaker:
    """Makes ids in rising order: 48 bits of milliseconds, then a counter seeded at random each millisecond.

    A clock that steps back keeps the last millisecond, so order is kept. Not thread-safe: one a thread.
    """

    __slots__ = ("_clock", "_counter", "_last_ms", "_pool", "_pool_at")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_ms = 0
        self._counter = 0
        self._pool = b""
        self._pool_at = 0

    def make(self) -> Id:
        """The next id."""
        ms = self._clock.now() // 1_000_000
        if ms > self._last_ms:
            self._last_ms = ms
            # the top bit stays free, so that a busy millisecond cannot run out of counter
            self._counter = int.from_bytes(self._random(9), "big")
        else:
            self._counter += 1 + (int.from_bytes(self._random(4), "big") & _STEP_MASK)
            if self._counter >= _COUNTER_MAX:
                self._last_ms += 1
                self._counter = int.from_bytes(self._random(9), "big")
        counter = self._counter
        high, low = counter >> 62, counter & ((1 << 62) - 1)
        return Id(((self._last_ms << 80) | (7 << 76) | (high << 64) | (2 << 62) | low).to_bytes(16, "big"))

    def _random(self, count: int) -> bytes:
        at = self._pool_at
        if at + count > len(self._pool):
            self._pool, at = os.urandom(4096), 0
        self._pool_at = at + count
        return self._pool[at : at + count]


def id_text(value: bytes) -> str:
    """The id as a person sees it: `req_` and 32 hexadecimal digits."""
    return "req_" + value.hex()


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
