"""The feed: complete, exact against its source, and kept out of the gateway's process."""

import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from price_vector import NOW, utc

from outlay.lookup.book import PriceBook
from outlay.lookup.feed import (
    FORMAT,
    Feed,
    FeedError,
    FeedFile,
    FeedPeriod,
    FeedRate,
    FeedRow,
    FeedVariant,
    compile_feed,
    encode_feed,
    feed_of,
    load_feed,
)
from outlay.lookup.match import Clause, equals, spellings
from outlay.lookup.price import ModelPrice, Rates, UnknownPrice

NEEDED = {
    *("openai", "anthropic", "google", "mistral", "deepseek", "x-ai", "groq", "cohere", "perplexity"),
    *("together", "fireworks", "openrouter", "azure", "aws"),
}


def row(**more: object) -> FeedRow:
    fields = {
        "provider": "p",
        "model": "m",
        "match": equals("m"),
        "periods": (FeedPeriod({"input_mtok": FeedRate(2_000), "output_mtok": FeedRate(9_000)}),),
    }
    return FeedRow(**(fields | more))


def found(feed_row: FeedRow, at: int = NOW, provider: str = "p", name: str = "m") -> ModelPrice:
    price = PriceBook.build([feed_row]).find(provider, name, at)
    assert isinstance(price, ModelPrice), price
    return price


def test_every_needed_provider_is_there(feed: Feed) -> None:
    assert set(feed.providers()) >= NEEDED
    assert all(feed.rows(provider) for provider in NEEDED)
    assert feed.fallbacks("azure")[0] == "openai"
    assert feed.price_page("openai").startswith("https://")
    assert feed.rows("no such provider") == ()


def test_the_compiled_rows_are_what_the_cache_holds(feed: Feed) -> None:
    compiled = compile_feed()
    assert len(compiled) > 2_000
    assert compiled == [entry for provider in feed.providers() for entry in feed.rows(provider)]


def test_standard_rates_equal_the_source_package(feed: Feed) -> None:
    from genai_prices.data import providers
    from genai_prices.types import ModelPrice as SourcePrice

    compared = 0
    for provider in providers:
        for model, mine in zip(provider.models, feed.rows(provider.id), strict=True):
            assert mine.model == model.id
            if isinstance(model.prices, SourcePrice) and isinstance(model.prices.input_mtok, Decimal):
                # the source has float noise in it: 0.18000000000000002
                exact = round(model.prices.input_mtok, 9) * 10**9
                assert mine.periods[0].prices["input_mtok"].base == exact
                compared += 1
    assert compared > 1_500


def test_matching_equals_the_source_package(feed: Feed) -> None:
    from genai_prices.data import providers

    names = [model.id for provider in providers for model in provider.models][::7]
    names += [
        "gpt-5.2-20251211",
        "GPT-4o-Mini",
        "claude-opus-4-1-20250805",
        "ft:gpt-4o-mini-2024-07-18:x",
        "nothing",
    ]
    for provider in providers:
        rows = feed.rows(provider.id)
        for name in names:
            expected = provider.find_model(name)
            mine = next(
                (entry for spelling in spellings(name) for entry in rows if entry.match.is_match(spelling)),
                None,
            )
            assert (mine and mine.model) == (expected and expected.id), (provider.id, name)


def test_the_gateways_process_never_imports_the_feed_package(tmp_path: Path) -> None:
    load_feed(tmp_path)
    script = (
        "import sys; from pathlib import Path; from outlay.lookup.feed import load_feed;"
        "from outlay.lookup.book import PriceBook; from outlay.lookup.corrections import utc;"
        f"book = PriceBook.build(load_feed(Path({str(tmp_path)!r})));"
        "book.find('openai', 'gpt-5.4', utc(2026, 11, 23));"
        "assert not {'genai_prices', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_cache_is_written_once_and_used(tmp_path: Path) -> None:
    first = load_feed(tmp_path)
    (file,) = tmp_path.iterdir()
    assert first.version in file.name and f"f{FORMAT}" in file.name
    before = file.stat().st_mtime_ns
    assert load_feed(tmp_path).providers() == first.providers()
    assert file.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "damage", [b"", b"\x00garbage", msgspec.msgpack.encode(FeedFile(FORMAT - 1, "0", ()))]
)
def test_a_damaged_or_older_cache_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    load_feed(tmp_path)
    (file,) = tmp_path.iterdir()
    good = file.read_bytes()
    file.write_bytes(damage)
    assert load_feed(tmp_path).rows("openai")
    assert file.read_bytes() == good == encode_feed()


def test_a_place_that_cannot_hold_a_cache_only_costs_time(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    assert load_feed(blocked / "below").rows("openai")
    assert load_feed(None).rows("openai")


def test_a_failing_child_is_an_operators_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(FeedError):
        load_feed(tmp_path)


class TestRows:
    def test_dates_choose_the_period_and_bound_its_validity(self) -> None:
        changed = row(
            periods=(
                FeedPeriod({"input_mtok": FeedRate(1)}),
                FeedPeriod({"input_mtok": FeedRate(2)}, utc("2026-03-01T00:00:00")),
                FeedPeriod({"input_mtok": FeedRate(3)}, utc("2026-06-01T00:00:00")),
            )
        )
        book = PriceBook.build([changed])
        seen = []
        for time in (
            "2026-02-28T23:59:59",
            "2026-03-01T00:00:00",
            "2026-05-31T23:59:59",
            "2026-06-01T00:00:00",
        ):
            price = book.find("p", "m", utc(time))
            assert isinstance(price, ModelPrice)
            seen.append((price.rates.input, price.valid_from, price.valid_to))
        march, june = utc("2026-03-01T00:00:00"), utc("2026-06-01T00:00:00")
        assert seen == [(1, None, march), (2, march, june), (2, march, june), (3, june, None)]

    def test_a_daily_window_wins_over_dates(self) -> None:
        hours = row(
            periods=(
                FeedPeriod({"input_mtok": FeedRate(1)}),
                FeedPeriod({"input_mtok": FeedRate(2)}, utc("2026-03-01T00:00:00")),
                FeedPeriod({"input_mtok": FeedRate(9)}, None, (60, 240)),
            )
        )
        price = found(hours)
        assert price.rates.input == 2
        assert [(window.start_minute, window.end_minute, window.rates.input) for window in price.windows] == [
            (60, 240, 9)
        ]

    def test_a_variant_keeps_standard_where_it_says_nothing(self) -> None:
        variants = (
            FeedVariant((("processing", "batch"),), {"input_mtok": FeedRate(5)}),
            FeedVariant((("service_tier", "default"),), {}),
            FeedVariant((("speed", "fast"),), {"output_mtok": FeedRate(7)}),
            FeedVariant((("search_type", "fast"),), {"input_mtok": FeedRate(0)}),
        )
        price = found(row(variants=variants))
        assert {name: variant.rates for name, variant in price.variants.items()} == {
            "batch": Rates(input=5, output=9_000),
            "speed:fast": Rates(input=2_000, output=7),
        }

    def test_the_first_variant_in_force_sets_a_key(self) -> None:
        new, old = utc("2026-10-29T00:00:00"), utc("2026-10-14T00:00:00")
        batch = (("processing", "batch"),)
        variants = (
            FeedVariant(batch, {"input_mtok": FeedRate(3)}, new),
            FeedVariant(batch, {"input_mtok": FeedRate(4), "output_mtok": FeedRate(5)}, old),
        )
        dated = row(variants=variants)
        assert found(dated, new).variants["batch"].rates == Rates(input=3, output=5)
        assert found(dated, new - 1).variants["batch"].rates == Rates(input=4, output=5)
        assert found(dated, old - 1).variants == {}

    def test_tiers_of_different_keys_are_joined(self) -> None:
        prices = {
            "input_mtok": FeedRate(1, ((100, 2), (200, 3))),
            "output_mtok": FeedRate(10, ((200, 20),)),
            "cache_read_mtok": FeedRate(7),
        }
        price = found(row(periods=(FeedPeriod(prices),)))
        assert [(tier.above_input_tokens, tier.rates) for tier in price.tiers] == [
            (100, Rates(2, 10, 7)),
            (200, Rates(3, 20, 7)),
        ]

    @pytest.mark.parametrize("key", ["output_video_mtok", "output_reasoning_mtok", "output_citation_mtok"])
    def test_output_in_units_that_usage_does_not_tell_apart_is_refused(self, key: str) -> None:
        prices = {"input_mtok": FeedRate(1), "output_mtok": FeedRate(1), key: FeedRate(30)}
        refused = PriceBook.build([row(periods=(FeedPeriod(prices),))]).find("p", "m", NOW)
        assert isinstance(refused, UnknownPrice) and key in refused.reason

    def test_media_classes_and_units_are_taken_over(self) -> None:
        classes = {
            "input_audio_mtok": FeedRate(3, ((100, 6),)),
            "input_image_mtok": FeedRate(4),
            "input_video_mtok": FeedRate(5),
            "cache_audio_read_mtok": FeedRate(6),
            "cache_image_read_mtok": FeedRate(7),
            "output_audio_mtok": FeedRate(8),
            "output_image_mtok": FeedRate(9),
        }
        prices = {"input_mtok": FeedRate(1), "output_mtok": FeedRate(2), **classes}
        price = found(row(periods=(FeedPeriod(prices),)))
        rates = price.rates
        assert (rates.input_audio, rates.input_image, rates.input_video) == (3, 4, 5)
        assert (rates.cache_read_audio, rates.cache_read_image) == (6, 7)
        assert (rates.output_audio, rates.output_image) == (8, 9)
        assert price.tiers[0].rates.input_audio == 6
        spoken = found(row(periods=(FeedPeriod({"input_audio_hours": FeedRate(100)}),)))
        assert spoken.unit_rates == {"audio_ms": 100} and spoken.is_by_unit
        mixed = {"input_mtok": FeedRate(1), "audio_hours": FeedRate(100)}
        refused = PriceBook.build([row(periods=(FeedPeriod(mixed),))]).find("p", "m", NOW)
        assert isinstance(refused, UnknownPrice) and "audio_ms" in refused.reason

    def test_an_hour_is_three_million_six_hundred_thousand_milliseconds(self, feed: Feed) -> None:
        price = PriceBook.build(feed).find("openai", "whisper-1", NOW)
        # $0.36 an hour is $0.006 a minute, $0.10 for 10**6 ms
        assert isinstance(price, ModelPrice) and price.unit_rates == {"audio_ms": 100_000_000}

    def test_a_row_without_input_price_is_not_free(self) -> None:
        refused = PriceBook.build([row(periods=(FeedPeriod({}),))]).find("p", "m", NOW)
        assert isinstance(refused, UnknownPrice)

    def test_fees(self) -> None:
        prices = {
            "input_mtok": FeedRate(1),
            "web_searches_kcount": FeedRate(10_000 * 10**9),
            "requests_kcount": FeedRate(12_000 * 10**9),
        }
        price = found(row(periods=(FeedPeriod(prices),)))
        # $10 per 1000 searches is 10_000_000 nanos each; $12 per 1000 requests is 12_000_000 nanos each
        assert price.tool_fees == {"web_search": 10_000_000 * 10**6}
        assert price.fee_per_request_nanos == 12_000_000


@pytest.mark.parametrize(
    ("clause", "name", "expected"),
    [
        (Clause("eq", "a"), "a", True),
        (Clause("eq", "a"), "ab", False),
        (Clause("start", "a"), "ab", True),
        (Clause("end", "b"), "ab", True),
        (Clause("has", "b"), "abc", True),
        (Clause("re", r"^a\d$"), "a1", True),
        (Clause("re", r"^a\d$"), "a12", False),
        (Clause("or", "", (equals("x"), equals("a"))), "a", True),
        (Clause("or"), "a", False),
        (Clause("and", "", (Clause("start", "a"), Clause("end", "b"))), "ab", True),
        (Clause("and", "", (Clause("start", "a"), Clause("end", "c"))), "ab", False),
    ],
)
def test_clauses(clause: Clause, name: str, expected: bool) -> None:
    assert clause.is_match(name) is expected


@pytest.mark.parametrize(
    ("name", "tried"),
    [
        ("GPT-5.2-20251211", ("gpt-5.2-20251211", "gpt-5.2-2025-12-11")),
        ("m-20251301", ("m-20251301",)),
        ("m-20250230:free", ("m-20250230:free",)),
        ("plain", ("plain",)),
    ],
)
def test_spellings(name: str, tried: tuple[str, ...]) -> None:
    assert spellings(name) == tried


def test_feed_of_groups_rows_by_provider() -> None:
    feed = feed_of([row(), row(provider="q"), row(model="n", match=equals("n"))])
    assert [entry.model for entry in feed.rows("p")] == ["m", "n"]
    assert [entry.model for entry in feed.rows("q")] == ["m"]
