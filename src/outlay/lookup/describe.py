"""Prices for people: what `outlay price show`, `price diff` and `price check` print, as plain records. Pure.

Knows no terminal: the command line and the console render these.
"""

from collections.abc import Iterable

import msgspec

from outlay.kernel.clock import NANOS_PER_SECOND, UnixNanos
from outlay.lookup import corrections as known
from outlay.lookup.book import PriceBook
from outlay.lookup.doubts import DOUBTS, STALE_AFTER_DAYS
from outlay.lookup.price import ModelPrice, PriceId, Rates, Tier, UnknownPrice, Window
from outlay.lookup.rows import boundaries

_DAY_NAMES = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_SECOND_HAND_MARKS = ("Seen on OpenRouter", "Imported from OpenRouter", "stopped publishing")
"""Notes of the feed that say its numbers are not the vendor's."""
_CHEAPER_TIERS = frozenset({"batch", "flex"})


class Section(msgspec.Struct, frozen=True, gc=False):
    """One set of rates: `standard`, `standard above 200000 input tokens`, `batch`, `01:00-04:00 UTC Mon-Fri`."""

    name: str
    rates: Rates


class PriceCard(msgspec.Struct, frozen=True, gc=False):
    """A price, laid out for reading. Rates are nanos per 10**6 tokens or uses."""

    price_id: PriceId
    provider: str
    model: str
    source: str
    valid_from: UnixNanos | None
    valid_to: UnixNanos | None
    context_window: int | None
    max_output_tokens: int | None
    sections: tuple[Section, ...]
    geo_multipliers: dict[str, int]
    """Region -> permille."""
    tool_fees: dict[str, int]
    unit_rates: dict[str, int]
    """Unit -> nanos per 10**6 of it."""
    fee_per_request_nanos: int
    is_ceiling: bool
    doubts: tuple[str, ...]
    """Known reasons to look twice, one sentence each."""


class Difference(msgspec.Struct, frozen=True, gc=False):
    """One number of one model that differs; None where a side has no such number (or no such model)."""

    provider: str
    model: str
    field: str
    """`standard.input`, `batch.output`, `geo.us`, `tool.web_search`, `unit.image`, `request`, `context_window`,
    `model`."""
    before: int | None
    after: int | None


class Finding(msgspec.Struct, frozen=True, gc=False):
    """Something about a price that a person should know before trusting it."""

    provider: str
    model: str
    """Empty: about the provider or the whole book."""
    kind: str
    """`stale`, `contradictory`, `doubtful`, `refused`."""
    detail: str
    source: str = ""


def show(book: PriceBook, provider: str, model: str, at: UnixNanos) -> PriceCard | UnknownPrice:
    """The price of a model at a time, laid out."""
    price = book.find(provider, model, at)
    return card(price) if isinstance(price, ModelPrice) else price


def card(price: ModelPrice) -> PriceCard:
    """Any price, laid out."""
    return PriceCard(
        price_id=price.price_id,
        provider=price.provider,
        model=price.model,
        source=price.source,
        valid_from=price.valid_from,
        valid_to=price.valid_to,
        context_window=price.context_window,
        max_output_tokens=price.max_output_tokens,
        sections=_sections(price),
        geo_multipliers=price.geo_multipliers,
        tool_fees=price.tool_fees,
        unit_rates=price.unit_rates,
        fee_per_request_nanos=price.fee_per_request_nanos,
        is_ceiling=price.is_ceiling,
        doubts=tuple(doubt.detail for doubt in DOUBTS if doubt.concerns(price.provider, price.model)),
    )


def history(book: PriceBook, provider: str, model: str, until: UnixNanos) -> tuple[PriceCard, ...]:
    """All prices a model had until a time, oldest first; periods that differ in nothing but dates are joined."""
    times = [UnixNanos(0), *(time for time in book.boundaries(provider, model) if time <= until)]
    cards: list[PriceCard] = []
    for time in times:
        price = book.find(provider, model, time)
        if isinstance(price, ModelPrice):
            found = card(price)
            if cards and _numbers_of(cards[-1]) == _numbers_of(found):
                cards[-1] = msgspec.structs.replace(cards[-1], valid_to=found.valid_to)
            else:
                cards.append(found)
    return tuple(cards)


def diff(
    before: PriceBook, after: PriceBook, provider: str, times: tuple[UnixNanos, UnixNanos]
) -> tuple[Difference, ...]:
    """All numbers of a provider's models that differ between two books, each at its own time.

    The same book at two times shows price changes; the bare feed and the effective book at one time show what
    corrections and overrides do.
    """
    found: list[Difference] = []
    for model in sorted({*before.names(provider), *after.names(provider)}):
        old, new = before.find(provider, model, times[0]), after.find(provider, model, times[1])
        if isinstance(old, ModelPrice) or isinstance(new, ModelPrice):
            found.extend(_differences(provider, model, old, new))
    return tuple(found)


def check(book: PriceBook, providers: Iterable[str], at: UnixNanos) -> tuple[Finding, ...]:
    """Prices of these providers that are stale, contradict themselves, are known to be doubtful, or are refused."""
    findings: list[Finding] = []
    for provider in providers:
        dates = (time for row in book.feed.rows(provider) for time in boundaries(row) if time <= at)
        newest = max(dates, default=None)
        if newest is not None and at - newest > STALE_AFTER_DAYS * 86_400 * NANOS_PER_SECOND:
            days = (at - newest) // (86_400 * NANOS_PER_SECOND)
            findings.append(
                Finding(provider, "", "stale", f"the newest dated price is {days} days old", book.feed.name)
            )
        for model in book.names(provider):
            price = book.find(provider, model, at)
            if isinstance(price, UnknownPrice):
                findings.append(Finding(provider, model, "refused", price.reason))
            else:
                findings.extend(_contradictions(price))
        findings.extend(_doubts(book, provider))
    findings.extend(_expired(book, at))
    return tuple(findings)


def _sections(price: ModelPrice) -> tuple[Section, ...]:
    sections = [*_tiered("standard", price.rates, price.tiers)]
    for window in price.windows:
        sections.extend(_tiered(_window_name(window), window.rates, window.tiers))
    for name, variant in sorted(price.variants.items()):
        sections.extend(_tiered(name, variant.rates, variant.tiers))
    return tuple(sections)


def _tiered(name: str, rates: Rates, tiers: tuple[Tier, ...]) -> list[Section]:
    above = [Section(f"{name} above {tier.above_input_tokens} input tokens", tier.rates) for tier in tiers]
    return [Section(name, rates), *above]


def _window_name(window: Window) -> str:
    def clock(minute: int) -> str:
        return f"{minute // 60:02d}:{minute % 60:02d}"

    days = "" if window.weekdays is None else " " + ",".join(_DAY_NAMES[day] for day in window.weekdays)
    return f"{clock(window.start_minute)}-{clock(window.end_minute)} UTC{days}"


def _numbers_of(entry: PriceCard) -> dict[str, int]:
    """Every number of a price by a flat name."""
    numbers = {
        f"{section.name}.{name}": value
        for section in entry.sections
        for name, value in msgspec.structs.asdict(section.rates).items()
        if value is not None
    }
    numbers |= {f"geo.{geo}": permille for geo, permille in entry.geo_multipliers.items()}
    numbers |= {f"tool.{tool}": fee for tool, fee in entry.tool_fees.items()}
    numbers |= {f"unit.{unit}": rate for unit, rate in entry.unit_rates.items()}
    request_fee = entry.fee_per_request_nanos
    return numbers | ({"request": request_fee} if request_fee else {})


def _differences(
    provider: str, model: str, old: ModelPrice | UnknownPrice, new: ModelPrice | UnknownPrice
) -> list[Difference]:
    if isinstance(old, UnknownPrice) or isinstance(new, UnknownPrice):
        is_known = (isinstance(old, ModelPrice), isinstance(new, ModelPrice))
        return [Difference(provider, model, "model", *(1 if known_side else None for known_side in is_known))]
    before, after = _numbers_of(card(old)), _numbers_of(card(new))
    if old.context_window is not None:
        before["context_window"] = old.context_window
    if new.context_window is not None:
        after["context_window"] = new.context_window
    return [
        Difference(provider, model, name, before.get(name), after.get(name))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def _contradictions(price: ModelPrice) -> list[Finding]:
    """Prices that no vendor means: checked on every set of rates."""

    def finding(detail: str) -> Finding:
        return Finding(price.provider, price.model, "contradictory", detail, price.source)

    found = []
    for section in _sections(price):
        rates = section.rates
        if rates.cache_read is not None and rates.cache_read > rates.input:
            found.append(finding(f"{section.name}: reading the cache costs more than fresh input"))
        if (
            rates.cache_write is not None
            and rates.cache_write_1h is not None
            and rates.cache_write_1h < rates.cache_write
        ):
            found.append(finding(f"{section.name}: a one-hour cache write costs less than a short one"))
    base = price.rates.input
    for tier in price.tiers:
        if tier.rates.input < base:
            found.append(finding(f"input above {tier.above_input_tokens} tokens is cheaper than below"))
        base = tier.rates.input
    for name, variant in price.variants.items():
        if name in _CHEAPER_TIERS and variant.rates.input > price.rates.input:
            found.append(finding(f"the discount tier {name} costs more than standard"))
    return found


def _doubts(book: PriceBook, provider: str) -> list[Finding]:
    found = [
        Finding(provider, doubt.model, "doubtful", doubt.detail, doubt.source)
        for doubt in DOUBTS
        if doubt.provider == provider
    ]
    for row in book.feed.rows(provider):
        if any(mark in row.comment for mark in _SECOND_HAND_MARKS):
            found.append(Finding(provider, row.model, "doubtful", row.comment, book.feed.name))
        if row.is_deprecated:
            found.append(
                Finding(provider, row.model, "stale", "the vendor has deprecated the model", book.feed.name)
            )
    for added in known.ADDED_MODELS:
        if added.provider == provider and added.source.startswith("second-hand"):
            found.append(
                Finding(provider, added.names[0], "doubtful", "not read from the vendor's page", added.source)
            )
    return found


def _expired(book: PriceBook, at: UnixNanos) -> list[Finding]:
    return [
        Finding(entry.provider, "", "stale", f"the operator's entry {entry.name!r} has ended", "operator")
        for entry in book.overrides
        if entry.valid_to is not None and entry.valid_to <= at
    ]
