"""What a value means: everything about an entry that its shape cannot say. Reports problems by path; builds nothing.

The same checks serve entries of outlay.yaml (`budgets[2].window`) and stored objects (`window`).
"""

import importlib.util
import re
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from outlay.app.config.alerts import check_alerts
from outlay.app.config.convert import price_record
from outlay.app.config.decode import joined
from outlay.app.config.identity import HASH, check_issuer, check_previous, check_tag
from outlay.app.config.policies import check_policy
from outlay.app.config.tree import (
    AccessEntry,
    AccountEntry,
    AlertsSection,
    BudgetEntry,
    CeilingEntry,
    ConsoleSection,
    CustomEntry,
    Declared,
    DiscountEntry,
    FeeEntry,
    GatewaySection,
    IssuerEntry,
    KeyEntry,
    ModelEntry,
    ObjectEntry,
    PolicyEntry,
    PriceEntry,
    ProviderEntry,
    Role,
    SelfHostedEntry,
    TagEntry,
)
from outlay.app.config.values import MIN_SECRET_LENGTH
from outlay.flow.budgets import RUN_METER
from outlay.flow.gateway.snapshot import GENERATION, Progressive, parse_base_url
from outlay.flow.ledger.place import Database, is_database
from outlay.flow.outcome import Billing
from outlay.flow.scope import DIMENSIONS, MAX_TAGS, MAX_VALUE_LENGTH, is_dimension
from outlay.flow.windows import parse_window
from outlay.kernel.errors import ConfigError
from outlay.lookup.book import PROVIDER_ALIASES
from outlay.lookup.overrides import ANY, check
from outlay.wire.intent import Dialect, Operation

VERSION: Final = 1
MAX_PORT: Final = 65_535
ADMIN: Final = "admin"
"""Name of whoever has `console.admin_token`."""
MAX_RETRIES: Final = 10
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_OWN_HEADERS: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "accept-encoding"}
)
_MAY_BE_ZERO: Final = frozenset(
    {
        "port",
        "max_concurrent",
        "wait_s",
        "extend_wait_ms",
        "run_ahead_tokens",
        "max_waiting",
        "max_waiting_bytes",
        "retry_after_s",
        "drain_timeout_s",
        "shutdown_timeout_s",
    }
)
_DIALECTS: Final = tuple(dialect.value for dialect in Dialect)
_APIS: Final = GENERATION | {Operation.RERANK}
_LIMIT_FIELDS: Final = ("max_tokens", "max_completion_tokens")
_PINNED: Final = (
    "org",
    "team",
    "project",
    "user",
    "agent",
    "workload",
    "deployment",
    "environment",
    "customer",
)

Report = Callable[[str, str], object]
"""Takes a path and a message."""


class Known(NamedTuple):
    """What entries may refer to. Names include those of entries that are too wrong to read."""

    folder: Path
    """Of the file."""
    providers: Collection[str]
    sources: Collection[str]
    """Names under which the price book is asked."""
    routed: Collection[str]
    """Providers that a top-level model leads to."""


def check_records(records: Mapping[str, msgspec.Struct], known: Known, report: Report) -> None:
    """Check every record of a file, given by path; providers with their defaults."""
    for path, record in records.items():
        match record:
            case Declared():
                _check_top(record, report)
            case GatewaySection() | ConsoleSection():
                _check_section(record, path, report)
            case ProviderEntry():
                _check_provider(record, known, path, report)
            case ModelEntry():
                _check_model(record, known, path, report)
            case KeyEntry():
                check_key(record, path, report)
            case BudgetEntry():
                check_budget(record, path, report)
            case AlertsSection():
                check_alerts(record, path, report)
            case PolicyEntry():
                _check_name(record.name, joined(path, "name"), report)
                _check_scope(record.scope, joined(path, "scope"), report)
                check_policy(record, path, report)
            case AccessEntry():
                _check_access(record, path, report)
            case TagEntry():
                _check_name(record.name, joined(path, "name"), report)
                _check_scope(record.scope, joined(path, "scope"), report)
                check_tag(record, path, report)
            case IssuerEntry():
                _check_name(record.name, joined(path, "name"), report)
                check_issuer(record, known.folder, path, report)
            case (
                DiscountEntry()
                | CustomEntry()
                | FeeEntry()
                | AccountEntry()
                | SelfHostedEntry()
                | CeilingEntry()
            ):
                check_price(record, known.sources, path, report)
            case _:
                pass


def check_entry(entry: ObjectEntry, declared: Declared, report: Report) -> None:
    """Check a stored object's body against the file it joins."""
    match entry:
        case KeyEntry():
            check_key(entry, "", report)
        case BudgetEntry():
            check_budget(entry, "", report)
        case PolicyEntry():
            _check_name(entry.name, "name", report)
            _check_scope(entry.scope, "scope", report)
            check_policy(entry, "", report)
        case _:
            check_price(entry, price_sources(declared.providers), "", report)


def check_key(key: KeyEntry, path: str, report: Report) -> None:
    """A key says who its bearer is, and has exactly one secret."""
    _check_name(key.name, joined(path, "name"), report)
    if key.secret and key.secret_sha256:
        report(path, "has both secret and secret_sha256; keep one")
    elif key.secret:
        if len(key.secret) < MIN_SECRET_LENGTH:
            report(
                joined(path, "secret"),
                f"shorter than {MIN_SECRET_LENGTH} characters; `outlay key create` makes one",
            )
    elif not key.secret_sha256:
        report(path, "needs a secret that is not empty, or secret_sha256; `outlay key create` makes one")
    elif not HASH.match(key.secret_sha256):
        report(joined(path, "secret_sha256"), "needs the 64 lower-case hexadecimal digits of a SHA-256")
    for name in _PINNED:
        value: str = getattr(key, name)
        if len(value) > MAX_VALUE_LENGTH:
            report(joined(path, name), f"longer than {MAX_VALUE_LENGTH} characters")
    if len(key.tags) > MAX_TAGS:
        report(joined(path, "tags"), f"more than {MAX_TAGS} tags")
    for name, value in key.tags.items():
        if not value or len(value) > MAX_VALUE_LENGTH:
            report(joined(path, f"tags.{name}"), f"needs 1 to {MAX_VALUE_LENGTH} characters")
    _check_patterns(key.allow_models, joined(path, "allow_models"), report)
    _check_patterns(key.deny_models, joined(path, "deny_models"), report)
    check_previous(key, path, report)
    if len(key.run_parent) > MAX_VALUE_LENGTH or "*" in key.run_parent:
        report(joined(path, "run_parent"), f"needs a name without `*`, at most {MAX_VALUE_LENGTH} characters")


def check_budget(budget: BudgetEntry, path: str, report: Report) -> None:
    """A budget has a scope that exists, a window that exists, and is hard or soft."""
    _check_name(budget.name, joined(path, "name"), report)
    if budget.name == RUN_METER:
        report(joined(path, "name"), f"{RUN_METER!r} is built in; choose another name")
    _check_scope(budget.scope, joined(path, "scope"), report)
    try:
        parse_window("month", budget.timezone)
    except ValueError as error:
        report(joined(path, "timezone"), str(error))
    try:
        parse_window(budget.window)
    except ValueError as error:
        report(joined(path, "window"), str(error))
    if budget.hard is not None and budget.soft is not None and budget.hard == budget.soft:
        report(joined(path, "soft"), "contradicts `hard`; keep one of them")


def check_price(price: PriceEntry, sources: Collection[str], path: str, report: Report) -> None:
    """A price can be computed with, and belongs to a provider that exists."""
    if not isinstance(price, CeilingEntry) or price.provider != ANY:
        canonical = {PROVIDER_ALIASES.get(source, source) for source in sources}
        is_own = isinstance(price, CustomEntry | SelfHostedEntry)
        if price.provider not in (sources if is_own else canonical | set(sources)):
            report(joined(path, "provider"), _unknown("provider (or price source)", price.provider, sources))
    try:
        check(price_record(price), path)
    except ConfigError as error:
        report(error.key or path, error.problem)


def price_sources(providers: Collection[ProviderEntry]) -> set[str]:
    """Names under which the price book is asked."""
    return {provider.prices or provider.name for provider in providers}


def _check_name(name: str, path: str, report: Report) -> None:
    if not name or len(name) > MAX_VALUE_LENGTH or name != name.strip():
        report(path, f"needs 1 to {MAX_VALUE_LENGTH} characters without spaces around them")


def _check_ledger(ledger: str, report: Report) -> None:
    scheme, separator, _ = ledger.partition("://")
    if is_database(ledger):
        if not Database(ledger).is_readable:
            report(
                "ledger",
                "cannot be read as postgresql://user:password@host/database;"
                " escape @ : / ? # in the password (%40 %3A %2F %3F %23)",
            )
        elif importlib.util.find_spec("psycopg") is None:
            report("ledger", "needs PostgreSQL's driver; pip install 'outlay[postgres]'")
    elif separator and scheme != "sqlite":
        report(
            "ledger",
            f"unknown kind of ledger {scheme!r}; give a SQLite file such as outlay.db, or a postgresql:// address",
        )
    elif not ledger_text(ledger) or ledger_text(ledger).endswith("/"):
        report("ledger", "needs the path of a file such as outlay.db")


def ledger_text(ledger: str) -> str:
    """The path in a `ledger` value: `sqlite:///outlay.db` is relative, `sqlite:////var/outlay.db` absolute."""
    rest = ledger.removeprefix("sqlite://")
    return ledger if rest == ledger else rest.removeprefix("/")


def _check_top(declared: Declared, report: Report) -> None:
    if declared.version != VERSION:
        report("version", f"this release reads version {VERSION}, not {declared.version}")
    _check_name(declared.org, "org", report)
    _check_ledger(declared.ledger, report)
    gateway, console = declared.gateway, declared.console
    if gateway.port == console.port != 0 and gateway.host == console.host:
        report("console.port", "is the gateway's port; choose another")


def _check_section(section: GatewaySection | ConsoleSection, path: str, report: Report) -> None:
    if section.port > MAX_PORT:
        report(f"{path}.port", f"must be between 0 (any free port) and {MAX_PORT}")
    if not section.host or any(letter.isspace() or letter == "/" for letter in section.host):
        report(f"{path}.host", "needs a host name or an IP address")
    if isinstance(section, ConsoleSection):
        if section.admin_token and len(section.admin_token) < MIN_SECRET_LENGTH:
            report(
                f"{path}.admin_token", f"shorter than {MIN_SECRET_LENGTH} characters; use a long random one"
            )
        _check_people(section, path, report)
        return
    _check_positive(section, path, report)
    if section.min_output_tokens > section.default_max_output_tokens:
        report(f"{path}.min_output_tokens", "is above default_max_output_tokens")


def _check_people(section: ConsoleSection, path: str, report: Report) -> None:
    if section.url and not re.match(r"https?://[^/?#\s]+/?\Z", section.url):
        report(f"{path}.url", "needs http:// or https:// and a host, without a path")
    names: set[str] = set()
    tokens = {section.admin_token}
    for index, person in enumerate(section.people):
        at = f"{path}.people[{index}]"
        _check_name(person.name, f"{at}.name", report)
        _check_scope(person.scope, f"{at}.scope", report)
        if person.name in names or person.name == ADMIN:
            report(f"{at}.name", f"the name {person.name!r} is taken; choose another")
        names.add(person.name)
        if len(person.token) < MIN_SECRET_LENGTH:
            report(f"{at}.token", f"shorter than {MIN_SECRET_LENGTH} characters; use a long random one")
        elif person.token in tokens:
            report(f"{at}.token", "is somebody else's, too; give each their own")
        tokens.add(person.token)
        if person.role is not Role.APPROVER and (person.scope or person.max_raise_usd is not None):
            report(f"{at}.role", "scope and max_raise_usd are an approver's")


def _check_model(model: ModelEntry, known: Known, path: str, report: Report) -> None:
    _check_name(model.name, f"{path}.name", report)
    if not model.targets:
        _check_name(model.model, f"{path}.model", report)
        if model.provider not in known.providers:
            report(f"{path}.provider", _unknown("provider", model.provider, known.providers))
    elif model.provider or model.model:
        report(f"{path}.targets", "stands beside provider and model; keep one form")
    if model.retries > MAX_RETRIES:
        report(f"{path}.retries", f"above {MAX_RETRIES}: each attempt may be billed")
    if model.backoff_ms < 1:
        report(f"{path}.backoff_ms", "must be 1 or more")
    for index, target in enumerate(model.targets):
        at = f"{path}.targets[{index}]"
        _check_name(target.model, f"{at}.model", report)
        if target.provider not in known.providers:
            report(f"{at}.provider", _unknown("provider", target.provider, known.providers))
        if target.weight < 1:
            report(f"{at}.weight", "must be 1 or more; leave the target out instead")


def _check_passthrough(provider: ProviderEntry, path: str, report: Report) -> None:
    for index, rule in enumerate(provider.passthrough):
        at = f"{path}.passthrough[{index}]"
        if not rule.path.startswith("/") or "*" in rule.path[:-1]:
            report(f"{at}.path", "needs a path that begins with `/`; a `*` may only end it")
        if not _HEADER.match(rule.method) and rule.method != "*":
            report(f"{at}.method", "needs a method such as POST, or `*`")
        is_timed = Decimal(rule.usd_per_second) > 0
        if is_timed != (rule.max_seconds > 0):
            report(f"{at}.max_seconds", "goes with usd_per_second: a price per second needs a longest time")
        if not is_timed and Decimal(rule.usd_per_request) == 0:
            report(
                f"{at}.usd_per_request",
                "needs a price, per request or per second: nothing passes for nothing",
            )


def _check_positive(section: GatewaySection | ProviderEntry, path: str, report: Report) -> None:
    for name in section.__struct_fields__:
        value = getattr(section, name)
        if isinstance(value, int) and not isinstance(value, bool) and value < 1 and name not in _MAY_BE_ZERO:
            report(joined(path, name), "must be 1 or more")


def _check_provider(provider: ProviderEntry, known: Known, path: str, report: Report) -> None:
    _check_name(provider.name, f"{path}.name", report)
    if provider.dialect is None:
        report(f"{path}", f"needs dialect: {', '.join(_DIALECTS[:-1])} or {_DIALECTS[-1]}")
    if not provider.base_url:
        report(f"{path}", "needs base_url: where the provider listens")
    else:
        try:
            parse_base_url(provider.base_url)
        except ValueError:
            # its own message would show what the environment or a password put there
            report(
                f"{path}.base_url",
                "needs an http:// or https:// address without user name, query or fragment",
            )
    if provider.output_limit_field not in _LIMIT_FIELDS:
        report(f"{path}.output_limit_field", f"use {' or '.join(_LIMIT_FIELDS)}")
    _check_positive(provider, path, report)
    _check_patterns(provider.models or (), f"{path}.models", report)
    for api in provider.apis:
        if api not in _APIS:
            names = ", ".join(sorted(known_api.value for known_api in _APIS))
            report(f"{path}.apis", f"{api.value!r} is not chosen here; use {names}")
    _check_passthrough(provider, path, report)
    if provider.progressive is not Progressive.OFF and (
        provider.billing is not Billing.SELF_HOSTED or provider.has_hidden_output
    ):
        report(
            f"{path}.progressive",
            "only where cancelling stops billing and all output is seen: an engine with `self_hosted: true`",
        )
    if bool(provider.aws_access_key_id) != bool(provider.aws_secret_access_key):
        report(f"{path}.aws_secret_access_key", "goes with aws_access_key_id; give both, or neither")
    if provider.dialect is Dialect.BEDROCK and not provider.aws_region and not provider.api_key:
        report(f"{path}.aws_region", "needs the region that requests are signed for, or an api_key")
    if not provider.models and provider.name not in known.routed and not provider.passthrough:
        report(path, "no model leads here; list `models: [...]`, or a route under the top-level `models`")
    for name, value in provider.headers.items():
        if not _HEADER.match(name) or name.lower() in _OWN_HEADERS:
            report(f"{path}.headers.{name}", "is not a header that may be added")
        if not value.isascii():
            report(f"{path}.headers.{name}", "the value may hold ASCII only")
    if not provider.api_key.isascii() or any(letter.isspace() for letter in provider.api_key):
        report(f"{path}.api_key", "may hold ASCII without spaces only")
    if provider.ca_file and not (known.folder / provider.ca_file).is_file():
        report(f"{path}.ca_file", "there is no such file (relative to the folder of this file)")


def _check_access(access: AccessEntry, path: str, report: Report) -> None:
    _check_scope(access.scope, f"{path}.scope", report)
    if not access.allow and not access.deny:
        report(path, "needs allow or deny")
    _check_patterns(access.allow, f"{path}.allow", report)
    _check_patterns(access.deny, f"{path}.deny", report)


def _check_scope(scope: Mapping[str, str], path: str, report: Report) -> None:
    for dimension, value in scope.items():
        if not is_dimension(dimension):
            found = get_close_matches(dimension, DIMENSIONS, 1, 0.6)
            hint = f"did you mean {found[0]}?" if found else f"use {', '.join(DIMENSIONS)} or tag.NAME"
            report(joined(path, dimension), f"unknown dimension; {hint}")
        _check_pattern(value, joined(path, dimension), report)


def _check_patterns(patterns: Collection[str], path: str, report: Report) -> None:
    for index, pattern in enumerate(patterns):
        _check_pattern(pattern, f"{path}[{index}]", report)


def _check_pattern(pattern: str, path: str, report: Report) -> None:
    if not pattern or len(pattern) > MAX_VALUE_LENGTH:
        report(path, f"needs 1 to {MAX_VALUE_LENGTH} characters")
    elif "*" in pattern[:-1]:
        report(path, "`*` may stand at the end only")


def _unknown(what: str, name: str, known: Collection[str]) -> str:
    found = get_close_matches(name, known, 1, 0.6)
    hint = f"did you mean {found[0]!r}?" if found else f"declared: {', '.join(sorted(known)) or 'none'}"
    return f"unknown {what} {name!r}; {hint}"
