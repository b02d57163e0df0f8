"""What one side read of a connection's bytes, in words both sides share."""

from dataclasses import dataclass, field
from enum import Enum

Fields = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Message:
    """A request whose head was taken. `body` is what came of it; `is_whole`: all of it."""

    method: bytes
    target: bytes
    fields: Fields
    body: bytes
    is_whole: bool
    keeps_alive: bool | None = None
    """Whether another request may follow; None while it is not whole."""


class End(Enum):
    """How things stand when all bytes are in."""

    OPEN = "waits for more"
    CLOSED = "closes, as the last request asked"
    REFUSED = "refused"
    SWITCHED = "speaks another protocol"


@dataclass(slots=True)
class Reading:
    """All of it."""

    messages: list[Message] = field(default_factory=list)
    end: End = End.OPEN
    why: str = ""
    rests: list[bytes] = field(default_factory=list)
    """What stood behind each whole message (reference); behind the one that switched protocols (ours)."""


def comparable(fields: list[tuple[bytes, bytes]]) -> Fields:
    """Fields without the content-length, which the gateway keeps to itself; names lower-case."""
    return tuple(
        (name.lower(), value.lower() if name.lower() == b"transfer-encoding" else value)
        for name, value in fields
        if name.lower() != b"content-length"
    )
