"""Requests by grammar: mostly sound, each part now and then one of those that parsers read differently.

Lists repeat what is usual, so that a request is often sound as a whole. No choice is hidden in code.
"""

from tests.fuzz.choices import Choices

METHODS = (b"POST",) * 8 + (b"GET",) * 4 + (b"DELETE", b"HEAD", b"OPTIONS", b"PUT", b"M-SEARCH")
ODD_METHODS = (
    b"get",
    b"Post",
    b"CONNECT",
    b"PRI",
    b"SOURCE",
    b"DESCRIBE",
    b"G\0T",
    b"BREW",
    b"",
    b"P\tOST",
    b"QUERY",
)
TARGETS = (b"/v1/chat/completions",) * 4 + (b"/", b"/v1/models", b"/a?b=c&d", b"/socket")
ODD_TARGETS = (
    *(
        b"*",
        b"http://h/v1/models",
        b"https://u@h:1/x",
        b"//x",
        b"x:1",
        b"",
        b"x",
        b"/a#b",
        b"/%00",
        b"/a|b^`{}",
    ),
    *(b"/\x80", b"/\tx", b"/a b", b"/\0", b"/\x7f", b"/a\rb", b"/" + b"a" * 300, b"?x", b"HTTP/1.1"),
)
VERSIONS = (b"HTTP/1.1",) * 8 + (b"HTTP/1.0",)
ODD_VERSIONS = (
    *(
        b"HTTP/0.9",
        b"HTTP/1.2",
        b"HTTP/2.0",
        b"HTTP/2",
        b"HTTP/1.1 ",
        b"http/1.1",
        b"HTTP/01.1",
        b"HTTP/1.10",
    ),
    *(b"RTSP/1.0", b"RTSP/1.1", b"ICE/1.0", b"", b"HTTP/1,1", b"HTTP/+1.1", b" HTTP/1.1", b"HTTP/ 1.1"),
)
SPACES = (b"  ", b"\t", b"", b" \t ", b"\x0b")
LINE_ENDS = (b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\r\n", b"", b"\0\r\n", b" \r\n")
BEFORE = (b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
BETWEEN = (b":", b":\t", b":   ", b" : ", b"\t:", b": \x0b", b" ", b"", b":\r\n ", b":\0", b"::")
HOSTS = (
    (),
    (b"host: x", b"Host: x"),
    (b"Host: x", b"HOST: y"),
    (b"Host:",),
    (b"Host: a b",),
    (b"host:x \t",),
)
FIELDS = (
    *(
        b"authorization: Bearer k",
        b"x: y",
        b"Accept: */*",
        b"X-Empty:",
        b"x-spaces: a  b ",
        b"Cookie: a=b; c",
    ),
    *(b"Expect: 100-continue", b"expect: 100-continue ", b"Content-Encoding: gzip"),
    *(b"TE: trailers", b"Trailer: x", b"Keep-Alive: 5", b"Proxy-Connection: close"),
)
CONNECTIONS = (
    *(b"Connection: close", b"Connection: keep-alive", b"connection: Close", b"Connection: close, x"),
    *(
        b"Connection: x , close ",
        b"Connection: keep-alive, close",
        b"Connection: close\r\nConnection: keep-alive",
    ),
    *(
        b"Connection: ,,close",
        b"Connection: x close",
        b'Connection: "close"',
        b"Connection: closed",
        b"Connection:",
    ),
    *(
        b"Connection: keep-alive\r\nConnection: close",
        b"Connection: upgrade\r\nUpgrade: websocket",
        b"Upgrade: h2c",
    ),
    *(
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x",
        b"Connection: content-length",
    ),
)
UPGRADES = CONNECTIONS[-5:-1] + (b"Connection: upgrade\r\nUpgrade: websocket",) * 4
ODD_FIELDS = (
    *(b"Expect: 200-ok", b"Expect: 100-continue, x", b"Expect:"),
    *(
        b"x: a\r\n b",
        b"x: a\r\n\tb",
        b" x: y",
        b"x y: z",
        b": y",
        b"x",
        b"x: \0",
        b"x: a\x0bb",
        b"x: \x01",
        b"x: \x7f",
    ),
    *(
        b"x: \xff",
        b"\xff: x",
        b"x(: y",
        b"x: a\rb",
        b"x: a\nb: c",
        b"x:\r\n",
        b"x: a\r\n\r\n",
        b"x\0: y",
        b'"x": y',
    ),
    *(b"x: " + b"y" * 300, b"x" * 300 + b": y", b"x: a\r\r\n", b"x:\x85y", b"x: \xa0"),
)
# %d is the body's length, %x that in hex
LENGTHS = (
    *(
        b"0%d",
        b"000000000%d",
        b"+%d",
        b"-%d",
        b"0x%x",
        b"%d_0",
        b"%d,%d",
        b"%d, %d",
        b"%d %d",
        b"%d.0",
        b"%de0",
        b"",
        b"%x",
    ),
    *(
        b"%d\t",
        b"\t%d",
        b"%d;",
        b'"%d"',
        b"18446744073709551616",
        b"18446744073709551%d",
        b"99999999",
        b"1",
        b"0",
        b"%d\r\n 1",
    ),
    *(b"%d\0", b"\x0b%d", b"%d\xc2\xb2", b"\xb2", b"4294967296", b"0000000000000000000000000000%d"),
)
CODINGS = (
    *(
        b"Chunked",
        b"CHUNKED",
        b"chunked ",
        b"\tchunked",
        b"gzip, chunked",
        b"chunked, gzip",
        b"xchunked",
        b"chunkedx",
    ),
    *(
        b"chunked, identity",
        b"identity",
        b"chunked, chunked",
        b"chunked,",
        b",chunked",
        b"",
        b"chunked;q=1",
        b"chun\0ked",
    ),
    *(
        b'"chunked"',
        b"'chunked'",
        b"\x0bchunked",
        b"chunked\r\n , identity",
        b"gzip\r\nTransfer-Encoding: chunked",
    ),
    *(
        b"chunked\r\nTransfer-Encoding: identity",
        b"chunked\r\ntransfer-encoding: chunked",
        b"identity, chunked",
    ),
)
CODING_NAMES = (b"transfer-encoding", b"Transfer_Encoding", b"TRANSFER-ENCODING", b"Transfer-Encoding ")
LENGTH_NAMES = (
    b"content-length",
    b"CONTENT-LENGTH",
    b"Content_Length",
    b"Content-Length ",
    b" Content-Length",
)
SIZES = (
    *(
        b"%X",
        b"0%x",
        b"0x%x",
        b"+%x",
        b"-%x",
        b" %x",
        b"%x ",
        b"%x\t",
        b"%d",
        b"00000000000000000000000%x",
        b"",
        b"%x_0",
        b"%xg",
    ),
    *(
        b"1000000000000000%x",
        b"ffffffffffffffff",
        b"fffffffffffffff0",
        b"7fffffff",
        b"80000000",
        b"100000000",
        b"%x\0",
        b"%x,",
    ),
)
EXTENSIONS = (
    *(
        b";a",
        b";a=b",
        b';a="b;c"',
        b";a=b;c=d",
        b" ;a",
        b"; a",
        b";a =b",
        b";",
        b";;",
        b';a="',
        b";a=\0",
        b";a\x0b",
        b";\n",
    ),
    *(b';a="\r\n"', b";a\r\n5", b";" + b"a" * 300, b";a=\xff", b"\r", b";a\rb", b';a="\\""'),
)
LASTS = (b"00", b"0" * 25, b"", b"-0", b"0x0", b"0 ", b"0\0")
TRAILERS = (
    *(
        b"x: y\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"x\r\n",
        b" x: y\r\n",
        b"x: y\n",
        b"\n",
        b"\r",
    ),
    *(b"authorization: Bearer other\r\n", b"Host: y\r\n", b"\0\r\n"),
)
BEHIND = (b" ", b"\r\nx: y", b"\t", b"\r\nConnection: close", b"\n", b"\0")
INNER = b"GET /inner HTTP/1.1\r\nHost: x\r\n\r\n"
BODIES = (
    *(
        b"",
        b"{}",
        b"hello",
        b'{"model":"gpt-test"}',
        b"\r\n",
        b"\r\n\r\n",
        b"0\r\n\r\n",
        b"\0\xff" * 8,
        b"a" * 300,
    ),
    *(
        INNER,
        b"\r\n\r\n" + INNER,
        b"0\r\n\r\n" + INNER,
        b"5\r\nhello\r\n0\r\n\r\n",
        b"x\r\n\r\n\r\ny",
        b"\r",
        b"\n\n",
    ),
)
CALM, MILD, WILD = (False,), (False,) * 24 + (True,), (False,) * 7 + (True,)
"""How often something odd is chosen in a request."""


def conversation(choices: Choices) -> list[bytes]:
    """What one client sends on a connection: a request or some, each in bytes of its own."""
    if not choices.upto(7):
        return Grammar(choices).repeated()
    if not choices.upto(15):
        return Grammar(choices).upgrade()
    return [request(choices) for _ in range(1 + choices.of((0, 0, 0, 0, 1, 1, 2, 4)))]


def request(choices: Choices) -> bytes:
    """One request, or what a parser may take for one."""
    return Grammar(choices).request()


class Grammar:
    """One request's grammar, as calm or as wild as it was chosen to be."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        self._of = choices.of
        self._odds: tuple[bool, ...] = choices.of((CALM, CALM, MILD, MILD, WILD))

    def _is_odd(self) -> bool:
        return self._odds is not CALM and self._of(self._odds)

    def _often(self, usual: bytes, odd: tuple[bytes, ...]) -> bytes:
        return self._of(odd) if self._is_odd() else usual

    def request(self) -> bytes:
        """The whole of it."""
        lines, payload = self.framed(self._of(BODIES))
        fields = [*(self._of(HOSTS) if self._is_odd() else (b"Host: x",)), *lines]
        for _ in range(self._of((0, 0, 0, 1, 1, 2, 3))):
            fields.append(self._often(self._of(FIELDS), ODD_FIELDS))
        if not self._choices.upto(5):
            fields.append(self._of(CONNECTIONS))
        if not self._choices.upto(5):
            fields.insert(0, fields.pop(self._choices.upto(len(fields) - 1))) if fields else None
        head = self._often(b"\r\n", LINE_ENDS).join([self.first_line(), *fields])
        return head + b"\r\n" + self._often(b"\r\n", LINE_ENDS) + payload

    def first_line(self) -> bytes:
        """A request line, with what comes before it."""
        method = self._often(self._of(METHODS), ODD_METHODS)
        target = self._often(self._of(TARGETS), ODD_TARGETS)
        version = self._often(self._of(VERSIONS), ODD_VERSIONS)
        first, second = self._often(b" ", SPACES), self._often(b" ", SPACES)
        return self._often(b"", BEFORE) + method + first + target + second + version

    def framed(self, body: bytes) -> tuple[list[bytes], bytes]:
        """Header lines that frame a body, and the body as it is sent."""
        kind = self._of(("none", "length", "length", "chunked", "chunked"))
        if self._is_odd():
            kind = self._of(("both", "lengths", "stray"))
        between = self._often(b": ", BETWEEN)
        if kind == "none":
            return [], b""
        if kind == "stray":
            return [], body
        if kind == "length":
            return [self._length(body, between)], body
        if kind == "lengths":
            return [self._length(body, between), self._length(self._of((body, body + b"x")), b": ")], body
        name = self._often(b"Transfer-Encoding", CODING_NAMES)
        lines = [name + between + self._often(b"chunked", CODINGS)]
        payload = self.chunked(body)
        if kind == "both":
            lines.insert(self._choices.upto(1), self._length(self._of((payload, body, b"")), b": "))
        return lines, payload

    def chunked(self, body: bytes) -> bytes:
        """The body in chunks."""
        data, at = b"", 0
        while at < len(body):
            size = min(len(body) - at, 1 + self._of((0, 3, 10, 1000)))
            head = _filled(self._often(b"%x", SIZES), size) + self._extension()
            data += head + self._often(b"\r\n", LINE_ENDS)
            data += body[at : at + size] + self._often(b"\r\n", LINE_ENDS)
            at += size
        last = self._often(b"0", LASTS) + self._extension() + b"\r\n" + self._often(b"", TRAILERS)
        return data + last + self._often(b"\r\n", LINE_ENDS)

    def repeated(self) -> list[bytes]:
        """A head that repeats but for its length, as on a kept connection; what comes may differ from what it says."""
        more = [self._of(FIELDS + CONNECTIONS) for _ in range(self._of((0, 0, 1, 2)))]
        head = b"\r\n".join([self.first_line(), b"Host: x", *more, b"Content-Length: "])
        pieces = []
        for _ in range(2 + self._choices.upto(4)):
            body = self._of(BODIES)
            length = _filled(self._often(b"%d", LENGTHS), len(body)) + self._often(b"", BEHIND)
            piece = head + length + b"\r\n\r\n" + body
            if self._is_odd():
                piece = self._of(
                    (piece[: self._choices.upto(len(piece))], piece + INNER, piece + b"x", piece[:-1])
                )
            pieces.append(piece)
        return pieces

    def upgrade(self) -> list[bytes]:
        """A request for another protocol, perhaps behind another request and before bytes that look like one."""
        lines, payload = self.framed(self._of(BODIES)) if self._is_odd() else ([], b"")
        line = self._often(
            b"GET /socket HTTP/1.1", (b"POST /socket HTTP/1.1", b"GET / HTTP/1.1", b"CONNECT x:1 HTTP/1.1")
        )
        head = b"\r\n".join([line, b"Host: x", self._of(UPGRADES), *lines, b"\r\n"])
        return [
            *(self._of(([], [INNER]))),
            head + payload,
            *self._of(([], [INNER], [b"\x81\x05hello", INNER, INNER])),
        ]

    def _length(self, body: bytes, between: bytes) -> bytes:
        name = self._often(b"Content-Length", LENGTH_NAMES)
        return name + between + _filled(self._often(b"%d", LENGTHS), len(body))

    def _extension(self) -> bytes:
        if self._is_odd():
            return self._of(EXTENSIONS)
        return self._of((b"",) * 8 + (b";a", b";a=b", b';a="b;c"'))


def _filled(pattern: bytes, size: int) -> bytes:
    return pattern.replace(b"%d", b"%d" % size).replace(b"%x", b"%x" % size).replace(b"%X", b"%X" % size)
