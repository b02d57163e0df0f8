"""Heads that repeat: on a kept connection a client sends the same request head but for its content-length. Pure.

A head that llhttp has accepted at the start of a message means the same whenever the same bytes stand there again, so
it is compared instead of parsed. Only the digits of the one content-length may differ. Everything else (other bytes,
chunked or encoded bodies, `Expect`, a body that has not arrived whole) goes the ordinary way.
"""

MAX_REBUILDS = 4
"""A client whose heads keep changing is not worth comparing."""
_LENGTH = b"\r\ncontent-length:"
_MAX_DIGITS = 10


class HeadShape:
    """An accepted head, split at its content-length's digits."""

    __slots__ = ("_prefix", "_suffix")

    def __init__(self, prefix: bytes, suffix: bytes) -> None:
        self._prefix = prefix
        self._suffix = suffix

    def body_of(self, data: bytes, max_body_bytes: int) -> bytes | None:
        """The body, if `data` is exactly one request with this head and a whole body; else None."""
        prefix = self._prefix
        if not data.startswith(prefix):
            return None
        start = len(prefix)
        end = data.find(b"\r", start, start + _MAX_DIGITS + 1)
        if end <= start or not data.startswith(self._suffix, end):
            return None
        digits = data[start:end]
        if not digits.isdigit():
            return None
        length = int(digits)
        head_bytes = end + len(self._suffix)
        if length > max_body_bytes or len(data) != head_bytes + length:
            return None
        return data[head_bytes:]


def shape_of(data: bytes) -> HeadShape | None:
    """The shape of the head that `data` begins with, if it has one content-length and no other framing."""
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    head = data[: head_end + 4]
    lower = head.lower()
    at = lower.find(_LENGTH)
    if at < 0 or lower.count(b"content-length") != 1 or b"transfer-encoding" in lower:
        return None
    start = at + len(_LENGTH)
    while head[start : start + 1] == b" ":
        start += 1
    end = head.index(b"\r", start)
    if not head[start:end].isdigit():
        return None
    return HeadShape(head[:start], head[end:])
