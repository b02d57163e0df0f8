"""What only PostgreSQL's store can meet: takeovers, lost connections, replies that never came, a server killed."""

import contextlib
import os
import queue
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from outlay.flow.ledger import postgres
from outlay.flow.ledger.audit import Audit, audit
from outlay.flow.ledger.charge import Basis, Ending, Hold, Status
from outlay.flow.ledger.liveness import is_proven_dead, this_process
from outlay.flow.ledger.place import Database
from outlay.flow.ledger.port import RefusalRow, StoreFenced, StoreUnreachable
from outlay.flow.ledger.postgres import PostgresStore, spelled
from outlay.flow.scope import Identity
from outlay.kernel.errors import AccountingBroken, StoreError
from tests.postgres import Proxy, Server, fresh_ledger
from tests.store_contract.bench import Bench, budget


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[tuple[Bench, Proxy]]:
    """Books whose store is reached through a proxy. The socket's path must be short."""
    with tempfile.TemporaryDirectory(prefix="pg-") as folder, Proxy(fresh_ledger(), Path(folder)) as proxy:
        bench = Bench("postgres", tmp_path, [budget("all", 1000)], proxy.url)
        yield bench, proxy
        bench.leave()


def right(url: str) -> Audit:
    found = audit(Database(url))
    assert found.findings == ()
    assert found.most_over_limit_nanos <= 0
    return found


def test_a_living_owner_keeps_the_ledger_and_a_silent_one_loses_it() -> None:
    url = fresh_ledger()
    first, second = PostgresStore(url), PostgresStore(url)
    first.load(1)
    with pytest.raises(StoreError, match="in use by another Outlay process"):
        second.load(2)
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("UPDATE writer SET renewed_at = renewed_at - INTERVAL '6 seconds'")
    loaded = second.load(3)
    assert (loaded.epoch, loaded.was_clean) == (2, False)
    second.close(4)
    third = PostgresStore(url)
    assert third.load(5).was_clean, "a clean stop gives the ledger away at once"
    for store in (first, third):
        store.abandon()


def test_an_owner_that_lost_its_place_writes_nothing(tmp_path: Path) -> None:
    bench = Bench("postgres", tmp_path, [budget("all", 100)])
    open_hold = bench.hold(30)
    other = Bench("postgres", tmp_path, [budget("all", 100)], bench.url)
    assert other.books.recovered == 1, "the hold of the one that lost its place is booked"
    told: list[StoreError | None] = []
    assert bench.place(10, told=lambda _hold, error: told.append(error)) is not None
    with pytest.raises(AccountingBroken, match="taken the ledger over"):
        bench.timers.once()
    assert [type(error) for error in told] == [StoreFenced]
    with pytest.raises(StoreFenced):
        bench.store.put_object("key", "k", "{}", 1, "eve")
    with pytest.raises(AccountingBroken):
        bench.settle(open_hold, 5)
    found = right(bench.url)
    assert (found.spend_nanos, found.open_holds, found.charges) == (30, 0, 1)
    other.spend(7)
    assert right(bench.url).spend_nanos == 37
    bench.leave()
    other.leave()


def test_an_owner_with_nothing_to_write_learns_that_it_lost_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its streams would have gone on after another process had booked what they hold."""
    monkeypatch.setattr(postgres, "RENEW_S", 0.05)
    url = fresh_ledger()
    posted: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
    first, second = PostgresStore(url, post=posted.put, lease_s=0), PostgresStore(url, lease_s=0)
    first.load(1)
    second.load(2)
    with pytest.raises(AccountingBroken, match="taken the ledger over"):
        posted.get(timeout=10)()
    for store in (first, second):
        store.abandon()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_lost_reply_to_a_commit_is_no_doubt(proxied: tuple[Bench, Proxy], moment: str) -> None:
    bench, proxy = proxied
    bench.spend(3)
    told: list[StoreError | None] = []
    proxy.cut = moment
    hold = bench.place(10, told=lambda _hold, error: told.append(error))
    bench.timers.run()
    assert proxy.cuts == 1
    assert hold is not None
    if moment == "after":
        assert told == [None], "it was written, and the row of the writer says so"
        bench.settle(hold, 4)
        assert right(bench.url).spend_nanos == 7
    else:
        assert [type(error) for error in told] == [StoreUnreachable]
        assert bench.balance("all") == (3, 0)
    bench.spend(5)
    assert right(bench.url).open_holds == 0
    assert bench.stored("all") == bench.balance("all")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_what_a_lost_batch_held_is_written_once(
    proxied: tuple[Bench, Proxy], moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, proxy = proxied
    monkeypatch.setattr(postgres, "DOUBT_S", 0.2)
    first, unknown = bench.hold(20), bench.hold(30)
    bench.settle(unknown, 30, Basis.OUTCOME_UNKNOWN)
    told: list[StoreError | None] = []
    # one batch: an adjustment, a charge, a hold that fails, a count
    bench.books.resolve(unknown.id, 12, "eve", "")
    bench.books.end(first, settled(15))
    bench.books.count_refusals([RefusalRow(1, "budget_spent", "all", "acme", "", "k", 2)])
    assert bench.place(10, told=lambda _hold, error: told.append(error)) is not None
    proxy.cut, proxy.is_down = moment, True
    bench.timers.once()
    assert proxy.cuts == 1
    assert [type(error) for error in told] == [StoreUnreachable]
    assert bench.books.is_down
    assert bench.place(10, told=lambda _hold, error: told.append(error)) is not None
    bench.timers.once()
    assert len(told) == 2, "it is still down"
    proxy.is_down = False
    bench.timers.run()
    assert not bench.books.is_down
    found = right(bench.url)
    assert (found.spend_nanos, found.charges, found.open_holds) == (27, 2, 0)
    assert bench.stored("all") == bench.balance("all") == (27, 0)
    with psycopg.connect(bench.url) as db:
        assert db.execute("SELECT sum(count) FROM refusals").fetchall() == [(2,)]
        assert db.execute("SELECT count(*) FROM postings").fetchall() == [(1,)]
    bench.spend(5)
    assert right(bench.url).spend_nanos == 32


def settled(nanos: int) -> Ending:
    return Ending(Status.SETTLED, Basis.METERED, nanos)


def test_reads_survive_a_dropped_connection(proxied: tuple[Bench, Proxy]) -> None:
    bench, proxy = proxied
    charge = bench.spend(3)
    proxy.drop()
    found = bench.store.charge(charge)
    assert found is not None and found.cost_nanos == 3
    proxy.is_down = True
    proxy.drop()
    with pytest.raises(StoreError, match="cannot be reached"):
        bench.store.charge(charge)
    proxy.is_down = False
    assert bench.store.charge(charge) == found


@pytest.fixture
def threaded(tmp_path: Path) -> Iterator[tuple[Bench, Callable[[], None]]]:
    """Books whose store writes in a thread of its own, and a function that waits for one of its answers."""
    posted: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
    bench = Bench("postgres", tmp_path, [budget("all", 100), budget("users", 60, user="*")], post=posted.put)

    def wait() -> None:
        bench.timers.once()
        posted.get(timeout=10)()

    yield bench, wait
    bench.leave()


def test_in_a_thread_of_its_own_the_books_are_the_same(threaded: tuple[Bench, Callable[[], None]]) -> None:
    bench, wait = threaded
    durable: list[Hold] = []
    admitted = 0
    for number in range(40):
        identity = Identity(org="acme", user="ada" if number % 2 else "bob", model="m", provider="p")
        admitted += bench.place(5, identity, lambda hold, _error: durable.append(hold)) is not None
        bench.timers.once()
    assert admitted == 20
    while len(durable) < admitted:
        wait()
    for hold in durable:
        bench.books.end(hold, settled(4))
    bench.books.settle()
    assert (right(bench.url).open_holds, right(bench.url).spend_nanos) == (0, 80)


def test_what_is_on_its_way_is_not_forgotten_nor_counted_twice(
    threaded: tuple[Bench, Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, wait = threaded
    told: list[StoreError | None] = []
    first = bench.place(10, told=lambda _hold, error: told.append(error))
    assert first is not None
    while not told:
        wait()
    bench.books.end(first, Ending(Status.SETTLED, Basis.OUTCOME_UNKNOWN, 10))
    bench.books.flush()
    # its charge is with the thread: a budget made now starts from it, once
    bench.configure(*bench.budgets, budget("late", 1000))
    assert bench.balance("late") == (10, 0)
    assert bench.books.resolve(first.id, 4, "eve", "") == -6
    assert bench.books.resolve(first.id, 5, "eve", "") == 1
    assert bench.balance("all") == bench.balance("late") == (5, 0)
    second = bench.place(7, told=lambda _hold, error: told.append(error))
    bench.books.flush()
    monkeypatch.setattr(bench.books.directory, "_next_cleaning", 0)
    assert second is not None
    bench.books.end(second, settled(6))
    bench.books.flush()
    assert bench.balance("all") == (11, 0), "an account is not read from the store before the store has it"
    bench.books.settle()
    assert right(bench.url).spend_nanos == 11
    assert bench.stored("all") == (11, 0)


def test_nobody_waits_for_a_store_that_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of budgets, a correction or a stop asked it again and again for as long as it was down."""
    monkeypatch.setattr(postgres, "DOUBT_S", 0.1)
    posted: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="pg-") as folder, Proxy(fresh_ledger(), Path(folder)) as proxy:
        bench = Bench("postgres", tmp_path, [budget("all", 100)], proxy.url, posted.put)
        bench.books.settle()
        told: list[StoreError | None] = []
        assert bench.place(10, told=lambda _hold, error: told.append(error)) is not None
        proxy.is_down = True
        proxy.drop()
        bench.books.settle()
        assert [type(error) for error in told] == [StoreUnreachable]
        assert bench.books.is_down
        proxy.is_down = False
        bench.books.settle()
        assert not bench.books.is_down
        assert bench.balance("all") == bench.stored("all") == (0, 0)
        bench.leave()


def test_a_newer_schema_is_not_touched() -> None:
    url = fresh_ledger()
    PostgresStore(url).abandon()
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("UPDATE writer SET schema_version = 99")
    with pytest.raises(StoreError, match="newer Outlay"):
        PostgresStore(url)


def test_an_address_is_in_no_error() -> None:
    for url in ("postgresql://me:secret-word@127.0.0.1:1/x", "postgresql://[secret-word"):
        with pytest.raises(StoreError) as caught:
            PostgresStore(url)
        assert "secret-word" not in str(caught.value)


def test_the_schema_is_spelled_for_it() -> None:
    text = "-- a; comment\nCREATE TABLE t (id INTEGER PRIMARY KEY, b BLOB) STRICT, WITHOUT ROWID;\n"
    text += "CREATE INDEX i ON t (b);"
    assert spelled(text) == [
        "CREATE TABLE t (id BIGINT PRIMARY KEY, b BYTEA)",
        "CREATE INDEX i ON t (b)",
    ]


def test_death_is_proven_here_only() -> None:
    assert not is_proven_dead(this_process())
    assert not is_proven_dead("")
    assert not is_proven_dead('{"pid": 1}')
    gone = this_process().replace(f'"pid": {os.getpid()}', f'"pid": {2**22 + 1}')
    assert is_proven_dead(gone)
    assert not is_proven_dead(gone.replace("pid:[", "pid:[9")), "a pid says nothing in another namespace"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(3))
def test_the_server_is_killed_under_load(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`kill -9` of the server at random moments: what was told is true, nothing is lost, nothing is there twice."""
    monkeypatch.setattr(postgres, "DOUBT_S", 0.3)
    chance = random.Random(seed)
    posted: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="pg-") as folder, Server(Path(folder)) as server:
        bench = Bench("postgres", tmp_path, [budget("all", 10**6)], server.url, posted.put)
        durable: list[Hold] = []
        refused: list[StoreError] = []
        spent = ends = 0

        def told(hold: Hold, error: StoreError | None) -> None:
            durable.append(hold) if error is None else refused.append(error)

        def play(seconds: float) -> None:
            nonlocal spent, ends
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                bench.place(5, told=told)
                if len(durable) > 3:
                    hold = durable.pop(chance.randrange(len(durable)))
                    bench.books.end(hold, settled(4))
                    spent, ends = spent + 4, ends + 1
                bench.timers.once()
                with contextlib.suppress(queue.Empty):
                    posted.get(timeout=0.001)()

        for _ in range(8):
            play(0.2)
            killer = threading.Timer(chance.random() * 0.1, server.kill)
            killer.start()
            play(0.3 + chance.random())
            killer.join()
            server.start()
            play(0.5)
        assert refused, "somebody was told that it is down"
        assert ends > 50
        deadline = time.monotonic() + 30
        while bench.books.is_down or not bench.books._batch.is_empty():
            assert time.monotonic() < deadline
            play(0.05)
        for hold in durable:
            bench.books.end(hold, settled(4))
            spent, ends = spent + 4, ends + 1
        durable.clear()
        bench.books.settle()
        while durable:
            bench.books.end(durable.pop(), settled(4))
            spent, ends = spent + 4, ends + 1
            bench.books.settle()
        found = right(server.url)
        assert (found.spend_nanos, found.charges, found.open_holds) == (spent, ends, 0)
        assert bench.balance("all") == bench.stored("all") == (spent, 0)
        bench.leave()
