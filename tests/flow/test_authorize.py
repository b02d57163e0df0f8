"""Spent, too large, busy, admitted, clamped: one line a case. Amounts in nanos; output costs 10 nanos a token."""

from dataclasses import dataclass

import pytest

from outlay.flow.accounts import Account
from outlay.flow.authorize import (
    Admitted,
    Denied,
    Reason,
    authorize,
    fits,
    output_affordable,
    output_bound,
)
from outlay.flow.budgets import BudgetSpec
from outlay.flow.windows import parse_window

MTOK = 1_000_000


@dataclass
class Quote:
    """100 nanos of input and `max_output_tokens` at 10 nanos, unless said otherwise."""

    max_output_tokens: int = 90
    choices: int = 1
    output_rate: int = 10 * MTOK
    fixed: int = 100

    @property
    def output_nanos(self) -> int:
        return output_bound(self, self.max_output_tokens)

    @property
    def total_nanos(self) -> int:
        return self.fixed + self.output_nanos


def account(
    limit: int | None, spent: int = 0, held: int = 0, *, hard: bool = True, waiting: int = 0
) -> Account:
    made = Account(
        1, BudgetSpec("b", {"org": "acme"}, limit, parse_window("lifetime"), hard), (("org", "acme"),), 0, 1
    )
    made.spent, made.held, made.waiting = spent, held, waiting
    return made


# the quote: 100 input + 90 tokens = 1000; the least useful output is 16 tokens, so 260
TABLE = [
    # (limit, spent, held), may clamp -> reason or admitted tokens
    ((1000, 0, 0), False, 90),
    ((999, 0, 0), False, Reason.CALL_TOO_LARGE),
    ((999, 0, 0), True, 89),
    ((1500, 0, 501), False, Reason.BUDGET_BUSY),
    ((1500, 0, 501), True, Reason.BUDGET_BUSY),
    ((1500, 500, 0), False, 90),
    ((1500, 501, 0), True, 89),
    ((1500, 1240, 0), True, 16),
    ((1500, 1241, 0), True, Reason.BUDGET_SPENT),
    ((1500, 1241, 0), False, Reason.BUDGET_SPENT),
    ((1500, 2000, 0), True, Reason.BUDGET_SPENT),
    ((900, 0, 640), True, 16),
    ((900, 0, 641), True, Reason.BUDGET_BUSY),
    ((900, 0, 641), False, Reason.CALL_TOO_LARGE),
    ((0, 0, 0), True, Reason.BUDGET_SPENT),
    ((None, 10**15, 10**15), False, 90),
]


@pytest.mark.parametrize(("figures", "may_clamp", "wanted"), TABLE)
def test_table(figures: tuple[int | None, int, int], may_clamp: bool, wanted: Reason | int) -> None:
    budget = account(*figures)
    decision = authorize([budget], Quote(), 16, may_clamp)
    if isinstance(wanted, Reason):
        assert isinstance(decision, Denied)
        assert decision.reason is wanted
        assert decision.account is budget
        assert (decision.limit_nanos, decision.spent_nanos, decision.held_nanos) == figures
    else:
        assert decision == Admitted(wanted, wanted != 90)
        assert fits([budget], 100 + wanted * 10)


def test_every_reason_is_in_the_table() -> None:
    assert {wanted for _, _, wanted in TABLE if isinstance(wanted, Reason)} == set(Reason)


def test_too_large_tells_what_would_fit_and_it_does() -> None:
    budget = account(1500, 501)
    decision = authorize([budget], Quote(), 16, False)
    assert isinstance(decision, Denied)
    assert decision.fits_max_tokens == 89
    assert isinstance(authorize([budget], Quote(89), 16, False), Admitted)
    assert isinstance(authorize([budget], Quote(90), 16, False), Denied)


def test_soft_and_metered_budgets_never_refuse() -> None:
    soft = account(10, 500, 500, hard=False)
    assert authorize([soft, account(None, 9)], Quote(), 16, False) == Admitted(90, False)


def test_the_narrowest_of_several_decides() -> None:
    wide, narrow, soft = account(10_000), account(600), account(1, hard=False)
    assert authorize([wide, narrow, soft], Quote(), 16, True) == Admitted(50, True)
    spent = account(1000, 900)
    decision = authorize([wide, narrow, spent], Quote(), 16, True)
    assert isinstance(decision, Denied)
    assert (decision.reason, decision.account) == (Reason.BUDGET_SPENT, spent)


def test_one_spent_and_one_busy_is_spent() -> None:
    busy, spent = account(1000, 0, 1000), account(1000, 1000)
    decision = authorize([busy, spent], Quote(), 16, True)
    assert isinstance(decision, Denied)
    assert decision.reason is Reason.BUDGET_SPENT


@pytest.mark.parametrize(("waiting", "tokens"), [(0, 70), (1, 30), (2, 16), (50, 16)])
def test_a_clamped_call_leaves_those_who_wait_their_share(waiting: int, tokens: int) -> None:
    # 800 free: alone 70 tokens, shared with one 400 -> 30, never below the least
    assert authorize([account(800, waiting=waiting)], Quote(), 16, True) == Admitted(tokens, True)


def test_choices_multiply() -> None:
    assert authorize([account(1000)], Quote(30, choices=3), 16, False) == Admitted(30, False)
    assert authorize([account(999)], Quote(30, choices=3), 16, True) == Admitted(29, True)
    decision = authorize([account(579)], Quote(30, choices=3), 16, True)
    assert isinstance(decision, Denied)
    assert (decision.reason, decision.needed_nanos) == (Reason.BUDGET_SPENT, 580)


def test_free_output() -> None:
    free = Quote(90, output_rate=0)
    assert authorize([account(100)], free, 16, True) == Admitted(90, False)
    decision = authorize([account(99)], free, 16, True)
    assert isinstance(decision, Denied)
    assert decision.reason is Reason.BUDGET_SPENT
    decision = authorize([account(150, 0, 51)], free, 16, True)
    assert isinstance(decision, Denied)
    assert decision.reason is Reason.BUDGET_BUSY


def test_a_call_that_asks_for_less_than_the_least_needs_only_that() -> None:
    assert authorize([account(150)], Quote(5), 16, False) == Admitted(5, False)
    decision = authorize([account(149)], Quote(5), 16, True)
    assert isinstance(decision, Denied)
    assert decision.needed_nanos == 150


def test_no_accounts_admit() -> None:
    assert authorize([], Quote(), 16, False) == Admitted(90, False)


@pytest.mark.parametrize("choices", [1, 2, 7])
@pytest.mark.parametrize("rate", [1, 999_999, 1_000_001, 37_500_000])
def test_affordable_is_the_largest_that_fits(choices: int, rate: int) -> None:
    quote = Quote(10**9, choices=choices, output_rate=rate)
    for nanos in (*range(1, 60), 10**6 + 1):
        tokens = output_affordable(quote, nanos)
        assert output_bound(quote, tokens) <= nanos < output_bound(quote, tokens + 1)
    assert output_affordable(quote, 0) == output_affordable(quote, -5) == 0
