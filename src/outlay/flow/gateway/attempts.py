"""Which target is asked next: order by strategy, health of targets, rounds with growing pauses. Pure: time comes in.

Each attempt has its own hold and its own charge; nothing here knows money but through `cost_of`.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from outlay.flow.gateway.snapshot import Aims, Settings, Strategy

RETRYABLE: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529, *range(520, 528)})
"""Statuses after which another target, or the same one later, may do better."""
MAX_ATTEMPTS: Final = 12
"""Of one request, whatever targets and rounds are declared: every attempt may be billed."""
MAX_PAUSE_MS: Final = 8_000
_SECOND: Final = 1_000_000_000
PROBE_NS: Final = 5 * _SECOND
"""How long one call alone may try a target whose circuit was open."""


class TargetHealth:
    """How one provider's model does, as seen from here."""

    __slots__ = ("failures", "in_flight", "open_until")

    def __init__(self) -> None:
        self.failures = 0
        """In a row."""
        self.in_flight = 0
        self.open_until = 0
        """Monotonic ns until which the circuit is open; 0: closed."""


class Health:
    """All targets, by provider and model. Bounded by the configuration: only declared targets are tracked."""

    def __init__(self) -> None:
        self._targets: dict[tuple[str, str], TargetHealth] = {}

    def of(self, label: tuple[str, str]) -> TargetHealth:
        """The health of a target; a new one is well."""
        found = self._targets.get(label)
        if found is None:
            found = self._targets[label] = TargetHealth()
        return found

    def begin(self, label: tuple[str, str]) -> None:
        """An attempt begins."""
        self.of(label).in_flight += 1

    def end(self, label: tuple[str, str], is_failure: bool, now: int, settings: Settings) -> None:
        """An attempt has ended. A refusal by the caller's fault is no failure of the target."""
        health = self.of(label)
        health.in_flight = max(0, health.in_flight - 1)
        if not is_failure:
            health.failures = health.open_until = 0
            return
        health.failures += 1
        if health.failures >= settings.breaker_failures:
            health.open_until = now + settings.breaker_s * _SECOND

    def keep(self, labels: set[tuple[str, str]]) -> None:
        """Forget targets that are no longer declared and have nothing in flight."""
        self._targets = {
            label: health for label, health in self._targets.items() if label in labels or health.in_flight
        }

    def view(self) -> dict[str, dict[str, int | bool]]:
        """`provider/model` -> failures, in flight, whether the circuit is open."""
        return {
            "/".join(label): {
                "failures": health.failures,
                "in_flight": health.in_flight,
                "is_open": bool(health.open_until),
            }
            for label, health in self._targets.items()
        }


class _Aim(Protocol):
    @property
    def weight(self) -> int: ...
    @property
    def max_concurrent(self) -> int: ...


class Asked(Protocol):
    """One target of a plan."""

    @property
    def label(self) -> tuple[str, str]: ...
    @property
    def aim(self) -> _Aim: ...


class Turn(NamedTuple):
    """What to do next: ask the target at `place` after `pause_ms`."""

    place: int
    pause_ms: int


class Plan:
    """The attempts of one request."""

    __slots__ = ("_aims", "_attempts", "_health", "_order", "_round", "_targets", "retry_after_ms")

    def __init__(self, aims: Aims, targets: Sequence[Asked], health: Health, order: Sequence[int]) -> None:
        self._aims = aims
        self._targets = targets
        self._health = health
        self._order = list(order)
        self._round = 0
        self._attempts = 0
        self.retry_after_ms = 0
        """What the last refusal asked for; a round waits at least so long."""

    def next(self, now: int) -> Turn | None:
        """The next target, or None when nothing is left to try. Takes a probe of an open circuit for itself."""
        if self._attempts >= MAX_ATTEMPTS:
            return None
        pause_ms = 0
        if not self._order:
            if self._round >= self._aims.retries:
                return None
            pause_ms = min(MAX_PAUSE_MS, max(self._aims.backoff_ms << self._round, self.retry_after_ms))
            self._round += 1
            self._order = list(range(len(self._targets)))
        index = self._best(now)
        if index is None:
            return None
        self._order.remove(index)
        self._attempts += 1
        return Turn(index, pause_ms)

    def _best(self, now: int) -> int | None:
        """The first in order that is well and has room; else the first open circuit with room."""
        fallback = None
        for index in self._order:
            target = self._targets[index]
            health = self._health.of(target.label)
            limit = target.aim.max_concurrent
            if limit and health.in_flight >= limit:
                continue
            if health.open_until > now:
                fallback = index if fallback is None else fallback
                continue
            if health.open_until:
                # this call is the probe; the others wait for what becomes of it
                health.open_until = now + PROBE_NS
            return index
        return fallback


def order_of(
    aims: Aims, targets: Sequence[Asked], turns: list[int], cost_of: Callable[[int], int | None]
) -> list[int]:
    """Indices of the targets in the order of the strategy. `turns` is the weighted strategy's memory.

    `cost_of` gives the worst case of this call at a target in nanos, None if it cannot be served there.
    """
    indices = list(range(len(targets)))
    match aims.strategy:
        case Strategy.ORDERED:
            return indices
        case Strategy.CHEAPEST:
            costs = {index: cost_of(index) for index in indices}
            known = [(cost, index) for index, cost in costs.items() if cost is not None]
            return [index for _, index in sorted(known)] + [i for i in indices if costs[i] is None]
        case Strategy.WEIGHTED:
            # smooth weighted round robin: exact shares over any stretch, and no random number
            for index in indices:
                turns[index] += targets[index].aim.weight
            first = max(indices, key=lambda index: (turns[index], -index))
            turns[first] -= sum(target.aim.weight for target in targets)
            others = sorted((i for i in indices if i != first), key=lambda i: -targets[i].aim.weight)
            return [first, *others]
