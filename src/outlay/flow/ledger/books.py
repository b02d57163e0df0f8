"""The books: place holds, end them exactly once, and make every posting durable with the tick's others.

Decisions are made in memory and in one synchronous stretch; the rows of one event-loop tick are one batch. A call
may leave only after its hold's `on_durable(None)`. Settlements ride with the next batch, at most
`SETTLE_DELAY_S` later: until then the store still shows the hold, which is never less than what was spent.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from outlay.flow.accounts import Account
from outlay.flow.authorize import fits
from outlay.flow.budgets import BudgetSpec
from outlay.flow.ledger.charge import (
    Basis,
    Ending,
    Hold,
    Status,
    charge_row,
    stored_hold,
    told,
)
from outlay.flow.ledger.directory import (
    Chain,
    Directory,
    changed_buckets,
    decode_identity,
)
from outlay.flow.ledger.opening import Openings
from outlay.flow.ledger.port import (
    Batch,
    ChargeRow,
    ExtensionRow,
    HoldRow,
    JobRow,
    OwnerRow,
    PostingRow,
    RefusalRow,
    Store,
    StoreBusy,
    StoreFenced,
)
from outlay.flow.ledger.runs import run_row
from outlay.flow.raises import Raise
from outlay.flow.runs import RunTerms
from outlay.flow.scope import Identity
from outlay.flow.windows import bounds
from outlay.kernel.clock import Clock
from outlay.kernel.errors import AccountingBroken, NotFound, OutlayError, StoreError

SETTLE_DELAY_S = 0.002
"""Longest wait of a settlement for a hold's commit to ride with: halves the commits under load."""
BUSY_RETRY_S = 0.005
BUSY_TRIES = 200
"""One second of another process's lock; then the tick fails."""
DOWN_RETRY_S = 0.25
"""Pause before settlements that the store refused are tried again."""


_CORRECTABLE = frozenset(
    (Basis.OUTCOME_UNKNOWN, Basis.COUNTED, Basis.FULL, Basis.SERVED_UNPRICED, Basis.RESOLVED)
)


Growing = tuple[Hold, ExtensionRow, Callable[[StoreError | None], None]]
"""A hold that grows, the row that says so, and who is to be told."""


class Timers(Protocol):
    """What the books need of an event loop."""

    def call_soon(self, callback: Callable[[], object], /) -> object: ...
    def call_later(self, delay: float, callback: Callable[[], object], /) -> object: ...


class Books(Openings):
    """See the module. One instance a process; not thread-safe."""

    def __init__(self, store: Store, clock: Clock, timers: Timers) -> None:
        self._store = store
        self._clock = clock
        self._timers = timers
        self._batch = Batch()
        self._dirty: list[Account] = []
        self._unconfirmed: list[Hold] = []
        self._growing: list[Growing] = []
        self._open: dict[bytes, Hold] = {}
        self._flush_wanted = False
        self._later_wanted = False
        self._busy_tries = 0
        self.on_free: Callable[[Account], None] = _ignore
        """Called when money comes free in an account that has waiters."""
        loaded = store.load(clock.now())
        self.was_clean, self.host_crashed = loaded.was_clean, loaded.host_crashed
        self._epoch = loaded.epoch
        self._seq = max(loaded.last_seq, clock.now())
        self.directory = Directory(store, loaded, lambda: self._batch, self._next_seq)
        self.is_down = False
        self.overrun_nanos = 0
        self.commits = 0
        self.newest_charge: bytes | None = None
        """The last one that was written since the start."""
        self._jobs = {row.hold_id: row for row in loaded.jobs}
        self.recovered = self._recover(loaded.open_holds)

    # -- declarations ------------------------------------------------------------------------------------------

    def configure(
        self, budgets: Sequence[BudgetSpec], raises: Sequence[Raise] = (), *, enforces_runs: bool = True
    ) -> None:
        """Put budgets and raises in force. New budgets start from the ledger's spend and the holds that are open.

        `enforces_runs`: whether a run's own limits refuse.
        """
        self.settle()
        now = self._clock.now()
        fresh = self.directory.set_budgets(budgets, now, raises, enforces_runs=enforces_runs)
        # what a failing store has not taken yet is spend all the same
        for account in self.directory.seed(fresh, now, self._batch.charges):
            self._touch(account)
        for hold in self._open.values() if fresh else ():
            self._extend(hold, fresh)
        self._touch_relimited()
        for account in self.directory.accounts():
            self._touch(account)
            if account.waiting:
                self.on_free(account)
        self.flush()

    def _extend(self, hold: Hold, fresh: Sequence[BudgetSpec]) -> None:
        identity = decode_identity(self.directory.identities.body(hold.identity_id))
        new = [
            account
            for budget in fresh
            if (account := self.directory.account_for(budget, identity, hold.placed_at)) is not None
            and account not in hold.accounts
        ]
        if not new:
            return
        for account in new:
            account.hold(hold.nanos)
            self._touch(account)
        hold.accounts = (*hold.accounts, *new)
        hold.accounts_id = self.directory.account_set(hold.accounts)
        self._batch.hold_sets.append((hold.accounts_id, hold.id))

    def chain(self, identity: Identity) -> Chain:
        """The accounts of an identity; keep it, and `refresh` it when `now >= valid_until`."""
        return self.directory.open_chain(identity, self._clock.now())

    def open_run(self, identity: Identity, terms: RunTerms, pinned: str = "") -> None:
        """Open the identity's run, or take what a later call says of it and of those above; all or nothing.

        Raises RunProblem. `pinned`: the run above all runs of the caller's key.
        Written with the hold of the call that opens it.
        """
        line, parent = [], ""
        for name, said in (*terms.above, (identity.run, terms)):
            line.append(((identity.org, identity.team, name), said.below(parent)))
            parent = name
        for key in self.directory.runs.open(line, pinned, self._clock.now()):
            self.directory.run_changed(key)

    def end_raises(self, now: int) -> None:
        """Take raises away that have ended by `now` (UTC ns)."""
        if now >= self.directory.raises_end_at:
            self.directory.apply_raises(now)
            self._touch_relimited()

    def _touch_relimited(self) -> None:
        relimited, self.directory.relimited = self.directory.relimited, []
        for account in relimited:
            self._touch(account)
        if relimited and not self._later_wanted:
            self._flush_late(SETTLE_DELAY_S)

    def count_call(self, chain: Chain) -> None:
        """A call of the chain's run begins; its ancestors count it, too."""
        for run in chain.runs:
            run.calls += 1
            self.directory.runs.touch(run)

    # -- holds -------------------------------------------------------------------------------------------------

    def place(  # noqa: PLR0917 - the hot path: a record of these would cost more than the call
        self,
        chain: Chain,
        nanos: int,
        request_id: bytes,
        attempt: int,
        route_id: int,
        price_id: int,
        on_durable: Callable[[Hold, StoreError | None], None],
        now: int,
        attempt_id: bytes | None = None,
        *,
        is_begun: bool = False,
    ) -> Hold | None:
        """Hold `nanos` in every account of the chain, all or nothing; None if it does not fit in one of them.

        The chain must be current at `now` (UTC ns). `on_durable` is called once, never from within this call.
        `is_begun`: the provider works on it already, whatever fits: what it costs is an overrun.
        """
        accounts = chain.accounts
        if not is_begun and not fits(accounts, nanos):
            return None
        for account in accounts:
            account.held += nanos
            account.open_holds += 1
            if not account.is_dirty:
                account.is_dirty = True
                self._dirty.append(account)
        self._seq = seq = self._seq + 1
        hold = Hold()
        hold.id = attempt_id or request_id
        hold.request_id = request_id
        hold.attempt = attempt
        hold.identity_id = chain.identity_id
        hold.route_id = route_id
        hold.price_id = price_id
        hold.accounts = accounts
        hold.accounts_id = chain.accounts_id
        hold.nanos = nanos
        hold.placed_at = now
        hold.seq = seq
        hold.is_ended = False
        hold.on_durable = on_durable
        self._open[hold.id] = hold
        self._batch.holds.append(
            HoldRow(
                hold.id,
                request_id,
                attempt,
                chain.identity_id,
                route_id,
                price_id,
                chain.accounts_id,
                nanos,
                now,
                seq,
                self._epoch,
            )
        )
        self._unconfirmed.append(hold)
        if not self._flush_wanted:
            self._flush_wanted = True
            self._timers.call_soon(self.flush)
        return hold

    def extend(self, hold: Hold, nanos: int, on_durable: Callable[[StoreError | None], None]) -> bool:
        """Add `nanos` to an open hold in all of its accounts, or nothing if one of them does not take it.

        `on_durable` is called once, never from within this call, and not at all if the hold has ended by then.
        """
        if hold.is_ended:
            raise AccountingBroken("a hold that has ended cannot grow")
        if not fits(hold.accounts, nanos):
            return False
        for account in hold.accounts:
            account.held += nanos
            self._touch(account)
        hold.nanos += nanos
        row = ExtensionRow(self._next_seq(), hold.id, nanos, self._clock.now())
        self._batch.extensions.append(row)
        self._growing.append((hold, row, on_durable))
        if not self._flush_wanted:
            self._flush_wanted = True
            self._timers.call_soon(self.flush)
        return True

    def end(self, hold: Hold, ending: Ending) -> None:
        """End a durable hold. A second end is an accounting error and stops the process."""
        if hold.is_ended:
            raise AccountingBroken("a hold was ended twice")
        hold.is_ended = True
        del self._open[hold.id]
        if self._jobs and self._jobs.pop(hold.id, None) is not None:
            self._batch.jobs_done.append((hold.id,))
        now = self._clock.now()
        cost = ending.cost_nanos
        nanos = hold.nanos
        is_awaited = False
        for account in hold.accounts:
            account.held -= nanos
            account.open_holds -= 1
            if account.buckets is None:
                account.spent += cost
            else:
                account.post(cost, now)
            if account.waiting:
                is_awaited = True
            if not account.is_dirty:
                account.is_dirty = True
                self._dirty.append(account)
        if cost > nanos:
            self.overrun_nanos += cost - hold.nanos
        self._seq += 1
        batch = self._batch
        batch.ended.append((hold.id,))
        batch.charges.append(charge_row(hold, ending, now, self._seq))
        if is_awaited:
            for account in hold.accounts:
                if account.waiting:
                    self.on_free(account)
        if not self._later_wanted:
            self._flush_late(SETTLE_DELAY_S)

    def _flush_late(self, delay_s: float) -> None:
        self._later_wanted = True
        commits = self.commits
        self._timers.call_later(delay_s, lambda: self._flush_if_none_since(commits))

    def _flush_if_none_since(self, commits: int) -> None:
        """The late flush: if a commit took the settlements along meanwhile, what came after it may ride again."""
        self._later_wanted = False
        if self.commits == commits:
            self.flush()
        elif not self._batch.is_empty():
            self._flush_late(SETTLE_DELAY_S)

    def resolve(self, charge_id: bytes, cost_nanos: int, actor: str, note: str) -> int:
        """Correct a charge whose outcome was unknown; returns the adjustment posted.

        Raises NotFound, or OutlayError if the charge's outcome is known.
        """
        self.settle()
        charge = self._store.charge(charge_id)
        if charge is None:
            raise NotFound("no charge has that id")
        if charge.basis not in _CORRECTABLE:
            raise OutlayError(
                f"the charge is {charge.basis}: its outcome is known and is not corrected by hand"
            )
        delta = cost_nanos - charge.cost_nanos
        now = self._clock.now()
        accounts = self._accounts_of_charge(charge, now)
        for account in accounts:
            account.adjust(delta, charge.settled_at, now)
            self._touch(account)
        self._batch.postings.append(
            PostingRow(self._next_seq(), charge_id, "adjustment", delta, now, actor, note)
        )
        self._batch.adjusted.append((delta, Basis.RESOLVED.value, charge_id))
        self.flush()
        if delta < 0:
            for account in accounts:
                if account.waiting:
                    self.on_free(account)
        return delta

    def _accounts_of_charge(self, charge: ChargeRow, now: int) -> Sequence[Account]:
        """The accounts a charge was posted to, and those of later budgets that were seeded with it."""
        accounts = list(self.directory.accounts_of_set(charge.accounts_id))
        identity = decode_identity(self.directory.identities.body(charge.identity_id))
        for budget in self.directory.budgets:
            if bounds(budget.window, now)[0] <= charge.placed_at:
                account = self.directory.account_for(budget, identity, now)
                if account is not None and account not in accounts:
                    accounts.append(account)
        return accounts

    @property
    def open_holds(self) -> int:
        """Holds not yet ended."""
        return len(self._open)

    @property
    def held_nanos(self) -> int:
        """Money in open holds."""
        return sum(hold.nanos for hold in self._open.values())

    def hold_of(self, attempt_id: bytes) -> Hold | None:
        """An open hold by id."""
        return self._open.get(attempt_id)

    def holds_of(self, request_id: bytes) -> list[Hold]:
        """Open holds of a request; a look-up for a person, which reads all of them."""
        return [hold for hold in self._open.values() if hold.request_id == request_id]

    # -- durability --------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Hand the tick's batch to the store now."""
        self._flush_wanted = False
        batch = self._batch
        if batch.before is not None:
            return
        for account in self._dirty:
            account.is_dirty = False
            batch.balances.append((account.spent, account.held, account.limit, account.id))
            if account.buckets is not None:
                batch.buckets.extend(changed_buckets(account))
        self._dirty = []
        for run in batch.dirty_runs:
            run.is_dirty = False
            batch.runs.append(run_row(run))
        batch.dirty_runs = []
        if batch.is_empty():
            return
        self._batch = Batch()
        self._batch.before = batch
        holds, self._unconfirmed = self._unconfirmed, []
        growing, self._growing = self._growing, []
        self._store.submit(batch, lambda error: self._written(batch, holds, growing, error))

    def settle(self) -> None:
        """Write what there is and wait for it: what the store shows then is all that happened, unless it is down."""
        self.flush()
        while self._batch.before is not None:
            self._store.settle()
            if self.is_down:
                return  # to try again and again here would stop everything else for as long as that lasts
            self.flush()

    def _written(
        self, batch: Batch, holds: list[Hold], growing: "list[Growing]", error: StoreError | None
    ) -> None:
        self._batch.before = None
        if error is None:
            self.is_down = False
            self._busy_tries = 0
            self.commits += 1
            if batch.charges:
                self.newest_charge = batch.charges[-1].id
            if batch.interned:
                self.directory.written(batch)
            for hold in holds:
                # told once; letting go of the listener leaves no cycle for the garbage collector
                on_durable, hold.on_durable = hold.on_durable, told
                on_durable(hold, None)
            for grown, _, told_grown in growing:
                if not grown.is_ended:
                    told_grown(None)
        else:
            self._not_written(batch, holds, growing, error)
            if isinstance(error, StoreFenced):
                raise AccountingBroken(f"{error}: what is in memory here is another's now")
        if error is None and not self._flush_wanted and (self._unconfirmed or self._growing):
            # they came while a store of its own thread was at work
            self.flush()
        elif not (self._batch.is_empty() and not self._dirty) and not (
            self._flush_wanted or self._later_wanted
        ):
            self._flush_late(
                SETTLE_DELAY_S if error is None else BUSY_RETRY_S if self._busy_tries else DOWN_RETRY_S
            )

    def _not_written(
        self, batch: Batch, holds: list[Hold], growing: "list[Growing]", error: StoreError
    ) -> None:
        """Nothing of the batch is stored: what happened stays to be written, holds fail (or wait, if only busy)."""
        later = self._batch
        is_busy = isinstance(error, StoreBusy) and self._busy_tries < BUSY_TRIES
        batch.balances.clear()
        batch.buckets.clear()
        for name in (
            "interned",
            "limits",
            "accounts",
            "account_limits",
            "refusals",
            "runs",
            "hold_sets",
            "ended",
            "charges",
            "postings",
            "adjusted",
            "jobs",
            "jobs_done",
            "owners",
        ):
            setattr(later, name, getattr(batch, name) + getattr(later, name))
        for account in self.directory.accounts():
            self._touch(account)
            account.rewrite_buckets()
        if is_busy:
            self._busy_tries += 1
            later.holds = batch.holds + later.holds
            self._unconfirmed = holds + self._unconfirmed
            later.extensions = batch.extensions + later.extensions
            self._growing = growing + self._growing
            return
        self._busy_tries = 0
        self.is_down = True
        for grown, row, on_grown in growing:
            if grown.is_ended:
                # it ended with what it had grown by: the journal needs the row
                later.extensions.append(row)
                continue
            grown.nanos -= row.nanos
            for account in grown.accounts:
                account.held -= row.nanos
            on_grown(error)
        for hold in holds:
            hold.is_ended = True
            del self._open[hold.id]
            for account in hold.accounts:
                account.release(hold.nanos)
            # if the store wrote in spite of its error, this takes the row out again
            later.ended.append((hold.id,))
            hold.on_durable(hold, error)

    def _recover(self, rows: Sequence[HoldRow]) -> int:
        """Expire the holds of dead epochs: their outcome is unknown, so the held amount is booked."""
        now = self._clock.now()
        expired = 0
        for row in rows:
            accounts = self.directory.accounts_of_set(row.accounts_id)
            hold = stored_hold(row, accounts)
            if row.id in self._jobs:
                # the provider still works on it, and will say what it cost
                for account in accounts:
                    account.open_holds += 1
                self._open[row.id] = hold
                continue
            expired += 1
            for account in accounts:
                account.held -= row.nanos
                account.post(row.nanos, now)
                self._touch(account)
            ending = Ending(
                Status.EXPIRED,
                Basis.OUTCOME_UNKNOWN,
                row.nanos,
                reason="the gateway stopped before the outcome",
            )
            self._batch.ended.append((row.id,))
            self._batch.charges.append(charge_row(hold, ending, now, self._next_seq()))
        deferred: dict[int, int] = {}
        for hold in self._open.values():
            for account in hold.accounts:
                deferred[account.id] = deferred.get(account.id, 0) + hold.nanos
        for account in self.directory.accounts():
            if account.held != deferred.get(account.id, 0):
                raise AccountingBroken(
                    f"account {account.id} ({account.budget.name}) holds {account.held} nanos without an open hold"
                )
        for hold_id in self._jobs.keys() - self._open.keys():
            del self._jobs[hold_id]
            self._batch.jobs_done.append((hold_id,))
        self.flush()
        return expired

    # -- jobs that go on after their answer --------------------------------------------------------------------

    @property
    def jobs(self) -> tuple[JobRow, ...]:
        """Deferred holds that are open."""
        return tuple(self._jobs.values())

    def defer(self, hold: Hold, kind: str, provider: str, job_id: str, body: str) -> JobRow:
        """Keep a durable hold open, over restarts, until the provider has done its job; `end` ends it as any other."""
        if hold.is_ended:
            raise AccountingBroken("a hold that has ended cannot be deferred")
        row = JobRow(hold.id, kind, provider, job_id, body, self._clock.now())
        self._jobs[hold.id] = row
        self._batch.jobs.append(row)
        if not self._later_wanted:
            self._flush_late(SETTLE_DELAY_S)
        return row

    def count_refusals(self, rows: Sequence[RefusalRow]) -> None:
        """Keep how often callers were refused; written with the next batch."""
        self._batch.refusals.extend(rows)
        if not self._later_wanted:
            self._flush_late(SETTLE_DELAY_S)

    def own(self, row: OwnerRow) -> None:
        """Remember whose a provider's object is; written with the next batch."""
        self._batch.owners.append(row)
        if not self._later_wanted:
            self._flush_late(SETTLE_DELAY_S)

    def owner(self, provider: str, resource: str) -> OwnerRow | None:
        """Whose a provider's object is, if it was made through here."""
        before = self._batch.before
        unwritten = self._batch.owners if before is None else before.owners + self._batch.owners
        for row in reversed(unwritten):
            if (row.provider, row.resource) == (provider, resource):
                return row
        return self._store.owner(provider, resource)

    def close(self) -> None:
        """Write what is left and mark a clean stop."""
        self.settle()
        self._store.close(self._clock.now())

    def _touch(self, account: Account) -> None:
        if not account.is_dirty:
            account.is_dirty = True
            self._dirty.append(account)

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq


def _ignore(_account: Account) -> None:
    return None
