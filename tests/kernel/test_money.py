"""Money is exact: against Fraction, at the halves, at the bounds."""

from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.kernel.money import (
    MAX_NANOS,
    MoneyError,
    format_usd,
    line_bound,
    line_cost,
    units_affordable,
    usd_header,
    usd_per_million_to_rate,
    usd_to_nanos,
)

UNITS = st.integers(0, 10**12)
RATES = st.integers(0, 10**15)
NANOS = st.integers(0, MAX_NANOS)


@given(UNITS, RATES)
def test_line_cost_is_half_even(units: int, rate: int) -> None:
    exact = Fraction(units * rate, 10**6)
    assert line_cost(units, rate) == round(exact)
    assert line_cost(units, rate) <= line_bound(units, rate)
    assert exact <= line_bound(units, rate) < exact + 1


@pytest.mark.parametrize(
    ("units", "rate", "nanos"),
    [(1, 500_000, 0), (3, 500_000, 2), (5, 500_000, 2), (7, 500_000, 4), (1, 500_001, 1), (1, 499_999, 0)],
)
def test_halves(units: int, rate: int, nanos: int) -> None:
    assert line_cost(units, rate) == nanos


@given(st.integers(-5, 10**15), st.integers(1, 10**12))
def test_affordable_units_fit_and_one_more_does_not(nanos: int, rate: int) -> None:
    units = units_affordable(nanos, rate)
    assert units >= 0
    if nanos > 0:
        assert line_bound(units, rate) <= nanos < line_bound(units + 1, rate)


@given(st.integers(-MAX_NANOS, MAX_NANOS))
def test_text_and_back(nanos: int) -> None:
    text = format_usd(nanos)
    assert usd_to_nanos(text) == nanos
    assert len(text.partition(".")[2]) >= 2
    assert len(text.partition(".")[2]) == 2 or not text.endswith("0")


@given(NANOS)
def test_the_header_is_the_same_text(nanos: int) -> None:
    assert usd_header(nanos).decode() == format_usd(nanos)


@pytest.mark.parametrize(
    ("amount", "nanos"),
    [
        ("0.0042", 4_200_000),
        ("1", 10**9),
        (3, 3 * 10**9),
        (Decimal("1e-9"), 1),
        ("-0.5", -(10**9) // 2),
        (" 2 ", 2 * 10**9),
    ],
)
def test_amounts(amount: str | int | Decimal, nanos: int) -> None:
    assert usd_to_nanos(amount) == nanos


@pytest.mark.parametrize(
    "amount",
    ["nan", "inf", "-inf", "", "ten", "1e-10", "0.0000000001", "4611686019", "-4611686019", "1_0x", None],
)
def test_what_is_no_amount(amount: str) -> None:
    with pytest.raises(MoneyError):
        usd_to_nanos(amount)


def test_the_bound_itself_is_an_amount() -> None:
    assert usd_to_nanos(Decimal(MAX_NANOS) / 10**9) == MAX_NANOS
    with pytest.raises(MoneyError):
        usd_to_nanos(Decimal(MAX_NANOS + 1) / 10**9)


@given(st.decimals(0, 10**6, places=15))
def test_rates_round_once_half_even(price: Decimal) -> None:
    wanted = (price * 10**9).quantize(Decimal(1), rounding=ROUND_HALF_EVEN)
    assert usd_per_million_to_rate(price) == int(wanted)


@pytest.mark.parametrize("price", ["-1", "nan", "inf", "x", "1e19"])
def test_what_is_no_price(price: str) -> None:
    with pytest.raises(MoneyError):
        usd_per_million_to_rate(price)
