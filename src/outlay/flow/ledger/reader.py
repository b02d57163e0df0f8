"""Answers about a SQLite ledger from any process: read-only, short, bounded queries. Writes nothing, holds no lock.

Works beside a running gateway (WAL readers do not block the writer) and without one. Amounts are nanos, times UTC
ns. A dimension that was absent is reported as `unattributed`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import apsw
import msgspec

from outlay.flow.budgets import RUN_METER
from outlay.flow.ledger.directory import decode_identity, decode_values
from outlay.flow.ledger.port import ChargeRow, ObjectRow
from outlay.flow.ledger.sqlite import APPLICATION_ID
from outlay.flow.scope import UNATTRIBUTED, is_dimension, scope_text
from outlay.flow.shadow import PREFIX
from outlay.kernel.errors import ConfigError, StoreError

MAX_ROWS = 10_000
_EXTRA_GROUPS = ("served", "basis", "status", "day", "hour", "operation", "decision")
"""Groups of a spend report beside the dimensions and tags."""


class SpendRow(msgspec.Struct, frozen=True):
    """One group of a spend report."""

    group: dict[str, str]
    cost_nanos: int
    charges: int
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    unknown_nanos: int
    """Part of the cost that is booked at the held amount because the outcome is unknown."""
    overrun_nanos: int


class AccountView(msgspec.Struct, frozen=True):
    """Balance of one budget window."""

    id: int
    budget: str
    scope: str
    window_start: int
    window_end: int
    limit_nanos: int | None
    spent_nanos: int
    held_nanos: int
    is_current: bool


class ChargeView(msgspec.Struct, frozen=True):
    """One charge with its names."""

    id: str
    request_id: str
    attempt: int
    identity: dict[str, Any]
    provider: str
    model: str
    served: str
    operation: str
    price_id: str
    status: str
    basis: str
    hold_nanos: int
    cost_nanos: int
    tokens: dict[str, int | None]
    placed_at: int
    settled_at: int
    http_status: int | None
    reason: str | None


_DECISION = f"CASE WHEN reason LIKE '{PREFIX}%' THEN substr(reason, {len(PREFIX) + 1}) ELSE '' END"
"""What enforcement would have said of a call made in shadow mode."""
PASSED = "pass"


class _Named(NamedTuple):
    """What names a group of charges."""

    identity_id: int
    route_id: int
    basis: str
    status: str
    at: int
    decision: str


class LedgerReader:
    """See the module. Raises StoreError if there is no ledger at `path`, or it is not one."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise StoreError(f"there is no ledger at {path.name} yet; `outlay up` makes it")
        try:
            self._db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
            self._db.set_busy_timeout(1000)
            application: Any = self._db.pragma("application_id")
        except apsw.Error as error:
            raise StoreError(f"cannot read the ledger {path.name}: {type(error).__name__}") from error
        if application != APPLICATION_ID:
            raise StoreError(f"{path.name} is not an Outlay ledger")
        self._bodies: dict[tuple[str, int], str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def spend(self, by: Sequence[str], since_ns: int = 0, until_ns: int = 2**62) -> list[SpendRow]:
        """Spend by any dimensions, `tag.NAME`, or `served`, `basis`, `status`, `operation`, `day`, `hour` (UTC);
        `decision`: what enforcement would have said of calls made in shadow mode.

        Charges count by the time their hold was placed, `since_ns <= placed_at < until_ns`. Dearest group first.
        Raises ConfigError on an unknown group.
        """
        for name in by:
            if not is_dimension(name) and name not in _EXTRA_GROUPS:
                raise ConfigError(
                    f"unknown group {name!r}; use a dimension, tag.NAME or {', '.join(_EXTRA_GROUPS)}"
                )
        size = 86_400 if "day" in by else 3_600 if "hour" in by else 0
        slot = f"placed_at / 1000000000 / {size}" if size else "0"
        decision = _DECISION if "decision" in by else "''"
        low = max(0, since_ns // 1_000_000 - 60_000).to_bytes(6, "big")
        rows = self._all(
            f"""SELECT identity_id, route_id, basis, status, {slot}, {decision}, count(*),
                sum(cost_nanos + adjustment_nanos),
                sum(coalesce(input_tokens, 0)), sum(coalesce(cache_read_tokens, 0)),
                sum(coalesce(cache_write_tokens, 0)), sum(coalesce(output_tokens, 0)),
                sum(coalesce(reasoning_tokens, 0)),
                sum(CASE basis WHEN 'outcome_unknown' THEN cost_nanos + adjustment_nanos ELSE 0 END),
                sum(max(cost_nanos - hold_nanos, 0))
                FROM charges WHERE id >= ?1 AND placed_at >= ?2 AND placed_at < ?3 GROUP BY 1, 2, 3, 4, 5, 6""",
            (low, since_ns, until_ns),
        )
        groups: dict[tuple[str, ...], list[int]] = {}
        for identity_id, route_id, basis, status, at, said, *figures in rows:
            named = _Named(identity_id, route_id, basis, status, at * size, said.partition(";")[0] or PASSED)
            key = tuple(self._group_value(name, named) for name in by)
            total = groups.setdefault(key, [0] * len(figures))
            for index, figure in enumerate(figures):
                total[index] += figure
        found = [
            SpendRow(
                dict(zip(by, key, strict=True)),
                cost_nanos=total[1],
                charges=total[0],
                input_tokens=total[2],
                cache_read_tokens=total[3],
                cache_write_tokens=total[4],
                output_tokens=total[5],
                reasoning_tokens=total[6],
                unknown_nanos=total[7],
                overrun_nanos=total[8],
            )
            for key, total in groups.items()
        ]
        return sorted(found, key=lambda row: (-row.cost_nanos, tuple(row.group.values())))

    def _group_value(self, name: str, row: "_Named") -> str:
        if name == "day":
            return self._text("SELECT strftime('%Y-%m-%d', ?, 'unixepoch')", row.at)
        if name == "hour":
            return self._text("SELECT strftime('%Y-%m-%dT%H:00Z', ?, 'unixepoch')", row.at)
        if name == "basis":
            return row.basis
        if name == "status":
            return row.status
        if name == "decision":
            return row.decision
        if name in ("served", "operation"):
            return self._route(row.route_id)[name]
        return decode_identity(self._body("identity", row.identity_id)).value(name) or UNATTRIBUTED

    def accounts(self, now: int, *, with_past: bool = False, budget: str | None = None) -> list[AccountView]:
        """Balances of declared budgets, newest window first; past windows only if asked."""
        # a rolling account's stored figure is as of its last use: its buckets are asked, by the budget's own length
        rolled = (
            "(SELECT coalesce(sum(b.spent), 0) FROM buckets b WHERE b.account_id = accounts.id AND b.start > ?3 -"
            " m.seconds * 1000000000 - max(m.seconds * 1000000000 / 60, 100000000))"
        )
        meaning = (
            "(SELECT budget, max(seq), body ->> '$.window.kind' AS kind, body ->> '$.window.seconds' AS seconds"
            " FROM limits GROUP BY budget)"
        )
        sql = (
            "SELECT id, name, scope, window_start, window_end, limit_nanos,"
            f" CASE m.kind WHEN 'rolling' THEN {rolled} ELSE spent END, held"
            f" FROM accounts JOIN {meaning} m USING (budget)"
            " WHERE name <> ?1 AND (?2 OR window_end > ?3) AND (?4 IS NULL OR name = ?4)"
            f" ORDER BY name, window_start DESC, scope LIMIT {MAX_ROWS}"
        )
        return [
            AccountView(
                row[0],
                row[1],
                scope_text(decode_values(row[2])),
                row[3],
                row[4],
                row[5],
                row[6],
                row[7],
                row[3] <= now < row[4],
            )
            for row in self._all(sql, (RUN_METER, with_past, now, budget))
        ]

    def charges(
        self, limit: int = 100, *, basis: str | None = None, before: bytes | None = None
    ) -> list[ChargeView]:
        """The newest charges, optionally of one basis, optionally older than an id."""
        columns = ",".join(f"c.{name}" for name in ChargeRow._fields)
        sql = (
            f"SELECT {columns}, c.adjustment_nanos FROM charges c WHERE (?1 IS NULL OR basis = ?1)"
            " AND (?2 IS NULL OR id < ?2) ORDER BY id DESC LIMIT ?3"
        )
        return [self._charge_view(row) for row in self._all(sql, (basis, before, min(limit, MAX_ROWS)))]

    def unknown(self, limit: int = MAX_ROWS) -> list[ChargeView]:
        """Charges booked at the held amount because their outcome is unknown; for `ledger resolve`."""
        return self.charges(limit, basis="outcome_unknown")

    def request(self, request_id: bytes) -> list[ChargeView]:
        """All ended attempts of a request, in order."""
        columns = ",".join(ChargeRow._fields)
        sql = (
            f"SELECT {columns}, adjustment_nanos FROM charges WHERE id = ?1 UNION ALL"
            f" SELECT {columns}, adjustment_nanos FROM charges WHERE request_id = ?1 AND attempt > 1"
        )
        return [self._charge_view(row) for row in self._all(sql, (request_id,))]

    def totals(self) -> dict[str, int]:
        """Charges, spend, open holds, unknown outcomes, overruns and adjustments of the whole ledger."""
        row = self._all(
            "SELECT count(*), coalesce(sum(cost_nanos + adjustment_nanos), 0),"
            " coalesce(sum(basis = 'outcome_unknown'), 0), coalesce(sum(max(cost_nanos - hold_nanos, 0)), 0),"
            " coalesce(sum(adjustment_nanos), 0) FROM charges",
            (),
        )[0]
        holds = self._all("SELECT count(*), coalesce(sum(nanos), 0) FROM holds", ())[0]
        names = (
            "charges",
            "spend_nanos",
            "unknown",
            "overrun_nanos",
            "adjustment_nanos",
            "open_holds",
            "held_nanos",
        )
        return dict(zip(names, (*row, *holds), strict=True))

    def objects(self) -> list[ObjectRow]:
        """The newest version of every key, budget, policy, price and order; deletions have no body."""
        sql = "SELECT kind, name, max(version), body, at, actor FROM objects GROUP BY kind, name"
        return [ObjectRow(*row) for row in self._all(sql, ())]

    def versions(self, kind: str, name: str | None = None) -> list[ObjectRow]:
        """Every version of an object (of all of a kind, without a name), the newest first."""
        sql = (
            "SELECT kind, name, version, body, at, actor FROM objects WHERE kind = ?1 AND (?2 IS NULL OR name = ?2)"
            f" ORDER BY at DESC, version DESC LIMIT {MAX_ROWS}"
        )
        return [ObjectRow(*row) for row in self._all(sql, (kind, name))]

    def _charge_view(self, row: tuple[Any, ...]) -> ChargeView:
        charge, adjustment = ChargeRow(*row[:-1]), row[-1]
        route = self._route(charge.route_id)
        price = msgspec.json.decode(self._body("price", charge.price_id))
        tokens = {name: getattr(charge, name) for name in ChargeRow._fields if name.endswith("_tokens")}
        return ChargeView(
            charge.id.hex(),
            charge.request_id.hex(),
            charge.attempt,
            msgspec.json.decode(self._body("identity", charge.identity_id)),
            route["provider"],
            route["model"],
            route["served"],
            route["operation"],
            price.get("price_id", ""),
            charge.status,
            charge.basis,
            charge.hold_nanos,
            charge.cost_nanos + adjustment,
            tokens,
            charge.placed_at,
            charge.settled_at,
            charge.http_status,
            charge.reason,
        )

    def _route(self, route_id: int) -> dict[str, str]:
        return msgspec.json.decode(self._body("route", route_id), type=dict[str, str])

    def _body(self, kind: str, number: int) -> str:
        found = self._bodies.get((kind, number))
        if found is None:
            found = self._text("SELECT body FROM interned WHERE kind = ? AND id = ?", kind, number)
            if len(self._bodies) > MAX_ROWS:
                self._bodies.clear()
            self._bodies[kind, number] = found
        return found

    def _text(self, sql: str, *values: object) -> str:
        return str(self._all(sql, values)[0][0])

    def rows(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Rows of a query; for the rooms beside this one. Raises StoreError."""
        return self._all(sql, values)

    def _all(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(sql, tuple(values)).fetchall()
        except apsw.Error as error:
            raise StoreError(f"the ledger could not be read: {type(error).__name__}: {error}") from error
