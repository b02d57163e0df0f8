"""Where the price feed is known to be wrong or silent: data with a source and a date each, and how it is applied.

Precedence: operator's override > correction > feed > ceiling. A correction that *adds* (a tier, a region, a cache
class) never replaces what the feed has learnt since; one that *replaces* states the price it expects to find and
does nothing to any other. Where the truth is not known the model is refused or the tier left without a price. Pure.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from outlay.kernel.clock import NANOS_PER_SECOND, UnixNanos
from outlay.lookup.correction_kinds import (
    AddedModel,
    ContextWindow,
    Correction,
    HalfDayWrites,
    MediaAsText,
    MediaRates,
    MoreTier,
    PeakHours,
    PlainWrites,
    Refusal,
    ToolFees,
    UnitRates,
    Uplift,
    usd,
    utc,
)
from outlay.lookup.corrections_media import ADDED_MEDIA_MODELS, MEDIA_CORRECTIONS
from outlay.lookup.price import (
    ModelPrice,
    PriceId,
    Rates,
    Tier,
    Variant,
    Window,
    map_price,
    scale_rate,
    scale_rates,
)

_OPENAI_PRICES = "https://developers.openai.com/api/docs/pricing"
_OPENAI_RESIDENCY = "https://developers.openai.com/api/docs/guides/data-residency"
_OPENAI_ULTRAFAST = "https://developers.openai.com/api/docs/guides/ultrafast-mode"
_GEMINI_PRICES = "https://ai.google.dev/gemini-api/docs/pricing"
_CLAUDE_RESIDENCY = "https://platform.claude.com/docs/en/manage-claude/data-residency"
_DEEPSEEK_PRICES = "https://api-docs.deepseek.com/quick_start/pricing"
_RESIDENCY_REGIONS = dict.fromkeys(("us", "eu", "au", "ca", "jp", "in", "sg", "kr", "gb", "ae"), 1100)
_PEAK_MINUTES = ((60, 240), (360, 600))
"""01:00-04:00 and 06:00-10:00 UTC (09:00-12:00 and 14:00-18:00 in Beijing: the same day in both)."""
_WORKDAYS = (0, 1, 2, 3, 4)
_V4_START, _WEEKEND_START, _V41_START = utc(2026, 8, 16, 16), utc(2026, 8, 22, 16), utc(2026, 9, 10)
_FLASH_BEFORE, _V4_FLASH, _V41_FLASH = (
    usd("0.14", "0.28", "0.0028"),
    usd("0.22", "0.66", "0.007"),
    usd("0.15", "0.60", "0.003"),
)
_PRO_BEFORE, _V4_PRO = usd("0.435", "0.87", "0.003625"), usd("0.66", "1.98", "0.022")


class _Hours(NamedTuple):
    """DeepSeek's schedules: none before 2026-08-16T16:00Z, daily until the weekend rule, then on weekdays."""

    minutes: tuple[tuple[int, int], ...]
    weekdays: tuple[int, ...] | None
    since: UnixNanos | None
    until: UnixNanos | None


_FLAT = _Hours((), None, None, _V4_START)
_DAILY = _Hours(_PEAK_MINUTES, None, _V4_START, _WEEKEND_START)
_WEEKDAYS = _Hours(_PEAK_MINUTES, _WORKDAYS, _WEEKEND_START, None)


def _peak(models: str, off_peak: Rates, hours: _Hours, expects: tuple[Rates, ...]) -> Correction:
    return Correction(
        name="deepseek-hours",
        provider="deepseek",
        models=models,
        change=PeakHours(
            tuple(rates.input for rates in expects), off_peak, 2000, hours.minutes, hours.weekdays
        ),
        source=_DEEPSEEK_PRICES,
        read_on="2026-11-23",
        valid_from=hours.since,
        valid_to=hours.until,
    )


CORRECTIONS: tuple[Correction, ...] = (
    # Only the tokens that they bring are billed. (Known of the vendor's page; that part could not be read again.)
    Correction(
        name="anthropic-free-tools",
        provider="anthropic",
        models=r"claude-.*",
        change=ToolFees({"web_fetch": 0, "tool_search_tool_bm25": 0, "tool_search_tool_regex": 0}),
        source="https://platform.claude.com/docs/en/about-claude/pricing",
        read_on="2026-11-23",
    ),
    # "10% uplift for models released on or after March 5, 2026" (gpt-5.4); the feed has no regions.
    Correction(
        name="openai-data-residency",
        provider="openai",
        models=r"gpt-5\.[456](-.*)?|gpt-6.*",
        change=Uplift(_RESIDENCY_REGIONS),
        source=_OPENAI_RESIDENCY,
        read_on="2026-11-23",
    ),
    # Older models: the same endpoints cost no more.
    Correction(
        name="openai-data-residency-older",
        provider="openai",
        models=r"gpt-4.*|gpt-5|gpt-5-.*|gpt-5\.[0123].*|o[134].*|text-embedding-.*",
        change=Uplift(dict.fromkeys(_RESIDENCY_REGIONS, 1000)),
        source=_OPENAI_RESIDENCY,
        read_on="2026-11-23",
    ),
    # Opus 4.6 and all later models; older ones answer 400 to the parameter.
    Correction(
        name="anthropic-us-inference",
        provider="anthropic",
        models=r"claude-(opus|sonnet)-(4-[6-9]|[5-9].*)|claude-haiku-[5-9].*|claude-(fable|mythos)-.*",
        change=Uplift({"us": 1100}),
        source=_CLAUDE_RESIDENCY,
        read_on="2026-11-23",
    ),
    # "Requests sent to the US regional endpoint ... are billed at 1.1x the global token rates"
    Correction(
        name="xai-us-endpoint",
        provider="x-ai",
        models=r"grok-.*",
        change=Uplift({"us": 1100}),
        source="https://docs.x.ai/developers/pricing",
        read_on="2026-11-23",
    ),
    # "The cache write price is for 30 minutes of retention. A 12-hour cache write costs $5" (at 2.50): twice.
    Correction(
        name="openai-12h-cache-write",
        provider="openai",
        models=r"gpt-6(\.\d+)?-(sol|terra|luna|astra)",
        change=HalfDayWrites(2000),
        source="https://developers.openai.com/api/docs/models/gpt-6.2-sol",
        read_on="2026-11-23",
    ),
    # "Cache writes have no additional fee on models before the GPT-5.6 family" (and may still be reported).
    Correction(
        name="openai-plain-cache-writes",
        provider="openai",
        models=r"gpt-4.*|gpt-5|gpt-5-.*|gpt-5\.[0-5].*|o[134].*",
        change=PlainWrites(),
        source="https://developers.openai.com/api/docs/guides/prompt-caching",
        read_on="2026-11-23",
    ),
    Correction(
        name="openai-ultrafast-astra",
        provider="openai",
        models=r"gpt-6-astra",
        change=MoreTier("ultrafast", 6000),
        source=_OPENAI_ULTRAFAST,
        read_on="2026-11-23",
        valid_from=utc(2026, 9, 29),
    ),
    Correction(
        name="openai-ultrafast-sol",
        provider="openai",
        models=r"gpt-6\.1-sol",
        change=MoreTier("ultrafast", 6000),
        source=_OPENAI_ULTRAFAST,
        read_on="2026-11-23",
        valid_from=utc(2026, 10, 8),
    ),
    # "3 times the Standard rate through February 28, 2027, and 6 times the Standard rate starting March 1"
    Correction(
        name="openai-ultrafast-6.2-introduction",
        provider="openai",
        models=r"gpt-6\.2-(sol|astra)",
        change=MoreTier("ultrafast", 3000),
        source="https://developers.openai.com/api/docs/models/gpt-6.2-sol",
        read_on="2026-11-23",
        valid_to=utc(2027, 3, 1),
    ),
    Correction(
        name="openai-ultrafast-6.2",
        provider="openai",
        models=r"gpt-6\.2-(sol|astra)",
        change=MoreTier("ultrafast", 6000),
        source="https://developers.openai.com/api/docs/models/gpt-6.2-sol",
        read_on="2026-11-23",
        valid_from=utc(2027, 3, 1),
    ),
    # The feed cannot say "on weekdays" nor date its hours. Weekends are off-peak from 2026-08-23 in Beijing. Chinese
    # public holidays are off-peak too; they are not modelled (the peak price is charged: never too little).
    _peak("deepseek-v4-pro", _PRO_BEFORE, _FLAT, (_PRO_BEFORE,)),
    _peak("deepseek-v4-pro", _V4_PRO, _DAILY, (_PRO_BEFORE, _V4_PRO)),
    _peak("deepseek-v4-pro", _V4_PRO, _WEEKDAYS, (_V4_PRO,)),
    _peak("deepseek-v4-flash", _FLASH_BEFORE, _FLAT, (_FLASH_BEFORE,)),
    _peak("deepseek-v4-flash", _V4_FLASH, _DAILY, (_FLASH_BEFORE, _V4_FLASH)),
    _peak("deepseek-v4-flash", _V4_FLASH, _WEEKDAYS._replace(until=_V41_START), (_V4_FLASH,)),
    _peak("deepseek-(v4-)?flash", _V41_FLASH, _WEEKDAYS._replace(since=_V41_START), (_V41_FLASH,)),
    # The feed's last row for these is of early 2025; the API serves other models under the names, or none.
    Correction(
        name="deepseek-retired-aliases",
        provider="deepseek",
        models=r"deepseek-chat|deepseek-reasoner",
        change=Refusal(
            "the alias was retired on 2026-07-24 and no current price is known; name the model itself"
        ),
        source=_DEEPSEEK_PRICES,
        read_on="2026-11-23",
        valid_from=utc(2026, 7, 24, 16),
    ),
    # Each call also costs a search that the usage does not count ($25 to $30 per 1000 when last listed).
    Correction(
        name="openai-search-models",
        provider="openai",
        models=r".*-search-(preview|api).*",
        change=Refusal("every call includes a web search that its usage does not report"),
        source=_OPENAI_PRICES,
        read_on="2026-11-23",
    ),
    # Sold by the minute of a session, or the feed knows them from resellers only.
    Correction(
        name="openai-media-models",
        provider="openai",
        models=r"gpt-4o-audio-preview-2024-10-01|gpt-live.*|gpt-realtime-(translate|whisper).*|gpt-5.*-image.*",
        change=Refusal("it is billed in a way that its usage does not report"),
        source=_OPENAI_PRICES,
        read_on="2026-11-23",
    ),
    Correction(
        name="google-media-models",
        provider="google",
        models=r".*(-live|live-|native-audio|veo|imagen|lyria).*",
        change=Refusal("it is billed by sessions or pieces that its usage does not report"),
        source=_GEMINI_PRICES,
        read_on="2026-11-23",
    ),
    *MEDIA_CORRECTIONS,
)


def _gpt_6_2(model: str, source: str, short: Rates, long: Rates) -> AddedModel:
    def tier(name: str, permille: int) -> tuple[str, Variant]:
        rates, above = scale_rates(short, permille), scale_rates(long, permille)
        return name, Variant(rates, (Tier(272_000, above),))

    return AddedModel(
        provider="openai",
        names=(model,),
        price=ModelPrice(
            price_id=PriceId("outlay-corrections"),
            provider="openai",
            model=model,
            source=f"{source}, read 2026-11-23",
            rates=short,
            tiers=(Tier(272_000, long),),
            variants=dict([tier("batch", 500), tier("fast", 2000), tier("priority", 2000)]),
            context_window=1_050_000,
            max_output_tokens=128_000,
            tool_fees={"web_search": 10_000 * NANOS_PER_SECOND, "file_search": 2_500 * NANOS_PER_SECOND},
            standard_tiers=("default", "standard"),
            writes_cache_unasked=True,
        ),
        source=source,
        read_on="2026-11-23",
        valid_from=utc(2026, 11, 17),
    )


ADDED_MODELS: tuple[AddedModel, ...] = (
    _gpt_6_2(
        "gpt-6.2-sol",
        "https://developers.openai.com/api/docs/models/gpt-6.2-sol",
        usd("2", "10", "0.10", "2.50"),
        usd("4", "15", "0.20", "5"),
    ),
    # The vendor's own page could not be read: input, output and cached input from two reports of it, the cache write
    # and the long-context rates by the rule that the vendor states for the whole family (1.25x; 2x, 1.5x).
    _gpt_6_2(
        "gpt-6.2-astra",
        "second-hand: https://github.com/BerriAI/litellm/discussions/52347",
        usd("8", "40", "0.40", "10"),
        usd("16", "60", "0.80", "20"),
    ),
    *ADDED_MEDIA_MODELS,
)


def corrections_for(provider: str, model: str, corrections: Iterable[Correction]) -> tuple[Correction, ...]:
    """Those of `corrections` that concern this model, whatever their dates."""
    return tuple(
        entry
        for entry in corrections
        if entry.provider == provider and re.fullmatch(entry.models, model) is not None
    )


def is_in_force(entry: Correction, at: UnixNanos) -> bool:
    """Whether the correction holds at `at`."""
    return (entry.valid_from is None or entry.valid_from <= at) and (
        entry.valid_to is None or at < entry.valid_to
    )


def refusal(provider: str, name: str, at: UnixNanos, corrections: Iterable[Correction]) -> str | None:
    """Why a model of this name (requested or canonical) is refused at `at`; None if it is not."""
    for entry in corrections_for(provider, name, corrections):
        if isinstance(entry.change, Refusal) and is_in_force(entry, at):
            return f"{name}: {entry.change.reason}"
    return None


def apply(price: ModelPrice, entry: Correction) -> ModelPrice:
    """The price with one correction; unchanged where the feed already says it (or says something newer)."""
    replace = msgspec.structs.replace
    changed: ModelPrice = price
    match entry.change:
        case Uplift(geos):
            changed = replace(price, geo_multipliers=geos | price.geo_multipliers)
        case HalfDayWrites(permille):
            changed = _with_half_day_writes(price, permille)
        case PlainWrites():
            changed = map_price(price, _with_plain_writes)
        case ToolFees(fees):
            changed = replace(price, tool_fees=fees | price.tool_fees)
        case MoreTier(name, permille):
            if name not in price.variants:
                variant = Variant(
                    scale_rates(price.rates, permille),
                    tuple(
                        Tier(tier.above_input_tokens, scale_rates(tier.rates, permille))
                        for tier in price.tiers
                    ),
                    entry.name,
                )
                changed = replace(price, variants=price.variants | {name: variant})
        case PeakHours() as peak:
            if price.rates.input in peak.expects:
                changed = replace(price, rates=peak.off_peak, windows=_windows(peak))
        case UnitRates(rates):
            changed = replace(price, unit_rates=rates | price.unit_rates)
        case MediaRates(rates):
            known = {name: rate for name, rate in rates.items() if getattr(price.rates, name) is None}
            changed = replace(price, rates=replace(price.rates, **known))
        case MediaAsText():
            changed = replace(price, bills_media_as_text=True)
        case ContextWindow(tokens):
            if price.context_window is None:
                changed = replace(price, context_window=tokens)
        case Refusal():
            pass
    return (
        price
        if changed == price
        else replace(changed, source=f"{price.source}; {entry.name} ({entry.source})")
    )


def _windows(peak: PeakHours) -> tuple[Window, ...]:
    rates = scale_rates(peak.off_peak, peak.permille)
    return tuple(
        Window(start_minute=start, end_minute=end, rates=rates, weekdays=peak.weekdays)
        for start, end in peak.minutes
    )


def _with_plain_writes(rates: Rates) -> Rates:
    if rates.cache_write is not None:
        return rates
    return msgspec.structs.replace(rates, cache_write=rates.input, cache_write_12h=rates.input)


def _with_half_day_writes(price: ModelPrice, permille: int) -> ModelPrice:
    def add(rates: Rates) -> Rates:
        if rates.cache_write is None or rates.cache_write_12h is not None:
            return rates
        return msgspec.structs.replace(rates, cache_write_12h=scale_rate(rates.cache_write, permille))

    return map_price(price, add)
