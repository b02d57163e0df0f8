"""Why a call was refused, as the caller reads it: status, code, one sentence, and the budget's figures. No I/O."""

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from outlay.flow.authorize import Denied, Reason
from outlay.flow.gateway.disclosure import may_see
from outlay.flow.gateway.keys import KeySpec
from outlay.flow.gateway.snapshot import Settings
from outlay.flow.orders import Order, OrderKind
from outlay.flow.runs import Run
from outlay.kernel.money import format_usd

STATUS = {Reason.BUDGET_SPENT: 402, Reason.CALL_TOO_LARGE: 402, Reason.BUDGET_BUSY: 429}
REQUEST_ID = "{request_id}"
"""In a `raise_url`: where the request's id goes."""
FIRM_CODES = frozenset({"killed", "paused"})
"""Refusals that shadow mode makes, too: a person gave the order."""
CODEX_HEADERS = b"x-codex-"
"""Headers that only Codex sends begin so."""
_GO_ON = (
    "A run's calls and time cannot be raised: go on in a run of another name that is not below this one;"
    " if the key pins this run, ask its operator."
)


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """An answer that Outlay gives itself. `fields` join the vendor's error object."""

    status: int
    code: str
    message: str
    fields: Mapping[str, object] = {}
    retry_after_s: int | None = None

    @property
    def is_final(self) -> bool:
        """Whether asking again cannot help."""
        return self.status < 500 and self.retry_after_s is None

    def status_for(self, headers: list[tuple[bytes, bytes]]) -> int:
        """The HTTP status as the client understands it.

        Codex takes 400 for an answer and tries every other status five times over each transport, whatever
        `x-should-retry` says (openai/codex, codex-rs: `map_api_error` and `CodexErr::is_retryable`), so what is
        final is 400 to it. The body says the same in both cases. 426 is how it learns to go on without a WebSocket.
        """
        if (
            self.is_final
            and self.status != 426
            and any(name.startswith(CODEX_HEADERS) for name, _ in headers)
        ):
            return 400
        return self.status


def stopped_by(order: Order, settings: Settings) -> Refusal:
    """The refusal of a call that an order stops; `raise_url` still has its `{request_id}`."""
    fields: dict[str, object] = {
        "order": order.kind.value,
        "scope": order.scope_text,
        "reason": order.reason,
        "since": iso(order.at),
    }
    if order.kind is OrderKind.KILL:
        return Refusal(403, "killed", f"Stopped ({order.scope_text}): {order.reason}.", fields)
    if settings.raise_url:
        fields["raise_url"] = settings.raise_url
    text = f"Paused ({order.scope_text}): {order.reason}. It goes on when somebody approves it."
    return Refusal(402, "paused", text, fields)


def run_barred(run: Run, code: str) -> Refusal:
    """The refusal of a call whose run may make no more: its calls or its time are spent.

    It has no `raise_url`: nobody can raise these two limits, so the message says how to go on instead.
    """
    fields: dict[str, object] = {"run": run.name, "opened_at": iso(run.opened_at), "calls": run.calls}
    if run.max_calls is not None:
        fields["max_calls"] = run.max_calls
    if run.deadline is not None:
        fields["ends_at"] = iso(run.deadline)
    what = (
        f"The run {run.name!r} is over: its time is spent."
        if code == "run_expired"
        else f"The run {run.name!r} has made its {run.max_calls} calls."
    )
    return Refusal(402, code, f"{what} {_GO_ON}", fields)


def with_link(fields: Mapping[str, object], request_id: str, *, is_known: bool) -> Mapping[str, object]:
    """A refusal's fields with the request's id in `raise_url`.

    Where no call is remembered by that id (`is_known`), a link that names it would lead nowhere and is left out.
    """
    link = str(fields.get("raise_url", ""))
    filled = link.replace(REQUEST_ID, request_id)
    if request_id in filled and not is_known:
        return {name: value for name, value in fields.items() if name != "raise_url"}
    return fields if filled == link else {**fields, "raise_url": filled}


def refusal_of(denied: Denied, settings: Settings, request_id: str, now: int, key: KeySpec) -> Refusal:
    """The refusal of a denied hold. Amounts of budgets above the caller's own scope only if settings say so."""
    account = denied.account
    budget = account.budget
    resets_at = account.resets_at(now)
    fields: dict[str, object] = {"budget": budget.name, "scope": account.scope}
    told = may_see(budget, key, settings)
    if told:
        fields.update(
            currency="USD",
            limit=format_usd(denied.limit_nanos),
            spent=format_usd(denied.spent_nanos),
            held=format_usd(denied.held_nanos),
            needed=format_usd(denied.needed_nanos),
        )
    fields["resets_at"] = None if resets_at is None else iso(resets_at)
    is_busy = denied.reason is Reason.BUDGET_BUSY
    if settings.raise_url and not is_busy:
        # what is busy passes by itself; no raise of it is taken
        fields["raise_url"] = settings.raise_url.replace(REQUEST_ID, request_id)
    if denied.reason is Reason.CALL_TOO_LARGE and told:
        # times the price, it is what is left
        fields["fits_max_tokens"] = denied.fits_max_tokens
    return Refusal(
        STATUS[denied.reason],
        denied.reason.value,
        _sentence(denied, told, resets_at),
        fields,
        settings.retry_after_s if is_busy else None,
    )


def _sentence(denied: Denied, told: bool, resets_at: int | None) -> str:
    account = denied.account
    name = f"Budget {account.budget.name!r} ({account.scope})"
    figures = ""
    if told:
        figures = (
            f": ${format_usd(denied.spent_nanos)} spent and ${format_usd(denied.held_nanos)} held"
            f" of ${format_usd(denied.limit_nanos)}, this call may need ${format_usd(denied.needed_nanos)}"
        )
    if denied.reason is Reason.BUDGET_BUSY:
        return f"{name} is busy{figures}. Calls in flight hold the rest; try again shortly."
    until = "It does not reset." if resets_at is None else f"It resets at {iso(resets_at)}."
    if denied.reason is Reason.CALL_TOO_LARGE:
        fits = f" It fits with an output limit of {denied.fits_max_tokens or 0} tokens." if told else ""
        return f"{name} cannot cover this call{figures}.{fits} {until}"
    return f"{name} is spent{figures}. {until}"


def iso(nanos: int) -> str:
    """A time as ISO UTC text with a `Z`."""
    return datetime.fromtimestamp(nanos // 1_000_000_000, UTC).isoformat().replace("+00:00", "Z")
