"""LiteLLM's deployments (`model_list`) and router settings as providers, model routes and prices of ours.

Several deployments of one name are several targets. Secrets never reach a file: a value that was written out becomes
a variable to set, and is listed.
"""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec

from outlay.app.config.convert import with_defaults
from outlay.app.config.tree import CustomEntry, ModelEntry, ProviderEntry, TargetEntry
from outlay.app.importing.plan import A_SECRET, Plan, amount, carries, is_name, plain, plain_address
from outlay.app.importing.vendors import BARE_NAMES, LITELLM_VENDORS, Vendor
from outlay.flow.gateway.snapshot import Strategy
from outlay.wire.intent import Dialect

MAX_RETRIES: Final = 10
_ENVIRONMENT: Final = "os.environ/"
_AZURE_VERSION: Final = "2025-02-01-preview"
"""What LiteLLM 1.110 sends if nobody says which."""
_VARIABLE: Final = re.compile(r"[^A-Z0-9]+")

_READ_PARAMS: Final = frozenset(
    {
        "model",
        "custom_llm_provider",
        "api_base",
        "base_url",
        "api_key",
        "api_version",
        "weight",
        "rpm",
        "tpm",
        "organization",
        "aws_region_name",
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
        "max_parallel_requests",
        "extra_headers",
        "order",
    }
)
_COSTS: Final = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write",
    "input_cost_per_audio_token": "input_audio",
    "output_cost_per_audio_token": "output_audio",
}
_READ_INFO: Final = frozenset(
    {"id", "db_model", "access_groups", "max_input_tokens", "max_output_tokens", "max_tokens", "mode"}
    | {"created_at", "updated_at", "created_by", "updated_by", "team_id", "team_public_model_name"}
)
_PARAM_FIXES: Final = {
    "timeout": ("a timeout is of a provider here", "set first_byte_timeout_s of the provider"),
    "stream_timeout": ("a timeout is of a provider here", "set idle_timeout_s of the provider"),
    "max_retries": ("retries are of a model here", "set retries of the model"),
    "drop_params": ("nothing is dropped in silence here", "take the parameter out of the client's requests"),
    "max_budget": (
        "a deployment has no budget here",
        "outlay budget set NAME --scope provider=NAME --scope model=NAME --limit USD",
    ),
    "budget_duration": ("see max_budget", "see max_budget"),
    "mock_response": ("answers are not made up here", "use the mock provider in tests"),
    "litellm_credential_name": (
        "credentials in LiteLLM's database are encrypted",
        "set api_key of the provider in outlay.yaml",
    ),
}
_STRATEGIES: Final = {
    "simple-shuffle": Strategy.WEIGHTED,
    "weighted-pick": Strategy.WEIGHTED,
    "cost-based-routing": Strategy.CHEAPEST,
}


class Deployment(NamedTuple):
    """One entry of `model_list`, of file or database."""

    name: str
    params: Mapping[str, Any]
    info: Mapping[str, Any]
    where: str


class _Found(NamedTuple):
    """A deployment and where it leads."""

    target: TargetEntry
    order: int


class _Known:
    """A provider, and what made it: two deployments of one address and credential share it."""

    def __init__(self, stated: ProviderEntry, entry: ProviderEntry) -> None:
        self.stated = stated
        self.entry = entry


class Deployments:
    """Collects deployments into a plan; `finish` adds the routes once all are known."""

    def __init__(self, plan: Plan, environ: Mapping[str, str]) -> None:
        self._plan = plan
        self._environ = environ
        self._providers: list[_Known] = []
        self._groups: dict[str, list[_Found]] = {}
        self.access_groups: dict[str, list[str]] = {}
        """Name of a model access group -> the model names in it."""

    def add(self, deployment: Deployment) -> None:
        """Take one deployment in, or list why it cannot be."""
        for group in deployment.info.get("access_groups") or ():
            self.access_groups.setdefault(str(group), []).append(deployment.name)
        params = deployment.params
        prefix, model = _vendor_and_model(str(params.get("model") or ""), params)
        vendor = LITELLM_VENDORS.get(prefix)
        if vendor is None:
            self._plan.leave(
                deployment.where,
                params.get("model"),
                f"Outlay has no provider that is LiteLLM's {prefix or 'unnamed provider'}",
                "declare a provider with its dialect and base_url, and the model under `models`",
            )
            return
        if not is_name(deployment.name) or not model:
            self._patterns(deployment, vendor, model)
            return
        provider = self._provider(vendor, deployment)
        if provider is None:
            return
        self._list_rest(deployment)
        target = TargetEntry(provider=provider.name, model=model, weight=self._weight(params))
        calls = params.get("max_parallel_requests")
        if isinstance(calls, int) and calls > 0:
            target = msgspec.structs.replace(target, max_concurrent=calls)
        order = params.get("order")
        self._groups.setdefault(deployment.name, []).append(
            _Found(target, order if isinstance(order, int) else 0)
        )
        self._price(deployment, provider, model)

    def finish(self, router: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Add a route for each name: its targets, then those it falls back to."""
        fallbacks = _fallbacks(router.get("fallbacks")) | _fallbacks(settings.get("fallbacks"))
        default = [str(name) for name in settings.get("default_fallbacks") or ()]
        strategy = self._strategy(router)
        retries = self._retries(router, settings)
        for name, found in self._groups.items():
            self._route(name, found, strategy, retries, fallbacks.get(name, default))
        for alias, wanted in (router.get("model_group_alias") or {}).items():
            group = str(wanted.get("model") if isinstance(wanted, Mapping) else wanted)
            if group in self._groups and is_name(str(alias)):
                self._route(str(alias), self._groups[group], strategy, retries, fallbacks.get(group, default))
            else:
                self._plan.leave(
                    f"router_settings.model_group_alias.{alias}",
                    group,
                    "it stands for a model that is not imported",
                    "declare it under `models`",
                )
        self._plan.providers.extend(known.entry for known in self._providers)

    # -- one deployment -----------------------------------------------------------------------------------------

    def _patterns(self, deployment: Deployment, vendor: Vendor, model: str) -> None:
        """`gpt-*` -> `openai/gpt-*` is a pattern of a provider; other wildcards rewrite names, which none does."""
        if deployment.name == model or (deployment.name == "*" and model.endswith("*")):
            provider = self._provider(vendor, deployment)
            if provider is not None and "*" not in model[:-1]:
                for known in self._providers:
                    if known.entry.name == provider.name:
                        patterns = (*(known.entry.models or ()), model)
                        known.entry = msgspec.structs.replace(known.entry, models=patterns)
                self._list_rest(deployment)
                return
        self._plan.leave(
            deployment.where,
            f"{deployment.name} -> {deployment.params.get('model')}",
            "a name with a wildcard is served under its own name here, never rewritten",
            'list `models: ["*"]` under the provider; clients then ask for the model without the prefix',
        )

    def _provider(self, vendor: Vendor, deployment: Deployment) -> ProviderEntry | None:
        params = deployment.params
        fields: dict[str, Any] = {"models": ()}
        address = str(params.get("api_base") or params.get("base_url") or "")
        if vendor.dialect is not None:
            fields["dialect"] = vendor.dialect
        if address != plain_address(address):
            self._plan.leave(
                f"{deployment.where}: api_base",
                A_SECRET,
                "a user name or query of an address may be a secret",
                "set `headers` of the provider",
            )
            address = plain_address(address)
        if address:
            fields["base_url"] = self._reference(address).rstrip("/")
            if vendor.suffix and not fields["base_url"].endswith(vendor.suffix):
                fields["base_url"] += vendor.suffix
        elif vendor.base_url:
            fields["base_url"] = vendor.base_url
        elif vendor.dialect is not None:
            self._plan.leave(
                deployment.where,
                params.get("model"),
                "it names no api_base",
                f"declare the provider {vendor.name!r} with its base_url",
            )
            return None
        if vendor.prices and vendor.prices != vendor.name:
            fields["prices"] = vendor.prices
        name = vendor.name
        if vendor.is_engine:
            fields["self_hosted"] = True
        elif name == "openai" and address and "api.openai.com" not in address:
            # an OpenAI-compatible server of someone's has not OpenAI's prices
            name, fields["dialect"] = "openai-compatible", Dialect.OPENAI
        elif name == "azure":
            fields["api_version"] = self._reference(str(params.get("api_version") or _AZURE_VERSION))
            fields["output_limit_field"] = "max_completion_tokens"
        fields |= self._credentials(vendor, deployment)
        return self._numbered(name, fields)

    def _credentials(self, vendor: Vendor, deployment: Deployment) -> dict[str, Any]:
        params = deployment.params
        fields: dict[str, Any] = {}
        secret = params.get("api_key")
        standard = f"{_upper(vendor.name)}_API_KEY"
        if secret:
            fields["api_key"] = self._secret(str(secret), standard, f"{deployment.where}: api_key")
        elif not vendor.is_engine and vendor.name != "bedrock":
            standard = {"google": "GEMINI_API_KEY", "together": "TOGETHERAI_API_KEY"}.get(
                vendor.name, standard
            )
            fields["api_key"] = f"${{{standard}:-}}"
        if vendor.name == "bedrock":
            region = str(params.get("aws_region_name") or "os.environ/AWS_REGION_NAME")
            fields["aws_region"] = self._reference(region)
            for theirs, ours in (
                ("aws_access_key_id", "aws_access_key_id"),
                ("aws_secret_access_key", "aws_secret_access_key"),
                ("aws_session_token", "aws_session_token"),
            ):
                if params.get(theirs):
                    fields[ours] = self._secret(
                        str(params[theirs]), theirs.upper(), f"{deployment.where}: {theirs}"
                    )
        headers = {
            str(name): self._header(str(value), str(name), deployment)
            for name, value in (params.get("extra_headers") or {}).items()
        }
        if params.get("organization"):
            headers["openai-organization"] = self._header(
                str(params["organization"]), "openai-organization", deployment
            )
        if headers:
            fields["headers"] = headers
        return fields

    def _header(self, value: str, name: str, deployment: Deployment) -> str:
        if value.startswith(_ENVIRONMENT) or name.lower() == "openai-organization":
            return self._reference(value)
        return self._secret(value, f"{_upper(name)}_HEADER", f"{deployment.where}: extra_headers.{name}")

    def _secret(self, value: str, standard: str, where: str) -> str:
        """A reference to an environment variable; a value that was written out is listed."""
        if value.startswith(_ENVIRONMENT):
            return f"${{{value.removeprefix(_ENVIRONMENT)}:-}}"
        self._plan.leave(
            where, A_SECRET, "a secret is never copied into a file", f"set {standard} where Outlay runs"
        )
        return f"${{{standard}:-}}"

    def _reference(self, value: str) -> str:
        """A value that is no secret; `os.environ/X` becomes a variable that must be set."""
        if value.startswith(_ENVIRONMENT):
            return f"${{{value.removeprefix(_ENVIRONMENT)}}}"
        return value.replace("${", "$${")

    def _numbered(self, name: str, fields: Mapping[str, Any]) -> ProviderEntry:
        """One provider for each distinct set of address and credentials: `openai`, `openai-2`, ..."""
        stated = ProviderEntry(**{**fields, "name": name})
        for known in self._providers:
            if known.stated == stated:
                return known.entry
        taken = {known.entry.name for known in self._providers}
        number, unique = 1, name
        while unique in taken:
            number += 1
            unique = f"{name}-{number}"
        entry = msgspec.structs.replace(stated, name=unique)
        if unique != name and entry.dialect is None:
            entry = spelled_out(entry, name)
        elif unique != name and not entry.prices:
            entry = msgspec.structs.replace(entry, prices=name)
        self._providers.append(_Known(stated, entry))
        return entry

    @staticmethod
    def _weight(params: Mapping[str, Any]) -> int:
        for name in ("weight", "rpm", "tpm"):
            value = params.get(name)
            if isinstance(value, int | Decimal) and value >= 1:
                return int(value)
        return 1

    def _list_rest(self, deployment: Deployment) -> None:
        for name, value in deployment.params.items():
            if name in _READ_PARAMS or name in _COSTS or not carries(value):
                continue
            reason, fix = _PARAM_FIXES.get(
                name, ("it has no counterpart here", "send it from the client, or leave it out")
            )
            if "cost" in name:
                reason, fix = (
                    "a price of this kind is not imported",
                    "outlay price set, or `prices:` in outlay.yaml",
                )
            self._plan.leave(f"{deployment.where}: {name}", value, reason, fix)
        for name in ("rpm", "tpm"):
            if carries(deployment.params.get(name)):
                self._plan.leave(
                    f"{deployment.where}: {name}",
                    deployment.params[name],
                    "it is used as the target's weight; it limits nothing here",
                    "set max_concurrent of the target; the provider's own 429 moves a call to the next target",
                )
        for name, value in deployment.info.items():
            if name in _READ_INFO or name in _COSTS or not carries(value):
                continue
            fix = "none is needed"
            reason = "it describes the model to LiteLLM"
            if name == "base_model":
                reason = "a deployment is priced by its own name here"
                fix = f"if `outlay quote` finds no price: outlay price set {deployment.name} with that of {value}"
            self._plan.leave(f"{deployment.where}: model_info.{name}", value, reason, fix)

    def _price(self, deployment: Deployment, provider: ProviderEntry, model: str) -> None:
        rates: dict[str, str] = {}
        for theirs, ours in _COSTS.items():
            value = amount(deployment.params.get(theirs, deployment.info.get(theirs)))
            if value is not None:
                rates[ours] = plain(value * 1_000_000)
        if not rates:
            if provider.self_hosted or provider.name.startswith("openai-compatible"):
                self._plan.leave(
                    f"{deployment.where}: price",
                    f"{provider.name}/{model}",
                    "nobody but you knows its price, and unknown is not free",
                    f"outlay price set {provider.name}/{model} --input USD --output USD (0 is a price)",
                )
            return
        limits: dict[str, Any] = {}
        for theirs, ours in (
            ("max_input_tokens", "context_window"),
            ("max_output_tokens", "max_output_tokens"),
        ):
            value = deployment.info.get(theirs)
            if isinstance(value, int) and value > 0:
                limits[ours] = value
        entry = CustomEntry(
            provider=provider.prices or provider.name,
            model=model,
            usd_per_mtok={"input": "0", **rates},
            **limits,
        )
        if entry not in self._plan.prices:
            self._plan.prices.append(entry)

    # -- routes -------------------------------------------------------------------------------------------------

    def _route(
        self, name: str, found: list[_Found], strategy: Strategy, retries: int, fallbacks: Iterable[str]
    ) -> None:
        found = sorted(found, key=lambda item: item.order)
        if len({item.order for item in found}) > 1:
            strategy = Strategy.ORDERED
        targets = [item.target for item in found]
        seconds = [
            item.target for group in fallbacks for item in self._groups.get(group, ()) if group != name
        ]
        lost = [group for group in fallbacks if group not in self._groups]
        if lost:
            self._plan.leave(
                f"fallbacks.{name}", ", ".join(lost), "no such model is imported", "declare it under `models`"
            )
        if seconds and len(targets) > 1 and strategy is not Strategy.ORDERED:
            self._plan.note(
                f"model {name}: has fallbacks, so its targets are asked in order; LiteLLM shares the calls among the"
                " first of them"
            )
        if seconds:
            strategy = Strategy.ORDERED
            targets += [target for target in seconds if target not in targets]
        if len(targets) == 1:
            only = targets[0]
            entry = ModelEntry(name=name, provider=only.provider, model=only.model, retries=retries)
            if only.max_concurrent:
                entry = ModelEntry(name=name, targets=(only,), retries=retries)
        else:
            entry = ModelEntry(name=name, targets=tuple(targets), strategy=strategy, retries=retries)
        if all(known.name != name for known in self._plan.models):
            self._plan.models.append(entry)

    def _strategy(self, router: Mapping[str, Any]) -> Strategy:
        wanted = str(router.get("routing_strategy") or "simple-shuffle")
        found = _STRATEGIES.get(wanted)
        if found is None:
            self._plan.leave(
                "router_settings.routing_strategy",
                wanted,
                "Outlay knows ordered, weighted and cheapest",
                "weighted is used; set `strategy` of the models where another fits better",
            )
        return found or Strategy.WEIGHTED

    def _retries(self, router: Mapping[str, Any], settings: Mapping[str, Any]) -> int:
        wanted = router.get("num_retries", settings.get("num_retries"))
        if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
            return 0
        self._plan.note(
            f"num_retries {wanted}: a retry here is a further round through all targets of a model, and each attempt is"
            " held and billed"
        )
        return min(wanted, MAX_RETRIES)


def _vendor_and_model(text: str, params: Mapping[str, Any]) -> tuple[str, str]:
    stated = params.get("custom_llm_provider")
    if stated:
        return str(stated), text.removeprefix(f"{stated}/")
    prefix, separator, rest = text.partition("/")
    if separator and (prefix in LITELLM_VENDORS or "/" in text):
        if prefix == "bedrock":
            rest = rest.removeprefix("converse/").removeprefix("invoke/")
        return prefix, rest
    if text == "*":
        return "openai", text
    for vendor, beginnings in BARE_NAMES:
        if text.startswith(beginnings):
            return vendor, text
    return "", text


def spelled_out(entry: ProviderEntry, vendor: str) -> ProviderEntry:
    """A further provider of a known vendor: its name no longer says dialect, address and prices."""
    first = with_defaults(msgspec.structs.replace(entry, name=vendor))
    return msgspec.structs.replace(
        entry,
        dialect=first.dialect,
        base_url=entry.base_url or first.base_url,
        prices=entry.prices or vendor,
        output_limit_field="" if first.output_limit_field == "max_tokens" else first.output_limit_field,
        apis=first.apis,
    )


def _fallbacks(found: object) -> dict[str, list[str]]:
    """`[{"gpt-4o": ["claude"]}]` as a mapping."""
    result: dict[str, list[str]] = {}
    for item in found if isinstance(found, list) else ():
        if isinstance(item, Mapping):
            for name, others in item.items():
                result[str(name)] = [str(other) for other in others if isinstance(other, str)]
    return result


def _upper(text: str) -> str:
    return _VARIABLE.sub("_", text.upper()).strip("_")
