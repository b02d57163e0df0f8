"""The plan of an answer, without sockets: every failure in every framing, and what it would bill."""

import itertools
import re

import pytest

from outlay.testing import Behaviour, Bill, Failure, Framing, Outcome, Tokens
from outlay.testing.answer import Answer, Piece
from outlay.testing.meter import NOTHING
from outlay.testing.script import End, billed, plan

PIECES = [
    Piece(b'data: {"role":1}\n\n', 0),
    Piece(b'data: {"text":"a b"}\n\n', 2),
    Piece(b'data: {"text":"c d"}\n\n', 2),
    Piece(b'data: {"text":"e"}\n\n', 1),
    Piece(b"data: [DONE]\n\n", 0),
]
BODY = b"".join(piece.data for piece in PIECES)
FULL = Tokens(input=10, output=5, reasoning=2)
BREAKS_OFF = {Failure.HANG, Failure.CUT, Failure.CUT_JSON}
SILENT = {Failure.REFUSE, Failure.HANG_HEADERS, Failure.CUT_HEADERS, Failure.CUT_ON_REUSE}


def answer(*, stream: bool) -> Answer:
    pieces = list(PIECES) if stream else [Piece(b'{"text":"a b c d e"}', 5)]
    return Answer(200, b"x/y", b"", pieces, is_stream=stream, tokens=FULL, error_event=b"data: oops\n\n")


def body_of(raw: bytes) -> bytes:
    head, _, rest = raw.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return rest
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body, rest = body + rest[:length], rest[length + 2 :]
    return body


@pytest.mark.parametrize(
    ("failure", "framing", "split", "stream"),
    list(itertools.product(Failure, Framing, [0, 1, 5], [False, True])),
)
def test_every_failure_in_every_framing(failure, framing, split, stream):
    behaviour = Behaviour(
        failure=failure, framing=framing, split_bytes=split, first_byte_ms=1, after_chunks=2
    )
    whole = answer(stream=stream)
    script = plan(whole, behaviour, keep_alive=True, is_reused=True)
    sent = [frame.sent_tokens for frame in script.frames]
    assert sent == sorted(sent)
    assert sent[-1] <= 5
    raw = b"".join(frame.data for frame in script.frames)
    expected = b"".join(piece.data for piece in whole.pieces)
    if failure in SILENT:
        assert raw == b""
    elif failure is Failure.CUT_IN_HEADERS:
        assert b"\r\n\r\n" not in raw
    elif failure in BREAKS_OFF:
        assert expected.startswith(body_of(raw))
        assert len(body_of(raw)) < len(expected)
        assert not raw.endswith(b"0\r\n\r\n")
    elif failure in (Failure.NONE, Failure.CLOSE_AFTER) or (
        not stream
        and failure
        in (
            Failure.EARLY_END,
            Failure.STREAM_ERROR,
        )
    ):
        assert body_of(raw) == expected
        assert script.outcome is Outcome.COMPLETE
    else:
        assert body_of(raw) != expected
    if failure in (Failure.HANG, Failure.HANG_HEADERS):
        assert script.end is End.HANG
    elif script.outcome is Outcome.COMPLETE and failure is not Failure.CLOSE_AFTER:
        assert script.end is (End.CLOSE if framing is Framing.UNTIL_CLOSE else End.KEEP)
    if split and raw:
        # frame: head, then the parts, each in its chunk; the last chunk of a whole answer is empty
        sizes = [len(frame.data) for frame in script.frames[1:]]
        overhead = len(b"5\r\n\r\n") if b"chunked" in raw else 0
        assert all(size <= split + overhead for size in sizes)


@pytest.mark.parametrize("count", range(len(BODY) + 1))
def test_a_cut_at_any_byte_counts_only_whole_pieces_as_sent(count):
    behaviour = Behaviour(failure=Failure.CUT, after_bytes=count)
    script = plan(answer(stream=True), behaviour, keep_alive=True, is_reused=False)
    assert body_of(b"".join(frame.data for frame in script.frames)) == BODY[:count]
    ends = list(itertools.accumulate(len(piece.data) for piece in PIECES))
    expected = sum(piece.tokens for piece, end in zip(PIECES, ends, strict=True) if end <= count)
    assert script.frames[-1].sent_tokens == expected


def test_delays_stand_before_later_chunks_only():
    script = plan(
        answer(stream=True), Behaviour(first_byte_ms=50, chunk_ms=20), keep_alive=True, is_reused=False
    )
    # head, role, three chunks, [DONE], the end of the framing
    assert [frame.delay_ms for frame in script.frames] == [50, 0, 0, 20, 20, 0, 0]


@pytest.mark.parametrize(
    ("bill", "sent", "output"),
    [
        (Bill.FULL, 0, 5),
        (Bill.AUTO, 0, 5),
        (Bill.SENT, 0, 0),
        (Bill.SENT, 3, 3),
        (Bill.SENT, 9, 5),
        (Bill.AHEAD, 0, 3),
        (Bill.AHEAD, 4, 5),
    ],
)
def test_what_a_broken_answer_bills(bill, sent, output):
    tokens = billed(FULL, bill, sent, 3)
    assert (tokens.input, tokens.output, tokens.reasoning) == (10, output, min(2, output))


def test_nothing_is_billed_under_none_and_of_nothing():
    assert billed(FULL, Bill.NONE, 5, 5) is NOTHING
    assert billed(NOTHING, Bill.FULL, 5, 5) is NOTHING


def test_a_closing_client_gets_a_closing_answer():
    script = plan(answer(stream=False), Behaviour(), keep_alive=False, is_reused=False)
    assert script.end is End.CLOSE
    assert re.search(rb"\r\nconnection: close\r\n", script.frames[0].data)
