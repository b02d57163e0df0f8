"""Rows of a ledger to read, wherever it is: one small protocol over SQLite and PostgreSQL. Writes nothing.

Statements are plain SQL with `?` for values, which both take; the few expressions that differ (members of JSON) are
the protocol's. Numbers of our own stand in the text (`among`), and sums are cast (`total`), since PostgreSQL's are no
integers. Text is compared and put in order here, not by a database's collation.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, Final, Protocol

import apsw

from outlay.flow.ledger.place import Database, LedgerPlace, name_of, needs_driver
from outlay.flow.ledger.sqlite import APPLICATION_ID
from outlay.kernel.errors import StoreError

Values = tuple[Any, ...]
BUSY_MS: Final = 2_000
"""How long a read waits for SQLite's lock: only a checkpoint that starts the log anew takes it."""
AT_ONCE: Final = 5_000
"""Numbers or names in one statement."""
KEPT: Final = 4
"""Connections to a database that a shelf keeps for the next readers."""


_UNFINISHED: Final = "SELECT count(*) = 0 OR sum(name = 'epochs') > 0 FROM sqlite_master"


class NoLedger(StoreError):
    """There is none at that place yet."""


class Rows(Protocol):
    """A ledger's rows, for one thread at a time. Every method raises StoreError if it cannot be read."""

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Values]:
        """All that a statement finds."""

    def batches(self, sql: str, values: Sequence[Any], size: int) -> Iterator[list[Values]]:
        """What a statement finds, so many rows at once, however many there are. Only while `at_rest`."""

    def at_rest(self) -> AbstractContextManager[None]:
        """Everything read inside is of one moment; the gateway writes on meanwhile. May be nested."""

    def has(self, table: str) -> bool:
        """Whether there is such a table: a ledger that nobody has opened since an upgrade lacks the newest."""

    def mark(self) -> object:
        """Another one than before: another ledger has taken this one's place."""

    def member(self, column: str, name: str) -> str:
        """SQL for the text of a member of the JSON object in a column; NULL without it."""

    def paired(self, column: str, name: str) -> str:
        """SQL for the text that stands beside `?` in a member that is a list of pairs; NULL without it."""

    def listed(self, columns: Sequence[str]) -> str:
        """SQL for the JSON list of what columns hold, as text."""

    def close(self) -> None:
        """Let go of the file or the connection."""


def open_rows(place: LedgerPlace, *, is_patient: bool = False) -> Rows:
    """The rows of the ledger at a place. `is_patient`: a database may work on a statement for as long as it takes.

    Raises NoLedger; StoreError if it cannot be opened, is none, or psycopg is missing.
    """
    if not isinstance(place, Database):
        return SqliteRows(place)
    try:
        from outlay.flow.ledger.postgres_rows import PostgresRows
    except ImportError as error:
        raise needs_driver(place) from error
    return PostgresRows(place, is_patient=is_patient)


def is_there(place: LedgerPlace) -> bool:
    """Whether there is a ledger. Raises StoreError if a database cannot be asked."""
    if not isinstance(place, Database):
        return place.exists()
    try:
        open_rows(place).close()
    except NoLedger:
        return False
    return True


def total(expression: str) -> str:
    """SQL for a sum as an integer; 0 over nothing."""
    return f"CAST(coalesce(sum({expression}), 0) AS BIGINT)"


def among(column: str, numbers: Iterable[int]) -> str:
    """SQL for `column` being one of these numbers."""
    listed = ",".join(str(int(number)) for number in numbers)
    return f"{column} IN ({listed})" if listed else "1 = 0"


class Shelf:
    """Lends the rows of one place to many threads: a file is opened each time, a database's connections are kept."""

    def __init__(self, place: LedgerPlace) -> None:
        self.place = place
        self._lock = Lock()
        self._idle: list[Rows] = []

    @contextmanager
    def lent(self) -> Iterator[Rows]:
        """Rows for one thread. Raises as `open_rows`."""
        rows = self._taken()
        try:
            yield rows
        finally:
            self._put_back(rows)

    def close(self) -> None:
        """Let go of what is kept."""
        with self._lock:
            idle, self._idle = self._idle, []
        for rows in idle:
            rows.close()

    def _taken(self) -> Rows:
        with self._lock:
            rows = self._idle.pop() if self._idle else None
        if rows is None:
            return open_rows(self.place)
        try:
            # whoever borrows rows may rely on it that the ledger could be read a moment ago
            rows.mark()
        except StoreError:
            rows.close()
            raise
        return rows

    def _put_back(self, rows: Rows) -> None:
        with self._lock:
            if isinstance(self.place, Database) and len(self._idle) < KEPT:
                self._idle.append(rows)
                return
        rows.close()


class SqliteRows:
    """See `Rows`. Readers of a WAL hold up nobody, and nobody holds them up."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise NoLedger(f"there is no ledger at {name_of(path)} yet; `outlay up` makes it")
        try:
            self._db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
            self._db.set_busy_timeout(BUSY_MS)
            application: Any = self._db.pragma("application_id")
            # its maker marks the file as the last thing
            is_new = application == 0 and self._db.execute(_UNFINISHED).fetchone() == (1,)
            found = path.stat()
        except (apsw.Error, OSError) as error:
            raise StoreError(f"cannot read the ledger {path.name}: {type(error).__name__}") from error
        if application != APPLICATION_ID:
            self._db.close()
            if is_new:
                raise NoLedger(f"the ledger {path.name} is being made")
            raise StoreError(f"{path.name} is not an Outlay ledger")
        self._mark = (found.st_dev, found.st_ino)
        self._depth = 0

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Values]:
        """See `Rows.rows`."""
        try:
            return self._db.execute(sql, tuple(values)).fetchall()
        except apsw.Error as error:
            raise _unread(error) from error

    def batches(self, sql: str, values: Sequence[Any], size: int) -> Iterator[list[Values]]:
        """See `Rows.batches`."""
        try:
            found = self._db.execute(sql, tuple(values))
            while batch := list(islice(found, size)):
                yield batch
        except apsw.Error as error:
            raise _unread(error) from error

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """See `Rows.at_rest`."""
        if not self._depth:
            self.rows("BEGIN")
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self.rows("ROLLBACK")

    def has(self, table: str) -> bool:
        """See `Rows.has`."""
        return bool(self.rows("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)))

    def mark(self) -> object:
        """See `Rows.mark`: the file's, as it was opened."""
        return self._mark

    def member(self, column: str, name: str) -> str:
        """See `Rows.member`."""
        return f"({column} ->> '$.{name}')"

    def paired(self, column: str, name: str) -> str:
        """See `Rows.paired`."""
        pairs = f"json_each({column}, '$.{name}') AS pair"
        return f"(SELECT pair.value ->> 1 FROM {pairs} WHERE pair.value ->> 0 = ? LIMIT 1)"

    def listed(self, columns: Sequence[str]) -> str:
        """See `Rows.listed`."""
        return f"json_array({','.join(columns)})"

    def close(self) -> None:
        """See `Rows.close`."""
        self._db.close()


def _unread(error: apsw.Error) -> StoreError:
    return StoreError(f"the ledger could not be read: {type(error).__name__}: {error}")
