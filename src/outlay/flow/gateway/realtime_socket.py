"""OpenAI's realtime sessions: a WebSocket on both sides, metered response by response and cut at the cap.

No event that can start a response goes on before a hold covers its worst case: one hold is always spare, is taken by
the response that begins, and is settled by the usage in its `response.done`. When money for the next spare is missing
the client's events wait; when nothing runs any more and it is still missing, the session ends with the reason.
"""

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

import msgspec

from outlay.flow.authorize import Denied, authorize
from outlay.flow.gateway.client import Request
from outlay.flow.gateway.entries import Entry, Memo, ended, unknown_caller
from outlay.flow.gateway.fixed import free_terms
from outlay.flow.gateway.guard import token_bound
from outlay.flow.gateway.keys import KeySpec
from outlay.flow.gateway.ladders import ladder_pause
from outlay.flow.gateway.quoting import make_terms
from outlay.flow.gateway.realtime_upstream import UpstreamSocket, connect
from outlay.flow.gateway.refusal import Refusal, refusal_of, run_barred, stopped_by
from outlay.flow.gateway.settlement import Settlement, Terms, settle_failure, settle_usage
from outlay.flow.gateway.websocket import GOING_AWAY, POLICY, WebSocket
from outlay.flow.ledger.charge import Ending, Hold
from outlay.flow.orders import find_order
from outlay.flow.outcome import Failure
from outlay.flow.policy import PolicyMode
from outlay.flow.rates import RateLimits
from outlay.flow.scope import Identity
from outlay.flow.shadow import PREFIX, would_refuse
from outlay.kernel.clock import UnixNanos
from outlay.kernel.errors import AccountingBroken, StoreError
from outlay.kernel.ids import Id, id_text
from outlay.wire.fields import refuse_model
from outlay.wire.intent import Rejection
from outlay.wire.realtime import ServerEvent, read_client_event, read_server_event, response_intent
from outlay.wire.routes import EXACT

if TYPE_CHECKING:
    from outlay.flow.gateway.server import Gateway

MAX_PENDING: Final = 4096
"""Client events that wait for money or for the provider."""
DRAIN_S: Final = 30
"""How long a response that runs is read on when its client is gone."""
_HEARD: Final = "input_audio_buffer."
_SECOND: Final = 1_000_000_000


def begin_realtime(  # noqa: PLR0917 - one call site
    gateway: "Gateway", socket: WebSocket, request: Request, memo: Memo, rest: bytes, bad: Refusal
) -> Refusal | None:
    """Place the session's first hold and connect; a refusal if it does not fit (nothing was written then)."""
    query = parse_qs(request.path.partition(b"?")[2].decode("latin-1"))
    model = query.get("model", [""])[0]
    if not model:
        return Refusal(400, "missing_field", "`model` is missing in the query", {"param": "model"})
    bad_model = refuse_model(model)
    if bad_model is not None:
        return Refusal(bad_model.status, bad_model.code, bad_model.message, {"param": "model"})
    intent = response_intent(model, None)
    entries = gateway.entries(memo, EXACT["GET", "/v1/realtime"], intent)
    if isinstance(entries, Refusal):
        return entries
    entry = entries.targets[0]
    terms = make_terms(
        gateway.snapshot, entry.provider, entry.model, intent, gateway.clock.now(), can_insert=False
    )
    shadow = ""
    if isinstance(terms, Refusal) and gateway.is_shadow and terms.status == 422:
        shadow = f"{PREFIX}{terms.code}"
        terms = free_terms(gateway.snapshot, entry.provider, intent).terms
    if isinstance(terms, Refusal):
        return terms
    session = RealtimeSession(gateway, socket, entry, terms, memo, (request, rest, bad))
    session.shadow = shadow
    return session.begin()


class RealtimeSession:
    """See the module."""

    def __init__(  # noqa: PLR0917 - one call site
        self,
        gateway: "Gateway",
        socket: WebSocket,
        entry: Entry,
        terms: Terms,
        memo: Memo,
        handshake: tuple[Request, bytes, Refusal],
    ) -> None:
        self._gateway = gateway
        self._socket = socket
        self._entry = entry
        self._terms = terms
        self._memo = memo
        self.shadow = ""
        """Why enforcement would have refused the session, in shadow mode."""
        self._shadows: dict[Hold, str] = {}
        """The same of single responses."""
        self._handshake = handshake
        self._upstream: UpstreamSocket | None = None
        now = gateway.clock.now()
        self.id: Id = gateway.ids.make(now)
        self._attempt = 0
        self._placing: set[Hold] = set()
        """Holds on their way to the store."""
        self._paced: dict[Hold, tuple[RateLimits, ...]] = {}
        """Counters in which each hold counts until it has ended."""
        self._spare: list[Hold] = []
        self._reserved: deque[str | None] = deque()
        """Each `response.create` on its way, which will take a spare hold: the client's own name of it."""
        self._running: dict[str, Hold] = {}
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._stalled_since = 0
        """Monotonic ns since when the client does not read; 0: it does."""
        self._is_over = False
        self._deadline = 0
        self._task: asyncio.Task[None] | None = None
        socket.on_message = self._on_client
        socket.on_closed = self._on_client_closed
        socket.on_writable = self._on_writable

    def begin(self) -> Refusal | None:
        """Place the first hold; the rest follows when it is durable."""
        denied = self._place()
        if denied is not None:
            return denied
        self._gateway.sessions.add(self)
        return None

    # -- holds ------------------------------------------------------------------------------------------------

    def _hold(self, nanos: int, now: UnixNanos, *, is_begun: bool = False) -> Hold | None:
        gateway, entry = self._gateway, self._entry
        self._attempt += 1
        hold = gateway.books.place(
            entry.current(now),
            nanos,
            self.id,
            self._attempt,
            entry.route_id,
            gateway.price_id(self._terms.price),
            self._on_begun_durable if is_begun else self._on_durable,
            now,
            None if self._attempt == 1 else gateway.ids.make(now),
            is_begun=is_begun,
        )
        if hold is None:
            self._attempt -= 1
        return hold

    def _place(self) -> Refusal | None:
        """Place one more spare hold, or say why it does not fit."""
        gateway, quote = self._gateway, self._terms.quote
        now = gateway.clock.now()
        chain = self._entry.current(now)
        for run in chain.runs:
            code = run.bars(now)
            if code and not gateway.is_shadow:
                return run_barred(run, code)
        orders = gateway.snapshot.orders
        order = find_order(orders, self.identity, [run.name for run in chain.runs[1:]]) if orders else None
        refusal = self._guarded(now) if order is None else stopped_by(order, gateway.settings)
        if refusal is not None:
            gateway.metrics.refused(refusal.code)
            return refusal
        hold = self._hold(quote.total_nanos, now)
        if hold is not None:
            gateway.books.count_call(chain)
            self._pace(hold, now)
            self._placing.add(hold)
            if gateway.shadow_hard:
                would = would_refuse(self._entry.current(now).accounts, quote, gateway.shadow_hard)
                self._shadows |= {hold: would} if would else {}
            return None
        chain = self._entry.current(now)
        settings = gateway.settings
        decision = authorize(chain.accounts, quote, settings.min_output_tokens, False)
        if not isinstance(decision, Denied):
            raise AssertionError("a hold that does not fit is denied")
        gateway.metrics.refused(decision.reason.value)
        return refusal_of(decision, settings, id_text(self.id), now, self._entry.key)

    def _guarded(self, now: UnixNanos) -> Refusal | None:
        """What a policy refuses of one more response; one in shadow mode only leaves a mark."""
        guard = self._entry.guard
        if guard is None:
            return None
        paused = ladder_pause(self._gateway, self._entry, self.id, now)
        if paused is not None:
            return paused
        tokens = token_bound(self._terms.quote)
        for found in (
            guard.closed(now),
            guard.too_dear(self._terms, self._terms.quote),
            guard.too_fast(tokens, now, is_first=True),
        ):
            if found is None:
                continue
            refusal, mode = found
            if mode is PolicyMode.ENFORCE and not self._gateway.is_shadow:
                return refusal
            self.shadow = self.shadow or f"{PREFIX}{refusal.code}: {refusal.fields['policy']}"
        return None

    def _pace(self, hold: Hold, now: UnixNanos) -> None:
        """A response counts in rates from its hold on."""
        guard = self._entry.guard
        if guard is None or not guard.limits:
            return
        self._paced[hold] = limits = tuple(found for _, found in guard.limits)
        for found in limits:
            found.begin(token_bound(self._terms.quote), now, is_first=True)

    def _unpace(self, hold: Hold, used_tokens: int) -> None:
        now = self._gateway.clock.now()
        for limits in self._paced.pop(hold, ()):
            limits.end(token_bound(self._terms.quote), used_tokens, now)

    def _on_durable(self, hold: Hold, error: StoreError | None) -> None:
        self._placing.discard(hold)
        if error is not None:
            self._unpace(hold, 0)
            self._end_session("ledger_down", "The ledger cannot record this session now.")
            return
        self._spare.append(hold)
        if self._is_over:
            self._settle_all("the session is over")
        elif self._upstream is None and self._task is None:
            self._task = self._gateway.loop.create_task(self._connect())
        else:
            self._release()
            self._go_on()

    def _on_begun_durable(self, hold: Hold, error: StoreError | None) -> None:
        """A response that no hold covered has its row; without one nothing can be booked for it."""
        if error is not None:
            self._end_session("ledger_down", "The ledger cannot record this session now.")

    def _finish(self, hold: Hold, settlement: Settlement) -> None:
        gateway = self._gateway
        if hold.is_ended:
            return
        price_id = None
        shadow = self._shadows.pop(hold, "") or self.shadow
        reason = "; ".join(text for text in (shadow, settlement.reason) if text) or None
        if settlement.price is not None and settlement.price is not self._terms.price:
            with contextlib.suppress(StoreError):  # the hold's own price stands in the charge then
                price_id = gateway.price_id(settlement.price)
        ending = Ending(
            settlement.status,
            settlement.basis,
            settlement.cost_nanos,
            settlement.usage,
            None,
            price_id,
            None,
            200,
            reason,
        )
        gateway.books.end(hold, ending)
        usage = settlement.usage
        self._unpace(hold, 0 if usage is None else usage.input_tokens + usage.output_tokens)
        gateway.metrics.settled(self._entry.label, settlement, hold.nanos)

    def _settle_all(self, reason: str) -> None:
        """End every hold: what runs by the table, what is spare for nothing."""
        now = self._gateway.clock.now()
        running, self._running = self._running, {}
        for hold in running.values():
            self._finish(hold, settle_failure(self._terms, Failure.STREAM_CUT, None, now, reason))
        spare, self._spare = self._spare, []
        asked = len(self._reserved)
        self._reserved.clear()
        for hold in spare:
            # what was asked for and has not begun may be billed all the same
            failure = Failure.NO_RESPONSE if asked > 0 else Failure.NOT_SENT
            asked -= 1
            self._finish(hold, settle_failure(self._terms, failure, None, now, reason))

    # -- the provider's side ----------------------------------------------------------------------------------

    async def _connect(self) -> None:
        try:
            upstream = await connect(self._entry, self._gateway.settings.max_body_bytes)
        except (OSError, TimeoutError, ValueError) as error:
            self._refuse(502, "upstream_unreachable", f"The provider did not open a session: {error}.")
            return
        except Exception as error:  # noqa: BLE001 - the request shell: whatever went wrong, the hold ends
            self._gateway.on_fault(error, id_text(self.id))
            self._refuse(500, "internal_error", "Outlay failed on this session; it is logged.")
            return
        request, rest, bad = self._handshake
        self._upstream = upstream
        if self._is_over or not self._socket.open(request, rest):
            upstream.abort()
            self._refuse(bad.status, bad.code, bad.message)
            return
        upstream.on_message = self._on_server
        upstream.on_closed = self._on_server_closed
        upstream.start()

    def _refuse(self, status: int, code: str, message: str) -> None:
        """The session never began: an HTTP answer instead of a WebSocket."""
        self._settle_all(message)
        self._is_over = True
        self._gateway.sessions.discard(self)
        body = self._gateway.fault_body(b"/v1/realtime", status, code, message)
        head = b"HTTP/1.1 %d Error\r\ncontent-type: application/json\r\nconnection: close\r\n" % status
        if not self._socket.transport.is_closing():
            self._socket.transport.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))
            self._socket.transport.close()

    def _on_server(self, message: bytes) -> None:
        try:
            self._take_server(message)
        except AccountingBroken:
            raise
        except Exception as error:  # noqa: BLE001 - the request shell: whatever went wrong, the hold ends
            self._gateway.on_fault(error, id_text(self.id))
            self._end_session("internal_error", "Outlay failed on this session; it is logged.")

    def _take_server(self, message: bytes) -> None:
        event = read_server_event(message)
        if event.type == "response.created":
            self._begin_response(event.response_id or f"response-{self._attempt}")
        elif event.ends_response:
            now = self._gateway.clock.now()
            hold = self._running.pop(event.response_id or "", None)
            if hold is None and self._running:
                hold = self._running.pop(next(iter(self._running)))
            if hold is not None and event.usage is not None:
                self._finish(hold, settle_usage(self._terms, event.usage, now))
            elif hold is not None:
                text = f"the response is {event.status} and does not state its usage"
                self._finish(hold, settle_failure(self._terms, Failure.STREAM_CUT, None, now, text))
        elif event.is_error:
            self._take_back(event)
        self._socket.send(message)
        if self._deadline and not self._running and not self._reserved:
            self._close()
        elif event.ends_response:
            self._go_on()

    def _begin_response(self, response_id: str) -> None:
        if not self._spare:
            self._cut_uncovered(response_id)
            return
        self._running[response_id] = self._spare.pop()
        if self._reserved:
            self._reserved.popleft()
        if not self._deadline:
            self._top_up()

    def _cut_uncovered(self, response_id: str) -> None:
        """A response that what was said before the money was gone has begun: cancelled, and booked as an overrun."""
        gateway, upstream = self._gateway, self._upstream
        hold = self._hold(0, gateway.clock.now(), is_begun=True)
        if hold is not None:
            self._running[response_id] = hold
            gateway.books.flush()
        if upstream is not None:
            upstream.send(b'{"type":"response.cancel"}')
        if not self._deadline:
            self._deadline = gateway.clock.monotonic() + DRAIN_S * _SECOND
            self._pending.clear()
            self._say("budget_spent", "A response began that no budget covers; the session is cut.")
            self._socket.close(POLICY, "budget_spent")

    def _take_back(self, event: ServerEvent) -> None:
        """The provider refuses an event: if it was a `response.create`, its hold is spare again."""
        name = event.refused_event_id
        if name is not None and name in self._reserved:
            self._reserved.remove(name)
        elif event.refuses_response and name is None and None in self._reserved:
            self._reserved.remove(None)
        else:
            return
        self._release()
        self._go_on()

    def _release(self) -> None:
        """Spare holds that nothing asked for any more: one is enough."""
        now = self._gateway.clock.now()
        while len(self._spare) > len(self._reserved) + 1:
            hold = self._spare.pop()
            self._finish(hold, settle_failure(self._terms, Failure.NOT_SENT, None, now, "not needed"))

    def _on_server_closed(self, reason: str) -> None:
        self._settle_all(reason or "the provider closed the session")
        self._close()

    # -- the client's side ------------------------------------------------------------------------------------

    def _on_client(self, message: bytes) -> None:
        if self._deadline:
            return
        event = read_client_event(message)
        if isinstance(event, Rejection):
            self._say(event.code, event.message)
            return
        if event.transcription_model is not None:
            self._say(
                "unsupported_field", "transcription of the input is billed apart; it is not metered here"
            )
            return
        most = self._gateway.settings.max_body_bytes
        if len(self._pending) >= MAX_PENDING or self._pending_bytes + len(message) > most:
            text = f"more than {MAX_PENDING} events or {most} bytes wait"
            self._end_session("too_many_pipelined", text)
            return
        self._pending.append(message)
        self._pending_bytes += len(message)
        self._go_on()

    def _go_on(self) -> None:
        """Forward what waits, as far as money reaches."""
        upstream = self._upstream
        if upstream is None or self._is_over:
            return
        while self._pending:
            message = self._pending[0]
            event = read_client_event(message)
            kind = "" if isinstance(event, Rejection) else event.type
            may_respond = kind == "response.create" or kind.startswith(_HEARD)
            if may_respond and len(self._spare) <= len(self._reserved):
                refusal = self._top_up()
                if refusal is not None and not (self._running or self._placing or self._reserved):
                    self._end_session(refusal.code, refusal.message, refusal)
                return
            self._pending.popleft()
            self._pending_bytes -= len(message)
            if not isinstance(event, Rejection) and event.starts_response:
                self._reserved.append(event.event_id)
            upstream.send(message)

    def _top_up(self) -> Refusal | None:
        """See that one hold more than are promised is spare."""
        if len(self._spare) + len(self._placing) > len(self._reserved):
            return None
        return self._place()

    def _on_writable(self, is_writable: bool) -> None:
        """Back-pressure: what a client does not read is not taken from the provider."""
        self._stalled_since = 0 if is_writable else self._gateway.tick
        if self._upstream is not None:
            self._upstream.flow(is_writable)

    def _on_client_closed(self) -> None:
        self._on_writable(True)
        if self._is_over or self._deadline:
            return
        if (self._running or self._reserved) and self._upstream is not None:
            # read on to what the running response costs, and one that was asked for
            self._deadline = self._gateway.clock.monotonic() + DRAIN_S * _SECOND
            self._pending.clear()
            return
        self._close()

    def _say(self, code: str, message: str, refusal: Refusal | None = None) -> None:
        fields = {} if refusal is None else {name: refusal.fields[name] for name in refusal.fields}
        error = {**fields, "type": "invalid_request_error", "code": code, "message": message, "param": None}
        event = {"type": "error", "event_id": f"event_{self.id.hex()}", "error": error}
        self._socket.send(msgspec.json.encode(event))

    # -- ends -------------------------------------------------------------------------------------------------

    def _end_session(self, code: str, message: str, refusal: Refusal | None = None) -> None:
        """Say why, settle, and close both sides."""
        self._say(code, message, refusal)
        self._settle_all(message)
        self._close(POLICY, code)

    @property
    def identity(self) -> Identity:
        """Who spends."""
        return self._entry.chain.identity

    def cut(self, refusal: Refusal) -> None:
        """An order stops it: say why, settle, close both sides."""
        self._end_session(refusal.code, refusal.message, refusal)

    def stop(self, reason: str) -> None:
        """The gateway stops."""
        self._settle_all(reason)
        self._close(GOING_AWAY, reason)

    def _still_allowed(self) -> Refusal | None:
        """Why the session may not go on, if its key, the rules or its model's target have changed meanwhile."""
        gateway, memo = self._gateway, self._memo
        snapshot = gateway.snapshot
        now = gateway.clock.now()
        key = snapshot.opened_by(memo.caller.secret, now)
        if not isinstance(key, KeySpec):
            return unknown_caller(memo.caller.secret, key)
        if key.expires_at <= now:
            return ended(key)
        if memo.snapshot is snapshot:
            return None
        self._memo = memo = Memo(snapshot, memo.headers, memo.caller, key)
        entries = gateway.entries(memo, EXACT["GET", "/v1/realtime"], self._terms.intent)
        if isinstance(entries, Refusal):
            return entries
        entry = entries.targets[0]
        if entry.label != self._entry.label:
            return Refusal(403, "target_changed", "The model of this session is served elsewhere now.")
        self._entry = entry
        return None

    def overdue(self, now: int) -> None:
        """Time limits; monotonic ns."""
        stalled_s = (now - self._stalled_since) // _SECOND if self._stalled_since else 0
        if stalled_s >= self._gateway.settings.client_stall_s:
            # its close is not read either; the connection is what tells it
            self._socket.abort()
        refusal = None if self._deadline or self._is_over else self._still_allowed()
        if refusal is not None:
            self._end_session(refusal.code, refusal.message)
        if self._deadline and now >= self._deadline:
            self._settle_all("the client left, and the response did not end in time")
            self._close()

    def _close(self, code: int = 1000, reason: str = "") -> None:
        if self._is_over:
            return
        self._is_over = True
        self._settle_all("the session is over")
        self._pending.clear()
        self._socket.close(code, reason)
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.close()
        self._gateway.sessions.discard(self)
