"""A request as the mock received it, and the record that a vendor's room gets to answer it.

Holds no vendor's format and decides nothing.
"""

import urllib.parse
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from outlay.testing.answer import Answer, Identity
from outlay.testing.behaviour import Behaviour, Resolve
from outlay.testing.meter import Tokens

MALFORMED = (TypeError, AttributeError, KeyError, IndexError, ValueError)
"""What a body of an unexpected shape leads to in a room that reads it loosely."""


class Call(msgspec.Struct, gc=False):
    """A request as it was received."""

    method: str
    path: str
    """Without the query."""
    query: str
    headers: list[tuple[bytes, bytes]]
    """Names in lower case, in order."""
    body: bytes
    received_at: int
    """UTC nanoseconds."""

    def header(self, name: bytes) -> str | None:
        """The first value of a header (lower-case name)."""
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return None

    def parameter(self, name: str) -> str | None:
        """The first value of a query parameter."""
        if name not in self.query:
            return None
        return next(iter(urllib.parse.parse_qs(self.query).get(name, ())), None)


class Ask(NamedTuple):
    """What a room answers."""

    call: Call
    captures: Mapping[str, str]
    """The path's named parts, percent-decoded."""
    resolve: Resolve
    identity: Identity

    @property
    def body(self) -> bytes:
        return self.call.body

    @property
    def deployment(self) -> str | None:
        """The model that the path names (Azure); it wins over the body's."""
        return self.captures.get("deployment")


Reply = tuple[Answer, Behaviour | None]
"""The behaviour is None if the request was refused before it applied: the answer goes out as it is."""
Handler = Callable[[Ask], Reply]


class Charge(NamedTuple):
    """What a job that was started by an earlier call bills now."""

    call: Call
    """The call that started it."""
    answer: Answer
    """Model, tier and ids under which it is billed."""
    tokens: Tokens
    job: str


BookCharge = Callable[[Charge], None]
