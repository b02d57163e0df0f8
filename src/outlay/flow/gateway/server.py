"""The gateway: listens, knows the snapshot, keeps time limits, answers what is not metered, and drains.

One instance and one event loop a process. Collaborators come in; `app` assembles them.
"""

import asyncio
from collections.abc import Callable

import msgspec

from outlay.flow.asks import RefusedCall
from outlay.flow.budgets import RUN_METER
from outlay.flow.gateway.admission import Admission
from outlay.flow.gateway.asking import Approving
from outlay.flow.gateway.attempts import Health, Plan, order_of
from outlay.flow.gateway.caller import Caller, query_key
from outlay.flow.gateway.client import Answered, ClientConnection, Request
from outlay.flow.gateway.desk import Desk
from outlay.flow.gateway.entries import Entries, Entry, Memo, find_entries, unknown_caller
from outlay.flow.gateway.exchange import Exchange
from outlay.flow.gateway.guard import LimitBook
from outlay.flow.gateway.jobs import JobKeeper
from outlay.flow.gateway.keys import KeySpec, Tokens
from outlay.flow.gateway.metrics import Metrics, MetricsView
from outlay.flow.gateway.progress import Slices
from outlay.flow.gateway.refusal import Refusal
from outlay.flow.gateway.resources import Resources
from outlay.flow.gateway.session import Session
from outlay.flow.gateway.snapshot import Mode, Settings, Snapshot
from outlay.flow.gateway.stops import carry_out
from outlay.flow.gateway.tally import Tally
from outlay.flow.gateway.upstream import Pool
from outlay.flow.gateway.watching import Watching
from outlay.flow.ledger.books import Books
from outlay.flow.ledger.port import Store
from outlay.flow.orders import Order
from outlay.flow.waiting import WaitingRoom
from outlay.kernel.clock import SystemClock
from outlay.kernel.errors import AccountingBroken
from outlay.kernel.ids import IdMaker
from outlay.lookup.price import ModelPrice
from outlay.wire.intent import CallIntent
from outlay.wire.refusal import error_body
from outlay.wire.routes import Match, dialect_of

SWEEP_S = 0.1
"""How often time limits are looked at: a tenth of a second is fine enough for limits of seconds."""
MAX_ENTRIES = 100_000
"""Remembered callers (key x run x agent x ... x model)."""
MAX_SERVED_CHARS = 256
TALLY_NS = 1_000_000_000
MAX_REFUSED = 10_000
"""Refused calls remembered: some minutes of a storm."""
MAX_CLOCK_STEP_NS = 2_000_000_000
"""Wall clock steps up to this are taken up; a larger jump refuses spending until an operator accepts it."""


class Gateway:
    """See the module."""

    def __init__(
        self,
        books: Books,
        store: Store,
        clock: SystemClock,
        snapshot: Snapshot,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.books = books
        self.clock = clock
        self.ids = IdMaker(clock)
        self.loop = loop
        self.metrics = Metrics()
        self.exchanges: set[Admission] = set()
        self.pools: dict[str, Pool] = {}
        self.snapshot = snapshot
        self.health = Health()
        self.resources = Resources(books, clock)
        self.shadow_hard: frozenset[str] = frozenset()
        """Budgets that would refuse, in shadow mode: there they are in force as soft ones."""
        self.desk = Desk(self)
        self.jobs = JobKeeper(self)
        self.sessions: set[Session] = set()
        self.slices = Slices()
        self.limits = LimitBook(clock.now)
        self.tally = Tally()
        self.watching = Watching(self)
        self.order_taker: Callable[[Order, int], None] | None = None
        """Keeps orders that a rule gives, so that they outlive this process."""
        self.refused_calls: dict[str, RefusedCall] = {}
        """The newest calls refused for want of money, by request id: what a raise can be asked for."""
        self.approving: Approving | None = None
        """Keeps what callers ask for, if there is somebody to decide."""
        self.room = WaitingRoom(snapshot.settings.max_waiting, snapshot.settings.max_waiting_bytes)
        self.blocked: Refusal | None = None
        self.is_draining = False
        self.tick = clock.monotonic()
        """Monotonic ns as of the last sweep; for limits of seconds, so that no call reads the clock for them."""
        self.store = store
        self._connections: set[ClientConnection] = set()
        self._entries: dict[tuple[object, ...], Entries] = {}
        self._price_ids: dict[str, int] = {}
        self._route_ids: dict[tuple[str, str, str, str], int] = {}
        self._servers: list[asyncio.Server] = []
        self._pumping: set[object] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_configured = False
        self._next_tally = 0
        books.on_free = self._on_free
        if books.host_crashed:
            self.blocked = Refusal(
                503,
                "host_crashed",
                "The machine went down without a clean stop: the ledger may miss its last moments."
                " An operator must run `outlay doctor --accept-recovery`.",
            )
        self.swap(snapshot)

    # -- life ---------------------------------------------------------------------------------------------------

    async def listen(self, host: str, port: int) -> int:
        """Start listening; returns the port (also when 0 was asked)."""
        server = await self.loop.create_server(lambda: ClientConnection(self), host, port, backlog=4096)
        self._servers.append(server)
        if self._sweeper is None:
            self._sweep()
        return int(server.sockets[0].getsockname()[1])

    def swap(self, snapshot: Snapshot) -> None:
        """Take a new snapshot: calls in flight keep the one they began with; no stream is dropped."""
        old = self.pools
        self.pools = {}
        for name, provider in snapshot.providers.items():
            pool = old.pop(name, None)
            if pool is None or pool.provider != provider:
                if pool is not None:
                    pool.close()
                pool = Pool(provider, self.loop, self)
            self.pools[name] = pool
        for pool in old.values():
            pool.close()
        self.health.keep(snapshot.target_labels())
        old_snapshot = self.snapshot
        is_same = (
            snapshot.budgets == old_snapshot.budgets
            and snapshot.raises == old_snapshot.raises
            and snapshot.settings.mode is old_snapshot.settings.mode
        )
        self.snapshot = snapshot
        if not (is_same and self._is_configured):
            budgets = snapshot.budgets
            self.shadow_hard = frozenset()
            is_shadow = snapshot.settings.mode is Mode.SHADOW
            if is_shadow:
                self.shadow_hard = frozenset((RUN_METER, *(budget.name for budget in budgets if budget.hard)))
                budgets = tuple(msgspec.structs.replace(budget, hard=False) for budget in budgets)
            self.books.configure(budgets, snapshot.raises, enforces_runs=not is_shadow)
            self._is_configured = True
        self._entries.clear()

    def take_orders(self, orders: tuple[Order, ...]) -> None:
        """Put orders in force for every call from now on; nothing else changes, and nothing is built."""
        self.snapshot = self.snapshot.with_orders(orders)
        old, self._entries = self._entries, {}
        # letting go of a hundred thousand callers takes longer than stopping one
        self.loop.call_soon(old.clear)

    def on_order(self, order: Order, asked_at: int) -> None:
        """A rule orders a stop on somebody's behalf. `asked_at`: UTC ns at which it was called for."""
        if self.order_taker is not None:
            self.order_taker(order, asked_at)
        else:
            carry_out(self, order, (*self.snapshot.orders, order), asked_at)

    def take_tokens(self, tokens: Tokens | None) -> None:
        """Put other keys of token issuers in force for every call from now on; what a token opened is asked anew."""
        self.snapshot = self.snapshot.with_tokens(tokens)

    async def drain(self, grace_s: float | None = None) -> None:
        """Stop listening, let open exchanges end within the grace (the settings' own), cut and settle the rest."""
        grace_s = self.snapshot.settings.shutdown_timeout_s if grace_s is None else grace_s
        self.is_draining = True
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            if connection.request is None:
                connection.close()
        deadline = self.clock.monotonic() + round(grace_s * 1_000_000_000)
        while (self.exchanges or self.room.count) and self.clock.monotonic() < deadline:  # noqa: ASYNC110 - many ends
            await asyncio.sleep(0.02)
        for session in list(self.sessions):
            session.stop("the gateway stopped")
        for exchange in list(self.exchanges):
            exchange.kill(None, "the gateway stopped")
        await asyncio.sleep(0.01)
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._connections):
            connection.close()
        for pool in self.pools.values():
            pool.close()
        self.books.count_refusals(self.tally.take())
        self.books.flush()
        await asyncio.sleep(0.01)

    def _sweep(self) -> None:
        self.tick = now = self.clock.monotonic()
        self.room.expire(now)
        for account in self.room.accounts():
            self._on_free(account)
        for exchange in list(self.exchanges):
            exchange.overdue(now)
        for connection in list(self._connections):
            connection.overdue(now)
        for pool in self.pools.values():
            pool.close_idle(now)
        self.jobs.tick(now)
        if now >= self._next_tally:
            self._next_tally = now + TALLY_NS
            self.books.end_raises(self.clock.now())
            refusals = self.tally.take()
            if refusals:
                self.books.count_refusals(refusals)
        for session in list(self.sessions):
            session.overdue(now)
        if not self.clock.reanchor(MAX_CLOCK_STEP_NS) and self.blocked is None:
            self.blocked = Refusal(
                503,
                "clock_jumped",
                "The system clock jumped: budget windows cannot be trusted."
                " An operator must check it and run `outlay doctor --accept-clock`.",
            )
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)

    def accept(self, code: str) -> bool:
        """An operator accepts what blocks spending (`clock_jumped`, ...); tells whether it did block."""
        if self.blocked is None or self.blocked.code != code:
            return False
        if code == "clock_jumped":
            self.clock.reanchor(2**62)
            self.books.directory.make_stale()
        else:
            self.store.accept_crash()
        self.blocked = None
        return True

    def _on_free(self, account: object) -> None:
        if not self._pumping:
            self.loop.call_soon(self._pump)
        self._pumping.add(account)

    def _pump(self) -> None:
        accounts, self._pumping = self._pumping, set()
        now = self.clock.monotonic()
        for account in accounts:
            self.room.pump(account, now)  # type: ignore[arg-type]

    # -- clients ------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The snapshot's settings."""
        return self.snapshot.settings

    def monotonic(self) -> int:
        """Monotonic ns."""
        return self.clock.monotonic()

    def on_connected(self, connection: ClientConnection) -> bool:
        """A client connected; False if there is no room."""
        if len(self._connections) >= self.snapshot.settings.max_connections or self.is_draining:
            return False
        self._connections.add(connection)
        return True

    def on_disconnected(self, connection: ClientConnection) -> None:
        """A client's connection is closed."""
        self._connections.discard(connection)

    def may_continue(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Whether `Expect: 100-continue` is answered: the key is known, so the body is worth taking."""
        now = self.clock.now()
        key = self.snapshot.opened_by(Caller(headers).secret, now)
        return isinstance(key, KeySpec) and key.expires_at > now

    def on_request(self, connection: ClientConnection, request: Request) -> None:
        """A request is complete."""
        exchange = Exchange(self, connection, request)
        try:
            self.desk.take(exchange, connection, request)
        except AccountingBroken:
            raise
        except Exception as error:  # noqa: BLE001 - the request shell: whatever went wrong, the hold ends
            exchange.fail(error)

    def on_upgrade(self, connection: ClientConnection, request: Request, rest: bytes) -> bool:
        """See `client.Host`."""
        return self.desk.upgrade(connection, request, rest)

    def remember_refused(self, call: RefusedCall) -> None:
        """A call was refused for want of money, or is paused."""
        if len(self.refused_calls) >= MAX_REFUSED:
            del self.refused_calls[next(iter(self.refused_calls))]
        self.refused_calls[call.request_id] = call

    def on_fault(self, error: Exception, request_id: str) -> None:
        """A defect of ours met a request: report it once, with its place in the code and never its content."""
        self.metrics.refused("internal_error")
        self.loop.call_exception_handler(
            {"message": f"request {request_id} failed: {_place_of(error)}", "exception": error}
        )

    def fault_body(self, path: bytes, status: int, code: str, message: str) -> bytes:
        """Error body for a request that could not be framed."""
        self.metrics.refused(code)
        return error_body(dialect_of(path.decode("latin-1")), status, code, message, {}, "")

    # -- what an exchange asks ------------------------------------------------------------------------------------

    def memo(self, client: Answered, request: Request) -> Memo | Refusal:
        """The caller of a request, remembered from its connection's last one; a refusal if nothing says who it is.

        Whether the key has ended by now is the asker's to look at.
        """
        snapshot, memo = self.snapshot, client.memo
        asked = query_key(request.path)
        if (
            isinstance(memo, Memo)
            and memo.snapshot is snapshot
            and memo.headers == request.headers
            and not asked
        ):
            return memo
        caller = Caller(request.headers, asked)
        key = snapshot.opened_by(caller.secret, self.clock.now())
        if not isinstance(key, KeySpec):
            return unknown_caller(caller.secret, key)
        if asked:
            return Memo(snapshot, request.headers, caller, key)
        client.memo = memo = Memo(snapshot, request.headers, caller, key)
        return memo

    def entries(self, memo: Memo, match: Match, intent: CallIntent) -> Entries | Refusal:
        """The caller's entries for a model, made on first use."""
        path = match.route.path
        if memo.model == intent.model and memo.path is path and memo.entries is not None:
            return memo.entries
        caller = memo.caller
        cache_key = (
            memo.key.name,
            memo.key.bearer,
            intent.model,
            path,
            caller.run,
            caller.run_said,
            caller.agent,
            caller.customer,
            caller.tags,
            caller.same_auth if memo.snapshot.forwards_credentials else b"",
        )
        entries = self._entries.get(cache_key)
        if entries is None:
            made = find_entries(self, memo, match.route.dialect, intent.operation, intent.model, match.path)
            if isinstance(made, Refusal):
                return made
            if len(self._entries) >= MAX_ENTRIES:
                self._entries.clear()
            self._entries[cache_key] = entries = made
        memo.model, memo.path, memo.entries = intent.model, path, entries
        return entries

    def plan(self, entries: Entries, intent: CallIntent, cost_of: Callable[[int], int | None]) -> Plan:
        """The attempts of a request that has several targets or tries again."""
        order = order_of(entries.aims, entries.targets, entries.turns, cost_of)
        return Plan(entries.aims, entries.targets, self.health, order)

    def route_id(self, entry: Entry, served: str) -> int:
        """Ledger number of provider, model as asked, model as served and operation."""
        # a provider's word: a name that is longer than a model's may be is not kept whole
        key = (entry.provider.name, entry.model, served[:MAX_SERVED_CHARS], entry.operation.value)
        found = self._route_ids.get(key)
        if found is None:
            body = msgspec.json.encode(
                {"provider": key[0], "model": key[1], "served": key[2], "operation": key[3]}
            ).decode()
            found = self.books.directory.routes.number(body)
            if len(self._route_ids) >= MAX_ENTRIES:  # served names come from providers
                self._route_ids.clear()
            self._route_ids[key] = found
        return found

    @property
    def is_shadow(self) -> bool:
        """Whether refusals are recorded instead of made."""
        return self.snapshot.settings.mode is Mode.SHADOW

    def price_of(self, number: int) -> ModelPrice:
        """The price with that ledger number."""
        return msgspec.json.decode(self.books.directory.prices.body(number), type=ModelPrice)

    def price_id(self, price: ModelPrice) -> int:
        """Ledger number of a price; its whole content is stored with it."""
        found = self._price_ids.get(price.price_id)
        if found is None:
            found = self.books.directory.prices.number(msgspec.json.encode(price).decode())
            self._price_ids[price.price_id] = found
        return found

    def view(self) -> MetricsView:
        """All counters and gauges."""
        return msgspec.structs.replace(
            self.metrics.view(),
            open_holds=self.books.open_holds,
            held_nanos=self.books.held_nanos,
            waiting=self.room.count,
            connections=len(self._connections),
            exchanges=len(self.exchanges),
            commits=self.books.commits,
            recovered=self.books.recovered,
            is_store_down=self.books.is_down,
            blocked=self.blocked.code if self.blocked else None,
            upstream_connections={name: pool.open_connections for name, pool in self.pools.items()},
            snapshot_version=self.snapshot.version,
            host_crashed=self.books.host_crashed,
            sessions=len(self.sessions),
            jobs=len(self.books.jobs),
            targets=self.health.view(),
        )


def _place_of(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else "?"
    return f"{type(error).__name__} at {where}"
