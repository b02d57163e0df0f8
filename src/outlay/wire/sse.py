"""Server-sent events: cuts a byte stream into whole events, whatever the chunks and line ends (WHATWG HTML 9.2).

Must not know what is in an event.
"""

import re
from typing import Final

MAX_EVENT_BYTES: Final = 8 * 1024 * 1024
"""Largest event that is held in memory; a longer one ends the reading (not the forwarding)."""

# atomic groups: without them CR LF would also match as two line ends
_EVENT_END: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_BOM: Final = b"\xef\xbb\xbf"
_LF: Final = 10
_SPACE: Final = 32


class EventSplitter:
    """Turns chunks into raw events, each with its line ends, so that joining them gives the stream again.

    A CR that ends a chunk ends its event at once; should an LF follow, that LF comes as an event of its own
    (`b"\\n"`), which belongs to the event before it.
    """

    __slots__ = ("_ended_in_cr", "_held", "_held_bytes", "is_between_events", "is_broken")

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._ended_in_cr = False
        self.is_between_events = True
        """Nothing is held, and no LF may still belong to the event before."""
        self.is_broken = False
        """An event was longer than MAX_EVENT_BYTES: nothing is held or cut any more."""

    def push(self, chunk: bytes) -> list[bytes]:
        """The events completed by this chunk; the rest is held. Once broken: none, everything is held."""
        if not chunk:
            return []
        events: list[bytes] = []
        if self._ended_in_cr:
            self._ended_in_cr = False
            if chunk[0] == _LF:
                events.append(b"\n")
                chunk = chunk[1:]
        start = 0
        if self._held:
            # an end may lie across the border: of the bytes before it, the last one is enough to see it
            if self.is_broken or _EVENT_END.search(self._held[-1][-1:] + chunk) is None:
                self._hold(chunk)
                return events
            start = self._held_bytes - 1
            self._held.append(chunk)
            chunk = self.flush()
        done = 0
        if not self.is_broken:
            done = self._cut(chunk, start, events)
        self._hold(chunk[done:])
        self.is_between_events = not (self._held or self._ended_in_cr or self.is_broken)
        return events

    def flush(self) -> bytes:
        """Take what is held: an event without its blank line, or whatever came since the reading broke."""
        rest = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        return rest

    def _cut(self, data: bytes, start: int, events: list[bytes]) -> int:
        """Append the whole events of `data`, looking for ends from `start`; return where the last one ends."""
        done = 0
        has_cr = b"\r" in data
        while True:
            if has_cr:
                match = _EVENT_END.search(data, start)
                start = match.end() if match is not None else 0
            else:
                start = data.find(b"\n\n", start) + 2
                if start == 1:
                    start = 0
            if start == 0:
                return done
            if start - done > MAX_EVENT_BYTES:
                self.is_broken = True
                return done
            events.append(data[done:start])
            done = start
            if done == len(data):
                self._ended_in_cr = has_cr and data.endswith(b"\r")
                return done

    def _hold(self, rest: bytes) -> None:
        if rest:
            self._held.append(rest)
            self._held_bytes += len(rest)
            if self._held_bytes > MAX_EVENT_BYTES:
                self.is_broken = True


def event_data(event: bytes) -> bytes:
    """The `data` of one raw event, its lines joined by LF; empty if it has none (comments, `event:` alone)."""
    start = event.find(b"data:")
    is_at_line_start = start == 0 or (start > 0 and event[start - 1] == _LF)
    if is_at_line_start and event.find(b"\n", start) == len(event) - 2 and b"\r" not in event:
        # by far the most: the first data line is the last line
        return event[start + 6 : -2] if event[start + 5] == _SPACE else event[start + 5 : -2]
    if event.startswith(_BOM):
        event = event[3:]
    if b"\r" in event:
        event = event.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    data: list[bytes] = []
    for line in event.split(b"\n"):
        if line.startswith(b"data:"):
            data.append(line[6:] if line.startswith(b"data: ") else line[5:])
    return data[0] if len(data) == 1 else b"\n".join(data)
