"""One WebSocket connection of the mock: frames by the `websockets` library's sans-I/O protocol, turns played out.

Plays one turn at a time; what the client says meanwhile is answered after it, but for a cancellation.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from urllib.parse import quote

from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from outlay.testing.behaviour import Behaviour, Bill, Failure
from outlay.testing.call import Call
from outlay.testing.meter import Outcome
from outlay.testing.script import AUTO_BILL, billed
from outlay.testing.service import Service, Verdict
from outlay.testing.talk import Cancel, Said, Talk, Turn

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_QUEUED = 1024
"""Answers waiting behind the turn that is played; a client that asks for more is cut off."""
_SUBPROTOCOL = Subprotocol("realtime")
_NOTHING_SENT = (
    Failure.REFUSE,
    Failure.CUT_HEADERS,
    Failure.CUT_IN_HEADERS,
    Failure.CUT_ON_REUSE,
    Failure.HANG_HEADERS,
)
_BREAKS = (
    *_NOTHING_SENT,
    Failure.HANG,
    Failure.CUT,
    Failure.CUT_JSON,
    Failure.EARLY_END,
    Failure.STREAM_ERROR,
)


class WebSocketSession:
    """Frames in, events out, the meter told how each turn ended."""

    def __init__(self, service: Service, transport: asyncio.Transport, call: Call, talk: Talk) -> None:
        self._service = service
        self._transport = transport
        self._call = call
        self._talk = talk
        self._loop = asyncio.get_running_loop()
        self._protocol = ServerProtocol(select_subprotocol=_select, max_size=MAX_MESSAGE_BYTES)
        self._queue: deque[list[str] | Turn] = deque()
        self._text: list[bytes] = []
        self._turn: Turn | None = None
        self._next_beat = 0
        self._sent_tokens = 0
        self._content_beats = 0
        self._is_hanging = False
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Answer the handshake and greet."""
        self._protocol.receive_data(_raw_request(self._call))
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._protocol.send_response(self._protocol.accept(event))
        if self._protocol.state is State.OPEN:
            self._queue.append(self._talk.opening())
        self._flush()
        self._go_on()

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._text.append(bytes(event.data))
                if event.fin:
                    message, self._text = b"".join(self._text).decode("utf-8", "replace"), []
                    self._heard(message)
        self._flush()
        if self._protocol.close_expected():
            self._transport.close()

    def lost(self) -> None:
        """The connection is gone: a turn that was not whole is the client's leaving."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        turn = self._turn
        if turn is not None:
            behaviour = turn.behaviour
            bill = Bill.NONE
            if behaviour is not None:
                bill = behaviour.on_client_gone if behaviour.bill is Bill.AUTO else behaviour.bill
            self._book(turn, Outcome.CLIENT_GONE, bill)
        # turns that were asked for and never begun are begun in the meter, so they end there
        for waiting in self._queue:
            if isinstance(waiting, Turn):
                self._book(waiting, Outcome.CLIENT_GONE, Bill.NONE)
        self._queue.clear()

    def _heard(self, message: str) -> None:
        for said in self._talk.receive(message):
            self._take(said)
        self._go_on()

    def _take(self, said: Said) -> None:
        if isinstance(said, Cancel):
            if self._turn is not None and self._turn.cancelled is not None:
                self._cancel(self._turn)
            else:
                self._queue.append(said.refused)
            return
        if len(self._queue) >= MAX_QUEUED:
            self._transport.abort()
            return
        self._queue.append(said)

    def _go_on(self) -> None:
        """Send what is queued up to the next turn, and start that."""
        while self._turn is None and self._queue:
            item = self._queue.popleft()
            if isinstance(item, Turn):
                self._start(item)
            else:
                self._send(item)
        self._flush()

    def _start(self, turn: Turn) -> None:
        self._turn = turn
        self._next_beat = self._sent_tokens = self._content_beats = 0
        behaviour = turn.behaviour
        if behaviour is not None and behaviour.first_byte_ms:
            self._timer = self._loop.call_later(behaviour.first_byte_ms / 1000, self._resume)
            return
        self._play()

    def _resume(self) -> None:
        self._timer = None
        self._play(has_waited=True)
        self._go_on()

    def _play(self, *, has_waited: bool = False) -> None:
        """Send the beats that are due; the last one is booked before it leaves."""
        turn = self._turn
        if turn is None:
            return
        behaviour = turn.behaviour or Behaviour()
        while self._next_beat < len(turn.beats):
            beat = turn.beats[self._next_beat]
            if self._breaks_now(turn, behaviour):
                return
            if beat.tokens and self._content_beats and behaviour.chunk_ms and not has_waited:
                self._flush()
                self._timer = self._loop.call_later(behaviour.chunk_ms / 1000, self._resume)
                return
            has_waited = False
            self._next_beat += 1
            self._sent_tokens += beat.tokens
            self._content_beats += bool(beat.tokens)
            if self._next_beat == len(turn.beats):
                self._turn = None
                outcome = Outcome.COMPLETE if turn.answer.status == 200 else Outcome.REFUSED
                bill = behaviour.bill
                if bill is Bill.AUTO:
                    bill = Bill.FULL if outcome is Outcome.COMPLETE else Bill.NONE
                self._book(turn, outcome, bill)
                if turn.is_done is not None:
                    turn.is_done()
            garbled = behaviour.failure is Failure.GARBAGE and beat.tokens > 0
            self._send(["\x00 upstream proxy says hello"] if garbled else beat.events)
        if behaviour.failure is Failure.CLOSE_AFTER:
            self._close()

    def _breaks_now(self, turn: Turn, behaviour: Behaviour) -> bool:
        """Break the turn off if its failure is due; True if it was."""
        failure = behaviour.failure
        if failure not in _BREAKS or turn.answer.status != 200:
            return False
        is_last = self._next_beat == len(turn.beats) - 1
        if failure not in _NOTHING_SENT and self._content_beats < behaviour.after_chunks and not is_last:
            return False
        if failure in (Failure.HANG, Failure.HANG_HEADERS):
            self._flush()  # and nothing more, until the client goes
            if behaviour.hang_ms and not self._is_hanging:
                self._is_hanging = True
                self._timer = self._loop.call_later(behaviour.hang_ms / 1000, self._transport.close)
            return True
        bill = AUTO_BILL.get(failure, Bill.NONE) if behaviour.bill is Bill.AUTO else behaviour.bill
        self._turn = None
        self._book(turn, Outcome.CUT, bill)
        if failure is Failure.STREAM_ERROR:
            self._send(turn.error_events)
            self._flush()
            return True
        if failure is Failure.CUT_JSON:
            text = turn.beats[self._next_beat].events[0]
            self._send([text[: len(text) // 2]])
        self._flush()
        if failure is Failure.EARLY_END:
            self._close()
        elif behaviour.reset:
            self._transport.abort()
        else:
            self._transport.close()  # without a closing frame, as a dead peer does
        return True

    def _cancel(self, turn: Turn) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._turn = None
        run_ahead = turn.behaviour.run_ahead_tokens if turn.behaviour is not None else 0
        tokens = billed(turn.answer.tokens, Bill.SENT, self._sent_tokens, run_ahead)
        self._book(turn, Outcome.CUT, Bill.SENT)
        if turn.cancelled is not None:
            self._send(turn.cancelled(tokens))

    def _book(self, turn: Turn, outcome: Outcome, bill: Bill) -> None:
        self._turn = None if self._turn is turn else self._turn
        run_ahead = turn.behaviour.run_ahead_tokens if turn.behaviour is not None else 0
        tokens = billed(turn.answer.tokens, bill, self._sent_tokens, run_ahead)
        if turn.ended is not None:
            turn.ended()
        self._service.end(self._call, Verdict(turn.answer, turn.behaviour, turn.sequence), outcome, tokens)

    def _send(self, events: Sequence[str]) -> None:
        if self._protocol.state is not State.OPEN:
            return
        for event in events:
            self._protocol.send_text(event.encode())

    def _close(self) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._flush()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()


def _select(protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """OpenAI's subprotocol where it is offered; it is never required."""
    return _SUBPROTOCOL if _SUBPROTOCOL in offered else None


def _raw_request(call: Call) -> bytes:
    """The handshake again, as bytes: the protocol reads it by itself."""
    target = quote(call.path, safe="/:@%") + (f"?{call.query}" if call.query else "")
    head = b"GET %b HTTP/1.1\r\n" % target.encode("latin-1")
    return head + b"".join(b"%b: %b\r\n" % header for header in call.headers) + b"\r\n"
