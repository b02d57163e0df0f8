"""What the mock provider decides: routes, keys, the behaviour of a request, its meter, and the `/_mock` controls.

Must not know sockets: a `Call` goes in, an answer and its behaviour come out.
"""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from outlay.testing import bedrock_room
from outlay.testing.answer import Answer, Identity, Piece
from outlay.testing.behaviour import (
    HEADER_PREFIX,
    Behaviour,
    BehaviourError,
    Failure,
    changed,
    parse_directive,
)
from outlay.testing.call import MALFORMED, Ask, Call, Charge, Reply
from outlay.testing.meter import Meter, MeterEntry, Outcome, Tokens
from outlay.testing.rooms import Rooms, error_answer
from outlay.testing.routes import WEBSOCKET, Found, RouteTable, Vendor
from outlay.testing.talk import Talk

Changes = Mapping[str, object]
"""Knob -> value; see `Behaviour`."""

MAX_QUEUE = 100_000
"""Queued behaviours: more is a test that never drains them."""
_KEY_SUBPROTOCOL = "openai-insecure-api-key."
"""Browsers cannot set headers on a WebSocket; OpenAI takes the key as a subprotocol."""
_KEY_HEADERS = (b"x-api-key", b"x-goog-api-key", b"api-key")


class Verdict(msgspec.Struct, gc=False):
    """What becomes of a call."""

    answer: Answer
    behaviour: Behaviour | None
    sequence: int
    """0: a control or listing call that the meter ignores."""


class Service:
    """State of one mock provider. Used by its event loop's thread; the setters may be called from another."""

    def __init__(
        self,
        meter: Meter,
        behaviour: Behaviour,
        *,
        models: Iterable[str],
        api_keys: Iterable[str] | None,
        keep_calls: int,
        aws_keys: Mapping[str, str] | None = None,
    ) -> None:
        self.meter = meter
        self.initial = behaviour
        self.default = behaviour
        self.by_model: dict[str, Changes] = {}
        self.queued: deque[Changes] = deque()
        self.calls: deque[Call] = deque(maxlen=keep_calls)
        self._keep_calls = keep_calls
        self._models = list(models)
        self._api_keys = None if api_keys is None else frozenset(api_keys)
        self._aws_keys = None if aws_keys is None else dict(aws_keys)
        self._sequence = 0
        self._serial_head = f"{time.time_ns() & 0xFFFFFF:06x}"
        self._rooms = Rooms(self._models, self.charge, self.line_behaviour)
        self._table = RouteTable(self._rooms.routes())
        self._talks = self._rooms.talks()

    def change(self, changes: Changes) -> None:
        """Change the default behaviour. Raises `BehaviourError`."""
        self.default = changed(self.default, changes)

    def change_model(self, model: str, changes: Changes) -> None:
        """Behaviour of one requested model, over the default. Raises `BehaviourError`."""
        changed(self.default, changes)
        self.by_model[model] = dict(changes)

    def enqueue(self, *changes: Changes) -> None:
        """Behaviours of the next metered requests, one each, over default and model. Raises `BehaviourError`."""
        if len(self.queued) + len(changes) > MAX_QUEUE:
            raise BehaviourError(f"more than {MAX_QUEUE} behaviours in the queue")
        for entry in changes:
            changed(self.default, entry)
        self.queued.extend(dict(entry) for entry in changes)

    def reset(self) -> None:
        """Forget meter, calls, queue and every change since the start."""
        self.meter.reset()
        self.calls.clear()
        self.queued.clear()
        self.by_model = {}
        self.default = self.initial
        self._rooms.reset()

    def refuses_connection(self) -> bool:
        """Whether a connection that was just accepted is to be closed at once."""
        if self.queued:
            if self.queued[0].get("failure") != Failure.REFUSE:
                return False
            self.queued.popleft()
        elif self.default.failure is not Failure.REFUSE:
            return False
        self.meter.refused_connections += 1
        return True

    def decide(self, call: Call) -> Verdict:
        """The answer to a call. Metered calls are begun in the meter; the caller must end each by `end`."""
        if call.path.startswith("/_mock/"):
            return Verdict(self._control(call), None, 0)
        if self._keep_calls:
            self.calls.append(call)
        found = self._table.find(call.method, call.path)
        if found is None:
            return Verdict(self._unknown(call), None, 0)
        if not found.route.is_metered:
            return self._decide_free(call, found)
        self._sequence += 1
        self.meter.begin()
        identity = self._identity(call, self._sequence)
        refusal = self._refusal(call, found.route.vendor, identity)
        if refusal is not None:
            return Verdict(refusal, None, self._sequence)

        def resolve(model: str, directive: str) -> Behaviour:
            return self._behaviour(call, model, directive)

        answer, behaviour = self._handled(found, Ask(call, found.captures, resolve, identity))
        return Verdict(answer, behaviour, identity.sequence)

    def upgrade(self, call: Call) -> Talk | Verdict:
        """The talk that a WebSocket upgrade opens, or the answer that refuses it."""
        if self._keep_calls:
            self.calls.append(call)
        identity = self._identity(call, 0)
        make = self._talks.get(call.path)
        if make is None:
            return Verdict(self._unknown(call), None, 0)
        refusal = self._refusal(call, Vendor.OPENAI, identity)
        if refusal is not None:
            return Verdict(refusal, None, 0)

        def resolve(model: str, directive: str) -> Behaviour:
            return self._behaviour(call, model, directive)

        try:
            behaviour = changed(self.default, self.by_model.get(f"{WEBSOCKET} {call.path}", {}))
            behaviour = changed(behaviour, _from_headers(call))
        except BehaviourError as error:
            return Verdict(error_answer(Vendor.OPENAI, identity, 400, f"mock: {error}"), None, 0)
        if behaviour.refuse_upgrade:
            answer = error_answer(Vendor.OPENAI, identity, 426, "WebSocket is not supported here.")
            return Verdict(answer, None, 0)
        return make(Ask(call, {}, resolve, identity), self.begin_turn)

    def begin_turn(self, call: Call) -> Identity:
        """Begin one turn of a WebSocket in the meter; the session must end it by `end`."""
        self._sequence += 1
        self.meter.begin()
        return self._identity(call, self._sequence)

    def end(self, call: Call, verdict: Verdict, outcome: Outcome, tokens: Tokens) -> None:
        """Book a metered call."""
        answer = verdict.answer
        cost, priced = self.meter.cost(answer.model, answer.price_class, tokens)
        self.meter.end(
            MeterEntry(
                verdict.sequence,
                call.received_at,
                call.path,
                answer.model,
                answer.service_tier,
                answer.request_id,
                call.header(b"x-outlay-request-id"),
                answer.is_stream,
                answer.status,
                outcome,
                tokens,
                cost,
                priced,
                answer.job,
            )
        )

    def charge(self, charge: Charge) -> None:
        """Book what a job bills after the call that started it has ended: an entry of its own, under that call's id."""
        self._sequence += 1
        self.meter.begin()
        charge.answer.job = charge.job
        self.end(charge.call, Verdict(charge.answer, None, self._sequence), Outcome.COMPLETE, charge.tokens)

    def line_behaviour(self, model: str, directive: str) -> Behaviour:
        """Behaviour of a batch's line: default, model and directive. Raises `BehaviourError`."""
        behaviour = changed(self.default, self.by_model.get(model, {}))
        return changed(behaviour, parse_directive(directive)) if directive else behaviour

    def _decide_free(self, call: Call, found: Found) -> Verdict:
        """Calls that cost nothing: lists, polls, cancellations. They take nothing from the queue."""
        vendor, identity = found.route.vendor, self._identity(call, 0)
        refusal = self._refusal(call, vendor, identity)
        if refusal is not None:
            return Verdict(refusal, None, 0)

        def resolve(model: str, directive: str) -> Behaviour:
            behaviour = changed(Behaviour(), self.by_model.get(found.route.name, {}))
            behaviour = changed(behaviour, _from_headers(call))
            return changed(behaviour, parse_directive(directive)) if directive else behaviour

        try:
            behaviour = resolve("", "")
        except BehaviourError as error:
            return Verdict(error_answer(vendor, identity, 400, f"mock: {error}"), None, 0)
        if behaviour.status != 200:
            answer = error_answer(vendor, identity, behaviour.status, "The mock was told to refuse this.")
            if behaviour.retry_after is not None:
                answer.headers += f"retry-after: {behaviour.retry_after}\r\n".encode()
            return Verdict(answer, behaviour, 0)
        answer, _ = self._handled(found, Ask(call, found.captures, resolve, identity))
        return Verdict(answer, behaviour, 0)

    @staticmethod
    def _handled(found: Found, ask: Ask) -> Reply:
        """The room's answer. A body of a shape that no room reads is refused, not answered by a dead connection."""
        try:
            return found.route.handle(ask)
        except MALFORMED as error:
            message = f"mock: the request is malformed: {type(error).__name__}: {error}"
            return error_answer(found.route.vendor, ask.identity, 400, message), None

    def _identity(self, call: Call, sequence: int) -> Identity:
        return Identity(sequence, f"{self._serial_head}{sequence:010x}", call.received_at // 1_000_000_000)

    def _behaviour(self, call: Call, model: str, directive: str) -> Behaviour:
        behaviour = self.default
        for_model = self.by_model.get(model)
        if for_model is not None:
            behaviour = changed(behaviour, for_model)
        if self.queued:
            behaviour = changed(behaviour, self.queued.popleft())
        behaviour = changed(behaviour, _from_headers(call))
        return changed(behaviour, parse_directive(directive)) if directive else behaviour

    def _refusal(self, call: Call, vendor: Vendor, identity: Identity) -> Answer | None:
        """The vendor's error for a missing or wrong key or version; None if the call may go on."""
        if vendor is Vendor.BEDROCK:
            return bedrock_room.refusal(call, identity, self._aws_keys, self._api_keys)
        is_anthropic = vendor is Vendor.ANTHROPIC
        if self._api_keys is not None:
            key = _key(call)
            if key not in self._api_keys:
                if is_anthropic:
                    return error_answer(vendor, identity, 401, "invalid x-api-key")
                shown = key[:3] + "***" + key[-4:] if len(key) > 8 else "***"
                return error_answer(
                    vendor, identity, 401, f"Incorrect API key provided: {shown}.", code="invalid_api_key"
                )
        if is_anthropic and call.header(b"anthropic-version") is None:
            return error_answer(vendor, identity, 400, "anthropic-version: header is required")
        return None

    def _unknown(self, call: Call) -> Answer:
        """The answer to a path that does not exist, or not with this method."""
        identity = self._identity(call, 0)
        status = 404 if self._table.find_any(call.path) is None else 405
        if call.header(b"anthropic-version") is not None:
            return error_answer(Vendor.ANTHROPIC, identity, status, "Not found")
        vendor = Vendor.GOOGLE if call.path.startswith("/v1beta/") else Vendor.OPENAI
        return error_answer(vendor, identity, status, f"Invalid URL ({call.method} {call.path})")

    def _control(self, call: Call) -> Answer:
        try:
            value = self._controlled(call)
        except (BehaviourError, msgspec.MsgspecError) as error:
            return _json(400, {"error": str(error)})
        return _json(404, {"error": "no such control"}) if value is None else _json(200, value)

    def _controlled(self, call: Call) -> dict[str, Any] | None:
        match call.method, call.path:
            case "GET", "/_mock/meter":
                since = call.query.removeprefix("since=")
                return self.meter.report(int(since) if since.isdecimal() else 0)
            case "GET", "/_mock/behaviour":
                return self._settings()
            case "POST", "/_mock/behaviour":
                order = msgspec.json.decode(call.body, type=BehaviourOrder)
                if order.clear_queue:
                    self.queued.clear()
                self.change(order.set)
                for model, changes in order.models.items():
                    self.change_model(model, changes)
                self.enqueue(*order.queue)
                return self._settings()
            case "POST", "/_mock/reset":
                self.reset()
                return {"ok": True}
            case "GET", "/_mock/calls":
                return {"calls": [_shown(kept) for kept in self.calls]}
            case "GET", "/_mock/health":
                return {"ok": True}
            case _:
                return None

    def _settings(self) -> dict[str, Any]:
        return {
            "behaviour": msgspec.to_builtins(self.default),
            "models": self.by_model,
            "queued": len(self.queued),
        }


class BehaviourOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /_mock/behaviour. Order of work: clear the queue, set, models, queue."""

    set: dict[str, Any] = {}
    models: dict[str, dict[str, Any]] = {}
    queue: list[dict[str, Any]] = []
    clear_queue: bool = False


def _from_headers(call: Call) -> Changes:
    """What the `x-mock-*` headers set."""
    return {
        key[len(HEADER_PREFIX) :].decode("latin-1").replace("-", "_"): value.decode("latin-1")
        for key, value in call.headers
        if key.startswith(HEADER_PREFIX)
    }


def _key(call: Call) -> str:
    """The provider key in whichever way the vendors send it; empty if there is none."""
    for name in _KEY_HEADERS:
        value = call.header(name)
        if value is not None:
            return value
    for offered in (call.header(b"sec-websocket-protocol") or "").split(","):
        if offered.strip().startswith(_KEY_SUBPROTOCOL):
            return offered.strip().removeprefix(_KEY_SUBPROTOCOL)
    bearer = call.header(b"authorization")
    return bearer.removeprefix("Bearer ") if bearer is not None else call.parameter("key") or ""


def _shown(call: Call) -> dict[str, Any]:
    return {
        "method": call.method,
        "path": call.path,
        "headers": [[key.decode("latin-1"), value.decode("latin-1")] for key, value in call.headers],
        "body": call.body.decode("utf-8", "replace"),
        "received_at": call.received_at,
    }


def _json(status: int, value: object) -> Answer:
    return Answer(
        status=status,
        content_type=b"application/json",
        headers=b"",
        pieces=[Piece(msgspec.json.encode(value), 0)],
    )
