"""One priced call with the amount a person worked out from a vendor's price page: the record that the tables use.

Rule for the tables: `nanos` is computed by hand in the comment above the vector (USD 1 per 1M tokens = 1000 nanos a
token), from the page named in `source` on the day `read`. Never from the feed, and never by running the code. Where
a page could not be read, `source` says what was used instead.
"""

from datetime import UTC, datetime
from typing import NamedTuple

from outlay.kernel.clock import NANOS_PER_SECOND, UnixNanos
from outlay.lookup.cost import Request
from outlay.wire.intent import Operation, Usage

READ = "2026-11-23"


def utc(text: str) -> UnixNanos:
    """UTC nanoseconds of an ISO date and time without zone."""
    return UnixNanos(int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NANOS_PER_SECOND)


NOW = utc("2026-11-23T12:00:00")
"""A Monday."""


class Vector(NamedTuple):
    name: str
    provider: str
    model: str
    usage: Usage
    nanos: int
    source: str
    at: UnixNanos = NOW
    operation: Operation = Operation.CHAT
    read: str = READ
    asked: Request | None = None
    """What was asked for, where more of it than the operation decides the price."""


def used(total: int, output: int, read: int = 0, write: int = 0, **more: int | str) -> Usage:
    """Usage of `total` input tokens, `read` of them from and `write` of them into the cache."""
    return Usage(
        input_tokens=total,
        output_tokens=output,
        cache_read_input_tokens=read,
        cache_creation_input_tokens=write,
        **more,
    )


def hour(tokens: int) -> dict[str, int]:
    return {"cache_creation_1h_input_tokens": tokens}


def half_day(tokens: int) -> dict[str, int]:
    return {"cache_creation_12h_input_tokens": tokens}
