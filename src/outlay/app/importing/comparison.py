"""A plan held against what is here: what is new, what is there already, what contradicts it. Changes nothing."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from outlay.app.config import Config, check_object
from outlay.app.config.convert import with_defaults
from outlay.app.config.tree import (
    NO_LIMIT,
    BudgetEntry,
    Declared,
    KeyEntry,
    ObjectEntry,
    ProviderEntry,
    price_name,
)
from outlay.app.importing.plan import Opening, Plan
from outlay.app.importing.yaml_text import Sections
from outlay.app.operations import body_digest
from outlay.kernel.errors import ConfigError
from outlay.kernel.money import usd_to_nanos


class Item(NamedTuple):
    """One object and what became of it."""

    kind: str
    """`key`, `budget`, `price`, `provider`, `model`, `access` or `opening`."""
    name: str
    detail: str = ""


class Conflict(NamedTuple):
    """An object that differs from one of its name here."""

    kind: str
    name: str
    problem: str
    fix: str


@dataclass(slots=True)
class Comparison:
    """See the module."""

    new: list[tuple[str, str, ObjectEntry]] = field(default_factory=list)
    """Kind, name and entry of keys, budgets and prices to store."""
    same: list[Item] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    replaceable: list[tuple[str, str, ObjectEntry]] = field(default_factory=list)
    """Those of the conflicts that could be stored in the place of what is here."""
    sections: Sections = field(default_factory=Sections)
    """What only outlay.yaml can declare, and does not yet."""
    openings: list[Opening] = field(default_factory=list)


Spent = Callable[[Opening, Mapping[str, str]], int | None]
"""What an account of an opening's budget has spent, given the budget's scope; None if nobody knows."""


def compare(
    plan: Plan,
    config: Config | None,
    planned: Declared | None,
    objects: Sequence[Mapping[str, Any]],
    spent: Spent,
) -> Comparison:
    """Hold a plan against a configuration and its stored objects.

    `planned` is the plan's own file as it would be read, with variables filled in; None if it cannot be read yet.
    """
    found = Comparison()
    stored = {(item["kind"], item["name"]): item for item in objects if item["origin"] == "store"}
    sources = None if config is None else _sources(config.declared.providers)
    own_prices = []
    for kind, name, entry in _entries(plan):
        if (
            kind == "price"
            and sources is not None
            and getattr(entry, "provider", "") not in sources
            and config is not None
            and (kind, name) not in config.owned_names()
        ):
            own_prices.append(entry)
            continue
        _compare_object(found, config, stored.get((kind, name)), (kind, name, entry))
    for name, why in plan.refused.values():
        if any(item["kind"] == "key" and item["name"] == name for item in objects):
            found.conflicts.append(
                Conflict("key", name, f"{why} in {plan.source} and works here", f"outlay key revoke {name}")
            )
    found.sections = msgspec.structs.replace(
        _compare_file(found, plan, config, planned), prices=tuple(own_prices)
    )
    stays = {item[1] for item in found.replaceable}
    bad = {item.name for item in found.conflicts if item.kind == "budget" and item.name not in stays}
    scopes = {budget.name: budget.scope for budget in plan.budgets}
    for opening in plan.openings:
        if opening.budget in bad:
            continue
        there = spent(opening, scopes.get(opening.budget, {}))
        if there is not None and there >= opening.nanos:
            found.same.append(Item("opening", opening.budget))
        else:
            found.openings.append(opening)
    return found


def _entries(plan: Plan) -> Iterable[tuple[str, str, ObjectEntry]]:
    for key in plan.keys:
        yield "key", key.name, key
    for budget in plan.budgets:
        yield "budget", budget.name, budget
    for price in plan.prices:
        yield "price", price_name(price), price


def _compare_object(
    found: Comparison,
    config: Config | None,
    stored: Mapping[str, Any] | None,
    item: tuple[str, str, ObjectEntry],
) -> None:
    kind, name, entry = item
    if config is None:
        found.new.append(item)
        return
    place = config.owned_names().get((kind, name))
    if place is not None:
        declared = _declared(config.declared, kind, name)
        if declared is not None and _meaning(declared) == _meaning(entry):
            found.same.append(Item(kind, name, place))
        else:
            found.conflicts.append(
                Conflict(kind, name, f"{place} declares another one", "edit it there, or rename it there")
            )
        return
    if stored is None:
        found.new.append(item)
        return
    try:
        checked = check_object(config, kind, name, msgspec.json.encode(entry))
    except ConfigError as error:
        found.conflicts.append(Conflict(kind, name, str(error), "change it where it comes from"))
        return
    if body_digest(msgspec.json.encode(checked).decode()) == stored["digest"]:
        found.same.append(Item(kind, name, f"store v{stored['version']}"))
    else:
        found.replaceable.append(item)
        found.conflicts.append(
            Conflict(kind, name, "the one stored here differs", "--replace takes what the source says")
        )


def _declared(declared: Declared, kind: str, name: str) -> ObjectEntry | None:
    if kind == "key":
        return next((key for key in declared.keys if key.name == name), None)
    if kind == "budget":
        return next((budget for budget in declared.budgets if budget.name == name), None)
    return next((price for price in declared.prices if price_name(price) == name), None)


def _meaning(entry: ObjectEntry) -> object:
    """What an entry says, however it is written."""
    match entry:
        case BudgetEntry():
            limit = None if entry.limit_usd == NO_LIMIT else usd_to_nanos(entry.limit_usd)
            return (dict(entry.scope), limit, entry.window, entry.timezone, entry.is_hard)
        case KeyEntry():
            return msgspec.structs.replace(entry, secret="")
        case _:
            return entry


def _sources(providers: Iterable[ProviderEntry]) -> set[str]:
    return {provider.prices or provider.name for provider in providers}


def _compare_file(found: Comparison, plan: Plan, config: Config | None, planned: Declared | None) -> Sections:
    """What the file lacks."""
    if config is None:
        return Sections(tuple(plan.providers), tuple(plan.models), tuple(plan.access))
    here = {provider.name: provider for provider in config.declared.providers}
    filled = {} if planned is None else {provider.name: provider for provider in planned.providers}
    providers = []
    for provider in plan.providers:
        known = here.get(provider.name)
        if known is None:
            providers.append(provider)
        elif _address(known) == _address(filled.get(provider.name, with_defaults(provider))):
            found.same.append(Item("provider", provider.name))
        else:
            found.conflicts.append(
                Conflict(
                    "provider",
                    provider.name,
                    f"{config.file} declares one of another dialect or address",
                    "rename one of them there, and the models that lead to it",
                )
            )
    routes = {model.name: model for model in config.declared.models}
    models = []
    for model in plan.models:
        if model.name not in routes:
            models.append(model)
        elif routes[model.name] == model:
            found.same.append(Item("model", model.name))
        else:
            found.conflicts.append(
                Conflict("model", model.name, f"{config.file} leads it elsewhere", "edit it there")
            )
    access = []
    for rule in plan.access:
        if rule in config.declared.access:
            found.same.append(Item("access", str(rule.scope)))
        else:
            access.append(rule)
    return Sections(tuple(providers), tuple(models), tuple(access))


def _address(provider: ProviderEntry) -> tuple[object, ...]:
    return (provider.dialect, provider.base_url, provider.api_version, provider.aws_region)
