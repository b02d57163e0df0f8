"""Connections to a PostgreSQL ledger, and what both its writer and its readers say on them.

Needs psycopg (the extra `postgres`). No error made here holds any part of the address but what `Database` shows.
"""

from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from outlay.flow.ledger.place import Database
from outlay.flow.ledger.port import StoreBusy, StoreFenced, StoreUnreachable
from outlay.kernel.errors import StoreError

Values = tuple[Any, ...]
CONNECT_S: Final = 2
STATEMENT_MS: Final = 5_000
"""A statement that takes longer is given up: the store counts as down."""
GIVEN_UP: Final = frozenset(("40001", "40P01", "55P03"))
"""Serialization failure, deadlock, lock not available: nothing was written, the same may be tried again."""
_PASSING: Final = ("57", "08", "53", "25006", "3D000")
"""The server stops, starts, is full, a standby of its own (read only), or slow; the database is not there yet."""
_FENCED: Final = "22012"
"""Division by zero: how the writer's row says that it is another's."""


def connect(url: str, settings: str) -> psycopg.Connection:
    """An autocommitting connection on which nothing waits for ever, also not for a peer that is gone.

    `settings` as in `options` (`-c name=value`). Raises psycopg.Error; StoreError if the address is none.
    """
    try:
        stated = conninfo_to_dict(url).get("options") or ""
    except psycopg.ProgrammingError:
        # what it says quotes the address
        raise StoreError("the ledger's postgresql:// address cannot be read") from None
    return psycopg.connect(
        url,
        autocommit=True,
        connect_timeout=CONNECT_S,
        options=f"{stated} -c lock_timeout={STATEMENT_MS} {settings}",
        application_name="outlay",
        keepalives_idle=5,
        keepalives_interval=1,
        keepalives_count=3,
        tcp_user_timeout=STATEMENT_MS,
    )


def marked(sql: str) -> str:
    """`?` as psycopg spells it. All statements are this package's own."""
    return sql.replace("%", "%%").replace("?", "%s")


def run(db: psycopg.Connection, sql: str, values: Values = ()) -> None:
    """A statement that finds nothing."""
    db.execute(marked(sql) if values else sql, values or None)


def fetch(db: psycopg.Connection, sql: str, values: Sequence[Any] = ()) -> list[Values]:
    """All rows that a statement finds."""
    return db.execute(marked(sql) if values else sql, values or None).fetchall()


def fenced() -> StoreFenced:
    """Another process owns the ledger."""
    return StoreFenced("another Outlay process has taken the ledger over; this one must end")


def store_error(error: psycopg.Error) -> StoreError:
    """What the books are told."""
    if error.sqlstate == _FENCED:
        return fenced()
    if error.sqlstate in GIVEN_UP:
        return StoreBusy("the ledger's database gave the transaction up for another's sake")
    if (error.sqlstate or "").startswith(_PASSING) or (
        error.sqlstate is None and isinstance(error, psycopg.OperationalError)
    ):
        return StoreUnreachable(f"the ledger's database is gone: {type(error).__name__}")
    state = f" ({error.sqlstate})" if error.sqlstate else ""
    return StoreError(f"the ledger's database failed: {type(error).__name__}{state}")


def unreachable(error: psycopg.Error, place: Database) -> StoreError:
    """Why there is no connection. The driver's own words may quote the address, so they are looked at, not told."""
    said = str(error)
    if "password authentication failed" in said or "no password supplied" in said:
        return StoreError(f"the ledger's database {place} refuses this user's password")
    if "does not exist" in said:
        return StoreError(f"the ledger's database {place}: there is no such database or user")
    return StoreUnreachable(f"the ledger's database {place} cannot be reached")
