"""Many threads, tasks and processes on one embedded ledger: never past the cap, and never short of it."""

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw
import pytest

import outlay
from outlay.flow.ledger.direct import DirectLedger
from outlay.flow.ledger.sqlite import SqliteStore
from outlay.kernel.clock import SystemClock
from outlay.kernel.errors import StoreError
from tests.sdk.shop import GPT_CALL_HELD_NANOS, GPT_CALL_NANOS, SAY, Shop, shop

CAP_CALLS = 10
CAP_USD = f"0.{(CAP_CALLS - 1) * GPT_CALL_NANOS + GPT_CALL_HELD_NANOS:09d}"
"""Money for ten calls to the nano-dollar: nine at what they cost, and the tenth at its worst case. A call is held at
more than it costs, so late ones wait for the money that comes back."""


def call(client: object) -> int:
    try:
        client.chat.completions.create(model="gpt-test", messages=SAY, max_tokens=80)  # type: ignore[attr-defined]
    except outlay.BudgetExceeded as error:
        assert error.error_code in ("budget_spent", "call_too_large")
        return 0
    return 1


def start(place: Shop, mode: str, limit: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.sdk.worker", str(place.ledger), place.mock.url, limit, mode]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ready(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None and process.stdout.readline() == "ready\n"


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def answer(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_fifty_threads_and_a_cap_for_ten_calls(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        client = place.gpt(budget_usd=CAP_USD, budget="shared", wait_s=60)
        gate = threading.Barrier(50)

        def one(_: int) -> int:
            gate.wait()
            return call(client)

        with ThreadPoolExecutor(50) as pool:
            admitted = sum(pool.map(one, range(50)))
        assert admitted == CAP_CALLS
        place.wait_for(CAP_CALLS)


def test_fifty_tasks_and_a_cap_for_ten_calls(tmp_path: Path) -> None:
    async def all_of_them(place: Shop) -> int:
        async with place.async_gpt(budget_usd=CAP_USD, budget="shared", wait_s=60) as client:

            async def one() -> int:
                try:
                    await client.chat.completions.create(model="gpt-test", messages=SAY, max_tokens=80)
                except outlay.BudgetExceeded:
                    return 0
                return 1

            return sum(await asyncio.gather(*(one() for _ in range(50))))

    with shop(tmp_path) as place:
        assert asyncio.run(all_of_them(place)) == CAP_CALLS
        place.wait_for(CAP_CALLS)


def test_processes_threads_and_tasks_at_once(tmp_path: Path) -> None:
    async def tasks(place: Shop) -> int:
        async with place.async_gpt(budget_usd=CAP_USD, budget="shared", wait_s=60) as client:

            async def one() -> int:
                try:
                    await client.chat.completions.create(model="gpt-test", messages=SAY, max_tokens=80)
                except outlay.BudgetExceeded:
                    return 0
                return 1

            return sum(await asyncio.gather(*(one() for _ in range(50))))

    with shop(tmp_path) as place:
        processes = [start(place, "calls", CAP_USD) for _ in range(4)]
        for process in processes:
            ready(process)
        client = place.gpt(budget_usd=CAP_USD, budget="shared", wait_s=60)
        for process in processes:
            go(process)
        with ThreadPoolExecutor(51) as pool:
            by_tasks = pool.submit(asyncio.run, tasks(place))
            by_threads = sum(pool.map(lambda _: call(client), range(50)))
            admitted = by_threads + by_tasks.result(60)
        for process in processes:
            admitted += int(answer(process))
            process.communicate(timeout=30)
        assert admitted == CAP_CALLS
        found = place.wait_for(CAP_CALLS)
        assert found.most_over_limit_nanos <= 0


def test_a_killed_process_is_expired_by_the_next(tmp_path: Path) -> None:
    with shop(tmp_path, is_exact=False) as place:
        place.mock.behave(chunk_ms=200)
        process = start(place, "hang", "1")
        ready(process)
        go(process)
        assert answer(process) == "streaming"
        # it lives: nobody takes its hold away, whoever opens the ledger or is refused
        client = place.gpt(budget_usd="0.00001", budget="small")
        with pytest.raises(outlay.BudgetExceeded):
            client.chat.completions.create(model="gpt-test", messages=SAY)
        assert place.audit().open_holds == 1
        process.kill()
        process.communicate(timeout=30)
        place.gpt()
        found = place.wait_for(1)
        assert found.unknown_nanos == found.spend_nanos > 0
        newest = place.charges()[0]
        assert (newest.status, newest.basis) == ("expired", "outcome_unknown")
        assert not list(tmp_path.glob("*.live-*")) or len(list(tmp_path.glob("*.live-*"))) == 2


def test_a_refused_call_finds_the_dead_too(tmp_path: Path) -> None:
    with shop(tmp_path, is_exact=False) as place:
        place.mock.behave(chunk_ms=200)
        client = place.gpt(budget_usd="0.0015", budget="shared", wait_s=0)
        process = start(place, "hang", "0.0015")
        ready(process)
        go(process)
        assert answer(process) == "streaming"
        process.kill()
        process.communicate(timeout=30)
        with pytest.raises(outlay.BudgetExceeded) as caught:
            client.chat.completions.create(model="gpt-test", messages=SAY, max_tokens=80)
        # what the dead one held is booked: it is spent, not busy
        assert caught.value.held == "0.00"
        place.wait_for(1)


def test_a_forked_child_opens_the_ledger_for_itself(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        process = start(place, "fork", "1")
        ready(process)
        go(process)
        assert answer(process) == "2"
        process.communicate(timeout=30)
        place.wait_for(3)


def test_a_gateway_and_the_sdk_do_not_share_a_file(tmp_path: Path) -> None:
    clock = SystemClock()
    ledger = DirectLedger(tmp_path / "l.db", clock)
    beside = DirectLedger(tmp_path / "l.db", clock)
    with pytest.raises(StoreError):
        SqliteStore(tmp_path / "l.db")
    ledger.close()
    beside.close()
    store = SqliteStore(tmp_path / "l.db")
    with pytest.raises(StoreError, match="in use by a gateway"):
        DirectLedger(tmp_path / "l.db", clock)
    store.close(clock.now())


def test_the_journal_goes_on_from_its_newest_row_of_any_kind(tmp_path: Path) -> None:
    """A gateway whose clock was ahead has written what only it writes: what follows must come after it."""
    clock = SystemClock()
    DirectLedger(tmp_path / "l.db", clock).close()
    db = apsw.Connection(str(tmp_path / "l.db"))
    ahead = clock.now() + 10**15
    db.execute("INSERT INTO account_limits VALUES (?, 1, 5, 1, ?)", (ahead, ahead))
    db.execute("INSERT INTO extensions VALUES (?, x'00', 5, ?)", (ahead + 1, ahead))
    ledger = DirectLedger(tmp_path / "l.db", clock)
    assert db.execute("SELECT seq FROM sequences").fetchall() == [(ahead + 1,)]
    ledger.close()
    db.close()
