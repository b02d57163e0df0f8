"""Alerts: once per rule, account and threshold; resolved with room; run rates that say something."""

import msgspec
import pytest

from outlay.flow.windows import FOREVER
from outlay.report.alerts import (
    Alert,
    Balance,
    Kind,
    Rule,
    State,
    changes,
    crossings,
    run_rate_percent,
)

DAY = 86_400 * 10**9
START = 1_000 * DAY
RULE = Rule("r", percent=(50, 80, 100))


def balance(spent: int, **changed: object) -> Balance:
    """A month-long account with a limit of 1,000."""
    found = {
        "account_id": 1,
        "budget": "team",
        "scope": "team=search",
        "window_start": START,
        "window_end": START + 30 * DAY,
        "limit_nanos": 1_000,
        "spent_nanos": spent,
        "held_nanos": 0,
    }
    return Balance(**{**found, **changed})  # type: ignore[arg-type]


class Book:
    """Alerts as they are kept from look to look."""

    def __init__(self, *rules: Rule) -> None:
        self.rules = rules
        self.known: dict[str, Alert] = {}

    def look(self, *balances: Balance, now: int = START + 15 * DAY) -> list[tuple[int, State]]:
        changed = changes(self.known, crossings(self.rules, balances, now), now)
        self.known |= {alert.id: alert for alert in changed}
        return [(alert.threshold, alert.state) for alert in changed]


def test_each_threshold_once_a_period() -> None:
    book = Book(RULE)
    assert book.look(balance(400)) == []
    assert book.look(balance(850)) == [(50, State.FIRING), (80, State.FIRING)]
    assert book.look(balance(900)) == []
    assert book.look(balance(1_000)) == [(100, State.FIRING)]
    # the next month is another account: the old alerts end, new ones begin anew
    fresh = balance(600, account_id=2, window_start=START + 30 * DAY, window_end=START + 60 * DAY)
    found = book.look(fresh, now=START + 40 * DAY)
    assert found[0] == (50, State.FIRING)
    assert sorted(found[1:]) == [(50, State.RESOLVED), (80, State.RESOLVED), (100, State.RESOLVED)]


def test_a_raise_resolves_with_room_and_does_not_ring_again_in_the_period() -> None:
    book = Book(RULE)
    book.look(balance(820))
    assert book.look(balance(820, limit_nanos=1_060)) == []  # 77 %: too near to be calm
    assert book.look(balance(820, limit_nanos=1_200)) == [(80, State.RESOLVED)]
    assert book.look(balance(1_000, limit_nanos=1_200)) == []


def test_a_rolling_account_rings_again_after_it_was_calm() -> None:
    book = Book(Rule("r", percent=(80,)))
    rolling = {"window_start": 0, "window_end": FOREVER}
    assert book.look(balance(900, **rolling)) == [(80, State.FIRING)]
    assert book.look(balance(300, **rolling)) == [(80, State.RESOLVED)]
    assert book.look(balance(900, **rolling)) == [(80, State.FIRING)]


def test_acknowledged_is_quiet_and_resolves() -> None:
    book = Book(Rule("r", percent=(80,)))
    book.look(balance(900))
    (alert,) = book.known.values()
    book.known[alert.id] = msgspec.structs.replace(alert, state=State.ACKNOWLEDGED)
    assert book.look(balance(950)) == []
    assert book.look(balance(100)) == [(80, State.RESOLVED)]


@pytest.mark.parametrize(
    ("spent", "day", "rate"),
    [
        (100, 1, None),  # too early
        (100, 3, 100),
        (500, 15, 100),
        (750, 15, 150),
        (10, 15, 0),  # too little to say
        (500, 45, 50),  # after the end: it is what it is
    ],
)
def test_run_rates(spent: int, day: int, rate: int | None) -> None:
    assert run_rate_percent(balance(spent), START + day * DAY) == rate


def test_run_rate_alerts_before_the_money_is_gone() -> None:
    book = Book(Rule("pace", run_rate_percent=(120,)))
    assert book.look(balance(600)) == [(120, State.FIRING)]
    (alert,) = book.known.values()
    assert (alert.kind, alert.value_percent) == (Kind.RUN_RATE, 120)
    assert book.look(balance(600), now=START + 20 * DAY) == [(120, State.RESOLVED)]


def test_rules_choose_budgets_by_pattern() -> None:
    rules = [Rule("a", budgets=("team*",), percent=(50,)), Rule("b", budgets=("other",), percent=(50,))]
    found = crossings(rules, [balance(700), balance(700, account_id=2, budget="other")], START)
    assert {(item.rule.name, item.balance.budget) for item in found} == {("a", "team"), ("b", "other")}
    assert crossings(rules, [balance(1, limit_nanos=0)], START) == []
