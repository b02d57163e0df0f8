"""Windows over the books, with a clock that is moved: DST, month ends, leap days, zones, jumps, streams, raises."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from outlay.flow.budgets import BudgetSpec
from outlay.flow.ledger.charge import Hold
from outlay.flow.raises import Raise
from outlay.flow.windows import parse_window
from outlay.kernel.clock import NANOS_PER_SECOND
from tests.store_contract.bench import KINDS, Bench, budget

SECOND = NANOS_PER_SECOND
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
Make = Callable[..., Bench]


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    made: list[Bench] = []

    def open_bench(at: str, *budgets: BudgetSpec) -> Bench:
        bench = Bench(request.param, tmp_path, [])
        made.append(bench)
        bench.clock.set(ns(at))
        bench.configure(*budgets)
        return bench

    yield open_bench
    for bench in made:
        bench.leave()


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


def zoned(name: str, limit: int, window: str, zone: str) -> BudgetSpec:
    return BudgetSpec(name, {"org": "acme"}, limit, parse_window(window, zone))


def assert_right(bench: Bench) -> None:
    bench.timers.run()
    found = bench.audit()
    if found is not None:
        assert found.findings == ()
        assert found.most_over_limit_nanos <= 0


@pytest.mark.parametrize(
    ("zone", "window", "last", "first"),
    [
        # LiteLLM #34896: Tokyo's day began nine hours late
        ("Asia/Tokyo", "day", "2026-11-25T14:59:59", "2026-11-25T15:00:00"),
        ("UTC", "month", "2026-11-30T23:59:59", "2026-12-01T00:00:00"),
        ("America/Los_Angeles", "month", "2026-12-01T07:59:59", "2026-12-01T08:00:00"),
        # leap day: it belongs to February, and a day follows it
        ("UTC", "month", "2028-02-29T23:59:59", "2028-03-01T00:00:00"),
        ("UTC", "day", "2028-02-28T23:59:59", "2028-02-29T00:00:00"),
        ("UTC", "year", "2028-12-31T23:59:59", "2029-01-01T00:00:00"),
        # the clock goes forward: the day has 23 hours; back: it has 25
        ("Europe/Berlin", "day", "2026-03-29T21:59:59", "2026-03-29T22:00:00"),
        ("Europe/Berlin", "day", "2026-10-25T22:59:59", "2026-10-25T23:00:00"),
        ("Asia/Kathmandu", "day", "2026-11-25T18:14:59", "2026-11-25T18:15:00"),
        ("America/Sao_Paulo", "week", "2026-11-30T02:59:59", "2026-11-30T03:00:00"),
    ],
)
def test_the_last_second_and_the_first(make: Make, zone: str, window: str, last: str, first: str) -> None:
    bench = make(last, zoned("b", 100, window, zone))
    bench.spend(100)
    assert bench.place(1) is None
    bench.clock.set(ns(first))
    assert bench.balance("b") == (0, 0)
    bench.spend(100)
    assert bench.place(1) is None
    bench.crash()
    assert bench.balance("b") == (100, 0)
    assert bench.place(1) is None
    assert_right(bench)


def test_a_day_of_25_hours_is_one_day(make: Make) -> None:
    bench = make("2026-10-24T22:00:00", zoned("day", 100, "day", "Europe/Berlin"))
    for _ in range(25):
        bench.spend(4)
        bench.clock.advance(HOUR)
    # 02:30 came twice, and all of it was Sunday; the last advance ended it
    assert bench.balance("day") == (0, 0)
    bench.clock.set(ns("2026-10-25T22:59:59"))
    assert bench.balance("day") == (100, 0)
    assert bench.place(1) is None
    assert_right(bench)


def test_24_hours_are_24_hours(make: Make) -> None:
    """LiteLLM PR 40978: "$100/24h covers 32h"."""
    bench = make("2026-03-28T12:00:00", budget("b", 100, "24h"))
    for _ in range(48):
        bench.place(5)
        bench.timers.run()
        for hold in list(bench.books._open.values()):
            bench.settle(hold, 5)
        assert bench.balance("b")[0] <= 100
        bench.clock.advance(30 * MINUTE)
    assert bench.place(5) is None
    # one day and a bucket (24 minutes) after the first, it has left
    bench.clock.advance(24 * MINUTE)
    assert bench.place(5) is not None
    assert_right(bench)


def test_a_hold_across_the_boundary_belongs_to_where_it_was_placed(make: Make) -> None:
    bench = make("2026-11-30T23:59:58", budget("month", 100, "month"), budget("hour", 100, "1h"))
    hold = bench.hold(60)
    bench.clock.advance(10 * SECOND)
    assert bench.balance("month") == (0, 0)
    fresh = bench.hold(40)
    bench.settle(hold, 55)
    assert bench.balance("month") == (0, 40)
    # the rolling hour knows no month: both holds count in it
    assert bench.balance("hour") == (55, 40)
    bench.settle(fresh, 40)
    bench.clock.set(ns("2026-11-30T23:59:59"))
    assert bench.balance("month") == (55, 0)
    bench.reopen()
    assert bench.balance("month") == (55, 0)
    assert_right(bench)


def test_a_ten_minute_stream_counts_in_a_rolling_minute_until_a_minute_after_its_end(make: Make) -> None:
    bench = make("2026-11-25T12:00:00", budget("minute", 100, "60s"))
    stream = bench.hold(70)
    for _ in range(10):
        bench.clock.advance(MINUTE)
        assert bench.balance("minute") == (0, 70)
        assert bench.place(31) is None
    bench.settle(stream, 64)
    # what it cost is spent now, when it settled
    assert bench.balance("minute") == (64, 0)
    bench.clock.advance(59 * SECOND)
    assert bench.place(37) is None
    bench.clock.advance(3 * SECOND)
    assert bench.balance("minute") == (0, 0)
    assert bench.place(100) is not None
    assert_right(bench)


def test_a_thousand_first_calls_of_a_new_window_at_once(make: Make) -> None:
    bench = make("2026-11-30T23:59:59", budget("month", 100, "month"), budget("runs", 100, "day", user="*"))
    bench.spend(100)
    bench.clock.set(ns("2026-12-01T00:00:00"))
    placed = [hold for _ in range(1_000) if (hold := bench.place(7)) is not None]
    assert len(placed) == 14
    assert bench.balance("month") == (0, 98)
    bench.timers.run()
    for hold in placed:
        bench.settle(hold, 7)
    assert bench.balance("month") == (98, 0)
    assert_right(bench)


def test_a_clock_that_steps_back_spends_in_the_window_it_shows(make: Make) -> None:
    bench = make("2026-12-01T00:00:05", budget("month", 100, "month"))
    bench.spend(90)
    bench.clock.set(ns("2026-11-30T23:59:55"))
    assert bench.balance("month") == (0, 0)
    bench.spend(100)
    bench.clock.set(ns("2026-12-01T00:00:06"))
    assert bench.balance("month") == (90, 0)
    assert bench.place(11) is None
    # forward by a year, and back: each window has kept its money
    bench.clock.set(ns("2027-12-01T00:00:00"))
    bench.spend(50)
    bench.clock.set(ns("2026-12-02T00:00:00"))
    assert bench.balance("month") == (90, 0)
    bench.crash()
    assert bench.balance("month") == (90, 0)
    assert_right(bench)


@pytest.mark.parametrize("window", ["month", "24h"])
def test_a_budget_made_in_mid_window_knows_what_was_spent(make: Make, window: str) -> None:
    bench = make("2026-11-25T12:00:00", budget("old", 1_000, "lifetime"))
    bench.spend(60)
    bench.clock.advance(HOUR)
    running = bench.hold(30)
    bench.configure(budget("old", 1_000, "lifetime"), budget("new", 100, window))
    assert bench.balance("new") == (60, 30)
    assert bench.place(11) is None
    bench.settle(running, 20)
    assert bench.balance("new") == (80, 0)
    bench.crash()
    assert bench.balance("new") == (80, 0)
    assert_right(bench)


def test_a_limit_lowered_below_what_is_spent_and_held_blocks_and_kills_nothing(make: Make) -> None:
    bench = make("2026-11-25T12:00:00", budget("b", 100, "month"))
    bench.spend(40)
    running = bench.hold(50)
    bench.configure(budget("b", 30, "month"))
    assert bench.account("b").available == -60
    assert bench.place(0) is None
    bench.settle(running, 50)
    assert bench.balance("b") == (90, 0)
    bench.clock.set(ns("2026-12-01T00:00:00"))
    assert bench.place(31) is None
    assert bench.place(30) is not None
    assert_right(bench)


def raised(bench: Bench, nanos: int, until: str) -> Raise:
    account = bench.account("b")
    return Raise("raise_1", "b", account.values, nanos, ns(until), "test", bench.clock.now())


def place(bench: Bench, nanos: int) -> Hold | None:
    """Place through a chain that is kept, as a gateway does."""
    found = bench.place(nanos)
    bench.timers.run()
    return found


def test_a_raise_ends_by_itself_and_what_it_let_through_stays_spent(make: Make) -> None:
    bench = make("2026-11-25T12:00:00", budget("b", 100, "month"))
    bench.spend(100)
    assert bench.place(1) is None
    bench.books.configure(bench.budgets, (raised(bench, 50, "2026-11-25T13:00:00"),))
    assert bench.account("b").limit == 150
    hold = place(bench, 40)
    assert hold is not None
    assert bench.place(11) is None
    bench.clock.set(ns("2026-11-25T13:00:00"))
    bench.books.end_raises(bench.clock.now())
    assert bench.account("b").limit == 100
    assert bench.account("b").available == -40
    assert bench.place(1) is None
    bench.settle(hold, 40)
    assert bench.balance("b") == (140, 0)
    assert_right(bench)
    bench.crash()
    assert bench.account("b").limit == 100
    assert bench.place(1) is None
    bench.clock.set(ns("2026-12-01T00:00:00"))
    assert bench.place(100) is not None
    assert_right(bench)


def test_a_raise_over_the_months_end_raises_the_next_one_until_it_ends(make: Make) -> None:
    bench = make("2026-11-30T12:00:00", budget("b", 100, "month"))
    bench.books.configure(bench.budgets, (raised(bench, 20, "2026-12-01T06:00:00"),))
    bench.settle(bench.hold(120), 120)
    bench.clock.set(ns("2026-12-01T00:00:00"))
    assert bench.place(121) is None
    hold = place(bench, 110)
    assert hold is not None
    bench.settle(hold, 10)
    bench.clock.set(ns("2026-12-01T06:00:00"))
    assert bench.place(91) is None
    assert bench.place(90) is not None
    assert_right(bench)


def test_a_hold_that_grows_fits_in_every_account_or_does_not_grow(make: Make) -> None:
    bench = make("2026-11-25T12:00:00", budget("b", 100, "month"), budget("hour", 60, "1h"))
    told: list[object] = []
    hold = bench.hold(30)
    assert bench.books.extend(hold, 20, told.append)
    assert told == []
    bench.timers.run()
    assert (told, hold.nanos, bench.balance("b"), bench.balance("hour")) == ([None], 50, (0, 50), (0, 50))
    assert not bench.books.extend(hold, 11, told.append)
    assert bench.balance("b") == (0, 50)
    assert bench.place(11) is None
    assert_right(bench)
    bench.crash()
    # a dead process's hold is booked at what it had grown to
    assert bench.balance("b") == (50, 0)
    assert_right(bench)
    other = bench.hold(5)
    assert bench.books.extend(other, 3, told.append)
    bench.settle(other, 6)
    assert (bench.balance("b"), told) == ((56, 0), [None])
    assert_right(bench)
