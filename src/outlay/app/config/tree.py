"""outlay.yaml as records: one frozen tree. Says what may be written there; reads, checks and builds nothing.

Every entry of `keys`, `budgets` and `prices` is also the body of a stored object (made by CLI or API), so both ways
have the same fields. Amounts are decimal text, never floats. The `Reading` mark of a field says how its scalar is read.
"""

from enum import StrEnum
from typing import Annotated

import msgspec

from outlay.flow.authorize import Clamp
from outlay.flow.gateway.snapshot import ClientAuth, OnClientGone, Progressive, Settings, Strategy
from outlay.flow.outcome import Billing
from outlay.flow.runaway import RunawayAction
from outlay.wire.intent import Dialect, Operation

NO_LIMIT = "none"
"""As `limit_usd`: the budget only meters."""


class Reading(StrEnum):
    """How the scalar of a text field is read and shown."""

    SECRET = "secret"
    """Never printed."""
    LABEL = "label"
    """Text, or a number taken as it is written (`customer: 1042`)."""
    AMOUNT = "amount"
    """Decimal text, finite, 0 or more; a YAML number is taken from its source text."""
    LIMIT = "limit"
    """An amount, or `none`."""
    MOMENT = "moment"
    """ISO date or date and time; without an offset it is UTC."""


Secret = Annotated[str, Reading.SECRET]
Label = Annotated[str, Reading.LABEL]
Amount = Annotated[str, Reading.AMOUNT]
Limit = Annotated[str, Reading.LIMIT]
Moment = Annotated[str, Reading.MOMENT]
Amounts = dict[str, Amount]
"""Token class (`input`, `output`, `cache_read`, `cache_write`, ...) -> USD per 10**6 tokens."""


class Sync(StrEnum):
    """When the ledger's file is safe on the disk."""

    NORMAL = "normal"
    """Survives a killed process; after a host crash the gateway waits for the operator."""
    FULL = "full"
    """Survives a host crash; each commit waits for the disk."""


class GatewaySection(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`gateway:`. Where it listens, how it writes, and every named limit and policy of `Settings`."""

    host: str = "127.0.0.1"
    port: int = 4100
    """0: any free port."""
    sync: Sync = Sync.NORMAL


class Role(StrEnum):
    """What a person of the console may do."""

    ADMIN = "admin"
    """Everything."""
    APPROVER = "approver"
    """Decide asks of their scope up to their amount, and ask; read everything."""
    VIEWER = "viewer"
    """Read everything."""


class PersonEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody who signs in to the console."""

    name: str
    """`console:NAME` is kept with each of their changes."""
    token: Secret
    """At least 16 characters; its own for each person."""
    role: Role = Role.VIEWER
    scope: dict[str, Label] = {}
    """Of an approver: only asks and raises of accounts whose scope has all of these values; empty: all."""
    max_raise_usd: Amount | None = None
    """Of an approver: most that their raises in force may add to one account; absent: no bound."""


class ConsoleSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`console:`. Pages and JSON API for operators."""

    host: str = "127.0.0.1"
    port: int = 4101
    """0: any free port."""
    admin_token: Secret = ""
    """At least 16 characters. The console does not start without one."""
    url: str = ""
    """Address at which people's browsers reach it: in links of refusals; `http://host:port` if absent."""
    people: tuple[PersonEntry, ...] = ()
    """Who signs in beside the admin."""

    @property
    def address(self) -> str:
        """Where browsers reach it, without a slash at the end; "" if that cannot be known."""
        if self.url:
            return self.url.rstrip("/")
        if not self.port:
            return ""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def raise_url(self) -> str:
        """Where a person asks for more; `{request_id}` is filled in. "" without a token or an address."""
        if not self.admin_token or not self.address:
            return ""
        return f"{self.address}/approvals?request={{request_id}}"


class PassEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One route that is let through unread: always held and booked at this price."""

    path: str
    """As the client asks for it: exact, or a prefix that ends in `*`."""
    method: str = "*"
    usd_per_request: Amount = "0"
    usd_per_second: Amount = "0"
    max_seconds: int = 0
    """With a price per second: the call is cut then."""


class ProviderEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An upstream. `openai` and `anthropic` know their own defaults; everything else states dialect and base_url."""

    name: str
    dialect: Dialect | None = None
    base_url: str = ""
    """As the vendor's SDK takes it: `https://api.openai.com/v1`, `https://api.anthropic.com`."""
    api_key: Secret = ""
    prices: str = ""
    """Name in the price book; the provider's own name if absent."""
    self_hosted: bool = False
    """An engine of our own: cancelling stops it, so billing, on_client_gone and keepalive_s default accordingly."""
    billing: Billing | None = None
    on_client_gone: OnClientGone | None = None
    models: tuple[str, ...] | None = None
    """Names or `prefix*` served under their own names. `*` is asked last, whatever the order of providers."""
    output_limit_field: str = ""
    """`max_tokens` or `max_completion_tokens`."""
    apis: tuple[Operation, ...] = ()
    """Generation APIs it serves (`chat`, `responses`, `messages`, `generate_content`), the first is what others are
    translated to; and `rerank` of an engine."""
    client_auth: ClientAuth = ClientAuth.NONE
    """Whose credential goes there: `none` (its own `api_key`), `own` (a client's, beside its virtual key), `same`."""
    api_version: str = ""
    """Azure's older form: `/deployments/<model>/...?api-version=`, header `api-key`."""
    aws_region: str = ""
    aws_access_key_id: Secret = ""
    aws_secret_access_key: Secret = ""
    aws_session_token: Secret = ""
    passthrough: tuple[PassEntry, ...] = ()
    """Routes that Outlay does not know, let through at a price."""
    max_concurrent: int = 0
    """Calls in flight at each of its models; 0: no limit."""
    progressive: Progressive = Progressive.OFF
    """Streams without an output limit are held slice by slice: `events`, `usage` or `bytes` say how what passed is
    counted. Only for engines where cancelling stops billing."""
    run_ahead_tokens: int = 32
    """Output the engine may have made but not sent; a growing hold always covers it."""
    has_hidden_output: bool | None = None
    """Its models may reason out of sight, so a cut answer cannot be counted."""
    headers: dict[str, Secret] = {}
    send_request_id: bool = False
    max_connections: int = 512
    connect_timeout_s: int = 10
    first_byte_timeout_s: int = 600
    idle_timeout_s: int = 300
    keepalive_s: int | None = None
    ca_file: str = ""
    """Certificates to trust instead of the system's; relative to the YAML's folder."""


class TargetEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of several places where a model name is served."""

    provider: str
    model: str
    weight: int = 1
    """Share of the calls, of the weighted strategy."""
    max_concurrent: int = 0
    """Calls in flight; 0: the provider's."""


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model name that clients use, and what serves and bills it: one provider and model, or several targets."""

    name: str
    provider: str = ""
    model: str = ""
    targets: tuple[TargetEntry, ...] = ()
    """In the place of provider and model: several; the next is asked when one fails or refuses for its load."""
    strategy: Strategy = Strategy.ORDERED
    """Which is asked first: `ordered`, `weighted`, `cheapest`."""
    retries: int = 0
    """Further rounds through the targets. Every attempt is held and billed."""
    backoff_ms: int = 250
    """Pause before the first of those rounds; doubles each round."""


class PreviousEntry(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A secret that a key had before its rotation. Give `secret` or `secret_sha256`."""

    secret: Secret = ""
    secret_sha256: Secret = ""
    """64 hexadecimal digits."""
    until: Moment
    """From then on this secret is refused; the key and its other secrets are not."""


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A virtual key. Give `secret` or `secret_sha256`; once read only the hash is kept."""

    name: str
    secret: Secret = ""
    """At least 16 characters."""
    secret_sha256: Secret = ""
    """64 hexadecimal digits."""
    org: Label = ""
    """The file's `org` if absent."""
    team: Label = ""
    project: Label = ""
    user: Label = ""
    agent: Label = ""
    workload: Label = ""
    deployment: Label = ""
    environment: Label = ""
    customer: Label = ""
    tags: dict[str, Label] = {}
    """Pinned: clients may add tags; another value of one of these is refused."""
    allow_models: tuple[str, ...] = ()
    deny_models: tuple[str, ...] = ()
    run_parent: Label = ""
    """Run above all runs of this key: a fresh run name evades no cap, and calls without a run are its own."""
    expires: Moment | None = None
    """From then on the key is refused; a bare date means its first moment, UTC."""
    previous: tuple[PreviousEntry, ...] = ()
    """Secrets before the last rotations, each with its own end: `outlay key rotate` writes them for stored keys."""


class TagEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The policy of one tag."""

    name: str
    required: bool = False
    """Calls without it are refused."""
    allowed: tuple[Label, ...] = ()
    """Values or `prefix*` that a client may give; empty allows all."""
    client_settable: bool = True
    """False: only a key or a token sets it."""
    scope: dict[str, Label] = {}
    """Of which callers it is required, and for which the default is filled in."""
    default: Label = ""
    """Filled in where nobody sets it."""
    shadow: bool = False
    """Record what would have been refused; refuse nothing."""


class IssuerEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who issues tokens (JWT, OIDC) that stand for a virtual key."""

    name: str
    issuer: str
    """`iss` of its tokens, exactly."""
    audience: str
    """`aud` of tokens that are meant for this gateway."""
    key: str
    """Virtual key whose pins, budgets and rules a bearer has."""
    jwks_url: str = ""
    """Its public keys; fetched in the background. https, or http on this machine."""
    jwks_file: str = ""
    """The same as a file, relative to the YAML's folder."""
    public_key_file: str = ""
    """One public key as PEM."""
    secret: Secret = ""
    """A shared secret (HS256), at least 32 characters. Discouraged: who can check a token can write one."""
    algorithms: tuple[str, ...] = ()
    """RS256 and ES256 if absent; HS256 with a secret."""
    claims: dict[str, str] = {}
    """Dimension or `tags.NAME` -> claim: `sub`, `groups[0]`, `realm.team`. Fills in what the key leaves open."""
    max_age_s: int = 0
    """Older tokens (`iat`) are refused; 0: their `exp` alone decides."""
    ca_file: str = ""
    """Certificates to trust for `jwks_url` instead of the system's; relative to the YAML's folder."""


class BudgetEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A budget. `hard` unless `soft: true`: a soft one counts and reports, and never refuses."""

    name: str
    scope: dict[str, Label] = {}
    """Dimension or `tag.NAME` -> value, `prefix*` or `*` (one account per value); empty covers everything."""
    limit_usd: Limit
    window: str = "month"
    """day, week, month, quarter, year, lifetime, or a rolling length: 90s, 5m, 24h, 7d."""
    timezone: str = "UTC"
    """IANA name; matters for calendar windows."""
    hard: bool | None = None
    soft: bool | None = None

    @property
    def is_hard(self) -> bool:
        """Whether it refuses."""
        return self.soft is not True and self.hard is not False


class RungEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One step of a downgrade ladder."""

    at_percent: int
    """Of the budget's limit that is spent."""
    budget: str
    use: str = ""
    """Model that is used instead."""
    pause: bool = False
    """Calls are paused (402) until somebody approves more."""
    models: tuple[str, ...] = ()
    """Names or `prefix*` that are downgraded; empty: all but `use`."""


class HoursEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """When calls may begin."""

    days: tuple[str, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    start: str = "00:00"
    end: str = "24:00"
    """Earlier than the start: over midnight."""
    timezone: str = "UTC"


class PolicyEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a scope may do beyond its budgets. All policies that cover a call apply."""

    name: str
    scope: dict[str, Label] = {}
    shadow: bool = False
    """Record what would have been refused or rerouted; refuse and reroute nothing."""
    allow_models: tuple[str, ...] = ()
    deny_models: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    """Targets of these are asked first, in this order."""
    max_input_usd_per_mtok: Amount | None = None
    """Dearer models are not asked."""
    max_output_usd_per_mtok: Amount | None = None
    max_usd_per_call: Amount | None = None
    """Worst case of one call."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Input and output; a call counts at its upper bound until it has settled."""
    parallel: int | None = None
    """Calls in flight."""
    usd_per_minute: Amount | None = None
    """Spend velocity: a budget over a rolling minute."""
    usd_per_hour: Amount | None = None
    ladder: tuple[RungEntry, ...] = ()
    hours: HoursEntry | None = None
    runaway: RunawayAction | None = None
    """In the place of `gateway.runaway`: `off`, `warn`, `pause` or `cut`."""
    clamp: Clamp | None = None
    """In the place of `gateway.clamp`."""


class AlertTargetEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody who is told: a webhook, or any service that apprise knows."""

    name: str
    url: Secret = ""
    """Of apprise: `slack://...`, `mailtos://...`, `pagerduty://...`, `msteams://...`."""
    webhook: Secret = ""
    """An http(s) address that gets JSON."""
    secret: Secret = ""
    """Signs the webhook's body: `x-outlay-signature: t=SECONDS,v1=HMAC-SHA256(SECONDS.BODY)`."""


class AlertRuleEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When to tell: thresholds in per cent of a budget's limit, each once a period."""

    name: str
    budgets: tuple[str, ...] = ("*",)
    """Names or patterns (`team-*`)."""
    percent: tuple[int, ...] = ()
    """Of actual spend."""
    run_rate_percent: tuple[int, ...] = ()
    """Of what the window will have cost at its end, if it goes on so."""
    targets: tuple[str, ...] = ()
    """Names; empty: all."""


class AlertsSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`alerts:`. Who is told when a budget nears its limit."""

    targets: tuple[AlertTargetEntry, ...] = ()
    rules: tuple[AlertRuleEntry, ...] = ()
    link: str = ""
    """Put into each message: where people look (the console's budgets)."""


class AccessEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which models a scope may call; deny wins, an empty allow list allows all."""

    scope: dict[str, Label] = {}
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


class _Price(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="kind",
):
    """What all kinds of price share. Records and meaning: `lookup.overrides`."""

    name: str = ""
    """Stands in the price id and in the source."""


class DiscountEntry(_Price, frozen=True, kw_only=True, tag="discount"):
    """A contract: token rates times a multiplier, from one date until another."""

    provider: str
    multiplier: Amount
    model: str = "*"
    includes_fees: bool = False
    valid_from: Moment | None = None
    valid_to: Moment | None = None


class LongContextEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rates for calls of more than so many input tokens in total."""

    above_input_tokens: int
    usd_per_mtok: Amounts


class CustomEntry(_Price, frozen=True, kw_only=True, tag="custom"):
    """A model with a price of the operator's own."""

    provider: str
    model: str
    usd_per_mtok: Amounts
    aliases: tuple[str, ...] = ()
    long_context: tuple[LongContextEntry, ...] = ()
    variants: dict[str, Amounts] = {}
    geo_multipliers: dict[str, Amount] = {}
    usd_per_1000_uses: dict[str, Amount] = {}
    usd_per_unit: dict[str, Amount] = {}
    """Unit (`image`, `audio_ms`, `character`, `search_unit`, ...) -> USD for one of it."""
    usd_per_request: Amount = "0"
    context_window: int | None = None
    max_output_tokens: int | None = None
    input_overhead_tokens: int = 0
    valid_from: Moment | None = None
    valid_to: Moment | None = None


class FeeEntry(_Price, frozen=True, kw_only=True, tag="fee"):
    """A flat fee on every call."""

    provider: str
    usd_per_request: Amount
    model: str = "*"
    valid_from: Moment | None = None
    valid_to: Moment | None = None


class AccountEntry(_Price, frozen=True, kw_only=True, tag="account"):
    """What the operator's account at a vendor defaults to."""

    provider: str
    tiers: tuple[str, ...] = ()
    geos: tuple[str, ...] = ()
    valid_from: Moment | None = None
    valid_to: Moment | None = None


class SelfHostedEntry(_Price, frozen=True, kw_only=True, tag="self_hosted"):
    """An engine of our own, priced per token, or per machine-hour with a throughput."""

    provider: str
    model: str = "*"
    usd_per_mtok: Amounts = {}
    usd_per_hour: Amount | None = None
    count: int = 1
    tokens_per_second: Amount | None = None
    input_tokens_per_second: Amount | None = None
    aliases: tuple[str, ...] = ()
    usd_per_request: Amount = "0"
    context_window: int | None = None
    max_output_tokens: int | None = None
    valid_from: Moment | None = None
    valid_to: Moment | None = None


class CeilingEntry(_Price, frozen=True, kw_only=True, tag="ceiling"):
    """Price at which calls to unknown models are held and charged, instead of being refused."""

    usd_per_mtok: Amounts
    provider: str = "*"
    context_window: int | None = None
    usd_per_1000_uses: dict[str, Amount] = {}
    usd_per_request: Amount = "0"


PriceEntry = DiscountEntry | CustomEntry | FeeEntry | AccountEntry | SelfHostedEntry | CeilingEntry
ObjectEntry = KeyEntry | BudgetEntry | PolicyEntry | PriceEntry
"""What a stored object holds."""


class Declared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    version: int = 1
    """Of this format."""
    org: Label = "default"
    """Organisation of keys that name none."""
    ledger: str = "outlay.db"
    """SQLite file, relative to the YAML's folder (`sqlite:///path` is the same), or a `postgresql://` address."""
    gateway: GatewaySection = GatewaySection()
    console: ConsoleSection = ConsoleSection()
    providers: tuple[ProviderEntry, ...] = ()
    models: tuple[ModelEntry, ...] = ()
    keys: tuple[KeyEntry, ...] = ()
    budgets: tuple[BudgetEntry, ...] = ()
    policies: tuple[PolicyEntry, ...] = ()
    alerts: AlertsSection = AlertsSection()
    access: tuple[AccessEntry, ...] = ()
    prices: tuple[PriceEntry, ...] = ()
    tags: tuple[TagEntry, ...] = ()
    identity: tuple[IssuerEntry, ...] = ()


def price_name(entry: PriceEntry) -> str:
    """Name of a price among all prices of file and store.

    A model's own price is `provider/model`, with `@valid_from` if dated, so that successive prices stand side by
    side. Other kinds are named by the operator, or `kind:provider/model`.
    """
    if isinstance(entry, CustomEntry | SelfHostedEntry):
        return f"{entry.provider}/{entry.model}" + (f"@{entry.valid_from}" if entry.valid_from else "")
    if entry.name:
        return entry.name
    kind = str(entry.__struct_config__.tag)
    model = entry.model if isinstance(entry, DiscountEntry | FeeEntry) else "*"
    start = None if isinstance(entry, CeilingEntry) else entry.valid_from
    return f"{kind}:{entry.provider}/{model}" + (f"@{start}" if start else "")
