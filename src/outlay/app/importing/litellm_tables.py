"""LiteLLM's PostgreSQL, read: the few tables that say who may spend what, as plain rows. Nothing is written there.

Floats arrive as exact decimals of their text. Tables that an older or newer LiteLLM does not have are empty here.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlsplit

from outlay.kernel.errors import ConfigError, StoreError

Row = Mapping[str, Any]
KEYS: Final = "LiteLLM_VerificationToken"
TEAMS: Final = "LiteLLM_TeamTable"
USERS: Final = "LiteLLM_UserTable"
ORGANIZATIONS: Final = "LiteLLM_OrganizationTable"
CUSTOMERS: Final = "LiteLLM_EndUserTable"
BUDGETS: Final = "LiteLLM_BudgetTable"
MODELS: Final = "LiteLLM_ProxyModelTable"
SETTINGS: Final = "LiteLLM_Config"
MEMBERS: Final = "LiteLLM_TeamMembership"
ORGANIZATION_MEMBERS: Final = "LiteLLM_OrganizationMembership"
PROJECTS: Final = "LiteLLM_ProjectTable"
TAGS: Final = "LiteLLM_TagTable"
ACCESS_GROUPS: Final = "LiteLLM_AccessGroupTable"
WINDOW_SPEND: Final = "LiteLLM_BudgetWindowSpend"
GROUP_BUDGETS: Final = "LiteLLM_ModelAccessGroupBudgetTable"
AGENTS: Final = "LiteLLM_AgentsTable"

_NEEDED: Final = {
    KEYS: (
        "token",
        "spend",
        "expires",
        "models",
        "team_id",
        "user_id",
        "max_budget",
        "budget_duration",
        "metadata",
    ),
    TEAMS: ("team_id", "spend", "max_budget", "budget_duration", "models", "blocked"),
    USERS: ("user_id", "spend", "max_budget", "budget_duration"),
    BUDGETS: ("budget_id", "max_budget", "budget_duration"),
}
"""What every LiteLLM since its first migration has; without it nothing can be said."""
_WANTED: Final = (
    ORGANIZATIONS,
    CUSTOMERS,
    MODELS,
    SETTINGS,
    MEMBERS,
    ORGANIZATION_MEMBERS,
    PROJECTS,
    TAGS,
    ACCESS_GROUPS,
    WINDOW_SPEND,
    GROUP_BUDGETS,
    AGENTS,
)
_CONNECT_TIMEOUT_S: Final = 10
MAX_ROWS: Final = 200_000
"""Rows of one table: more than that is no list of keys, but a log."""


class Tables:
    """The rows of each table, and which tables are not there."""

    def __init__(self, rows: Mapping[str, list[Row]], missing: tuple[str, ...]) -> None:
        self._rows = rows
        self.missing = missing

    def __getitem__(self, table: str) -> list[Row]:
        return self._rows.get(table, [])


def read_tables(address: str) -> Tables:
    """Read LiteLLM's database in one consistent, read-only transaction.

    Raises ConfigError if the address is none, the database is not LiteLLM's, or psycopg is missing; StoreError if
    it cannot be reached.
    """
    try:
        import psycopg
        from psycopg.rows import dict_row
        from psycopg.types.json import set_json_loads
    except ImportError as error:
        raise ConfigError(
            "PostgreSQL needs the package psycopg; install outlay[postgres]", key="--database"
        ) from error
    if urlsplit(address).scheme not in ("postgresql", "postgres"):
        raise ConfigError(
            "needs an address such as postgresql://user:password@host:5432/litellm", key="--database"
        )
    try:
        with psycopg.connect(
            _cleaned(address), connect_timeout=_CONNECT_TIMEOUT_S, row_factory=dict_row
        ) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            set_json_loads(_json, connection)
            connection.adapters.register_loader("float8", _exact_loader())
            return _read(connection)
    except psycopg.OperationalError as error:
        raise StoreError(f"LiteLLM's database cannot be reached: {_first_line(error)}") from error
    except psycopg.Error as error:
        raise StoreError(f"LiteLLM's database cannot be read: {_first_line(error)}") from error


def _read(connection: Any) -> Tables:
    rows: dict[str, list[Row]] = {}
    missing = []
    for table in (*_NEEDED, *_WANTED):
        found = connection.execute("SELECT to_regclass(%s) AS it", (f'"{table}"',)).fetchone()
        if found["it"] is None:
            missing.append(table)
            continue
        cursor = connection.execute(f'TABLE "{table}" LIMIT {MAX_ROWS}')
        names = [column.name for column in cursor.description]
        lost = [name for name in _NEEDED.get(table, ()) if name not in names]
        if lost:
            raise ConfigError(
                f"the table {table} has no column {lost[0]!r}: this is not a LiteLLM that can be read (known: from its"
                " first migration of March 2025 on)",
                key="--database",
            )
        rows[table] = cursor.fetchall()
        if len(rows[table]) == MAX_ROWS:
            raise ConfigError(f"the table {table} has {MAX_ROWS} rows or more", key="--database")
    lost_tables = [table for table in _NEEDED if table in missing]
    if len(lost_tables) == len(_NEEDED):
        raise ConfigError(
            "there are no tables of LiteLLM in this database (schema `public`, or the search_path of the address)",
            key="--database",
        )
    if lost_tables:
        raise ConfigError(
            f"the table {lost_tables[0]} is missing: not a LiteLLM database, or one whose migrations did not finish",
            key="--database",
        )
    return Tables(rows, tuple(missing))


def _cleaned(address: str) -> str:
    """The address without the query that Prisma reads and libpq does not; `schema` becomes the search path."""
    base, _, query = address.partition("?")
    schema = [part.partition("=")[2] for part in query.split("&") if part.startswith("schema=")]
    kept = [
        part
        for part in query.split("&")
        if part.partition("=")[0] in ("sslmode", "host", "sslrootcert", "options")
    ]
    if schema:
        kept.append(f"options=-c%20search_path%3D{schema[0]}")
    return f"{base}?{'&'.join(kept)}" if kept else base


def _json(data: bytes | str) -> Any:
    import json

    return json.loads(data, parse_float=Decimal)


def _exact_loader() -> Any:
    from psycopg.adapt import Loader

    class Exact(Loader):
        """A float as the decimal that its text says."""

        def load(self, data: Any) -> Decimal:
            return Decimal(bytes(data).decode())

    return Exact


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def moment(value: object) -> datetime | None:
    """A timestamp column or the ISO text of one; None for anything else."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            return None
    return None


def json_object(value: object) -> Mapping[str, Any]:
    """A JSON column that holds an object, also one that was stored as text."""
    if isinstance(value, str):
        import json

        try:
            value = json.loads(value, parse_float=Decimal)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}
