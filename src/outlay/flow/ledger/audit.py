"""Recompute everything from the rows, trusting no balance: what an auditor, a test or `outlay ledger verify` asks.

Replays holds and ends in journal order (`seq`) against the limits then in force. Finds: a hold admitted past a limit,
an account whose stored balance is not what its rows add up to, a hold without or with two ends.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from outlay.flow.ledger.directory import REMOVED
from outlay.flow.ledger.place import LedgerPlace
from outlay.flow.ledger.rows import Rows, open_rows, total
from outlay.flow.windows import Window, WindowKind, bucket_leaves_at, bucket_start

MAX_FINDINGS = 100


class Audit(msgspec.Struct, frozen=True):
    """What the rows say. `findings` is empty when the books are right."""

    charges: int
    open_holds: int
    accounts: int
    spend_nanos: int
    unknown_nanos: int
    overrun_nanos: int
    most_over_limit_nanos: int
    """Largest `spent + held - limit` right after a hold was admitted, over all accounts; <= 0 is right."""
    findings: tuple[str, ...]


class _Meaning(msgspec.Struct):
    scope: dict[str, str]
    window: Window


class _Tally:
    """One account as replayed."""

    def __init__(self, row: tuple[Any, ...], window: Window) -> None:
        self.id, self.budget, self.name, self.spent_stored, self.held_stored = row
        self.window = window
        self.spent = 0
        self.held = 0
        self.buckets: dict[int, int] = {}

    def post(self, nanos: int, at: int) -> None:
        if self.window.kind is WindowKind.ROLLING:
            start = bucket_start(self.window, at)
            self.buckets[start] = self.buckets.get(start, 0) + nanos
        self.spent += nanos

    def spent_at(self, at: int) -> int:
        if self.window.kind is not WindowKind.ROLLING:
            return self.spent
        return sum(
            nanos for start, nanos in self.buckets.items() if bucket_leaves_at(self.window, start) > at
        )


def audit(place: LedgerPlace) -> Audit:
    """Replay the ledger at a place. Takes a consistent snapshot; safe beside a running gateway.

    Raises StoreError if it cannot be read.
    """
    rows = open_rows(place, is_patient=True)
    try:
        with rows.at_rest():
            return replay(rows)
    finally:
        rows.close()


def replay(rows: Rows) -> Audit:
    """Audit the rows of any store."""
    return _Replay(rows).run()


class _Replay:
    def __init__(self, source: Rows) -> None:
        self._rows, self._has = source.rows, source.has
        self._findings: list[str] = []
        self._most = -(2**62)
        self._sets: dict[int, list[int]] = {}
        self._limits: dict[str, tuple[int | None, int]] = {}
        self._own: dict[int, tuple[int | None, int]] = {}

    def run(self) -> Audit:
        """See `audit`."""
        meanings = {row[0]: row[1] for row in self._rows("SELECT budget, body FROM limits ORDER BY seq")}
        self._tallies = {}
        for row in self._rows("SELECT id, budget, name, spent, held FROM accounts"):
            window = msgspec.json.decode(meanings[row[1]], type=_Meaning).window
            self._tallies[row[0]] = _Tally(row, window)
        for number, body in self._rows("SELECT id, body FROM interned WHERE kind = 'accounts'"):
            self._sets[number] = [int(part) for part in body.split(",") if part]
        self._extended: dict[bytes, int] = {}
        if self._has("extensions"):
            self._extended = {
                row[0]: row[1]
                for row in self._rows(f"SELECT hold_id, {total('nanos')} FROM extensions GROUP BY hold_id")
            }
        seeds = self._seeds()
        charges = unknown = spend = overrun = 0
        for _, kind, values in sorted(self._events(), key=lambda event: event[0]):
            if kind == "limit":
                self._limits[values[0]] = (values[1], values[2])
            elif kind == "own":
                self._own[values[0]] = (values[1], values[2])
            elif kind == "hold":
                self._hold(*values)
            elif kind == "end":
                self._end(*values)
                charges += 1
            else:
                self._adjust(*values)
        for cost, hold, adjustment, basis in self._rows(
            "SELECT cost_nanos, hold_nanos, adjustment_nanos, basis FROM charges"
        ):
            spend += cost + adjustment
            overrun += max(0, cost - hold)
            unknown += cost if basis == "outcome_unknown" else 0
        open_holds = self._rows("SELECT count(*) FROM holds")[0][0]
        self._compare(seeds)
        for (charge_id,) in self._rows("SELECT id FROM holds WHERE id IN (SELECT id FROM charges)"):
            self._find(f"attempt {charge_id.hex()} is both open and ended")
        return Audit(
            charges,
            open_holds,
            len(self._tallies),
            spend,
            unknown,
            overrun,
            self._most if self._most > -(2**62) else 0,
            tuple(self._findings),
        )

    def _seeds(self) -> set[int]:
        """Accounts of budgets declared after charges existed, or again: their start cannot be replayed by set."""
        first = self._rows("SELECT min(hold_seq) FROM charges")[0][0]
        if first is None:
            return set()
        rows = self._rows(
            "SELECT a.id FROM accounts a WHERE (SELECT min(seq) FROM limits l WHERE l.budget = a.budget) > ?"
            " OR EXISTS (SELECT 1 FROM limits l WHERE l.budget = a.budget AND l.hard = ?)",
            (first, REMOVED),
        )
        return {row[0] for row in rows}

    def _events(self) -> Iterable[tuple[int, str, tuple[Any, ...]]]:
        for seq, *values in self._rows("SELECT seq, budget, limit_nanos, hard FROM limits"):
            yield seq, "limit", tuple(values)
        if self._has("account_limits"):
            for seq, *values in self._rows("SELECT seq, account_id, limit_nanos, hard FROM account_limits"):
                yield seq, "own", tuple(values)
        for seq, *values in self._rows(
            "SELECT hold_seq, id, accounts_id, hold_nanos, placed_at, CASE basis WHEN 'imported' THEN 1 ELSE 0 END"
            " FROM charges"
        ):
            yield seq, "hold", self._as_placed(values)
        for seq, *values in self._rows("SELECT seq, id, accounts_id, nanos, placed_at, 0 FROM holds"):
            yield seq, "hold", self._as_placed(values)
        for seq, *values in self._grown():
            yield seq, "hold", tuple(values)
        for seq, *values in self._rows(
            "SELECT settle_seq, accounts_id, hold_nanos, cost_nanos, settled_at FROM charges"
        ):
            yield seq, "end", tuple(values)
        for seq, *values in self._rows(
            "SELECT p.seq, c.accounts_id, p.nanos, c.settled_at FROM postings p JOIN charges c ON c.id = p.charge_id"
        ):
            yield seq, "adjust", tuple(values)

    def _as_placed(self, values: list[Any]) -> tuple[Any, ...]:
        """A hold without what it grew by later."""
        attempt, accounts_id, nanos, *rest = values
        return (attempt, accounts_id, nanos - self._extended.get(attempt, 0), *rest)

    def _grown(self) -> list[tuple[Any, ...]]:
        """What holds grew by, as holds of their own."""
        if not self._has("extensions"):
            return []
        return self._rows(
            "SELECT e.seq, e.hold_id, coalesce(c.accounts_id, h.accounts_id), e.nanos, e.at, 0 FROM extensions e"
            " LEFT JOIN charges c ON c.id = e.hold_id LEFT JOIN holds h ON h.id = e.hold_id"
            " WHERE c.id IS NOT NULL OR h.id IS NOT NULL"
        )

    def _hold(self, attempt: bytes, accounts_id: int, nanos: int, at: int, is_opening: int) -> None:
        for account_id in self._sets.get(accounts_id, ()):
            tally = self._tallies[account_id]
            tally.held += nanos
            limit, hard = self._own.get(account_id, (None, -1))
            if hard == -1:
                limit, hard = self._limits.get(tally.budget, (None, 0))
            # what another gateway spent is booked whatever the limit
            if hard == 1 and limit is not None and not is_opening:
                over = tally.spent_at(at) + tally.held - limit
                self._most = max(self._most, over)
                if over > 0:
                    self._find(
                        f"hold {attempt.hex()} took account {account_id} ({tally.name}) {over} nanos past its limit"
                    )

    def _end(self, accounts_id: int, held: int, cost: int, at: int) -> None:
        for account_id in self._sets.get(accounts_id, ()):
            tally = self._tallies[account_id]
            tally.held -= held
            tally.post(cost, at)

    def _adjust(self, accounts_id: int, nanos: int, posted_at: int) -> None:
        for account_id in self._sets.get(accounts_id, ()):
            self._tallies[account_id].post(nanos, posted_at)

    def _compare(self, seeded: set[int]) -> None:
        for tally in self._tallies.values():
            if tally.held != tally.held_stored:
                self._find(
                    f"account {tally.id} ({tally.name}) stores held {tally.held_stored}, rows say {tally.held}"
                )
            is_exact = tally.window.kind is not WindowKind.ROLLING and tally.id not in seeded
            if is_exact and tally.spent != tally.spent_stored:
                self._find(
                    f"account {tally.id} ({tally.name}) stores spent {tally.spent_stored}, rows say {tally.spent}"
                )

    def _find(self, text: str) -> None:
        if len(self._findings) < MAX_FINDINGS:
            self._findings.append(text)
