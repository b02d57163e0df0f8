"""From a feed's row to a `ModelPrice` at a point in time: dates, hours, tiers and variants resolved, nothing added.

Prices with units that a `Usage` cannot report (video that is made, citations) are not guessed: a model whose *output*
can be billed in such a unit is refused here. Pure.
"""

from typing import NamedTuple

from outlay.kernel.clock import UnixNanos
from outlay.lookup.feed import Feed, FeedPeriod, FeedRate, FeedRow
from outlay.lookup.price import ModelPrice, Rates, Tier, Variant, Window
from outlay.lookup.served import SPEED_PREFIX, standard_tiers

INPUT_LIMIT_NUMERATOR, INPUT_LIMIT_DENOMINATOR = 21, 20
"""The feed rounds context windows (1_000_000 for 1_048_576, 128_000 for 131_072), so the bound allows 5 % more."""

_TOOL_KEYS = {"web_searches_kcount": "web_search", "storage_searches_kcount": "file_search"}
_REQUEST_KEY = "requests_kcount"
_UNREADABLE_OUTPUT = (
    "output_video_mtok",
    "output_reasoning_mtok",
    "output_citation_mtok",
    "input_text_messages_kcount",
)
"""Units a call's usage does not report apart: a price that has one would be silently wrong."""

_UNIT_KEYS = {
    "audio_hours": "audio_ms",
    "input_audio_hours": "audio_ms",
    "input_mchars": "character",
    "input_document_kpages": "page",
    "input_annotated_document_kpages": "page/annotated",
    "reranks_kcount": "search_unit",
}
"""Price key of the feed -> the unit that usage counts; prices per hour are per 10**6 ms in the compiled feed."""
_BILLS_MEDIA_AS_TEXT = frozenset({"google"})
"""Gemini's token price is one for text, image, video and audio unless the page states another for one of them. Of the
others audio without a price is *not known*. https://ai.google.dev/gemini-api/docs/pricing, read 2026-11-24."""

_Prices = dict[str, FeedRate]


class NoPrice(NamedTuple):
    """The row cannot price a call. One sentence."""

    reason: str


def boundaries(row: FeedRow) -> set[UnixNanos]:
    """Times at which the row's prices may change."""
    dated = [
        *(period.valid_from for period in row.periods),
        *(variant.valid_from for variant in row.variants),
    ]
    return {time for time in dated if time is not None}


def price_at(row: FeedRow, feed: Feed, provider: str, at: UnixNanos) -> ModelPrice | NoPrice:
    """The row's price in force at `at`, for a `provider` that may resell another provider's row."""
    base, windows = _periods_at(row, at)
    unreadable = [key for key in _UNREADABLE_OUTPUT if key in base.prices]
    if unreadable:
        return NoPrice(f"{row.model} is billed in units that cannot be read from its usage ({unreadable[0]})")
    units = {unit: base.prices[key].base for key, unit in _UNIT_KEYS.items() if key in base.prices}
    if units and "input_mtok" in base.prices:
        return NoPrice(f"{row.model} is billed by tokens and by {', '.join(sorted(units))} in one call")
    if "input_mtok" not in base.prices and not units:
        return NoPrice(f"the price feed has no price per input token for {row.model}")
    rates, tiers = _rates_and_tiers(base.prices)
    if "input_mtok" not in base.prices:
        rates, tiers = Rates(input=0, output=0), ()  # billed by the unit alone
    # a reseller's tiers and tool fees are its own: only the token rates are taken over
    is_own = provider == row.provider
    return ModelPrice(
        provider=provider,
        model=row.model,
        source=f"{feed.name} {feed.price_page(row.provider)}".rstrip(),
        rates=rates,
        tiers=tiers,
        context_window=row.context_window,
        input_limit_tokens=_input_limit(row.context_window),
        variants=_variants_at(row, base.prices, at) if is_own else {},
        windows=tuple(_window(period) for period in windows),
        tool_fees={
            tool: base.prices[key].base for key, tool in _TOOL_KEYS.items() if is_own and key in base.prices
        },
        unit_rates=units,
        bills_media_as_text=bool(units) or row.provider in _BILLS_MEDIA_AS_TEXT,
        fee_per_request_nanos=base.prices[_REQUEST_KEY].base // 1_000_000
        if _REQUEST_KEY in base.prices
        else 0,
        standard_tiers=standard_tiers(provider),
        writes_cache_unasked="claude" not in row.model,
    )


def _input_limit(window: int | None) -> int | None:
    return None if window is None else window * INPUT_LIMIT_NUMERATOR // INPUT_LIMIT_DENOMINATOR


def _periods_at(row: FeedRow, at: UnixNanos) -> tuple[FeedPeriod, tuple[FeedPeriod, ...]]:
    """The period in force by date, and the daily windows that take precedence over it, first wins."""
    windows: list[FeedPeriod] = []
    for period in reversed(row.periods):
        if period.valid_from is not None and period.valid_from > at:
            continue
        if period.minutes is None:
            return period, tuple(windows)
        windows.append(period)
    return row.periods[0], tuple(windows)


def _window(period: FeedPeriod) -> Window:
    start, end = period.minutes or (0, 0)
    rates, tiers = _rates_and_tiers(period.prices)
    return Window(start_minute=start, end_minute=end, rates=rates, tiers=tiers)


def _variants_at(row: FeedRow, standard: _Prices, at: UnixNanos) -> dict[str, Variant]:
    """Complete prices by served tier. A variant that is not yet (or not known to be) in force is absent."""
    replaced: dict[str, _Prices] = {}
    for variant in row.variants:
        if len(variant.when) != 1 or (variant.valid_from is not None and variant.valid_from > at):
            continue
        (key, value) = variant.when[0]
        match key:
            case "service_tier" | "processing":
                name = value
            case "speed":
                name = SPEED_PREFIX + value
            case _:
                continue  # kinds that no usage reports (search type, route): the standard price stays
        if not variant.prices:
            continue  # `service_tier=default`: standard, which `served.STANDARD_TIERS` says
        prices = replaced.setdefault(name, {})
        for price_key, rate in variant.prices.items():
            prices.setdefault(price_key, rate)
    return {name: Variant(*_rates_and_tiers(standard | prices)) for name, prices in replaced.items()}


def _rates_and_tiers(prices: _Prices) -> tuple[Rates, tuple[Tier, ...]]:
    thresholds = sorted({above for rate in prices.values() for above, _ in rate.tiers})
    return _rates_above(prices, -1), tuple(Tier(above, _rates_above(prices, above)) for above in thresholds)


def _rates_above(prices: _Prices, threshold: int) -> Rates:
    """Rates of a call with more than `threshold` input tokens (and no more than the next threshold)."""

    def rate(key: str) -> int | None:
        entry = prices.get(key)
        if entry is None:
            return None
        value = entry.base
        for above, tier_rate in entry.tiers:
            if above <= threshold:
                value = tier_rate
        return value

    return Rates(
        input=rate("input_mtok") or 0,
        output=rate("output_mtok"),
        cache_read=rate("cache_read_mtok"),
        cache_write=rate("cache_write_mtok"),
        cache_write_1h=rate("cache_write_1h_mtok"),
        input_audio=rate("input_audio_mtok"),
        input_image=rate("input_image_mtok"),
        input_video=rate("input_video_mtok"),
        cache_read_audio=rate("cache_audio_read_mtok"),
        cache_read_image=rate("cache_image_read_mtok"),
        output_audio=rate("output_audio_mtok"),
        output_image=rate("output_image_mtok"),
    )
