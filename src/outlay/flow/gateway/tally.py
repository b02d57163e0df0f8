"""How often callers were refused, by minute, reason and key: counted in memory, handed to the books once a second."""

from typing import Final

from outlay.flow.gateway.refusal import Refusal
from outlay.flow.gateway.snapshot import KeySpec
from outlay.flow.ledger.port import RefusalRow

MINUTE_NS: Final = 60_000_000_000
MAX_COUNTERS: Final = 5_000
"""Counters between two hand-overs; what is beyond is counted without its key."""
NOBODY: Final = KeySpec("", "")


class Tally:
    """See the module."""

    def __init__(self) -> None:
        self._counts: dict[tuple[int, str, str, str, str, str], int] = {}

    def refused(self, refusal: Refusal, key: KeySpec | None, now: int) -> None:
        """A caller was refused at `now` (UTC ns)."""
        who = NOBODY if key is None or len(self._counts) >= MAX_COUNTERS else key
        budget = refusal.fields.get("budget") or refusal.fields.get("policy") or ""
        counter = (now // MINUTE_NS, refusal.code, str(budget), who.org, who.team, who.name)
        self._counts[counter] = self._counts.get(counter, 0) + 1

    def take(self) -> list[RefusalRow]:
        """What was counted since the last time."""
        counts, self._counts = self._counts, {}
        return [RefusalRow(*counter, count) for counter, count in counts.items()]
