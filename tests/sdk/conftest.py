"""The vendors' clients leave sockets to the collector; here it runs after each test, so none is told of another's."""

import gc
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Clients of ended loops, and streams that nobody closed, end with their test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(3):  # again: what finalisers let go of
            gc.collect()
