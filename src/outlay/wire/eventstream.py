"""AWS event streams (`application/vnd.amazon.eventstream`): binary frames cut from bytes, and made. Pure.

A frame is: total length (4 bytes), length of the headers (4), CRC-32 of these eight (4), headers, payload, CRC-32 of
all before (4), big endian. https://smithy.io/2.0/aws/amazon-eventstream.html. Must not know what is in a payload.
"""

import zlib
from typing import Final

import msgspec

MAX_FRAME_BYTES: Final = 16 * 1024 * 1024 + 128 * 1024
"""Largest frame that AWS sends: 16 MiB of payload and 128 KiB of headers."""
_PRELUDE_BYTES: Final = 12
_CRC_BYTES: Final = 4
_STRING: Final = 7
# bytes of a header's value by its type; 6 and 7 are preceded by their length
_SIZES: Final = (0, 0, 1, 2, 4, 8, -1, -1, 8, 16)


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame: its text headers (`:event-type`, `:message-type`, `:exception-type`) and payload."""

    headers: dict[str, str]
    payload: bytes


class FrameSplitter:
    """Turns chunks into whole frames; `is_broken` once a length or checksum is wrong, and nothing is read any more."""

    __slots__ = ("_held", "is_broken")

    def __init__(self) -> None:
        self._held = bytearray()
        self.is_broken = False

    def push(self, chunk: bytes) -> list[Frame]:
        """The frames completed by this chunk; the rest is held, at most one frame of it."""
        if self.is_broken:
            return []
        self._held += chunk
        frames: list[Frame] = []
        start = 0
        while len(self._held) - start >= _PRELUDE_BYTES:
            total = int.from_bytes(self._held[start : start + 4], "big")
            size = int.from_bytes(self._held[start + 4 : start + 8], "big")
            prelude_crc = int.from_bytes(self._held[start + 8 : start + 12], "big")
            least = _PRELUDE_BYTES + size + _CRC_BYTES
            if not least <= total <= MAX_FRAME_BYTES or prelude_crc != zlib.crc32(
                self._held[start : start + 8]
            ):
                return self._break(frames)
            if len(self._held) - start < total:
                break
            frame = _frame(bytes(self._held[start : start + total]), size)
            if frame is None:
                return self._break(frames)
            frames.append(frame)
            start += total
        del self._held[:start]
        return frames

    @property
    def is_between_frames(self) -> bool:
        """Whether nothing is held: a frame of our own may follow."""
        return not self._held and not self.is_broken

    def _break(self, frames: list[Frame]) -> list[Frame]:
        self.is_broken = True
        self._held.clear()
        return frames


def encode_frame(headers: dict[str, str], payload: bytes) -> bytes:
    """A frame with text headers."""
    packed = b"".join(
        bytes((len(name),)) + name.encode() + bytes((_STRING,)) + len(text).to_bytes(2, "big") + text
        for name, text in ((name, value.encode()) for name, value in headers.items())
    )
    total = _PRELUDE_BYTES + len(packed) + len(payload) + _CRC_BYTES
    prelude = total.to_bytes(4, "big") + len(packed).to_bytes(4, "big")
    body = prelude + zlib.crc32(prelude).to_bytes(4, "big") + packed + payload
    return body + zlib.crc32(body).to_bytes(4, "big")


def _frame(data: bytes, headers_size: int) -> Frame | None:
    if int.from_bytes(data[-_CRC_BYTES:], "big") != zlib.crc32(data[:-_CRC_BYTES]):
        return None
    end = _PRELUDE_BYTES + headers_size
    headers = _headers(data[_PRELUDE_BYTES:end])
    return None if headers is None else Frame(headers, data[end:-_CRC_BYTES])


def _headers(data: bytes) -> dict[str, str] | None:
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        name_end = at + 1 + data[at]
        if name_end >= len(data) or data[name_end] >= len(_SIZES):
            return None
        name, kind = data[at + 1 : name_end].decode("utf-8", "replace"), data[name_end]
        at = name_end + 1
        size = _SIZES[kind]
        if size < 0:
            size = int.from_bytes(data[at : at + 2], "big")
            at += 2
        if at + size > len(data):
            return None
        if kind == _STRING:
            found[name] = data[at : at + size].decode("utf-8", "replace")
        at += size
    return found
