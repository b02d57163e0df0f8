"""`kill -9` between any two writes: what is left is right, and recovery leaves nothing open."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.place import Database
from outlay.flow.ledger.postgres import PostgresStore
from outlay.flow.ledger.reader import LedgerReader
from tests.postgres import fresh_ledger
from tests.store_contract.bench import Bench
from tests.store_contract.killed import BUDGETS


def killed_at(folder: Path, statement: int, *url: str) -> bool:
    """Run until the statement; whether it was killed (else it came to its end)."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.store_contract.killed", str(folder), str(statement), *url]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    if ended.returncode == 0:
        return False
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    return True


def check(folder: Path) -> int:
    """Open what was left; returns how many holds were recovered."""
    before = audit(folder / "ledger.db")
    assert before.findings == ()
    bench = Bench("sqlite", folder, BUDGETS)
    recovered = bench.books.recovered
    assert recovered == before.open_holds
    assert not bench.books.was_clean
    assert not bench.books.host_crashed
    found = audit(bench.path)
    assert found.findings == ()
    assert found.open_holds == 0
    assert found.most_over_limit_nanos <= 0
    with LedgerReader(bench.path) as reader:
        held = reader.totals()["held_nanos"]
        total = reader.totals()["spend_nanos"]
    assert held == 0
    assert bench.balance("all") == (total, 0)
    bench.spend(1)
    bench.books.close()
    assert audit(bench.path).findings == ()
    return recovered


def test_kill_in_a_transaction(tmp_path: Path) -> None:
    assert killed_at(tmp_path / "a", 37)
    check(tmp_path / "a")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kill_between_any_two_writes(tmp_path: Path) -> None:
    recovered = at = 0
    while killed_at(tmp_path / str(at), at):
        recovered += check(tmp_path / str(at))
        at += 1
    assert at > 100, "the workload writes more than that"
    assert recovered > 20


def check_postgres(url: str, folder: Path) -> int:
    """As `check`, and nobody waits for the lease of a process that is proven dead."""
    before = audit(Database(url))
    assert before.findings == ()
    store = PostgresStore(url)
    store.load(0)
    store.abandon()
    bench = Bench("postgres", folder, BUDGETS, url)
    assert bench.books.recovered == before.open_holds
    assert not bench.books.was_clean
    found = audit(Database(url))
    assert (found.findings, found.open_holds) == ((), 0)
    assert found.most_over_limit_nanos <= 0
    assert bench.balance("all") == (found.spend_nanos, 0)
    bench.spend(1)
    bench.books.close()
    assert audit(Database(url)).findings == ()
    return bench.books.recovered


def test_postgres_kill_in_a_transaction(tmp_path: Path) -> None:
    url = fresh_ledger()
    assert killed_at(tmp_path / "a", 9, url)
    check_postgres(url, tmp_path / "a")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_postgres_kill_between_any_two_writes(tmp_path: Path) -> None:
    recovered = at = 0
    while True:
        url = fresh_ledger()
        if not killed_at(tmp_path / str(at), at, url):
            break
        recovered += check_postgres(url, tmp_path / str(at))
        at += 1
    assert at > 60, "the workload writes more than that"
    assert recovered > 10
