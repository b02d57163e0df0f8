"""What another gateway spent enters the ledger once, in the windows it belongs to, and the audit still agrees."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outlay.flow.scope import Identity
from outlay.kernel.clock import NANOS_PER_SECOND
from outlay.kernel.errors import NotFound, OutlayError
from tests.store_contract.bench import ADA, KINDS, Bench, budget

TEAM = Identity(org="acme", team="search")
KEY = Identity(org="acme", team="search", user="ada", key="k1")
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


def bring(bench: Bench, name: str, identity: Identity, nanos: int, at: int | None = None) -> int:
    at = bench.clock.now() if at is None else at
    return bench.books.open_with(name, identity, nanos, at, actor="test", note="from elsewhere")


def assert_audited(bench: Bench) -> None:
    bench.timers.run()
    found = bench.audit()
    if found is not None:
        assert found.findings == ()
        assert found.overrun_nanos == 0


def test_it_counts_in_every_budget_and_only_once(make: Make) -> None:
    bench = make(budget("key", 100, key="k1"), budget("team", 200, team="search"), budget("all", None))
    assert bring(bench, "key", KEY, 60) == 60
    assert bring(bench, "team", TEAM, 90) == 30, "the key's 60 are in the team's 90"
    assert [bench.balance(name)[0] for name in ("key", "team", "all")] == [60, 90, 90]
    assert bring(bench, "key", KEY, 60) == 0
    assert bring(bench, "team", TEAM, 90) == 0
    bench.reopen()
    assert [bench.balance(name)[0] for name in ("key", "team", "all")] == [60, 90, 90]
    assert bring(bench, "key", KEY, 60) == 0, "after a restart as well"
    assert_audited(bench)


def test_what_passed_through_here_is_not_counted_again(make: Make) -> None:
    bench = make(budget("key", 100, key="k1"))
    bench.settle(bench.hold(25), 25)
    assert bring(bench, "key", KEY, 20) == 0
    assert bring(bench, "key", KEY, 40) == 15
    assert bench.balance("key") == (40, 0)
    assert_audited(bench)


def test_a_budget_past_its_limit_refuses_and_the_audit_finds_nothing(make: Make) -> None:
    bench = make(budget("key", 100, key="k1"), budget("team", 100, team="search"))
    assert bring(bench, "key", KEY, 150) == 150
    assert bring(bench, "team", TEAM, 170) == 20
    assert bench.place(1) is None
    assert_audited(bench)


def test_spend_of_an_earlier_time_stays_out_of_later_windows(make: Make) -> None:
    bench = make(budget("month", 100, "month", key="k1"), budget("day", 100, "day", team="search"))
    start = bench.clock.now() - 3 * DAY  # the bench's clock stands on a 21st
    assert bring(bench, "month", KEY, 50, start) == 50
    assert bench.balance("month") == (50, 0)
    assert bench.balance("day") == (0, 0)
    assert_audited(bench)


def test_a_rolling_window_lets_it_go_when_the_other_gateway_would_have(make: Make) -> None:
    bench = make(budget("week", 100, "7d", key="k1"))
    bench.clock.advance(30 * DAY)
    assert bring(bench, "week", KEY, 80, bench.clock.now() - 6 * DAY) == 80
    assert bench.place(30) is None
    bench.clock.advance(DAY + DAY // 2)
    hold = bench.hold(30)
    bench.settle(hold, 30)
    assert_audited(bench)


def test_a_budget_made_later_starts_from_it(make: Make) -> None:
    bench = make(budget("key", 100, key="k1"))
    bring(bench, "key", KEY, 60)
    bench.configure(budget("key", 100, key="k1"), budget("user", 70, user="ada"))
    assert bench.balance("user") == (60, 0)
    assert bench.place(11, ADA) is None
    assert_audited(bench)


def test_what_it_is_for_must_be_covered(make: Make) -> None:
    bench = make(budget("key", 100, key="k1"))
    with pytest.raises(NotFound):
        bring(bench, "none", KEY, 1)
    with pytest.raises(OutlayError):
        bring(bench, "key", TEAM, 1)
