"""The rule: whatever the gateway takes, `h11` takes with the same framing, and nothing of it is read twice or skipped.

DELIBERATE lists where the gateway takes more than `h11`, which is stricter there than RFC 9112 for no reason of
safety. It takes less in many places (trailers, `Content-Length` beside `Transfer-Encoding`, its own limits): that is
no finding.
"""

import re

from tests.fuzz.choices import Choices
from tests.fuzz.ours import Answering, ours
from tests.fuzz.reading import End, Message, Reading
from tests.fuzz.reference import reference

DELIBERATE = {
    "EMPTY_LINE": "one empty line before a request: RFC 9112, 2.2 says a server should ignore it (in `reference`)",
    "KEPT_1_0": "HTTP/1.0 with `Connection: keep-alive` goes on: RFC 9112, 9.3 (in `reference`)",
    "ZEROS": "a chunk size with more than 20 digits, the first of them zeros: RFC 9112, 7.1 sets no limit",
}
ZEROS = re.compile(r"illegal chunk header: bytearray\(b'0{5,}[0-9a-fA-F]{1,16}[;\\]")


class Finding(AssertionError):
    """The two sides differ, and the gateway is the laxer one."""


def check(pieces: list[bytes], answering: Answering) -> Reading:
    """Feed both sides; returns what the gateway read. Raises Finding."""
    try:
        found = ours(pieces, answering)
    except Exception as error:
        raise Finding(f"{type(error).__name__}: {error}\n  bytes: {pieces!r}, {answering}") from error
    expected = reference(b"".join(pieces))
    fault = difference(found, expected)
    if fault:
        raise Finding(f"{fault}\n  bytes: {pieces!r}, {answering}\n  ours: {found}\n  h11:  {expected}")
    return found


def difference(found: Reading, expected: Reading) -> str:
    """How the gateway's reading breaks the rule; "" if it does not."""
    if is_tolerated(expected):
        return ""
    for number, message in enumerate(found.messages):
        if number >= len(expected.messages):
            return f"request {number} was taken, and h11 has none"
        other = expected.messages[number]
        if _framing(message) != _framing(other):
            return f"request {number} is framed otherwise"
        if message.fields != other.fields:
            return f"request {number} has other fields"
        if message.keeps_alive and not other.keeps_alive:
            return f"goes on after request {number}, where h11 closes"
    taken = len(found.messages)
    if found.end is End.SWITCHED and found.rests[-1] != expected.rests[taken - 1]:
        return "another protocol begins elsewhere"
    if found.end is End.OPEN:
        # it took all of its bytes: it must have read as far as h11
        if taken != len(expected.messages):
            return "waits, where h11 has read on"
        if expected.end is End.REFUSED and taken and not found.messages[-1].is_whole:
            return "waits for a body that h11 refused"
        if expected.end is End.CLOSED:
            return "waits, where h11 closes"
    return ""


def is_tolerated(expected: Reading) -> bool:
    """Whether h11 stopped reading for ZEROS: nothing can be compared from there."""
    return expected.end is End.REFUSED and ZEROS.match(expected.why) is not None


def _framing(message: Message) -> tuple[object, ...]:
    return (message.method, message.target, message.body, message.is_whole)


def cut(choices: Choices, pieces: list[bytes]) -> list[bytes]:
    """The same bytes as a network may bring them: as they are, at once, byte by byte, or cut at a few places."""
    way = choices.of(("as they are", "as they are", "at once", "at once", "cut", "cut", "bytes"))
    if way == "as they are":
        return [piece for piece in pieces if piece]
    data = b"".join(pieces)
    if way == "at once" or not data:
        return [data]
    if way == "bytes":
        return [data[at : at + 1] for at in range(len(data))]
    places = sorted(choices.upto(len(data)) for _ in range(1 + choices.upto(3)))
    parts = [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
    return [part for part in parts if part]


def shrunk(pieces: list[bytes], answering: Answering) -> list[bytes]:
    """Fewer bytes, piece by piece, that still break the rule."""
    size = max(map(len, pieces))
    while size:
        for number, piece in enumerate(pieces):
            at = 0
            while at < len(piece):
                shorter = [*pieces[:number], piece[:at] + piece[at + size :], *pieces[number + 1 :]]
                if _breaks([part for part in shorter if part], answering):
                    pieces, piece = shorter, shorter[number]
                else:
                    at += size
        size //= 2
    return [piece for piece in pieces if piece]


def _breaks(pieces: list[bytes], answering: Answering) -> bool:
    try:
        check(pieces, answering)
    except AssertionError:
        return True
    return False
