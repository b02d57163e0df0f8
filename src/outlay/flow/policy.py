"""Policies: what a scope may do beyond its budgets. Records and pure decisions; no I/O, no balances of its own.

A policy covers every identity its scope selects; all that cover a call apply, the strictest of each kind wins. Limits
in USD a minute or an hour are budgets (rolling windows) of the policy's name: `budgets_of`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

import msgspec

from outlay.flow.authorize import Clamp
from outlay.flow.budgets import AccessRule, BudgetSpec, Origin, model_allowed, pattern_matches
from outlay.flow.runaway import RunawayAction
from outlay.flow.scope import Identity, match_scope
from outlay.flow.windows import Window, WindowKind

MINUTE_NS = 60_000_000_000
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class PolicyMode(StrEnum):
    ENFORCE = "enforce"
    SHADOW = "shadow"
    """Record in the charge what would have been refused or rerouted; refuse and reroute nothing."""


class Rung(msgspec.Struct, frozen=True):
    """One step of a downgrade ladder: from a share of a budget on, another model, or a pause."""

    at_percent: int
    """Of the budget's limit that is spent."""
    budget: str
    """Name of the budget; the caller's own account of it."""
    use: str = ""
    """Model that is used instead; empty: calls are paused (402) until somebody approves."""
    models: tuple[str, ...] = ()
    """Names or `prefix*` that are downgraded; empty: all but `use`."""

    def is_for(self, *names: str) -> bool:
        """Whether calls for a model (by any of its names) are downgraded."""
        lower = [name.lower() for name in names]
        if self.models:
            return any(pattern_matches(pattern.lower(), name) for pattern in self.models for name in lower)
        return self.use.lower() not in lower


class Hours(msgspec.Struct, frozen=True):
    """When calls may begin, by the clock of a named zone."""

    days: tuple[str, ...]
    """`mon` ... `sun`."""
    start_minute: int
    """Of the day; 0 is midnight."""
    end_minute: int
    """Exclusive; smaller than `start_minute`: over midnight, into the next day."""
    zone: str = "UTC"


class PolicySpec(msgspec.Struct, frozen=True, kw_only=True):
    """One declared policy. Absent limits are None or 0; amounts in nanos."""

    name: str
    scope: Mapping[str, str] = {}
    mode: PolicyMode = PolicyMode.ENFORCE
    allow_models: tuple[str, ...] = ()
    deny_models: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    """Preference: targets of these providers are asked first, in this order."""
    max_input_nanos_per_mtok: int | None = None
    max_output_nanos_per_mtok: int | None = None
    """Price ceilings: dearer models are not asked."""
    max_nanos_per_call: int | None = None
    """Worst case of one call."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Input and output; a call counts at its upper bound until it has settled."""
    parallel: int | None = None
    """Calls in flight."""
    nanos_per_minute: int | None = None
    nanos_per_hour: int | None = None
    ladder: tuple[Rung, ...] = ()
    hours: Hours | None = None
    runaway: RunawayAction | None = None
    """In the place of `gateway.runaway`."""
    clamp: Clamp | None = None
    """In the place of `gateway.clamp`."""
    origin: Origin = Origin.STORE
    place: str = ""

    def allows(self, identity: Identity, target: str) -> bool:
        """Whether its lists of models let a caller of its scope ask for a target's model."""
        if not (self.allow_models or self.deny_models):
            return True
        return model_allowed((AccessRule({}, self.allow_models, self.deny_models),), identity, target)

    @property
    def has_rates(self) -> bool:
        """Whether calls are counted in time."""
        return (self.requests_per_minute, self.tokens_per_minute, self.parallel) != (None, None, None)


def budgets_of(policy: PolicySpec) -> tuple[BudgetSpec, ...]:
    """The budgets that a policy's spend velocity means: rolling, one account for each value where the scope says so."""
    found = []
    for unit, nanos, seconds in (
        ("minute", policy.nanos_per_minute, 60),
        ("hour", policy.nanos_per_hour, 3600),
    ):
        if nanos is not None:
            window = Window(WindowKind.ROLLING, "UTC", seconds)
            is_hard = policy.mode is PolicyMode.ENFORCE
            name = f"{policy.name}/usd-per-{unit}"
            found.append(BudgetSpec(name, policy.scope, nanos, window, is_hard, policy.origin, policy.place))
    return tuple(found)


def rules_of(policy: PolicySpec) -> tuple[AccessRule, ...]:
    """The access rule of a policy that is enforced."""
    if policy.mode is PolicyMode.SHADOW or not (policy.allow_models or policy.deny_models):
        return ()
    return (AccessRule(policy.scope, policy.allow_models, policy.deny_models),)


class Covering(msgspec.Struct, frozen=True):
    """A policy that covers an identity, and the scope values that name its counters."""

    policy: PolicySpec
    values: tuple[tuple[str, str], ...]


def policies_for(policies: Sequence[PolicySpec], identity: Identity) -> tuple[Covering, ...]:
    """Every policy that covers the identity, in declaration order."""
    if identity.billing:
        # what a client's own subscription pays for is still this caller's traffic
        identity = msgspec.structs.replace(identity, billing="")
    return tuple(
        Covering(policy, values)
        for policy in policies
        if (values := match_scope(policy.scope, identity)) is not None
    )


def is_open(hours: Hours, now: int) -> bool:
    """Whether a call may begin at `now` (UTC ns)."""
    local = datetime.fromtimestamp(now // 1_000_000_000, UTC).astimezone(ZoneInfo(hours.zone))
    minute = local.hour * 60 + local.minute
    today, yesterday = _WEEKDAYS[local.weekday()], _WEEKDAYS[local.weekday() - 1]
    start, end = hours.start_minute, hours.end_minute
    if start < end:
        return today in hours.days and start <= minute < end
    # over midnight: the evening belongs to its day, the morning to the day before
    return (today in hours.days and minute >= start) or (yesterday in hours.days and minute < end)


def opens_at(hours: Hours, now: int) -> int | None:
    """UTC ns of the next minute at which calls may begin; None if there is none within eight days."""
    minute = now - now % MINUTE_NS
    for _ in range(8 * 24 * 60):
        minute += MINUTE_NS
        if is_open(hours, minute):
            return minute
    return None
