"""Sums of the ledger's charges by time and identity, kept in memory and brought up to date from its rows. Read-only.

Charges are read once: those older than `SETTLING_S` are added up for good (no new id falls there), those of holds that
were open then are added when they end, corrections and imported openings when their posting appears, and the newest
are read again each time. Sums equal `LedgerReader.spend` to the nano-dollar. Amounts in nanos, times in UTC ns.

Postings are followed by their number: whoever writes them must make a number visible after all lower ones, as one
writer does.
"""

import threading
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from outlay.flow.ledger.directory import decode_identity
from outlay.flow.ledger.place import LedgerPlace
from outlay.flow.ledger.rows import AT_ONCE, Rows, Shelf, among, total
from outlay.flow.scope import Identity
from outlay.kernel.clock import NANOS_PER_SECOND, Clock
from outlay.kernel.errors import StoreError

SETTLING_S: Final = 300
"""Ids newer than this are read again each time: a hold is placed well within it of the making of its id (the longest
wait for a body and for money is 130 s by default)."""
STEP_NS: Final = NANOS_PER_SECOND // 10
"""Longest look back in one read transaction, about: the writer's log cannot be cut while one is open."""
REFRESH_NS: Final = NANOS_PER_SECOND // 2
"""Readers that ask more often share a look."""
MAX_STRAGGLERS: Final = 100_000
"""Open holds that are waited for by id."""
_IDS_AT_ONCE: Final = 500
"""Charges asked for in one statement."""
_MINUTE: Final = 60 * NANOS_PER_SECOND
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
KEPT: Final = {_MINUTE: 7 * _HOUR, _HOUR: 8 * _DAY}
"""Sums by the minute and by the hour are kept for so long, sums by the day for ever."""
_CHUNKS: Final = (
    (9 * _HOUR, _MINUTE, 3_600_000),
    (9 * _DAY, _HOUR, 6 * 3_600_000),
    (2**63, _DAY, 12 * 3_600_000),
)
"""(age up to which, unit in which, milliseconds of ids that) are read at once when looking back. Longer than what is
kept: a chunk may begin before it."""


class Figures(NamedTuple):
    """Sums over charges."""

    charges: int = 0
    calls: int = 0
    """First attempts."""
    cost: int = 0
    unknown: int = 0
    """Part of the cost whose outcome is unknown."""
    input: int = 0
    cache_read: int = 0
    output: int = 0
    first_at: int = 2**63 - 1
    last_at: int = 0

    def plus(self, other: "Figures") -> "Figures":
        """The sum of both."""
        # written out: this is what a page spends its time on
        return Figures(
            self[0] + other[0],
            self[1] + other[1],
            self[2] + other[2],
            self[3] + other[3],
            self[4] + other[4],
            self[5] + other[5],
            self[6] + other[6],
            self[7] if self[7] < other[7] else other[7],
            self[8] if self[8] > other[8] else other[8],
        )


NOTHING: Final = Figures()
Cells = dict[int, dict[int, Figures]]
"""Slot number -> identity number -> sums."""
_COLUMNS: Final = (
    f"count(*), count(CASE WHEN attempt = 1 THEN 1 END), {total('cost_nanos + adjustment_nanos')}, 0,"
    f" {total('input_tokens')}, {total('cache_read_tokens')}, {total('output_tokens')}, min(placed_at),"
    " max(settled_at)"
)
_OF_ONE: Final = (
    "1, CASE WHEN attempt = 1 THEN 1 ELSE 0 END, cost_nanos + adjustment_nanos, 0, coalesce(input_tokens, 0),"
    " coalesce(cache_read_tokens, 0), coalesce(output_tokens, 0), placed_at, settled_at"
)
"""As `_COLUMNS`, of a single charge."""
_UNKNOWN: Final = (
    "SELECT id, identity_id, placed_at, cost_nanos + adjustment_nanos FROM charges WHERE basis = 'outcome_unknown'"
    " AND id >= ? AND id < ?"
)


class Cell(NamedTuple):
    """Sums of one identity in one slot."""

    at: int
    """Start of the slot."""
    number: int
    """Of the identity."""
    figures: Figures


class Rollup:
    """See the module. May be used from many threads. Raises StoreError if there is no ledger."""

    def __init__(self, place: LedgerPlace, clock: Clock, settling_s: int = SETTLING_S) -> None:
        self._shelf = Shelf(place)
        self._clock = clock
        self._settling_ms = settling_s * 1000
        self._lock = threading.Lock()
        self.revision = 0
        """Changes when a sum may have changed."""
        self._forget()

    def _forget(self) -> None:
        self.revision += 1
        self._layers: dict[int, Cells] = {_MINUTE: {}, _HOUR: {}, _DAY: {}}
        self._tail: list[Cell] = []
        self._from = self._until = 0
        """Ids of these milliseconds are added up for good; 0, 0 before the first look."""
        self._is_whole = False
        self._stragglers: set[bytes] = set()
        self._unknown: dict[bytes, int] = {}
        self._posting = 0
        self.names: dict[int, Identity] = {}
        """By number; grows only."""
        self._unnamed: set[int] = set()
        self._mark: object = None
        self._newest = b""
        """The newest charge that was seen: a ledger without it is another one, or one brought back from a backup."""
        self._looked_at = -(2**63)

    def close(self) -> None:
        """Let go of what it reads from."""
        self._shelf.close()

    # -- reading ----------------------------------------------------------------------------------------------

    def cells(self, since: int, until: int, size: int) -> list[Cell]:
        """Sums of charges placed in `since <= placed_at < until`, an identity several times in a slot if need be.

        `size` is the slots' length in ns: whole days, whole hours within the last 8 days, or whole minutes within the
        last 7 hours; both times must fall on the start of such a slot's unit.
        """
        unit = next(unit for unit in (_DAY, _HOUR, _MINUTE) if size % unit == 0 and since % unit == 0)
        self.refresh(since)
        with self._lock:
            cells = self._layers[unit]
            found = [
                Cell(slot * unit // size * size, number, figures)
                for slot in range(since // unit, until // unit)
                for number, figures in cells.get(slot, {}).items()
            ]
            found += [
                Cell(at // size * size, number, figures)
                for at, number, figures in self._tail
                if since <= at < until
            ]
        return found

    def refresh(self, since: int) -> None:
        """Bring the sums up to date, and back to `since` at least. Raises StoreError."""
        since_ms = max(0, since // 1_000_000 - self._settling_ms)
        while self.step(since_ms):
            pass

    def step(self, since_ms: int = 0) -> bool:
        """One bounded look; tells whether more of the time since then is left to read. Raises StoreError."""
        with self._lock:
            is_fresh = self._clock.monotonic() - self._looked_at < REFRESH_NS
            if is_fresh and (self._is_whole or self._from <= since_ms):
                return False
            with self._shelf.lent() as rows, rows.at_rest():
                self._recognise(rows)
                try:
                    self._look(rows)
                    began = self._clock.monotonic()
                    while (
                        not self._is_whole
                        and self._from > since_ms
                        and self._clock.monotonic() - began < STEP_NS
                    ):
                        self._look_back(rows)
                    self._name(rows)
                except StoreError:
                    # a part of it may be added up already: the next look begins anew, rather than count it twice
                    names = self.names
                    self._forget()
                    self.names = names
                    raise
            self._looked_at = self._clock.monotonic()
            return not self._is_whole and self._from > since_ms

    def _recognise(self, rows: Rows) -> None:
        """Forget everything if this is another ledger than before."""
        mark = rows.mark()
        if mark != self._mark or not self._has_newest(rows):
            self._forget()
            self._mark = mark
        found = rows.rows("SELECT id FROM charges ORDER BY id DESC LIMIT 1")
        self._newest = found[0][0] if found else b""

    def _has_newest(self, rows: Rows) -> bool:
        return not self._newest or bool(rows.rows("SELECT 1 FROM charges WHERE id = ?", (self._newest,)))

    def _look(self, rows: Rows) -> None:
        """What is new."""
        now_ms = self._clock.now() // 1_000_000
        until = max(self._until, now_ms - self._settling_ms)
        if not self._until:
            self._from = self._until = until
            self._posting = rows.rows("SELECT coalesce(max(seq), 0) FROM postings")[0][0]
        changed = self._take_late(rows)
        if until > self._until:
            changed |= self._hold_on(rows, _MINUTE, self._until, until)
            self._until = until
        self._stragglers = self._open_holds(rows, self._from, until)
        # in an order of its own: a database keeps none
        tail = sorted(self._grouped(rows, _MINUTE, until, None))
        if changed or tail != self._tail:
            self.revision += 1
        self._tail = tail
        self._unnamed |= {cell.number for cell in tail} - self.names.keys()
        now = self._clock.now()
        for unit, kept in KEPT.items():
            cells, oldest = self._layers[unit], (now - kept) // unit
            for slot in [slot for slot in cells if slot < oldest]:
                del cells[slot]

    def _open_holds(self, rows: Rows, since: int, until: int) -> set[bytes]:
        sql = f"SELECT id FROM holds WHERE id >= ? AND id < ? LIMIT {MAX_STRAGGLERS}"
        return {row[0] for row in rows.rows(sql, (_low(since), _low(until)))}

    def _take_late(self, rows: Rows) -> bool:
        """Charges of holds that were open when their time was added up, openings, and corrections."""
        settled = self._charges(rows, self._stragglers)
        for charge in settled.values():
            self._add_charge(charge)
        postings = rows.rows(
            "SELECT seq, charge_id, kind, nanos FROM postings WHERE seq > ? ORDER BY seq", (self._posting,)
        )
        old = {row[1] for row in postings if self._is_held(row[1]) and row[1] not in settled}
        charges = self._charges(rows, old)
        for seq, charge_id, kind, nanos in postings:
            self._posting = seq
            if charge_id not in charges:
                continue
            charge = charges[charge_id]
            if kind == "opening":
                self._add_charge(charge)
            else:
                was_unknown = self._unknown.pop(charge_id, 0)
                self._add(charge[2], charge[1], NOTHING._replace(cost=nanos, unknown=-was_unknown), _MINUTE)
        return bool(settled or charges)

    def _is_held(self, charge_id: bytes) -> bool:
        return _low(self._from) <= charge_id < _low(self._until)

    def _charges(self, rows: Rows, ids: Iterable[bytes]) -> dict[bytes, tuple[Any, ...]]:
        """(id, identity, placed_at, is unknown, sums) by id."""
        wanted = list(ids)
        found: dict[bytes, tuple[Any, ...]] = {}
        for start in range(0, len(wanted), _IDS_AT_ONCE):
            some = wanted[start : start + _IDS_AT_ONCE]
            for charge_id, number, placed_at, basis, *figures in rows.rows(
                f"SELECT id, identity_id, placed_at, basis, {_OF_ONE} FROM charges"
                f" WHERE id IN ({','.join('?' * len(some))})",
                some,
            ):
                is_unknown = basis == "outcome_unknown"
                found[charge_id] = (charge_id, number, placed_at, is_unknown, Figures(*figures))
        return found

    def _add_charge(self, charge: tuple[Any, ...]) -> None:
        charge_id, identity, placed_at, is_unknown, figures = charge
        if is_unknown:
            self._unknown[charge_id] = figures.cost
            figures = figures._replace(unknown=figures.cost)
        self._add(placed_at, identity, figures, _MINUTE)

    def _add(self, placed_at: int, identity: int, figures: Figures, finest: int) -> None:
        """To the sums by `finest` unit and by longer ones."""
        for unit, cells in self._layers.items():
            if unit >= finest:
                slot = cells.setdefault(placed_at // unit, {})
                before = slot.get(identity)
                slot[identity] = figures if before is None else before.plus(figures)
        if identity not in self.names:
            self._unnamed.add(identity)

    def _look_back(self, rows: Rows) -> None:
        """A chunk further back."""
        newest = rows.rows(
            "SELECT id FROM charges WHERE id < ? ORDER BY id DESC LIMIT 1", (_low(self._from),)
        )
        if not newest:
            self._is_whole, self._from = True, 0
            return
        # times without a charge are stepped over
        at = int.from_bytes(newest[0][0][:6], "big")
        age = self._clock.now() - at * 1_000_000
        _, unit, length = next(chunk for chunk in _CHUNKS if age < chunk[0])
        since, until = at // length * length, self._from
        self._hold_on(rows, unit, since, until)
        self._stragglers |= self._open_holds(rows, since, until)
        self._from = since
        self.revision += 1

    def _hold_on(self, rows: Rows, unit: int, since: int, until: int) -> bool:
        """Add up charges whose ids lie in these milliseconds; tells whether there were any."""
        cells = self._grouped(rows, unit, since, until)
        for at, number, figures in cells:
            self._add(at, number, figures, unit)
        for charge_id, number, placed_at, nanos in rows.rows(_UNKNOWN, (_low(since), _low(until))):
            self._unknown[charge_id] = nanos
            self._add(placed_at, number, NOTHING._replace(unknown=nanos), unit)
        return bool(cells)

    def _grouped(self, rows: Rows, unit: int, since: int, until: int | None) -> list[Cell]:
        end = b"\xff" * 16 if until is None else _low(until)
        sums = rows.rows(
            f"SELECT placed_at / {unit}, identity_id, {_COLUMNS} FROM charges WHERE id >= ? AND id < ? GROUP BY 1, 2",
            (_low(since), end),
        )
        found = [Cell(row[0] * unit, row[1], Figures(*row[2:])) for row in sums]
        if until is None:
            found += [
                Cell(placed_at // unit * unit, number, NOTHING._replace(unknown=nanos))
                for _, number, placed_at, nanos in rows.rows(_UNKNOWN, (_low(since), end))
            ]
        return found

    def _name(self, rows: Rows) -> None:
        if not self._unnamed:
            return
        unnamed = sorted(self._unnamed)
        for start in range(0, len(unnamed), AT_ONCE):
            some = among("id", unnamed[start : start + AT_ONCE])
            bodies = rows.rows(f"SELECT id, body FROM interned WHERE kind = 'identity' AND {some}")
            self.names.update((number, decode_identity(body)) for number, body in bodies)
        self._unnamed.clear()


def _low(milliseconds: int) -> bytes:
    """What is not above any id made in that millisecond."""
    return milliseconds.to_bytes(6, "big")
