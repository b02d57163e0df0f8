"""Bound (worst case) and cost (exact) of one call: the only pricing functions of the code base. Pure.

    bound = min(input bound + overhead, input limit) x dearest input-side rate that can apply
          + choices x output limit x dearest output rate + units + tool fees + request fee   (each line rounded up)
    cost  = the sum of one line per priced token class, tool and request                  (each line half-even)

"Can apply" is every tier reachable at that input length, every served tier and speed that the request may get
(`lookup.served`), the dearest time-of-day window (a call may start off-peak and be billed at peak), the region's
uplift, the cache-write class and the kinds of content asked for (`lookup.media`; calls without media never go there).
Input that the request only names is bounded by the input limit. A batch line is served at the `batch` variant where
the price has one, else at the base rates, whatever its answer says. What has no price is `Unbounded` or `Unpriced`,
never zero and never silently standard. For every usage within the intent's limits, served as the intent allows,
cost <= bound.
"""

from typing import Protocol

import msgspec

from outlay.kernel.clock import NANOS_PER_SECOND, UnixNanos
from outlay.kernel.money import UNITS_PER_RATE, Nanos, line_bound, line_cost
from outlay.lookup.media import input_rates, output_rates, token_lines, unit_bound, unit_lines
from outlay.lookup.price import PERMILLE, ModelPrice, PriceId, Rates, Tier, scale_rates
from outlay.lookup.served import (
    BATCH,
    STANDARD,
    STANDARD_SPEEDS,
    UnknownTier,
    geo_permille,
    promises_standard,
    reachable_variants,
    served_variant,
)
from outlay.wire.intent import CacheWrite, CallIntent, HostedTool, Operation, Units, Usage

_FREE = frozenset({Operation.COUNT_TOKENS, Operation.MODELS, Operation.FREE})
_NANOS_PER_MINUTE = 60 * NANOS_PER_SECOND
_MINUTES_PER_DAY = 1440
_EPOCH_WEEKDAY = 3
"""1970-01-01 was a Thursday (Monday = 0)."""

LONG_WRITE_FACTOR = 2
"""Held for a longer cache write that has no price: times the short write. Both vendors that sell longer ones charge
at most that (Anthropic 2x input for 1 h, OpenAI 2x the short write for 12 h). If one is served it is unpriced."""

_WRITES_SHORT = frozenset({CacheWrite.DEFAULT, CacheWrite.HOUR, CacheWrite.HALF_DAY})
_WRITES_HOUR = frozenset({CacheWrite.HOUR, CacheWrite.HALF_DAY})


class Quote(msgspec.Struct, frozen=True, gc=False):
    """Worst-case cost of a call, before it is sent. All amounts in nanos."""

    price_id: PriceId
    input_tokens: int
    """After overhead and the context window."""
    input_nanos: Nanos
    max_output_tokens: int
    """Per choice."""
    choices: int
    output_rate: int
    """Dearest output rate that can apply, nanos per 10**6 tokens."""
    output_nanos: Nanos
    fees_nanos: Nanos
    """Hosted tools and the request fee."""
    total_nanos: Nanos


class Unbounded(msgspec.Struct, frozen=True, gc=False):
    """The call has no upper bound, or one of its possible prices is unknown. `reason` is one sentence."""

    reason: str


Line = tuple[str, int, int, Nanos]
"""One priced line: name, units, rate (nanos per 10**6 units), nanos = `units * rate / 10**6` rounded half-even."""


class Cost(msgspec.Struct, frozen=True, gc=False):
    """Exact cost of a call as served; `total_nanos` is the sum of the lines."""

    price_id: PriceId
    total_nanos: Nanos
    lines: tuple[Line, ...]


class Unpriced(msgspec.Struct, frozen=True, gc=False):
    """Something was served that has no price, or the usage contradicts itself. `reason` is one sentence."""

    reason: str


class Requested(Protocol):
    """What of the request matters to its cost; a `CallIntent` is one."""

    @property
    def operation(self) -> Operation: ...
    @property
    def service_tier(self) -> str | None: ...
    @property
    def speed(self) -> str | None: ...
    @property
    def inference_geo(self) -> str | None: ...
    @property
    def units(self) -> tuple[Units, ...]: ...


class Request(msgspec.Struct, frozen=True, gc=False):
    """A `Requested` for repricing and reports, where no intent is left."""

    operation: Operation = Operation.CHAT
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None
    units: tuple[Units, ...] = ()


def bound(price: ModelPrice, intent: CallIntent, max_output_tokens: int, at: UnixNanos) -> Quote | Unbounded:
    """Worst-case cost of `intent` with at most `max_output_tokens` (>= 0) per choice.

    `at` is part of the contract (prices are dated) but hours of the day are not used: see the module's text.
    """
    if intent.operation in _FREE:
        return Quote(price.price_id, 0, Nanos(0), 0, intent.choices, 0, Nanos(0), Nanos(0), Nanos(0))
    if price.unit_rates and not intent.units and price.is_by_unit:
        return Unbounded(f"{price.model} is billed by {', '.join(sorted(price.unit_rates))}, not by tokens")
    key: tuple[object, ...] = (intent.service_tier, intent.speed, intent.inference_geo, intent.cache_write)
    if price.is_flat:
        key = (intent.cache_write,)  # any text is a tier here, so it must not become a key
    has_media = (
        intent.units or intent.has_referenced_input or intent.input_modalities or intent.output_modalities
    )
    if has_media:
        key = (*key, intent.input_modalities, intent.output_modalities)
    table = price.memo.reachable.get(key)
    if table is None:
        made = _reachable_table(price, intent)
        if isinstance(made, Unbounded):
            return made
        table = price.memo.reachable[key] = made
    tokens = intent.input_tokens_bound + price.input_overhead_tokens
    limit = price.input_limit
    fees = price.fee_per_request_nanos
    if intent.hosted_tools:
        tool_fees = _tool_fees(price, intent.hosted_tools)
        if isinstance(tool_fees, Unbounded):
            return tool_fees
        if limit is None:
            return Unbounded(
                f"{price.model}: hosted tools add input, and no context window is known to bound it"
            )
        fees += tool_fees
        tokens = limit
    elif intent.has_referenced_input:
        if limit is not None:
            tokens = limit
        elif not price.is_by_unit:
            return Unbounded(
                f"{price.model}: the request names input that it does not hold, and no context window is known"
            )
    elif limit is not None and tokens > limit:
        tokens = limit
    for above, input_rate, output_rate, slack in table:  # noqa: B007  (the last one that applies is kept)
        if tokens > above:
            break
    if output_rate < 0:
        if max_output_tokens and not price.is_by_unit:
            return Unbounded(f"{price.model} has no output price")
        output_rate = 0
    input_nanos = Nanos(line_bound(tokens, input_rate) + slack) if tokens > 0 else Nanos(0)
    output_nanos = line_bound(intent.choices * max_output_tokens, output_rate)
    if has_media:
        units = unit_bound(price, intent.units, tokens=tokens)
        if isinstance(units, str):
            return Unbounded(units)
        fees += units + slack
    return Quote(
        price.price_id,
        tokens,
        input_nanos,
        max_output_tokens,
        intent.choices,
        output_rate,
        output_nanos,
        Nanos(fees),
        Nanos(input_nanos + output_nanos + fees),
    )


def with_output(quote: Quote, max_output_tokens: int) -> Quote:
    """The quote for another output limit: equal to `bound()` of the same call with that limit."""
    output_nanos = line_bound(quote.choices * max_output_tokens, quote.output_rate)
    return Quote(
        quote.price_id,
        quote.input_tokens,
        quote.input_nanos,
        max_output_tokens,
        quote.choices,
        quote.output_rate,
        output_nanos,
        quote.fees_nanos,
        Nanos(quote.input_nanos + output_nanos + quote.fees_nanos),
    )


def cost(price: ModelPrice, usage: Usage, at: UnixNanos, requested: Requested) -> Cost | Unpriced:
    """Exact cost of what was served at `at` (UTC ns; decides only hours of the day, dates are the book's matter).

    Tier, speed and region are taken as served; where the provider did not say, as requested (a requested premium
    tier without an answer is unpriced). An explicit zero usage costs the request fee only.
    """
    if requested.operation in _FREE:
        return Cost(price.price_id, Nanos(0), ())
    if requested.service_tier == BATCH:
        usage, requested = _as_batch(price, usage, requested)
    window = _window_at(price, at) if price.windows else -1
    # every field that can decide the table; a flat price takes any text for a tier, so none may become a key there
    key: tuple[object, ...] = (window,)
    if not price.is_flat:
        tier, speed, geo = usage.service_tier, usage.speed, usage.inference_geo
        key = (
            requested.service_tier if tier is None else tier,
            tier is None,
            requested.speed if speed is None else speed,
            requested.inference_geo if geo is None else geo,
            window,
        )
    table = price.memo.served.get(key)
    if table is None:
        made = _served_table(price, usage, requested, window)
        if isinstance(made, Unpriced):
            return made
        table = price.memo.served[key] = made
    total_input = usage.input_tokens
    for above, rates in table:  # noqa: B007  (falling thresholds: the first that is exceeded applies)
        if total_input > above:
            break
    cached, created, output = (
        usage.cache_read_input_tokens,
        usage.cache_creation_input_tokens,
        usage.output_tokens,
    )
    plain = total_input - cached - created
    if plain < 0 or cached < 0 or created < 0 or output < usage.reasoning_output_tokens:
        return _contradiction(usage)
    lines: list[Line] = []
    if (
        (price.unit_rates and price.is_by_unit)
        or usage.input_image_tokens
        or usage.input_audio_tokens
        or usage.output_audio_tokens
        or usage.output_image_tokens
        or usage.input_video_tokens
        or usage.units
    ):
        made_lines = _media_lines(price, rates, usage, requested)
        if isinstance(made_lines, str):
            return Unpriced(made_lines)
        lines, cached, plain, output = made_lines, 0, 0, 0
    if cached:
        rate = rates.cache_read
        if rate is None:
            plain += cached
        else:
            lines.append(("cache_read", cached, rate, line_cost(cached, rate)))
    if plain:
        rate = rates.input
        lines.append(("input", plain, rate, line_cost(plain, rate)))
    if created:
        problem = _add_cache_writes(lines, rates, usage)
        if problem is not None:
            return problem
    elif usage.cache_creation_1h_input_tokens or usage.cache_creation_12h_input_tokens:
        return _contradiction(usage)
    if output:
        rate = rates.output
        if rate is None:
            return Unpriced(f"{price.model} has no output price but {output} output tokens were served")
        lines.append(("output", output, rate, line_cost(output, rate)))
    if usage.web_search_requests or usage.file_search_requests or usage.code_execution_requests:
        problem = _add_tools(lines, price, usage)
        if problem is not None:
            return problem
    fee = price.fee_per_request_nanos
    if fee:
        lines.append(("request", 1, fee * UNITS_PER_RATE, Nanos(fee)))
    total = 0
    for line in lines:
        total += line[3]
    return Cost(price.price_id, Nanos(total), tuple(lines))


def _media_lines(price: ModelPrice, rates: Rates, usage: Usage, requested: Requested) -> list[Line] | str:
    tokens = token_lines(price, rates, usage)
    if isinstance(tokens, str):
        return tokens
    units = unit_lines(price, usage, requested.units)
    return units if isinstance(units, str) else tokens + units


def _as_batch(price: ModelPrice, usage: Usage, requested: Requested) -> tuple[Usage, Requested]:
    """A batch line: its own price, or the base rates; answers of batch lines name their tier in various ways."""
    if usage.speed not in STANDARD_SPEEDS:
        return usage, requested
    if BATCH in price.variants:
        return msgspec.structs.replace(usage, service_tier=BATCH), requested
    standard = Request(requested.operation, None, requested.speed, requested.inference_geo, requested.units)
    # named, so that the account's own setting, which batches do not have, is not asked
    return msgspec.structs.replace(usage, service_tier=next(iter(price.standard_tiers), None)), standard


def _add_cache_writes(lines: list[Line], rates: Rates, usage: Usage) -> Unpriced | None:
    hour, half_day = usage.cache_creation_1h_input_tokens, usage.cache_creation_12h_input_tokens
    short = usage.cache_creation_input_tokens - hour - half_day
    if short < 0 or hour < 0 or half_day < 0:
        return _contradiction(usage)
    for name, units, rate in (
        ("cache_write", short, rates.cache_write),
        ("cache_write_1h", hour, rates.cache_write_1h),
        ("cache_write_12h", half_day, rates.cache_write_12h),
    ):
        if units:
            if rate is None:
                return Unpriced(f"no price for {name} tokens ({units} were served)")
            lines.append((name, units, rate, line_cost(units, rate)))
    return None


def _add_tools(lines: list[Line], price: ModelPrice, usage: Usage) -> Unpriced | None:
    for name, units in (
        ("web_search", usage.web_search_requests),
        ("file_search", usage.file_search_requests),
        ("code_execution", usage.code_execution_requests),
    ):
        if units:
            rate = price.tool_fees.get(name)
            if rate is None or units < 0:
                return Unpriced(f"{price.model}: no price for {units} uses of {name}")
            lines.append((name, units, rate, line_cost(units, rate)))
    return None


def _contradiction(usage: Usage) -> Unpriced:
    return Unpriced(
        f"usage contradicts itself: input {usage.input_tokens}, of it cache read {usage.cache_read_input_tokens} and"
        f" write {usage.cache_creation_input_tokens} (1 h {usage.cache_creation_1h_input_tokens}, 12 h"
        f" {usage.cache_creation_12h_input_tokens}); output {usage.output_tokens}, of it reasoning"
        f" {usage.reasoning_output_tokens}"
    )


def _tool_fees(price: ModelPrice, tools: tuple[HostedTool, ...]) -> int | Unbounded:
    fees = 0
    for tool in tools:
        rate = price.tool_fees.get(tool.name)
        if rate is None:
            return Unbounded(f"{price.model} has no price for the hosted tool {tool.name!r}")
        if rate == 0:
            continue
        if tool.max_uses is None:
            return Unbounded(f"the request does not bound how often {tool.name!r} may be used (set max_uses)")
        fees += line_bound(tool.max_uses, rate)
    return fees


def _window_at(price: ModelPrice, at: UnixNanos) -> int:
    """Index of the window that holds at `at`, -1 outside of all."""
    days, minute = divmod(at // _NANOS_PER_MINUTE, _MINUTES_PER_DAY)
    for index, window in enumerate(price.windows):
        start, end = window.start_minute, window.end_minute
        if start <= end:
            is_inside, day = start <= minute < end, days
        else:
            # a window over midnight belongs to the weekday on which it began
            is_inside, day = minute >= start or minute < end, days - (minute < end)
        if is_inside and (window.weekdays is None or (day + _EPOCH_WEEKDAY) % 7 in window.weekdays):
            return index
    return -1


def _served_as(usage: Usage, requested: Requested) -> tuple[str | None, bool, str | None, str | None]:
    """Tier, whether the provider named it, speed and region: as served, and as requested where it did not say."""
    tier, speed, geo = usage.service_tier, usage.speed, usage.inference_geo
    return (
        requested.service_tier if tier is None else tier,
        tier is None,
        requested.speed if speed is None else speed,
        requested.inference_geo if geo is None else geo,
    )


def _served_table(
    price: ModelPrice, usage: Usage, requested: Requested, window: int
) -> tuple[tuple[int, Rates], ...] | Unpriced:
    """Rates as served, by falling threshold: `(above_input_tokens, rates)`, the last one for -1."""
    tier, is_tier_unsaid, speed, geo = _served_as(usage, requested)
    if is_tier_unsaid:
        if not promises_standard(price, tier):
            return Unpriced(
                f"{price.model}: the provider did not say which service tier it served (asked: {tier!r})"
            )
        tier = None
    variant = served_variant(price, tier, speed)
    if isinstance(variant, UnknownTier):
        return Unpriced(variant.reason)
    permille = geo_permille(price, geo)
    if isinstance(permille, UnknownTier):
        return Unpriced(permille.reason)
    if variant != STANDARD:
        base, tiers = price.variants[variant].rates, price.variants[variant].tiers
    elif window >= 0:
        base, tiers = price.windows[window].rates, price.windows[window].tiers
    else:
        base, tiers = price.rates, price.tiers
    return _sections(base, tiers, permille)


def _sections(base: Rates, tiers: tuple[Tier, ...], permille: int) -> tuple[tuple[int, Rates], ...]:
    rising = [(-1, base), *((tier.above_input_tokens, tier.rates) for tier in tiers)]
    return tuple((above, scale_rates(rates, permille)) for above, rates in reversed(rising))


def _reachable_table(
    price: ModelPrice, intent: CallIntent
) -> tuple[tuple[int, int, int, int], ...] | Unbounded:
    """`(above_input_tokens, dearest input rate, dearest output rate, slack)` by falling threshold, last for -1.

    The rates of a section are the dearest of it and of all sections below: a call bounded at 300k tokens may turn
    out to have 100k. Output rate -1: no rate that can apply has an output price. `slack` (nanos) covers that a sum
    of lines rounded half-even can exceed the rounded-up whole: half a nano per line whose rate is not whole nanos.
    """
    variants = reachable_variants(price, intent.service_tier, intent.speed)
    if isinstance(variants, UnknownTier):
        return Unbounded(variants.reason)
    permilles = [geo_permille(price, geo) for geo in (intent.inference_geo, *_account_geos(price, intent))]
    unknown = [permille for permille in permilles if isinstance(permille, UnknownTier)]
    if unknown:
        return Unbounded(unknown[0].reason)
    permille = max((value for value in permilles if isinstance(value, int)), default=PERMILLE)
    rate_sets: list[tuple[Rates, tuple[Tier, ...]]] = [
        (window.rates, window.tiers) for window in price.windows
    ]
    for name in variants:
        if name == STANDARD:
            rate_sets.append((price.rates, price.tiers))
        else:
            rate_sets.append((price.variants[name].rates, price.variants[name].tiers))
    thresholds = sorted({-1, *(tier.above_input_tokens for _, tiers in rate_sets for tier in tiers)})
    table: list[tuple[int, int, int, int]] = []
    input_rate, output_rate, fractional = 0, -1, 0
    for threshold in thresholds:
        for base, tiers in rate_sets:
            rates = base
            for tier in tiers:
                if tier.above_input_tokens <= threshold:
                    rates = tier.rates
            scaled = scale_rates(rates, permille)
            line_rates = _input_rates(price, scaled, intent.cache_write)
            media = input_rates(price, scaled, intent.input_modalities)
            made = output_rates(price, scaled, intent.output_modalities)
            if isinstance(media, str) or isinstance(made, str):
                return Unbounded(media if isinstance(media, str) else str(made))
            line_rates += media
            input_rate = max(input_rate, *line_rates)
            if made:
                # the text of the answer is a line of its own, and so is each kind of media
                output_rate = max(output_rate, *made)
                line_rates += (*made, rates.output or 0)
            fractional = max(fractional, sum(1 for rate in line_rates if rate % UNITS_PER_RATE))
            if scaled.output is not None:
                output_rate = max(output_rate, scaled.output)
        table.append((threshold, input_rate, output_rate, fractional // 2))
    return tuple(reversed(table))


def _account_geos(price: ModelPrice, intent: CallIntent) -> tuple[str, ...]:
    return price.account_geos if intent.inference_geo is None else ()


def _input_rates(price: ModelPrice, rates: Rates, asked: CacheWrite) -> tuple[int, ...]:
    """Rates of all input classes that can be billed."""
    found = [rates.input]
    if rates.cache_read is not None:
        found.append(rates.cache_read)
    if rates.cache_write is not None and (asked in _WRITES_SHORT or price.writes_cache_unasked):
        found.append(rates.cache_write)
    if asked in _WRITES_HOUR and rates.cache_write_1h is not None:
        found.append(rates.cache_write_1h)
    if asked is CacheWrite.HALF_DAY and rates.cache_write_12h is not None:
        found.append(rates.cache_write_12h)
    longer = rates.cache_write_1h if asked is CacheWrite.HOUR else rates.cache_write_12h
    if asked in _WRITES_HOUR and longer is None and rates.cache_write is not None:
        found.append(rates.cache_write * LONG_WRITE_FACTOR)
    return tuple(found)
