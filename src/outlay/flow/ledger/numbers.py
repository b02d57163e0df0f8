"""The numbers of a shared ledger: of interned values, of accounts and of their windows, which never change.

Everything here runs inside a transaction of its caller. What is remembered must be forgotten (`clear`) when that
transaction fails.
"""

from typing import Any, Final

import apsw
import msgspec

from outlay.flow.budgets import BudgetSpec
from outlay.flow.ledger.directory import budget_key, encode_values
from outlay.flow.windows import FOREVER, Window, WindowKind, bounds, bucket_leaves_at
from outlay.kernel.errors import AccountingBroken

MAX_REMEMBERED: Final = 20_000
"""Numbers remembered per kind; forgetting them costs look-ups."""


class Numbers:
    """See the module."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}
        self._accounts: dict[tuple[str, str, int], int] = {}
        self._windows: dict[int, Window | None] = {}

    def clear(self) -> None:
        """Forget everything."""
        self._numbers.clear()
        self._accounts.clear()
        self._windows.clear()

    def number(self, db: apsw.Connection, kind: str, body: str) -> int:
        """The number of an interned value; a new one is written."""
        found = self._numbers.get((kind, body))
        if found is None:
            row = one(db, "SELECT id FROM interned WHERE kind = ? AND body = ?", kind, body)
            if row is None:
                row = one(
                    db,
                    "INSERT INTO interned SELECT ?1, coalesce(max(id), 0) + 1, ?2 FROM interned WHERE kind = ?1"
                    " RETURNING id",
                    kind,
                    body,
                )
            if row is None:
                raise AccountingBroken("a value could not be interned")
            found = int(row[0])
            if len(self._numbers) >= MAX_REMEMBERED:
                self._numbers.clear()
            self._numbers[kind, body] = found
        return found

    def body(self, db: apsw.Connection, kind: str, number: int) -> str:
        """The value behind a number that some row names."""
        row = one(db, "SELECT body FROM interned WHERE kind = ? AND id = ?", kind, number)
        if row is None:
            raise AccountingBroken(f"{kind} {number} is named by a row but not stored")
        return str(row[0])

    def account(
        self,
        db: apsw.Connection,
        spec: BudgetSpec,
        values: tuple[tuple[str, str], ...],
        limit: int | None,
        now: int,
    ) -> tuple[int, int, int]:
        """(id, window's start and end) of an account, made on first use."""
        rolling = spec.window.kind is WindowKind.ROLLING
        start, end = (0, FOREVER) if rolling else bounds(spec.window, now)
        key = (budget_key(spec), encode_values(values), start)
        found = self._accounts.get(key)
        if found is None:
            row = one(db, "SELECT id FROM accounts WHERE budget = ? AND scope = ? AND window_start = ?", *key)
            if row is None:
                row = one(
                    db,
                    "INSERT INTO accounts SELECT coalesce(max(id), 0) + 1,?,?,?,?,?,?,0,0 FROM accounts RETURNING id",
                    key[0],
                    spec.name,
                    key[1],
                    start,
                    end,
                    limit,
                )
            if row is None:
                raise AccountingBroken("an account could not be made")
            found = int(row[0])
            if len(self._accounts) >= MAX_REMEMBERED:
                self._accounts.clear()
            self._accounts[key] = found
        return found, start, end

    def window(self, db: apsw.Connection, account_id: int) -> Window | None:
        """The window of an account if it rolls."""
        if account_id not in self._windows:
            row = one(
                db,
                "SELECT body FROM limits WHERE budget = (SELECT budget FROM accounts WHERE id = ?) LIMIT 1",
                account_id,
            )
            if row is None:
                raise AccountingBroken(f"account {account_id} is of a budget that was never declared")
            found = msgspec.json.decode(row[0], type=_Meaning).window
            if len(self._windows) >= MAX_REMEMBERED:
                self._windows.clear()
            self._windows[account_id] = found if found.kind is WindowKind.ROLLING else None
        return self._windows[account_id]

    def rolling_spent(self, db: apsw.Connection, spec: BudgetSpec, account_id: int, now: int) -> int:
        """Spent in a rolling window, nanos."""
        # a bucket that began at `oldest` leaves now
        oldest = now - (bucket_leaves_at(spec.window, 0))
        row = one(
            db,
            "SELECT coalesce(sum(spent), 0) FROM buckets WHERE account_id = ? AND start > ?",
            account_id,
            oldest,
        )
        return int(row[0]) if row else 0


class _Meaning(msgspec.Struct):
    window: Window


def one(db: apsw.Connection, sql: str, *values: Any) -> tuple[Any, ...] | None:
    """The first row of a query, or None."""
    return db.execute(sql, values).fetchone()
