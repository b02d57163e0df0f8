"""Shadow mode: what would have been refused. Pure; budgets are in force as soft ones, and nothing is refused."""

from collections.abc import Sequence
from typing import Final

from outlay.flow.accounts import Account
from outlay.flow.authorize import Costing, Reason

PREFIX: Final = "shadow: "
"""How the reason of a charge begins that enforcement would have refused."""


def would_refuse(accounts: Sequence[Account], quote: Costing, hard: frozenset[str]) -> str:
    """`shadow: <code>: <budget>` if a budget named in `hard` would not have taken the hold just placed; else empty.

    Enforcement may also wait, clamp or fall back, so this is the most that it would have refused.
    """
    for account in accounts:
        limit = account.limit
        if limit is None or account.budget.name not in hard:
            continue
        if account.spent + account.held <= limit:
            continue
        fixed = quote.total_nanos - quote.output_nanos
        room = limit - account.spent
        reason = Reason.BUDGET_BUSY
        if fixed > room:
            reason = Reason.BUDGET_SPENT
        elif quote.total_nanos > room:
            reason = Reason.CALL_TOO_LARGE
        return f"{PREFIX}{reason.value}: {account.budget.name} ({account.scope})"
    return ""
