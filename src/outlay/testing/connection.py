"""One client connection of the mock: HTTP/1.1 in, scripts played out, the meter told how each ended.

No task per request: callbacks and timers only.
"""

import asyncio
import contextlib
import socket
import struct
import time
from collections import deque
from typing import Any, cast

import httptools

from outlay.testing.behaviour import Bill
from outlay.testing.call import Call
from outlay.testing.meter import Outcome
from outlay.testing.script import End, Script, billed, plan
from outlay.testing.service import Service, Verdict
from outlay.testing.ws_session import WebSocketSession

MAX_BODY_BYTES = 32 * 1024 * 1024  # Anthropic's own limit of a request
MAX_HEADERS = 256
MAX_PIPELINED = 64
"""Requests read ahead of their answers on one connection."""
_RESET_DELAY_SECONDS = 0.01
"""So that what was written before a reset leaves first."""


class Connection(asyncio.Protocol):
    """Reads requests, asks the service, plays one script at a time."""

    def __init__(self, service: Service, connections: set["Connection"]) -> None:
        self._service = service
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[Call, bool]] = deque()
        self._answered = 0
        self._can_write = True
        self._is_closing = False
        self._gone: asyncio.Future[None] | None = None
        self._timer: asyncio.Handle | None = None
        # the request being read
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._body_size = 0
        # the script being played
        self._call: Call | None = None
        self._verdict: Verdict | None = None
        self._script: Script | None = None
        self._next_frame = 0
        self._sent_tokens = 0
        self._has_waited = False
        # after an upgrade
        self._session: WebSocketSession | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        self._connections.add(self)
        if self._service.refuses_connection():
            self._is_closing = True
            self._linger_nothing(transport)
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._is_closing:
            return
        if self._session is not None:
            self._session.data_received(data)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgraded(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            if self._transport is not None and self._script is None:
                self._transport.write(
                    b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                )
                self._close(End.CLOSE)

    def pause_writing(self) -> None:
        self._can_write = False

    def resume_writing(self) -> None:
        self._can_write = True
        if self._script is not None and self._timer is None:
            self._play()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._transport = None
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._script is not None:
            self._end_early()
        if self._session is not None:
            self._session.lost()
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    # httptools callbacks

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._body = []
        self._body_size = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self._headers) < MAX_HEADERS:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._transport is None:
            return
        for name, value in self._headers:
            if name == b"expect" and value.lower() == b"100-continue":
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_size += len(body)
        if self._body_size > MAX_BODY_BYTES:
            self._abort()
            return
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._body_size > MAX_BODY_BYTES:
            return
        path, _, query = self._url.decode("latin-1").partition("?")
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        method = self._parser.get_method().decode("latin-1")
        call = Call(method, path, query, self._headers, body, time.time_ns())
        if self._parser.should_upgrade() and (call.header(b"upgrade") or "").lower() == "websocket":
            self._upgrade(call)
            return
        keep_alive = self._parser.should_keep_alive()
        if self._script is not None:
            if len(self._waiting) >= MAX_PIPELINED:
                self._abort()
                return
            self._waiting.append((call, keep_alive))
            return
        self._begin(call, keep_alive)

    # playing

    def _upgrade(self, call: Call) -> None:
        """Open a WebSocket, or answer as the service says and close."""
        if self._script is not None or self._transport is None:
            self._abort()  # an upgrade behind an open request
            return
        talk = self._service.upgrade(call)
        if isinstance(talk, Verdict):
            self._play_verdict(call, talk, keep_alive=False)
            return
        self._session = WebSocketSession(self._service, self._transport, call, talk)
        self._session.open()

    def _upgraded(self, rest: bytes) -> None:
        """What came behind the head of an upgrade; only a WebSocket knows what to do with it."""
        if self._session is not None:
            if rest:
                self._session.data_received(rest)
        elif not self._is_closing:
            self._abort()

    def _begin(self, call: Call, keep_alive: bool) -> None:
        self._play_verdict(call, self._service.decide(call), keep_alive=keep_alive)

    def _play_verdict(self, call: Call, verdict: Verdict, *, keep_alive: bool) -> None:
        self._call = call
        self._verdict = verdict
        self._script = plan(
            verdict.answer, verdict.behaviour, keep_alive=keep_alive, is_reused=self._answered > 0
        )
        self._next_frame = 0
        self._sent_tokens = 0
        self._has_waited = False
        self._play()

    def _play(self) -> None:
        """Write the frames that are due; come back by timer for the next, or by `resume_writing`."""
        self._timer = None
        script, transport = self._script, self._transport
        if script is None or transport is None:
            return
        frames = script.frames
        due: list[bytes] = []
        while self._next_frame < len(frames):
            frame = frames[self._next_frame]
            if frame.delay_ms and not self._has_waited:
                self._has_waited = True
                self._timer = self._loop.call_later(frame.delay_ms / 1000, self._play)
                break
            if not self._can_write:
                break
            self._has_waited = False
            self._next_frame += 1
            self._sent_tokens = frame.sent_tokens
            due.append(frame.data)
            if script.is_split and self._next_frame < len(frames):
                self._timer = self._loop.call_soon(self._play)
                break
        is_done = self._next_frame == len(frames) and self._timer is None
        if is_done and script.end is not End.HANG:
            # booked before the last byte leaves, so that whoever has the answer finds it in the meter
            self._book(script.outcome, script.bill)
        data = due[0] if len(due) == 1 else b"".join(due)
        if data:
            transport.write(data)
        if is_done:
            self._after(script.end)

    def _after(self, end: End) -> None:
        match end:
            case End.HANG:
                self._hang()
            case End.KEEP:
                self._script = None
                self._answered += 1
                if self._waiting:
                    self._begin(*self._waiting.popleft())
            case _:
                self._script = None
                self._close(end)

    def _hang(self) -> None:
        behaviour = self._verdict.behaviour if self._verdict is not None else None
        if behaviour is not None and behaviour.hang_ms:
            self._timer = self._loop.call_later(behaviour.hang_ms / 1000, self._give_up)

    def _give_up(self) -> None:
        """A hang that the provider itself ends."""
        self._timer = None
        behaviour = self._verdict.behaviour if self._verdict is not None else None
        if behaviour is not None:
            bill = behaviour.bill if behaviour.bill is not Bill.AUTO else behaviour.on_client_gone
            self._book(Outcome.CUT, bill)
        self._script = None
        self._close(End.RESET if behaviour is not None and behaviour.reset else End.CLOSE)

    def _end_early(self) -> None:
        """The client went before the script's end."""
        behaviour = self._verdict.behaviour if self._verdict is not None else None
        bill = Bill.NONE
        if behaviour is not None:
            bill = behaviour.bill if behaviour.bill is not Bill.AUTO else behaviour.on_client_gone
            if behaviour.status != 200 and behaviour.bill is Bill.AUTO:
                bill = Bill.NONE
        self._book(Outcome.CLIENT_GONE, bill)
        self._script = None

    def _book(self, outcome: Outcome, bill: Bill) -> None:
        call, verdict = self._call, self._verdict
        if call is None or verdict is None or verdict.sequence == 0:
            return
        run_ahead = verdict.behaviour.run_ahead_tokens if verdict.behaviour is not None else 0
        tokens = billed(verdict.answer.tokens, bill, self._sent_tokens, run_ahead)
        self._service.end(call, verdict, outcome, tokens)
        self._call = self._verdict = None

    def _close(self, end: End) -> None:
        transport = self._transport
        if transport is None:
            return
        self._is_closing = True
        if end is not End.RESET:
            transport.close()
            return
        self._linger_nothing(transport)
        self._loop.call_later(_RESET_DELAY_SECONDS, transport.abort)

    @staticmethod
    def _linger_nothing(transport: asyncio.BaseTransport) -> None:
        """The close that follows is a TCP reset."""
        sock: Any = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):  # the peer may have closed already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def drop(self) -> "asyncio.Future[None]":
        """Abort the connection and tell when it is gone; an open request is booked as the client's leaving."""
        self._gone = self._loop.create_future()
        self._abort()
        return self._gone
