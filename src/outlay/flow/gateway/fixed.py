"""Terms that do not come from a model's price: routes that are free, routes at the operator's price, jobs. Pure."""

from outlay.flow.gateway.settlement import Terms
from outlay.flow.gateway.snapshot import Provider, Snapshot
from outlay.flow.ledger.charge import Hold
from outlay.kernel.clock import UnixNanos
from outlay.kernel.errors import AccountingBroken
from outlay.kernel.money import Nanos
from outlay.lookup.cost import Quote, Unbounded, bound
from outlay.lookup.price import ModelPrice, PriceId, Rates, with_price_id
from outlay.wire.intent import CallIntent


class FixedTerms:
    """What one call is held at, known before a target is chosen."""

    __slots__ = ("max_seconds", "terms")

    def __init__(self, terms: Terms, max_seconds: int = 0) -> None:
        self.terms = terms
        self.max_seconds = max_seconds
        """The call is cut after so long; 0: no limit of its own."""

    def accepted(self, status: int, body: bytes) -> str | None:
        """The provider's id of a job that goes on after this answer; None if there is none."""
        return None

    def defer(self, hold: Hold, job_id: str, shadow: str) -> None:
        """Keep the hold open for a job; `shadow` says why enforcement would have refused it."""
        raise AccountingBroken("only a job is deferred")


def free_terms(snapshot: Snapshot, provider: Provider, intent: CallIntent) -> FixedTerms:
    """A call that its provider does not bill: held at zero, booked at zero."""
    price = with_price_id(
        ModelPrice(
            provider=provider.name,
            model=intent.model,
            source="a free route",
            rates=Rates(input=0),
            is_flat=True,
        ),
        "free",
    )
    quote = total_quote(price.price_id, 0)
    return FixedTerms(Terms(provider, intent.model, intent, price, quote, snapshot.book))


def priced_terms(
    snapshot: Snapshot, provider: Provider, intent: CallIntent, price: ModelPrice, max_seconds: int
) -> FixedTerms:
    """A call at a price of the operator's."""
    quote = bound(price, intent, 0, UnixNanos(0))
    if isinstance(quote, Unbounded):
        raise AccountingBroken(f"a passthrough price must bound its call: {quote.reason}")
    return FixedTerms(Terms(provider, intent.model, intent, price, quote, snapshot.book), max_seconds)


def total_quote(price_id: PriceId, nanos: int) -> Quote:
    """A quote of which only the total is known."""
    total = Nanos(nanos)
    return Quote(price_id, 0, Nanos(0), 0, 1, 0, Nanos(0), total, total)
