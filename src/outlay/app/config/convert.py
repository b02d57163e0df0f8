"""Entries to the records that the gateway works with. Trusts what it is given: `checks` came before."""

from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from outlay.app.config.tree import (
    NO_LIMIT,
    AccountEntry,
    BudgetEntry,
    CeilingEntry,
    ConsoleSection,
    CustomEntry,
    DiscountEntry,
    FeeEntry,
    GatewaySection,
    KeyEntry,
    ModelEntry,
    PriceEntry,
    ProviderEntry,
    SelfHostedEntry,
)
from outlay.app.config.values import parse_moment, secret_hash
from outlay.flow.budgets import BudgetSpec, Origin
from outlay.flow.gateway.keys import NO_EXPIRY, KeySpec, PreviousSecret
from outlay.flow.gateway.snapshot import (
    ModelRoute,
    OnClientGone,
    PassRoute,
    Provider,
    Settings,
    Target,
)
from outlay.flow.outcome import Billing
from outlay.flow.windows import parse_window
from outlay.kernel.money import usd_to_nanos
from outlay.lookup.overrides import (
    AccountTerms,
    Ceiling,
    CustomModel,
    Discount,
    LongContext,
    Override,
    RequestFee,
    SelfHosted,
)
from outlay.wire.intent import Dialect, Operation

_NOT_WRITTEN: Final = frozenset({"org", "expires_at", "origin", "place", "previous", "ends_as", "bearer"})
"""Fields of a key's record that are not an entry's as they stand."""
HOSTED_KEEPALIVE_S: Final = 30
ENGINE_KEEPALIVE_S: Final = 4
"""Below the 5 s after which uvicorn (vLLM, SGLang) closes an idle connection."""


class _Vendor(NamedTuple):
    """What is known about a vendor by its name alone."""

    dialect: Dialect
    base_url: str
    output_limit_field: str
    apis: tuple[Operation, ...] = ()


_VENDORS: Final = MappingProxyType(
    {
        # https://platform.openai.com/docs/api-reference/chat: max_tokens is refused by reasoning models
        "openai": _Vendor(
            Dialect.OPENAI,
            "https://api.openai.com/v1",
            "max_completion_tokens",
            (Operation.CHAT, Operation.RESPONSES),
        ),
        "anthropic": _Vendor(Dialect.ANTHROPIC, "https://api.anthropic.com", "max_tokens"),
        # https://ai.google.dev/gemini-api/docs, as google-genai takes it
        "google": _Vendor(Dialect.GOOGLE, "https://generativelanguage.googleapis.com", "max_tokens"),
        "cohere": _Vendor(Dialect.COHERE, "https://api.cohere.com", "max_tokens"),
        # the address follows from aws_region
        "bedrock": _Vendor(Dialect.BEDROCK, "", "max_tokens"),
    }
)
"""They bill reasoning that is not shown, so a cut answer cannot be counted."""


def with_defaults(entry: ProviderEntry) -> ProviderEntry:
    """A provider with every default filled in that its name or `self_hosted` implies."""
    vendor = None if entry.self_hosted else _VENDORS.get(entry.name)
    is_own = entry.self_hosted
    implied: dict[str, Any] = {
        "dialect": vendor.dialect if vendor else Dialect.OPENAI if is_own else None,
        "base_url": _address(entry, vendor),
        "apis": vendor.apis if vendor else (),
        "output_limit_field": vendor.output_limit_field if vendor else "max_tokens",
        "has_hidden_output": not is_own,
        "billing": Billing.SELF_HOSTED if is_own else Billing.HOSTED,
        "on_client_gone": OnClientGone.CANCEL if is_own else OnClientGone.DRAIN,
        "keepalive_s": ENGINE_KEEPALIVE_S if is_own else HOSTED_KEEPALIVE_S,
        "models": ("*",) if vendor and entry.models is None else (),
    }
    return msgspec.structs.replace(
        entry, **{name: value for name, value in implied.items() if getattr(entry, name) in (None, "", ())}
    )


def _address(entry: ProviderEntry, vendor: _Vendor | None) -> str:
    if vendor is not None and vendor.dialect is Dialect.BEDROCK and entry.aws_region:
        return f"https://bedrock-runtime.{entry.aws_region}.amazonaws.com"
    return vendor.base_url if vendor else ""


def hashed(entry: KeyEntry) -> KeyEntry:
    """A key that holds its secret's hash instead of the secret."""
    previous = tuple(
        msgspec.structs.replace(old, secret="", secret_sha256=secret_hash(old.secret)) if old.secret else old
        for old in entry.previous
    )
    digest = secret_hash(entry.secret) if entry.secret else entry.secret_sha256
    return msgspec.structs.replace(entry, secret="", secret_sha256=digest, previous=previous)


def settings_of(section: GatewaySection, console: ConsoleSection) -> Settings:
    """The gateway's limits and policies. Raises are asked for in the console unless the operator says where."""
    found = {name: getattr(section, name) for name in Settings.__struct_fields__}
    return Settings(**{**found, "raise_url": section.raise_url or console.raise_url})


def provider_of(entry: ProviderEntry, folder: Path) -> Provider:
    """An upstream. `entry` has its defaults."""
    shared = {
        name: getattr(entry, name)
        for name in Provider.__struct_fields__
        if name not in ("price_source", "ca_file", "passthrough")
    }
    ca_file = str(folder / entry.ca_file) if entry.ca_file else ""
    rules = tuple(
        PassRoute(
            rule.method.upper(),
            rule.path,
            usd_to_nanos(rule.usd_per_request),
            usd_to_nanos(rule.usd_per_second),
            rule.max_seconds,
        )
        for rule in entry.passthrough
    )
    return Provider(**shared, price_source=entry.prices, ca_file=ca_file, passthrough=rules)


def route_of(entry: ModelEntry) -> ModelRoute:
    """A model name and its targets."""
    targets = tuple(Target(t.provider, t.model, t.weight, t.max_concurrent) for t in entry.targets)
    return ModelRoute(
        entry.name, entry.provider, entry.model, targets, entry.strategy, entry.retries, entry.backoff_ms
    )


def key_of(entry: KeyEntry, org: str, origin: Origin, place: str) -> KeySpec:
    """A virtual key. `entry` is hashed."""
    shared = {name: getattr(entry, name) for name in KeySpec.__struct_fields__ if name not in _NOT_WRITTEN}
    return KeySpec(
        **shared,
        org=entry.org or org,
        expires_at=NO_EXPIRY if entry.expires is None else parse_moment(entry.expires),
        origin=origin,
        place=place,
        previous=tuple(PreviousSecret(old.secret_sha256, parse_moment(old.until)) for old in entry.previous),
    )


def budget_of(entry: BudgetEntry, origin: Origin, place: str) -> BudgetSpec:
    """A budget."""
    return BudgetSpec(
        entry.name,
        entry.scope,
        None if entry.limit_usd == NO_LIMIT else usd_to_nanos(entry.limit_usd),
        parse_window(entry.window, entry.timezone),
        entry.is_hard,
        origin,
        place,
    )


def price_record(entry: PriceEntry) -> Override | SelfHosted | Ceiling:
    """What `lookup` understands. Dates become UTC ns; a name that was not given is the record's own."""
    values: dict[str, Any] = {
        name: getattr(entry, name) for name in entry.__struct_fields__ if name != "name" or entry.name
    }
    for name in ("valid_from", "valid_to"):
        if values.get(name) is not None:
            values[name] = parse_moment(values[name])
    match entry:
        case DiscountEntry():
            return Discount(**values)
        case CustomEntry():
            values["long_context"] = tuple(
                LongContext(tier.above_input_tokens, tier.usd_per_mtok) for tier in entry.long_context
            )
            return CustomModel(**values)
        case FeeEntry():
            return RequestFee(**values)
        case AccountEntry():
            return AccountTerms(**values)
        case SelfHostedEntry():
            return SelfHosted(**values)
        case CeilingEntry():
            return Ceiling(**values)
