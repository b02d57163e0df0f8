"""The price book: which price a model of a provider has at a time. Immutable; a new one replaces it whole.

`find` is on the request path: it answers from a bounded memo (about a quarter of a microsecond) and resolves aliases,
dates, corrections and overrides only for names it has not seen. Precedence: operator's model (custom, self-hosted) >
correction > feed > ceiling; discounts, request fees and account terms come on top of the model found.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from difflib import get_close_matches
from typing import NamedTuple

import msgspec

from outlay.kernel.clock import UnixNanos
from outlay.lookup import corrections as known
from outlay.lookup.correction_kinds import Correction
from outlay.lookup.feed import Feed, FeedRow, feed_of
from outlay.lookup.match import MAX_MODEL_NAME, spellings
from outlay.lookup.operator_models import ceiling_price, custom_price, self_hosted_price
from outlay.lookup.overrides import (
    ANY,
    AccountTerms,
    Ceiling,
    CustomModel,
    Discount,
    Override,
    RequestFee,
    SelfHosted,
    check,
    discounted,
    fee_of,
    multiplier_of,
)
from outlay.lookup.price import ModelPrice, PriceId, Rates, UnknownPrice, map_price, map_rates, with_price_id
from outlay.lookup.rows import NoPrice, boundaries, price_at

MAX_MEMO = 8192
"""Names remembered; names come from callers, so the memo is emptied when it is full."""
MAX_NEAREST = 5
_NEAREST_CUTOFF = 0.6
_NEAREST_CANDIDATES = 200
"""Names compared for `nearest`: comparing is slow and unknown names come from callers."""

PROVIDER_ALIASES = {
    "bedrock": "aws",
    "gemini": "google",
    "vertex": "google",
    "vertex-ai": "google",
    "xai": "x-ai",
    "grok": "x-ai",
    "together-ai": "together",
    "together_ai": "together",
    "fireworks-ai": "fireworks",
    "fireworks_ai": "fireworks",
    "azure-openai": "azure",
    "claude": "anthropic",
}
"""Common spellings of the feed's provider ids."""

_FOREVER = 2**63 - 1
_CORRECTED = "+corrections"


class _Entry(NamedTuple):
    """What `find` answers from `since` until `until` (UTC ns, exclusive)."""

    since: int
    until: int
    result: ModelPrice | UnknownPrice


class _Operated(NamedTuple):
    """A model of the operator's own."""

    provider: str
    names: tuple[str, ...]
    valid_from: UnixNanos | None
    valid_to: UnixNanos | None
    price: ModelPrice


class PriceBook:
    """All prices the gateway works with. Make one with `build`."""

    __slots__ = ("_ceilings", "_feed", "_memo", "_operated", "_overrides", "_self_hosted")

    def __init__(
        self,
        feed: Feed,
        overrides: tuple[Override, ...],
        self_hosted: tuple[SelfHosted, ...],
        ceilings: tuple[Ceiling, ...],
    ) -> None:
        """Raises ConfigError naming the entry and the problem."""
        for index, entry in enumerate((*overrides, *self_hosted, *ceilings)):
            check(entry, f"prices[{index}]")
        self._feed = feed
        self._overrides = overrides
        self._self_hosted = self_hosted
        self._ceilings = ceilings
        custom = [entry for entry in overrides if isinstance(entry, CustomModel)]
        self._operated = (
            *(
                _Operated(e.provider, (e.model, *e.aliases), e.valid_from, e.valid_to, custom_price(e))
                for e in reversed(custom)
            ),
            *(
                _Operated(e.provider, (e.model, *e.aliases), e.valid_from, e.valid_to, self_hosted_price(e))
                for e in reversed(self_hosted)
            ),
        )
        self._memo: dict[tuple[str, str], _Entry] = {}

    @classmethod
    def build(
        cls,
        feed_rows: Feed | Sequence[FeedRow],
        overrides: Iterable[Override] = (),
        self_hosted: Iterable[SelfHosted] = (),
        ceilings: Iterable[Ceiling] = (),
    ) -> "PriceBook":
        """The book of a feed and what the operator says. Later entries win. Raises ConfigError."""
        feed = feed_rows if isinstance(feed_rows, Feed) else feed_of(feed_rows)
        return cls(feed, tuple(overrides), tuple(self_hosted), tuple(ceilings))

    def with_overrides(self, overrides: Iterable[Override]) -> "PriceBook":
        """A new book with these overrides after the present ones. Raises ConfigError."""
        return PriceBook(self._feed, (*self._overrides, *overrides), self._self_hosted, self._ceilings)

    @property
    def feed(self) -> Feed:
        """The feed underneath."""
        return self._feed

    @property
    def overrides(self) -> tuple[Override, ...]:
        """What the operator said, in order."""
        return self._overrides

    def find(self, provider: str, model: str, at: UnixNanos) -> ModelPrice | UnknownPrice:
        """The price of `model` (any alias or dated name) at `provider` (its price source name) in force at `at`."""
        entry = self._memo.get((provider, model))
        if entry is not None and entry.since <= at < entry.until:
            return entry.result
        entry = self._resolve(provider, model, at)
        if len(self._memo) >= MAX_MEMO:
            self._memo.clear()
        if len(model) <= MAX_MODEL_NAME:
            self._memo[provider, model] = entry
        return entry.result

    def names(self, provider: str) -> tuple[str, ...]:
        """Canonical ids of all models known at this provider, sorted."""
        source = PROVIDER_ALIASES.get(provider, provider)
        found = {row.model for row in self._feed.rows(source)}
        found.update(added.names[0] for added in known.ADDED_MODELS if added.provider == source)
        found.update(
            own.names[0] for own in self._operated if own.provider == provider and own.names[0] != ANY
        )
        return tuple(sorted(found))

    def boundaries(self, provider: str, model: str) -> tuple[UnixNanos, ...]:
        """Times at which the price of this model changes (or may change), rising."""
        source = PROVIDER_ALIASES.get(provider, provider)
        return tuple(sorted(self._changes(provider, source, model, self._row(source, model))))

    def _resolve(self, provider: str, model: str, at: UnixNanos) -> _Entry:
        source = PROVIDER_ALIASES.get(provider, provider)
        if len(model) > MAX_MODEL_NAME:
            return _Entry(
                0, _FOREVER, UnknownPrice(provider, model[:MAX_MODEL_NAME], (), "the model name is too long")
            )
        row = self._row(source, model)
        times = sorted(self._changes(provider, source, model, row))
        since = max((time for time in times if time <= at), default=None)
        until = min((time for time in times if time > at), default=None)
        found = self._operated_price(provider, model, at) or self._listed_price(source, model, row, at)
        result: ModelPrice | UnknownPrice
        if isinstance(found, NoPrice):
            result = self._ceiling(provider, model) or self._unknown(provider, model, found.reason)
        else:
            dated = msgspec.structs.replace(found, provider=provider, valid_from=since, valid_to=until)
            result = self._with_terms(dated, source, at)
        return _Entry(since or 0, until or _FOREVER, result)

    def _row(self, source: str, model: str) -> FeedRow | None:
        sources = (source, *self._feed.fallbacks(source))
        for name in spellings(model):
            for provider in sources:
                for row in self._feed.rows(provider):
                    if row.match.is_match(name):
                        return row
        # some rows do not match their own id, but a stored charge is looked up by it
        lower = model.lower()
        return next(
            (row for name in sources for row in self._feed.rows(name) if row.model.lower() == lower), None
        )

    def _changes(self, provider: str, source: str, model: str, row: FeedRow | None) -> set[UnixNanos]:
        """Every time at which one of the layers changes for this model."""
        times = set() if row is None else boundaries(row)
        times.update(added.valid_from for added in known.ADDED_MODELS if model in added.names)
        names = {model.lower()} if row is None else {model.lower(), row.model}
        dated: list[Correction | _Operated | Override] = [
            entry for name in names for entry in known.corrections_for(source, name, known.CORRECTIONS)
        ]
        dated += [own for own in self._operated if own.provider == provider]
        dated += [entry for entry in self._overrides if entry.provider in {provider, source}]
        times.update(
            time for entry in dated for time in (entry.valid_from, entry.valid_to) if time is not None
        )
        return times

    def _operated_price(self, provider: str, model: str, at: UnixNanos) -> ModelPrice | None:
        for own in self._operated:
            if own.provider == provider and _is_in_force(own.valid_from, own.valid_to, at):
                if model in own.names:
                    return own.price
                if ANY in own.names:
                    return msgspec.structs.replace(own.price, model=model)
        return None

    def _listed_price(
        self, source: str, model: str, row: FeedRow | None, at: UnixNanos
    ) -> ModelPrice | NoPrice:
        """Feed and corrections; the price id holds the source's name only, `_with_terms` completes it."""
        lower = model.lower()
        for name in (lower,) if row is None else (lower, row.model):
            reason = known.refusal(source if row is None else row.provider, name, at, known.CORRECTIONS)
            if reason is not None:
                return NoPrice(reason)
        if row is None:
            added = next((e for e in known.ADDED_MODELS if e.provider == source and lower in e.names), None)
            if added is None or at < added.valid_from:
                return NoPrice(f"no price is known for model {model!r} at {source!r}")
            found: ModelPrice | NoPrice = added.price
        else:
            found = price_at(row, self._feed, source, at)
        if isinstance(found, NoPrice):
            # a row without numbers is no better than no row
            added = next((e for e in known.ADDED_MODELS if e.provider == source and lower in e.names), None)
            if added is None or at < added.valid_from:
                return found
            found = added.price
        key = found.price_id or self._feed.name
        for entry in known.corrections_for(source, found.model, known.CORRECTIONS):
            if known.is_in_force(entry, at):
                corrected = known.apply(found, entry)
                if corrected is not found and not key.endswith(_CORRECTED):
                    key += _CORRECTED
                found = corrected
        return msgspec.structs.replace(found, price_id=PriceId(key))

    def _with_terms(self, price: ModelPrice, source: str, at: UnixNanos) -> ModelPrice:
        """Discounts, request fees and account terms that hold at `at`, in the operator's order; then the id."""
        key: str = price.price_id
        for entry in self._overrides:
            if isinstance(entry, CustomModel) or entry.provider not in {price.provider, source}:
                continue
            if not _is_in_force(entry.valid_from, entry.valid_to, at):
                continue
            if not isinstance(entry, AccountTerms) and entry.model not in {ANY, price.model}:
                continue
            price = _with_term(price, entry)
            key = f"{key}+{entry.name}"
        return with_price_id(price, key)

    def _ceiling(self, provider: str, model: str) -> ModelPrice | None:
        for wanted in (provider, ANY):
            for entry in reversed(self._ceilings):
                if entry.provider == wanted:
                    return with_price_id(ceiling_price(entry, provider, model), entry.name)
        return None

    def _unknown(self, provider: str, model: str, reason: str) -> UnknownPrice:
        names = tuple(name for name in self.names(provider) if name != model)
        if len(names) > _NEAREST_CANDIDATES:
            start = model.lower()[:3]
            names = tuple(name for name in names if start in name)[:_NEAREST_CANDIDATES]
        nearest = get_close_matches(model.lower(), names, MAX_NEAREST, _NEAREST_CUTOFF)
        return UnknownPrice(provider, model, tuple(nearest), reason)


def _is_in_force(valid_from: UnixNanos | None, valid_to: UnixNanos | None, at: UnixNanos) -> bool:
    return (valid_from is None or valid_from <= at) and (valid_to is None or at < valid_to)


def _with_term(price: ModelPrice, entry: Discount | RequestFee | AccountTerms) -> ModelPrice:
    replace = msgspec.structs.replace
    source = f"{price.source}; {entry.name}"
    match entry:
        case Discount():
            multiplier = multiplier_of(entry.multiplier, "multiplier")
            changed = map_price(price, lambda rates: _times(rates, multiplier))
            units = {unit: discounted(rate, multiplier) for unit, rate in price.unit_rates.items()}
            changed = replace(changed, unit_rates=units)
            if entry.includes_fees:
                fees = {tool: discounted(fee, multiplier) for tool, fee in price.tool_fees.items()}
                request_fee = discounted(price.fee_per_request_nanos, multiplier)
                changed = replace(changed, tool_fees=fees, fee_per_request_nanos=request_fee)
            return replace(changed, source=f"{source} x{entry.multiplier}")
        case RequestFee():
            fee = fee_of(entry.usd_per_request, "usd_per_request")
            return replace(price, fee_per_request_nanos=price.fee_per_request_nanos + fee, source=source)
        case AccountTerms():
            return replace(price, account_tiers=entry.tiers, account_geos=entry.geos, source=source)


def _times(rates: Rates, multiplier: Decimal) -> Rates:
    return map_rates(rates, lambda rate: discounted(rate, multiplier))
