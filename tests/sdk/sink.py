"""A server that takes every request and answers it with little: what reached it is the truth about what was sent.

`Sink.requests` are (method, path, wants an upgrade). `guard` makes every attempt to connect elsewhere an error, at the
level of the operating system's sockets, whatever library it comes from.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER = (
    b'{"id":"obj_1","object":"thing","status":"completed","data":[],"output":[],"choices":[],"content":[],"type":"message"'
    b',"role":"assistant","model":"gpt-test","input_tokens":1,"processing_status":"in_progress","candidates":[],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2,"input_tokens":1,"output_tokens":1},'
    b'"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":1,"totalTokenCount":2}}'
)


LINE = (
    b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions",'
    b'"body":{"model":"gpt-test","messages":[],"max_tokens":5}}'
)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def _take(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        if self.headers.get("transfer-encoding"):
            while (size := int(self.rfile.readline().strip() or b"0", 16)) or self.rfile.readline() == b"":
                self.rfile.read(size + 2)
        self.rfile.read(length)
        path = self.path.partition("?")[0]
        self.server.seen.append((self.command, path, bool(self.headers.get("upgrade"))))
        to = self.server.redirects.get(path)
        if to is not None:
            self.send_response(307)
            self.send_header("location", to)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        body = LINE
        if not path.endswith("/content"):
            body = ANSWER
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _take

    def log_message(self, *_: Any) -> None:
        return


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    seen: list[tuple[str, str, bool]]
    redirects: dict[str, str]


class Sink:
    """`with Sink() as sink: sink.url`."""

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.seen = []
        self._server.redirects = {}
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def redirect(self, path: str, to: str) -> None:
        """Answer a path with a 307 from now on."""
        self._server.redirects[path] = to

    @property
    def requests(self) -> list[tuple[str, str, bool]]:
        return list(self._server.seen)

    def __enter__(self) -> "Sink":
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class Escaped(Exception):
    """Something tried to connect past the sink."""


_allowed: list[int] = []
escapes: list[object] = []


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if not _allowed or event not in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen"):
        return
    if event == "subprocess.Popen":
        if args[1][:1] == ["uname"]:
            return  # the SDKs' own headers say on what they run
        escapes.append((event, args[1]))
        raise Escaped(event)
    host, port = (args[0], args[1]) if event == "socket.getaddrinfo" else (args[1][0], args[1][1])
    if (host, int(port or 0)) != ("127.0.0.1", _allowed[0]):
        escapes.append((event, host, port))
        raise Escaped(f"{event} {host}:{port}")


@contextmanager
def guard(port: int) -> Iterator[list[object]]:
    """While it is on, nothing but the sink's port can be reached. Yields the attempts."""
    if not getattr(sys, "_outlay_watch", False):
        # an audit hook stays for ever: one is enough
        sys.addaudithook(_watch)
        sys._outlay_watch = True  # type: ignore[attr-defined]
    escapes.clear()
    _allowed.append(port)
    try:
        yield escapes
    finally:
        _allowed.clear()
