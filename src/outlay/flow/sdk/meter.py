"""What an embedded wrap knows: whose prices hold at which host, which budgets apply, and where the ledger is.

Pure but for the ledger behind it. One `Meter` a wrap; every client made from the wrapped one shares it.
"""

from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from outlay.flow.budgets import BudgetSpec, model_allowed
from outlay.flow.gateway.caller import Caller
from outlay.flow.gateway.entries import Memo
from outlay.flow.gateway.passthrough import find_pass_route
from outlay.flow.gateway.refusal import Refusal
from outlay.flow.gateway.snapshot import KeySpec, PassRoute, Provider, Settings, Snapshot, parse_base_url
from outlay.flow.ledger.directory import RUN_BUDGET
from outlay.flow.scope import Identity
from outlay.flow.sdk.policies import NOTHING, Asked, Verdict, judge
from outlay.flow.sdk.runs import Run
from outlay.flow.sdk.settler import Settler
from outlay.kernel.clock import Clock
from outlay.lookup.price import ModelPrice
from outlay.wire.intent import Dialect, Operation
from outlay.wire.routes import BodyKind, Match, Metering, Route, find_route

MAX_REMEMBERED: Final = 1_000
"""Prices and first attempts remembered."""
IDEMPOTENCY: Final = b"idempotency-key"
RETRY_COUNT: Final = b"x-stainless-retry-count"


class Outgoing(NamedTuple):
    """A request as it is about to leave. Header names are lower-case."""

    method: str
    host: str
    port: int
    target: str
    """Path and query."""
    headers: list[tuple[bytes, bytes]]
    is_followed: bool = False
    """A redirect of a call that costs nothing: where a provider keeps a file."""

    @property
    def path(self) -> str:
        """Without the query."""
        return self.target.partition("?")[0]

    def header(self, name: bytes) -> bytes:
        """First value of a header; empty if it is not there."""
        return next((value for key, value in self.headers if key == name), b"")


class Found(NamedTuple):
    """A request that may be metered."""

    provider: Provider
    match: Match
    base: str
    """Path of the provider's base URL."""
    rule: PassRoute | None = None


class Pass(NamedTuple):
    """A request that costs nothing and is not booked: lists of models, files where a provider keeps them."""


class Host(NamedTuple):
    """A provider at its address."""

    provider: Provider
    base: str


class Meter:
    """See the module."""

    def __init__(  # noqa: PLR0917 - made in one place only
        self,
        settler: Settler,
        snapshot: Snapshot,
        identity: Identity,
        budgets: tuple[BudgetSpec, ...],
        clock: Clock,
        dialect: Dialect,
    ) -> None:
        """`dialect`: what the wrapped SDK speaks; routes of others that share a path with its own are not its."""
        self._dialect = dialect
        self.settler = settler
        self.ledger = settler.ledger
        self.snapshot = snapshot
        self.clock = clock
        self._identity = identity
        self.budgets = budgets
        self._hosts = {
            (address.host, address.port): Host(provider, address.path)
            for provider in snapshot.providers.values()
            for address in (parse_base_url(provider.base_url),)
        }
        self._prices: dict[str, str] = {}
        self._firsts: dict[bytes, tuple[bytes, int]] = {}
        own = {name: getattr(identity, name) for name in Identity.__struct_fields__}
        names = set(KeySpec.__struct_fields__) & set(own) - {"tags"}
        self.key = KeySpec(
            **{"name": identity.key or "sdk", "secret_sha256": "", **{name: own[name] for name in names}},
            tags=dict(identity.tags),
        )

    @property
    def settings(self) -> Settings:
        """Named limits and policies."""
        return self.snapshot.settings

    @property
    def place(self) -> str:
        """See `runs.Till`."""
        return str(self.ledger.path)

    def run_balance(self, run: Run) -> tuple[int, int, int | None]:
        """See `runs.Till`."""
        self.settler.settle_pending()
        return self.ledger.balance(RUN_BUDGET, msgspec.structs.replace(self._identity, run=run.id))

    def balances(self) -> dict[str, tuple[int, int, int | None]]:
        """(spent, held, limit) in nanos of each budget that is this wrap's as a whole, by name."""
        self.settler.settle_pending()
        return {spec.name: self.ledger.balance(spec, self._identity) for spec in self.budgets}

    def find(self, request: Outgoing) -> Found | Pass | Refusal:
        """The provider and route of a request, or why it may not leave."""
        host = self._hosts.get((request.host, request.port))
        if host is None:
            if request.is_followed and request.method == "GET":
                return Pass()
            return Refusal(
                422,
                "provider_unknown",
                f"Outlay does not know whose prices hold at {request.host}:{request.port}; name it with provider=...",
            )
        match = self._match(request, host.base)
        if match is None or match.route.dialect is not self._dialect:
            found = find_pass_route(self.snapshot, request.method, request.path, host.provider.name)
            if found is None:
                return _not_metered(request)
            _, rule, path = found
            route = Route(request.method, rule.path, host.provider.dialect, Operation.PASSTHROUGH)
            return Found(host.provider, Match(route, path=path), host.base, rule)
        if match.route.metering is Metering.SESSION:
            return _not_metered(request)
        if match.route.metering is Metering.LOCAL:
            return Pass()
        return Found(host.provider, match, host.base)

    def _match(self, request: Outgoing, base: str) -> Match | None:
        path = request.path
        has_version = bool(request.header(b"anthropic-version"))
        match = find_route(request.method, path, has_anthropic_version=has_version)
        if match is None and base and path.startswith(base + "/"):
            match = find_route(request.method, path[len(base) :], has_anthropic_version=has_version)
        return match

    def identity(self, provider: Provider, model: str, run: Run | None) -> Identity | Refusal:
        """Whose a call is, if the rules let it ask for the model."""
        identity = self.whose(provider, model, run)
        if model and not model_allowed(self.snapshot.rules, identity, model):
            return Refusal(
                403,
                "model_not_allowed",
                f"The model {model[:100]!r} is not allowed here.",
                {"param": "model"},
            )
        return identity

    def whose(self, provider: Provider, model: str, run: Run | None) -> Identity:
        """Whose a call is."""
        return msgspec.structs.replace(
            self._identity,
            run=run.id if run else "",
            model=model,
            provider=provider.name,
            model_names=self.snapshot.other_names(provider.name, model, model),
        )

    def memo(self, run: Run | None) -> Memo:
        """This wrap as a caller, for the gateway's job terms."""
        key = self.key if run is None else msgspec.structs.replace(self.key, run_parent=run.id)
        return Memo(self.snapshot, [], Caller([]), key)

    def judge(self, asked: Asked) -> Verdict:
        """What the config's policies say of an attempt."""
        policies = self.snapshot.policies
        return judge(policies, asked, self.clock.now()) if policies else NOTHING

    def price_body(self, price: ModelPrice) -> str:
        """A price as it is stored with a charge."""
        body = self._prices.get(price.price_id)
        if body is None:
            body = msgspec.json.encode(price).decode()
            if len(self._prices) >= MAX_REMEMBERED:
                self._prices.clear()
            self._prices[price.price_id] = body
        return body

    def attempt(self, request: Outgoing, body: bytes) -> tuple[bytes, bytes | None, int]:
        """(key of a call, id of its first attempt, number of this one): an SDK's own retries belong together.

        A retry says so, and is the same request again, byte for byte.
        """
        key = request.header(IDEMPOTENCY) or blake2b(request.target.encode() + body, digest_size=16).digest()
        first = None if request.header(RETRY_COUNT) in (b"", b"0") else self._firsts.get(key)
        return (key, None, 1) if first is None else (key, first[0], first[1] + 1)

    def attempted(self, key: bytes, request_id: bytes, attempt: int) -> None:
        """Remember an attempt for the retries that may follow."""
        if len(self._firsts) >= MAX_REMEMBERED:
            self._firsts.clear()
        self._firsts[key] = (request_id, attempt)


def route_body(provider: Provider, model: str, served: str, operation: Operation) -> str:
    """A route as it is stored with a charge."""
    return msgspec.json.encode(
        {"provider": provider.name, "model": model, "served": served, "operation": operation.value}
    ).decode()


def free_body(match: Match) -> bool:
    """Whether a route's requests are not looked into."""
    return match.route.operation is Operation.FREE or match.route.body is BodyKind.NONE


def _not_metered(request: Outgoing) -> Refusal:
    return Refusal(
        404,
        "route_not_metered",
        f"{request.method} {request.path[:200]} is not a route that Outlay can meter, so it is not sent. A route can be"
        " let through at a price (`passthrough` of a provider in the config file).",
    )
