"""A LiteLLM installation, its database or its config.yaml or both, as one plan."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from outlay.app.importing import litellm_tables as tables
from outlay.app.importing.deployments import Deployment, Deployments
from outlay.app.importing.litellm import Reader, Sections
from outlay.app.importing.litellm_config import SECTIONS, read_config, section
from outlay.app.importing.litellm_models import database_deployments
from outlay.app.importing.litellm_tables import Tables, read_tables
from outlay.app.importing.plan import Plan, carries
from outlay.kernel.clock import UnixNanos
from outlay.kernel.errors import ConfigError

_READ: Final = {
    "litellm_settings": {"num_retries", "fallbacks", "default_fallbacks", "max_budget", "budget_duration"}
    | {"timezone", "max_end_user_budget", "max_end_user_budget_id"},
    "router_settings": {"routing_strategy", "num_retries", "fallbacks", "model_group_alias"},
    "general_settings": {"apply_user_budget_to_team_keys"},
}
_REASONS: Final = {
    "general_settings.master_key": (
        "it administers LiteLLM; nothing here opens everything",
        "give its callers a key of their own: outlay key create NAME",
    ),
    "general_settings.database_url": (
        "Outlay keeps its ledger in a file of its own",
        "give it as --database to read it",
    ),
    "litellm_settings.budget_reset_time": (
        "calendar windows begin at midnight here",
        "none is needed: windows that are emptied at another time roll here",
    ),
    "litellm_settings.drop_params": (
        "nothing is dropped in silence here",
        "take the parameter out of requests",
    ),
    "litellm_settings.cache": ("Outlay has no response cache", "put one behind Outlay, or none"),
    "litellm_settings.cache_params": ("Outlay has no response cache", "put one behind Outlay, or none"),
    "litellm_settings.request_timeout": (
        "a timeout is of a provider here",
        "set first_byte_timeout_s of the provider",
    ),
    "litellm_settings.context_window_fallbacks": (
        "a fallback follows a failure or a refusal for load",
        "give the model targets with a large context window",
    ),
    "litellm_settings.content_policy_fallbacks": (
        "a fallback follows a failure or a refusal for load",
        "send such calls to another model from the client",
    ),
    "router_settings.timeout": (
        "a timeout is of a provider here",
        "set first_byte_timeout_s of the provider",
    ),
    "router_settings.allowed_fails": ("see breaker_failures", "set gateway.breaker_failures in outlay.yaml"),
    "router_settings.cooldown_time": ("see breaker_s", "set gateway.breaker_s in outlay.yaml"),
    "router_settings.redis_host": ("Outlay needs no Redis", "none is needed"),
    "router_settings.redis_port": ("Outlay needs no Redis", "none is needed"),
    "router_settings.redis_password": ("Outlay needs no Redis", "none is needed"),
    "environment_variables": ("variables come from where Outlay runs", "set them there"),
}
_OTHER: Final = ("it has no counterpart here", "see what it does in LiteLLM")


def plan_litellm(
    database: str | None, config: Path | None, environ: Mapping[str, str], now: UnixNanos
) -> Plan:
    """What an import from LiteLLM would make. Raises ConfigError, StoreError."""
    if database is None and config is None:
        raise ConfigError("give --database, --config, or both")
    stated = read_config(config) if config is not None else {}
    file = config.name if config is not None else ""
    sections = {name: dict(section(stated, name, file)) for name in SECTIONS if name != "model_list"}
    found = Tables({}, ()) if database is None else read_tables(database)
    _add_stored(sections, found)
    plan = Plan("litellm")
    deployments = Deployments(plan, environ)
    for deployment in _listed(stated.get("model_list"), file):
        deployments.add(deployment)
    for deployment in database_deployments(found, plan):
        deployments.add(deployment)
    deployments.finish(sections["router_settings"], sections["litellm_settings"])
    parts = Sections(sections["litellm_settings"], sections["router_settings"], sections["general_settings"])
    Reader(plan, found, parts, deployments, now).read()
    _list_settings(plan, stated, sections)
    for table in found.missing:
        plan.note(f"the table {table} is not in this LiteLLM's database; what it would hold is not imported")
    return plan


def _listed(found: object, file: str) -> Iterator[Deployment]:
    if found is None:
        return
    if not isinstance(found, list):
        raise ConfigError("needs a list", file=file, key="model_list")
    for index, item in enumerate(found):
        params = item.get("litellm_params") if isinstance(item, dict) else None
        if not isinstance(params, dict) or not item.get("model_name"):
            raise ConfigError("needs model_name and litellm_params", file=file, key=f"model_list[{index}]")
        info = item.get("model_info")
        name = str(item["model_name"])
        yield Deployment(name, params, info if isinstance(info, dict) else {}, f"model_list[{index}] {name}")


def _add_stored(sections: dict[str, dict[str, Any]], found: Tables) -> None:
    """Settings that LiteLLM keeps in its database win over the file's, as they do there."""
    for row in found[tables.SETTINGS]:
        name, value = row.get("param_name"), row.get("param_value")
        if name in sections and isinstance(value, dict):
            sections[name].update(value)


def _list_settings(plan: Plan, stated: Mapping[str, Any], sections: Mapping[str, Mapping[str, Any]]) -> None:
    for name, found in sections.items():
        for key, value in found.items():
            if key not in _READ[name] and carries(value):
                where = f"{name}.{key}"
                plan.leave(where, _harmless(key, value), *_REASONS.get(where, _OTHER))
    for name, value in stated.items():
        if name not in SECTIONS and carries(value):
            plan.leave(name, _harmless(name, "(a section)"), *_REASONS.get(name, _OTHER))


def _harmless(key: str, value: object) -> object:
    """A value for the report: none that may be, or hold, a secret."""
    secret = any(part in key.lower() for part in ("key", "password", "secret", "token", "url", "credential"))
    return "(not shown)" if secret or isinstance(value, dict) else value
