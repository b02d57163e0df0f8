"""From what was observed of a call to how its hold ends. Pure: no I/O, no clock, no balances."""

import msgspec

from outlay.flow.gateway.dialects import read_answer
from outlay.flow.gateway.snapshot import Provider
from outlay.flow.ledger.charge import Basis, Status
from outlay.flow.outcome import Failure, Verdict, failure_of_status, verdict
from outlay.kernel.clock import UnixNanos
from outlay.kernel.money import line_bound
from outlay.lookup.book import PriceBook
from outlay.lookup.cost import Cost, Quote, cost
from outlay.lookup.price import ModelPrice
from outlay.wire.intent import CallIntent, Operation, Units, Usage
from outlay.wire.stream import StreamReader

RUN_AHEAD_TOKENS = 32
"""Output an engine may have made but not sent when a stream is cancelled (scheduler steps, socket buffers), at least:
its provider's `run_ahead_tokens` may say more."""


BY_REQUEST = frozenset({Operation.SPEECH, Operation.IMAGES, Operation.IMAGE_EDIT})
"""Operations that some models bill by what the request asks for, and whose answers then state nothing."""


MILLISECOND = "millisecond"
FREE_OPERATIONS = frozenset({Operation.FREE, Operation.COUNT_TOKENS, Operation.MODELS})


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """How a hold ends, before it is numbered: the price used may be the served model's."""

    status: Status
    basis: Basis
    cost_nanos: int
    usage: Usage | None = None
    price: ModelPrice | None = None
    """None: the hold's own price."""
    reason: str | None = None


class Terms(msgspec.Struct, frozen=True, gc=False):
    """What was agreed when the hold was placed."""

    provider: Provider
    model: str
    """As asked of the provider."""
    intent: CallIntent
    price: ModelPrice
    quote: Quote
    book: PriceBook


def with_quote(terms: Terms, quote: Quote) -> Terms:
    """The same terms at another hold."""
    return Terms(terms.provider, terms.model, terms.intent, terms.price, quote, terms.book)


MOST_BELIEVED_NANOS = 10**15
"""A usage that costs more than this, and more than its own bound, is not believed: a few such would not fit a column
of the ledger, and stop it from being written."""


def settle_usage(terms: Terms, usage: Usage, at: UnixNanos) -> Settlement:
    """Book what the provider says it served, at the served model's price where that is known."""
    price, reason = terms.price, None
    basis = Basis.CEILING if price.is_ceiling else Basis.METERED
    served = usage.model
    if served is not None and served not in (terms.model, price.model):
        found = terms.book.find(terms.provider.prices, served, at)
        if isinstance(found, ModelPrice) and (price.is_ceiling or not found.is_ceiling):
            price = found
            basis = Basis.CEILING if price.is_ceiling else Basis.METERED
        elif not price.is_flat:
            basis = Basis.SERVED_UNPRICED
            reason = f"served model {served[:80]!r} has no price; the requested model's was used"
    result = cost(price, usage, at, terms.intent)
    if isinstance(result, Cost):
        if result.total_nanos <= max(MOST_BELIEVED_NANOS, terms.quote.total_nanos):
            return Settlement(Status.SETTLED, basis, result.total_nanos, usage, price, reason)
        text = "the provider states a usage of more than a million dollars"
        return Settlement(Status.SETTLED, Basis.OUTCOME_UNKNOWN, terms.quote.total_nanos, reason=text)
    return Settlement(
        Status.SETTLED, Basis.OUTCOME_UNKNOWN, terms.quote.total_nanos, usage, None, result.reason
    )


def settle_failure(
    terms: Terms, failure: Failure, reader: StreamReader | None, at: UnixNanos, reason: str
) -> Settlement:
    """Book a call that broke, by the provider's row of the table; final usage, where it came, beats the table."""
    if reader is not None and reader.usage is not None and reader.usage_is_final:
        return settle_usage(terms, reader.usage, at)
    found = verdict(terms.provider.billing, failure, has_hidden_output=terms.provider.has_hidden_output)
    text = f"{failure.value}: {reason}" if reason else failure.value
    if found is Verdict.VOID:
        return Settlement(Status.VOID, Basis.VOID, 0, reason=text)
    if found is Verdict.FULL:
        return Settlement(Status.SETTLED, Basis.FULL, terms.quote.total_nanos, reason=text)
    if found is Verdict.COUNTED and reader is not None:
        run_ahead = max(RUN_AHEAD_TOKENS, terms.provider.run_ahead_tokens) * max(1, terms.quote.choices)
        run_ahead = 0 if failure is Failure.NO_USAGE else run_ahead
        # a token of a byte-level tokenizer is at least one byte, so bytes seen bound tokens made
        return _counted(terms, max(reader.output_bytes, reader.deltas) + run_ahead, text)
    return Settlement(Status.SETTLED, Basis.OUTCOME_UNKNOWN, terms.quote.total_nanos, reason=text)


def settle_silent(terms: Terms, output_bytes: int, reason: str) -> Settlement:
    """Book a whole, readable answer that does not say its usage."""
    found = verdict(
        terms.provider.billing, Failure.NO_USAGE, has_hidden_output=terms.provider.has_hidden_output
    )
    if found is Verdict.COUNTED:
        return _counted(terms, output_bytes, reason)
    return Settlement(Status.SETTLED, Basis.OUTCOME_UNKNOWN, terms.quote.total_nanos, reason=reason)


def settle_answer(terms: Terms, status: int, body: bytes, at: UnixNanos) -> Settlement:
    """Book a whole answer, whatever its status says."""
    operation = terms.intent.operation
    if operation in FREE_OPERATIONS:
        return settle_free(terms)
    if status >= 300 or status == 204:
        stated = read_answer(terms.intent, body).usage
        if stated is not None and stated.input_tokens + stated.output_tokens > 0:
            # an error that states what it used was billed, whatever the table says of errors
            return settle_usage(terms, stated, at)
        return settle_failure(terms, failure_of_status(status), None, at, f"status {status}")
    answer = read_answer(terms.intent, body)
    if answer.usage is not None:
        return settle_usage(terms, answer.usage, at)
    if answer.is_error:
        return settle_failure(terms, Failure.GARBAGE, None, at, "an error object with status 200")
    if operation in BY_REQUEST:
        return settle_requested(terms, at)
    if operation is Operation.EMBED_CONTENT:
        # the Gemini API states no usage for embeddings; a token is at least a byte
        return settle_silent(terms, 0, "the answer does not state its usage")
    if answer.response_id is None and answer.finish_reason is None:
        return settle_failure(terms, Failure.GARBAGE, None, at, "the body is not a readable answer")
    return settle_silent(terms, answer.output_bytes, "the answer does not state its usage")


def settle_stream(terms: Terms, reader: StreamReader, at: UnixNanos) -> Settlement:
    """Book a stream that its provider has ended."""
    if terms.intent.operation in FREE_OPERATIONS:
        return settle_free(terms)
    is_whole = reader.is_done or (reader.finish_reason is not None and not reader.error_seen)
    if reader.usage is not None and (reader.usage_is_final or reader.is_done):
        return settle_usage(terms, reader.usage, at)
    if is_whole and not reader.error_seen:
        if terms.intent.operation in BY_REQUEST:
            return settle_requested(terms, at)
        return settle_silent(terms, reader.output_bytes, "the stream does not state its usage")
    return settle_failure(terms, Failure.STREAM_CUT, reader, at, "the stream ended early")


def settle_free(terms: Terms) -> Settlement:
    """Book a call that costs nothing."""
    return Settlement(Status.SETTLED, Basis.METERED, 0, None, terms.price)


def settle_timed(terms: Terms, status: int, elapsed_ms: int, at: UnixNanos) -> Settlement:
    """Book a call of a route at the operator's price: its fee, and its time where that is priced."""
    if status >= 300:
        return settle_failure(terms, failure_of_status(status), None, at, f"status {status}")
    units = (Units(MILLISECOND, elapsed_ms),) if terms.price.unit_rates else ()
    return settle_usage(terms, Usage(0, 0, units=units), at)


def settle_requested(terms: Terms, at: UnixNanos) -> Settlement:
    """Book an answer that states no usage, of a route whose units the request itself fixes (characters, images)."""
    units = tuple(unit for unit in terms.intent.units)
    result = cost(terms.price, Usage(0, 0, units=units), at, terms.intent) if units else None
    if isinstance(result, Cost) and result.total_nanos:
        basis = Basis.CEILING if terms.price.is_ceiling else Basis.METERED
        return Settlement(Status.SETTLED, basis, result.total_nanos, Usage(0, 0, units=units), terms.price)
    held = terms.quote.total_nanos
    return Settlement(
        Status.SETTLED, Basis.OUTCOME_UNKNOWN, held, reason="the answer does not state its usage"
    )


def _counted(terms: Terms, output_tokens: int, reason: str) -> Settlement:
    quote = terms.quote
    bound = quote.input_nanos + quote.fees_nanos + line_bound(output_tokens, quote.output_rate)
    return Settlement(Status.SETTLED, Basis.COUNTED, min(bound, quote.total_nanos), reason=reason)
