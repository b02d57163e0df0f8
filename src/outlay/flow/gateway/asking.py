"""`/outlay/v1/raises`: a caller whose call was refused asks for more, and looks up what was decided.

A caller may only ask about calls of its own key, and sees no amounts of budgets above its own scope.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from outlay.flow.asks import RefusedCall
from outlay.flow.gateway.client import Request
from outlay.flow.gateway.entries import Memo
from outlay.flow.gateway.guard import Step
from outlay.flow.gateway.refusal import Refusal
from outlay.flow.gateway.snapshot import Settings
from outlay.flow.scope import Identity
from outlay.kernel.errors import OutlayError
from outlay.kernel.ids import id_text

if TYPE_CHECKING:
    from outlay.flow.gateway.admission import Admission
    from outlay.flow.gateway.exchange import Exchange
    from outlay.flow.gateway.server import Gateway

RAISES_PATH: Final = "/outlay/v1/raises"
MAX_BODY: Final = 16 * 1024
_SHOWN: Final = ("id", "state", "reason", "at", "budget", "request_id", "decided_at", "note", "until")
_NOBODY: Final = Refusal(404, "raises_not_taken", "Nobody takes requests for raises here.")
_ASKED: Final = ("request_id", "usd", "hours", "reason")


class Approving(Protocol):
    """Who keeps what is asked for."""

    def ask(self, said: Mapping[str, Any], actor: str) -> dict[str, Any]: ...
    def asks(self, state: str | None = None) -> list[dict[str, Any]]: ...


def remember_paused(
    gateway: "Gateway", exchange: "Admission", memo: Memo, refusal: Refusal, model: str
) -> None:
    """A call is refused because an order pauses it: its caller may ask to go on."""
    identity = memo.caller.identity(memo.key, "", model, "", gateway.snapshot.tag_rules)
    if refusal.code != "paused" or isinstance(identity, Refusal):
        return
    name = f"{refusal.fields['order']}:{refusal.fields['scope']}"
    gateway.remember_refused(
        RefusedCall(id_text(exchange.id), exchange.began_at, identity, refusal.code, order=name)
    )


def pause_at_rung(gateway: "Gateway", request_id: bytes, now: int, identity: Identity, step: Step) -> Refusal:
    """The refusal of a ladder that pauses: a raise of the budget that is nearly spent lets the work go on."""
    account, settings = step.account, gateway.snapshot.settings
    limit = account.limit or 0
    # a raise to where this is just under the rung, and a tenth of the limit more
    goes_on_at = account.spent * 100 // max(1, step.rung.at_percent) + 1
    needed = max(goes_on_at, limit) + limit // 10 - account.spent
    gateway.remember_refused(
        RefusedCall(
            id_text(request_id),
            now,
            identity,
            "paused",
            account.budget.name,
            account.values,
            "",
            limit,
            account.spent,
            account.held,
            needed,
        )
    )
    return pause_of(step, settings)


def pause_of(step: Step, settings: Settings) -> Refusal:
    """What a ladder that pauses says; `raise_url` still has its `{request_id}`."""
    account = step.account
    fields: dict[str, object] = {
        "policy": step.policy.name,
        "budget": account.budget.name,
        "scope": account.scope,
    }
    fields["at_percent"] = step.rung.at_percent
    if settings.raise_url:
        fields["raise_url"] = settings.raise_url
    text = (
        f"Policy {step.policy.name!r} pauses calls from {step.rung.at_percent} % of budget"
        f" {account.budget.name!r} on. It goes on when somebody approves more."
    )
    return Refusal(402, "paused", text, fields)


def answer_raises(gateway: "Gateway", exchange: "Exchange", memo: Memo, request: Request, path: str) -> bool:
    """Answer `POST /outlay/v1/raises` and `GET /outlay/v1/raises/{id}`; False if it is neither."""
    is_list = path == RAISES_PATH
    if not is_list and not path.startswith(RAISES_PATH + "/"):
        return False
    if request.method == b"POST" and is_list:
        _take(gateway, exchange, memo, request.body)
        return True
    if request.method == b"GET":
        _show(gateway, exchange, memo, path.removeprefix(RAISES_PATH).strip("/"))
        return True
    return False


def _show(gateway: "Gateway", exchange: "Exchange", memo: Memo, wanted: str) -> None:
    approving = gateway.approving
    if approving is None:
        exchange.refuse(_NOBODY)
        return
    owner = memo.key.owner
    found = [ask for ask in approving.asks() if ask["requester"] == owner and wanted in ("", ask["id"])]
    if wanted and not found:
        exchange.refuse(Refusal(404, "raise_not_found", "This key asked for no raise of that id."))
        return
    shown = [{name: ask[name] for name in _SHOWN} for ask in found]
    exchange.answer_whole(200, msgspec.json.encode(shown[0] if wanted else {"raises": shown}))


def _take(gateway: "Gateway", exchange: "Exchange", memo: Memo, body: bytes) -> None:
    approving = gateway.approving
    if approving is None:
        exchange.refuse(_NOBODY)
        return
    try:
        said = msgspec.json.decode(body[:MAX_BODY], type=dict[str, Any])
    except (ValueError, RecursionError):
        said = {}
    unknown = sorted(set(said) - set(_ASKED))
    request_id = said.get("request_id")
    if unknown or not isinstance(request_id, str):
        text = f"Send a JSON object with `request_id` of the refused call and `reason`; may have {', '.join(_ASKED)}."
        exchange.refuse(Refusal(422, "bad_ask", text, {"param": unknown[0] if unknown else "request_id"}))
        return
    call = gateway.refused_calls.get(request_id)
    if call is None or not memo.key.owns(call.identity):
        exchange.refuse(Refusal(404, "request_not_found", "No refused request of this key has that id."))
        return
    try:
        made = approving.ask(said, memo.key.owner)
    except OutlayError as error:
        exchange.refuse(Refusal(error.http_status, error.code, str(error)))
        return
    exchange.answer_whole(201, msgspec.json.encode({name: made[name] for name in _SHOWN}))
