"""Policies on the request path: what those that cover a caller mean for one call, put together once per caller.

A `Guard` is made with an entry and asked per call, in the same synchronous stretch in which its hold is placed, so its
counters are as exact as balances. Says why; places nothing.
"""

from collections.abc import Callable, Sequence
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from outlay.flow.accounts import Account
from outlay.flow.authorize import Clamp
from outlay.flow.gateway.refusal import Refusal, iso
from outlay.flow.gateway.settlement import Terms
from outlay.flow.policy import (
    MINUTE_NS,
    Covering,
    PolicyMode,
    PolicySpec,
    Rung,
    is_open,
    opens_at,
    policies_for,
)
from outlay.flow.rates import RateLimits
from outlay.flow.runaway import RunawayAction
from outlay.flow.scope import Identity, scope_text
from outlay.kernel.money import format_usd
from outlay.lookup.cost import Quote

MAX_LIMITS: Final = 100_000
"""Counters remembered; idle ones are let go at that."""


class LimitBook:
    """All counters, by policy and scope values: they outlive snapshots. `now` gives UTC ns.

    Idle ones are let go of, but as long as a remembered caller counts in one, all others of its scope do too: two
    counters for one scope would let twice the limit pass.
    """

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._next_cleaning = MAX_LIMITS
        self._limits: dict[tuple[str, tuple[tuple[str, str], ...]], RateLimits] = {}
        self._in_use: WeakValueDictionary[tuple[str, tuple[tuple[str, str], ...]], RateLimits] = (
            WeakValueDictionary()
        )

    def of(self, covering: Covering) -> RateLimits:
        """The counters of a policy for a caller, with its limits as they are now."""
        policy, key = covering.policy, (covering.policy.name, covering.values)
        found = self._in_use.get(key)
        if found is None or key not in self._limits:
            if len(self._limits) >= self._next_cleaning:
                now = self._now()
                self._limits = {name: kept for name, kept in self._limits.items() if not kept.is_idle(now)}
                # what is busy stays: looking through it for every new caller would be all that is done
                self._next_cleaning = max(MAX_LIMITS, 2 * len(self._limits))
            if found is None:
                found = self._in_use[key] = RateLimits(policy.name, scope_text(covering.values))
            self._limits[key] = found
        found.requests_limit = policy.requests_per_minute
        found.tokens_limit = policy.tokens_per_minute
        found.parallel = policy.parallel
        return found


class Step(msgspec.Struct, frozen=True):
    """What a ladder says of a call now."""

    rung: Rung
    policy: PolicySpec
    account: Account


class Guard:
    """The policies that cover one caller at one model."""

    __slots__ = (
        "_covering",
        "_hours",
        "_open_until",
        "clamp",
        "has_ladder",
        "limits",
        "providers",
        "runaway",
    )

    def __init__(self, covering: tuple[Covering, ...], book: LimitBook) -> None:
        # what refuses is asked first: a mark of a shadow policy must hide no refusal
        covering = tuple(sorted(covering, key=lambda item: item.policy.mode is PolicyMode.SHADOW))
        self._covering = covering
        policies = [item.policy for item in covering]
        enforced = [policy for policy in policies if policy.mode is PolicyMode.ENFORCE]
        self.limits = tuple((item.policy, book.of(item)) for item in covering if item.policy.has_rates)
        self.has_ladder = any(policy.ladder for policy in policies)
        self.clamp: Clamp | None = next((policy.clamp for policy in enforced if policy.clamp), None)
        self.runaway: RunawayAction | None = next(
            (policy.runaway for policy in enforced if policy.runaway), None
        )
        self.providers = next((policy.providers for policy in enforced if policy.providers), ())
        self._hours = tuple(policy for policy in policies if policy.hours is not None)
        self._open_until = 0

    # -- before a target is chosen ----------------------------------------------------------------------------

    def step(self, names: Sequence[str], accounts: Sequence[Account]) -> Step | None:
        """The highest rung that the caller has reached for a model of these names."""
        best: Step | None = None
        for item in self._covering:
            if best is not None and item.policy.mode is not best.policy.mode:
                break  # enforced ones come first: a shadow ladder keeps nobody from being moved
            for rung in item.policy.ladder:
                if not rung.is_for(*names) or (best is not None and rung.at_percent <= best.rung.at_percent):
                    continue
                for account in accounts:
                    limit = account.limit
                    if account.budget.name != rung.budget or not limit:
                        continue
                    if account.spent * 100 >= limit * rung.at_percent:
                        best = Step(rung, item.policy, account)
        return best

    # -- before a hold is placed ------------------------------------------------------------------------------

    def closed(self, now: int) -> tuple[Refusal, PolicyMode] | None:
        """Why no call may begin at this hour."""
        if not self._hours or now < self._open_until:
            return None
        for policy in self._hours:
            hours = policy.hours
            if hours is not None and not is_open(hours, now):
                opens = opens_at(hours, now)
                fields: dict[str, object] = {
                    "policy": policy.name,
                    "opens_at": None if opens is None else iso(opens),
                }
                text = f"Policy {policy.name!r} lets no call begin at this hour."
                return Refusal(403, "outside_hours", text, fields), policy.mode
        self._open_until = now - now % MINUTE_NS + MINUTE_NS
        return None

    def too_dear(self, terms: Terms, quote: Quote) -> tuple[Refusal, PolicyMode] | None:
        """Why a target is not asked: its price or the call's worst case (`quote`) is above a ceiling."""
        for item in self._covering:
            policy = item.policy
            cap = policy.max_nanos_per_call
            if cap is not None and quote.total_nanos > cap:
                text = (
                    f"Policy {policy.name!r} allows ${format_usd(cap)} a call;"
                    f" this one may need ${format_usd(quote.total_nanos)}. State a lower output limit."
                )
                fields = {
                    "policy": policy.name,
                    "limit": format_usd(cap),
                    "needed": format_usd(quote.total_nanos),
                }
                return Refusal(402, "call_above_policy", text, fields), policy.mode
            for kind, ceiling, rate in (
                ("input", policy.max_input_nanos_per_mtok, terms.price.rates.input),
                ("output", policy.max_output_nanos_per_mtok, terms.price.rates.output or 0),
            ):
                if ceiling is not None and rate > ceiling:
                    text = (
                        f"Policy {policy.name!r} allows models up to ${format_usd(ceiling)} per million {kind}"
                        f" tokens; {terms.model!r} may cost ${format_usd(rate)}."
                    )
                    fields = {
                        "policy": policy.name,
                        "ceiling": format_usd(ceiling),
                        "price": format_usd(rate),
                    }
                    return Refusal(403, "price_above_ceiling", text, fields), policy.mode
        return None

    def too_fast(self, tokens: int, now: int, *, is_first: bool) -> tuple[Refusal, PolicyMode] | None:
        """Why a call has to wait for a rate window."""
        for policy, limits in self.limits:
            found = limits.refuses(tokens, now, is_first=is_first)
            if found is None:
                continue
            kind, limit, used, seconds = found
            fields: dict[str, object] = {
                "policy": limits.name,
                "scope": limits.scope,
                "kind": kind,
                "limit": limit,
                "in_use": used,
            }
            words = kind.replace("_", " ")
            if kind == "tokens_per_minute" and tokens > limit:
                text = f"Policy {limits.name!r} ({limits.scope}) allows {limit} {words}; this call may use {tokens}."
                return Refusal(402, "call_above_policy", text, fields), policy.mode
            text = f"Policy {limits.name!r} ({limits.scope}) allows {limit} {words}; {used} are in use."
            return Refusal(429, "rate_limited", text, fields, retry_after_s=seconds), policy.mode
        return None

    def denied(self, identity: Identity, target: str) -> str:
        """Name of a shadow policy that would not allow the model; empty if none."""
        for item in self._covering:
            policy = item.policy
            if policy.mode is PolicyMode.SHADOW and not policy.allows(identity, target):
                return policy.name
        return ""


def guard_of(policies: Sequence[PolicySpec], identity: Identity, book: LimitBook) -> Guard | None:
    """The guard of a caller; None if no policy covers it."""
    covering = policies_for(policies, identity) if policies else ()
    return Guard(covering, book) if covering else None


def token_bound(quote: Quote) -> int:
    """Tokens that a call counts until it has settled."""
    return quote.input_tokens + quote.choices * quote.max_output_tokens
