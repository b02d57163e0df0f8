"""What a correction of the price feed can be: records without data, and how amounts and dates are written. Pure."""

from datetime import UTC, datetime

import msgspec

from outlay.kernel.clock import NANOS_PER_SECOND, UnixNanos
from outlay.kernel.money import usd_to_nanos
from outlay.lookup.price import ModelPrice, Rates


class Uplift(msgspec.Struct, frozen=True, gc=False, tag="uplift"):
    """Region as served -> permille on all token rates."""

    geos: dict[str, int]


class HalfDayWrites(msgspec.Struct, frozen=True, gc=False, tag="half_day_writes"):
    """Twelve-hour cache writes at `permille` of the short write price, in every tier and variant."""

    permille: int


class PlainWrites(msgspec.Struct, frozen=True, gc=False, tag="plain_writes"):
    """Cache writes, however long they are kept, are reported but cost what fresh input costs."""


class ToolFees(msgspec.Struct, frozen=True, gc=False, tag="tool_fees"):
    """Hosted tool -> nanos per 10**6 uses."""

    fees: dict[str, int]


class MoreTier(msgspec.Struct, frozen=True, gc=False, tag="tier"):
    """A served tier at `permille` of standard, in every token class and context tier."""

    name: str
    permille: int


class PeakHours(msgspec.Struct, frozen=True, gc=False, tag="peak"):
    """Off-peak rates, and daily windows at `permille` of them; replaces all windows that the feed has."""

    expects: tuple[int, ...]
    """Base input rates of the feed that are replaced; anything else is newer than this correction."""
    off_peak: Rates
    permille: int
    minutes: tuple[tuple[int, int], ...]
    """UTC, half-open. Empty: one rate all day."""
    weekdays: tuple[int, ...] | None


class UnitRates(msgspec.Struct, frozen=True, gc=False, tag="units"):
    """Unit -> nanos per 10**6 of it."""

    rates: dict[str, int]


class MediaRates(msgspec.Struct, frozen=True, gc=False, tag="media"):
    """Token classes of media that the feed lacks, in the base rates alone: nanos per 10**6."""

    rates: dict[str, int]


class MediaAsText(msgspec.Struct, frozen=True, gc=False, tag="media_as_text"):
    """What the model makes is audio or images alone, and the feed's output price is theirs."""


class ContextWindow(msgspec.Struct, frozen=True, gc=False, tag="window"):
    """Most input tokens of a call, where the feed names none."""

    tokens: int


class Refusal(msgspec.Struct, frozen=True, gc=False, tag="refusal"):
    """The model cannot be priced from its usage."""

    reason: str


Change = (
    Uplift
    | HalfDayWrites
    | PlainWrites
    | ToolFees
    | MoreTier
    | PeakHours
    | UnitRates
    | MediaRates
    | MediaAsText
    | MediaAsText
    | ContextWindow
    | Refusal
)


class Correction(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One known fault of the feed. `source` is an address, `read_on` the date on which it was read."""

    name: str
    provider: str
    models: str
    """Regular expression over the whole canonical id; for refusals over the whole requested name as well."""
    change: Change
    source: str
    read_on: str
    valid_from: UnixNanos | None = None
    valid_to: UnixNanos | None = None


class AddedModel(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A model that the feed does not know yet; used only as long as it does not."""

    provider: str
    names: tuple[str, ...]
    """The canonical id first."""
    price: ModelPrice
    source: str
    read_on: str
    valid_from: UnixNanos


def utc(year: int, month: int, day: int, hour: int = 0) -> UnixNanos:
    """UTC nanoseconds of a date."""
    return UnixNanos(int(datetime(year, month, day, hour, tzinfo=UTC).timestamp()) * NANOS_PER_SECOND)


def usd(fresh: str, output: str, read: str, write: str | None = None) -> Rates:
    """Rates of USD per 10**6 tokens with at most nine places, for the tables below."""
    return Rates(
        input=usd_to_nanos(fresh),
        output=usd_to_nanos(output),
        cache_read=usd_to_nanos(read),
        cache_write=None if write is None else usd_to_nanos(write),
    )
