"""What `price show`, `price diff` and `price check` have to say."""

import pytest
from price_vector import NOW, utc

from outlay.lookup.book import PriceBook
from outlay.lookup.describe import Difference, PriceCard, check, diff, history, show
from outlay.lookup.doubts import DOUBTS
from outlay.lookup.feed import FeedPeriod, FeedRate, FeedRow, FeedVariant
from outlay.lookup.match import equals
from outlay.lookup.overrides import Discount
from outlay.lookup.price import UnknownPrice

PRICE = {"input_mtok": FeedRate(10), "output_mtok": FeedRate(20), "cache_read_mtok": FeedRate(1)}


def row(prices: dict[str, FeedRate], **more: object) -> FeedRow:
    fields = {"provider": "p", "model": "m", "match": equals("m"), "periods": (FeedPeriod(prices),)}
    return FeedRow(**(fields | more))


def test_show_lays_out_every_set_of_rates(book: PriceBook) -> None:
    shown = show(book, "deepseek", "deepseek-v4-pro", NOW)
    assert isinstance(shown, PriceCard)
    names = [section.name for section in shown.sections]
    assert names == [
        "standard",
        "01:00-04:00 UTC Mon,Tue,Wed,Thu,Fri",
        "06:00-10:00 UTC Mon,Tue,Wed,Thu,Fri",
    ]
    assert any("holidays" in doubt for doubt in shown.doubts)
    tiered = show(book, "openai", "gpt-6-sol", NOW)
    assert isinstance(tiered, PriceCard)
    assert "batch above 272000 input tokens" in [section.name for section in tiered.sections]
    assert isinstance(show(book, "openai", "gtp-6", NOW), UnknownPrice)


def test_history_joins_periods_in_which_nothing_changed(book: PriceBook) -> None:
    prices = history(book, "openai", "o3", utc("2026-06-01T00:00:00"))
    assert [entry.sections[0].rates.input for entry in prices] == [10_000 * 10**6, 2_000 * 10**6]
    assert prices[0].valid_to == prices[1].valid_from == utc("2025-06-10T00:00:00")


def test_diff_of_one_book_at_two_times() -> None:
    march = utc("2026-03-01T00:00:00")
    changed = row(PRICE, periods=(FeedPeriod(PRICE), FeedPeriod(PRICE | {"input_mtok": FeedRate(12)}, march)))
    book = PriceBook.build([changed])
    assert diff(book, book, "p", (utc("2026-02-01T00:00:00"), march)) == (
        Difference("p", "m", "standard.input", 10, 12),
    )


def test_diff_of_two_books_finds_models_tiers_and_fees() -> None:
    variants = (FeedVariant((("processing", "batch"),), {"input_mtok": FeedRate(5)}),)
    before = PriceBook.build([row(PRICE, context_window=100)])
    after = PriceBook.build(
        [
            row(PRICE | {"web_searches_kcount": FeedRate(7)}, variants=variants),
            row(PRICE, model="n", match=equals("n")),
        ]
    )
    assert set(diff(before, after, "p", (NOW, NOW))) == {
        Difference("p", "m", "batch.input", None, 5),
        Difference("p", "m", "batch.output", None, 20),
        Difference("p", "m", "batch.cache_read", None, 1),
        Difference("p", "m", "tool.web_search", None, 7),
        Difference("p", "m", "context_window", 100, None),
        Difference("p", "n", "model", None, 1),
    }
    assert diff(before, before, "p", (NOW, NOW)) == ()


@pytest.mark.parametrize(
    ("bad", "detail"),
    [
        (row(PRICE | {"cache_read_mtok": FeedRate(11)}), "reading the cache"),
        (row(PRICE | {"cache_write_mtok": FeedRate(12), "cache_write_1h_mtok": FeedRate(11)}), "one-hour"),
        (row(PRICE | {"input_mtok": FeedRate(10, ((100, 9),))}), "cheaper than below"),
        (
            row(PRICE, variants=(FeedVariant((("processing", "batch"),), {"input_mtok": FeedRate(11)}),)),
            "discount",
        ),
    ],
)
def test_check_finds_contradictions(bad: FeedRow, detail: str) -> None:
    (finding,) = check(PriceBook.build([bad]), ["p"], NOW)
    assert finding.kind == "contradictory" and detail in finding.detail


def test_check_finds_what_is_old_second_hand_refused_or_over() -> None:
    old = row(
        PRICE,
        periods=(FeedPeriod(PRICE), FeedPeriod(PRICE, utc("2026-01-01T00:00:00"))),
        comment="Imported from OpenRouter pricing",
        is_deprecated=True,
    )
    book = PriceBook.build(
        [old, row({}, model="n", match=equals("n"))],
        [Discount(provider="p", multiplier="0.9", name="acme", valid_to=utc("2026-02-01T00:00:00"))],
    )
    kinds = [(finding.model, finding.kind) for finding in check(book, ["p"], NOW)]
    assert kinds == [("", "stale"), ("n", "refused"), ("m", "doubtful"), ("m", "stale"), ("", "stale")]


def test_a_sound_price_has_no_findings() -> None:
    assert check(PriceBook.build([row(PRICE)]), ["p"], NOW) == ()


def test_doubts_name_models_that_exist(book: PriceBook) -> None:
    for doubt in DOUBTS:
        assert doubt.model in book.names(doubt.provider), doubt


def test_the_real_book_can_be_checked(book: PriceBook) -> None:
    findings = check(book, ["openai", "anthropic", "deepseek", "mistral"], NOW)
    assert ("openai", "gpt-6.2-astra", "doubtful") in {(f.provider, f.model, f.kind) for f in findings}
    assert ("openai", "gpt-live-1", "refused") in {(f.provider, f.model, f.kind) for f in findings}
    assert not [finding for finding in findings if finding.kind == "contradictory"]
