"""Which service tier was served, and which tiers a request may be served at: one explicit table per provider.

A tier name that is in no table is *unknown*: it is never taken for standard (one such silence cost a factor of six
in a price feed). Speeds (`speed:fast`) are tiers with a prefix. Pure data and two functions; no prices in here.
"""

from typing import NamedTuple

from outlay.lookup.price import ModelPrice

STANDARD = ""
"""Key of the base rates."""
BATCH = "batch"
"""Asked for by lines of batch jobs alone (`wire` refuses it elsewhere)."""
SPEED_PREFIX = "speed:"
STANDARD_SPEEDS = frozenset({None, "standard"})
GEOS_WITHOUT_UPLIFT = frozenset({None, "", "global", "not_available", "default"})
"""Regions as served that never change a price. Anthropic answers `global` and `not_available` (models before 4.6)."""

STANDARD_TIERS: dict[str, tuple[str, ...]] = {
    # OpenAI answers with what it did, never with `auto`; an answer without a tier is standard.
    # https://platform.openai.com/docs/api-reference/chat/object (service_tier), read 2026-11-23
    "openai": ("default", "standard"),
    "azure": ("default", "standard"),
    # usage.service_tier: standard | priority | batch; `priority` there is prepaid capacity, not a token price.
    # https://platform.claude.com/docs/en/api/service-tiers, read 2026-11-23
    "anthropic": ("standard",),
    # Groq bills `flex` like `on_demand`, https://console.groq.com/docs/flex-processing, read 2026-11-23
    "groq": ("on_demand", "auto", "default", "flex"),
    "google": ("standard", "default", "unspecified"),
    "x-ai": ("default", "standard"),
    "aws": ("default", "standard"),
}
OTHER_STANDARD_TIERS = ("default", "standard", "auto", "on_demand")
"""For providers that copy OpenAI's wire format without its tiers."""

_UNASKED = frozenset({None, "", "auto", "default", "standard", "standard_only", "on_demand"})
"""Requested tiers that promise the base rates, unless the account itself is set to another (`account_tiers`)."""
_CHEAPER = frozenset({"flex", BATCH})
"""Discount tiers: served at their own price or, when there is no room, at standard; never above it."""
_FASTER: dict[str, tuple[str, ...]] = {
    # A premium tier may be ramped down to a lower one and is then billed as that one.
    "priority": (
        "priority",
        "fast",
        STANDARD,
    ),  # OpenAI renamed `priority` to `fast`; one may answer for the other
    "fast": ("fast", "priority", STANDARD),
    "ultrafast": ("ultrafast", "fast", "priority", STANDARD),
}


class UnknownTier(NamedTuple):
    """The tier, speed or region has no price."""

    reason: str


def standard_tiers(provider: str) -> tuple[str, ...]:
    """Served tier names that mean the base rates at this provider."""
    return STANDARD_TIERS.get(provider, OTHER_STANDARD_TIERS)


def served_variant(price: ModelPrice, tier: str | None, speed: str | None) -> str | UnknownTier:
    """Key into `price.variants` (STANDARD for the base rates) of a tier and speed *as served*."""
    if price.is_flat:
        return STANDARD
    fast = None if speed in STANDARD_SPEEDS else f"{SPEED_PREFIX}{speed}"
    if tier is None or tier in price.standard_tiers:
        if fast is None or fast in price.variants:
            return fast or STANDARD
        return UnknownTier(f"{price.model} was served at speed {speed!r}, which has no price")
    if fast is not None:
        return UnknownTier(f"{price.model}: no price for speed {speed!r} at service tier {tier!r}")
    if tier in price.variants:
        return tier
    return UnknownTier(f"{price.model} was served at service tier {tier!r}, which has no price")


def reachable_variants(
    price: ModelPrice, tier: str | None, speed: str | None
) -> tuple[str, ...] | UnknownTier:
    """Keys of all rates that a request with this tier and speed may be billed at.

    No tier, `auto` or `default`: the base rates and whatever the account is set to (`account_tiers`, an operator's
    statement; without it the vendor's default setting is assumed). A premium tier that has no price is an error; a
    discount tier without one is bounded by standard.
    """
    if price.is_flat:
        return (STANDARD,)
    if tier == BATCH and speed in STANDARD_SPEEDS and BATCH in price.variants:
        return (BATCH,)  # a line of a batch job, which `lookup.cost` always bills so
    keys = [STANDARD]
    if speed not in STANDARD_SPEEDS:
        key = f"{SPEED_PREFIX}{speed}"
        if key not in price.variants:
            return UnknownTier(f"{price.model} has no price for speed {speed!r}")
        keys.append(key)
    if tier in _UNASKED:
        if tier not in {"default", "standard", "standard_only"}:
            keys.extend(key for key in price.account_tiers if key in price.variants)
            missing = [
                key for key in price.account_tiers if key not in price.variants and key not in _CHEAPER
            ]
            if missing:
                return UnknownTier(
                    f"{price.model} has no price for the account's service tier {missing[0]!r}"
                )
    elif tier in _CHEAPER or tier in price.standard_tiers:
        keys.extend(key for key in (str(tier),) if key in price.variants)
    elif tier in price.variants:
        keys.extend(key for key in _FASTER.get(str(tier), (str(tier),)) if key in price.variants)
    else:
        return UnknownTier(f"{price.model} has no price for service tier {tier!r}")
    return tuple(dict.fromkeys(keys))


def promises_standard(price: ModelPrice, tier: str | None) -> bool:
    """Whether a request with this tier is served at the base rates whenever the provider does not say otherwise."""
    return price.is_flat or ((tier in _UNASKED or tier in price.standard_tiers) and not price.account_tiers)


def geo_permille(price: ModelPrice, geo: str | None) -> int | UnknownTier:
    """Multiplier (per 1000) of a region as served or requested."""
    if price.is_flat or geo in GEOS_WITHOUT_UPLIFT:
        return 1000
    permille = price.geo_multipliers.get(str(geo))
    if permille is None:
        return UnknownTier(f"{price.model} has no price for inference region {geo!r}")
    return permille
