"""A ledger that many threads, tasks and processes write at once: each hold and each end is one short transaction.

No balance is kept in memory. `BEGIN IMMEDIATE` makes writers queue at the file; inside it the balances of all of a
call's accounts are read, `flow.authorize` decides, and the hold is placed in all of them or in none. The rows are the
gateway's own (`schema.sql`), so every reader and the audit understand them. Numbers of interned values and accounts
never change, so those are remembered.

The owner brings the waiting: a call whose turn does not come at once raises `StoreBusy` and may be tried again.
"""

import importlib.resources
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import apsw
import msgspec

from outlay.flow.accounts import Account
from outlay.flow.authorize import Costing, Denied, authorize, output_bound
from outlay.flow.budgets import BudgetSpec, budgets_for
from outlay.flow.ledger.charge import Basis, Ending, Hold, Status, charge_row, stored_hold, told
from outlay.flow.ledger.declaring import POST_BUCKET, Declaring
from outlay.flow.ledger.directory import (
    RUN_BUDGET,
    budget_key,
    encode_identity,
    encode_values,
)
from outlay.flow.ledger.liveness import EpochLock, SharedLock, boot_id, is_dead
from outlay.flow.ledger.numbers import Numbers, one
from outlay.flow.ledger.port import SCHEMA_VERSION, HoldRow, JobRow, StoreBusy
from outlay.flow.ledger.sqlite import APPLICATION_ID, MIN_SQLITE
from outlay.flow.ledger.statements import HIGHEST_SEQ, INSERT_CHARGE, INSERT_HOLD
from outlay.flow.scope import Identity, match_scope
from outlay.flow.windows import (
    WindowKind,
    bounds,
    bucket_start,
)
from outlay.kernel.clock import NANOS_PER_SECOND, Clock
from outlay.kernel.errors import AccountingBroken, StoreError
from outlay.kernel.ids import Id, IdMaker

T = TypeVar("T")

DEAD_CHECK_NS: Final = 1_000_000_000
"""How often at most a refused call looks for holds of processes that died."""
_PAUSE_S: Final = 0.001
_OPEN_WAIT_S: Final = 10
"""Longest wait for the file while it is opened or budgets are declared."""
_ENDED_BY: Final = "the process stopped before the outcome"

_SEQUENCE: Final = (
    "CREATE TABLE IF NOT EXISTS sequences (id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL)"
)
_TAKE: Final = "UPDATE sequences SET seq = max(seq + 1, ?) RETURNING seq"
_POST: Final = "UPDATE accounts SET spent = spent + ?, held = held - ? WHERE id = ?"


class RunLimit(NamedTuple):
    """A run that a call belongs to, itself or through its children."""

    id: str
    limit_nanos: int | None


class Order(msgspec.Struct, frozen=True, gc=False):
    """What one attempt asks for. Amounts in nanos."""

    identity: Identity
    budgets: tuple[BudgetSpec, ...]
    runs: tuple[RunLimit, ...]
    """The run of the call first, then the runs around it."""
    quote: Costing
    min_output_tokens: int
    may_clamp: bool
    route: str
    """JSON of provider, model, served and operation."""
    price: str
    """JSON of the price."""
    request_id: bytes | None = None
    """Of the first attempt; None if this is it."""
    attempt: int = 1


class Placed(NamedTuple):
    """A durable hold. `max_output_tokens` is lower than quoted if the call was clamped."""

    hold: Hold
    max_output_tokens: int
    is_clamped: bool


class DirectLedger:
    """See the module. Safe for threads; a forked child opens the file anew."""

    def __init__(self, path: Path, clock: Clock, *, full: bool = False) -> None:
        """Raises StoreError. `full`: commits wait for the disk."""
        if tuple(int(part) for part in apsw.sqlite_lib_version().split(".")) < MIN_SQLITE:
            raise StoreError(f"SQLite {apsw.sqlite_lib_version()} is older than {MIN_SQLITE}; upgrade apsw")
        self.path = path.absolute()
        self._clock = clock
        self._full = full
        self._numbers = Numbers()
        self._declaring = Declaring(self._numbers, self._seq)
        self._declared: dict[str, tuple[int | None, bool]] = {}
        self._inherited: list[object] = []
        self._next_dead_check = 0
        self._lock = threading.Lock()
        self._shared = SharedLock(self.path)
        self._db: apsw.Connection | None = None
        self._alive: EpochLock | None = None
        self._ids = IdMaker(clock)
        self._open()
        self.expire_dead()
        forked = weakref.WeakMethod(self._after_fork)
        os.register_at_fork(after_in_child=lambda: (method := forked()) and method())

    # -- what the SDK asks ------------------------------------------------------------------------------------

    def declare(self, budgets: Sequence[BudgetSpec]) -> None:
        """Put budgets in force for everybody on this file; a new one starts from what the ledger already knows.

        The newest declaration of a budget is its limit. Raises StoreError.
        """
        self._waited(lambda: self._declare(budgets))

    def place(self, order: Order, wait_s: float = 0) -> Placed | Denied:
        """Decide and hold, all or nothing; durable when this returns.

        Raises StoreBusy if the file's turn did not come within `wait_s`, StoreError if it cannot be written.
        """
        found = self._transact(lambda db: self._place(db, order), wait_s)
        if isinstance(found, Denied) and self._clock.monotonic() >= self._next_dead_check:
            self._next_dead_check = self._clock.monotonic() + DEAD_CHECK_NS
            if self._transact(self._expire_dead, wait_s):
                return self._transact(lambda db: self._place(db, order), wait_s)
        return found

    def report(self, order: Order, ending: Ending, wait_s: float = 0) -> None:
        """Book what others have seen spent: no hold, no limit asked, in all accounts at once.

        Raises StoreBusy, StoreError.
        """
        self._transact(lambda db: self._report(db, order, ending), wait_s)

    def end(
        self, hold: Hold, ending: Ending, route: str | None, price: str | None, wait_s: float = 0
    ) -> bool:
        """End a hold; False if it has ended already. `route` and `price` only where they differ from the hold's.

        Raises StoreBusy, StoreError.
        """
        return self._transact(lambda db: self._end(db, hold, ending, route, price), wait_s)

    def defer(self, row: JobRow, wait_s: float = 0) -> None:
        """Keep a hold open, over restarts, until the provider has done its job. Raises StoreBusy, StoreError."""
        self._transact(lambda db: db.execute("INSERT OR REPLACE INTO jobs VALUES (?,?,?,?,?,?)", row), wait_s)

    def job(self, provider: str, job_id: str, wait_s: float = 0) -> tuple[JobRow, Hold, str] | None:
        """An open job, its hold, and the JSON of the price it was held at. Raises StoreBusy, StoreError."""

        def find(db: apsw.Connection) -> tuple[JobRow, Hold, str] | None:
            row = one(db, "SELECT * FROM jobs WHERE provider = ? AND job_id = ?", provider, job_id)
            held = None if row is None else one(db, "SELECT * FROM holds WHERE id = ?", row[0])
            if row is None or held is None:
                return None
            hold = stored_hold(HoldRow(*held), ())
            return JobRow(*row), hold, self._numbers.body(db, "price", hold.price_id)

        return self._transact(find, wait_s)

    def balance(self, budget: BudgetSpec, identity: Identity) -> tuple[int, int, int | None]:
        """(spent, held, limit) of a budget's account for an identity now, nanos; zeros if it was never used."""
        now = self._clock.now()
        values = match_scope(budget.scope, identity)
        if values is None:
            return 0, 0, budget.limit_nanos
        rolling = budget.window.kind is WindowKind.ROLLING
        start = 0 if rolling else bounds(budget.window, now)[0]

        def read(db: apsw.Connection) -> tuple[int, int, int | None]:
            sql = "SELECT id, spent, held, limit_nanos FROM accounts WHERE budget=? AND scope=? AND window_start=?"
            row = one(db, sql, budget_key(budget), encode_values(values), start)
            if row is None:
                return 0, 0, budget.limit_nanos
            spent = self._numbers.rolling_spent(db, budget, row[0], now) if rolling else row[1]
            return spent, row[2], row[3]

        return self._transact(read, _OPEN_WAIT_S)

    def expire_dead(self) -> int:
        """Expire the holds of processes that are gone; returns how many."""
        return self._waited(lambda: self._transact(self._expire_dead, 0))

    def close(self) -> None:
        """Mark a clean stop and let go of the file."""
        with self._lock:
            db, self._db = self._db, None
            if db is not None:
                try:
                    db.execute(
                        "UPDATE epochs SET stopped_at = ? WHERE id = ?", (self._clock.now(), self._epoch)
                    )
                    db.close()
                except apsw.Error:
                    # what is missing is a mark of tidiness: the next one finds the epoch's lock free
                    pass
            if self._alive is not None:
                self._alive.close()
            self._shared.close()

    # -- opening ----------------------------------------------------------------------------------------------

    def _open(self) -> apsw.Connection:
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            db = apsw.Connection(str(self.path))
            db.set_busy_timeout(_OPEN_WAIT_S * 1000)
            db.pragma("journal_mode", "wal")
            db.pragma("synchronous", "full" if self._full else "normal")
            db.pragma("foreign_keys", False)
            application: Any = db.pragma("application_id")
            version: Any = db.pragma("user_version")
            if application not in (0, APPLICATION_ID):
                raise StoreError(f"{self.path.name} is a SQLite file of another application")
            if version not in (0, SCHEMA_VERSION):
                raise StoreError(f"{self.path.name} was written by another version of Outlay")
            self._begin_epoch(db, is_new=version == 0)
            db.set_busy_timeout(0)
        except (apsw.Error, OSError) as error:
            raise StoreError(f"cannot open the ledger {self.path.name}: {error}") from error
        self._db = db
        return db

    def _begin_epoch(self, db: apsw.Connection, is_new: bool) -> None:
        now = self._clock.now()
        db.execute("BEGIN IMMEDIATE")
        try:
            self._write_epoch(db, now, is_new)
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.pragma("application_id", APPLICATION_ID)
        db.pragma("user_version", SCHEMA_VERSION)

    def _write_epoch(self, db: apsw.Connection, now: int, is_new: bool) -> None:
        if is_new:
            schema = importlib.resources.files("outlay.flow.ledger").joinpath("schema.sql")
            db.execute(schema.read_text("utf-8"))
        db.execute(_SEQUENCE)
        highest = one(db, HIGHEST_SEQ)
        db.execute(
            "INSERT INTO sequences VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET seq = max(seq, excluded.seq)",
            (highest[0] if highest else 0,),
        )
        db.execute(
            "INSERT INTO epochs (started_at, boot_id, pid, is_full) VALUES (?,?,?,?)",
            (now, boot_id(), os.getpid(), int(self._full)),
        )
        self._epoch = db.last_insert_rowid()
        # before anyone can see the epoch: a number without a lock is a dead process
        self._alive = EpochLock(self.path, self._epoch)

    def _after_fork(self) -> None:
        """In a forked child: SQLite's connection, the lock and the epoch are the parent's."""
        self._lock = threading.Lock()
        if self._db is not None:
            self._inherited.append(self._db)
            self._db = None
            if self._alive is not None:
                self._alive.forget()
            self._ids = IdMaker(self._clock)
            self._declared = {}

    # -- transactions -----------------------------------------------------------------------------------------

    def _transact(self, work: Callable[[apsw.Connection], T], wait_s: float) -> T:
        """Run `work` alone on the file. What it wrote is durable when this returns, or nothing is."""
        deadline = self._clock.monotonic() + int(wait_s * NANOS_PER_SECOND)
        if not self._lock.acquire(timeout=wait_s):
            raise StoreBusy("other threads are writing the ledger")
        try:
            db = self._db
            if db is None:
                if not self._inherited:
                    raise StoreError("the ledger is closed")
                # a forked child's first use
                db = self._open()
            self._begin(db, deadline)
            try:
                result = work(db)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                self._numbers.clear()
                raise
            return result
        except apsw.Error as error:
            raise StoreError(f"the ledger's store failed: {type(error).__name__}") from error
        finally:
            self._lock.release()

    def _begin(self, db: apsw.Connection, deadline: int) -> None:
        while True:
            try:
                db.execute("BEGIN IMMEDIATE")
            except apsw.BusyError as error:
                if self._clock.monotonic() >= deadline:
                    raise StoreBusy("another process is writing the ledger") from error
                time.sleep(_PAUSE_S)
            else:
                return

    def _waited(self, work: Callable[[], T]) -> T:
        deadline = self._clock.monotonic() + _OPEN_WAIT_S * NANOS_PER_SECOND
        while True:
            try:
                return work()
            except StoreBusy:
                if self._clock.monotonic() >= deadline:
                    raise
                time.sleep(_PAUSE_S)

    def _seq(self, db: apsw.Connection) -> int:
        row = one(db, _TAKE, self._clock.now())
        if row is None:
            raise AccountingBroken("the ledger has lost its sequence")
        return int(row[0])

    # -- declarations -----------------------------------------------------------------------------------------

    def _declare(self, budgets: Sequence[BudgetSpec]) -> None:
        wanted = [*budgets, RUN_BUDGET]
        if all(self._declared.get(budget_key(spec)) == (spec.limit_nanos, spec.hard) for spec in wanted):
            return
        self._transact(lambda db: self._declaring.write(db, wanted, self._clock.now()), 0)
        self._declared.update({budget_key(spec): (spec.limit_nanos, spec.hard) for spec in wanted})

    # -- holds ------------------------------------------------------------------------------------------------

    def _place(self, db: apsw.Connection, order: Order) -> Placed | Denied:
        now = self._clock.now()
        accounts = self._accounts(db, order, now)
        decision = authorize(accounts, order.quote, order.min_output_tokens, order.may_clamp)
        if isinstance(decision, Denied):
            return decision
        nanos = order.quote.total_nanos
        if decision.is_clamped:
            nanos += output_bound(order.quote, decision.max_output_tokens) - order.quote.output_nanos
        hold = self._hold(db, order, accounts, nanos, now)
        db.execute(
            INSERT_HOLD,
            HoldRow(
                hold.id,
                hold.request_id,
                hold.attempt,
                hold.identity_id,
                hold.route_id,
                hold.price_id,
                hold.accounts_id,
                nanos,
                now,
                hold.seq,
                self._epoch,
            ),
        )
        for account in accounts:
            if account.buckets is None:
                db.execute("UPDATE accounts SET held = held + ? WHERE id = ?", (nanos, account.id))
            else:
                db.execute(
                    "UPDATE accounts SET held = held + ?, spent = ? WHERE id = ?",
                    (nanos, account.spent, account.id),
                )
        return Placed(hold, decision.max_output_tokens, decision.is_clamped)

    def _report(self, db: apsw.Connection, order: Order, ending: Ending) -> None:
        now = self._clock.now()
        hold = self._hold(db, order, self._accounts(db, order, now), 0, now)
        self._post(db, hold.accounts_id, ending.cost_nanos, 0, now)
        db.execute(INSERT_CHARGE, charge_row(hold, ending, now, self._seq(db)))

    def _hold(
        self, db: apsw.Connection, order: Order, accounts: Sequence[Account], nanos: int, now: int
    ) -> Hold:
        hold = Hold()
        hold.id = self._ids.make(now)
        hold.request_id = order.request_id or hold.id
        hold.attempt, hold.nanos, hold.placed_at = order.attempt, nanos, now
        hold.identity_id = self._numbers.number(db, "identity", encode_identity(order.identity))
        hold.route_id = self._numbers.number(db, "route", order.route)
        hold.price_id = self._numbers.number(db, "price", order.price)
        hold.accounts = tuple(accounts)
        hold.accounts_id = self._numbers.number(
            db, "accounts", ",".join(str(account.id) for account in accounts)
        )
        hold.seq = self._seq(db)
        hold.is_ended = False
        hold.on_durable = told
        return hold

    def _accounts(self, db: apsw.Connection, order: Order, now: int) -> list[Account]:
        """The accounts of a call with their balances as they stand in the file."""
        wanted = [
            (applied.budget, applied.values, applied.budget.limit_nanos)
            for applied in budgets_for(order.budgets, order.identity)
        ]
        for run in order.runs:
            values = match_scope(RUN_BUDGET.scope, msgspec.structs.replace(order.identity, run=run.id))
            if values is not None:
                wanted.append((RUN_BUDGET, values, run.limit_nanos))
        accounts = []
        for spec, values, limit in wanted:
            account_id, start, end = self._numbers.account(db, spec, values, limit, now)
            row = one(db, "SELECT spent, held, limit_nanos FROM accounts WHERE id = ?", account_id)
            if row is None:
                raise AccountingBroken(f"account {account_id} is gone")
            if spec is RUN_BUDGET:
                in_force = limit if row[2] is None or (limit is not None and limit < row[2]) else row[2]
                if in_force != row[2]:
                    db.execute("UPDATE accounts SET limit_nanos = ? WHERE id = ?", (in_force, account_id))
                spec = msgspec.structs.replace(spec, limit_nanos=in_force, hard=in_force is not None)
            elif spec.limit_nanos != row[2]:
                # another process has declared it anew since
                spec = msgspec.structs.replace(spec, limit_nanos=row[2])
            account = Account(account_id, spec, values, start, end)
            account.spent, account.held = row[0], row[1]
            if account.buckets is not None:
                account.spent = self._numbers.rolling_spent(db, spec, account_id, now)
            accounts.append(account)
        return accounts

    def _end(
        self, db: apsw.Connection, hold: Hold, ending: Ending, route: str | None, price: str | None
    ) -> bool:
        row = one(db, "SELECT accounts_id FROM holds WHERE id = ?", hold.id)
        if row is None:
            return False
        now = self._clock.now()
        # budgets made meanwhile have joined it
        hold.accounts_id = row[0]
        if route is not None:
            ending = msgspec.structs.replace(ending, route_id=self._numbers.number(db, "route", route))
        if price is not None:
            ending = msgspec.structs.replace(ending, price_id=self._numbers.number(db, "price", price))
        self._post(db, hold.accounts_id, ending.cost_nanos, hold.nanos, now)
        db.execute("DELETE FROM holds WHERE id = ?", (hold.id,))
        db.execute("DELETE FROM jobs WHERE hold_id = ?", (hold.id,))
        db.execute(INSERT_CHARGE, charge_row(hold, ending, now, self._seq(db)))
        hold.is_ended = True
        return True

    def _post(self, db: apsw.Connection, accounts_id: int, cost: int, held: int, now: int) -> None:
        for part in self._numbers.body(db, "accounts", accounts_id).split(","):
            if not part:
                continue
            account_id = int(part)
            db.execute(_POST, (cost, held, account_id))
            window = self._numbers.window(db, account_id) if cost else None
            if window is not None:
                db.execute(POST_BUCKET, (account_id, bucket_start(window, now), cost))

    def _expire_dead(self, db: apsw.Connection) -> int:
        epochs: list[Any] = db.execute(
            "SELECT DISTINCT epoch FROM holds WHERE epoch <> ?", (self._epoch,)
        ).fetchall()
        gone = [epoch for (epoch,) in epochs if is_dead(self.path, epoch)]
        expired = 0
        for epoch in gone:
            # what a provider still works on outlives the process that asked for it
            rows = db.execute(
                "SELECT * FROM holds WHERE epoch = ? AND id NOT IN (SELECT hold_id FROM jobs)", (epoch,)
            ).fetchall()
            for row in map(HoldRow._make, rows):
                ending = Ending(Status.EXPIRED, Basis.OUTCOME_UNKNOWN, row.nanos, reason=_ENDED_BY)
                self._end(db, stored_hold(row, ()), ending, None, None)
                expired += 1
        return expired

    def new_id(self) -> Id:
        """A fresh id, for a request that needs one before its hold."""
        with self._lock:
            return self._ids.make()
