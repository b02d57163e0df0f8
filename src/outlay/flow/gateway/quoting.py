"""What may this call cost, and may it pass: the terms of a request, shared by the request path and `outlay quote`."""

import msgspec

from outlay.flow.accounts import Account
from outlay.flow.authorize import Admitted, Clamp, Denied, authorize
from outlay.flow.gateway.asking import pause_of
from outlay.flow.gateway.caller import Caller
from outlay.flow.gateway.client import Request
from outlay.flow.gateway.dialects import HAS_OUTPUT, parse_call
from outlay.flow.gateway.entries import allowed_identity, ended, no_such_model
from outlay.flow.gateway.guard import Guard, LimitBook, Step, guard_of, token_bound
from outlay.flow.gateway.ladders import highest, rung_of
from outlay.flow.gateway.passage import passage_of
from outlay.flow.gateway.refusal import Refusal, refusal_of, run_barred, stopped_by
from outlay.flow.gateway.settlement import Terms
from outlay.flow.gateway.snapshot import Aim, KeySpec, Mode, Provider, Settings, Snapshot
from outlay.flow.ledger.books import Books
from outlay.flow.ledger.directory import Chain
from outlay.flow.orders import find_order
from outlay.flow.policy import PolicyMode
from outlay.kernel.clock import UnixNanos
from outlay.kernel.money import format_usd
from outlay.lookup.cost import Quote, Unbounded, bound
from outlay.lookup.price import UnknownPrice
from outlay.wire.intent import CallIntent, Rejection
from outlay.wire.routes import Match, Metering, find_route

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
    """What a request would be held at, and whether it would pass now. Nothing is held, and no rate counts it."""

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
    downgraded_from: str = ""
    """The model asked for, where a ladder would choose another."""


class _Target(msgspec.Struct, frozen=True):
    """A caller at a target, as an `Entry` is on the request path."""

    aim: Aim
    chain: Chain
    guard: Guard | None


def preview(  # noqa: PLR0917 - everything a request would bring
    snapshot: Snapshot,
    books: Books,
    now: UnixNanos,
    key: KeySpec,
    path: str,
    body: bytes,
    limits: LimitBook | None = None,
) -> Preview | Refusal:
    """Quote a request as the gateway would: the hold it would place is `quote.total_nanos`.

    `limits` are the counters of rates, if a gateway runs; without them nothing counts as in use.
    """
    if limits is None:
        limits = LimitBook(lambda: now)
    found = _preview(snapshot, books, now, key, path, body, limits)
    if isinstance(found, Refusal):
        return _unlinked(found)
    return (
        found if found.refusal is None else msgspec.structs.replace(found, refusal=_unlinked(found.refusal))
    )


def _preview(  # noqa: PLR0917 - everything a request would bring
    snapshot: Snapshot, books: Books, now: UnixNanos, key: KeySpec, path: str, body: bytes, limits: LimitBook
) -> Preview | Refusal:
    match = find_route("POST", path)
    if match is None or match.route.metering is not Metering.HELD:
        return Refusal(404, "route_not_found", f"POST {path} is not a metered route.")
    if key.expires_at <= now:
        return ended(key)
    request = Request()
    request.body, request.headers = body, [(b"content-type", b"application/json")]
    intent = parse_call(match, request)
    if isinstance(intent, Rejection):
        return Refusal(intent.status, intent.code, intent.message, {"param": intent.param})
    settings, wanted = snapshot.settings, intent.model
    targets = _targets(snapshot, books, key, match, intent, limits)
    if isinstance(targets, Refusal):
        return targets
    visited, step = {wanted.lower()}, _step(settings, targets)
    while step is not None and step.rung.use and step.rung.use.lower() not in visited:
        # as the desk goes down: ladders that lead to each other end at the last model
        visited.add(step.rung.use.lower())
        lower = msgspec.structs.replace(intent, model=step.rung.use)
        targets = _targets(snapshot, books, key, match, lower, limits)
        if isinstance(targets, Refusal):
            return targets
        step = _step(settings, targets)
    target = targets[0]
    aim, guard, accounts = target.aim, target.guard, target.chain.accounts
    provider, model = aim.provider, aim.model
    if aim.operation is not intent.operation:
        passage = passage_of(intent, aim.operation, model, request.body, settings)
        if isinstance(passage, Refusal):
            return passage
        intent = passage.intent
    terms = make_terms(snapshot, provider, model, intent, now)
    if isinstance(terms, Refusal):
        return terms
    clamps = may_clamp(settings, intent, None if guard is None else guard.clamp)
    decision = authorize(accounts, terms.quote, settings.min_output_tokens, clamps)
    refusal = pause_of(step, settings) if step is not None and not step.rung.use else None
    if refusal is None:
        refusal = _stopped(snapshot, target)
    if refusal is None and settings.mode is not Mode.SHADOW:
        refusal = _refused_by_rules(target, terms, now)
    if refusal is None and isinstance(decision, Denied):
        refusal = refusal_of(decision, settings, "", now, key)
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
        tuple(_view(account, now) for account in accounts),
        refusal,
        wanted if len(visited) > 1 else "",
    )


def _targets(  # noqa: PLR0917 - everything a request would bring
    snapshot: Snapshot, books: Books, key: KeySpec, match: Match, intent: CallIntent, limits: LimitBook
) -> list[_Target] | Refusal:
    """The targets that the key may ask, in the order in which they are; why none may be asked, if so."""
    aims = snapshot.aims(match.route.dialect, intent.operation, intent.model)
    if aims is None or not aims.targets:
        return no_such_model(intent.model)
    targets, denied = [], None
    for aim in aims.targets:
        identity = allowed_identity(snapshot, key, Caller([]), aim, intent.model)
        if isinstance(identity, Refusal):
            denied = denied or identity
            continue
        targets.append(_Target(aim, books.chain(identity), guard_of(snapshot.policies, identity, limits)))
    if not targets:
        return denied or no_such_model(intent.model)
    preferred = next((target.guard.providers for target in targets if target.guard is not None), ())
    places = {name: place for place, name in enumerate(preferred)}
    return sorted(targets, key=lambda target: places.get(target.aim.provider.name, len(places)))


def _step(settings: Settings, targets: list[_Target]) -> Step | None:
    """What an enforced ladder says of the call."""
    if settings.mode is Mode.SHADOW:
        return None
    step = highest(rung_of(target.guard, target.chain) for target in targets)
    return step if step is not None and step.policy.mode is PolicyMode.ENFORCE else None


def _stopped(snapshot: Snapshot, target: _Target) -> Refusal | None:
    """What an order says of a run above the one that the key pins; others are asked before there are targets."""
    above = tuple(run.name for run in target.chain.runs[1:])
    order = find_order(snapshot.orders, target.chain.identity, above) if above else None
    return None if order is None else stopped_by(order, snapshot.settings)


def _refused_by_rules(target: _Target, terms: Terms, now: UnixNanos) -> Refusal | None:
    """What the run that the key pins, and enforced policies, say of a call now."""
    for run in target.chain.runs:
        if code := run.bars(now):
            return run_barred(run, code)
    guard = target.guard
    if guard is None:
        return None
    for found in (
        guard.closed(now),
        guard.too_dear(terms, terms.quote),
        guard.too_fast(token_bound(terms.quote), now, is_first=True),
    ):
        if found is not None and found[1] is PolicyMode.ENFORCE:
            return found[0]
    return None


def _view(account: Account, now: UnixNanos) -> BudgetView:
    return BudgetView(
        account.budget.name,
        account.scope,
        account.budget.window.text(),
        account.budget.hard,
        account.limit,
        account.spent,
        account.held,
        account.resets_at(now),
    )


def _unlinked(refusal: Refusal) -> Refusal:
    """Without a link: there is no request that a raise could be asked for."""
    fields = {name: value for name, value in refusal.fields.items() if name != "raise_url"}
    return msgspec.structs.replace(refusal, fields=fields)
