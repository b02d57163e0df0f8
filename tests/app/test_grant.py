"""Granting is one write: where the ledger does not take it, nothing is raised, and the ask can be granted again."""

import os
from pathlib import Path
from typing import Any

import pytest

from outlay.app.control import open_operations
from outlay.app.operations import Operations
from outlay.kernel.errors import StoreError
from tests.app.test_approvals import CONFIG, OTHER
from tests.harness import SECRET


def test_a_grant_that_is_not_written_raises_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "outlay.yaml"
    path.write_text(CONFIG.format(url="http://127.0.0.1:9", secret=SECRET, other=OTHER))
    with open_operations(path, os.environ) as operations:
        assert isinstance(operations, Operations)
        said = {"budget": "each-team", "scope": {"team": "search"}, "usd": "1", "reason": "more"}
        ask = operations.ask(said, "test")
        store: Any = operations._store

        def down(*_: object) -> list[int]:
            raise StoreError("down (test)")

        with monkeypatch.context() as patch:
            patch.setattr(store, "put_objects", down)
            with pytest.raises(StoreError):
                operations.grant(ask["id"], {}, "test")
        assert operations.raises() == []
        assert [found["state"] for found in operations.asks()] == ["open"]
        assert operations.grant(ask["id"], {}, "test")["state"] == "approved"
        assert len(operations.raises()) == 1
    with open_operations(path, os.environ) as again:
        assert len(again.raises()) == 1
        assert [found["state"] for found in again.asks()] == ["approved"]
