"""Turns an answer and a behaviour into a script: which bytes leave when, how it ends, and who pays.

Pure: no sockets, no clock. The connection plays the script.
"""

import random
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

import msgspec

from outlay.testing.answer import Answer, Piece, with_output
from outlay.testing.behaviour import Behaviour, Bill, Failure, Framing
from outlay.testing.meter import NOTHING, Outcome, Tokens

_REASONS = {
    200: b"OK",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    409: b"Conflict",
    413: b"Payload Too Large",
    424: b"Failed Dependency",
    426: b"Upgrade Required",
    429: b"Too Many Requests",
    500: b"Internal Server Error",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    529: b"Overloaded",
}
_GARBAGE = b"<html><body>\x00\xff\xfe upstream proxy says hello </body></html>"


class End(StrEnum):
    """What follows the last frame."""

    KEEP = "keep"  # the connection waits for the next request
    CLOSE = "close"
    RESET = "reset"
    HANG = "hang"


class Frame(NamedTuple):
    """Bytes for the socket, `delay_ms` after the frame before."""

    delay_ms: float
    data: bytes
    sent_tokens: int
    """Output tokens handed over once this frame is out."""


class Script(msgspec.Struct, gc=False):
    """The whole exchange from the first byte to the end."""

    frames: list[Frame]
    end: End
    outcome: Outcome
    bill: Bill
    """Applies when the script is played to its end."""
    is_split: bool = False
    """Each frame leaves in a turn of its own."""


def plan(answer: Answer, behaviour: Behaviour | None, *, keep_alive: bool, is_reused: bool) -> Script:
    """The script for `answer`. No behaviour: the vendor's refusal of a bad request, sent as it is."""
    refused = answer.status != 200
    outcome = Outcome.REFUSED if refused else Outcome.COMPLETE
    if behaviour is None:
        return _plain(answer, outcome, Bill.NONE, keep_alive)
    failure = behaviour.failure
    if failure is Failure.CUT_ON_REUSE and not is_reused:
        failure = Failure.NONE
    bill = behaviour.bill
    if bill is Bill.AUTO:
        bill = Bill.NONE if refused else AUTO_BILL.get(failure, Bill.FULL)
    if _is_plain(behaviour, failure, is_stream=answer.is_stream):
        return _plain(answer, outcome, bill, keep_alive)
    return _Planner(answer, behaviour, failure).script(outcome, bill, keep_alive)


def billed(full: Tokens, bill: Bill, sent_tokens: int, run_ahead_tokens: int) -> Tokens:
    """The tokens that are billed when `sent_tokens` of the output were handed over."""
    if bill is Bill.NONE or full is NOTHING:
        return NOTHING
    if bill is Bill.SENT:
        return with_output(full, min(full.output, sent_tokens), full.reasoning)
    if bill is Bill.AHEAD:
        return with_output(full, min(full.output, sent_tokens + run_ahead_tokens), full.reasoning)
    return full


AUTO_BILL = {
    Failure.CUT_HEADERS: Bill.NONE,
    Failure.CUT_IN_HEADERS: Bill.NONE,
    Failure.CUT_ON_REUSE: Bill.NONE,
    Failure.CUT: Bill.SENT,
    Failure.CUT_JSON: Bill.SENT,
    Failure.EARLY_END: Bill.SENT,
    Failure.STREAM_ERROR: Bill.SENT,
}
_SILENT = (Failure.HANG_HEADERS, Failure.CUT_HEADERS, Failure.CUT_ON_REUSE, Failure.REFUSE)
_BREAKS_OFF = (Failure.HANG, Failure.CUT, Failure.CUT_JSON)


def _is_plain(behaviour: Behaviour, failure: Failure, *, is_stream: bool) -> bool:
    return (
        failure is Failure.NONE
        and not behaviour.first_byte_ms
        and not behaviour.split_bytes
        and behaviour.framing is Framing.AUTO
        and not (is_stream and behaviour.chunk_ms)
    )


def _plain(answer: Answer, outcome: Outcome, bill: Bill, keep_alive: bool) -> Script:
    """Everything at once, in the usual framing."""
    total = sum(piece.tokens for piece in answer.pieces)
    is_events = answer.is_stream and answer.status == 200
    if is_events:
        head = _head(answer, Framing.CHUNKED, 0, keep_alive)
        data = head + b"".join([_chunk(piece.data) for piece in answer.pieces]) + _LAST_CHUNK
    else:
        body = answer.pieces[0].data
        data = _head(answer, Framing.CONTENT_LENGTH, len(body), keep_alive) + body
    return Script([Frame(0, data, total)], End.KEEP if keep_alive else End.CLOSE, outcome, bill)


def _head(answer: Answer, framing: Framing, length: int, keep_alive: bool) -> bytes:
    match framing:
        case Framing.CHUNKED:
            frame = b"transfer-encoding: chunked\r\n"
        case Framing.UNTIL_CLOSE:
            frame = b""
        case _:
            frame = b"content-length: %d\r\n" % length
    return b"HTTP/1.1 %d %b\r\nserver: mock\r\ncontent-type: %b\r\n%b%b%b\r\n" % (
        answer.status,
        _REASONS.get(answer.status, b"Mock"),
        answer.content_type,
        frame,
        answer.headers,
        b"connection: keep-alive\r\n" if keep_alive else b"connection: close\r\n",
    )


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


_LAST_CHUNK = b"0\r\n\r\n"


class _Part(NamedTuple):
    delay_ms: float
    data: bytes
    sent_tokens: int


class _Planner:
    """One answer that is slow, oddly framed, or broken."""

    def __init__(self, answer: Answer, behaviour: Behaviour, failure: Failure) -> None:
        self._answer = answer
        self._behaviour = behaviour
        self._failure = failure
        self._is_events = answer.is_stream and answer.status == 200
        self._pieces = answer.pieces

    def script(self, outcome: Outcome, bill: Bill, keep_alive: bool) -> Script:
        behaviour, failure = self._behaviour, self._failure
        first_ms = behaviour.first_byte_ms
        if failure in _SILENT:
            end = End.HANG if failure is Failure.HANG_HEADERS else self._cut_end()
            return Script([Frame(first_ms, b"", 0)], end, Outcome.CUT, bill)
        self._damage()
        length = sum(len(piece.data) for piece in self._pieces)
        framing = behaviour.framing
        if framing is Framing.AUTO:
            framing = Framing.CHUNKED if self._is_events else Framing.CONTENT_LENGTH
        keep_alive = keep_alive and framing is not Framing.UNTIL_CLOSE
        head = _head(self._answer, framing, length, keep_alive)
        if failure is Failure.CUT_IN_HEADERS:
            return Script([Frame(first_ms, head[: len(head) // 2], 0)], self._cut_end(), Outcome.CUT, bill)
        parts = list(self._parts())
        end = End.KEEP if keep_alive and failure is not Failure.CLOSE_AFTER else End.CLOSE
        if failure in _BREAKS_OFF:
            parts = list(_first_bytes(parts, self._bytes_before_break(length)))
            end = End.HANG if failure is Failure.HANG else self._cut_end()
        if failure in _BREAKS_OFF or (
            failure in (Failure.EARLY_END, Failure.STREAM_ERROR) and self._is_events
        ):
            outcome = Outcome.CUT
        is_split = behaviour.split_bytes > 0
        if is_split:
            parts = list(_resplit(parts, self._sizes(), behaviour.chunk_ms))
        frames = [Frame(first_ms, head, 0)]
        for part in parts:
            data = _chunk(part.data) if framing is Framing.CHUNKED else part.data
            frames.append(Frame(part.delay_ms, data, part.sent_tokens))
        if framing is Framing.CHUNKED and failure not in _BREAKS_OFF:
            frames.append(Frame(0, _LAST_CHUNK, frames[-1].sent_tokens))
        return Script(frames, end, outcome, bill, is_split)

    def _cut_end(self) -> End:
        return End.RESET if self._behaviour.reset else End.CLOSE

    def _damage(self) -> None:
        """Replace the pieces where the failure is in the body itself."""
        pieces = self._pieces
        match self._failure:
            case Failure.GARBAGE:
                self._pieces = [Piece(_GARBAGE, sum(piece.tokens for piece in pieces))]
            case Failure.TRUNCATED_JSON:
                at = self._content_end() if self._is_events else 0
                broken = pieces[at].data
                half = broken[: len(broken) // 2] + (b"\n\n" if self._is_events else b"")
                self._pieces = [*pieces[:at], Piece(half, pieces[at].tokens), *pieces[at + 1 :]]
            case Failure.EARLY_END if self._is_events:
                self._pieces = pieces[: self._content_end()]
            case Failure.STREAM_ERROR if self._is_events:
                self._pieces = [*pieces[: self._content_end()], Piece(self._answer.error_event, 0)]
            case _:
                pass

    def _content_end(self) -> int:
        """Index of the piece after `after_chunks` content chunks, at most that of the last piece."""
        left = self._behaviour.after_chunks
        for index, piece in enumerate(self._pieces):
            if piece.tokens:
                if left == 0:
                    return index
                left -= 1
        # all content is out: what follows is the finish
        contents = [index for index, piece in enumerate(self._pieces) if piece.tokens]
        return min((contents[-1] if contents else 0) + 1, len(self._pieces) - 1)

    def _bytes_before_break(self, length: int) -> int:
        """Body bytes that go out before a cut or a hang."""
        if self._behaviour.after_bytes is not None and self._failure is not Failure.CUT_JSON:
            return min(self._behaviour.after_bytes, length)
        if not self._is_events:
            return length // 2
        at = self._content_end()
        whole = sum(len(piece.data) for piece in self._pieces[:at])
        return whole + (len(self._pieces[at].data) // 2 if self._failure is Failure.CUT_JSON else 0)

    def _parts(self) -> Iterator[_Part]:
        sent, contents = 0, 0
        for piece in self._pieces:
            is_later = False
            if piece.tokens and self._is_events:
                is_later = contents > 0
                contents += 1
            sent += piece.tokens
            yield _Part(self._behaviour.chunk_ms if is_later else 0, piece.data, sent)

    def _sizes(self) -> Iterator[int]:
        most, seed = self._behaviour.split_bytes, self._behaviour.split_seed
        source = None if seed is None else random.Random(seed)
        while True:
            yield most if source is None else source.randint(1, most)


def _first_bytes(parts: list[_Part], count: int) -> Iterator[_Part]:
    """The parts up to `count` bytes of body; the tokens of a part that is broken do not count as sent."""
    sent = 0
    for part in parts:
        if count < len(part.data) or not part.data:
            if count:
                yield _Part(part.delay_ms, part.data[:count], sent)
            return
        count -= len(part.data)
        sent = part.sent_tokens
        yield part


def _resplit(parts: list[_Part], sizes: Iterator[int], delay_ms: float) -> Iterator[_Part]:
    """The same bytes in parts of other sizes; a token counts as sent with the last byte of its old part."""
    body = b"".join(part.data for part in parts)
    ends: list[tuple[int, int]] = []
    at = 0
    for part in parts:
        at += len(part.data)
        ends.append((at, part.sent_tokens))
    start, sent, index = 0, 0, 0
    while start < len(body):
        end = min(start + next(sizes), len(body))
        while index < len(ends) and ends[index][0] <= end:
            sent = ends[index][1]
            index += 1
        yield _Part(delay_ms if start else 0, body[start:end], sent)
        start = end
