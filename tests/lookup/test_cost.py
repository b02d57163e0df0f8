"""Bound and cost at their edges: what has no price is never zero, never silently standard."""

import pytest
from price_vector import NOW, utc
from pricing_cases import PER_TOKEN, intent_of, price_of

from outlay.lookup.cost import Cost, Quote, Request, Unbounded, Unpriced, bound, cost, with_output
from outlay.lookup.price import ModelPrice, Rates, Tier, Variant, Window
from outlay.wire.intent import CacheWrite, HostedTool, Operation, Usage

PLAIN = Rates(input=2 * PER_TOKEN, output=10 * PER_TOKEN, cache_read=PER_TOKEN)
TENS = Rates(input=20 * PER_TOKEN, output=100 * PER_TOKEN, cache_read=10 * PER_TOKEN)
CACHED = Rates(
    input=10 * PER_TOKEN,
    output=50 * PER_TOKEN,
    cache_read=PER_TOKEN,
    cache_write=12 * PER_TOKEN,
    cache_write_1h=20 * PER_TOKEN,
)
SEARCH = {"web_search": 10_000 * 10**9}


def quote(price: ModelPrice, max_output: int = 100, **intent: object) -> Quote:
    found = bound(price, intent_of(**intent), max_output, NOW)
    assert isinstance(found, Quote), found
    return found


def unbounded(price: ModelPrice, max_output: int = 100, **intent: object) -> str:
    found = bound(price, intent_of(**intent), max_output, NOW)
    assert isinstance(found, Unbounded), found
    return found.reason


def unpriced(price: ModelPrice, usage: Usage, **requested: object) -> str:
    found = cost(price, usage, NOW, Request(**requested))
    assert isinstance(found, Unpriced), found
    return found.reason


def total(price: ModelPrice, usage: Usage, at: int = NOW, **requested: object) -> int:
    found = cost(price, usage, at, Request(**requested))
    assert isinstance(found, Cost), found
    return found.total_nanos


class TestBound:
    def test_is_input_plus_choices_times_output_plus_fees(self) -> None:
        price = price_of(PLAIN, fee_per_request_nanos=7, tool_fees=SEARCH, context_window=500)
        found = quote(price, 100, choices=3, hosted_tools=(HostedTool("web_search", 2),))
        # the window is 500 tokens x 2; 3 x 100 x 10; 2 searches at $10 per 1000 and 7 nanos for the request
        assert (found.input_tokens, found.input_nanos) == (500, 1_000)
        assert (found.output_nanos, found.output_rate) == (3_000, 10 * PER_TOKEN)
        assert found.fees_nanos == 20_000_007
        assert found.total_nanos == 20_004_007

    @pytest.mark.parametrize(("tokens", "held"), [(900, 950), (950, 1_000), (951, 1_000), (50_000, 1_000)])
    def test_overhead_is_added_and_the_window_caps(self, tokens: int, held: int) -> None:
        price = price_of(PLAIN, input_overhead_tokens=50, context_window=1_000)
        assert quote(price, tokens=tokens).input_tokens == held

    def test_the_wider_limit_of_a_rounded_window_counts(self) -> None:
        price = price_of(PLAIN, context_window=1_000, input_limit_tokens=1_050)
        assert quote(price, tokens=9_999).input_tokens == 1_050

    @pytest.mark.parametrize(("tokens", "rate"), [(99, 2), (100, 2), (101, 4), (200, 4), (201, 6)])
    def test_the_dearest_tier_that_the_length_can_reach(self, tokens: int, rate: int) -> None:
        tiers = tuple(
            Tier(above, Rates(input=factor * PER_TOKEN, output=factor * PER_TOKEN))
            for above, factor in ((100, 4), (200, 6))
        )
        assert quote(price_of(PLAIN, tiers=tiers), 0, tokens=tokens).input_nanos == tokens * rate

    def test_a_tier_that_is_cheaper_does_not_lower_the_hold(self) -> None:
        tiers = (Tier(100, Rates(input=PER_TOKEN, output=PER_TOKEN)),)
        found = quote(price_of(PLAIN, tiers=tiers), 10, tokens=1_000)
        assert (found.input_nanos, found.output_nanos) == (2_000, 100)

    @pytest.mark.parametrize(
        ("asked", "rate"), [(CacheWrite.NONE, 10), (CacheWrite.DEFAULT, 12), (CacheWrite.HOUR, 20)]
    )
    def test_cache_writes_asked_for(self, asked: CacheWrite, rate: int) -> None:
        assert quote(price_of(CACHED), 0, cache_write=asked).input_nanos == 1_000 * rate

    def test_cache_writes_that_the_vendor_does_unasked(self) -> None:
        assert quote(price_of(CACHED, writes_cache_unasked=True), 0).input_nanos == 12_000

    def test_a_longer_write_without_a_price_is_held_at_twice_the_short_one(self) -> None:
        assert quote(price_of(CACHED), 0, cache_write=CacheWrite.HALF_DAY).input_nanos == 24_000
        short_only = price_of(Rates(input=10 * PER_TOKEN, cache_write=12 * PER_TOKEN))
        assert quote(short_only, 0, cache_write=CacheWrite.HOUR).input_nanos == 24_000

    def test_a_vendor_without_any_cache_class_writes_at_input_price(self) -> None:
        assert quote(price_of(PLAIN), 0, cache_write=CacheWrite.HOUR).input_nanos == 2_000

    def test_peak_hours_are_held_at_any_hour(self) -> None:
        peak = Window(60, 240, Rates(input=5 * PER_TOKEN, output=20 * PER_TOKEN))
        found = quote(price_of(PLAIN, windows=(peak,)), 10)
        assert (found.input_nanos, found.output_nanos) == (5_000, 200)

    def test_tools_need_a_limit_a_price_and_a_window(self) -> None:
        known = price_of(PLAIN, tool_fees=SEARCH, context_window=500)
        assert "max_uses" in unbounded(known, hosted_tools=(HostedTool("web_search", None),))
        assert "code_execution" in unbounded(known, hosted_tools=(HostedTool("code_execution", 1),))
        assert "context window" in unbounded(
            price_of(PLAIN, tool_fees=SEARCH), hosted_tools=(HostedTool("web_search", 1),)
        )

    def test_a_tool_without_fee_needs_no_limit(self) -> None:
        price = price_of(PLAIN, tool_fees={"web_fetch": 0}, context_window=500)
        found = quote(price, 0, hosted_tools=(HostedTool("web_fetch", None),))
        assert (found.input_tokens, found.fees_nanos) == (500, 0)

    @pytest.mark.parametrize(
        ("asked", "held"),
        [
            (None, 2_000),
            ("auto", 2_000),
            ("default", 2_000),
            ("flex", 2_000),  # no room: served and billed as standard
            ("batch", 2_000),  # a discount tier that has no price here
            ("priority", 8_000),
            ("fast", 8_000),  # the vendor's new name for it
            ("ultrafast", 60_000),
        ],
    )
    def test_every_tier_that_may_be_served_is_held(self, asked: str | None, held: int) -> None:
        variants = {
            "flex": Variant(Rates(input=PER_TOKEN, output=PER_TOKEN)),
            "priority": Variant(Rates(input=8 * PER_TOKEN, output=8 * PER_TOKEN)),
            "fast": Variant(Rates(input=8 * PER_TOKEN, output=8 * PER_TOKEN)),
            "ultrafast": Variant(Rates(input=60 * PER_TOKEN, output=8 * PER_TOKEN)),
        }
        assert quote(price_of(PLAIN, variants=variants), 0, service_tier=asked).input_nanos == held

    @pytest.mark.parametrize("asked", ["priority", "ultrafast", "scale", "nonsense"])
    def test_a_premium_or_unknown_tier_without_a_price_cannot_be_held(self, asked: str) -> None:
        assert asked in unbounded(price_of(PLAIN), service_tier=asked)

    def test_an_account_set_to_a_dearer_tier_holds_it_unless_default_is_asked(self) -> None:
        variants = {"priority": Variant(Rates(input=8 * PER_TOKEN, output=8 * PER_TOKEN))}
        price = price_of(PLAIN, variants=variants, account_tiers=("priority",))
        assert quote(price, 0).input_nanos == 8_000
        assert quote(price, 0, service_tier="default").input_nanos == 2_000

    def test_speed_and_region(self) -> None:
        fast = {"speed:fast": Variant(Rates(input=40 * PER_TOKEN, output=20 * PER_TOKEN))}
        price = price_of(TENS, variants=fast, geo_multipliers={"us": 1100})
        assert quote(price, 0, speed="fast", inference_geo="us").input_nanos == 44_000
        assert "slow" in unbounded(price, speed="slow")
        assert "mars" in unbounded(price, inference_geo="mars")

    def test_a_workspace_set_to_a_region_holds_its_uplift(self) -> None:
        price = price_of(TENS, geo_multipliers={"us": 1100}, account_geos=("us",))
        assert quote(price, 0).input_nanos == 22_000
        assert quote(price, 0, inference_geo="global").input_nanos == 20_000

    def test_output_without_a_price(self) -> None:
        embedding = price_of(Rates(input=20_000))
        assert "output price" in unbounded(embedding, 1)
        assert quote(embedding, 0, operation=Operation.EMBEDDINGS).total_nanos == 20

    def test_free_operations_hold_nothing(self) -> None:
        price = price_of(PLAIN, fee_per_request_nanos=5)
        for operation in (Operation.COUNT_TOKENS, Operation.MODELS):
            assert quote(price, operation=operation).total_nanos == 0

    def test_another_output_limit(self) -> None:
        price = price_of(PLAIN, fee_per_request_nanos=5)
        assert with_output(quote(price, 100, choices=2), 33) == quote(price, 33, choices=2)

    def test_memory_does_not_grow_with_what_callers_write(self) -> None:
        flat = price_of(PLAIN, is_flat=True)
        normal = price_of(PLAIN)
        for number in range(50):
            text = f"tier-{number}"
            quote(flat, service_tier=text, speed=text, inference_geo=text)
            unbounded(normal, service_tier=text)
            total(flat, Usage(10, 1, service_tier=text, speed=text, inference_geo=text))
            unpriced(normal, Usage(10, 1, service_tier=text))
            total(normal, Usage(10, 1, service_tier="default"), service_tier=text)
        assert len(flat.memo.reachable) <= 1 and len(flat.memo.served) <= 1
        assert len(normal.memo.reachable) == 0 and len(normal.memo.served) <= 1


class TestCost:
    def test_explicit_zero_usage_costs_the_request_fee_only(self) -> None:
        assert total(price_of(PLAIN), Usage(0, 0)) == 0
        assert total(price_of(PLAIN, fee_per_request_nanos=9), Usage(0, 0)) == 9

    def test_a_zero_rate_is_a_price(self) -> None:
        free = price_of(Rates(input=0, output=0))
        assert total(free, Usage(1_000_000, 1_000_000)) == 0
        assert quote(free).total_nanos == 0

    def test_cached_tokens_without_a_class_are_ordinary_input(self) -> None:
        assert (
            total(price_of(Rates(input=PER_TOKEN, output=0)), Usage(10, 0, cache_read_input_tokens=4)) == 10
        )

    @pytest.mark.parametrize(
        "usage",
        [
            Usage(10, 1, cache_read_input_tokens=11),
            Usage(10, 1, cache_read_input_tokens=6, cache_creation_input_tokens=5),
            Usage(10, 1, cache_creation_input_tokens=2, cache_creation_1h_input_tokens=3),
            Usage(10, 1, cache_creation_1h_input_tokens=3),
            Usage(10, 1, reasoning_output_tokens=2),  # an answer whose output does not include its reasoning
            Usage(-1, 0),
            Usage(0, -1),
            Usage(10, 1, cache_read_input_tokens=-1),
            Usage(10, 1, cache_creation_input_tokens=-1),
        ],
    )
    def test_a_usage_that_contradicts_itself_is_not_priced(self, usage: Usage) -> None:
        assert "contradicts" in unpriced(price_of(CACHED), usage)

    def test_cache_writes_without_a_price_are_not_free(self) -> None:
        assert "cache_write" in unpriced(price_of(PLAIN), Usage(10, 1, cache_creation_input_tokens=5))
        usage = Usage(10, 1, cache_creation_input_tokens=5, cache_creation_12h_input_tokens=5)
        assert "cache_write_12h" in unpriced(price_of(CACHED), usage)

    def test_tools_without_a_price_are_not_free(self) -> None:
        assert "web_search" in unpriced(price_of(PLAIN), Usage(10, 1, web_search_requests=1))
        assert "code_execution" in unpriced(
            price_of(PLAIN, tool_fees=SEARCH), Usage(10, 1, code_execution_requests=1)
        )

    def test_output_without_a_price_is_not_free(self) -> None:
        assert "output" in unpriced(price_of(Rates(input=1)), Usage(10, 1))

    @pytest.mark.parametrize("tier", ["auto", "nonsense", "scale", "ultrafast", "flex", "priority"])
    def test_an_unknown_tier_as_served_is_never_standard(self, tier: str) -> None:
        assert tier in unpriced(price_of(PLAIN), Usage(10, 1, service_tier=tier))

    @pytest.mark.parametrize("asked", ["flex", "priority", "nonsense"])
    def test_a_special_tier_asked_for_needs_an_answer(self, asked: str) -> None:
        variants = {"flex": Variant(PLAIN), "priority": Variant(PLAIN)}
        assert "did not say" in unpriced(price_of(PLAIN, variants=variants), Usage(10, 1), service_tier=asked)

    def test_no_tier_on_either_side_is_standard(self) -> None:
        assert (
            total(price_of(PLAIN), Usage(10, 1))
            == total(price_of(PLAIN), Usage(10, 1), service_tier="auto")
            == 30
        )

    def test_an_account_set_to_another_tier_needs_an_answer(self) -> None:
        price = price_of(PLAIN, variants={"priority": Variant(PLAIN)}, account_tiers=("priority",))
        assert "did not say" in unpriced(price, Usage(10, 1))
        assert total(price, Usage(10, 1, service_tier="default")) == 30

    def test_speed_as_served_decides_not_as_asked(self) -> None:
        price = price_of(PLAIN, variants={"speed:fast": Variant(CACHED)})
        assert total(price, Usage(10, 1, speed="standard"), speed="fast") == 30
        assert total(price, Usage(10, 1, speed="fast")) == 150
        assert "slow" in unpriced(price, Usage(10, 1, speed="slow"))
        assert "batch" in unpriced(price, Usage(10, 1, speed="fast", service_tier="batch"))

    def test_region_as_served_or_else_as_asked(self) -> None:
        price = price_of(PLAIN, geo_multipliers={"us": 1100})
        assert total(price, Usage(100, 0, inference_geo="us")) == 220
        assert total(price, Usage(100, 0), inference_geo="us") == 220
        assert total(price, Usage(100, 0, inference_geo="global"), inference_geo="us") == 200
        assert "mars" in unpriced(price, Usage(100, 0, inference_geo="mars"))

    @pytest.mark.parametrize(("tokens", "nanos"), [(200_000, 400_000), (200_001, 800_004)])
    def test_a_cliff_reprices_every_token(self, tokens: int, nanos: int) -> None:
        tiers = (Tier(200_000, Rates(input=4 * PER_TOKEN, output=0)),)
        assert total(price_of(PLAIN, tiers=tiers), Usage(tokens, 0)) == nanos

    @pytest.mark.parametrize(
        ("time", "nanos"),
        [
            ("2026-11-22T22:59:59", 20),
            ("2026-11-22T23:00:00", 50),
            ("2026-11-23T00:59:59", 50),
            ("2026-11-23T01:00:00", 20),
        ],
    )
    def test_a_window_over_midnight(self, time: str, nanos: int) -> None:
        price = price_of(PLAIN, windows=(Window(23 * 60, 60, Rates(input=5 * PER_TOKEN, output=0)),))
        assert total(price, Usage(10, 0), utc(time)) == nanos

    @pytest.mark.parametrize(
        ("time", "nanos"),
        [
            ("2026-11-20T23:30:00", 50),  # Friday evening
            ("2026-11-21T00:30:00", 50),  # Saturday, but the window began on Friday
            ("2026-11-21T23:30:00", 20),  # Saturday evening
            ("2026-11-23T00:30:00", 20),  # Monday, but the window began on Sunday
            ("2026-11-23T23:30:00", 50),
        ],
    )
    def test_a_weekday_window_over_midnight_belongs_to_its_first_day(self, time: str, nanos: int) -> None:
        window = Window(23 * 60, 60, Rates(input=5 * PER_TOKEN, output=0), (), (0, 1, 2, 3, 4))
        assert total(price_of(PLAIN, windows=(window,)), Usage(10, 0), utc(time)) == nanos

    def test_each_line_is_rounded_once_half_to_even(self) -> None:
        price = price_of(Rates(input=500_000, output=1_500_000, cache_read=500_000))
        found = cost(price, Usage(3, 1, cache_read_input_tokens=2), NOW, Request())
        assert isinstance(found, Cost)
        # 2 x 0.5 = 1; 1 x 0.5 -> 0 (even); 1 x 1.5 -> 2 (even)
        assert found.lines == (
            ("cache_read", 2, 500_000, 1),
            ("input", 1, 500_000, 0),
            ("output", 1, 1_500_000, 2),
        )

    def test_rounding_cannot_lift_the_sum_of_lines_over_the_hold(self) -> None:
        rates = Rates(*(600_000,) * 6)
        held = quote(price_of(rates), 0, tokens=5, cache_write=CacheWrite.HALF_DAY)
        usage = Usage(
            5,
            0,
            cache_read_input_tokens=1,
            cache_creation_input_tokens=3,
            cache_creation_1h_input_tokens=1,
            cache_creation_12h_input_tokens=1,
        )
        # five lines of 0.6 are 5 nanos; the whole is 3.0
        assert total(price_of(rates), usage) == 5 == held.total_nanos

    def test_free_operations_cost_nothing_whatever_the_usage_says(self) -> None:
        price = price_of(PLAIN, fee_per_request_nanos=5)
        for operation in (Operation.COUNT_TOKENS, Operation.MODELS):
            assert total(price, Usage(10_000, 10), operation=operation) == 0
