"""What keeps a past call from having begun: hours, ceilings and rates, of the policies of one mode. Pure.

The same questions as the gateway's guard asks, put together once per identity, route and price.
"""

from collections import deque
from collections.abc import Iterator

from outlay.flow.past import Cause
from outlay.flow.policy import MINUTE_NS, Hours, PolicySpec, is_open
from outlay.flow.rates import SECOND_NS, WINDOW_S, Meter
from outlay.lookup.price import ModelPrice


class Pace:
    """The counters of one policy and scope value: those that have a limit, as `rates.RateLimits` counts them.

    What a call would have counted until it settled (its upper bound) is not in the ledger: it counts what it used.
    """

    __slots__ = (
        "above",
        "ends",
        "in_flight",
        "most_in_flight",
        "most_requests",
        "most_tokens",
        "requests",
        "slow",
        "tokens",
    )

    def __init__(self, policy: PolicySpec) -> None:
        self.slow, self.above = Cause(policy.name, "rate_limited"), Cause(policy.name, "call_above_rate")
        self.most_requests = policy.requests_per_minute
        self.requests: deque[int] = deque()
        """Seconds of the calls that count in requests a minute."""
        self.most_tokens = policy.tokens_per_minute
        self.tokens = Meter()
        self.most_in_flight = policy.parallel
        self.in_flight = 0
        self.ends = self.most_tokens is not None or self.most_in_flight is not None
        """Whether the end of a call changes anything."""

    @property
    def is_plain(self) -> bool:
        """Whether it limits requests a minute and nothing else."""
        return self.most_requests is not None and not self.ends

    @property
    def is_idle(self) -> bool:
        """Nothing counts any more (as of the last look)."""
        return not (self.in_flight or self.requests or self.tokens.held or self.tokens.posted)

    def refuses(self, tokens: int, now: int, *, is_first: bool) -> Cause | None:
        """Why a call may not begin."""
        if self.most_in_flight is not None and self.in_flight >= self.most_in_flight:
            return self.slow
        most = self.most_requests
        if most is not None:
            requests, before = self.requests, now // SECOND_NS - WINDOW_S
            while requests and requests[0] < before:
                requests.popleft()
            if is_first and len(requests) >= most:
                return self.slow
        most = self.most_tokens
        if most is not None and self.tokens.total(now) + tokens > most:
            return self.above if tokens > most else self.slow
        return None

    def begin(self, tokens: int, now: int, *, is_first: bool) -> None:
        """A call begins."""
        if is_first and self.most_requests is not None:
            self.requests.append(now // SECOND_NS)
        if self.ends:
            self.in_flight += 1
            self.tokens.held += tokens

    def end(self, tokens: int, now: int) -> None:
        """A call ended."""
        self.in_flight -= 1
        self.tokens.held -= tokens
        self.tokens.post(tokens, now)


class Gate:
    """The hours of one policy; asked again every minute."""

    __slots__ = ("_hours", "_is_open", "_minute", "cause")

    def __init__(self, policy: str, hours: Hours) -> None:
        self._hours, self.cause = hours, Cause(policy, "outside_hours")
        self._minute, self._is_open = -1, True

    def is_shut(self, now: int) -> bool:
        """Whether no call may begin."""
        minute = now // MINUTE_NS
        if minute != self._minute:
            self._minute, self._is_open = minute, is_open(self._hours, now)
        return not self._is_open


class Bars:
    """What the policies of one mode bar of one identity, route and price."""

    __slots__ = ("ceilings", "gates", "paces", "rules")

    def __init__(self) -> None:
        self.rules: list[Cause] = []
        """Policies that do not let the model through."""
        self.gates: list[Gate] = []
        self.ceilings: list[tuple[int, Cause]] = []
        """(most that one call may hold, why); -1: no call passes."""
        self.paces: list[Pace] = []

    def all_causes(self, held: int, tokens: int, now: int, *, is_first: bool) -> Iterator[Cause]:
        """Everything that would bar a call, rules about its model included."""
        yield from self.rules
        yield from (gate.cause for gate in self.gates if is_first and gate.is_shut(now))
        yield from (cause for most, cause in self.ceilings if held > most)
        for pace in self.paces:
            found = pace.refuses(tokens, now, is_first=is_first)
            if found is not None:
                yield found

    def barred(self, held: int, tokens: int, now: int, *, is_first: bool) -> Cause | None:
        """Why a call may not begin, or not at this price; rules about its model are not asked here."""
        if is_first:
            for gate in self.gates:
                if gate.is_shut(now):
                    return gate.cause
        for most, cause in self.ceilings:
            if held > most:
                return cause
        for pace in self.paces:
            found = pace.refuses(tokens, now, is_first=is_first)
            if found is not None:
                return found
        return None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is barred but by rules about the model."""
        return not (self.gates or self.ceilings or self.paces)


def ceilings(policy: PolicySpec, price: ModelPrice) -> Iterator[tuple[int, Cause]]:
    """What a policy lets one call at this price hold."""
    if policy.max_nanos_per_call is not None:
        yield policy.max_nanos_per_call, Cause(policy.name, "call_above_policy")
    for ceiling, rate in (
        (policy.max_input_nanos_per_mtok, price.rates.input),
        (policy.max_output_nanos_per_mtok, price.rates.output or 0),
    ):
        if ceiling is not None and rate > ceiling:
            yield -1, Cause(policy.name, "price_above_ceiling")
