"""Counters of the data plane, with bounded labels: no user, run or key ever becomes a label. No I/O."""

from bisect import bisect_left
from collections import Counter

import msgspec

from outlay.flow.gateway.settlement import Settlement

LATENCY_BOUNDS_US = (50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 100_000, 1_000_000, 10_000_000)
"""Upper bounds in microseconds of the histogram "request complete to sent upstream"."""


class MetricsView(msgspec.Struct, frozen=True):
    """A reading of all counters. Amounts in nanos; labels are (provider, model)."""

    charges: dict[str, int]
    """`provider|model|basis` -> count."""
    spend_nanos: dict[str, int]
    """`provider|model` -> nanos."""
    refusals: dict[str, int]
    """By code."""
    sent: int
    overrun_nanos: int
    unknown_nanos: int
    """Booked at the held amount because the outcome is unknown."""
    decision_us: list[int]
    """Histogram counts by `LATENCY_BOUNDS_US`, then above."""
    decision_us_sum: int
    open_holds: int = 0
    held_nanos: int = 0
    waiting: int = 0
    connections: int = 0
    exchanges: int = 0
    commits: int = 0
    recovered: int = 0
    is_store_down: bool = False
    blocked: str | None = None
    upstream_connections: dict[str, int] = {}
    snapshot_version: int = 0
    host_crashed: bool = False
    sessions: int = 0
    """Open WebSockets."""
    jobs: int = 0
    """Deferred holds: jobs that providers work on."""
    targets: dict[str, dict[str, int | bool]] = {}
    """`provider/model` -> health, of targets that have alternatives."""


class Metrics:
    """See the module."""

    __slots__ = (
        "_buckets",
        "_charges",
        "_decision_sum",
        "_overrun",
        "_refusals",
        "_sent",
        "_spend",
        "_unknown",
    )

    def __init__(self) -> None:
        self._charges: Counter[tuple[str, str, str]] = Counter()
        self._spend: Counter[tuple[str, str]] = Counter()
        self._refusals: Counter[str] = Counter()
        self._buckets = [0] * (len(LATENCY_BOUNDS_US) + 1)
        self._decision_sum = 0
        self._sent = 0
        self._overrun = 0
        self._unknown = 0

    def sent(self, nanos: int) -> None:
        """A request left `nanos` ns after its last byte came (waiting for money included)."""
        self._sent += 1
        micros = nanos // 1000
        self._decision_sum += micros
        self._buckets[bisect_left(LATENCY_BOUNDS_US, micros)] += 1

    def settled(self, label: tuple[str, str], settlement: Settlement, hold_nanos: int) -> None:
        """A hold ended; `label` is provider and model."""
        self._charges[(*label, settlement.basis)] += 1
        cost = settlement.cost_nanos
        if cost:
            self._spend[label] += cost
            if cost > hold_nanos:
                self._overrun += cost - hold_nanos
            if settlement.basis == "outcome_unknown":
                self._unknown += cost

    def refused(self, code: str) -> None:
        """An answer of our own."""
        self._refusals[code] += 1

    def view(self) -> MetricsView:
        """A reading; the gateway fills in its gauges."""
        return MetricsView(
            charges={"|".join(key): count for key, count in self._charges.items()},
            spend_nanos={"|".join(key): nanos for key, nanos in self._spend.items()},
            refusals=dict(self._refusals),
            sent=self._sent,
            overrun_nanos=self._overrun,
            unknown_nanos=self._unknown,
            decision_us=list(self._buckets),
            decision_us_sum=self._decision_sum,
        )
