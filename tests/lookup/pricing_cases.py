"""Builders of prices, intents and usages for the pricing tests."""

from typing import Any

import msgspec
from hypothesis import strategies as st

from outlay.kernel.clock import UnixNanos
from outlay.lookup.price import ModelPrice, PriceId, Rates, Tier, Variant, Window
from outlay.lookup.served import SPEED_PREFIX, STANDARD, reachable_variants
from outlay.wire.intent import (
    CacheWrite,
    CallIntent,
    Dialect,
    HostedTool,
    Modality,
    Operation,
    Units,
    Usage,
)

PER_TOKEN = 1_000_000
"""Rate of one nano a token."""


def price_of(rates: Rates, **more: Any) -> ModelPrice:
    fields: dict[str, Any] = {
        "price_id": PriceId("test/p/m#0"),
        "provider": "p",
        "model": "m",
        "source": "test",
        "standard_tiers": ("default", "standard"),
    }
    return ModelPrice(rates=rates, **(fields | more))


def intent_of(tokens: int = 1_000, **more: Any) -> CallIntent:
    fields: dict[str, Any] = {
        "dialect": Dialect.OPENAI,
        "operation": Operation.CHAT,
        "model": "m",
        "input_tokens_bound": tokens,
        "max_output_tokens": None,
        "output_limit_field": None,
    }
    return CallIntent(**(fields | more))


_RATE = st.one_of(st.integers(0, 40), st.integers(0, 10**6), st.integers(0, 10**11))
"""Nanos per 10**6: also odd ones far below a nano a token, where rounding bites."""


_MAYBE = st.none() | _RATE
_KINDS = st.sampled_from(
    [(), (), (), (Modality.AUDIO,), (Modality.IMAGE,), (Modality.AUDIO, Modality.IMAGE, Modality.VIDEO)]
)
_MADE = st.sampled_from([(), (), (), (Modality.AUDIO,), (Modality.AUDIO, Modality.IMAGE)])
_UNITS = st.sampled_from(
    [(), (), (), (Units("image/hd/1", 3),), (Units("character", 9), Units("training_token", 5))]
)


@st.composite
def rate_sets(draw: st.DrawFn) -> Rates:
    return Rates(
        input=draw(_RATE),
        output=draw(_RATE),
        cache_read=draw(st.none() | _RATE),
        cache_write=draw(_RATE),
        cache_write_1h=draw(_RATE),
        cache_write_12h=draw(_RATE),
        input_audio=draw(_MAYBE),
        input_image=draw(_MAYBE),
        input_video=draw(_MAYBE),
        cache_read_audio=draw(_MAYBE),
        cache_read_image=draw(_MAYBE),
        output_audio=draw(_MAYBE),
        output_image=draw(_MAYBE),
    )


@st.composite
def tier_sets(draw: st.DrawFn) -> tuple[Tier, ...]:
    thresholds = sorted(draw(st.sets(st.integers(0, 3_000), max_size=2)))
    return tuple(Tier(above, draw(rate_sets())) for above in thresholds)


@st.composite
def prices(draw: st.DrawFn) -> ModelPrice:
    names = draw(st.sets(st.sampled_from(["batch", "flex", "priority", "fast", "ultrafast", "speed:fast"])))
    windows = ()
    if draw(st.booleans()):
        start, end = draw(st.integers(0, 1439)), draw(st.integers(0, 1439))
        weekdays = draw(st.none() | st.just((0, 1, 2, 3, 4)))
        windows = (Window(start, end, draw(rate_sets()), draw(tier_sets()), weekdays),)
    return price_of(
        draw(rate_sets()),
        tiers=draw(tier_sets()),
        variants={name: Variant(draw(rate_sets()), draw(tier_sets())) for name in sorted(names)},
        windows=windows,
        geo_multipliers=draw(st.dictionaries(st.sampled_from(["us", "eu"]), st.integers(900, 1500))),
        tool_fees={"web_search": draw(_RATE)},
        fee_per_request_nanos=draw(st.integers(0, 1000)),
        input_overhead_tokens=draw(st.integers(0, 50)),
        context_window=draw(st.none() | st.integers(1, 5_000)),
        unit_rates=draw(
            st.sampled_from([{}, {}, {"image/hd": 77, "character": 10**9 + 1, "training_token": 3 * 10**6}])
        ),
        bills_media_as_text=draw(st.booleans()),
        account_tiers=draw(st.sampled_from([(), (), ("flex",)])),
        account_geos=draw(st.sampled_from([(), (), tuple(sorted({"us"}))])),
        writes_cache_unasked=draw(st.booleans()),
        is_flat=draw(st.sampled_from([False, False, False, True])),
    )


@st.composite
def intents(draw: st.DrawFn) -> CallIntent:
    tools = draw(st.sampled_from([(), (), (HostedTool("web_search", 3),)]))
    return intent_of(
        draw(st.integers(0, 6_000)),
        choices=draw(st.integers(1, 3)),
        service_tier=draw(
            st.sampled_from([None, "auto", "default", "flex", "batch", "priority", "fast", "ultrafast"])
        ),
        speed=draw(st.sampled_from([None, None, "standard", "fast"])),
        inference_geo=draw(st.sampled_from([None, None, "global", "us", "eu"])),
        cache_write=draw(st.sampled_from(list(CacheWrite))),
        hosted_tools=tools,
        has_referenced_input=draw(st.sampled_from([False, False, True])),
        input_modalities=draw(_KINDS),
        output_modalities=draw(_MADE),
        units=draw(_UNITS),
    )


def _share(draw: st.DrawFn, left: int, is_allowed: bool) -> int:
    return draw(st.integers(0, left)) if is_allowed and left > 0 else 0


@st.composite
def usages_within(draw: st.DrawFn, price: ModelPrice, intent: CallIntent, max_output: int) -> Usage:
    """Any usage that the provider may report for this intent, served in any way that the intent allows."""
    reachable = reachable_variants(price, intent.service_tier, intent.speed)
    assert isinstance(reachable, tuple)
    served = draw(st.sampled_from(reachable))
    tier = (price.standard_tiers or ("default",))[0]
    # a provider that was asked for a speed says which one it served
    speed = None if intent.speed is None else "standard"
    if served.startswith(SPEED_PREFIX):
        speed = served.removeprefix(SPEED_PREFIX)
    elif served != STANDARD:
        tier = served
    most = intent.input_tokens_bound + price.input_overhead_tokens
    limit = price.input_limit
    if intent.hosted_tools or (intent.has_referenced_input and limit is not None):
        most = limit or 0
    elif limit is not None:
        most = min(most, limit)
    total = draw(st.integers(0, most) | st.just(most))
    read = _share(draw, total, True)
    asked = intent.cache_write
    may_write = price.rates.cache_write is not None and (
        price.writes_cache_unasked or asked is not CacheWrite.NONE
    )
    short = _share(draw, total - read, may_write)
    has_hour, has_half_day = price.rates.cache_write_1h is not None, price.rates.cache_write_12h is not None
    hour = _share(draw, total - read - short, has_hour and asked in {CacheWrite.HOUR, CacheWrite.HALF_DAY})
    half_day = _share(draw, total - read - short - hour, has_half_day and asked is CacheWrite.HALF_DAY)
    made = draw(st.integers(0, intent.choices * max_output) | st.just(intent.choices * max_output))
    usage = Usage(
        input_tokens=total,
        output_tokens=made,
        cache_read_input_tokens=read,
        cache_creation_input_tokens=short + hour + half_day,
        cache_creation_1h_input_tokens=hour,
        cache_creation_12h_input_tokens=half_day,
        web_search_requests=draw(st.integers(0, 3)) if intent.hosted_tools else 0,
        service_tier=tier,
        speed=speed,
        inference_geo=intent.inference_geo or draw(st.sampled_from([None, *price.account_geos])),
    )
    media = draw(_media_within(intent, usage))
    units = tuple(Units(unit.name, draw(st.integers(0, unit.count))) for unit in intent.units)
    return msgspec.structs.replace(usage, units=units, **media)


@st.composite
def _media_within(draw: st.DrawFn, intent: CallIntent, usage: Usage) -> dict[str, int]:
    """Kinds of content within a usage's totals, of the modalities that the intent can carry."""
    fresh = usage.input_tokens - usage.cache_read_input_tokens - usage.cache_creation_input_tokens
    kinds = intent.input_modalities
    audio = _share(draw, fresh, Modality.AUDIO in kinds)
    image = _share(draw, fresh - audio, Modality.IMAGE in kinds)
    video = _share(draw, fresh - audio - image, Modality.VIDEO in kinds)
    cached_audio = _share(draw, usage.cache_read_input_tokens, Modality.AUDIO in kinds)
    cached_image = _share(draw, usage.cache_read_input_tokens - cached_audio, Modality.IMAGE in kinds)
    spoken = _share(draw, usage.output_tokens, Modality.AUDIO in intent.output_modalities)
    drawn = _share(draw, usage.output_tokens - spoken, Modality.IMAGE in intent.output_modalities)
    return {
        "input_audio_tokens": audio + cached_audio,
        "input_image_tokens": image + cached_image,
        "input_video_tokens": video,
        "cache_read_audio_tokens": cached_audio,
        "cache_read_image_tokens": cached_image,
        "output_audio_tokens": spoken,
        "output_image_tokens": drawn,
    }


TIMES = st.integers(0, 60 * 86_400).map(lambda second: UnixNanos(1_790_000_000_000_000_000 + second * 10**9))
