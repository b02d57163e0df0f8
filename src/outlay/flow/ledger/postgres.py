"""The PostgreSQL store: one writing process at a time, fenced by a row; one transaction per batch.

Plain SQL (any PostgreSQL-compatible database takes it). The row of `writer` names the epoch that may write and the
last batch that it wrote: every transaction moves it on by one and fails if another epoch has taken over, so that a
process that lost its place changes nothing, and a lost reply to COMMIT is not a doubt: the row says whether the batch
is there. Who takes over waits until the last owner has not renewed for `LEASE_S`, or is proven dead (same boot of the
same machine, no such process).

With `post` batches are written in a thread of the store's own, and `done` is called through it; without, at once.
"""

import contextlib
import importlib.resources
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import psycopg

from outlay.flow.ledger.liveness import boot_id, is_proven_dead, this_process
from outlay.flow.ledger.place import Database
from outlay.flow.ledger.port import (
    SCHEMA_VERSION,
    AccountRow,
    Batch,
    Done,
    HoldRow,
    JobRow,
    LimitRow,
    Loaded,
    StoreInUse,
)
from outlay.flow.ledger.postgres_link import (
    GIVEN_UP,
    STATEMENT_MS,
    connect,
    fenced,
    fetch,
    marked,
    run,
    store_error,
    unreachable,
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
from outlay.kernel.errors import AccountingBroken, StoreError

LEASE_S: Final = 5.0
"""A silent owner keeps its place so long, on the database's clock."""
RENEW_S: Final = 1.0
RETRIES: Final = 5
"""Of a transaction that the database gave up for another's sake."""
DOUBT_S: Final = 2.0
"""How long a lost connection is asked again before the batch counts as not written; the next one asks again."""
_WRITER_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS writer (id BIGINT PRIMARY KEY, schema_version BIGINT NOT NULL, epoch BIGINT NOT NULL,"
    " batch BIGINT NOT NULL, renewed_at TIMESTAMPTZ NOT NULL, is_stopped BIGINT NOT NULL, holder TEXT NOT NULL)"
)
_ACCOUNTS_NAMED: Final = (
    "CREATE UNIQUE INDEX IF NOT EXISTS accounts_named ON accounts (budget, md5(scope), window_start)"
)
_MOVE_ON: Final = (
    "UPDATE writer SET batch = ? / (CASE WHEN epoch = ? AND batch = ? THEN 1 ELSE 0 END),"
    " renewed_at = CURRENT_TIMESTAMP WHERE id = 1"
)
_RENEW: Final = "UPDATE writer SET renewed_at = CURRENT_TIMESTAMP WHERE id = 1 AND epoch = ?"


class PostgresStore(SqlLookups):
    """See the module and `port.Store`. `url` is a PostgreSQL connection string; it is never part of an error."""

    def __init__(
        self,
        url: str,
        *,
        post: Callable[[Callable[[], object]], object] | None = None,
        lease_s: float = LEASE_S,
    ) -> None:
        self._url = url
        self._lease_s = lease_s
        self._epoch = self._number = 0
        self._doubtful: Batch | None = None
        """Handed over as batch `_number`; whether it was written could not be asked yet."""
        self._reads = self._connected()
        self._writes: psycopg.Connection | None = None
        try:
            _prepare_schema(self._reads)
        except psycopg.Error as error:
            self._reads.close()
            raise store_error(error) from error
        except StoreError:
            self._reads.close()
            raise
        self._writer = None if post is None else _Writer(self._write, self._renew, post)

    def load(self, now: int) -> Loaded:
        """See `Store.load`. Raises StoreInUse while another process owns the ledger; it may be asked again."""
        db = self._reading()
        try:
            with db.transaction():
                self._take_over(db)
                last = fetch(db, "SELECT stopped_at FROM epochs ORDER BY id DESC LIMIT 1")
                run(
                    db,
                    "INSERT INTO epochs VALUES (?, ?, NULL, ?, ?, 1)",
                    (self._epoch, now, boot_id(), os.getpid()),
                )
                run(db, OLD_BUCKETS, (now - BUCKETS_KEPT_NS,))
            with db.transaction():
                found = Loaded(
                    max_interned=dict(fetch(db, "SELECT kind, max(id) FROM interned GROUP BY kind")),
                    limits={row[1]: LimitRow(*row) for row in fetch(db, "SELECT * FROM limits ORDER BY seq")},
                    max_account_id=fetch(db, "SELECT coalesce(max(id), 0) FROM accounts")[0][0],
                    open_holds=[HoldRow(*row) for row in fetch(db, "SELECT * FROM holds ORDER BY seq")],
                    last_seq=fetch(db, HIGHEST_SEQ)[0][0],
                    epoch=self._epoch,
                    was_clean=not last or last[0][0] is not None,
                    jobs=[JobRow(*row) for row in fetch(db, "SELECT * FROM jobs ORDER BY at")],
                    host_crashed=False,
                )
        except psycopg.Error as error:
            self._reads.close()
            raise store_error(error) from error
        if self._writer is not None:
            self._writer.start()
        return found

    def _take_over(self, db: psycopg.Connection) -> None:
        """Make this process the writer: whoever was it is fenced from here on."""
        row = fetch(
            db,
            "SELECT epoch, is_stopped, holder,"
            " CAST(EXTRACT(EPOCH FROM CURRENT_TIMESTAMP - renewed_at) * 1000 AS BIGINT)"
            " FROM writer WHERE id = 1 FOR UPDATE",
        )[0]
        epoch, is_stopped, holder, silent_ms = row
        if not is_stopped and silent_ms < self._lease_s * 1000 and not is_proven_dead(holder):
            raise StoreInUse(
                "the ledger is in use by another Outlay process, which renewed its lease"
                f" {max(0, silent_ms)} ms ago; a gateway takes it over {LEASE_S:.0f} s after it stops"
            )
        self._epoch, self._number = epoch + 1, 0
        run(
            db,
            "UPDATE writer SET epoch = ?, batch = 0, renewed_at = CURRENT_TIMESTAMP, is_stopped = 0, holder = ?"
            " WHERE id = 1",
            (self._epoch, this_process()),
        )

    def submit(self, batch: Batch, done: Done) -> None:
        """See `Store.submit`."""
        if self._writer is None:
            done(self._write(batch))
        else:
            self._writer.put(batch, done)

    def settle(self) -> None:
        """See `Store.settle`."""
        if self._writer is not None:
            self._writer.settle()

    def _write(self, batch: Batch) -> StoreError | None:
        """Write it; the error if nothing of it is there (or nobody can say, until the next one is written)."""
        try:
            self._settle_doubt(batch)
        except psycopg.Error as error:
            return store_error(error)
        except StoreError as error:
            return error
        problem: StoreError | None = None
        is_plain = True
        for attempt in range(RETRIES):
            try:
                self._write_once(batch, is_plain)
            except (psycopg.Error, UnicodeError) as error:
                if is_plain and (isinstance(error, UnicodeError) or _is_unwritable(error)):
                    # one text that PostgreSQL has no place for must not keep all the others from being written
                    is_plain = False
                    continue
                if isinstance(error, UnicodeError):
                    raise
                problem = store_error(error)
                if error.sqlstate in GIVEN_UP:
                    time.sleep(0.002 * (attempt + 1))
                    continue
                if error.sqlstate is None or self._is_lost():
                    return self._ask_again(batch, problem)
            else:
                self._number += 1
                return None
            return problem
        return problem

    def _write_once(self, batch: Batch, is_plain: bool) -> None:
        db = self._writing()
        with db.pipeline(), db.transaction(), db.cursor() as cursor:
            cursor.execute(marked(_MOVE_ON), (self._number + 1, self._epoch, self._number))
            for name, statement in WRITES:
                rows = getattr(batch, name)
                if rows and not is_plain:
                    rows = writable(rows)
                if rows:
                    cursor.executemany(marked(statement), rows, returning=False)

    def _ask_again(self, batch: Batch, problem: StoreError) -> StoreError | None:
        """The connection was lost while it was written: the writer's row knows."""
        self._doubtful = batch
        until = time.monotonic() + DOUBT_S
        while True:
            try:
                was_written = self._is_written()
            except psycopg.Error:
                if time.monotonic() > until:
                    return problem
                time.sleep(0.05)
            except StoreError as error:
                return error
            else:
                self._doubtful = None
                return None if was_written else problem

    def _settle_doubt(self, batch: Batch) -> None:
        """What the last batch had is not written twice, if it was written after all."""
        doubtful = self._doubtful
        if doubtful is None:
            return
        if self._is_written():
            for name, _ in WRITES:
                # the books hand the rows of a failed batch over again, as the same objects
                written = {id(row) for row in getattr(doubtful, name)}
                if written and name not in ("balances", "buckets", "grown"):
                    setattr(batch, name, [row for row in getattr(batch, name) if id(row) not in written])
        self._doubtful = None

    def _is_written(self) -> bool:
        """Whether the batch after `_number` is there. Raises StoreFenced, or psycopg.Error if it cannot be asked."""
        self._drop_writes()
        epoch, number = fetch(self._writing(), "SELECT epoch, batch FROM writer WHERE id = 1")[0]
        if epoch != self._epoch:
            raise fenced()
        if number == self._number + 1:
            self._number = number
            return True
        return False

    def _renew(self) -> bool:
        """Tell that this process is alive; its failures are the next batch's to find out. False: it was fenced."""
        with contextlib.suppress(psycopg.Error):
            return self._writing().execute(marked(_RENEW), (self._epoch,)).rowcount != 0
        return True

    def put_object(self, kind: str, name: str, body: str, at: int, actor: str) -> int:
        """See `Store.put_object`."""
        return self.put_objects([(kind, name, body)], at, actor)[0]

    def put_objects(self, objects: Sequence[tuple[str, str, str]], at: int, actor: str) -> list[int]:
        """See `Store.put_objects`."""
        found = []
        db = self._reading()
        try:
            with db.transaction():
                # nobody else puts objects meanwhile, and a fenced process puts none
                row = fetch(db, "SELECT epoch FROM writer WHERE id = 1 FOR UPDATE")[0]
                if self._epoch and row[0] != self._epoch:
                    raise fenced()
                for kind, name, body in objects:
                    sql = "SELECT coalesce(max(version), 0) + 1 FROM objects WHERE kind = ? AND name = ?"
                    version = fetch(db, sql, (kind, name))[0][0]
                    run(
                        db, "INSERT INTO objects VALUES (?,?,?,?,?,?)", (kind, name, version, body, at, actor)
                    )
                    found.append(version)
        except psycopg.Error as error:
            raise store_error(error) from error
        return found

    def accept_crash(self) -> None:
        """See `Store.accept_crash`: the server looks after its own."""

    def close(self, now: int) -> None:
        """See `Store.close`."""
        if self._writer is not None:
            self._writer.stop()
        try:
            db = self._reading()
            with db.transaction():
                run(db, "UPDATE epochs SET stopped_at = ? WHERE id = ?", (now, self._epoch))
                run(db, "UPDATE writer SET is_stopped = 1 WHERE id = 1 AND epoch = ?", (self._epoch,))
        except psycopg.Error as error:
            raise store_error(error) from error
        finally:
            self.abandon()

    def find_interned(self, kind: str, body: str) -> int | None:
        """See `Store.find_interned`: through the index of hashes."""
        sql = "SELECT id FROM interned WHERE kind = ? AND md5(body) = md5(CAST(? AS TEXT)) AND body = ?"
        row = self._one(sql, (kind, body, body))
        return row[0] if row else None

    def find_account(self, budget: str, scope: str, window_start: int) -> AccountRow | None:
        """See `Store.find_account`: through the index of hashes."""
        sql = (
            "SELECT * FROM accounts WHERE budget = ? AND md5(scope) = md5(CAST(? AS TEXT)) AND scope = ?"
            " AND window_start = ?"
        )
        row = self._one(sql, (budget, scope, scope, window_start))
        return AccountRow(*row) if row else None

    def abandon(self) -> None:
        """See `Store.abandon`."""
        if self._writer is not None:
            self._writer.stop()
        self._drop_writes()
        self._reads.close()

    def _all(self, sql: str, values: Values) -> list[Values]:
        try:
            return fetch(self._reading(), sql, values)
        except psycopg.OperationalError:
            # a connection may have died while nobody looked: a read can be asked again
            self._reads.close()
        except psycopg.Error as error:
            raise store_error(error) from error
        try:
            return fetch(self._reading(), sql, values)
        except psycopg.Error as error:
            raise store_error(error) from error

    def _reading(self) -> psycopg.Connection:
        if self._reads.closed:
            self._reads = self._connected()
        return self._reads

    def _writing(self) -> psycopg.Connection:
        if self._writes is None or self._writes.closed:
            self._writes = _connect(self._url)
        return self._writes

    def _is_lost(self) -> bool:
        return self._writes is None or self._writes.closed or self._writes.broken

    def _drop_writes(self) -> None:
        if self._writes is not None:
            with contextlib.suppress(psycopg.Error):
                self._writes.close()
            self._writes = None

    def _connected(self) -> psycopg.Connection:
        try:
            return _connect(self._url)
        except psycopg.Error as error:
            raise unreachable(error, Database(self._url)) from None


class _Writer:
    """The thread that writes: one batch at a time, and a sign of life when there is none."""

    def __init__(
        self,
        write: Callable[[Batch], StoreError | None],
        renew: Callable[[], bool],
        post: Callable[[Callable[[], object]], object],
    ) -> None:
        self._write, self._renew, self._post = write, renew, post
        self._queue: queue.SimpleQueue[tuple[Batch, Done] | None] = queue.SimpleQueue()
        self._written: queue.SimpleQueue[tuple[Done, StoreError | None]] = queue.SimpleQueue()
        self._under_way = 0
        """Batches whose `done` was not called yet; the books' thread counts."""
        self._thread = threading.Thread(target=self._work, name="outlay-postgres", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, batch: Batch, done: Done) -> None:
        self._under_way += 1
        self._queue.put((batch, done))

    def settle(self) -> None:
        """In the books' thread: wait for the next batch and tell."""
        if self._under_way:
            self._tell(*self._written.get())

    def stop(self) -> None:
        """After what was put is written. What nobody was told of by then is told to nobody."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(timeout=30)

    def _work(self) -> None:
        while True:
            try:
                item = self._queue.get(timeout=RENEW_S)
            except queue.Empty:
                if not self._renew():
                    self._post(end_fenced)
                    return
                continue
            if item is None:
                return
            batch, done = item
            try:
                problem = self._write(batch)
            except Exception as error:  # noqa: BLE001 - without an answer every call waits for ever
                problem = StoreError(f"the ledger's batch could not be written: {type(error).__name__}")
            self._written.put((done, problem))
            self._post(self._tell_one)

    def _tell_one(self) -> None:
        # `settle` may have been faster
        with contextlib.suppress(queue.Empty):
            self._tell(*self._written.get_nowait())

    def _tell(self, done: Done, error: StoreError | None) -> None:
        self._under_way -= 1
        done(error)


def _connect(url: str) -> psycopg.Connection:
    """No statement may take longer than a request could wait for."""
    return connect(
        url,
        f"-c synchronous_commit=on -c statement_timeout={STATEMENT_MS}"
        f" -c idle_in_transaction_session_timeout={STATEMENT_MS}",
    )


def _prepare_schema(db: psycopg.Connection) -> None:
    """Make the tables: those of schema.sql in this database's spelling, and the writer's."""
    text = importlib.resources.files("outlay.flow.ledger").joinpath("schema.sql").read_text("utf-8")
    for attempt in range(RETRIES):
        try:
            with db.transaction():
                for statement in (_WRITER_TABLE, *spelled(text), _ACCOUNTS_NAMED):
                    run(db, statement)
                run(
                    db,
                    "INSERT INTO writer VALUES (1, ?, 0, 0, CURRENT_TIMESTAMP, 1, '') ON CONFLICT (id) DO NOTHING",
                    (SCHEMA_VERSION,),
                )
                version = fetch(db, "SELECT schema_version FROM writer WHERE id = 1")[0][0]
        except (psycopg.errors.UniqueViolation, psycopg.errors.DuplicateTable):
            # another process made them in the same moment
            if attempt == RETRIES - 1:
                raise
        else:
            break
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"the ledger was written by a newer Outlay (schema {version}, this one knows {SCHEMA_VERSION})"
        )


def spelled(schema: str) -> list[str]:
    """The statements of schema.sql as PostgreSQL spells them."""
    text = re.sub(r"--[^\n]*", "", schema)
    text = re.sub(r"\)\s*STRICT(, WITHOUT ROWID)?", ")", text)
    text = text.replace(" INTEGER", " BIGINT").replace(" BLOB", " BYTEA")
    # a row of an index takes 2,700 bytes, and texts here come from clients and providers
    text = text.replace("interned (kind, body)", "interned (kind, md5(body))")
    text = text.replace(", UNIQUE (budget, scope, window_start)", "")
    return [statement.strip() for statement in text.split(";") if statement.strip()]


def _is_unwritable(error: psycopg.Error) -> bool:
    """Whether the driver itself refused a value: a NUL in a text."""
    return isinstance(error, psycopg.DataError) and error.sqlstate is None


def end_fenced() -> None:
    """In the books' thread: streams may still run here though another process has booked what they hold."""
    raise AccountingBroken(str(fenced()))
