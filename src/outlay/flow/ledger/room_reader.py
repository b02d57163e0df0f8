"""What the console's rooms ask the ledger beside sums: refusals, held money, accounts, charges behind a figure.

Read-only, short and bounded like the reader. Amounts in nanos, times in UTC ns.
"""

from collections.abc import Mapping, Set
from typing import Any

import msgspec

from outlay.flow.budgets import RUN_METER
from outlay.flow.ledger.directory import decode_values
from outlay.flow.ledger.port import ChargeRow
from outlay.flow.ledger.reader import ChargeView
from outlay.flow.ledger.run_reader import RunReader
from outlay.flow.scope import UNATTRIBUTED, scope_text
from outlay.kernel.errors import NotFound

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
        row = self._all("SELECT count(*), coalesce(sum(nanos), 0) FROM holds", ())[0]
        return row[0], row[1]

    def refusals(
        self, since: int, until: int, size: int, where: Mapping[str, str] | None = None
    ) -> list[RefusalSum]:
        """Refusals by slot of `size` ns (whole minutes), code and budget; `where` may name `team` and `key`."""
        if not self._all("SELECT 1 FROM sqlite_master WHERE name = 'refusals'", ()):
            return []
        chosen = {name: value for name, value in (where or {}).items() if name in ("team", "key")}
        wanted = [("" if chosen.get(name) == UNATTRIBUTED else chosen.get(name)) for name in ("team", "key")]
        rows = self._all(
            "SELECT minute * 60000000000 / ?3 * ?3, code, budget, sum(count) FROM refusals WHERE minute >= ?1"
            " AND minute < ?2 AND (?4 IS NULL OR team = ?4) AND (?5 IS NULL OR key = ?5) GROUP BY 1, 2, 3",
            (since // 60_000_000_000, -(-until // 60_000_000_000), size, *wanted),
        )
        return [RefusalSum(*row) for row in rows]

    def past_limits(self) -> list[PastLimit]:
        """Accounts of hard budgets, and of runs with a cap, that are past every limit they ever had.

        What was spent before a budget was declared is in its balance, but was never under its limit: `booked_under`
        tells how much was.
        """
        rows = self._all(
            "SELECT id, name, scope, spent - highest FROM (SELECT a.id, a.name, a.scope, a.spent,"
            " max(a.limit_nanos, coalesce((SELECT max(l.limit_nanos) FROM limits l WHERE l.budget = a.budget), 0),"
            " coalesce((SELECT max(x.limit_nanos) FROM account_limits x WHERE x.account_id = a.id), 0)) AS highest"
            " FROM accounts a LEFT JOIN (SELECT budget, max(seq), hard FROM limits GROUP BY budget) n USING (budget)"
            " WHERE a.limit_nanos IS NOT NULL AND a.spent > a.limit_nanos AND (n.hard = 1 OR a.name = ?1))"
            " WHERE spent > highest ORDER BY 4 DESC",
            (RUN_METER,),
        )
        return [PastLimit(row[0], row[1], scope_text(decode_values(row[2])), row[3]) for row in rows]

    def booked_under(self, account_ids: Set[int]) -> dict[int, int]:
        """Nanos of charges whose hold was placed in these accounts; reads all charges if there are any."""
        sets: dict[int, list[int]] = {}
        for number, body in self._all("SELECT id, body FROM interned WHERE kind = 'accounts'", ()):
            members = [int(part) for part in body.split(",") if part]
            wanted = [account for account in members if account in account_ids]
            if wanted:
                sets[number] = wanted
        found = dict.fromkeys(account_ids, 0)
        if sets:
            rows = self._all(
                "SELECT accounts_id, sum(cost_nanos + adjustment_nanos) FROM charges WHERE accounts_id IN"
                " (SELECT value FROM json_each(?)) GROUP BY 1",
                (msgspec.json.encode(sorted(sets)).decode(),),
            )
            for number, nanos in rows:
                for account in sets[number]:
                    found[account] += nanos
        return found

    def limit_history(self, account_id: int) -> list[LimitChange]:
        """Limits of an account, the newest first."""
        rows = self._all(
            "SELECT x.at, x.limit_nanos, x.hard <> -1, x.seq FROM account_limits x WHERE x.account_id = ?1 UNION ALL"
            " SELECT l.at, l.limit_nanos, 0, l.seq FROM limits l WHERE l.budget = (SELECT budget FROM accounts"
            " WHERE id = ?1) ORDER BY 4 DESC LIMIT 100",
            (account_id,),
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
        return [row[0] for row in rows]

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
        identities = None
        if where:
            identities = msgspec.json.encode(self._identities(where)).decode()
        sets = None if account_id is None else msgspec.json.encode(self.account_sets(account_id)).decode()
        columns = ",".join(f"c.{name}" for name in ChargeRow._fields)
        low = max(0, since // 1_000_000 - 300_000).to_bytes(6, "big")
        rows = self._all(
            f"SELECT {columns}, c.adjustment_nanos FROM charges c WHERE id >= ?1 AND (?2 IS NULL OR id < ?2)"
            " AND placed_at >= ?3 AND placed_at < ?4"
            " AND (?5 IS NULL OR identity_id IN (SELECT value FROM json_each(?5)))"
            " AND (?6 IS NULL OR accounts_id IN (SELECT value FROM json_each(?6))) ORDER BY id DESC LIMIT ?7",
            (low, before, since, until, identities, sets, min(limit, MAX_CHARGES)),
        )
        return [self._charge_view(row) for row in rows]

    def _identities(self, where: Mapping[str, str]) -> list[int]:
        clauses, values = [], []
        for name, value in where.items():
            if name.startswith("tag."):
                clauses.append(
                    "EXISTS (SELECT 1 FROM json_each(body, '$.tags') t WHERE t.value ->> 0 = ? AND t.value ->> 1 = ?)"
                    if value != UNATTRIBUTED
                    else "NOT EXISTS (SELECT 1 FROM json_each(body, '$.tags') t WHERE t.value ->> 0 = ?)"
                )
                values += [name[4:]] if value == UNATTRIBUTED else [name[4:], value]
            else:
                clauses.append("coalesce(body ->> ?, ?) = ?")
                values += [f"$.{name}", "billed" if name == "billing" else UNATTRIBUTED, value]
        rows = self._all(
            f"SELECT id FROM interned WHERE kind = 'identity' AND {' AND '.join(clauses)} LIMIT {MAX_IDENTITIES}",
            tuple(values),
        )
        return [row[0] for row in rows]

    def opened_runs(self) -> list[tuple[Any, ...]]:
        """(org, team, name, parent, cap, max calls, deadline) of runs that were opened with limits or a parent."""
        return self._opened()
