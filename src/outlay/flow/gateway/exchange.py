"""One request from its last byte to its settled charges: the shell around `flow.lifecycle`.

Decides nothing about money itself: `lookup` bounds and prices, `authorize` and the books admit, `lifecycle` says
what an event means, `settlement` says what it cost, `attempts` says which target is next. Here are the bytes, the
order, and the promise that the provider's usage is read before its bytes are forwarded. Each attempt has a hold and
a charge of its own; until the client has been told something, a failed one may be followed by another.
"""

from outlay.flow.gateway.attempts import RETRYABLE
from outlay.flow.gateway.dialects import (
    HAS_OUTPUT,
    OpaqueStream,
    header_usage,
    is_opaque,
    open_stream,
    read_answer,
)
from outlay.flow.gateway.forward import (
    Edits,
    answer_head,
    cost_head,
    header_text,
    refusal_head,
    upstream_request,
)
from outlay.flow.gateway.growing import Growing
from outlay.flow.gateway.refusal import Refusal, run_barred, with_link
from outlay.flow.gateway.settlement import (
    Settlement,
    settle_answer,
    settle_failure,
    settle_stream,
    settle_timed,
    settle_usage,
)
from outlay.flow.gateway.snapshot import OnClientGone, Progressive
from outlay.flow.gateway.upstream import UpstreamConnection
from outlay.flow.ledger.charge import Basis, Ending, Hold, Status
from outlay.flow.lifecycle import Command, Event, State, step
from outlay.flow.outcome import Failure, failure_of_status
from outlay.kernel.clock import UnixNanos
from outlay.kernel.errors import AccountingBroken, StoreError
from outlay.kernel.ids import id_text
from outlay.wire.intent import Operation
from outlay.wire.refusal import error_body, stream_error_event
from outlay.wire.stream import StreamReader

_TRACKED = frozenset(
    {Operation.FREE, Operation.BATCH, Operation.MESSAGE_BATCH, Operation.FINE_TUNING, Operation.RESPONSES}
)
"""Operations whose answers may make or list objects that belong to somebody."""
_SPECIAL = frozenset({Operation.INVOKE, Operation.PASSTHROUGH})
"""Operations whose cost the answer's body alone does not tell."""
_UNSURE = frozenset({Basis.OUTCOME_UNKNOWN, Basis.COUNTED})
_AS_RECEIVED = Edits(0, False, False)


class Exchange(Growing):
    """See the module."""

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
            if self._plan is not None:
                now = self._gateway.clock.monotonic()
                self._gateway.health.end(self._entry.label, False, now, self._snapshot.settings)
            if self._on(Event.HOLD_FAILED) is Command.REFUSE:
                self.refuse(_ledger_down(error))
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
            passage, request = self._passage, self._request
            data = upstream_request(
                self._entry,
                self._sent,
                request,
                request.body if passage is None else passage.body,
                self._caller.forwarded if passage is None else passage.forwarded,
                self._edits(),
                self.id,
                self._entry.sign,
            )
        except Exception as error:  # noqa: BLE001 - the request shell: whatever went wrong, the hold ends
            self._entry.pool.give_back(connection)
            self.fail(error)
            self._finish()
            return
        self._upstream = connection
        self._sent_at = self._gateway.clock.monotonic()
        self.state, _ = step(State.SENDING, Event.REQUEST_SENT)
        self._gateway.metrics.sent(self._sent_at - self._request.received_at)
        connection.send(self, data)

    def on_upstream_failed(self, reason: str) -> None:
        """See `upstream.Call`."""
        self._upstream = None
        self.on_answer_read()
        before = self.state
        command = self._on(Event.UPSTREAM_FAILED, None, reason)
        if command in (Command.VOID, Command.SETTLE_FAILURE):
            self._answer_failure(before, reason)

    def on_answer_started(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """See `upstream.Call`."""
        self.state, _ = step(self.state, Event.RESPONSE_STARTED)
        self._status = status
        self._answer_headers = headers
        self._first_byte_at = self._now()
        if status != 200:
            return
        sent = self._sent
        if sent.stream:
            self._reader = open_stream(sent, headers)
        if self._reader is None and is_opaque(self.match.route):
            self._reader = OpaqueStream()
        client = self._client
        if self._reader is not None and client is not None:
            client.begin_stream(status, self._head())
            self._has_head = True

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
            if self._progress is not None and not self._may_pass(self._progress, self._reader, out):
                return
            if client is not None and self._has_head:
                client.write_part(out)

    def _read_stream(self, reader: StreamReader) -> bytes:
        """Read what came together, usage first; what of it goes on."""
        parts = self._parts
        if not parts:
            return b""
        self._parts = []
        data = reader.feed(parts[0] if len(parts) == 1 else b"".join(parts))
        passage = self._passage
        return data if passage is None else passage.feed(data)

    def on_answer_ended(self) -> None:
        """See `upstream.Call`."""
        self._upstream = None
        self.state, command = step(self.state, Event.RESPONSE_ENDED)
        if command is not Command.SETTLE_ANSWER:
            return
        try:
            if self._reader is not None:
                self._end_stream(self._reader)
            elif self._end_whole():
                return
        except AccountingBroken:
            raise
        except Exception as error:  # noqa: BLE001 - the request shell: whatever went wrong, the hold ends
            self.fail(error)
        self._finish()

    def on_client_gone(self) -> None:
        """See `client.Answering`: the hold lives on until the provider's outcome is known."""
        self._client = None
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
            self._finish()
            return
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
            if self._progress is not None:
                # what is not read is billed all the same, and could not be counted; its declared maximum bounds it
                return
            if is_writable:
                upstream.transport.resume_reading()
            else:
                upstream.transport.pause_reading()

    def fail(self, error: Exception) -> None:
        """Something of ours is broken: end the hold (void if no byte left, else unknown), tell client and operator.

        A store that cannot be asked before there is a hold is down, not broken.
        """
        told = Refusal(500, "internal_error", "Outlay failed on this call; it is logged.")
        if isinstance(error, StoreError) and not self._has_hold:
            told = _ledger_down(error)
        else:
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
            if self._has_head:
                self._end_begun(told)
            else:
                self.refuse(told)

    def kill(self, failure: Failure | None, reason: str, refusal: Refusal | None = None) -> None:
        """End this exchange now: cut the stream, close the upstream, settle by the table.

        `refusal` is what the client is told, if it is not that the provider failed.
        """
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
            self._failed = None if refusal is not None else self._failed
            self._give_up(refusal or Refusal(503, "stopped", f"Outlay stopped: {reason}."))
            self._finish()
            return
        before = self.state
        command = self._on(Event.KILL_ORDERED, failure, reason)
        if command is Command.VOID:
            self._entry.pool.cancel(self)
        if command in (Command.VOID, Command.SETTLE_FAILURE):
            self.close_upstream()
            self._plan = None
            self._answer_failure(before, reason, refusal)
        elif self.state is State.ABANDONED and refusal is not None:
            # the hold is on its way to the store, and is voided when it arrives
            self.refuse(refusal)
            self._client = None

    def close_upstream(self) -> None:
        """Close the provider's connection, before anything else is done for a kill."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.cut()

    def overdue(self, now: int) -> None:
        """Time limits of the upstream's side; monotonic ns."""
        over = self._run_over()
        if over is not None:
            self.kill(Failure.CLIENT_GONE, "its run expired", run_barred(over, "run_expired"))
            return
        upstream = self._upstream
        if upstream is None:
            return
        provider = self._entry.provider
        quiet_s = (now - upstream.quiet_since) // 1_000_000_000
        if self.state is State.DRAINING and now >= self._deadline:
            self.kill(Failure.CLIENT_GONE, "the answer took longer than drain_timeout_s")
        elif self._status == 0 and quiet_s >= provider.first_byte_timeout_s:
            upstream.abort()
            self.on_upstream_failed(_LATE)
        elif self.fixed is not None and self.fixed.max_seconds and self._is_past(now, self.fixed.max_seconds):
            self.kill(None, "the call took longer than the route's max_seconds")
        elif (
            self._status
            and quiet_s >= provider.idle_timeout_s
            and (self._client is None or self._client.can_write)
        ):
            upstream.abort()
            self.on_upstream_failed("the provider's answer stopped in the middle")

    def _is_past(self, now: int, seconds: int) -> bool:
        return now - self._sent_at >= seconds * 1_000_000_000

    # -- ends ---------------------------------------------------------------------------------------------------

    def _end_whole(self) -> bool:
        """Settle by the whole answer and pass it on; True if another attempt follows instead."""
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        status, fixed = self._status, self.fixed
        if self._sent.is_background and fixed is None:
            fixed = self._gateway.jobs.background(self._terms)
        job = fixed.accepted(status, body) if fixed is not None else None
        cost = 0
        if fixed is not None and job is not None:
            fixed.defer(self._hold, job, self.shadow)
        else:
            special = self._sent.operation in _SPECIAL
            at = self._now()
            settlement = (
                self._settlement(status, body) if special else settle_answer(self._terms, status, body, at)
            )
            cost = settlement.cost_nanos
            self._end(settlement)
        head = self._head() + cost_head(self._entry.chain, self._entry.visible, cost)
        passage, client = self._passage, self._client
        if passage is not None:
            status, body = passage.answer(status, body, id_text(self.id))
        if self.intent.operation in _TRACKED:
            here = self._request.own_address
            body = self._gateway.resources.seen(self.match, self.intent, self._entry, status, body, here)
            if self.match.resource and status == 200:
                self._gateway.jobs.hint(self._entry.provider.name, self.match.resource)
        if status in RETRYABLE and self._plan is not None and client is not None:
            self._failed = (status, head, body)
            self._plan.retry_after_ms = _retry_after_ms(self._answer_headers)
            if self._ask_next():
                return True
        if client is not None:
            client.write_whole(status, head, body)
        return False

    def _end_stream(self, reader: StreamReader) -> None:
        last = self._withheld + self._read_stream(reader)
        self._withheld = b""
        rest = reader.end()
        passage, client = self._passage, self._client
        if passage is not None:
            rest = passage.feed(rest) + passage.end()
        is_timed = self._sent.operation is Operation.PASSTHROUGH
        self._end(
            self._settlement(self._status, b"")
            if is_timed
            else settle_stream(self._terms, reader, self._now())
        )
        usage = reader.usage
        if self._entry.provider.progressive is not Progressive.OFF and usage is not None and reader.is_done:
            self._gateway.slices.learn(self._entry.model, self._memo.key.name, usage.output_tokens)
        if self.intent.operation is Operation.RESPONSES and not self._entry.translates:
            body = self._request.body
            if b'"store":false' not in body and b'"store": false' not in body:
                self._gateway.resources.own_stored(self._entry, reader.response_id)
        if client is not None:
            client.end_stream(last + rest)

    def _settlement(self, status: int, body: bytes) -> Settlement:
        operation = self._sent.operation
        if operation is Operation.INVOKE and status == 200 and read_answer(self._sent, body).usage is None:
            usage = header_usage(self._answer_headers)
            if usage is not None:
                return settle_usage(self._terms, usage, self._now())
        if operation is not Operation.PASSTHROUGH:
            return settle_answer(self._terms, status, body, self._now())
        elapsed = self._gateway.clock.monotonic() - self._sent_at
        return settle_timed(self._terms, status, -(-elapsed // 1_000_000), self._now())

    def _answer_failure(self, before: State, reason: str, told: Refusal | None = None) -> None:
        """Tell the client of a failed attempt (or what it is `told` instead), or begin another."""
        client = self._client
        if client is None:
            self._finish()
            return
        if self._has_head:
            if told is None:
                self._break_off(reason)
            else:
                self._end_begun(told)
            self._finish()
            return
        if told is not None:
            self.refuse(told)
            self._finish()
            return
        is_late = reason == _LATE or "in time" in reason
        code = "upstream_timeout" if is_late else "upstream_failed"
        if before is State.SENDING:
            code = "upstream_unreachable"
        refusal = Refusal(504 if is_late else 502, code, f"The provider failed: {reason}.")
        if self._plan is None or not self._ask_next(refusal):
            self.refuse(refusal)
            self._finish()

    def _end_begun(self, told: Refusal) -> None:
        """End a stream that has begun so that no client takes it for whole."""
        client, passage, reader = self._client, self._passage, self._reader
        if client is None:
            return
        if passage is not None:
            client.end_stream(passage.fail(told.status, told.code, told.message))
            return
        operation = self.intent.operation
        event = stream_error_event(
            self.dialect, told.code, told.message, told.fields, status=told.status, operation=operation
        )
        if reader is not None and reader.is_between_events:
            client.end_stream(event)
        else:
            client.break_off(event)

    def _break_off(self, reason: str) -> None:
        """The provider's side of a begun stream broke off; if the answer had ended before, nothing is wrong with it."""
        client, passage, reader = self._client, self._passage, self._reader
        is_told = reader is not None and (reader.is_done or reader.error_seen) and reader.is_between_events
        if client is not None and is_told:
            client.end_stream(b"" if passage is None else passage.end())
        else:
            self._end_begun(Refusal(502, "upstream_failed", f"The provider's answer broke off: {reason}."))

    def _end(self, settlement: Settlement) -> None:
        """End the hold, with the route and price as served."""
        gateway, hold, entry = self._gateway, self._hold, self._entry
        usage, price, reason = settlement.usage, settlement.price, settlement.reason
        route_id = price_id = None
        try:
            if usage is not None and usage.model is not None and usage.model != entry.model:
                route_id = gateway.route_id(entry, usage.model)
            if price is not None and price is not self._terms.price:
                price_id = gateway.price_id(price)
        except StoreError:
            # what it cost is booked all the same; the hold's own route and price stand in the charge
            text = f"served as {(usage.model if usage else None)!r:.80}; the ledger could not be asked for its number"
            reason = text if reason is None else f"{text}; {reason}"
        if self.runaway:
            text = f"runaway: {self.runaway}"
            reason = text if reason is None else f"{text}; {reason}"
        if self.downgraded_from:
            text = f"downgraded from {self.downgraded_from}"
            reason = text if reason is None else f"{text}; {reason}"
        if self.shadow:
            reason = self.shadow if reason is None else f"{self.shadow}; {reason}"
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
                reason,
            ),
        )
        gateway.metrics.settled(entry.label, settlement, hold.nanos)
        identity = entry.chain.identity
        if identity.run:
            is_error = self._status >= 400 or settlement.basis in _UNSURE
            gateway.watching.ended(identity, settlement.cost_nanos, is_error=is_error)
        if self._paced:
            self._release(0 if usage is None else usage.input_tokens + usage.output_tokens)
        if self._plan is not None:
            broke = self._status in (0, 200) and settlement.basis in (*_UNSURE, Basis.VOID)
            is_failure = self._client is not None and (broke or self._status in RETRYABLE)
            gateway.health.end(entry.label, is_failure, gateway.clock.monotonic(), self._snapshot.settings)

    def _release(self, used_tokens: int) -> None:
        """The attempt counts no longer as in flight in rate limits."""
        paced, self._paced = self._paced, ()
        now = self._now()
        for limits in paced:
            limits.end(self._paced_tokens, used_tokens, now)

    def _finish(self) -> None:
        self.state = State.ENDED
        if self._paced:
            self._release(0)
        if self._progress is not None:
            self._progress.end()
            self._withheld = b""
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
        self._gateway.tally.refused(refusal, self.key, self.began_at)
        client = self._client
        if client is None:
            return
        own_id = id_text(self.id)
        fields = with_link(refusal.fields, own_id, is_known=own_id in self._gateway.refused_calls)
        body = error_body(self.dialect, refusal.status, refusal.code, refusal.message, fields, own_id)
        status = refusal.status_for(self._request.headers)
        client.write_whole(status, refusal_head(self.id, refusal, self.dialect), body)

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
        sent = self._sent
        is_default = sent.max_output_tokens is None and sent.operation in HAS_OUTPUT
        if not (is_default or self._is_clamped) or self._terms.intent.operation is Operation.FREE:
            return _AS_RECEIVED
        limit = self._quote.max_output_tokens if self._progress is None else self._progress.declared
        return Edits(limit, is_default, self._is_clamped)

    def _head(self) -> bytes:
        headers = (
            self._answer_headers if self._passage is None else self._passage.headers(self._reader is not None)
        )
        head = answer_head(headers, self.id, self._edits())
        if self.runaway:
            head += b"x-outlay-runaway: %b\r\n" % header_text(self.runaway)
        if self.downgraded_from:
            head += b"x-outlay-downgrade: %b -> %b\r\n" % (
                header_text(self.downgraded_from),
                header_text(self._entry.model),
            )
        return head


_LATE = "the provider did not answer in time"


def _retry_after_ms(headers: list[tuple[bytes, bytes]]) -> int:
    """What a refusal asks to wait, in ms; 0 if it does not say (a date is not taken)."""
    for name, value in headers:
        if name == b"retry-after" and value.isdigit() and len(value) <= 4:
            return int(value) * 1000
    return 0


def _ledger_down(error: StoreError) -> Refusal:
    return Refusal(error.http_status, error.code, "The ledger cannot record this call now; nothing was sent.")
