"""Budget windows: calendars and rings, as pure functions of a UTC time. No reset job: a window is an account.

A calendar window is found from the time and a named zone; its start and end are UTC nanoseconds, so a day that
is 23 or 25 hours long is just that. A rolling window is a ring of buckets: spend posts to the bucket of its
settlement and leaves when its bucket is wholly outside.
"""

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

NANOS_PER_SECOND = 1_000_000_000
ROLLING_BUCKETS = 60
"""Buckets in a ring: a rolling window covers its length plus at most one sixtieth."""
FOREVER = 2**63 - 1
_ROLLING = re.compile(r"^(\d{1,6})(s|m|h|d)$")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MAX_ROLLING_SECONDS = 400 * 86400


class WindowKind(StrEnum):
    ROLLING = "rolling"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"
    LIFETIME = "lifetime"


class Window(msgspec.Struct, frozen=True, gc=False):
    """A budget's window. `zone` matters for calendars only, `seconds` for rolling only."""

    kind: WindowKind
    zone: str = "UTC"
    seconds: int = 0

    def text(self) -> str:
        """As a person writes it: `month`, `24h`."""
        return f"{self.seconds}s" if self.kind is WindowKind.ROLLING else self.kind.value


def parse_window(text: str, zone: str = "UTC") -> Window:
    """`month`, `day`, `lifetime`, ... or a rolling length such as `90s`, `5m`, `24h`, `7d`.

    Raises ValueError with a sentence for the operator.
    """
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"unknown time zone {zone!r}; use an IANA name such as Europe/Berlin") from error
    if match := _ROLLING.match(text):
        seconds = int(match[1]) * _SECONDS[match[2]]
        if not 1 <= seconds <= MAX_ROLLING_SECONDS:
            raise ValueError(f"rolling window {text!r} must be between 1s and 400d")
        return Window(WindowKind.ROLLING, zone, seconds)
    try:
        kind = WindowKind(text)
    except ValueError:
        kind = WindowKind.ROLLING
    if kind is WindowKind.ROLLING:
        raise ValueError(
            f"unknown window {text!r}; use day, week, month, quarter, year, lifetime or a length such as 24h"
        )
    return Window(kind, zone)


def _utc_nanos(local: datetime, info: ZoneInfo) -> int:
    # a local midnight that a DST change skips becomes the first instant after the gap (PEP 495, fold=0)
    return int(local.replace(tzinfo=info).astimezone(UTC).timestamp()) * NANOS_PER_SECOND


def bounds(window: Window, now: int) -> tuple[int, int]:
    """(start, end) in UTC ns of the window that contains `now`; end is exclusive.

    Rolling: the bucket's bounds are `bucket_start`; this gives (now - length, FOREVER). Lifetime: (0, FOREVER).
    """
    if window.kind is WindowKind.LIFETIME:
        return 0, FOREVER
    if window.kind is WindowKind.ROLLING:
        return now - window.seconds * NANOS_PER_SECOND, FOREVER
    # zones change at whole quarters of an hour, so a quarter identifies its window
    quarter = now // (900 * NANOS_PER_SECOND)
    return _bounds_of_quarter(window.kind, window.zone, quarter)


@lru_cache(maxsize=4096)
def _bounds_of_quarter(kind: WindowKind, zone: str, quarter: int) -> tuple[int, int]:
    info = ZoneInfo(zone)
    local = datetime.fromtimestamp(quarter * 900, UTC).astimezone(info)
    day = datetime(local.year, local.month, local.day)  # noqa: DTZ001 - a local midnight, zone added below
    if kind is WindowKind.DAY:
        start, end = day, day + timedelta(days=1)
    elif kind is WindowKind.WEEK:
        start = day - timedelta(days=day.weekday())
        end = start + timedelta(days=7)
    elif kind is WindowKind.MONTH:
        start = day.replace(day=1)
        end = (start + timedelta(days=32)).replace(day=1)
    elif kind is WindowKind.QUARTER:
        start = day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
        end = (start + timedelta(days=93)).replace(day=1)
    else:
        start = day.replace(month=1, day=1)
        end = start.replace(year=start.year + 1)
    return _utc_nanos(start, info), _utc_nanos(end, info)


def bucket_nanos(window: Window) -> int:
    """Length of one ring bucket in ns (at least one tenth of a second)."""
    return max(window.seconds * NANOS_PER_SECOND // ROLLING_BUCKETS, NANOS_PER_SECOND // 10)


def bucket_start(window: Window, now: int) -> int:
    """Start of the ring bucket that contains `now`."""
    size = bucket_nanos(window)
    return now - now % size


def bucket_leaves_at(window: Window, start: int) -> int:
    """UTC ns at which a bucket that began at `start` is wholly outside the window."""
    return start + bucket_nanos(window) + window.seconds * NANOS_PER_SECOND
