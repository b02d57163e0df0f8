"""May it be spent: the pure decision over balances. Places nothing and waits for nothing.

*Spent*, *too large* and *busy* are different answers (see the design): `budget_spent` only if even the input and
the policy's least output exceed `limit - spent`; `call_too_large` if the call fits only with less output and may
not be clamped; `budget_busy` if only money that others hold stands in the way.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from outlay.flow.accounts import UNLIMITED, Account
from outlay.kernel.money import UNITS_PER_RATE


class Clamp(StrEnum):
    """When an output limit may be lowered so that a call fits."""

    NEVER = "never"
    WHEN_UNSET = "when_unset"
    """Only if the client stated no limit, so the operator's default is what is lowered."""
    ALWAYS = "always"


class Costing(Protocol):
    """What the decision needs of a quote (`lookup.cost.Quote`). Nanos; rate in nanos per 10**6 tokens."""

    @property
    def total_nanos(self) -> int: ...
    @property
    def output_nanos(self) -> int: ...
    @property
    def max_output_tokens(self) -> int: ...
    @property
    def choices(self) -> int: ...
    @property
    def output_rate(self) -> int: ...


class Reason(StrEnum):
    BUDGET_SPENT = "budget_spent"
    CALL_TOO_LARGE = "call_too_large"
    BUDGET_BUSY = "budget_busy"


class Admitted(msgspec.Struct, frozen=True, gc=False):
    """Fits. `max_output_tokens` is lower than quoted if clamped."""

    max_output_tokens: int
    is_clamped: bool


class Denied(msgspec.Struct, frozen=True, gc=False):
    """Does not fit because of `account`. Amounts as they stood at the decision."""

    reason: Reason
    account: Account
    needed_nanos: int
    limit_nanos: int
    spent_nanos: int
    held_nanos: int
    fits_max_tokens: int | None = None
    """`call_too_large`: the largest output limit that `limit - spent` takes."""


def fits(accounts: Sequence[Account], nanos: int) -> bool:
    """Whether every account takes a hold of `nanos` now."""
    for account in accounts:  # noqa: SIM110 - a generator expression costs three times this loop
        if account.cap - account.spent - account.held < nanos:
            return False
    return True


def authorize(
    accounts: Sequence[Account], quote: Costing, min_output_tokens: int, may_clamp: bool
) -> Admitted | Denied:
    """Decide on a quote against every account it falls under: all or none.

    `min_output_tokens` is the policy's least useful output per choice (a call that asks for less needs only that).
    """
    total = quote.total_nanos
    if fits(accounts, total):
        return Admitted(quote.max_output_tokens, False)
    fixed = total - quote.output_nanos
    least_tokens = min(min_output_tokens, quote.max_output_tokens)
    least = fixed + output_bound(quote, least_tokens)
    blocking = [account for account in accounts if account.cap < UNLIMITED]
    for account in blocking:
        if least > account.cap - account.spent:
            return _denied(Reason.BUDGET_SPENT, account, least)
    tight = [account for account in blocking if total > account.cap - account.spent]
    if not tight:
        first = next(account for account in blocking if account.available < total)
        return _denied(Reason.BUDGET_BUSY, first, total)
    narrow = min(tight, key=lambda account: account.cap - account.spent)
    if not may_clamp or quote.output_rate == 0:
        fitting = output_affordable(quote, narrow.cap - narrow.spent - fixed)
        return _denied(Reason.CALL_TOO_LARGE, narrow, total, fitting)
    share = total
    for account in blocking:
        free = account.available
        if free < least:
            return _denied(Reason.BUDGET_BUSY, account, least)
        if free < total:
            share = min(share, max(least, free // (1 + account.waiting)))
    tokens = max(least_tokens, min(output_affordable(quote, share - fixed), quote.max_output_tokens))
    return Admitted(tokens, True)


def output_bound(quote: Costing, max_output_tokens: int) -> int:
    """Nanos held for output at another limit; the same rounding as the quote's own."""
    return -(-quote.choices * max_output_tokens * quote.output_rate // UNITS_PER_RATE)


def output_affordable(quote: Costing, nanos: int) -> int:
    """Largest output limit per choice whose `output_bound` is within `nanos`; the quote's own if output is free."""
    if quote.output_rate == 0:
        return quote.max_output_tokens
    if nanos <= 0:
        return 0
    return nanos * UNITS_PER_RATE // (quote.choices * quote.output_rate)


def _denied(reason: Reason, account: Account, needed: int, fitting: int | None = None) -> Denied:
    return Denied(reason, account, needed, account.cap, account.spent, account.held, fitting)
