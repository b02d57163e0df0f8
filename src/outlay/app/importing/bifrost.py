"""Bifrost's config.json as a plan: providers and their keys, virtual keys, budgets of all kinds."""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from outlay.app.config.tree import AccessEntry, KeyEntry, ModelEntry, ProviderEntry, TargetEntry
from outlay.app.config.values import secret_hash
from outlay.app.importing.deployments import spelled_out
from outlay.app.importing.lengths import length_of, nanos_of
from outlay.app.importing.limits import Limit, Limits
from outlay.app.importing.litellm_tables import moment
from outlay.app.importing.plan import A_SECRET, Plan, amount, carries, is_name, plain_address, readable_names
from outlay.app.importing.vendors import BIFROST_VENDORS, Vendor
from outlay.flow.gateway.snapshot import Strategy
from outlay.kernel.clock import UnixNanos
from outlay.kernel.errors import ConfigError

MAX_BYTES: Final = 8 * 1024 * 1024
_ENVIRONMENT: Final = "env."
_NETWORK: Final = {
    "default_request_timeout_in_seconds": "first_byte_timeout_s",
    "stream_idle_timeout_in_seconds": "idle_timeout_s",
    "keep_alive_timeout_in_seconds": "keepalive_s",
    "max_conns_per_host": "max_connections",
}
_NO_COUNTERPART: Final = ("it has no counterpart here", "see what it does in Bifrost")
_RATE: Final = (
    "Outlay limits money, not tokens or calls",
    "limit the money of a short window: outlay budget set NAME --scope ... --limit USD --window 1m",
)
_READ_GOVERNANCE: Final = frozenset(
    {"budgets", "customers", "teams", "virtual_keys", "model_configs", "providers", "rate_limits"}
)


def plan_bifrost(path: Path, environ: Mapping[str, str], now: UnixNanos) -> Plan:
    """What an import of this file would make. Raises ConfigError naming what is wrong with it."""
    stated = _read(path)
    plan = Plan("bifrost")
    _Reader(plan, stated, environ, now, path.name).read()
    return plan


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes()[: MAX_BYTES + 1].decode("utf-8-sig")
        found = json.loads(text, parse_float=Decimal)
    except FileNotFoundError as error:
        raise ConfigError("there is no such file", file=path.name) from error
    except UnicodeDecodeError as error:
        raise ConfigError("the file is not UTF-8", file=path.name) from error
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}", file=path.name) from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"not JSON: {error.msg}", file=path.name, line=error.lineno) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError("not JSON that can be read", file=path.name) from error
    if not isinstance(found, dict) or not ({"providers", "governance"} & found.keys()):
        raise ConfigError(
            "needs an object with `providers` or `governance`: not Bifrost's config.json", file=path.name
        )
    return found


class _Reader:
    def __init__(
        self, plan: Plan, stated: Mapping[str, Any], environ: Mapping[str, str], now: UnixNanos, file: str
    ) -> None:
        self._plan = plan
        self._stated = stated
        self._environ = environ
        self._now = now
        self._file = file
        self._limits = Limits(plan, "UTC", now)
        self._governance = self._table(stated.get("governance"), "governance")
        self._budgets = {str(row.get("id")): row for row in self._rows("budgets")}
        self._teams = {str(row.get("id")): row for row in self._rows("teams")}
        self._customers = {str(row.get("id")): row for row in self._rows("customers")}
        self._team_names = readable_names((key, row.get("name")) for key, row in self._teams.items())
        self._customer_names = readable_names((key, row.get("name")) for key, row in self._customers.items())
        self._allows_all_when_empty = stated.get("version") == 1
        self._provider_names: dict[str, list[str]] = {}

    def read(self) -> None:
        """Providers first; then limits, narrowest first."""
        for name, found in self._table(self._stated.get("providers"), "providers").items():
            self._provider(str(name), self._table(found, f"providers.{name}"))
        self._virtual_keys()
        self._models()
        for identifier, row in self._teams.items():
            team = self._team_names[identifier]
            identity = {"team": team, **self._customer_pin(row.get("customer_id"))}
            budgets = [row.get("budget_id"), *self._owned("team_id", identifier)]
            self._owner(f"team {team}", f"team/{team}", {"team": team}, identity, row, budgets)
        for identifier, row in self._customers.items():
            customer = self._customer_names[identifier]
            scope = {"customer": customer}
            budgets = [row.get("budget_id"), *self._owned("customer_id", identifier)]
            self._owner(f"customer {customer}", f"customer/{customer}", scope, scope, row, budgets)
            for index, line in enumerate(row.get("budgets") or ()):
                name = f"customer/{customer}/{line.get('reset_duration', index)}"
                self._limit(
                    f"customer {customer}", name, scope, scope, line, bool(row.get("calendar_aligned"))
                )
        for row in self._rows("providers"):
            for provider in self._provider_names.get(str(row.get("name")), [])[:1]:
                scope = {"provider": provider}
                self._owner(
                    f"provider {provider}", f"provider/{provider}", scope, scope, row, [row.get("budget_id")]
                )
        self._list_rest()

    # -- providers ----------------------------------------------------------------------------------------------

    def _provider(self, name: str, found: Mapping[str, Any]) -> None:
        vendor = BIFROST_VENDORS.get(name)
        custom = self._table(found.get("custom_provider_config"), f"providers.{name}.custom_provider_config")
        if vendor is None and custom.get("base_provider_type") in BIFROST_VENDORS:
            based = BIFROST_VENDORS[str(custom["base_provider_type"])]
            vendor = Vendor(name, based.dialect, "", name)
        if vendor is None:
            self._plan.leave(
                f"providers.{name}",
                name,
                "Outlay has no provider that is this one",
                "declare it with dialect and base_url",
            )
            return
        network = self._table(found.get("network_config"), f"providers.{name}.network_config")
        shared = self._network(name, network)
        workers = self._table(found.get("concurrency_and_buffer_size"), name).get("concurrency")
        if isinstance(workers, int) and workers > 0:
            shared["max_concurrent"] = workers
        retries = network.get("max_retries")
        routes: dict[str, list[TargetEntry]] = {}
        for index, key in enumerate(found.get("keys") or ({},)):
            self._key_of_provider(name, vendor, index, key, network, shared, routes)
        count = retries if isinstance(retries, int) and retries > 0 else 0
        for model, targets in routes.items():
            self._route(f"{name}/{model}", targets, count)
            if len(targets) > 1 or targets[0].model != model:
                self._route(model, targets, count)
        for field, value in found.items():
            if field not in ("keys", "network_config", "concurrency_and_buffer_size") and carries(value):
                self._plan.leave(f"providers.{name}.{field}", "(set)", *_NO_COUNTERPART)

    def _key_of_provider(  # noqa: PLR0917 - one key's facts
        self,
        name: str,
        vendor: Vendor,
        index: int,
        key: Mapping[str, Any],
        network: Mapping[str, Any],
        shared: Mapping[str, Any],
        routes: dict[str, list[TargetEntry]],
    ) -> None:
        where = f"providers.{name}.keys[{index}]"
        details: Mapping[str, Any] = (
            next((value for field, value in key.items() if field.endswith("_key_config")), {}) or {}
        )
        unique = vendor.name if not index else f"{vendor.name}-{index + 1}"
        models = [
            str(model)
            for model in key.get("models") or (["*"] if self._allows_all_when_empty or not key else [])
        ]
        fields: dict[str, Any] = {**shared, "name": unique}
        address = details.get("url") or details.get("endpoint") or network.get("base_url") or vendor.base_url
        if vendor.dialect is not None:
            fields["dialect"] = vendor.dialect
        if address and (address != vendor.base_url or vendor.dialect is not None):
            fields["base_url"] = self._address(str(address), vendor)
        elif not address and vendor.dialect is not None:
            self._plan.leave(where, name, "it names no address", "declare the provider with its base_url")
            return
        if vendor.prices and vendor.prices != unique:
            fields["prices"] = vendor.prices
        if vendor.is_engine:
            fields["self_hosted"] = True
            self._plan.leave(
                f"{where}: price",
                unique,
                "nobody but you knows its price",
                f"outlay price set {unique}/MODEL --input USD",
            )
        if carries(key.get("value")):
            fields["api_key"] = self._secret(key["value"], f"{unique}_API_KEY", where)
        for theirs, ours in (
            ("access_key", "aws_access_key_id"),
            ("secret_key", "aws_secret_access_key"),
            ("session_token", "aws_session_token"),
        ):
            if details.get(theirs):
                fields[ours] = self._secret(details[theirs], ours, where)
        if details.get("region") and vendor.name == "bedrock":
            fields["aws_region"] = self._reference(str(details["region"]))
        aliases = self._table(key.get("aliases"), f"{where}.aliases")
        wild = [model for model in models if model.endswith("*")]
        fields["models"] = tuple(model for model in models if not index or not model.endswith("*"))
        if wild and index:
            self._plan.leave(
                f"{where}: models", "*", "calls of unnamed models go to the first key", "name the models"
            )
        if wild:
            self._plan.note(
                f"provider {name}: clients that ask for {name}/MODEL must ask for MODEL, or name the models there"
            )
        entry = ProviderEntry(**fields)
        if index and entry.dialect is None:
            entry = spelled_out(entry, vendor.name)
        self._plan.providers.append(entry)
        self._provider_names.setdefault(name, []).append(unique)
        weight = amount(key.get("weight"))
        share = max(1, int(weight * 100)) if weight else 1
        for model in models:
            if not model.endswith("*"):
                routes.setdefault(model, []).append(TargetEntry(provider=unique, model=model, weight=share))
        for alias, target in aliases.items():
            served = target.get("model_id") if isinstance(target, Mapping) else target
            routes.setdefault(str(alias), []).append(
                TargetEntry(provider=unique, model=str(served), weight=share)
            )

    def _route(self, name: str, targets: list[TargetEntry], retries: int) -> None:
        if not is_name(name) or any(known.name == name for known in self._plan.models):
            return
        if len(targets) == 1:
            only = targets[0]
            entry = ModelEntry(name=name, provider=only.provider, model=only.model, retries=min(retries, 10))
        else:
            strategy = Strategy.WEIGHTED
            entry = ModelEntry(name=name, targets=tuple(targets), strategy=strategy, retries=min(retries, 10))
        self._plan.models.append(entry)

    def _network(self, name: str, found: Mapping[str, Any]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for theirs, value in found.items():
            if theirs in ("base_url", "max_retries") or not carries(value):
                continue
            if theirs in _NETWORK and isinstance(value, int):
                fields[_NETWORK[theirs]] = value
            elif theirs == "extra_headers" and isinstance(value, Mapping):
                fields["headers"] = {
                    str(header): self._secret(text, f"{name}_{header}", f"providers.{name}: header {header}")
                    for header, text in value.items()
                }
            else:
                self._plan.leave(f"providers.{name}.network_config.{theirs}", "(set)", *_NO_COUNTERPART)
        return fields

    def _address(self, address: str, vendor: Vendor) -> str:
        text = self._reference(plain_address(address)).rstrip("/")
        suffix = vendor.suffix or ("/v1" if vendor.name == "openai" else "")
        return text if not suffix or text.endswith(suffix) else text + suffix

    def _reference(self, value: str) -> str:
        if value.startswith(_ENVIRONMENT):
            return f"${{{value.removeprefix(_ENVIRONMENT)}}}"
        return value.replace("${", "$${")

    def _secret(self, value: object, standard: str, where: str) -> str:
        text = (
            str(value.get("value") or value.get("env_var") or "")
            if isinstance(value, Mapping)
            else str(value)
        )
        if text.startswith(_ENVIRONMENT):
            return f"${{{text.removeprefix(_ENVIRONMENT)}:-}}"
        variable = "".join(letter if letter.isalnum() else "_" for letter in standard).upper()
        self._plan.leave(
            where, A_SECRET, "a secret is never copied into a file", f"set {variable} where Outlay runs"
        )
        return f"${{{variable}:-}}"

    # -- governance ---------------------------------------------------------------------------------------------

    def _virtual_keys(self) -> None:
        rows = self._rows("virtual_keys")
        names = readable_names((str(row.get("id")), row.get("name")) for row in rows)
        for row in rows:
            name, where = names[str(row.get("id"))], f"virtual key {row.get('name')}"
            value = str(row.get("value") or "")
            if value.startswith(_ENVIRONMENT):
                value = self._environ.get(value.removeprefix(_ENVIRONMENT), "")
            if not value or value.startswith("vault."):
                self._plan.leave(
                    f"{where}: value",
                    "(absent)",
                    "the file does not say it",
                    "set its variable, or outlay key create",
                )
                continue
            if row.get("is_active") is False:
                self._plan.refused[secret_hash(value)] = (name, "it is not active")
                continue
            self._virtual_key(row, name, where, value)

    def _virtual_key(self, row: Mapping[str, Any], name: str, where: str, value: str) -> None:
        pins = {}
        team = self._teams.get(str(row.get("team_id")))
        if team is not None:
            pins["team"] = self._team_names[str(row["team_id"])]
        pins |= self._customer_pin(row.get("customer_id") or (team or {}).get("customer_id"))
        allowed, denied = self._rules(row, name)
        expires = moment(row.get("expires_at"))
        self._plan.keys.append(
            KeyEntry(
                name=name,
                secret_sha256=secret_hash(value),
                team=pins.get("team", ""),
                customer=pins.get("customer", ""),
                allow_models=allowed,
                deny_models=denied,
                expires=None if expires is None else expires.isoformat(),
            )
        )
        identity = {**pins, "key": name}
        budgets = [row.get("budget_id"), *self._owned("virtual_key_id", str(row.get("id")))]
        self._owner(where, f"key/{name}", {"key": name}, identity, row, budgets)
        for index, line in enumerate(row.get("budgets") or ()):
            label = f"key/{name}/{line.get('reset_duration', index)}"
            self._limit(where, label, {"key": name}, identity, line, bool(row.get("calendar_aligned")))
        for field in ("mcp_configs", "access_profile_id"):
            if carries(row.get(field)):
                self._plan.leave(f"{where}: {field}", "(set)", *_NO_COUNTERPART)

    def _rules(self, row: Mapping[str, Any], key: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Models of a key; and rules of access that keep it to its providers and to what it may call at each."""
        configs = {str(item.get("provider")): item for item in row.get("provider_configs") or ()}
        if not configs:
            return ((), ()) if self._allows_all_when_empty else ((), ("*",))
        names: dict[str, None] = {}
        denied: dict[str, None] = {}
        is_open = False
        for theirs, providers in self._provider_names.items():
            config = configs.get(theirs)
            models = [] if config is None else [str(model) for model in config.get("allowed_models") or ()]
            if config is not None and not models and self._allows_all_when_empty:
                models = ["*"]
            is_open = is_open or "*" in models
            both = [text for model in models for text in (model, f"{theirs}/{model}")]
            names |= dict.fromkeys(both)
            black = [str(model) for model in (config or {}).get("blacklisted_models") or ()]
            denied |= dict.fromkeys(black)
            for provider in providers:
                scope = {"key": key, "provider": provider}
                if not models:
                    self._plan.access.append(AccessEntry(scope=scope, deny=("*",)))
                elif "*" not in models:
                    self._plan.access.append(AccessEntry(scope=scope, allow=tuple(both)))
        if denied and len(configs) > 1:
            self._plan.note(f"key {key}: a model that one provider may not serve it is denied at all of them")
        if is_open:
            return (), tuple(denied)
        return (tuple(names), tuple(denied)) if names else ((), ("*",))

    def _models(self) -> None:
        keys = {str(row.get("id")): str(row.get("name")) for row in self._rows("virtual_keys")}
        for row in self._rows("model_configs"):
            scope = {"model": str(row.get("model_name"))}
            if row.get("provider"):
                scope["provider"] = (
                    self._provider_names.get(str(row["provider"])) or [str(row["provider"])]
                )[0]
            if row.get("scope") == "virtual_key":
                scope["key"] = keys.get(str(row.get("scope_id")), str(row.get("scope_id")))
            name = "/".join(["model", *scope.values()])
            budgets = [row.get("budget_id"), *(row.get("budget_ids") or ())]
            budgets += self._owned("model_config_id", str(row.get("id")))
            self._owner(f"model {scope['model']}", name, scope, scope, row, budgets)

    def _owner(  # noqa: PLR0917 - one owner's facts
        self,
        where: str,
        name: str,
        scope: Mapping[str, str],
        identity: Mapping[str, object],
        row: Mapping[str, Any],
        budgets: list[Any],
    ) -> None:
        found = [self._budgets[str(key)] for key in dict.fromkeys(budgets) if str(key) in self._budgets]
        for budget in found:
            aligned = bool(row.get("calendar_aligned") or budget.get("calendar_aligned"))
            label = name if len(found) == 1 else f"{name}/{budget.get('reset_duration')}"
            self._limit(where, label, scope, identity, budget, aligned)
        if carries(row.get("rate_limit_id")):
            self._plan.leave(f"{where}: rate_limit_id", row["rate_limit_id"], *_RATE)

    def _limit(  # noqa: PLR0917 - one budget's facts
        self,
        where: str,
        name: str,
        scope: Mapping[str, str],
        identity: Mapping[str, object],
        budget: Mapping[str, Any],
        aligned: bool,
    ) -> None:
        duration = str(budget.get("reset_duration") or "")
        spent = amount(budget.get("current_usage")) or Decimal(0)
        reset = moment(budget.get("last_reset"))
        length = length_of(duration, None, "UTC", self._now, calendar=aligned)
        if reset is not None and length is not None and nanos_of(reset) < length.since:
            spent = Decimal(0)
            self._plan.note(f"{where}: its window has ended since {reset.isoformat()}; it starts from 0 here")
        limit = amount(budget.get("max_limit"))
        self._limits.add(
            Limit(
                where,
                name,
                scope,
                identity,
                limit,
                duration,
                self._ends(reset, duration, aligned),
                spent,
                calendar=aligned,
            )
        )

    def _ends(self, reset: datetime | None, duration: str, aligned: bool) -> datetime | None:
        """When Bifrost empties a budget that is not aligned: so long after it did last."""
        if reset is None or aligned:
            return None
        length = length_of(duration, None, "UTC", self._now, calendar=False)
        if length is None or length.window == "lifetime":
            return None
        return reset + timedelta(microseconds=(self._now - length.since) // 1000)

    def _owned(self, field: str, identifier: str) -> list[str]:
        return [key for key, row in self._budgets.items() if str(row.get(field)) == identifier]

    def _customer_pin(self, identifier: object) -> dict[str, str]:
        name = self._customer_names.get(str(identifier))
        return {} if name is None else {"customer": name}

    def _list_rest(self) -> None:
        for name, value in self._stated.items():
            if name not in ("providers", "governance", "$schema", "version") and carries(value):
                self._plan.leave(name, "(set)", *_NO_COUNTERPART)
        for name, value in self._governance.items():
            if name not in _READ_GOVERNANCE and carries(value):
                self._plan.leave(f"governance.{name}", "(set)", *_NO_COUNTERPART)
        for key, row in self._budgets.items():
            if carries(row.get("provider_config_id")):
                self._plan.leave(
                    f"budget {key}: provider_config_id",
                    row["provider_config_id"],
                    "the file does not say whose it is",
                    "outlay budget set NAME --scope key=NAME --scope provider=NAME --limit USD",
                )

    def _rows(self, name: str) -> list[Mapping[str, Any]]:
        found = self._governance.get(name) or []
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            raise ConfigError("needs a list of objects", file=self._file, key=f"governance.{name}")
        return found

    def _table(self, found: object, where: str) -> Mapping[str, Any]:
        if found is None:
            return {}
        if not isinstance(found, dict):
            raise ConfigError("needs an object", file=self._file, key=where)
        return found
