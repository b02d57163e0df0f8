"""What the console's rooms ask the ledger beside sums: refusals, held money, accounts, charges behind a figure.

Read-only, short and bounded like the reader. Amounts in nanos, times in UTC ns.
"""

from collections.abc import Mapping, Set
from typing import Any

import msgspec

from outlay.flow.budgets import RUN_METER
from outlay.flow.ledger.directory import decode_values
from outlay.flow.ledger.reader import ChargeView
from outlay.flow.ledger.rows import among, total
from outlay.flow.ledger.run_reader import RunReader
from outlay.flow.scope import BILLED, TAG_PREFIX, UNATTRIBUTED, is_dimension, scope_text
from outlay.kernel.errors import ConfigError, NotFound

MAX_CHARGES = 500
"""Charges of one page."""
MAX_IDENTITIES = 20_000
"""Identities that a filter may select."""


class RefusalSum(msgspec.Struct, frozen=True):
    """Refusals of a slot."""

    at: int
    code: str
    budget: str
    count: int


class PastLimit(msgspec.Struct, frozen=True):
    """A hard account that spent more than any limit that was ever in force in it."""

    account_id: int
    budget: str
    scope: str
    over_nanos: int


class LimitChange(msgspec.Struct, frozen=True):
    """A limit came into force."""

    at: int
    limit_nanos: int | None
    is_own: bool
    """Of this account alone (a run's cap, a raise); else the budget's."""


class RoomReader(RunReader):
    """See the module."""

    def held(self) -> tuple[int, int]:
        """(open holds, nanos they hold)."""
        row = self._all(f"SELECT count(*), {total('nanos')} FROM holds")[0]
        return row[0], row[1]

    def refusals(
        self, since: int, until: int, size: int, where: Mapping[str, str] | None = None
    ) -> list[RefusalSum]:
        """Refusals by slot of `size` ns (whole minutes), code and budget; `where` may name `team` and `key`."""
        if not self._rows.has("refusals"):
            return []
        conditions = ["minute >= ?", "minute < ?"]
        values: list[Any] = [since // 60_000_000_000, -(-until // 60_000_000_000)]
        for name in ("team", "key"):
            wanted = (where or {}).get(name)
            if wanted is not None:
                conditions.append(f"{name} = ?")
                values.append("" if wanted == UNATTRIBUTED else wanted)
        rows = self._all(
            f"SELECT minute * 60000000000 / {int(size)} * {int(size)}, code, budget, {total('count')} FROM refusals"
            f" WHERE {' AND '.join(conditions)} GROUP BY 1, 2, 3",
            values,
        )
        return [RefusalSum(*row) for row in sorted(rows)]

    def past_limits(self) -> list[PastLimit]:
        """Accounts of hard budgets, and of runs with a cap, that are past every limit they ever had.

        What was spent before a budget was declared is in its balance, but was never under its limit: `booked_under`
        tells how much was.
        """
        rows = self._all(
            "SELECT a.id, a.name, a.scope, a.spent, a.limit_nanos,"
            " (SELECT max(l.limit_nanos) FROM limits l WHERE l.budget = a.budget),"
            " (SELECT max(x.limit_nanos) FROM account_limits x WHERE x.account_id = a.id)"
            " FROM accounts a LEFT JOIN limits n ON n.budget = a.budget"
            " AND n.seq = (SELECT max(l.seq) FROM limits l WHERE l.budget = a.budget)"
            " WHERE a.limit_nanos IS NOT NULL AND a.spent > a.limit_nanos AND (n.hard = 1 OR a.name = ?)",
            (RUN_METER,),
        )
        found = []
        for account_id, name, scope, spent, *limits in rows:
            over = spent - max(limit or 0 for limit in limits)
            if over > 0:
                found.append(PastLimit(account_id, name, scope_text(decode_values(scope)), over))
        return sorted(found, key=lambda past: (-past.over_nanos, past.account_id))

    def booked_under(self, account_ids: Set[int]) -> dict[int, int]:
        """Nanos of charges whose hold was placed in these accounts; reads all charges if there are any."""
        sets: dict[int, list[int]] = {}
        for number, body in self._all("SELECT id, body FROM interned WHERE kind = 'accounts'"):
            members = [int(part) for part in body.split(",") if part]
            wanted = [account for account in members if account in account_ids]
            if wanted:
                sets[number] = wanted
        found = dict.fromkeys(account_ids, 0)
        if sets:
            rows = self._all(
                f"SELECT accounts_id, {total('cost_nanos + adjustment_nanos')} FROM charges"
                f" WHERE {among('accounts_id', sorted(sets))} GROUP BY 1"
            )
            for number, nanos in rows:
                for account in sets[number]:
                    found[account] += nanos
        return found

    def limit_history(self, account_id: int) -> list[LimitChange]:
        """Limits of an account, the newest first."""
        rows = self._all(
            "SELECT x.at, x.limit_nanos, CASE WHEN x.hard <> -1 THEN 1 ELSE 0 END, x.seq FROM account_limits x"
            " WHERE x.account_id = ? UNION ALL"
            " SELECT l.at, l.limit_nanos, 0, l.seq FROM limits l WHERE l.budget = (SELECT budget FROM accounts"
            " WHERE id = ?) ORDER BY 4 DESC LIMIT 100",
            (account_id, account_id),
        )
        return [LimitChange(row[0], row[1], bool(row[2])) for row in rows]

    def account_values(self, account_id: int) -> tuple[tuple[str, str], ...]:
        """Scope values of an account. Raises NotFound."""
        rows = self._all("SELECT scope FROM accounts WHERE id = ?", (account_id,))
        if not rows:
            raise NotFound("there is no such account")
        return decode_values(rows[0][0])

    def account_sets(self, account_id: int) -> list[int]:
        """Numbers of the sets of accounts that hold an account: charges and holds name theirs."""
        rows = self._all(
            "SELECT id FROM interned WHERE kind = 'accounts' AND ',' || body || ',' LIKE ?",
            (f"%,{account_id},%",),
        )
        return sorted(row[0] for row in rows)

    def charges_behind(
        self,
        since: int,
        until: int,
        where: Mapping[str, str],
        *,
        account_id: int | None = None,
        before: bytes | None = None,
        limit: int = MAX_CHARGES,
    ) -> list[ChargeView]:
        """The newest charges placed in that time whose identity has all values of `where` (dimension or `tag.NAME`),
        of one account if it is given, older than an id if it is given."""
        conditions, values = (
            ["id >= ?", "placed_at >= ?", "placed_at < ?"],
            [max(0, since // 1_000_000 - 300_000).to_bytes(6, "big"), since, until],
        )
        if before is not None:
            conditions.append("id < ?")
            values.append(before)
        if where:
            conditions.append(among("identity_id", self._identities(where)))
        if account_id is not None:
            conditions.append(among("accounts_id", self.account_sets(account_id)))
        return self._charge_views(conditions, values, min(limit, MAX_CHARGES))

    def _identities(self, where: Mapping[str, str]) -> list[int]:
        conditions, values = [], []
        for name, value in where.items():
            if not is_dimension(name):
                raise ConfigError(f"unknown dimension {name!r}; use a dimension or tag.NAME")
            if name.startswith(TAG_PREFIX):
                conditions.append(f"coalesce({self._rows.paired('body', 'tags')}, ?) = ?")
                values += [name.removeprefix(TAG_PREFIX), UNATTRIBUTED, value]
            else:
                conditions.append(f"coalesce({self._rows.member('body', name)}, ?) = ?")
                values += [BILLED if name == "billing" else UNATTRIBUTED, value]
        rows = self._all(
            f"SELECT id FROM interned WHERE kind = 'identity' AND {' AND '.join(conditions)}"
            f" ORDER BY id DESC LIMIT {MAX_IDENTITIES}",
            values,
        )
        return [row[0] for row in rows]

    def opened_runs(self) -> list[tuple[Any, ...]]:
        """(org, team, name, parent, cap, max calls, deadline) of runs that were opened with limits or a parent."""
        return self._opened()
