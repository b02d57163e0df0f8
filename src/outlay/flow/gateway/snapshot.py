"""What the gateway knows at one moment: keys, providers, routes, rules, prices, settings. Immutable; swapped whole.

`app` builds it from outlay.yaml and the store's objects; the request path only reads it.
"""

from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from urllib.parse import urlsplit

import msgspec

from outlay.flow.authorize import Clamp
from outlay.flow.budgets import AccessRule, BudgetSpec, Origin, pattern_matches
from outlay.flow.outcome import Billing
from outlay.lookup.book import PriceBook
from outlay.wire.intent import Dialect

NO_EXPIRY = 2**63 - 1


class OnClientGone(StrEnum):
    """What happens to the upstream when the client leaves."""

    DRAIN = "drain"
    """Read on to the usage, up to `drain_timeout_s`: exact, for providers that bill what they generate anyway."""
    CANCEL = "cancel"
    """Close at once: cheap where cancelling stops generation (self-hosted engines)."""


class Disclose(StrEnum):
    """Whose amounts a refusal or a header may show to the caller."""

    OWN = "own"
    """Budgets of the caller's own scope (key, user, agent, run, customer); others are named without amounts."""
    ALL = "all"


class KeySpec(msgspec.Struct, frozen=True):
    """A virtual key: who its bearer is. Only the SHA-256 of the secret is kept."""

    name: str
    secret_sha256: str
    """Hexadecimal."""
    org: str = ""
    team: str = ""
    project: str = ""
    user: str = ""
    agent: str = ""
    workload: str = ""
    deployment: str = ""
    environment: str = ""
    customer: str = ""
    tags: Mapping[str, str] = {}
    """Pinned: a client may add tags, never override these."""
    allow_models: tuple[str, ...] = ()
    deny_models: tuple[str, ...] = ()
    expires_at: int = NO_EXPIRY
    """UTC ns."""
    origin: Origin = Origin.STORE
    place: str = ""


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
    output_limit_field: str = "max_tokens"
    """Where an absent output limit is inserted: `max_tokens` or `max_completion_tokens`."""
    has_hidden_output: bool = False
    """Its models may reason out of sight, so a cut answer cannot be counted."""
    headers: Mapping[str, str] = {}
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


class ModelRoute(msgspec.Struct, frozen=True):
    """A model name that clients use, and the provider and model that serve and bill it."""

    name: str
    provider: str
    model: str


class Settings(msgspec.Struct, frozen=True):
    """The gateway's named limits and policies."""

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


class Route(msgspec.Struct, frozen=True):
    """Where a model name leads."""

    provider: Provider
    model: str
    """Name at the provider."""


class Snapshot:
    """See the module. Look-ups by model are remembered; a snapshot is never changed otherwise."""

    __slots__ = ("_models", "_routes", "book", "budgets", "keys", "providers", "rules", "settings", "version")

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
        version: int = 0,
    ) -> None:
        self.settings = settings
        self.providers = {provider.name: provider for provider in providers}
        self._models = models
        self.keys = {bytes.fromhex(key.secret_sha256): key for key in keys}
        self.budgets = budgets
        self.rules = rules + tuple(
            AccessRule({"key": key.name}, key.allow_models, key.deny_models)
            for key in keys
            if key.allow_models or key.deny_models
        )
        self.book = book
        self.version = version
        self._routes: dict[tuple[Dialect, str], Route | None] = {}

    def key_of(self, secret: bytes) -> KeySpec | None:
        """The key a bearer presents, by the hash of its secret."""
        return self.keys.get(sha256(secret).digest())

    def route(self, dialect: Dialect, model: str) -> Route | None:
        """Where a model name leads for a client of this dialect: a named route first, then provider patterns."""
        key = (dialect, model)
        found = self._routes.get(key, _MISSING)
        if found is _MISSING:
            found = self._find_route(dialect, model)
            if len(self._routes) >= 10_000:  # names come from clients: bound what is remembered
                self._routes.clear()
            self._routes[key] = found
        return found  # type: ignore[return-value]

    def _find_route(self, dialect: Dialect, model: str) -> Route | None:
        for route in self._models:
            provider = self.providers.get(route.provider)
            if route.name == model and provider is not None and provider.dialect is dialect:
                return Route(provider, route.model)
        for provider in self.providers.values():
            if provider.dialect is dialect and any(pattern_matches(name, model) for name in provider.models):
                return Route(provider, model)
        return None

    def model_names(self, dialect: Dialect) -> list[str]:
        """Names a client of this dialect can use: routes, and priced names that a provider's patterns serve."""
        names = {
            route.name: None
            for route in self._models
            if (provider := self.providers.get(route.provider)) is not None and provider.dialect is dialect
        }
        for provider in self.providers.values():
            if provider.dialect is dialect:
                for name in self.book.names(provider.prices):
                    if any(pattern_matches(pattern, name) for pattern in provider.models):
                        names.setdefault(name)
                names.update({name: None for name in provider.models if not name.endswith("*")})
        return list(names)


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
