"""A PostgreSQL server of a simulation: the product's own store writes to it, over a connection that may be lost.

It speaks as much of psycopg's interface as `PostgresStore` uses, and keeps rows in SQLite in memory. Faults by the
world's dice: refused connections, transactions given up for another's sake, a COMMIT that is lost before or after it
was done, a restart.
"""

import contextlib
import hashlib
import random
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from tests.sim.loop import SimLoop

_SILENT_MS = "CAST(EXTRACT(EPOCH FROM CURRENT_TIMESTAMP - renewed_at) * 1000 AS BIGINT)"


class Database:
    """See the module."""

    def __init__(self, loop: SimLoop, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self.rows = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.rows.create_function("md5", 1, _md5, deterministic=True)
        self.down_until = 0.0
        self.p_given_up = self.p_lost_before = self.p_lost_after = 0.0
        self.commits = 0
        self.lost_replies = 0
        self._connections: list[Connection] = []

    def connect(self) -> "Connection":
        """Raises psycopg.OperationalError while it is down."""
        self.see_up()
        connection = Connection(self)
        self._connections.append(connection)
        return connection

    def see_up(self) -> None:
        """Raises psycopg.OperationalError while it is down."""
        if self.loop.time() < self.down_until:
            raise psycopg.OperationalError("the server is not there")

    def stop(self, seconds: float) -> None:
        """It is gone for so long; every connection is lost."""
        self.down_until = self.loop.time() + seconds
        for connection in self._connections:
            connection.closed = connection.broken = True
        self._connections.clear()


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


class Connection:
    """A connection as psycopg has it, as far as the store uses it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.closed = self.broken = False

    def execute(self, sql: str, values: Sequence[Any] | None = None) -> Any:
        """Run one statement."""
        self._see_open()
        milliseconds = round(self._database.loop.time() * 1000)
        sql = sql.replace(_SILENT_MS, f"{milliseconds} - renewed_at").replace(" FOR UPDATE", "")
        sql = sql.replace("CURRENT_TIMESTAMP", str(milliseconds))
        if values:
            sql = sql.replace("%s", "?").replace("%%", "%")
        try:
            return self._database.rows.execute(sql, values or ())
        except sqlite3.IntegrityError as error:
            if "writer.batch" in str(error):
                # x / 0 is NULL here, and the column takes none
                raise psycopg.errors.DivisionByZero("division by zero") from error
            raise psycopg.errors.UniqueViolation(str(error)) from error

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]], *, returning: bool = False) -> None:
        """Run one statement for each of the rows."""
        assert not returning
        for values in rows:
            self.execute(sql, values)

    def cursor(self) -> Any:
        """The connection itself will do."""
        return contextlib.nullcontext(self)

    def pipeline(self) -> Any:
        """Statements wait for nothing here anyway."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; its COMMIT may be lost."""
        self._see_open()
        database = self._database
        rng = database.rng
        database.rows.execute("BEGIN")
        try:
            yield
            if rng.random() < database.p_given_up:
                raise psycopg.errors.SerializationFailure("given up")
            if rng.random() < database.p_lost_before:
                self._lose("the connection was lost before COMMIT")
        except BaseException:
            database.rows.execute("ROLLBACK")
            raise
        database.rows.execute("COMMIT")
        database.commits += 1
        if rng.random() < database.p_lost_after:
            database.lost_replies += 1
            self._lose("the connection was lost after COMMIT")

    def close(self) -> None:
        """Close it."""
        self.closed = True

    def _lose(self, why: str) -> None:
        self.closed = self.broken = True
        raise psycopg.OperationalError(why)

    def _see_open(self) -> None:
        if self.closed:
            raise psycopg.OperationalError("the connection is closed")
        try:
            self._database.see_up()
        except psycopg.OperationalError:
            self.closed = self.broken = True
            raise
