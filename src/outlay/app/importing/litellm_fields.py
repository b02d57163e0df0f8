"""LiteLLM's columns that have no counterpart here, with the reason and what to do. A table, no decisions.

Columns that are neither here nor read elsewhere are listed as unknown: a newer LiteLLM may have added them.
"""

from typing import Final

Reason = tuple[str, str]
_RATE: Final[Reason] = (
    "Outlay limits money, not tokens or calls per minute",
    "limit the money of a short window: outlay budget set NAME --scope ... --limit USD --window 1m",
)
_CALLS: Final[Reason] = (
    "calls in flight are limited at a target here",
    "set max_concurrent of the provider or of the model's target",
)
_TOOLS: Final[Reason] = (
    "Outlay has no policies about tools, vector stores or agents",
    "leave LiteLLM behind Outlay for these, or drop them",
)
_OWN: Final[Reason] = ("it is LiteLLM's own", "none is needed")
_HISTORY: Final[Reason] = (
    "it is history; only what a running window holds is brought over",
    "keep LiteLLM's database as long as you need its reports",
)

UNMAPPED: Final[dict[str, Reason]] = {
    "tpm_limit": _RATE,
    "rpm_limit": _RATE,
    "tpd_limit": _RATE,
    "model_rpm_limit": _RATE,
    "model_tpm_limit": _RATE,
    "max_parallel_requests": _CALLS,
    "allowed_routes": (
        "a key may use every route that is metered here",
        "take routes away with passthrough rules and allow_models, or keep the key in LiteLLM",
    ),
    "allowed_cache_controls": ("Outlay has no response cache", "none is needed"),
    "permissions": _TOOLS,
    "object_permission_id": _TOOLS,
    "policies": _TOOLS,
    "team_member_permissions": ("members do not manage keys here", "outlay key create, by an operator"),
    "aliases": (
        "a name for a model holds for everyone here",
        "declare the name under `models` in outlay.yaml",
    ),
    "model_id": (
        "a team's model aliases are LiteLLM's own",
        "declare the names under `models` in outlay.yaml",
    ),
    "config": _OWN,
    "router_settings": (
        "routing is of a model here, not of a key or team",
        "set strategy and retries of the model",
    ),
    "budget_fallbacks": (
        "another model when the budget is spent is a policy of its own",
        "give the model several targets with `strategy: cheapest`",
    ),
    "auto_rotate": ("keys are not rotated by themselves here", "outlay key create and outlay key revoke"),
    "rotation_interval": (
        "keys are not rotated by themselves here",
        "outlay key create and outlay key revoke",
    ),
    "key_rotation_at": ("keys are not rotated by themselves here", "outlay key create and outlay key revoke"),
    "agent_id": (
        "LiteLLM's agents are not imported",
        "pin an agent: outlay key create NAME --agent NAME, or send x-outlay-agent",
    ),
    "temp_budget_increase": (
        "a raise that ends by itself is not imported",
        "outlay budget set NAME --limit USD, and set it back",
    ),
    "temp_budget_expiry": ("see temp_budget_increase", "see temp_budget_increase"),
    "allowed_models": (
        "a member's own models are not imported",
        "declare `access` with scope {team: T, user: U} in outlay.yaml",
    ),
    "allowed_model_region": ("regions are of a provider here", "route to a provider in that region"),
    "default_model": ("a model is not chosen for a customer here", "declare the name under `models`"),
    "budget_limits": (
        "its windows could not be read",
        "outlay budget set NAME --scope ... --limit USD --window WINDOW",
    ),
    "model_spend": _HISTORY,
    "total_spend": _HISTORY,
    "soft_budget_cooldown": _OWN,
    "model_info": _OWN,
    "allow_team_guardrail_config": _TOOLS,
    "metadata": (
        "notes of your own are not kept with an object here",
        "pin what you report by as a tag: outlay key create NAME --tag NAME=VALUE",
    ),
    "key_type": _OWN,
    "access_group_ids": (
        "the access group is not in the database",
        "list its models in allow_models of the key",
    ),
}
"""Column -> reason and fix."""

IGNORED: Final = frozenset(
    {"created_at", "updated_at", "created_by", "updated_by", "settings_updated_at", "last_active"}
    | {"rotation_count", "last_rotation_at", "members", "admins", "members_with_roles", "description"}
    | {"key_name", "alias", "user_alias", "user_email", "user_role", "password", "sso_user_id", "teams"}
    | {"password_reset_required", "last_breach_check_at", "budget_id", "default_team_member_models"}
)
"""Says who did what when, or is read with another field."""
