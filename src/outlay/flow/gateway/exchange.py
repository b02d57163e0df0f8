"""One request from its last byte to its settled charge: the shell around `flow.lifecycle`.

Decides nothing about money itself: `lookup` bounds and prices, `authorize` and the books admit, `lifecycle` says
what an event means, `settlement` says what it cost. Here are the bytes, the order, and the promise that the
provider's usage is read before its bytes are forwarded.
"""

from typing import TYPE_CHECKING

from outlay.flow.accounts import Account
from outlay.flow.authorize import Denied, Reason, authorize
from outlay.flow.gateway.caller import Caller
from outlay.flow.gateway.client import BadRequest, ClientConnection, Request, decoded
from outlay.flow.gateway.dialects import FAST_ROUTES, HAS_OUTPUT, PARSERS, open_stream, read_answer
from outlay.flow.gateway.forward import Edits, answer_head, cost_head, refusal_head, upstream_request
from outlay.flow.gateway.quoting import make_terms, may_clamp
from outlay.flow.gateway.refusal import Refusal, refusal_of
from outlay.flow.gateway.settlement import Settlement, Terms, settle_failure, settle_silent, settle_usage
from outlay.flow.gateway.snapshot import OnClientGone, Snapshot
from outlay.flow.gateway.upstream import UpstreamConnection
from outlay.flow.ledger.books import Basis, Ending, Hold, Status
from outlay.flow.lifecycle import Command, Event, State, step
from outlay.flow.outcome import Failure, failure_of_status
from outlay.flow.waiting import Waiter
from outlay.kernel.clock import UnixNanos
from outlay.kernel.errors import AccountingBroken, StoreError
from outlay.kernel.ids import id_text
from outlay.lookup.cost import Quote, with_output
from outlay.wire.intent import CallIntent, Dialect, Rejection
from outlay.wire.refusal import error_body, stream_error_event
from outlay.wire.stream import StreamReader

if TYPE_CHECKING:
    from outlay.flow.gateway.server import Entry, Gateway

_EVENT_STREAM = b"text/event-stream"
FEW = 2
"""Calls in flight up to which a hold is committed at once instead of at the end of the loop's turn."""
_AS_RECEIVED = Edits(0, False, False)


class Exchange:
    """See the module."""

    intent: CallIntent
    _entry: "Entry"
    _terms: Terms
    _quote: Quote
    _hold: Hold
    _caller: Caller
    _body: bytes

    # no __slots__: defaults that most calls never touch cost nothing here
    state = State.HOLDING
    _dialect = Dialect.OPENAI
    _waiter: Waiter | None = None
    _upstream: UpstreamConnection | None = None
    _reader: StreamReader | None = None
    _answer_bytes = 0
    _answer_headers: list[tuple[bytes, bytes]]
    _status = 0
    _has_head = False
    _is_clamped = False
    _has_hold = False
    _first_byte_at: int | None = None
    _deadline = 0

    def __init__(self, gateway: "Gateway", client: ClientConnection, request: Request) -> None:
        self._gateway = gateway
        self._snapshot: Snapshot = gateway.snapshot
        self._client: ClientConnection | None = client
        self._request = request
        self._now_ns = gateway.clock.now()
        self.id = gateway.ids.make(self._now_ns)
        self._parts: list[bytes] = []

    # -- before anything is held ------------------------------------------------------------------------------

    def begin(self) -> None:
        """Take the request as far as it goes without waiting."""
        request = self._request
        path = request.path
        if b"?" in path:
            path = path.partition(b"?")[0]
        route = FAST_ROUTES.get((request.method, path))
        if route is None:
            self._gateway.answer_other(self, request)
            return
        self._dialect, operation = route
        client = self._client
        memo = None if client is None else self._gateway.memo(client, request)
        now = self._now_ns
        if memo is None or memo.key.expires_at <= now:
            key = None if memo is None else memo.key
            self.refuse(self._gateway.unauthorized(Caller(request.headers).secret, key))
            return
        if request.encoding:
            try:
                request.body = decoded(request.body, request.encoding, self._snapshot.settings)
            except BadRequest as error:
                self.refuse(Refusal(error.status, error.code, error.message))
                return
        intent = PARSERS[operation](request.body)
        if isinstance(intent, Rejection):
            self.refuse(Refusal(intent.status, intent.code, intent.message, {"param": intent.param}))
            return
        self.intent = intent
        self._caller = memo.caller
        entry = self._gateway.entry(memo, self._dialect, intent)
        if isinstance(entry, Refusal):
            self.refuse(entry)
            return
        self._entry = entry
        self._quote_and_place(now)

    def _quote_and_place(self, now: UnixNanos) -> None:
        entry = self._entry
        terms = make_terms(self._snapshot, entry.provider, entry.model, self.intent, now)
        if isinstance(terms, Refusal):
            self.refuse(terms)
            return
        self._terms = terms
        self._quote = quote = terms.quote
        gateway = self._gateway
        room = gateway.room
        if room.count:
            for account in entry.current(now).accounts:
                if account.waiting and room.must_queue(account, quote.total_nanos, gateway.clock.monotonic()):
                    self._wait(account, quote.total_nanos)
                    return
        if not self._place(quote, now):
            blocked = self._decide()
            if blocked is not None:
                self._wait(*blocked)
        elif len(gateway.exchanges) <= FEW:
            # nobody to share a commit with: a turn of the loop would only be waited for
            gateway.books.flush()

    def _place(self, quote: Quote, now: int) -> bool:
        entry = self._entry
        hold = self._gateway.books.place(
            entry.current(now),
            quote.total_nanos,
            self.id,
            1,
            entry.route_id,
            self._gateway.price_id(self._terms.price),
            self._on_durable,
            now,
        )
        if hold is None:
            return False
        self._hold = hold
        self._has_hold = True
        client = self._client
        if client is not None:
            client.answering = self
        self._gateway.exchanges.add(self)
        return True

    def _decide(self) -> tuple[Account, int] | None:
        """Place the hold, or refuse; or say which account blocks and how much is needed there."""
        settings = self._snapshot.settings
        now = self._gateway.clock.now()
        accounts = self._entry.current(now).accounts
        quote = self._terms.quote
        decision = authorize(accounts, quote, settings.min_output_tokens, may_clamp(settings, self.intent))
        if isinstance(decision, Denied):
            if decision.reason is Reason.BUDGET_BUSY:
                return decision.account, decision.needed_nanos
            self._deny(decision)
            return None
        if decision.is_clamped:
            quote = with_output(quote, decision.max_output_tokens)
            self._is_clamped = True
            terms = self._terms
            self._terms = Terms(terms.provider, terms.model, terms.intent, terms.price, quote, terms.book)
            self._quote = quote
        if not self._place(quote, now):
            raise AssertionError("a decision that admits must fit")
        return None

    def _deny(self, denied: Denied) -> None:
        gateway = self._gateway
        self.refuse(refusal_of(denied, self._snapshot.settings, id_text(self.id), gateway.clock.now()))

    # -- waiting for money --------------------------------------------------------------------------------------

    def _wait(self, account: Account, needed: int) -> None:
        gateway = self._gateway
        now = gateway.clock.monotonic()
        deadline = now + self._snapshot.settings.wait_s * 1_000_000_000
        waiter = Waiter(self._retry, self._on_wait_over, len(self._request.body), now, deadline)
        if not gateway.room.join(waiter, account, needed):
            self._busy(account, needed)
            return
        self._waiter = waiter
        if self._client is not None:
            self._client.answering = self

    def _retry(self) -> tuple[Account, int] | None:
        """`_decide` for the waiting room: a defect in one call's decision must not cost the others their place."""
        try:
            return self._decide()
        except AccountingBroken:
            raise
        except Exception as error:  # noqa: BLE001 - the request shell: whatever went wrong, the hold ends
            self.fail(error)
            return None

    def _on_wait_over(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and waiter.account is not None:
            self._busy(waiter.account, waiter.needed)

    def _busy(self, account: Account, needed: int) -> None:
        self._deny(Denied(Reason.BUDGET_BUSY, account, needed, account.cap, account.spent, account.held))

    # -- events -------------------------------------------------------------------------------------------------

    def _on(self, event: Event, failure: Failure | None = None, reason: str = "") -> Command:
        """One step of the lifecycle; ends the hold when it says so."""
        before = self.state
        self.state, command = step(before, event)
        if command is Command.VOID:
            self._end(settle_failure(self._terms, Failure.NOT_SENT, None, self._now(), reason))
        elif command is Command.SETTLE_FAILURE:
            self._end(
                settle_failure(self._terms, failure or self._where(before), self._reader, self._now(), reason)
            )
        return command

    def _on_durable(self, hold: Hold, error: StoreError | None) -> None:
        if error is not None:
            if self._on(Event.HOLD_FAILED) is Command.REFUSE:
                self.refuse(
                    Refusal(
                        error.http_status,
                        error.code,
                        "The ledger cannot record this call now; nothing was sent.",
                    )
                )
            self._finish()
            return
        self._waiter = None
        if self._on(Event.HOLD_DURABLE) is not Command.SEND:
            self._finish()
            return
        try:
            self._entry.pool.acquire(self)
        except AccountingBroken:
            raise
        except Exception as fault:  # noqa: BLE001 - the request shell: whatever went wrong, the hold ends
            self.fail(fault)
            self._finish()

    def on_upstream_ready(self, connection: UpstreamConnection) -> None:
        """See `upstream.Call`."""
        if self.state is not State.SENDING:
            self._entry.pool.give_back(connection)
            return
        try:
            data = upstream_request(
                self._entry, self.intent, self._request, self._caller.forwarded, self._edits(), self.id
            )
        except Exception as error:  # noqa: BLE001 - the request shell: whatever went wrong, the hold ends
            self._entry.pool.give_back(connection)
            self.fail(error)
            self._finish()
            return
        self._upstream = connection
        self.state, _ = step(State.SENDING, Event.REQUEST_SENT)
        self._gateway.metrics.sent(self._gateway.clock.monotonic() - self._request.received_at)
        connection.send(self, data)

    def on_upstream_failed(self, reason: str) -> None:
        """See `upstream.Call`."""
        self._upstream = None
        self.on_answer_read()
        before = self.state
        command = self._on(Event.UPSTREAM_FAILED, None, reason)
        if command in (Command.VOID, Command.SETTLE_FAILURE):
            self._answer_failure(before, reason)
            self._finish()

    def on_answer_started(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """See `upstream.Call`."""
        self.state, _ = step(self.state, Event.RESPONSE_STARTED)
        self._status = status
        self._answer_headers = headers
        self._first_byte_at = self._now()
        if self.intent.stream and status == 200:
            for name, value in headers:
                if name == b"content-type" and value[:17].lower() == _EVENT_STREAM:
                    self._reader = open_stream(self.intent)
                    client = self._client
                    if client is not None:
                        client.begin_stream(status, self._head())
                        self._has_head = True
                    return

    def on_answer_data(self, data: bytes) -> None:
        """See `upstream.Call`."""
        self._parts.append(data)
        if self._reader is not None:
            return
        self._answer_bytes += len(data)
        if self._answer_bytes > self._snapshot.settings.max_response_bytes:
            upstream = self._upstream
            if upstream is not None:
                upstream.abort()
            self.on_upstream_failed("the answer is larger than max_response_bytes")

    def on_answer_read(self) -> None:
        """See `upstream.Call`."""
        if self._reader is not None:
            out = self._read_stream(self._reader)
            client = self._client
            if client is not None and self._has_head:
                client.write_part(out)

    def _read_stream(self, reader: StreamReader) -> bytes:
        """Read what came together, usage first; what of it goes on."""
        parts = self._parts
        if not parts:
            return b""
        self._parts = []
        return reader.feed(parts[0] if len(parts) == 1 else b"".join(parts))

    def on_answer_ended(self) -> None:
        """See `upstream.Call`."""
        self._upstream = None
        self.state, command = step(self.state, Event.RESPONSE_ENDED)
        if command is not Command.SETTLE_ANSWER:
            return
        try:
            if self._reader is not None:
                self._end_stream(self._reader)
            else:
                self._end_whole()
        except AccountingBroken:
            raise
        except Exception as error:  # noqa: BLE001 - the request shell: whatever went wrong, the hold ends
            self.fail(error)
        self._finish()

    def on_client_gone(self) -> None:
        """See `client.Answering`: the hold lives on until the provider's outcome is known."""
        self._client = None
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._gateway.room.leave(waiter)
            if not self._has_hold:
                return
        before = self.state
        command = self._on(Event.CLIENT_GONE)
        if command is Command.VOID:
            self._entry.pool.cancel(self)
            self._finish()
        elif command is Command.DRAIN_OR_CANCEL:
            is_stream = before is State.ANSWERING and self._reader is not None
            if self._entry.provider.on_client_gone is OnClientGone.CANCEL and is_stream:
                self.kill(Failure.CLIENT_GONE, "the client left")
            else:
                seconds = self._snapshot.settings.drain_timeout_s
                self._deadline = self._gateway.clock.monotonic() + seconds * 1_000_000_000
                if self._upstream is not None and self._upstream.is_open:
                    self._upstream.transport.resume_reading()

    def on_client_writable(self, is_writable: bool) -> None:
        """See `client.Answering`: back-pressure."""
        upstream = self._upstream
        if upstream is not None and upstream.is_open:
            if is_writable:
                upstream.transport.resume_reading()
            else:
                upstream.transport.pause_reading()

    def fail(self, error: Exception) -> None:
        """Something of ours is broken: end the hold (void if no byte left, else unknown), tell client and operator."""
        self._gateway.on_fault(error, id_text(self.id))
        if self._has_hold and not self._hold.is_ended:
            reason = f"internal error: {type(error).__name__}"
            if self.state is State.SENDING:
                settlement = Settlement(Status.VOID, Basis.VOID, 0, reason=reason)
            else:
                held = self._terms.quote.total_nanos
                settlement = Settlement(Status.SETTLED, Basis.OUTCOME_UNKNOWN, held, reason=reason)
            self._end(settlement)
        client = self._client
        if client is not None:
            text = "Outlay failed on this call; it is logged."
            if self._has_head:
                client.end_stream(stream_error_event(self._dialect, "internal_error", text, {}, status=500))
            else:
                self.refuse(Refusal(500, "internal_error", text))

    def kill(self, failure: Failure | None, reason: str) -> None:
        """End this exchange now: cut the stream, close the upstream, settle by the table."""
        before = self.state
        command = self._on(Event.KILL_ORDERED, failure, reason)
        if command is Command.VOID:
            self._entry.pool.cancel(self)
        if command in (Command.VOID, Command.SETTLE_FAILURE):
            upstream, self._upstream = self._upstream, None
            if upstream is not None:
                upstream.abort()
            self._answer_failure(before, reason)
            self._finish()

    def overdue(self, now: int) -> None:
        """Time limits of the upstream's side; monotonic ns."""
        upstream = self._upstream
        if upstream is None:
            return
        provider = self._entry.provider
        quiet_s = (now - upstream.quiet_since) // 1_000_000_000
        if self.state is State.DRAINING and now >= self._deadline:
            self.kill(Failure.CLIENT_GONE, "the answer took longer than drain_timeout_s")
        elif self._status == 0 and quiet_s >= provider.first_byte_timeout_s:
            upstream.abort()
            self.on_upstream_failed("the provider did not answer in time")
        elif (
            self._status
            and quiet_s >= provider.idle_timeout_s
            and (self._client is None or self._client.can_write)
        ):
            upstream.abort()
            self.on_upstream_failed("the provider's answer stopped in the middle")

    # -- ends ---------------------------------------------------------------------------------------------------

    def _end_whole(self) -> None:
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        settlement = self._settlement_of(body)
        self._end(settlement)
        client = self._client
        if client is not None:
            head = self._head() + cost_head(self._entry.chain, self._entry.visible, settlement.cost_nanos)
            client.write_whole(self._status, head, body)

    def _settlement_of(self, body: bytes) -> Settlement:
        now = self._now()
        status = self._status
        if status >= 300 or status == 204:
            stated = read_answer(self._dialect, self.intent.operation, body).usage
            if stated is not None and stated.input_tokens + stated.output_tokens > 0:
                # an error that states what it used was billed, whatever the table says of errors
                return settle_usage(self._terms, stated, now)
            return settle_failure(self._terms, failure_of_status(status), None, now, f"status {status}")
        answer = read_answer(self._dialect, self.intent.operation, body)
        if answer.usage is not None:
            return settle_usage(self._terms, answer.usage, now)
        if answer.is_error:
            return settle_failure(self._terms, Failure.GARBAGE, None, now, "an error object with status 200")
        if answer.response_id is None and answer.finish_reason is None:
            return settle_failure(
                self._terms, Failure.GARBAGE, None, now, "the body is not a readable answer"
            )
        return settle_silent(self._terms, answer.output_bytes, "the answer does not state its usage")

    def _end_stream(self, reader: StreamReader) -> None:
        last = self._read_stream(reader) + reader.end()
        now = self._now()
        terms = self._terms
        is_whole = reader.is_done or (reader.finish_reason is not None and not reader.error_seen)
        if reader.usage is not None and (reader.usage_is_final or reader.is_done):
            settlement = settle_usage(terms, reader.usage, now)
        elif is_whole and not reader.error_seen:
            settlement = settle_silent(terms, reader.output_bytes, "the stream does not state its usage")
        else:
            settlement = settle_failure(terms, Failure.STREAM_CUT, reader, now, "the stream ended early")
        self._end(settlement)
        client = self._client
        if client is not None:
            client.end_stream(last)

    def _answer_failure(self, before: State, reason: str) -> None:
        client = self._client
        if client is None:
            return
        if self._has_head:
            text = f"The provider's answer broke off: {reason}."
            client.end_stream(stream_error_event(self._dialect, "upstream_failed", text, {}, status=502))
            return
        is_late = "in time" in reason
        code = "upstream_timeout" if is_late else "upstream_failed"
        if before is State.SENDING:
            code = "upstream_unreachable"
        self.refuse(Refusal(504 if is_late else 502, code, f"The provider failed: {reason}."))

    def _end(self, settlement: Settlement) -> None:
        """End the hold, with the route and price as served."""
        gateway, hold = self._gateway, self._hold
        usage, price = settlement.usage, settlement.price
        route_id = price_id = None
        if usage is not None and usage.model is not None and usage.model != self._entry.model:
            route_id = gateway.route_id(self._entry, usage.model)
        if price is not None and price is not self._terms.price:
            price_id = gateway.price_id(price)
        gateway.books.end(
            hold,
            Ending(
                settlement.status,
                settlement.basis,
                settlement.cost_nanos,
                usage,
                route_id,
                price_id,
                self._first_byte_at,
                self._status or None,
                settlement.reason,
            ),
        )
        gateway.metrics.settled(self._entry, settlement, hold.nanos)

    def _finish(self) -> None:
        self.state = State.ENDED
        self._gateway.exchanges.discard(self)
        self._upstream = None
        self._client = None

    def _where(self, before: State) -> Failure:
        if before in (State.SENT, State.SENDING) or self._status == 0:
            return Failure.NO_RESPONSE
        if self._status >= 300:
            return failure_of_status(self._status)
        return Failure.STREAM_CUT if self._reader is not None else Failure.BODY_CUT

    def _now(self) -> UnixNanos:
        return self._gateway.clock.now()

    # -- bytes --------------------------------------------------------------------------------------------------

    def refuse(self, refusal: Refusal) -> None:
        """Answer with an error of our own, in the vendor's shape."""
        self._gateway.metrics.refused(refusal.code)
        client = self._client
        if client is None:
            return
        body = error_body(
            self._dialect, refusal.status, refusal.code, refusal.message, refusal.fields, id_text(self.id)
        )
        client.write_whole(refusal.status, refusal_head(self.id, refusal), body)

    def answer_whole(self, status: int, body: bytes) -> None:
        """Answer with JSON of our own."""
        if self._client is not None:
            head = (
                b"content-type: application/json\r\nx-outlay-request-id: "
                + id_text(self.id).encode()
                + b"\r\n"
            )
            self._client.write_whole(status, head, body)

    def _edits(self) -> Edits:
        is_default = self.intent.max_output_tokens is None and self.intent.operation in HAS_OUTPUT
        if not (is_default or self._is_clamped):
            return _AS_RECEIVED
        return Edits(self._quote.max_output_tokens, is_default, self._is_clamped)

    def _head(self) -> bytes:
        return answer_head(self._answer_headers, self.id, self._edits())
