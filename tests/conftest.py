"""What belongs to `make check` and what only to `make test`: whole folders of real processes and sockets are slow."""

from pathlib import Path

import pytest

SLOW = (
    "agents",
    "property",
    "reality",
    "sdk",
    "testing",
    "app/test_cli_books.py",
    "app/test_cli_start.py",
    "app/test_policy_cli.py",
    "lookup/test_bound_holds.py",
    "lookup/test_feed.py",
)
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow places."""
    for item in items:
        place = item.path.relative_to(HERE).as_posix()
        if place.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
