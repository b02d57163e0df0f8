"""One attempt of a wrapped client, from its hold to its settlement: a generator of steps, so that one text serves
synchronous and asynchronous clients. The gateway's own parts say what a call may cost and what it did cost.

Whatever happens after the hold is placed, it is ended: by the answer, by the table of broken calls, or by the settler
when the caller is gone. Nothing that goes wrong after the answer keeps the answer from its caller.
"""

import logging
import zlib
from collections.abc import Generator
from typing import Any, Final, NamedTuple

import msgspec

from outlay.flow.authorize import Denied, Reason
from outlay.flow.gateway.client import Request
from outlay.flow.gateway.dialects import HAS_OUTPUT, OpaqueStream, is_opaque, open_stream, parse_call
from outlay.flow.gateway.fixed import free_terms
from outlay.flow.gateway.forward import Edits, upstream_body
from outlay.flow.gateway.job_terms import KINDS, JobBody, read_job
from outlay.flow.gateway.passthrough import pass_terms
from outlay.flow.gateway.quoting import make_terms, may_clamp
from outlay.flow.gateway.refusal import Refusal, refusal_of
from outlay.flow.gateway.settlement import (
    Settlement,
    Terms,
    settle_answer,
    settle_failure,
    settle_stream,
    settle_timed,
)
from outlay.flow.ledger.charge import Basis, Ending, Status
from outlay.flow.ledger.direct import Order, Placed
from outlay.flow.ledger.port import JobRow, StoreBusy
from outlay.flow.outcome import Failure
from outlay.flow.sdk import jobs
from outlay.flow.sdk.meter import Found, Meter, Outgoing, Pass, free_body, route_body
from outlay.flow.sdk.policies import Asked
from outlay.flow.sdk.runs import current_run
from outlay.flow.sdk.settler import Finish
from outlay.flow.sdk.steps import Outcome, Pause, ReadAll, ReadBody, Refused, Send, Step, Streamed, Whole
from outlay.kernel.errors import AccountingBroken, StoreError
from outlay.kernel.ids import id_text
from outlay.kernel.money import format_usd
from outlay.lookup.cost import with_output
from outlay.wire.intent import CallIntent, Operation, Rejection
from outlay.wire.routes import Metering
from outlay.wire.stream import StreamReader

STORE_WAIT_NS: Final = 10_000_000_000
"""Longest wait for the ledger's file; then the call is refused."""
FIRST_PAUSE_MS: Final = 1
LONGEST_PAUSE_MS: Final = 50
_NOT_SENT: Final = frozenset(
    {"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "ProxyError"}
)
"""Errors of the HTTP library by which no byte of the request has left."""
_CANCELLED: Final = frozenset(
    {"CancelledError", "Cancelled", "GeneratorExit", "KeyboardInterrupt", "SystemExit"}
)
_IDENTITY: Final = (("accept-encoding", "identity"),)
_SIGNED: Final = b"AWS4-HMAC"
_log: Final = logging.getLogger("outlay")


class Agreed(NamedTuple):
    """What a call is held at."""

    terms: Terms
    job: JobBody | None = None
    """It is a job that the provider works on after its answer."""
    is_passed: bool = False


class _Bound(NamedTuple):
    provider: Any
    model: str


class Ticket:
    """The hold of one attempt, and the one place where it ends."""

    def __init__(self, meter: Meter, agreed: Agreed, placed: Placed, patience_s: float) -> None:
        self.meter = meter
        self.agreed = agreed
        self.terms = agreed.terms
        self.hold = placed.hold
        self.patience_s = patience_s
        self.status = 0
        self.sent_at = meter.clock.monotonic()
        self._first_byte_at: int | None = None
        self._is_over = False
        meter.settler.opened(placed.hold)

    def answered(self, status: int) -> None:
        """The head of the answer is there."""
        self.status = status
        self._first_byte_at = self.meter.clock.now()

    def keep(self) -> None:
        """The hold stays open, for a job."""
        self._is_over = True
        self.meter.settler.kept(self.hold)

    def end(self, settlement: Settlement) -> int:
        """End the hold; the cost in nanos. Further calls change nothing."""
        finish = self._finish(settlement)
        if finish is not None:
            self.meter.settler.finish(finish, self.patience_s)
        return settlement.cost_nanos

    def fail(self, failure: Failure, reason: str, reader: StreamReader | None = None) -> None:
        """End the hold by the table's row for where the call broke."""
        self.end(settle_failure(self.terms, failure, reader, self.meter.clock.now(), reason))

    def raised(self, error: BaseException, failure: Failure, reader: StreamReader | None = None) -> None:
        """End the hold of a call that an error broke."""
        names = {kind.__name__ for kind in type(error).__mro__}
        if failure is Failure.NO_RESPONSE and names & _NOT_SENT:
            failure = Failure.NOT_SENT
        elif failure is Failure.STREAM_CUT and names & _CANCELLED:
            failure = Failure.CLIENT_GONE
        self.fail(failure, type(error).__name__, reader)

    def defect(self, error: Exception) -> None:
        """Something of ours is broken: the held amount is booked, the answer goes on."""
        _log.error("outlay failed on an answer (%s); its held amount is booked", type(error).__name__)
        reason = f"internal error: {type(error).__name__}"
        self.end(Settlement(Status.SETTLED, Basis.OUTCOME_UNKNOWN, self.hold.nanos, reason=reason))

    def lost(self, reader: StreamReader | None) -> None:
        """The garbage collector found the stream: end the hold in the thread behind."""
        if self._is_over:
            return

        def finish() -> Finish | None:
            return self._finish(_left(self.terms, reader, self.meter.clock.now(), "the stream was abandoned"))

        self.meter.settler.later(finish)

    def _finish(self, settlement: Settlement) -> Finish | None:
        if self._is_over:
            return None
        self._is_over = True
        terms, meter, usage = self.terms, self.meter, settlement.usage
        route = price = None
        if usage is not None and usage.model is not None and usage.model != terms.model:
            route = route_body(terms.provider, terms.model, usage.model, terms.intent.operation)
        if settlement.price is not None and settlement.price is not terms.price:
            price = meter.price_body(settlement.price)
        ending = Ending(
            settlement.status,
            settlement.basis,
            settlement.cost_nanos,
            usage,
            first_byte_at=self._first_byte_at,
            http_status=self.status or None,
            reason=settlement.reason,
        )
        return Finish(self.hold, ending, route, price)


class StreamTap:
    """Reads the usage of a stream; see `steps.Tap`. A defect of ours never breaks the caller's stream."""

    def __init__(self, ticket: Ticket, reader: StreamReader) -> None:
        self._ticket = ticket
        self._reader = reader

    def feed(self, chunk: bytes) -> bytes:
        """See `steps.Tap`."""
        return self._reader.feed(chunk)

    def end(self) -> bytes:
        """See `steps.Tap`."""
        rest = self._reader.end()
        try:
            self._ticket.end(_ended(self._ticket, self._reader))
        except AccountingBroken:
            raise
        except Exception as error:  # noqa: BLE001 - the request shell: the answer goes on, the hold ends
            self._ticket.defect(error)
        return rest

    def broke(self, error: BaseException) -> None:
        """See `steps.Tap`."""
        self._ticket.raised(error, Failure.STREAM_CUT, self._reader)

    def closed(self) -> None:
        """See `steps.Tap`."""
        ticket = self._ticket
        ticket.end(_left(ticket.terms, self._reader, ticket.meter.clock.now(), "the stream was closed"))

    def lost(self) -> None:
        """See `steps.Tap`."""
        self._ticket.lost(self._reader)


class UnreadTap:
    """An answer that is not read (too large, or in an unknown encoding): its outcome is unknown."""

    def __init__(self, ticket: Ticket, reason: str) -> None:
        self._ticket = ticket
        self._reason = reason

    def feed(self, chunk: bytes) -> bytes:
        """See `steps.Tap`."""
        return chunk

    def end(self) -> bytes:
        """See `steps.Tap`."""
        self.closed()
        return b""

    def broke(self, error: BaseException) -> None:
        """See `steps.Tap`."""
        self._ticket.raised(error, Failure.BODY_CUT)

    def closed(self) -> None:
        """See `steps.Tap`."""
        self._ticket.fail(Failure.GARBAGE, self._reason)

    def lost(self) -> None:
        """See `steps.Tap`."""
        self._ticket.lost(None)


Steps = Generator[Step, Any, Outcome]


def exchange(meter: Meter, request: Outgoing, patience_s: float) -> Steps:
    """The steps of one attempt. `patience_s`: how long a transaction may block this thread (0 on an event loop)."""
    found = meter.find(request)
    if isinstance(found, Refusal):
        return Refused(found)
    if isinstance(found, Pass):
        return Streamed((yield Send(is_free=True)), None, ())
    body = yield ReadBody()
    plain = Request()
    plain.method, plain.path = request.method.encode(), request.target.encode("latin-1")
    plain.headers, plain.body = request.headers, body
    agreed = yield from _agree(meter, request, found, plain)
    if isinstance(agreed, Refusal):
        return Refused(agreed)
    placed = yield from _hold(meter, request, plain, found, agreed, patience_s)
    if isinstance(placed, Refusal):
        return Refused(placed)
    terms = agreed.terms
    if placed.is_clamped:
        terms = msgspec.structs.replace(terms, quote=with_output(terms.quote, placed.max_output_tokens))
        agreed = agreed._replace(terms=terms)
    ticket = Ticket(meter, agreed, placed, patience_s)
    try:
        sent_body, limit = _edited(found, agreed, plain, placed)
    except BaseException as error:
        ticket.raised(error, Failure.NOT_SENT)
        raise
    is_signed = request.header(b"authorization").startswith(_SIGNED)
    try:
        answer = yield Send(
            sent_body if sent_body is not body else None,
            () if is_signed else _IDENTITY,
            free_body(found.match) and request.method == "GET",
        )
    except BaseException as error:
        ticket.raised(error, Failure.NO_RESPONSE)
        raise
    ticket.answered(answer.status)
    told = (("x-outlay-request-id", id_text(ticket.hold.request_id)), *limit)
    return (yield from _take_answer(ticket, found, answer, told))


def _agree(
    meter: Meter, request: Outgoing, found: Found, plain: Request
) -> Generator[Step, Any, Agreed | Refusal]:
    """What the call may cost."""
    match, provider, snapshot = found.match, found.provider, meter.snapshot
    if found.rule is not None:
        fixed, _ = pass_terms(snapshot, provider, found.rule)
        return Agreed(fixed.terms, is_passed=True)
    operation = match.route.operation
    if match.route.metering is Metering.DEFERRED:
        job = yield from jobs.agree(meter, found, plain.body)
        return job if isinstance(job, Refusal) else Agreed(*job)
    if operation is Operation.FREE:
        return Agreed(
            free_terms(snapshot, provider, CallIntent(match.route.dialect, operation, "", 0, 0, None)).terms
        )
    intent = parse_call(match, plain)
    if isinstance(intent, Rejection):
        return Refusal(intent.status, intent.code, intent.message, {"param": intent.param})
    can_insert = not request.header(b"authorization").startswith(_SIGNED)
    terms = make_terms(snapshot, provider, intent.model, intent, meter.clock.now(), can_insert)
    if isinstance(terms, Refusal):
        return terms
    kept = JobBody(terms.model, tier=intent.service_tier or "") if intent.is_background else None
    return Agreed(terms, kept)


def _hold(  # noqa: PLR0917 - one call site, above
    meter: Meter, request: Outgoing, plain: Request, found: Found, agreed: Agreed, patience_s: float
) -> Generator[Step, Any, Placed | Refusal]:
    """Place the hold, waiting a bounded time for the file and for money that other calls hold."""
    terms, settings, run = agreed.terms, meter.settings, current_run()
    identity = meter.identity(found.provider, terms.model, run)
    if isinstance(identity, Refusal):
        return identity
    key, request_id, attempt = meter.attempt(request, plain.body)
    verdict = meter.judge(Asked(identity, terms, attempt == 1, _is_one_call(found, agreed)))
    if verdict.refusal is not None:
        return verdict.refusal
    is_counted = run is not None and found.match.route.metering is not Metering.FREE
    if run is not None and is_counted:
        refusal = run.enter(meter)
        if refusal is not None:
            return refusal
    order = Order(
        identity,
        meter.budgets,
        run.limits() if run is not None else (),
        terms.quote,
        settings.min_output_tokens,
        may_clamp(settings, terms.intent, verdict.clamp) and agreed.job is None and not agreed.is_passed,
        route_body(found.provider, terms.model, terms.model, terms.intent.operation),
        meter.price_body(terms.price),
        request_id,
        attempt,
    )
    result: Placed | Refusal | None = None
    try:
        meter.settler.prepare()
        result = yield from _place(meter, order, patience_s)
    finally:
        if run is not None and is_counted and not isinstance(result, Placed):
            run.leave()
    if isinstance(result, Placed):
        meter.attempted(key, result.hold.request_id, attempt)
    return result


def _place(meter: Meter, order: Order, patience_s: float) -> Generator[Step, Any, Placed | Refusal]:
    clock = meter.clock
    began, pause = clock.monotonic(), FIRST_PAUSE_MS
    wait_ns = meter.settings.wait_s * 1_000_000_000
    while True:
        waited = clock.monotonic() - began
        try:
            found = meter.ledger.place(order, patience_s)
        except StoreBusy as error:
            if waited >= STORE_WAIT_NS:
                return _down(error)
            yield Pause(pause)
            pause = min(2 * pause, LONGEST_PAUSE_MS)
            continue
        except StoreError as error:
            return _down(error)
        if isinstance(found, Placed):
            return found
        if not _is_busy(found) or waited >= wait_ns:
            return refusal_of(found, meter.settings, id_text(meter.ledger.new_id()), clock.now(), meter.key)
        yield Pause(pause)
        pause = min(2 * pause, LONGEST_PAUSE_MS)


def _is_one_call(found: Found, agreed: Agreed) -> bool:
    operation = agreed.terms.intent.operation
    if agreed.is_passed or operation is Operation.FREE:
        return False
    return found.match.route.metering is not Metering.DEFERRED or operation is Operation.FINE_TUNING


def _is_busy(denied: Denied) -> bool:
    return denied.reason is Reason.BUDGET_BUSY


def _down(error: StoreError) -> Refusal:
    return Refusal(
        error.http_status, error.code, f"The ledger cannot record this call now ({error}); nothing was sent."
    )


def _edited(
    found: Found, agreed: Agreed, plain: Request, placed: Placed
) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    """The body as it leaves, and what the caller is told of a limit that was put in."""
    intent = agreed.terms.intent
    if (
        agreed.is_passed
        or found.match.route.metering is Metering.DEFERRED
        or intent.operation is Operation.FREE
    ):
        return plain.body, ()
    is_default = intent.max_output_tokens is None and intent.operation in HAS_OUTPUT
    if plain.header(b"authorization").encode("latin-1").startswith(_SIGNED):
        return plain.body, ()
    edits = Edits(placed.max_output_tokens, is_default, placed.is_clamped)
    body = upstream_body(_Bound(found.provider, intent.model), intent, plain.body, edits, plain)
    if not (is_default or placed.is_clamped):
        return body, ()
    why = "clamped" if placed.is_clamped else "default"
    return body, (("x-outlay-output-limit", f"{placed.max_output_tokens} ({why})"),)


def _take_answer(ticket: Ticket, found: Found, answer: Any, told: tuple[tuple[str, str], ...]) -> Steps:
    """Settle by the answer: whole ones before the caller has them, streams as they end."""
    intent, route = ticket.terms.intent, found.match.route
    encoding = answer.header(b"content-encoding")
    is_plain = encoding in (b"", b"identity")
    reader: StreamReader | None = None
    if answer.status == 200:
        if intent.stream:
            reader = open_stream(intent, answer.headers)
        if reader is None and is_opaque(route):
            reader = OpaqueStream()
    if reader is not None:
        if is_plain or isinstance(reader, OpaqueStream):
            return Streamed(answer, StreamTap(ticket, reader), told)
        return Streamed(answer, UnreadTap(ticket, "the stream is encoded"), told)
    try:
        read = yield ReadAll(answer, ticket.meter.settings.max_response_bytes)
    except BaseException as error:
        ticket.raised(error, Failure.BODY_CUT if answer.status < 300 else Failure.REJECTED)
        raise
    if read.rest is not None:
        return Streamed(answer, UnreadTap(ticket, "the answer is larger than max_response_bytes"), told, read)
    cost = 0
    try:
        body = read.body if is_plain else _decoded(read.body, encoding)
        cost = yield from _settle_whole(ticket, found, answer.status, body)
    except AccountingBroken:
        raise
    except Exception as error:  # noqa: BLE001 - the request shell: the answer goes on, the hold ends
        ticket.defect(error)
    return Whole(answer, read.body, (*told, ("x-outlay-cost-usd", format_usd(cost))))


def _settle_whole(ticket: Ticket, found: Found, status: int, body: bytes) -> Generator[Step, Any, int]:
    agreed, meter = ticket.agreed, ticket.meter
    now = meter.clock.now()
    if agreed.job is not None and status < 300:
        kind = KINDS[ticket.terms.intent.operation]
        job = read_job(kind, body)
        if job is not None and job.id and not (kind == "response" and job.is_over):
            row = JobRow(
                ticket.hold.id,
                kind,
                found.provider.name,
                job.id,
                msgspec.json.encode(agreed.job).decode(),
                now,
            )
            yield from jobs.keep(meter, row)
            ticket.keep()
            return 0
    if agreed.is_passed:
        elapsed = meter.clock.monotonic() - ticket.sent_at
        return ticket.end(settle_timed(ticket.terms, status, -(-elapsed // 1_000_000), now))
    cost = ticket.end(settle_answer(ticket.terms, status, body, now))
    if found.match.resource and found.match.route.operation is Operation.FREE and status == 200:
        yield from jobs.looked_at(meter, found, body)
    return cost


def _ended(ticket: Ticket, reader: StreamReader) -> Settlement:
    return settle_stream(ticket.terms, reader, ticket.meter.clock.now())


def _left(terms: Terms, reader: StreamReader | None, now: Any, reason: str) -> Settlement:
    """Of a stream whose reader stopped: SDKs stop at the end mark, before the stream itself ends."""
    if terms.intent.operation is Operation.FREE:
        return settle_stream(terms, OpaqueStream(), now)
    if reader is not None and reader.is_done:
        return settle_stream(terms, reader, now)
    return settle_failure(terms, Failure.CLIENT_GONE, reader, now, reason)


def _decoded(body: bytes, encoding: bytes) -> bytes:
    """A body in an encoding that was not asked for; other encodings stay as they are, and so unreadable."""
    if encoding in (b"gzip", b"deflate"):
        return zlib.decompress(body, 47)
    return body
