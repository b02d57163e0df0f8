"""From the operator's records to prices: custom models, self-hosted engines, ceilings. Pure; inputs are checked.

The price id of an operator's price starts with its entry's name; the book completes it.
"""

import msgspec

from outlay.lookup.overrides import (
    Ceiling,
    CustomModel,
    SelfHosted,
    fee_of,
    permille_of,
    rates_of,
    self_hosted_rates,
    tool_fees_of,
    unit_rates_of,
)
from outlay.lookup.price import ModelPrice, PriceId, Tier, Variant
from outlay.lookup.served import standard_tiers


def custom_price(entry: CustomModel) -> ModelPrice:
    """The price of an operator's model. Raises ConfigError."""
    standard = rates_of(entry.usd_per_mtok, "usd_per_mtok")
    tiers = tuple(
        Tier(tier.above_input_tokens, rates_of(tier.usd_per_mtok, "long_context", standard))
        for tier in sorted(entry.long_context, key=lambda tier: tier.above_input_tokens)
    )
    return ModelPrice(
        price_id=PriceId(entry.name),
        provider=entry.provider,
        model=entry.model,
        source=f"operator: {entry.name}",
        rates=standard,
        tiers=tiers,
        variants={
            name: Variant(rates_of(amounts, f"variants.{name}", standard), (), entry.name)
            for name, amounts in entry.variants.items()
        },
        geo_multipliers={geo: permille_of(text, f"geo.{geo}") for geo, text in entry.geo_multipliers.items()},
        tool_fees=tool_fees_of(entry.usd_per_1000_uses, "usd_per_1000_uses"),
        unit_rates=unit_rates_of(entry.usd_per_unit, "usd_per_unit"),
        bills_media_as_text=True,
        fee_per_request_nanos=fee_of(entry.usd_per_request, "usd_per_request"),
        context_window=entry.context_window,
        max_output_tokens=entry.max_output_tokens,
        input_overhead_tokens=entry.input_overhead_tokens,
        standard_tiers=standard_tiers(entry.provider),
        writes_cache_unasked="cache_write" in entry.usd_per_mtok,
    )


def self_hosted_price(entry: SelfHosted) -> ModelPrice:
    """The price of a self-hosted engine: cache writes cost what input costs, tiers and regions do not exist."""
    rates = self_hosted_rates(entry, "self_hosted")
    if rates.cache_write is None:
        rates = msgspec.structs.replace(
            rates, cache_write=rates.input, cache_write_1h=rates.input, cache_write_12h=rates.input
        )
    return ModelPrice(
        price_id=PriceId(entry.name),
        provider=entry.provider,
        model=entry.model,
        source=f"operator: {entry.name}",
        rates=rates,
        unit_rates=unit_rates_of(entry.usd_per_unit, "usd_per_unit"),
        fee_per_request_nanos=fee_of(entry.usd_per_request, "usd_per_request"),
        context_window=entry.context_window,
        max_output_tokens=entry.max_output_tokens,
        bills_media_as_text=True,
        is_flat=True,
    )


def ceiling_price(entry: Ceiling, provider: str, model: str) -> ModelPrice:
    """The ceiling as a price of an unknown model: marked, flat, and dearest-of-all for every cache class."""
    rates = rates_of(entry.usd_per_mtok, "usd_per_mtok")
    writes = {
        name: getattr(rates, name) or rates.input
        for name in ("cache_write", "cache_write_1h", "cache_write_12h")
        if getattr(rates, name) is None
    }
    return ModelPrice(
        provider=provider,
        model=model,
        source=f"operator: {entry.name} (no price is known for this model)",
        rates=msgspec.structs.replace(rates, **writes),
        tool_fees=tool_fees_of(entry.usd_per_1000_uses, "usd_per_1000_uses"),
        fee_per_request_nanos=fee_of(entry.usd_per_request, "usd_per_request"),
        context_window=entry.context_window,
        bills_media_as_text=True,
        is_flat=True,
        is_ceiling=True,
    )
