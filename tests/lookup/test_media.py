"""Media classes and units: which rate each token gets, what is not priced, and what a call without bound is told."""

from typing import Any

import pytest
from price_vector import NOW
from pricing_cases import PER_TOKEN, intent_of, price_of

from outlay.lookup.cost import Cost, Quote, Request, Unbounded, Unpriced, bound, cost
from outlay.lookup.price import ModelPrice, Rates, Variant
from outlay.wire.intent import HostedTool, Modality, Operation, Units, Usage

FULL = Rates(
    input=PER_TOKEN,
    output=2 * PER_TOKEN,
    cache_read=PER_TOKEN // 2,
    input_audio=10 * PER_TOKEN,
    input_image=4 * PER_TOKEN,
    input_video=6 * PER_TOKEN,
    cache_read_audio=3 * PER_TOKEN,
    cache_read_image=2 * PER_TOKEN,
    output_audio=40 * PER_TOKEN,
    output_image=30 * PER_TOKEN,
)
TEXT = Rates(input=PER_TOKEN, output=2 * PER_TOKEN, cache_read=PER_TOKEN // 2)


def lines(price: ModelPrice, usage: Usage, **asked: Any) -> dict[str, tuple[int, int]]:
    priced = cost(price, usage, NOW, Request(**asked))
    assert isinstance(priced, Cost), priced
    assert priced.total_nanos == sum(line[3] for line in priced.lines)
    return {name: (units, rate // PER_TOKEN) for name, units, rate, _ in priced.lines}


def refused(price: ModelPrice, usage: Usage, **asked: Any) -> str:
    priced = cost(price, usage, NOW, Request(**asked))
    assert isinstance(priced, Unpriced), priced
    return priced.reason


def test_every_class_has_its_own_line() -> None:
    usage = Usage(
        1000,
        300,
        cache_read_input_tokens=100,
        input_audio_tokens=200,
        input_image_tokens=300,
        input_video_tokens=50,
        cache_read_audio_tokens=30,
        cache_read_image_tokens=60,
        output_audio_tokens=100,
        output_image_tokens=120,
    )
    assert lines(price_of(FULL), usage) == {
        # 1000 - 100 cached - (200 - 30) audio - (300 - 60) image - 50 video
        "input": (440, 1),
        "cache_read": (10, 0),
        "output": (80, 2),
        "cache_read_audio": (30, 3),
        "cache_read_image": (60, 2),
        "input_audio": (170, 10),
        "input_image": (240, 4),
        "input_video": (50, 6),
        "output_audio": (100, 40),
        "output_image": (120, 30),
    }


def test_images_without_a_rate_are_text_audio_is_not() -> None:
    price = price_of(TEXT)
    assert lines(price, Usage(100, 5, input_image_tokens=80)) == {"input": (100, 1), "output": (5, 2)}
    assert "input_audio" in refused(price, Usage(100, 5, input_audio_tokens=1))
    assert "output_audio" in refused(price, Usage(100, 5, output_audio_tokens=1))
    assert "output_image" in refused(price, Usage(100, 5, output_image_tokens=1))
    says_so = price_of(TEXT, bills_media_as_text=True)
    assert lines(says_so, Usage(100, 5, input_audio_tokens=60, output_audio_tokens=5)) == {
        "input": (100, 1),
        "output": (5, 2),
    }


def test_cached_media_that_is_not_told_apart_is_found() -> None:
    # 900 of 1000 tokens are video, 500 of the 1000 were cached: at least 400 of these are video
    usage = Usage(1000, 0, cache_read_input_tokens=500, input_video_tokens=900)
    assert lines(price_of(FULL), usage) == {"cache_read": (500, 0), "input_video": (500, 6)}
    assert "contradicts" in refused(price_of(FULL), Usage(100, 0, input_audio_tokens=101))
    assert "contradicts" in refused(price_of(FULL), Usage(100, 10, output_audio_tokens=11))


def test_cached_audio_needs_a_price() -> None:
    rates = Rates(input=PER_TOKEN, output=0, cache_read=1, input_audio=10 * PER_TOKEN)
    usage = Usage(100, 0, cache_read_input_tokens=40, input_audio_tokens=100, cache_read_audio_tokens=40)
    assert "cache_read_audio" in refused(price_of(rates), usage)
    without_cache = Rates(input=PER_TOKEN, output=0, input_audio=10 * PER_TOKEN)
    assert lines(price_of(without_cache), usage) == {"input_audio": (100, 10)}


class TestUnits:
    BY_IMAGE = price_of(
        Rates(input=0, output=0),
        unit_rates={"image/hd/1024x1024": 80 * PER_TOKEN, "image/standard": 40 * PER_TOKEN},
    )

    def test_the_most_exact_name_wins(self) -> None:
        assert self.BY_IMAGE.unit_rate("image/hd/1024x1024") == 80 * PER_TOKEN
        assert self.BY_IMAGE.unit_rate("image/standard/512x512") == 40 * PER_TOKEN
        assert self.BY_IMAGE.unit_rate("image/hd/9x9") is None

    def test_an_answer_that_says_less_has_the_asked_price(self) -> None:
        asked = (Units("image/hd/1024x1024", 4),)
        usage = Usage(0, 0, units=(Units("image", 3),))
        assert lines(self.BY_IMAGE, usage, units=asked) == {"image/hd/1024x1024": (3, 80)}
        assert "'image'" in refused(self.BY_IMAGE, usage)

    def test_an_answer_without_units_is_not_free(self) -> None:
        assert "states none" in refused(self.BY_IMAGE, Usage(10, 10))

    def test_tokens_stand_for_units_where_the_price_has_tokens(self) -> None:
        usage = Usage(100, 50, units=(Units("image", 1),))
        assert lines(price_of(TEXT), usage) == {"input": (100, 1), "output": (50, 2)}
        assert "'image'" in refused(price_of(TEXT), Usage(0, 0, units=(Units("image", 1),)))
        for name in ("google_maps", "training_token"):
            assert name in refused(price_of(TEXT), Usage(100, 50, units=(Units(name, 1),)))
        fee = price_of(TEXT, tool_fees={"google_maps": 7 * PER_TOKEN})
        assert lines(fee, Usage(1, 0, units=(Units("google_maps", 1),)))["google_maps"] == (1, 7)

    def test_bounds(self) -> None:
        quote = bound(self.BY_IMAGE, intent_of(units=(Units("image/hd/1024x1024", 4),)), 0, NOW)
        assert isinstance(quote, Quote) and quote.total_nanos == 4 * 80
        unknown = bound(self.BY_IMAGE, intent_of(units=(Units("image/hd/9x9", 4),)), 0, NOW)
        assert isinstance(unknown, Unbounded) and "image/hd/9x9" in unknown.reason
        tokens = bound(price_of(TEXT), intent_of(10, units=(Units("image/hd/9x9", 4),)), 5, NOW)
        assert isinstance(tokens, Quote) and tokens.total_nanos == 10 + 10
        training = bound(price_of(TEXT), intent_of(units=(Units("training_token", 4),)), 0, NOW)
        assert isinstance(training, Unbounded)


@pytest.mark.parametrize(
    ("modalities", "nanos"),
    [
        ((), 1000),
        ((Modality.IMAGE,), 4000),
        ((Modality.AUDIO,), 10_000),
        ((Modality.VIDEO, Modality.IMAGE), 6000),
    ],
)
def test_input_is_bounded_by_the_dearest_kind_that_it_can_be(
    modalities: tuple[Modality, ...], nanos: int
) -> None:
    quote = bound(price_of(FULL), intent_of(1000, input_modalities=modalities), 0, NOW)
    assert isinstance(quote, Quote) and quote.input_nanos == nanos


def test_output_is_bounded_by_the_dearest_kind_that_was_asked_for() -> None:
    def output_nanos(*modalities: Modality) -> int:
        quote = bound(price_of(FULL), intent_of(0, output_modalities=modalities), 10, NOW)
        assert isinstance(quote, Quote)
        return quote.output_nanos

    assert (output_nanos(), output_nanos(Modality.AUDIO), output_nanos(Modality.IMAGE)) == (20, 400, 300)
    for kind in (Modality.AUDIO, Modality.IMAGE, Modality.VIDEO):
        assert isinstance(bound(price_of(TEXT), intent_of(0, output_modalities=(kind,)), 10, NOW), Unbounded)
    assert isinstance(
        bound(price_of(TEXT), intent_of(0, input_modalities=(Modality.AUDIO,)), 10, NOW), Unbounded
    )
    assert isinstance(
        bound(
            price_of(TEXT, bills_media_as_text=True),
            intent_of(0, output_modalities=(Modality.AUDIO,)),
            1,
            NOW,
        ),
        Quote,
    )


def test_what_is_only_named_takes_the_input_limit() -> None:
    intent = intent_of(10, has_referenced_input=True)
    quote = bound(price_of(TEXT, context_window=5000), intent, 0, NOW)
    assert isinstance(quote, Quote) and quote.input_tokens == 5000
    unknown = bound(price_of(TEXT), intent, 0, NOW)
    assert isinstance(unknown, Unbounded) and "context window" in unknown.reason
    by_image = bound(
        TestUnits.BY_IMAGE,
        intent_of(has_referenced_input=True, units=(Units("image/standard", 1),)),
        0,
        NOW,
    )
    assert isinstance(by_image, Quote) and by_image.total_nanos == 40
    assert isinstance(bound(TestUnits.BY_IMAGE, intent_of(10), 0, NOW), Unbounded)


def test_a_media_intent_does_not_spoil_the_text_table() -> None:
    price = price_of(FULL)
    first = bound(price, intent_of(1000), 10, NOW)
    bound(price, intent_of(1000, input_modalities=(Modality.AUDIO,)), 10, NOW)
    assert bound(price, intent_of(1000), 10, NOW) == first


class TestBatch:
    PRICE = price_of(TEXT, variants={"batch": Variant(Rates(input=PER_TOKEN // 2, output=PER_TOKEN))})

    @pytest.mark.parametrize("served", [None, "default", "batch"])
    def test_a_batch_line_is_served_as_batch(self, served: str | None) -> None:
        usage = Usage(100, 10, service_tier=served)
        priced = cost(self.PRICE, usage, NOW, Request(service_tier="batch"))
        assert isinstance(priced, Cost) and priced.total_nanos == 50 + 10

    def test_it_is_held_as_it_is_billed(self) -> None:
        for price, nanos in ((self.PRICE, 50 + 10), (price_of(TEXT), 100 + 20)):
            quote = bound(price, intent_of(100, service_tier="batch"), 10, NOW)
            assert isinstance(quote, Quote) and quote.total_nanos == nanos

    @pytest.mark.parametrize("served", [None, "default", "batch"])
    def test_without_a_batch_price_it_costs_what_others_cost(self, served: str | None) -> None:
        usage = Usage(100, 10, service_tier=served)
        for price in (price_of(TEXT), price_of(TEXT, account_tiers=("priority",))):
            priced = cost(price, usage, NOW, Request(service_tier="batch"))
            assert isinstance(priced, Cost) and priced.total_nanos == 100 + 20

    def test_what_was_not_asked_as_batch_is_not(self) -> None:
        priced = cost(self.PRICE, Usage(100, 10), NOW, Request())
        assert isinstance(priced, Cost) and priced.total_nanos == 100 + 20


def test_free_operations_and_free_tools() -> None:
    assert lines(price_of(FULL), Usage(5, 5), operation=Operation.FREE) == {}
    price = price_of(TEXT, tool_fees={"mcp": 0}, context_window=100)
    quote = bound(price, intent_of(1, hosted_tools=(HostedTool("mcp", None),)), 0, NOW)
    assert isinstance(quote, Quote) and quote.fees_nanos == 0
