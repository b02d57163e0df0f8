"""LiteLLM's rows as a plan: its keys as keys, its limits as budgets, its spend so far as openings.

LiteLLM counts a call's cost at the key, the team, the user, the organisation, the customer and every tag. Openings are
brought in from the narrowest to the widest, so that a wider one adds only what the narrower ones do not cover.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple, cast

from outlay.app.config.tree import AccessEntry, KeyEntry
from outlay.app.importing import litellm_tables as tables
from outlay.app.importing.deployments import Deployments
from outlay.app.importing.limits import Limit, Limits
from outlay.app.importing.litellm_fields import IGNORED, UNMAPPED
from outlay.app.importing.litellm_tables import Row, Tables, json_object, moment
from outlay.app.importing.plan import Plan, amount, carries, is_name, readable_names
from outlay.flow.budgets import pattern_matches
from outlay.flow.scope import MAX_TAGS, UNATTRIBUTED
from outlay.kernel.clock import UnixNanos

_DASHBOARD: Final = "litellm-dashboard"
"""Team of the keys that LiteLLM's pages make for a browser's session."""
_PROXY_USER: Final = "litellm-proxy-budget"
"""The user whose row keeps the whole proxy's limit and spend."""
_ALL_MODELS: Final = frozenset({"all-proxy-models", "*"})
_TEAM_MODELS: Final = "all-team-models"
_NO_MODELS: Final = "no-default-models"
_HASH_DIGITS: Final = frozenset("0123456789abcdef")
_KEY_METADATA_READ: Final = frozenset({"tags", "litellm_budget_table_max_budget"})


class Sections(NamedTuple):
    """What config.yaml and the database's own settings say together."""

    litellm: Mapping[str, Any]
    router: Mapping[str, Any]
    general: Mapping[str, Any]


class _Terms(NamedTuple):
    """A limit that an object has itself or through a budget row."""

    limit: Decimal | None
    soft: Decimal | None
    duration: str | None
    resets_at: datetime | None


class Reader:
    """Turns tables into a plan. `deployments` has taken in every model already."""

    def __init__(
        self, plan: Plan, found: Tables, sections: Sections, deployments: Deployments, now: UnixNanos
    ) -> None:
        self._plan = plan
        self._tables = found
        self._sections = sections
        self._now = now
        self._limits = Limits(plan, str(sections.litellm.get("timezone") or "UTC"), now)
        self._budgets = {row["budget_id"]: row for row in found[tables.BUDGETS]}
        self._teams = {row["team_id"]: row for row in found[tables.TEAMS]}
        self._users = {row["user_id"]: row for row in found[tables.USERS]}
        self._organizations = _names(found[tables.ORGANIZATIONS], "organization_id", "organization_alias")
        self._team_names = _names(found[tables.TEAMS], "team_id", "team_alias")
        self._user_names = _names(found[tables.USERS], "user_id", "user_email")
        self._project_names = _names(found[tables.PROJECTS], "project_id", "project_alias")
        self._projects = {row["project_id"]: row for row in found[tables.PROJECTS]}
        self._groups = {name: list(models) for name, models in deployments.access_groups.items()}
        self._group_ids = {
            row["access_group_id"]: list(row.get("access_model_names") or ())
            for row in found[tables.ACCESS_GROUPS]
        }
        self._window_spend = {
            (row["entity_type"], row["entity_id"], row["window_duration"]): row
            for row in found[tables.WINDOW_SPEND]
        }

    def read(self) -> None:
        """Narrowest first: keys, members of teams, users, teams, projects, organisations, customers, tags, all."""
        self._keys()
        self._members()
        self._user_limits()
        self._team_limits()
        self._project_limits()
        self._organization_limits()
        self._customers()
        self._tags()
        self._whole_proxy()
        for identifier, row in self._budgets.items():
            self._list_rest(f"budget {identifier}", row, _SHARED_READ)
        for row in self._tables[tables.AGENTS]:
            self._plan.leave(f"agent {row['agent_name']}", row["agent_id"], *UNMAPPED["agent_id"])
        for row in self._tables[tables.GROUP_BUDGETS]:
            if carries(row.get("budget_id")):
                self._plan.leave(
                    f"model access group {row['access_group_name']}: budget",
                    row["budget_id"],
                    "a budget covers one model or a prefix, not a list",
                    "outlay budget set NAME --scope model=PREFIX* --limit USD",
                )

    # -- keys ---------------------------------------------------------------------------------------------------

    def _keys(self) -> None:
        rows = sorted(self._tables[tables.KEYS], key=lambda row: str(row["token"]))
        names = readable_names((str(row["token"]), row.get("key_alias")) for row in rows)
        for row in rows:
            token = str(row["token"])
            name = names[token] if names[token] != token else f"key-{token[:12]}"
            if row.get("team_id") == _DASHBOARD:
                continue
            if len(token) != 64 or not _HASH_DIGITS.issuperset(token):
                self._plan.leave(
                    f"key {name}: token", token[:8] + "...", "not the SHA-256 of a key", "outlay key create"
                )
                continue
            self._key(row, token, name)

    def _key(self, row: Row, token: str, name: str) -> None:
        where = f"key {name}"
        team = self._teams.get(row.get("team_id"))
        project = self._projects.get(row.get("project_id"))
        blocked = (
            "it is blocked"
            if row.get("blocked")
            else "its team is blocked"
            if team is not None and team.get("blocked")
            else "its project is blocked"
            if project is not None and project.get("blocked")
            else ""
        )
        if blocked:
            self._plan.refused[token] = (name, blocked)
            return
        metadata = json_object(row.get("metadata"))
        pins = self._pins(row, team, project)
        tags = self._key_tags(where, metadata.get("tags"))
        allowed, denied = self._key_models(where, row, team, project)
        expires = moment(row.get("expires"))
        self._plan.keys.append(
            KeyEntry(
                name=name,
                secret_sha256=token,
                **cast("dict[str, Any]", pins),
                tags=tags,
                allow_models=allowed,
                deny_models=denied,
                expires=None if expires is None else _iso(expires),
            )
        )
        identity: dict[str, object] = {**pins, "key": name}
        if tags:
            identity["tags"] = sorted([key, value] for key, value in tags.items())
        self._terms(where, f"key/{name}", {"key": name}, identity, row)
        self._windows(where, f"key/{name}", {"key": name}, identity, row, ("key", token))
        for model, limit in json_object(row.get("model_max_budget")).items():
            self._model_limit(where, f"key/{name}/{model}", {"key": name, "model": model}, limit)
        self._list_rest(where, row, _KEY_READ)
        self._list_metadata(where, metadata)

    def _pins(self, row: Row, team: Row | None, project: Row | None) -> dict[str, str]:
        found = {}
        organization = row.get("organization_id") or (team or {}).get("organization_id")
        for dimension, identifier, names in (
            ("org", organization, self._organizations),
            ("team", row.get("team_id") or (project or {}).get("team_id"), self._team_names),
            ("project", row.get("project_id"), self._project_names),
            ("user", row.get("user_id"), self._user_names),
        ):
            text = names.get(str(identifier), str(identifier or ""))
            if text and is_name(text):
                found[dimension] = text
            elif text:
                self._plan.leave(
                    f"key {row.get('key_alias') or str(row['token'])[:12]}: {dimension}",
                    text,
                    "no value that a dimension takes, so the key is outside of its budgets",
                    "give it a shorter id without `*` there, or pin another here",
                )
        return found

    def _key_tags(self, where: str, found: object) -> dict[str, str]:
        tags: dict[str, str] = {}
        for text in found if isinstance(found, list) else ():
            name, value = tag_parts(str(text))
            if not is_name(name) or not is_name(value) or len(tags) >= MAX_TAGS or name in tags:
                self._plan.leave(
                    f"{where}: metadata.tags",
                    text,
                    "a key has at most 16 tags, each of another name",
                    "outlay key create NAME --tag NAME=VALUE",
                )
                continue
            tags[name] = value
        return tags

    def _key_models(
        self, where: str, row: Row, team: Row | None, project: Row | None
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What a key may call: its own list within its team's and project's; a user's own list without a team."""
        above = [self._expanded(where, owner) for owner in (team, project) if owner is not None]
        own = self._expanded(where, row)
        if team is None and own is None:
            user = self._users.get(row.get("user_id"))
            own = None if user is None else self._expanded(where, user)
        for limit in above:
            if limit is None:
                continue
            own = (
                limit
                if own is None
                else [m for m in own if any(pattern_matches(pattern, m) for pattern in limit)]
            )
        if own is None:
            return (), ()
        return (tuple(own), ()) if own else ((), ("*",))

    def _expanded(self, where: str, row: Row) -> list[str] | None:
        """A list of models with the access groups in it spelled out; None if it allows all."""
        listed = [str(name) for name in row.get("models") or ()]
        for group in row.get("access_group_ids") or ():
            if group in self._group_ids:
                listed += self._group_ids[group]
            else:
                self._plan.leave(f"{where}: access_group_ids", group, *UNMAPPED["access_group_ids"])
        found: dict[str, None] = {}
        if not listed or not _ALL_MODELS.isdisjoint(listed) or listed == [_TEAM_MODELS]:
            return None
        for name in listed:
            if name in (_TEAM_MODELS, _NO_MODELS):
                continue
            for model in self._groups.get(name, [name]):
                if model.endswith("/*"):
                    self._plan.leave(
                        f"{where}: models",
                        model,
                        "a vendor's wildcard names nothing here: models have no prefix",
                        "list names or prefixes such as gpt-*",
                    )
                found[model] = None
        return list(found)

    # -- limits -------------------------------------------------------------------------------------------------

    def _terms(
        self, where: str, name: str, scope: Mapping[str, str], identity: Mapping[str, object], row: Row
    ) -> None:
        """An object's own limit, or the one of the budget row that it names; its soft limit beside it."""
        terms = self._own_terms(row)
        spent = amount(row.get("spend")) or Decimal(0)
        made = moment(row.get("created_at"))
        limit = Limit(where, name, scope, identity, terms.limit, terms.duration, terms.resets_at, spent, made)
        self._limits.add(limit)
        if terms.soft is not None:
            self._limits.add(limit._replace(name=f"{name}/soft", limit=terms.soft, soft=True))

    def _own_terms(self, row: Row) -> _Terms:
        shared: Row = self._budgets.get(row.get("budget_id")) or {}
        own = amount(row.get("max_budget"))
        source = row if own is not None else shared
        soft = amount(row.get("soft_budget"))
        if soft is None:
            soft = amount(shared.get("soft_budget"))
        duration = (
            source.get("budget_duration") or row.get("budget_duration") or shared.get("budget_duration")
        )
        resets_at = moment(source.get("budget_reset_at"))
        return _Terms(own if own is not None else amount(shared.get("max_budget")), soft, duration, resets_at)

    def _windows(  # noqa: PLR0917 - as `_terms`, and who it is
        self,
        where: str,
        name: str,
        scope: Mapping[str, str],
        identity: Mapping[str, object],
        row: Row,
        entity: tuple[str, str],
    ) -> None:
        """Several windows at once (`budget_limits`), each with a spend of its own."""
        found = row.get("budget_limits")
        if isinstance(found, str):
            try:
                found = json.loads(found, parse_float=Decimal)
            except ValueError:
                found = None
        if carries(row.get("budget_limits")) and not isinstance(found, list):
            self._plan.leave(f"{where}: budget_limits", row["budget_limits"], *UNMAPPED["budget_limits"])
        for item in found if isinstance(found, list) else ():
            duration = str(item.get("budget_duration") or "")
            spent = self._window_spend.get((*entity, duration)) or {}
            self._limits.add(
                Limit(
                    where,
                    f"{name}/{duration}",
                    scope,
                    identity,
                    amount(item.get("max_budget")),
                    duration,
                    moment(item.get("reset_at")),
                    amount(spent.get("spend")) or Decimal(0),
                )
            )

    def _model_limit(self, where: str, name: str, scope: Mapping[str, str], found: object) -> None:
        limit = json_object(found)
        usd = amount(limit.get("budget_limit", limit.get("max_budget", found)))
        if usd is None or not is_name(str(scope["model"])):
            self._plan.leave(f"{where}: model_max_budget", found, *UNMAPPED["budget_limits"])
            return
        duration = limit.get("time_period", limit.get("budget_duration"))
        self._limits.add(
            Limit(where, name, scope, {}, usd, str(duration) if duration else None, None, Decimal(0))
        )
        self._plan.note(
            f"{where}: LiteLLM keeps what was spent of a model's own limit in its cache only; {name} starts from 0"
        )

    def _members(self) -> None:
        for row in self._tables[tables.MEMBERS]:
            budget = row.get("budget_id")
            if not budget or row.get("team_id") not in self._teams:
                continue
            team, user = self._team_names[row["team_id"]], self._user(row["user_id"])
            default = json_object(self._teams[row["team_id"]].get("metadata")).get("team_member_budget_id")
            identity = {**self._team_identity(row["team_id"]), "user": user}
            if budget == default:
                # all members of one default share one budget with an account for each of them
                self._member_spend(row, f"team/{team}/members", identity)
                continue
            name = f"team/{team}/user/{user}"
            self._terms(f"member {user} of team {team}", name, {"team": team, "user": user}, identity, row)
        for identifier, row in self._teams.items():
            default = json_object(row.get("metadata")).get("team_member_budget_id")
            if default in self._budgets:
                team = self._team_names[identifier]
                terms = {"budget_id": default, "spend": 0}
                scope = {"team": team, "user": "*"}
                self._terms(f"members of team {team}", f"team/{team}/members", scope, {}, terms)
        for row in self._tables[tables.ORGANIZATION_MEMBERS]:
            if carries(row.get("budget_id")):
                org, user = self._org(row["organization_id"]), self._user(row["user_id"])
                scope = {"org": org, "user": user}
                self._terms(f"member {user} of {org}", f"org/{org}/user/{user}", scope, scope, row)

    def _member_spend(self, row: Row, budget: str, identity: Mapping[str, object]) -> None:
        terms = self._own_terms(row)
        spent = amount(row.get("spend")) or Decimal(0)
        where = f"member {identity['user']} of team {identity['team']}"
        length = Limit(where, budget, {}, identity, terms.limit, terms.duration, terms.resets_at, spent)
        self._opening_only(length)

    def _opening_only(self, limit: Limit) -> None:
        """The spend of one account of a budget that is declared once for many."""
        probe = Plan(self._plan.source)
        Limits(probe, self._limits.timezone, self._now).add(limit)
        self._plan.openings.extend(probe.openings)

    def _user_limits(self) -> None:
        wide = self._sections.general.get("apply_user_budget_to_team_keys") is True
        for identifier, row in self._users.items():
            if identifier == _PROXY_USER:
                continue
            user = self._user(identifier)
            scope = {"user": user} if wide else {"user": user, "team": UNATTRIBUTED}
            if not wide and amount(self._own_terms(row).limit) is not None:
                self._plan.note(
                    "users: LiteLLM holds a user's own limit against keys without a team only; the scope says so"
                    f" (user=NAME, team={UNATTRIBUTED})"
                )
            identity: dict[str, object] = {"user": user}
            if row.get("organization_id"):
                identity["org"] = self._org(row["organization_id"])
            where = f"user {user}"
            self._terms(where, f"user/{user}", scope, identity, row)
            for model, limit in json_object(row.get("model_max_budget")).items():
                self._model_limit(where, f"user/{user}/{model}", {**scope, "model": model}, limit)
            self._list_rest(where, row, _OWNER_READ)
            self._list_metadata(where, json_object(row.get("metadata")))

    def _team_limits(self) -> None:
        for identifier, row in self._teams.items():
            if identifier == _DASHBOARD:
                continue
            team = self._team_names[identifier]
            where, identity = f"team {team}", self._team_identity(identifier)
            self._terms(where, f"team/{team}", {"team": team}, identity, row)
            self._windows(where, f"team/{team}", {"team": team}, identity, row, ("team", identifier))
            for model, limit in json_object(row.get("model_max_budget")).items():
                self._model_limit(where, f"team/{team}/{model}", {"team": team, "model": model}, limit)
            if row.get("blocked"):
                self._plan.note(f"{where}: is blocked, so its keys are left out")
            self._access(where, {"team": team}, row)
            self._list_rest(where, row, _OWNER_READ)
            self._list_metadata(where, json_object(row.get("metadata")), {"team_member_budget_id"})

    def _project_limits(self) -> None:
        for identifier, row in self._projects.items():
            project = self._project_names[identifier]
            identity: dict[str, object] = {"project": project}
            if row.get("team_id") in self._teams:
                identity |= self._team_identity(row["team_id"])
            self._terms(f"project {project}", f"project/{project}", {"project": project}, identity, row)
            self._access(f"project {project}", {"project": project}, row)
            self._list_rest(f"project {project}", row, _OWNER_READ)

    def _organization_limits(self) -> None:
        for row in self._tables[tables.ORGANIZATIONS]:
            org = self._org(row["organization_id"])
            self._terms(f"organization {org}", f"org/{org}", {"org": org}, {"org": org}, row)
            self._access(f"organization {org}", {"org": org}, row)
            self._list_rest(f"organization {org}", row, _OWNER_READ)
            self._list_metadata(f"organization {org}", json_object(row.get("metadata")))

    def _access(self, where: str, scope: Mapping[str, str], row: Row) -> None:
        models = self._expanded(where, row)
        if models is not None:
            rule = AccessEntry(scope=dict(scope), allow=tuple(models))
            if not models:
                rule = AccessEntry(scope=dict(scope), deny=("*",))
            self._plan.access.append(rule)

    def _customers(self) -> None:
        default = self._sections.litellm.get("max_end_user_budget_id")
        flat = amount(self._sections.litellm.get("max_end_user_budget"))
        shared = {"budget_id": default} if default in self._budgets else {"max_budget": flat}
        general = self._own_terms(shared)
        if general.limit is not None:
            self._terms("every customer", "customers", {"customer": "*"}, {}, {**shared, "spend": 0})
        rows = self._tables[tables.CUSTOMERS]
        if rows:
            self._plan.note(
                "customers: LiteLLM reads the customer from `user` of a request; Outlay reads the header"
                " x-outlay-customer, or the customer that a key pins"
            )
        for row in rows:
            self._customer(row, general)

    def _customer(self, row: Row, general: _Terms) -> None:
        customer = str(row["user_id"])
        where, name, scope = f"customer {customer}", f"customer/{customer}", {"customer": customer}
        if not is_name(customer):
            if carries(row.get("budget_id")) or row.get("blocked"):
                self._plan.leave(where, customer, "no name of a customer here", "give it a shorter id")
            return
        if row.get("blocked"):
            self._limits.add(Limit(where, name, scope, scope, Decimal(0), None, None, Decimal(0)))
            self._plan.note(f"{where}: is blocked; here it has a budget of 0")
            return
        if carries(row.get("budget_id")):
            own = self._own_terms(row)
            self._terms(where, name, scope, scope, row)
            if general.limit is not None and own.limit is not None and own.limit > general.limit:
                self._plan.leave(
                    f"{where}: budget",
                    own.limit,
                    f"the budget of every customer ({general.limit} USD) holds for this one as well",
                    "outlay budget set customers --limit USD, or a budget for each customer",
                )
        elif general.limit is not None:
            spent = amount(row.get("spend")) or Decimal(0)
            self._opening_only(
                Limit(
                    where, "customers", {}, scope, general.limit, general.duration, general.resets_at, spent
                )
            )
        self._list_rest(where, row, _OWNER_READ)

    def _tags(self) -> None:
        for row in self._tables[tables.TAGS]:
            name, value = tag_parts(str(row["tag_name"]))
            if not is_name(name) or not is_name(value):
                continue
            scope = {f"tag.{name}": value}
            identity = {"tags": [[name, value]]}
            self._terms(f"tag {row['tag_name']}", f"tag/{row['tag_name']}", scope, identity, row)
            if carries(row.get("models")):
                self._plan.leave(
                    f"tag {row['tag_name']}: models",
                    ", ".join(row["models"]),
                    "a tag does not choose a deployment here",
                    "give each kind of call a model name of its own under `models`",
                )

    def _whole_proxy(self) -> None:
        row: dict[str, Any] = dict(self._users.get(_PROXY_USER) or {})
        stated = amount(self._sections.litellm.get("max_budget"))
        if stated is not None and stated > 0:
            row |= {"max_budget": stated, "budget_duration": self._sections.litellm.get("budget_duration")}
        if row:
            self._terms("the whole proxy", "proxy", {}, {}, row)

    # -- names and what is left over ----------------------------------------------------------------------------

    def _team_identity(self, identifier: str) -> dict[str, object]:
        found: dict[str, object] = {"team": self._team_names[identifier]}
        organization = self._teams[identifier].get("organization_id")
        if organization:
            found["org"] = self._org(organization)
        return found

    def _org(self, identifier: object) -> str:
        return self._organizations.get(str(identifier), str(identifier))

    def _user(self, identifier: object) -> str:
        return self._user_names.get(str(identifier), str(identifier))

    def _list_rest(self, where: str, row: Row, read: frozenset[str]) -> None:
        for column, value in row.items():
            if column in read or column in IGNORED or not carries(value):
                continue
            reason, fix = UNMAPPED.get(
                column, ("this release of Outlay does not know the field", "see what it does in LiteLLM")
            )
            if column in ("soft_budget_cooldown", "total_spend", "model_spend"):
                continue
            self._plan.leave(f"{where}: {column}", value, reason, fix)

    def _list_metadata(self, where: str, metadata: Mapping[str, Any], read: set[str] | None = None) -> None:
        for name, value in metadata.items():
            if name in _KEY_METADATA_READ or name in (read or ()) or not carries(value):
                continue
            reason, fix = UNMAPPED.get(name, UNMAPPED["metadata"])
            self._plan.leave(f"{where}: metadata.{name}", value, reason, fix)


_SHARED_READ: Final = frozenset(
    {
        "spend",
        "max_budget",
        "soft_budget",
        "budget_duration",
        "budget_reset_at",
        "models",
        "metadata",
        "blocked",
    }
    | {"model_max_budget", "budget_limits", "access_group_ids", "organization_id", "team_id", "user_id"}
    | {"project_id"}
)
_KEY_READ: Final = _SHARED_READ | {"token", "key_alias", "expires"}
_OWNER_READ: Final = _SHARED_READ | {"team_alias", "organization_alias", "project_alias"}


def tag_parts(text: str) -> tuple[str, str]:
    """LiteLLM's flat tag as name and value: `job:42` is job=42, `batch` is batch=true."""
    name, separator, value = text.partition(":")
    return (name.strip(), value.strip()) if separator and value.strip() else (text.strip(), "true")


def _names(rows: list[Row], identifier: str, alias: str) -> dict[str, str]:
    return readable_names((str(row[identifier]), row.get(alias)) for row in rows)


def _iso(value: datetime) -> str:
    """A moment as outlay.yaml has it; one without a zone is UTC."""
    if value.tzinfo is not None:
        value = value.astimezone(UTC).replace(tzinfo=None)
    return value.isoformat(timespec="seconds") + "Z"
