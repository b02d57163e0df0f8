"""Before a call leaves: which target, what it may cost, whether it may be spent, and what follows a failed attempt.

The first half of an `Exchange`; the second (`exchange`) lives with the provider's answer. Decides nothing about money
itself: `lookup` bounds and prices, `authorize` and the books admit, `attempts` says which target is next.
"""

from asyncio import TimerHandle
from typing import TYPE_CHECKING

from outlay.flow.accounts import Account
from outlay.flow.asks import RefusedCall
from outlay.flow.authorize import Denied, Reason, authorize
from outlay.flow.gateway.asking import remember_paused
from outlay.flow.gateway.attempts import Plan
from outlay.flow.gateway.caller import Caller
from outlay.flow.gateway.client import Answered, Request
from outlay.flow.gateway.dialects import HAS_OUTPUT
from outlay.flow.gateway.entries import Entries, Entry, Memo
from outlay.flow.gateway.fixed import FixedTerms, free_terms
from outlay.flow.gateway.guard import Guard, token_bound
from outlay.flow.gateway.passage import Passage, passage_of
from outlay.flow.gateway.progress import Progress
from outlay.flow.gateway.quoting import make_terms, may_clamp
from outlay.flow.gateway.refusal import Refusal, refusal_of, run_barred, stopped_by
from outlay.flow.gateway.settlement import Terms, with_quote
from outlay.flow.gateway.snapshot import KeySpec, Progressive, Snapshot
from outlay.flow.gateway.upstream import UpstreamConnection
from outlay.flow.ledger.charge import Hold
from outlay.flow.ledger.directory import Chain
from outlay.flow.lifecycle import State
from outlay.flow.orders import find_order
from outlay.flow.outcome import Failure
from outlay.flow.policy import PolicyMode
from outlay.flow.rates import RateLimits
from outlay.flow.runs import Run
from outlay.flow.scope import Identity
from outlay.flow.shadow import PREFIX, would_refuse
from outlay.flow.waiting import Waiter
from outlay.kernel.clock import UnixNanos
from outlay.kernel.errors import AccountingBroken, StoreError
from outlay.kernel.ids import id_text
from outlay.lookup.cost import Quote, with_output
from outlay.wire.intent import CallIntent, Dialect, Operation
from outlay.wire.routes import Match
from outlay.wire.stream import StreamReader

if TYPE_CHECKING:
    from outlay.flow.gateway.server import Gateway

FEW = 2
"""Calls in flight up to which a hold is committed at once instead of at the end of the loop's turn."""
_ALL_BUSY = "Every target of this model is at its limit of calls in flight; try again shortly."


class Admission:
    """See the module. `Exchange` fills in what happens once a hold is durable."""

    intent: CallIntent
    """What the client asked for."""
    match: Match
    _sent: CallIntent
    """What the provider of this attempt is asked for: the same, but where the call is translated."""
    _entry: Entry
    _terms: Terms
    _quote: Quote
    _hold: Hold
    _caller: Caller
    _memo: Memo

    # no __slots__: defaults that most calls never touch cost nothing here
    state = State.HOLDING
    dialect = Dialect.OPENAI
    fixed: FixedTerms | None = None
    """Terms that do not come from the model's price: free routes, routes at the operator's price, jobs."""
    shadow = ""
    _is_of_run = False
    """Whether it is cut when its run expires."""
    _entries: Entries | None = None
    _plan: Plan | None = None
    _pause: TimerHandle | None = None
    _attempt = 1
    _passage: Passage | None = None
    _progress: Progress | None = None
    """The hold grows with the stream."""
    _withheld = b""
    """What of the stream waits for its hold to grow."""
    _paced: tuple[RateLimits, ...] = ()
    """Counters in which this attempt counts until it has ended."""
    _paced_tokens = 0
    key: KeySpec | None = None
    """Whose call it is, once that is known."""
    runaway = ""
    """Why its run looks like a runaway."""
    downgraded_from = ""
    """Model that the client asked for, where a ladder chose another."""
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
    _sent_at = 0
    """Monotonic ns."""
    _deadline = 0
    _failed: tuple[int, bytes, bytes] | None = None
    """Status, head and body of the last target's error answer: what the client gets if no other can be asked."""

    def __init__(self, gateway: "Gateway", client: Answered, request: Request) -> None:
        self._gateway = gateway
        self._snapshot: Snapshot = gateway.snapshot
        self._client: Answered | None = client
        self._request = request
        self.began_at = gateway.clock.now()
        self.id = gateway.ids.make(self.began_at)
        self._parts: list[bytes] = []

    @property
    def body(self) -> bytes:
        """The request's body."""
        return self._request.body

    # -- before anything is held ------------------------------------------------------------------------------

    def start(self, memo: Memo, match: Match, intent: CallIntent, entries: Entries) -> None:
        """Take a call that is understood as far as it goes without waiting."""
        self._memo, self._caller = memo, memo.caller
        self.match, self.intent, self.dialect = match, intent, match.route.dialect
        self._entries = entries
        only = entries.only
        if only is not None:
            self._begin_attempt(only, self.began_at)
            return
        self._plan = self._gateway.plan(entries, intent, self._worst_at)
        self._ask_next()

    def await_input(self, memo: Memo) -> None:
        """What the call will work on is being read; until then nothing is held."""
        self._memo, self._caller = memo, memo.caller
        if self._client is not None:
            self._client.answering = self

    def _worst_at(self, index: int) -> int | None:
        """Worst case in nanos of this call at a target; None if it cannot be served there."""
        entries = self._entries
        if entries is None:
            return None
        entry, sent = entries.targets[index], self.intent
        if entry.translates:
            passage = self._passage_at(entry)
            if isinstance(passage, Refusal):
                return None
            sent = passage.intent
        terms = make_terms(self._snapshot, entry.provider, entry.model, sent, self.began_at)
        return None if isinstance(terms, Refusal) else terms.quote.total_nanos

    def _passage_at(self, entry: Entry) -> Passage | Refusal:
        body, settings = self._request.body, self._snapshot.settings
        return passage_of(self.intent, entry.aim.operation, entry.model, body, settings)

    def _begin_attempt(self, entry: Entry, now: UnixNanos) -> None:
        self._entry = entry
        stopped = self._stopped(now)
        if stopped is not None:
            self._failed = None
            self._give_up(stopped)
            return
        sent = self.intent
        # a target before this one may have been given up after its translation, or its first slice
        self._passage = self._progress = None
        if entry.translates:
            passage = self._passage_at(entry)
            if isinstance(passage, Refusal):
                self._unable(passage)
                return
            self._passage, sent = passage, passage.intent
        self._sent = sent
        if self.fixed is not None:
            self._terms = self.fixed.terms
        else:
            terms = make_terms(self._snapshot, entry.provider, entry.model, sent, now)
            if isinstance(terms, Refusal) and self._gateway.is_shadow and terms.status == 422:
                self.shadow = f"{PREFIX}{terms.code}"
                free = CallIntent(sent.dialect, Operation.FREE, entry.model, 0, 0, None)
                terms = free_terms(self._snapshot, entry.provider, free).terms
            if isinstance(terms, Refusal):
                self._unable(terms)
                return
            self._terms = terms
        if entry.provider.progressive is not Progressive.OFF:
            self._begin_progress(entry)
        self._quote = quote = self._terms.quote
        if entry.guard is not None and self._is_guarded(entry, entry.guard, now):
            return
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

    def _is_guarded(self, entry: Entry, guard: Guard, now: UnixNanos) -> bool:
        """Whether a policy keeps this attempt from being made; then the next is made, or the client told why."""
        if entry.would_refuse:
            self.shadow = self.shadow or f"{PREFIX}{entry.would_refuse}"
        if self._attempt == 1 and (closed := self._refusing(guard.closed(now))) is not None:
            self._give_up(closed)
            return True
        if (self.fixed is None or self._sent.operation is Operation.FINE_TUNING) and (
            dear := self._refusing(guard.too_dear(self._terms, self._worst_case))
        ) is not None:
            self._unable(dear)
            return True
        fast = self._too_fast(guard, now)
        if fast is not None:
            self._give_up(fast)
        return fast is not None

    def _too_fast(self, guard: Guard, now: UnixNanos) -> Refusal | None:
        return self._refusing(guard.too_fast(self._most_tokens(), now, is_first=self._attempt == 1))

    def _most_tokens(self) -> int:
        """Tokens that this attempt counts in rates until it has settled: all it may use, also where its hold grows."""
        return 0 if self.fixed is not None else token_bound(self._worst_case)

    @property
    def _worst_case(self) -> Quote:
        """All that this attempt may cost: also where its hold is but a first slice of that."""
        return self._terms.quote if self._progress is None else self._progress.whole

    def _refusing(self, found: tuple[Refusal, PolicyMode] | None) -> Refusal | None:
        """What a policy refuses; one in shadow mode only leaves a mark."""
        if found is None:
            return None
        refusal, mode = found
        if mode is PolicyMode.ENFORCE and not self._gateway.is_shadow:
            return refusal
        self.shadow = self.shadow or f"{PREFIX}{refusal.code}: {refusal.fields['policy']}"
        return None

    def _begin_progress(self, entry: Entry) -> None:
        """Hold a first slice only, where the call states no limit and its hold may grow."""
        sent, gateway, terms = self._sent, self._gateway, self._terms
        if (
            not sent.stream
            or self.intent.max_output_tokens is not None
            or sent.operation not in HAS_OUTPUT
            or self.fixed is not None
            or sent.is_background
            or entry.provider.has_hidden_output
        ):
            return
        first = gateway.slices.first(entry.model, self._memo.key.name, gateway.settings.first_slice_tokens)
        if first < terms.quote.max_output_tokens:
            self._progress = Progress(gateway, entry.provider, terms.quote, first)
            self._terms = with_quote(terms, self._progress.quote)

    def _unable(self, refusal: Refusal) -> None:
        """This target cannot be asked for this call (no price, no translation): the next one, or the refusal."""
        if self._plan is None or not self._ask_next(refusal):
            self._give_up(refusal)

    def _place(self, quote: Quote, now: int) -> bool:
        entry, gateway = self._entry, self._gateway
        chain = entry.current(now)
        first = self._attempt == 1
        hold = gateway.books.place(
            chain,
            quote.total_nanos,
            self.id,
            self._attempt,
            entry.route_id,
            gateway.price_id(self._terms.price),
            self._on_durable,
            now,
            None if first else gateway.ids.make(now),
        )
        if hold is None:
            return False
        self._hold = hold
        self._has_hold = True
        if chain.identity.run:
            self._count_run(chain)
        guard = entry.guard
        if guard is not None and guard.limits:
            self._paced_tokens = self._most_tokens()
            self._paced = tuple(limits for _, limits in guard.limits)
            for limits in self._paced:
                limits.begin(self._paced_tokens, now, is_first=first)
        if self._progress is not None:
            self._progress.begin(hold, self._go_on, self._cut_short)
        if gateway.shadow_hard:
            self.shadow = self.shadow or would_refuse(chain.accounts, quote, gateway.shadow_hard)
        client = self._client
        if client is not None:
            client.answering = self
        gateway.exchanges.add(self)
        if self._plan is not None:
            gateway.health.begin(entry.label)
        return True

    def _count_run(self, chain: Chain) -> None:
        """The call counts in its run, and may not outlive it."""
        if self._is_free:
            return
        self._is_of_run = True
        if self._attempt == 1:
            self._gateway.books.count_call(chain)

    def _run_over(self) -> Run | None:
        """Its run, or one above it, whose time is spent by now: a later call may have set that time, or lowered it."""
        if not self._is_of_run or self._gateway.is_shadow:
            return None
        now = self._gateway.clock.now()
        for run in self._entry.current(now).runs:
            if run.bars(now) == "run_expired":
                return run
        return None

    def _decide(self) -> tuple[Account, int] | None:
        """Place the hold, or refuse; or say which account blocks and how much is needed there."""
        settings = self._snapshot.settings
        now = self._gateway.clock.now()
        stopped = self._stopped(now)
        if stopped is not None:
            self._give_up(stopped)
            return None
        accounts = self._entry.current(now).accounts
        quote = self._terms.quote
        guard = self._entry.guard
        clamps = self.fixed is None and self._progress is None
        clamps = clamps and may_clamp(settings, self._sent, None if guard is None else guard.clamp)
        if guard is not None and guard.limits and (fast := self._too_fast(guard, now)) is not None:
            self._give_up(fast)
            return None
        decision = authorize(accounts, quote, settings.min_output_tokens, clamps)
        if isinstance(decision, Denied):
            if decision.reason is Reason.BUDGET_BUSY:
                return decision.account, decision.needed_nanos
            self._deny(decision)
            return None
        if decision.is_clamped:
            quote = with_output(quote, decision.max_output_tokens)
            self._is_clamped = True
            self._terms = with_quote(self._terms, quote)
            self._quote = quote
        if not self._place(quote, now):
            raise AssertionError("a decision that admits must fit")
        return None

    def _deny(self, denied: Denied) -> None:
        gateway = self._gateway
        now = gateway.clock.now()
        refusal = refusal_of(denied, self._snapshot.settings, id_text(self.id), now, self._memo.key)
        self._remember(denied, now)
        # a cheaper target may fit where this one does not
        if self._plan is None or not self._ask_next(refusal):
            self._give_up(refusal)

    def _remember(self, denied: Denied, now: UnixNanos) -> None:
        """A raise of what refused this call can be asked for; what is only busy passes by itself."""
        if denied.reason is Reason.BUDGET_BUSY:
            return
        account = denied.account
        self._gateway.remember_refused(
            RefusedCall(
                id_text(self.id),
                now,
                self.identity,
                denied.reason.value,
                account.budget.name,
                account.values,
                "",
                denied.limit_nanos,
                denied.spent_nanos,
                denied.held_nanos,
                denied.needed_nanos,
            )
        )

    def _stopped(self, now: UnixNanos) -> Refusal | None:
        """What an order says that came since this call began, and whether its run may make another call."""
        orders = self._gateway.snapshot.orders
        if orders and not self._is_free:
            # an entry asks for its own names only, and a run is known once its call is there
            above = tuple(run.name for run in self._entry.current(now).runs[1:])
            order = None
            if above or orders is not self._snapshot.orders:
                order = find_order(orders, self.identity, above)
            if order is not None:
                refusal = stopped_by(order, self._snapshot.settings)
                remember_paused(self._gateway, self, self._memo, refusal, self.intent.model)
                return refusal
        if self._attempt > 1 or self._is_free:
            return None
        for run in self._entry.current(now).runs:
            code = run.bars(now)
            if code and self._gateway.is_shadow:
                self.shadow = self.shadow or f"{PREFIX}{code}: {run.name}"
            elif code:
                return run_barred(run, code)
        return None

    @property
    def _is_free(self) -> bool:
        """A route that costs nothing: it counts in no run, and a run that is over may still look at what it made."""
        return self.fixed is not None and self.fixed.terms.intent.operation is Operation.FREE

    @property
    def identity(self) -> Identity:
        """Who spends."""
        return self._entry.chain.identity

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

    # -- further attempts -----------------------------------------------------------------------------------------

    def _ask_next(self, refusal: Refusal | None = None) -> bool:
        """Begin the plan's next attempt, now or after its pause; False if there is none (and nothing was told)."""
        plan, entries = self._plan, self._entries
        if plan is None or entries is None or self._has_head or self._client is None:
            return False
        turn = plan.next(self._gateway.clock.monotonic())
        if turn is None:
            if refusal is None and self._failed is None:
                self.refuse(Refusal(429, "target_busy", _ALL_BUSY, {}, retry_after_s=1))
                return True
            return False
        entry = entries.targets[turn.place]
        if self._has_hold:
            self._reset()
        if turn.pause_ms == 0:
            self._begin_attempt(entry, self._gateway.clock.now())
            return True
        self._client.answering = self
        self._gateway.exchanges.add(self)
        self._pause = self._gateway.loop.call_later(turn.pause_ms * 0.001, self._after_pause, entry)
        return True

    def _after_pause(self, entry: Entry) -> None:
        self._pause = None
        self._gateway.exchanges.discard(self)
        try:
            self._begin_attempt(entry, self._gateway.clock.now())
        except AccountingBroken:
            raise
        except Exception as error:  # noqa: BLE001 - the request shell: whatever went wrong, the hold ends
            self.fail(error)

    def _reset(self) -> None:
        """Forget the attempt that has ended."""
        self._attempt += 1
        self.state = State.HOLDING
        self._has_hold = self._is_clamped = False
        self._upstream = self._reader = self._passage = self._waiter = self._progress = None
        self._withheld = b""
        self._answer_bytes = self._status = 0
        self._first_byte_at = None
        self._parts = []
        self._gateway.exchanges.discard(self)

    def _give_up(self, refusal: Refusal) -> None:
        """No attempt (more) can be made: the last target's own error tells more than a refusal of the next."""
        failed, client = self._failed, self._client
        if failed is None or client is None:
            self.refuse(refusal)
            return
        status, head, body = failed
        self._gateway.metrics.refused(refusal.code)
        client.write_whole(status, head + b"x-outlay-fallback: %b\r\n" % refusal.code.encode(), body)
        self._finish()

    # -- what an exchange defines ---------------------------------------------------------------------------------

    def _on_durable(self, hold: Hold, error: StoreError | None) -> None:
        raise AssertionError("an exchange defines this")

    def _go_on(self) -> None:
        raise AssertionError("an exchange defines this")

    def _cut_short(self, why: Account | StoreError) -> None:
        raise AssertionError("an exchange defines this")

    def refuse(self, refusal: Refusal) -> None:
        """Answer with an error of our own, in the vendor's shape."""
        raise AssertionError("an exchange defines this")

    def fail(self, error: Exception) -> None:
        """Something of ours is broken: end the hold, tell client and operator."""
        raise AssertionError("an exchange defines this")

    def kill(self, failure: Failure | None, reason: str, refusal: Refusal | None = None) -> None:
        """End this exchange now: cut the stream, close the upstream, settle by the table."""
        raise AssertionError("an exchange defines this")

    def close_upstream(self) -> None:
        """Close the provider's connection, before anything else is done for a kill."""
        raise AssertionError("an exchange defines this")

    def overdue(self, now: int) -> None:
        """Time limits of the upstream's side; monotonic ns."""
        raise AssertionError("an exchange defines this")

    # what a pool calls (`upstream.Call`)

    def on_upstream_ready(self, connection: UpstreamConnection) -> None:
        """See `upstream.Call`."""
        raise AssertionError("an exchange defines this")

    def on_client_gone(self) -> None:
        """See `client.Answering`."""
        raise AssertionError("an exchange defines this")

    def on_client_writable(self, is_writable: bool) -> None:
        """See `client.Answering`."""
        raise AssertionError("an exchange defines this")

    def _finish(self) -> None:
        raise AssertionError("an exchange defines this")
