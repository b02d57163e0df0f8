"""Declaring budgets on a shared ledger: the newest limit is in force for all, and a new budget is not born empty.

Everything here runs inside a transaction of its caller.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import apsw

from outlay.flow.budgets import BudgetSpec
from outlay.flow.ledger.directory import REMOVED, RUN_BUDGET, budget_key, decode_identity, limit_row
from outlay.flow.ledger.numbers import Numbers, one
from outlay.flow.ledger.port import HoldRow, LimitRow
from outlay.flow.scope import match_scope
from outlay.flow.windows import FOREVER, WindowKind, bounds, bucket_nanos

POST_BUCKET: Final = (
    "INSERT INTO buckets VALUES (?,?,?) ON CONFLICT (account_id, start)"
    " DO UPDATE SET spent = spent + excluded.spent"
)


class Declaring:
    """See the module. `seq` takes the next number of the journal."""

    def __init__(self, numbers: Numbers, seq: Callable[[apsw.Connection], int]) -> None:
        self._numbers = numbers
        self._seq = seq

    def write(self, db: apsw.Connection, budgets: Sequence[BudgetSpec], now: int) -> None:
        """Journal the limits that differ from those in force."""
        for spec in budgets:
            key = budget_key(spec)
            row = one(db, "SELECT * FROM limits WHERE budget = ? ORDER BY seq DESC LIMIT 1", key)
            known = None if row is None else LimitRow(*row)
            if known is not None and (known.limit_nanos, known.hard) == (spec.limit_nanos, int(spec.hard)):
                continue
            fresh = limit_row(key, spec, self._seq(db), now)
            db.execute(f"INSERT INTO limits VALUES ({','.join('?' * len(fresh))})", fresh)
            if spec.name != RUN_BUDGET.name:
                db.execute("UPDATE accounts SET limit_nanos = ? WHERE budget = ?", (spec.limit_nanos, key))
                if known is None or known.hard == REMOVED:
                    self._forget_spent(db, key)
                    self._seed(db, spec, now)

    def _forget_spent(self, db: apsw.Connection, key: str) -> None:
        """A budget that is declared again starts from the charges, not from what its old accounts say."""
        db.execute(
            "DELETE FROM buckets WHERE account_id IN (SELECT id FROM accounts WHERE budget = ?)", (key,)
        )
        db.execute("UPDATE accounts SET spent = 0 WHERE budget = ?", (key,))

    def _seed(self, db: apsw.Connection, spec: BudgetSpec, now: int) -> None:
        """Start a new budget from the charges and open holds that it covers."""
        rolling = spec.window.kind is WindowKind.ROLLING
        start, _ = bounds(spec.window, now)
        column = "settled_at" if rolling else "placed_at"
        size = bucket_nanos(spec.window) if rolling else 1
        rows: list[Any] = db.execute(
            f"SELECT identity_id, {column} - {column} % {size if rolling else FOREVER},"
            f" sum(cost_nanos + adjustment_nanos) FROM charges WHERE {column} >= ? GROUP BY 1, 2",
            (start,),
        ).fetchall()
        for identity_id, at, nanos in rows:
            account_id = self._seeded(db, spec, identity_id, now)
            if account_id is not None:
                db.execute("UPDATE accounts SET spent = spent + ? WHERE id = ?", (nanos, account_id))
                if rolling:
                    db.execute(POST_BUCKET, (account_id, at, nanos))
        holds = db.execute("SELECT * FROM holds").fetchall()
        for hold in map(HoldRow._make, holds):
            account_id = self._seeded(db, spec, hold.identity_id, now)
            ids = self._numbers.body(db, "accounts", hold.accounts_id)
            if account_id is not None and str(account_id) not in ids.split(","):
                ids = f"{ids},{account_id}" if ids else str(account_id)
                number = self._numbers.number(db, "accounts", ids)
                db.execute("UPDATE holds SET accounts_id = ? WHERE id = ?", (number, hold.id))
                db.execute("UPDATE accounts SET held = held + ? WHERE id = ?", (hold.nanos, account_id))

    def _seeded(self, db: apsw.Connection, spec: BudgetSpec, identity_id: int, now: int) -> int | None:
        values = match_scope(spec.scope, decode_identity(self._numbers.body(db, "identity", identity_id)))
        return None if values is None else self._numbers.account(db, spec, values, spec.limit_nanos, now)[0]
