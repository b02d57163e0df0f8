"""What a refused call raises: Outlay's own error, which is also the wrapped SDK's error of that status.

An `except` for either catches it. The vendor's class is only known at run time, so the joined class is made then.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from outlay.kernel.errors import Fault, OutlayError

FIELDS: Final = (
    "budget",
    "scope",
    "limit",
    "spent",
    "held",
    "needed",
    "resets_at",
    "raise_url",
    "currency",
    "fits_max_tokens",
    "reason",
    "param",
    "policy",
    "opens_at",
)
"""Fields of a refusal's body that become attributes; None where the refusal does not say them."""
BUDGET_CODES: Final = frozenset(
    {"budget_spent", "call_too_large", "budget_busy", "run_calls_spent", "run_expired", "paused", "killed"}
)
"""Codes that mean that there is no money (or leave) to spend, rather than that the call cannot be metered."""


class CallRefused(OutlayError):
    """Outlay did not let a call leave. Nothing was spent. Also an instance of the wrapped SDK's own error.

    `error_code` is the refusal's code (`budget_spent`, `model_unpriced`, `route_not_metered`, ...), `refusal_status`
    the HTTP status it has at a gateway. Amounts (`limit`, `spent`, `held`, `needed`) are USD as decimal text.
    """

    fault = Fault.CALLER
    error_code = "refused"
    refusal_status = 403
    explanation = ""
    """One sentence for a person."""
    budget: str | None = None
    scope: str | None = None
    limit: str | None = None
    spent: str | None = None
    held: str | None = None
    needed: str | None = None
    resets_at: str | None = None
    raise_url: str | None = None
    currency: str | None = None
    fits_max_tokens: int | None = None
    reason: str | None = None
    param: str | None = None
    policy: str | None = None
    opens_at: str | None = None


class BudgetExceeded(CallRefused):
    """A budget, a run or a person stands against the call: the 402 (or 429, 403) of a gateway, with its fields."""

    refusal_status = 402


def is_about_money(code: str) -> bool:
    """Whether a refusal's code makes it a `BudgetExceeded`."""
    return code in BUDGET_CODES


def plain(status: int, code: str, message: str, fields: Mapping[str, object]) -> CallRefused:
    """A refusal where no SDK's error fits."""
    error = (BudgetExceeded if is_about_money(code) else CallRefused)(message)
    _fill(error, status, code, message, fields)
    # an SDK's own class may have a `code` of its own; ours has none
    error.code = code
    return error


def joined(error: Exception, status: int, code: str, message: str, fields: Mapping[str, object]) -> Exception:
    """The SDK's `error` of a refusal, made an instance of ours too. Its own attributes stay."""
    theirs: Any = type(error)
    error.__class__ = _joined_class(BudgetExceeded if is_about_money(code) else CallRefused, theirs)
    _fill(error, status, code, message, fields)
    if not isinstance(getattr(error, "code", None), int):
        vars(error)["code"] = code
    return error


def _fill(error: Any, status: int, code: str, message: str, fields: Mapping[str, object]) -> None:
    known = vars(error)
    known["error_code"], known["refusal_status"], known["explanation"] = code, status, message
    known.update({name: fields[name] for name in FIELDS if fields.get(name) is not None and name in fields})


@lru_cache(maxsize=64)
def _joined_class(ours: Any, theirs: Any) -> Any:
    if issubclass(theirs, ours):
        return theirs
    return type(ours.__name__, (ours, theirs), {"__module__": ours.__module__, "__doc__": ours.__doc__})
