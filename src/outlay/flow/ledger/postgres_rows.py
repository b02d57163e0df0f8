"""A PostgreSQL ledger's rows to read: one read-only connection, opened again when it was lost.

No transaction stays open between reads, so that a reader does not hold up the database's housekeeping.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from outlay.flow.ledger.place import Database
from outlay.flow.ledger.postgres_link import connect, marked, unreachable
from outlay.flow.ledger.rows import NoLedger, Values
from outlay.kernel.errors import StoreError

READ_MS: Final = 30_000
"""Longest statement of a page or a command: sums over years of charges take a while, and nobody waits longer."""
PAUSE_MS: Final = 600_000
"""Longest pause inside `at_rest`: what reads in batches works on each of them."""
_TOO_LONG: Final = "57014"


class PostgresRows:
    """See `rows.Rows`. Raises NoLedger or StoreError if there is no ledger, or no way to it."""

    def __init__(self, place: Database, *, is_patient: bool = False) -> None:
        self._place = place
        self._statement_ms = 0 if is_patient else READ_MS
        self._depth = 0
        self._db: psycopg.Connection | None = None
        try:
            if not self.has("charges"):
                raise NoLedger(f"there is no ledger in {place} yet; `outlay up` makes it")
        except StoreError:
            self.close()
            raise

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Values]:
        """See `Rows.rows`."""
        try:
            return self._asked(sql, values).fetchall()
        except psycopg.Error as error:
            raise self._unread(error) from None

    def batches(self, sql: str, values: Sequence[Any], size: int) -> Iterator[list[Values]]:
        """See `Rows.batches`: a cursor on the server, so that memory does not grow with what is found."""
        try:
            with self._connected().cursor(name="outlay") as cursor:
                cursor.execute(marked(sql), _passed(values))
                while batch := cursor.fetchmany(size):
                    yield batch
        except psycopg.Error as error:
            raise self._unread(error) from None

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """See `Rows.at_rest`."""
        if not self._depth:
            try:
                self._asked("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", ())
            except psycopg.Error as error:
                raise self._unread(error) from None
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth and self._db is not None:
                # a connection that was lost meanwhile has nothing open
                with contextlib.suppress(psycopg.Error):
                    self._db.execute("ROLLBACK")

    def has(self, table: str) -> bool:
        """See `Rows.has`."""
        return self.rows("SELECT to_regclass(?) IS NOT NULL", (table,))[0][0] is True

    def mark(self) -> object:
        """See `Rows.mark`: when the ledger was begun."""
        return tuple(self.rows("SELECT started_at FROM epochs ORDER BY id LIMIT 1"))

    def member(self, column: str, name: str) -> str:
        """See `Rows.member`."""
        return f"({_json(column)} ->> '{name}')"

    def paired(self, column: str, name: str) -> str:
        """See `Rows.paired`."""
        pairs = f"json_array_elements({_json(column)} -> '{name}') AS pair (value)"
        return f"(SELECT pair.value ->> 1 FROM {pairs} WHERE pair.value ->> 0 = ? LIMIT 1)"

    def listed(self, columns: Sequence[str]) -> str:
        """See `Rows.listed`."""
        return f"CAST(json_build_array({','.join(columns)}) AS text)"

    def close(self) -> None:
        """See `Rows.close`."""
        if self._db is not None:
            with contextlib.suppress(psycopg.Error):
                self._db.close()
            self._db = None

    def _asked(self, sql: str, values: Sequence[Any]) -> psycopg.Cursor[Values]:
        """Ask; once more on a new connection if the one that was kept turns out to be lost, and no moment is held."""
        is_kept = self._db is not None
        try:
            return self._connected().execute(marked(sql), _passed(values))
        except psycopg.OperationalError:
            if not is_kept or self._depth or not self._is_lost():
                raise
        return self._connected().execute(marked(sql), _passed(values))

    def _connected(self) -> psycopg.Connection:
        if self._depth and (self._db is None or self._is_lost()):
            raise StoreError("the connection to the ledger's database was lost in the middle of a reading")
        if self._db is None or self._is_lost():
            self.close()
            settings = (
                f"-c statement_timeout={self._statement_ms} -c default_transaction_read_only=on"
                f" -c idle_in_transaction_session_timeout={PAUSE_MS}"
            )
            try:
                self._db = connect(self._place.url, settings)
            except psycopg.Error as error:
                raise unreachable(error, self._place) from None
            # statements with numbers in them are never the same, and a pooler in between need not keep any
            self._db.prepare_threshold = None
        return self._db

    def _is_lost(self) -> bool:
        return self._db is not None and (self._db.closed or self._db.broken)

    def _unread(self, error: psycopg.Error) -> StoreError:
        if error.sqlstate == _TOO_LONG:
            return StoreError(f"the ledger could not be read within {self._statement_ms // 1000} s")
        state = f" ({error.sqlstate})" if error.sqlstate else ""
        return StoreError(f"the ledger could not be read: {type(error).__name__}{state}")


def _json(column: str) -> str:
    # a zero character is legal JSON, but no text of PostgreSQL's; a caller's must not make all others unreadable
    return f"CAST(replace({column}, '\\u0000', '\\u0001') AS json)"


def _passed(values: Sequence[Any]) -> Values:
    return tuple(value.replace("\0", "\1") if isinstance(value, str) else value for value in values)
