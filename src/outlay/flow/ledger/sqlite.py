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

from outlay.flow.ledger.liveness import boot_id
from outlay.flow.ledger.port import (
    SCHEMA_VERSION,
    Batch,
    Done,
    HoldRow,
    JobRow,
    LimitRow,
    Loaded,
    StoreBusy,
)
from outlay.flow.ledger.statements import (
    BUCKETS_KEPT_NS,
    HIGHEST_SEQ,
    OLD_BUCKETS,
    WRITES,
    SqlLookups,
    Values,
    writable,
)
from outlay.kernel.errors import StoreError

APPLICATION_ID = 0x4F55544C
MIN_SQLITE = (3, 51, 3)
CHECKPOINT_EVERY_PAGES = 16_000
"""64 MB of WAL start a background checkpoint: a page written many times is copied once, so rarely is cheaper."""
WAL_CAP_PAGES = 64_000
"""256 MB of WAL: the writer itself finishes the checkpoint, so that a busy hour cannot fill the disk."""


class SqliteStore(SqlLookups):
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
            clean = last is None or last[1] is not None
            crashed = last is not None and not clean and last[2] != boot and not last[3]
            with self._db:
                # until somebody accepts a crash, whoever opens the ledger next finds it as well
                self._db.execute(
                    "INSERT INTO epochs (started_at, boot_id, pid, is_full) VALUES (?,?,?,?)",
                    (
                        now,
                        last[2] if last is not None and crashed else boot,
                        os.getpid(),
                        int(self._full and not crashed),
                    ),
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
            with self._db:
                execute(OLD_BUCKETS, (now - BUCKETS_KEPT_NS,))
        except apsw.Error as error:
            raise _store_error(error) from error
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
            try:
                for name, statement in WRITES:
                    rows = getattr(batch, name)
                    if rows:
                        many(statement, rows)
            except UnicodeError:
                # one text that has no bytes must not keep all the others from being written
                execute("ROLLBACK")
                execute("BEGIN IMMEDIATE")
                for name, statement in WRITES:
                    many(statement, writable(getattr(batch, name)))
            execute("COMMIT")
        except (apsw.Error, OverflowError) as error:
            if self._db.in_transaction:
                execute("ROLLBACK")
            done(_store_error(error) if isinstance(error, apsw.Error) else _too_large())
            return
        if self._wal_pages > CHECKPOINT_EVERY_PAGES:
            self._checkpoint()
        done(None)

    def settle(self) -> None:
        """See `Store.settle`: nothing is ever on its way."""

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

    def accept_crash(self) -> None:
        """See `Store.accept_crash`."""
        try:
            sql = "UPDATE epochs SET boot_id = ?, is_full = ? WHERE id = ?"
            self._db.execute(sql, (boot_id(), int(self._full), self._epoch))
        except apsw.Error as error:
            raise _store_error(error) from error

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
            sql = "UPDATE epochs SET stopped_at = ? WHERE id = ? AND boot_id = ?"
            self._db.execute(sql, (now, self._epoch, boot_id()))
        except apsw.Error as error:
            raise _store_error(error) from error
        finally:
            self._db.close()
            self._lock.close()

    def abandon(self) -> None:
        """See `Store.abandon`."""
        self._checkpointer.join()
        self._db.close()
        self._lock.close()

    def _all(self, sql: str, values: Values) -> list[Values]:
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


def _store_error(error: apsw.Error) -> StoreError:
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        return StoreBusy("another process holds the ledger's lock")
    return StoreError(f"the ledger's store failed: {type(error).__name__}")


def _too_large() -> StoreError:
    return StoreError("an amount is larger than the ledger has room for")
