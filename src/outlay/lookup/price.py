"""A price as data: what one model of one provider costs at one time, in integers.

Owns the records that the book finds, the cost room computes with and the ledger stores with a charge. Every rate
is integer nanos per 10**6 units (`kernel.money`): USD 2.50 per 1M tokens is 2_500_000_000. Must not know where
prices come from or how they are looked up.
"""

from collections.abc import Callable
from functools import cached_property
from hashlib import blake2b
from typing import NewType

import msgspec

from outlay.kernel.clock import UnixNanos
from outlay.kernel.money import UNITS_PER_RATE, line_cost

PERMILLE = 1000
"""Multipliers are integers per 1000: 1100 is x1.1."""

PriceId = NewType("PriceId", str)
"""`<source>/<provider>/<model>#<ten hex digits of the content>`."""


class Rates(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Nanos per 10**6 tokens of each class. None: the vendor has no such class (0 is a price: free).

    Cache reads without a class of their own are ordinary input. Cache writes without one are *not priced*. Images and
    video without a class are text; audio, and images that are made, are so only where `bills_media_as_text`.
    """

    input: int
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    """Short TTL: 5 min (Anthropic), 30 min (OpenAI)."""
    cache_write_1h: int | None = None
    cache_write_12h: int | None = None
    input_audio: int | None = None
    input_image: int | None = None
    input_video: int | None = None
    cache_read_audio: int | None = None
    cache_read_image: int | None = None
    output_audio: int | None = None
    output_image: int | None = None


class Tier(msgspec.Struct, frozen=True, gc=False):
    """Long-context cliff: all tokens of a call whose total input is *greater than* `above_input_tokens`.

    A vendor that says "200k and more" is stored as 199_999, one that says "more than 200k" as 200_000.
    """

    above_input_tokens: int
    rates: Rates


class Variant(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Prices of one served tier or speed, complete (classes the vendor does not vary are filled from standard)."""

    rates: Rates
    tiers: tuple[Tier, ...] = ()
    source: str = ""


class Window(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Hours of the day (UTC, half-open, may wrap midnight) in which other rates apply to the standard tier."""

    start_minute: int
    """Minutes after 00:00 UTC, 0..1439."""
    end_minute: int
    rates: Rates
    tiers: tuple[Tier, ...] = ()
    weekdays: tuple[int, ...] | None = None
    """UTC weekdays, Monday = 0; None: every day."""


class PriceMemo:
    """Rate tables that the cost room derives from one price; a cache, never part of the price's value.

    Its keys are combinations of tier, speed and region that the price knows, so it is bounded by the price itself.
    """

    __slots__ = ("reachable", "served")

    def __init__(self) -> None:
        self.reachable: dict[tuple[object, ...], tuple[tuple[int, int, int, int], ...]] = {}
        self.served: dict[tuple[object, ...], tuple[tuple[int, Rates], ...]] = {}


class ModelPrice(msgspec.Struct, frozen=True, dict=True, omit_defaults=True, kw_only=True):
    """Everything needed to bound and cost a call to one model from `valid_from` until `valid_to`."""

    price_id: PriceId = PriceId("")
    provider: str
    model: str
    """Canonical id (aliases and dated names are resolved by the book)."""
    source: str
    """Where the numbers come from, for a person: feed and version, correction, override."""
    rates: Rates
    valid_from: UnixNanos | None = None
    valid_to: UnixNanos | None = None
    """Exclusive."""
    context_window: int | None = None
    """Input tokens the vendor states for the model; None: not known."""
    input_limit_tokens: int | None = None
    """Most input tokens one call can be billed for; None: `context_window`. Wider than the stated window where
    the feed rounds it (1_000_000 for 1_048_576)."""
    max_output_tokens: int | None = None
    tiers: tuple[Tier, ...] = ()
    """Rising by `above_input_tokens`."""
    variants: dict[str, Variant] = {}
    """By served tier (`batch`, `flex`, `priority`, `fast`, `ultrafast`) or `speed:<name>`."""
    windows: tuple[Window, ...] = ()
    geo_multipliers: dict[str, int] = {}
    """Region as served -> permille on every token rate (not on fees)."""
    tool_fees: dict[str, int] = {}
    """Hosted tool -> nanos per 10**6 uses."""
    unit_rates: dict[str, int] = {}
    """Unit (`image/hd/1024x1024`, `audio_ms`, `character`, ...) -> nanos per 10**6 of it; see `unit_rate`."""
    bills_media_as_text: bool = False
    """Audio, and images that are made, cost what text costs where they have no rate of their own (also where tokens
    are free, because units are billed)."""
    fee_per_request_nanos: int = 0
    input_overhead_tokens: int = 0
    """Tokens the vendor adds to every prompt (hidden system prompt, tool preamble)."""
    standard_tiers: tuple[str, ...] = ()
    """Served tier names that mean the base rates."""
    account_tiers: tuple[str, ...] = ()
    """Tiers that a request without (or with automatic) tier may be served at: the account's own setting."""
    account_geos: tuple[str, ...] = ()
    """Regions that a request without region may be served in: the account's own setting."""
    writes_cache_unasked: bool = False
    """The vendor may write (and bill) its prompt cache although the request did not ask for it."""
    is_flat: bool = False
    """One price whatever tier, speed or region was served (self-hosted, ceiling)."""
    is_ceiling: bool = False
    """Not a known price: the operator's ceiling for unknown models. Charges must be marked."""

    @cached_property
    def memo(self) -> PriceMemo:
        """Derived tables, see `PriceMemo`."""
        return PriceMemo()

    @property
    def input_limit(self) -> int | None:
        """Most input tokens of a call, None if neither limit nor window is known."""
        return self.context_window if self.input_limit_tokens is None else self.input_limit_tokens

    @cached_property
    def is_by_unit(self) -> bool:
        """Whether calls are billed by units alone; then tokens are free and a call without units is unpriced."""
        return bool(self.unit_rates) and self.rates.input == 0 and not self.rates.output

    def unit_rate(self, name: str) -> int | None:
        """Nanos per 10**6 of a unit: of its full name, else of the name with its last parts left out."""
        while True:
            rate = self.unit_rates.get(name)
            if rate is not None or "/" not in name:
                return rate
            name = name.rpartition("/")[0]


class UnknownPrice(msgspec.Struct, frozen=True, gc=False):
    """No price: the call is refused, or held at a ceiling that the operator set."""

    provider: str
    model: str
    nearest: tuple[str, ...]
    """Up to five names that this provider does have, nearest first."""
    reason: str
    """One sentence for the caller."""


def with_price_id(price: ModelPrice, source_key: str) -> ModelPrice:
    """The price with its id filled in from `source_key` (`genai-prices-0.2.3`, `override-acme`) and its content.

    The same content always gives the same id, on any machine; any change of a number, date or source changes it.
    """
    blank = msgspec.structs.replace(price, price_id=PriceId(""))
    digest = blake2b(msgspec.json.encode(blank, order="deterministic"), digest_size=5).hexdigest()
    return msgspec.structs.replace(
        price, price_id=PriceId(f"{source_key}/{price.provider}/{price.model}#{digest}")
    )


def scale_rate(rate: int, permille: int) -> int:
    """`rate * permille / 1000`, half-even: the one rounding of a price that a multiplier may need."""
    return line_cost(rate, permille * (UNITS_PER_RATE // PERMILLE))


def scale_rates(rates: Rates, permille: int) -> Rates:
    """Every class of `rates` times `permille / 1000`."""
    return rates if permille == PERMILLE else map_rates(rates, lambda rate: scale_rate(rate, permille))


def map_rates(rates: Rates, change: Callable[[int], int]) -> Rates:
    """`rates` with `change` applied to every class that exists."""

    def maybe(rate: int | None) -> int | None:
        return None if rate is None else change(rate)

    return Rates(
        change(rates.input),
        *[maybe(getattr(rates, name)) for name in Rates.__struct_fields__[1:]],
    )


def map_price(price: ModelPrice, change: Callable[[Rates], Rates]) -> ModelPrice:
    """The price with `change` applied to every set of token rates in it: standard, tiers, variants, windows."""

    def tiers(values: tuple[Tier, ...]) -> tuple[Tier, ...]:
        return tuple(Tier(tier.above_input_tokens, change(tier.rates)) for tier in values)

    return msgspec.structs.replace(
        price,
        rates=change(price.rates),
        tiers=tiers(price.tiers),
        variants={
            name: Variant(change(variant.rates), tiers(variant.tiers), variant.source)
            for name, variant in price.variants.items()
        },
        windows=tuple(
            msgspec.structs.replace(window, rates=change(window.rates), tiers=tiers(window.tiers))
            for window in price.windows
        ),
    )
