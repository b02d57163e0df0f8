"""What the gateway and `h11` read of a provider's answer, and the rule between the two.

An answer that the gateway calls whole is whole for `h11`, with the same status, fields and body; what it breaks off it
may break off for reasons of its own. A connection goes back to the pool only if nothing is left on it.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import h11

from outlay.flow.gateway.upstream import UpstreamConnection
from tests.fuzz.ours import Wire
from tests.fuzz.reading import Fields
from tests.fuzz.reference import NO_LIMIT
from tests.fuzz.rule import ZEROS, Finding

HIDDEN = {
    b"content-length",
    b"transfer-encoding",
    b"connection",
    b"keep-alive",
    b"te",
    b"trailer",
    b"upgrade",
}

TOLERATED = {
    "ZEROS": ZEROS.pattern,  # as in `rule`
    "REASON": r"illegal status line: bytearray\(b['\"]HTTP/[0-9]\.[0-9] [1-9][0-9][0-9] ",
    "LINES": r"no response line received|illegal status line: bytearray\(b['\"](\\[rn])+(HTTP|')",
    "PROTOCOL": r"illegal status line: bytearray\(b['\"](RTSP|ICE)/",
}
"""Where h11 refuses and the gateway goes on, by what h11 says. A reason phrase is to be ignored (RFC 9112, 4), empty
lines between answers and the protocol's name change no framing, and a provider is of the operator's choosing."""
_TOLERATED = re.compile("|".join(TOLERATED.values()))


@dataclass(slots=True)
class Answer:
    """An answer so far."""

    status: int = 0
    fields: Fields = ()
    body: bytes = b""
    is_whole: bool = False
    failed: str = ""
    is_free: bool = False
    """The connection may carry another request."""
    ends: int = field(default=0, repr=False)


class Listener:
    """The call, and the pool of its connection."""

    tick = 0

    def __init__(self) -> None:
        self.answer = Answer()
        self.ticker = self
        self.is_pooled = False

    def forget(self, connection: UpstreamConnection) -> None:
        self.is_pooled = False

    def give_back(self, connection: UpstreamConnection) -> None:
        self.is_pooled = True

    def on_upstream_ready(self, connection: UpstreamConnection) -> None:
        raise AssertionError("a connection that was not asked for")

    def on_upstream_failed(self, reason: str) -> None:
        self._end()
        self.answer.failed = reason

    def on_answer_started(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        assert not self.answer.status, "two answers to one request"
        self.answer.status, self.answer.fields = status, _shown(headers)

    def on_answer_data(self, data: bytes) -> None:
        assert self.answer.status and not self.answer.ends
        self.answer.body += data

    def on_answer_read(self) -> None:
        assert not self.answer.ends

    def on_answer_ended(self) -> None:
        self._end()
        self.answer.is_whole = True

    def _end(self) -> None:
        self.answer.ends += 1
        assert self.answer.ends == 1, "a call that ended twice"


def ours(pieces: list[bytes], closes: bool) -> Answer:
    """The gateway's reading. `closes`: the provider closes behind the last piece."""
    listener: Any = Listener()
    connection, wire = UpstreamConnection(listener), Wire()
    connection.connection_made(wire)
    connection.send(listener, b"")
    for piece in pieces:
        if wire.is_closing():
            break
        connection.data_received(piece)
    answer: Answer = listener.answer
    answer.is_free = listener.is_pooled and not wire.is_closing()
    if closes or wire.is_closing():
        connection.connection_lost(None)
        assert answer.ends == 1, "a closed connection whose call has not ended"
    return answer


def reference(data: bytes, closes: bool) -> Answer:
    """The reading of `h11`."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=NO_LIMIT)
    connection.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
    connection.send(h11.EndOfMessage())
    answer = Answer()
    try:
        data = data.lstrip(b"\r\n")  # LINES
        connection.receive_data(data)
        if closes:
            connection.receive_data(b"")
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                answer.status, answer.fields = event.status_code, _shown(list(event.headers))
            elif isinstance(event, h11.Data):
                answer.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                answer.is_whole = True
                rest = connection.trailing_data[0].strip(b"\r\n")
                answer.is_free = connection.their_state is h11.DONE and not rest
                return answer
            elif not isinstance(event, h11.InformationalResponse):
                return answer
    except h11.RemoteProtocolError as error:
        answer.failed = str(error)
        return answer


def check(pieces: list[bytes], closes: bool) -> Answer:
    """Feed both; returns what the gateway read. Raises Finding."""
    try:
        found = ours(pieces, closes)
    except Exception as error:
        raise Finding(f"{type(error).__name__}: {error}\n  bytes: {pieces!r}, closes: {closes}") from error
    expected = reference(b"".join(pieces), closes)
    fault = "" if _TOLERATED.match(expected.failed) else difference(found, expected)
    if fault:
        raise Finding(f"{fault}\n  bytes: {pieces!r}, closes: {closes}\n  ours: {found}\n  h11:  {expected}")
    return found


def difference(found: Answer, expected: Answer) -> str:
    """How the gateway's reading breaks the rule; "" if it does not."""
    if found.status and (found.status, found.fields) != (expected.status, expected.fields):
        return "another answer has begun"
    if found.is_whole and not expected.is_whole:
        return "whole, where h11 has more to come or refuses"
    if found.is_whole and found.body != expected.body:
        return "another body"
    if not expected.body.startswith(found.body):
        return "a body that h11 has not read"
    if not found.ends and (expected.is_whole or (expected.failed and found.status)):
        return "waits, where h11 has read on or refuses"
    if found.is_free and not expected.is_free:
        return "keeps a connection that h11 would close"
    return ""


def _shown(headers: list[tuple[bytes, bytes]]) -> Fields:
    return tuple(
        (name.lower(), value)
        for name, value in headers
        if name.lower() not in HIDDEN and not name.lower().startswith(b"x-outlay-")
    )
