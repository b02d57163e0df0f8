"""The mock's Responses room over a WebSocket: each `response.create` is a turn of the same events as a stream."""

from collections import ChainMap, OrderedDict

import msgspec

from outlay.testing.answer import Answer
from outlay.testing.behaviour import Resolve
from outlay.testing.call import MALFORMED, Ask, Call
from outlay.testing.meter import NOTHING
from outlay.testing.openai_replies import error_answer
from outlay.testing.responses_replies import (
    Plot,
    ResponseRequest,
    beats,
    failed_event,
    prepared_beats,
)
from outlay.testing.responses_room import Memory, ResponsesRoom, billed_answer
from outlay.testing.talk import Beat, BeginTurn, Said, Turn

_JSON = msgspec.json.Encoder()


class ResponsesTalk:
    """One connection. It remembers its own responses, so that `store: false` ones can be built on within it."""

    def __init__(self, room: ResponsesRoom, ask: Ask, begin: BeginTurn) -> None:
        self._room = room
        self._call: Call = ask.call
        self._resolve: Resolve = ask.resolve
        self._begin = begin
        self._memory: Memory = OrderedDict()

    def opening(self) -> list[str]:
        """Nothing: the client speaks first."""
        return []

    def receive(self, message: str) -> list[Said]:
        """`response.create` makes a turn; anything else an error event."""
        try:
            value = msgspec.json.decode(message)
            kind = value.get("type") if isinstance(value, dict) else None
            if kind != "response.create":
                return [
                    [_error(400, f"Invalid event type: {kind!r}.", "invalid_request_error", "unknown_event")]
                ]
            generate = value.get("generate", True)
            request = msgspec.convert(value, ResponseRequest)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return [[_error(400, f"Invalid event: {error}", "invalid_request_error", "invalid_event")]]
        request.stream, request.background = None, None
        stream_id = value.get("stream_id")
        turn = self._turn(request, generates=generate is not False)
        if stream_id is not None:
            _name_stream(turn, str(stream_id))
        return [turn]

    def _turn(self, request: ResponseRequest, *, generates: bool) -> Turn:
        identity = self._begin(self._call)
        earlier = ChainMap(self._memory, self._room.stored)
        try:
            plot = self._room.plotted(request, self._resolve, identity, earlier)
            if not isinstance(plot, Plot):
                answer, behaviour = plot
                return Turn(answer, behaviour, identity.sequence, [Beat([_refused(answer)], 0)])
            self._room.remember(plot, self._call, plot.final_status, earlier, self._memory)
            told = list(beats(plot) if generates else prepared_beats(plot))
        except MALFORMED as error:
            answer = error_answer(identity, 400, f"mock: the request is malformed: {error}")
            return Turn(answer, None, identity.sequence, [Beat([_refused(answer)], 0)])
        answer = billed_answer(plot)
        answer.is_stream = True
        if not generates:
            answer.tokens = NOTHING
        return Turn(answer, plot.behaviour, identity.sequence, told, [failed_event(plot)])


def _refused(answer: Answer) -> str:
    """The HTTP refusal as an error event."""
    body = msgspec.json.decode(answer.pieces[0].data)
    error = body["error"]
    return _error(answer.status, error["message"], error["type"], error["code"], error["param"])


def _error(status: int, message: str, kind: str, code: str | None, param: str | None = None) -> str:
    error = {"type": kind, "code": code, "message": message, "param": param}
    return _JSON.encode({"type": "error", "status": status, "error": error}).decode()


def _name_stream(turn: Turn, stream_id: str) -> None:
    """Every event of a turn carries the stream that its request named."""
    name = _JSON.encode(stream_id).decode()

    def named(events: list[str]) -> list[str]:
        return [f'{event[:-1]},"stream_id":{name}}}' for event in events]

    turn.beats = [Beat(named(beat.events), beat.tokens) for beat in turn.beats]
    turn.error_events = named(turn.error_events)
