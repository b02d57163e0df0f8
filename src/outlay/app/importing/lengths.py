"""Budget durations of other gateways as windows of ours, with the moment at which the running window began.

Their windows are fixed: they are emptied at a moment that is kept with the budget. Ours are calendars, or rings that
roll. A calendar is chosen only if its end is that very moment; else the window rolls over the same length, which is
never more generous: at any time it holds what was spent in the last so many days. Pure.
"""

import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

from outlay.flow.windows import MAX_ROLLING_SECONDS, Window, bounds, parse_window
from outlay.kernel.clock import NANOS_PER_SECOND, UnixNanos

_WORDS: Final = {"hourly": "1h", "daily": "24h", "weekly": "7d", "monthly": "30d"}
_SHAPE: Final = re.compile(r"(\d{1,9})\s*(mo|[smhdwMQyY]?)\Z")
_SECONDS: Final = {
    "s": 1,
    "m": 60,
    "h": 3_600,
    "d": 86_400,
    "w": 604_800,
    "mo": 31 * 86_400,
    "M": 31 * 86_400,
    "Q": 92 * 86_400,
    "Y": 366 * 86_400,
    "y": 366 * 86_400,
}
"""A month, quarter or year that rolls is as long as the longest: never shorter than the source's."""
_CALENDARS: Final = {
    (1, "d"): "day",
    (24, "h"): "day",
    (1, "w"): "week",
    (7, "d"): "week",
    (30, "d"): "month",
    (1, "mo"): "month",
    (1, "M"): "month",
    (1, "Q"): "quarter",
    (1, "Y"): "year",
    (1, "y"): "year",
}


class Length(NamedTuple):
    """A window here, and where the source stands in its own."""

    window: str
    timezone: str
    since: UnixNanos
    """When what is spent began to count there."""
    is_over: bool = False
    """The source's window has ended and was not emptied: what it shows was spent before."""
    note: str = ""
    """Where meanings differ; empty if they do not."""


def nanos_of(moment: datetime) -> UnixNanos:
    """UTC ns of a moment; one without a zone is UTC, as both databases keep them."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return UnixNanos((since.days * 86_400 + since.seconds) * NANOS_PER_SECOND + since.microseconds * 1_000)


def length_of(
    duration: str | None, resets_at: datetime | None, timezone: str, now: UnixNanos, *, calendar: bool = True
) -> Length | None:
    """The window of a duration such as `30d`, `24h`, `1mo` or `1M`; None if it is none.

    `resets_at` is when the source will empty it, if that is known. Without `calendar` it always rolls.
    """
    if not duration:
        return Length("lifetime", "UTC", UnixNanos(0))
    text = _WORDS.get(duration.strip().lower(), duration.strip())
    match = _SHAPE.match(text)
    if match is None or int(match[1]) == 0:
        return None
    count, unit = int(match[1]), match[2] or "s"
    kind = _CALENDARS.get((count, unit)) if calendar else None
    ends = None if resets_at is None else nanos_of(resets_at)
    if kind is not None:
        window = _window(kind, timezone)
        start, end = bounds(window, now)
        if ends is None or ends == end:
            return Length(kind, window.zone, UnixNanos(start))
        if ends <= now:
            return Length(kind, window.zone, UnixNanos(start), is_over=True)
    return _rolling(count, unit, text, ends, now)


def _rolling(count: int, unit: str, text: str, ends: int | None, now: UnixNanos) -> Length:
    seconds = count * _SECONDS[unit]
    if seconds > MAX_ROLLING_SECONDS:
        return Length(
            "lifetime",
            "UTC",
            UnixNanos(0),
            note=f"a duration of {text} is longer than any window here: the budget becomes a lifetime one",
        )
    window = f"{count}{unit}" if unit in "smhd" and count < 1_000_000 else f"{max(1, seconds // 60)}m"
    if seconds % 86_400 == 0:
        window = f"{seconds // 86_400}d"
    span = seconds * NANOS_PER_SECOND
    since = now - span if ends is None else max(ends - span, now - span)
    return Length(
        window,
        "UTC",
        UnixNanos(since),
        is_over=ends is not None and ends <= now,
        note=f"a duration of {text} is emptied at one moment there and rolls here: at any time, what was spent in the"
        f" last {window} counts",
    )


def _window(kind: str, timezone: str) -> Window:
    try:
        return parse_window(kind, timezone)
    except ValueError:
        return parse_window(kind)
