"""Money: integer nano-dollars, and the only place where an amount is rounded.

1 USD = 10**9 nanos. A *rate* is integer nanos per one million units (tokens, requests x 10**6, ...), so
USD 0.0375 per 1M tokens is the rate 37_500_000. No float ever enters: amounts come from text, integers or
`Decimal`. Must not know what is being priced.
"""

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import NewType

Nanos = NewType("Nanos", int)
"""Amount of money in nano-dollars (10**-9 USD)."""

NANOS_PER_USD = 1_000_000_000
UNITS_PER_RATE = 1_000_000
MAX_NANOS = 2**62
"""Largest amount accepted from a person or a file (USD 4.6 billion): sums of two stay in 64 bits."""


class MoneyError(ValueError):
    """An amount that is not a finite, representable sum of money."""


def usd_to_nanos(amount: str | int | Decimal) -> Nanos:
    """Exact nanos of a USD amount given as text, integer or Decimal.

    Raises `MoneyError` if it is not finite, finer than a nano-dollar, or beyond +-MAX_NANOS.
    """
    try:
        value = Decimal(amount) * NANOS_PER_USD
    except (InvalidOperation, ValueError, TypeError) as error:
        raise MoneyError(f"not an amount of money: {amount!r}") from error
    if not value.is_finite():
        raise MoneyError(f"not a finite amount of money: {amount!r}")
    if value != value.to_integral_value():
        raise MoneyError(f"finer than a nano-dollar: {amount!r}")
    if abs(value) > MAX_NANOS:
        raise MoneyError(f"amount out of range: {amount!r}")
    return Nanos(int(value))


def usd_per_million_to_rate(price: str | int | Decimal) -> int:
    """Rate (nanos per 10**6 units) of a USD price per 10**6 units, rounded half-even at 10**-9 USD.

    This is the one rounding of a *price* (a discount or a throughput may leave more digits than a rate holds).
    """
    try:
        value = Decimal(price) * NANOS_PER_USD
    except (InvalidOperation, ValueError, TypeError) as error:
        raise MoneyError(f"not a price: {price!r}") from error
    if not value.is_finite() or value < 0 or value > MAX_NANOS:
        raise MoneyError(f"price out of range: {price!r}")
    return int(value.quantize(Decimal(1), rounding=ROUND_HALF_EVEN))


def line_cost(units: int, rate: int) -> Nanos:
    """Cost of one priced line: `units * rate / 10**6`, rounded half-even once. Units and rate are >= 0."""
    product = units * rate
    nanos, rest = divmod(product, UNITS_PER_RATE)
    if rest > 500_000 or (rest == 500_000 and nanos & 1):
        nanos += 1
    return Nanos(nanos)


def line_bound(units: int, rate: int) -> Nanos:
    """Upper bound of one priced line: `units * rate / 10**6`, rounded up. Never below `line_cost`."""
    return Nanos(-(-units * rate // UNITS_PER_RATE))


def units_affordable(nanos: int, rate: int) -> int:
    """Most units whose `line_bound` is <= nanos (0 if nanos < 0); for rate 0 the caller must not ask."""
    if nanos <= 0:
        return 0
    return nanos * UNITS_PER_RATE // rate


def format_usd(nanos: int, places: int = 9) -> str:
    """Plain decimal USD text, exact to the nano, trailing zeros cut to at least two places: `0.0042`."""
    sign = "-" if nanos < 0 else ""
    whole, part = divmod(abs(nanos), NANOS_PER_USD)
    digits = f"{part:09d}"[:places].rstrip("0")
    return f"{sign}{whole}.{digits.ljust(2, '0')}"


def usd_header(nanos: int) -> bytes:
    """`format_usd` of an amount >= 0 as bytes for a header; the hot path's form."""
    text = (b"%d.%09d" % divmod(nanos, NANOS_PER_USD)).rstrip(b"0")
    dot = len(text) - text.index(b".") - 1
    return text if dot >= 2 else text + b"00"[dot:]
