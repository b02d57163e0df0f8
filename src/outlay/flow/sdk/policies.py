"""What an embedded client makes of a config's policies: which it holds to, and which it says at once that it cannot.

Pure. Prices, hours and lists of models are a matter of the call alone, and spend velocity is a budget: those are exact
here. Rates, calls in flight, ladders, runaway verdicts and marks of shadow policies need one process that sees all
calls, which is a gateway; a client that would ignore them in silence is not made.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from outlay.flow.authorize import Clamp
from outlay.flow.gateway.guard import LimitBook, guard_of
from outlay.flow.gateway.refusal import Refusal
from outlay.flow.gateway.settlement import Terms
from outlay.flow.policy import PolicyMode, PolicySpec
from outlay.flow.runaway import RunawayAction
from outlay.flow.scope import Identity, match_scope
from outlay.kernel.clock import UnixNanos
from outlay.kernel.errors import ConfigError

_OF_A_CALL: Final = frozenset({"model", "provider", "run"})
"""Dimensions that a wrap does not know yet."""


class Asked(NamedTuple):
    """One attempt, as policies see it."""

    identity: Identity
    terms: Terms
    is_first: bool = True
    """No retry of a call that has begun in time."""
    is_one_call: bool = True
    """Has a price of its own; not so a batch, whose lines are judged one by one, nor a route at a fixed price."""


class Verdict:
    """What policies say of one attempt."""

    __slots__ = ("clamp", "refusal")

    def __init__(self, refusal: Refusal | None = None, clamp: Clamp | None = None) -> None:
        self.refusal = refusal
        self.clamp = clamp
        """In the place of the settings' own."""


NOTHING: Final = Verdict()


def check_policies(policies: Sequence[PolicySpec], identity: Identity) -> None:
    """Raise ConfigError if a policy that may cover calls of `identity` has a part that cannot be held to here."""
    found = [
        f"policy {policy.name!r}{f' ({policy.place})' if policy.place else ''}: {', '.join(fields)}"
        for policy in policies
        if _may_cover(policy, identity)
        for fields in [_beyond(policy)]
        if fields
    ]
    if found:
        raise ConfigError(
            f"an embedded client cannot hold to {'; '.join(found)}. Only a gateway sees every call: wrap with"
            " gateway=... and key=..., or take these out of the config or out of the policy's scope"
        )


def judge(policies: Sequence[PolicySpec], asked: Asked, now: UnixNanos) -> Verdict:
    """What the policies that cover a call say of it."""
    # counters of rates are never asked: `check_policies` lets none in
    guard = guard_of(policies, asked.identity, LimitBook(lambda: now)) if policies else None
    if guard is None:
        return NOTHING
    closed = guard.closed(now) if asked.is_first else None
    dear = guard.too_dear(asked.terms, asked.terms.quote) if asked.is_one_call else None
    for found in (closed, dear):
        if found is not None and found[1] is PolicyMode.ENFORCE:
            return Verdict(found[0])
    return Verdict(clamp=guard.clamp)


def _may_cover(policy: PolicySpec, identity: Identity) -> bool:
    scope = {name: value for name, value in policy.scope.items() if name not in _OF_A_CALL}
    return match_scope(scope, identity) is not None


def _beyond(policy: PolicySpec) -> list[str]:
    """Fields of a policy, as the config names them, that need a gateway."""
    if policy.mode is PolicyMode.SHADOW and not _is_velocity(policy):
        return ["shadow"]
    parts = {
        "requests_per_minute": policy.requests_per_minute is not None,
        "tokens_per_minute": policy.tokens_per_minute is not None,
        "parallel": policy.parallel is not None,
        "ladder": bool(policy.ladder),
        "runaway": policy.runaway not in (None, RunawayAction.OFF),
    }
    return [name for name, is_set in parts.items() if is_set]


def _is_velocity(policy: PolicySpec) -> bool:
    """Whether it only means budgets; those of a shadow policy are soft, which needs no mark."""
    bare = PolicySpec(
        name=policy.name,
        scope=policy.scope,
        mode=policy.mode,
        nanos_per_minute=policy.nanos_per_minute,
        nanos_per_hour=policy.nanos_per_hour,
        origin=policy.origin,
        place=policy.place,
    )
    return policy == bare
