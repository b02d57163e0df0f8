"""The books of a framework's callback: calls held before they are made, and calls booked as reported."""

import threading
from collections import OrderedDict
from typing import Any, Final

from outlay.flow.gateway.fixed import total_quote
from outlay.flow.gateway.quoting import make_terms
from outlay.flow.gateway.refusal import Refusal, refusal_of
from outlay.flow.gateway.settlement import Terms, settle_usage
from outlay.flow.gateway.snapshot import Provider
from outlay.flow.ledger.charge import Basis, Ending, Status
from outlay.flow.ledger.direct import Order, Placed
from outlay.flow.outcome import Failure
from outlay.flow.sdk.errors import CallRefused, plain
from outlay.flow.sdk.exchange import Agreed, Ticket
from outlay.flow.sdk.meter import Meter, route_body
from outlay.flow.sdk.policies import Asked
from outlay.flow.sdk.runs import current_run
from outlay.kernel.errors import StoreError
from outlay.kernel.ids import id_text
from outlay.lookup.cost import Cost, cost
from outlay.lookup.price import ModelPrice, PriceId, Rates
from outlay.wire.intent import CallIntent, Dialect, Operation, Usage

MAX_OPEN: Final = 10_000
"""Calls that were begun and of which nothing was heard since; the oldest is then booked at what it held."""
WAIT_S: Final = 2.0
"""How long a callback may wait for the ledger's file."""
SLACK_BYTES: Final = 2_048
"""For what a framework adds to the text it shows its callbacks: names, roles, tool schemas are counted apart."""


class Tally:
    """See the module. Safe for threads."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._open: OrderedDict[str, Ticket] = OrderedDict()
        self._booked: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def hold(self, call: str, provider: str, model: str, input_bytes: int, max_output: int | None) -> None:
        """Hold the worst case of a call that is about to be made. Raises CallRefused if it may not be."""
        meter = self._meter
        vendor = _provider(provider)
        intent = CallIntent(
            Dialect.OPENAI, Operation.CHAT, model, input_bytes + SLACK_BYTES, max_output, None
        )
        terms = make_terms(meter.snapshot, vendor, model, intent, meter.clock.now(), can_insert=False)
        if isinstance(terms, Refusal):
            raise _error(terms)
        order = self._order(terms)
        run, refusal = current_run(), meter.judge(Asked(order.identity, terms)).refusal
        if refusal is None and run is not None:
            refusal = run.enter(meter)
        if refusal is not None:
            raise _error(refusal)
        placed: Any = None
        try:
            meter.settler.prepare()
            placed = meter.ledger.place(order, WAIT_S)
        except StoreError as error:
            raise _error(
                Refusal(error.http_status, error.code, f"The ledger cannot record this call now ({error}).")
            ) from error
        finally:
            if run is not None and not isinstance(placed, Placed):
                run.leave()
        if not isinstance(placed, Placed):
            raise _error(
                refusal_of(
                    placed,
                    meter.settings,
                    id_text(meter.ledger.new_id()),
                    meter.clock.now(),
                    meter.key,
                )
            )
        ticket = Ticket(meter, Agreed(terms), placed, WAIT_S)
        with self._lock:
            self._open[call] = ticket
            forgotten = self._open.popitem(last=False)[1] if len(self._open) > MAX_OPEN else None
        if forgotten is not None:
            forgotten.fail(Failure.NO_RESPONSE, "nothing was heard of the call")

    def book(self, call: str, provider: str, model: str, usage: Usage, reporter: str) -> None:
        """Book what a call has used; once, however often it is reported."""
        with self._lock:
            if call in self._booked:
                return
            self._booked[call] = None
            if len(self._booked) > MAX_OPEN:
                self._booked.popitem(last=False)
            ticket = self._open.pop(call, None)
        now = self._meter.clock.now()
        if ticket is not None:
            ticket.answered(200)
            ticket.end(settle_usage(ticket.terms, usage, now))
            return
        self._report(_provider(provider), model, usage, reporter)

    def drop(self, call: str, error: object) -> None:
        """A call has failed: what was held for it is booked as unknown, unless the provider refused it."""
        with self._lock:
            ticket = self._open.pop(call, None)
        if ticket is None:
            return
        status = getattr(error, "status_code", None)
        is_refused = isinstance(status, int) and 400 <= status < 500 and status != 408
        reason = type(error).__name__
        ticket.fail(Failure.REJECTED if is_refused else Failure.NO_RESPONSE, reason)

    def _report(self, provider: Provider, model: str, usage: Usage, reporter: str) -> None:
        meter = self._meter
        now = meter.clock.now()
        price = meter.snapshot.book.find(provider.prices, usage.model or model, now)
        if not isinstance(price, ModelPrice):
            price = meter.snapshot.book.find(provider.prices, model, now)
        nanos, basis, reason = 0, Basis.SERVED_UNPRICED, f"observed by {reporter}; no price is known"
        if isinstance(price, ModelPrice):
            found = cost(price, usage, now, CallIntent(Dialect.OPENAI, Operation.CHAT, model, 0, 0, None))
            if isinstance(found, Cost):
                nanos, basis, reason = found.total_nanos, Basis.IMPORTED, f"observed by {reporter}"
        else:
            price = ModelPrice(
                provider=provider.name,
                model=model,
                source="unknown",
                rates=Rates(input=0),
                price_id=PriceId("unknown"),
            )
        order = self._reported(provider, model, usage, price)
        meter.ledger.report(order, Ending(Status.SETTLED, basis, nanos, usage, reason=reason), WAIT_S)

    def _order(self, terms: Terms) -> Order:
        meter, run = self._meter, current_run()
        identity = meter.identity(terms.provider, terms.model, run)
        if isinstance(identity, Refusal):
            raise _error(identity)
        return Order(
            identity,
            meter.budgets,
            run.limits() if run is not None else (),
            terms.quote,
            meter.settings.min_output_tokens,
            False,
            route_body(terms.provider, terms.model, terms.model, terms.intent.operation),
            meter.price_body(terms.price),
        )

    def _reported(self, provider: Provider, model: str, usage: Usage, price: ModelPrice) -> Order:
        meter, run = self._meter, current_run()
        identity = meter.identity(provider, model, run)
        if isinstance(identity, Refusal):
            # it was made, whatever the rules say
            identity = meter.whose(provider, model, run)
        return Order(
            identity,
            meter.budgets,
            run.limits() if run is not None else (),
            total_quote(price.price_id, 0),
            0,
            False,
            route_body(provider, model, usage.model or model, Operation.CHAT),
            meter.price_body(price),
        )


def _provider(name: str) -> Provider:
    return Provider(
        name=name or "openai", dialect=Dialect.OPENAI, base_url="http://unused", has_hidden_output=True
    )


def _error(refusal: Refusal) -> CallRefused:
    return plain(refusal.status, refusal.code, refusal.message, refusal.fields)
