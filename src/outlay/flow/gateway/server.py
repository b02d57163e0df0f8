"""The gateway: listens, knows the snapshot, keeps time limits, answers what is not metered, and drains.

One instance and one event loop a process. Collaborators come in; `app` assembles them.
"""

import asyncio

import msgspec

from outlay.flow.budgets import model_allowed
from outlay.flow.gateway.caller import Caller
from outlay.flow.gateway.client import ClientConnection, Request
from outlay.flow.gateway.dialects import FAST_ROUTES, model_body, models_body
from outlay.flow.gateway.exchange import Exchange
from outlay.flow.gateway.forward import visible_accounts
from outlay.flow.gateway.metrics import Metrics, MetricsView
from outlay.flow.gateway.quoting import find_target
from outlay.flow.gateway.refusal import Refusal
from outlay.flow.gateway.snapshot import KeySpec, Provider, Settings, Snapshot
from outlay.flow.gateway.upstream import Pool
from outlay.flow.ledger.books import Books
from outlay.flow.ledger.directory import Chain
from outlay.flow.ledger.port import Store
from outlay.flow.scope import Identity
from outlay.flow.waiting import WaitingRoom
from outlay.kernel.clock import SystemClock
from outlay.kernel.errors import AccountingBroken
from outlay.kernel.ids import IdMaker, id_text, parse_id
from outlay.kernel.money import format_usd
from outlay.lookup.price import ModelPrice
from outlay.wire.intent import CallIntent, Dialect, Operation
from outlay.wire.refusal import error_body
from outlay.wire.routes import MODEL_PATH, dialect_of, find_route

SWEEP_S = 0.1
"""How often time limits are looked at: a tenth of a second is fine enough for limits of seconds."""
MAX_ENTRIES = 100_000
"""Remembered callers (key x run x agent x ... x model)."""
MAX_CLOCK_STEP_NS = 2_000_000_000
"""Wall clock steps up to this are taken up; a larger jump refuses spending until an operator accepts it."""
REQUEST_PATH = b"/outlay/v1/requests/"


class Memo:
    """A kept connection's last caller: the same headers mean the same key, and mostly the same entry."""

    __slots__ = ("caller", "entry", "headers", "key", "model", "operation", "snapshot")

    def __init__(
        self, snapshot: Snapshot, headers: list[tuple[bytes, bytes]], caller: Caller, key: KeySpec
    ) -> None:
        self.snapshot = snapshot
        self.headers = headers
        self.caller = caller
        self.key = key
        self.model = ""
        self.operation: Operation | None = None
        self.entry: Entry | None = None


class Entry:
    """Everything about a caller and model that does not change between calls."""

    __slots__ = (
        "chain",
        "gateway",
        "label",
        "model",
        "operation",
        "pool",
        "provider",
        "route_id",
        "upstream_head",
        "upstream_path",
        "visible",
    )

    def __init__(
        self, gateway: "Gateway", provider: Provider, model: str, chain: Chain, intent: CallIntent
    ) -> None:
        self.gateway = gateway
        self.provider = provider
        self.model = model
        self.chain = chain
        self.operation = intent.operation
        self.label = (provider.name, model)
        self.pool = gateway.pools[provider.name]
        self.route_id = gateway.route_id(self, model)
        self.upstream_path = _upstream_path(self.pool, intent)
        self.upstream_head = _upstream_head(self.pool)
        self.visible = visible_accounts(chain, gateway.snapshot.settings)

    def current(self, now: int) -> Chain:
        """The chain, brought up to date if time or budgets moved on."""
        chain = self.chain
        if now >= chain.valid_until:
            self.gateway.books.directory.refresh(chain, now)
            self.visible = visible_accounts(chain, self.gateway.snapshot.settings)
        return chain


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
        self.exchanges: set[Exchange] = set()
        self.pools: dict[str, Pool] = {}
        self.snapshot = snapshot
        self.room = WaitingRoom(snapshot.settings.max_waiting, snapshot.settings.max_waiting_bytes)
        self.blocked: Refusal | None = None
        self.is_draining = False
        self.tick = clock.monotonic()
        """Monotonic ns as of the last sweep; for limits of seconds, so that no call reads the clock for them."""
        self._store = store
        self._connections: set[ClientConnection] = set()
        self._entries: dict[tuple[object, ...], Entry] = {}
        self._price_ids: dict[str, int] = {}
        self._route_ids: dict[tuple[str, str, str, str], int] = {}
        self._servers: list[asyncio.Server] = []
        self._pumping: set[object] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_configured = False
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
        is_same = self._is_configured and snapshot.budgets == self.snapshot.budgets
        self.snapshot = snapshot
        if not is_same:
            self.books.configure(snapshot.budgets)
            self._is_configured = True
        self._entries.clear()

    async def drain(self) -> None:
        """Stop listening, let open exchanges end within the grace, cut and settle the rest."""
        self.is_draining = True
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            if connection.request is None:
                connection.close()
        deadline = self.clock.monotonic() + self.snapshot.settings.shutdown_timeout_s * 1_000_000_000
        while (self.exchanges or self.room.count) and self.clock.monotonic() < deadline:  # noqa: ASYNC110 - many ends
            await asyncio.sleep(0.02)
        for exchange in list(self.exchanges):
            exchange.kill(None, "the gateway stopped")
        await asyncio.sleep(0.01)
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._connections):
            connection.close()
        for pool in self.pools.values():
            pool.close()
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
        if not self.clock.reanchor(MAX_CLOCK_STEP_NS) and self.blocked is None:
            self.blocked = Refusal(
                503,
                "clock_jumped",
                "The system clock jumped: budget windows cannot be trusted."
                " An operator must check it and run `outlay doctor --accept-clock`.",
            )
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)

    def accept(self, code: str) -> bool:
        """An operator accepts what blocks spending (`clock_jumped`, `host_crashed`); tells whether it did block."""
        if self.blocked is None or self.blocked.code != code:
            return False
        if code == "clock_jumped":
            self.clock.reanchor(2**62)
            self.books.directory.make_stale()
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
        key = self.snapshot.key_of(Caller(headers).secret)
        return key is not None and key.expires_at > self.clock.now()

    def on_request(self, connection: ClientConnection, request: Request) -> None:
        """A request is complete."""
        exchange = Exchange(self, connection, request)
        if self.blocked is not None and (request.method, request.path.partition(b"?")[0]) in FAST_ROUTES:
            exchange.refuse(self.blocked)
            return
        try:
            exchange.begin()
        except AccountingBroken:
            raise
        except Exception as error:  # noqa: BLE001 - the request shell: whatever went wrong, the hold ends
            exchange.fail(error)

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

    def unauthorized(self, secret: bytes, key: KeySpec | None) -> Refusal:
        """Why a key does not open the door."""
        if key is not None:
            return Refusal(401, "key_expired", f"The virtual key {key.name!r} has expired.")
        if not secret:
            return Refusal(
                401,
                "key_missing",
                "No virtual key: send `Authorization: Bearer <key>` or `x-api-key: <key>`.",
            )
        return Refusal(
            401, "key_unknown", "The virtual key is not known here; create one with `outlay key create`."
        )

    def memo(self, client: ClientConnection, request: Request) -> Memo | None:
        """The caller of a request, remembered from its connection's last one; None if the key is not known."""
        snapshot, memo = self.snapshot, client.memo
        if isinstance(memo, Memo) and memo.snapshot is snapshot and memo.headers == request.headers:
            return memo
        caller = Caller(request.headers)
        key = snapshot.key_of(caller.secret)
        if key is None:
            return None
        client.memo = memo = Memo(snapshot, request.headers, caller, key)
        return memo

    def entry(self, memo: Memo, dialect: Dialect, intent: CallIntent) -> Entry | Refusal:
        """The caller's entry for a model, made on first use."""
        if memo.model == intent.model and memo.operation is intent.operation and memo.entry is not None:
            return memo.entry
        caller = memo.caller
        cache_key = (
            memo.key.name,
            intent.model,
            intent.operation,
            caller.run,
            caller.agent,
            caller.customer,
            caller.tags,
        )
        entry = self._entries.get(cache_key)
        if entry is None:
            made = self._make_entry(memo.snapshot, memo.key, caller, dialect, intent)
            if isinstance(made, Refusal):
                return made
            if len(self._entries) >= MAX_ENTRIES:
                self._entries.clear()
            self._entries[cache_key] = entry = made
        memo.model, memo.operation, memo.entry = intent.model, intent.operation, entry
        return entry

    def _make_entry(
        self, snapshot: Snapshot, key: KeySpec, caller: Caller, dialect: Dialect, intent: CallIntent
    ) -> Entry | Refusal:
        target = find_target(snapshot, key, caller, dialect, intent.model)
        if isinstance(target, Refusal):
            return target
        provider, model, identity = target
        return Entry(self, provider, model, self.books.chain(identity), intent)

    def route_id(self, entry: Entry, served: str) -> int:
        """Ledger number of provider, model as asked, model as served and operation."""
        key = (entry.provider.name, entry.model, served, entry.operation.value)
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

    def price_id(self, price: ModelPrice) -> int:
        """Ledger number of a price; its whole content is stored with it."""
        found = self._price_ids.get(price.price_id)
        if found is None:
            found = self.books.directory.prices.number(msgspec.json.encode(price).decode())
            self._price_ids[price.price_id] = found
        return found

    # -- what is not metered --------------------------------------------------------------------------------------

    def answer_other(self, exchange: Exchange, request: Request) -> None:
        """Model lists, request look-ups and health; everything else is not found. Nothing here costs money."""
        path = request.path.partition(b"?")[0]
        if request.method == b"HEAD":
            # its answer may have no body, and ours has one: nothing may follow it on this connection
            request.keep_alive = False
        if request.method == b"GET" and path == b"/healthz":
            exchange.answer_whole(200, b'{"status":"ok"}')
            return
        caller = Caller(request.headers)
        key = self.snapshot.key_of(caller.secret)
        if key is None or key.expires_at <= self.clock.now():
            exchange.refuse(self.unauthorized(caller.secret, key))
            return
        if request.method == b"GET" and path.startswith(REQUEST_PATH):
            self._answer_request(exchange, key, path[len(REQUEST_PATH) :].decode("latin-1"))
            return
        has_version = any(name == b"anthropic-version" for name, _ in request.headers)
        text = path.decode("latin-1")
        route = find_route(request.method.decode("latin-1"), text, has_anthropic_version=has_version)
        if route is None or route[1] is not Operation.MODELS:
            exchange.refuse(
                Refusal(
                    404,
                    "route_not_found",
                    f"{request.method.decode('latin-1')} {text[:200]} is not a route of this gateway."
                    " Calls that it does not meter are not passed on.",
                )
            )
            return
        names = self._visible_models(key, caller, route[0])
        if not text.startswith(MODEL_PATH):
            exchange.answer_whole(200, models_body(route[0], names))
            return
        name = text[len(MODEL_PATH) :]
        if name not in names:
            exchange.refuse(
                Refusal(
                    404,
                    "model_not_found",
                    f"The model {name[:100]!r} is not served here.",
                    {"param": "model"},
                )
            )
            return
        exchange.answer_whole(200, model_body(route[0], name))

    def _visible_models(self, key: KeySpec, caller: Caller, dialect: Dialect) -> list[str]:
        names = []
        for name in self.snapshot.model_names(dialect):
            route = self.snapshot.route(dialect, name)
            if route is None:
                continue
            identity = caller.identity(key, route.provider.name, name)
            if isinstance(identity, Identity) and model_allowed(self.snapshot.rules, identity):
                names.append(name)
        return names

    def _answer_request(self, exchange: Exchange, key: KeySpec, text: str) -> None:
        request_id = parse_id(text)
        missing = Refusal(404, "request_not_found", "No request of this key has that id.")
        if request_id is None:
            exchange.refuse(missing)
            return
        self.books.flush()
        hold = self.books.hold_of(request_id)
        charges = self._store.attempts(request_id)
        if hold is None and not charges:
            exchange.refuse(missing)
            return
        identities = self.books.directory.identities
        owner_id = hold.identity_id if hold is not None else charges[0].identity_id
        owner = msgspec.json.decode(identities.body(owner_id), type=Identity)
        if owner.key != key.name:
            exchange.refuse(missing)
            return
        attempts: list[dict[str, object]] = [
            {
                "attempt": charge.attempt,
                "status": charge.status,
                "basis": charge.basis,
                "cost_usd": format_usd(charge.cost_nanos),
                "held_usd": format_usd(charge.hold_nanos),
                "input_tokens": charge.input_tokens,
                "cache_read_input_tokens": charge.cache_read_tokens,
                "cache_creation_input_tokens": charge.cache_write_tokens,
                "output_tokens": charge.output_tokens,
                "reasoning_output_tokens": charge.reasoning_tokens,
                "http_status": charge.http_status,
                "reason": charge.reason,
            }
            for charge in charges
        ]
        if hold is not None:
            attempts.append({"attempt": hold.attempt, "status": "held", "held_usd": format_usd(hold.nanos)})
        total = sum(charge.cost_nanos for charge in charges)
        body = {
            "id": id_text(request_id),
            "is_open": hold is not None,
            "cost_usd": format_usd(total),
            "model": owner.model,
            "provider": owner.provider,
            "attempts": attempts,
        }
        exchange.answer_whole(200, msgspec.json.encode(body))

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
        )


def _place_of(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else "?"
    return f"{type(error).__name__} at {where}"


def _upstream_path(pool: Pool, intent: CallIntent) -> bytes:
    paths = {
        Operation.CHAT: "/v1/chat/completions",
        Operation.EMBEDDINGS: "/v1/embeddings",
        Operation.MESSAGES: "/v1/messages",
        Operation.COUNT_TOKENS: "/v1/messages/count_tokens",
    }
    path = paths[intent.operation]
    # an OpenAI base URL ends in its version (`.../v1`), an Anthropic one does not: as their SDKs take them
    if intent.dialect is Dialect.OPENAI:
        path = path.removeprefix("/v1")
    return (pool.address.path + path).encode()


def _upstream_head(pool: Pool) -> bytes:
    provider = pool.provider
    lines = {"host": pool.address.host_header, "accept-encoding": "identity"}
    if provider.api_key:
        if provider.dialect is Dialect.ANTHROPIC:
            lines["x-api-key"] = provider.api_key
        else:
            lines["authorization"] = f"Bearer {provider.api_key}"
    lines.update({name.lower(): value for name, value in provider.headers.items()})
    return "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode()
