"""Providers' answers by grammar: mostly sound, each part now and then one that parsers read differently."""

from tests.fuzz import messages
from tests.fuzz.choices import Choices

STATUSES = (b"200 OK",) * 8 + (
    b"201 Created",
    b"204 No Content",
    b"304 Not Modified",
    b"429 Too Many",
    b"500 x",
)
ODD_STATUSES = (
    *(
        b"200",
        b"200 ",
        b" 200 OK",
        b"20 OK",
        b"2000 OK",
        b"099 x",
        b"999 x",
        b"abc OK",
        b"101 Switching Protocols",
    ),
    *(
        b"+20 OK",
        b"200\tOK",
        b"200 O\x01K",
        b"200 \xff",
        b"",
        b"0200 OK",
        b"200 OK\r",
        b"100 Continue",
        b"600 x",
    ),
)
VERSIONS = (b"HTTP/1.1",) * 8 + (b"HTTP/1.0",)
ODD_VERSIONS = (
    *(
        b"HTTP/0.9",
        b"HTTP/1.2",
        b"HTTP/2.0",
        b"HTTP/2",
        b"http/1.1",
        b"HTTP/1.10",
        b"ICY",
        b"RTSP/1.0",
        b"\r\nHTTP/1.1",
    ),
    *(b"\nHTTP/1.1", b" HTTP/1.1", b"", b"HTTP/1.1\t", b"HTTP/ 1.1"),
)
INFORMATION = (
    *(
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n",
        b"HTTP/1.1 102 x\r\n\r\n" * 3,
    ),
    *(
        b"HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: y\r\n\r\n",
    ),
)
FIELDS = (
    *(
        b"content-type: application/json",
        b"x-request-id: a",
        b"x-empty:",
        b"x-spaces: a \t",
        b"Retry-After: 1",
    ),
    *(
        b"Connection: keep-alive",
        b"Connection: close",
        b"Keep-Alive: timeout=5",
        b"Trailer: x",
        b"Set-Cookie: a=b",
    ),
    *(
        b"Connection: close, keep-alive",
        b"x-outlay-cost-usd: 0",
        b"Connection: upgrade\r\nUpgrade: h2c",
        b"Upgrade: h2",
    ),
)


class AnswerGrammar(messages.Grammar):
    """One answer's grammar."""

    def answer(self) -> bytes:
        """The whole of it."""
        lines, payload = self.framed(self._of(messages.BODIES))
        fields = list(lines)
        for _ in range(self._of((0, 1, 1, 2, 3))):
            fields.append(self._often(self._of(FIELDS), messages.ODD_FIELDS))
        if fields and not self._choices.upto(3):
            fields.insert(0, fields.pop(self._choices.upto(len(fields) - 1)))
        version = self._often(self._of(VERSIONS), ODD_VERSIONS)
        line = version + self._often(b" ", messages.SPACES) + self._often(self._of(STATUSES), ODD_STATUSES)
        head = self._often(b"\r\n", messages.LINE_ENDS).join([line, *fields])
        before = self._of((b"",) * 12 + INFORMATION)
        return before + head + b"\r\n" + self._often(b"\r\n", messages.LINE_ENDS) + payload


def answers(choices: Choices) -> list[bytes]:
    """What a provider sends to one request: an answer, seldom more."""
    pieces = [AnswerGrammar(choices).answer()]
    if not choices.upto(9):
        pieces.append(
            choices.of((b"\r\n", b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", pieces[0], b"\0"))
        )
    return pieces
