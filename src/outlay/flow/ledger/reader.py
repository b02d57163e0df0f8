"""Answers about a ledger from any process: read-only, short, bounded queries. Writes nothing, holds no lock.

Works beside a running gateway (readers do not block the writer) and without one, on SQLite and on PostgreSQL (`rows`).
Amounts are nanos, times UTC ns. A dimension that was absent is reported as `unattributed`.
"""

import time
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from outlay.flow.budgets import RUN_METER
from outlay.flow.ledger.directory import decode_identity, decode_values
from outlay.flow.ledger.place import Database, LedgerPlace
from outlay.flow.ledger.port import ChargeRow, ObjectRow
from outlay.flow.ledger.rows import AT_ONCE, Rows, Values, among, open_rows, total
from outlay.flow.scope import UNATTRIBUTED, Identity, is_dimension, scope_text
from outlay.flow.shadow import PREFIX
from outlay.flow.windows import Window, WindowKind, bucket_leaves_at
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


_SAID = f"substr(reason, {len(PREFIX) + 1})"
_DECISION = f"CASE WHEN substr(reason, 1, {len(PREFIX)}) = '{PREFIX}' THEN {_SAID} ELSE '' END"
"""What enforcement would have said of a call made in shadow mode."""
PASSED = "pass"
_UNKNOWN_NANOS = "CASE basis WHEN 'outcome_unknown' THEN cost_nanos + adjustment_nanos ELSE 0 END"
_OVERRUN = "CASE WHEN cost_nanos > hold_nanos THEN cost_nanos - hold_nanos ELSE 0 END"


class _Named(NamedTuple):
    """What names a group of charges."""

    identity: Identity | None
    route_id: int
    basis: str
    status: str
    at: int
    decision: str


class _Meaning(msgspec.Struct):
    window: Window


class LedgerReader:
    """See the module. `source`: where the ledger is, or rows that somebody else opened and will close.

    Raises StoreError if there is no ledger, or it is not one.
    """

    def __init__(self, source: LedgerPlace | Rows) -> None:
        self._is_own = isinstance(source, Path | Database)
        self._rows: Rows = open_rows(source) if isinstance(source, Path | Database) else source
        self._bodies: dict[tuple[str, int], str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what it opened."""
        if self._is_own:
            self._rows.close()

    def at_rest(self) -> AbstractContextManager[None]:
        """Everything read inside is of one moment; the gateway writes on meanwhile."""
        return self._rows.at_rest()

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
            f"SELECT identity_id, route_id, basis, status, {slot}, {decision}, count(*),"
            f" {total('cost_nanos + adjustment_nanos')}, {total('input_tokens')}, {total('cache_read_tokens')},"
            f" {total('cache_write_tokens')}, {total('output_tokens')}, {total('reasoning_tokens')},"
            f" {total(_UNKNOWN_NANOS)}, {total(_OVERRUN)}"
            " FROM charges WHERE id >= ? AND placed_at >= ? AND placed_at < ? GROUP BY 1, 2, 3, 4, 5, 6",
            (low, since_ns, until_ns),
        )
        identities: dict[int, Identity] = {}
        if any(is_dimension(name) for name in by):
            bodies = self._learn("identity", {row[0] for row in rows})
            identities = {number: decode_identity(body) for number, body in bodies.items()}
        if "served" in by or "operation" in by:
            self._learn("route", {row[1] for row in rows})
        groups: dict[tuple[str, ...], list[int]] = {}
        for identity_id, route_id, basis, status, at, said, *figures in rows:
            named = _Named(
                identities.get(identity_id),
                route_id,
                basis,
                status,
                at * size,
                said.partition(";")[0] or PASSED,
            )
            key = tuple(self._group_value(name, named) for name in by)
            sums = groups.setdefault(key, [0] * len(figures))
            for index, figure in enumerate(figures):
                sums[index] += figure
        found = [
            SpendRow(
                dict(zip(by, key, strict=True)),
                cost_nanos=sums[1],
                charges=sums[0],
                input_tokens=sums[2],
                cache_read_tokens=sums[3],
                cache_write_tokens=sums[4],
                output_tokens=sums[5],
                reasoning_tokens=sums[6],
                unknown_nanos=sums[7],
                overrun_nanos=sums[8],
            )
            for key, sums in groups.items()
        ]
        return sorted(found, key=lambda row: (-row.cost_nanos, tuple(row.group.values())))

    def _group_value(self, name: str, row: "_Named") -> str:
        if name == "day":
            return time.strftime("%Y-%m-%d", time.gmtime(row.at))
        if name == "hour":
            return time.strftime("%Y-%m-%dT%H:00Z", time.gmtime(row.at))
        if name == "basis":
            return row.basis
        if name == "status":
            return row.status
        if name == "decision":
            return row.decision
        if name in ("served", "operation"):
            return self._route(row.route_id)[name]
        return (row.identity.value(name) if row.identity is not None else "") or UNATTRIBUTED

    def accounts(self, now: int, *, with_past: bool = False, budget: str | None = None) -> list[AccountView]:
        """Balances of declared budgets, newest window first; past windows only if asked."""
        where: list[str] = ["name <> ?"]
        values: list[Any] = [RUN_METER]
        if not with_past:
            where.append("window_end > ?")
            values.append(now)
        if budget is not None:
            where.append("name = ?")
            values.append(budget)
        with self.at_rest():
            rows = self._all(
                "SELECT id, budget, name, scope, window_start, window_end, limit_nanos, spent, held FROM accounts"
                f" WHERE {' AND '.join(where)} ORDER BY name, window_start DESC, scope LIMIT {MAX_ROWS}",
                values,
            )
            rolled = self._rolled(rows, now)
        rows.sort(key=lambda row: (row[2], -row[4], row[3], row[0]))
        return [
            AccountView(
                row[0],
                row[2],
                scope_text(decode_values(row[3])),
                row[4],
                row[5],
                row[6],
                rolled[row[0]] if row[0] in rolled else row[7],
                row[8],
                row[4] <= now < row[5],
            )
            for row in rows
        ]

    def _rolled(self, accounts: Sequence[Values], now: int) -> dict[int, int]:
        """Spent of the accounts that roll: their stored figure is as of their last use, so their buckets are asked."""
        members: dict[str, list[int]] = {}
        for row in accounts:
            members.setdefault(row[1], []).append(row[0])
        # a budget's key is made of its window, so any of its rows tells
        found: dict[int, int] = {}
        for key, body in self._all(
            "SELECT budget, body FROM limits WHERE seq IN (SELECT max(seq) FROM limits GROUP BY budget)"
        ):
            window = msgspec.json.decode(body, type=_Meaning).window
            if key in members and window.kind is WindowKind.ROLLING:
                rows = self._all(
                    f"SELECT account_id, {total('spent')} FROM buckets WHERE {among('account_id', members[key])}"
                    " AND start > ? GROUP BY account_id",
                    (now - bucket_leaves_at(window, 0),),
                )
                found |= dict.fromkeys(members[key], 0)
                found |= {row[0]: row[1] for row in rows}
        return found

    def charges(
        self, limit: int = 100, *, basis: str | None = None, before: bytes | None = None
    ) -> list[ChargeView]:
        """The newest charges, optionally of one basis, optionally older than an id."""
        where: list[str] = []
        values: list[Any] = []
        if basis is not None:
            where.append("basis = ?")
            values.append(basis)
        if before is not None:
            where.append("id < ?")
            values.append(before)
        return self._charge_views(where, values, min(limit, MAX_ROWS))

    def unknown(self, limit: int = MAX_ROWS) -> list[ChargeView]:
        """Charges booked at the held amount because their outcome is unknown; for `ledger resolve`."""
        return self.charges(limit, basis="outcome_unknown")

    def request(self, request_id: bytes) -> list[ChargeView]:
        """All ended attempts of a request, in order."""
        columns = ",".join(ChargeRow._fields)
        rows = self._all(
            f"SELECT {columns}, adjustment_nanos FROM charges WHERE id = ? UNION ALL"
            f" SELECT {columns}, adjustment_nanos FROM charges WHERE request_id = ? AND attempt > 1",
            (request_id, request_id),
        )
        rows.sort(key=lambda row: (row[2], row[0]))
        return self._viewed(rows)

    def totals(self) -> dict[str, int]:
        """Charges, spend, open holds, unknown outcomes, overruns and adjustments of the whole ledger."""
        row = self._all(
            f"SELECT count(*), {total('cost_nanos + adjustment_nanos')},"
            f" count(CASE WHEN basis = 'outcome_unknown' THEN 1 END), {total(_OVERRUN)}, {total('adjustment_nanos')}"
            " FROM charges"
        )[0]
        holds = self._all(f"SELECT count(*), {total('nanos')} FROM holds")[0]
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
        rows = self._all(
            "SELECT o.kind, o.name, o.version, o.body, o.at, o.actor FROM objects o JOIN"
            " (SELECT kind, name, max(version) AS version FROM objects GROUP BY kind, name) n"
            " ON o.kind = n.kind AND o.name = n.name AND o.version = n.version"
        )
        return sorted(ObjectRow(*row) for row in rows)

    def versions(self, kind: str, name: str | None = None) -> list[ObjectRow]:
        """Every version of an object (of all of a kind, without a name), the newest first."""
        is_named, values = ("", [kind]) if name is None else (" AND name = ?", [kind, name])
        rows = self._all(
            f"SELECT kind, name, version, body, at, actor FROM objects WHERE kind = ?{is_named}"
            f" ORDER BY at DESC, version DESC LIMIT {MAX_ROWS}",
            values,
        )
        return sorted((ObjectRow(*row) for row in rows), key=lambda row: (-row.at, -row.version, row.name))

    def _charge_views(self, where: Sequence[str], values: Sequence[Any], limit: int) -> list[ChargeView]:
        """The newest charges of which all of `where` holds."""
        columns = ",".join(ChargeRow._fields)
        conditions = f" WHERE {' AND '.join(where)}" if where else ""
        return self._viewed(
            self._all(
                f"SELECT {columns}, adjustment_nanos FROM charges{conditions} ORDER BY id DESC LIMIT {int(limit)}",
                values,
            )
        )

    def _viewed(self, rows: Collection[Values]) -> list[ChargeView]:
        for place, kind in ((3, "identity"), (4, "route"), (5, "price")):
            self._learn(kind, {row[place] for row in rows})
        return [self._charge_view(row) for row in rows]

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
        return self._learn(kind, (number,))[number] if found is None else found

    def _learn(self, kind: str, numbers: Collection[int]) -> dict[int, str]:
        """What numbers stand for, of which many are asked at once."""
        known = self._bodies
        missing = [number for number in numbers if (kind, number) not in known]
        if missing:
            if len(known) > MAX_ROWS:
                known.clear()
                missing = list(numbers)
            for start in range(0, len(missing), AT_ONCE):
                some = among("id", missing[start : start + AT_ONCE])
                for number, body in self._all(
                    f"SELECT id, body FROM interned WHERE kind = ? AND {some}", (kind,)
                ):
                    known[kind, number] = body
        try:
            return {number: known[kind, number] for number in numbers}
        except KeyError as error:
            raise StoreError(f"the ledger names {kind} {error.args[0][1]}, but does not hold it") from error

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[Values]:
        return self._rows.rows(sql, values)
