"""What may this call cost, and may it pass: the terms of a request, shared by the request path and `outlay quote`."""

import msgspec

from outlay.flow.authorize import Admitted, Clamp, Denied, authorize
from outlay.flow.gateway.caller import Caller
from outlay.flow.gateway.client import Request
from outlay.flow.gateway.dialects import HAS_OUTPUT, parse_call
from outlay.flow.gateway.entries import allowed_identity, no_such_model
from outlay.flow.gateway.guard import Guard, LimitBook, guard_of
from outlay.flow.gateway.passage import passage_of
from outlay.flow.gateway.refusal import Refusal, refusal_of
from outlay.flow.gateway.settlement import Terms
from outlay.flow.gateway.snapshot import KeySpec, Provider, Settings, Snapshot
from outlay.flow.ledger.books import Books
from outlay.flow.policy import PolicyMode
from outlay.kernel.clock import UnixNanos
from outlay.kernel.money import format_usd
from outlay.lookup.cost import Quote, Unbounded, bound
from outlay.lookup.price import UnknownPrice
from outlay.wire.intent import CallIntent, Rejection
from outlay.wire.routes import Metering, find_route

MAX_CALL_NANOS = 10**15
"""One call may be held at no more than a million dollars: sums of thousands of them stay in 64 bits."""


def make_terms(  # noqa: PLR0917 - the hot path: a record of these would cost more than the call
    snapshot: Snapshot,
    provider: Provider,
    model: str,
    intent: CallIntent,
    now: UnixNanos,
    can_insert: bool = True,
) -> Terms | Refusal:
    """Price and worst case of an intent at a provider; the operator's default stands in for an unstated limit.

    Where no limit can be put into the call any more (`can_insert`), the model's own longest output stands in.
    """
    book = snapshot.book
    price = book.find(provider.prices, model, now)
    if isinstance(price, UnknownPrice):
        nearest = f" Known names nearest to it: {', '.join(price.nearest)}." if price.nearest else ""
        return Refusal(
            422,
            "model_unpriced",
            f"{price.reason.rstrip('.')}.{nearest} An operator can set a price with `outlay price set`.",
            {"param": "model", "nearest": list(price.nearest)},
        )
    limit = 0
    if intent.max_output_tokens is not None:
        limit = intent.max_output_tokens
    elif intent.operation in HAS_OUTPUT:
        limit = snapshot.settings.default_max_output_tokens
        if not can_insert:
            longest = price.max_output_tokens or price.input_limit
            if longest is None:
                return Refusal(422, "unbounded", "State an output limit: the model's longest is not known.")
            limit = longest
        elif price.max_output_tokens is not None:
            limit = min(limit, price.max_output_tokens)
    quote = bound(price, intent, limit, now)
    if isinstance(quote, Unbounded):
        return Refusal(422, "unbounded", f"This call has no upper bound: {quote.reason.rstrip('.')}.")
    if quote.total_nanos > MAX_CALL_NANOS:
        return Refusal(
            422,
            "unbounded",
            f"This call may cost ${format_usd(quote.total_nanos, 0)}; state a lower output limit or fewer choices.",
        )
    return Terms(provider, model, intent, price, quote, book)


def may_clamp(settings: Settings, intent: CallIntent, policy: Clamp | None = None) -> bool:
    """Whether policy allows a lower output limit than quoted, and the call has a field for one."""
    if intent.operation not in HAS_OUTPUT:
        return False
    clamp = policy or settings.clamp
    return clamp is Clamp.ALWAYS or (clamp is Clamp.WHEN_UNSET and intent.max_output_tokens is None)


class BudgetView(msgspec.Struct, frozen=True):
    """A budget that applies to a quoted call. Amounts in nanos."""

    budget: str
    scope: str
    window: str
    is_hard: bool
    limit_nanos: int | None
    spent_nanos: int
    held_nanos: int
    resets_at: int | None


class Preview(msgspec.Struct, frozen=True):
    """What a request would be held at, and whether it would pass now. Nothing is held."""

    passes: bool
    provider: str
    model: str
    price_id: str
    price_source: str
    is_ceiling: bool
    quote: Quote
    max_output_tokens: int
    """After a clamp, if one would be needed."""
    is_clamped: bool
    budgets: tuple[BudgetView, ...]
    refusal: Refusal | None = None


def preview(  # noqa: PLR0917 - everything a request would bring
    snapshot: Snapshot, books: Books, now: UnixNanos, key: KeySpec, path: str, body: bytes
) -> Preview | Refusal:
    """Quote a request as the gateway would: the hold it would place is `quote.total_nanos`."""
    match = find_route("POST", path)
    if match is None or match.route.metering is not Metering.HELD:
        return Refusal(404, "route_not_found", f"POST {path} is not a metered route.")
    request = Request()
    request.body, request.headers = body, [(b"content-type", b"application/json")]
    intent = parse_call(match, request)
    if isinstance(intent, Rejection):
        return Refusal(intent.status, intent.code, intent.message, {"param": intent.param})
    aims = snapshot.aims(match.route.dialect, intent.operation, intent.model)
    if aims is None or not aims.targets:
        return no_such_model(intent.model)
    aim = aims.targets[0]
    identity = allowed_identity(snapshot, key, Caller([]), aim, intent.model)
    if isinstance(identity, Refusal):
        return identity
    provider, model = aim.provider, aim.model
    if aim.operation is not intent.operation:
        passage = passage_of(intent, aim.operation, model, request.body, snapshot.settings)
        if isinstance(passage, Refusal):
            return passage
        intent = passage.intent
    terms = make_terms(snapshot, provider, model, intent, now)
    if isinstance(terms, Refusal):
        return terms
    accounts = books.chain(identity).accounts
    settings = snapshot.settings
    guard = guard_of(snapshot.policies, identity, LimitBook(lambda: now))
    clamps = may_clamp(settings, intent, None if guard is None else guard.clamp)
    decision = authorize(accounts, terms.quote, settings.min_output_tokens, clamps)
    views = tuple(
        BudgetView(
            account.budget.name,
            account.scope,
            account.budget.window.text(),
            account.budget.hard,
            account.limit,
            account.spent,
            account.held,
            account.resets_at(now),
        )
        for account in accounts
    )
    refusal = refusal_of(decision, settings, "", now, key) if isinstance(decision, Denied) else None
    if guard is not None:
        refusal = _refused_by_policy(guard, terms, now) or refusal
    return Preview(
        refusal is None,
        provider.name,
        model,
        terms.price.price_id,
        terms.price.source,
        terms.price.is_ceiling,
        terms.quote,
        decision.max_output_tokens if isinstance(decision, Admitted) else terms.quote.max_output_tokens,
        isinstance(decision, Admitted) and decision.is_clamped,
        views,
        refusal,
    )


def _refused_by_policy(guard: Guard, terms: Terms, now: UnixNanos) -> Refusal | None:
    """What enforced policies say of a call now; rates are a matter of the moment it comes."""
    for found in (guard.closed(now), guard.too_dear(terms, terms.quote)):
        if found is not None and found[1] is PolicyMode.ENFORCE:
            return found[0]
    return None
