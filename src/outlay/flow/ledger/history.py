"""The ledger as a replay needs it: charges in the order of their holds, and what was spent before. Read-only.

Rows are streamed and put in order as they come, so memory does not grow with the ledger.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from outlay.flow.budgets import BudgetSpec
from outlay.flow.ledger.directory import decode_identity
from outlay.flow.ledger.reader import LedgerReader
from outlay.flow.ledger.rows import total
from outlay.flow.past import PastCharge, PastRoute, Seed
from outlay.flow.scope import Identity
from outlay.flow.windows import NANOS_PER_SECOND, WindowKind, bounds, bucket_nanos
from outlay.lookup.price import ModelPrice, Rates

BATCH: Final = 1_000
"""Rows read and put in order at once."""
_IS_MORE = "cache_read_tokens > 0 OR cache_write_tokens > 0 OR tool_requests > 0 OR other_usage IS NOT NULL"
_USAGE = (
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "cache_write_12h_tokens",
    "tool_requests",
    "other_usage",
)
"""In the order of `OtherUsage`, where any of it counts."""
_COLUMNS = (
    "placed_at, hold_seq, settled_at, settle_seq, request_id, attempt, identity_id, route_id, price_id, hold_nanos,"
    " cost_nanos + adjustment_nanos, input_tokens, output_tokens"
)
"""In the order of `PastCharge`."""


class HistoryReader(LedgerReader):
    """See the module; also what the numbers in its rows mean (`past.Names`)."""

    def past(self, since_ns: int, until_ns: int, *, with_usage: bool = True) -> Iterator[PastCharge]:
        """Every charge placed in `since_ns <= placed_at < until_ns`, by (placed_at, hold_seq). Raises StoreError.

        Without usage the last field is None. Ids rise with the time of their request, which is never after its hold:
        rows are read in that order and handed on once no later id can come before them.
        """
        usage = f"CASE WHEN {_IS_MORE} THEN {self._rows.listed(_USAGE)} END" if with_usage else "NULL"
        sql = (
            f"SELECT {_COLUMNS}, {usage} FROM charges"
            " WHERE id >= ? AND id < ? AND placed_at >= ? AND placed_at < ? ORDER BY id"
        )
        values = (_lowest_id(since_ns), _highest_id(until_ns), since_ns, until_ns)
        waiting: list[PastCharge] = []
        with self.at_rest():
            for batch in self._rows.batches(sql, values, BATCH):
                waiting += batch
                waiting.sort()
                ready = bisect_left(waiting, _no_later_than(batch), key=_placed_at)
                yield from waiting[:ready]
                del waiting[:ready]
        yield from waiting

    def booked(self, since_ns: int, until_ns: int) -> tuple[int, int]:
        """(charges, nanos) that the ledger booked for holds placed in `since_ns <= placed_at < until_ns`."""
        row = self._all(
            f"SELECT count(*), {total('cost_nanos + adjustment_nanos')} FROM charges"
            " WHERE placed_at >= ? AND placed_at < ?",
            (since_ns, until_ns),
        )[0]
        return row[0], row[1]

    def spent_before(self, budgets: Sequence[BudgetSpec], since_ns: int) -> Iterator[Seed]:
        """What had been spent when a replay begins, in windows that were running then; oldest first in each.

        A call in flight at that moment counts as settled.
        """
        for budget in budgets:
            start, _ = bounds(budget.window, since_ns)
            if budget.window.kind is WindowKind.ROLLING:
                size = bucket_nanos(budget.window)
                start = since_ns - budget.window.seconds * NANOS_PER_SECOND - size
                ended = f"(CASE WHEN settled_at < {since_ns} THEN settled_at ELSE {since_ns - 1} END)"
                rows = self._all(
                    f"SELECT identity_id, {ended} - {ended} % {size}, {total('cost_nanos + adjustment_nanos')}"
                    " FROM charges WHERE id < ? AND placed_at < ? AND settled_at > ? GROUP BY 1, 2",
                    (_highest_id(since_ns), since_ns, start),
                )
            else:
                rows = self._all(
                    f"SELECT identity_id, {start}, {total('cost_nanos + adjustment_nanos')} FROM charges"
                    " WHERE id >= ? AND id < ? AND placed_at >= ? AND placed_at < ? GROUP BY 1",
                    (_lowest_id(start), _highest_id(since_ns), start, since_ns),
                )
            rows.sort(key=lambda row: (row[1], row[0]))
            self._learn("identity", {row[0] for row in rows})
            for identity_id, at, nanos in rows:
                if nanos:
                    yield Seed(budget, self.identity(identity_id), at, nanos)

    def identity(self, number: int) -> Identity:
        """See `past.Names`."""
        return decode_identity(self._body("identity", number))

    def route(self, number: int) -> PastRoute:
        """See `past.Names`."""
        return msgspec.json.decode(self._body("route", number), type=PastRoute)

    def price(self, number: int) -> ModelPrice:
        """See `past.Names`. What another gateway booked has no price: free, and never asked for."""
        try:
            return msgspec.json.decode(self._body("price", number), type=ModelPrice)
        except msgspec.ValidationError:
            return ModelPrice(provider="", model="", source="imported", rates=Rates(0))


def _placed_at(row: PastCharge) -> int:
    return row[0]


def _no_later_than(batch: Sequence[PastCharge]) -> int:
    """UTC ns that no hold of a later id can have been placed before."""
    # a first attempt's id is its request's, and begins with its time in ms
    request = next((row[4] for row in reversed(batch) if row[5] == 1), b"")
    return int.from_bytes(request[:6], "big") * 1_000_000


def _lowest_id(since_ns: int) -> bytes:
    """Ids hold the time of the request, which is up to a minute before its hold."""
    return max(0, since_ns // 1_000_000 - 60_000).to_bytes(6, "big")


def _highest_id(until_ns: int) -> bytes:
    """No request is younger than its hold."""
    return min(until_ns // 1_000_000 + 1, 2**48 - 1).to_bytes(6, "big")
