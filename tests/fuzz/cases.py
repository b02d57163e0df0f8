"""What was once taken and must not be, or was framed otherwise than others frame it: by name.

Each was found by the harness in this folder, or is the kind of request it exists for.
"""

from tests.fuzz.messages import INNER

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HELLO = HEAD + b"Content-Length: 5\r\n\r\nhello"
CODED = HEAD + b"Transfer-Encoding: %b\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
ASKS_UPGRADE = b"Connection: upgrade\r\nUpgrade: websocket\r\n"
MANY_LINES = CODED.replace(b"5\r\nhello", b"400\r\n" + b"\r\n" * 512) % b"chunked"
LONG = b"x: " + b"y" * 9_000

REFUSED: dict[str, tuple[bytes, ...]] = {
    "HTTP/0.9": (b"GET /\r\nHost: x\r\n\r\n",),
    "HTTP/0.9, line feed": (b"GET /\nHost: x\r\n\r\n",),
    "HTTP/0.9 by name": (b"GET / HTTP/0.9\r\nHost: x\r\n\r\n",),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",),
    "RTSP": (b"GET / RTSP/1.1\r\nHost: x\r\n\r\n",),
    "ICE": (b"SOURCE / ICE/1.0\r\nHost: x\r\n\r\n",),
    "two spaces before the target": (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",),
    "two spaces behind the target": (b"GET /  HTTP/1.1\r\nHost: x\r\n\r\n",),
    "line feed before": (b"\n" + GET,),
    "carriage return before": (b"\r" + GET,),
    "carriage return before, apart": (b"\r", GET),
    "a line feed, then a head that repeats": (HELLO, b"\n", HELLO),
    "empty lines before": (b"\r\n\r\n" + GET,),
    "no host": (b"GET / HTTP/1.1\r\n\r\n",),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n",),
    "two hosts in HTTP/1.0": (b"GET / HTTP/1.0\r\nHost: x\r\nhost: x\r\n\r\n",),
    "gzip, chunked": (CODED % b"gzip, chunked",),
    "gzip and chunked": (CODED % b"gzip\r\nTransfer-Encoding: chunked",),
    "identity": (CODED % b"identity",),
    "xchunked": (CODED % b"xchunked",),
    "chunked twice": (CODED % b"chunked, chunked",),
    "chunked in HTTP/1.0": (CODED.replace(b"/1.1", b"/1.0") % b"chunked",),
    "length and coding": (CODED % b"chunked\r\nContent-Length: 5",),
    "coding and length": (HELLO.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),),
    "signed length": (HELLO.replace(b": 5", b": +5"),),
    "length with an underscore": (HELLO.replace(b": 5", b": 0_5"),),
    "lengths in one field": (HELLO.replace(b": 5", b": 5, 5"),),
    "chunk size with a sign": ((CODED % b"chunked").replace(b"5\r\nh", b"+5\r\nh"),),
    "chunk size with a prefix": ((CODED % b"chunked").replace(b"5\r\nh", b"0x5\r\nh"),),
    "chunk size that overflows": ((CODED % b"chunked").replace(b"5\r\nh", b"10000000000000005\r\nh"),),
    "chunk without its line end": ((CODED % b"chunked").replace(b"hello\r\n", b"helloXX"),),
    "line feed in a chunk extension": ((CODED % b"chunked").replace(b"5\r\nh", b"5;a\n5\r\nh"),),
    "a trailer": ((CODED % b"chunked")[:-2] + b"authorization: Bearer y\r\n\r\n",),
    "folded": (b"GET / HTTP/1.1\r\nHost: x\r\nx: y\r\n z\r\n\r\n",),
    "space before the colon": (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",),
    "upgrade with a body": (
        b"GET /socket HTTP/1.1\r\nHost: x\r\n" + ASKS_UPGRADE + b"Content-Length: 32\r\n\r\n" + INNER,
    ),
    "upgrade with a body in chunks": (
        b"GET /socket HTTP/1.1\r\nHost: x\r\n"
        + ASKS_UPGRADE
        + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "CONNECT": (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n" + INNER,),
}
"""Nothing of these is taken, however they come in: but for what stands in a piece of its own before."""

TAKEN: dict[str, tuple[tuple[bytes, ...], tuple[bytes, ...]]] = {
    # pieces; bodies
    "one": ((HELLO,), (b"hello",)),
    "one empty line before": ((GET, b"\r\n" + HELLO), (b"", b"hello")),
    "an empty line that comes in two": ((HELLO, b"\r", b"\n" + HELLO), (b"hello", b"hello")),
    "spaces behind a value": (
        (HELLO.replace(b"\r\n\r\n", b" \t\r\nExpect: 100-continue \r\n\r\n"),),
        (b"hello",),
    ),
    "a head that repeats": (
        (HELLO, HELLO.replace(b"hello", b"HELLO"), HELLO + GET),
        (b"hello", b"HELLO", b"hello", b""),
    ),
    "requests in a body": ((HEAD + b"Content-Length: 32\r\n\r\n" + INNER + GET,), (INNER, b"")),
    "a body of blank lines": (
        (CODED.replace(b"5\r\nhello", b"4\r\n\r\n\r\n") % b"Chunked" + GET,),
        (b"\r\n\r\n", b""),
    ),
    "a body of many blank lines": ((MANY_LINES, GET), (b"\r\n" * 512, b"")),
    "a blank line cut in two": ((HELLO[:40], HELLO[40:46], HELLO[46:] + GET), (b"hello", b"")),
    "HTTP/1.0 in chunks is refused, its length is not": ((HELLO.replace(b"/1.1", b"/1.0"),), (b"hello",)),
    "HTTP/1.0 without a host": ((b"GET / HTTP/1.0\r\n\r\n",), (b"",)),
    "HTTP/1.0 that asks for both": (
        (b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",),
        (b"",),
    ),
    "close": ((HELLO.replace(b"\r\n\r\n", b"\r\nConnection: x ,close\r\n\r\n"),), (b"hello",)),
}

BEHIND_A_RUNNING_REQUEST: dict[str, tuple[tuple[bytes, ...], int]] = {
    # pieces that arrive while the first is answered; requests taken in all
    "a switch that is refused, then a request": ((GET, GET[:-2] + ASKS_UPGRADE + b"\r\n", GET), 1),
    "a switch that is granted, then what looks like a request": (
        (GET, b"GET /socket HTTP/1.1\r\nHost: x\r\n" + ASKS_UPGRADE + b"\r\n", GET),
        2,
    ),
    "a head that is too large, then its end": ((GET, GET[:-2] + LONG, LONG + b"\r\n\r\n" + GET), 1),
    "a bad request, then a good one": ((GET, b"GET /\r\n\r\n", GET), 1),
}
