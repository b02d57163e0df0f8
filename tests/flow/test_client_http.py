"""Hostile and unusual HTTP on real sockets: framing, limits, order of answers, and what never reaches the provider."""

import gzip
import json
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from outlay.flow.gateway.snapshot import Disclose, Settings
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import LedgerReader
from outlay.testing import MockProvider
from tests.harness import MOCK_PRICES, SECRET, RunningGateway, budget

CHAT = "/v1/chat/completions"
BODY = json.dumps(
    {"model": "gpt-test", "max_tokens": 20, "messages": [{"role": "user", "content": "hello"}]}
).encode()
SMALL = Settings(disclose=Disclose.ALL, max_body_bytes=20_000, max_header_bytes=8_000, max_headers=40)


class Wire:
    """One connection of a client that does as it likes."""

    def __init__(self, url: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=10)
        self._read = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next whole answer with a content-length (or chunked), leaving what follows."""
        head = self.until(b"\r\n\r\n").decode()
        lines = head.split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        if headers.get("transfer-encoding") == "chunked":
            body = self.until(b"0\r\n\r\n")
        else:
            body = self.exactly(int(headers.get("content-length", "0")))
        return int(lines[0].split()[1]), headers, body

    def until(self, mark: bytes) -> bytes:
        while mark not in self._read:
            self._more()
        found, _, self._read = self._read.partition(mark)
        return found

    def exactly(self, count: int) -> bytes:
        while len(self._read) < count:
            self._more()
        found, self._read = self._read[:count], self._read[count:]
        return found

    def is_closed(self) -> bool:
        """Whether the gateway closes without another byte."""
        assert self._read == b""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _more(self) -> None:
        data = self.socket.recv(65536)
        assert data, f"closed; had read {self._read!r}"
        self._read += data


class Stage:
    def __init__(self, mock: MockProvider, gateway: RunningGateway) -> None:
        self.mock, self.gateway = mock, gateway
        self.wires: list[Wire] = []

    def wire(self) -> Wire:
        self.wires.append(Wire(self.gateway.url))
        return self.wires[-1]

    def one(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send on a connection of its own and read one answer."""
        wire = self.wire()
        wire.send(data)
        return wire.answer()


@contextmanager
def open_stage(folder: Path, settings: Settings) -> Iterator[Stage]:
    with (
        MockProvider(prices=MOCK_PRICES) as mock,
        RunningGateway(folder / "l.db", mock.url, [budget("all", "100")], settings=settings) as gateway,
    ):
        made = Stage(mock, gateway)
        yield made
        for wire in made.wires:
            wire.socket.close()
        mock.wait_for(0)
        until = time.monotonic() + 10
        while gateway.call(lambda: gateway.books.open_holds) and time.monotonic() < until:
            time.sleep(0.01)
        gateway.call(gateway.books.flush)
        found = audit(gateway.path)
        assert found.findings == ()
        assert found.open_holds == 0
        assert found.spend_nanos == mock.meter.total_nanos


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with open_stage(tmp_path, SMALL) as made:
        yield made


def post(
    body: bytes = BODY, path: str = CHAT, *, length: int | None = None, version: str = "1.1", **headers: str
) -> bytes:
    lines = {"host": "x", "authorization": f"Bearer {SECRET}"}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    if "transfer-encoding" not in lines:
        lines["content-length"] = str(len(body) if length is None else length)
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/{version}\r\n{head}\r\n".encode() + body


def code_of(body: bytes) -> str:
    return str(json.loads(body)["error"]["code"])


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def sent_bodies(stage: Stage) -> list[dict[str, Any]]:
    return [json.loads(call.body) for call in stage.mock.calls]


# -- what must work -------------------------------------------------------------------------------------------


def test_keep_alive_and_pipelining_answer_in_order(stage: Stage) -> None:
    wire = stage.wire()
    requests = [
        post(json.dumps({**json.loads(BODY), "max_tokens": count}).encode()) for count in range(1, 11)
    ]
    # the first is slow: the others must wait for it
    stage.mock.queue({"first_byte_ms": 100})
    wire.send(b"".join(requests))
    answers = [wire.answer() for _ in requests]
    assert [status for status, _, _ in answers] == [200] * 10
    usages = [json.loads(body)["usage"]["completion_tokens"] for _, _, body in answers]
    assert usages == list(range(1, 11))
    wire.send(post())
    assert wire.answer()[0] == 200


def test_pipelined_in_pieces_behind_a_stream(stage: Stage) -> None:
    stage.mock.behave(chunk_ms=2)
    wire = stage.wire()
    wire.send(post(json.dumps({**json.loads(BODY), "stream": True}).encode()))
    for part in (post()[:50], post()[50:], post(), b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"):
        wire.send(part)
        time.sleep(0.005)
    answers = [wire.answer() for _ in range(4)]
    assert [status for status, _, _ in answers] == [200] * 4
    assert b"[DONE]" in answers[0][2]
    assert answers[3][2] == b'{"status":"ok"}'


def test_slow_bytes(stage: Stage) -> None:
    wire = stage.wire()
    request = post()
    for at in range(0, len(request), 7):
        wire.send(request[at : at + 7])
    assert wire.answer()[0] == 200


def test_chunked_body(stage: Stage) -> None:
    status, _, _ = stage.one(post(chunked(BODY[:10], BODY[10:11], BODY[11:]), transfer_encoding="chunked"))
    assert status == 200
    assert sent_bodies(stage)[0]["max_tokens"] == 20


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "GZIP"])
def test_encoded_body_is_metered_decoded(stage: Stage, encoding: str) -> None:
    pack = zlib.compress if encoding == "deflate" else gzip.compress
    assert stage.one(post(pack(BODY), content_encoding=encoding))[0] == 200
    assert stage.mock.calls[0].body == BODY
    assert stage.mock.calls[0].header(b"content-encoding") is None


def test_expect_is_answered_after_the_key_is_known(stage: Stage) -> None:
    wire = stage.wire()
    request = post(Expect="100-continue")
    head, _, body = request.partition(b"\r\n\r\n")
    wire.send(head + b"\r\n\r\n")
    assert wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue"
    wire.send(body)
    assert wire.answer()[0] == 200
    stranger = stage.wire()
    stranger.send(head.replace(SECRET.encode(), b"sk-wrong") + b"\r\n\r\n")
    stranger.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        stranger.socket.recv(1)
    stranger.socket.settimeout(10)
    stranger.send(body)
    assert stranger.answer()[0] == 401


def test_http_1_0(stage: Stage) -> None:
    wire = stage.wire()
    wire.send(post(version="1.0"))
    status, headers, _ = wire.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert wire.is_closed()
    wire = stage.wire()
    wire.send(post(json.dumps({**json.loads(BODY), "stream": True}).encode(), version="1.0"))
    head = wire.until(b"\r\n\r\n").lower()
    assert b"transfer-encoding" not in head
    assert wire.until(b"data: [DONE]\n\n").startswith(b"data: ")
    assert wire.is_closed()


def test_connection_close_is_kept(stage: Stage) -> None:
    wire = stage.wire()
    wire.send(post(connection="close"))
    assert wire.answer()[0] == 200
    assert wire.is_closed()


def test_head_has_no_body(stage: Stage) -> None:
    wire = stage.wire()
    wire.send(
        f"HEAD /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {SECRET}\r\n\r\n".encode() + post()
    )
    head = wire.until(b"\r\n\r\n").lower()
    assert head.startswith(b"http/1.1 404") and b"content-length: 0" not in head
    assert wire.answer()[0] == 200


def test_heads_that_repeat_mean_the_same(stage: Stage) -> None:
    packed = gzip.compress(BODY)
    wire = stage.wire()
    # an encoded request, with a plain one behind it in the same bytes; then the encoded one again, alone
    wire.send(post(packed, content_encoding="gzip") + post())
    assert [wire.answer()[0] for _ in range(2)] == [200, 200]
    for request in (
        post(packed, content_encoding="gzip"),
        post(),
        post(),
        post(packed, content_encoding="gzip"),
    ):
        wire.send(request)
        assert wire.answer()[0] == 200
    assert {call.body for call in stage.mock.calls} == {BODY}


def test_a_repeated_head_is_held_to_its_length(stage: Stage) -> None:
    wire = stage.wire()
    for _ in range(3):
        wire.send(post())
        assert wire.answer()[0] == 200
    # shorter than its length, then the rest; longer than its length; too large
    request = post()
    wire.send(request[:-5])
    wire.send(request[-5:])
    assert wire.answer()[0] == 200
    wire.send(post() + b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    assert wire.answer()[0] == 200
    assert wire.answer()[2] == b'{"status":"ok"}'
    wire.send(post(b" " * 20_001))
    assert wire.answer()[0] == 413


def test_a_providers_trailers_are_no_headers(tmp_path: Path) -> None:
    said = json.dumps(
        {"id": "x", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    ).encode()
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    answer += chunked(said)[:-2] + b"set-cookie: evil=1\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)
                connection.recv(65536)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with RunningGateway(tmp_path / "l.db", url, [budget("all", "100")]) as gateway:
            wire = Wire(gateway.url)
            wire.send(post())
            status, headers, _ = wire.answer()
            wire.socket.close()
        thread.join(10)
    assert status == 200
    assert "set-cookie" not in headers
    assert "x-outlay-cost-usd" in headers


# -- what must be refused, and never be forwarded -----------------------------------------------------------------

SMUGGLED = {
    "both framings": post(chunked(BODY), transfer_encoding="chunked", content_length="5"),
    "both framings, length first": (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n"
        + chunked(BODY)
    ),
    "two lengths": post().replace(b"content-length:", b"content-length: 3\r\ncontent-length:"),
    "same length twice": post().replace(
        b"content-length:", b"content-length: %d\r\ncontent-length:" % len(BODY)
    ),
    "odd length": post().replace(b"content-length: ", b"content-length: +"),
    "hex length": post().replace(b"content-length: ", b"content-length: 0x"),
    "negative length": post().replace(b"content-length: ", b"content-length: -"),
    "unknown coding": post(chunked(BODY), transfer_encoding="gzip, identity"),
    "space before colon": post().replace(b"host:", b"host :"),
    "folded header": post().replace(b"host: x\r\n", b"host: x\r\n y\r\n"),
    "bare line feed": post().replace(b"\r\n", b"\n"),
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "nul in header": post().replace(b"host: x", b"host: x\0y"),
    "chunk size": post(b"zz\r\n" + BODY + b"\r\n0\r\n\r\n", transfer_encoding="chunked"),
    "noise": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 3,
    "upgrade": post(b"", upgrade="websocket", connection="upgrade"),
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_bad_framing_is_refused_and_closes(stage: Stage, name: str) -> None:
    wire = stage.wire()
    wire.send(SMUGGLED[name])
    status, headers, body = wire.answer()
    assert 400 <= status < 500
    assert headers["x-should-retry"] == "false"
    assert code_of(body) in ("bad_http", "upgrade_not_supported")
    assert wire.is_closed()
    assert not stage.mock.calls


def test_a_bad_request_behind_a_good_one(stage: Stage) -> None:
    wire = stage.wire()
    wire.send(post() + SMUGGLED["two lengths"])
    # one answer, for the first request that is answered at all; then the end
    status, _, _ = wire.answer()
    assert wire.is_closed()
    stage.gateway.call(stage.gateway.books.flush)
    if status != 200:
        assert not stage.mock.calls, "what is answered as failed was not sent"
        with LedgerReader(stage.gateway.path) as reader:
            assert reader.totals()["charges"] == 0, "and nothing was held for it"


def test_too_many_pipelined(stage: Stage) -> None:
    wire = stage.wire()
    wire.send(post() * 40)
    data = b""
    try:
        while part := wire.socket.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    assert data.count(b"HTTP/1.1 200") == len(stage.mock.calls)
    assert b"too_many_pipelined" in data


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (post(b"", length=20_001), 413, "body_too_large"),
        (post(b"", length=10**18), 413, "body_too_large"),
        (post(b"", length=10**30), 400, "bad_http"),
        (post(chunked(*[b"x" * 5_000] * 5), transfer_encoding="chunked"), 413, "body_too_large"),
        (post(gzip.compress(b"0" * 5_000_000), content_encoding="gzip"), 413, "body_too_large"),
        (post(zlib.compress(b"0" * 5_000_000), content_encoding="deflate"), 413, "body_too_large"),
        (post(gzip.compress(BODY)[:-6], content_encoding="gzip"), 400, "bad_encoding"),
        (post(gzip.compress(BODY) + b"tail", content_encoding="gzip"), 400, "bad_encoding"),
        (post(b"not gzip", content_encoding="gzip"), 400, "bad_encoding"),
        (post(BODY, content_encoding="br"), 415, "unsupported_encoding"),
        (
            post(gzip.compress(gzip.compress(BODY)), content_encoding="gzip, gzip"),
            415,
            "unsupported_encoding",
        ),
        (post(Expect="200-ok"), 400, "bad_expect"),
        (post(**{f"h{number}": "v" for number in range(50)}), 431, "too_many_headers"),
        (post(path="/v1/" + "a" * 9_000), 431, "url_too_long"),
    ],
)
def test_limits(stage: Stage, request_bytes: bytes, status: int, code: str) -> None:
    wire = stage.wire()
    wire.send(request_bytes)
    found = wire.answer()
    assert (found[0], code_of(found[2])) == (status, code)
    assert not stage.mock.calls


def endless(wire: Wire, data: bytes, most_bytes: int) -> int:
    """Send `data` again and again; how many bytes went before the gateway closed (or `most_bytes`)."""
    sent = 0
    try:
        while sent < most_bytes:
            sent += wire.socket.send(data)
    except OSError:
        return sent
    return most_bytes


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"POST /v1/chat/completions HTTP/1.1\r\nhost: ", b"x" * 4096),
        (b"POST /v1/chat/completions HTTP/1.1\r\n", b"a: b\r\n" * 500),
        (b"POST /", b"x" * 4096),
        (post(b"1\r\n{\r\n0\r\n", transfer_encoding="chunked"), b"t: v\r\n" * 500),
        (post(b"1\r\n{\r\n0\r\nt: ", transfer_encoding="chunked"), b"x" * 4096),
    ],
    ids=["one header", "many headers", "address", "trailers", "one trailer"],
)
def test_what_never_ends_is_cut(stage: Stage, start: bytes, piece: bytes) -> None:
    wire = stage.wire()
    wire.send(start)
    assert endless(wire, piece, 64_000_000) < 64_000_000
    assert not stage.mock.calls


def test_trailers_are_no_headers(stage: Stage) -> None:
    # a key, an identity or an encoding must not come in behind the body
    anonymous = post(b"", transfer_encoding="chunked").replace(
        f"authorization: Bearer {SECRET}\r\n".encode(), b""
    )
    trailer = f"authorization: Bearer {SECRET}\r\nx-outlay-customer: other\r\n".encode()
    data = chunked(BODY)[:-2] + trailer + b"\r\n"
    assert stage.one(anonymous + data)[0] in (400, 401)
    assert not stage.mock.calls


@pytest.mark.parametrize(
    "path",
    [
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat/completions/",
        "/v1/chat%2fcompletions",
        "/v1/chat/%63ompletions",
        "/v1/./chat/completions",
        "/x/../v1/chat/completions",
        "/v1/%2e%2e/v1/chat/completions",
        "/V1/chat/completions",
        "/v1/chat/completions;a=b",
        "/v1/responses/compact",
        "/v1/threads",
        "/v1/uploads",
        "/v1/images/variations",
        "/v1/realtime/client_secrets",
        "/v1/messages/batches/x",
        "/_mock/meter",
        "http://127.0.0.1/v1/chat/completions",
        "/v1/models/../chat/completions",
    ],
)
def test_what_is_not_a_route_is_not_forwarded(stage: Stage, path: str) -> None:
    status, headers, body = stage.one(post(path=path))
    assert (status, code_of(body)) == (404, "route_not_found")
    assert headers["x-should-retry"] == "false"
    assert not stage.mock.calls


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_methods_of_a_route_are_not_forwarded(stage: Stage, method: str) -> None:
    assert stage.one(post().replace(b"POST", method.encode(), 1))[0] == 404
    assert not stage.mock.calls


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"gpt-test","max_tokens":1,"max_tokens":9000,"messages":[]}',
        b'{"model":"gpt-test","Max_Tokens":9000,"messages":[]}',
        b'{"model":"gpt-test","model":"gpt-other","messages":[]}',
        b'{"model":"gpt-test","n":1,"\\u006e":50,"messages":[]}',
        b'{"model":"gpt-test","N":50,"messages":[]}',
        b'{"model":"gpt-test","max_tokens":1e3,"messages":[]} trailing',
        b'\xef\xbb\xbf{"model":"gpt-test","messages":[]}',
        b"[]",
        b"",
        b"{" * 5_000,
    ],
)
def test_bodies_that_two_parsers_may_read_differently(stage: Stage, body: bytes) -> None:
    status, _, said = stage.one(post(body))
    assert status in (400, 422)
    assert "code" in json.loads(said)["error"]
    assert not stage.mock.calls


def test_what_is_ours_or_hop_by_hop_stays_here(stage: Stage) -> None:
    wire = stage.wire()
    wire.send(
        post(
            **{
                "x-outlay-run": "r",
                "X-Outlay-Evil": "1",
                "cookie": "session=1",
                "te": "trailers",
                "keep-alive": "timeout=5",
                "proxy-authorization": "Basic x",
                "x-api-key": "sk-ant-else",
                "openai-organization": "org-1",
                "idempotency-key": "k",
            }
        )
    )
    assert wire.answer()[0] == 200
    [call] = stage.mock.calls
    names = {name for name, _ in call.headers}
    assert {b"openai-organization", b"idempotency-key"} <= names
    ours = {name for name in names if name.startswith(b"x-outlay-")}
    assert ours == {b"x-outlay-request-id"}, "the one the harness asks for"
    assert names.isdisjoint({b"cookie", b"te", b"keep-alive", b"proxy-authorization", b"x-api-key"})
    assert call.header(b"authorization") == "Bearer mock-key"


def test_a_query_goes_on(stage: Stage) -> None:
    assert stage.one(post(path=CHAT + "?api-version=2"))[0] == 200
    assert stage.mock.calls[0].query == "api-version=2"


@pytest.mark.parametrize(
    "header",
    [
        "x-outlay-run: a*",
        "x-outlay-run: " + "x" * 129,
        "x-outlay-run: a\tb",
        "x-outlay-customer: \xff",
        "x-outlay-tags: " + ",".join(f"t{number}=1" for number in range(17)),
        "x-outlay-tags: novalue",
        'x-outlay-tags: {"a": 1}',
    ],
)
def test_odd_identity_headers_are_refused(stage: Stage, header: str) -> None:
    request = post().replace(b"host: x", b"host: x\r\n" + header.encode("latin-1"))
    status, _, body = stage.one(request)
    assert (status, code_of(body)) == (400, "bad_header")
    assert not stage.mock.calls


def test_a_slow_reader_holds_the_provider_back(tmp_path: Path) -> None:
    """The gateway must not take in a stream that its client does not read."""
    settings = Settings(disclose=Disclose.ALL, default_max_output_tokens=2_000_000)
    tokens = 1_500_000  # about 9 MB of words: more than sockets take up
    with open_stage(tmp_path, settings) as stage:
        stage.mock.behave(output_tokens=tokens, tokens_per_chunk=2_000)
        wire = stage.wire()
        body = {"model": "gpt-test", "messages": [{"role": "user", "content": "x"}], "stream": True}
        wire.send(post(json.dumps(body).encode()))
        wire.until(b"data: ")
        gateway = stage.gateway.gateway

        def buffered() -> int:
            return max(connection.transport.get_write_buffer_size() for connection in gateway._connections)

        peak = 0
        for _ in range(50):
            peak = max(peak, stage.gateway.call(buffered))
            time.sleep(0.01)
        assert 0 < peak < 2_000_000
        assert stage.gateway.call(lambda: not next(iter(gateway._connections)).can_write)
        received, tail = 0, b""
        while b"data: [DONE]" not in tail:
            data = wire.socket.recv(1 << 20)
            assert data
            received += len(data)
            tail = tail[-20:] + data
        assert received > 5_000_000
