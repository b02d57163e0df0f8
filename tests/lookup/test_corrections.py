"""Corrections: each has a source and a date, does what it says, and gives way to a feed that has learnt."""

import re

import msgspec
import pytest
from price_vector import NOW, utc
from pricing_cases import intent_of, price_of

from outlay.lookup.book import PriceBook
from outlay.lookup.corrections import (
    ADDED_MODELS,
    CORRECTIONS,
    Correction,
    MoreTier,
    PeakHours,
    Uplift,
    apply,
)
from outlay.lookup.cost import Quote, bound
from outlay.lookup.feed import Feed, FeedPeriod, FeedRate, FeedRow
from outlay.lookup.match import equals
from outlay.lookup.price import ModelPrice, Rates, Variant
from outlay.wire.intent import CacheWrite


def named(name: str) -> Correction:
    return next(entry for entry in CORRECTIONS if entry.name == name)


def test_every_correction_says_where_and_when_it_was_read() -> None:
    for entry in (*CORRECTIONS, *ADDED_MODELS):
        assert "https://" in entry.source
        assert re.fullmatch(r"2026-\d\d-\d\d", entry.read_on)


def test_every_correction_still_concerns_a_model(feed: Feed) -> None:
    added = [name for entry in ADDED_MODELS for name in entry.names]
    for entry in CORRECTIONS:
        sources = (entry.provider, *feed.fallbacks(entry.provider))
        names = [row.model for source in sources for row in feed.rows(source)] + added
        assert any(re.fullmatch(entry.models, name) for name in names), entry.name


def test_an_added_model_is_not_in_the_feed(feed: Feed) -> None:
    """When this fails the feed has learnt it: delete the row."""
    for entry in ADDED_MODELS:
        rows = [row for row in feed.rows(entry.provider) if any(period.prices for period in row.periods)]
        assert not any(row.match.is_match(name) for row in rows for name in entry.names)


def test_the_feed_wins_over_an_added_model() -> None:
    (name,) = ADDED_MODELS[0].names
    row = FeedRow(
        "openai", name, equals(name), (FeedPeriod({"input_mtok": FeedRate(5), "output_mtok": FeedRate(6)}),)
    )
    price = PriceBook.build([row]).find("openai", name, NOW)
    assert isinstance(price, ModelPrice) and price.rates.input == 5


def test_what_the_feed_says_about_a_tier_region_or_class_stands() -> None:
    known = price_of(
        Rates(input=10, output=10, cache_write=12, cache_write_12h=99),
        variants={"ultrafast": Variant(Rates(input=1))},
        geo_multipliers={"us": 1234},
    )
    assert apply(known, named("openai-ultrafast-astra")).variants == known.variants
    assert apply(known, named("openai-data-residency")).geo_multipliers["us"] == 1234
    assert apply(known, named("openai-12h-cache-write")) == known


def test_hours_are_replaced_only_at_the_price_they_were_written_for() -> None:
    hours = next(entry for entry in CORRECTIONS if isinstance(entry.change, PeakHours))
    newer = price_of(Rates(input=1_234, output=1))
    assert apply(newer, hours) == newer


def test_a_correction_that_changes_something_is_named_in_the_source() -> None:
    tier = Correction(
        name="t",
        provider="p",
        models="m",
        change=MoreTier("x", 3000),
        source="https://s",
        read_on="2026-01-01",
    )
    corrected = apply(price_of(Rates(input=10, output=20)), tier)
    assert corrected.variants["x"].rates == Rates(input=30, output=60)
    assert corrected.source == "test; t (https://s)"
    unchanged = msgspec.structs.replace(tier, change=Uplift({}))
    assert apply(price_of(Rates(input=10)), unchanged) == price_of(Rates(input=10))


@pytest.mark.parametrize(
    ("model", "permille"),
    [
        ("claude-opus-4-5", None),
        ("claude-opus-4-6", 1100),
        ("claude-sonnet-4-5", None),
        ("claude-sonnet-4-6", 1100),
        ("claude-haiku-4-5", None),
        ("claude-haiku-5-5", 1100),
        ("claude-fable-5", 1100),
        ("claude-3-opus-latest", None),
    ],
)
def test_us_inference_costs_more_from_4_6_on(book: PriceBook, model: str, permille: int | None) -> None:
    price = book.find("anthropic", model, NOW)
    assert isinstance(price, ModelPrice)
    assert price.geo_multipliers.get("us") == permille


@pytest.mark.parametrize(
    ("model", "permille"), [("gpt-5.2", 1000), ("gpt-5.4-mini", 1100), ("gpt-6-luna", 1100)]
)
def test_residency_costs_more_from_march_2026_on(book: PriceBook, model: str, permille: int) -> None:
    price = book.find("openai", model, NOW)
    assert isinstance(price, ModelPrice)
    assert price.geo_multipliers["eu"] == permille


def test_longer_retention_is_no_dearer_on_models_without_write_fees(book: PriceBook) -> None:
    intent = intent_of(1_000, cache_write=CacheWrite.HALF_DAY)
    older, newer = book.find("openai", "gpt-5.2", NOW), book.find("openai", "gpt-6.1-sol", NOW)
    assert isinstance(older, ModelPrice) and isinstance(newer, ModelPrice)
    held = [bound(price, intent, 0, NOW) for price in (older, newer)]
    # 1_000 x 1_750; 1_000 x 5_000 (twice the 30-minute write of 2_500)
    assert [quote.input_nanos for quote in held if isinstance(quote, Quote)] == [1_750_000, 5_000_000]


def test_tools_that_bring_only_tokens(book: PriceBook) -> None:
    price = book.find("anthropic", "claude-opus-5-5", NOW)
    assert isinstance(price, ModelPrice)
    assert price.tool_fees["web_fetch"] == 0 and price.tool_fees["web_search"] > 0
    assert "code_execution" not in price.tool_fees


def test_ultrafast_begins_when_it_was_released(book: PriceBook) -> None:
    before = book.find("openai", "gpt-6-astra", utc("2026-09-28T23:59:59"))
    after = book.find("openai", "gpt-6-astra", utc("2026-09-29T00:00:00"))
    assert isinstance(before, ModelPrice) and isinstance(after, ModelPrice)
    assert "ultrafast" not in before.variants and "ultrafast" in after.variants
