"""Where a request begins and where it can end, and what of its head is refused although llhttp takes it. Pure.

No second parser: llhttp frames, and this only refuses. llhttp does not show the request line as it came, nor where the
next request begins, and it takes heads that others read differently (RFC 9112, 2.2, 3, 3.2 and 6.1).
"""

import re

_LINE = re.compile(rb"(?:\r\n)?[A-Z-]+ [\x21-\x7e]+ HTTP/1\.[01]\r\n")
"""One space each, one protocol, no HTTP/0.9; one empty line before it, as some clients send behind a body."""
MAX_LINE_BYTES = 16 * 1024
"""Of a request line that has not ended, with what stands before it."""
MAX_PIECES = 256
"""Of one request. A chunked body with more blank lines is not cut any more: what is pipelined behind it is refused."""
_BLANK = b"\r\n\r\n"
_NO_LINES = b"\r\n"


class RequestBounds:
    """Cuts what arrives into pieces, so that a request never ends but at the end of a piece."""

    __slots__ = ("_line", "_pieces", "_tail", "body_left", "is_between", "is_http10")

    def __init__(self) -> None:
        self._tail = b""
        self._pieces = 0
        self._line: bytes | None = b""
        """The next request line so far; None if it is whole and sound."""
        self.is_between = True
        """Nothing has come of the next request: one that begins now begins within a piece."""
        self.is_http10 = False
        self.body_left = 0
        """Bytes to come of a body with a content-length."""

    @property
    def is_begun(self) -> bool:
        """The request line is whole and sound."""
        return self._line is None

    def end_request(self) -> None:
        """The next byte is of another request."""
        self._line = self._tail = b""
        self._pieces = 0
        self.is_between = True

    def piece_end(self, data: bytes, start: int) -> int:
        """End of the piece of `data` that begins at `start`; -1 if a request line stands there that is not sound."""
        if self.body_left:
            end = min(start + self.body_left, len(data))
            self.body_left -= end - start
            return end
        search = start
        self.is_between = False
        while self._line is not None:
            line_end = data.find(b"\n", search) + 1
            if not line_end:
                self._line += data[search:]
                return len(data) if len(self._line) <= MAX_LINE_BYTES else -1
            line = self._line + data[search:line_end]
            search = line_end
            if _LINE.fullmatch(line):
                self._line = None
                self.is_http10 = line.endswith(b"0\r\n")
                # the line's own end may be the first half of a blank line
                if line_end > 1:
                    search -= 2
                else:
                    self._tail = _NO_LINES
            elif line != _NO_LINES:
                return -1
            else:
                self._line = line
                if search == len(data):
                    return search
        if self._pieces > MAX_PIECES:
            return len(data)
        # A head ends with a blank line, and so does a chunked body. More pieces than requests do no harm.
        tail = self._tail
        if tail:
            seam = (tail + data[search : search + 3]).find(_BLANK)
            found = search + seam - len(tail) if seam >= 0 else data.find(_BLANK, search)
            end = found + 4 if seam >= 0 or found >= 0 else len(data)
        else:
            end = data.find(_BLANK, search) + 4
            if end < 4:
                end = len(data)
        self._tail = data[end - 3 : end] if end - search > 2 else (tail + data[search:end])[-3:]
        if end < len(data):
            self._pieces += 1
        return end


def is_kept_http10(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a client of HTTP/1.0 asks, without contradiction, that its connection be kept."""
    words = [
        word.strip(b" \t").lower()
        for name, value in headers
        if name == b"connection"
        for word in value.split(b",")
    ]
    return b"keep-alive" in words and b"close" not in words
