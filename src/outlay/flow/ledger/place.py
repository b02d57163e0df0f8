"""Where a ledger is: a SQLite file, or a PostgreSQL database. Opens nothing.

What is said of a database (`str`, `repr`, errors made from them) holds no password: only `url` does.
"""

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from outlay.kernel.errors import StoreError

SCHEMES: Final = ("postgresql://", "postgres://")
_UNCLEAR: Final = "..."


class Database:
    """A PostgreSQL database that holds a ledger. `url` is for the driver alone."""

    __slots__ = ("url",)

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def is_readable(self) -> bool:
        """Whether it is clear which part is which: a password that is not escaped may be taken for a host."""
        return _shown(self.url) != _UNCLEAR

    def __str__(self) -> str:
        return f"postgresql://{_shown(self.url)}"

    def __repr__(self) -> str:
        return f"Database({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Database) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)


LedgerPlace = Path | Database


def is_database(text: str) -> bool:
    """Whether a `ledger` value names a database."""
    return text.startswith(SCHEMES)


def place_of(text: str) -> LedgerPlace:
    """The place that a `ledger` value or an argument names: a `postgresql://` URL, or the path of a file."""
    return Database(text) if is_database(text) else Path(text)


def name_of(place: LedgerPlace) -> str:
    """How messages name a ledger: the file's name, or the database without its password."""
    return str(place) if isinstance(place, Database) else place.name


def needs_driver(place: Database) -> StoreError:
    """What is said where psycopg is missing."""
    return StoreError(f"the ledger {place} needs PostgreSQL's driver; pip install 'outlay[postgres]'")


def _shown(url: str) -> str:
    """User, host, port and database of a URL; nothing of one that a mistake in its password may have moved."""
    address, _, rest = url.partition("://")[2].partition("?")
    if not address or "@" in rest or "#" in address or address.count("@") > 1:
        return _UNCLEAR
    try:
        found = urlsplit(f"postgresql://{address}")
        port = found.port
    except ValueError:
        return _UNCLEAR
    if "@" in address and "@" not in found.netloc:
        return _UNCLEAR
    if "@" not in address and ":" in found.netloc and port is None:
        return _UNCLEAR
    user = f"{found.username}@" if found.username else ""
    host = found.netloc.rpartition("@")[2]
    return f"{user}{host}{found.path}"
