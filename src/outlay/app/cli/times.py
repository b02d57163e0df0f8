"""Times as people type them: a length back from now, `today`, `now`, or an ISO date. Pure."""

import re
from typing import Final

from outlay.app.config import parse_moment
from outlay.kernel.clock import NANOS_PER_SECOND, UnixNanos
from outlay.kernel.errors import ConfigError

_BACK: Final = re.compile(r"(\d{1,5})(m|h|d|w)\Z")
_SECONDS: Final = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DAY: Final = 86_400 * NANOS_PER_SECOND


def parse_length(text: str, option: str) -> int:
    """Seconds of `24h`, `30m`, `7d`, `2w`, or `0`. Raises ConfigError naming the option."""
    if text == "0":
        return 0
    if match := _BACK.match(text):
        return int(match[1]) * _SECONDS[match[2]]
    raise ConfigError(f"{text!r} is no length of time; use 24h, 30m, 7d or 0", key=option)


def parse_when(text: str, now: UnixNanos, option: str) -> UnixNanos:
    """UTC ns of `7d` (before now), `today` (its start, UTC), `now`, or an ISO date or date and time.

    Raises ConfigError naming the option.
    """
    if match := _BACK.match(text):
        return UnixNanos(now - int(match[1]) * _SECONDS[match[2]] * NANOS_PER_SECOND)
    if text == "now":
        return now
    if text == "today":
        return UnixNanos(now - now % _DAY)
    try:
        return parse_moment(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no time; use 7d, 12h, 2w, today or 2026-12-31", key=option) from error
