"""What the operator says about prices: contracts, models of their own, ceilings, fees, self-hosted engines.

Records only, as `outlay.yaml` and `outlay price set` produce them, and their checks. Amounts are decimal text
("0.85", "2.50"), never floats. Precedence when a price is looked up: an operator's model (custom or self-hosted) >
correction > feed > ceiling; discounts, request fees and account terms are applied on top of what was found.
"""

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

import msgspec

from outlay.kernel.clock import UnixNanos
from outlay.kernel.errors import ConfigError
from outlay.kernel.money import MoneyError, usd_per_million_to_rate, usd_to_nanos
from outlay.lookup.price import Rates

TOKEN_CLASSES: tuple[str, ...] = Rates.__struct_fields__
ANY = "*"
"""As a model: every model of the provider. As a provider (ceilings): every provider."""
MAX_MULTIPLIER = Decimal(100)
SECONDS_PER_HOUR = 3600

Amounts = dict[str, str]
"""Token class -> USD per 10**6 tokens, as decimal text."""


class Discount(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A contract: every token rate of a provider's model(s) times `multiplier` from one date until another."""

    provider: str
    multiplier: str
    """Decimal text; "0.85" is 15 % off, "1.1" a surcharge."""
    model: str = ANY
    """Canonical id, or every model."""
    name: str = "contract"
    """Stands in the price id and in the source."""
    includes_fees: bool = False
    """Whether tool and request fees are multiplied too."""
    valid_from: UnixNanos | None = None
    valid_to: UnixNanos | None = None


class LongContext(msgspec.Struct, frozen=True, gc=False):
    """Rates of an operator's model for calls of more than `above_input_tokens` input tokens in total."""

    above_input_tokens: int
    usd_per_mtok: Amounts


class CustomModel(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A model with a price of the operator's own; replaces what the feed knows under that name."""

    provider: str
    model: str
    usd_per_mtok: Amounts
    """Must have `input`; `output` may be left out for embeddings. Media classes that are left out cost what text
    costs."""
    aliases: tuple[str, ...] = ()
    long_context: tuple[LongContext, ...] = ()
    variants: dict[str, Amounts] = {}
    """By served tier (`batch`, `flex`, `priority`, ...) or `speed:<name>`; left-out classes are as standard."""
    geo_multipliers: dict[str, str] = {}
    """Region as served -> multiplier as decimal text with at most three places."""
    usd_per_1000_uses: dict[str, str] = {}
    """Hosted tool -> USD per 1000 uses."""
    usd_per_unit: Amounts = {}
    """Unit -> USD for one of it: `image`, `image/hd/1024x1024`, `audio_ms`, `character`, `page`, `search_unit`,
    `training_token`."""
    usd_per_request: str = "0"
    context_window: int | None = None
    max_output_tokens: int | None = None
    input_overhead_tokens: int = 0
    name: str = "custom"
    valid_from: UnixNanos | None = None
    valid_to: UnixNanos | None = None


class RequestFee(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A flat fee on every call, added to the vendor's own (a reseller's, or an internal platform charge)."""

    provider: str
    usd_per_request: str
    model: str = ANY
    name: str = "fee"
    valid_from: UnixNanos | None = None
    valid_to: UnixNanos | None = None


class AccountTerms(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """How the operator's account is set up at a vendor, which decides what an unspecific request may be served as.

    OpenAI projects may default to the priority tier, Anthropic workspaces to US inference. Without this record the
    vendor's default setting is assumed; a call served otherwise is still billed as served, as an overrun if need be.
    """

    provider: str
    tiers: tuple[str, ...] = ()
    geos: tuple[str, ...] = ()
    name: str = "account"
    valid_from: UnixNanos | None = None
    valid_to: UnixNanos | None = None


Override = Discount | CustomModel | RequestFee | AccountTerms


class SelfHosted(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """An engine the operator runs: priced per token, or per hour with a throughput. Tiers and regions do not exist.

    Per hour, the rate of a class is what one million tokens take of the deployment's time:

        USD per 10**6 tokens = usd_per_hour x count x 10**6 / (3600 x tokens_per_second)

    `tokens_per_second` is the throughput of the *whole* deployment (all `count` machines) at the load it is priced
    for. With `input_tokens_per_second` prefill and decode are charged apart; without it output bears everything and
    input is free (an explicit zero).
    """

    provider: str
    model: str = ANY
    usd_per_mtok: Amounts = {}
    usd_per_hour: str | None = None
    """Of one GPU, or of one CPU machine."""
    count: int = 1
    tokens_per_second: str | None = None
    """Output tokens a second."""
    input_tokens_per_second: str | None = None
    aliases: tuple[str, ...] = ()
    usd_per_unit: Amounts = {}
    """As in `CustomModel`; an engine that states units and no tokens (a transcriber) needs them."""
    usd_per_request: str = "0"
    context_window: int | None = None
    max_output_tokens: int | None = None
    name: str = "self-hosted"
    valid_from: UnixNanos | None = None
    valid_to: UnixNanos | None = None


class Ceiling(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Price at which calls to *unknown* models are held and charged (and marked), instead of being refused.

    `input` is taken for cache reads and writes too; every served tier costs the same.
    """

    usd_per_mtok: Amounts
    """Must have `input` and `output`."""
    provider: str = ANY
    context_window: int | None = None
    usd_per_1000_uses: dict[str, str] = {}
    usd_per_request: str = "0"
    name: str = "ceiling"


def rates_of(amounts: Amounts, key: str, standard: Rates | None = None) -> Rates:
    """`Rates` of decimal texts; classes left out are as in `standard`. Raises ConfigError naming key and problem."""
    unknown = sorted(set(amounts) - set(TOKEN_CLASSES))
    if unknown:
        raise ConfigError(f"unknown token class {unknown[0]!r} (one of {', '.join(TOKEN_CLASSES)})", key=key)
    values: dict[str, int | None] = {} if standard is None else msgspec.structs.asdict(standard)
    values |= {name: rate_of(text, f"{key}.{name}") for name, text in amounts.items()}
    input_rate = values.pop("input", None)
    if input_rate is None:
        raise ConfigError("no price for input", key=f"{key}.input")
    return Rates(input=input_rate, **values)


def rate_of(text: str, key: str) -> int:
    """Nanos per 10**6 units of USD per 10**6 units as decimal text. Raises ConfigError."""
    try:
        return usd_per_million_to_rate(_finite(text, key))
    except MoneyError as error:
        raise ConfigError(f"{error} (expected USD as decimal text, 0 or more)", key=key) from error


def fee_of(text: str, key: str) -> int:
    """Nanos of a USD amount per request. Raises ConfigError (also for amounts finer than a nano-dollar)."""
    try:
        nanos = usd_to_nanos(_finite(text, key))
    except MoneyError as error:
        raise ConfigError(str(error), key=key) from error
    if nanos < 0:
        raise ConfigError(f"negative fee: {text!r}", key=key)
    return nanos


def tool_fees_of(amounts: dict[str, str], key: str) -> dict[str, int]:
    """Nanos per 10**6 uses of USD per 1000 uses. Raises ConfigError."""
    return {
        tool: usd_per_million_to_rate(_finite(text, f"{key}.{tool}", at_least=Decimal(0)) * 1000)
        for tool, text in amounts.items()
    }


def unit_rates_of(amounts: Amounts, key: str) -> dict[str, int]:
    """Nanos per 10**6 units of USD per unit. Raises ConfigError."""
    rates: dict[str, int] = {}
    for unit, text in amounts.items():
        value = _finite(text, f"{key}.{unit}", at_least=Decimal(0))
        try:
            rates[unit] = usd_per_million_to_rate(value * 1_000_000)
        except MoneyError as error:
            raise ConfigError(str(error), key=f"{key}.{unit}") from error
    return rates


def multiplier_of(text: str, key: str) -> Decimal:
    """A multiplier from 0 to `MAX_MULTIPLIER`. Raises ConfigError."""
    value = _finite(text, key, at_least=Decimal(0))
    if value > MAX_MULTIPLIER:
        raise ConfigError(f"multiplier {text!r} is above {MAX_MULTIPLIER} (a percentage?)", key=key)
    return value


def permille_of(text: str, key: str) -> int:
    """Integer per 1000 of a multiplier with at most three decimal places. Raises ConfigError."""
    value = multiplier_of(text, key) * 1000
    if value != value.to_integral_value():
        raise ConfigError(f"multiplier {text!r} has more than three decimal places", key=key)
    return int(value)


def discounted(rate: int, multiplier: Decimal) -> int:
    """`rate` (nanos per 10**6) times a multiplier, rounded half-even once."""
    return usd_per_million_to_rate(Decimal(rate) * multiplier / 1_000_000_000)


def self_hosted_rates(entry: SelfHosted, key: str) -> Rates:
    """Rates of a self-hosted engine, by the formula of `SelfHosted`. Raises ConfigError."""
    if entry.usd_per_mtok:
        if entry.usd_per_hour is not None:
            raise ConfigError("give usd_per_mtok or usd_per_hour, not both", key=key)
        return rates_of(entry.usd_per_mtok, f"{key}.usd_per_mtok")
    if entry.usd_per_hour is None or entry.tokens_per_second is None:
        raise ConfigError("needs usd_per_mtok, or usd_per_hour with tokens_per_second", key=key)
    if entry.count < 1:
        raise ConfigError("count must be 1 or more", key=f"{key}.count")
    hourly = _finite(entry.usd_per_hour, f"{key}.usd_per_hour", at_least=Decimal(0)) * entry.count

    def rate(per_second: str, name: str) -> int:
        speed = _finite(per_second, f"{key}.{name}")
        if speed <= 0:
            raise ConfigError("throughput must be above 0", key=f"{key}.{name}")
        try:
            return usd_per_million_to_rate(hourly * 1_000_000 / (SECONDS_PER_HOUR * speed))
        except MoneyError as error:
            raise ConfigError(str(error), key=key) from error

    speed = entry.input_tokens_per_second
    return Rates(
        input=0 if speed is None else rate(speed, "input_tokens_per_second"),
        output=rate(entry.tokens_per_second, "tokens_per_second"),
    )


def check_all(overrides: Iterable[Override | SelfHosted | Ceiling]) -> tuple[ConfigError, ...]:
    """Every problem of the given records, one per record at most; empty if they can be built."""
    problems = []
    for index, entry in enumerate(overrides):
        try:
            check(entry, f"prices[{index}]")
        except ConfigError as error:
            problems.append(error)
    return tuple(problems)


def check(entry: Override | SelfHosted | Ceiling, key: str) -> None:
    """Raises ConfigError naming key and problem if the record cannot be a price."""
    if not entry.provider:
        raise ConfigError("no provider", key=f"{key}.provider")
    if not isinstance(entry, Ceiling):
        start, end = entry.valid_from, entry.valid_to
        if start is not None and end is not None and start >= end:
            raise ConfigError("valid_to is not after valid_from", key=f"{key}.valid_to")
    match entry:
        case Discount():
            multiplier_of(entry.multiplier, f"{key}.multiplier")
        case CustomModel():
            _check_custom(entry, key)
        case RequestFee():
            fee_of(entry.usd_per_request, f"{key}.usd_per_request")
        case AccountTerms():
            if not entry.tiers and not entry.geos:
                raise ConfigError("needs tiers or geos", key=key)
        case SelfHosted():
            self_hosted_rates(entry, key)
            unit_rates_of(entry.usd_per_unit, f"{key}.usd_per_unit")
            fee_of(entry.usd_per_request, f"{key}.usd_per_request")
            _check_positive(entry.context_window, f"{key}.context_window")
        case Ceiling():
            rates_of(entry.usd_per_mtok, f"{key}.usd_per_mtok")
            if "output" not in entry.usd_per_mtok:
                raise ConfigError("a ceiling needs an output price", key=f"{key}.usd_per_mtok.output")
            tool_fees_of(entry.usd_per_1000_uses, f"{key}.usd_per_1000_uses")
            fee_of(entry.usd_per_request, f"{key}.usd_per_request")
            _check_positive(entry.context_window, f"{key}.context_window")


def _check_custom(entry: CustomModel, key: str) -> None:
    if not entry.model:
        raise ConfigError("no model", key=f"{key}.model")
    standard = rates_of(entry.usd_per_mtok, f"{key}.usd_per_mtok")
    for index, tier in enumerate(entry.long_context):
        if tier.above_input_tokens < 0:
            raise ConfigError("negative threshold", key=f"{key}.long_context[{index}]")
        rates_of(tier.usd_per_mtok, f"{key}.long_context[{index}]", standard)
    for name, amounts in entry.variants.items():
        rates_of(amounts, f"{key}.variants.{name}", standard)
    for geo, text in entry.geo_multipliers.items():
        permille_of(text, f"{key}.geo_multipliers.{geo}")
    tool_fees_of(entry.usd_per_1000_uses, f"{key}.usd_per_1000_uses")
    unit_rates_of(entry.usd_per_unit, f"{key}.usd_per_unit")
    fee_of(entry.usd_per_request, f"{key}.usd_per_request")
    _check_positive(entry.context_window, f"{key}.context_window")
    _check_positive(entry.max_output_tokens, f"{key}.max_output_tokens")
    if entry.input_overhead_tokens < 0:
        raise ConfigError("negative overhead", key=f"{key}.input_overhead_tokens")


def _check_positive(value: int | None, key: str) -> None:
    if value is not None and value < 1:
        raise ConfigError("must be 1 or more", key=key)


def _finite(text: str, key: str, at_least: Decimal | None = None) -> Decimal:
    try:
        value = Decimal(text)
    except (InvalidOperation, TypeError, ValueError) as error:
        raise ConfigError(f"not a number: {text!r}", key=key) from error
    if not value.is_finite():
        raise ConfigError(f"not a finite number: {text!r}", key=key)
    if at_least is not None and value < at_least:
        raise ConfigError(f"below {at_least}: {text!r}", key=key)
    return value
