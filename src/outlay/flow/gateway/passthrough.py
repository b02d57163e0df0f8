"""Routes that the table does not know and an operator let through at a price: per request, or per second.

A price per second needs a longest time, so that a hold can bound it; the call is cut then.
"""

from outlay.flow.budgets import pattern_matches
from outlay.flow.gateway.fixed import FixedTerms, priced_terms
from outlay.flow.gateway.settlement import MILLISECOND
from outlay.flow.gateway.snapshot import PassRoute, Provider, Snapshot
from outlay.lookup.price import ModelPrice, Rates, with_price_id
from outlay.wire.intent import CallIntent, Operation, Units

NO_METHODS = frozenset({"HEAD", "CONNECT", "TRACE", "OPTIONS"})
"""Methods whose answers have no body, or that are for a proxy."""
PREFIX = "/passthrough/"
"""`/passthrough/<provider>/...` names the provider; elsewhere the first with a matching rule is taken."""


def find_pass_route(
    snapshot: Snapshot, method: str, path: str, wanted: str
) -> tuple[Provider, PassRoute, str] | None:
    """The provider and rule that let a route through, and its path there; None if none does."""
    if method in NO_METHODS or ".." in path or "%" in path or "//" in path or "\\" in path:
        return None
    if path.startswith(PREFIX):
        wanted, _, rest = path.removeprefix(PREFIX).partition("/")
        path = "/" + rest
    for provider in snapshot.providers.values():
        if wanted not in ("", provider.name):
            continue
        for rule in provider.passthrough:
            if rule.method in ("*", method) and pattern_matches(rule.path, path):
                return provider, rule, path
    return None


def pass_price(provider: Provider, rule: PassRoute) -> ModelPrice:
    """The operator's price of a rule as a price."""
    return with_price_id(
        ModelPrice(
            provider=provider.name,
            model=rule.path,
            source=f"operator: passthrough {rule.method} {rule.path}",
            rates=Rates(input=0),
            fee_per_request_nanos=rule.nanos_per_request,
            unit_rates={MILLISECOND: rule.nanos_per_second * 1000} if rule.nanos_per_second else {},
            is_flat=True,
        ),
        "passthrough",
    )


def pass_terms(snapshot: Snapshot, provider: Provider, rule: PassRoute) -> tuple[FixedTerms, CallIntent]:
    """What a call over a rule is held at, and its intent."""
    units = (Units(MILLISECOND, rule.max_seconds * 1000),) if rule.nanos_per_second else ()
    intent = CallIntent(provider.dialect, Operation.PASSTHROUGH, rule.path, 0, 0, None, units=units)
    return priced_terms(snapshot, provider, intent, pass_price(provider, rule), rule.max_seconds), intent
