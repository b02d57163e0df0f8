"""One suite over every store: holds, ends, restarts, budgets that come and go, outages."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outlay.flow.ledger.books import BUSY_TRIES
from outlay.flow.ledger.charge import Basis, Ending, Status
from outlay.flow.ledger.memory import MemoryStore
from outlay.flow.ledger.port import Batch, Done, StoreBusy
from outlay.flow.ledger.sqlite import SqliteStore
from outlay.flow.scope import Identity
from outlay.kernel.clock import NANOS_PER_SECOND
from outlay.kernel.errors import AccountingBroken, NotFound, OutlayError, StoreError
from tests.store_contract.bench import ADA, KINDS, Bench, budget

BOB = Identity(org="acme", team="ads", user="bob", key="k2", model="m", provider="p")
DAY = 86_400 * NANOS_PER_SECOND
Make = Callable[..., Bench]


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    made: list[Bench] = []

    def open_bench(*budgets: object) -> Bench:
        made.append(Bench(request.param, tmp_path, list(budgets)))  # type: ignore[arg-type]
        return made[-1]

    yield open_bench
    for bench in made:
        bench.leave()


def assert_audited(bench: Bench) -> None:
    """Replaying the rows gives the balances, and no hold was admitted past a limit."""
    bench.timers.run()
    found = bench.audit()
    if found is not None:
        assert found.findings == ()
        assert found.most_over_limit_nanos <= 0


def test_hold_and_settle_in_every_account(make: Make) -> None:
    bench = make(budget("all", 100), budget("team", 50, team="*"), budget("users", None, user="*"))
    hold = bench.hold(40)
    assert [bench.balance(name) for name in ("all", "team", "users")] == [(0, 40)] * 3
    bench.settle(hold, 25)
    assert [bench.balance(name) for name in ("all", "team", "users")] == [(25, 0)] * 3
    assert bench.place(26) is None, "the team's budget has 25 left"
    assert bench.balance("all") == (25, 0), "all or nothing"
    assert bench.balance("team", BOB) == (0, 0)
    assert bench.place(50, BOB) is not None
    assert_audited(bench)


def test_the_last_nano_is_usable_and_no_more(make: Make) -> None:
    bench = make(budget("all", 10))
    first, second = bench.place(4), bench.place(6)
    assert first is not None
    assert second is not None
    assert bench.place(1) is None
    bench.timers.run()
    bench.void(first)
    assert bench.place(5) is None
    assert bench.place(4) is not None
    assert_audited(bench)


def test_an_overrun_is_booked_whole_and_blocks(make: Make) -> None:
    bench = make(budget("all", 100))
    bench.settle(bench.hold(60), 130)
    assert bench.balance("all") == (130, 0)
    assert bench.books.overrun_nanos == 70
    assert bench.place(0) is None
    assert_audited(bench)


def test_a_hold_ends_once(make: Make) -> None:
    bench = make(budget("all", 100))
    hold = bench.hold(10)
    bench.settle(hold, 5)
    with pytest.raises(AccountingBroken):
        bench.books.end(hold, Ending(Status.VOID, Basis.VOID, 0))
    assert bench.balance("all") == (5, 0)


def test_told_once_and_never_from_within(make: Make) -> None:
    bench = make(budget("all", 100))
    told: list[object] = []
    hold = bench.place(10, told=lambda _hold, error: told.append(error))
    assert told == []
    bench.timers.run()
    assert told == [None]
    assert hold is not None
    bench.settle(hold, 3)
    assert told == [None]


def test_balances_and_numbers_survive_a_restart(make: Make) -> None:
    bench = make(budget("all", 100), budget("ring", 100, "60s"), budget("month", 100, "month"))
    bench.spend(30)
    bench.settle(bench.hold(20), 7)
    names = ("all", "ring", "month")
    before = {name: (bench.account(name).id, *bench.balance(name)) for name in names}
    directory = bench.books.directory
    number = directory.identities.number('{"org":"acme","team":"x"}')
    route = directory.routes.number('{"provider":"q"}')
    bench.place(1)
    bench.timers.run()
    bench.void(next(iter(bench.books._open.values())))
    for restart in (bench.reopen, bench.crash):
        restart()
        assert {name: (bench.account(name).id, *bench.balance(name)) for name in names} == before
        directory = bench.books.directory
        assert directory.identities.number('{"org":"acme","team":"x"}') == number
        assert directory.routes.number('{"provider":"q"}') == route
        assert directory.routes.number('{"provider":"r"}') > route
        assert bench.books.recovered == 0
        bench.timers.run()
    assert_audited(bench)


def test_open_holds_of_a_dead_process_are_booked_as_unknown(make: Make) -> None:
    bench = make(budget("all", 100), budget("ring", 100, "60s"))
    bench.spend(10)
    hold = bench.hold(25)
    bench.crash()
    assert bench.books.recovered == 1
    assert not bench.books.was_clean or bench.kind == "memory"
    assert bench.balance("all") == bench.balance("ring") == (35, 0)
    charge = bench.store.charge(hold.id)
    assert charge is not None
    assert (charge.status, charge.basis, charge.cost_nanos) == (Status.EXPIRED, Basis.OUTCOME_UNKNOWN, 25)
    bench.crash()
    assert bench.books.recovered == 0
    assert bench.balance("all") == (35, 0)
    assert_audited(bench)


def test_a_hold_that_was_never_written_leaves_nothing(make: Make) -> None:
    bench = make(budget("all", 100))
    bench.place(25)
    bench.crash()
    assert bench.books.recovered == 0
    assert bench.balance("all") == (0, 0)
    assert_audited(bench)


@pytest.mark.parametrize("crash", [False, True])
def test_resolve(make: Make, crash: bool) -> None:
    bench = make(budget("all", 100), budget("ring", 100, "1h"), budget("month", 100, "month"))
    hold = bench.hold(40)
    bench.settle(hold, 40, Basis.OUTCOME_UNKNOWN)
    if crash:
        bench.crash()
    assert bench.books.resolve(hold.id, 15, "eve", "invoice") == -25
    names = ("all", "ring", "month")
    assert [bench.balance(name) for name in names] == [(15, 0)] * 3
    assert bench.books.resolve(hold.id, 16, "eve", "again") == 1
    bench.crash()
    assert [bench.balance(name) for name in names] == [(16, 0)] * 3
    charge = bench.store.charge(hold.id)
    assert charge is not None
    assert (charge.basis, charge.cost_nanos) == (Basis.RESOLVED, 16)
    assert_audited(bench)


def test_what_is_known_is_not_resolved(make: Make) -> None:
    bench = make(budget("all", 100))
    charge_id = bench.spend(10)
    with pytest.raises(OutlayError, match="known"):
        bench.books.resolve(charge_id, 1, "eve", "")
    with pytest.raises(NotFound):
        bench.books.resolve(b"\0" * 16, 1, "eve", "")
    assert bench.balance("all") == (10, 0)


def test_resolving_what_left_a_rolling_window_changes_nothing_there(make: Make) -> None:
    bench = make(budget("all", 100), budget("ring", 100, "60s"))
    hold = bench.hold(40)
    bench.settle(hold, 40, Basis.OUTCOME_UNKNOWN)
    bench.clock.advance(90 * NANOS_PER_SECOND)
    bench.books.resolve(hold.id, 0, "eve", "")
    assert bench.balance("all") == (0, 0)
    assert bench.balance("ring") == (0, 0)
    assert_audited(bench)


@pytest.mark.parametrize("window", ["month", "lifetime", "1h"])
def test_a_budget_made_later_starts_from_the_ledger(make: Make, window: str) -> None:
    first = budget("all", 1000)
    bench = make(first)
    bench.spend(30)
    bench.spend(11, BOB)
    hold = bench.hold(9)
    bench.configure(first, budget("late", 100, window), budget("teams", 100, window, team="*"))
    assert bench.balance("late") == (41, 9)
    assert bench.balance("teams") == (30, 9)
    assert bench.balance("teams", BOB) == (11, 0)
    assert bench.place(51) is None
    bench.settle(hold, 5)
    assert bench.balance("late") == (46, 0)
    assert bench.balance("teams") == (35, 0)
    bench.crash()
    assert bench.balance("late") == (46, 0)
    assert bench.balance("teams") == (35, 0)
    assert_audited(bench)


def test_a_late_rolling_budget_lets_each_callers_spend_leave_in_time(make: Make) -> None:
    first = budget("all", 1000)
    bench = make(first)
    bench.spend(1)
    bench.spend(30, BOB)
    bench.clock.advance(40 * NANOS_PER_SECOND)
    bench.spend(1)
    bench.configure(first, budget("ring", 100, "60s"))
    assert bench.balance("ring") == (32, 0)
    bench.clock.advance(22 * NANOS_PER_SECOND)
    assert bench.balance("ring") == (1, 0)
    bench.crash()
    assert bench.balance("ring") == (1, 0)


@pytest.mark.parametrize("window", ["month", "lifetime", "1h"])
def test_a_resolved_charge_is_corrected_in_a_later_budget_too(make: Make, window: str) -> None:
    first = budget("all", 1000)
    bench = make(first)
    hold = bench.hold(40)
    bench.settle(hold, 40, Basis.OUTCOME_UNKNOWN)
    bench.configure(first, budget("late", 100, window))
    assert bench.balance("late") == (40, 0)
    bench.books.resolve(hold.id, 15, "eve", "")
    assert bench.balance("all") == bench.balance("late") == (15, 0)
    bench.crash()
    assert bench.balance("late") == (15, 0)
    assert_audited(bench)


def test_a_charge_of_last_month_is_not_corrected_in_this_months_budget(make: Make) -> None:
    first = budget("month", 1000, "month")
    bench = make(first)
    hold = bench.hold(40)
    bench.settle(hold, 40, Basis.OUTCOME_UNKNOWN)
    bench.clock.advance(40 * DAY)
    bench.spend(7)
    bench.books.resolve(hold.id, 15, "eve", "")
    assert bench.balance("month") == (7, 0)
    bench.clock.set(bench.clock.now() - 40 * DAY)
    assert bench.balance("month") == (15, 0)
    assert_audited(bench)


def test_a_late_budget_counts_only_its_own_window(make: Make) -> None:
    first = budget("all", 1000)
    bench = make(first)
    bench.spend(30)
    bench.clock.advance(40 * DAY)
    bench.spend(4)
    bench.clock.advance(90 * NANOS_PER_SECOND)
    bench.spend(2)
    bench.configure(first, budget("month", 100, "month"), budget("ring", 100, "60s"))
    assert bench.balance("month") == (6, 0)
    assert bench.balance("ring") == (2, 0)
    assert_audited(bench)


def test_a_hold_open_when_a_budget_is_made_counts_in_it_after_a_crash(make: Make) -> None:
    first = budget("all", 1000)
    bench = make(first)
    bench.hold(9)
    bench.configure(first, budget("late", 100))
    assert bench.balance("late") == (0, 9)
    bench.crash()
    assert bench.balance("all") == bench.balance("late") == (9, 0)
    assert_audited(bench)


def test_a_budget_removed_and_declared_again(make: Make) -> None:
    first, other = budget("all", 1000), budget("other", 100)
    bench = make(first, other)
    bench.spend(10)
    hold = bench.hold(20)
    bench.configure(first)
    bench.spend(5)
    later = bench.hold(2)
    bench.configure(first, other)
    # what was spent and held while it was away counts, and nothing counts twice
    assert bench.balance("other") == (15, 22)
    bench.settle(hold, 20)
    bench.settle(later, 2)
    assert bench.balance("other") == bench.balance("all") == (37, 0)
    bench.crash()
    assert bench.balance("other") == (37, 0)
    assert_audited(bench)


def test_a_budget_that_was_away_over_a_restart(make: Make) -> None:
    first, other = budget("all", 1000), budget("other", 100, "month")
    bench = make(first, other)
    bench.spend(10)
    bench.configure(first)
    bench.spend(5)
    bench.crash()
    bench.configure(first, other)
    assert bench.balance("other") == (15, 0)
    assert_audited(bench)


def test_a_lowered_limit_blocks_and_a_raised_one_frees(make: Make) -> None:
    bench = make(budget("all", 100))
    bench.spend(30)
    hold = bench.hold(30)
    bench.configure(budget("all", 50))
    assert bench.balance("all") == (30, 30)
    assert bench.place(0) is None
    bench.settle(hold, 20)
    assert bench.place(1) is None
    bench.configure(budget("all", 51))
    assert bench.place(1) is not None
    bench.configure(budget("all", 10, hard=False))
    assert bench.place(10**12) is not None
    assert_audited(bench)


def test_windows_of_the_past_keep_their_money(make: Make) -> None:
    bench = make(budget("day", 100, "day"))
    bench.spend(60)
    hold = bench.hold(40)
    bench.clock.advance(DAY)
    assert bench.balance("day") == (0, 0)
    fresh = bench.hold(100)
    # a hold belongs to the window in which it was placed
    bench.settle(hold, 33)
    assert bench.balance("day") == (0, 100)
    bench.void(fresh)
    bench.crash()
    assert bench.balance("day") == (0, 0)
    bench.clock.set(bench.clock.now() - DAY)
    assert bench.balance("day") == (93, 0)
    assert_audited(bench)


def test_spend_leaves_a_rolling_window(make: Make) -> None:
    bench = make(budget("ring", 100, "60s"))
    bench.spend(70)
    bench.clock.advance(30 * NANOS_PER_SECOND)
    bench.spend(20)
    assert bench.place(11) is None
    bench.clock.advance(32 * NANOS_PER_SECOND)
    assert bench.balance("ring") == (20, 0)
    bench.crash()
    assert bench.balance("ring") == (20, 0)
    assert bench.place(80) is not None
    assert_audited(bench)


class Flaky:
    """A store whose next submissions fail with a given error, before or after writing."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.errors: list[StoreError] = []
        self.tried = 0
        self._submit = bench.store.submit
        monkeypatch.setattr(bench.store, "submit", self.submit)

    def submit(self, batch: Batch, done: Done) -> None:
        self.tried += 1
        if self.errors:
            done(self.errors.pop(0))
            return
        self._submit(batch, done)


def test_store_down_refuses_holds_and_keeps_settlements(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make(budget("all", 100), budget("team", 100, "60s", team="*"))
    open_hold = bench.hold(30)
    store = Flaky(bench, monkeypatch)
    store.errors = [StoreError("down")] * 5
    assert bench.place(20) is not None
    bench.timers.once()
    assert [error.http_status for error in bench.failures] == [503]
    assert bench.books.is_down
    assert bench.balance("all") == (0, 30), "a hold that failed holds nothing"
    bench.books.end(open_hold, Ending(Status.SETTLED, Basis.METERED, 12))
    bench.timers.once()
    assert bench.balance("all") == (12, 0)
    assert bench.stored("all") == (0, 30)
    bench.timers.run()
    assert store.errors == []
    assert not bench.books.is_down
    assert bench.stored("all") == bench.balance("all") == bench.balance("team") == (12, 0)
    charge = bench.store.charge(open_hold.id)
    assert charge is not None
    assert charge.cost_nanos == 12
    assert bench.place(88) is not None
    bench.timers.run()
    assert len(bench.failures) == 1
    assert_audited(bench)
    bench.crash()
    assert bench.balance("all") == (100, 0)


def test_a_budget_made_while_the_store_is_down_counts_unwritten_charges(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = budget("all", 1000)
    bench = make(first)
    hold = bench.hold(30)
    store = Flaky(bench, monkeypatch)
    store.errors = [StoreError("down")] * 4
    bench.books.end(hold, Ending(Status.SETTLED, Basis.METERED, 21))
    bench.configure(first, budget("late", 100), budget("ring", 100, "60s"))
    bench.timers.run()
    assert bench.balance("late") == bench.balance("ring") == (21, 0)
    bench.crash()
    assert bench.balance("late") == (21, 0)
    assert_audited(bench)


def test_a_busy_store_is_asked_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make(budget("all", 100))
    store = Flaky(bench, monkeypatch)
    store.errors = [StoreBusy("busy")] * 3
    told: list[object] = []
    hold = bench.place(10, told=lambda _hold, error: told.append(error))
    bench.timers.run()
    assert told == [None]
    assert store.tried == 4
    assert hold is not None
    bench.settle(hold, 9)
    assert bench.stored("all") == (9, 0)
    assert_audited(bench)


def test_a_store_that_stays_busy_is_down(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make(budget("all", 100))
    store = Flaky(bench, monkeypatch)
    store.errors = [StoreBusy("busy")] * (BUSY_TRIES + 1)
    bench.place(10)
    bench.timers.run()
    assert [error.code for error in bench.failures] == ["ledger_busy"]
    assert bench.balance("all") == (0, 0)
    assert bench.hold(10) is not None
    assert_audited(bench)


def test_money_that_comes_free_is_announced(make: Make) -> None:
    bench = make(budget("all", 100))
    hold = bench.hold(100)
    free: list[str] = []
    bench.books.on_free = lambda account: free.append(account.budget.name)
    bench.account("all").waiting = 1
    bench.settle(hold, 1)
    assert free == ["all"]


def test_objects_keep_their_versions(make: Make) -> None:
    bench = make()
    store = bench.store
    assert store.put_object("key", "a", "one", 1, "eve") == 1
    assert store.put_object("key", "a", "two", 2, "eve") == 2
    assert store.put_object("key", "b", "x", 3, "eve") == 1
    assert store.put_object("key", "b", "", 4, "eve") == 2
    bench.crash()
    found = {(row.kind, row.name): (row.version, row.body) for row in bench.store.objects()}
    assert found == {("key", "a"): (2, "two"), ("key", "b"): (2, "")}


def test_a_run_is_metered_without_a_limit(make: Make) -> None:
    bench = make()
    run = Identity(org="acme", run="r1", model="m", provider="p")
    bench.spend(10**15, run)
    assert bench.balance("outlay.run", run) == (10**15, 0)
    chain = bench.books.chain(run)
    assert chain.run_account is bench.account("outlay.run", run)
    assert bench.books.chain(ADA).run_account is None
    assert_audited(bench)


def test_memory_store_refuses_a_charge_written_twice() -> None:
    # the fake must be as strict as SQLite's primary key, or it would hide a double end
    store = MemoryStore()
    bench_row = [None] * 26
    batch = Batch()
    from outlay.flow.ledger.port import ChargeRow

    batch.charges.append(ChargeRow(b"x", *bench_row[1:]))  # type: ignore[arg-type]
    store.submit(batch, lambda error: None)
    with pytest.raises(AssertionError):
        store.submit(batch, lambda error: None)


@pytest.mark.parametrize("text", ["a\0b", "half \ud83d of one"])
def test_a_text_that_a_store_cannot_keep_stops_nothing(make: Make, text: str) -> None:
    """A provider's words stand in a reason: with a NUL in them PostgreSQL took no batch any more."""
    bench = make(budget("all", 100))
    odd, other = bench.hold(30), bench.hold(20)
    bench.books.end(odd, Ending(Status.SETTLED, Basis.OUTCOME_UNKNOWN, 30, reason=text))
    bench.settle(other, 15)
    assert bench.hold(10) is not None
    assert bench.stored("all") == (45, 10)
    bench.crash()
    assert bench.balance("all") == (55, 0)
    found = bench.audit()
    assert found is None or found.findings == ()


def test_a_crash_of_the_host_is_told_until_somebody_accepts_it(tmp_path: Path) -> None:
    """One start, or one command that opened the ledger, had made it forgotten."""
    bench = Bench("sqlite", tmp_path, [budget("all", 100)])
    bench.spend(30)
    assert isinstance(bench.store, SqliteStore)
    bench.store._db.execute("UPDATE epochs SET boot_id = 'the boot before'")
    bench.crash()
    assert bench.books.host_crashed
    bench.reopen()
    assert bench.books.host_crashed, "after a clean stop, too"
    bench.crash()
    assert bench.books.host_crashed, "and after a kill"
    bench.store.accept_crash()
    bench.crash()
    assert not bench.books.host_crashed
    bench.reopen()
    assert bench.books.was_clean and not bench.books.host_crashed
    bench.books.close()


def test_long_names_find_their_rows_again(make: Make) -> None:
    """A tag's value of a kilobyte was more than a row of PostgreSQL's index takes: no batch was written any more."""
    rng = random.Random(7)
    long = "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(3_000))
    bench = make(budget("all", 100), budget("tags", 90, **{"tag.customer": "*"}))
    who = Identity(org="acme", team="ads", tags=(("customer", long), ("other", long[::-1])))
    bench.spend(30, who)
    bench.reopen()
    bench.spend(20, who)
    assert bench.balance("all") == (50, 0)
    assert bench.stored("all") == (50, 0)
    assert bench.place(50, who) is None, "the account of the long name has 40 left"
    found = bench.audit()
    assert found is None or (found.findings, found.accounts) == ((), 2)


def test_an_amount_without_room_is_an_error_and_no_silence(make: Make) -> None:
    """SQLite's store raised, and every call after it waited for ever."""
    bench = make(budget("all", None))
    hold = bench.hold(30)
    bench.books.end(hold, Ending(Status.SETTLED, Basis.METERED, 2**70))
    bench.timers.run()
    told: list[StoreError | None] = []
    assert bench.place(10, told=lambda _hold, error: told.append(error)) is not None
    bench.timers.run()
    assert bench.kind == "memory" or isinstance(told[0], StoreError)


def test_the_file_belongs_to_one_process(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "l.db")
    with pytest.raises(StoreError, match="in use"):
        SqliteStore(tmp_path / "l.db")
    store.close(0)
    SqliteStore(tmp_path / "l.db").close(0)


def test_a_file_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "other.db"
    db = sqlite3.connect(path)
    db.execute("PRAGMA application_id = 77")
    db.execute("CREATE TABLE t (x)")
    db.commit()
    db.close()
    with pytest.raises(StoreError, match="another application"):
        SqliteStore(path)
    path.unlink()
    path.write_text("this is not a database, and long enough to be looked at" * 20)
    with pytest.raises(StoreError, match="cannot open"):
        SqliteStore(path)
