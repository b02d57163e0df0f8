"""Where a request goes first: which route, whose key, what it asks for; and what the gateway answers itself.

Everything that is not in the route table and that no operator let through ends here, unforwarded.
"""

from typing import TYPE_CHECKING, Final

import msgspec

from outlay.flow.budgets import model_allowed
from outlay.flow.gateway.asking import answer_raises, pause_at_rung, remember_paused
from outlay.flow.gateway.client import Answered, BadRequest, ClientConnection, Request, decoded
from outlay.flow.gateway.dialects import FAST_ROUTES, PARSERS, model_body, models_body, parse_call
from outlay.flow.gateway.entries import (
    Entries,
    Entry,
    Memo,
    allowed_identity,
    ended,
    known_identity,
    open_run,
)
from outlay.flow.gateway.exchange import Exchange
from outlay.flow.gateway.fixed import free_terms
from outlay.flow.gateway.ladders import ladder_step
from outlay.flow.gateway.passthrough import NO_METHODS, find_pass_route, pass_terms
from outlay.flow.gateway.refusal import FIRM_CODES, Refusal, stopped_by
from outlay.flow.gateway.resources import names_objects
from outlay.flow.gateway.session import open_session
from outlay.flow.gateway.snapshot import Aim, Aims, Provider
from outlay.flow.orders import find_order
from outlay.flow.policy import PolicyMode
from outlay.flow.runaway import RunawayAction
from outlay.flow.scope import Identity
from outlay.flow.shadow import PREFIX
from outlay.kernel.ids import id_text, parse_id
from outlay.kernel.money import format_usd
from outlay.wire.intent import CallIntent, Dialect, Operation, Rejection
from outlay.wire.routes import MODEL_PATH, Match, Metering, Route, dialect_of, find_route

if TYPE_CHECKING:
    from outlay.flow.gateway.server import Gateway

REQUEST_PATH: Final = b"/outlay/v1/requests/"
GOOGLE_MODEL_PATH: Final = "/v1beta/models/"


class _Named(msgspec.Struct, gc=False):
    model: str = ""


_decode_named: Final = msgspec.json.Decoder(_Named).decode


class Desk:
    """See the module."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway

    def take(self, exchange: Exchange, client: Answered, request: Request) -> None:
        """Take a request as far as it goes without waiting."""
        path = request.path
        if b"?" in path:
            path = path.partition(b"?")[0]
        match = FAST_ROUTES.get((request.method, path))
        if match is None:
            match = self._find(request, path)
            if match is None or match.route.metering is Metering.LOCAL:
                self._answer_other(exchange, client, request, path, match)
                return
        exchange.dialect = match.route.dialect
        gateway = self._gateway
        if gateway.blocked is not None:
            exchange.refuse(gateway.blocked)
            return
        memo = self._caller(exchange, client, request)
        if memo is None:
            return
        if match.route.metering is Metering.SESSION:
            exchange.refuse(
                Refusal(426, "upgrade_required", "This route is a WebSocket: ask for an upgrade.")
            )
            return
        if request.encoding:
            try:
                request.body = decoded(request.body, request.encoding, gateway.snapshot.settings)
            except BadRequest as error:
                exchange.refuse(Refusal(error.status, error.code, error.message))
                return
        if names_objects(request.body):
            theirs = gateway.resources.is_anothers(memo.snapshot, memo.key, request.body)
            if theirs is not None:
                exchange.refuse(theirs)
                return
        plain = PARSERS.get(match.route.operation)
        if plain is not None and not match.model:
            intent = plain(request.body)
        elif match.route.metering is Metering.DEFERRED:
            gateway.jobs.submit(exchange, memo, match, request)
            return
        elif match.route.operation is Operation.FREE:
            self._take_free(exchange, memo, match, request)
            return
        else:
            intent = parse_call(match, request)
        if isinstance(intent, Rejection):
            self.reject(exchange, memo, match, request, intent)
            return
        entries = gateway.entries(memo, match, intent)
        if isinstance(entries, Refusal):
            if gateway.is_shadow and entries.status == 403 and entries.code not in FIRM_CODES:
                self.let_pass(exchange, memo, match, request, entries.code)
                return
            if entries.code == "paused":
                remember_paused(gateway, exchange, memo, entries, intent.model)
            exchange.refuse(entries)
            return
        if entries.has_ladder:
            stepped = self._on_ladder(exchange, memo, match, intent, entries)
            if stepped is None:
                return
            entries = stepped
        run = entries.targets[0].chain.identity.run
        if run and not self._is_well(exchange, memo, intent, entries):
            return
        exchange.start(memo, match, intent, entries)

    def _is_well(self, exchange: Exchange, memo: Memo, intent: CallIntent, entries: Entries) -> bool:
        """Whether a run's call may go on: a run that looks like a runaway is marked, or stopped and told so."""
        gateway, first = self._gateway, entries.targets[0]
        guard, identity = first.guard, first.chain.identity
        action = (
            gateway.snapshot.settings.runaway if guard is None or guard.runaway is None else guard.runaway
        )
        if action is RunawayAction.OFF:
            return True
        if gateway.is_shadow:
            action = RunawayAction.WARN
        finding = gateway.watching.see(identity, intent, exchange.body, action)
        if finding is None:
            return True
        order = find_order(gateway.snapshot.orders, identity)
        if order is not None:
            refusal = stopped_by(order, gateway.snapshot.settings)
            remember_paused(gateway, exchange, memo, refusal, intent.model)
            exchange.refuse(refusal)
            return False
        exchange.runaway = finding.reason
        return True

    def _on_ladder(
        self, exchange: Exchange, memo: Memo, match: Match, intent: CallIntent, entries: Entries
    ) -> Entries | None:
        """The entries that a downgrade ladder leads to; None after a refusal."""
        gateway, visited = self._gateway, {intent.model.lower()}
        while True:
            step = ladder_step(entries, exchange.began_at)
            if step is None:
                return entries
            rung = step.rung
            if gateway.is_shadow or step.policy.mode is PolicyMode.SHADOW:
                exchange.shadow = f"{PREFIX}downgrade: {step.policy.name}: {rung.use or 'pause'}"
                return entries
            if not rung.use:
                exchange.refuse(
                    pause_at_rung(
                        gateway, exchange.id, exchange.began_at, entries.targets[0].chain.identity, step
                    )
                )
                return None
            if rung.use.lower() in visited:
                return entries  # ladders that lead to each other: the last model serves
            visited.add(rung.use.lower())
            found = gateway.entries(memo, match, msgspec.structs.replace(intent, model=rung.use))
            if isinstance(found, Refusal):
                exchange.refuse(found)
                return None
            exchange.downgraded_from = intent.model
            entries = found

    def _find(self, request: Request, path: bytes) -> Match | None:
        has_version = any(name == b"anthropic-version" for name, _ in request.headers)
        return find_route(
            request.method.decode("latin-1"), path.decode("latin-1"), has_anthropic_version=has_version
        )

    def _caller(self, exchange: Exchange, client: Answered, request: Request) -> Memo | None:
        """The caller, or None after an answer that says why the key does not open the door."""
        gateway = self._gateway
        memo = gateway.memo(client, request)
        if isinstance(memo, Memo):
            if memo.key.expires_at > exchange.began_at:
                exchange.key = memo.key
                return memo
            memo = ended(memo.key)
        exchange.refuse(memo)
        return None

    # -- routes that cost nothing -----------------------------------------------------------------------------

    def _take_free(self, exchange: Exchange, memo: Memo, match: Match, request: Request) -> None:
        gateway = self._gateway
        wanted = request.header(b"x-outlay-provider")
        provider = gateway.resources.provider_of(
            memo.snapshot, memo.key, match.route.dialect, match.resource, wanted
        )
        if isinstance(provider, Refusal):
            exchange.refuse(provider)
            return
        entries = self.entries_at(memo, provider, match.route.operation, match.path)
        if isinstance(entries, Refusal):
            exchange.refuse(entries)
            return
        intent = CallIntent(match.route.dialect, match.route.operation, "", 0, 0, None)
        exchange.fixed = free_terms(memo.snapshot, provider, intent)
        exchange.start(memo, match, intent, entries)

    def entries_at(
        self, memo: Memo, provider: Provider, operation: Operation, path: str, model: str = ""
    ) -> Entries | Refusal:
        """The caller at one provider, for calls that are not chosen by a model's name."""
        gateway = self._gateway
        barred = open_run(gateway, memo)
        if barred is not None:
            return barred
        aim = Aim(provider, model, operation)
        is_free = operation is Operation.FREE
        identity = known_identity(memo.snapshot, memo.key, memo.caller, provider.name, model, is_free=is_free)
        if model:
            identity = allowed_identity(memo.snapshot, memo.key, memo.caller, aim, model)
        if isinstance(identity, Refusal):
            return identity
        entry = Entry(gateway, aim, gateway.books.chain(identity), operation, path, memo)
        return Entries(Aims((aim,)), (entry,))

    # -- what enforcement would refuse ------------------------------------------------------------------------

    def reject(
        self, exchange: Exchange, memo: Memo, match: Match, request: Request, rejection: Rejection
    ) -> None:
        """Refuse a call that cannot be bounded; shadow mode lets it pass."""
        if self._gateway.is_shadow and rejection.status == 422:
            self.let_pass(exchange, memo, match, request, rejection.code)
            return
        refusal = Refusal(rejection.status, rejection.code, rejection.message, {"param": rejection.param})
        exchange.refuse(refusal)

    def let_pass(  # noqa: PLR0917 - as it came, and why
        self,
        exchange: Exchange,
        memo: Memo,
        match: Match,
        request: Request,
        code: str,
        at: Provider | None = None,
    ) -> None:
        """Shadow mode: let a call through that would have been refused before its cost was known, and record it.

        `at` is its provider, where what the call works on says so.
        """
        gateway, route = self._gateway, match.route
        model = match.model
        try:
            model = model or _decode_named(request.body).model
        except (ValueError, RecursionError):
            model = ""
        aims = memo.snapshot.aims(route.dialect, route.operation, model)
        native = [aim for aim in aims.targets if aim.operation is route.operation] if aims is not None else []
        provider = at or gateway.resources.provider_of(memo.snapshot, memo.key, route.dialect, "")
        if native and at is None:
            provider = native[0].provider
        if isinstance(provider, Refusal):
            exchange.refuse(provider)
            return
        aim = Aim(provider, native[0].model if native else model, route.operation)
        identity = known_identity(memo.snapshot, memo.key, memo.caller, provider.name, model)
        if isinstance(identity, Refusal):
            exchange.refuse(identity)
            return
        chain = gateway.books.chain(identity)
        entry = Entry(gateway, aim, chain, route.operation, match.path, memo)
        intent = CallIntent(route.dialect, Operation.FREE, aim.model, 0, 0, None)
        exchange.shadow = f"{PREFIX}{code}"
        exchange.fixed = free_terms(memo.snapshot, provider, intent)
        exchange.start(memo, match, intent, Entries(Aims((aim,)), (entry,)))

    # -- what the gateway answers itself ----------------------------------------------------------------------

    def _answer_other(
        self, exchange: Exchange, client: Answered, request: Request, path: bytes, match: Match | None
    ) -> None:
        """Model lists, request look-ups, health, routes the operator priced; everything else is not found."""
        gateway = self._gateway
        text = path.decode("latin-1")
        if request.method == b"GET" and path == b"/healthz":
            exchange.answer_whole(200, b'{"status":"ok"}')
            return
        exchange.dialect = dialect_of(text) if match is None else match.route.dialect
        memo = self._caller(exchange, client, request)
        if memo is None:
            return
        if request.method == b"GET" and path.startswith(REQUEST_PATH):
            self._answer_request(exchange, memo, path[len(REQUEST_PATH) :].decode("latin-1"))
            return
        if answer_raises(gateway, exchange, memo, request, text):
            return
        if match is not None:
            self._answer_models(exchange, memo, match)
            return
        method = request.method.decode("latin-1")
        found = find_pass_route(memo.snapshot, method, text, request.header(b"x-outlay-provider"))
        if found is None and gateway.is_shadow and method not in NO_METHODS:
            self._shadowed_route(exchange, memo, method, text, request)
            return
        if found is None:
            exchange.refuse(
                Refusal(
                    404,
                    "route_not_found",
                    f"{method} {text[:200]} is not a route of this gateway."
                    " Calls that it does not meter are not passed on; an operator can let a route through at a"
                    " price (`passthrough` of a provider).",
                )
            )
            return
        if gateway.blocked is not None:
            exchange.refuse(gateway.blocked)
            return
        provider, rule, upstream_path = found
        exchange.fixed, intent = pass_terms(memo.snapshot, provider, rule)
        entries = self.entries_at(memo, provider, Operation.PASSTHROUGH, upstream_path)
        if isinstance(entries, Refusal):
            exchange.refuse(entries)
            return
        route = Route(method, rule.path, provider.dialect, Operation.PASSTHROUGH)
        exchange.start(memo, Match(route, path=upstream_path), intent, entries)

    def _shadowed_route(
        self, exchange: Exchange, memo: Memo, method: str, path: str, request: Request
    ) -> None:
        route = Route(method, path, dialect_of(path), Operation.FREE, Metering.FREE)
        self.let_pass(exchange, memo, Match(route, path=path), request, "route_not_found")

    def _answer_models(self, exchange: Exchange, memo: Memo, match: Match) -> None:
        dialect = match.route.dialect
        names = self._visible_models(memo, dialect)
        name = match.model or match.path.removeprefix(MODEL_PATH) if "{" in match.route.path else ""
        if not name:
            exchange.answer_whole(200, models_body(dialect, names))
            return
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
        exchange.answer_whole(200, model_body(dialect, name))

    def _visible_models(self, memo: Memo, dialect: Dialect) -> list[str]:
        snapshot = memo.snapshot
        operation = {Dialect.ANTHROPIC: Operation.MESSAGES, Dialect.GOOGLE: Operation.GENERATE}.get(
            dialect, Operation.CHAT
        )
        names = []
        for name in snapshot.model_names(dialect):
            aims = snapshot.aims(dialect, operation, name) or snapshot.aims(
                dialect, Operation.EMBEDDINGS, name
            )
            if aims is None or not aims.targets:
                continue
            identity = memo.caller.identity(
                memo.key, aims.targets[0].provider.name, name, "", snapshot.tag_rules
            )
            if isinstance(identity, Identity) and model_allowed(snapshot.rules, identity):
                names.append(name)
        return names

    def _answer_request(self, exchange: Exchange, memo: Memo, text: str) -> None:
        gateway = self._gateway
        books = gateway.books
        request_id = parse_id(text)
        missing = Refusal(404, "request_not_found", "No request of this key has that id.")
        if request_id is None:
            exchange.refuse(missing)
            return
        books.flush()
        holds = books.holds_of(request_id)
        charges = gateway.store.attempts(request_id)
        if not holds and not charges:
            exchange.refuse(missing)
            return
        identities = books.directory.identities
        owner_id = charges[0].identity_id if charges else holds[0].identity_id
        owner = msgspec.json.decode(identities.body(owner_id), type=Identity)
        if not memo.key.owns(owner):
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
        attempts += [
            {"attempt": hold.attempt, "status": "held", "held_usd": format_usd(hold.nanos)} for hold in holds
        ]
        total = sum(charge.cost_nanos for charge in charges)
        body = {
            "id": id_text(request_id),
            "is_open": bool(holds),
            "cost_usd": format_usd(total),
            "model": owner.model,
            "provider": owner.provider,
            "attempts": attempts,
        }
        exchange.answer_whole(200, msgspec.json.encode(body))

    # -- WebSockets -------------------------------------------------------------------------------------------

    def upgrade(self, client: ClientConnection, request: Request, rest: bytes) -> bool:
        """A client asks to switch protocols: True if that is done, or answered with why not."""
        gateway = self._gateway
        path = request.path.partition(b"?")[0]
        match = self._find(request, path)
        if match is None or match.route.metering is not Metering.SESSION:
            return False
        exchange = Exchange(gateway, client, request)
        exchange.dialect = match.route.dialect
        request.keep_alive = False
        if gateway.blocked is not None:
            exchange.refuse(gateway.blocked)
            return True
        memo = self._caller(exchange, client, request)
        if memo is None:
            return True
        refusal = open_session(gateway, client, request, memo, match, rest)
        if refusal is not None:
            exchange.refuse(refusal)
        return True
