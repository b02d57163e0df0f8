"""What the gateway knows at one moment: keys, providers, routes, rules, prices, settings. Immutable; swapped whole.

`app` builds it from outlay.yaml and the store's objects; the request path only reads it.
"""

from collections.abc import Mapping
from copy import copy
from enum import StrEnum
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

import msgspec

from outlay.flow.authorize import Clamp
from outlay.flow.budgets import AccessRule, BudgetSpec, pattern_matches
from outlay.flow.gateway.keys import NO_EXPIRY as NO_EXPIRY  # noqa: PLC0414 - offered on
from outlay.flow.gateway.keys import KeySpec as KeySpec  # noqa: PLC0414 - offered on
from outlay.flow.gateway.keys import Tokens, Unreadable, key_of_token, looks_like_token, secrets_of
from outlay.flow.orders import Order
from outlay.flow.outcome import Billing
from outlay.flow.policy import PolicySpec, budgets_of, rules_of
from outlay.flow.raises import Raise
from outlay.flow.runaway import DEFAULT_THRESHOLDS, RunawayAction, Thresholds
from outlay.flow.tags import TagRules, TagSpec
from outlay.kernel.clock import UnixNanos
from outlay.lookup.book import PriceBook
from outlay.lookup.price import ModelPrice
from outlay.wire.intent import Dialect, Operation


class OnClientGone(StrEnum):
    """What happens to the upstream when the client leaves."""

    DRAIN = "drain"
    """Read on to the usage, up to `drain_timeout_s`: exact, for providers that bill what they generate anyway."""
    CANCEL = "cancel"
    """Close at once: cheap where cancelling stops generation (self-hosted engines)."""


class Disclose(StrEnum):
    """Whose amounts a refusal or a header may show to the caller."""

    OWN = "own"
    """Budgets that stand for the caller alone (`disclosure.may_see`); others are named without amounts."""
    ALL = "all"


class ClientAuth(StrEnum):
    """Whose credential goes to the provider."""

    NONE = "none"
    """The provider's own `api_key`; whatever the client sent stays here."""
    OWN = "own"
    """A client that brings its virtual key in `x-outlay-key` may use its own (a subscription): what it costs is booked
    as API-equivalent, apart from what is billed."""
    SAME = "same"
    """The virtual key itself goes on: another gateway behind this one knows it."""


class Progressive(StrEnum):
    """How tokens are counted while a stream passes, where its hold grows with it."""

    OFF = "off"
    """The whole declared maximum is held before the call leaves."""
    EVENTS = "events"
    """The engine sends at most one token an event (and a choice): events are counted."""
    USAGE = "usage"
    """The engine states its usage in each chunk (vLLM's `continuous_usage_stats`, Gemini); bytes where it does not."""
    BYTES = "bytes"
    """Nothing is known of the engine: a token is at least one byte."""


class PassRoute(msgspec.Struct, frozen=True):
    """A route of a provider that Outlay does not know, let through at the operator's price."""

    method: str
    """`GET`, `POST`, ... or `*`."""
    path: str
    """As the client asks for it: exact, or a prefix that ends in `*`."""
    nanos_per_request: int = 0
    nanos_per_second: int = 0
    max_seconds: int = 0
    """With a price per second: the call is cut then, so that its cost has a bound."""


class Provider(msgspec.Struct, frozen=True):
    """An upstream that bills, or one of our own engines."""

    name: str
    dialect: Dialect
    base_url: str
    """As its SDK takes it: `https://api.openai.com/v1`, `https://api.anthropic.com`."""
    api_key: str = ""
    price_source: str = ""
    """Name in the price book; the provider's own name if empty."""
    billing: Billing = Billing.HOSTED
    on_client_gone: OnClientGone = OnClientGone.DRAIN
    models: tuple[str, ...] = ()
    """Model patterns it serves under their own names (`gpt-*`, `*`)."""
    apis: tuple[Operation, ...] = ()
    """APIs it serves beside its dialect's own rule; of generation APIs the first is what others are translated to."""
    output_limit_field: str = "max_tokens"
    """Where an absent output limit is inserted: `max_tokens` or `max_completion_tokens`."""
    has_hidden_output: bool = False
    """Its models may reason out of sight, so a cut answer cannot be counted."""
    headers: Mapping[str, str] = {}
    client_auth: ClientAuth = ClientAuth.NONE
    api_version: str = ""
    """Azure's older form: `/deployments/<model>/...?api-version=` and the header `api-key`."""
    aws_region: str = ""
    aws_access_key_id: str = ""
    aws_secret_access_key: str = ""
    aws_session_token: str = ""
    passthrough: tuple[PassRoute, ...] = ()
    max_concurrent: int = 0
    """Calls in flight; 0: no limit but that of connections."""
    progressive: Progressive = Progressive.OFF
    """Streams without an output limit are held slice by slice: only where cancelling stops billing."""
    run_ahead_tokens: int = 32
    """Output an engine may have made but not sent: a growing hold always covers it."""
    send_request_id: bool = False
    """Send `x-outlay-request-id` upstream."""
    max_connections: int = 512
    connect_timeout_s: int = 10
    first_byte_timeout_s: int = 600
    idle_timeout_s: int = 300
    """Longest silence within a response."""
    keepalive_s: int = 30
    """Idle upstream connections are closed by then; below the provider's own limit, so that none is reused dead."""
    ca_file: str = ""

    @property
    def prices(self) -> str:
        """Name in the price book."""
        return self.price_source or self.name

    @property
    def generation(self) -> tuple[Operation, ...]:
        """The generation APIs it serves, the preferred one first."""
        stated = tuple(api for api in self.apis if api in GENERATION)
        return stated or _GENERATION_OF.get(self.dialect, ())

    def upstream_operation(self, dialect: Dialect, operation: Operation) -> Operation | None:
        """What a client's operation becomes at this provider; None if it cannot serve it."""
        if operation in GENERATION:
            own = self.generation
            return operation if operation in own else own[0] if own else None
        if operation is Operation.RERANK and operation in self.apis:
            return operation
        return operation if dialect is self.dialect else None


GENERATION: Final = frozenset({Operation.CHAT, Operation.RESPONSES, Operation.MESSAGES, Operation.GENERATE})
"""Operations that can be translated into each other."""
_GENERATION_OF: Final = {
    Dialect.OPENAI: (Operation.CHAT,),
    Dialect.ANTHROPIC: (Operation.MESSAGES,),
    Dialect.GOOGLE: (Operation.GENERATE,),
}


class Strategy(StrEnum):
    """Which of several targets is asked first; the others are asked when it fails."""

    ORDERED = "ordered"
    WEIGHTED = "weighted"
    CHEAPEST = "cheapest"
    """The lowest worst case for this very call."""


class Target(msgspec.Struct, frozen=True):
    """One place where a model name is served."""

    provider: str
    model: str
    weight: int = 1
    max_concurrent: int = 0
    """Calls in flight; 0: no limit."""


class ModelRoute(msgspec.Struct, frozen=True):
    """A model name that clients use, and the providers and models that serve and bill it."""

    name: str
    provider: str = ""
    model: str = ""
    """One target; or several in `targets`."""
    targets: tuple[Target, ...] = ()
    strategy: Strategy = Strategy.ORDERED
    retries: int = 0
    """Further rounds through the targets after all have failed."""
    backoff_ms: int = 250
    """Before the first of those rounds; doubles each round."""

    @property
    def all_targets(self) -> tuple[Target, ...]:
        """Its targets in declared order."""
        own = (Target(self.provider, self.model),) if self.provider else ()
        return own + self.targets


class Mode(StrEnum):
    """What a refusal does."""

    ENFORCE = "enforce"
    SHADOW = "shadow"
    """Decide and record, never refuse: to compare before switching over."""


class Settings(msgspec.Struct, frozen=True):
    """The gateway's named limits and policies."""

    mode: Mode = Mode.ENFORCE
    runaway: RunawayAction = RunawayAction.WARN
    """What follows when a run looks like a runaway; a policy may say otherwise for its scope."""
    default_max_output_tokens: int = 4096
    """Inserted where a request states none; never silently (`x-outlay-output-limit`)."""
    min_output_tokens: int = 16
    """Least output worth a call: below it a budget counts as spent."""
    clamp: Clamp = Clamp.WHEN_UNSET
    disclose: Disclose = Disclose.OWN
    raise_url: str = ""
    """Where a person asks for more; `{request_id}` is filled in."""
    wait_s: int = 10
    """Longest wait for money that others hold."""
    first_slice_tokens: int = 256
    """First slice of a growing hold, until a model's answers to a key are known."""
    extend_wait_ms: int = 2_000
    """Longest wait of a stream for money that its next slice needs; then it is cut."""
    max_waiting: int = 2_000
    max_waiting_bytes: int = 256 * 1024 * 1024
    retry_after_s: int = 1
    max_connections: int = 10_000
    max_header_bytes: int = 64 * 1024
    max_headers: int = 128
    max_body_bytes: int = 32 * 1024 * 1024
    max_response_bytes: int = 64 * 1024 * 1024
    header_timeout_s: int = 30
    body_timeout_s: int = 120
    keepalive_s: int = 75
    client_stall_s: int = 120
    """A client that takes no byte of its answer for so long counts as gone."""
    drain_timeout_s: int = 300
    """Longest reading of an answer whose client is gone."""
    shutdown_timeout_s: int = 30
    """Grace for open exchanges when the gateway stops."""
    max_job_bytes: int = 256 * 1024 * 1024
    """Largest batch or training file that is read to hold or settle a job."""
    job_poll_s: int = 30
    """How often a provider is asked about a job that it works on."""
    breaker_failures: int = 5
    """Failures in a row after which a target is left out while others are there."""
    breaker_s: int = 15
    """For how long; then one call tries it again."""


class Aim(msgspec.Struct, frozen=True):
    """One target, resolved."""

    provider: Provider
    model: str
    """Name at the provider."""
    operation: Operation
    """What the call becomes there; another than the client's is a translation."""
    weight: int = 1
    max_concurrent: int = 0


class Aims(msgspec.Struct, frozen=True):
    """Where a model name leads."""

    targets: tuple[Aim, ...]
    strategy: Strategy = Strategy.ORDERED
    retries: int = 0
    backoff_ms: int = 250


class Snapshot:
    """See the module. Look-ups by model are remembered; a snapshot is never changed otherwise."""

    __slots__ = (
        "_models",
        "_routes",
        "book",
        "budgets",
        "forwards_credentials",
        "keys",
        "named",
        "orders",
        "policies",
        "providers",
        "raises",
        "rules",
        "settings",
        "tag_rules",
        "thresholds",
        "tokens",
        "version",
    )

    def __init__(
        self,
        *,
        settings: Settings,
        providers: tuple[Provider, ...],
        models: tuple[ModelRoute, ...],
        keys: tuple[KeySpec, ...],
        budgets: tuple[BudgetSpec, ...],
        rules: tuple[AccessRule, ...],
        book: PriceBook,
        policies: tuple[PolicySpec, ...] = (),
        thresholds: Thresholds = DEFAULT_THRESHOLDS,
        orders: tuple[Order, ...] = (),
        raises: tuple[Raise, ...] = (),
        tags: tuple[TagSpec, ...] = (),
        tokens: Tokens | None = None,
        version: int = 0,
    ) -> None:
        self.settings = settings
        self.providers = {provider.name: provider for provider in providers}
        self._models = models
        self.keys = {
            bytes.fromhex(spec.secret_sha256): spec for key in reversed(keys) for spec in secrets_of(key)
        }
        """By the digest of each secret, those before a rotation included."""
        self.named = {key.name: key for key in reversed(keys)}
        self.tag_rules = TagRules(tags, settings.mode is Mode.SHADOW)
        self.tokens = tokens
        """Who reads tokens that stand for keys; None: a bearer has a key's secret."""
        self.policies = policies
        self.thresholds = thresholds
        self.budgets = budgets + tuple(budget for policy in policies for budget in budgets_of(policy))
        """Declared ones, then those that policies' spend velocity means."""
        self.rules = (
            rules
            + tuple(rule for policy in policies for rule in rules_of(policy))
            + tuple(
                AccessRule({"key": key.name}, key.allow_models, key.deny_models)
                for key in self.named.values()
                if key.allow_models or key.deny_models
            )
        )
        self.book = book
        self.orders = orders
        self.raises = raises
        self.version = version
        self.forwards_credentials = any(p.client_auth is not ClientAuth.NONE for p in providers)
        self._routes: dict[tuple[Dialect, Operation, str], Aims | None] = {}

    def with_orders(self, orders: tuple[Order, ...]) -> "Snapshot":
        """The same with other orders in force: what a kill swaps to without building anything anew."""
        found = copy(self)
        found.orders = orders
        return found

    def with_raises(self, raises: tuple[Raise, ...]) -> "Snapshot":
        """The same with other raises in force."""
        found = copy(self)
        found.raises = raises
        return found

    def with_tokens(self, tokens: Tokens | None) -> "Snapshot":
        """The same with other keys of issuers: callers on kept connections are looked at anew."""
        found = copy(self)
        found.tokens = tokens
        return found

    def target_labels(self) -> set[tuple[str, str]]:
        """(provider, model) of every declared target."""
        return {(target.provider, target.model) for route in self._models for target in route.all_targets}

    def key_of(self, secret: bytes) -> KeySpec | None:
        """The key a bearer presents, by the hash of its secret."""
        return self.keys.get(sha256(secret).digest())

    def opened_by(self, secret: bytes, now: int) -> KeySpec | Unreadable | None:
        """The key that a secret or a token opens; None if it is neither. Ends are the caller's to look at."""
        found = self.key_of(secret)
        if found is not None or self.tokens is None or not looks_like_token(secret):
            return found
        token = self.tokens.read(secret, now)
        if isinstance(token, Unreadable):
            return token
        base = self.named.get(token.key)
        if base is None:
            return Unreadable("token_key_missing", "The key that this token stands for is not there.")
        return key_of_token(base, token)

    def aims(self, dialect: Dialect, operation: Operation, model: str) -> Aims | None:
        """Where a model name leads for a client's operation: a named route first, then provider patterns."""
        key = (dialect, operation, model)
        found = self._routes.get(key, _MISSING)
        if found is _MISSING:
            found = self._find_aims(dialect, operation, model)
            if len(self._routes) >= 10_000:  # names come from clients: bound what is remembered
                self._routes.clear()
            self._routes[key] = found
        return found  # type: ignore[return-value]

    def _find_aims(self, dialect: Dialect, operation: Operation, model: str) -> Aims | None:
        translated = None
        for route in self._models:
            if route.name != model:
                continue
            targets = tuple(
                aim
                for target in route.all_targets
                if (aim := self._aim(dialect, operation, target)) is not None
            )
            aims = Aims(targets, route.strategy, route.retries, route.backoff_ms)
            if targets and targets[0].operation is operation:
                return aims
            if targets and translated is None:
                translated = aims
        if translated is not None:
            return translated
        aim = self._served_by_pattern(dialect, operation, model)
        return None if aim is None else Aims((aim,))

    def _aim(self, dialect: Dialect, operation: Operation, target: Target) -> Aim | None:
        provider = self.providers.get(target.provider)
        if provider is None:
            return None
        upstream = provider.upstream_operation(dialect, operation)
        if upstream is None:
            return None
        limit = target.max_concurrent or provider.max_concurrent
        return Aim(provider, target.model, upstream, target.weight, limit)

    def _served_by_pattern(self, dialect: Dialect, operation: Operation, model: str) -> Aim | None:
        """The provider whose patterns serve a name: one that names it before one that takes all, one that has a price
        for it before one that has none, one that needs no translation before one that does."""
        best: tuple[tuple[bool, bool, bool], Aim] | None = None
        for provider in self.providers.values():
            patterns = [pattern for pattern in provider.models if pattern_matches(pattern, model)]
            aim = self._aim(dialect, operation, Target(provider.name, model)) if patterns else None
            if aim is None:
                continue
            is_catch_all = all(pattern == "*" for pattern in patterns)
            rank = (
                is_catch_all,
                is_catch_all and not self._has_price(provider, model),
                aim.operation is not operation,
            )
            if aim.operation is not operation and rank[0] and rank[1]:
                continue  # a foreign provider that takes everything and knows nothing of this model
            if best is None or rank < best[0]:
                best = (rank, aim)
        return None if best is None else best[1]

    def _has_price(self, provider: Provider, model: str) -> bool:
        found = self.book.find(provider.prices, model, _LATEST)
        return isinstance(found, ModelPrice) and not found.is_ceiling

    def other_names(self, provider: str, model: str, target: str) -> tuple[str, ...]:
        """What a model is called beside the name asked for: at its provider, and in the price book."""
        found = self.providers.get(provider)
        if found is None or not model:
            return ()
        names: dict[str, None] = {}
        for name in (target or model, model):
            names[name] = None
            price = self.book.find(found.prices, name, _LATEST)
            if isinstance(price, ModelPrice) and not price.is_ceiling:
                names[price.model] = None
        return tuple(name for name in names if name.lower() != model.lower())

    def model_names(self, dialect: Dialect) -> list[str]:
        """Names a client of this dialect can use: routes, and priced names that a provider's patterns serve."""
        operation = _LISTED_AS.get(dialect, Operation.CHAT)
        names = {
            route.name: None
            for route in self._models
            if any(self._aim(dialect, operation, target) is not None for target in route.all_targets)
        }
        for provider in self.providers.values():
            if provider.dialect is dialect:
                for name in self.book.names(provider.prices):
                    if any(pattern_matches(pattern, name) for pattern in provider.models):
                        names.setdefault(name)
                names.update({name: None for name in provider.models if not name.endswith("*")})
        return list(names)


_LATEST: Final = UnixNanos(2**62)
"""A time at which the newest price of each model is in force."""
_LISTED_AS: Final = {Dialect.ANTHROPIC: Operation.MESSAGES, Dialect.GOOGLE: Operation.GENERATE}


class Address(msgspec.Struct, frozen=True):
    """A base URL taken apart."""

    is_tls: bool
    host: str
    port: int
    path: str
    """Without a trailing slash."""

    @property
    def host_header(self) -> str:
        """Value of the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"


def parse_base_url(url: str) -> Address:
    """Raises ValueError with a sentence for the operator."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not an http:// or https:// address")
    if parts.query or parts.fragment or parts.username:
        raise ValueError(f"{url!r} may have no query, fragment or user name")
    is_tls = parts.scheme == "https"
    return Address(is_tls, parts.hostname, parts.port or (443 if is_tls else 80), parts.path.rstrip("/"))


_MISSING: object = object()
