"""`outlay.wrap` and `outlay.run`: puts together what a wrapped client needs (ledger file, prices, budgets, config).

Assembly only. The vendor's SDK is known by the module of the client that is given.
"""

import os
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from uuid import uuid4

import msgspec

from outlay.app.config import build_snapshot, load_config
from outlay.app.config.convert import provider_of, with_defaults
from outlay.app.config.tree import ProviderEntry
from outlay.app.control import feed_cache
from outlay.flow.budgets import BudgetSpec
from outlay.flow.gateway.caller import clean_text
from outlay.flow.gateway.snapshot import Disclose, Mode, Provider, Settings, Snapshot, parse_base_url
from outlay.flow.ledger.direct import DirectLedger
from outlay.flow.ledger.place import is_database
from outlay.flow.policy import PolicySpec, budgets_of, rules_of
from outlay.flow.runs import MAX_CALLS, MAX_SECONDS
from outlay.flow.scope import MAX_VALUE_LENGTH, Identity
from outlay.flow.sdk.callbacks.tally import Tally
from outlay.flow.sdk.clients import is_wrapped, wrap_client
from outlay.flow.sdk.google import refuse_google, wrap_google
from outlay.flow.sdk.meter import Meter
from outlay.flow.sdk.policies import check_policies
from outlay.flow.sdk.runs import Run
from outlay.flow.sdk.settler import Settler
from outlay.flow.sdk.watches import EmbeddedWatch, RemoteWatch, refused_response
from outlay.flow.windows import Window, WindowKind, parse_window
from outlay.kernel.clock import SystemClock
from outlay.kernel.errors import ConfigError
from outlay.kernel.money import MoneyError, usd_to_nanos
from outlay.lookup.book import PriceBook
from outlay.lookup.feed import load_feed
from outlay.lookup.overrides import Ceiling, Override, SelfHosted
from outlay.wire.intent import Dialect

Client = TypeVar("Client")
Usd = str | int | float | Decimal
"""An amount of US dollars; a float is taken as it prints."""

DEFAULT_ORG: Final = "default"
FILE_NAME: Final = "sdk.db"
HOSTS: Final[Mapping[str, str]] = {
    "api.openai.com": "openai",
    "eu.api.openai.com": "openai",
    "us.api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "google",
    "api.groq.com": "groq",
    "openrouter.ai": "openrouter",
    "api.mistral.ai": "mistral",
    "api.deepseek.com": "deepseek",
    "api.x.ai": "x-ai",
    "api.together.xyz": "together",
    "api.fireworks.ai": "fireworks",
    "api.cerebras.ai": "cerebras",
    "api.perplexity.ai": "perplexity",
}
"""Whose prices hold at a host."""


class Vendor(NamedTuple):
    """An SDK that can be wrapped."""

    dialect: Dialect
    gateway_path: str
    """What its base URL has after a gateway's address."""


VENDORS: Final[Mapping[str, Vendor]] = {
    "openai": Vendor(Dialect.OPENAI, "/v1"),
    "anthropic": Vendor(Dialect.ANTHROPIC, ""),
    "google": Vendor(Dialect.GOOGLE, ""),
}


def wrap(
    client: Client,
    *,
    budget_usd: Usd | None = None,
    budget: str = "",
    budgets: Sequence[BudgetSpec] = (),
    config: str | Path | None = None,
    ledger: str | Path | None = None,
    provider: str | Provider = "",
    prices: Sequence[Override | SelfHosted | Ceiling] = (),
    book: PriceBook | None = None,
    gateway: str = "",
    key: str = "",
    wait_s: int | None = None,
    settings: Settings | None = None,
    **identity: Any,
) -> Client:
    """A copy of a vendor's client of which nothing leaves unmetered; the given client stays as it is.

    Embedded (the default): every call is held in the ledger file before it leaves and settled after it.
    `budget_usd` caps what this wrap may ever spend; with a name (`budget`) the cap is shared by every wrap of that
    name on the same file, over processes and restarts. `budgets` and the budgets, access rules and policies of a
    `config` file (outlay.yaml) apply as well; a part of a policy that only a gateway can hold to is a ConfigError.
    `ledger`: the file, by default one in the user's state directory. `provider`: whose prices hold at the client's base
    URL, where that is not a known host. `prices`: models of your own, discounts, ceilings; `book`: a whole price book
    instead. `identity`: org, team, user, agent, customer, tags, ... of the calls.

    Against a gateway (`gateway` and `key`): the client's base URL and key become the gateway's, which does the rest.

    A refused call raises `outlay.BudgetExceeded` (or `outlay.CallRefused`), which is the SDK's own error too. Raises
    ConfigError, StoreError, and ValueError for a client that is wrapped already.
    """
    vendor = _vendor_of(client)
    if is_wrapped(getattr(client, "_api_client", client)):
        raise ValueError(
            "this client is wrapped already, and a call cannot be under two wraps: wrap the client it was made of, with"
            " all budgets at once (budgets=[outlay.budget(...), ...])"
        )
    clock = SystemClock()
    refuser = refuse_google if vendor.dialect is Dialect.GOOGLE else partial(refused_response, vendor.dialect)
    if gateway:
        if budget_usd is not None or budgets or config or ledger:
            raise ConfigError(
                "with gateway=... the gateway keeps budgets and ledger; a run may have a budget_usd"
            )
        remote = RemoteWatch(gateway.rstrip("/"), clock, refuser, vendor.dialect is Dialect.GOOGLE)
        base = gateway.rstrip("/") + vendor.gateway_path
        return _to_gateway(client, vendor, remote, base, key)  # type: ignore[no-any-return]
    wanted = _Wanted(config, provider, tuple(prices), book, settings, wait_s)
    limit = None if budget_usd is None else _nanos(budget_usd, "budget_usd")
    own = _Own(budget or f"wrap-{uuid4().hex[:12]}", limit, tuple(budgets), identity)
    meter = _meter(clock, _file_of(ledger), wanted, own, (client, vendor))
    watch = EmbeddedWatch(meter, refuser)
    if vendor.dialect is Dialect.GOOGLE:
        return wrap_google(client, watch)  # type: ignore[no-any-return]
    return wrap_client(client, watch)  # type: ignore[no-any-return]


def litellm_callback(
    *, enforce: bool = False, budget_usd: Usd | None = None, budget: str = "", **more: Any
) -> Any:
    """A callback for LiteLLM: `litellm.callbacks = [outlay.litellm_callback(...)]`.

    Observe (the default): books what LiteLLM reports, by its tokens, after the fact; refuses nothing. `enforce`: also
    holds each *asynchronous* call before it is sent and refuses it by `outlay.BudgetExceeded`; LiteLLM offers its
    synchronous calls no such place, so those are only observed. For all calls use `wrap` and
    `litellm.completion(client=...)`. Other arguments as of `wrap`.
    """
    from outlay.flow.sdk.callbacks.litellm_logger import make_logger

    return make_logger(_tally(budget_usd, budget, more, enforce), enforce=enforce)


def langchain_callback(
    *, enforce: bool = False, budget_usd: Usd | None = None, budget: str = "", **more: Any
) -> Any:
    """A callback handler for LangChain: `model.invoke(..., config={"callbacks": [outlay.langchain_callback(...)]})`.

    Observe (the default): books what the model's answer states, after the fact; refuses nothing. `enforce`: holds each
    call of a model before it is made and refuses it by `outlay.BudgetExceeded`. What LangChain does not report (a
    model's own retries, calls without this callback) is not seen. Other arguments as of `wrap`.
    """
    from outlay.flow.sdk.callbacks.langchain_handler import make_handler

    return make_handler(_tally(budget_usd, budget, more, enforce), enforce=enforce)


def _tally(budget_usd: Usd | None, budget: str, more: dict[str, Any], enforce: bool) -> Tally:
    known = ("config", "prices", "book", "settings", "wait_s", "ledger", "budgets")
    said = {name: more.pop(name) for name in known if name in more}
    wanted = _Wanted(
        said.get("config"),
        "",
        tuple(said.get("prices", ())),
        said.get("book"),
        said.get("settings"),
        said.get("wait_s"),
        enforce,
    )
    limit = None if budget_usd is None else _nanos(budget_usd, "budget_usd")
    own = _Own(budget or f"callback-{uuid4().hex[:12]}", limit, tuple(said.get("budgets", ())), more)
    path = _file_of(said.get("ledger"))
    return Tally(_meter(SystemClock(), path, wanted, own, None))


def run(
    *,
    budget_usd: Usd | None = None,
    max_calls: int | None = None,
    max_seconds: int | None = None,
    name: str = "",
) -> Run:
    """A run, to be used as `with outlay.run(budget_usd=2) as run:`; limits hold for all calls made inside.

    A run inside a run draws from the outer one's remainder. `name` continues a run of that name on the same ledger.
    Raises ConfigError for an argument that no run can have.
    """
    limit = None if budget_usd is None else _nanos(budget_usd, "budget_usd")
    _check_count("max_calls", max_calls, MAX_CALLS)
    _check_count("max_seconds", max_seconds, MAX_SECONDS)
    _check_name(name)
    return Run(SystemClock(), name=name, limit_nanos=limit, max_calls=max_calls, max_seconds=max_seconds)


def budget(
    name: str,
    limit_usd: Usd | None,
    *,
    window: str = "lifetime",
    scope: Mapping[str, str] | None = None,
    timezone: str = "UTC",
    hard: bool = True,
) -> BudgetSpec:
    """A budget for `wrap(budgets=[...])`: a limit over a window, for the calls that `scope` selects (all, if none).

    `limit_usd` None only meters. Raises ConfigError.
    """
    try:
        found = parse_window(window, timezone)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return BudgetSpec(
        name, dict(scope or {}), None if limit_usd is None else _nanos(limit_usd, "limit_usd"), found, hard
    )


def _file_of(ledger: str | Path | None) -> Path:
    if ledger and is_database(str(ledger)):
        raise ConfigError(
            "an embedded ledger is a file; with a ledger in PostgreSQL, wrap(gateway=...)", key="ledger"
        )
    return Path(ledger) if ledger else default_ledger()


def default_ledger() -> Path:
    """The user's own ledger of embedded calls."""
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if state and Path(state).is_absolute() else Path.home() / ".local" / "state"
    return folder / "outlay" / FILE_NAME


class _Wanted(NamedTuple):
    config: str | Path | None
    provider: str | Provider
    prices: tuple[Override | SelfHosted | Ceiling, ...]
    book: PriceBook | None
    settings: Settings | None
    wait_s: int | None
    enforces: bool = True
    """Not so an observer, which refuses nothing."""


class _Own(NamedTuple):
    name: str
    limit_nanos: int | None
    budgets: tuple[BudgetSpec, ...]
    identity: dict[str, Any]


def _meter(
    clock: SystemClock, path: Path, wanted: _Wanted, own: _Own, client: tuple[Any, Vendor] | None
) -> Meter:
    """The meter of a wrap, or (`client` None) of a framework's callback."""
    identity = dict(own.identity)
    snapshot, org = _snapshot(client, path, str(identity.pop("org", "")), wanted)
    declared = list(snapshot.budgets)
    if own.limit_nanos is not None:
        window = Window(WindowKind.LIFETIME)
        declared.append(BudgetSpec(own.name, {"key": own.name}, own.limit_nanos, window))
    declared += own.budgets
    who = _identity(org, own.name, identity)
    if wanted.enforces:
        check_policies(snapshot.policies, who)
    opened = DirectLedger(path, clock)
    opened.declare(declared)
    dialect = Dialect.OPENAI if client is None else client[1].dialect
    return Meter(Settler(opened), snapshot, who, tuple(declared), clock, dialect)


def _snapshot(
    client: tuple[Any, Vendor] | None, ledger: Path, org: str, wanted: _Wanted
) -> tuple[Snapshot, str]:
    settings = wanted.settings or Settings(disclose=Disclose.ALL)
    providers: dict[str, Provider] = {}
    budgets: tuple[BudgetSpec, ...] = ()
    rules: tuple[Any, ...] = ()
    policies: tuple[PolicySpec, ...] = ()
    book = wanted.book
    feed = None if book is not None and wanted.config is None else load_feed(feed_cache(ledger))
    if wanted.config is not None and feed is not None:
        config = load_config(Path(wanted.config), os.environ)
        found = build_snapshot(config, (), feed, 0)
        providers, policies = dict(found.providers), found.policies
        # what policies mean as budgets and rules, a snapshot adds by itself: in it twice, a call would be held twice
        meant = [part for policy in policies for part in (*budgets_of(policy), *rules_of(policy))]
        budgets = tuple(budget for budget in found.budgets if budget not in meant)
        rules = tuple(rule for rule in found.rules if rule not in meant)
        settings = wanted.settings or msgspec.structs.replace(found.settings, disclose=Disclose.ALL)
        book, org = book or found.book, org or config.org
    if book is None:
        assert feed is not None
        book = PriceBook.build(feed)
    if wanted.prices:
        overrides = [price for price in wanted.prices if not isinstance(price, SelfHosted | Ceiling)]
        hosted = [price for price in wanted.prices if isinstance(price, SelfHosted)]
        ceilings = [price for price in wanted.prices if isinstance(price, Ceiling)]
        book = PriceBook.build(book.feed, (*book.overrides, *overrides), hosted, ceilings)
    if client is not None:
        own = _own_provider(*client, wanted.provider, providers)
        providers[own.name] = own
    if wanted.wait_s is not None:
        settings = msgspec.structs.replace(settings, wait_s=wanted.wait_s)
    # an embedded client has no mode: what is over is refused
    settings = msgspec.structs.replace(settings, mode=Mode.ENFORCE)
    made = Snapshot(
        settings=settings,
        providers=tuple(providers.values()),
        models=(),
        keys=(),
        budgets=budgets,
        rules=rules,
        book=book,
        policies=policies,
    )
    return made, org or DEFAULT_ORG


def _own_provider(
    client: Any, vendor: Vendor, named: str | Provider, known: Mapping[str, Provider]
) -> Provider:
    """Whom the client talks to, at its own base URL."""
    if isinstance(named, Provider):
        return named
    base = _base_url(client, vendor)
    try:
        address = parse_base_url(base)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not named:
        same = next(
            (
                provider
                for provider in known.values()
                for other in (parse_base_url(provider.base_url),)
                if (other.host, other.port) == (address.host, address.port)
            ),
            None,
        )
        if same is not None:
            return same
    name = named or HOSTS.get(address.host, "")
    if not name and address.host.endswith(".openai.azure.com"):
        name = "azure"
    if not name:
        raise ConfigError(
            f"Outlay does not know whose prices hold at {address.host}; say it with provider='openai' (a name of the"
            " price book), or prices=[...] and provider=... of your own"
        )
    if name in known:
        return msgspec.structs.replace(known[name], base_url=base)
    entry = with_defaults(ProviderEntry(name=name, dialect=vendor.dialect, base_url=base))
    return provider_of(entry, Path())


def _base_url(client: Any, vendor: Vendor) -> str:
    if vendor.dialect is Dialect.GOOGLE:
        return str(client._api_client._http_options.base_url)
    return str(client.base_url)


def _to_gateway(client: Any, vendor: Vendor, watch: RemoteWatch, base_url: str, key: str) -> Any:
    if not key:
        raise ConfigError("gateway=... needs key=..., a virtual key of that gateway")
    if vendor.dialect is Dialect.GOOGLE:
        return wrap_google(client, watch, base_url=base_url, api_key=key)
    return wrap_client(client, watch, base_url=base_url, api_key=key)


def _vendor_of(client: object) -> Vendor:
    for kind in type(client).__mro__:
        root = kind.__module__.partition(".")[0]
        if root == "google" and not kind.__module__.startswith("google.genai"):
            continue
        vendor = VENDORS.get(root)
        if vendor is not None and (hasattr(client, "_client") or hasattr(client, "_api_client")):
            return vendor
    raise ConfigError(
        f"{type(client).__module__}.{type(client).__name__} is no client that Outlay can wrap; it wraps those of"
        " openai, anthropic and google-genai (google.genai.Client)"
    )


def _identity(org: str, name: str, said: Mapping[str, Any]) -> Identity:
    allowed = set(Identity.__struct_fields__) - {
        "org",
        "key",
        "model",
        "provider",
        "billing",
        "run",
        "model_names",
    }
    unknown = set(said) - allowed
    if unknown:
        raise ConfigError(f"unknown argument {sorted(unknown)[0]!r}")
    tags = tuple(sorted((str(tag), str(value)) for tag, value in dict(said.get("tags", {})).items()))
    others = {field: str(value) for field, value in said.items() if field != "tags"}
    return Identity(org=org, key=name, tags=tags, model_names=(), **others)


def _nanos(amount: Usd, argument: str = "") -> int:
    key = argument or None
    try:
        nanos = usd_to_nanos(str(amount))
    except MoneyError as error:
        raise ConfigError(f"{error}; use US dollars such as 2 or '0.50'", key=key) from error
    if nanos < 0:
        raise ConfigError(f"a budget cannot be below zero, as {amount} is", key=key)
    return nanos


def _check_count(argument: str, value: object, most: int) -> None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most):
        return
    raise ConfigError(
        f"{value!r} is no whole number from 0 to {most}; leave it out for no limit", key=argument
    )


def _check_name(name: object) -> None:
    """A run's name is a header's value at a gateway and a dimension's in the ledger."""
    if isinstance(name, str) and clean_text(name) == name.strip():
        return
    raise ConfigError(
        f"{name!r:.100} cannot name a run; use up to {MAX_VALUE_LENGTH} bytes of printable text without `*` and without"
        " spaces around it",
        key="name",
    )
