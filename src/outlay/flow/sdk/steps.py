"""What one call asks of the outside, and how it ends: `exchange` yields steps, a sync or async driver takes them."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple, Protocol

from outlay.flow.gateway.refusal import Refusal


class ReadBody(NamedTuple):
    """-> bytes: the whole body of the request."""


class Send(NamedTuple):
    """-> Incoming: send the request, with this body if it was changed. May raise what the transport raises."""

    body: bytes | None = None
    changes: tuple[tuple[str, str], ...] = ()
    """Headers to set."""
    is_free: bool = False


class Fetch(NamedTuple):
    """-> (status, bytes): a GET of our own under the request's credential."""

    path: str
    max_bytes: int


class ReadAll(NamedTuple):
    """-> Read: the whole answer, up to a limit."""

    answer: "Incoming"
    max_bytes: int


class Pause(NamedTuple):
    """Wait."""

    seconds_ms: int


Step = ReadBody | Send | Fetch | ReadAll | Pause


class Incoming(NamedTuple):
    """The head of an answer."""

    status: int
    headers: list[tuple[bytes, bytes]]
    """Names in lower case."""
    response: Any
    """The HTTP library's own object."""

    def header(self, name: bytes) -> bytes:
        """First value of a header; empty if it is not there."""
        return next((value for key, value in self.headers if key == name), b"")


class Read(NamedTuple):
    """What was read of an answer. `rest` is left unread if the limit was reached."""

    body: bytes
    rest: Iterator[bytes] | AsyncIterator[bytes] | None = None


class Tap(Protocol):
    """Looks at a stream on its way to the caller."""

    def feed(self, chunk: bytes) -> bytes:
        """What goes on of a chunk."""

    def end(self) -> bytes:
        """The provider has ended the stream; what was kept back."""

    def broke(self, error: BaseException) -> None:
        """The stream broke off, or its reader was cancelled."""

    def closed(self) -> None:
        """The reader wants no more."""

    def lost(self) -> None:
        """Nobody has the stream any more; called by the garbage collector."""


class Refused(NamedTuple):
    """The call does not leave."""

    refusal: Refusal


class Whole(NamedTuple):
    """An answer that has been read."""

    answer: Incoming
    body: bytes
    headers: tuple[tuple[str, str], ...]


class Streamed(NamedTuple):
    """An answer that goes on as it comes."""

    answer: Incoming
    tap: Tap | None
    headers: tuple[tuple[str, str], ...]
    read: Read | None = None
    """What was read before it turned out to be too much."""


Outcome = Refused | Whole | Streamed
