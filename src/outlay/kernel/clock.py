"""Time: UTC nanoseconds from an injected clock. Nothing else in the code base may read the system's time."""

import time
from typing import NewType, Protocol

UnixNanos = NewType("UnixNanos", int)
"""UTC time in nanoseconds since 1970-01-01T00:00:00Z."""

NANOS_PER_SECOND = 1_000_000_000


class Clock(Protocol):
    """Wall time anchored to the monotonic clock, and the monotonic clock itself."""

    def now(self) -> UnixNanos:
        """UTC nanoseconds; never goes backwards within a process."""

    def monotonic(self) -> int:
        """Nanoseconds of a clock that only measures durations."""


class SystemClock:
    """Wall time read once and carried forward by the monotonic clock, so a stepped wall clock moves no budget.

    `drift()` tells how far the system's wall clock has moved away; the owner decides what a jump means.
    """

    __slots__ = ("_anchor", "_behind")

    def __init__(self) -> None:
        self._behind = 0
        self._anchor = time.time_ns() - time.monotonic_ns()

    def now(self) -> UnixNanos:
        return UnixNanos(self._anchor + time.monotonic_ns())

    def monotonic(self) -> int:
        return time.monotonic_ns()

    def drift(self) -> int:
        """Nanoseconds by which the system's wall clock is ahead of (+) or behind (-) this clock."""
        return time.time_ns() - self.now()

    def reanchor(self, max_step: int) -> bool:
        """Take up the wall clock again if it was stepped by at most `max_step` ns since the last look.

        A step forward moves this clock; after a step back it stands where it was (it never goes backwards) and the
        difference is remembered. False: the step was larger, and nothing was taken up.
        """
        drift = self.drift()
        if abs(drift - self._behind) > max_step:
            return False
        if drift > 0:
            self._anchor += drift
            drift = 0
        self._behind = drift
        return True


class ManualClock:
    """A clock that stands still until it is moved; for tests and simulation."""

    __slots__ = ("_mono", "_now")

    def __init__(self, now: int = 1_790_000_000 * NANOS_PER_SECOND) -> None:
        self._now = now
        self._mono = 0

    def now(self) -> UnixNanos:
        return UnixNanos(self._now)

    def monotonic(self) -> int:
        return self._mono

    def advance(self, nanos: int) -> None:
        """Move both clocks forward by `nanos` (>= 0)."""
        if nanos < 0:
            raise ValueError("a clock does not run backwards; use set()")
        self._now += nanos
        self._mono += nanos

    def set(self, now: int) -> None:
        """Step the wall clock (also backwards); the monotonic clock stays."""
        self._now = now
