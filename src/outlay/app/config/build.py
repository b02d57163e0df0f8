"""Config and stored objects to the snapshot that the gateway reads; and the check that a new object must pass.

A name is unique over file and store: what outlay.yaml declares wins, and a stored object of that name (made before
the file declared it) is left out until the file lets go of the name.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Literal, TypeVar

import msgspec

from outlay.app.config.checks import check_entry
from outlay.app.config.convert import (
    budget_of,
    hashed,
    key_of,
    price_record,
    provider_of,
    route_of,
    settings_of,
)
from outlay.app.config.decode import Decoder
from outlay.app.config.document import DocumentError, Problem, Table, read_json
from outlay.app.config.identity import tag_of
from outlay.app.config.load import Config
from outlay.app.config.policies import policy_of
from outlay.app.config.tree import (
    BudgetEntry,
    Declared,
    KeyEntry,
    ObjectEntry,
    PolicyEntry,
    PriceEntry,
    ProviderEntry,
    price_name,
)
from outlay.flow.budgets import RUN_METER, AccessRule, BudgetSpec, Origin
from outlay.flow.gateway.keys import KeySpec
from outlay.flow.gateway.snapshot import Snapshot
from outlay.flow.policy import PolicySpec, budgets_of
from outlay.kernel.errors import ConfigError, ReadOnlyObject
from outlay.lookup.book import PriceBook
from outlay.lookup.feed import Feed
from outlay.lookup.overrides import Ceiling, Override, SelfHosted

Kind = Literal["key", "budget", "policy", "price"]


class StoredObject(msgspec.Struct, frozen=True):
    """A key, budget or price made by CLI or API. `body` is JSON of a `KeyEntry`, `BudgetEntry` or `PriceEntry`."""

    kind: str
    name: str
    version: int
    body: str


Made = TypeVar("Made", KeyEntry, BudgetEntry, PolicyEntry)


def yaml_owner(config: Config, kind: str, name: str) -> str | None:
    """`outlay.yaml:31` if the file declares an object of that name; a dated price owns its model's name too."""
    return _owners(config).get((kind, name))


def _owners(config: Config) -> dict[tuple[str, str], str]:
    dated = {("price", name): place for name, place in config.model_prices().items()}
    return dated | config.owned_names()


def check_object(config: Config, kind: str, name: str, body: bytes) -> ObjectEntry:
    """The entry that a body means, ready to be stored: names agree, and of a secret only the hash is left.

    Raises ReadOnlyObject if outlay.yaml owns the name, ConfigError naming field and problem.
    """
    owner = yaml_owner(config, kind, name)
    if owner is not None:
        raise ReadOnlyObject(f"{kind} {name!r} is declared in {owner}; edit it there")
    decoder = Decoder()
    entry = _decoded(decoder, kind, name, body)
    if not decoder.problems and entry is not None:
        check_entry(entry, config.declared, decoder.refine)
    if decoder.problems or entry is None:
        raise _error(decoder.problems, f"{kind} {name!r}")
    if not isinstance(entry, KeyEntry):
        return entry
    entry = hashed(entry)
    mine = {entry.secret_sha256, *(old.secret_sha256 for old in entry.previous)}
    for index, key in enumerate(config.declared.keys):
        if not mine.isdisjoint((key.secret_sha256, *(old.secret_sha256 for old in key.previous))):
            place = config.place(f"keys[{index}]")
            raise ConfigError(f"the key in {place} has this secret; give each its own", key="secret")
    return entry


def build_snapshot(config: Config, stored: Sequence[StoredObject], feed: Feed, version: int) -> Snapshot:
    """Everything the gateway works with. Raises ConfigError if a stored object cannot be read."""
    owned = Origin.YAML
    declared = config.declared
    keys: dict[str, KeySpec] = {}
    for index, declared_key in enumerate(declared.keys):
        _join_key(keys, key_of(declared_key, config.org, owned, config.place(f"keys[{index}]")))
    budgets = [
        budget_of(budget, owned, config.place(f"budgets[{index}]"))
        for index, budget in enumerate(declared.budgets)
    ]
    policies = [
        policy_of(policy, owned, config.place(f"policies[{index}]"))
        for index, policy in enumerate(declared.policies)
    ]
    prices = [price_record(price) for price in declared.prices]
    for entry in _stored_entries(config, stored):
        match entry:
            case KeyEntry():
                _join_key(keys, key_of(entry, config.org, Origin.STORE, ""))
            case BudgetEntry():
                budgets.append(budget_of(entry, Origin.STORE, ""))
            case PolicyEntry():
                policies.append(policy_of(entry, Origin.STORE, ""))
            case _:
                prices.append(price_record(entry))
    _refuse_missing_keys(config, {key.name for key in keys.values()})
    overrides: list[Override] = [price for price in prices if not isinstance(price, SelfHosted | Ceiling)]
    return Snapshot(
        settings=settings_of(declared.gateway, declared.console),
        providers=tuple(provider_of(entry, config.folder) for entry in _catch_all_last(declared)),
        models=tuple(route_of(model) for model in declared.models),
        keys=tuple({key.name: key for key in keys.values()}.values()),
        budgets=tuple(budgets),
        policies=_with_known_budgets(policies, budgets),
        rules=tuple(AccessRule(entry.scope, entry.allow, entry.deny) for entry in declared.access),
        book=PriceBook.build(
            feed,
            overrides,
            [price for price in prices if isinstance(price, SelfHosted)],
            [price for price in prices if isinstance(price, Ceiling)],
        ),
        tags=tuple(tag_of(tag) for tag in declared.tags),
        version=version,
    )


def _join_key(keys: dict[str, KeySpec], key: KeySpec) -> None:
    """Add a key under each of its secrets; one whose secret the file gives to another is left out.

    Raises ConfigError if two stored keys have one secret.
    """
    digests = [key.secret_sha256, *(old.secret_sha256 for old in key.previous)]
    for digest in digests:
        twin = keys.get(digest)
        if twin is not None and twin.origin is Origin.YAML:
            return  # the file wins here too
        if twin is not None:
            raise ConfigError(f"the keys {twin.name!r} and {key.name!r} have one secret; revoke one")
    keys.update(dict.fromkeys(digests, key))


def _refuse_missing_keys(config: Config, keys: Collection[str]) -> None:
    """Tokens of an issuer stand for a key that there is. Raises ConfigError."""
    for issuer in config.declared.identity:
        if issuer.key not in keys:
            raise ConfigError(
                f"tokens of the issuer {issuer.name!r} stand for the key {issuer.key!r}, which there is not",
                key="identity",
            )


def _with_known_budgets(
    policies: Sequence[PolicySpec], budgets: Sequence[BudgetSpec]
) -> tuple[PolicySpec, ...]:
    """The policies; a ladder on a budget that is not there is an error. Raises ConfigError."""
    known = {budget.name for budget in budgets}
    known |= {budget.name for policy in policies for budget in budgets_of(policy)} | {RUN_METER}
    for policy in policies:
        for rung in policy.ladder:
            if rung.budget not in known:
                raise ConfigError(
                    f"the policy {policy.name!r} has a rung on the budget {rung.budget!r}, which there is not",
                    key="ladder",
                )
    return tuple(policies)


def _stored_entries(config: Config, stored: Sequence[StoredObject]) -> Iterator[ObjectEntry]:
    owners = _owners(config)
    for found in stored:
        if (found.kind, found.name) in owners:
            continue
        decoder = Decoder()
        entry = _decoded(decoder, found.kind, found.name, found.body.encode())
        if entry is None:
            raise _error(decoder.problems, f"stored {found.kind} {found.name!r}")
        yield entry


def _decoded(decoder: Decoder, kind: str, name: str, body: bytes) -> ObjectEntry | None:
    """The entry of a body; None if it has problems. A name that the body does not state is the object's."""
    try:
        node = read_json(body)
    except DocumentError as error:
        decoder.problems.append(error.problem)
        return None
    if not isinstance(node, Table):
        decoder.report("", None, "needs an object")
        return None
    match kind:
        case "key":
            return _named(decoder, node, KeyEntry, name)
        case "budget":
            return _named(decoder, node, BudgetEntry, name)
        case "policy":
            return _named(decoder, node, PolicyEntry, name)
        case "price":
            return _price(decoder, node, name)
        case _:
            decoder.report("", None, f"unknown kind of object {kind!r}; use key, budget, policy or price")
            return None


def _named(decoder: Decoder, node: Table, kind: type[Made], name: str) -> Made | None:
    found = decoder.struct(node if node.get("name") else node.with_text("name", name), kind, "")
    if not isinstance(found, kind):
        return None
    if found.name != name:
        decoder.report("name", None, f"the body names {found.name!r}, the object is {name!r}")
        return None
    return found


def _price(decoder: Decoder, node: Table, name: str) -> PriceEntry | None:
    kind = node.get("kind")
    kind_text = getattr(kind, "text", "")
    provider, separator, model = name.partition("@")[0].partition("/")
    if separator and kind_text in ("custom", "self_hosted"):
        for field, text in (("provider", provider), ("model", model)):
            node = node if node.get(field) else node.with_text(field, text)
    elif not node.get("name") and not name.startswith(f"{kind_text}:"):
        node = node.with_text("name", name)
    found = decoder.price(node, "")
    if found is None:
        return None
    if price_name(found) != name:
        decoder.report("name", None, f"this price is named {price_name(found)!r}, not {name!r}")
        return None
    return found


def _error(problems: list[Problem], subject: str) -> ConfigError:
    first, *others = problems
    more = "".join(f"; {other.path}: {other.message}" for other in others)
    return ConfigError(f"{first.message}{more} ({subject})", key=first.path or None)


def _catch_all_last(declared: Declared) -> list[ProviderEntry]:
    """Providers in their order, but those that serve `*` after those that name their models."""
    return sorted(declared.providers, key=lambda entry: "*" in (entry.models or ()))
