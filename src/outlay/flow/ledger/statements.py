"""The SQL that every store of rows shares: what a batch writes, in its order, and what the books look up.

Plain SQL with `?` for values, which SQLite and PostgreSQL (with its own marks) both take.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Final

from outlay.flow.ledger.port import (
    AccountLimitRow,
    AccountRow,
    BucketRow,
    ChargeRow,
    ExtensionRow,
    HoldRow,
    InternRow,
    JobRow,
    LimitRow,
    ObjectRow,
    OwnerRow,
    PostingRow,
    RefusalRow,
    RunRow,
)

Values = tuple[Any, ...]


def _insert(table: str, columns: Sequence[str], named: str = "") -> str:
    return f"INSERT INTO {table}{named} VALUES ({','.join('?' * len(columns))})"


def _upsert(table: str, columns: Sequence[str], key: Sequence[str]) -> str:
    changed = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
    return f"{_insert(table, columns)} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changed}"


INSERT_HOLD: Final = _insert("holds", HoldRow._fields)
INSERT_CHARGE: Final = _insert("charges", ChargeRow._fields, f" ({','.join(ChargeRow._fields)})")
EXTEND_HOLD: Final = "UPDATE holds SET nanos = nanos + ? WHERE id = ?"

WRITES: Final = (
    ("interned", _insert("interned", InternRow._fields)),
    ("limits", _insert("limits", LimitRow._fields)),
    ("accounts", _insert("accounts", AccountRow._fields)),
    ("account_limits", _insert("account_limits", AccountLimitRow._fields)),
    (
        "refusals",
        f"{_insert('refusals', RefusalRow._fields)} ON CONFLICT (minute, code, budget, org, team, key)"
        " DO UPDATE SET count = refusals.count + excluded.count",
    ),
    ("runs", _upsert("runs", RunRow._fields, ("org", "team", "name"))),
    ("holds", INSERT_HOLD),
    ("extensions", _insert("extensions", ExtensionRow._fields)),
    ("grown", EXTEND_HOLD),
    ("hold_sets", "UPDATE holds SET accounts_id = ? WHERE id = ?"),
    ("ended", "DELETE FROM holds WHERE id = ?"),
    ("charges", INSERT_CHARGE),
    ("postings", _insert("postings", PostingRow._fields)),
    (
        "adjusted",
        "UPDATE charges SET adjustment_nanos = adjustment_nanos + ?, basis = ? WHERE id = ?",
    ),
    ("balances", "UPDATE accounts SET spent = ?, held = ?, limit_nanos = ? WHERE id = ?"),
    ("buckets", _upsert("buckets", BucketRow._fields, ("account_id", "start"))),
    ("jobs", _upsert("jobs", JobRow._fields, ("hold_id",))),
    ("jobs_done", "DELETE FROM jobs WHERE hold_id = ?"),
    ("owners", _upsert("owners", OwnerRow._fields, ("provider", "resource"))),
)
"""(attribute of the batch, statement for each of its rows), in the order in which a store runs them."""


def writable(rows: Iterable[Values]) -> list[Values]:
    """Rows whose texts are without what a store cannot keep: NUL (PostgreSQL), halves of characters (both)."""
    return [tuple(_text(value) if isinstance(value, str) else value for value in row) for row in rows]


def _text(value: str) -> str:
    return value.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


HIGHEST_SEQ: Final = (
    "SELECT coalesce(max(seq), 0) FROM (SELECT max(seq) AS seq FROM holds UNION ALL SELECT max(seq) FROM limits"
    " UNION ALL SELECT max(seq) FROM postings UNION ALL SELECT max(seq) FROM extensions"
    " UNION ALL SELECT max(seq) FROM account_limits UNION ALL SELECT max(settle_seq) FROM"
    " (SELECT settle_seq FROM charges ORDER BY id DESC LIMIT 100000) AS newest) AS journal"
)
"""The newest number of the journal: whoever writes next goes on from there."""
CHARGE_COLUMNS: Final = ",".join(
    "cost_nanos + adjustment_nanos" if name == "cost_nanos" else name for name in ChargeRow._fields
)
BUCKETS_KEPT_NS: Final = 401 * 86_400 * 1_000_000_000
"""Older buckets are outside every window."""
OLD_BUCKETS: Final = "DELETE FROM buckets WHERE start < ?"


class SqlLookups(ABC):
    """What the books look up in a store of rows; see `port.Store` for each."""

    @abstractmethod
    def _all(self, sql: str, values: Values) -> list[Values]:
        """All rows that a statement finds. Raises StoreError."""

    def _one(self, sql: str, values: Values) -> Values | None:
        rows = self._all(sql, values)
        return rows[0] if rows else None

    def find_interned(self, kind: str, body: str) -> int | None:
        """See `Store.find_interned`."""
        row = self._one("SELECT id FROM interned WHERE kind = ? AND body = ?", (kind, body))
        return row[0] if row else None

    def interned_body(self, kind: str, number: int) -> str | None:
        """See `Store.interned_body`."""
        row = self._one("SELECT body FROM interned WHERE kind = ? AND id = ?", (kind, number))
        return row[0] if row else None

    def find_account(self, budget: str, scope: str, window_start: int) -> AccountRow | None:
        """See `Store.find_account`."""
        sql = "SELECT * FROM accounts WHERE budget = ? AND scope = ? AND window_start = ?"
        row = self._one(sql, (budget, scope, window_start))
        return AccountRow(*row) if row else None

    def account_by_id(self, account_id: int) -> AccountRow | None:
        """See `Store.account_by_id`."""
        row = self._one("SELECT * FROM accounts WHERE id = ?", (account_id,))
        return AccountRow(*row) if row else None

    def buckets_of(self, account_id: int, since: int) -> list[BucketRow]:
        """See `Store.buckets_of`."""
        sql = (
            "SELECT account_id, start, spent FROM buckets WHERE account_id = ? AND start >= ? ORDER BY start"
        )
        return [BucketRow(*row) for row in self._all(sql, (account_id, since))]

    def spend_since(self, since: int, by_settlement: bool, bucket: int) -> list[tuple[int, int, int]]:
        """See `Store.spend_since`."""
        column = "settled_at" if by_settlement else "placed_at"
        start = f"{column} - {column} % {int(bucket)}" if bucket else "0"
        # ids sort by the time of placing; a settlement is never before it, so this bound is only used for placing
        low = b"" if by_settlement else max(0, since // 1_000_000 - 60_000).to_bytes(6, "big")
        sql = (
            f"SELECT identity_id, bucket, CAST(sum(nanos) AS BIGINT) FROM (SELECT identity_id, {start} AS bucket,"
            f" cost_nanos + adjustment_nanos AS nanos FROM charges WHERE id >= ? AND {column} >= ?) AS found"
            " GROUP BY identity_id, bucket"
        )
        return [(row[0], row[1], row[2]) for row in self._all(sql, (low, since))]

    def charge(self, charge_id: bytes) -> ChargeRow | None:
        """See `Store.charge`."""
        row = self._one(f"SELECT {CHARGE_COLUMNS} FROM charges WHERE id = ?", (charge_id,))
        return ChargeRow(*row) if row else None

    def attempts(self, request_id: bytes) -> Sequence[ChargeRow]:
        """See `Store.attempts`. A first attempt's id is its request's id."""
        sql = (
            f"SELECT {CHARGE_COLUMNS} FROM charges WHERE id = ? UNION ALL"
            f" SELECT {CHARGE_COLUMNS} FROM charges WHERE request_id = ? AND attempt > 1"
        )
        return [ChargeRow(*row) for row in self._all(sql, (request_id, request_id))]

    def run(self, org: str, team: str, name: str) -> RunRow | None:
        """See `Store.run`."""
        row = self._one("SELECT * FROM runs WHERE org = ? AND team = ? AND name = ?", (org, team, name))
        return RunRow(*row) if row else None

    def owner(self, provider: str, resource: str) -> OwnerRow | None:
        """See `Store.owner`."""
        row = self._one("SELECT * FROM owners WHERE provider = ? AND resource = ?", (provider, resource))
        return OwnerRow(*row) if row else None

    def objects(self) -> list[ObjectRow]:
        """See `Store.objects`."""
        sql = (
            "SELECT kind, name, version, body, at, actor FROM objects AS one WHERE version ="
            " (SELECT max(version) FROM objects WHERE kind = one.kind AND name = one.name)"
        )
        return [ObjectRow(*row) for row in self._all(sql, ())]
