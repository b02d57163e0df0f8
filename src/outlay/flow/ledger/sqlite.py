"""The SQLite store: one writing process, WAL, one transaction per batch, durable before `done` is called.

`synchronous=NORMAL` survives a killed process; a host crash may lose the last moments, which `load` detects (the
machine booted since an unclean stop). Checkpoints run on a second connection in a thread, which needs
SQLite >= 3.51.3 (earlier ones have a rare corruption with two); the writer finishes one itself only when the WAL
has outgrown its cap. A lock file keeps every other writer out.
"""

import contextlib
import fcntl
import importlib.resources
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw

from outlay.flow.ledger.port import (
    SCHEMA_VERSION,
    AccountLimitRow,
    AccountRow,
    Batch,
    BucketRow,
    ChargeRow,
    Done,
    ExtensionRow,
    HoldRow,
    JobRow,
    LimitRow,
    Loaded,
    ObjectRow,
    OwnerRow,
    RunRow,
    StoreBusy,
)
from outlay.kernel.errors import StoreError

APPLICATION_ID = 0x4F55544C
MIN_SQLITE = (3, 51, 3)
CHECKPOINT_EVERY_PAGES = 16_000
"""64 MB of WAL start a background checkpoint: a page written many times is copied once, so rarely is cheaper."""
WAL_CAP_PAGES = 64_000
"""256 MB of WAL: the writer itself finishes the checkpoint, so that a busy hour cannot fill the disk."""

_INSERT_HOLD = f"INSERT INTO holds VALUES ({','.join('?' * len(HoldRow._fields))})"
_INSERT_CHARGE = (
    f"INSERT INTO charges ({','.join(ChargeRow._fields)}) VALUES ({','.join('?' * len(ChargeRow._fields))})"
)
_DELETE_HOLD = "DELETE FROM holds WHERE id = ?"
_SET_BALANCE = "UPDATE accounts SET spent = ?, held = ?, limit_nanos = ? WHERE id = ?"
_INSERT_INTERNED = "INSERT INTO interned VALUES (?,?,?)"
_INSERT_LIMIT = f"INSERT INTO limits VALUES ({','.join('?' * len(LimitRow._fields))})"
_INSERT_ACCOUNT = f"INSERT INTO accounts VALUES ({','.join('?' * len(AccountRow._fields))})"
_SET_HOLD_SET = "UPDATE holds SET accounts_id = ? WHERE id = ?"
_INSERT_POSTING = "INSERT INTO postings VALUES (?,?,?,?,?,?,?)"
_ADJUST = "UPDATE charges SET adjustment_nanos = adjustment_nanos + ?, basis = ? WHERE id = ?"
_SET_BUCKET = (
    "INSERT INTO buckets VALUES (?,?,?) ON CONFLICT (account_id, start) DO UPDATE SET spent = excluded.spent"
)
_INSERT_JOB = "INSERT OR REPLACE INTO jobs VALUES (?,?,?,?,?,?)"
_DELETE_JOB = "DELETE FROM jobs WHERE hold_id = ?"
_INSERT_OWNER = "INSERT OR REPLACE INTO owners VALUES (?,?,?,?,?,?)"
_SET_RUN = f"INSERT OR REPLACE INTO runs VALUES ({','.join('?' * len(RunRow._fields))})"
_INSERT_ACCOUNT_LIMIT = f"INSERT INTO account_limits VALUES ({','.join('?' * len(AccountLimitRow._fields))})"
_INSERT_EXTENSION = f"INSERT INTO extensions VALUES ({','.join('?' * len(ExtensionRow._fields))})"
_EXTEND_HOLD = "UPDATE holds SET nanos = nanos + ? WHERE id = ?"
_COUNT_REFUSAL = (
    "INSERT INTO refusals VALUES (?,?,?,?,?,?,?) ON CONFLICT (minute, code, budget, org, team, key)"
    " DO UPDATE SET count = count + excluded.count"
)
HIGHEST_SEQ = (
    "SELECT max(coalesce((SELECT max(seq) FROM holds), 0), coalesce((SELECT max(seq) FROM limits), 0),"
    " coalesce((SELECT max(seq) FROM postings), 0), coalesce((SELECT max(seq) FROM extensions), 0),"
    " coalesce((SELECT max(seq) FROM account_limits), 0), coalesce((SELECT max(settle_seq) FROM"
    " (SELECT settle_seq FROM charges ORDER BY id DESC LIMIT 100000)), 0))"
)
"""The newest number of the journal: whoever writes next goes on from there."""
_CHARGE_COLUMNS = ",".join(
    "cost_nanos + adjustment_nanos" if name == "cost_nanos" else name for name in ChargeRow._fields
)


class SqliteStore:
    """See the module and `port.Store`. `full` makes every commit wait for the disk (`synchronous=FULL`)."""

    def __init__(self, path: Path, *, full: bool = False) -> None:
        if tuple(int(part) for part in apsw.sqlite_lib_version().split(".")) < MIN_SQLITE:
            raise StoreError(f"SQLite {apsw.sqlite_lib_version()} is older than {MIN_SQLITE}; upgrade apsw")
        self.path = path
        self._full = full
        self._lock = _lock_file(path)
        try:
            self._db = _open(path, full)
            self._prepare_schema()
        except (apsw.Error, OSError) as error:
            self._lock.close()
            raise StoreError(f"cannot open the ledger {path.name}: {error}") from error
        except StoreError:
            self._lock.close()
            raise
        self._cursor = self._db.cursor()
        self._epoch = 0
        self._wal_pages = 0
        self._checkpointer = _Checkpointer(path)
        self._db.set_wal_hook(self._on_wal)

    def _prepare_schema(self) -> None:
        application: Any = self._db.pragma("application_id")
        version: Any = self._db.pragma("user_version")
        if application not in (0, APPLICATION_ID):
            raise StoreError(f"{self.path.name} is a SQLite file of another application")
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self.path.name} was written by a newer Outlay (schema {version}, this one knows {SCHEMA_VERSION})"
            )
        schema = importlib.resources.files("outlay.flow.ledger").joinpath("schema.sql").read_text("utf-8")
        with self._db:
            self._db.execute(schema)
            if version == 1:
                self._db.execute("ALTER TABLE charges ADD COLUMN other_usage TEXT")
        self._db.pragma("application_id", APPLICATION_ID)
        self._db.pragma("user_version", SCHEMA_VERSION)

    def load(self, now: int) -> Loaded:
        """See `Store.load`."""
        boot = boot_id()
        try:
            last = self._one(
                "SELECT id, stopped_at, boot_id, is_full FROM epochs ORDER BY id DESC LIMIT 1", ()
            )
            with self._db:
                self._db.execute(
                    "INSERT INTO epochs (started_at, boot_id, pid, is_full) VALUES (?,?,?,?)",
                    (now, boot, os.getpid(), int(self._full)),
                )
            self._epoch = self._db.last_insert_rowid()
            execute = self._db.execute
            interned = {row[0]: row[1] for row in execute("SELECT kind, max(id) FROM interned GROUP BY kind")}
            limits = {row[1]: LimitRow(*row) for row in execute("SELECT * FROM limits ORDER BY seq")}
            max_account = self._all("SELECT coalesce(max(id), 0) FROM accounts", ())[0][0]
            holds = [HoldRow(*row) for row in execute("SELECT * FROM holds ORDER BY seq")]
            jobs = [JobRow(*row) for row in execute("SELECT * FROM jobs ORDER BY at")]
            seqs = self._all(
                HIGHEST_SEQ,
                (),
            )[0]
            oldest = now - 401 * 86400 * 1_000_000_000
            with self._db:
                execute("DELETE FROM buckets WHERE start < ?", (oldest,))
        except apsw.Error as error:
            raise _store_error(error) from error
        clean = last is None or last[1] is not None
        crashed = last is not None and not clean and last[2] != boot and not last[3]
        return Loaded(interned, limits, max_account, holds, seqs[0], self._epoch, clean, jobs, crashed)

    def submit(self, batch: Batch, done: Done) -> None:
        """See `Store.submit`; `done` is called before this returns."""
        execute, many = self._cursor.execute, self._cursor.executemany
        try:
            execute("BEGIN IMMEDIATE")
        except apsw.Error as error:
            done(_store_error(error))
            return
        try:
            if batch.interned:
                many(_INSERT_INTERNED, batch.interned)
            if batch.limits:
                many(_INSERT_LIMIT, batch.limits)
            if batch.accounts:
                many(_INSERT_ACCOUNT, batch.accounts)
            if batch.account_limits:
                many(_INSERT_ACCOUNT_LIMIT, batch.account_limits)
            if batch.refusals:
                many(_COUNT_REFUSAL, batch.refusals)
            if batch.runs:
                many(_SET_RUN, batch.runs)
            if batch.holds:
                many(_INSERT_HOLD, batch.holds)
            if batch.extensions:
                many(_INSERT_EXTENSION, batch.extensions)
                many(_EXTEND_HOLD, [(row.nanos, row.hold_id) for row in batch.extensions])
            if batch.hold_sets:
                many(_SET_HOLD_SET, batch.hold_sets)
            if batch.ended:
                many(_DELETE_HOLD, batch.ended)
            if batch.charges:
                many(_INSERT_CHARGE, batch.charges)
            if batch.postings:
                many(_INSERT_POSTING, batch.postings)
            if batch.adjusted:
                many(_ADJUST, batch.adjusted)
            if batch.balances:
                many(_SET_BALANCE, batch.balances)
            if batch.buckets:
                many(_SET_BUCKET, batch.buckets)
            if batch.jobs:
                many(_INSERT_JOB, batch.jobs)
            if batch.jobs_done:
                many(_DELETE_JOB, batch.jobs_done)
            if batch.owners:
                many(_INSERT_OWNER, batch.owners)
            execute("COMMIT")
        except apsw.Error as error:
            if not self._db.in_transaction:
                done(_store_error(error))
                return
            execute("ROLLBACK")
            done(_store_error(error))
            return
        if self._wal_pages > CHECKPOINT_EVERY_PAGES:
            self._checkpoint()
        done(None)

    def _on_wal(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint(self) -> None:
        if self._wal_pages > WAL_CAP_PAGES:
            # a reader may hold it back: then this changes nothing, and the next commit tries again
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        else:
            self._checkpointer.start()
        self._wal_pages = 0

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
            f"SELECT identity_id, {start}, sum(cost_nanos + adjustment_nanos) FROM charges"
            f" WHERE id >= ? AND {column} >= ? GROUP BY 1, 2"
        )
        return [(row[0], row[1], row[2]) for row in self._all(sql, (low, since))]

    def charge(self, charge_id: bytes) -> ChargeRow | None:
        """See `Store.charge`."""
        row = self._one(f"SELECT {_CHARGE_COLUMNS} FROM charges WHERE id = ?", (charge_id,))
        return ChargeRow(*row) if row else None

    def attempts(self, request_id: bytes) -> Sequence[ChargeRow]:
        """See `Store.attempts`. A first attempt's id is its request's id."""
        sql = (
            f"SELECT {_CHARGE_COLUMNS} FROM charges WHERE id = ?1 UNION ALL"
            f" SELECT {_CHARGE_COLUMNS} FROM charges WHERE request_id = ?1 AND attempt > 1"
        )
        return [ChargeRow(*row) for row in self._all(sql, (request_id,))]

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
        sql = "SELECT kind, name, max(version), body, at, actor FROM objects GROUP BY kind, name"
        return [ObjectRow(*row) for row in self._all(sql, ())]

    def put_object(self, kind: str, name: str, body: str, at: int, actor: str) -> int:
        """See `Store.put_object`."""
        sql = (
            "INSERT INTO objects SELECT ?1, ?2, coalesce(max(version), 0) + 1, ?3, ?4, ?5 FROM objects"
            " WHERE kind = ?1 AND name = ?2 RETURNING version"
        )
        row = self._one(sql, (kind, name, body, at, actor))
        return int(row[0]) if row else 0

    def put_objects(self, objects: Sequence[tuple[str, str, str]], at: int, actor: str) -> list[int]:
        """See `Store.put_objects`."""
        try:
            with self._db:
                found = [self.put_object(kind, name, body, at, actor) for kind, name, body in objects]
        except apsw.Error as error:
            raise _store_error(error) from error
        return found

    def close(self, now: int) -> None:
        """See `Store.close`."""
        self._checkpointer.join()
        try:
            self._db.execute("UPDATE epochs SET stopped_at = ? WHERE id = ?", (now, self._epoch))
        except apsw.Error as error:
            raise _store_error(error) from error
        finally:
            self._db.close()
            self._lock.close()

    def _one(self, sql: str, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        rows = self._all(sql, values)
        return rows[0] if rows else None

    def _all(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(sql, values).fetchall()
        except apsw.Error as error:
            raise _store_error(error) from error


class _Checkpointer:
    """Copies the WAL into the file on a connection and thread of its own; at most one at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="outlay-checkpoint", daemon=True)
            self._thread.start()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join(timeout=30)

    def _run(self) -> None:
        # the request path shares the core: it goes first
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        try:
            db = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READWRITE)
            try:
                db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            finally:
                db.close()
        except apsw.Error:
            # a checkpoint is only tidying: the next one, or the writer at the cap, does it
            return


def _open(path: Path, full: bool) -> apsw.Connection:
    # made here, so that nobody else may read who spends what
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db = apsw.Connection(str(path))
    db.pragma("journal_mode", "wal")
    db.pragma("synchronous", "full" if full else "normal")
    db.pragma("foreign_keys", False)
    db.pragma("temp_store", "memory")
    db.pragma("cache_size", -16_000)
    db.wal_autocheckpoint(0)
    db.set_busy_timeout(0)
    return db


def _lock_file(path: Path) -> "_Lock":
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _Lock(path.with_name(path.name + ".lock"))
    except BlockingIOError as error:
        raise StoreError(f"the ledger {path.name} is in use by another Outlay process") from error
    except OSError as error:
        raise StoreError(f"cannot lock the ledger {path.name}: {error.strerror}") from error


class _Lock:
    """An advisory lock that the kernel drops when the process dies, however it dies."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def boot_id() -> str:
    """Which boot of the machine this is; "unknown" where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return "unknown"


def _store_error(error: apsw.Error) -> StoreError:
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        return StoreBusy("another process holds the ledger's lock")
    return StoreError(f"the ledger's store failed: {type(error).__name__}")
