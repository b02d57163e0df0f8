"""What the gateway sees of a stream: bytes in, bytes to forward out, and what was read on the way."""

from typing import Protocol

from outlay.wire.intent import Usage
from outlay.wire.sse import EventSplitter, event_data


class StreamReader(Protocol):
    """Reads usage from a stream while it passes. Never raises, whatever the upstream sends."""

    usage: Usage | None
    """The provider's last statement; None until there is one, or when it cannot be trusted."""
    usage_is_final: bool
    """The statement is of the whole answer, not of a stream still running (`message_start`, continuous stats): until
    then `usage.output_tokens` is only a lower bound."""
    is_done: bool
    """The dialect's end mark was seen: the answer is whole."""
    error_seen: bool
    """The provider sent an error event."""
    response_id: str | None
    finish_reason: str | None

    @property
    def saw_output(self) -> bool:
        """Any generated content was seen."""

    @property
    def is_between_events(self) -> bool:
        """What was forwarded ends with a whole event: one of our own may follow."""

    @property
    def deltas(self) -> int:
        """Events that brought generated content, counted once per choice."""

    @property
    def output_bytes(self) -> int:
        """UTF-8 bytes of generated text, reasoning and tool arguments seen."""

    def feed(self, chunk: bytes) -> bytes:
        """Take what the upstream sent; return what goes to the client now (may be empty)."""

    def end(self) -> bytes:
        """The upstream closed: the bytes still held back."""


MAX_UNREAD_BYTES = 64 * 1024
"""Content kept unread per stream: a usual answer whole, and 64 MB for a thousand open streams."""


class EventReader:
    """A `StreamReader` over server-sent events; a dialect says what one event's data means (`read_data`)."""

    __slots__ = (
        "_deltas",
        "_dropped_last",
        "_holds_back",
        "_is_ending",
        "_output_bytes",
        "_splitter",
        "_unread",
        "_unread_bytes",
        "error_seen",
        "finish_reason",
        "is_done",
        "response_id",
        "usage",
        "usage_is_final",
    )

    def __init__(self, *, holds_back: bool) -> None:
        """`holds_back`: `read_data` may drop events, so partial events wait; else bytes pass at once."""
        self._splitter = EventSplitter()
        self._holds_back = holds_back
        self._dropped_last = False
        self._is_ending = False
        self.usage: Usage | None = None
        self.usage_is_final = False
        self.is_done = False
        self.error_seen = False
        self._deltas = 0
        self._output_bytes = 0
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self.response_id: str | None = None
        self.finish_reason: str | None = None

    @property
    def deltas(self) -> int:
        """See `StreamReader`."""
        self._read_unread()
        return self._deltas

    @property
    def output_bytes(self) -> int:
        """See `StreamReader`."""
        self._read_unread()
        return self._output_bytes

    @property
    def saw_output(self) -> bool:
        """See `StreamReader`."""
        return self.deltas > 0

    @property
    def is_between_events(self) -> bool:
        """See `StreamReader`."""
        splitter = self._splitter
        return not splitter.is_broken and (self._holds_back or splitter.is_between_events)

    def is_content_only(self, chunk: bytes) -> bool:
        """Whether whole events can only hold generated content: no usage, end, error or identity. A dialect knows.

        False is always safe; True for an event that says more would lose it.
        """
        return False

    def _count_output(self, size: int) -> None:
        if size:
            self._deltas += 1
            self._output_bytes += size

    def _read_unread(self) -> None:
        unread, self._unread, self._unread_bytes = self._unread, [], 0
        for chunk in unread:
            for event in chunk.split(b"\n\n"):
                if event:
                    self.read_data(event_data(event + b"\n\n"))

    def read_data(self, data: bytes) -> bool:
        """Take one event's data (may be empty); return whether the event is to be forwarded."""
        raise AssertionError("a dialect defines this")

    def feed(self, chunk: bytes) -> bytes:
        splitter = self._splitter
        if (
            splitter.is_between_events
            and chunk.endswith(b"\n\n")
            and b"\r" not in chunk
            and self.is_content_only(chunk)
        ):
            # content is only looked into if a broken call must be counted; most never are
            self._unread.append(chunk)
            self._unread_bytes += len(chunk)
            if self._unread_bytes > MAX_UNREAD_BYTES:
                self._read_unread()
            return chunk
        whole = len(chunk) - 2
        if whole > 0 and splitter.is_between_events and b"\r" not in chunk:
            # one whole event a chunk, as engines send them: nothing to hold, and only the data to copy
            if chunk.find(b"\n") == whole and chunk.endswith(b"\n") and chunk.startswith(b"data: "):
                self._dropped_last = not self.read_data(chunk[6:-2])
                return b"" if self._dropped_last else chunk
            if chunk.find(b"\n\n") == whole:
                self._dropped_last = not self.read_data(event_data(chunk))
                return b"" if self._dropped_last else chunk
        kept = self._read_events(splitter.push(chunk))
        if splitter.is_broken:
            self.usage = None
            kept.append(splitter.flush())
        return b"".join(kept) if self._holds_back else chunk

    def end(self) -> bytes:
        rest = self._splitter.flush()
        if rest and not self._splitter.is_broken:
            # a server that omits the last blank line still means its event; a cut one says nothing about usage
            self._is_ending = True
            kept = self._read_events([rest])
            return b"".join(kept) if self._holds_back else b""
        return rest if self._holds_back else b""

    def _read_events(self, events: list[bytes]) -> list[bytes]:
        kept = []
        for event in events:
            # a lone LF ends the event before it (its CR ended a chunk) and shares its fate
            if event != b"\n":
                self._dropped_last = not self.read_data(event_data(event))
            if not self._dropped_last:
                kept.append(event)
        return kept
