"""What an operator may write, and what is said about what they may not."""

import pytest
from price_vector import utc

from outlay.kernel.errors import ConfigError
from outlay.lookup.book import PriceBook
from outlay.lookup.cost import Cost, Request, cost
from outlay.lookup.describe import PriceCard, show
from outlay.lookup.overrides import (
    AccountTerms,
    Ceiling,
    CustomModel,
    Discount,
    LongContext,
    Override,
    RequestFee,
    SelfHosted,
    check_all,
    permille_of,
    rates_of,
)
from outlay.lookup.price import ModelPrice, Rates
from outlay.wire.intent import Units, Usage

GOOD = {"input": "1", "output": "2"}

BAD: list[tuple[Override | SelfHosted | Ceiling, str, str]] = [
    (Discount(provider="", multiplier="1"), "provider", "no provider"),
    (Discount(provider="p", multiplier="cheap"), "multiplier", "not a number"),
    (Discount(provider="p", multiplier="-0.1"), "multiplier", "below 0"),
    (Discount(provider="p", multiplier="NaN"), "multiplier", "finite"),
    (Discount(provider="p", multiplier="Infinity"), "multiplier", "finite"),
    (Discount(provider="p", multiplier="850"), "multiplier", "above 100"),
    (
        Discount(
            provider="p",
            multiplier="1",
            valid_from=utc("2026-02-01T00:00:00"),
            valid_to=utc("2026-02-01T00:00:00"),
        ),
        "valid_to",
        "not after",
    ),
    (CustomModel(provider="p", model="", usd_per_mtok=GOOD), "model", "no model"),
    (
        CustomModel(provider="p", model="m", usd_per_mtok=GOOD, usd_per_unit={"image": "-1"}),
        "usd_per_unit.image",
        "below 0",
    ),
    (
        CustomModel(provider="p", model="m", usd_per_mtok=GOOD, usd_per_unit={"image": "1e20"}),
        "usd_per_unit.image",
        "range",
    ),
    (
        SelfHosted(provider="p", usd_per_mtok=GOOD, usd_per_unit={"audio_ms": "free"}),
        "usd_per_unit.audio_ms",
        "not a number",
    ),
    (CustomModel(provider="p", model="m", usd_per_mtok={}), "usd_per_mtok.input", "no price"),
    (CustomModel(provider="p", model="m", usd_per_mtok={"inptu": "1"}), "usd_per_mtok", "inptu"),
    (CustomModel(provider="p", model="m", usd_per_mtok={"input": "-1"}), "usd_per_mtok.input", "range"),
    (CustomModel(provider="p", model="m", usd_per_mtok={"input": "nan"}), "usd_per_mtok.input", "finite"),
    (CustomModel(provider="p", model="m", usd_per_mtok={"input": "1e30"}), "usd_per_mtok.input", "range"),
    (
        CustomModel(provider="p", model="m", usd_per_mtok=GOOD, long_context=(LongContext(-1, GOOD),)),
        "long_context[0]",
        "negative",
    ),
    (
        CustomModel(provider="p", model="m", usd_per_mtok=GOOD, variants={"batch": {"cache": "1"}}),
        "variants.batch",
        "cache",
    ),
    (
        CustomModel(provider="p", model="m", usd_per_mtok=GOOD, geo_multipliers={"eu": "1.0001"}),
        "geo_multipliers.eu",
        "three",
    ),
    (
        CustomModel(provider="p", model="m", usd_per_mtok=GOOD, usd_per_1000_uses={"web_search": "-1"}),
        "usd_per_1000_uses.web_search",
        "below 0",
    ),
    (
        CustomModel(provider="p", model="m", usd_per_mtok=GOOD, usd_per_request="0.0000000001"),
        "usd_per_request",
        "finer",
    ),
    (
        CustomModel(provider="p", model="m", usd_per_mtok=GOOD, context_window=0),
        "context_window",
        "1 or more",
    ),
    (
        CustomModel(provider="p", model="m", usd_per_mtok=GOOD, max_output_tokens=-5),
        "max_output_tokens",
        "1 or more",
    ),
    (
        CustomModel(provider="p", model="m", usd_per_mtok=GOOD, input_overhead_tokens=-1),
        "input_overhead",
        "negative",
    ),
    (RequestFee(provider="p", usd_per_request="-1"), "usd_per_request", "negative"),
    (RequestFee(provider="p", usd_per_request="a cent"), "usd_per_request", "not a number"),
    (AccountTerms(provider="p"), "prices[0]", "tiers or geos"),
    (SelfHosted(provider="p"), "prices[0]", "usd_per_hour"),
    (SelfHosted(provider="p", usd_per_hour="1"), "prices[0]", "tokens_per_second"),
    (SelfHosted(provider="p", usd_per_hour="1", usd_per_mtok=GOOD), "prices[0]", "not both"),
    (SelfHosted(provider="p", usd_per_hour="1", tokens_per_second="0"), "tokens_per_second", "above 0"),
    (SelfHosted(provider="p", usd_per_hour="-1", tokens_per_second="9"), "usd_per_hour", "below 0"),
    (SelfHosted(provider="p", usd_per_hour="1", tokens_per_second="9", count=0), "count", "1 or more"),
    (
        SelfHosted(provider="p", usd_per_hour="1", tokens_per_second="9", input_tokens_per_second="x"),
        "input_tokens_per_second",
        "not a number",
    ),
    (Ceiling(usd_per_mtok={"input": "1"}), "output", "ceiling"),
    (Ceiling(usd_per_mtok=GOOD, usd_per_1000_uses={"web_search": "much"}), "web_search", "not a number"),
]


@pytest.mark.parametrize(
    ("entry", "key", "problem"), BAD, ids=[f"{key}-{problem}" for _, key, problem in BAD]
)
def test_a_wrong_entry_is_refused_with_key_and_problem(
    entry: Override | SelfHosted | Ceiling, key: str, problem: str
) -> None:
    (error,) = check_all([entry])
    assert key in str(error.key) and problem in error.problem
    with pytest.raises(ConfigError):
        match entry:
            case SelfHosted():
                PriceBook.build([], self_hosted=[entry])
            case Ceiling():
                PriceBook.build([], ceilings=[entry])
            case _:
                PriceBook.build([], overrides=[entry])


def test_all_problems_are_found_at_once() -> None:
    problems = check_all([Discount(provider="p", multiplier="0.85"), BAD[1][0], BAD[7][0]])
    assert [problem.key for problem in problems] == ["prices[1].multiplier", "prices[2].model"]


def test_media_and_units_of_an_operators_model() -> None:
    painter = CustomModel(
        provider="p",
        model="m",
        usd_per_mtok={"input": "1", "output": "2", "input_audio": "8"},
        usd_per_unit={"image/hd": "0.08", "audio_ms": "0.0000001"},
    )
    engine = SelfHosted(
        provider="q", usd_per_mtok={"input": "0", "output": "0"}, usd_per_unit={"audio_ms": "0"}
    )
    book = PriceBook.build([], [painter, Discount(provider="p", multiplier="0.5")], [engine])
    price = book.find("p", "m", utc("2026-01-01T00:00:00"))
    assert isinstance(price, ModelPrice)
    # half of $8 per 10**6 tokens, of $0.08 and of $0.10 per 10**6
    assert price.rates.input_audio == 4_000 * 10**6
    assert price.unit_rate("image/hd/1024x1024") == 40_000 * 10**9
    assert price.unit_rate("audio_ms") == 50 * 10**6 and price.unit_rate("image") is None
    card = show(book, "p", "m", utc("2026-01-01T00:00:00"))
    assert isinstance(card, PriceCard) and set(card.unit_rates) == {"image/hd", "audio_ms"}
    heard = book.find("q", "any", utc("2026-01-01T00:00:00"))
    assert isinstance(heard, ModelPrice) and heard.unit_rates == {"audio_ms": 0}
    free = cost(heard, Usage(0, 0, units=(Units("audio_ms", 500),)), utc("2026-01-01T00:00:00"), Request())
    assert isinstance(free, Cost) and free.total_nanos == 0


def test_classes_left_out_are_as_standard() -> None:
    standard = Rates(input=1, output=2, cache_read=3)
    assert rates_of({"output": "0.000000009"}, "k", standard) == Rates(input=1, output=9, cache_read=3)


def test_permille_is_exact() -> None:
    assert permille_of("1.1", "k") == 1100
    assert permille_of("0", "k") == 0
