"""Finding a price: aliases, precedence, ids, what is unknown, and what stays bounded."""

import msgspec
import pytest
from price_vector import NOW, utc

from outlay.kernel.clock import UnixNanos
from outlay.lookup.book import MAX_MEMO, PriceBook
from outlay.lookup.cost import Cost, Request, cost
from outlay.lookup.overrides import (
    AccountTerms,
    Ceiling,
    CustomModel,
    Discount,
    LongContext,
    RequestFee,
    SelfHosted,
)
from outlay.lookup.price import ModelPrice, UnknownPrice, with_price_id
from outlay.wire.intent import Usage

JUNE = utc("2026-06-01T00:00:00")
CEILING = Ceiling(usd_per_mtok={"input": "20", "output": "100"})


def price_of(book: PriceBook, provider: str, model: str, at: UnixNanos = NOW) -> ModelPrice:
    price = book.find(provider, model, at)
    assert isinstance(price, ModelPrice), price
    return price


def nanos(price: ModelPrice, usage: Usage) -> int:
    found = cost(price, usage, NOW, Request())
    assert isinstance(found, Cost), found
    return found.total_nanos


@pytest.mark.parametrize(
    ("provider", "name", "model"),
    [
        ("openai", "gpt-5.4-2026-03-05", "gpt-5.4"),
        ("openai", "GPT-5.4", "gpt-5.4"),
        ("openai", "gpt-6-sol-2026-09-01", "gpt-6-sol"),
        ("anthropic", "claude-opus-4-1-20250805", "claude-opus-4-1"),
        ("gemini", "gemini-2.5-flash-latest", "gemini-2.5-flash"),
        ("xai", "grok-latest", "grok-4.5"),
        ("azure", "gpt-5.4", "gpt-5.4"),
        ("bedrock", "global.anthropic.claude-opus-5-5", None),
    ],
)
def test_aliases_and_dated_names(book: PriceBook, provider: str, name: str, model: str | None) -> None:
    price = price_of(book, provider, name)
    assert price.provider == provider
    if model is not None:
        assert price.model == model


def test_every_model_is_found_by_its_canonical_id(book: PriceBook) -> None:
    """Charges store the canonical id, so repricing must find it again (some rows of the feed match aliases only)."""
    for provider in book.feed.providers():
        for model in book.names(provider):
            price = book.find(provider, model, NOW)
            assert isinstance(price, UnknownPrice) or price.model == model, (provider, model)
    assert price_of(book, "mistral", "codestral").rates.input == 300 * 10**6


def test_a_reseller_has_no_tiers_and_tools_of_its_supplier(book: PriceBook) -> None:
    price = price_of(book, "azure", "gpt-5.4")
    assert price.rates.input == price_of(book, "openai", "gpt-5.4").rates.input
    assert (price.variants, price.tool_fees, price.geo_multipliers) == ({}, {}, {})


def test_a_price_survives_the_ledger(book: PriceBook) -> None:
    for provider, model in (
        ("openai", "gpt-6-sol"),
        ("deepseek", "deepseek-flash"),
        ("anthropic", "claude-opus-5-5"),
    ):
        price = price_of(book, provider, model)
        assert msgspec.json.decode(msgspec.json.encode(price), type=ModelPrice) == price


def test_the_price_id_follows_the_content_and_nothing_else(book: PriceBook) -> None:
    price = price_of(book, "openai", "gpt-5.4-mini")
    assert (
        price.price_id == price_of(PriceBook.build(book.feed), "openai", "gpt-5.4-mini-2026-03-17").price_id
    )
    assert price.price_id.startswith(f"{book.feed.name}+corrections/openai/gpt-5.4-mini#")
    discounted = book.with_overrides([Discount(provider="openai", multiplier="0.9", name="acme")])
    other = price_of(discounted, "openai", "gpt-5.4-mini")
    assert other.price_id.startswith(f"{book.feed.name}+corrections+acme/openai/gpt-5.4-mini#")
    assert other.price_id.split("#")[1] != price.price_id.split("#")[1]


def test_an_id_made_again_is_the_same(book: PriceBook) -> None:
    price = price_of(book, "openai", "gpt-5.4")
    assert with_price_id(price, price.price_id.split("/")[0]).price_id == price.price_id


class TestUnknown:
    def test_names_the_nearest(self, book: PriceBook) -> None:
        unknown = book.find("openai", "gtp-5.4-mini", NOW)
        assert isinstance(unknown, UnknownPrice)
        assert unknown.nearest[0] == "gpt-5.4-mini" and len(unknown.nearest) <= 5
        assert "gtp-5.4-mini" in unknown.reason

    def test_an_unknown_provider(self, book: PriceBook) -> None:
        assert book.find("acme", "gpt-5.4", NOW) == UnknownPrice(
            "acme", "gpt-5.4", (), "no price is known for model 'gpt-5.4' at 'acme'"
        )

    def test_an_endless_name_is_not_matched(self, book: PriceBook) -> None:
        unknown = book.find("openai", "x" * 100_000, NOW)
        assert isinstance(unknown, UnknownPrice) and len(unknown.model) <= 256

    def test_the_memo_is_bounded(self, feed) -> None:
        book = PriceBook.build(feed)
        for number in range(MAX_MEMO + 10):
            book.find("acme", f"m{number}", NOW)
        assert len(book._memo) <= MAX_MEMO
        assert price_of(book, "openai", "gpt-5.4").model == "gpt-5.4"

    @pytest.mark.parametrize(
        ("provider", "model"),
        [
            (
                "openai",
                "gpt-4o-mini-search-preview",
            ),  # an alias of gpt-4o-mini in the feed, plus a hidden search
            ("openai", "gpt-4o-audio-preview-2024-10-01"),  # cost 2.5 times what later snapshots cost
            ("openai", "gpt-live-1"),
            ("google", "gemini-3.8-live"),
            ("google", "gemini-omni-1.1-flash"),  # makes video, which usage does not tell apart
            ("mistral", "voxtral-small-24b-2507"),  # tokens and hours in one call
            ("perplexity", "sonar-deep-research"),
            ("deepseek", "deepseek-chat"),
        ],
    )
    def test_what_cannot_be_priced_from_its_usage_is_refused(
        self, book: PriceBook, provider: str, model: str
    ) -> None:
        assert isinstance(book.find(provider, model, NOW), UnknownPrice)

    def test_a_retired_alias_had_a_price_once(self, book: PriceBook) -> None:
        assert price_of(book, "deepseek", "deepseek-chat", utc("2025-06-01T00:00:00")).windows

    def test_a_model_that_is_not_out_yet(self, book: PriceBook) -> None:
        assert isinstance(book.find("openai", "gpt-6.2-sol", utc("2026-11-16T23:59:59")), UnknownPrice)
        assert price_of(book, "openai", "gpt-6.2-sol").price_id.startswith("outlay-corrections")


class TestCeiling:
    def test_unknown_models_are_priced_and_marked(self, feed) -> None:
        book = PriceBook.build(feed, ceilings=[CEILING])
        price = price_of(book, "acme", "some-model")
        assert price.is_ceiling and "no price is known" in price.source
        # 100 x 20_000 + 10 x 100_000, whatever was served; cache classes cost what input costs
        usage = Usage(
            100,
            10,
            cache_read_input_tokens=50,
            cache_creation_input_tokens=20,
            service_tier="odd",
            inference_geo="moon",
        )
        assert nanos(price, usage) == 3_000_000

    def test_known_models_are_not(self, feed) -> None:
        book = PriceBook.build(feed, ceilings=[CEILING])
        assert not price_of(book, "openai", "gpt-5.4").is_ceiling

    def test_a_provider_has_its_own_before_the_general_one(self, feed) -> None:
        own = Ceiling(provider="openai", usd_per_mtok={"input": "1", "output": "2"}, name="openai ceiling")
        book = PriceBook.build(feed, ceilings=[own, CEILING])
        assert price_of(book, "openai", "new-model").rates.input == 1_000 * 10**6
        assert price_of(book, "acme", "new-model").rates.input == 20_000 * 10**6

    def test_a_ceiling_covers_refused_models(self, feed) -> None:
        assert price_of(PriceBook.build(feed, ceilings=[CEILING]), "openai", "gpt-live-1").is_ceiling


class TestOverrides:
    def test_a_contract_discount_from_its_date(self, book: PriceBook) -> None:
        contract = Discount(provider="anthropic", multiplier="0.85", valid_from=JUNE, name="acme 2026")
        priced = book.with_overrides([contract])
        usage = Usage(1_000, 100)
        # 1_000 x 5_000 + 100 x 25_000 = 7_500_000; x 0.85 = 6_375_000
        assert nanos(price_of(priced, "anthropic", "claude-opus-5"), usage) == 6_375_000
        before = price_of(priced, "anthropic", "claude-opus-5", UnixNanos(JUNE - 1))
        assert nanos(before, usage) == 7_500_000 and before.valid_to == JUNE
        assert price_of(priced, "openai", "gpt-5.4") == price_of(book, "openai", "gpt-5.4")

    def test_a_discount_reaches_tiers_variants_and_windows_but_not_fees(self, book: PriceBook) -> None:
        half = Discount(provider="openai", multiplier="0.5", model="gpt-5.4")
        full, discounted = (
            price_of(book, "openai", "gpt-5.4"),
            price_of(book.with_overrides([half]), "openai", "gpt-5.4"),
        )
        assert discounted.tiers[0].rates.output == full.tiers[0].rates.output // 2
        assert discounted.variants["flex"].rates.input == full.variants["flex"].rates.input // 2
        assert discounted.tool_fees == full.tool_fees
        hours = book.with_overrides([Discount(provider="deepseek", multiplier="0.5")])
        assert price_of(hours, "deepseek", "deepseek-flash").windows[0].rates.input == 150 * 10**6
        fees = book.with_overrides([Discount(provider="openai", multiplier="0.5", includes_fees=True)])
        assert (
            price_of(fees, "openai", "gpt-5.4").tool_fees["web_search"] == full.tool_fees["web_search"] // 2
        )

    def test_discounts_and_fees_add_up_in_order(self, book: PriceBook) -> None:
        terms = [
            Discount(provider="openai", multiplier="0.5"),
            Discount(provider="openai", multiplier="1.1", name="reseller"),
            RequestFee(provider="openai", usd_per_request="0.001"),
        ]
        price = price_of(book.with_overrides(terms), "openai", "gpt-5.4")
        # 100 x 2_500 x 0.5 x 1.1 = 137_500; 1_000_000 for the request
        assert nanos(price, Usage(100, 0)) == 1_137_500

    def test_an_operators_model_wins_over_the_feed_and_later_over_earlier(self, book: PriceBook) -> None:
        custom = [
            CustomModel(provider="openai", model="gpt-5.4", usd_per_mtok={"input": "9", "output": "9"}),
            CustomModel(
                provider="openai",
                model="gpt-5.4",
                usd_per_mtok={"input": "1", "output": "2"},
                aliases=("house-model",),
                name="second",
            ),
        ]
        priced = book.with_overrides(custom)
        assert nanos(price_of(priced, "openai", "gpt-5.4"), Usage(10, 10)) == 30_000
        assert price_of(priced, "openai", "house-model").model == "gpt-5.4"
        assert price_of(priced, "openai", "gpt-5.4").price_id.startswith("second/openai/gpt-5.4#")
        assert price_of(book, "openai", "gpt-5.4").rates.input == 2_500 * 10**6

    def test_an_operators_model_in_full(self, book: PriceBook) -> None:
        custom = CustomModel(
            provider="house",
            model="big",
            usd_per_mtok={"input": "1", "output": "4", "cache_read": "0.1"},
            long_context=(LongContext(1_000, {"input": "2", "output": "6"}),),
            variants={"batch": {"input": "0.5", "output": "2"}},
            geo_multipliers={"eu": "1.05"},
            usd_per_1000_uses={"web_search": "10"},
            usd_per_request="0.000000007",
            context_window=4_000,
            max_output_tokens=500,
        )
        price = price_of(book.with_overrides([custom]), "house", "big")
        assert (
            nanos(price, Usage(1_000, 10, cache_read_input_tokens=500))
            == 500 * 1_000 + 500 * 100 + 10 * 4_000 + 7
        )
        assert nanos(price, Usage(1_001, 0)) == 1_001 * 2_000 + 7
        assert nanos(price, Usage(100, 0, service_tier="batch")) == 100 * 500 + 7
        assert nanos(price, Usage(100, 0, inference_geo="eu")) == 105_000 + 7
        assert nanos(price, Usage(0, 0, web_search_requests=1)) == 10_000_000 + 7
        assert (price.input_limit, price.max_output_tokens) == (4_000, 500)
        assert "big" in book.with_overrides([custom]).names("house")

    def test_account_terms(self, book: PriceBook) -> None:
        terms = AccountTerms(provider="openai", tiers=("priority",), geos=("eu",))
        price = price_of(book.with_overrides([terms]), "openai", "gpt-5.4")
        assert (price.account_tiers, price.account_geos) == (("priority",), ("eu",))


class TestSelfHosted:
    def test_per_hour_with_one_throughput(self) -> None:
        engine = SelfHosted(provider="vllm", usd_per_hour="2.50", count=4, tokens_per_second="20000")
        price = price_of(PriceBook.build([], self_hosted=[engine]), "vllm", "anything/at-all")
        # $10 an hour / 72_000_000 tokens an hour = 138.888... nanos a token: the rate is rounded at 10**-9 USD per 1M
        assert price.rates.output == 138_888_889
        # 1_000 x 138.888889 = 138_888.889 -> 138_889; input is free, any tier and region is the same
        assert nanos(price, Usage(50_000, 1_000, service_tier="priority", inference_geo="mars")) == 138_889

    def test_per_hour_with_prefill_apart(self) -> None:
        engine = SelfHosted(
            provider="vllm",
            model="m",
            usd_per_hour="2.50",
            count=4,
            tokens_per_second="20000",
            input_tokens_per_second="200000",
        )
        price = price_of(PriceBook.build([], self_hosted=[engine]), "vllm", "m")
        # 6_000 x 13.888889 = 83_333.3 -> 83_333; 4_000 written x 13.888889 = 55_555.6 -> 55_556;
        # 1_000 x 138.888889 -> 138_889
        assert nanos(price, Usage(10_000, 1_000, cache_creation_input_tokens=4_000)) == 277_778

    def test_a_cpu_machine(self) -> None:
        engine = SelfHosted(provider="llama", usd_per_hour="0.17", tokens_per_second="30")
        price = price_of(PriceBook.build([], self_hosted=[engine]), "llama", "m")
        # $0.17 / 108_000 tokens = 1_574.074074 nanos a token; x 200 = 314_814.8 -> 314_815
        assert nanos(price, Usage(500, 200)) == 314_815

    def test_per_token(self) -> None:
        engine = SelfHosted(provider="llama", usd_per_mtok={"input": "0.01", "output": "0.04"})
        price = price_of(PriceBook.build([], self_hosted=[engine]), "llama", "m")
        assert nanos(price, Usage(1_000, 1_000)) == 50_000

    def test_only_named_models_if_a_name_is_given(self) -> None:
        engine = SelfHosted(provider="llama", model="m", usd_per_mtok={"input": "0", "output": "0"})
        book = PriceBook.build([], self_hosted=[engine])
        assert nanos(price_of(book, "llama", "m"), Usage(9, 9)) == 0
        assert isinstance(book.find("llama", "other", NOW), UnknownPrice)
