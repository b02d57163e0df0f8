"""A store that forgets when the process ends: for tests, embedded use and simulation. Same contract as SQLite."""

from collections.abc import Callable, Sequence

from outlay.flow.ledger.port import (
    AccountLimitRow,
    AccountRow,
    Batch,
    BucketRow,
    ChargeRow,
    Done,
    ExtensionRow,
    HoldRow,
    InternRow,
    JobRow,
    LimitRow,
    Loaded,
    ObjectRow,
    OwnerRow,
    PostingRow,
    RunRow,
)
from outlay.kernel.errors import StoreError


class MemoryStore:
    """Rows in dictionaries. `fail_next` makes the next submissions fail, for tests of outages."""

    def __init__(self) -> None:
        self.interned: list[InternRow] = []
        self.limits: list[LimitRow] = []
        self.accounts: dict[int, AccountRow] = {}
        self.buckets: dict[tuple[int, int], int] = {}
        self.holds: dict[bytes, HoldRow] = {}
        self.charges: dict[bytes, ChargeRow] = {}
        self.adjustments: dict[bytes, int] = {}
        self.postings: list[PostingRow] = []
        self.object_rows: list[ObjectRow] = []
        self.jobs: dict[bytes, JobRow] = {}
        self.owners: dict[tuple[str, str], OwnerRow] = {}
        self.runs: dict[tuple[str, str, str], RunRow] = {}
        self.account_limits: list[AccountLimitRow] = []
        self.refusals: dict[tuple[int, str, str, str, str, str], int] = {}
        self.extensions: list[ExtensionRow] = []
        self.fail_next = 0
        self.on_write: Callable[[Batch], None] | None = None
        self._epoch = 0
        self._clean = True

    def load(self, now: int) -> Loaded:
        """See `Store.load`."""
        self._epoch += 1
        was_clean, self._clean = self._clean, False
        newest = {row.budget: row for row in self.limits}
        seqs = [row.seq for row in self.holds.values()] + [row.settle_seq for row in self.charges.values()]
        seqs += [row.seq for row in self.limits] + [row.seq for row in self.postings]
        seqs += [row.seq for row in self.account_limits] + [row.seq for row in self.extensions]
        return Loaded(
            {row.kind: row.id for row in sorted(self.interned, key=lambda row: row.id)},
            newest,
            max(self.accounts, default=0),
            list(self.holds.values()),
            max(seqs, default=0),
            self._epoch,
            was_clean,
            list(self.jobs.values()),
            False,
        )

    def submit(self, batch: Batch, done: Done) -> None:
        """See `Store.submit`."""
        if self.fail_next:
            self.fail_next -= 1
            done(StoreError("the store is down (test)"))
            return
        self.interned.extend(batch.interned)
        self.limits.extend(batch.limits)
        for account in batch.accounts:
            self.accounts[account.id] = account
        self.account_limits.extend(batch.account_limits)
        for refusal in batch.refusals:
            counted = self.refusals.get(refusal[:6], 0)
            self.refusals[refusal[:6]] = counted + refusal.times
        for run in batch.runs:
            self.runs[run[:3]] = run
        for hold in batch.holds:
            self.holds[hold.id] = hold
        for extension in batch.extensions:
            self.extensions.append(extension)
            if extension.hold_id in self.holds:
                grown = self.holds[extension.hold_id]
                self.holds[grown.id] = grown._replace(nanos=grown.nanos + extension.nanos)
        for accounts_id, hold_id in batch.hold_sets:
            if hold_id in self.holds:
                self.holds[hold_id] = self.holds[hold_id]._replace(accounts_id=accounts_id)
        for (hold_id,) in batch.ended:
            self.holds.pop(hold_id, None)
        for charge in batch.charges:
            if charge.id in self.charges:
                raise AssertionError("a charge was written twice")
            self.charges[charge.id] = charge
        self.postings.extend(batch.postings)
        for nanos, basis, charge_id in batch.adjusted:
            self.adjustments[charge_id] = self.adjustments.get(charge_id, 0) + nanos
            self.charges[charge_id] = self.charges[charge_id]._replace(basis=basis)
        for spent, held, limit, account_id in batch.balances:
            row = self.accounts[account_id]
            self.accounts[account_id] = row._replace(spent=spent, held=held, limit_nanos=limit)
        for bucket in batch.buckets:
            self.buckets[bucket.account_id, bucket.start] = bucket.spent
        for job in batch.jobs:
            self.jobs[job.hold_id] = job
        for (hold_id,) in batch.jobs_done:
            self.jobs.pop(hold_id, None)
        for owner in batch.owners:
            self.owners[owner.provider, owner.resource] = owner
        if self.on_write:
            self.on_write(batch)
        done(None)

    def settle(self) -> None:
        """See `Store.settle`: nothing is ever on its way."""

    def find_interned(self, kind: str, body: str) -> int | None:
        """See `Store.find_interned`."""
        return next((row.id for row in self.interned if row.kind == kind and row.body == body), None)

    def interned_body(self, kind: str, number: int) -> str | None:
        """See `Store.interned_body`."""
        return next((row.body for row in self.interned if row.kind == kind and row.id == number), None)

    def find_account(self, budget: str, scope: str, window_start: int) -> AccountRow | None:
        """See `Store.find_account`."""
        wanted = (budget, scope, window_start)
        rows = self.accounts.values()
        return next((row for row in rows if (row.budget, row.scope, row.window_start) == wanted), None)

    def account_by_id(self, account_id: int) -> AccountRow | None:
        """See `Store.account_by_id`."""
        return self.accounts.get(account_id)

    def buckets_of(self, account_id: int, since: int) -> list[BucketRow]:
        """See `Store.buckets_of`."""
        rows = sorted((at, spent) for (owner, at), spent in self.buckets.items() if owner == account_id)
        return [BucketRow(account_id, at, spent) for at, spent in rows if at >= since]

    def spend_since(self, since: int, by_settlement: bool, bucket: int) -> list[tuple[int, int, int]]:
        """See `Store.spend_since`."""
        sums: dict[tuple[int, int], int] = {}
        for row in self.charges.values():
            at = row.settled_at if by_settlement else row.placed_at
            if at >= since:
                key = (row.identity_id, at - at % bucket if bucket else 0)
                sums[key] = sums.get(key, 0) + row.cost_nanos + self.adjustments.get(row.id, 0)
        return [(identity, start, nanos) for (identity, start), nanos in sorted(sums.items())]

    def charge(self, charge_id: bytes) -> ChargeRow | None:
        """See `Store.charge`."""
        row = self.charges.get(charge_id)
        return row and row._replace(cost_nanos=row.cost_nanos + self.adjustments.get(row.id, 0))

    def attempts(self, request_id: bytes) -> Sequence[ChargeRow]:
        """See `Store.attempts`."""
        return [row for row in self.charges.values() if row.request_id == request_id]

    def run(self, org: str, team: str, name: str) -> RunRow | None:
        """See `Store.run`."""
        return self.runs.get((org, team, name))

    def owner(self, provider: str, resource: str) -> OwnerRow | None:
        """See `Store.owner`."""
        return self.owners.get((provider, resource))

    def objects(self) -> list[ObjectRow]:
        """See `Store.objects`."""
        return list({(row.kind, row.name): row for row in self.object_rows}.values())

    def put_object(self, kind: str, name: str, body: str, at: int, actor: str) -> int:
        """See `Store.put_object`."""
        version = 1 + sum(1 for row in self.object_rows if (row.kind, row.name) == (kind, name))
        self.object_rows.append(ObjectRow(kind, name, version, body, at, actor))
        return version

    def put_objects(self, objects: Sequence[tuple[str, str, str]], at: int, actor: str) -> list[int]:
        """See `Store.put_objects`."""
        return [self.put_object(kind, name, body, at, actor) for kind, name, body in objects]

    def accept_crash(self) -> None:
        """See `Store.accept_crash`: nothing outlives the process."""

    def abandon(self) -> None:
        """See `Store.abandon`: there is nothing to let go of."""

    def close(self, now: int) -> None:
        """See `Store.close`."""
        self._clean = True
