"""AWS's binary event stream, as the mock writes it: length-prefixed messages with typed headers and two CRCs.

Layout from AWS's public description of `application/vnd.amazon.eventstream`.
"""

import struct
import zlib

CONTENT_TYPE = b"application/vnd.amazon.eventstream"
_STRING = 7
"""Type of a header whose value is text."""


def message(headers: dict[str, str], payload: bytes) -> bytes:
    """One message: prelude (lengths and their CRC), headers, payload, CRC of it all."""
    encoded = b"".join(_header(name, value) for name, value in headers.items())
    total = 12 + len(encoded) + len(payload) + 4
    prelude = struct.pack(">II", total, len(encoded))
    prelude += struct.pack(">I", zlib.crc32(prelude))
    body = prelude + encoded + payload
    return body + struct.pack(">I", zlib.crc32(body))


def event(kind: str, payload: bytes) -> bytes:
    """A message that carries an event."""
    return message(
        {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}, payload
    )


def exception(kind: str, payload: bytes) -> bytes:
    """A message that reports an error in mid-stream."""
    return message(
        {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}, payload
    )


def _header(name: str, value: str) -> bytes:
    text, data = name.encode(), value.encode()
    return struct.pack(">B", len(text)) + text + struct.pack(">BH", _STRING, len(data)) + data
