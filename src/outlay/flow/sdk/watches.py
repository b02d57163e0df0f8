"""The two ways in which a wrapped client's requests are watched: metered here, or marked for a gateway that meters."""

from collections.abc import Generator, Mapping
from typing import Any, Final, Protocol

import msgspec

from outlay.flow.gateway.refusal import Refusal
from outlay.flow.gateway.snapshot import parse_base_url
from outlay.flow.ledger.directory import RUN_BUDGET
from outlay.flow.scope import scope_text
from outlay.flow.sdk.errors import CallRefused
from outlay.flow.sdk.exchange import exchange
from outlay.flow.sdk.meter import Meter, Outgoing
from outlay.flow.sdk.runs import Run, current_run
from outlay.flow.sdk.steps import Incoming, Outcome, ReadAll, Refused, Send, Step, Streamed, Whole
from outlay.flow.sdk.transport import made_response
from outlay.kernel.clock import Clock
from outlay.kernel.ids import IdMaker, id_text
from outlay.kernel.money import MoneyError, usd_to_nanos
from outlay.wire.intent import Dialect
from outlay.wire.refusal import error_body
from outlay.wire.routes import Metering, find_route

REQUEST_ID: Final = b"x-outlay-request-id"
MAX_REFUSAL_BYTES: Final = 1024 * 1024
_COST: Final = b"x-outlay-cost-usd"
_LET_THROUGH: Final = ("upstream_", "internal_error")
"""How codes begin by which a call was let through and came to nothing."""
_STANDARD: Final = frozenset({"message", "type", "code", "request_id"})


class Refuser(Protocol):
    """How an SDK learns of a refusal: a response, or an error raised at once."""

    def __call__(self, request: Any, refusal: Refusal, request_id: str) -> Any: ...


class EmbeddedWatch:
    """Every request is held, sent and settled here; see `transport.Watch`."""

    def __init__(self, meter: Meter, refuser: Refuser) -> None:
        self.meter = meter
        self._refuser = refuser

    def exchange(self, request: Outgoing, patience_s: float) -> Generator[Step, Any, Outcome]:
        """See `transport.Watch`."""
        return exchange(self.meter, request, patience_s)

    def refuse(self, request: Any, refusal: Refusal) -> Any:
        """See `transport.Watch`."""
        return self._refuser(request, refusal, id_text(self.meter.ledger.new_id()))


class RemoteWatch:
    """Requests go to a gateway, with the run of the context; one that would go elsewhere is refused."""

    def __init__(self, gateway: str, clock: Clock, refuser: Refuser, reads_errors: bool) -> None:
        """`reads_errors`: the SDK's errors are made here, so refusals of the gateway are read here."""
        self._address = parse_base_url(gateway)
        self.place = gateway
        self._refuser = refuser
        self._reads_errors = reads_errors
        self._ids = IdMaker(clock)

    def run_balance(self, run: Run) -> tuple[int, int, int | None]:
        """See `runs.Till`: what the gateway has said last."""
        return run.told_nanos, 0, run.told_limit_nanos

    def exchange(self, request: Outgoing, patience_s: float) -> Generator[Step, Any, Outcome]:
        """See `transport.Watch`."""
        if (request.host, request.port) != (self._address.host, self._address.port):
            text = f"This client goes through {self.place}; a call to {request.host}:{request.port} would go past it."
            return Refused(Refusal(422, "not_the_gateway", text))
        run = current_run()
        match = find_route(request.method, request.path)
        is_counted = match is None or match.route.metering not in (Metering.FREE, Metering.LOCAL)
        counted = run if is_counted else None
        refusal = None if counted is None else counted.enter(self)
        if refusal is not None:
            return Refused(refusal)
        answer = yield Send(changes=() if run is None else tuple(run.headers().items()))
        if run is not None:
            self._note(run, answer.header(b"x-outlay-run-cost-usd"))
        if not _is_own(answer) or (run is None and not self._reads_errors):
            return Streamed(answer, None, ())
        read = yield ReadAll(answer, MAX_REFUSAL_BYTES)
        refusal = self._refusal(answer, read.body)
        if refusal is None:
            return Whole(answer, read.body, ())
        if run is not None:
            _note_limit(run, refusal)
        if counted is not None and not refusal.code.startswith(_LET_THROUGH):
            counted.leave()
        return Refused(refusal) if self._reads_errors else Whole(answer, read.body, ())

    def _refusal(self, answer: Incoming, body: bytes) -> Refusal | None:
        if self._reads_errors:
            return google_refusal(answer.status, body)
        try:
            said = stated_refusal(msgspec.json.decode(body), answer.header(REQUEST_ID).decode("latin-1"))
        except msgspec.DecodeError:
            return None
        return None if said is None else Refusal(answer.status, *said)

    def refuse(self, request: Any, refusal: Refusal) -> Any:
        """See `transport.Watch`."""
        return self._refuser(request, refusal, id_text(self._ids.make()))

    def _note(self, run: Run, cost: bytes) -> None:
        if not cost:
            return
        try:
            nanos = usd_to_nanos(cost.decode("latin-1"))
        except MoneyError:
            return
        run.told_nanos = max(nanos, run.told_nanos)
        if run.told_limit_nanos is not None and run.told_nanos > run.told_limit_nanos:
            # somebody has raised it since
            run.told_limit_nanos = None


def _is_own(answer: Incoming) -> bool:
    """Whether an error is the gateway's own; a provider's says what it has cost, too."""
    size = answer.header(b"content-length")
    return (
        answer.status >= 400
        and bool(answer.header(REQUEST_ID))
        and not answer.header(_COST)
        and size.isdigit()
        and int(size) <= MAX_REFUSAL_BYTES
    )


def _note_limit(run: Run, refusal: Refusal) -> None:
    """Remember the limit of a run that a refusal names: a lower one of earlier is in force at the gateway."""
    fields = refusal.fields
    if fields.get("budget") != RUN_BUDGET.name or fields.get("limit") is None:
        return
    try:
        limit, spent = (usd_to_nanos(str(fields.get(name))) for name in ("limit", "spent"))
    except MoneyError:
        return
    for one in run.line():
        if f",{scope_text((('run', one.id),))}," in f",{fields.get('scope')},":
            one.told_limit_nanos, one.told_nanos = limit, max(spent, one.told_nanos)


def refused_response(dialect: Dialect, request: Any, refusal: Refusal, request_id: str) -> Any:
    """A refusal as the vendor's API would answer it; the SDKs of OpenAI and Anthropic make their error of it."""
    body = error_body(dialect, refusal.status, refusal.code, refusal.message, refusal.fields, request_id)
    headers = {
        "content-type": "application/json",
        "x-outlay-request-id": request_id,
        # asking again cannot help: what can be waited for has been
        "x-should-retry": "false",
    }
    return made_response(request, refusal.status, headers, body)


def stated_refusal(body: object, request_id: str | None) -> tuple[str, str, Mapping[str, object]] | None:
    """(code, message, fields) of an error body of OpenAI's or Anthropic's dialect, if Outlay has written it."""
    if not isinstance(body, Mapping) or request_id is None:
        return None
    error = body.get("error", body)
    if not isinstance(error, Mapping) or request_id not in (body.get("request_id"), error.get("request_id")):
        return None
    code, message = error.get("code"), error.get("message")
    if not isinstance(code, str) or not isinstance(message, str):
        return None
    return code, message, {name: value for name, value in error.items() if name not in _STANDARD}


def google_refusal(status: int, body: bytes) -> Refusal | None:
    """The refusal that a gateway's error in Google's dialect is; None for an error of the provider's own."""
    try:
        found = msgspec.json.decode(body)
        error = found["error"]
        info = next(one for one in error["details"] if one.get("domain") == "outlay")
        return Refusal(status, info["reason"].lower(), error["message"], dict(info["metadata"]))
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError, StopIteration):
        return None


def refused_connection(name: str) -> CallRefused:
    """What opening a connection raises that would carry calls past the meter."""
    from outlay.flow.sdk.errors import plain

    text = f"{name} opens a connection whose calls Outlay cannot meter here; use a gateway's WebSocket routes instead."
    return plain(404, "route_not_metered", text, {})
