"""What a page shows, as its address says it: range, group and filters. Pure; unknown values fall back to defaults."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple, Self
from urllib.parse import urlencode

from outlay.flow.scope import MAX_VALUE_LENGTH, UNATTRIBUTED, Identity, is_dimension
from outlay.kernel.clock import NANOS_PER_SECOND

_MINUTE: Final = 60 * NANOS_PER_SECOND
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
RANGES: Final = {
    # number of slots and their length in ns
    "1h": (60, _MINUTE),
    "6h": (72, 5 * _MINUTE),
    "24h": (24, _HOUR),
    "7d": (28, 6 * _HOUR),
    "30d": (30, _DAY),
    "90d": (90, _DAY),
}
RANGE_WORDS: Final = {
    "1h": "last hour",
    "6h": "last 6 hours",
    "24h": "last 24 hours",
    "7d": "last 7 days",
    "30d": "last 30 days",
    "90d": "last 90 days",
}
DEFAULT_RANGE: Final = "24h"
DEFAULT_GROUP: Final = "team"
GROUPS: Final = (
    "team",
    "model",
    "provider",
    "key",
    "run",
    "agent",
    "user",
    "project",
    "customer",
    "environment",
    "workload",
)
"""Offered; any dimension and `tag.NAME` may stand in the address."""
FILTERS: Final = ("team", "model", "provider", "key", "run")
"""Always offered; any dimension and `tag.NAME` may stand in the address."""


class Span(NamedTuple):
    """A range of whole slots, UTC ns; the last one is still running."""

    since: int
    until: int
    size: int

    @property
    def slots(self) -> range:
        """Starts of the slots."""
        return range(self.since, self.until, self.size)

    def label(self, at: int) -> str:
        """A slot's start for an axis."""
        moment = datetime.fromtimestamp(at // NANOS_PER_SECOND, UTC)
        if self.until - self.since <= _DAY:
            return moment.strftime("%H:%M")
        return moment.strftime("%d %b" if self.size >= _DAY else "%d %b %H:%M")


@dataclass(frozen=True, slots=True)
class Filters:
    """See the module."""

    range: str = DEFAULT_RANGE
    by: str = DEFAULT_GROUP
    where: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Self:
        """From an address's parameters."""
        wanted, by = query.get("range", ""), query.get("by", "")
        where = tuple(
            sorted((n, v) for n, v in query.items() if is_dimension(n) and 0 < len(v) <= MAX_VALUE_LENGTH)
        )
        return cls(
            wanted if wanted in RANGES else DEFAULT_RANGE,
            by if is_dimension(by) and len(by) <= MAX_VALUE_LENGTH else DEFAULT_GROUP,
            where,
        )

    def span(self, now: int) -> Span:
        """Whole slots until the end of the one that runs at `now`."""
        count, size = RANGES[self.range]
        until = (now // size + 1) * size
        return Span(until - count * size, until, size)

    def covers(self, identity: Identity) -> bool:
        """Whether an identity is shown."""
        return all((identity.value(name) or UNATTRIBUTED) == value for name, value in self.where)

    def query(self, **changes: str | None) -> str:
        """`?range=...` with some parameters changed, or left out by None; "" if nothing differs from the defaults."""
        found: dict[str, str | None] = {**dict(self.where)}
        if self.range != DEFAULT_RANGE:
            found["range"] = self.range
        if self.by != DEFAULT_GROUP:
            found["by"] = self.by
        found |= changes
        kept = [(name, value) for name, value in found.items() if value]
        return f"?{urlencode(kept)}" if kept else ""

    def with_value(self, name: str, value: str) -> str:
        """The address's parameters with one more filter."""
        return self.query(**{name: value})

    def without(self, name: str) -> str:
        """The address's parameters with one filter less."""
        return self.query(**{name: None})
